//! The one function that decides what is due, what waits and for what, and what is overdue.

use std::time::Duration;

use serde::Serialize;

use super::job::{Ended, Job, JobName, Known, LastRun, RunState, Task, Timetable};
use super::{ATTEMPTS_MAX, MISSED_MAX, RETRY_AFTER, Rules};

/// What is to be done, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agenda {
    /// Everything that is due and not started, first come first served, backups first.
    pub queue: Vec<Queued>,
    /// Jobs whose newest good result is older than their schedule allows.
    pub overdue: Vec<Overdue>,
    /// Jobs whose records are of the future: the clock was put back. Their records have to be
    /// replaced by [`Known::new`], else they would not run until the clock is there again.
    pub from_future: Vec<JobName>,
    /// When looking again can give another answer, if no run ends before.
    pub next_look: Option<jiff::Timestamp>,
}

/// A job that is due.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Queued {
    pub job: JobName,
    /// The occurrence it is for: the newest one.
    pub slot: jiff::Timestamp,
    /// Since when it is due.
    pub since: jiff::Timestamp,
    /// Earlier occurrences that this run stands for as well.
    pub missed: u32,
    /// Which run of this occurrence it will be, from 1.
    pub attempt: u32,
    /// Why it does not start now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Why a due job waits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "hold")]
pub enum Hold {
    /// Nothing starts before this moment.
    Pause { until: jiff::Timestamp },
    /// Another run has to end first.
    Running { job: JobName },
    /// Another queued job comes first.
    Behind { job: JobName },
    /// The run before failed, and this moment is the next try.
    Retry { at: jiff::Timestamp },
}

/// A dead-man's switch that has gone off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overdue {
    pub job: JobName,
    /// The occurrence that has no good result.
    pub since: jiff::Timestamp,
}

/// Jobs to start now, as one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub task: Task,
    /// Several only for backups: what is due together becomes one recovery point.
    pub jobs: Vec<Queued>,
}

impl Agenda {
    /// The run to start now. After it was started (and written down), look again.
    pub fn next_run(&self) -> Option<Run> {
        let mut free = self.queue.iter().filter(|queued| queued.hold.is_none());
        let first = free.next()?.clone();
        let task = first.job.task;
        let mut jobs = vec![first];
        if task == Task::Backup {
            jobs.extend(free.filter(|queued| queued.job.task == task).cloned());
        }
        Some(Run { task, jobs })
    }
}

/// Looks at all jobs at one moment.
pub fn look<S: Timetable>(rules: &Rules, jobs: &[(Job<S>, Known)], now: jiff::Timestamp) -> Agenda {
    let mut agenda = Agenda::default();
    for (job, known) in jobs {
        let records = [Some(known.since), known.newest.map(|run| run.slot), known.newest_good];
        if records.into_iter().flatten().any(|at| at > plus(now, job.schedule.longest_gap())) {
            agenda.from_future.push(job.name.clone());
        }
        agenda.queue.extend(due(rules, job, known, now));
        let base = known.newest_good.unwrap_or(known.since);
        let deadline = rules.deadline(job.name.task, &job.schedule, base);
        if let Some((since, late_from)) = deadline
            && now > late_from
        {
            agenda.overdue.push(Overdue { job: job.name.clone(), since });
        }
        let next = next_change(rules, job, known, deadline, now);
        agenda.next_look = earliest(agenda.next_look, next);
    }
    agenda.next_look = earliest(agenda.next_look, Some(rules.open_from(now)).filter(|open| *open > now));
    agenda.queue.sort_by(|a, b| {
        let key = |queued: &Queued| (queued.job.task != Task::Backup, queued.since);
        key(a).cmp(&key(b)).then_with(|| a.job.cmp(&b.job))
    });
    hold(rules, jobs, &mut agenda, now);
    agenda
}

