//! Verification of everything below `rekindle/wal/`, as a part of `verify`.

use std::collections::BTreeMap;

use rekindle_core::wal::{Cluster, History, SegmentSize, SystemId, WalFile, check_pages};
use rekindle_core::{Cancel, Fault, Result, codes};
use rekindle_store::ObjectMeta;

use super::name::{self, Name};
use super::{ClusterRecord, Shelf, damaged, vanished};
use crate::format::Id;
use crate::read::parallel;
use crate::repo::Repo;
use crate::verify::Subset;

/// What a check of the WAL log looked at, and everything that is wrong: object and error.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) objects: u64,
    /// Sealed segments, and of these the ones that were read back.
    pub(crate) segments: u64,
    pub(crate) segments_read: u64,
    pub(crate) bytes_read: u64,
    pub(crate) damage: Vec<(String, Fault)>,
}

/// Checks every object against its name and what belongs together; records, histories and gaps
/// are read in any case, segments and pieces as far as `read_data` says.
pub(crate) fn check(repo: &Repo, read_data: Option<Subset>, cancel: &Cancel) -> Result<Checked> {
    let shelf = Shelf { repo };
    let mut checked = Checked::default();
    let listed = repo.store().list(name::ROOT)?;
    let clusters = clusters(&shelf, &listed, &mut checked)?;
    let (mut small, mut large) = (Vec::new(), Vec::new());
    for meta in &listed {
        checked.objects += 1;
        match name_of(meta, &clusters) {
            Some(name) if is_data(&name) => large.push((name, meta.size)),
            Some(name) => small.push(name),
            None => {
                let fault = Fault::new(codes::WAL_DAMAGED, format!("look at `{}`", meta.key))
                    .because("it is no object of a WAL log, or of a cluster without a record");
                checked.damage.push((meta.key.to_string(), fault));
            }
        }
    }
    checked.segments =
        large.iter().filter(|(name, _)| matches!(name, Name::File(_, WalFile::Segment(_), _))).count() as u64;
    read_all(&shelf, &small, &clusters, cancel, &mut checked)?;
    let chosen = read_data.map(|subset| choose(subset, &large)).unwrap_or_default();
    read_all(&shelf, &chosen, &clusters, cancel, &mut checked)?;
    Ok(checked)
}

fn clusters(
    shelf: &Shelf<'_>,
    listed: &[ObjectMeta],
    checked: &mut Checked,
) -> Result<BTreeMap<SystemId, SegmentSize>> {
    let mut sizes = BTreeMap::new();
    for meta in listed {
        let Some(name @ Name::Cluster(system)) = Name::parse(meta.key.as_str()) else {
            continue;
        };
        match shelf.record::<ClusterRecord>(&name) {
            Ok(Some(record)) => {
                sizes.insert(system, record.cluster.segment_size);
            }
            Ok(None) => checked.damage.push((name.to_string(), vanished(&name))),
            Err(fault) => {
                crate::verify::refuse_unreachable(&fault)?;
                checked.damage.push((name.to_string(), fault));
            }
        }
    }
    Ok(sizes)
}

fn name_of(meta: &ObjectMeta, clusters: &BTreeMap<SystemId, SegmentSize>) -> Option<Name> {
    let path = meta.key.as_str();
    let system: Option<SystemId> = path.strip_prefix(name::ROOT)?.split('/').next()?.parse().ok();
    match system {
        Some(system) => Name::parse_sized(path, *clusters.get(&system)?),
        None => Name::parse(path),
    }
}

fn is_data(name: &Name) -> bool {
    matches!(name, Name::Tail { .. } | Name::File(_, WalFile::Segment(_) | WalFile::Extra(_), _))
}

fn choose(subset: Subset, large: &[(Name, u64)]) -> Vec<Name> {
    let by_id: BTreeMap<Id, &Name> =
        large.iter().map(|(name, _)| (Id::of(name.to_string().as_bytes()), name)).collect();
    let sizes = large.iter().map(|(name, size)| (Id::of(name.to_string().as_bytes()), *size)).collect();
    subset.choose(sizes).iter().filter_map(|(id, _)| by_id.get(id).map(|name| (*name).clone())).collect()
}

fn read_all(
    shelf: &Shelf<'_>,
    names: &[Name],
    clusters: &BTreeMap<SystemId, SegmentSize>,
    cancel: &Cancel,
    checked: &mut Checked,
) -> Result<()> {
    // As many as fit into a bounded memory: a segment may have a gigabyte.
    for portion in names.chunks(parallel::cores()) {
        cancel.check()?;
        let read = parallel::map(portion, parallel::cores(), |name| one(shelf, name, clusters));
        for (name, result) in portion.iter().zip(read) {
            match result {
                Ok(bytes) => {
                    checked.bytes_read += bytes;
                    checked.segments_read += u64::from(matches!(name, Name::File(_, WalFile::Segment(_), _)));
                }
                // A piece may be sealed and dropped while this runs.
                Err(fault) if fault.is(codes::STORE_NOT_FOUND) && matches!(name, Name::Tail { .. }) => {}
                Err(fault) => {
                    crate::verify::refuse_unreachable(&fault)?;
                    checked.damage.push((name.to_string(), fault));
                }
            }
        }
    }
    Ok(())
}

/// Reads an object; gives the length of its content.
fn one(shelf: &Shelf<'_>, name: &Name, clusters: &BTreeMap<SystemId, SegmentSize>) -> Result<u64> {
    let content = shelf.read(name)?.ok_or_else(|| vanished(name))?;
    match name {
        Name::File(system, WalFile::Segment(segment), size) => {
            let cluster = Cluster { system: *system, segment_size: *size };
            check_pages(&content, *segment, cluster).map_err(|bad| damaged(name, bad))?;
        }
        Name::File(_, WalFile::History(timeline), _) => {
            History::parse(*timeline, &content).map_err(|bad| damaged(name, bad))?;
        }
        Name::Place(system, _) | Name::Cluster(system) if !clusters.contains_key(system) => {
            return Err(damaged(name, "its cluster has no record"));
        }
        _ => {}
    }
    Ok(content.len() as u64)
}
