//! Which WAL nobody needs any more: a pure decision, by mark and sweep.
//!
//! What is marked: from the start of every kept base backup (and every hold) on, each way that
//! leads from there to any timeline, without an end. So every kept base backup can be recovered
//! to every moment after it that it could be recovered to before. Segments are compared by
//! timeline and number, never by their names' text: `…0000000100000000000000FF` and
//! `00000002…` have no order that means anything.

use serde::Serialize;

use super::lineage::{self, Lineage};
use super::{BaseBackup, Hold, Inventory, Lsn, SegmentName, SegmentNumber, Timeline};

/// Clocks of several hosts may differ by this much.
const CLOCK_TOLERANCE_SECONDS: i64 = 15 * 60;
/// A segment is never removed sooner than this after it was stored: whatever is still pending
/// somewhere becomes visible first.
pub const GRACE_SECONDS: i64 = 24 * 3600;

/// Somebody needs the log from a position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub timeline: Timeline,
    pub from: Lsn,
    /// Whose need it is, for people.
    pub why: String,
}

/// The needs of a base backup: the start of each stretch of WAL that it must replay.
pub fn needs_of(base: &BaseBackup, name: &str) -> Vec<Need> {
    let why = format!("base backup {name}");
    let starts = base.wal_ranges.iter().map(|range| (range.timeline, range.start));
    let own = base.wal_ranges.is_empty().then_some((base.timeline, base.start));
    starts.chain(own).map(|(timeline, from)| Need { timeline, from, why: why.clone() }).collect()
}

/// A segment that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub segment: SegmentName,
    pub stored_bytes: u64,
}

/// What may go, and why the rest stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalPlan {
    pub remove: Vec<Removal>,
    /// Segments that somebody needs.
    pub needed: u64,
    /// Segments that nobody needs and that are too young to go.
    pub young: u64,
    /// Segments of timelines whose history is not known.
    pub unknown: u64,
    /// Tails that nobody needs and to which nothing was added for long: of timelines that were left.
    pub tails: Vec<SegmentName>,
    /// Holds that expired long ago.
    pub expired: Vec<Hold>,
    /// The oldest position that is needed, and by whom, for each timeline.
    pub from: Vec<(Timeline, Lsn, String)>,
}

/// Why nothing may be removed at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum WalRefusal {
    /// Without a base backup all WAL is kept: the first one may be on its way.
    NoBase,
    /// The newest base backup cannot be recovered: older WAL may be all there is.
    NotCovered { base: String },
    /// A segment is from the future: the clock or the storage is wrong.
    FromTheFuture,
}

/// Decides about every sealed segment. `bases` are the base backups that stay, with their names,
/// oldest first; holds are those of the inventory.
pub fn plan_wal(
    inventory: &Inventory,
    lines: &Lineage,
    bases: &[(String, BaseBackup)],
    now: jiff::Timestamp,
    grace_seconds: i64,
) -> Result<WalPlan, WalRefusal> {
    let (name, newest) = bases.last().ok_or(WalRefusal::NoBase)?;
    if !covers(inventory, newest) {
        return Err(WalRefusal::NotCovered { base: name.clone() });
    }
    let age = |at: jiff::Timestamp| now.duration_since(at).as_secs();
    let sealed = inventory.segments.values().filter_map(|sealed| sealed.stored_at);
    if sealed.chain(inventory.tails_at.values().copied()).any(|at| age(at) < -CLOCK_TOLERANCE_SECONDS) {
        return Err(WalRefusal::FromTheFuture);
    }
    let mut needs: Vec<Need> = bases.iter().flat_map(|(name, base)| needs_of(base, name)).collect();
    let holds = inventory.holds.iter().filter(|hold| age(hold.until) < CLOCK_TOLERANCE_SECONDS);
    needs.extend(holds.map(|hold| Need { timeline: hold.timeline, from: hold.from, why: hold.why.clone() }));
    let marks = marks(inventory, lines, &needs);
    let mut plan = WalPlan { from: oldest(&marks, inventory), ..WalPlan::default() };
    for (segment, sealed) in &inventory.segments {
        if marks.iter().any(|mark| mark.holds(*segment)) {
            plan.needed += 1;
        } else if !lines.knows(segment.timeline) {
            plan.unknown += 1;
        } else if sealed.stored_at.is_some_and(|at| age(at) < grace_seconds) {
            plan.young += 1;
        } else {
            plan.remove.push(Removal { segment: *segment, stored_bytes: sealed.stored_bytes });
        }
    }
    let old_tail = |segment: &SegmentName| inventory.tails_at.get(segment).is_some_and(|at| age(*at) >= grace_seconds);
    let free = |segment: &SegmentName| lines.knows(segment.timeline) && !marks.iter().any(|mark| mark.holds(*segment));
    plan.tails = inventory.tails.keys().filter(|segment| free(segment) && old_tail(segment)).copied().collect();
    let long_ago = grace_seconds.max(CLOCK_TOLERANCE_SECONDS);
    plan.expired = inventory.holds.iter().filter(|hold| age(hold.until) >= long_ago).cloned().collect();
    Ok(plan)
}

