//! Where a stream goes on: a pure decision.

use rekindle_core::wal::{Inventory, Lineage, Lsn, SegmentName, SegmentNumber, Timeline};

/// Where to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) timeline: Timeline,
    /// The start of a segment: a file that lacks its head is worth nothing.
    pub(super) from: Lsn,
    /// What is durable already: behind the tail of that segment.
    pub(super) head: Lsn,
}

/// The first segment that the log lacks on the way to the server's timeline, not before what the
/// slot keeps and not behind the end of the log; a recorded gap is gone past.
pub(super) fn resume(inventory: &Inventory, lineage: &Lineage, server: Timeline, slot: Lsn) -> Start {
    let size = inventory.cluster.segment_size;
    let on_the_way = |segment: &SegmentName| lineage.holder(server, segment.number, size) == segment.timeline;
    let sealed = |number: SegmentNumber| {
        let segment = SegmentName { timeline: lineage.holder(server, number, size), number };
        inventory.segments.contains_key(&segment)
    };
    let reserved = SegmentNumber::of(slot, size);
    let last = inventory.segments.keys().filter(|segment| on_the_way(segment)).map(|segment| segment.number).max();
    let open = inventory.tails.keys().filter(|segment| on_the_way(segment)).map(|segment| segment.number).min();
    let mut number = match (last, open) {
        (Some(last), _) if reserved > last => last.next(),
        (Some(_), _) => {
            let mut number = reserved;
            while sealed(number) {
                number = number.next();
            }
            number
        }
        (None, Some(open)) => open.min(reserved),
        (None, None) => reserved,
    };
    let gone = |number: SegmentNumber| {
        let timeline = lineage.holder(server, number, size);
        let inside = |gap: &&rekindle_core::wal::Gap| {
            gap.timeline == timeline && gap.from < number.end(size) && gap.to > number.start(size)
        };
        inventory.gaps.iter().find(inside).map(|gap| SegmentNumber::of(gap.to, size))
    };
    while let Some(behind) = gone(number).filter(|behind| *behind > number) {
        number = behind;
        while sealed(number) {
            number = number.next();
        }
    }
    let timeline = lineage.holder(server, number, size);
    let from = number.start(size);
    let tail = inventory.tails.get(&SegmentName { timeline, number }).copied().unwrap_or(0);
    Start { timeline, from, head: Lsn(from.0 + u64::from(tail)) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rekindle_core::wal::{Cluster, Gap, History, Sealed, SegmentSize, Switch, SystemId};

    use super::*;

    const SEGMENT: u64 = 16 << 20;

    fn log(sealed: &[(u32, u64)], tails: &[(u32, u64, u32)]) -> Inventory {
        let name = |timeline, number| SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) };
        let one = Sealed { stored_bytes: 1, stored_at: None };
        Inventory {
            cluster: Cluster { system: SystemId(1), segment_size: SegmentSize::DEFAULT },
            segments: sealed.iter().map(|(timeline, number)| (name(*timeline, *number), one)).collect(),
            tails: tails.iter().map(|(timeline, number, bytes)| (name(*timeline, *number), *bytes)).collect(),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: BTreeSet::new(),
            gaps: Vec::new(),
            holds: Vec::new(),
        }
    }

    fn started(log: &Inventory, lines: &Lineage, server: u32, slot: u64) -> (u32, u64, u64) {
        let start = resume(log, lines, Timeline(server), Lsn(slot));
        assert_eq!(start.from.0 % SEGMENT, 0);
        (start.timeline.0, start.from.0 / SEGMENT, start.head.0 - start.from.0)
    }

    #[test]
    fn it_goes_on_where_the_log_ends_and_fills_what_lies_behind() {
        let lines = Lineage::default();
        assert_eq!(started(&log(&[], &[]), &lines, 1, 5 * SEGMENT + 40), (1, 5, 0), "a new log");
        let tailed = log(&[(1, 5)], &[(1, 6, 8192)]);
        assert_eq!(started(&tailed, &lines, 1, 6 * SEGMENT + 40), (1, 6, 8192));
        assert_eq!(started(&tailed, &lines, 1, 9 * SEGMENT), (1, 6, 8192), "the slot is new");
        // archive_command was faster for 8.
        let holed = log(&[(1, 5), (1, 6), (1, 8)], &[]);
        assert_eq!(started(&holed, &lines, 1, 6 * SEGMENT + 9), (1, 7, 0));
        assert_eq!(started(&log(&[], &[(1, 6, 100)]), &lines, 1, 6 * SEGMENT + 50), (1, 6, 100));
    }

    #[test]
    fn it_changes_to_the_timeline_that_holds_the_segment() {
        let switches = |of: &[(u32, u64)]| {
            History(of.iter().map(|(parent, at)| Switch { parent: Timeline(*parent), at: Lsn(*at) }).collect())
        };
        let lines = Lineage::new(BTreeMap::from([
            (Timeline(2), switches(&[(1, 7 * SEGMENT + 500)])),
            (Timeline(3), switches(&[(1, 7 * SEGMENT + 500), (2, 9 * SEGMENT)])),
        ]));
        // The receiver was away for both promotions.
        assert_eq!(started(&log(&[(1, 5)], &[(1, 6, 70)]), &lines, 3, 6 * SEGMENT), (1, 6, 70));
        assert_eq!(started(&log(&[(1, 5), (1, 6)], &[(1, 7, 500)]), &lines, 3, 6 * SEGMENT), (2, 7, 0));
        assert_eq!(started(&log(&[(1, 6), (2, 7), (2, 8)], &[]), &lines, 3, 8 * SEGMENT), (3, 9, 0));
        // What the old primary wrote beyond the switch does not count.
        assert_eq!(started(&log(&[(1, 6), (1, 7), (1, 8)], &[]), &lines, 2, 7 * SEGMENT + 500), (2, 7, 0));
    }

    #[test]
    fn a_gap_is_gone_past() {
        let mut holed = log(&[(1, 5)], &[(1, 6, 100)]);
        let (from, to) = (Lsn(6 * SEGMENT + 100), Lsn(9 * SEGMENT));
        let (noticed, why) = (jiff::Timestamp::UNIX_EPOCH, String::new());
        holed.gaps.push(Gap { timeline: Timeline(1), from, to, noticed, why });
        assert_eq!(started(&holed, &Lineage::default(), 1, 9 * SEGMENT + 40), (1, 9, 0));
    }
}
