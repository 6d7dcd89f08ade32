//! Removing data no snapshot needs, in two phases, guarded.
//!
//! Phase one marks packs, a later run removes packs that were marked long enough ago; nothing is
//! ever deleted at once. Before anything happens the view of the repository is compared with the
//! ledger: a LIST that came back too short is the classic way to lose everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rekindle_core::{Cancel, Fault, Result, codes};
use rustic_core::jiff::Span;
use rustic_core::{LimitOption, PrunePlan};
use serde::Serialize;

use super::backend::Operation;
use super::forget::{Actor, finish};
use super::{engine, run};
use crate::ledger::{self, Ledger};
use crate::lock::{Lock, LockKind};
use crate::points;
use crate::repo::Repo;

/// How to prune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneOptions {
    /// Unused data that may stay, in percent of what is used.
    pub max_unused_percent: u8,
    /// Most that one run may take away or mark, in percent of all packed bytes.
    pub max_delete_percent: u8,
    /// Hours a marked pack is kept before it is removed: longer than any backup takes.
    pub keep_marked_hours: u16,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { max_unused_percent: 5, max_delete_percent: 50, keep_marked_hours: 23, dry_run: false }
    }
}

/// What a prune did or would do, in bytes of packs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// Needed by snapshots.
    pub used_bytes: u64,
    /// Not needed by any.
    pub unused_bytes: u64,
    /// Of these, in packs that are marked now and removed by a later run.
    pub marked_bytes: u64,
    /// Rewritten because packs hold both.
    pub repacked_bytes: u64,
    /// In packs marked earlier whose time has come.
    pub removed_bytes: u64,
    pub removed_packs: u64,
    /// In packs no index names.
    pub unindexed_bytes: u64,
    /// Warnings of the engine.
    pub warnings: u64,
}

impl PruneReport {
    fn of(plan: &PrunePlan) -> Self {
        let size = plan.stats.size_sum();
        Self {
            used_bytes: size.used,
            unused_bytes: size.unused,
            marked_bytes: size.remove,
            repacked_bytes: size.repack,
            removed_bytes: plan.stats.size_to_delete.remove,
            removed_packs: 0,
            unindexed_bytes: plan.stats.size_unref,
            warnings: 0,
        }
    }

    /// Bytes that this run marks, takes out or removes.
    fn taken(&self, plan: &PrunePlan) -> u64 {
        let repacked = plan.stats.size_sum().repackrm;
        self.marked_bytes + repacked + self.removed_bytes + self.unindexed_bytes
    }
}

/// Removes data no snapshot needs. `REPO_PRUNE_REFUSED` when the view of the repository is
/// doubtful or more would go than is allowed. Once `cancel` is raised it stops before the next
/// object is touched; what a stopped run leaves behind, the next one finishes.
pub fn prune(repo: &Repo, options: &PruneOptions, actor: &Actor, cancel: &Cancel) -> Result<PruneReport> {
    let lock = Lock::acquire(repo, &actor.clock, LockKind::Exclusive)?;
    let result = refuse_doubtful(repo).and_then(|()| prune_locked(repo, options, &lock, cancel));
    finish(lock, result.map_err(|fault| stopped(cancel).unwrap_or(fault)))
}

/// Whatever the engine makes of a store that refuses: the reason was the cancel flag.
fn stopped(cancel: &Cancel) -> Option<Fault> {
    let fault = cancel.check().err()?;
    Some(fault.during("prune the repository").hint("no point has lost anything; run `rekindle prune` again to finish"))
}

fn refused(why: impl Into<String>) -> Fault {
    Fault::new(codes::REPO_PRUNE_REFUSED, "prune the repository")
        .because(why.into())
        .hint("nothing was removed; run `rekindle verify` and look at the storage")
}

/// Every snapshot must be readable, and every point of the ledger must be there.
fn refuse_doubtful(repo: &Repo) -> Result<()> {
    let snapshots = points::snapshots(repo).map_err(|fault| refused(fault.chain()))?;
    let mut present = std::collections::BTreeSet::new();
    for (id, read) in snapshots {
        if let Err(fault) = read {
            return Err(refused(fault.chain()));
        }
        present.insert(points::point_id(&id)?);
    }
    // A hold or a proof that was cut off is as bad as a point that is missing.
    let view = points::view(repo).map_err(|fault| refused(fault.chain()))?;
    if let Some(bad) = view.unreadable.first() {
        return Err(refused(format!("point {} cannot be read: {}", bad.id.short(), bad.fault.chain())));
    }
    crate::trust::require(repo, &view).map_err(|fault| refused(fault.chain()))?;
    let Some(ledger) = Ledger::open(repo).map_err(|fault| refused(fault.chain()))? else {
        return Ok(());
    };
    let entries = ledger.read_all().map_err(|fault| refused(fault.chain()))?;
    let missing: Vec<_> = ledger::live(&entries).into_keys().filter(|id| !present.contains(id)).collect();
    match missing.first() {
        None => Ok(()),
        Some(first) => Err(refused(format!(
            "{} of the points in the ledger are not in the repository, {} the first",
            missing.len(),
            first.short()
        ))),
    }
}

fn prune_locked(repo: &Repo, options: &PruneOptions, lock: &Lock, cancel: &Cancel) -> Result<PruneReport> {
    let what = "prune the repository";
    let operation = Arc::new(Operation { cancel: cancel.clone(), lock: Some(lock.watch()), ..Operation::default() });
    let outcome = run::run(what, || {
        let engine = engine::open(repo, &operation)?;
        let mut with = rustic_core::PruneOptions::default();
        with.instant_delete = false;
        with.max_unused = LimitOption::Percentage(u64::from(options.max_unused_percent));
        with.max_repack = LimitOption::Unlimited;
        with.keep_delete = Span::new().hours(i64::from(options.keep_marked_hours));
        let plan = engine.prune_plan(&with).map_err(|e| refused(run::fault(what, e).chain()))?;
        let report = PruneReport::of(&plan);
        let all = report.used_bytes + report.unused_bytes + report.unindexed_bytes + report.removed_bytes;
        let allowed = u128::from(all) * u128::from(options.max_delete_percent) / 100;
        if u128::from(report.taken(&plan)) > allowed {
            return Err(refused(format!(
                "{} of {all} bytes would go, {}% are allowed at once",
                report.taken(&plan),
                options.max_delete_percent
            )));
        }
        lock.check()?;
        if !options.dry_run {
            engine.prune(&with, plan).map_err(|e| run::fault(what, e))?;
        }
        Ok(report)
    })?;
    let mut report = outcome.value;
    report.removed_packs = operation.packs_removed.load(Ordering::Relaxed);
    report.warnings = outcome.warnings;
    Ok(report)
}
