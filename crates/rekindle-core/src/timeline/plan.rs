//! From a target to a plan, or to the reason why not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::chain::{Chain, End, chain, lies_on, path_to};
use super::refusal::Refusal;
use super::target::{RecoveryTarget, Stop, TimelineChoice};
use crate::fault::Fault;
use crate::id::PointId;
use crate::wal::{BaseBackup, Cluster, History, Inventory, Lsn, Timeline};

/// A base backup and the point that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePoint {
    pub point: PointId,
    pub base: BaseBackup,
}

/// The log of one cluster, and the histories of its timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterLog {
    pub inventory: Inventory,
    pub histories: BTreeMap<Timeline, History>,
}

/// When something in the log happened, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    pub lsn: Lsn,
    pub at: jiff::Timestamp,
}

/// What stands at the end of a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// Start of the last whole record.
    pub last_record: Option<Lsn>,
    /// The newest end of a transaction, committed or not: recovery to a time stops at one.
    pub newest: Option<Moment>,
    /// The newest commit.
    pub newest_commit: Option<Moment>,
}

/// What a search of the log gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There.
    At(Lsn),
    /// Not there; names of restore points that are, newest last.
    Absent { names: Vec<String> },
    /// Not seen, but it may be a prepared transaction, whose number is not read.
    Unknown,
}

/// Reads in the log what the listing does not say.
pub trait LogEyes {
    /// What stands at the end of a chain.
    fn ends(&mut self, base: &BaseBackup, chain: &Chain) -> Result<Ends, Fault>;
    /// Looks for a transaction's end or a restore point in a chain, up to `until`.
    fn find(&mut self, base: &BaseBackup, chain: &Chain, until: Option<Lsn>, stop: &Stop) -> Result<Found, Fault>;
}

/// Everything that recovery needs, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPlan {
    pub point: PointId,
    pub base: BaseBackup,
    pub target: RecoveryTarget,
    pub chain: Chain,
    pub ends: Ends,
}

/// Why there is no plan.
#[derive(Debug)]
pub enum Unplanned {
    Refused(Box<Refusal>),
    /// The log could not be read.
    Failed(Fault),
}

impl From<Refusal> for Unplanned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Box<Refusal>> for Unplanned {
    fn from(refusal: Box<Refusal>) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Unplanned {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

/// Plans recovery to a target from any of the base backups.
pub fn plan(
    target: &RecoveryTarget,
    bases: &[BasePoint],
    logs: &[ClusterLog],
    eyes: &mut dyn LogEyes,
) -> Result<RecoveryPlan, Unplanned> {
    let mut bases: Vec<&BasePoint> = bases.iter().collect();
    bases.sort_by_key(|one| (one.base.stopped, one.base.stop));
    let Some(newest) = bases.last() else { return Err(Refusal::NoBase.into()) };
    let (in_time, system) = match &target.stop {
        // Clusters may have followed each other under one name: the time says which one is meant.
        Stop::Time(at) => {
            let in_time: Vec<&BasePoint> = bases.iter().filter(|one| one.base.stopped <= *at).copied().collect();
            let Some(last) = in_time.last() else {
                let first = bases.iter().map(|one| one.base.stopped).min().unwrap_or(*at);
                return Err(Refusal::BeforeFirst { target: target.stop.clone(), earliest: first.to_string() }.into());
            };
            let cluster = last.base.cluster;
            (in_time, cluster)
        }
        _ => (bases.clone(), newest.base.cluster),
    };
    let candidates: Vec<&BasePoint> = in_time.into_iter().filter(|one| one.base.cluster == system).collect();
    let log = log_of(system, logs)?;
    let chains = on_the_way(target, &candidates, &log)?;
    let (base, chain, ends) = choose(target, chains, eyes)?;
    Ok(RecoveryPlan { point: base.point.clone(), base: base.base.clone(), target: target.clone(), chain, ends })
}

/// The log of a cluster. Without one, a base backup brings itself back and no more.
pub(super) fn log_of(cluster: Cluster, logs: &[ClusterLog]) -> Result<ClusterLog, Box<Refusal>> {
    let same = |log: &&ClusterLog| log.inventory.cluster.system == cluster.system;
    match logs.iter().find(same) {
        Some(log) if log.inventory.cluster != cluster => Err(Box::new(Refusal::OtherSegmentSize { cluster })),
        Some(log) => Ok(log.clone()),
        None => Ok(ClusterLog {
            inventory: Inventory {
                cluster,
                segments: BTreeMap::new(),
                tails: BTreeMap::new(),
                tails_at: BTreeMap::new(),
                left_tails: BTreeSet::new(),
                histories: BTreeSet::new(),
                gaps: Vec::new(),
                holds: Vec::new(),
            },
            histories: BTreeMap::new(),
        }),
    }
}

/// The newest timeline of which anything is known. Recovery to the newest one would go astray when
/// its history is missing.
pub(super) fn newest_timeline(bases: &[&BasePoint], log: &ClusterLog) -> Result<Timeline, Box<Refusal>> {
    let segments = log.inventory.segments.keys().chain(log.inventory.tails.keys()).map(|name| name.timeline);
    let known = log.histories.keys().copied().chain(bases.iter().map(|one| one.base.timeline));
    let newest = segments.chain(known).max().unwrap_or(Timeline(1));
    if newest > Timeline(1) && !log.histories.contains_key(&newest) {
        return Err(Box::new(Refusal::HistoryMissing { timeline: newest }));
    }
    Ok(newest)
}

/// The chains of the base backups that lie on the way to the wanted timeline, oldest first.
fn on_the_way<'a>(
    target: &RecoveryTarget,
    bases: &[&'a BasePoint],
    log: &ClusterLog,
) -> Result<Vec<(&'a BasePoint, Chain)>, Box<Refusal>> {
    let wanted = match (target.timeline, &target.stop) {
        (TimelineChoice::Number(number), _) => Some(number),
        // A base backup comes back on its own timeline, whatever happened later.
        (TimelineChoice::Current, _) | (TimelineChoice::Latest, Stop::Immediate) => None,
        (TimelineChoice::Latest, _) => Some(newest_timeline(bases, log)?),
    };
    let mut chains = Vec::new();
    for one in bases {
        let timeline = wanted.unwrap_or(one.base.timeline);
        let Some(path) = path_to(timeline, &log.histories) else {
            if wanted.is_some() {
                return Err(Box::new(Refusal::HistoryMissing { timeline }));
            }
            continue;
        };
        if let Some(chain) = chain(&one.base, &log.inventory, &path) {
            chains.push((*one, chain));
        }
    }
    if chains.is_empty() {
        let timelines = bases.iter().map(|one| one.base.timeline).collect();
        return Err(Box::new(match wanted {
            Some(timeline) => Refusal::OtherTimeline { timeline, timelines },
            None => Refusal::HistoryMissing { timeline: bases.last().map_or(Timeline(1), |one| one.base.timeline) },
        }));
    }
    Ok(chains)
}

type Chosen<'a> = (&'a BasePoint, Chain, Ends);

fn choose<'a>(
    target: &RecoveryTarget,
    mut chains: Vec<(&'a BasePoint, Chain)>,
    eyes: &mut dyn LogEyes,
) -> Result<Chosen<'a>, Unplanned> {
    let earliest = chains.first().map_or(Lsn(0), |(one, _)| one.base.stop);
    if let Stop::Lsn(lsn) = target.stop {
        chains.retain(|(one, _)| one.base.stop <= lsn);
        if chains.is_empty() {
            let earliest = format!("WAL position {earliest}");
            return Err(Refusal::BeforeFirst { target: target.stop.clone(), earliest }.into());
        }
    }
    if matches!(target.stop, Stop::Xid(_) | Stop::Name(_)) {
        return search(target, chains, eyes);
    }
    let Some((base, chain)) = chains.pop() else { return Err(Refusal::NoBase.into()) };
    if target.stop == Stop::Immediate {
        return Ok((base, chain, Ends::default()));
    }
    let ends = eyes.ends(&base.base, &chain)?;
    let reached = match target.stop {
        Stop::Time(at) => ends.newest.is_some_and(|end| if target.inclusive { end.at > at } else { end.at >= at }),
        Stop::Lsn(lsn) => ends.last_record.is_some_and(|last| last >= lsn),
        _ => chain.end == End::Head,
    };
    if reached { Ok((base, chain, ends)) } else { Err(short(target, chain, ends).into()) }
}

