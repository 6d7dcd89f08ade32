//! Leases: who works on what, until when.
//!
//! An exclusive lease is a row of objects `rekindle/leases/<name>/<number>-<random>`. The highest number is
//! the holder's, and it is the fencing number: whoever finds a higher one than its own has lost the
//! lease. A holder renews by writing its own object again; an expired one is taken over by the next
//! number.
//!
//! Nothing rests on put-if-absent, which some storages accept and do not keep. Every object has a name that
//! nobody else has; whoever wants the lease writes its object first and looks at the others afterwards. Of
//! two that want it at the same time at least one sees the other's, and whoever sees another one withdraws.
//!
//! Holds are shared: `rekindle/leases/wal-holds/<system>/<id>`, any number of them, each written
//! only by its holder.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Hold, SystemId};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};
use serde::{Deserialize, Serialize};

use crate::format::crypto::random;
use crate::lock::hostname;
use crate::repo::Repo;

const FOLDER: &str = "rekindle/leases/";
/// How long an exclusive lease lasts without being renewed.
const LASTS: Duration = Duration::from_mins(5);
/// How often somebody who met another one comes back by itself.
const TRIES: u32 = 5;
/// Longest pause before that; a random part of it, so that two do not meet again.
const PAUSE_MAX_MS: u64 = 400;

#[derive(Serialize, Deserialize)]
struct LeaseFile {
    /// The object's own name: one that was moved does not count.
    name: String,
    host: String,
    pid: u32,
    until: jiff::Timestamp,
}

/// A held exclusive lease.
pub struct Lease {
    repo: Repo,
    clock: Arc<dyn Clock>,
    name: String,
    object: String,
    fence: u64,
    until: Mutex<jiff::Timestamp>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("name", &self.name).field("fence", &self.fence).finish_non_exhaustive()
    }
}

impl Lease {
    /// Takes the lease, or says who holds it (`REPO_LOCKED`).
    pub fn acquire(repo: &Repo, clock: &Arc<dyn Clock>, name: &str) -> Result<Self> {
        let what = || format!("take the lease `{name}`");
        for _ in 0..TRIES {
            let before = rows(repo, name)?;
            for row in &before {
                if let Some(file) = read(repo, &row.object)?
                    && file.until > clock.now()
                {
                    return Err(Fault::new(codes::REPO_LOCKED, what())
                        .because(format!("process {} of host `{}` holds it until {}", file.pid, file.host, file.until))
                        .hint("wait until it is done; a lease left behind expires after five minutes"));
                }
            }
            let fence = before.iter().map(|row| row.number).max().map_or(1, |newest| newest + 1);
            let until = clock.now() + LASTS;
            let lease = Self {
                repo: repo.clone(),
                clock: Arc::clone(clock),
                name: name.to_owned(),
                object: format!("{FOLDER}{name}/{fence:012}-{}", new_id()?),
                fence,
                until: Mutex::new(until),
            };
            lease.write(until)?;
            let others = rows(repo, name)?.into_iter().filter(|row| row.object != lease.object);
            if others.into_iter().any(|row| !before.contains(&row)) {
                repo.store().delete(&ObjectKey::new(&lease.object)?)?;
                std::thread::sleep(Duration::from_millis(rand::random_range(1..PAUSE_MAX_MS)));
                continue;
            }
            // The numbers below are history.
            for old in before {
                repo.store().delete(&ObjectKey::new(&old.object)?)?;
            }
            return Ok(lease);
        }
        Err(Fault::new(codes::REPO_LOCKED, what())
            .because("others want it at the same time")
            .hint("run the command again"))
    }

    /// The fencing number: grows with each holder.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Makes it last for another while. `REPO_LOST_LOCK` when it expired or somebody took it over.
    pub fn renew(&self) -> Result<()> {
        let lost = |why: &'static str| {
            Fault::new(codes::REPO_LOST_LOCK, format!("keep the lease `{}`", self.name))
                .because(why)
                .hint("run the command again")
        };
        let mut persistent: Option<Vec<Row>> = None;
        for _ in 0..TRIES {
            let now = self.clock.now();
            if *self.until.lock().unwrap_or_else(PoisonError::into_inner) <= now {
                return Err(lost("it was not renewed in time"));
            }
            let rows = rows(&self.repo, &self.name)?;
            if rows.iter().all(|row| row.object != self.object) {
                return Err(lost("somebody removed it"));
            }
            let above = self.above(rows)?;
            let same = match &persistent {
                None => above,
                Some(before) => above.into_iter().filter(|row| before.contains(row)).collect(),
            };
            if same.is_empty() {
                let until = now + LASTS;
                self.write(until)?;
                *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                return Ok(());
            }
            persistent = Some(same);
            std::thread::sleep(Duration::from_millis(rand::random_range(PAUSE_MAX_MS / 2..PAUSE_MAX_MS)));
        }
        Err(lost("somebody took it over"))
    }

    /// Higher numbers that are really there. One that is only there for a moment is of somebody who wants the
    /// lease, meets this one and withdraws; one that is listed and gone was withdrawn while the storage looked
    /// away. A holder's stays.
    fn above(&self, rows: Vec<Row>) -> Result<Vec<Row>> {
        let mut above = Vec::new();
        for row in rows.into_iter().filter(|row| row.number > self.fence) {
            if self.repo.store().head(&ObjectKey::new(&row.object)?)?.is_some() {
                above.push(row);
            }
        }
        Ok(above)
    }

    /// Gives it up. Its object stays, expired, so that the fencing number goes on growing.
    pub fn release(self) -> Result<()> {
        self.write(self.clock.now())
    }

    fn write(&self, until: jiff::Timestamp) -> Result<()> {
        let file = LeaseFile { name: self.object.clone(), host: hostname(), pid: std::process::id(), until };
        write(&self.repo, &self.object, &file, PutMode::Overwrite)
    }
}

