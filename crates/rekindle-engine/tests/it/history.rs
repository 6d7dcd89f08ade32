//! A month of a stack with several components, ten thousand times: points of all and of single components,
//! failures, tags, holds, drills, retention by component and by tag, and a journal that is lost at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rekindle_core::mark::MarkKind;
use rekindle_core::objective::Objective;
use rekindle_core::proof_record::Outcome;
use rekindle_core::retention::Policy;
use rekindle_core::schedule::{Agenda, Delays, Ended, Job, JobName, LastRun, Rules, RunState, Task, Timetable};
use rekindle_core::{ComponentKind, PointId};
use rekindle_engine::retain::Policies;
use rekindle_engine::status::{Expectation, status};

use crate::history_points::{COMPONENTS, HOST, KEPT_TAG, Repository, STACK, Saved};
use crate::world::{Going, Random, Table, World, name as name_of, pause, rules};

const HISTORIES: u64 = 10_000;
const DAYS: u64 = 31;
/// Each with a change of the clock in it, but the last.
const MONTHS: [(&str, Date); 4] = [
    ("Europe/Berlin", date(2026, 3, 15)),
    ("Europe/Berlin", date(2026, 10, 10)),
    ("America/Santiago", date(2026, 8, 20)),
    ("UTC", date(2026, 5, 1)),
];

struct Month {
    rules: Rules,
    start: Timestamp,
    end: Timestamp,
    jobs: Vec<Job<Table>>,
}

impl Month {
    fn new((zone, day): (&str, Date)) -> Self {
        let rules = rules(zone);
        let start = day.at(12, 0, 0, 0).to_zoned(rules.zone.clone()).unwrap().timestamp();
        let job = |task, component, cron| Job {
            name: name_of(task, component),
            schedule: Table::ready(cron, &rules.zone, start),
        };
        let jobs = vec![
            job(Task::Backup, Some("database"), "30 2,14 * * *"),
            job(Task::Backup, Some("files"), "30 2 * * *"),
            job(Task::Backup, Some("cache"), "15 8 * * *"),
            job(Task::Prune, None, "0 3 * * *"),
        ];
        Self { end: start + Duration::from_secs(86_400 * DAYS), rules, start, jobs }
    }
}

fn policies(random: &mut Random) -> Policies {
    let usual = Policy { last: 2, daily: 3, weekly: 1, min_keep: 3, ..Policy::default() };
    let own = [
        ("files", Policy { last: 1, daily: 5, min_keep: 4, ..Policy::default() }),
        ("database", Policy { last: 3, daily: 2, min_keep: 2, ..Policy::default() }),
        ("cache", Policy { last: 1, min_keep: 6, ..Policy::default() }),
    ];
    let few = usize::try_from(random.below(4)).unwrap();
    Policies {
        usual,
        of_component: own.into_iter().take(few).map(|(name, policy)| (name.parse().unwrap(), policy)).collect(),
        keep_tags: [KEPT_TAG.to_owned()].into(),
    }
}

/// Everything but the scheduler.
struct Surroundings {
    repository: Repository,
    policies: Policies,
    random: Random,
    zone: TimeZone,
    /// Of a hundred captures of a component.
    failing: u64,
}

struct History {
    world: World,
    around: Surroundings,
    /// Up to here, nobody can know whether a job was run: its journal was lost, and the repository holds
    /// nothing of it.
    unknown_until: BTreeMap<JobName, Timestamp>,
    losses: usize,
}

fn component(job: &JobName) -> &str {
    job.component.as_ref().unwrap().as_str()
}

impl Surroundings {
    fn backup(
        &mut self,
        started: Timestamp,
        now: Timestamp,
        wanted: &[&str],
        tag: Option<&str>,
    ) -> BTreeMap<String, bool> {
        let (mut captured, mut missing) = (Vec::new(), Vec::new());
        for name in wanted {
            if self.random.chance(self.failing) {
                missing.push(*name);
            } else {
                // Blocks of a time series stand for a moment before the run.
                let early = if *name == "cache" { self.random.below(7200) } else { 0 };
                captured.push((*name, started - Duration::from_secs(early)));
            }
        }
        let done = wanted.iter().map(|name| ((*name).to_owned(), !missing.contains(name))).collect();
        if !captured.is_empty() {
            let suspicious = self.random.chance(3);
            self.repository.write(&Saved { stack: STACK, started, captured, missing, tag, suspicious }, now);
        }
        done
    }

