//! Recovery points as the repository holds them.

use std::sync::{Arc, Mutex, PoisonError};

use rekindle_core::entry::EntryPath;
use rekindle_core::manifest::{ComponentRecord, Manifest};
use rekindle_core::note::Notes;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::PartReader;
use rekindle_core::tally::Tally;
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, Result, codes};
use rekindle_store::Key as ObjectKey;

use crate::format::node::{Node, NodeContent};
use crate::format::snapshot::Snapshot;
use crate::format::{Id, names, time, unpacked};
use crate::read::blobs::{BlobReader, Opener, SharedReader};
use crate::read::part::{RepoPart, Tallied};
use crate::read::tree::find;
use crate::read::{index, parallel};
use crate::repo::Repo;

/// Tag of every snapshot that is a recovery point.
pub const POINT_TAG: &str = "rekindle";
/// Where the manifest stands in a point.
const MANIFEST: &str = "rekindle/manifest.json";
/// Shortest beginning of an id that is looked for.
const PREFIX_MIN: usize = 4;

/// A point that is there and cannot be used.
#[derive(Debug)]
pub struct UnreadablePoint {
    /// Name of its snapshot.
    pub id: PointId,
    /// Of its snapshot, when that can be read.
    pub time: Option<jiff::Timestamp>,
    pub fault: Fault,
}

/// Every point of a repository.
#[derive(Debug, Default)]
pub struct PointsView {
    /// Oldest first.
    pub points: Vec<RecoveryPoint>,
    /// Snapshots that cannot be read, and points whose manifest cannot.
    pub unreadable: Vec<UnreadablePoint>,
}

/// A snapshot with its name.
#[derive(Debug, Clone)]
pub struct NamedSnapshot {
    pub id: Id,
    pub snapshot: Snapshot,
}

/// Reads blobs of a repository as its index is now. One reader serves many reads.
#[derive(Debug, Clone)]
pub struct Reader(pub(crate) SharedReader);

impl Reader {
    /// Loads the index. A damaged index file is made up for from the packs' own headers.
    pub(crate) fn load_files(repo: &Repo, files: &[Id]) -> Result<Self> {
        let blobs = index::load(repo, files)?;
        let reader = BlobReader::new(repo.store().clone(), repo.key().clone(), blobs);
        Ok(Self(SharedReader::new(reader)))
    }
}

/// The last reader of a repository, kept as long as the index files are the same.
#[derive(Debug, Default)]
pub(crate) struct ReaderCache(Mutex<Option<(Vec<Id>, Reader)>>);

impl ReaderCache {
    /// The kept reader, or a new one.
    pub(crate) fn get(&self, repo: &Repo) -> Result<Reader> {
        let files = index::list(repo)?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, reader)) = &*kept
            && *of == files
        {
            return Ok(reader.clone());
        }
        *kept = None;
        let reader = Reader::load_files(repo, &files)?;
        *kept = Some((files, reader.clone()));
        Ok(reader)
    }
}

/// Id of the object as the id of a point.
pub(crate) fn point_id(id: &Id) -> Result<PointId> {
    id.hex().parse().map_err(|bad| Fault::new(codes::RUN_BUG, "name a point").because(bad))
}

/// Every snapshot of the repository, or why it cannot be read, by name.
pub(crate) fn snapshots(repo: &Repo) -> Result<Vec<(Id, Result<Snapshot>)>> {
    let ids: Vec<Id> =
        repo.store().list("snapshots/")?.iter().filter_map(|meta| names::id_of(meta.key.as_str())).collect();
    let read = parallel::map(&ids, parallel::waiters(), |id| read_snapshot(repo, id));
    Ok(ids.into_iter().zip(read).collect())
}

pub(crate) fn read_snapshot(repo: &Repo, id: &Id) -> Result<Snapshot> {
    let path = names::file(names::SNAPSHOTS, id);
    let sealed = repo.store().get(&ObjectKey::new(&path)?)?;
    unpacked::decode(repo.key(), id, &sealed)
        .and_then(|json| Snapshot::decode(&json))
        .map_err(|bad| Fault::new(codes::REPO_DAMAGED, format!("read `{path}`")).because(bad))
}

