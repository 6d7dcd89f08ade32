//! From a base backup along the log, as far as it is there without a hole.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::wal::{BaseBackup, Gap, History, Inventory, Lsn, SegmentName, SegmentNumber, SegmentSize, Timeline};

/// The stretch of the way on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Leg {
    pub timeline: Timeline,
    /// Where it begins: where its parent was left.
    pub from: Lsn,
    /// Where it was left for the next one; `None` for the last.
    pub to: Option<Lsn>,
}

/// Why the log goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// There is no more of it.
    Head,
    /// A segment is missing, although a later one is there.
    Hole { missing: SegmentName, next: SegmentName },
    /// WAL was lost, and this was recorded.
    Gap(Gap),
}

/// What can be replayed onto a base backup, without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The timeline at its end.
    pub timeline: Timeline,
    /// From the first timeline on.
    pub path: Vec<Leg>,
    /// Sealed segments in order, from the one that holds the start of the base backup.
    pub segments: Vec<SegmentName>,
    /// Of these, the ones that only the base backup itself holds.
    pub own: BTreeSet<SegmentName>,
    /// The open segment behind them, with the bytes known of it.
    pub tail: Option<(SegmentName, u32)>,
    /// Behind the last byte that is known.
    pub reach: Lsn,
    pub end: End,
}

/// The way to a timeline; empty when its history is not known.
pub(super) fn path_to(timeline: Timeline, histories: &BTreeMap<Timeline, History>) -> Option<Vec<Leg>> {
    let ancestors = match histories.get(&timeline) {
        Some(history) => history.0.as_slice(),
        None if timeline == Timeline(1) => &[],
        None => return None,
    };
    let mut from = Lsn(0);
    let mut path = Vec::with_capacity(ancestors.len() + 1);
    for switch in ancestors {
        path.push(Leg { timeline: switch.parent, from, to: Some(switch.at) });
        from = switch.at;
    }
    path.push(Leg { timeline, from, to: None });
    Some(path)
}

/// Whether a base backup lies on a path: every timeline it used was left after it needed it.
pub(super) fn lies_on(base: &BaseBackup, path: &[Leg]) -> bool {
    let holds = |timeline: Timeline, start: Lsn, end: Lsn| {
        path.iter().any(|leg| leg.timeline == timeline && leg.from <= start && leg.to.is_none_or(|to| end <= to))
    };
    // A range on an ancestor may begin before this timeline was made; its end counts.
    let stop_on = path
        .iter()
        .any(|leg| leg.timeline == base.timeline && leg.from <= base.stop && leg.to.is_none_or(|to| base.stop <= to));
    stop_on && base.wal_ranges.iter().all(|range| holds(range.timeline, range.start, range.end))
}

/// The segment of the last byte before a position.
fn last_of(end: Lsn, size: SegmentSize) -> SegmentNumber {
    SegmentNumber::of(Lsn(end.0.saturating_sub(1)), size)
}

/// What is known of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Sealed,
    /// Only in the base backup.
    Own,
    /// Bytes from its start.
    Tail(u32),
    Nothing,
}

struct Walk<'a> {
    base: &'a BaseBackup,
    log: &'a Inventory,
    own: BTreeSet<SegmentName>,
    path: &'a [Leg],
    size: SegmentSize,
}

