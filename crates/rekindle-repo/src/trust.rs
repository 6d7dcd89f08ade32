//! Whether the signed records of a repository may be believed, all of them together.
//!
//! Each chain proves that nothing *inside* it was changed. What was cut off at its end, or the loss of the key
//! that all of them are signed with, shows only against the recovery points: each holds the public key and the
//! heads that its run saw.

use rekindle_core::point::RecoveryPoint;
use rekindle_core::{Class, Fault, Result, codes};

use crate::ledger::Ledger;
use crate::points::PointsView;
use crate::repo::Repo;
use crate::{audit, chain, marks, proofs, source_proofs};

/// What was seen of the chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Number of acts in the audit log.
    pub acts: u64,
    /// Number of records of the ledger.
    pub ledger: u64,
    /// Number of proofs.
    pub proofs: u64,
    /// Everything that is wrong; empty when all of it may be believed.
    pub problems: Vec<String>,
}

/// Reads every chain, against itself and against what the points have seen.
///
/// # Errors
/// A store that does not answer. What is wrong with the records is in the answer.
pub fn look(repo: &Repo, view: &PointsView) -> Result<Records> {
    let mut seen = Records::default();
    let ledger = match Ledger::open(repo) {
        Ok(ledger) => ledger,
        Err(fault) => {
            seen.problems.push(reached(fault)?);
            return Ok(seen);
        }
    };
    let Some(ledger) = ledger else {
        if knows_a_key(view) {
            seen.problems.push(
                "`rekindle/signing-key` is not in the repository, and its points were written with one: \
                 ledger, holds, proofs and audit log cannot be checked"
                    .to_owned(),
            );
        }
        return Ok(seen);
    };
    if replaced(view, &ledger.public_key(), || audit::read(repo))? {
        seen.problems.push(REPLACED.to_owned());
    }
    let (acts, wrong) = audit::problems(repo, view)?;
    seen.acts = acts;
    seen.problems.extend(wrong);
    let (records, wrong) = ledger.problems(view)?;
    seen.ledger = records;
    seen.problems.extend(wrong);
    let (proofs, wrong) = proofs::problems(repo, view)?;
    seen.proofs = proofs;
    seen.problems.extend(wrong);
    seen.problems.extend(marks::problems(repo, view)?);
    if let Err(fault) = source_proofs::read_all(repo) {
        seen.problems.push(reached(fault)?);
    }
    Ok(seen)
}

/// What is wrong when [`replaced`].
pub(crate) const REPLACED: &str = "`rekindle/signing-key` is another one than the points were written with: what the \
                                   old one had signed, holds and proofs among it, is gone";

/// Whether points were written with a signing key: then this repository has had one as well, which a copy gets
/// before its first point.
pub(crate) fn knows_a_key(view: &PointsView) -> bool {
    view.points.iter().any(|point| point.manifest().signing_key.is_some())
}

/// Whether points of this repository itself were written with another signing key, and nobody has said in the
/// audit log that he knows.
pub(crate) fn replaced(
    view: &PointsView,
    key: &str,
    acts: impl FnOnce() -> Result<chain::Audit<audit::Record>>,
) -> Result<bool> {
    let other = |point: &RecoveryPoint| {
        point.original().is_none() && point.manifest().signing_key.as_ref().is_some_and(|known| known != key)
    };
    if !view.points.iter().any(other) {
        return Ok(false);
    }
    Ok(!acts()?.entries.iter().any(|entry| entry.record.act.operation == audit::ANEW))
}

/// Lets nothing be removed on the word of records that were changed: who holds a point, and which one was
/// proved, must not be guessed.
///
/// # Errors
/// `REPO_LEDGER` with the first problem; a store that does not answer.
pub fn require(repo: &Repo, view: &PointsView) -> Result<()> {
    let seen = look(repo, view)?;
    match seen.problems.first() {
        None => Ok(()),
        Some(first) => Err(Fault::new(codes::REPO_LEDGER, "remove anything: the repository's records were changed")
            .because(first.clone())
            .hint("nothing was removed; `rekindle verify` shows everything that is wrong")),
    }
}

/// A store that does not answer proves nothing.
fn reached(fault: Fault) -> Result<String> {
    if fault.class() == Class::Unreachable { Err(fault) } else { Ok(fault.chain()) }
}
