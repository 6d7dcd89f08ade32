#![expect(clippy::result_large_err, clippy::cast_possible_wrap, reason = "small numbers of a test")]

use proptest::prelude::*;

use super::*;
use crate::timeline::windows;
use crate::wal::{Gap, Sealed, SegmentName, SegmentNumber, SegmentSize, Switch, SystemId, WalRange};

const MIB: u64 = 1 << 20;
const SEALED: Sealed = Sealed { stored_bytes: 1, stored_at: None };

fn cluster() -> Cluster {
    Cluster { system: SystemId(7), segment_size: SegmentSize::try_from(1 << 20).unwrap() }
}

fn second(at: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at).unwrap()
}

fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number: SegmentNumber(number) }
}

/// A base backup of the segment `number`, whose clock is the number of the segment.
fn base(timeline: u32, number: u64) -> BasePoint {
    let (start, stop) = (Lsn(number * MIB + 40), Lsn(number * MIB + 400));
    BasePoint {
        point: format!("{:064x}", u64::from(timeline) << 32 | number).parse().unwrap(),
        base: BaseBackup {
            cluster: cluster(),
            server_version: 150_018,
            timeline: Timeline(timeline),
            start,
            stop,
            started: second(number as i64 * 100),
            stopped: second(number as i64 * 100 + 1),
            wal_ranges: vec![WalRange { timeline: Timeline(timeline), start, end: stop }],
            tablespaces: Vec::new(),
            checksums: true,
            checksum_failures: 0,
        },
    }
}

fn log(segments: impl IntoIterator<Item = SegmentName>) -> ClusterLog {
    let inventory = Inventory {
        cluster: cluster(),
        segments: segments.into_iter().map(|name| (name, SEALED)).collect(),
        tails: BTreeMap::new(),
        tails_at: BTreeMap::new(),
        left_tails: BTreeSet::new(),
        histories: BTreeSet::new(),
        gaps: Vec::new(),
        holds: Vec::new(),
    };
    ClusterLog { inventory, histories: BTreeMap::new() }
}

/// Every segment's last commit is 99 seconds after its first moment, in its last bytes.
struct Eyes {
    names: Vec<(String, Lsn)>,
}

impl LogEyes for Eyes {
    fn ends(&mut self, _: &BaseBackup, chain: &Chain) -> Result<Ends, Fault> {
        let last = Lsn(chain.reach.0 - 100);
        let at = second((last.0 / MIB) as i64 * 100 + 99);
        let moment = Some(Moment { lsn: last, at });
        Ok(Ends { last_record: Some(last), newest: moment, newest_commit: moment })
    }

    fn find(&mut self, base: &BaseBackup, chain: &Chain, until: Option<Lsn>, stop: &Stop) -> Result<Found, Fault> {
        let within = |lsn: Lsn| lsn >= base.start && lsn < chain.reach && until.is_none_or(|until| lsn < until);
        let Stop::Name(wanted) = stop else { return Ok(Found::Unknown) };
        let seen: Vec<&(String, Lsn)> = self.names.iter().filter(|(_, lsn)| within(*lsn)).collect();
        Ok(match seen.iter().find(|(name, _)| name == wanted) {
            Some((_, lsn)) => Found::At(*lsn),
            None => Found::Absent { names: seen.iter().map(|(name, _)| name.clone()).collect() },
        })
    }
}

fn planned(stop: Stop, bases: &[BasePoint], log: &ClusterLog) -> Result<RecoveryPlan, Refusal> {
    planned_to(&RecoveryTarget::new(stop), bases, log)
}

fn planned_to(target: &RecoveryTarget, bases: &[BasePoint], log: &ClusterLog) -> Result<RecoveryPlan, Refusal> {
    let names = vec![("early".to_owned(), Lsn(2 * MIB + 500)), ("late".to_owned(), Lsn(7 * MIB + 5))];
    match plan(target, bases, std::slice::from_ref(log), &mut Eyes { names }) {
        Ok(plan) => Ok(plan),
        Err(Unplanned::Refused(refusal)) => Err(*refusal),
        Err(Unplanned::Failed(fault)) => panic!("{fault:?}"),
    }
}