/// One object of a lease's row.
#[derive(PartialEq, Eq)]
struct Row {
    number: u64,
    object: String,
}

/// What stands in the row of a lease; the random part of a name may be missing.
fn rows(repo: &Repo, name: &str) -> Result<Vec<Row>> {
    let folder = format!("{FOLDER}{name}/");
    let row = |object: &str| {
        let number = object.strip_prefix(&folder)?.split('-').next()?.parse().ok()?;
        Some(Row { number, object: object.to_owned() })
    };
    Ok(repo.store().list(&folder)?.iter().filter_map(|meta| row(meta.key.as_str())).collect())
}

/// `None` only when it is gone. What cannot be read may be the lease of a newer program: whoever wants
/// it must not take that for a free one.
fn read(repo: &Repo, name: &str) -> Result<Option<LeaseFile>> {
    let Some(plain) = open(repo, name)? else {
        return Ok(None);
    };
    let doubt = |why: String| {
        Fault::new(codes::REPO_DAMAGED, format!("read `{name}`"))
            .because(why)
            .hint("if no program works on the repository, remove this object by hand")
    };
    let file: LeaseFile = serde_json::from_slice(&plain).map_err(|error| doubt(format!("it is no lease: {error}")))?;
    if file.name == name { Ok(Some(file)) } else { Err(doubt(format!("it was stored as `{}`", file.name))) }
}

fn open(repo: &Repo, name: &str) -> Result<Option<Vec<u8>>> {
    match repo.store().get(&ObjectKey::new(name)?) {
        Ok(sealed) => repo.key().open(&sealed).map(Some).map_err(|bad| {
            Fault::new(codes::REPO_DAMAGED, format!("read `{name}`"))
                .because(bad)
                .hint("if no program works on the repository, remove this object by hand")
        }),
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) => Ok(None),
        Err(fault) => Err(fault.during(format!("read `{name}`"))),
    }
}

fn write(repo: &Repo, name: &str, value: &impl Serialize, mode: PutMode) -> Result<()> {
    let bug = |why: String| Fault::new(codes::RUN_BUG, format!("write `{name}`")).because(why);
    let plain = serde_json::to_vec(value).map_err(|error| bug(error.to_string()))?;
    let sealed = repo.key().seal(&plain).map_err(|error| bug(error.to_string()))?;
    repo.store().put(&ObjectKey::new(name)?, Bytes::from(sealed), mode).map(drop)
}

/// A name for a hold that nobody else has.
pub(crate) fn new_id() -> Result<String> {
    let bytes =
        random::<16>().map_err(|error| Fault::new(codes::RUN_BUG, "name a hold on the WAL log").because(error))?;
    Ok(rekindle_core::proof::hex(&bytes))
}

#[derive(Serialize, Deserialize)]
struct HoldFile {
    system: SystemId,
    hold: Hold,
}

fn holds_folder(system: SystemId) -> String {
    format!("{FOLDER}wal-holds/{system}/")
}

pub(crate) fn write_hold(repo: &Repo, system: SystemId, hold: &Hold) -> Result<()> {
    let name = format!("{}{}", holds_folder(system), hold.id);
    write(repo, &name, &HoldFile { system, hold: hold.clone() }, PutMode::Overwrite)
}

pub(crate) fn read_hold(repo: &Repo, system: SystemId, id: &str) -> Result<Option<Hold>> {
    let name = format!("{}{id}", holds_folder(system));
    let Some(plain) = open(repo, &name)? else {
        return Ok(None);
    };
    let file: Option<HoldFile> = serde_json::from_slice(&plain).ok();
    match file.filter(|file| file.system == system && file.hold.id == id) {
        Some(file) => Ok(Some(file.hold)),
        // What somebody needs is not known then: whoever removes things must not go on.
        None => Err(Fault::new(codes::REPO_DAMAGED, format!("read `{name}`"))
            .because("it is no hold of this log")
            .hint("if no backup or recovery runs, remove this object by hand")),
    }
}

pub(crate) fn remove_hold(repo: &Repo, system: SystemId, id: &str) -> Result<()> {
    repo.store().delete(&ObjectKey::new(&format!("{}{id}", holds_folder(system)))?)
}

/// Every hold on the log of a cluster, expired ones included.
pub(crate) fn holds(repo: &Repo, system: SystemId) -> Result<Vec<Hold>> {
    let folder = holds_folder(system);
    let mut found = Vec::new();
    for meta in repo.store().list(&folder)? {
        let id = meta.key.as_str().strip_prefix(&folder).unwrap_or_default().to_owned();
        found.extend(read_hold(repo, system, &id)?);
    }
    Ok(found)
}
