//! The WAL log: the continuous archive of PostgreSQL's write-ahead log beside the snapshots.
//!
//! | object below `rekindle/wal/` | what it is |
//! |---|---|
//! | `clusters/<system>` | the cluster has a log here, and its segment size |
//! | `clusters/<system>.<place>` | what was found out about this storage |
//! | `owners/<hash>/<number>` | which cluster a component is bound to; the highest number counts |
//! | `<system>/<timeline>/<segment>` | a sealed segment; also `.partial` and `.backup` files |
//! | `<system>/<timeline>/<segment>.tail/<from>-<to>` | a piece of an open segment |
//! | `<system>/history/<timeline>.history` | where a timeline left its parent; never removed |
//! | `<system>/gaps/<timeline>.<from>` | WAL that is lost for good |
//!
//! Every object is compressed and sealed with the repository's key, and holds its own name: one
//! that was moved, swapped or renamed does not open ([`object`]). Nothing is ever overwritten:
//! the same content again is a success, other content is `WAL_CONFLICT`.

pub(crate) mod bases;
mod check;
pub(crate) mod copy;
mod frames;
mod inventory;
mod log;
mod name;
mod object;
mod owner;
mod place;
mod tail;

use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Cluster, Owner, SystemId, WalArchive, WalLog};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};
use serde::{Deserialize, Serialize};

use crate::repo::Repo;

pub use bases::bases;
pub(crate) use check::check;
use log::Log;
use name::Name;

/// The logs of all clusters in a repository.
#[derive(Clone)]
pub struct Archive {
    repo: Repo,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("repo", &self.repo).finish_non_exhaustive()
    }
}

/// The object `clusters/<system>`.
#[derive(Serialize, Deserialize)]
struct ClusterRecord {
    version: u32,
    cluster: Cluster,
}

const RECORD_VERSION: u32 = 1;

impl Archive {
    /// The logs of an opened repository. The clock dates holds.
    pub fn new(repo: &Repo, clock: Arc<dyn Clock>) -> Self {
        Self { repo: repo.clone(), clock }
    }

    fn shelf(&self) -> Shelf<'_> {
        Shelf { repo: &self.repo }
    }

    fn open(&self, cluster: Cluster) -> Log {
        Log::new(self.repo.clone(), Arc::clone(&self.clock), cluster)
    }
}

fn same_size(known: &ClusterRecord, cluster: Cluster) -> Result<()> {
    if known.cluster == cluster {
        return Ok(());
    }
    let what = format!("open the WAL log of the cluster {}", cluster.system);
    Err(Fault::new(codes::WAL_OTHER_CLUSTER, what)
        .because(format!(
            "the log has segments of {} bytes, the server of {}",
            known.cluster.segment_size.bytes(),
            cluster.segment_size.bytes()
        ))
        .hint("give the server a component and a repository of its own"))
}

impl WalArchive for Archive {
    fn clusters(&self) -> Result<Vec<Cluster>> {
        let mut found = Vec::new();
        for meta in self.repo.store().list(name::CLUSTERS)? {
            let Some(Name::Cluster(system)) = Name::parse(meta.key.as_str()) else {
                continue;
            };
            let name = Name::Cluster(system);
            let record = self.shelf().record::<ClusterRecord>(&name)?.ok_or_else(|| vanished(&name))?;
            found.push(record.cluster);
        }
        Ok(found)
    }

    fn log(&self, cluster: Cluster) -> Result<Arc<dyn WalLog>> {
        Ok(Arc::new(self.open(cluster)))
    }

    fn bound(&self, owner: &Owner) -> Result<Option<Cluster>> {
        owner::bound(&self.shelf(), owner)
    }

    fn bind(&self, owner: &Owner, cluster: Cluster) -> Result<Arc<dyn WalLog>> {
        let log = self.open(cluster);
        log.place()?;
        owner::bind(&self.shelf(), owner, cluster, self.clock.now())?;
        Ok(Arc::new(log))
    }

    fn rebind(&self, owner: &Owner, cluster: Cluster) -> Result<()> {
        self.open(cluster).place()?;
        owner::rebind(&self.shelf(), owner, cluster, self.clock.now())
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Fault::new(codes::RUN_BUG, "encode a record of the WAL log").because(error))
}

