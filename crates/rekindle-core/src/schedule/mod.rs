//! What runs when: pure decisions over schedules, what is known about earlier runs, and a moment.
//!
//! Nothing is remembered between two looks: the queue is a function of the journal and the
//! clock, so a crash cannot lose it and a second look cannot double it.

mod agenda;
mod cron;
mod job;
mod pause;

pub use agenda::{Agenda, Hold, Overdue, Queued, Run, look};
pub use cron::Schedule;
pub use job::{BadTask, Ended, Job, JobName, Known, LastRun, RunState, Task, Timetable};
pub use pause::Pause;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

/// What holds for all jobs of a stack.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The zone in which schedules are read.
    pub zone: TimeZone,
    pub delays: Delays,
    /// When nothing may start.
    pub pauses: Vec<Pause>,
}

/// By how much the runs of each task are put off, the same every time: many stacks on one storage do not
/// all come at the full hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delays(BTreeMap<Task, Duration>);

impl Delays {
    /// A part of `jitter` for each task; `seed` says which, and differs between stacks and hosts.
    ///
    /// One for all jobs of a task, whatever their periods: what is due together has to be saved together. At
    /// most a quarter of the shortest of their gaps, so that a schedule of every minute keeps its pace.
    pub fn new<'a, S: Timetable + 'a>(jitter: Duration, seed: u64, jobs: impl IntoIterator<Item = &'a Job<S>>) -> Self {
        let mut most: BTreeMap<Task, Duration> = BTreeMap::new();
        for job in jobs {
            let quarter = job.schedule.longest_gap() / 4;
            let cap = most.entry(job.name.task).or_insert(jitter);
            *cap = quarter.min(*cap);
        }
        Self(most.into_iter().map(|(task, most)| (task, part_of(most, seed, task))).collect())
    }

    /// That of one task.
    pub fn of(&self, task: Task) -> Duration {
        self.0.get(&task).copied().unwrap_or_default()
    }
}

fn part_of(most: Duration, seed: u64, task: Task) -> Duration {
    let mut seed = seed;
    for byte in task.as_str().bytes() {
        // FNV-1a: spread, not secrecy.
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    seed ^= seed >> 29;
    let part = u128::from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % (most.as_millis() + 1);
    Duration::from_millis(u64::try_from(part).unwrap_or(0))
}

/// Runs of one occurrence, the first one included, when trying again can help.
pub const ATTEMPTS_MAX: u32 = 3;
/// Wait before the second run of an occurrence; doubled before the third.
pub const RETRY_AFTER: Duration = Duration::from_mins(2);
/// Missed occurrences are counted up to here.
pub const MISSED_MAX: u32 = 1000;

impl Rules {
    /// By when the result after the one at `base` was due, and from when on it is late: not before it could
    /// have been started.
    pub fn deadline<S: Timetable>(
        &self,
        task: Task,
        schedule: &S,
        base: jiff::Timestamp,
    ) -> Option<(jiff::Timestamp, jiff::Timestamp)> {
        let slot = schedule.next_after(base, &self.zone)?;
        let starts = self.open_from(slot.checked_add(self.delays.of(task)).ok()?);
        Some((slot, starts.checked_add(schedule.late_after()).ok()?))
    }

    /// When the result after the one at `base` was due, if it is late by now.
    pub fn overdue_since<S: Timetable>(
        &self,
        task: Task,
        schedule: &S,
        base: jiff::Timestamp,
        now: jiff::Timestamp,
    ) -> Option<jiff::Timestamp> {
        self.deadline(task, schedule, base).filter(|(_, late_from)| now > *late_from).map(|(slot, _)| slot)
    }

    /// The first moment at or after `moment` that is in no pause.
    pub fn open_from(&self, moment: jiff::Timestamp) -> jiff::Timestamp {
        let mut open = moment;
        // Pauses may overlap; ones that never end leave the moment where it is.
        for _ in 0..100 {
            match self.pauses.iter().find_map(|pause| pause.until(open, &self.zone)) {
                Some(end) if end > open => open = end,
                _ => break,
            }
        }
        open
    }
}
