//! What the pulling threads ask of the workers, and what comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use rekindle_core::entry::{ContentSource, Meta};
use rekindle_core::{ComponentId, Result};

use crate::chunker::Cutter;
use crate::format::Id;
use crate::format::pack::BlobKind;

/// A component while it is being stored; shared by its jobs.
pub(super) struct ComponentRun {
    pub(super) id: ComponentId,
    pub(super) cutter: Cutter,
    pub(super) reports: Sender<Report>,
    /// The component has failed: its jobs need not be done.
    pub(super) dead: AtomicBool,
    pub(super) counts: Counts,
}

/// What was new in the repository.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) added_bytes: AtomicU64,
    pub(super) stored_bytes: AtomicU64,
    pub(super) data_blobs: AtomicU64,
    pub(super) tree_blobs: AtomicU64,
}

impl ComponentRun {
    pub(super) fn count_stored(&self, kind: BlobKind, content: usize, sealed: usize) {
        let counts = &self.counts;
        counts.added_bytes.fetch_add(content as u64, Ordering::Relaxed);
        counts.stored_bytes.fetch_add(sealed as u64, Ordering::Relaxed);
        match kind {
            BlobKind::Data => &counts.data_blobs,
            BlobKind::Tree => &counts.tree_blobs,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}

/// Work for a worker.
pub(super) enum Job {
    /// A whole file: open, read, cut, store.
    File {
        /// Number of the entry in its component.
        entry: u64,
        source: Box<dyn ContentSource>,
    },
    /// One chunk of a stream or of a big file.
    Chunk { entry: u64, part: usize, content: Vec<u8> },
    /// A directory.
    Tree { id: Id, json: Vec<u8> },
}

/// What became of a job.
pub(super) enum Report {
    File { entry: u64, outcome: Result<FileOutcome> },
    Chunk { entry: u64, part: usize, id: Result<Id> },
    Tree(Result<()>),
}

/// What became of a file.
pub(super) enum FileOutcome {
    /// It is stored, with the attributes the source gave at the end.
    Kept(Stored, Box<Meta>),
    /// It is left out; the source has noted why.
    Skipped,
}

/// Content in the repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    pub(super) blobs: Vec<Id>,
    pub(super) bytes: u64,
    /// XXH3-128 over the chunks as they were cut.
    pub(super) hash: u128,
}

/// Where a component gets its reports.
pub(super) type Reports = Receiver<Report>;