fn due<S: Timetable>(rules: &Rules, job: &Job<S>, known: &Known, now: jiff::Timestamp) -> Option<Queued> {
    let jitter = rules.delays.of(job.name.task);
    // Occurrences up to here are dealt with.
    // A journal that knows of no run but of a good result was lost, or is new on this host: what was missed
    // since that result is caught up like after any other absence.
    let fresh = known.newest_good.map_or(known.since, |good| good.min(known.since));
    // Not after `since`: an occurrence may have come shortly before the journal was made anew, and be due by its
    // jitter only after the run that catches up.
    let anchor = known.newest.map_or(fresh, |run| run.slot.max(fresh));
    let (slot, count) = newest_slot(rules, job, anchor, minus(now, jitter));
    if let Some(slot) = slot {
        let since = plus(slot, jitter);
        // Its own run comes first, and the queue says so.
        let running = matches!(known.newest, Some(LastRun { state: RunState::Running, .. }));
        let hold = running.then(|| Hold::Running { job: job.name.clone() });
        return Some(Queued { job: job.name.clone(), slot, since, missed: count - 1, attempt: 1, hold });
    }
    let newest = known.newest?;
    let at = retry_at(&newest)?;
    Some(Queued {
        job: job.name.clone(),
        slot: newest.slot,
        since: at.min(now),
        missed: 0,
        attempt: newest.attempt + 1,
        hold: (now < at).then_some(Hold::Retry { at }),
    })
}

/// The newest occurrence after `anchor` and not after `until`, and how many there are.
fn newest_slot<S: Timetable>(
    rules: &Rules,
    job: &Job<S>,
    anchor: jiff::Timestamp,
    until: jiff::Timestamp,
) -> (Option<jiff::Timestamp>, u32) {
    let (mut newest, mut count, mut from) = (None, 0, anchor);
    while let Some(slot) = job.schedule.next_after(from, &rules.zone).filter(|slot| *slot <= until) {
        count += 1;
        (newest, from) = (Some(slot), slot);
        if count == MISSED_MAX {
            return (job.schedule.newest_until(until, &rules.zone).or(newest), count);
        }
    }
    (newest, count)
}

/// When the newest run is tried again, if that can help. After an interruption (a restart) at once.
fn retry_at(newest: &LastRun) -> Option<jiff::Timestamp> {
    match newest.state {
        _ if newest.attempt >= ATTEMPTS_MAX => None,
        RunState::Ended { how: Ended::Again, at } => Some(plus(at, RETRY_AFTER * (1 << (newest.attempt.max(1) - 1)))),
        RunState::Ended { how: Ended::Interrupted, at } => Some(at),
        _ => None,
    }
}

/// When another look at this job can differ from one at `now`.
fn next_change<S: Timetable>(
    rules: &Rules,
    job: &Job<S>,
    known: &Known,
    deadline: Option<(jiff::Timestamp, jiff::Timestamp)>,
    now: jiff::Timestamp,
) -> Option<jiff::Timestamp> {
    let jitter = rules.delays.of(job.name.task);
    let slot = job.schedule.next_after(minus(now, jitter), &rules.zone).map(|slot| plus(slot, jitter));
    let retry = known.newest.as_ref().and_then(retry_at).filter(|at| *at > now);
    let late = deadline.map(|(_, at)| plus(at, Duration::from_secs(1)));
    [slot, retry, late].into_iter().flatten().filter(|at| *at > now).min()
}

fn hold<S>(rules: &Rules, jobs: &[(Job<S>, Known)], agenda: &mut Agenda, now: jiff::Timestamp) {
    let running: Vec<&JobName> = jobs
        .iter()
        .filter(|(_, known)| matches!(known.newest, Some(LastRun { state: RunState::Running, .. })))
        .map(|(job, _)| &job.name)
        .collect();
    let until = rules.open_from(now);
    let mut first: Vec<JobName> = Vec::new();
    for queued in &mut agenda.queue {
        if queued.hold.is_some() {
            continue;
        }
        let task = queued.job.task;
        let in_the_way = running.iter().find(|job| task.excludes(job.task));
        // Backups that are due together run together; everything else keeps the order.
        let before =
            first.iter().find(|job| task.excludes(job.task) && (task, job.task) != (Task::Backup, Task::Backup));
        queued.hold = if until > now {
            Some(Hold::Pause { until })
        } else if let Some(job) = in_the_way {
            Some(Hold::Running { job: (*job).clone() })
        } else {
            before.map(|job| Hold::Behind { job: job.clone() })
        };
        first.push(queued.job.clone());
    }
}

fn earliest(a: Option<jiff::Timestamp>, b: Option<jiff::Timestamp>) -> Option<jiff::Timestamp> {
    [a, b].into_iter().flatten().min()
}

fn plus(moment: jiff::Timestamp, duration: Duration) -> jiff::Timestamp {
    moment.checked_add(duration).unwrap_or(jiff::Timestamp::MAX)
}

fn minus(moment: jiff::Timestamp, duration: Duration) -> jiff::Timestamp {
    moment.checked_sub(duration).unwrap_or(jiff::Timestamp::MIN)
}
