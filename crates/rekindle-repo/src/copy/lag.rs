//! How far a copy is behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use rekindle_core::Result;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::Clock;
use serde::Serialize;

use super::{originals, root};
use crate::ledger::{self, Ledger};
use crate::repo::Repo;
use crate::wal::copy::missing_logs;

/// What a copy does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// Points that are in the copy.
    pub points: u64,
    pub points_missing: u64,
    /// Objects of the write-ahead log.
    pub wal_missing: u64,
    /// Time of the newest point in the copy.
    pub newest: Option<jiff::Timestamp>,
    /// Since when the oldest of what is missing is in the repository; `None`: nothing is missing.
    pub behind_since: Option<jiff::Timestamp>,
}

impl Lag {
    /// Seconds; 0 when nothing is missing.
    pub fn seconds(&self, now: jiff::Timestamp) -> u64 {
        self.behind_since.map_or(0, |since| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0))
    }
}

/// Compares the far side with these points of the source and with its log. Reads the snapshots of the
/// far side, no data.
pub fn lag(source: &Repo, points: &[RecoveryPoint], far: &Repo, clock: &Arc<dyn Clock>) -> Result<Lag> {
    let there = originals(far)?;
    let mut wanted: Vec<&RecoveryPoint> = points.iter().collect();
    if points.iter().any(|point| !there.contains(root(point))) {
        let forgotten = match Ledger::open(far)? {
            Some(ledger) => ledger::forgotten_originals(&ledger.audit()?.entries),
            None => BTreeSet::new(),
        };
        wanted.retain(|point| there.contains(root(point)) || !forgotten.contains(root(point)));
    }
    let missing: Vec<&RecoveryPoint> = wanted.iter().filter(|point| !there.contains(root(point))).copied().collect();
    let logs = missing_logs(source, far, &wanted, clock)?;
    let since = missing.iter().map(|point| point.time()).chain(logs.iter().filter_map(|(_, at)| *at)).min();
    Ok(Lag {
        points: there.len() as u64,
        points_missing: missing.len() as u64,
        wal_missing: logs.len() as u64,
        newest: points.iter().filter(|point| there.contains(root(point))).map(RecoveryPoint::time).max(),
        behind_since: since,
    })
}
