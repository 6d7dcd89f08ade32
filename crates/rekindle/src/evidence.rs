//! What the proofs of a repository say, for every command that shows or judges points.

use std::collections::BTreeMap;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ProofRecord, Trust, trust};
use rekindle_core::{Class, Fault, PointId, Result};
use rekindle_repo::source_proofs::{self, ProvedThere, SourceProof};
use rekindle_repo::{Repo, proofs};

/// The proofs, or why nothing may be believed.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Oldest first; none when the chain was changed.
    pub(crate) records: Vec<ProofRecord>,
    /// The chain was changed or is damaged: every point is shown as unverified, and the command says so.
    pub(crate) fault: Option<Fault>,
    /// What was proved in the repository that this one is a copy of: it is shown, and nothing here is
    /// proved by it.
    there: Vec<SourceProof>,
}

impl Evidence {
    /// Reads the chain. `Err` when the storage cannot be reached.
    pub(crate) fn read(repo: &Repo) -> Result<Self> {
        let doubtful = |fault: Fault| match fault.class() {
            Class::Unreachable => Err(fault),
            _ => Ok(Self { fault: Some(fault), ..Self::default() }),
        };
        match (proofs::read_all(repo), source_proofs::read_all(repo)) {
            (Ok(records), Ok(there)) => Ok(Self { records, there, fault: None }),
            (Err(fault), _) => doubtful(fault),
            (Ok(records), Err(fault)) => Ok(Self { records, ..doubtful(fault)? }),
        }
    }

    /// Points that were proved in the repository they come from. A proof with a wrong signature says nothing.
    pub(crate) fn proved_there(&self, points: &[RecoveryPoint]) -> BTreeMap<PointId, ProvedThere> {
        source_proofs::proved_there(points, &self.there).unwrap_or_default()
    }

    /// How far a point is trusted.
    pub(crate) fn trust(&self, point: &RecoveryPoint) -> Trust {
        trust(point, &self.records)
    }
}
