//! What a recovery writes down, so that an interrupted one goes on where it was.

use std::collections::{BTreeMap, BTreeSet};

use rekindle_core::port::RestoreReport;
use rekindle_core::{ComponentId, Result};
use serde::{Deserialize, Serialize};

use super::plan::RecoveryPlan;
use crate::report::StoredProblem;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The first line: everything that will be done.
    Plan(Box<RecoveryPlan>),
    /// A step begins; it is done again when nothing follows.
    Begun {
        step: usize,
        at: jiff::Timestamp,
    },
    Done {
        step: usize,
        elapsed_ms: u64,
        /// Of a restore: where everything went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        report: Option<Box<RestoreReport>>,
        /// Of a check: what is good and what somebody should know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        findings: Vec<String>,
    },
    Failed {
        step: usize,
        elapsed_ms: u64,
        problem: StoredProblem,
    },
    /// The old state of the step's component is back; its restore begins anew.
    RolledBack {
        step: usize,
    },
    Finished {
        at: jiff::Timestamp,
    },
}

/// Where the lines go. A line is durable when `write` returns.
pub trait Journal: Send {
    /// Appends a line.
    fn write(&mut self, entry: &Entry) -> Result<()>;
}

/// What a journal says is done.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub(super) done: BTreeSet<usize>,
    /// Steps that were begun before: what stands there may be their own half work.
    pub(super) begun: BTreeSet<usize>,
    pub(super) reports: BTreeMap<ComponentId, RestoreReport>,
    pub(super) findings: BTreeMap<ComponentId, Vec<String>>,
    pub(super) elapsed_ms: BTreeMap<usize, u64>,
    pub finished: bool,
}

impl Progress {
    /// Reads the lines after the plan.
    pub fn of(plan: &RecoveryPlan, entries: &[Entry]) -> Self {
        let mut progress = Self::default();
        for entry in entries {
            progress.note(plan, entry);
        }
        progress
    }

    /// Takes one more line into account.
    pub(super) fn note(&mut self, plan: &RecoveryPlan, entry: &Entry) {
        let component = |step: &usize| plan.steps.get(*step).and_then(|step| step.component.clone());
        match entry {
            Entry::Plan(_) => {}
            Entry::Begun { step, .. } => {
                self.begun.insert(*step);
            }
            Entry::Done { step, elapsed_ms, report, findings } => {
                self.done.insert(*step);
                *self.elapsed_ms.entry(*step).or_default() += elapsed_ms;
                if let (Some(id), Some(report)) = (component(step), report) {
                    self.reports.insert(id, (**report).clone());
                }
                if let Some(id) = component(step).filter(|_| !findings.is_empty()) {
                    self.findings.insert(id, findings.clone());
                }
            }
            Entry::Failed { step, elapsed_ms, .. } => {
                *self.elapsed_ms.entry(*step).or_default() += elapsed_ms;
            }
            Entry::RolledBack { step } => {
                let Some(id) = component(step) else { return };
                self.reports.remove(&id);
                self.done.retain(|done| component(done).as_ref() != Some(&id));
                self.begun.retain(|begun| component(begun).as_ref() != Some(&id));
            }
            Entry::Finished { .. } => self.finished = true,
        }
    }
}