    /// How each job of a run ended. A run that was killed may have written its point before.
    fn outcome(&mut self, run: &Going, now: Timestamp) -> Vec<Ended> {
        let jobs = &run.run.jobs;
        let (all, killed) = (|how| vec![how; jobs.len()], run.ends > now);
        if run.run.task == Task::Prune {
            return all(match (killed, self.random.chance(5)) {
                (true, _) => Ended::Interrupted,
                (false, true) => Ended::Again,
                _ if self.repository.prune(&self.policies, now, &self.zone) => Ended::Good,
                _ => Ended::Bad,
            });
        }
        if killed && self.random.chance(70) {
            return all(Ended::Interrupted);
        }
        if self.random.chance(self.failing / 3) {
            return all(Ended::Again);
        }
        let names: Vec<&str> = jobs.iter().map(|job| component(&job.job)).collect();
        let done = self.backup(run.started, now, &names, None);
        // Of a run that did not tell, only its point is known.
        let whole = done.values().all(|good| *good);
        let good = |name: &&str| if killed { whole } else { done[*name] };
        names.iter().map(|name| if good(name) { Ended::Good } else { Ended::Bad }).collect()
    }

    /// The moment of the newest good result that the repository shows, as the service learns it.
    fn shown(&self, job: &JobName, now: Timestamp) -> Option<Timestamp> {
        let expected = Expectation {
            component: job.component.clone()?,
            kind: ComponentKind::Files,
            objective: Objective::default(),
            recoverable_until: None,
        };
        let seen = status(STACK, HOST, &[expected], &self.repository.points, &[], now);
        let one = &seen.components[0];
        one.captured_at.max(one.run_started)
    }

    fn any_point(&mut self) -> Option<usize> {
        let count = self.repository.points.len() as u64;
        (count > 0).then(|| usize::try_from(self.random.below(count)).unwrap())
    }
}

impl History {
    fn new(month: &Month, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut rules = month.rules.clone();
        let jitter = if random.chance(30) { Duration::from_secs(random.below(1200)) } else { Duration::ZERO };
        rules.delays = Delays::new(jitter, seed, &month.jobs);
        if random.chance(10) {
            rules.pauses = vec![pause("0 1 * * 6", Duration::from_secs(3600 * (1 + random.below(30))))];
        }
        let (policies, failing) = (policies(&mut random), [0, 10, 50][usize::try_from(random.below(3)).unwrap()]);
        let mut repository = Repository::default();
        for hours in [5, 4, 3] {
            let started = month.start - SignedDuration::from_hours(hours);
            let captured = COMPONENTS.map(|name| (name, started)).to_vec();
            let (missing, tag, suspicious) = (Vec::new(), None, false);
            repository.write(&Saved { stack: "blog", started, captured, missing, tag, suspicious }, started);
        }
        let zone = rules.zone.clone();
        Self {
            world: World::new(rules, month.jobs.clone(), month.start),
            around: Surroundings { repository, policies, random, zone, failing },
            unknown_until: month.jobs.iter().map(|job| (job.name.clone(), month.start)).collect(),
            losses: 0,
        }
    }

    fn run(&mut self, end: Timestamp) {
        while self.world.now < end {
            self.runs_end(false);
            self.somebody_does_something();
            let random = &mut self.around.random;
            let agenda = self.world.turn(|_| Duration::from_secs(60 + random.below(2 * 3600)));
            self.nothing_is_lost(&agenda);
            let next = agenda.next_look.unwrap();
            let next = self.world.going.iter().map(|one| one.ends).chain([next]).min().unwrap();
            self.world.now = next.max(self.world.now + Duration::from_secs(1));
            if self.around.random.chance(2) {
                self.runs_end(true);
                self.world.now += Duration::from_secs(self.around.random.below(5 * 86_400));
            }
        }
    }

    fn runs_end(&mut self, all: bool) {
        let now = self.world.now;
        self.world.end(all, |one| self.around.outcome(one, now));
    }

    fn somebody_does_something(&mut self) {
        let now = self.world.now;
        match self.around.random.below(100) {
            // Beside another one, the point that is written later may hold the earlier capture.
            0..2 if self.world.going.iter().all(|one| one.run.task != Task::Backup) => self.backup_by_hand(now),
            2..6 => self.drill(now),
            6..8 => self.mark(MarkKind::Hold, now),
            8..10 => self.mark(MarkKind::Release, now),
            10..20 => self.mark(MarkKind::Accept, now),
            20..22 => self.forget_by_hand(),
            22..24 => self.lose_journal(now),
            _ => {}
        }
    }

