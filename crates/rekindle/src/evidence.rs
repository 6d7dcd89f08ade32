//! What the proofs of a repository say, for every command that shows or judges points.

use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{ProofRecord, Trust, trust};
use rekindle_core::{Class, Fault, Result};
use rekindle_repo::{Repo, proofs};

/// The proofs, or why nothing may be believed.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// Oldest first; none when the chain was changed.
    pub(crate) records: Vec<ProofRecord>,
    /// The chain was changed or is damaged: every point is shown as unverified, and the command says so.
    pub(crate) fault: Option<Fault>,
}

impl Evidence {
    /// Reads the chain. `Err` when the storage cannot be reached.
    pub(crate) fn read(repo: &Repo) -> Result<Self> {
        match proofs::read_all(repo) {
            Ok(records) => Ok(Self { records, fault: None }),
            Err(fault) if fault.class() == Class::Unreachable => Err(fault),
            Err(fault) => Ok(Self { records: Vec::new(), fault: Some(fault) }),
        }
    }

    /// How far a point is trusted.
    pub(crate) fn trust(&self, point: &RecoveryPoint) -> Trust {
        trust(point, &self.records)
    }
}
