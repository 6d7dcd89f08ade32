//! Recovery to a moment, planned: which base backup and which log reach a target, and what can be
//! reached at all. The decisions are [`rekindle_core::timeline`]'s; here is what it must know.

mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Recovery, RunContext};
use rekindle_core::timeline::{BasePoint, ClusterLog, End, RecoveryPlan, RecoveryTarget, Stop, Unplanned, Window};
use rekindle_core::timeline::{plan, windows};
use rekindle_core::wal::{BaseBackup, Cluster, History, Lsn, SegmentName, SegmentSize, Timeline, WalArchive, WalLog};
use rekindle_core::{ComponentId, Fault, PointId, Result, codes};
use serde::Serialize;

use self::reader::LogReader;

/// A log: what is in it, and the way to it.
struct Log {
    known: ClusterLog,
    log: Arc<dyn WalLog>,
}

/// Everything that there is to recover one component from.
pub struct Recoverable {
    component: ComponentId,
    bases: Vec<BasePoint>,
    logs: Vec<Log>,
}

impl Recoverable {
    /// Collects the base backups of a component from the points, and the logs of their clusters.
    pub fn gather(points: &[RecoveryPoint], component: &ComponentId, archive: &dyn WalArchive) -> Result<Self> {
        let mut bases = Vec::new();
        for point in points {
            let record = point.manifest().component(component);
            let Some(base) = record.and_then(|record| BaseBackup::of(&record.details)) else { continue };
            let base = base.map_err(|error| {
                Fault::new(codes::PG_DETAILS, format!("read the base backup in point {}", point.id().short()))
                    .because(error)
                    .hint("use the version of rekindle that wrote it, or a newer one")
            })?;
            bases.push(BasePoint { point: point.id().clone(), base });
        }
        let mut logs = Vec::new();
        for cluster in archive.clusters()? {
            if bases.iter().any(|one| one.base.cluster.system == cluster.system) {
                logs.push(Log::read(archive, cluster)?);
            }
        }
        Ok(Self { component: component.clone(), bases, logs })
    }

    /// Only from this point.
    #[must_use]
    pub fn only(mut self, point: &PointId) -> Self {
        self.bases.retain(|one| one.point == *point);
        self
    }

    /// The target that gives the newest state: the end of the log or, where the repository holds no log of the
    /// cluster, of the base backup.
    pub fn newest(&self) -> RecoveryTarget {
        let newest = self.bases.iter().max_by_key(|one| (one.base.stopped, one.base.stop));
        let logged = newest.is_some_and(|one| self.log(one.base.cluster).is_some());
        RecoveryTarget::new(if logged { Stop::Latest } else { Stop::Immediate })
    }

    /// Whether there is any base backup.
    pub fn is_empty(&self) -> bool {
        self.bases.is_empty()
    }

    fn known(&self) -> Vec<ClusterLog> {
        self.logs.iter().map(|log| log.known.clone()).collect()
    }

    fn log(&self, cluster: Cluster) -> Option<Arc<dyn WalLog>> {
        let found = self.logs.iter().find(|log| log.known.inventory.cluster == cluster);
        found.map(|found| Arc::clone(&found.log))
    }

    fn reader<'a>(&'a self, context: &'a RunContext) -> LogReader<'a> {
        LogReader::new(self, context)
    }

    /// The way to a target, or an exact refusal. Blocking: it reads the end of the log, for a
    /// transaction or a restore point all of it.
    pub fn resolve(&self, target: &RecoveryTarget, context: &RunContext) -> Result<Recovery> {
        context.monitor.phase(self.component.as_str(), "find the way to the target");
        match plan(target, &self.bases, &self.known(), &mut self.reader(context)) {
            Ok(plan) => {
                let log = self.log(plan.base.cluster);
                Ok(Recovery { plan, log, no_start: false, owner: None })
            }
            Err(Unplanned::Failed(fault)) => Err(fault),
            Err(Unplanned::Refused(refusal)) => {
                let size = self.bases.last().map_or(SegmentSize::DEFAULT, |one| one.base.cluster.segment_size);
                let fault = refusal.fault(|segment| segment.file(size));
                let reachable = self.reachable(context)?;
                let hint = match (fault.hint_text(), reachable.last()) {
                    (Some(hint), Some(last)) => format!("{hint}; reachable: {}", last.span()),
                    (Some(hint), None) => hint.to_owned(),
                    (None, _) => return Err(fault),
                };
                Err(fault.hint(hint))
            }
        }
    }

    /// What can be reached from each base backup, oldest first.
    pub fn reachable(&self, context: &RunContext) -> Result<Vec<WindowView>> {
        let found = windows(&self.bases, &self.known(), &mut self.reader(context))?;
        Ok(found.into_iter().map(|window| WindowView::of(&window)).collect())
    }
}

