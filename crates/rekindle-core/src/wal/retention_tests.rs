//! Retention against a simulated recovery that knows nothing of its marks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::lineage::{reach, sample};
use super::super::{Cluster, History, Hold, Switch, WalRange};
use super::*;

fn base(timeline: u32, start: Lsn, stop: Lsn) -> BaseBackup {
    let epoch = jiff::Timestamp::UNIX_EPOCH;
    BaseBackup {
        cluster: sample::inventory().cluster,
        server_version: 150_018,
        timeline: Timeline(timeline),
        start,
        stop,
        started: epoch,
        stopped: epoch,
        wal_ranges: vec![WalRange { timeline: Timeline(timeline), start, end: stop }],
        tablespaces: Vec::new(),
        checksums: true,
        checksum_failures: 0,
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_800_000_000).unwrap()
}

fn plan(inventory: &Inventory, lines: &Lineage, bases: &[BaseBackup]) -> Result<WalPlan, WalRefusal> {
    let named: Vec<_> = bases.iter().enumerate().map(|(n, base)| (n.to_string(), base.clone())).collect();
    plan_wal(inventory, lines, &named, now(), 0)
}

fn removed(plan: &WalPlan) -> Vec<(u32, u64)> {
    plan.remove.iter().map(|removal| (removal.segment.timeline.0, removal.segment.number.0)).collect()
}

#[test]
fn what_lies_before_the_oldest_base_goes_and_nothing_else() {
    let mut log = sample::inventory();
    sample::seal(&mut log, 1, 1..=9);
    let lines = Lineage::default();
    let bases = [base(1, sample::lsn(4, 40), sample::lsn(4, 900)), base(1, sample::lsn(7, 40), sample::lsn(7, 900))];
    assert_eq!(removed(&plan(&log, &lines, &bases).unwrap()), [(1, 1), (1, 2), (1, 3)]);
    assert_eq!(plan(&log, &lines, &[]), Err(WalRefusal::NoBase), "the first backup removes nothing");
}

#[test]
fn a_dead_branch_goes_and_the_way_of_the_base_stays() {
    let mut log = sample::inventory();
    sample::seal(&mut log, 1, 1..=9);
    // An experiment that left timeline 1 before the base, and the real successor after it.
    sample::seal(&mut log, 2, 3..=5);
    sample::seal(&mut log, 3, 8..=12);
    let lines = sample::lineage(&[(2, &[(1, sample::lsn(3, 7))]), (3, &[(1, sample::lsn(8, 7))])]);
    let bases = [base(1, sample::lsn(6, 40), sample::lsn(6, 900))];
    let gone = removed(&plan(&log, &lines, &bases).unwrap());
    assert_eq!(gone, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)]);
}

#[test]
fn holds_unknown_histories_and_doubt_keep_wal() {
    let mut log = sample::inventory();
    sample::seal(&mut log, 1, 1..=9);
    sample::seal(&mut log, 4, 9..=11);
    let bases = [base(1, sample::lsn(6, 40), sample::lsn(6, 900))];
    let lines = Lineage::default();
    let first = plan(&log, &lines, &bases).unwrap();
    assert_eq!((first.remove.len(), first.unknown), (5, 3), "timeline 4 has no history here");
    log.holds.push(Hold {
        id: "a".to_owned(),
        timeline: Timeline(1),
        from: sample::lsn(3, 0),
        why: "recovery".to_owned(),
        until: now(),
    });
    assert_eq!(removed(&plan(&log, &lines, &bases).unwrap()), [(1, 1), (1, 2)]);
    log.holds[0].until = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(plan(&log, &lines, &bases).unwrap().remove.len(), 5, "an old hold has no meaning");
    log.segments.remove(&SegmentName { timeline: Timeline(1), number: SegmentNumber(6) });
    assert!(matches!(plan(&log, &lines, &bases), Err(WalRefusal::NotCovered { .. })));
}

#[test]
fn old_tails_of_left_timelines_and_old_holds_go() {
    let mut log = sample::inventory();
    sample::seal(&mut log, 1, 1..=7);
    sample::seal(&mut log, 2, 7..=9);
    let open = |timeline, number| SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) };
    let hours = |hours| now() - jiff::SignedDuration::from_hours(hours);
    for (segment, age) in [(open(1, 8), 50), (open(2, 10), 50), (open(3, 4), 50), (open(1, 9), 2)] {
        log.tails.insert(segment, 8192);
        log.tails_at.insert(segment, hours(age));
    }
    log.tails.insert(open(1, 10), 8192);
    for (id, until) in [("old", hours(30)), ("new", hours(2))] {
        let (id, why) = (id.to_owned(), "recovery".to_owned());
        log.holds.push(Hold { id, timeline: Timeline(2), from: sample::lsn(8, 0), why, until });
    }
    let lines = sample::lineage(&[(2, &[(1, sample::lsn(7, 500))])]);
    let sweep = |base: BaseBackup| {
        let plan = plan_wal(&log, &lines, &[("a".to_owned(), base)], now(), GRACE_SECONDS).unwrap();
        assert_eq!(plan.expired.iter().map(|hold| hold.id.as_str()).collect::<Vec<_>>(), ["old"]);
        plan.tails
    };
    // The newest base is on timeline 2: what timeline 1 wrote after it was left is nobody's; timeline 3 is
    // unknown, one tail is young, and of one the age is not known.
    assert_eq!(sweep(base(2, sample::lsn(8, 40), sample::lsn(8, 900))), [open(1, 8)]);
    // A base on timeline 1 may still be brought to the end of that line.
    assert_eq!(sweep(base(1, sample::lsn(6, 40), sample::lsn(6, 900))), []);
}

