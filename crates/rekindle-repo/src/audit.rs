//! The audit log: who did what to the repository, and who took data out of it. It is a signed chain
//! under `rekindle/audit/`; what backups and `forget` did to points stands in the ledger.

use rekindle_core::manifest::LedgerHead;
use rekindle_core::{Result, codes};
use serde::{Deserialize, Serialize};

use crate::chain::{self, Chain, chained};
use crate::points::PointsView;
use crate::repo::Repo;
use crate::verify::VerifyReport;

/// The version this program writes, and the newest one it reads.
const VERSION: u32 = 1;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub time: jiff::Timestamp,
    /// Who asked for it, and on which host.
    pub user: String,
    pub host: String,
    /// The verb of the command line.
    pub operation: String,
    /// What it was done to: points, keys, copies, a directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// SHA-256 of the whole command line, hex: two acts with the same one asked for the same.
    pub arguments: String,
    /// How it ended.
    pub exit_code: u8,
    /// Of a failure, as `RK-RP-003`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An act in its place in the chain, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    sequence: u64,
    previous: Option<String>,
    pub act: Act,
}

chained!(Record in "rekindle/audit/": "audit log", "audit record", codes::REPO_AUDIT, VERSION);

/// Appends an act; gives its number.
pub fn append(repo: &Repo, act: &Act) -> Result<u64> {
    enter(&Chain::open_or_create(repo)?, act)
}

pub(crate) fn enter(chain: &Chain<'_, Record>, act: &Act) -> Result<u64> {
    let entry = chain.append("write the audit log", |sequence, previous| Record {
        version: VERSION,
        sequence,
        previous,
        act: act.clone(),
    })?;
    Ok(entry.record.sequence)
}

/// The operation of an act that says: the signing key was lost, and somebody knows that what it had signed is gone.
pub const ANEW: &str = "audit-anew";

/// Every act that can be read, oldest first with its number, and everything that is wrong with the chain.
pub fn read(repo: &Repo) -> Result<chain::Audit<Record>> {
    match Chain::<Record>::open(repo)? {
        None => Ok(chain::Audit { entries: Vec::new(), problems: Vec::new() }),
        Some(chain) => chain.audit(),
    }
}

/// Number and hash of the newest act.
pub(crate) fn head(repo: &Repo) -> Result<Option<LedgerHead>> {
    match Chain::<Record>::open(repo)? {
        None => Ok(None),
        Some(chain) => chain.head(),
    }
}

/// Number of records, and everything that is wrong: with the chain itself, and against the heads that
/// points have seen.
pub fn problems(repo: &Repo, view: &PointsView) -> Result<(u64, Vec<String>)> {
    match Chain::<Record>::open(repo)? {
        None => Ok((0, Vec::new())),
        Some(chain) => chain.problems(view, |manifest| manifest.audit_head.as_ref()),
    }
}

/// The part of a verification that is about the audit log.
pub(crate) fn verify(repo: &Repo, view: &PointsView, report: &mut VerifyReport) -> Result<()> {
    for problem in problems(repo, view)?.1 {
        let fault = rekindle_core::Fault::new(codes::REPO_AUDIT, "read the audit log").because(problem);
        report.damage("rekindle/audit".to_owned(), &fault);
    }
    Ok(())
}
