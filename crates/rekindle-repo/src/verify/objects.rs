//! Objects against their names: keys, indexes, packs.

use std::collections::{HashMap, HashSet};

use rekindle_core::{Cancel, Fault, Result, codes};
use rekindle_store::ObjectMeta;

use super::refuse_unreachable;
use super::report::VerifyReport;
use crate::format::index::IndexPack;
use crate::format::pack::{BlobKind, PackedBlob};
use crate::format::{Id, names};
use crate::read::{index, parallel};
use crate::repo::Repo;

/// What the index files say, pack by pack.
pub(super) type Catalogue = HashMap<Id, Vec<PackedBlob>>;

/// The packs there are.
pub(super) struct Packs {
    /// With their sizes.
    pub(super) present: Vec<(Id, u64)>,
    pub(super) catalogue: Catalogue,
    /// Blobs whose pack is gone or too short to hold them, and that stand nowhere else.
    pub(super) lost_blobs: HashSet<(BlobKind, Id)>,
}

/// Objects in a folder whose names are no ids are not ours to judge, but odd.
fn id_of(meta: &ObjectMeta, report: &mut VerifyReport) -> Option<Id> {
    let id = names::id_of(meta.key.as_str());
    if id.is_none() {
        let why = "its name is not a SHA-256".to_owned();
        report.push(meta.key.to_string(), codes::REPO_DAMAGED, why);
    }
    id
}

/// Key files against their names: their JSON has parts no cipher protects.
pub(super) fn keys(repo: &Repo, report: &mut VerifyReport) -> Result<()> {
    for meta in repo.store().list("keys/")? {
        let Some(id) = id_of(&meta, report) else {
            continue;
        };
        report.objects += 1;
        match repo.store().get(&meta.key) {
            Ok(bytes) if Id::of(&bytes) == id => {}
            Ok(_) => report.push(meta.key.to_string(), codes::REPO_DAMAGED, "its SHA-256 is not its name".to_owned()),
            Err(fault) => {
                refuse_unreachable(&fault)?;
                report.damage(meta.key.to_string(), &fault);
            }
        }
    }
    Ok(())
}

/// Every index file against its name, and its entries against what is possible.
pub(super) fn indexes(repo: &Repo, cancel: &Cancel, report: &mut VerifyReport) -> Result<Catalogue> {
    let mut ids = Vec::new();
    for meta in repo.store().list("index/")? {
        ids.extend(id_of(&meta, report));
    }
    let mut catalogue = Catalogue::new();
    for portion in ids.chunks(parallel::waiters() * 2) {
        cancel.check()?;
        let read = parallel::map(portion, parallel::waiters(), |id| index::read_file(repo, id));
        for (id, result) in portion.iter().zip(read) {
            report.objects += 1;
            match result {
                Ok(file) => {
                    for pack in file.packs.iter().chain(&file.packs_to_delete) {
                        take(&mut catalogue, &names::file(names::INDEX, id), pack, report);
                    }
                }
                Err(fault) => {
                    refuse_unreachable(&fault)?;
                    report.damage(names::file(names::INDEX, id), &fault);
                }
            }
        }
    }
    Ok(catalogue)
}

fn take(catalogue: &mut Catalogue, path: &str, pack: &IndexPack, report: &mut VerifyReport) {
    // Rustic's prune marks a pack that stood in no index by its name and size only: nothing is looked for in it.
    if pack.blobs.is_empty() {
        return;
    }
    let blobs: Vec<PackedBlob> = pack.blobs.iter().map(PackedBlob::from).collect();
    let mut sorted = blobs.clone();
    sorted.sort_by_key(|b| b.offset);
    let overlap = sorted.windows(2).any(|w| u64::from(w[0].offset) + u64::from(w[0].length) > u64::from(w[1].offset));
    if overlap {
        report.push(path.to_owned(), codes::REPO_DAMAGED, format!("it lets blobs of pack {} overlap", pack.id));
    }
    if catalogue.get(&pack.id).is_some_and(|known| *known != blobs) {
        report.push(
            path.to_owned(),
            codes::REPO_DAMAGED,
            format!("it contradicts another index about pack {}", pack.id),
        );
    }
    catalogue.entry(pack.id).or_insert(blobs);
}

/// Every pack the index names must be there and long enough; packs it does not name are counted.
pub(super) fn packs(repo: &Repo, catalogue: &Catalogue, report: &mut VerifyReport) -> Result<Packs> {
    let mut present = Vec::new();
    for meta in repo.store().list("data/")? {
        if let Some(id) = id_of(&meta, report) {
            present.push((id, meta.size));
        }
    }
    report.packs = present.len() as u64;
    report.orphan_packs = present.iter().filter(|(id, _)| !catalogue.contains_key(id)).count() as u64;
    let sizes: HashMap<Id, u64> = present.iter().copied().collect();
    let (mut good, mut lost) = (HashSet::new(), HashSet::new());
    for (id, blobs) in catalogue {
        let size = sizes.get(id).copied();
        if let Some(why) = wrong_size(blobs, size) {
            let fault = Fault::new(codes::REPO_DAMAGED, format!("look at `{}`", names::pack(id))).because(why);
            report.damage(names::pack(id), &fault);
        }
        for blob in blobs {
            let end = u64::from(blob.offset) + u64::from(blob.length);
            if size.is_some_and(|size| end <= size) {
                good.insert((blob.kind, blob.id));
            } else {
                lost.insert((blob.kind, blob.id));
            }
        }
    }
    lost.retain(|blob| !good.contains(blob));
    Ok(Packs { present, catalogue: catalogue.clone(), lost_blobs: lost })
}

/// The blobs, one header entry for each in the envelope, and four bytes make a pack.
pub(crate) fn wrong_size(blobs: &[PackedBlob], size: Option<u64>) -> Option<String> {
    let Some(size) = size else {
        return Some("it is missing".to_owned());
    };
    let end = blobs.iter().map(|b| u64::from(b.offset) + u64::from(b.length)).max().unwrap_or(0);
    let entries: u64 = blobs.iter().map(|b| if b.uncompressed.is_some() { 41 } else { 37 }).sum();
    let expected = end + entries + 32 + 4;
    if size == expected {
        return None;
    }
    Some(format!("it has {size} bytes and should have {expected}"))
}