#[test]
fn clocks_in_doubt_and_young_segments() {
    let mut log = sample::inventory();
    sample::seal(&mut log, 1, 1..=9);
    let bases = [("a".to_owned(), base(1, sample::lsn(6, 40), sample::lsn(6, 900)))];
    for (number, sealed) in log.segments.values_mut().enumerate() {
        let hours = 30 - i64::try_from(number).unwrap() * 6;
        sealed.stored_at = Some(now() - jiff::SignedDuration::from_hours(hours.max(0)));
    }
    let plan = plan_wal(&log, &Lineage::default(), &bases, now(), GRACE_SECONDS).unwrap();
    assert_eq!((plan.remove.len(), plan.young), (2, 3));
    let early = now() - jiff::SignedDuration::from_hours(48);
    let refused = plan_wal(&log, &Lineage::default(), &bases, early, GRACE_SECONDS);
    assert_eq!(refused, Err(WalRefusal::FromTheFuture));
}

/// A tree of timelines: each one leaves an earlier one at a position on that one's own stretch.
fn world() -> impl Strategy<Value = (Inventory, Lineage, Vec<BaseBackup>)> {
    let forks = prop::collection::vec((any::<prop::sample::Index>(), 1_u64..6, 0_u64..(16 << 20)), 0..6);
    let holes = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let bases = prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u64..2), 0..6);
    (forks, holes, bases, 3_u64..8).prop_map(|(forks, holes, bases, length)| {
        let size = sample::inventory().cluster.segment_size;
        let mut histories: BTreeMap<Timeline, History> = BTreeMap::new();
        // Where each timeline begins; it goes on for `length` segments and may be left anywhere.
        let mut begins = vec![sample::lsn(1, 0)];
        for (parent, segments, offset) in &forks {
            let parent = parent.index(begins.len());
            let at = Lsn(begins[parent].0 + (segments % length) * (16 << 20) + offset);
            let parent_line = Timeline(u32::try_from(parent).unwrap() + 1);
            let mut history = histories.get(&parent_line).cloned().unwrap_or_default();
            history.0.push(Switch { parent: parent_line, at });
            begins.push(at);
            histories.insert(Timeline(u32::try_from(begins.len()).unwrap()), history);
        }
        let mut log = sample::inventory();
        for (index, begin) in begins.iter().enumerate() {
            let first = SegmentNumber::of(*begin, size).0;
            sample::seal(&mut log, u32::try_from(index).unwrap() + 1, first..first + length);
        }
        log.histories = histories.keys().copied().collect();
        let names: Vec<SegmentName> = log.segments.keys().copied().collect();
        let bases = bases.iter().map(|(at, _, span)| {
            let segment = names[at.index(names.len())];
            let start = Lsn(segment.number.start(size).0 + 40);
            // Not before the timeline itself began.
            let start = start.max(begins[segment.timeline.0 as usize - 1]);
            base(segment.timeline.0, start, Lsn(start.0 + 100 + span * (16 << 20)))
        });
        let bases: Vec<BaseBackup> = bases.collect();
        for hole in &holes {
            log.segments.remove(&names[hole.index(names.len())]);
        }
        (log, Lineage::new(histories), bases)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// What is swept changes nothing for any kept base backup, on any way, nor for a second sweep.
    #[test]
    fn every_kept_base_recovers_as_far_as_before((log, lines, bases) in world()) {
        let Ok(plan) = plan(&log, &lines, &bases) else {
            let newest_is_whole = bases.last().is_some_and(|base| covers(&log, base));
            prop_assert!(!newest_is_whole, "only doubt refuses");
            return Ok(());
        };
        let mut swept = log.clone();
        for removal in &plan.remove {
            swept.segments.remove(&removal.segment);
        }
        for base in &bases {
            prop_assert_eq!(covers(&log, base), covers(&swept, base));
            for target in lineage::timelines(&log) {
                if !lines.leads(base.timeline, base.start, target) {
                    continue;
                }
                let before = reach(&log, &lines, target, base.start);
                let after = reach(&swept, &lines, target, base.start);
                prop_assert_eq!((before.upto, before.hole), (after.upto, after.hole));
                // Also what is behind a hole: a lost segment may be put back.
                for segment in log.segments.keys().filter(|segment| segment.number >= before.missing.number) {
                    if lines.holder(target, segment.number, log.cluster.segment_size) == segment.timeline {
                        prop_assert!(swept.segments.contains_key(segment));
                    }
                }
            }
        }
        let again = plan_again(&swept, &lines, &bases);
        prop_assert_eq!(again, 0);
        let sum = plan.needed + plan.young + plan.unknown + plan.remove.len() as u64;
        prop_assert_eq!(sum, log.segments.len() as u64);
    }
}

fn plan_again(swept: &Inventory, lines: &Lineage, bases: &[BaseBackup]) -> usize {
    plan(swept, lines, bases).map_or(0, |plan| plan.remove.len())
}

#[test]
fn sizes_of_segments_are_those_of_the_cluster() {
    let mut log = sample::inventory();
    log.cluster = Cluster { segment_size: (64_u32 << 20).try_into().unwrap(), ..log.cluster };
    sample::seal(&mut log, 1, 1..=9);
    // The start of segment 4 of 64 MiB is what would be number 16 of 16 MiB.
    let bases = [BaseBackup { cluster: log.cluster, ..base(1, sample::lsn(16, 40), sample::lsn(16, 900)) }];
    assert_eq!(removed(&plan(&log, &Lineage::default(), &bases).unwrap()), [(1, 1), (1, 2), (1, 3)]);
}
