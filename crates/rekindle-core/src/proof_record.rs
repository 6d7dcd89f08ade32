//! The stored result of a drill or a verification, and what follows from all of them: how far a
//! point is trusted, and what is known about restores of a component.

use serde::{Deserialize, Serialize};

use crate::id::{ComponentId, ComponentKind, PointId};
use crate::objective::{Objective, Verdict};
use crate::point::RecoveryPoint;
use crate::port::{Finding, Step};

/// The version this program writes, and the newest one it reads.
pub const PROOF_VERSION: u32 = 1;

/// How something ended that was to be proved. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was looked at, with the real engine, and it is right.
    Passed,
    /// It could not be looked at: an engine, an extension, space or time is lacking here. This says
    /// nothing against the data, and nothing for it.
    Unproved,
    /// It was looked at, and it is not right.
    Failed,
}

impl Outcome {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unproved => "unproved",
            Self::Failed => "failed",
        }
    }

    /// The worst of several; nothing at all proves nothing.
    pub fn worst(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().max().unwrap_or(Self::Unproved)
    }
}

/// One record of the chain of proofs, as it is signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProofRecord {
    pub version: u32,
    /// 1, 2, 3, … without a gap; also the object's name.
    pub sequence: u64,
    /// Hash of the record before it; `None` only in the first.
    pub previous: Option<String>,
    pub started: jiff::Timestamp,
    pub finished: jiff::Timestamp,
    pub outcome: Outcome,
    /// Who ran it, and where.
    pub user: String,
    pub host: String,
    pub run: String,
    /// Name and version of the program.
    pub tool: String,
    pub work: Work,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Work {
    Drill(DrillResult),
    Verification(VerificationResult),
}

/// A restore into a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillResult {
    pub stack: String,
    pub point: PointId,
    /// When the point was written.
    pub point_time: jiff::Timestamp,
    pub components: Vec<ComponentProof>,
    /// What held the sandbox apart from the rest of the host, exactly.
    pub guarantees: Vec<String>,
}

/// What a drill found about one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentProof {
    pub component: ComponentId,
    pub kind: ComponentKind,
    pub outcome: Outcome,
    /// The moment its data stands for.
    pub captured_at: jiff::Timestamp,
    /// The moment it was brought to by replaying the log behind a base backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_to: Option<jiff::Timestamp>,
    pub entries: u64,
    pub bytes: u64,
    /// Name and version of the engine that was started on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// From the beginning of the restore until the restored data is usable: the measured RTO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_ms: Option<u64>,
    /// Everything, with making the sandbox and the checks.
    pub elapsed_ms: u64,
    /// Age of the data when the drill began: the RPO that this point would have given.
    pub age_seconds: u64,
    pub steps: Vec<Step>,
    pub findings: Vec<Finding>,
    /// Why it failed or could not be proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProofProblem>,
    /// What was asked for, and whether the measured restore keeps it.
    pub objective: Objective,
    pub rto: Verdict,
    pub rpo: Verdict,
}

/// An error as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofProblem {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Stored data read back and compared with its hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationResult {
    /// Which part of the data; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<PartOf>,
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Things that are wrong.
    pub damage: u64,
    /// Points that were there and of which nothing is damaged, as far as was read.
    pub points: Vec<PointId>,
    pub damaged: Vec<PointId>,
}

/// Part `part` (from 1) of `of` equal parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOf {
    pub part: u32,
    pub of: u32,
}

/// How far a point is trusted. The order is from little to much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    Unverified,
    /// Every byte was read back.
    Verified,
    /// Every component came back in a drill.
    Proved,
}

impl Trust {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Verified => "verified",
            Self::Proved => "proved",
        }
    }
}

impl ProofRecord {
    /// The result of a drill of this point.
    fn drill_of(&self, point: &PointId) -> Option<&DrillResult> {
        match &self.work {
            Work::Drill(drill) if drill.point == *point => Some(drill),
            _ => None,
        }
    }
}

