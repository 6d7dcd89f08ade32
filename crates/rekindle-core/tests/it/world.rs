//! A stack's jobs and a clock that is moved by hand; every start is checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rekindle_core::schedule::{
    ATTEMPTS_MAX, Agenda, Delays, Ended, Hold, Job, JobName, Known, LastRun, Pause, Queued, Rules, Run, RunState,
    Schedule, Task, Timetable, look,
};

/// SplitMix64: a failure is repeated by its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A schedule, or what one says for a month, worked out once for many histories.
#[derive(Clone)]
pub(crate) enum Table {
    Live(Box<Schedule>),
    Ready(Arc<Vec<Timestamp>>, Duration),
}

impl Table {
    /// All occurrences of a month and some time around it.
    pub(crate) fn ready(schedule: &str, zone: &TimeZone, month: Timestamp) -> Self {
        let schedule = Schedule::parse(schedule).unwrap();
        let from = month - Duration::from_hours(20 * 24);
        let slots = std::iter::successors(Some(from), |at| schedule.next_after(*at, zone)).skip(1);
        let slots = slots.take_while(|at| *at < month + Duration::from_hours(100 * 24)).collect();
        Self::Ready(Arc::new(slots), schedule.longest_gap())
    }
}

impl Timetable for Table {
    fn next_after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Live(schedule) => schedule.next_after(moment, zone),
            Self::Ready(slots, _) => slots.get(slots.partition_point(|slot| *slot <= moment)).copied(),
        }
    }

    fn newest_until(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Live(schedule) => schedule.newest_until(moment, zone),
            Self::Ready(slots, _) => slots.get(slots.partition_point(|slot| *slot <= moment).checked_sub(1)?).copied(),
        }
    }

    fn longest_gap(&self) -> Duration {
        match self {
            Self::Live(schedule) => schedule.longest_gap(),
            Self::Ready(_, gap) => *gap,
        }
    }
}

pub(crate) fn name(task: Task, component: Option<&str>) -> JobName {
    JobName { task, component: component.map(|name| name.parse().unwrap()) }
}

pub(crate) fn job(task: Task, component: Option<&str>, schedule: &str) -> Job<Table> {
    Job { name: name(task, component), schedule: Table::Live(Box::new(Schedule::parse(schedule).unwrap())) }
}

pub(crate) fn rules(zone: &str) -> Rules {
    let zone = TimeZone::get(zone).unwrap();
    Rules { zone, delays: Delays::default(), pauses: Vec::new() }
}

pub(crate) fn pause(start: &str, length: Duration) -> Pause {
    Pause { name: "window".to_owned(), start: Schedule::parse(start).unwrap(), length }
}

/// A run that goes on.
#[derive(Debug)]
pub(crate) struct Going {
    pub(crate) run: Run,
    pub(crate) started: Timestamp,
    pub(crate) ends: Timestamp,
}

/// Everything that happened.
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) jobs: Vec<(Job<Table>, Known)>,
    pub(crate) now: Timestamp,
    pub(crate) going: Vec<Going>,
    /// Starts of each occurrence.
    pub(crate) starts: BTreeMap<(JobName, Timestamp), u32>,
    /// Occurrences that a run was for, or stood for.
    pub(crate) covered: BTreeMap<JobName, u64>,
    /// The newest occurrence with a good run: none up to it is run again.
    pub(crate) good: BTreeMap<JobName, Timestamp>,
    waiting: Vec<Queued>,
}

impl World {
    pub(crate) fn new(rules: Rules, jobs: Vec<Job<Table>>, now: Timestamp) -> Self {
        let jobs = jobs.into_iter().map(|job| (job, Known::new(now))).collect();
        let (starts, covered, good) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { rules, jobs, now, going: Vec::new(), starts, covered, good, waiting: Vec::new() }
    }

    /// Starts what is to be started, as the scheduler would, and gives the last agenda.
    pub(crate) fn turn(&mut self, mut length: impl FnMut(&Run) -> Duration) -> Agenda {
        loop {
            let agenda = look(&self.rules, &self.jobs, self.now);
            if !agenda.from_future.is_empty() {
                for name in &agenda.from_future {
                    *self.known(name) = Known::new(self.now);
                    self.good.remove(name);
                }
                continue;
            }
            self.nothing_was_dropped(&agenda);
            let Some(run) = agenda.next_run() else {
                self.waits_for_a_reason(&agenda);
                self.waiting.clone_from(&agenda.queue);
                return agenda;
            };
            let ends = self.now + length(&run);
            self.start(run, ends);
        }
    }

