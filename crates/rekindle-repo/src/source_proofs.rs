//! What was proved in the repository that this one is a copy of, under `rekindle/source-proofs/`.
//!
//! A drill there read the bytes there: it says that the content of a point comes back, and nothing about the
//! bytes of its copy. So these records are kept apart from the proofs of this repository and make no point
//! `proved`; they tell the far side, when it is all that is left, which points had been restored. Each holds
//! the text that was signed, the signature and the public key: enough to check it without the other repository.

use std::collections::BTreeMap;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::{PROOF_VERSION, ProofRecord, Trust, Work, trust};
use rekindle_core::{Fault, PointId, Result, codes};
use serde::{Deserialize, Serialize};

use crate::chain::{self, Chain, Link, chained};
use crate::copy::root;
use crate::points::PointsView;
use crate::repo::Repo;
use crate::verify::VerifyReport;

/// The version this program writes, and the newest one it reads.
const VERSION: u32 = 1;

/// The proof of another repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceProof {
    version: u32,
    sequence: u64,
    previous: Option<String>,
    /// Id of the repository in which the drill read.
    pub repository: String,
    /// Number of the proof in the chain there.
    pub number: u64,
    /// The point that all copies of the drilled one name.
    pub original: PointId,
    /// Of that chain (Ed25519, hex).
    pub public_key: String,
    /// The proof as it was signed there, and its signature.
    pub signed: String,
    pub signature: String,
}

chained!(SourceProof in "rekindle/source-proofs/": "chain of the source's proofs", "proof of the source", codes::REPO_PROOFS, VERSION);

/// That a point was proved in another repository, by the newest drill of it there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProvedThere {
    pub repository: String,
    pub at: jiff::Timestamp,
}

impl SourceProof {
    /// A proof of `repository`, as it stands in its chain; without a place in a chain of its own yet.
    pub(crate) fn of(
        repository: String,
        original: PointId,
        public_key: String,
        entry: chain::Entry<ProofRecord>,
    ) -> Self {
        Self {
            version: VERSION,
            sequence: 0,
            previous: None,
            repository,
            number: entry.record.sequence,
            original,
            public_key,
            signed: entry.signed,
            signature: entry.signature,
        }
    }

    /// The proof itself, when its signature is by the key that it names.
    pub fn proof(&self) -> Result<ProofRecord> {
        let unusable = |why: String| {
            Fault::new(codes::REPO_PROOFS, format!("read {} {}", Self::RECORD, self.sequence)).because(why)
        };
        chain::signed_by(&self.signed, &self.signature, &self.public_key).map_err(|bad| unusable(bad.to_string()))?;
        let record: ProofRecord = serde_json::from_str(&self.signed).map_err(|error| unusable(error.to_string()))?;
        match record.version {
            PROOF_VERSION => Ok(record),
            other => Err(unusable(format!("its version {other} is not known to this program"))),
        }
    }
}

/// Every proof of other repositories, oldest first. A changed, missing or unreadable record is `REPO_PROOFS`.
pub fn read_all(repo: &Repo) -> Result<Vec<SourceProof>> {
    match Chain::<SourceProof>::open(repo)? {
        None => Ok(Vec::new()),
        Some(chain) => Ok(chain.read_all()?.into_iter().map(|entry| entry.record).collect()),
    }
}

pub(crate) fn append(repo: &Repo, proof: &SourceProof) -> Result<()> {
    let chain = Chain::<SourceProof>::open_or_create(repo)?;
    let made = chain.append("record what was proved in the source", |sequence, previous| SourceProof {
        sequence,
        previous,
        ..proof.clone()
    });
    made.map(drop)
}

/// Points that were proved elsewhere. As with proofs of this repository, a later failed drill takes it away.
pub fn proved_there(points: &[RecoveryPoint], proofs: &[SourceProof]) -> Result<BTreeMap<PointId, ProvedThere>> {
    let mut read: BTreeMap<(&PointId, &str), Vec<ProofRecord>> = BTreeMap::new();
    for proof in proofs {
        read.entry((&proof.original, &proof.repository)).or_default().push(proof.proof()?);
    }
    let mut proved: BTreeMap<PointId, ProvedThere> = BTreeMap::new();
    for ((original, repository), records) in read {
        for point in points.iter().filter(|point| root(point) == original) {
            let records: Vec<ProofRecord> = records.iter().map(|record| as_if_here(record, point.id())).collect();
            let Some(at) = records.last().map(|record| record.finished) else { continue };
            if trust(point, &records) == Trust::Proved && proved.get(point.id()).is_none_or(|known| known.at < at) {
                proved.insert(point.id().clone(), ProvedThere { repository: repository.to_owned(), at });
            }
        }
    }
    Ok(proved)
}

/// Points have other ids in other repositories.
fn as_if_here(record: &ProofRecord, point: &PointId) -> ProofRecord {
    let mut record = record.clone();
    if let Work::Drill(drill) = &mut record.work {
        drill.point = point.clone();
    }
    record
}

/// The part of a verification that is about these records.
pub(crate) fn verify(repo: &Repo, view: &PointsView, report: &mut VerifyReport) -> Result<()> {
    let Some(chain) = Chain::<SourceProof>::open(repo)? else { return Ok(()) };
    let (_, mut problems) = chain.problems(view, |_| None)?;
    if problems.is_empty() {
        let proofs = chain.read_all()?;
        problems.extend(proofs.iter().filter_map(|entry| entry.record.proof().err()).map(|fault| fault.chain()));
    }
    for problem in problems {
        let fault = Fault::new(codes::REPO_PROOFS, "read the proofs of the source").because(problem);
        report.damage("rekindle/source-proofs".to_owned(), &fault);
    }
    Ok(())
}
