//! The index in memory: where every blob stands. 48 bytes per blob, sorted, looked up by binary
//! search.

use std::collections::HashMap;

use rekindle_core::{Fault, Result, codes};
use rekindle_store::Key as ObjectKey;

use super::parallel;
use crate::format::index::IndexFile;
use crate::format::pack::{self, BlobKind, PackedBlob};
use crate::format::{Id, names, unpacked};
use crate::repo::Repo;

/// Where one copy of a blob stands.
#[derive(Debug, Clone, Copy)]
struct Slot {
    id: Id,
    pack: u32,
    offset: u32,
    length: u32,
    /// 0: stored raw.
    uncompressed: u32,
}

/// What the index knows about a pack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackRecord {
    pub(crate) id: Id,
    /// End of its last blob; the header follows.
    pub(crate) blobs_end: u32,
}

/// One copy of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    /// Number of the pack in [`BlobIndex::pack`].
    pub(crate) pack: u32,
    pub(crate) blob: PackedBlob,
}

/// Where every blob of the repository stands.
#[derive(Debug, Default)]
pub(crate) struct BlobIndex {
    data: Vec<Slot>,
    trees: Vec<Slot>,
    packs: Vec<PackRecord>,
    /// Index files that could not be read: an absent blob may stand in one of them.
    pub(crate) unreadable: Vec<Fault>,
}

impl BlobIndex {
    /// Every copy of a blob, those of packs that prune has marked last.
    pub(crate) fn find(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Location> + '_ {
        let slots = self.slots(kind);
        let first = slots.partition_point(|slot| slot.id < *id);
        let id = *id;
        slots[first..].iter().take_while(move |slot| slot.id == id).map(move |slot| Location {
            pack: slot.pack,
            blob: PackedBlob {
                kind,
                id: slot.id,
                offset: slot.offset,
                length: slot.length,
                uncompressed: (slot.uncompressed != 0).then_some(slot.uncompressed),
            },
        })
    }

    /// A pack by its number.
    pub(crate) fn pack(&self, number: u32) -> &PackRecord {
        &self.packs[number as usize]
    }

