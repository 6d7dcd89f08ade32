//! Which timeline's file holds a segment, seen from a timeline; and how far a log reaches.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{History, Inventory, Lsn, SegmentName, SegmentNumber, SegmentSize, Timeline, WalLog};
use crate::fault::{Fault, Result, codes};

/// The histories of a log.
#[derive(Debug, Clone, Default)]
pub struct Lineage(BTreeMap<Timeline, History>);

impl Lineage {
    /// From the histories that could be read. Timeline 1 has none.
    pub fn new(histories: BTreeMap<Timeline, History>) -> Self {
        Self(histories)
    }

    /// Whether the ancestors of a timeline are known.
    pub fn knows(&self, timeline: Timeline) -> bool {
        timeline.0 == 1 || self.0.contains_key(&timeline)
    }

    /// The history of a timeline; empty for the first one and for unknown ones.
    pub fn history(&self, timeline: Timeline) -> History {
        self.0.get(&timeline).cloned().unwrap_or_default()
    }

    /// The timeline whose file a recovery to `timeline` reads for a segment: the newest one that
    /// had begun by then, as PostgreSQL chooses (`XLogFileReadAnyTLI`).
    pub fn holder(&self, timeline: Timeline, number: SegmentNumber, size: SegmentSize) -> Timeline {
        let switches = self.0.get(&timeline).map_or(&[][..], |history| &history.0);
        switches
            .iter()
            .find(|switch| number < SegmentNumber::of(switch.at, size))
            .map_or(timeline, |switch| switch.parent)
    }

    /// Whether a position on `ancestor` lies on the way to `timeline`.
    pub fn leads(&self, ancestor: Timeline, at: Lsn, timeline: Timeline) -> bool {
        ancestor == timeline
            || self.0.get(&timeline).and_then(|history| history.left(ancestor)).is_some_and(|left| at <= left)
    }
}

/// Everything a log holds, and the histories in it. One that cannot be read is an error.
pub fn survey(log: &dyn WalLog) -> Result<(Inventory, Lineage)> {
    let inventory = log.inventory()?;
    let mut histories = BTreeMap::new();
    for timeline in &inventory.histories {
        let fault = || Fault::new(codes::WAL_HISTORY, format!("read the history of timeline {timeline}"));
        let bytes = log.history(*timeline)?.ok_or_else(|| fault().because("it was listed and is not there"))?;
        histories.insert(*timeline, History::parse(*timeline, &bytes).map_err(|bad| fault().because(bad))?);
    }
    Ok((inventory, Lineage::new(histories)))
}

/// How far a log goes on from a position without a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Behind the last byte that is there.
    pub upto: Lsn,
    /// The segment that is not there whole.
    #[serde(skip)]
    pub missing: SegmentName,
    /// The hole is one in the middle: later segments of the way are there.
    pub hole: bool,
}

/// Follows the log from `from` along the way to `timeline`.
pub fn reach(inventory: &Inventory, lineage: &Lineage, timeline: Timeline, from: Lsn) -> Reach {
    let size = inventory.cluster.segment_size;
    let mut number = SegmentNumber::of(from, size);
    loop {
        let segment = SegmentName { timeline: lineage.holder(timeline, number, size), number };
        if inventory.segments.contains_key(&segment) {
            number = number.next();
            continue;
        }
        let tail = inventory.tails.get(&segment).copied().unwrap_or(0);
        let upto = Lsn(number.start(size).0 + u64::from(tail)).max(from);
        let hole = later(inventory, lineage, timeline, number);
        return Reach { upto, missing: segment, hole };
    }
}

/// Whether anything of the way to `timeline` is there behind a segment.
fn later(inventory: &Inventory, lineage: &Lineage, timeline: Timeline, number: SegmentNumber) -> bool {
    let size = inventory.cluster.segment_size;
    let sealed = inventory.segments.keys();
    sealed
        .chain(inventory.tails.keys())
        .any(|segment| segment.number > number && lineage.holder(timeline, segment.number, size) == segment.timeline)
}

/// Segments of one timeline without a hole between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub timeline: Timeline,
    pub first: SegmentNumber,
    pub last: SegmentNumber,
}

