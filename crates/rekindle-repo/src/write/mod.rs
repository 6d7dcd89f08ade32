//! Writing a recovery point.
//!
//! Threads: whoever calls `store` pulls entries; one worker per core hashes, compresses and
//! encrypts for all components; a few threads upload packs; one keeps the lock. Every queue
//! between them is bounded, and every wait looks at the cancel flag and at the first failure.
//! At most in memory: two waiting jobs and one at work per worker (each a chunk, or a MiB of small
//! ones), a read buffer per worker and per component, two open packs, one waiting and one per upload thread.

pub(crate) mod commit;
mod component;
mod cut;
mod directories;
mod earlier;
pub(crate) mod failure;
mod feed;
pub(crate) mod gate;
mod job;
mod known;
mod links;
mod order;
pub(crate) mod packs;
mod patch;
mod placement;
mod seal;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rekindle_core::cancel::Cancel;
use rekindle_core::entry::Entries;
use rekindle_core::point::{Draft, RecoveryPoint};
use rekindle_core::port::{Monitor, Reuse, RunContext, StoreShape, WriteSession};
use rekindle_core::proof::StoredPart;
use rekindle_core::{ComponentId, Fault, Result, codes};

use crate::chunker::{CONTENT_BYTES_MAX, Chunking, Cutter};
use crate::format::Id;
use crate::format::snapshot::Summary;
use crate::lock::{Lock, LockKind};
use crate::read::blocks::TreeBlocks;
use crate::repo::Repo;
use component::Puller;
use earlier::Earlier;
use failure::Failure;
use gate::Gate;
use job::{ComponentRun, Counts};
use known::Known;
use packs::Packs;
use placement::Placement;
use worker::Workers;

const ZEROS: [u8; 4096] = [0; 4096];

/// What all threads of a session share.
struct Shared {
    repo: Repo,
    known: Known,
    packs: Packs,
    failure: Arc<Failure>,
    cancel: Cancel,
    monitor: Arc<dyn Monitor>,
    longest_zeros: OnceLock<Id>,
    /// Pieces of earlier trees.
    blocks: TreeBlocks,
}

impl Shared {
    /// `Err` when the run is cancelled or the session has failed.
    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        self.failure.check()
    }

    /// SHA-256 of a chunk; the longest chunk of zeros, of which sparse files consist, only once.
    fn id_of(&self, content: &[u8]) -> Id {
        let zeros = content.len() == CONTENT_BYTES_MAX && content.chunks_exact(ZEROS.len()).all(|piece| piece == ZEROS);
        if zeros { *self.longest_zeros.get_or_init(|| Id::of(content)) } else { Id::of(content) }
    }
}

/// One point being written.
pub struct Session {
    shared: Arc<Shared>,
    workers: Workers,
    lock: Mutex<Option<Lock>>,
    gate: Arc<Gate>,
    context: RunContext,
    summary: Mutex<Summary>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("repo", &self.shared.repo).finish_non_exhaustive()
    }
}

impl Session {
    /// Takes the lock, loads the index, starts the threads. Blocking. Somebody who takes an exclusive lock at the
    /// same moment makes every `store` fail: sources begin while that is found out, and nothing is written.
    pub fn begin(repo: &Repo, context: &RunContext) -> Result<Self> {
        context.cancel.check()?;
        context.monitor.phase("repository", "lock and load the index");
        let lock = Lock::take(repo, &context.clock, LockKind::Shared)?;
        let started = Known::load(repo, &*context.monitor).and_then(|known| Self::start(repo, known, &lock, context));
        match started {
            Ok((shared, workers, gate)) => Ok(Self {
                shared,
                workers,
                lock: Mutex::new(Some(lock)),
                gate,
                context: context.clone(),
                summary: Mutex::default(),
            }),
            Err(fault) => {
                if let Err(second) = lock.release() {
                    context.monitor.problem("repository", &second);
                }
                Err(fault)
            }
        }
    }

