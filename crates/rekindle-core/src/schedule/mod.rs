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

use std::time::Duration;

use jiff::tz::TimeZone;

/// What holds for all jobs of a stack.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The zone in which schedules are read.
    pub zone: TimeZone,
    /// Runs of a task are put off by one part of this, the same one every time: many stacks on
    /// one storage do not all come at the full hour.
    pub jitter: Duration,
    /// Which part: differs between stacks and hosts.
    pub seed: u64,
    /// When nothing may start.
    pub pauses: Vec<Pause>,
}

/// Runs of one occurrence, the first one included, when trying again can help.
pub const ATTEMPTS_MAX: u32 = 3;
/// Wait before the second run of an occurrence; doubled before the third.
pub const RETRY_AFTER: Duration = Duration::from_mins(2);
/// Missed occurrences are counted up to here.
pub const MISSED_MAX: u32 = 1000;

impl Rules {
    /// By how much the runs of a task are put off.
    ///
    /// Not by component: what is due together has to be saved together. At most a quarter of
    /// the job's longest gap, so that a schedule of every minute keeps its pace.
    pub fn jitter_of<S: Timetable>(&self, job: &Job<S>) -> Duration {
        let most = self.jitter.min(job.schedule.longest_gap() / 4).as_millis();
        if most == 0 {
            return Duration::ZERO;
        }
        let mut seed = self.seed;
        for byte in job.name.task.as_str().bytes() {
            // FNV-1a: spread, not secrecy.
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        seed ^= seed >> 29;
        let part = u128::from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % (most + 1);
        Duration::from_millis(u64::try_from(part).unwrap_or(0))
    }

    /// The first moment at or after `moment` that is in no pause.
    pub(crate) fn open_from(&self, moment: jiff::Timestamp) -> jiff::Timestamp {
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
