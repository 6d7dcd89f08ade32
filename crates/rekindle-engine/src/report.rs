//! What a run says about itself afterwards: the content of `--json` and of the summary.

use rekindle_core::manifest::Completeness;
use rekindle_core::note::Notes;
use rekindle_core::tripwire::Suspicion;
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, RunId};
use serde::{Deserialize, Serialize};

/// An error as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub code: &'static str,
    /// What failed, on what, and why; without secrets.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        Self { code: fault.code().id, message: fault.chain(), hint: fault.hint_text().map(str::to_owned) }
    }
}

/// An error that was written down, to be read by a later run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredProblem {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Fault> for StoredProblem {
    fn from(fault: &Fault) -> Self {
        let Problem { code, message, hint } = Problem::from(fault);
        Self { code: code.to_owned(), message, hint }
    }
}

/// What became of one component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentReport {
    pub component: ComponentId,
    pub kind: ComponentKind,
    /// `captured` or `missing`.
    pub state: &'static str,
    pub captured_at: Option<jiff::Timestamp>,
    pub entries: u64,
    pub bytes: u64,
    /// Of `bytes`, taken over from an earlier point without reading.
    pub unchanged_bytes: u64,
    /// New bytes before compression, and what they took in the repository.
    pub added_bytes: u64,
    pub stored_bytes: u64,
    pub elapsed_ms: u64,
    pub notes: Notes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What one backup did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupReport {
    pub run: RunId,
    pub stack: String,
    pub point: PointId,
    pub state: Completeness,
    /// Always `unverified` for a new point: only a restore proves one.
    pub trust: &'static str,
    pub started: jiff::Timestamp,
    pub finished: jiff::Timestamp,
    /// Milliseconds between the earliest and the latest moment the components stand for.
    pub skew_ms: u64,
    /// Whether `skew_ms` is over the configured limit.
    pub skew_exceeded: bool,
    pub components: Vec<ComponentReport>,
    /// What the tripwire found odd: the point is complete and suspicious.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspicions: Vec<Suspicion>,
    /// Hooks that failed without losing data.
    pub problems: Vec<Problem>,
}

impl BackupReport {
    /// 0 complete, 3 partial, 4 complete but the skew is over its limit, 1 when an after-hook failed.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            Completeness::Partial => 3,
            Completeness::Complete if !self.problems.is_empty() => 1,
            Completeness::Complete if self.skew_exceeded => 4,
            Completeness::Complete => 0,
        }
    }
}
