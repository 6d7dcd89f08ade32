//! A month of a stack, with changes of the clock, outages and runs that fail, ten thousand times.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::{Date, date};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use rekindle_core::PointId;
use rekindle_core::manifest::Completeness;
use rekindle_core::retention::{Candidate, Policy, Refusal, plan};
use rekindle_core::schedule::{Delays, Ended, Hold, Job, Rules, Schedule, Task};

use crate::world::{Going, Random, Table, World, job, name as name_of, pause, rules};

const HISTORIES: u64 = 10_000;
const DAYS: u64 = 31;

/// Zones with their clock changes inside of the month: Berlin at 02:00, Lord Howe by half an hour
/// at 02:00, Santiago at midnight, and one without.
const MONTHS: [(&str, Date); 6] = [
    ("Europe/Berlin", date(2026, 3, 15)),
    ("Europe/Berlin", date(2026, 10, 10)),
    ("Australia/Lord_Howe", date(2026, 3, 20)),
    ("America/Santiago", date(2026, 8, 20)),
    ("America/New_York", date(2026, 10, 20)),
    ("UTC", date(2026, 5, 1)),
];

/// One of the months, with its tables and what they should say.
struct Month {
    rules: Rules,
    start: Timestamp,
    end: Timestamp,
    jobs: Vec<Job<Table>>,
    /// Worked out without cron.
    expected: Vec<BTreeSet<Timestamp>>,
}

impl Month {
    fn new((name, day): (&str, Date)) -> Self {
        let rules = rules(name);
        let zone = &rules.zone;
        let start = day.at(12, 0, 0, 0).to_zoned(zone.clone()).unwrap().timestamp();
        let end = start + Duration::from_secs(86_400 * DAYS);
        let job =
            |task, component, cron| Job { name: name_of(task, component), schedule: Table::ready(cron, zone, start) };
        let jobs = vec![
            job(Task::Backup, Some("database"), "30 2,14 * * *"),
            job(Task::Backup, Some("files"), "30 2 * * *"),
            job(Task::Verify, None, "15 0 * * 3"),
            job(Task::Prune, None, "0 3 * * *"),
        ];
        let night = fixed(zone, start, end, 2, 30, None);
        let mut database = fixed(zone, start, end, 14, 30, None);
        database.extend(&night);
        let expected =
            vec![database, night, fixed(zone, start, end, 0, 15, Some(3)), fixed(zone, start, end, 3, 0, None)];
        Self { rules, start, end, jobs, expected }
    }
}

/// Every occurrence of a fixed time of the day, worked out without cron: in a skipped hour the
/// first moment after it, in a doubled hour the first one.
fn fixed(
    zone: &TimeZone,
    from: Timestamp,
    until: Timestamp,
    hour: i8,
    minute: i8,
    weekday: Option<i8>,
) -> BTreeSet<Timestamp> {
    let mut found = BTreeSet::new();
    let mut day = from.to_zoned(zone.clone()).date() - 1.day();
    while day <= until.to_zoned(zone.clone()).date() + 1.day() {
        let ambiguous = zone.to_ambiguous_timestamp(day.at(hour, minute, 0, 0));
        let at = match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().unwrap();
                zone.following(before).next().unwrap().timestamp()
            }
            _ => ambiguous.earlier().unwrap(),
        };
        if weekday.is_none_or(|wanted| day.weekday().to_sunday_zero_offset() == wanted) && at > from && at <= until {
            found.insert(at);
        }
        day += 1.day();
    }
    found
}

/// The retention of a stack that loses most of its points.
const POLICY: Policy =
    Policy { last: 2, hourly: 0, daily: 3, weekly: 1, monthly: 0, yearly: 0, within_seconds: None, min_keep: 3 };

/// Points as a history makes them, and what retention does to them.
struct Points(Vec<Candidate>);

