//! The lock that keeps restic, rustic's users and ourselves from pruning while somebody writes.
//!
//! restic's protocol: look for conflicting locks, write the own one, look again. A lock is
//! refreshed by writing a new file and removing the old one; it is stale when it is older than
//! half an hour, or when its process is gone for certain ([`crate::process_space`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rekindle_core::port::Clock;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, ObjectMeta, PutMode};
use rustix::process::{getgid, getuid};

use crate::format::lock::LockFile;
use crate::format::{Id, names, time, unpacked};
use crate::process_space;
use crate::repo::Repo;

/// After this a lock counts as left behind; restic's own figure.
const STALE_AFTER_SECONDS: i64 = 30 * 60;
/// A run whose last refresh is older than this must not rely on its lock any more.
const UNSAFE_AFTER_SECONDS: i64 = 25 * 60;
/// Pause between writing the lock and looking again, for stores whose listings lag; as restic.
const SETTLE: Duration = Duration::from_millis(200);
const KEEP: &str = "keep the lock of the repository";

/// What a lock allows others to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Others may read and write, nobody may prune.
    Shared,
    /// Nobody else may work on the repository.
    Exclusive,
}

struct Held {
    repo: Repo,
    clock: Arc<dyn Clock>,
    kind: LockKind,
    /// The lock file as it stands now, and its time in seconds.
    current: Mutex<(Id, i64)>,
}

/// A held lock. Call [`release`](Lock::release); a dropped one is let go in the background.
pub struct Lock {
    held: Arc<Held>,
    stop: Sender<()>,
    refresher: Option<JoinHandle<Result<()>>>,
    /// When the lock object was written.
    written: Instant,
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lock").field("kind", &self.held.kind).finish_non_exhaustive()
    }
}

impl Lock {
    /// Takes the lock, or says who holds it (`REPO_LOCKED`). Removes stale locks. Blocking.
    pub fn acquire(repo: &Repo, clock: &Arc<dyn Clock>, kind: LockKind) -> Result<Self> {
        let mut lock = Self::take(repo, clock, kind)?;
        if let Err(fault) = lock.settler().settle() {
            lock.stop_and_join()?;
            return Err(fault);
        }
        Ok(lock)
    }

    /// Writes the lock object. The lock holds once its [`Settler`] has looked again; what is read until
    /// then is as fresh as if it came afterwards: whoever holds an exclusive lock meanwhile makes that an
    /// error. Nothing may be written until then.
    pub(crate) fn take(repo: &Repo, clock: &Arc<dyn Clock>, kind: LockKind) -> Result<Self> {
        refuse_conflicts(repo, &**clock, kind, None)?;
        let current = write(repo, &**clock, kind)?;
        Self::guard(Held { repo: repo.clone(), clock: Arc::clone(clock), kind, current: Mutex::new(current) })
    }

    /// What finds out whether the lock holds.
    pub(crate) fn settler(&self) -> Settler {
        Settler { held: Arc::clone(&self.held), written: self.written }
    }

    fn guard(held: Held) -> Result<Self> {
        let written = Instant::now();
        let held = Arc::new(held);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let refreshed = Arc::clone(&held);
        let refresher = std::thread::Builder::new()
            .name("repository-lock".to_owned())
            .spawn(move || keep_fresh(&refreshed, &stopped));
        match refresher {
            Ok(refresher) => Ok(Self { held, stop, refresher: Some(refresher), written }),
            Err(error) => {
                remove(&held.repo, &held.current().0)?;
                Err(Fault::new(codes::RUN_BUG, "start the thread that keeps the lock").because(error))
            }
        }
    }

    /// Whether the lock is still ours; `REPO_LOST_LOCK` when somebody removed it or it got too old.
    pub fn check(&self) -> Result<()> {
        self.held.in_time()?;
        self.held.is_there()
    }

    /// For whoever has to ask before each of many steps.
    pub fn watch(&self) -> Watch {
        Watch { held: Arc::clone(&self.held), asked: Mutex::new(Instant::now()) }
    }

    /// Removes the lock.
    pub fn release(mut self) -> Result<()> {
        self.stop_and_join()
    }

    fn stop_and_join(&mut self) -> Result<()> {
        let _ = self.stop.try_send(());
        match self.refresher.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Fault::new(codes::RUN_BUG, "keep the lock of the repository")),
        }
    }
}

/// Looks again after a lock object was written.
pub(crate) struct Settler {
    held: Arc<Held>,
    written: Instant,
}

impl Settler {
    /// Waits for the rest of the pause after writing the lock object, then looks again. An error means
    /// that the lock is not ours.
    pub(crate) fn settle(&self) -> Result<()> {
        std::thread::sleep(SETTLE.saturating_sub(self.written.elapsed()));
        let Held { repo, clock, kind, .. } = &*self.held;
        // Held while looking: a refresh must not change which one is our own.
        let current = self.held.current();
        refuse_conflicts(repo, &**clock, *kind, Some(current.0))
    }
}

/// Asks often whether a lock still holds, and the storage only once in a while.
pub struct Watch {
    held: Arc<Held>,
    /// When the storage was asked.
    asked: Mutex<Instant>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Whether the lock is still ours; `REPO_LOST_LOCK` when it got too old, or when the storage does not have it any
    /// more, which is asked ten times between two refreshes.
    pub fn check(&self) -> Result<()> {
        self.held.in_time()?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.elapsed() < self.held.repo.options().lock_refresh / 10 {
            return Ok(());
        }
        self.held.is_there()?;
        *asked = Instant::now();
        Ok(())
    }
}

