//! The port of the WAL log: the continuous archive beside the recovery points.
//!
//! It belongs to the data plane: every call blocks until its data is durable or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Lsn, SegmentName, SegmentSize, SystemId, Timeline};
use crate::fault::Result;

/// The cluster that a log belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub system: SystemId,
    pub segment_size: SegmentSize,
}

/// What storing something that must never change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there.
    New,
    /// The same bytes were there already.
    Same,
}

/// A piece of the segment that is still being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailPart {
    pub segment: SegmentName,
    /// Offset of its first byte in the segment.
    pub from: u32,
    pub bytes: Vec<u8>,
}

/// What is known of a segment that was never sealed: its bytes from the start without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    pub bytes: Vec<u8>,
}

/// WAL that was lost for good: nothing can be recovered across it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub timeline: Timeline,
    /// First position that is missing.
    pub from: Lsn,
    /// Where the log goes on.
    pub to: Lsn,
    /// When the loss was noticed.
    pub noticed: jiff::Timestamp,
    /// Why, for people.
    pub why: String,
}

/// Everything a log holds, from one complete listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    pub cluster: Cluster,
    /// Sealed segments.
    pub segments: BTreeSet<SegmentName>,
    /// Segments that have tail parts and are not sealed, with the bytes from their start that are
    /// there without a hole.
    pub tails: BTreeMap<SegmentName, u32>,
    /// Timelines whose history file is there.
    pub histories: BTreeSet<Timeline>,
    pub gaps: Vec<Gap>,
}

/// The logs of all clusters in a repository.
pub trait WalArchive: Send + Sync {
    /// Every cluster that has a log here.
    fn clusters(&self) -> Result<Vec<Cluster>>;
    /// The log of a cluster; made when it is not there. An error when it is there with another
    /// segment size.
    fn log(&self, cluster: Cluster) -> Result<Arc<dyn WalLog>>;
}

/// The log of one cluster. What it was given once never changes; nothing is overwritten.
pub trait WalLog: Send + Sync {
    /// Whose log it is.
    fn cluster(&self) -> Cluster;
    /// Stores a whole segment. Other bytes under the same name are an error and an alarm
    /// (`WAL_CONFLICT`), never overwritten. `Ok` means durable.
    fn put_segment(&self, segment: SegmentName, bytes: &[u8]) -> Result<Put>;
    /// Stores a piece of the open segment. `Ok` means durable.
    fn put_tail(&self, part: &TailPart) -> Result<()>;
    /// Removes the tail parts of a segment that is sealed by now; refuses others.
    fn drop_tail(&self, segment: SegmentName) -> Result<()>;
    /// Stores the history file of a timeline; other bytes are an error.
    fn put_history(&self, timeline: Timeline, bytes: &[u8]) -> Result<Put>;
    /// Records that WAL is lost.
    fn put_gap(&self, gap: &Gap) -> Result<()>;
    /// A sealed segment, checked; `None` only when the storage says for sure that it is not there.
    fn segment(&self, segment: SegmentName) -> Result<Option<Vec<u8>>>;
    /// The tail of an open segment, checked; `None` as above.
    fn tail(&self, segment: SegmentName) -> Result<Option<Tail>>;
    /// A history file, checked; `None` as above.
    fn history(&self, timeline: Timeline) -> Result<Option<Vec<u8>>>;
    /// Everything that is there, by a complete listing.
    fn inventory(&self) -> Result<Inventory>;
    /// Removes sealed segments (and left-over tails) that nobody needs any more. Only retention
    /// calls this.
    fn remove(&self, segments: &[SegmentName]) -> Result<()>;
}
