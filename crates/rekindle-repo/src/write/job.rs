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
    /// Chunks of streams and big files.
    Chunks(Batch),
    /// A directory.
    Tree { id: Id, json: Vec<u8> },
}

/// Chunks that go to a worker together: handing each small one over by itself costs more than storing it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Their contents, one after the other; what lies behind `used` means nothing.
    bytes: Vec<u8>,
    used: usize,
    chunks: Vec<Chunk>,
}

/// One chunk of the content of an entry.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) entry: u64,
    pub(super) part: usize,
    pub(super) effort: Effort,
    /// Where it ends in its batch.
    end: usize,
}

impl Batch {
    /// An empty one in the memory of one that was used.
    pub(super) fn renewed(mut self) -> Self {
        self.used = 0;
        self.chunks.clear();
        self
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Bytes of memory it holds.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where the content of the next chunk goes, up to this length.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.used + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..end]
    }

    /// The next chunk has this length; its content is where [`Batch::room`] said.
    pub(super) fn push(&mut self, entry: u64, part: usize, effort: Effort, length: usize) {
        self.used += length;
        self.chunks.push(Chunk { entry, part, effort, end: self.used });
    }

    /// Every chunk with its content.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Chunk, &[u8])> {
        let mut start = 0;
        self.chunks.iter().map(move |chunk| (chunk, &self.bytes[std::mem::replace(&mut start, chunk.end)..chunk.end]))
    }
}

/// How hard to try to make content small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Files and directories: [`crate::repo::RepoOptions::compression_level`].
    Files,
    /// What a producer sends while it waits for us: [`crate::repo::RepoOptions::stream_level`].
    Streams,
}

/// What became of a job.
pub(super) enum Report {
    File {
        entry: u64,
        outcome: Result<FileOutcome>,
    },
    /// The batch comes back, to be used again; with it the id of each chunk.
    Chunks {
        batch: Batch,
        ids: Result<Vec<Id>>,
    },
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
