//! Status: every component judged against its objectives.

use rekindle_core::manifest::Completeness;
use rekindle_core::objective::{History, Objective, Verdict, age_seconds, judge};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{Forecast, Outcome, ProofRecord, Trust, all_read_at, drills, forecast, trust_of};
use rekindle_core::{ComponentId, ComponentKind, PointId};
use serde::Serialize;

/// What is asked for a component.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub component: ComponentId,
    pub kind: ComponentKind,
    pub objective: Objective,
    /// The newest moment that can be restored without a capture of its own (PostgreSQL with WAL).
    pub recoverable_until: Option<jiff::Timestamp>,
}

/// How one component stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentStatus {
    pub component: ComponentId,
    pub kind: ComponentKind,
    /// The newest point that holds it without loss.
    pub point: Option<PointId>,
    /// The moment that data stands for, and its age in seconds.
    pub captured_at: Option<jiff::Timestamp>,
    /// When the run of that point began: what it captured may stand for an earlier moment.
    pub run_started: Option<jiff::Timestamp>,
    pub age_seconds: Option<u64>,
    pub bytes: u64,
    /// How far this component of that point is trusted.
    pub trust: Trust,
    /// When a drill of this component last passed, whatever the point, and how long ago that is.
    pub proved_at: Option<jiff::Timestamp>,
    pub proof_age_seconds: Option<u64>,
    /// How the newest drill ended.
    pub newest_drill: Option<Outcome>,
    /// What the newest passed drill took to restore, and what a restore of that point will take.
    pub restore_ms: Option<u64>,
    pub forecast: Option<Forecast>,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why the newest point lacks it, when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// How the stack stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    pub stack: String,
    pub points: usize,
    pub newest: Option<PointId>,
    pub newest_state: Option<Completeness>,
    /// When all stored data was last read back and compared with its hashes.
    pub data_read_at: Option<jiff::Timestamp>,
    pub components: Vec<ComponentStatus>,
}

impl Status {
    /// 0 when all objectives are met or at risk, 4 when one is missed.
    pub fn exit_code(&self) -> u8 {
        let missed = self.components.iter().any(|component| matches!(component.verdict, Verdict::Missed(_)));
        if missed { rekindle_core::Class::Negative.exit_code() } else { 0 }
    }
}

/// Judges a stack from its points (oldest first).
pub fn status(
    stack: &str,
    host: &str,
    expectations: &[Expectation],
    points: &[RecoveryPoint],
    proofs: &[ProofRecord],
    now: jiff::Timestamp,
) -> Status {
    let mine: Vec<&RecoveryPoint> =
        points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host).collect();
    let newest = mine.last();
    Status {
        stack: stack.to_owned(),
        points: mine.len(),
        newest: newest.map(|point| point.id().clone()),
        newest_state: newest.map(|point| point.state()),
        data_read_at: all_read_at(proofs),
        components: expectations.iter().map(|one| component_status(stack, one, &mine, proofs, now)).collect(),
    }
}

fn component_status(
    stack: &str,
    expected: &Expectation,
    points: &[&RecoveryPoint],
    proofs: &[ProofRecord],
    now: jiff::Timestamp,
) -> ComponentStatus {
    let id = &expected.component;
    let found = points.iter().rev().find_map(|point| {
        let record = point.manifest().component(id)?;
        (!record.notes.make_partial()).then_some((*point, record))
    });
    // WAL without a base is worth nothing: it counts only beside a capture.
    let captured_at = found.map(|(_, record)| record.captured_at);
    let newest_capture = captured_at.map(|at| expected.recoverable_until.map_or(at, |until| until.max(at)));
    let passed = drills(proofs, stack, id).rev().find(|(_, drill)| drill.outcome == Outcome::Passed);
    let history = History {
        newest_capture,
        restore_seconds: passed.and_then(|(_, drill)| Some(drill.restore_ms?.div_ceil(1000))),
        newest_proof: passed.map(|(at, _)| at),
    };
    let in_newest = points.last().and_then(|point| point.manifest().missing.iter().find(|missing| missing.id == *id));
    let bytes = found.map_or(0, |(_, record)| record.tally.bytes);
    ComponentStatus {
        component: id.clone(),
        kind: expected.kind,
        point: found.map(|(point, _)| point.id().clone()),
        captured_at,
        run_started: found.map(|(point, _)| point.manifest().started),
        age_seconds: newest_capture.map(|at| age_seconds(now, at)),
        bytes,
        trust: found.map_or(Trust::Unverified, |(point, _)| trust_of(point.id(), id, proofs)),
        proved_at: history.newest_proof,
        proof_age_seconds: history.newest_proof.map(|at| age_seconds(now, at)),
        newest_drill: drills(proofs, stack, id).next_back().map(|(_, drill)| drill.outcome),
        restore_ms: passed.and_then(|(_, drill)| drill.restore_ms),
        forecast: forecast(proofs, stack, id, bytes),
        verdict: judge(&expected.objective, now, &history),
        missing: in_newest.map(|missing| format!("{}: {}", missing.code, missing.error)),
    }
}
