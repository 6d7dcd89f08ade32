//! Removing points on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use rekindle_core::port::Clock;
use rekindle_core::{Fault, PointId, Result, codes};
use rekindle_store::Key as ObjectKey;

use crate::format::{Id, names};
use crate::ledger::{Action, Event, Ledger};
use crate::lock::{Lock, LockKind};
use crate::points;
use crate::repo::Repo;

/// Who acts, for locks and the ledger.
#[derive(Clone)]
pub struct Actor {
    pub host: String,
    /// The run, when there is one.
    pub run: Option<String>,
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor").field("host", &self.host).field("run", &self.run).finish_non_exhaustive()
    }
}

/// Removes the snapshots of these points. Their data stays until [`prune`](super::prune()).
///
/// All of them must exist, or nothing is removed. The ledger learns of it first: a crash in
/// between leaves a point that is there and forgotten, which a second call removes, never one
/// that is gone without a record.
pub fn forget(repo: &Repo, ids: &[PointId], actor: &Actor) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    forget_by(repo, actor, || Ok(((), ids.to_vec())))
}

/// Removes what `decide` names while nobody else can write: what it reads cannot change before it is acted on.
pub fn forget_by<T>(repo: &Repo, actor: &Actor, decide: impl FnOnce() -> Result<(T, Vec<PointId>)>) -> Result<T> {
    let lock = Lock::acquire(repo, &actor.clock, LockKind::Exclusive)?;
    let result = decide().and_then(|(decided, ids)| forget_locked(repo, &ids, actor, &lock).map(|()| decided));
    finish(lock, result)
}

/// Releases the lock; the error of the work comes first.
pub(crate) fn finish<T>(lock: Lock, result: Result<T>) -> Result<T> {
    let released = lock.release();
    let value = result?;
    released?;
    Ok(value)
}

fn forget_locked(repo: &Repo, ids: &[PointId], actor: &Actor, lock: &Lock) -> Result<()> {
    let mut trees = BTreeMap::new();
    for (id, read) in points::snapshots(repo)? {
        // A point that cannot be read can be forgotten as well; its tree is not known then.
        let tree = read.map_or_else(|_| String::new(), |snapshot| snapshot.tree.hex());
        trees.insert(points::point_id(&id)?, tree);
    }
    for id in ids {
        if !trees.contains_key(id) {
            return Err(Fault::new(codes::REPO_NO_POINT, format!("forget point {}", id.short()))
                .because("it is not in the repository; nothing was removed")
                .hint("run `rekindle list`"));
        }
    }
    let ledger = Ledger::open(repo)?;
    for id in ids {
        lock.check()?;
        if let Some(ledger) = &ledger {
            ledger.append(&Event {
                action: Action::Forgotten,
                point: id.clone(),
                tree: trees.get(id).cloned().unwrap_or_default(),
                time: actor.clock.now(),
                host: actor.host.clone(),
                run: actor.run.clone(),
                original: None,
            })?;
        }
        let bug = |bad: crate::format::BadFormat| Fault::new(codes::RUN_BUG, "forget a point").because(bad);
        let object: Id = id.as_str().parse().map_err(bug)?;
        repo.store().delete(&ObjectKey::new(&names::file(names::SNAPSHOTS, &object))?)?;
    }
    Ok(())
}
