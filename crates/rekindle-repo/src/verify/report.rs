//! What a verification found.

use std::collections::BTreeMap;

use rekindle_core::{ErrorCode, Fault, PointId};
use serde::Serialize;

/// Paths listed per point; beyond it they are only counted.
const PATHS_PER_POINT_MAX: usize = 1_000;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The object, as it is named in the repository, or a point.
    pub object: String,
    /// Error code, as `RK-RP-005`.
    pub code: String,
    /// What is wrong.
    pub why: String,
}

/// A point that is not whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AffectedPoint {
    pub point: String,
    /// Paths that cannot be given back, escaped for reading; empty when it is the point itself.
    pub paths: Vec<String>,
    /// How many paths there are, listed or not.
    pub path_count: u64,
}

/// What a verification looked at and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Objects compared with their names (packs only as far as they were read).
    pub objects: u64,
    pub packs: u64,
    /// Packs that were read back, and their bytes.
    pub packs_read: u64,
    pub bytes_read: u64,
    pub trees: u64,
    pub snapshots: u64,
    pub points: u64,
    pub ledger_records: u64,
    /// Sealed segments of the WAL log, and of these the ones that were read back.
    pub wal_segments: u64,
    pub wal_segments_read: u64,
    pub proof_records: u64,
    /// Packs no index names: left by a run that was killed; prune removes them. No damage.
    pub orphan_packs: u64,
    /// Points the ledger does not know yet: a run died right after its commit. No damage.
    pub unrecorded: Vec<PointId>,
    /// Everything that is wrong; empty: the repository is as it should be.
    pub damage: Vec<Damage>,
    /// Points that are not whole, by id.
    pub affected: Vec<AffectedPoint>,
    #[serde(skip)]
    by_point: BTreeMap<String, AffectedPoint>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty() && self.affected.is_empty()
    }

    pub(crate) fn damage(&mut self, object: String, fault: &Fault) {
        self.push(object, fault.code(), fault.chain());
    }

    pub(super) fn push(&mut self, object: String, code: &ErrorCode, why: String) {
        let damage = Damage { object, code: code.id.to_owned(), why };
        if !self.damage.contains(&damage) {
            self.damage.push(damage);
        }
    }

    /// A point as a whole, or one of its components.
    pub(super) fn point_damage(&mut self, id: &PointId, path: &str, why: &str, code: &ErrorCode) {
        self.push(format!("point {id}"), code, why.to_owned());
        self.affect(id.as_str(), path.to_owned());
    }

    /// A path of a point or snapshot cannot be given back; an empty one is the point itself.
    pub(super) fn affect(&mut self, id: &str, path: String) {
        let entry = self.by_point.entry(id.to_owned()).or_default();
        if path.is_empty() {
            return;
        }
        entry.path_count += 1;
        if entry.paths.len() < PATHS_PER_POINT_MAX {
            entry.paths.push(path);
        }
    }

    pub(super) fn finish(&mut self) {
        for (point, mut affected) in std::mem::take(&mut self.by_point) {
            affected.point = point;
            affected.paths.sort();
            self.affected.push(affected);
        }
        self.damage.sort_by(|a, b| (&a.object, &a.why).cmp(&(&b.object, &b.why)));
    }
}