impl Log {
    fn read(archive: &dyn WalArchive, cluster: Cluster) -> Result<Self> {
        let log = archive.log(cluster)?;
        let inventory = log.inventory()?;
        let mut histories = BTreeMap::new();
        for timeline in &inventory.histories {
            let bytes = log.history(*timeline)?.ok_or_else(|| {
                Fault::new(codes::PITR_HISTORY, format!("read the history of timeline {timeline}: it vanished"))
            })?;
            histories.insert(*timeline, parse(*timeline, &bytes)?);
        }
        Ok(Self { known: ClusterLog { inventory, histories }, log })
    }
}

fn parse(timeline: Timeline, bytes: &[u8]) -> Result<History> {
    History::parse(timeline, bytes).map_err(|bad| {
        Fault::new(codes::PITR_HISTORY, format!("read the history of timeline {timeline}"))
            .because(bad)
            .hint("rekindle wal verify --deep; push the file again from the server's pg_wal")
    })
}

/// The moment that a recovered cluster stands for.
pub fn moment(plan: &RecoveryPlan) -> jiff::Timestamp {
    match plan.target.stop {
        Stop::Time(at) => at,
        Stop::Immediate => plan.base.stopped,
        _ => plan.ends.newest_commit.map_or(plan.base.stopped, |commit| commit.at.max(plan.base.stopped)),
    }
}

/// What can be reached from a base backup, for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowView {
    pub point: PointId,
    pub system: String,
    pub timeline: u32,
    /// The earliest moment: the end of the base backup.
    pub from: jiff::Timestamp,
    pub from_lsn: Lsn,
    /// The newest commit; none when the log holds none behind the base backup.
    pub to: Option<jiff::Timestamp>,
    pub to_lsn: Lsn,
    /// Why it goes no further: `head`, `hole` or `gap`.
    pub end: &'static str,
    /// That, for people.
    pub end_text: String,
}

impl WindowView {
    fn of(window: &Window) -> Self {
        let size = window.base.cluster.segment_size;
        let (end, end_text) = match &window.end {
            End::Head => ("head", "the end of the log".to_owned()),
            End::Hole { missing, .. } => ("hole", format!("segment {} is missing", missing.file(size))),
            End::Gap(gap) => ("gap", format!("WAL was lost from {} to {} ({})", gap.from, gap.to, gap.why)),
        };
        Self {
            point: window.point.clone(),
            system: window.base.cluster.system.to_string(),
            timeline: window.timeline.0,
            from: window.base.stopped,
            from_lsn: window.base.stop,
            to: window.ends.newest_commit.map(|commit| commit.at).filter(|at| *at >= window.base.stopped),
            to_lsn: window.reach,
            end,
            end_text,
        }
    }

    /// In one line.
    pub fn span(&self) -> String {
        match self.to {
            Some(to) => format!("{} to {to} (timeline {})", self.from, self.timeline),
            None => format!("{} only (timeline {})", self.from, self.timeline),
        }
    }
}

/// A plan for reading: the output of `--dry-run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryView {
    pub point: PointId,
    pub target: RecoveryTarget,
    pub system: String,
    /// As `server_version_num`.
    pub server_version: u32,
    pub base_stopped: jiff::Timestamp,
    pub base_stop: Lsn,
    /// Timelines from the first to the last, with where each was left.
    pub timelines: Vec<String>,
    pub first_segment: Option<String>,
    pub last_segment: Option<String>,
    pub segments: usize,
    /// Bytes of the open segment behind them.
    pub tail_bytes: Option<u32>,
    pub reach: Lsn,
    pub newest_commit: Option<jiff::Timestamp>,
}

impl RecoveryView {
    /// The plan in words.
    pub fn of(plan: &RecoveryPlan) -> Self {
        let (chain, size) = (&plan.chain, plan.base.cluster.segment_size);
        let file = |name: SegmentName| name.file(size);
        Self {
            point: plan.point.clone(),
            target: plan.target.clone(),
            system: plan.base.cluster.system.to_string(),
            server_version: plan.base.server_version,
            base_stopped: plan.base.stopped,
            base_stop: plan.base.stop,
            timelines: chain
                .path
                .iter()
                .map(|leg| match leg.to {
                    Some(to) => format!("{} until {to}", leg.timeline),
                    None => leg.timeline.to_string(),
                })
                .collect(),
            first_segment: chain.segments.first().copied().map(file),
            last_segment: chain.last().map(file),
            segments: chain.segments.len(),
            tail_bytes: chain.tail.map(|(_, bytes)| bytes),
            reach: chain.reach,
            newest_commit: plan.ends.newest_commit.map(|commit| commit.at),
        }
    }
}
