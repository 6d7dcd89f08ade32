//! The chain of proofs: what drills and verifications found, under `rekindle/proofs/`.
//!
//! It is signed with the key of the ledger, whose public half is in every manifest, and every later
//! manifest holds its head. Limit, as of the ledger: the newest records can be cut off until a later
//! point has seen them.

use rekindle_core::manifest::LedgerHead;
use rekindle_core::proof_record::{PROOF_VERSION, ProofRecord};
use rekindle_core::{Fault, Result, codes};

use crate::chain::{self, Chain, chained};
use crate::points::PointsView;
use crate::repo::Repo;
use crate::verify::VerifyReport;

/// A proof, as it was signed.
pub type Entry = chain::Entry<ProofRecord>;

chained!(ProofRecord in "rekindle/proofs/": "chain of proofs", "proof record", codes::REPO_PROOFS, PROOF_VERSION);

/// Every proof of a repository, oldest first; none when it has no signing key. A changed, missing or
/// unreadable record is `REPO_PROOFS`: nothing is trusted on a doubtful chain.
pub fn read_all(repo: &Repo) -> Result<Vec<ProofRecord>> {
    let entries = entries(repo)?;
    Ok(entries.into_iter().map(|entry| entry.record).collect())
}

/// As [`read_all`], with what was signed.
pub fn entries(repo: &Repo) -> Result<Vec<Entry>> {
    match Chain::<ProofRecord>::open(repo)? {
        None => Ok(Vec::new()),
        Some(chain) => chain.read_all(),
    }
}

/// The public half of the signing key (hex), when the repository has one.
pub fn public_key(repo: &Repo) -> Result<Option<String>> {
    Ok(Chain::<ProofRecord>::open(repo)?.map(|chain| chain.public_key()))
}

/// Number and hash of the newest proof.
pub fn head(repo: &Repo) -> Result<Option<LedgerHead>> {
    match Chain::<ProofRecord>::open(repo)? {
        None => Ok(None),
        Some(chain) => chain.head(),
    }
}

/// Appends a proof; its number and link are filled in.
pub fn append(repo: &Repo, record: &ProofRecord) -> Result<Entry> {
    let chain = Chain::open_or_create(repo)?;
    chain.append("record the proof in the repository", |sequence, previous| ProofRecord {
        version: PROOF_VERSION,
        sequence,
        previous,
        ..record.clone()
    })
}

/// Everything that is wrong with the chain: its records, and the heads that points have seen.
pub fn problems(repo: &Repo, view: &PointsView) -> Result<(u64, Vec<String>)> {
    match Chain::<ProofRecord>::open(repo)? {
        None => Ok((0, Vec::new())),
        Some(chain) => chain.problems(view, |manifest| manifest.proof_head.as_ref()),
    }
}

/// The part of a verification that is about the proofs.
pub(crate) fn verify(repo: &Repo, view: &PointsView, report: &mut VerifyReport) -> Result<()> {
    let (records, problems) = problems(repo, view)?;
    report.proof_records = records;
    for problem in problems {
        let fault = Fault::new(codes::REPO_PROOFS, "read the chain of proofs").because(problem);
        report.damage("rekindle/proofs".to_owned(), &fault);
    }
    Ok(())
}