    fn slots(&self, kind: BlobKind) -> &[Slot] {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    /// The error for a blob that no pack holds.
    pub(crate) fn absent(&self, kind: BlobKind, id: &Id) -> Fault {
        let what = format!("find {} blob {id} in the index", kind.as_str());
        let fault = Fault::new(codes::REPO_DAMAGED, what);
        match self.unreadable.first() {
            None => fault.because("no index file names it"),
            Some(cause) => fault.because(cause.chain()),
        }
        .hint("run `rekindle verify` to see what is affected")
    }

    fn add_pack(&mut self, numbers: &mut HashMap<Id, u32>, id: Id, blobs: &[PackedBlob]) {
        let end = blobs.iter().map(|b| b.offset.saturating_add(b.length)).max();
        let number = match numbers.get(&id) {
            // The same pack in two index files says the same; once is enough.
            Some(_) => return,
            None => u32::try_from(self.packs.len()).unwrap_or(u32::MAX),
        };
        numbers.insert(id, number);
        self.packs.push(PackRecord { id, blobs_end: end.unwrap_or(0) });
        for blob in blobs {
            let slot = Slot {
                id: blob.id,
                pack: number,
                offset: blob.offset,
                length: blob.length,
                uncompressed: blob.uncompressed.unwrap_or(0),
            };
            match blob.kind {
                BlobKind::Data => self.data.push(slot),
                BlobKind::Tree => self.trees.push(slot),
            }
        }
    }

    fn sort(&mut self) {
        self.data.sort_unstable_by_key(|slot| (slot.id, slot.pack));
        self.data.shrink_to_fit();
        self.trees.sort_unstable_by_key(|slot| (slot.id, slot.pack));
        self.trees.shrink_to_fit();
    }
}

/// Names of the index files, sorted.
pub(crate) fn list(repo: &Repo) -> Result<Vec<Id>> {
    let mut ids: Vec<Id> =
        repo.store().list("index/")?.iter().filter_map(|meta| names::id_of(meta.key.as_str())).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Reads one index file and checks it against its name.
pub(crate) fn read_file(repo: &Repo, id: &Id) -> Result<IndexFile> {
    let path = names::file(names::INDEX, id);
    let sealed = repo.store().get(&ObjectKey::new(&path)?)?;
    unpacked::decode(repo.key(), id, &sealed)
        .and_then(|json| IndexFile::decode(&json))
        .map_err(|bad| Fault::new(codes::REPO_DAMAGED, format!("read `{path}`")).because(bad))
}

/// Reads every index file, in parallel. A damaged one does not end it: packs that no readable
/// index names are then looked up by their own headers, so that a lost index loses no data.
pub(crate) fn load(repo: &Repo, files: &[Id]) -> Result<BlobIndex> {
    let mut index = BlobIndex::default();
    let mut numbers = HashMap::new();
    let mut marked = Vec::new();
    // In portions, so that the parsed files are not all in memory beside the index.
    for portion in files.chunks(parallel::waiters() * 2) {
        let read = parallel::map(portion, parallel::waiters(), |id| read_file(repo, id));
        for result in read {
            match result {
                Ok(file) => {
                    for pack in &file.packs {
                        let blobs: Vec<PackedBlob> = pack.blobs.iter().map(PackedBlob::from).collect();
                        index.add_pack(&mut numbers, pack.id, &blobs);
                    }
                    marked.extend(file.packs_to_delete);
                }
                Err(fault) if is_damage(&fault) => index.unreadable.push(fault),
                Err(fault) => return Err(fault),
            }
        }
    }
    for pack in &marked {
        let blobs: Vec<PackedBlob> = pack.blobs.iter().map(PackedBlob::from).collect();
        index.add_pack(&mut numbers, pack.id, &blobs);
    }
    if !index.unreadable.is_empty() {
        add_from_headers(repo, &mut index, &mut numbers)?;
    }
    index.sort();
    Ok(index)
}

/// Whether an object of the repository is damaged or not there, in contrast to a storage that does not answer.
pub(crate) fn is_damage(fault: &Fault) -> bool {
    fault.is(codes::REPO_DAMAGED) || fault.is(codes::STORE_NOT_FOUND) || fault.is(codes::STORE_SHORT)
}

fn add_from_headers(repo: &Repo, index: &mut BlobIndex, numbers: &mut HashMap<Id, u32>) -> Result<()> {
    let unknown: Vec<(Id, u64)> = repo
        .store()
        .list("data/")?
        .iter()
        .filter_map(|meta| Some((names::id_of(meta.key.as_str())?, meta.size)))
        .filter(|(id, _)| !numbers.contains_key(id))
        .collect();
    let headers = parallel::map(&unknown, parallel::waiters(), |(id, size)| read_header(repo, id, *size));
    for ((id, _), header) in unknown.iter().zip(headers) {
        match header {
            Ok(blobs) => index.add_pack(numbers, *id, &blobs),
            Err(fault) => index.unreadable.push(fault),
        }
    }
    Ok(())
}

/// Reads what a pack itself says it holds.
pub(crate) fn read_header(repo: &Repo, id: &Id, size: u64) -> Result<Vec<PackedBlob>> {
    let path = names::pack(id);
    let damaged = |bad| Fault::new(codes::REPO_DAMAGED, format!("read the header of `{path}`")).because(bad);
    let key = ObjectKey::new(&path)?;
    let start = size.saturating_sub(pack::LENGTH_BYTES as u64);
    let tail = repo.store().get_range(&key, start..size)?;
    let tail = <[u8; pack::LENGTH_BYTES]>::try_from(&tail[..])
        .map_err(|_| damaged(crate::format::BadFormat::new("it is too short")))?;
    let length = pack::header_length(tail, size).map_err(damaged)? as u64;
    let sealed = repo.store().get_range(&key, start - length..start)?;
    pack::decode_header(repo.key(), &sealed, size).map_err(damaged)
}
