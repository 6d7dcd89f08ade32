//! Method `physical`: base backups of a whole cluster, straight from the wire into the point.
//!
//! The part is `data/` (the data directory, with the WAL it needs and its `backup_manifest`) and
//! `tablespaces/OID/`: whoever restores the files has a cluster that starts, with nothing else.

mod capture;
mod checksum;
mod cover;
pub mod details;
mod entries;
mod incremental;
mod manifest;
mod preflight;
mod received;
mod tar;

use std::sync::Arc;
use std::time::Duration;

use rekindle_core::Result;
use rekindle_core::wal::{SlotName, WalArchive, WalMode};

pub(super) use capture::begin;
pub(super) use preflight::probe;

/// Opens the WAL logs of the repository when they are needed.
pub type OpenArchive = Arc<dyn Fn() -> Result<Arc<dyn WalArchive>> + Send + Sync>;

/// What only base backups are told.
#[derive(Clone)]
pub struct PhysicalOptions {
    /// Whose WAL log it is, together with the component's name.
    pub stack: String,
    pub wal: WalMode,
    /// For the modes that use one.
    pub slot: SlotName,
    /// For the modes that keep a log.
    pub archive: Option<OpenArchive>,
    /// Longest wait, after the last byte of a backup, until the log holds what it needs.
    pub cover_timeout: Duration,
    /// Content is cut every so many bytes; `None`: by the size of the cluster.
    pub chunk_bytes: Option<usize>,
}

impl std::fmt::Debug for PhysicalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PhysicalOptions").field("wal", &self.wal).field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl PhysicalOptions {
    /// Points that stand for themselves.
    pub fn new(stack: String, slot: SlotName) -> Self {
        Self {
            stack,
            wal: WalMode::None,
            slot,
            archive: None,
            cover_timeout: Duration::from_mins(10),
            chunk_bytes: None,
        }
    }
}

/// Shortest chunk: eight pages.
const CHUNK_BYTES_MIN: u64 = 64 << 10;
/// Longest chunk.
const CHUNK_BYTES_MAX: u64 = 4 << 20;
/// Chunks of a cluster that are aimed at, at most: each costs about 100 bytes of index in memory.
const CHUNKS_WANTED: u64 = 2 << 20;

/// How a cluster of this size is cut: 64 KiB up to 128 GiB, then twice as much each time the size
/// doubles, up to 4 MiB. Small chunks store less of a cluster of which a few pages changed
/// (measured: 1.8 % of its pages cost 68 MiB at 64 KiB, 463 MiB at 1 MiB); many chunks make the
/// index large.
fn chunk_bytes(cluster_bytes: u64) -> usize {
    let wanted = (cluster_bytes / CHUNKS_WANTED).checked_next_power_of_two().unwrap_or(CHUNK_BYTES_MAX);
    usize::try_from(wanted.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)).unwrap_or(64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_clusters_have_larger_chunks() {
        let sizes = [0, 1 << 30, 128 << 30, 129 << 30, 1 << 40, 1 << 50, u64::MAX].map(chunk_bytes);
        assert_eq!(sizes, [64 << 10, 64 << 10, 64 << 10, 128 << 10, 512 << 10, 4 << 20, 4 << 20]);
    }
}