impl Points {
    fn add(&mut self, now: Timestamp, state: Completeness) {
        let id: PointId =
            format!("{:064x}", self.0.len() as u64 ^ (now.as_second().unsigned_abs() << 16)).parse().unwrap();
        let (proved, proved_there) = (false, false);
        self.0.push(Candidate { id, time: now, state, proved, proved_there, held: false, suspicious: false });
    }

    fn complete(&self) -> Vec<&Candidate> {
        self.0.iter().filter(|one| one.state == Completeness::Complete).collect()
    }

    /// Applies the retention: it never takes the newest complete point, never goes below
    /// `min-keep`, and does nothing while the newest points fail.
    fn prune(&mut self, now: Timestamp, zone: &TimeZone) -> Ended {
        let before = self.complete().len();
        let newest = self.complete().iter().max_by_key(|one| one.time).map(|one| one.id.clone());
        let failing = self.0.len() >= 3 && self.0.iter().rev().take(3).all(|one| one.state == Completeness::Partial);
        match plan(&POLICY, &self.0, now, zone) {
            Ok(decisions) => {
                assert!(!failing, "retention ran while the newest points were partial");
                self.0.retain(|one| decisions.iter().any(|decision| decision.point == one.id && decision.keep));
                let left = self.complete();
                assert!(left.len() >= before.min(3), "{} of {before} complete points are left", left.len());
                assert!(newest.is_none_or(|newest| left.iter().any(|one| one.id == newest)), "the newest is gone");
                Ended::Good
            }
            Err(Refusal::NewestArePartial { .. } | Refusal::FromTheFuture { .. }) => Ended::Bad,
        }
    }
}

/// One history. `disturb`: outages of the scheduler and jumps of the clock.
fn history(month: &Month, seed: u64, disturb: bool) -> World {
    let mut random = Random(seed);
    let (mut rules, end, zone) = (month.rules.clone(), month.end, month.rules.zone.clone());
    let jitter = if random.chance(30) { Duration::from_secs(random.below(1200)) } else { Duration::ZERO };
    rules.delays = Delays::new(jitter, seed, &month.jobs);
    if random.chance(10) {
        rules.pauses = vec![pause("0 1 * * 6", Duration::from_secs(3600 * (1 + random.below(30))))];
    }
    let mut world = World::new(rules, month.jobs.clone(), month.start);
    let mut points = Points(Vec::new());
    let failing = [0, 10, 60][usize::try_from(random.below(3)).unwrap()];
    while world.now < end {
        let now = world.now;
        world.end(false, |one| all(one, outcome(&mut random, failing, one.run.task, &mut points, now, &zone)));
        let agenda = world.turn(|_| Duration::ZERO.max(Duration::from_secs(random.below(3 * 3600))));
        // Never a look into the past, never one that does not end.
        let next = agenda.next_look.unwrap();
        assert!(next > world.now);
        let next = world.going.iter().map(|one| one.ends).chain([next]).min().unwrap();
        world.now = next.max(world.now + Duration::from_secs(1));
        if disturb && random.chance(3) {
            if random.chance(50) {
                world.end(true, |one| all(one, Ended::Interrupted));
                world.now += Duration::from_secs(random.below(6 * 86_400));
            } else {
                world.now -= Duration::from_secs(random.below(3 * 3600));
            }
        }
    }
    world
}

/// Every job of a run ended like this.
fn all(run: &Going, how: Ended) -> Vec<Ended> {
    vec![how; run.run.jobs.len()]
}

fn outcome(
    random: &mut Random,
    failing: u64,
    task: Task,
    points: &mut Points,
    now: Timestamp,
    zone: &TimeZone,
) -> Ended {
    let failed = random.chance(failing);
    match (task, failed) {
        (Task::Prune, _) => points.prune(now, zone),
        (Task::Backup, false) => {
            points.add(now, Completeness::Complete);
            Ended::Good
        }
        (Task::Backup, true) if random.chance(50) => {
            points.add(now, Completeness::Partial);
            Ended::Bad
        }
        (_, true) => {
            if random.chance(50) {
                Ended::Again
            } else {
                Ended::Bad
            }
        }
        _ => Ended::Good,
    }
}