/// Every point, and every one that cannot be read. A storage that cannot be reached is an error,
/// not an unreadable point.
pub fn view(repo: &Repo) -> Result<PointsView> {
    let snapshots = snapshots(repo)?;
    if snapshots.is_empty() {
        return Ok(PointsView::default());
    }
    view_with(&repo.reader()?, snapshots)
}

pub(crate) fn view_with(reader: &Reader, snapshots: Vec<(Id, Result<Snapshot>)>) -> Result<PointsView> {
    let ours: Vec<_> =
        snapshots.into_iter().filter(|(_, read)| read.as_ref().map_or(true, |s| s.has_tag(POINT_TAG))).collect();
    let points = parallel::map(&ours, parallel::waiters(), |(id, read)| match read {
        Ok(snapshot) => read_point(reader, id, snapshot),
        Err(fault) => Err(Fault::new(fault.code(), format!("read snapshot {}", &id.hex()[..8])).because(fault.chain())),
    });
    let mut view = PointsView::default();
    for ((id, read), point) in ours.iter().zip(points) {
        match point {
            Ok(point) => view.points.push(point),
            Err(fault) if fault.class() == rekindle_core::Class::Unreachable => return Err(fault),
            Err(fault) => {
                let time = read.as_ref().ok().and_then(|snapshot| timestamp(snapshot).ok());
                view.unreadable.push(UnreadablePoint { id: point_id(id)?, time, fault });
            }
        }
    }
    view.points.sort_by(|a, b| (a.time(), a.id()).cmp(&(b.time(), b.id())));
    view.unreadable.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(view)
}

/// The point of a snapshot, with its manifest.
pub(crate) fn read_point(reader: &Reader, id: &Id, snapshot: &Snapshot) -> Result<RecoveryPoint> {
    let bad = |why: String| {
        let what = format!("read the manifest of point {}", &id.hex()[..8]);
        Fault::new(codes::REPO_MANIFEST, what)
            .because(why)
            .hint("run `rekindle verify`; the other points are not affected")
    };
    let path = EntryPath::new(MANIFEST).map_err(|e| bad(e.to_string()))?;
    let manifest = find(&reader.0, &snapshot.tree, &path).and_then(|node| content(reader, &node));
    let manifest = match manifest {
        Ok(bytes) => bytes,
        Err(fault) if fault.class() == rekindle_core::Class::Unreachable => return Err(fault),
        Err(fault) => return Err(bad(fault.chain())),
    };
    let manifest = Manifest::decode(&manifest).map_err(|e| bad(e.to_string()))?;
    let time = timestamp(snapshot).map_err(bad)?;
    let original = snapshot.original.as_ref().map(point_id).transpose()?;
    Ok(RecoveryPoint::stored(point_id(id)?, time, manifest).copy_of(original))
}

fn timestamp(snapshot: &Snapshot) -> Result<jiff::Timestamp, String> {
    let time = time::parse(&snapshot.time).map_err(|e| e.to_string())?;
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(time.seconds, nanoseconds).map_err(|e| e.to_string())
}

/// A small file, whole.
fn content(reader: &Reader, node: &Node) -> Result<Vec<u8>> {
    let NodeContent::Blobs(ids) = &node.content else {
        return Err(Fault::new(codes::REPO_DAMAGED, "read a stored file").because("it is no file"));
    };
    let mut opener = Opener::new();
    let mut bytes = Vec::new();
    for id in ids {
        let kind = crate::format::pack::BlobKind::Data;
        bytes.extend(reader.0.blob(kind, id, &mut opener)?);
    }
    Ok(bytes)
}

/// Snapshots that are not points: made by restic or rustic.
pub fn foreign_snapshots(repo: &Repo) -> Result<Vec<NamedSnapshot>> {
    let mut foreign = Vec::new();
    for (id, read) in snapshots(repo)? {
        let snapshot = read?;
        if !snapshot.has_tag(POINT_TAG) {
            foreign.push(NamedSnapshot { id, snapshot });
        }
    }
    foreign.sort_by(|a, b| (&a.snapshot.time, a.id).cmp(&(&b.snapshot.time, b.id)));
    Ok(foreign)
}

