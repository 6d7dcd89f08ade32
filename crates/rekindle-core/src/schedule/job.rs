//! Jobs, and what is known about their runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::Schedule;
use super::cron::LATE_SHARE;
use crate::id::ComponentId;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A recovery point.
    Backup,
    /// A restore into a sandbox, with checks.
    Drill,
    /// Check of the repository.
    Verify,
    /// Retention, then removal of data no point needs.
    Prune,
    /// Points and log to a further repository; its name stands in the place of a component's.
    Copy,
    /// The tasks of a day, a week or a month; the period stands in the place of a component's name.
    Maintenance,
}

/// Not the word of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTask(pub String);

impl fmt::Display for BadTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no task", self.0.escape_debug())
    }
}

impl std::error::Error for BadTask {}

impl Task {
    /// Every task.
    pub const ALL: [Self; 6] = [Self::Backup, Self::Drill, Self::Verify, Self::Prune, Self::Copy, Self::Maintenance];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Drill => "drill",
            Self::Verify => "verify",
            Self::Prune => "prune",
            Self::Copy => "copy",
            Self::Maintenance => "maintenance",
        }
    }

    /// Whether two runs may not overlap. Backups of one stack exclude each other (they would be
    /// two points of one moment); removing data excludes everything, and
    /// so does maintenance, which does that too; reading and copying exclude
    /// each other, to keep the load of a host low.
    pub fn excludes(self, other: Self) -> bool {
        use Task::{Backup, Maintenance, Prune};
        matches!((self, other), (Prune | Maintenance, _) | (_, Prune | Maintenance) | (Backup, Backup))
            || (self != Backup && other != Backup)
    }
}

impl FromStr for Task {
    type Err = BadTask;
    fn from_str(text: &str) -> Result<Self, BadTask> {
        Self::ALL.into_iter().find(|task| task.as_str() == text).ok_or_else(|| BadTask(text.to_owned()))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing with a schedule of its own: a task, of one component or copy, or of the whole
/// repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobName {
    pub task: Task,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.component {
            Some(component) => write!(f, "{} {component}", self.task),
            None => self.task.fmt(f),
        }
    }
}

/// When something comes. [`Schedule`] is one; a long simulation brings a table worked out before.
pub trait Timetable {
    /// The first occurrence after `moment`.
    fn next_after(&self, moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp>;
    /// The newest occurrence at or before `moment`.
    fn newest_until(&self, moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp>;
    /// The longest time between two neighbouring occurrences.
    fn longest_gap(&self) -> Duration;

    /// How long after an occurrence its result is late.
    fn late_after(&self) -> Duration {
        self.longest_gap() / LATE_SHARE
    }
}

impl Timetable for Schedule {
    fn next_after(&self, moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        Schedule::next_after(self, moment, zone)
    }

    fn newest_until(&self, moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        Schedule::newest_until(self, moment, zone)
    }

    fn longest_gap(&self) -> Duration {
        Schedule::longest_gap(self)
    }
}

/// A job and when it comes.
#[derive(Debug, Clone)]
pub struct Job<S = Schedule> {
    pub name: JobName,
    pub schedule: S,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Everything that was asked for is done.
    Good,
    /// It failed; the same again would fail again.
    Bad,
    /// It failed, and a later run may succeed by itself: locked, unreachable.
    Again,
    /// It did not come to its end.
    Interrupted,
    /// A hook asked to leave it out, which is no failure and no result either.
    Skipped,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    Running,
    Ended { how: Ended, at: jiff::Timestamp },
}

/// The newest run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// The occurrence it was for.
    pub slot: jiff::Timestamp,
    /// Which run of this occurrence it was, from 1.
    pub attempt: u32,
    pub state: RunState,
}

/// What the journal knows about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Since when the job is there. Earlier occurrences were never missed.
    pub since: jiff::Timestamp,
    pub newest: Option<LastRun>,
    /// The moment that the newest good result stands for.
    pub newest_good: Option<jiff::Timestamp>,
}

impl Known {
    /// A job nobody has seen before.
    pub fn new(since: jiff::Timestamp) -> Self {
        Self { since, newest: None, newest_good: None }
    }
}
