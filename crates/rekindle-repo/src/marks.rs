//! Marks of people in the repository: accepted, held, kit confirmed.

use rekindle_core::manifest::LedgerHead;
use rekindle_core::mark::{Mark, Marks};
use rekindle_core::{Fault, Result, codes};

use crate::ledger::Ledger;
use crate::repo::Repo;
use crate::signed_log::SignedLog;

const CHAIN: &str = "marks";

/// The chain of marks, signed with the ledger's key.
pub(crate) fn chain<'a>(repo: &'a Repo, ledger: &Ledger<'_>) -> SignedLog<'a, Mark> {
    SignedLog::new(repo, ledger, CHAIN)
}

/// Every mark, as it stands now. A changed or missing record is `REPO_LEDGER`: who holds a point
/// must not be guessed.
pub fn read(repo: &Repo) -> Result<Marks> {
    match Ledger::open(repo)? {
        None => Ok(Marks::default()),
        Some(ledger) => Ok(Marks::of(chain(repo, &ledger).read_all()?.into_iter().map(|linked| linked.link.body))),
    }
}

/// Adds a mark and gives the new head of the chain.
pub fn add(repo: &Repo, mark: &Mark) -> Result<LedgerHead> {
    let ledger = Ledger::open(repo)?.ok_or_else(|| {
        Fault::new(codes::REPO_LEDGER, "write a mark: the repository has no signing key")
            .because("it was made by another program, and no point was written yet")
            .hint("rekindle init, then rekindle backup")
    })?;
    chain(repo, &ledger).append(mark)
}
