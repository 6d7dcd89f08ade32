//! Why a file is not in the log: because the log ends there, or because something is lost. To
//! PostgreSQL the two look alike, and it promotes at the first one.

use super::{Inventory, Lineage, Lsn, SegmentName, Timeline, WalFile};

/// A file that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// Nothing of this timeline is behind it.
    End,
    /// The segment is open: its tail is the end of the log, and may be given instead.
    Tail,
    /// It is there.
    Sealed,
}

/// Judges a file that was not found. `Err` says why it should be there.
pub fn judge(inventory: &Inventory, lineage: &Lineage, file: WalFile) -> Result<Absence, String> {
    match file {
        WalFile::Segment(segment) => segment_absent(inventory, segment),
        WalFile::History(timeline) => history_absent(inventory, lineage, timeline),
        WalFile::Extra(_) => Ok(Absence::End),
    }
}

fn segment_absent(inventory: &Inventory, segment: SegmentName) -> Result<Absence, String> {
    if inventory.segments.contains_key(&segment) {
        return Ok(Absence::Sealed);
    }
    let size = inventory.cluster.segment_size;
    let open = inventory.tails.keys();
    let later = inventory
        .segments
        .keys()
        .chain(open)
        .filter(|one| one.timeline == segment.timeline && one.number > segment.number)
        .min();
    if let Some(later) = later {
        return Err(format!("it is missing, and `{}` behind it is there", later.file(size)));
    }
    let lost = |from: Lsn, to: Lsn| from < segment.number.end(size) && to > segment.number.start(size);
    if let Some(gap) = inventory.gaps.iter().find(|gap| gap.timeline == segment.timeline && lost(gap.from, gap.to)) {
        return Err(format!("WAL from {} to {} is lost: {}", gap.from, gap.to, gap.why));
    }
    Ok(if inventory.tails.contains_key(&segment) { Absence::Tail } else { Absence::End })
}

fn history_absent(inventory: &Inventory, lineage: &Lineage, timeline: Timeline) -> Result<Absence, String> {
    if inventory.histories.contains(&timeline) {
        return Ok(Absence::Sealed);
    }
    if timeline.0 <= 1 {
        return Ok(Absence::End);
    }
    let mut segments = inventory.segments.keys().chain(inventory.tails.keys());
    if let Some(segment) = segments.find(|segment| segment.timeline == timeline) {
        let file = segment.file(inventory.cluster.segment_size);
        return Err(format!("it is missing, and `{file}` of the timeline is there"));
    }
    let child = inventory.histories.iter().find(|child| lineage.history(**child).left(timeline).is_some());
    match child {
        Some(child) => Err(format!("it is missing, and timeline {child} descends from it")),
        None => Ok(Absence::End),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lineage::sample::{inventory, lineage, lsn, seal};
    use super::super::{Gap, SegmentNumber};
    use super::*;

    fn segment(timeline: u32, number: u64) -> WalFile {
        WalFile::Segment(SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) })
    }

    #[test]
    fn only_the_end_is_an_end() {
        let mut log = inventory();
        seal(&mut log, 1, [3, 4, 6]);
        let lines = Lineage::default();
        let judged = |log: &Inventory, file| judge(log, &lines, file);
        assert_eq!(judged(&log, segment(1, 7)), Ok(Absence::End));
        assert_eq!(judged(&log, segment(1, 6)), Ok(Absence::Sealed));
        assert!(judged(&log, segment(1, 5)).is_err(), "a hole");
        assert_eq!(judged(&log, segment(2, 5)), Ok(Absence::End));
        log.tails.insert(SegmentName { timeline: Timeline(1), number: SegmentNumber(7) }, 100);
        assert_eq!(judged(&log, segment(1, 7)), Ok(Absence::Tail));
        log.tails.insert(SegmentName { timeline: Timeline(1), number: SegmentNumber(8) }, 100);
        assert!(judged(&log, segment(1, 7)).is_err(), "an open segment with another one behind it is a hole");
        let why = "the slot was lost".to_owned();
        let noticed = jiff::Timestamp::UNIX_EPOCH;
        log.gaps.push(Gap { timeline: Timeline(1), from: lsn(9, 40), to: lsn(11, 0), noticed, why });
        assert!(judged(&log, segment(1, 9)).unwrap_err().contains("slot"));
        assert_eq!(judged(&log, segment(1, 11)), Ok(Absence::End));
    }

    #[test]
    fn a_history_may_be_absent_only_when_nothing_knows_of_it() {
        let mut log = inventory();
        log.histories.extend([Timeline(2), Timeline(5)]);
        let lines = lineage(&[(2, &[(1, lsn(3, 7))]), (5, &[(1, lsn(3, 7)), (4, lsn(8, 7))])]);
        let judged = |log: &Inventory, timeline| judge(log, &lines, WalFile::History(Timeline(timeline)));
        assert_eq!([1, 2, 3, 6].map(|timeline| judged(&log, timeline).is_ok()), [true; 4]);
        assert!(judged(&log, 4).unwrap_err().contains("timeline 5"));
        seal(&mut log, 6, [9]);
        assert!(judged(&log, 6).is_err());
    }
}
