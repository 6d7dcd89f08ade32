//! The far side of a copy: which blobs it holds, as its own storage says.

use std::collections::{BTreeSet, HashMap, HashSet};

use rekindle_core::port::RunContext;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::Key as ObjectKey;

use super::plan::Planned;
use crate::format::index::{BLOBS_PER_INDEX_MAX, IndexBlob, IndexFile, IndexPack};
use crate::format::pack::{BlobKind, PackedBlob, decode_pack};
use crate::format::{Id, names};
use crate::read::{index, parallel};
use crate::repo::Repo;
use crate::verify::objects::wrong_size;
use crate::write::packs::write_index;

/// What the far side holds.
pub(super) struct Far<'a> {
    repo: &'a Repo,
    /// Sorted.
    data: Vec<Id>,
    trees: Vec<Id>,
    /// Found by looking again.
    fresh: HashSet<(BlobKind, Id)>,
    /// Index files that were read.
    indexes: HashSet<Id>,
    /// Packs that an index names and the storage does not hold whole.
    pub(super) lost: BTreeSet<Id>,
    /// Packs that no index named.
    pub(super) taken_in: u64,
}

/// Every blob of a point is at the far side, in a pack that is there with its right length. Only
/// [`Far::whole`] makes one.
pub(super) struct Whole<'a>(&'a Planned);

impl Whole<'_> {
    /// The top tree of the point.
    pub(super) fn tree(&self) -> &Id {
        &self.0.root
    }

    /// How many blobs had to be brought.
    pub(super) fn missing(&self) -> usize {
        self.0.missing.len()
    }
}

impl<'a> Far<'a> {
    /// Reads the index and lists the packs. What an index names counts only in packs that are there;
    /// packs that no index names are read back and taken in.
    pub(super) fn look(repo: &'a Repo, context: &RunContext) -> Result<Self> {
        let files = index::list(repo)?;
        let listed = repo.store().list("data/")?;
        let sizes: HashMap<Id, u64> =
            listed.iter().filter_map(|meta| Some((names::id_of(meta.key.as_str())?, meta.size))).collect();
        let mut far = Self {
            repo,
            data: Vec::new(),
            trees: Vec::new(),
            fresh: HashSet::new(),
            indexes: files.iter().copied().collect(),
            lost: BTreeSet::new(),
            taken_in: 0,
        };
        let mut named: HashSet<Id> = HashSet::new();
        for portion in files.chunks(parallel::waiters()) {
            context.cancel.check()?;
            for file in parallel::map(portion, parallel::waiters(), |id| index::read_file(repo, id)) {
                match file {
                    Ok(file) => {
                        named.extend(file.packs.iter().chain(&file.packs_to_delete).map(|pack| pack.id));
                        far.take(&file, &sizes);
                    }
                    // Its packs are read back like those that no index names.
                    Err(fault) if fault.is(codes::REPO_DAMAGED) => context.monitor.problem("copy", &fault),
                    Err(fault) => return Err(fault),
                }
            }
        }
        let unnamed: Vec<Id> = sizes.keys().filter(|id| !named.contains(id)).copied().collect();
        far.take_in(&unnamed, &sizes, context)?;
        far.data.sort_unstable();
        far.data.dedup();
        far.trees.sort_unstable();
        far.trees.dedup();
        Ok(far)
    }

    fn take(&mut self, file: &IndexFile, sizes: &HashMap<Id, u64>) {
        for pack in &file.packs {
            let blobs: Vec<PackedBlob> = pack.blobs.iter().map(PackedBlob::from).collect();
            if wrong_size(&blobs, sizes.get(&pack.id).copied()).is_some() {
                self.lost.insert(pack.id);
                continue;
            }
            for blob in blobs {
                match blob.kind {
                    BlobKind::Data => self.data.push(blob.id),
                    BlobKind::Tree => self.trees.push(blob.id),
                }
            }
        }
    }