/// The snapshot of a point, whatever its manifest says.
pub fn bare(repo: &Repo, point: &PointId) -> Result<NamedSnapshot> {
    let bug = |e: crate::format::BadFormat| Fault::new(codes::RUN_BUG, "open a snapshot").because(e);
    let id: Id = point.as_str().parse().map_err(bug)?;
    Ok(NamedSnapshot { snapshot: read_snapshot(repo, &id)?, id })
}

/// Finds a point: `latest`, `latest:complete`, or the beginning of an id.
///
/// An unreadable point that may be the newest is an error: an older one is not what was asked for.
pub fn resolve<'a>(view: &'a PointsView, spec: &str) -> Result<&'a RecoveryPoint> {
    use rekindle_core::manifest::Completeness;
    let complete = |p: &&RecoveryPoint| p.state() == Completeness::Complete;
    match spec {
        "latest" => newest(view, spec, view.points.last(), "there is no point yet"),
        "latest:complete" => {
            newest(view, spec, view.points.iter().rev().find(complete), "there is no complete point yet")
        }
        prefix => by_prefix(view, prefix),
    }
}

fn newest<'a>(
    view: &PointsView,
    spec: &str,
    found: Option<&'a RecoveryPoint>,
    absent: &str,
) -> Result<&'a RecoveryPoint> {
    let newer = |bad: &&UnreadablePoint| found.is_none_or(|point| bad.time.is_none_or(|time| time > point.time()));
    if let Some(bad) = view.unreadable.iter().find(newer) {
        let short = bad.id.short();
        return Err(Fault::new(bad.fault.code(), format!("find point `{spec}`"))
            .because(format!("it may be {short}, which cannot be read: {}", bad.fault.chain()))
            .hint(format!(
                "choose a point of `rekindle list` by its id; `rekindle restore {short} --to DIRECTORY` gives back what is left of this one"
            )));
    }
    found.ok_or_else(|| no_point(spec, absent))
}

fn by_prefix<'a>(view: &'a PointsView, prefix: &str) -> Result<&'a RecoveryPoint> {
    if prefix.len() < PREFIX_MIN || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(no_point(prefix, "an id is at least 4 hex digits, or `latest`"));
    }
    let prefix = prefix.to_ascii_lowercase();
    let unreadable = view.unreadable.iter().find(|u| u.id.as_str().starts_with(&prefix));
    // In a copy, a point is known by the id of its original as well.
    let begins = |id: &PointId| id.as_str().starts_with(&prefix);
    let mut matching = view.points.iter().filter(|p| begins(p.id()) || p.original().is_some_and(begins));
    match (matching.next(), matching.next(), unreadable) {
        (Some(point), None, None) => Ok(point),
        (None, None, Some(point)) => {
            Err(Fault::new(point.fault.code(), format!("use point {}", point.id.short())).because(point.fault.chain()))
        }
        (None, None, None) => Err(no_point(&prefix, "no point has an id that begins so")),
        _ => Err(no_point(&prefix, "several points begin like this")),
    }
}

fn no_point(spec: &str, why: &str) -> Fault {
    Fault::new(codes::REPO_NO_POINT, format!("find point `{}`", spec.escape_debug()))
        .because(why.to_owned())
        .hint("run `rekindle list` to see the points")
}