/// How far a component of a point is trusted by these records (oldest first). The newest evidence
/// counts: a failed drill or damage takes away what was there before.
pub fn trust_of(point: &PointId, component: &ComponentId, records: &[ProofRecord]) -> Trust {
    let mut trust = Trust::Unverified;
    for record in records {
        match &record.work {
            Work::Verification(found) if found.damaged.contains(point) => trust = Trust::Unverified,
            Work::Verification(found) if found.part.is_none() && found.points.contains(point) => {
                trust = trust.max(Trust::Verified);
            }
            Work::Verification(_) => {}
            Work::Drill(_) => {
                let components = record.drill_of(point).into_iter().flat_map(|drill| &drill.components);
                for found in components.filter(|found| found.component == *component) {
                    match found.outcome {
                        Outcome::Passed => trust = Trust::Proved,
                        Outcome::Unproved => {}
                        Outcome::Failed => trust = Trust::Unverified,
                    }
                }
            }
        }
    }
    trust
}

/// How far a point is trusted: as far as the least trusted of its components.
pub fn trust(point: &RecoveryPoint, records: &[ProofRecord]) -> Trust {
    let components = point.manifest().components.iter();
    components.map(|one| trust_of(point.id(), &one.id, records)).min().unwrap_or(Trust::Unverified)
}

/// Every drill of a component of a stack, oldest first, with the time it ended.
pub fn drills<'a>(
    records: &'a [ProofRecord],
    stack: &'a str,
    component: &'a ComponentId,
) -> impl DoubleEndedIterator<Item = (jiff::Timestamp, &'a ComponentProof)> {
    records.iter().filter_map(move |record| match &record.work {
        Work::Drill(drill) if drill.stack == stack => {
            let found = drill.components.iter().find(|one| one.component == *component)?;
            Some((record.finished, found))
        }
        _ => None,
    })
}

/// Measured restores that a forecast looks at.
const FORECAST_LOOKED_AT: usize = 5;

/// What a restore will probably take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forecast {
    pub seconds: u64,
    /// How many measured restores it rests on.
    pub measured: usize,
}

/// Forecast for restoring `bytes` of a component from its newest passed drills. Each measured time is
/// scaled up with the size, never down; the slowest of them counts.
pub fn forecast(records: &[ProofRecord], stack: &str, component: &ComponentId, bytes: u64) -> Option<Forecast> {
    let measured: Vec<u64> = drills(records, stack, component)
        .rev()
        .filter(|(_, found)| found.outcome == Outcome::Passed)
        .filter_map(|(_, found)| Some(scaled(found.restore_ms?, found.bytes, bytes)))
        .take(FORECAST_LOOKED_AT)
        .collect();
    let slowest = measured.iter().max()?;
    Some(Forecast { seconds: slowest.div_ceil(1000), measured: measured.len() })
}

fn scaled(ms: u64, then: u64, now: u64) -> u64 {
    let (then, now) = (then.max(1), now.max(then).max(1));
    u64::try_from(u128::from(ms) * u128::from(now) / u128::from(then)).unwrap_or(u64::MAX)
}

/// The part that is read next when everything is read in `of` parts, one after the other.
pub fn next_part(records: &[ProofRecord], of: u32) -> PartOf {
    let last = parts(records).rev().find(|(_, part)| part.of == of);
    PartOf { part: last.map_or(1, |(_, last)| last.part % of + 1), of }
}

/// When all stored data was last read back: at once, or in parts that make a whole. The time is that
/// of the oldest of these parts.
pub fn all_read_at(records: &[ProofRecord]) -> Option<jiff::Timestamp> {
    let mut newest: Option<jiff::Timestamp> = None;
    for record in records {
        if matches!(&record.work, Work::Verification(VerificationResult { part: None, .. })) {
            newest = newest.max(Some(record.finished));
        }
    }
    let sizes: std::collections::BTreeSet<u32> = parts(records).map(|(_, part)| part.of).collect();
    for of in sizes {
        let last = |number| parts(records).rev().find(|(_, part)| (part.part, part.of) == (number, of));
        let times: Option<Vec<jiff::Timestamp>> = (1..=of).map(|number| last(number).map(|(at, _)| at)).collect();
        newest = newest.max(times.and_then(|times| times.into_iter().min()));
    }
    newest
}

fn parts(records: &[ProofRecord]) -> impl DoubleEndedIterator<Item = (jiff::Timestamp, PartOf)> {
    records.iter().filter_map(|record| match &record.work {
        Work::Verification(VerificationResult { part: Some(part), .. }) => Some((record.finished, *part)),
        _ => None,
    })
}

#[cfg(test)]
#[path = "proof_record_tests.rs"]
mod tests;
