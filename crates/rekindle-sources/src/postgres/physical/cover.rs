//! Whether the WAL log holds what a base backup needs. A point whose WAL is not sealed yet could
//! be recovered to its own end, but to nothing after it: such a point is not committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rekindle_core::wal::{Inventory, SegmentName, SegmentSize, WalLog, WalRange};
use rekindle_core::{Cancel, Fault, Result, codes};

/// How often the log is listed while waiting; a listing costs a request.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const CANCEL_EVERY: Duration = Duration::from_millis(100);
/// Segments that are named in an error.
const NAMED: usize = 3;

/// The segments of these ranges.
fn needed(ranges: &[WalRange], size: SegmentSize) -> Vec<SegmentName> {
    let mut segments = Vec::new();
    for range in ranges {
        let mut segment = SegmentName::holding(range.timeline, range.start, size);
        while segment.number.start(size) < range.end {
            segments.push(segment);
            segment = segment.next();
        }
    }
    segments
}

/// Of these, the ones that the log has not sealed. The segment in which a timeline was left is
/// never finished on it: there the next timeline's segment, which begins with a copy, counts.
fn missing(needed: &[SegmentName], inventory: &Inventory) -> Vec<SegmentName> {
    let sealed = |name: &SegmentName| inventory.segments.contains_key(name);
    let stands_in = |name: &SegmentName| {
        let later: BTreeSet<_> = needed.iter().filter(|other| other.number == name.number).collect();
        later.iter().any(|other| other.timeline > name.timeline && sealed(other))
    };
    needed.iter().filter(|name| !sealed(name) && !stands_in(name)).copied().collect()
}

/// Waits until the log has sealed everything. Blocking.
pub(super) fn wait(log: &Arc<dyn WalLog>, ranges: &[WalRange], longest: Duration, cancel: &Cancel) -> Result<()> {
    let size = log.cluster().segment_size;
    let needed = needed(ranges, size);
    let deadline = Instant::now() + longest;
    loop {
        let missing = missing(&needed, &log.inventory()?);
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let names: Vec<String> = missing.iter().take(NAMED).map(|name| name.file(size)).collect();
            let more = missing.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Fault::new(codes::PG_WAL_COVER, "wait until the WAL log holds what the base backup needs")
                .because(format!("{}{more} did not come within {} s", names.join(", "), longest.as_secs()))
                .hint("run `rekindle wal status`; is `rekindle wal stream` running, or `archive_command` set?"));
        }
        let next = Instant::now() + LOOK_EVERY.min(longest);
        while Instant::now() < next {
            cancel.check()?;
            sleep(CANCEL_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rekindle_core::wal::{Cluster, Lsn, Sealed, SystemId, Timeline};

    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn inventory(files: &[&str]) -> Inventory {
        let sealed = Sealed { stored_bytes: 1, stored_at: None };
        Inventory {
            cluster: Cluster { system: SystemId(1), segment_size: SIZE },
            segments: files.iter().map(|file| (SegmentName::parse(file, SIZE).unwrap(), sealed)).collect(),
            tails: BTreeMap::new(),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: BTreeSet::new(),
            gaps: Vec::new(),
            holds: Vec::new(),
        }
    }

    fn lacks(ranges: &[WalRange], files: &[&str]) -> Vec<String> {
        missing(&needed(ranges, SIZE), &inventory(files)).iter().map(|name| name.file(SIZE)).collect()
    }

    #[test]
    fn every_segment_of_the_ranges_counts_and_none_beyond() {
        let range = |timeline, start, end| WalRange { timeline: Timeline(timeline), start: Lsn(start), end: Lsn(end) };
        let two = [range(1, 0x200_0028, 0x300_0100)];
        let (first, second) = ("000000010000000000000002", "000000010000000000000003");
        assert_eq!(lacks(&two, &[first, second]), [] as [&str; 0]);
        assert_eq!(lacks(&two, &[first]), [second]);
        assert_eq!(lacks(&two, &[second]), [first]);
        // An end on the border needs nothing of the segment behind it.
        assert_eq!(lacks(&[range(1, 0x200_0028, 0x300_0000)], &[first]), [] as [&str; 0]);
        // The segment in which timeline 1 was left is finished on timeline 2 only.
        let switched = [range(1, 0x200_0028, 0x200_1000), range(2, 0x200_1000, 0x200_2000)];
        assert_eq!(lacks(&switched, &["000000020000000000000002"]), [] as [&str; 0]);
        assert_eq!(lacks(&switched, &[first]), ["000000020000000000000002"]);
    }
}
