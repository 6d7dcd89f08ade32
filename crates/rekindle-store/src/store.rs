//! The port: what every storage must do.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::{Fault, Result, codes};

use crate::capability::Capabilities;
use crate::key::Key;
use crate::lock::Locker;

/// What a store knows about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written last, by the clock of the storage.
    pub modified: Option<jiff::Timestamp>,
}

/// What to do when the object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Replace it.
    Overwrite,
    /// Leave it: equal bytes are [`PutOutcome::Existed`], other bytes are `STORE_EXISTS`.
    IfAbsent,
}

/// What a successful put did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutOutcome {
    /// The bytes are stored by this call.
    Written,
    /// The same bytes were there already (only with [`PutMode::IfAbsent`]).
    Existed,
}

/// Strict object storage.
///
/// Every method may be called from many tasks at once. `Ok` from [`put`](Store::put) means
/// durable, and readers see an object either whole or not at all.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Stores `data` under `key`.
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome>;

    /// The whole object; `STORE_NOT_FOUND` when there is none, `STORE_SHORT` when it came cut.
    async fn get(&self, key: &Key) -> Result<Bytes>;

    /// Exactly the bytes of `range`, or `STORE_SHORT` when the object does not hold all of them.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;

    /// Size and time; `None` only when the storage said for sure that there is no such object.
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>>;

    /// Every object below `prefix` (`""` or `"data/"`), at any depth, sorted by key. Complete, or
    /// an error. Foreign objects whose names are not usable keys are left out.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>>;

    /// Removes the object; an absent one is `Ok`.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// The URL, without secrets.
    fn describe(&self) -> String;

    /// What [`probe`](crate::probe) found out about this storage; unknown before.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// Keeps what a probe found, for [`capabilities`](Store::capabilities).
    fn keep_capabilities(&self, _found: Capabilities) {}

    /// Versions and retentions, where the storage has them (S3).
    fn locker(&self) -> Option<&dyn Locker> {
        None
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        (**self).put(key, data, mode).await
    }
    async fn get(&self, key: &Key) -> Result<Bytes> {
        (**self).get(key).await
    }
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        (**self).get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        (**self).head(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        (**self).list(prefix).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        (**self).delete(key).await
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    fn keep_capabilities(&self, found: Capabilities) {
        (**self).keep_capabilities(found);
    }
    fn locker(&self) -> Option<&dyn Locker> {
        (**self).locker()
    }
}

/// Judges an existing object under a key that was put with [`PutMode::IfAbsent`].
pub(crate) fn compare_existing(key: &Key, place: &str, wanted: &[u8], stored: &[u8]) -> Result<PutOutcome> {
    if wanted == stored {
        Ok(PutOutcome::Existed)
    } else {
        Err(Fault::new(codes::STORE_EXISTS, format!("put `{key}` into {place}: it exists with other content"))
            .hint("two writers use the same name; check that no second installation uses this repository with the same identity"))
    }
}

/// The error for an object that is not there.
pub(crate) fn not_found(verb: &str, key: &Key, place: &str) -> Fault {
    Fault::new(codes::STORE_NOT_FOUND, format!("{verb} `{key}` of {place}"))
}

/// The error for bytes that are missing or too many.
pub(crate) fn wrong_length(key: &Key, place: &str, wanted: u64, got: u64) -> Fault {
    Fault::new(codes::STORE_SHORT, format!("read `{key}` of {place}: wanted {wanted} bytes, got {got}"))
}

/// The length of a range; an upside-down range is our own mistake.
pub(crate) fn range_length(key: &Key, range: &Range<u64>) -> Result<u64> {
    range.end.checked_sub(range.start).ok_or_else(|| {
        Fault::new(codes::RUN_BUG, format!("read `{key}`: the range {}..{} is upside down", range.start, range.end))
    })
}

/// What a store around another one says of itself: all that its `inner` says. (The methods that wait are written out:
/// `async_trait` sees no macro inside of an `impl`.)
macro_rules! said_by_inner {
    () => {
        fn locker(&self) -> Option<&dyn $crate::lock::Locker> {
            self.inner.locker()
        }

        fn describe(&self) -> String {
            self.inner.describe()
        }

        fn capabilities(&self) -> $crate::capability::Capabilities {
            self.inner.capabilities()
        }

        fn keep_capabilities(&self, found: $crate::capability::Capabilities) {
            self.inner.keep_capabilities(found);
        }
    };
}
pub(crate) use said_by_inner;