/// The log does not go as far as the target.
fn short(target: &RecoveryTarget, chain: Chain, ends: Ends) -> Refusal {
    let target = target.stop.clone();
    match chain.end {
        End::Head => Refusal::AfterEnd { target, reach: chain.reach, ends },
        End::Hole { missing, next } => Refusal::Hole { target, missing, next, reach: chain.reach, ends },
        End::Gap(gap) => Refusal::InGap { target, gap, ends },
    }
}

/// A transaction or a restore point has no order that base backups could be compared with: the log
/// is searched, from the newest base backup backwards.
fn search<'a>(
    target: &RecoveryTarget,
    chains: Vec<(&'a BasePoint, Chain)>,
    eyes: &mut dyn LogEyes,
) -> Result<Chosen<'a>, Unplanned> {
    let (mut until, mut known, mut last_chain) = (None, Vec::new(), None);
    let mut earlier = None;
    for (base, chain) in chains.into_iter().rev() {
        match eyes.find(&base.base, &chain, until, &target.stop)? {
            Found::At(lsn) if lsn >= base.base.stop => {
                let ends = Ends { last_record: Some(lsn), ..Ends::default() };
                return Ok((base, chain, ends));
            }
            // During the base backup: an older one is needed.
            Found::At(lsn) => earlier = Some(lsn),
            Found::Unknown if until.is_none() => return Ok((base, chain, Ends::default())),
            Found::Unknown => {}
            Found::Absent { mut names } => {
                names.append(&mut known);
                known = names;
            }
        }
        until = Some(base.base.stop);
        last_chain.get_or_insert((base, chain));
    }
    if earlier.is_some() {
        let earliest = "the oldest base backup was not yet consistent there".to_owned();
        return Err(Refusal::BeforeFirst { target: target.stop.clone(), earliest }.into());
    }
    let end = last_chain.map(|(_, chain)| chain.end).filter(|end| *end != End::Head);
    Err(Refusal::NotInLog { target: target.stop.clone(), names: known, broken: end }.into())
}

/// Whether a base backup could be used at all on the way to a timeline.
pub(super) fn usable(base: &BaseBackup, timeline: Timeline, log: &ClusterLog) -> bool {
    path_to(timeline, &log.histories).is_some_and(|path| lies_on(base, &path))
}

#[cfg(test)]
mod tests;