fn whole() -> (Vec<BasePoint>, ClusterLog) {
    (vec![base(1, 2), base(1, 6)], log((1..10).map(|number| name(1, number))))
}

#[test]
fn the_newest_base_backup_before_the_moment_is_taken() {
    let (bases, log) = whole();
    let chosen = |at| planned(Stop::Time(second(at)), &bases, &log).map(|plan| plan.base.start.0 / MIB);
    assert_eq!(chosen(201), Ok(2));
    assert_eq!(chosen(600), Ok(2), "the second was not complete yet");
    assert_eq!(chosen(601), Ok(6));
    assert_eq!(chosen(998), Ok(6));
    assert!(matches!(chosen(200), Err(Refusal::BeforeFirst { .. })));
    assert!(matches!(chosen(999), Err(Refusal::AfterEnd { .. })), "PostgreSQL needs a later commit to stop at");
    let exclusive = RecoveryTarget { inclusive: false, ..RecoveryTarget::new(Stop::Time(second(999))) };
    assert!(planned_to(&exclusive, &bases, &log).is_ok(), "and stops before it");
    let plan = planned(Stop::Time(second(700)), &bases, &log).unwrap();
    assert_eq!(plan.chain.segments, (6..10).map(|number| name(1, number)).collect::<Vec<_>>());
}

#[test]
fn positions_names_and_ends() {
    let (bases, log) = whole();
    let chosen = |stop: Stop| planned(stop, &bases, &log).map(|plan| plan.base.start.0 / MIB);
    assert_eq!(chosen(Stop::Lsn(Lsn(6 * MIB + 399))), Ok(2));
    assert_eq!(chosen(Stop::Lsn(Lsn(6 * MIB + 400))), Ok(6));
    assert!(matches!(chosen(Stop::Lsn(Lsn(2 * MIB))), Err(Refusal::BeforeFirst { .. })));
    assert!(matches!(chosen(Stop::Lsn(Lsn(10 * MIB))), Err(Refusal::AfterEnd { .. })));
    assert_eq!(chosen(Stop::Name("late".into())), Ok(6));
    assert_eq!(chosen(Stop::Name("early".into())), Ok(2));
    let Err(Refusal::NotInLog { names, .. }) = chosen(Stop::Name("none".into())) else { panic!() };
    assert_eq!(names, ["early", "late"]);
    assert_eq!(chosen(Stop::Latest), Ok(6));
    assert_eq!(chosen(Stop::Immediate), Ok(6));
    assert!(matches!(planned(Stop::Latest, &[], &log), Err(Refusal::NoBase)));
}