impl Held {
    fn in_time(&self) -> Result<()> {
        if self.clock.now().as_second() - self.current().1 > UNSAFE_AFTER_SECONDS {
            return Err(Fault::new(codes::REPO_LOST_LOCK, KEEP)
                .because("it could not be refreshed in time")
                .hint("run the command again"));
        }
        Ok(())
    }

    fn is_there(&self) -> Result<()> {
        // A refresh writes the new one before it removes the old one, and must not do so between our two steps.
        let current = self.current();
        let key = ObjectKey::new(&names::file(names::LOCKS, &current.0))?;
        match self.repo.store().head(&key)? {
            Some(_) => Ok(()),
            None => Err(Fault::new(codes::REPO_LOST_LOCK, KEEP)
                .because("somebody removed it (`restic unlock`?)")
                .hint("make sure nobody prunes the repository now, then run the command again")),
        }
    }

    fn current(&self) -> MutexGuard<'_, (Id, i64)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refreshes until told to stop (or the holder is gone), then removes the lock.
fn keep_fresh(held: &Held, stopped: &Receiver<()>) -> Result<()> {
    let every = held.repo.options().lock_refresh;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
        if let Err(error) = refresh(held) {
            // `check` refuses before the lock is old enough to be taken for stale.
            tracing::warn!(%error, "lock not refreshed");
        }
    }
    let (id, _) = *held.current();
    remove(&held.repo, &id)
}

fn refresh(held: &Held) -> Result<()> {
    let (old, _) = *held.current();
    let key = ObjectKey::new(&names::file(names::LOCKS, &old))?;
    if held.repo.store().head(&key)?.is_none() {
        // Somebody removed it: a new one would hide that from `check`.
        return Err(Fault::new(codes::REPO_LOST_LOCK, "refresh the lock"));
    }
    *held.current() = write(&held.repo, &*held.clock, held.kind)?;
    remove(&held.repo, &old)
}

fn write(repo: &Repo, clock: &dyn Clock, kind: LockKind) -> Result<(Id, i64)> {
    let now = clock.now();
    let file = LockFile {
        time: time::format(now.into()),
        exclusive: kind == LockKind::Exclusive,
        hostname: hostname(),
        username: getuid().as_raw().to_string(),
        pid: std::process::id(),
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
        process_space: process_space::own(),
    };
    let (id, sealed) = file
        .encode()
        .and_then(|json| unpacked::encode(repo.key(), &json, repo.config().compression()))
        .map_err(|bad| Fault::new(codes::RUN_BUG, "encode the lock").because(bad))?;
    let key = ObjectKey::new(&names::file(names::LOCKS, &id))?;
    repo.store()
        .put(&key, Bytes::from(sealed), PutMode::Overwrite)
        .map_err(|fault| fault.during("write the lock of the repository"))?;
    Ok((id, now.as_second()))
}

fn remove(repo: &Repo, id: &Id) -> Result<()> {
    let key = ObjectKey::new(&names::file(names::LOCKS, id))?;
    repo.store().delete(&key).map_err(|fault| fault.during("remove the lock of the repository"))
}

/// The name of this host, as restic writes it into locks.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn refuse_conflicts(repo: &Repo, clock: &dyn Clock, kind: LockKind, own: Option<Id>) -> Result<()> {
    let listed = repo.store().list("locks/").map_err(|fault| fault.during("list the locks of the repository"))?;
    for object in listed {
        let Some(id) = names::id_of(object.key.as_str()).filter(|id| Some(*id) != own) else {
            continue;
        };
        match judge(repo, clock, &object, &id)? {
            Found::Gone => {}
            Found::Stale => remove(repo, &id)?,
            Found::Alive(other) => {
                if kind == LockKind::Exclusive || other.exclusive {
                    return Err(conflict(clock, &other));
                }
            }
            Found::Unreadable => {
                let what = format!("read the lock `{}`", object.key);
                return Err(Fault::new(codes::REPO_LOCKED, what)
                    .because("it is not a lock file, or made with another key")
                    .hint("if no program uses the repository, run `restic unlock --remove-all`"));
            }
        }
    }
    Ok(())
}

enum Found {
    Gone,
    Stale,
    Unreadable,
    Alive(LockFile),
}

fn judge(repo: &Repo, clock: &dyn Clock, object: &ObjectMeta, id: &Id) -> Result<Found> {
    let sealed = match repo.store().get(&object.key) {
        Ok(sealed) => sealed,
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) => return Ok(Found::Gone),
        Err(fault) => return Err(fault.during("read the locks of the repository")),
    };
    let now = clock.now().as_second();
    let decoded = unpacked::decode(repo.key(), id, &sealed).and_then(|json| LockFile::decode(&json));
    let Ok(lock) = decoded else {
        let old = object.modified.is_some_and(|at| now - at.as_second() > STALE_AFTER_SECONDS);
        return Ok(if old { Found::Stale } else { Found::Unreadable });
    };
    let expired = time::parse(&lock.time).is_ok_and(|at| now - at.seconds > STALE_AFTER_SECONDS);
    Ok(if expired || process_space::is_gone(&lock) { Found::Stale } else { Found::Alive(lock) })
}

fn conflict(clock: &dyn Clock, other: &LockFile) -> Fault {
    let age = time::parse(&other.time).map_or(0, |at| (clock.now().as_second() - at.seconds).max(0));
    let kind = if other.exclusive { "exclusively " } else { "" };
    Fault::new(codes::REPO_LOCKED, "lock the repository")
        .because(format!("process {} of host `{}` holds it {kind}since {age} s", other.pid, other.hostname))
        .hint("wait until it is done; a lock left behind expires after 30 minutes, or remove it with `restic unlock`")
}
