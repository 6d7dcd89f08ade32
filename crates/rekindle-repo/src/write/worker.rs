//! The worker threads: one per core, shared by every component of a session.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use rekindle_core::entry::{Closing, ContentRead, ContentSource, ReadFault};
use rekindle_core::{Fault, Result, codes};
use xxhash_rust::xxh3::Xxh3Default;

use super::Shared;
use super::feed::Feed;
use super::job::{Chunk, ComponentRun, Effort, FileOutcome, Job, Report, Stored};
use super::seal::Sealer;
use crate::format::pack::BlobKind;

/// Jobs that wait, for each worker. One has up to 17 MiB of chunks, about 1 MiB as a rule.
const JOBS_WAITING_PER_WORKER: usize = 2;
/// How often a content that changes while it is read is read again before we call it a mistake
/// of the source, which has its own, lower limit.
pub(super) const READS_MAX: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Task = (Arc<ComponentRun>, Job);

/// The worker threads of a session.
pub(super) struct Workers {
    queue: Mutex<Option<Sender<Task>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let count = match shared.repo.options().workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let (queue, tasks) = crossbeam_channel::bounded(count * JOBS_WAITING_PER_WORKER);
        let threads = (0..count)
            .map(|_| {
                let (shared, tasks) = (Arc::clone(shared), tasks.clone());
                let sealer = Sealer::new(&shared)?;
                std::thread::Builder::new()
                    .name("pack-worker".to_owned())
                    .spawn(move || Worker::new(shared, sealer).work(&tasks))
                    .map_err(|error| Fault::new(codes::RUN_BUG, "start a worker thread").because(error))
            })
            .collect::<Result<_>>()?;
        Ok(Self { queue: Mutex::new(Some(queue)), threads: Mutex::new(threads) })
    }

    /// Where jobs go; `None` when the session is over.
    pub(super) fn queue(&self) -> Option<Sender<Task>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the threads.
    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic inside a job was caught and reported there.
            let _ = thread.join();
        }
    }
}

/// Hands a job to the workers; waits for room, but not beyond the end of the session.
pub(super) fn send(shared: &Shared, queue: &Sender<Task>, run: &Arc<ComponentRun>, job: Job) -> Result<()> {
    let mut task = (Arc::clone(run), job);
    loop {
        shared.check()?;
        match queue.send_timeout(task, LOOK_EVERY) {
            Ok(()) => return Ok(()),
            Err(SendTimeoutError::Timeout(back)) => task = back,
            Err(SendTimeoutError::Disconnected(_)) => {
                return Err(Fault::new(codes::RUN_BUG, "store: no worker takes jobs"));
            }
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    sealer: Sealer,
    feed: Feed,
}

impl Worker {
    fn new(shared: Arc<Shared>, sealer: Sealer) -> Self {
        Self { shared, sealer, feed: Feed::default() }
    }

    fn work(mut self, tasks: &Receiver<Task>) {
        for (run, job) in tasks {
            let report = match job {
                Job::File { entry, source } => {
                    Report::File { entry, outcome: self.guard(&run, |worker, run| worker.file(run, source)) }
                }
                Job::Chunks(batch) => {
                    let ids = self.guard(&run, |worker, run| {
                        let store = |(chunk, content): (&Chunk, &[u8])| {
                            worker.sealer.store(&worker.shared, run, BlobKind::Data, chunk.effort, content)
                        };
                        batch.chunks().map(store).collect()
                    });
                    Report::Chunks { batch, ids }
                }
                Job::Tree { id, json } => Report::Tree(self.guard(&run, |worker, run| {
                    worker.sealer.store_as(&worker.shared, run, BlobKind::Tree, Effort::Files, id, &json)
                })),
            };
            // The component may have ended with an error and not wait for reports any more.
            let _ = run.reports.send(report);
        }
    }

    /// Does the work unless nobody needs it any more; a panic becomes an error.
    fn guard<T>(&mut self, run: &ComponentRun, work: impl FnOnce(&mut Self, &ComponentRun) -> Result<T>) -> Result<T> {
        self.shared.check()?;
        if run.dead.load(Ordering::Relaxed) {
            return Err(Fault::new(codes::RUN_SIBLING, "store an entry"));
        }
        if let Ok(result) = catch_unwind(AssertUnwindSafe(|| work(self, run))) {
            return result;
        }
        // A blob may be claimed and not stored: nothing of this session can be trusted.
        let bug = || Fault::new(codes::RUN_BUG, "store an entry: a worker panicked");
        self.shared.failure.raise(bug());
        Err(bug())
    }

    fn file(&mut self, run: &ComponentRun, mut source: Box<dyn ContentSource>) -> Result<FileOutcome> {
        for _ in 0..READS_MAX {
            self.shared.check()?;
            let mut read = match source.open() {
                Ok(read) => read,
                Err(ReadFault::Skip) => return Ok(FileOutcome::Skipped),
                Err(ReadFault::Abort(fault)) => return Err(fault),
            };
            let Some(stored) = self.read(run, &mut *read)? else {
                return Ok(FileOutcome::Skipped);
            };
            match read.close()? {
                Closing::Keep(meta) => return Ok(FileOutcome::Kept(stored, meta)),
                Closing::Skip => return Ok(FileOutcome::Skipped),
                Closing::Retry => {}
            }
        }
        Err(too_many_reads(run))
    }

    /// `None`: the source skips the entry.
    fn read(&mut self, run: &ComponentRun, read: &mut dyn ContentRead) -> Result<Option<Stored>> {
        let mut stored = Stored::default();
        let mut hash = Xxh3Default::new();
        self.feed.reset();
        loop {
            let chunk = match self.feed.next(read, &run.cutter) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(ReadFault::Skip) => return Ok(None),
                Err(ReadFault::Abort(fault)) => return Err(fault),
            };
            hash.update(chunk);
            stored.bytes += chunk.len() as u64;
            let id = self.sealer.store(&self.shared, run, BlobKind::Data, Effort::Files, chunk)?;
            stored.blobs.push(id);
        }
        stored.hash = hash.digest128();
        Ok(Some(stored))
    }
}

pub(super) fn too_many_reads(run: &ComponentRun) -> Fault {
    let what = format!("store `{}`: a source asks again and again for a retry", run.id);
    Fault::new(codes::RUN_BUG, what)
}