    fn backup_by_hand(&mut self, now: Timestamp) {
        let random = &mut self.around.random;
        let wanted = match random.below(4) {
            0 => &COMPONENTS[1..2],
            1 => &COMPONENTS[..2],
            _ => &COMPONENTS[..],
        };
        let tag = [None, Some(KEPT_TAG), Some("other")][usize::try_from(random.below(3)).unwrap()];
        for (name, good) in self.around.backup(now, now, wanted, tag) {
            if good {
                self.world.good_result(&name_of(Task::Backup, Some(&name)), now);
            }
        }
    }

    fn drill(&mut self, now: Timestamp) {
        let Some(number) = self.around.any_point() else { return };
        let outcome = match self.around.random.below(6) {
            0 => Outcome::Failed,
            1 => Outcome::Unproved,
            _ => Outcome::Passed,
        };
        if self.around.random.chance(20) {
            return self.around.repository.proved_there(number);
        }
        self.around.repository.drill(number, outcome, now);
    }

    fn mark(&mut self, kind: MarkKind, now: Timestamp) {
        let newest = self.around.repository.points.len().checked_sub(1);
        let number = if kind == MarkKind::Accept { newest } else { self.around.any_point() };
        if let Some(number) = number {
            let point = self.around.repository.points[number].id().clone();
            self.around.repository.mark(kind, &point, now);
        }
    }

    fn forget_by_hand(&mut self) {
        let mut wanted = BTreeSet::new();
        for _ in 0..=self.around.random.below(3) {
            wanted.extend(self.around.any_point().map(|number| self.around.repository.points[number].id().clone()));
        }
        let before = COMPONENTS.map(|name| self.around.repository.newest_capture(name));
        self.around.repository.forget(&wanted.into_iter().collect::<Vec<PointId>>());
        for (name, before) in COMPONENTS.iter().zip(before) {
            // What was removed by hand may be made again, and need not be.
            if self.around.repository.newest_capture(name) != before {
                let job = name_of(Task::Backup, Some(name));
                self.world.good.remove(&job);
                self.unknown_until.insert(job, self.world.now);
            }
        }
    }

    fn lose_journal(&mut self, now: Timestamp) {
        self.runs_end(true);
        self.losses += 1;
        for job in self.unknown_until.keys().cloned().collect::<Vec<_>>() {
            if self.around.shown(&job, now).is_none() {
                self.unknown_until.insert(job, now);
            }
        }
        self.world.lose_journal(|job| self.around.shown(job, now));
    }

    /// The newest occurrence of every job waits, runs, or was run since its journal began, or the repository
    /// holds what it would have brought.
    fn nothing_is_lost(&self, agenda: &Agenda) {
        let (world, now) = (&self.world, self.world.now);
        for (job, known) in &world.jobs {
            let due = now - world.rules.delays.of(job.name.task);
            let Some(slot) = job.schedule.newest_until(due, &world.rules.zone) else { continue };
            // Seen as soon as the run before it has ended.
            let runs = matches!(known.newest, Some(LastRun { state: RunState::Running, .. }));
            let waits = agenda.queue.iter().any(|one| one.job == job.name && one.slot >= slot);
            let started = world.starts.iter().any(|((name, at), tries)| *name == job.name && *at >= slot && *tries > 0);
            let held = job.name.task == Task::Backup
                && self.around.repository.newest_capture(component(&job.name)).is_some_and(|at| at >= slot);
            let unknown = slot <= self.unknown_until[&job.name];
            assert!(runs || waits || started || held || unknown, "{} of {slot} is lost at {now}: {known:?}", job.name);
        }
    }
}

/// Half of the histories in one test, so that two can run at once.
fn histories(seeds: impl Iterator<Item = u64>) {
    let months = MONTHS.map(Month::new);
    let (mut removed, mut refused, mut losses) = (0, 0, 0);
    for seed in seeds {
        let month = &months[usize::try_from(seed / 2 % 4).unwrap()];
        let told = std::panic::catch_unwind(|| {
            let mut history = History::new(month, seed);
            history.run(month.end);
            history
        });
        let Ok(history) = told else { panic!("history {seed} is wrong") };
        removed += history.around.repository.removed;
        refused += history.around.repository.refused;
        losses += history.losses;
    }
    assert!(
        removed > 100_000 && refused > 1_000 && losses > 5_000,
        "{removed} {refused} {losses}: too little happened"
    );
}

#[test]
fn a_month_of_components_tags_and_lost_journals_ten_thousand_times_first_half() {
    histories((0..HISTORIES).step_by(2));
}

#[test]
fn a_month_of_components_tags_and_lost_journals_ten_thousand_times_second_half() {
    histories((1..HISTORIES).step_by(2));
}
