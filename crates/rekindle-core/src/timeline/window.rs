//! What can be reached from each base backup.

use super::chain::{Chain, End, chain, path_to};
use super::plan::{BasePoint, ClusterLog, Ends, LogEyes, log_of, newest_timeline, usable};
use crate::fault::Fault;
use crate::id::PointId;
use crate::wal::{BaseBackup, Lsn, Timeline};

/// The moments that can be reached from one base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub point: PointId,
    pub base: BaseBackup,
    /// The newest timeline that it leads to.
    pub timeline: Timeline,
    pub reach: Lsn,
    pub ends: Ends,
    pub end: End,
}

/// The window of every base backup, oldest first. One that lies on no known timeline has none.
pub fn windows(bases: &[BasePoint], logs: &[ClusterLog], eyes: &mut dyn LogEyes) -> Result<Vec<Window>, Fault> {
    let mut sorted: Vec<&BasePoint> = bases.iter().collect();
    sorted.sort_by_key(|one| (one.base.stopped, one.base.stop));
    let mut windows = Vec::new();
    for one in &sorted {
        let Ok(log) = log_of(one.base.cluster, logs) else { continue };
        let same: Vec<&BasePoint> =
            sorted.iter().filter(|other| other.base.cluster == one.base.cluster).copied().collect();
        let Some((timeline, chain)) = longest(one, &same, &log) else { continue };
        let ends = eyes.ends(&one.base, &chain)?;
        let Chain { reach, end, .. } = chain;
        windows.push(Window { point: one.point.clone(), base: one.base.clone(), timeline, reach, ends, end });
    }
    Ok(windows)
}

/// The chain to the newest timeline, or to the base backup's own where it lies on no other.
fn longest(one: &BasePoint, same: &[&BasePoint], log: &ClusterLog) -> Option<(Timeline, Chain)> {
    let newest = newest_timeline(same, log).ok().filter(|timeline| usable(&one.base, *timeline, log));
    let timeline = newest.unwrap_or(one.base.timeline);
    let path = path_to(timeline, &log.histories)?;
    chain(&one.base, &log.inventory, &path).map(|chain| (timeline, chain))
}