#[test]
fn a_hidden_segment_is_named_and_not_passed() {
    let (bases, mut log) = whole();
    log.inventory.segments.remove(&name(1, 8));
    for stop in [Stop::Latest, Stop::Time(second(950)), Stop::Lsn(Lsn(9 * MIB))] {
        let refused = planned(stop, &bases, &log).unwrap_err();
        let Refusal::Hole { missing, next, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!((*missing, *next), (name(1, 8), name(1, 9)));
        let fault = refused.fault(|segment| segment.file(cluster().segment_size));
        assert!(fault.what().contains("000000010000000000000008"), "{fault:?}");
    }
    assert!(planned(Stop::Time(second(750)), &bases, &log).is_ok(), "what is before it can be reached");
    // Before the oldest base backup nobody needs it.
    let (bases, mut log) = whole();
    log.inventory.segments.remove(&name(1, 1));
    assert!(planned(Stop::Latest, &bases, &log).is_ok());
}

#[test]
fn recorded_losses_are_told_as_such() {
    let (bases, mut log) = whole();
    let gap = Gap {
        timeline: Timeline(1),
        from: Lsn(7 * MIB),
        to: Lsn(9 * MIB),
        noticed: second(900),
        why: "the slot was lost".to_owned(),
    };
    log.inventory.gaps.push(gap.clone());
    assert!(planned(Stop::Latest, &bases, &log).is_ok(), "the log is there after all");
    log.inventory.segments.remove(&name(1, 7));
    log.inventory.segments.remove(&name(1, 8));
    assert!(matches!(planned(Stop::Latest, &bases, &log), Err(Refusal::InGap { .. })));
    // Nothing came after the loss yet: that is no quiet end.
    log.inventory.segments.remove(&name(1, 9));
    assert!(matches!(planned(Stop::Latest, &bases, &log), Err(Refusal::InGap { .. })));
    // A base backup behind it is not concerned.
    log.inventory.segments.insert(name(1, 9), SEALED);
    let after = [base(1, 2), base(1, 9)];
    assert!(planned(Stop::Latest, &after, &log).is_ok());
}

#[test]
fn the_open_segment_is_the_end_and_not_the_middle() {
    let (bases, mut log) = whole();
    log.inventory.tails.insert(name(1, 10), 5000);
    let plan = planned(Stop::Latest, &bases, &log).unwrap();
    assert_eq!((plan.chain.tail, plan.chain.reach), (Some((name(1, 10), 5000)), Lsn(10 * MIB + 5000)));
    log.inventory.segments.insert(name(1, 11), SEALED);
    assert!(matches!(planned(Stop::Latest, &bases, &log), Err(Refusal::Hole { .. })));
    log.inventory.tails.insert(name(1, 10), 1 << 20);
    assert!(planned(Stop::Latest, &bases, &log).is_ok(), "a tail of full length is the whole segment");
}

#[test]
fn a_base_backup_without_a_log_brings_itself_back() {
    let bases = [base(1, 2)];
    let target = RecoveryTarget::new(Stop::Immediate);
    let mut eyes = Eyes { names: Vec::new() };
    let plan = plan(&target, &bases, &[], &mut eyes).unwrap();
    assert_eq!((plan.chain.segments.as_slice(), plan.chain.reach), (&[name(1, 2)][..], Lsn(2 * MIB + 400)));
    assert_eq!(plan.chain.own, BTreeSet::from([name(1, 2)]));
}

/// Timeline 2 left timeline 1 in segment 5; timeline 1 went on to segment 7.
fn promoted() -> (Vec<BasePoint>, ClusterLog) {
    let segments = (1..8).map(|number| name(1, number)).chain((5..9).map(|number| name(2, number)));
    let mut log = log(segments);
    let history = History(vec![Switch { parent: Timeline(1), at: Lsn(5 * MIB + 300) }]);
    log.histories.insert(Timeline(2), history);
    log.inventory.histories.insert(Timeline(2));
    (vec![base(1, 2), base(1, 6), base(2, 7)], log)
}

#[test]
fn recovery_follows_the_newest_timeline_or_the_wanted_one() {
    let (bases, log) = promoted();
    let plan = planned(Stop::Time(second(650)), &bases, &log).unwrap();
    let on_one: Vec<SegmentName> = (2..5).map(|number| name(1, number)).collect();
    let on_two: Vec<SegmentName> = (5..9).map(|number| name(2, number)).collect();
    assert_eq!(plan.chain.segments, [on_one, on_two].concat(), "the base on the left branch does not count");
    let first = RecoveryTarget {
        timeline: TimelineChoice::Number(Timeline(1)),
        ..RecoveryTarget::new(Stop::Time(second(650)))
    };
    assert_eq!(planned_to(&first, &bases, &log).unwrap().base.start.0 / MIB, 6);
    let current = RecoveryTarget { timeline: TimelineChoice::Current, ..first.clone() };
    assert_eq!(planned_to(&current, &bases, &log).unwrap().chain.timeline, Timeline(1));
    let third = RecoveryTarget { timeline: TimelineChoice::Number(Timeline(3)), ..first };
    assert!(matches!(planned_to(&third, &bases, &log), Err(Refusal::HistoryMissing { timeline: Timeline(3) })));
    let only = [base(1, 6)];
    assert!(matches!(planned(Stop::Latest, &only, &log), Err(Refusal::OtherTimeline { .. })));
}

#[test]
fn a_timeline_without_its_history_is_refused() {
    let (bases, mut log) = promoted();
    log.histories.clear();
    assert!(matches!(planned(Stop::Latest, &bases, &log), Err(Refusal::HistoryMissing { timeline: Timeline(2) })));
    let first = RecoveryTarget { timeline: TimelineChoice::Number(Timeline(1)), ..RecoveryTarget::new(Stop::Latest) };
    assert!(planned_to(&first, &bases, &log).is_ok());
}

#[test]
fn where_a_timeline_was_left_either_segment_serves_the_parent_and_only_the_childs_the_child() {
    let (bases, mut log) = promoted();
    log.inventory.segments.remove(&name(1, 5));
    assert!(planned(Stop::Latest, &bases[..1], &log).is_ok(), "the child's segment holds the parent's bytes");
    let (bases, mut log) = promoted();
    log.inventory.segments.remove(&name(2, 5));
    let refused = planned(Stop::Latest, &bases[..1], &log).unwrap_err();
    assert!(matches!(refused, Refusal::Hole { missing, .. } if missing == name(2, 5)), "{refused:?}");
    // Just promoted: nothing of the child is there yet.
    for number in 5..9 {
        log.inventory.segments.remove(&name(2, number));
    }
    let plan = planned(Stop::Latest, &bases[..1], &log).unwrap();
    assert_eq!(plan.chain.reach, Lsn(5 * MIB + 300), "not what the parent wrote after it was left");
}

#[test]
fn windows_tell_what_can_be_reached() {
    let (bases, mut log) = promoted();
    log.inventory.segments.remove(&name(2, 7));
    let mut eyes = Eyes { names: Vec::new() };
    let windows = windows(&bases, &[log], &mut eyes).unwrap();
    let told: Vec<(u64, u32, u64, bool)> = windows
        .iter()
        .map(|one| (one.base.start.0 / MIB, one.timeline.0, one.reach.0 / MIB, one.end == End::Head))
        .collect();
    assert_eq!(told, [(2, 2, 7, false), (6, 1, 8, true), (7, 2, 9, true)]);
}

/// What happened to a cluster, step by step.
#[derive(Debug, Clone)]
enum Event {
    Write(u64),
    Backup,
    /// Goes on from a position that many segments back, on a new timeline.
    Promote {
        back: u64,
        within: u64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1_u64..4).prop_map(Event::Write),
        2 => Just(Event::Backup),
        2 => (0_u64..5, 0_u64..MIB).prop_map(|(back, within)| Event::Promote { back, within: within / 8 * 8 }),
    ];
    proptest::collection::vec(event, 1..14)
}

