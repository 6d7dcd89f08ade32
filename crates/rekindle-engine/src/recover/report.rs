//! What a recovery says about itself afterwards.

use std::collections::{BTreeMap, BTreeSet};

use rekindle_core::{Class, ComponentId, ComponentKind, Fault, PointId, codes};
use serde::Serialize;

use super::journal::Progress;
use super::plan::{Do, RecoveryPlan};
use super::run::Crew;
use crate::report::Problem;

/// What became of one component.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveredComponent {
    pub component: ComponentId,
    pub kind: ComponentKind,
    /// `recovered`, `wrong` (its check says no), `rolled-back` (the old state stands there again),
    /// or `failed`.
    pub state: &'static str,
    pub point: PointId,
    /// The moment the data stands for.
    pub captured_at: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Where an old state is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    pub warnings: Vec<String>,
    pub findings: Vec<String>,
    /// Of all its steps, over all tries.
    pub elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<u64>,
    /// Whether it took no longer; `None` without an objective or when it is not back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rto_met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What one recovery did.
#[derive(Debug, Serialize)]
pub struct RecoveryReport {
    pub stack: String,
    pub at: Option<jiff::Timestamp>,
    pub skew_ms: u64,
    /// From the plan to now, interruptions included.
    pub elapsed_ms: u64,
    /// Whether the commands that start the applications ran; `None`: there are none.
    pub started: Option<bool>,
    pub components: Vec<RecoveredComponent>,
    /// One per component that is not back.
    #[serde(skip)]
    pub faults: Vec<Fault>,
}

impl RecoveryReport {
    /// Whether everything is back and runs.
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    /// 0 when everything is back in time; else that of the first failure, 4 for a missed objective.
    pub fn exit_code(&self) -> u8 {
        let failed = self.faults.iter().map(Fault::exit_code).find(|code| *code != 0);
        let late = self.components.iter().any(|one| one.rto_met == Some(false));
        failed.unwrap_or(if late { Class::Negative.exit_code() } else { 0 })
    }
}

pub(super) fn of(
    plan: &RecoveryPlan,
    progress: &Progress,
    crew: &Crew,
    failed: BTreeMap<Option<ComponentId>, Fault>,
    rolled_back: &BTreeSet<ComponentId>,
    now: jiff::Timestamp,
) -> RecoveryReport {
    let components = plan.choices.iter().map(|choice| {
        let id = &choice.component;
        let fault = failed.get(&Some(id.clone()));
        let of_it = |step: &usize| plan.steps.get(*step).is_some_and(|step| step.component.as_ref() == Some(id));
        let elapsed_ms = progress.elapsed_ms.iter().filter(|(step, _)| of_it(step)).map(|(_, ms)| ms).sum();
        let rto_seconds = crew.actors.get(id).and_then(|actor| actor.rto_seconds);
        let report = progress.reports.get(id);
        RecoveredComponent {
            component: id.clone(),
            kind: choice.kind,
            state: match fault {
                None => "recovered",
                Some(_) if rolled_back.contains(id) => "rolled-back",
                Some(fault) if fault.is(codes::RECOVER_CHECK) => "wrong",
                Some(_) => "failed",
            },
            point: choice.point.clone(),
            captured_at: choice.captured_at,
            place: report.map(|report| report.place.clone()),
            kept: report.and_then(|report| report.kept_old.clone()),
            warnings: report.map(|report| report.warnings.clone()).unwrap_or_default(),
            findings: progress.findings.get(id).cloned().unwrap_or_default(),
            elapsed_ms,
            rto_seconds,
            rto_met: rto_seconds.filter(|_| fault.is_none()).map(|rto| elapsed_ms <= rto.saturating_mul(1000)),
            problem: fault.map(Problem::from),
        }
    });
    let start = plan.steps.iter().position(|step| step.component.is_none() && step.act == Do::Start);
    RecoveryReport {
        stack: plan.stack.clone(),
        at: plan.at,
        skew_ms: plan.skew_ms,
        elapsed_ms: u64::try_from(now.duration_since(plan.made).as_millis()).unwrap_or(0),
        started: start.map(|step| progress.done.contains(&step)),
        components: components.collect(),
        faults: failed.into_values().collect(),
    }
}
