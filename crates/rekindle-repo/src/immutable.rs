//! Longer retention for everything that is still needed.
//!
//! An object that is written gets the configured retention. Deduplication makes old packs serve new
//! points, so without more their locks would end while they are needed. From time to time every object of the
//! repository (packs, index, snapshots, keys, `config`, our own) is therefore kept for the whole time again.
//! What no point needs any more is removed by `prune` first, and then not extended.

use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use rekindle_core::{Cancel, Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, Locker, PutMode, is_lockable};
use serde::{Deserialize, Serialize};

use crate::read::parallel;
use crate::repo::Repo;

/// When it was done last, and until when everything of that time is kept.
const STATE: &str = "rekindle/leases/retention";
/// It is due when a third of the time has passed: two runs may be missed.
const DUE_SHARE: i64 = 3;
const THREADS: usize = 16;
/// Times that one object is tried.
const TRIES: u32 = 3;

#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    done: jiff::Timestamp,
    until: jiff::Timestamp,
}

/// What an extension did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extended {
    /// Whether it was time for it.
    pub due: bool,
    /// Objects that are kept until `until` now.
    pub objects: u64,
    /// Until when everything that was there at the last extension is kept.
    pub until: jiff::Timestamp,
}

/// Extends the retention of every object, when it is time, or when `now_please`. `None`: no retention is
/// configured. An object that cannot be extended is an error, and all others are tried all the same.
pub fn extend(repo: &Repo, now: jiff::Timestamp, now_please: bool, cancel: &Cancel) -> Result<Option<Extended>> {
    let store = repo.store();
    let Some(locker) = store.store.locker() else { return Ok(None) };
    let Some(lock) = locker.lock() else { return Ok(None) };
    let until = lock.until(now);
    if let Some(state) = read(repo)?
        && !now_please
        && state.until > now
        && now.duration_since(state.done).as_hours() < i64::from(lock.days) * 24 / DUE_SHARE
        && state.until.duration_since(state.done) >= until.duration_since(now)
    {
        return Ok(Some(Extended { due: false, objects: 0, until: state.until }));
    }
    let objects: Vec<ObjectKey> = store.list("")?.into_iter().map(|meta| meta.key).filter(is_lockable).collect();
    let first: Mutex<Option<(ObjectKey, Fault)>> = Mutex::default();
    let kept = parallel::map(&objects, THREADS, |key| {
        cancel.check()?;
        Ok(match one(repo, locker, key, until) {
            Ok(()) => true,
            // Removed meanwhile.
            Err(fault) if fault.is(codes::STORE_NOT_FOUND) => false,
            Err(fault) => {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                *first = first.take().or(Some((key.clone(), fault)));
                false
            }
        })
    });
    let kept: Vec<bool> = kept.into_iter().collect::<Result<_>>()?;
    if let Some((key, fault)) = first.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(Fault::new(codes::STORE_RETENTION, format!("keep every object of {} longer", store.describe()))
            .because(format!("`{key}`: {}", fault.chain()))
            .hint("allow the key s3:PutObjectRetention and s3:GetObjectRetention; `rekindle doctor` tries it"));
    }
    write(repo, &State { version: 1, done: now, until })?;
    let objects = kept.iter().filter(|kept| **kept).count() as u64;
    Ok(Some(Extended { due: true, objects, until }))
}

fn one(repo: &Repo, locker: &dyn Locker, key: &ObjectKey, until: jiff::Timestamp) -> Result<()> {
    let mut tries = 1;
    loop {
        match repo.store().handle.block_on(locker.extend(key, until)) {
            Err(fault) if tries < TRIES && fault.class() == rekindle_core::Class::Unreachable => tries += 1,
            result => return result,
        }
    }
}

/// A state that cannot be read is none: then everything is extended.
fn read(repo: &Repo) -> Result<Option<State>> {
    match repo.store().get(&ObjectKey::new(STATE)?) {
        Ok(sealed) => Ok(repo.key().open(&sealed).ok().and_then(|plain| serde_json::from_slice(&plain).ok())),
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn write(repo: &Repo, state: &State) -> Result<()> {
    let bug = |why: String| Fault::new(codes::RUN_BUG, format!("write `{STATE}`")).because(why);
    let plain = serde_json::to_vec(state).map_err(|error| bug(error.to_string()))?;
    let sealed = repo.key().seal(&plain).map_err(|error| bug(error.to_string()))?;
    repo.store().put(&ObjectKey::new(STATE)?, Bytes::from(sealed), PutMode::Overwrite).map(drop)
}
