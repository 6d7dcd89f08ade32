//! What a restore has done so far, told from many threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rekindle_core::port::{LostEntry, Materialized};

use crate::read::tree::readable;

/// Counters and lists that all workers share.
#[derive(Debug, Default)]
pub(super) struct Report {
    entries: AtomicU64,
    bytes: AtomicU64,
    kept_bytes: AtomicU64,
    lists: Mutex<(Vec<LostEntry>, Vec<LostEntry>)>,
}

impl Report {
    /// An entry stands as it should.
    pub(super) fn done(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes were there already.
    pub(super) fn kept(&self, bytes: u64) {
        self.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An entry is not there, or not whole.
    pub(super) fn lost(&self, path: &[u8], why: impl Into<String>) {
        self.note(true, path, why.into());
    }

    /// The content is right, an attribute is not.
    pub(super) fn attribute_problem(&self, path: &[u8], why: impl Into<String>) {
        self.note(false, path, why.into());
    }

    fn note(&self, lost: bool, path: &[u8], why: String) {
        let entry = LostEntry { path: readable(path), why };
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lost {
            lists.0.push(entry);
        } else {
            lists.1.push(entry);
        }
    }

    /// The result, lists sorted by path.
    pub(super) fn finish(self) -> Materialized {
        let (mut lost, mut attribute_problems) = self.lists.into_inner().unwrap_or_else(PoisonError::into_inner);
        lost.sort_by(|a, b| a.path.cmp(&b.path));
        attribute_problems.sort_by(|a, b| a.path.cmp(&b.path));
        Materialized {
            entries: self.entries.into_inner(),
            bytes: self.bytes.into_inner(),
            kept_bytes: self.kept_bytes.into_inner(),
            lost,
            attribute_problems,
        }
    }
}
