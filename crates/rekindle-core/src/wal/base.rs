//! What a recovery point records of a physical base backup.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Cluster, Lsn, SegmentName, SegmentNumber, Timeline};

/// A stretch of the log on one timeline that a base backup needs to become consistent, as the
/// `WAL-Ranges` of `backup_manifest` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRange {
    pub timeline: Timeline,
    pub start: Lsn,
    /// Behind the last byte that is needed.
    pub end: Lsn,
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    pub oid: u32,
    /// Where it was on the server.
    pub path: String,
}

/// A base backup: the start of everything that can be recovered to a moment. It stands in the
/// details of a component's record under the key `base`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseBackup {
    pub cluster: Cluster,
    /// As `server_version_num`: 150018 is 15.18.
    pub server_version: u32,
    /// The timeline on which it ended.
    pub timeline: Timeline,
    pub start: Lsn,
    pub stop: Lsn,
    pub started: jiff::Timestamp,
    /// By the server's clock, at its end: no earlier moment can be recovered from it.
    pub stopped: jiff::Timestamp,
    pub wal_ranges: Vec<WalRange>,
    pub tablespaces: Vec<Tablespace>,
    /// Whether the cluster has page checksums, so that damage could be seen at all.
    pub checksums: bool,
    /// Pages whose checksum the server found wrong.
    pub checksum_failures: u64,
}

impl BaseBackup {
    /// Key in [`crate::manifest::ComponentRecord::details`].
    pub const KEY: &'static str = "base";

    /// The base backup that a component's record describes; `None` when it is another kind of
    /// capture.
    pub fn of(details: &serde_json::Value) -> Option<Result<Self, serde_json::Error>> {
        details.get(Self::KEY).map(Self::deserialize)
    }

    /// The segments that the base backup itself holds in its `pg_wal`: those that its own
    /// consistency needs.
    pub fn own_segments(&self) -> BTreeSet<SegmentName> {
        let size = self.cluster.segment_size;
        let mut own = BTreeSet::new();
        for range in &self.wal_ranges {
            // The segment of the last byte before the end.
            let last = SegmentNumber::of(Lsn(range.end.0.saturating_sub(1)), size);
            let mut number = SegmentNumber::of(range.start, size);
            while number <= last {
                own.insert(SegmentName { timeline: range.timeline, number });
                number = number.next();
            }
        }
        own
    }
}