/// Whether every stretch that a base backup must replay is there: sealed, or in a tail.
pub fn covers(inventory: &Inventory, base: &BaseBackup) -> bool {
    let size = inventory.cluster.segment_size;
    base.wal_ranges.iter().all(|range| {
        let last = SegmentNumber::of(Lsn(range.end.0.saturating_sub(1)), size);
        (SegmentNumber::of(range.start, size).0..=last.0).all(|number| {
            let segment = SegmentName { timeline: range.timeline, number: SegmentNumber(number) };
            let tail = || inventory.tails.get(&segment).map(|bytes| segment.number.start(size).0 + u64::from(*bytes));
            // Where a timeline was left, the next one's segment begins with a copy.
            let copied = base.wal_ranges.iter().any(|other| {
                other.timeline > range.timeline
                    && SegmentNumber::of(other.start, size) == segment.number
                    && inventory.segments.contains_key(&SegmentName { timeline: other.timeline, ..segment })
            });
            inventory.segments.contains_key(&segment) || copied || tail().is_some_and(|upto| upto >= range.end.0)
        })
    })
}

struct Mark<'a> {
    timeline: Timeline,
    first: SegmentNumber,
    last: SegmentNumber,
    need: &'a Need,
}

impl Mark<'_> {
    fn holds(&self, segment: SegmentName) -> bool {
        segment.timeline == self.timeline && (self.first..=self.last).contains(&segment.number)
    }
}

/// Every stretch of every way from a need to any timeline.
fn marks<'a>(inventory: &Inventory, lines: &Lineage, needs: &'a [Need]) -> Vec<Mark<'a>> {
    let size = inventory.cluster.segment_size;
    let mut marks: Vec<Mark<'a>> = Vec::new();
    for need in needs {
        let first = SegmentNumber::of(need.from, size);
        let mut targets = lineage::timelines(inventory);
        targets.insert(need.timeline);
        for target in targets.into_iter().filter(|target| lines.leads(need.timeline, need.from, *target)) {
            let history = lines.history(target);
            let ancestors = history.0.iter().filter(|switch| switch.parent >= need.timeline);
            // The segment of a switch is kept of both sides.
            for switch in ancestors {
                let last = SegmentNumber::of(switch.at, size);
                marks.push(Mark { timeline: switch.parent, first, last, need });
            }
            marks.push(Mark { timeline: target, first, last: SegmentNumber(u64::MAX), need });
        }
    }
    marks
}

fn oldest(marks: &[Mark<'_>], inventory: &Inventory) -> Vec<(Timeline, Lsn, String)> {
    let with_segments = |timeline: Timeline| inventory.segments.keys().any(|segment| segment.timeline == timeline);
    let mut found: Vec<(Timeline, Lsn, String)> = Vec::new();
    for mark in marks.iter().filter(|mark| with_segments(mark.timeline)) {
        match found.iter_mut().find(|(timeline, ..)| *timeline == mark.timeline) {
            Some((_, from, why)) if mark.need.from < *from => {
                *from = mark.need.from;
                why.clone_from(&mark.need.why);
            }
            Some(_) => {}
            None => found.push((mark.timeline, mark.need.from, mark.need.why.clone())),
        }
    }
    found
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