/// The whole story: every base backup, and everything that was ever written.
struct Story {
    bases: Vec<BasePoint>,
    log: ClusterLog,
    /// Timeline, its history, and the last segment written on it.
    heads: Vec<(u32, History, u64)>,
}

fn play(events: &[Event]) -> Story {
    let (mut bases, mut segments) = (Vec::new(), BTreeSet::new());
    let mut heads = vec![(1_u32, History::default(), 1_u64)];
    segments.insert(name(1, 1));
    for event in events {
        let (timeline, history, at) = heads.last().cloned().unwrap();
        match event {
            Event::Write(count) => {
                segments.extend((at + 1..=at + count).map(|number| name(timeline, number)));
                heads.last_mut().unwrap().2 = at + count;
            }
            Event::Backup => {
                // A backup switches to the next segment at its end.
                bases.push(base(timeline, at + 1));
                segments.extend([name(timeline, at + 1), name(timeline, at + 2)]);
                heads.last_mut().unwrap().2 = at + 2;
            }
            Event::Promote { back, within } => {
                let floor = history.0.last().map_or(MIB, |switch| switch.at.0);
                let switch = Lsn((at.saturating_sub(*back) * MIB + within).clamp(floor, (at + 1) * MIB));
                let mut history = history;
                history.0.push(Switch { parent: Timeline(timeline), at: switch });
                let number = switch.0 / MIB;
                segments.insert(name(timeline + 1, number));
                heads.push((timeline + 1, history, number));
            }
        }
    }
    let mut log = log(segments);
    for (timeline, history, _) in heads.iter().skip(1) {
        log.histories.insert(Timeline(*timeline), history.clone());
        log.inventory.histories.insert(Timeline(*timeline));
    }
    Story { bases, log, heads }
}

