//! The same calls for plain threads.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::Result;
use tokio::runtime::Handle;

use crate::capability::Capabilities;
use crate::key::Key;
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store};

/// A store for threads that are not part of a runtime (compression workers, libraries with
/// blocking callbacks). Never call it from async code: waiting inside a runtime thread panics.
/// From `spawn_blocking` it is fine.
#[derive(Debug, Clone)]
pub struct BlockingStore {
    /// The store itself.
    pub store: Arc<dyn Store>,
    /// The runtime that does the work.
    pub handle: Handle,
}

impl BlockingStore {
    /// A store whose work is done by the runtime of `handle`.
    pub fn new(store: Arc<dyn Store>, handle: Handle) -> Self {
        Self { store, handle }
    }

    fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.handle.block_on(call)
    }

    /// See [`Store::put`].
    pub fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.wait(self.store.put(key, data, mode))
    }

    /// See [`Store::get`].
    pub fn get(&self, key: &Key) -> Result<Bytes> {
        self.wait(self.store.get(key))
    }

    /// See [`Store::get_range`].
    pub fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.wait(self.store.get_range(key, range))
    }

    /// See [`Store::head`].
    pub fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.wait(self.store.head(key))
    }

    /// See [`Store::list`].
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.wait(self.store.list(prefix))
    }

    /// See [`Store::delete`].
    pub fn delete(&self, key: &Key) -> Result<()> {
        self.wait(self.store.delete(key))
    }

    /// See [`Store::describe`].
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// See [`Store::capabilities`].
    pub fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }
}
