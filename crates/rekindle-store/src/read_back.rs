//! A store that reads back everything it writes.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::{Fault, Result, codes};

use crate::key::Key;
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, said_by_inner};

/// Around another store: `Ok` from [`put`](Store::put) means that the storage gave the same bytes
/// back.
#[derive(Debug)]
pub struct ReadBack<S> {
    inner: S,
}

impl<S: Store> ReadBack<S> {
    /// Around `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

#[async_trait]
impl<S: Store> Store for ReadBack<S> {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let outcome = self.inner.put(key, data.clone(), mode).await?;
        let stored = self.inner.get(key).await.map_err(|fault| fault.during(format!("read back `{key}`")))?;
        if stored == data {
            return Ok(outcome);
        }
        Err(Fault::new(codes::STORE_CHANGED, format!("read back `{key}` of {}", self.inner.describe()))
            .because("the storage gives other bytes than were written")
            .hint("another program writes there, or the storage is not sound: `rekindle doctor`"))
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.inner.head(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }

    said_by_inner!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{Action, Faulty, Op};
    use crate::memory::Memory;

    #[tokio::test]
    async fn what_a_storage_loses_or_changes_is_no_success() {
        let key = Key::new("data/00/x").unwrap();
        let data = Bytes::from_static(b"abc");
        let store = ReadBack::new(Faulty::new(Memory::new()));
        for (action, code) in [(Action::FlipBit(3), codes::STORE_CHANGED), (Action::Truncate(1), codes::STORE_CHANGED)]
        {
            store.inner.script(Op::Put, "data/", action);
            let fault = store.put(&key, data.clone(), PutMode::Overwrite).await.unwrap_err();
            assert!(fault.is(code), "{fault:?}");
        }
        assert!(store.put(&key, data, PutMode::Overwrite).await.is_ok());
    }
}