/// The sealed segments as runs, in order.
pub fn runs(inventory: &Inventory) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for segment in inventory.segments.keys() {
        match runs.last_mut() {
            Some(run) if run.timeline == segment.timeline && run.last.next() == segment.number => {
                run.last = segment.number;
            }
            _ => runs.push(Run { timeline: segment.timeline, first: segment.number, last: segment.number }),
        }
    }
    runs
}

/// Every timeline that anything is known of.
pub fn timelines(inventory: &Inventory) -> BTreeSet<Timeline> {
    let named = inventory.segments.keys().chain(inventory.tails.keys()).map(|segment| segment.timeline);
    named.chain(inventory.histories.iter().copied()).collect()
}

/// A log in memory, for tests of what decides about it.
#[cfg(test)]
pub(super) mod sample {
    use super::super::{Cluster, Sealed, SystemId};
    use super::*;

    pub(in super::super) fn inventory() -> Inventory {
        Inventory {
            cluster: Cluster { system: SystemId(1), segment_size: SegmentSize::DEFAULT },
            segments: BTreeMap::new(),
            tails: BTreeMap::new(),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: BTreeSet::new(),
            gaps: Vec::new(),
            holds: Vec::new(),
        }
    }

    pub(in super::super) fn seal(inventory: &mut Inventory, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let segment = SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) };
            inventory.segments.insert(segment, Sealed { stored_bytes: 1, stored_at: None });
        }
    }

    /// The position of a byte of a segment.
    pub(in super::super) fn lsn(number: u64, offset: u64) -> Lsn {
        Lsn(number * (16 << 20) + offset)
    }

    pub(in super::super) fn lineage(histories: &[(u32, &[(u32, Lsn)])]) -> Lineage {
        let one = |(timeline, switches): &(u32, &[(u32, Lsn)])| {
            let switches =
                switches.iter().map(|(parent, at)| super::super::Switch { parent: Timeline(*parent), at: *at });
            (Timeline(*timeline), History(switches.collect()))
        };
        Lineage::new(histories.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{inventory, lineage, lsn, seal};
    use super::*;

    #[test]
    fn the_way_changes_to_the_child_in_the_segment_of_the_switch() {
        let mut log = inventory();
        seal(&mut log, 1, 1..=5);
        seal(&mut log, 2, 5..=9);
        let lines = lineage(&[(2, &[(1, lsn(5, 100))])]);
        let there = reach(&log, &lines, Timeline(2), lsn(2, 7));
        assert_eq!((there.upto, there.hole), (lsn(10, 0), false));
        let old = reach(&log, &lines, Timeline(1), lsn(2, 7));
        assert_eq!(old.upto, lsn(6, 0));
        assert!(lines.leads(Timeline(1), lsn(5, 100), Timeline(2)));
        assert!(!lines.leads(Timeline(1), lsn(5, 101), Timeline(2)));
        // A switch at the very end of a segment: the child begins with the next one.
        let at_end = lineage(&[(2, &[(1, lsn(5, 0))])]);
        assert_eq!(at_end.holder(Timeline(2), SegmentNumber(4), SegmentSize::DEFAULT), Timeline(1));
        assert_eq!(at_end.holder(Timeline(2), SegmentNumber(5), SegmentSize::DEFAULT), Timeline(2));
    }

    #[test]
    fn a_hole_and_an_end_are_told_apart_and_a_tail_counts() {
        let mut log = inventory();
        seal(&mut log, 1, [1, 2, 4]);
        let lines = Lineage::default();
        let hole = reach(&log, &lines, Timeline(1), lsn(1, 5));
        assert_eq!((hole.upto, hole.hole, hole.missing.number.0), (lsn(3, 0), true, 3));
        let end = reach(&log, &lines, Timeline(1), lsn(4, 5));
        assert_eq!((end.upto, end.hole), (lsn(5, 0), false));
        log.tails.insert(SegmentName { timeline: Timeline(1), number: SegmentNumber(5) }, 4096);
        assert_eq!(reach(&log, &lines, Timeline(1), lsn(4, 5)).upto, lsn(5, 4096));
        assert_eq!(runs(&log).len(), 2);
    }
}
