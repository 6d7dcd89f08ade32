//! A store that moves no more than so many bytes per second.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::Result;
use tokio::time::Instant;

use crate::key::Key;
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, said_by_inner};

/// Folders of small objects that say that a run is alive.
const URGENT: [&str; 2] = ["locks/", "rekindle/leases/"];

/// Around another store: what is written and read is paid for in time.
///
/// An object goes at the speed of the line, and the next one waits until the bytes before it fit
/// into the limit. So the limit holds over some seconds, not within one object. Locks and leases are paid for like
/// the rest, but never wait: behind packs on a slow line they would grow stale while their run goes on.
#[derive(Debug)]
pub struct Limited<S> {
    inner: S,
    bytes_per_second: u64,
    /// Before this moment nothing more is moved.
    free_at: Mutex<Instant>,
}

impl<S: Store> Limited<S> {
    /// Around `inner`; a limit of 0 is one byte per second.
    pub fn new(inner: S, bytes_per_second: u64) -> Self {
        Self { inner, bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Books so many bytes and gives the moment at which they may be moved.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*free_at).max(now);
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        *free_at = start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        start
    }

    async fn pay(&self, key: &Key, bytes: usize) {
        let start = self.book(bytes, Instant::now());
        if !URGENT.iter().any(|folder| key.as_str().starts_with(folder)) {
            tokio::time::sleep_until(start).await;
        }
    }
}

#[async_trait]
impl<S: Store> Store for Limited<S> {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.pay(key, data.len()).await;
        self.inner.put(key, data, mode).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.pay(key, 0).await;
        let data = self.inner.get(key).await?;
        self.book(data.len(), Instant::now());
        Ok(data)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.pay(key, 0).await;
        let data = self.inner.get_range(key, range).await?;
        self.book(data.len(), Instant::now());
        Ok(data)
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
    use crate::memory::Memory;

    #[tokio::test]
    async fn each_object_waits_for_the_bytes_before_it() {
        let store = Limited::new(Memory::new(), 1000);
        let now = Instant::now();
        let starts: Vec<Duration> = [500, 2000, 0].map(|bytes| store.book(bytes, now) - now).to_vec();
        assert_eq!(starts, [Duration::ZERO, Duration::from_millis(500), Duration::from_millis(2500)]);
        // Time that passed unused is not saved up.
        let later = now + Duration::from_mins(1);
        assert_eq!(store.book(1, later), later);
        let key = Key::new("data/00/x").unwrap();
        let fast = Limited::new(Memory::new(), 1 << 40);
        fast.put(&key, Bytes::from_static(b"abc"), PutMode::Overwrite).await.unwrap();
        assert_eq!(fast.get(&key).await.unwrap(), Bytes::from_static(b"abc"));
    }

    #[tokio::test]
    async fn a_lock_does_not_wait_behind_a_pack() {
        let store = Limited::new(Memory::new(), 1);
        let key = |name: &str| Key::new(name).unwrap();
        store.put(&key("data/00/x"), Bytes::from_static(&[0; 3600]), PutMode::Overwrite).await.unwrap();
        let soon = Duration::from_millis(500);
        for key in ["locks/x", "rekindle/leases/x"].map(key) {
            let put = store.put(&key, Bytes::from_static(b"x"), PutMode::Overwrite);
            tokio::time::timeout(soon, put).await.unwrap().unwrap();
        }
        let index = key("index/x");
        let put = store.put(&index, Bytes::from_static(b"x"), PutMode::Overwrite);
        tokio::time::timeout(soon, put).await.unwrap_err();
    }
}
