//! Packs: filled by the workers, finished, hashed and uploaded by their own threads, entered into
//! the index only when they are durable.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};

use super::failure::Failure;
use super::gate::Gate;
use crate::format::index::{BLOBS_PER_INDEX_MAX, IndexBlob, IndexFile, IndexPack};
use crate::format::pack::{self, BlobKind, PackedBlob};
use crate::format::{Id, names, unpacked};
use crate::repo::Repo;

/// Finished packs that wait for an upload thread.
const PACKS_WAITING_MAX: usize = 1;
/// How often a thread that waits for room looks whether the session has failed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Space for the header beyond the target size.
const HEADER_ROOM_BYTES: usize = 64 << 10;

/// A pack being filled.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

/// The packs of one session.
pub(crate) struct Packs {
    shared: Arc<Shared>,
    data: Mutex<Open>,
    trees: Mutex<Open>,
    queue: Mutex<Option<Sender<Open>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    repo: Repo,
    failure: Arc<Failure>,
    gate: Option<Arc<Gate>>,
    index: Mutex<IndexFile>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Packs {
    /// Starts the upload threads; with a gate, they write nothing before it is open.
    pub(crate) fn start(repo: &Repo, failure: &Arc<Failure>, gate: Option<Arc<Gate>>) -> Result<Self> {
        let (queue, packs) = crossbeam_channel::bounded(PACKS_WAITING_MAX);
        let (repo, failure) = (repo.clone(), Arc::clone(failure));
        let shared = Arc::new(Shared { repo, failure, gate, index: Mutex::default() });
        let threads = (0..shared.repo.options().uploads.max(1))
            .map(|_| {
                let (shared, packs) = (Arc::clone(&shared), packs.clone());
                std::thread::Builder::new()
                    .name("pack-upload".to_owned())
                    .spawn(move || upload_all(&shared, &packs))
                    .map_err(|error| Fault::new(codes::RUN_BUG, "start an upload thread").because(error))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            shared,
            data: Mutex::default(),
            trees: Mutex::default(),
            queue: Mutex::new(Some(queue)),
            threads: Mutex::new(threads),
        })
    }

    /// Appends a sealed blob to the open pack of its kind; waits when uploads are behind.
    pub(crate) fn add(&self, kind: BlobKind, id: Id, sealed: &[u8], uncompressed: Option<u32>) -> Result<()> {
        let too_long = || Fault::new(codes::RUN_BUG, "add a blob to a pack: it is too long");
        let length = u32::try_from(sealed.len()).map_err(|_| too_long())?;
        let target = self.shared.repo.options().pack_bytes;
        let mut open = lock(match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        });
        if open.bytes.capacity() == 0 && kind == BlobKind::Data {
            open.bytes.reserve(target + HEADER_ROOM_BYTES);
        }
        let offset = u32::try_from(open.bytes.len()).map_err(|_| too_long())?;
        open.bytes.extend_from_slice(sealed);
        open.blobs.push(PackedBlob { kind, id, offset, length, uncompressed });
        if open.bytes.len() < target {
            return Ok(());
        }
        let full = std::mem::take(&mut *open);
        drop(open);
        self.send(full)
    }

    fn send(&self, mut pack: Open) -> Result<()> {
        let Some(queue) = lock(&self.queue).clone() else {
            return Err(Fault::new(codes::RUN_BUG, "upload a pack: the session is over"));
        };
        loop {
            self.shared.failure.check()?;
            match queue.send_timeout(pack, LOOK_EVERY) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(back)) => pack = back,
                Err(SendTimeoutError::Disconnected(_)) => {
                    return Err(Fault::new(codes::RUN_BUG, "upload a pack: no thread takes it"));
                }
            }
        }
    }

    /// Uploads what is left, waits for every upload, writes the last index file.
    pub(crate) fn finish(&self) -> Result<()> {
        let left = [&self.data, &self.trees].map(|open| std::mem::take(&mut *lock(open)));
        let sent = left.into_iter().filter(|pack| !pack.blobs.is_empty()).try_for_each(|pack| self.send(pack));
        self.stop();
        sent?;
        self.shared.failure.check()?;
        let rest = std::mem::take(&mut *lock(&self.shared.index));
        write_index(&self.shared.repo, &rest)
    }

    /// Ends the upload threads; after a failure they throw away what is queued.
    pub(crate) fn stop(&self) {
        lock(&self.queue).take();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                self.shared.failure.raise(Fault::new(codes::RUN_BUG, "upload packs: a thread panicked"));
            }
        }
    }
}

fn upload_all(shared: &Shared, packs: &Receiver<Open>) {
    for pack in packs {
        if shared.failure.is_raised() {
            continue;
        }
        let upload = std::panic::AssertUnwindSafe(|| upload(shared, pack));
        let result = std::panic::catch_unwind(upload)
            .unwrap_or_else(|_| Err(Fault::new(codes::RUN_BUG, "upload a pack: a thread panicked")));
        if let Err(fault) = result {
            shared.failure.raise(fault);
        }
    }
}

fn upload(shared: &Shared, pack: Open) -> Result<()> {
    let Open { mut bytes, blobs } = pack;
    let repo = &shared.repo;
    pack::finish(repo.key(), &blobs, &mut bytes)
        .map_err(|bad| Fault::new(codes::RUN_BUG, "finish a pack").because(bad))?;
    let id = Id::of(&bytes);
    let size = bytes.len() as u64;
    let path = names::pack(&id);
    shared.gate.as_ref().map_or(Ok(()), |gate| gate.pass())?;
    repo.store()
        .put(&ObjectKey::new(&path)?, Bytes::from(bytes), PutMode::Overwrite)
        .map_err(|fault| fault.during(format!("upload pack `{path}`")))?;
    let entry = IndexPack { id, blobs: blobs.iter().map(IndexBlob::from).collect(), time: None, size: Some(size) };
    let full = {
        let mut index = lock(&shared.index);
        let held: usize = index.packs.iter().map(|pack| pack.blobs.len()).sum();
        let full = (held > 0 && held + entry.blobs.len() > BLOBS_PER_INDEX_MAX).then(|| std::mem::take(&mut *index));
        index.packs.push(entry);
        full
    };
    full.map_or(Ok(()), |index| write_index(repo, &index))
}

/// Writes an index file, unless it would be empty.
pub(crate) fn write_index(repo: &Repo, index: &IndexFile) -> Result<()> {
    if index.packs.is_empty() {
        return Ok(());
    }
    let (id, sealed) = index
        .encode()
        .and_then(|json| unpacked::encode(repo.key(), &json, repo.config().compression()))
        .map_err(|bad| Fault::new(codes::RUN_BUG, "encode an index file").because(bad))?;
    let path = names::file(names::INDEX, &id);
    repo.store()
        .put(&ObjectKey::new(&path)?, Bytes::from(sealed), PutMode::Overwrite)
        .map(drop)
        .map_err(|fault| fault.during(format!("write index file `{path}`")))
}
