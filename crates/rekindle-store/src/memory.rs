//! Objects in memory, for tests and rehearsals.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::Result;

use crate::key::{Key, check_prefix};
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, compare_existing, not_found, range_length, wrong_length};

type Objects = BTreeMap<Key, (Bytes, jiff::Timestamp)>;

/// A store that ends with the process.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<Objects>,
}

const PLACE: &str = "memory:";

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    // A panic elsewhere cannot leave the map half changed: every change is one call.
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for Memory {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let mut objects = self.objects();
        if mode == PutMode::IfAbsent
            && let Some((stored, _)) = objects.get(key)
        {
            return compare_existing(key, PLACE, &data, stored);
        }
        objects.insert(key.clone(), (data, jiff::Timestamp::now()));
        Ok(PutOutcome::Written)
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.objects().get(key).map(|(data, _)| data.clone()).ok_or_else(|| not_found("read", key, PLACE))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let length = range_length(key, &range)?;
        let data = self.get(key).await?;
        let size = data.len() as u64;
        if range.end > size {
            return Err(wrong_length(key, PLACE, length, size.saturating_sub(range.start)));
        }
        let position = |offset: u64| usize::try_from(offset).expect("an offset inside a buffer in memory");
        Ok(data.slice(position(range.start)..position(range.end)))
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        Ok(self.objects().get(key).map(|object| meta(key, object)))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let objects = self.objects();
        let below = objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        Ok(below.map(|(key, object)| meta(key, object)).collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key);
        Ok(())
    }

    fn describe(&self) -> String {
        PLACE.to_owned()
    }
}

fn meta(key: &Key, (data, modified): &(Bytes, jiff::Timestamp)) -> ObjectMeta {
    ObjectMeta { key: key.clone(), size: data.len() as u64, modified: Some(*modified) }
}
