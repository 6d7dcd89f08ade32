//! A store that fails as scripted, for tests of everything above it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rekindle_core::{ErrorCode, Fault, Result, codes};
use tokio::sync::{Semaphore, watch};

use crate::key::Key;
use crate::store::{ObjectMeta, PutMode, PutOutcome, Store, said_by_inner};

/// The calls of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Put,
    Get,
    GetRange,
    Head,
    List,
    Delete,
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing is done, the answer is this error.
    Reject(&'static ErrorCode),
    /// The work is done, the answer is this error: the lost answer.
    FailAfterWrite(&'static ErrorCode),
    /// The call waits until [`Faulty::release`], then goes on.
    Hold,
    /// The call starts so much later.
    Slow(Duration),
    /// A read gives only the first so many bytes, as a success. A put stores only those.
    Truncate(usize),
    /// The bit with this number (modulo the length) is flipped: in what a read gives, or in what a
    /// put stores.
    FlipBit(usize),
    /// Nothing is done, the answer is `STORE_FULL`.
    NoSpace,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which one.
    pub op: Op,
    /// Its key, or the prefix of a listing.
    pub key: String,
    /// The length of a put, else 0.
    pub bytes: usize,
    /// What was done to it.
    pub action: Option<Action>,
}

#[derive(Debug)]
struct Scripted {
    op: Op,
    key_prefix: String,
    action: Action,
}

/// Wraps a store; each scripted fault hits one call. The oldest one that fits a call is used.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    script: Mutex<VecDeque<Scripted>>,
    log: Mutex<Vec<Call>>,
    gate: Semaphore,
    held: watch::Sender<usize>,
}

impl<S: Store> Faulty<S> {
    /// A wrapper that does nothing until scripted.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            script: Mutex::default(),
            log: Mutex::default(),
            gate: Semaphore::new(0),
            held: watch::Sender::new(0),
        }
    }

    /// The store below, for looking behind the faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Adds a fault for the next call of `op` whose key starts with `key_prefix`.
    pub fn script(&self, op: Op, key_prefix: &str, action: Action) {
        lock(&self.script).push_back(Scripted { op, key_prefix: key_prefix.to_owned(), action });
    }

    /// Adds the same fault `times` over.
    pub fn script_times(&self, times: usize, op: Op, key_prefix: &str, action: &Action) {
        for _ in 0..times {
            self.script(op, key_prefix, action.clone());
        }
    }

    /// Forgets every fault not yet used.
    pub fn clear(&self) {
        lock(&self.script).clear();
    }

    /// How many faults have not been used.
    pub fn unused(&self) -> usize {
        lock(&self.script).len()
    }

    /// Every call so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.log).clone()
    }

    /// Lets one held call (now or later) go on.
    pub fn release(&self) {
        self.gate.add_permits(1);
    }

    /// Waits until at least so many calls in all have been held.
    pub async fn wait_held(&self, count: usize) {
        let reached = self.held.subscribe().wait_for(|held| *held >= count).await.is_ok();
        debug_assert!(reached, "the sender lives as long as `self`");
    }

    /// Logs the call and does what has to happen before the work. The rest is returned.
    async fn before(&self, op: Op, key: &str, bytes: usize) -> Result<Option<Action>> {
        let action = self.next(op, key);
        lock(&self.log).push(Call { op, key: key.to_owned(), bytes, action: action.clone() });
        match action {
            Some(Action::Reject(code)) => Err(scripted(code, op, key)),
            Some(Action::NoSpace) => Err(scripted(codes::STORE_FULL, op, key)),
            Some(Action::Slow(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            Some(Action::Hold) => {
                self.held.send_modify(|held| *held += 1);
                // The semaphore is never closed, so this only waits.
                if let Ok(permit) = self.gate.acquire().await {
                    permit.forget();
                }
                Ok(None)
            }
            rest => Ok(rest),
        }
    }

    fn next(&self, op: Op, key: &str) -> Option<Action> {
        let mut script = lock(&self.script);
        let at = script.iter().position(|s| s.op == op && key.starts_with(&s.key_prefix))?;
        script.remove(at).map(|s| s.action)
    }
}

fn scripted(code: &'static ErrorCode, op: Op, key: &str) -> Fault {
    Fault::new(code, format!("{op:?} `{key}`: scripted fault").to_lowercase())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged(data: Bytes, action: Option<&Action>) -> Bytes {
    match action {
        Some(Action::Truncate(length)) => data.slice(..data.len().min(*length)),
        Some(Action::FlipBit(bit)) if !data.is_empty() => {
            let mut bytes = data.to_vec();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes.into()
        }
        _ => data,
    }
}

fn after<T>(op: Op, key: &str, value: T, action: Option<&Action>) -> Result<T> {
    match action {
        Some(Action::FailAfterWrite(code)) => Err(scripted(code, op, key)),
        _ => Ok(value),
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<PutOutcome> {
        let action = self.before(Op::Put, key.as_str(), data.len()).await?;
        let outcome = self.inner.put(key, damaged(data, action.as_ref()), mode).await?;
        after(Op::Put, key.as_str(), outcome, action.as_ref())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let action = self.before(Op::Get, key.as_str(), 0).await?;
        let data = self.inner.get(key).await?;
        after(Op::Get, key.as_str(), damaged(data, action.as_ref()), action.as_ref())
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let action = self.before(Op::GetRange, key.as_str(), 0).await?;
        let data = self.inner.get_range(key, range).await?;
        after(Op::GetRange, key.as_str(), damaged(data, action.as_ref()), action.as_ref())
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        let action = self.before(Op::Head, key.as_str(), 0).await?;
        let meta = self.inner.head(key).await?;
        after(Op::Head, key.as_str(), meta, action.as_ref())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let action = self.before(Op::List, prefix, 0).await?;
        let mut found = self.inner.list(prefix).await?;
        if let Some(Action::Truncate(length)) = &action {
            found.truncate(*length);
        }
        after(Op::List, prefix, found, action.as_ref())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let action = self.before(Op::Delete, key.as_str(), 0).await?;
        self.inner.delete(key).await?;
        after(Op::Delete, key.as_str(), (), action.as_ref())
    }

    said_by_inner!();
}