/// Half of the histories in one test, so that two can run at once.
fn histories(seeds: impl Iterator<Item = u64>) {
    let months = MONTHS.map(Month::new);
    for seed in seeds {
        let month = &months[usize::try_from(seed / 2 % 6).unwrap()];
        let told = std::panic::catch_unwind(|| {
            let disturb = seed % 5 != 0;
            let world = history(month, seed, disturb);
            every_occurrence_is_dealt_with(month, &world, disturb);
        });
        assert!(told.is_ok(), "history {seed} is wrong");
    }
}

/// Without jumps of the clock, each occurrence of the month had its run, or one that stood for it,
/// but the last ones, which may still wait.
fn every_occurrence_is_dealt_with(month: &Month, world: &World, disturbed: bool) {
    for ((job, known), slots) in world.jobs.iter().zip(&month.expected) {
        let started: BTreeSet<Timestamp> =
            world.starts.keys().filter(|(name, at)| *name == job.name && *at <= month.end).map(|(_, at)| *at).collect();
        let strange: Vec<&Timestamp> = started.difference(slots).collect();
        assert!(strange.is_empty(), "{}: {strange:?} are no occurrences", job.name);
        if !disturbed {
            let newest = known.newest.map_or(month.start, |run| run.slot);
            let due = slots.iter().filter(|slot| **slot <= newest).count() as u64;
            assert_eq!(world.covered.get(&job.name).copied().unwrap_or(0), due, "{}", job.name);
            let waiting = slots.iter().filter(|slot| **slot > newest).count();
            assert!(waiting <= 4, "{}: {waiting} occurrences wait at the end", job.name);
        }
    }
}

#[test]
fn a_simulated_month_of_schedules_ten_thousand_times_first_half() {
    histories((0..HISTORIES).step_by(2));
}

