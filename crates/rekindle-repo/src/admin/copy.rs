//! Copying points into another repository.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rekindle_core::{Fault, PointId, Result, codes};
use serde::Serialize;

use super::backend::Traffic;
use super::forget::{Actor, finish};
use super::{engine, run};
use crate::format::Id;
use crate::ledger::{Action, Event, Ledger};
use crate::lock::{Lock, LockKind};
use crate::points;
use crate::read::reach;
use crate::repo::Repo;

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// Points by their id here and their id there.
    pub copied: Vec<(PointId, PointId)>,
    /// Points whose tree was there already.
    pub present: Vec<PointId>,
    /// Bytes of packs written.
    pub written_bytes: u64,
}

/// Copies points with everything they need, encrypted anew with the key of `to`.
///
/// The engine leaves out silently what it does not find, so every blob is looked for here before,
/// and there afterwards; a snapshot that came out not whole is removed again.
pub fn copy(from: &Repo, ids: &[PointId], to: &Repo, actor: &Actor) -> Result<CopyReport> {
    let lock = Lock::acquire(to, &actor.clock, LockKind::Shared)?;
    let result = copy_locked(from, ids, to, actor, &lock);
    finish(lock, result)
}

fn copy_locked(from: &Repo, ids: &[PointId], to: &Repo, actor: &Actor, lock: &Lock) -> Result<CopyReport> {
    let mut report = CopyReport::default();
    let mut wanted = Vec::new();
    let there = points::snapshots(to)?;
    let source = from.reader()?;
    for id in ids {
        let bug = |bad: crate::format::BadFormat| Fault::new(codes::RUN_BUG, "copy a point").because(bad);
        let object: Id = id.as_str().parse().map_err(bug)?;
        let snapshot = points::read_snapshot(from, &object)?;
        let same = |read: &Result<crate::format::snapshot::Snapshot>| {
            read.as_ref().is_ok_and(|s| s.tree == snapshot.tree && s.time == snapshot.time)
        };
        if there.iter().any(|(_, read)| same(read)) {
            report.present.push(id.clone());
            continue;
        }
        reach::whole(&source.0, &snapshot.tree)
            .map_err(|why| incomplete(id, &format!("the source lacks data: {why}")))?;
        wanted.push((id.clone(), snapshot));
    }
    if wanted.is_empty() {
        return Ok(report);
    }
    lock.check()?;
    let traffic = Arc::new(Traffic::default());
    run_engine(from, to, &wanted.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(), &traffic)?;
    report.written_bytes = traffic.pack_bytes_written.load(Ordering::Relaxed);
    let ledger = Ledger::open_or_create(to)?;
    let reader = to.reader()?;
    let known: Vec<Id> = there.iter().map(|(id, _)| *id).collect();
    let new: Vec<_> = points::snapshots(to)?.into_iter().filter(|(id, _)| !known.contains(id)).collect();
    for (id, original) in wanted {
        let found = new.iter().find_map(|(new_id, read)| {
            let read = read.as_ref().ok()?;
            (read.tree == original.tree && read.time == original.time).then_some(*new_id)
        });
        let new_id = found.ok_or_else(|| incomplete(&id, "it is not in the other repository afterwards"))?;
        if let Err(why) = reach::whole(&reader.0, &original.tree) {
            let path = crate::format::names::file(crate::format::names::SNAPSHOTS, &new_id);
            to.store().delete(&rekindle_store::Key::new(&path)?)?;
            return Err(incomplete(&id, &format!("the copy lacks data and was removed: {why}")));
        }
        let new_id = points::point_id(&new_id)?;
        ledger.append(&Event {
            action: Action::Copied,
            point: new_id.clone(),
            tree: original.tree.hex(),
            time: actor.clock.now(),
            host: actor.host.clone(),
            run: actor.run.clone(),
        })?;
        report.copied.push((id, new_id));
    }
    Ok(report)
}

fn run_engine(from: &Repo, to: &Repo, ids: &[String], traffic: &Arc<Traffic>) -> Result<()> {
    let what = "copy points to the other repository";
    run::run(what, || {
        let source = engine::open(from, &Arc::new(Traffic::default()))?;
        let source = source.to_indexed().map_err(|e| run::fault(what, e))?;
        let target = engine::open(to, traffic)?.to_indexed_ids().map_err(|e| run::fault(what, e))?;
        let snapshots = source.get_snapshots(ids).map_err(|e| run::fault(what, e))?;
        if snapshots.len() != ids.len() {
            return Err(Fault::new(codes::REPO_COPY_INCOMPLETE, what).because("the engine found fewer snapshots"));
        }
        source.copy(&target, snapshots.iter()).map_err(|e| run::fault(what, e))
    })?;
    Ok(())
}

fn incomplete(id: &PointId, why: &str) -> Fault {
    Fault::new(codes::REPO_COPY_INCOMPLETE, format!("copy point {}", id.short()))
        .because(why.to_owned())
        .hint("run `rekindle verify` on the source, then copy again")
}