fn chains(story: &Story) -> Vec<(BasePoint, Chain, u64)> {
    let mut all = Vec::new();
    for (timeline, _, head) in &story.heads {
        let path = path_to(Timeline(*timeline), &story.log.histories).unwrap();
        for one in &story.bases {
            if let Some(chain) = chain(&one.base, &story.log.inventory, &path) {
                all.push((one.clone(), chain, *head));
            }
        }
    }
    all
}

proptest! {
    #[test]
    fn with_everything_there_each_way_reaches_its_head(events in events()) {
        let story = play(&events);
        for (base, chain, head) in chains(&story) {
            prop_assert_eq!(&chain.end, &End::Head);
            prop_assert_eq!(chain.reach, Lsn((head + 1) * MIB), "{:?}", chain);
            let numbers: Vec<u64> = chain.segments.iter().map(|segment| segment.number.0).collect();
            prop_assert_eq!(numbers, (base.base.start.0 / MIB..=head).collect::<Vec<_>>());
            // Each byte comes from a segment of the timeline that wrote it, or of a child that
            // left it within that segment.
            let history = story.log.histories.get(&chain.timeline).cloned().unwrap_or_default();
            for segment in &chain.segments {
                let (first, last) = (segment.number.0 * MIB, (segment.number.0 + 1) * MIB - 1);
                let at_end = history.timeline_at(chain.timeline, Lsn(last));
                let at_start = history.timeline_at(chain.timeline, Lsn(first));
                prop_assert!(segment.timeline == at_end && at_start <= at_end);
            }
        }
    }

    #[test]
    fn one_lost_segment_is_either_not_needed_or_ends_the_way_there(events in events(), lost in any::<prop::sample::Index>()) {
        let mut story = play(&events);
        let whole = chains(&story);
        let gone = *lost.get(&story.log.inventory.segments.keys().copied().collect::<Vec<_>>());
        story.log.inventory.segments.remove(&gone);
        for ((base, before, head), (_, after, _)) in whole.into_iter().zip(chains(&story)) {
            let own = before.segments.contains(&gone) && base.base.wal_ranges[0].start.0 / MIB == gone.number.0
                && base.base.timeline == gone.timeline;
            if !before.segments.contains(&gone) {
                prop_assert_eq!(before, after);
            } else if own {
                prop_assert!(after.own.contains(&gone));
            } else {
                prop_assert!(after.reach <= gone.number.end(cluster().segment_size));
                prop_assert!(!after.segments.contains(&gone));
                let behind = gone.number.0 < head;
                match after.end {
                    End::Hole { missing, .. } => prop_assert!(behind && missing == gone),
                    End::Head => prop_assert!(!behind),
                    End::Gap(_) => prop_assert!(false),
                }
            }
        }
    }

    #[test]
    fn a_plan_for_a_moment_never_begins_after_it(events in events(), at in 0_i64..4000) {
        let story = play(&events);
        match planned(Stop::Time(second(at)), &story.bases, &story.log) {
            Ok(plan) => {
                prop_assert!(plan.base.stopped <= second(at));
                let newer = chains(&story).into_iter().any(|(base, chain, _)| {
                    chain.timeline == plan.chain.timeline && base.base.stopped <= second(at)
                        && (base.base.stopped, base.base.stop) > (plan.base.stopped, plan.base.stop)
                });
                prop_assert!(!newer);
            }
            Err(Refusal::BeforeFirst { .. }) => prop_assert!(story.bases.iter().all(|one| one.base.stopped > second(at))),
            Err(Refusal::NoBase) => prop_assert!(story.bases.is_empty()),
            Err(Refusal::AfterEnd { ends, .. }) => prop_assert!(ends.newest.is_none_or(|end| end.at <= second(at))),
            Err(Refusal::OtherTimeline { .. }) => {}
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