#[test]
fn a_simulated_month_of_schedules_ten_thousand_times_second_half() {
    histories((1..HISTORIES).step_by(2));
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A world with one hourly backup that was off from 00:30 to 09:10.
fn after_a_night() -> World {
    let mut world =
        World::new(rules("UTC"), vec![job(Task::Backup, Some("files"), "0 * * * *")], at("2026-06-01T00:30:00Z"));
    world.now = at("2026-06-01T09:10:00Z");
    world
}

#[test]
fn missed_runs_are_caught_up_once() {
    let mut world = after_a_night();
    let agenda = world.turn(|_| Duration::from_mins(1));
    assert_eq!(agenda.queue, []);
    assert_eq!(world.starts.keys().map(|(_, slot)| *slot).collect::<Vec<_>>(), [at("2026-06-01T09:00:00Z")]);
    assert_eq!(world.covered.values().sum::<u64>(), 9, "01:00 to 09:00");
    world.now = at("2026-06-01T09:12:00Z");
    world.end(false, |one| all(one, Ended::Good));
    let agenda = world.turn(|_| Duration::from_mins(1));
    assert_eq!((agenda.queue.len(), world.going.len()), (0, 0), "once");
    assert_eq!(agenda.next_look, Some(at("2026-06-01T10:00:00Z")));
}

#[test]
fn a_lost_journal_catches_up_from_what_the_repository_holds() {
    let name = name_of(Task::Backup, Some("files"));
    let mut world = after_a_night();
    world.good_result(&name, at("2026-06-01T05:02:00Z"));
    world.lose_journal(|_| Some(at("2026-06-01T05:02:00Z")));
    let agenda = world.turn(|_| Duration::from_mins(1));
    assert_eq!(agenda.overdue.iter().map(|one| one.since).collect::<Vec<_>>(), [at("2026-06-01T06:00:00Z")]);
    assert_eq!(world.starts.keys().map(|(_, slot)| *slot).collect::<Vec<_>>(), [at("2026-06-01T09:00:00Z")]);
    assert_eq!(world.covered.values().sum::<u64>(), 4, "06:00 to 09:00");
    world.now = at("2026-06-01T09:12:00Z");
    world.end(false, |one| all(one, Ended::Good));
    // What was done is not done again, and of what nobody knows nothing was missed.
    world.lose_journal(|_| Some(at("2026-06-01T09:10:00Z")));
    assert_eq!((world.turn(|_| Duration::ZERO).queue.len(), world.going.len()), (0, 0));
    world.lose_journal(|_| None);
    assert_eq!((world.turn(|_| Duration::ZERO).queue.len(), world.going.len()), (0, 0));
}

#[test]
fn overdue_is_a_state_that_a_good_run_ends() {
    let mut world = after_a_night();
    let agenda = world.turn(|_| Duration::from_mins(1));
    let overdue: Vec<_> = agenda.overdue.iter().map(|one| one.since).collect();
    assert_eq!(overdue, [at("2026-06-01T01:00:00Z")]);
    world.now = at("2026-06-01T09:12:00Z");
    world.end(false, |one| all(one, Ended::Bad));
    assert_eq!(world.turn(|_| Duration::ZERO).overdue.len(), 1, "a failure ends nothing");
    world.now = at("2026-06-01T10:00:00Z");
    world.turn(|_| Duration::from_mins(1));
    world.now = at("2026-06-01T10:02:00Z");
    world.end(false, |one| all(one, Ended::Good));
    assert_eq!(world.turn(|_| Duration::ZERO).overdue, []);
}

#[test]
fn a_day_with_a_clock_change_has_each_run_once() {
    // 2026-03-29 has no 02:30 in Berlin, 2026-10-25 has two.
    for (day, expected) in
        [("2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"), ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z")]
    {
        let start = at(day);
        let mut world = World::new(rules("Europe/Berlin"), vec![job(Task::Backup, Some("files"), "30 2 * * *")], start);
        while world.now < start + Duration::from_hours(24) {
            world.end(false, |one| all(one, Ended::Good));
            let agenda = world.turn(|_| Duration::ZERO);
            world.now = agenda.next_look.unwrap().min(world.now + Duration::from_mins(10));
        }
        assert_eq!(world.starts.keys().map(|(_, slot)| *slot).collect::<Vec<_>>(), [at(expected)]);
    }
}

#[test]
fn what_is_due_together_becomes_one_run_and_a_prune_waits_for_it() {
    let jobs = vec![
        job(Task::Prune, None, "0 * * * *"),
        job(Task::Backup, Some("files"), "0 * * * *"),
        job(Task::Backup, Some("database"), "*/30 * * * *"),
        job(Task::Verify, None, "0 * * * *"),
    ];
    let mut world = World::new(rules("UTC"), jobs, at("2026-06-01T00:10:00Z"));
    world.now = at("2026-06-01T01:00:00Z");
    let agenda = world.turn(|_| Duration::from_mins(10));
    assert_eq!(world.going.len(), 2, "one point of both components, and the verification beside it");
    let waits: Vec<String> = agenda.queue.iter().map(|one| format!("{} {:?}", one.job, one.hold)).collect();
    assert!(waits.len() == 1 && waits[0].starts_with("prune Some(Running"), "{waits:?}");
    assert!(agenda.queue.iter().all(|one| one.hold.is_some()));
}

#[test]
fn in_a_pause_nothing_starts_and_everything_after_it() {
    let mut rules = rules("UTC");
    rules.pauses = vec![pause("0 2 * * *", Duration::from_hours(2))];
    let mut world = World::new(rules, vec![job(Task::Backup, Some("files"), "30 * * * *")], at("2026-06-01T02:10:00Z"));
    world.now = at("2026-06-01T02:30:00Z");
    let agenda = world.turn(|_| Duration::from_mins(1));
    let until = at("2026-06-01T04:00:00Z");
    assert_eq!(agenda.queue[0].hold, Some(Hold::Pause { until }));
    assert_eq!(agenda.next_look, Some(at("2026-06-01T03:30:00Z")));
    world.now = until;
    world.turn(|_| Duration::from_mins(1));
    assert_eq!(world.covered.values().sum::<u64>(), 2);
}

#[test]
fn a_clock_put_back_by_years_does_not_stop_the_schedule() {
    let mut world = after_a_night();
    world.now = at("2036-06-01T09:10:00Z");
    world.turn(|_| Duration::ZERO);
    world.end(false, |one| all(one, Ended::Good));
    world.now = at("2026-06-01T12:30:00Z");
    world.turn(|_| Duration::ZERO);
    world.now = at("2026-06-01T13:00:00Z");
    world.turn(|_| Duration::ZERO);
    assert!(world.starts.keys().any(|(_, slot)| *slot == at("2026-06-01T13:00:00Z")), "{:?}", world.starts);
}

#[test]
fn jitter_is_the_same_every_time_and_differs_between_stacks() {
    let most = Duration::from_mins(10);
    let of = |seed, schedule| Delays::new(most, seed, &[job(Task::Backup, Some("files"), schedule)]).of(Task::Backup);
    assert_eq!(of(7, "0 2 * * *"), of(7, "0 2 * * *"));
    let different: BTreeSet<Duration> = (0..100).map(|seed| of(seed, "0 2 * * *")).collect();
    assert!(different.len() > 50 && different.iter().all(|one| *one <= most), "{different:?}");
    assert!((0..100).all(|seed| of(seed, "* * * * *") <= Duration::from_secs(15)));
}

#[test]
fn jitter_does_not_part_what_is_due_together() {
    for seed in 0..100 {
        let jobs = vec![
            job(Task::Backup, Some("database"), "0 * * * *"),
            job(Task::Backup, Some("files"), "0 3 * * *"),
            job(Task::Verify, None, "0 3 * * *"),
        ];
        let mut rules = rules("UTC");
        rules.delays = Delays::new(Duration::from_hours(2), seed, &jobs);
        assert!(rules.delays.of(Task::Backup) <= Duration::from_mins(15));
        let mut world = World::new(rules, jobs, at("2026-06-01T02:30:00Z"));
        world.now = at("2026-06-01T03:15:00Z");
        world.turn(|_| Duration::from_mins(1));
        let together = world.going.iter().find(|one| one.run.task == Task::Backup).unwrap();
        assert_eq!(together.run.jobs.len(), 2, "{:?}", together.run);
    }
}

#[test]
fn a_result_is_late_a_fifth_of_the_gap_after_it_was_due_and_could_start() {
    let hourly = Schedule::parse("0 * * * *").unwrap();
    let day = |time: &str| at(&format!("2026-07-01T{time}Z"));
    let mut rules = rules("Europe/Berlin");
    let late = |rules: &Rules, now| rules.overdue_since(Task::Backup, &hourly, day("10:00:30"), day(now));
    assert_eq!(late(&rules, "11:12:00"), None);
    assert_eq!(late(&rules, "11:12:01"), Some(day("11:00:00")));
    rules.pauses = vec![pause("30 12 * * *", Duration::from_hours(2))];
    assert_eq!(late(&rules, "12:42:00"), None, "nothing could be started from 12:30 to 14:30 in Berlin");
    assert_eq!(late(&rules, "12:42:01"), Some(day("11:00:00")));
    let daily = Schedule::parse("0 2 * * *").unwrap();
    let late = |now| rules.overdue_since(Task::Backup, &daily, day("00:10:00"), at(now));
    assert_eq!(late("2026-07-02T04:48:01Z"), Some(at("2026-07-02T00:00:00Z")), "02:00 in Berlin");
}