    fn start(
        repo: &Repo,
        known: Known,
        lock: &Lock,
        context: &RunContext,
    ) -> Result<(Arc<Shared>, Workers, Arc<Gate>)> {
        let failure = Arc::new(Failure::default());
        let gate = Gate::new(lock.settler(), &failure)?;
        let shared = Arc::new(Shared {
            packs: Packs::start(repo, &failure, Some(Arc::clone(&gate)))?,
            repo: repo.clone(),
            known,
            failure,
            cancel: context.cancel.clone(),
            monitor: Arc::clone(&context.monitor),
            longest_zeros: OnceLock::new(),
            blocks: TreeBlocks::default(),
        });
        let workers = Workers::start(&shared)?;
        Ok((shared, workers, gate))
    }

    fn run_of(&self, component: &ComponentId, chunk_bytes: Option<usize>) -> (Arc<ComponentRun>, job::Reports) {
        let cutter = match chunk_bytes {
            None => self.shared.repo.cutter(component),
            Some(bytes) => Cutter::new(Chunking::Fixed { bytes }, &[], &[]),
        };
        // Unbounded, but each report answers a job, and jobs in flight are bounded.
        let (reports, reported) = crossbeam_channel::unbounded();
        let run = ComponentRun {
            id: component.clone(),
            cutter,
            reports,
            dead: AtomicBool::new(false),
            counts: Counts::default(),
        };
        (Arc::new(run), reported)
    }

    fn add_to_summary(&self, part: &StoredPart, run: &ComponentRun, files: u64) {
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.total_files_processed += files;
        summary.total_bytes_processed += part.tally.bytes;
        summary.data_added += part.added_bytes;
        summary.data_added_packed += part.stored_bytes;
        summary.data_blobs += load(&run.counts.data_blobs);
        summary.tree_blobs += load(&run.counts.tree_blobs);
    }

    /// Ends every thread and lets the lock go.
    fn wind_up(&self) -> Result<()> {
        self.workers.stop();
        self.shared.packs.stop();
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        lock.map_or(Ok(()), Lock::release)
    }
}

impl WriteSession for Session {
    fn store(&self, component: &ComponentId, entries: Entries, reuse: Reuse) -> Result<StoredPart> {
        self.store_shaped(component, entries, reuse, StoreShape::default())
    }

    fn store_shaped(
        &self,
        component: &ComponentId,
        entries: Entries,
        reuse: Reuse,
        shape: StoreShape,
    ) -> Result<StoredPart> {
        let (run, reports) = self.run_of(component, shape.chunk_bytes);
        let queue = self.workers.queue().ok_or_else(|| Fault::new(codes::RUN_BUG, "store: the session is over"))?;
        let earlier = match &reuse {
            Reuse::Nothing => None,
            Reuse::Tree(text) => {
                let root = text.parse::<Id>().map_err(|bad| Fault::new(codes::RUN_BUG, "reuse a tree").because(bad))?;
                Some(Earlier::open(&self.shared, &root))
            }
        };
        let puller =
            Puller::new(&self.shared, queue, Arc::clone(&run), reports, earlier, Placement::new(shape.any_order));
        // Whoever gets a part may rely on the lock.
        let pulled = puller.pull(entries).and_then(|pulled| self.gate.pass().map(|()| pulled));
        match pulled {
            Ok((part, files)) => {
                self.add_to_summary(&part, &run, files);
                Ok(part)
            }
            Err(fault) => {
                run.dead.store(true, Ordering::Relaxed);
                // What ended the session says more than what it did to this component.
                match self.shared.failure.check() {
                    Err(first) => Err(first),
                    Ok(()) => Err(fault),
                }
            }
        }
    }

    fn commit(&self, draft: Draft) -> Result<RecoveryPoint> {
        let result = self.gate.pass().and_then(|()| self.write_point(draft));
        if result.is_err() {
            self.abandon();
        } else if let Err(fault) = self.wind_up() {
            // The point is there; a lock left behind expires by itself.
            self.context.monitor.problem("repository", &fault);
        }
        result
    }

    fn abandon(&self) {
        let fault = Fault::new(codes::RUN_SIBLING, "store: the run was given up");
        self.shared.failure.raise(fault);
        if let Err(fault) = self.wind_up() {
            self.context.monitor.problem("repository", &fault);
        }
    }
}