impl Walk<'_> {
    fn held(&self, name: SegmentName) -> Held {
        if self.log.segments.contains_key(&name) {
            return Held::Sealed;
        }
        match self.log.tails.get(&name) {
            // Every byte is there, only the seal is not.
            Some(bytes) if *bytes == self.size.bytes() => Held::Sealed,
            Some(bytes) if self.tail_end(name, *bytes) > self.base.stop => Held::Tail(*bytes),
            _ if self.own.contains(&name) => Held::Own,
            Some(bytes @ 1..) => Held::Tail(*bytes),
            _ => Held::Nothing,
        }
    }

    fn tail_end(&self, name: SegmentName, bytes: u32) -> Lsn {
        Lsn(name.number.start(self.size).0 + u64::from(bytes))
    }

    /// The segment of that number as recovery asks for it: of the newest timeline first.
    fn name_at(&self, number: SegmentNumber) -> SegmentName {
        // Where a timeline was left, the child's segment begins with the parent's bytes. It will
        // not do when it is not there, or not as far as the parent's own.
        let far_enough = |name: SegmentName, leg: &Leg| match self.held(name) {
            Held::Sealed | Held::Own => true,
            Held::Tail(bytes) => self.tail_end(name, bytes) >= leg.from,
            Held::Nothing => false,
        };
        let mut legs = self.path.iter().rev().filter(|leg| self.touches(leg, number));
        let there = legs.find_map(|leg| {
            let name = SegmentName { timeline: leg.timeline, number };
            far_enough(name, leg).then_some(name)
        });
        there.unwrap_or_else(|| self.newest(number))
    }

    fn touches(&self, leg: &Leg, number: SegmentNumber) -> bool {
        let begins = SegmentNumber::of(leg.from, self.size) <= number;
        // A leg of no length counts too: its history names it.
        begins && leg.to.is_none_or(|to| number <= last_of(to, self.size).max(SegmentNumber::of(leg.from, self.size)))
    }

    /// The first segment of the way behind `number` of which something is in the log.
    fn later(&self, number: SegmentNumber) -> Option<SegmentName> {
        let on_way = |name: &&SegmentName| {
            name.number > number
                && self.path.iter().any(|leg| leg.timeline == name.timeline && self.touches(leg, name.number))
        };
        let sealed = self.log.segments.keys().filter(on_way);
        let tails = self.log.tails.iter().filter(|(_, bytes)| **bytes > 0).map(|(name, _)| name).filter(on_way);
        sealed.chain(tails).min_by_key(|name| (name.number, name.timeline)).copied()
    }

    /// The recorded loss that explains why nothing is there behind `reach`.
    fn gap(&self, reach: Lsn, missing: SegmentName) -> Option<&Gap> {
        let here = |gap: &&Gap| gap.to > reach && gap.from <= missing.number.end(self.size);
        let on_way = |gap: &&Gap| {
            let crosses = |leg: &Leg| gap.to > leg.from && leg.to.is_none_or(|to| gap.from < to);
            self.path.iter().any(|leg| leg.timeline == gap.timeline && crosses(leg))
        };
        self.log.gaps.iter().filter(here).filter(on_way).min_by_key(|gap| gap.from)
    }

    /// The newest timeline's segment of that number.
    fn newest(&self, number: SegmentNumber) -> SegmentName {
        let leg = self.path.iter().rfind(|leg| self.touches(leg, number)).unwrap_or(&self.path[0]);
        SegmentName { timeline: leg.timeline, number }
    }

    /// Where the way leaves the timeline of a segment, if within it.
    fn limit(&self, name: SegmentName) -> Lsn {
        let end = name.number.end(self.size);
        let leg = self.path.iter().find(|leg| leg.timeline == name.timeline);
        leg.and_then(|leg| leg.to).map_or(end, |to| to.min(end))
    }

    fn run(self, timeline: Timeline) -> Chain {
        let mut number = SegmentNumber::of(self.base.start, self.size);
        let (mut segments, mut own) = (Vec::new(), BTreeSet::new());
        let (mut tail, mut reach) = (None, self.base.start);
        let missing = loop {
            let name = self.name_at(number);
            match self.held(name) {
                Held::Sealed => reach = self.limit(name),
                Held::Own => {
                    own.insert(name);
                    // What the server wrote later into this file is not in the base backup.
                    reach = self.limit(name).min(self.base.stop.max(number.start(self.size)));
                }
                Held::Tail(bytes) => {
                    reach = self.limit(name).min(self.tail_end(name, bytes));
                    tail = Some((name, bytes));
                    break self.newest(number);
                }
                Held::Nothing => break name,
            }
            segments.push(name);
            if name != self.newest(number) {
                // The timeline was left within this segment, and of the next one nothing is there.
                break self.newest(number);
            }
            number = number.next();
        };
        let next = self.later(missing.number);
        let end = match (self.gap(reach, missing), next) {
            (Some(gap), _) => End::Gap(gap.clone()),
            (None, Some(next)) => End::Hole { missing, next },
            (None, None) => End::Head,
        };
        Chain { timeline, path: self.path.to_vec(), segments, own, tail, reach, end }
    }
}

/// What can be replayed onto `base` towards `timeline`; `None` when the base backup does not lie
/// on the way there.
pub(super) fn chain(base: &BaseBackup, log: &Inventory, path: &[Leg]) -> Option<Chain> {
    let last = path.last()?;
    if !lies_on(base, path) {
        return None;
    }
    let walk = Walk { base, log, own: base.own_segments(), path, size: base.cluster.segment_size };
    Some(walk.run(last.timeline))
}

impl Chain {
    /// The last segment of which something is there.
    pub fn last(&self) -> Option<SegmentName> {
        self.tail.map(|(name, _)| name).or_else(|| self.segments.last().copied())
    }
}