    fn start(&mut self, run: Run, ends: Timestamp) {
        for other in &self.going {
            assert!(!run.task.excludes(other.run.task), "{run:?} while {other:?}");
        }
        assert!(self.rules.pauses.iter().all(|pause| pause.until(self.now, &self.rules.zone).is_none()), "{run:?}");
        assert!(run.jobs.len() == 1 || run.task == Task::Backup, "{run:?}");
        for queued in &run.jobs {
            assert!(queued.since <= self.now && queued.slot <= self.now, "{queued:?}");
            let tries = self.starts.entry((queued.job.clone(), queued.slot)).or_default();
            *tries += 1;
            assert_eq!(*tries, queued.attempt, "{queued:?}");
            assert!(*tries <= ATTEMPTS_MAX, "{queued:?}");
            let good = self.good.get(&queued.job);
            assert!(good.is_none_or(|good| *good < queued.slot), "{queued:?} again, {good:?} was good");
            if queued.attempt == 1 {
                *self.covered.entry(queued.job.clone()).or_default() += 1 + u64::from(queued.missed);
            }
            let known = self.known(&queued.job);
            assert!(!matches!(known.newest, Some(LastRun { state: RunState::Running, .. })), "{queued:?} runs already");
            known.newest = Some(LastRun { slot: queued.slot, attempt: queued.attempt, state: RunState::Running });
        }
        self.going.push(Going { run, started: self.now, ends });
    }

    /// Ends the runs whose time has come, or all (the scheduler was stopped). `how` says it for each job.
    pub(crate) fn end(&mut self, all: bool, mut how: impl FnMut(&Going) -> Vec<Ended>) {
        let now = self.now;
        let (ended, going) = std::mem::take(&mut self.going).into_iter().partition(|one| all || one.ends <= now);
        self.going = going;
        let ended: Vec<Going> = ended;
        for one in ended {
            for (queued, how) in one.run.jobs.iter().zip(how(&one)) {
                let known = self.known(&queued.job);
                let newest = known.newest.as_mut().unwrap();
                newest.state = RunState::Ended { how, at: now };
                if how == Ended::Good {
                    known.newest_good = Some(known.newest_good.unwrap_or(one.started).max(one.started));
                    self.good.insert(queued.job.clone(), queued.slot);
                }
            }
        }
    }

    /// Somebody else made a good result, which the service sees in the repository.
    pub(crate) fn good_result(&mut self, name: &JobName, moment: Timestamp) {
        let known = self.known(name);
        known.newest_good = Some(known.newest_good.unwrap_or(moment).max(moment));
    }

    /// The scheduler was killed and its journal is gone: what runs, ends without a trace, and a new journal
    /// knows what the repository holds.
    pub(crate) fn lose_journal(&mut self, held: impl Fn(&JobName) -> Option<Timestamp>) {
        self.going.clear();
        // Tries are counted anew.
        self.starts.values_mut().for_each(|tries| *tries = 0);
        for (job, known) in &mut self.jobs {
            *known = Known { newest_good: held(&job.name), ..Known::new(self.now) };
        }
        self.waiting.retain(|was| held(&was.job).is_some_and(|good| good < was.slot));
    }

    pub(crate) fn known(&mut self, name: &JobName) -> &mut Known {
        &mut self.jobs.iter_mut().find(|(job, _)| job.name == *name).unwrap().1
    }

    /// What waited at the last look still waits, runs, or was replaced by its newer occurrence.
    fn nothing_was_dropped(&self, agenda: &Agenda) {
        // With the clock put back, its time may not have come yet.
        for was in self.waiting.iter().filter(|was| was.since <= self.now) {
            let waits = agenda.queue.iter().any(|one| one.job == was.job && one.slot >= was.slot);
            let started = self.starts.keys().any(|(job, slot)| *job == was.job && *slot >= was.slot);
            // Somebody made by hand what it waited to make.
            let known = self.jobs.iter().find(|(job, _)| job.name == was.job);
            let made = known.and_then(|(_, known)| known.newest_good).is_some_and(|good| good >= was.slot);
            assert!(waits || started || made, "{was:?} was dropped");
        }
    }

    fn waits_for_a_reason(&self, agenda: &Agenda) {
        for one in &agenda.queue {
            match one.hold.as_ref().unwrap() {
                Hold::Pause { until } | Hold::Retry { at: until } => assert!(*until > self.now),
                Hold::Running { job } => {
                    let runs = self.going.iter().any(|going| going.run.jobs.iter().any(|other| other.job == *job));
                    assert!(runs && one.job.task.excludes(job.task), "{one:?}");
                }
                Hold::Behind { job } => assert!(agenda.queue.iter().any(|other| other.job == *job), "{one:?}"),
            }
        }
    }
}
