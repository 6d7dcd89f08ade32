//! Our store behind the traits of `rustic_core`.
//!
//! Strict where its own OpenDAL backend is not: a failed LIST is an error and never an empty
//! list, an object whose name is no id is left alone, sizes are compared, nothing is written over
//! an existing object with other bytes. Lock files have no type in `rustic_core`, so it never
//! sees them.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rekindle_core::{Cancel, Fault, Result};
use rekindle_store::blocking::BlockingStore;
use rekindle_store::{Key, PutMode};
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};

use crate::lock::Watch;

/// What an adapter shares with whoever made it.
#[derive(Debug, Default)]
pub(super) struct Operation {
    /// Once raised every call fails: the engine knows no other way to be stopped.
    pub(super) cancel: Cancel,
    /// Asked before each removal: without the lock somebody else may need by now what is to go.
    pub(super) lock: Option<Watch>,
    pub(super) packs_removed: AtomicU64,
}

/// The store as `rustic_core` wants it.
#[derive(Debug)]
pub(super) struct Adapter {
    store: BlockingStore,
    operation: Arc<Operation>,
}

impl Adapter {
    pub(super) fn new(store: BlockingStore, operation: Arc<Operation>) -> Self {
        Self { store, operation }
    }

    /// The store, unless the operation is to stop.
    fn store(&self) -> RusticResult<&BlockingStore> {
        self.operation.cancel.check().map_err(carry)?;
        Ok(&self.store)
    }
}

/// Name of a repository file in restic's layout.
fn key(kind: FileType, id: &Id) -> Result<Key> {
    let hex = id.to_hex();
    match kind {
        FileType::Config => Key::new("config"),
        FileType::Pack => Key::new(&format!("data/{}/{}", &hex.as_str()[..2], hex.as_str())),
        _ => Key::new(&format!("{}/{}", kind.dirname(), hex.as_str())),
    }
}

/// Wraps our error so that `rustic_core` carries it to the surface; `run` takes it out again.
fn carry(fault: Fault) -> Box<RusticError> {
    let text = fault.chain();
    RusticError::with_source(ErrorKind::Backend, "{text}", fault).attach_context("text", text)
}

fn size_for_rustic(name: &str, size: u64) -> RusticResult<u32> {
    u32::try_from(size).map_err(|_| {
        RusticError::new(ErrorKind::Backend, "object `{name}` is larger than 4 GiB")
            .attach_context("name", name.to_owned())
    })
}

impl ReadBackend for Adapter {
    fn location(&self) -> String {
        self.store.describe()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let key = Key::new("config").map_err(carry)?;
            return match self.store()?.head(&key).map_err(carry)? {
                Some(meta) => Ok(vec![(Id::default(), size_for_rustic("config", meta.size)?)]),
                None => Ok(Vec::new()),
            };
        }
        let prefix = format!("{}/", kind.dirname());
        let mut found = Vec::new();
        for meta in self.store()?.list(&prefix).map_err(carry)? {
            let name = meta.key.as_str();
            let last = name.rsplit('/').next().unwrap_or(name);
            if last.len() != 64 {
                continue;
            }
            if let Ok(id) = Id::from_str(last) {
                found.push((id, size_for_rustic(name, meta.size)?));
            }
        }
        Ok(found)
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        let key = key(kind, id).map_err(carry)?;
        self.store()?.get(&key).map_err(carry)
    }

    fn read_partial(&self, kind: FileType, id: &Id, _cacheable: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        let key = key(kind, id).map_err(carry)?;
        let start = u64::from(offset);
        self.store()?.get_range(&key, start..start + u64::from(length)).map_err(carry)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        key(kind, id).map_or_else(|fault| fault.chain(), |key| key.to_string())
    }
}

impl WriteBackend for Adapter {
    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        let key = key(kind, id).map_err(carry)?;
        let data = Bytes::from(content.slice().iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>());
        self.store()?.put(&key, data, PutMode::IfAbsent).map_err(carry)?;
        Ok(())
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let key = key(kind, id).map_err(carry)?;
        self.operation.lock.as_ref().map_or(Ok(()), Watch::check).map_err(carry)?;
        self.store()?.delete(&key).map_err(carry)?;
        if kind == FileType::Pack {
            self.operation.packs_removed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
