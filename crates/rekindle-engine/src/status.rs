//! Status: every component judged against its objectives.

use rekindle_core::manifest::Completeness;
use rekindle_core::objective::{History, Objective, Verdict, judge};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{ComponentId, ComponentKind, PointId};
use serde::Serialize;

/// What is asked for a component.
#[derive(Debug, Clone)]
pub struct Expectation {
    pub component: ComponentId,
    pub kind: ComponentKind,
    pub objective: Objective,
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
    pub age_seconds: Option<u64>,
    pub bytes: u64,
    /// `unverified` until a restore proved it.
    pub trust: &'static str,
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
        components: expectations.iter().map(|expected| component_status(expected, &mine, now)).collect(),
    }
}

fn component_status(expected: &Expectation, points: &[&RecoveryPoint], now: jiff::Timestamp) -> ComponentStatus {
    let found = points.iter().rev().find_map(|point| {
        let record = point.manifest().component(&expected.component)?;
        (!record.notes.make_partial()).then_some((point.id(), record))
    });
    let captured_at = found.map(|(_, record)| record.captured_at);
    let history = History { newest_capture: captured_at, ..History::default() };
    let in_newest = points
        .last()
        .and_then(|point| point.manifest().missing.iter().find(|missing| missing.id == expected.component));
    ComponentStatus {
        component: expected.component.clone(),
        kind: expected.kind,
        point: found.map(|(id, _)| id.clone()),
        captured_at,
        age_seconds: captured_at.map(|at| u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0)),
        bytes: found.map_or(0, |(_, record)| record.tally.bytes),
        trust: "unverified",
        verdict: judge(&expected.objective, now, &history),
        missing: in_newest.map(|missing| format!("{}: {}", missing.code, missing.error)),
    }
}