/// Opens a component of a point for reading.
pub fn open_part(
    repo: &Repo,
    reader: &Reader,
    point: &PointId,
    component: &ComponentId,
) -> Result<Arc<dyn PartReader>> {
    let bug = |e: crate::format::BadFormat| Fault::new(codes::RUN_BUG, "open a point").because(e);
    let id: Id = point.as_str().parse().map_err(bug)?;
    let snapshot = read_snapshot(repo, &id).map_err(|fault| {
        if fault.is(codes::STORE_NOT_FOUND) {
            no_point(point.short(), "it is not in the repository (any more)")
        } else {
            fault
        }
    })?;
    let found = read_point(reader, &id, &snapshot)?;
    let record = found
        .manifest()
        .component(component)
        .ok_or_else(|| {
            Fault::new(codes::REPO_NO_ENTRY, format!("find `{component}` in point {}", point.short()))
                .because("the point does not hold this component")
                .hint(format!("run `rekindle show {}`", point.short()))
        })?
        .clone();
    let tree: Id = record.tree.parse().map_err(|e: crate::format::BadFormat| {
        let what = format!("read the manifest of point {}", point.short());
        Fault::new(codes::REPO_MANIFEST, what).because(e)
    })?;
    // The manifest names the tree, the snapshot holds it: they must be the same.
    let top = EntryPath::new(component.as_str()).map_err(|e| Fault::new(codes::RUN_BUG, "open a point").because(e))?;
    let held = find(&reader.0, &snapshot.tree, &top)?;
    if held.content != NodeContent::Subtree(tree) {
        let what = format!("open `{component}` of point {}", point.short());
        return Err(
            Fault::new(codes::REPO_MANIFEST, what).because("the manifest names another tree than the snapshot holds")
        );
    }
    Ok(Arc::new(RepoPart { reader: SharedReader::clone(&reader.0), tree, record, tallied: Tallied::Yes }))
}

/// No file beside the manifest is larger.
const ATTACHMENT_BYTES_MAX: u64 = 4 << 20;

/// A file that was stored beside the manifest; `None` when the point has none of this name.
pub fn attachment(repo: &Repo, point: &PointId, name: &str) -> Result<Option<Vec<u8>>> {
    let bug = |e: crate::format::BadFormat| Fault::new(codes::RUN_BUG, "open a point").because(e);
    let id: Id = point.as_str().parse().map_err(bug)?;
    let snapshot = read_snapshot(repo, &id)?;
    let reader = repo.reader()?;
    let what = || format!("read `/rekindle/{name}` of point {}", point.short());
    let path = EntryPath::new(format!("rekindle/{name}")).map_err(|e| Fault::new(codes::RUN_BUG, what()).because(e))?;
    let node = match find(&reader.0, &snapshot.tree, &path) {
        Ok(node) => node,
        Err(fault) if fault.is(codes::REPO_NO_ENTRY) => return Ok(None),
        Err(fault) => return Err(fault.during(what())),
    };
    match node.content {
        NodeContent::Blobs(blobs) if node.meta.size <= ATTACHMENT_BYTES_MAX => {
            let mut opener = Opener::new();
            let mut content = Vec::new();
            for blob in blobs {
                let piece = reader.0.blob(crate::format::pack::BlobKind::Data, &blob, &mut opener);
                content.extend(piece.map_err(|fault| fault.during(what()))?);
            }
            Ok(Some(content))
        }
        _ => Err(Fault::new(codes::REPO_DAMAGED, what()).because("it is no small file")),
    }
}

/// Opens a directory of a snapshot that restic or rustic made (`None`: its top). The record is
/// made up: nothing is known about what the source held.
pub fn open_foreign(
    reader: &Reader,
    snapshot: &NamedSnapshot,
    path: Option<&EntryPath>,
) -> Result<Arc<dyn PartReader>> {
    let tree = match path {
        None => snapshot.snapshot.tree,
        Some(path) => match find(&reader.0, &snapshot.snapshot.tree, path)?.content {
            NodeContent::Subtree(tree) => tree,
            NodeContent::Blobs(_) | NodeContent::Nothing => {
                return Err(Fault::new(codes::REPO_NO_ENTRY, format!("open `{path}` of the snapshot"))
                    .because("it is not a directory"));
            }
        },
    };
    let id = "snapshot".parse().map_err(|bad| Fault::new(codes::RUN_BUG, "name a foreign snapshot").because(bad))?;
    let captured_at = timestamp(&snapshot.snapshot)
        .map_err(|why| Fault::new(codes::REPO_DAMAGED, "read the snapshot's time").because(why))?;
    Ok(Arc::new(RepoPart {
        reader: SharedReader::clone(&reader.0),
        tree,
        record: ComponentRecord {
            id,
            kind: ComponentKind::Files,
            tree: tree.hex(),
            captured_at,
            tally: Tally::default(),
            streams: Vec::new(),
            added_bytes: 0,
            stored_bytes: 0,
            notes: Notes::default(),
            details: serde_json::Value::Null,
        },
        tallied: Tallied::No,
    }))
}
