//! Which blobs need not be stored: those the index names in packs that exist, and those this
//! session has taken on itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use rekindle_core::port::Monitor;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::Key as ObjectKey;

use crate::format::index::IndexFile;
use crate::format::pack::{BlobKind, PackedBlob};
use crate::format::{Id, names, unpacked};
use crate::read::index::is_damage;
use crate::repo::Repo;

const SHARDS: usize = 64;
/// Index files read at the same time.
const READERS: usize = 4;

/// Where a tree stands.
#[derive(Debug, Clone)]
pub(super) struct TreePlace {
    pub(super) pack: Id,
    /// Where the blobs of the pack end.
    pub(super) pack_end: u32,
    pub(super) blob: PackedBlob,
}

/// Blobs that are in the repository or about to be.
pub(super) struct Known {
    /// Data blobs and the length of their content, sorted by id.
    data: Vec<(Id, u32)>,
    trees: HashMap<Id, TreePlace>,
    claimed: Vec<Mutex<HashSet<(BlobKind, Id)>>>,
}

impl Known {
    /// Reads every index file. What stands in packs that are not there any more does not count, so
    /// that a lost pack heals with the next run; neither does what a prune has marked.
    pub(super) fn load(repo: &Repo, monitor: &dyn Monitor) -> Result<Self> {
        let list = |prefix| -> Result<Vec<Id>> {
            let objects = repo.store().list(prefix)?;
            Ok(objects.iter().filter_map(|object| names::id_of(object.key.as_str())).collect())
        };
        let files = list("index/")?;
        // Listed after the index: a pack must be there to count, and packs come before indexes.
        let packs: HashSet<Id> = list("data/")?.into_iter().collect();
        let mut known =
            Self { data: Vec::new(), trees: HashMap::new(), claimed: (0..SHARDS).map(|_| Mutex::default()).collect() };
        for portion in files.chunks(READERS) {
            let read: Vec<Result<IndexFile>> = std::thread::scope(|scope| {
                let threads: Vec<_> = portion.iter().map(|id| scope.spawn(move || read_index(repo, id))).collect();
                let lost = || Fault::new(codes::RUN_BUG, "read an index file: a thread panicked");
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost()))).collect()
            });
            for file in read {
                match file {
                    Ok(file) => known.add(&file, &packs),
                    // Its blobs are stored again: that costs space, and nothing is lost. A node of a distributed store
                    // may list for a while what is deleted.
                    Err(fault) if is_damage(&fault) => {
                        monitor.problem("repository", &fault);
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
        known.data.sort_unstable_by_key(|(id, _)| *id);
        known.data.dedup_by_key(|(id, _)| *id);
        known.data.shrink_to_fit();
        Ok(known)
    }

    fn add(&mut self, file: &IndexFile, packs: &HashSet<Id>) {
        for pack in file.packs.iter().filter(|pack| packs.contains(&pack.id)) {
            let ends = pack.blobs.iter().map(PackedBlob::from).map(|blob| blob.offset.saturating_add(blob.length));
            let pack_end = ends.max().unwrap_or(0);
            for blob in pack.blobs.iter().map(PackedBlob::from) {
                match blob.kind {
                    BlobKind::Data => {
                        let length = u32::try_from(blob.content_length()).unwrap_or(u32::MAX);
                        self.data.push((blob.id, length));
                    }
                    BlobKind::Tree => {
                        self.trees.insert(blob.id, TreePlace { pack: pack.id, pack_end, blob });
                    }
                }
            }
        }
    }

    /// Length of the content of a data blob that was there before this session.
    pub(super) fn data_length(&self, id: &Id) -> Option<u64> {
        let at = self.data.binary_search_by_key(id, |(id, _)| *id).ok()?;
        Some(u64::from(self.data[at].1))
    }

    /// Pack and place of a tree that was there before this session.
    pub(super) fn tree(&self, id: &Id) -> Option<&TreePlace> {
        self.trees.get(id)
    }

    /// `true` for the one caller that has to store this blob.
    pub(super) fn claim(&self, kind: BlobKind, id: Id) -> bool {
        let there = match kind {
            BlobKind::Data => self.data_length(&id).is_some(),
            BlobKind::Tree => self.trees.contains_key(&id),
        };
        let shard = &self.claimed[usize::from(id.0[0]) % SHARDS];
        !there && shard.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, id))
    }
}

fn read_index(repo: &Repo, id: &Id) -> Result<IndexFile> {
    let path = names::file(names::INDEX, id);
    let sealed = repo.store().get(&ObjectKey::new(&path)?)?;
    unpacked::decode(repo.key(), id, &sealed).and_then(|json| IndexFile::decode(&json)).map_err(|bad| {
        Fault::new(codes::REPO_DAMAGED, format!("read `{path}`")).because(bad).hint("run `rekindle verify`")
    })
}
