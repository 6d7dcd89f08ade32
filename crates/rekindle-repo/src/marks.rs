//! Marks of people in the repository: accepted, held, kit confirmed. They are a signed chain.

use rekindle_core::manifest::LedgerHead;
use rekindle_core::mark::{Mark, Marks};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, chained};
use crate::points::PointsView;
use crate::repo::Repo;
use crate::verify::VerifyReport;

/// The version this program writes, and the newest one it reads.
const VERSION: u32 = 1;

/// A mark in its place in the chain, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    sequence: u64,
    previous: Option<String>,
    mark: Mark,
}

chained!(Record in "rekindle/marks/": "chain of marks", "mark", codes::REPO_LEDGER, VERSION);

/// Every mark, as it stands now. A changed or missing record is `REPO_LEDGER`: who holds a point
/// must not be guessed.
pub fn read(repo: &Repo) -> Result<Marks> {
    match Chain::<Record>::open(repo)? {
        None => Ok(Marks::default()),
        Some(chain) => Ok(Marks::of(chain.read_all()?.into_iter().map(|entry| entry.record.mark))),
    }
}

/// Every mark with its number, oldest first.
pub(crate) fn all(repo: &Repo) -> Result<Vec<(u64, Mark)>> {
    match Chain::<Record>::open(repo)? {
        None => Ok(Vec::new()),
        Some(chain) => {
            Ok(chain.read_all()?.into_iter().map(|entry| (entry.record.sequence, entry.record.mark)).collect())
        }
    }
}

/// Number and hash of the newest mark.
pub(crate) fn head(repo: &Repo) -> Result<Option<LedgerHead>> {
    match Chain::<Record>::open(repo)? {
        None => Ok(None),
        Some(chain) => chain.head(),
    }
}

/// Adds a mark and gives the new head of the chain.
pub fn add(repo: &Repo, mark: &Mark) -> Result<LedgerHead> {
    let chain = Chain::<Record>::open_or_create(repo)?;
    let entry = chain.append("write a mark", |sequence, previous| Record {
        version: VERSION,
        sequence,
        previous,
        mark: mark.clone(),
    })?;
    Ok(entry.head())
}

/// Everything that is wrong with the chain of marks.
pub(crate) fn problems(repo: &Repo, view: &PointsView) -> Result<Vec<String>> {
    match Chain::<Record>::open(repo)? {
        None => Ok(Vec::new()),
        Some(chain) => Ok(chain.problems(view, |manifest| manifest.marks_head.as_ref())?.1),
    }
}

/// The part of a verification that is about the marks.
pub(crate) fn verify(repo: &Repo, view: &PointsView, report: &mut VerifyReport) -> Result<()> {
    for problem in problems(repo, view)? {
        let fault = Fault::new(codes::REPO_LEDGER, "read the chain of marks").because(problem);
        report.damage("rekindle/marks".to_owned(), &fault);
    }
    Ok(())
}
