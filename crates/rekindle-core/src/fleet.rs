//! How the stacks of one repository stand, seen from outside: without their configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::id::ComponentId;
use crate::manifest::Completeness;
use crate::objective::age_seconds;
use crate::point::RecoveryPoint;
use crate::proof_record::{Outcome, ProofRecord, Work};

/// How a stack stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Every component was captured whole not long ago, and the newest point lacks nothing.
    Good,
    /// Every component was captured whole not long ago; the newest point lacks something.
    NewestPartial,
    /// The newest whole capture of some component is too old, or there is none.
    Late,
}

/// One stack of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackState {
    pub stack: String,
    pub host: String,
    pub points: usize,
    /// Of the newest point, whatever it holds.
    pub newest_age_seconds: u64,
    pub newest_state: Completeness,
    /// Components whose newest whole capture is too old, with its age; none when there never was one.
    pub late: BTreeMap<ComponentId, Option<u64>>,
    /// Of the newest drill of one of its points that passed.
    pub proof_age_seconds: Option<u64>,
    pub standing: Standing,
}

/// The state of every stack on every host that these points (oldest first) are of.
///
/// Points of single components are usual, so each component is judged by itself. Which components a stack
/// has is known from its points only: one that any of them holds or lacks is expected, until the last point
/// that names it is forgotten or it is named in `ignore`.
pub fn stacks(
    points: &[RecoveryPoint],
    proofs: &[ProofRecord],
    max_age: Duration,
    ignore: &[String],
    now: Timestamp,
) -> Vec<StackState> {
    let mut groups: BTreeMap<(&str, &str), Vec<&RecoveryPoint>> = BTreeMap::new();
    for point in points {
        let manifest = point.manifest();
        groups.entry((&manifest.stack, &manifest.host)).or_default().push(point);
    }
    let state = |((stack, host), points): ((&str, &str), Vec<&RecoveryPoint>)| {
        let newest = points.last()?;
        let late = late(&points, max_age, ignore, now);
        let standing = match (late.is_empty(), newest.state()) {
            (false, _) => Standing::Late,
            (true, Completeness::Complete) => Standing::Good,
            (true, Completeness::Partial) => Standing::NewestPartial,
        };
        let passed = |proof: &&ProofRecord| {
            matches!(&proof.work, Work::Drill(drill) if points.iter().any(|point| *point.id() == drill.point))
                && proof.outcome == Outcome::Passed
        };
        Some(StackState {
            stack: stack.to_owned(),
            host: host.to_owned(),
            points: points.len(),
            newest_age_seconds: age_seconds(now, newest.time()),
            newest_state: newest.state(),
            late,
            proof_age_seconds: proofs.iter().filter(passed).map(|proof| age_seconds(now, proof.finished)).min(),
            standing,
        })
    };
    groups.into_iter().filter_map(state).collect()
}

fn late(
    points: &[&RecoveryPoint],
    max_age: Duration,
    ignore: &[String],
    now: Timestamp,
) -> BTreeMap<ComponentId, Option<u64>> {
    let mut newest: BTreeMap<&ComponentId, Option<Timestamp>> = BTreeMap::new();
    for manifest in points.iter().map(|point| point.manifest()) {
        for one in &manifest.missing {
            newest.entry(&one.id).or_default();
        }
        for one in &manifest.components {
            let known = newest.entry(&one.id).or_default();
            if !one.notes.make_partial() {
                *known = (*known).max(Some(one.captured_at));
            }
        }
    }
    newest
        .into_iter()
        .filter(|(component, _)| !ignore.iter().any(|name| name == component.as_str()))
        .map(|(component, captured)| (component.clone(), captured.map(|at| age_seconds(now, at))))
        .filter(|(_, age)| age.is_none_or(|seconds| Duration::from_secs(seconds) > max_age))
        .collect()
}
