//! The port of the WAL log: the continuous archive beside the recovery points.
//!
//! It belongs to the data plane: every call blocks until its data is durable or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Extra, Lsn, SegmentName, SegmentSize, SystemId, Timeline};
use crate::fault::Result;
use crate::id::ComponentId;

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

/// What the listing says of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// What it takes in the repository.
    pub stored_bytes: u64,
    /// When it was written, by the clock of the storage.
    pub stored_at: Option<jiff::Timestamp>,
}

/// Somebody needs the log from a position on, until a moment: a base backup that is not committed
/// yet, a recovery or a drill that runs. Retention removes nothing behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its name in the repository.
    pub id: String,
    pub timeline: Timeline,
    pub from: Lsn,
    /// Who needs it and for what, for people.
    pub why: String,
    /// Counted by the clock of whoever holds it; it has no meaning afterwards.
    pub until: jiff::Timestamp,
}

/// Everything a log holds, from one complete listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    pub cluster: Cluster,
    /// Sealed segments.
    pub segments: BTreeMap<SegmentName, Sealed>,
    /// Segments that have tail parts and are not sealed, with the bytes from their start that are
    /// there without a hole.
    pub tails: BTreeMap<SegmentName, u32>,
    /// When the newest part of each of these tails was written, by the clock of the storage.
    pub tails_at: BTreeMap<SegmentName, jiff::Timestamp>,
    /// Sealed segments whose tail parts have not been dropped yet.
    pub left_tails: BTreeSet<SegmentName>,
    /// Timelines whose history file is there.
    pub histories: BTreeSet<Timeline>,
    pub gaps: Vec<Gap>,
    /// Holds, expired ones included.
    pub holds: Vec<Hold>,
}

/// A component of a stack: whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub stack: String,
    pub component: ComponentId,
}

/// The logs of all clusters in a repository.
pub trait WalArchive: Send + Sync {
    /// Every cluster that has a log here.
    fn clusters(&self) -> Result<Vec<Cluster>>;
    /// The log of a cluster; made with the first write when it is not there (an error then, when
    /// it is there with another segment size).
    fn log(&self, cluster: Cluster) -> Result<Arc<dyn WalLog>>;
    /// The cluster that a component was bound to; `None` when it never was.
    fn bound(&self, owner: &Owner) -> Result<Option<Cluster>>;
    /// The log for what a component gives. The first cluster that a component brings is the one
    /// it stays bound to: another one (a server made anew, a copy of the configuration on a
    /// second host) is `WAL_OTHER_CLUSTER`.
    fn bind(&self, owner: &Owner, cluster: Cluster) -> Result<Arc<dyn WalLog>>;
    /// Binds a component to another cluster from now on, because somebody asked for it.
    fn rebind(&self, owner: &Owner, cluster: Cluster) -> Result<()>;
}

/// The log of one cluster. What it was given once never changes; nothing is overwritten.
pub trait WalLog: Send + Sync {
    /// Whose log it is.
    fn cluster(&self) -> Cluster;
    /// Stores a whole segment. Its header must fit its name and the cluster. Other bytes under the
    /// same name are an error and an alarm (`WAL_CONFLICT`), never overwritten. `Ok` means durable.
    fn put_segment(&self, segment: SegmentName, bytes: &[u8]) -> Result<Put>;
    /// Stores a piece of the open segment. `Ok` means durable. A piece that begins with the
    /// segment takes the place of the smaller ones it covers.
    fn put_tail(&self, part: &TailPart) -> Result<()>;
    /// Removes the tail parts of a segment that is sealed by now; refuses others.
    fn drop_tail(&self, segment: SegmentName) -> Result<()>;
    /// Stores the history file of a timeline; other bytes are an error.
    fn put_history(&self, timeline: Timeline, bytes: &[u8]) -> Result<Put>;
    /// Stores a `.partial` or `.backup` file; other bytes are an error.
    fn put_extra(&self, extra: Extra, bytes: &[u8]) -> Result<Put>;
    /// Records that WAL is lost.
    fn put_gap(&self, gap: &Gap) -> Result<()>;
    /// A sealed segment, checked; `None` only when the storage says for sure that it is not there.
    fn segment(&self, segment: SegmentName) -> Result<Option<Vec<u8>>>;
    /// The tail of an open segment, checked; `None` as above.
    fn tail(&self, segment: SegmentName) -> Result<Option<Tail>>;
    /// A history file, checked; `None` as above.
    fn history(&self, timeline: Timeline) -> Result<Option<Vec<u8>>>;
    /// A `.partial` or `.backup` file, checked; `None` as above.
    fn extra(&self, extra: Extra) -> Result<Option<Vec<u8>>>;
    /// Everything that is there, by a complete listing.
    fn inventory(&self) -> Result<Inventory>;
    /// Keeps everything from a position on for so long. Extend it long before it expires.
    fn hold(&self, timeline: Timeline, from: Lsn, why: &str, lasts: Duration) -> Result<Hold>;
    /// Makes a hold last so long from now on; an error when it is gone or expired.
    fn extend(&self, hold: &Hold, lasts: Duration) -> Result<Hold>;
    /// Gives a hold up.
    fn release(&self, hold: &Hold) -> Result<()>;
    /// Removes sealed segments (and left-over tails) that nobody needs any more. Only retention
    /// calls this.
    fn remove(&self, segments: &[SegmentName]) -> Result<()>;
    /// Removes the tails of segments that will never be sealed and that nobody needs any more; a
    /// segment that was sealed meanwhile stays. Only retention calls this.
    fn remove_tails(&self, segments: &[SegmentName]) -> Result<()>;
}
