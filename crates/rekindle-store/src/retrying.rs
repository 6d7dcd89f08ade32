//! Deadlines and bounded repetition around any store.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::fault::Retry;
use rekindle_core::{Fault, Result, codes};

use crate::capability::{Capabilities, Support};
use crate::cloud::asked_pause;
use crate::key::Key;
use crate::limits::Limits;
use crate::lock::Locker;
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, compare_existing};

/// A cut transfer is worth another try; an object that is short in the storage stays so.
const SHORT_ATTEMPTS_MAX: u32 = 3;

/// Repeats calls that failed for a reason that may pass, within [`Limits`].
///
/// Every call is safe to repeat: reads change nothing, an overwrite and a delete end in the same
/// state, and a put-if-absent whose first answer was lost finds its own bytes and is a success.
/// The last error is given back as it was; nothing is turned into an empty answer.
#[derive(Debug)]
pub struct Retrying<S> {
    inner: S,
    limits: Limits,
    capabilities: Mutex<Capabilities>,
}

impl<S: Store> Retrying<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, limits: Limits) -> Self {
        Self { inner, limits, capabilities: Mutex::default() }
    }

    /// Repeats `call` until it succeeds, cannot succeed, or a limit is reached.
    async fn repeat<T, F>(&self, what: impl Fn() -> String, mut call: impl FnMut(u32) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        let mut first_failure: Option<Instant> = None;
        loop {
            let fault = match tokio::time::timeout(self.limits.attempt, call(attempt)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(fault)) => fault,
                Err(_elapsed) => {
                    Fault::new(codes::STORE_TIMEOUT, format!("{} within {:?}", what(), self.limits.attempt))
                        .hint("check the network to the storage, or the disk")
                }
            };
            let since = *first_failure.get_or_insert_with(Instant::now);
            let pause = self.limits.pause_asked_for(attempt, rand::random(), asked_pause(&fault));
            let attempts_max = if fault.is(codes::STORE_SHORT) {
                SHORT_ATTEMPTS_MAX.min(self.limits.attempts_max)
            } else {
                self.limits.attempts_max
            };
            let over = attempt >= attempts_max || since.elapsed() + pause > self.limits.retry_budget;
            if fault.code().retry != Retry::Backoff || over {
                return Err(if attempt == 1 {
                    fault
                } else {
                    fault.during(format!("{} ({attempt} attempts)", what()))
                });
            }
            tracing::warn!(store = %self.inner.describe(), attempt, pause_ms = pause.as_millis(), error = %fault.chain(), "storage call failed, trying again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn put_once(&self, key: &Key, data: Bytes, mode: PutMode, attempt: u32) -> Result<PutOutcome> {
        // A storage that takes the condition and ignores it would overwrite; look first. This
        // narrows the race, it cannot close it.
        let ignored = mode == PutMode::IfAbsent && self.capabilities().put_if_absent == Support::Broken;
        let outcome = if ignored && self.inner.head(key).await?.is_some() {
            compare_existing(key, &self.inner.describe(), &data, &self.inner.get(key).await?)?
        } else {
            self.inner.put(key, data, mode).await?
        };
        // Equal bytes found by a repeated call are those of the call whose answer was lost.
        if attempt > 1 { Ok(PutOutcome::Written) } else { Ok(outcome) }
    }
}

#[async_trait]
impl<S: Store> Store for Retrying<S> {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        self.repeat(|| format!("put `{key}`"), |attempt| self.put_once(key, data.clone(), mode, attempt)).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.repeat(|| format!("get `{key}`"), |_| self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.repeat(
            || format!("get bytes {}..{} of `{key}`", range.start, range.end),
            |_| self.inner.get_range(key, range.clone()),
        )
        .await
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.repeat(|| format!("look up `{key}`"), |_| self.inner.head(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.repeat(|| format!("list `{prefix}`"), |_| self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.repeat(|| format!("delete `{key}`"), |_| self.inner.delete(key)).await
    }

    fn locker(&self) -> Option<&dyn Locker> {
        self.inner.locker()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> Capabilities {
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_capabilities(&self, found: Capabilities) {
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