fn vanished(name: &Name) -> Fault {
    Fault::new(codes::STORE_NOT_FOUND, format!("read `{name}`")).because("it was listed and is not there")
}

/// What was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    New,
    Same,
}

/// Reads and writes objects by their names.
pub(crate) struct Shelf<'a> {
    repo: &'a Repo,
}

impl Shelf<'_> {
    /// The checked content; `None` only when the storage says for sure that it is not there.
    fn read(&self, name: &Name) -> Result<Option<Vec<u8>>> {
        let sealed = match self.repo.store().get(&name.key()?) {
            Ok(sealed) => sealed,
            Err(fault) if fault.is(codes::STORE_NOT_FOUND) => return Ok(None),
            Err(fault) => return Err(fault.during(format!("read `{name}` of the WAL log"))),
        };
        object::open(self.repo.key(), name, &sealed).map(Some).map_err(|bad| damaged(name, bad))
    }

    /// A JSON record.
    fn record<T: for<'de> Deserialize<'de>>(&self, name: &Name) -> Result<Option<T>> {
        let Some(plain) = self.read(name)? else {
            return Ok(None);
        };
        serde_json::from_slice(&plain).map(Some).map_err(|error| damaged(name, error))
    }

    fn seal(&self, name: &Name, content: &[u8]) -> Result<Bytes> {
        object::seal(self.repo.key(), name, content)
            .map(Bytes::from)
            .map_err(|bad| Fault::new(codes::RUN_BUG, format!("seal `{name}`")).because(bad))
    }

    /// Writes something that may change (what was found out about the storage).
    fn put_over(&self, name: &Name, content: &[u8]) -> Result<()> {
        let sealed = self.seal(name, content)?;
        self.repo.store().put(&name.key()?, sealed, PutMode::Overwrite).map(drop)
    }

    /// Writes something that must never change. `sound` says whether the storage keeps the
    /// promise of a conditional put; without it the object is looked for before and read back
    /// afterwards, which narrows the race with another writer and shows it, but cannot close it.
    fn put_once(&self, name: &Name, content: &[u8], sound: bool) -> Result<Stored> {
        if !sound && let Some(stored) = self.compare(name, content)? {
            return Ok(stored);
        }
        let sealed = self.seal(name, content)?;
        let key = name.key()?;
        match self.repo.store().put(&key, sealed, PutMode::IfAbsent) {
            Ok(_) if sound => Ok(Stored::New),
            Ok(_) => match self.compare(name, content)? {
                Some(_) => Ok(Stored::New),
                None => Err(vanished(name)),
            },
            // Sealed bytes differ each time: what counts is what they hold.
            Err(fault) if fault.is(codes::STORE_EXISTS) => self.compare(name, content)?.ok_or_else(|| vanished(name)),
            Err(fault) => Err(fault.during(format!("store `{name}` in the WAL log"))),
        }
    }

    /// `None`: it is not there. Other content is the alarm.
    fn compare(&self, name: &Name, content: &[u8]) -> Result<Option<Stored>> {
        match self.read(name)? {
            None => Ok(None),
            Some(stored) if stored == content => Ok(Some(Stored::Same)),
            Some(_) => Err(conflict(name)),
        }
    }
}

/// The alarm: two histories want the same name.
fn conflict(name: &Name) -> Fault {
    let fault = Fault::new(codes::WAL_CONFLICT, format!("store `{name}` in the WAL log"))
        .because("it is there with other content; nothing was overwritten")
        .hint("two servers write the same timeline, or one lost WAL that was confirmed: find out which is right before anything else");
    tracing::error!(object = %name, "CONFLICT in the WAL log: two servers write the same timeline");
    fault
}

fn damaged(name: &Name, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::WAL_DAMAGED, format!("read `{name}` of the WAL log"))
        .because(why)
        .hint("put the object back from a copy of the repository; `rekindle wal verify --deep` shows everything that is damaged")
}

/// The folder of one cluster.
fn folder(system: SystemId) -> String {
    format!("{}{system}/", name::ROOT)
}

/// The key of an object that was made from a checked name.
fn object_key(path: &str) -> Result<ObjectKey> {
    ObjectKey::new(path)
}
