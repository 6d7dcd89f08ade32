//! Object Lock: objects that even whoever holds the key cannot remove before their time.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use rekindle_core::Result;

use crate::key::Key;

/// Who may shorten a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the right to bypass it.
    Governance,
    /// Nobody, not the owner of the account either.
    Compliance,
}

impl LockMode {
    /// As S3 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LockMode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Governance, Self::Compliance].into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(text)).ok_or(())
    }
}

/// The retention that every object gets when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    pub mode: LockMode,
    pub days: u16,
}

impl ObjectLock {
    /// Until when an object that is written now is kept.
    pub fn until(&self, now: jiff::Timestamp) -> jiff::Timestamp {
        now.checked_add(jiff::SignedDuration::from_hours(24 * i64::from(self.days))).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// Whether an object is kept by a lock. Locks of running programs, leases, probes and pieces of open
/// WAL segments are written and removed all the time, and nothing is lost with them.
pub fn is_lockable(key: &Key) -> bool {
    let key = key.as_str();
    !(["locks/", "rekindle/leases/", "rekindle/probe/"].iter().any(|folder| key.starts_with(folder))
        || key.contains(".tail/"))
}

/// What became of an object that was to be destroyed, with the credentials of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destruction {
    /// The retention that the storage says the object had.
    pub retention: Option<jiff::Timestamp>,
    /// Its first bytes could not be had any more after another object was written in its place.
    pub overwritten: bool,
    /// Nor after it was deleted, every way that S3 has.
    pub deleted: bool,
    /// A plain delete only hid it.
    pub hidden: bool,
    /// What the storage said to the last attempt, when it refused.
    pub refusal: Option<String>,
}

impl Destruction {
    /// Whether these credentials can destroy what they wrote.
    pub fn is_possible(&self) -> bool {
        self.overwritten || self.deleted
    }
}

/// A storage with versions and retentions.
#[async_trait]
pub trait Locker: Send + Sync {
    /// The retention that is configured; `None`: objects are written without one.
    fn lock(&self) -> Option<ObjectLock>;

    /// Keeps an object at least until then. One that is kept longer stays so.
    async fn extend(&self, key: &Key, until: jiff::Timestamp) -> Result<()>;

    /// Until when an object is kept, as the storage says.
    async fn kept_until(&self, key: &Key) -> Result<Option<jiff::Timestamp>>;

    /// Writes an object of its own with the configured kind of retention (for a minute), and tries
    /// to destroy it.
    async fn try_to_destroy(&self) -> Result<Destruction>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_not_locked() {
        let lockable = |text: &str| is_lockable(&Key::new(text).unwrap());
        for kept in ["config", "keys/ab", "data/ab/abcd", "index/x", "snapshots/x", "rekindle/ledger/000000000001"] {
            assert!(lockable(kept), "{kept}");
        }
        for passing in
            ["locks/x", "rekindle/leases/a/1", "rekindle/probe/x/object", "rekindle/wal/1/00000001/0.tail/0-1"]
        {
            assert!(!lockable(passing), "{passing}");
        }
        assert_eq!("compliance".parse(), Ok(LockMode::Compliance));
    }
}