    /// Packs that a stopped copy left behind: whole, or of no use.
    fn take_in(&mut self, packs: &[Id], sizes: &HashMap<Id, u64>, context: &RunContext) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        context.monitor.phase("copy", &format!("take in {} packs of an earlier copy", packs.len()));
        let mut found = IndexFile::default();
        let mut held = 0;
        for portion in packs.chunks(parallel::cores()) {
            context.cancel.check()?;
            let read = parallel::map(portion, parallel::cores(), |id| read_back(self.repo, id));
            for pack in read {
                let Some(pack) = pack? else { continue };
                self.taken_in += 1;
                held += pack.blobs.len();
                found.packs.push(pack);
                if held > BLOBS_PER_INDEX_MAX {
                    self.keep(&std::mem::take(&mut found), sizes)?;
                    held = 0;
                }
            }
        }
        self.keep(&found, sizes)
    }

    fn keep(&mut self, file: &IndexFile, sizes: &HashMap<Id, u64>) -> Result<()> {
        write_index(self.repo, file)?;
        self.take(file, sizes);
        Ok(())
    }

    /// Whether a blob is there.
    pub(super) fn holds(&self, kind: BlobKind, id: &Id) -> bool {
        let known = match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        };
        known.binary_search(id).is_ok() || self.fresh.contains(&(kind, *id))
    }

    /// Reads the index files that have come since, and asks the storage for each pack they name.
    pub(super) fn look_again(&mut self) -> Result<()> {
        for id in index::list(self.repo)?.into_iter().filter(|id| !self.indexes.contains(id)).collect::<Vec<_>>() {
            let file = index::read_file(self.repo, &id)?;
            let heads = parallel::map(&file.packs, parallel::waiters(), |pack| head(self.repo, &pack.id));
            for (pack, size) in file.packs.iter().zip(heads) {
                let blobs: Vec<PackedBlob> = pack.blobs.iter().map(PackedBlob::from).collect();
                if let Some(why) = wrong_size(&blobs, size?) {
                    return Err(far_fault(format!("find `{}` in the copy", names::pack(&pack.id))).because(why));
                }
                self.fresh.extend(blobs.iter().map(|blob| (blob.kind, blob.id)));
            }
            self.indexes.insert(id);
        }
        Ok(())
    }

    /// Whether every blob of a point is there now.
    pub(super) fn whole<'p>(&self, planned: &'p Planned) -> Result<Whole<'p>> {
        match planned.missing.iter().find(|(kind, id)| !self.holds(*kind, id)) {
            None => Ok(Whole(planned)),
            Some((kind, id)) => Err(far_fault(format!("find {} blob {id} in the copy", kind.as_str()))
                .because("it was written, and the index of the copy does not name it")),
        }
    }

    /// Takes lost packs out of the index: what they held was brought again, or is lost at the source
    /// as well. A pack that comes back is taken in by the next copy.
    pub(super) fn drop_lost(&self) -> Result<()> {
        if self.lost.is_empty() {
            return Ok(());
        }
        for id in index::list(self.repo)? {
            // One that cannot be read names nothing.
            let Ok(mut file) = index::read_file(self.repo, &id) else { continue };
            let before = file.packs.len();
            file.packs.retain(|pack| !self.lost.contains(&pack.id));
            if file.packs.len() == before {
                continue;
            }
            write_index(self.repo, &file)?;
            self.repo.store().delete(&ObjectKey::new(&names::file(names::INDEX, &id))?)?;
        }
        Ok(())
    }
}

fn far_fault(what: String) -> Fault {
    Fault::new(codes::COPY_FAR, what).hint("run `rekindle copy` again; look at the storage with `rekindle doctor`")
}

fn head(repo: &Repo, pack: &Id) -> Result<Option<u64>> {
    Ok(repo.store().head(&ObjectKey::new(&names::pack(pack))?)?.map(|meta| meta.size))
}

/// The index entry of a whole pack; `None` when it is not what its name says.
fn read_back(repo: &Repo, id: &Id) -> Result<Option<IndexPack>> {
    let bytes = match repo.store().get(&ObjectKey::new(&names::pack(id))?) {
        Ok(bytes) => bytes,
        Err(fault) if fault.is(codes::STORE_NOT_FOUND) || fault.is(codes::STORE_SHORT) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    if Id::of(&bytes) != *id {
        return Ok(None);
    }
    let size = Some(bytes.len() as u64);
    let blobs = decode_pack(repo.key(), &bytes).ok();
    Ok(blobs.map(|blobs| IndexPack { id: *id, blobs: blobs.iter().map(IndexBlob::from).collect(), time: None, size }))
}
