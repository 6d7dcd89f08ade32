//! Brings the files of a base backup to their place: everything but `pg_control` first, so that no
//! server starts on half a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Materialize, Materialized, PartReader, RunContext};
use rekindle_core::wal::{BaseBackup, SegmentName};
use rekindle_core::{Fault, Result, codes};

use super::io_fault;
use super::owner::Owner;
use super::place::Place;

/// PostgreSQL refuses a data directory that others may enter.
const DIRECTORY_MODE: u32 = 0o700;
const DATA: &[u8] = b"data";
const TABLESPACES: &[u8] = b"tablespaces";
/// Never restored: the map and the links lead to the original's tablespaces; the others belong to
/// the original's own run and role.
const LEFT_OUT: [&[u8]; 6] =
    [b"tablespace_map", b"postmaster.pid", b"postmaster.opts", b"recovery.signal", b"standby.signal", b"pg_tblspc"];

fn path(bytes: &[u8]) -> Result<EntryPath> {
    EntryPath::new(bytes).map_err(|bad| Fault::new(codes::RUN_BUG, "name a part of a base backup").because(bad))
}

/// What the listing of a part says.
#[derive(Debug, Default)]
struct Listing {
    /// Directories and files that are restored first.
    first: Vec<EntryPath>,
    control: Option<EntryPath>,
    tablespaces: Vec<String>,
    segments: BTreeSet<String>,
}

fn list(part: &dyn PartReader) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in part.list(None)? {
        let entry = entry?;
        let names: Vec<&[u8]> = entry.path.names().collect();
        match names[..] {
            [DATA, name] if name != b"global" && !LEFT_OUT.contains(&name) => listing.first.push(entry.path.clone()),
            [DATA, b"global", b"pg_control"] => listing.control = Some(entry.path.clone()),
            [DATA, b"global", _] => listing.first.push(entry.path.clone()),
            [DATA, b"pg_wal", name] => {
                listing.segments.insert(String::from_utf8_lossy(name).into_owned());
            }
            [TABLESPACES, oid] => listing.tablespaces.push(String::from_utf8_lossy(oid).into_owned()),
            _ => {}
        }
    }
    Ok(listing)
}

/// What was restored, for the report.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) done: Materialized,
    pub(super) tablespaces: Vec<(u32, PathBuf)>,
}

impl Restored {
    fn add(&mut self, more: Materialized) {
        self.done.entries += more.entries;
        self.done.bytes += more.bytes;
        self.done.kept_bytes += more.kept_bytes;
        self.done.lost.extend(more.lost);
        self.done.attribute_problems.extend(more.attribute_problems);
    }
}

/// Writes the cluster. A lost file makes the result unusable: an error, before `pg_control` is there.
pub(super) fn restore(
    part: &dyn PartReader,
    base: &BaseBackup,
    own: &BTreeSet<SegmentName>,
    place: &Place,
    owner: Option<Owner>,
    context: &RunContext,
) -> Result<Restored> {
    let listing = list(part)?;
    let size = base.cluster.segment_size;
    if let Some(absent) = own.iter().map(|name| name.file(size)).find(|file| !listing.segments.contains(file)) {
        return Err(Fault::new(codes::PITR_HOLE, format!("restore the base backup: its segment {absent} is missing"))
            .because("neither the base backup nor the log holds it")
            .hint("restore from another base backup: `rekindle restore-points list`"));
    }
    let Some(control) = listing.control else {
        return Err(Fault::new(codes::PITR_NO_BASE, "restore the base backup: it has no global/pg_control"));
    };
    make_directory(&place.data)?;
    let mut restored = Restored::default();
    let ours = |into: &Path, within: EntryPath| Materialize {
        within: Some(within),
        owners: false,
        given_to: owner.map(|owner| (owner.uid, owner.gid)),
        ..Materialize::all(into)
    };
    let first = Materialize { select: listing.first, ..ours(&place.data, path(DATA)?) };
    restored.add(part.materialize(&first, context)?);
    restore_tablespaces(part, base, &listing.tablespaces, place, &ours, context, &mut restored)?;
    refuse_lost(&restored.done)?;
    // All of that is on the disk before it; what comes with it and after it is synced at the end.
    let last = Materialize { select: vec![control], sync: false, ..ours(&place.data, path(DATA)?) };
    restored.add(part.materialize(&last, context)?);
    refuse_lost(&restored.done)?;
    for name in ["pg_tblspc", "pg_wal/archive_status"] {
        make_directory(&place.data.join(name))?;
    }
    for (oid, target) in &restored.tablespaces {
        link(target, &place.data.join(format!("pg_tblspc/{oid}")))?;
    }
    let mode = fs::Permissions::from_mode(DIRECTORY_MODE);
    fs::set_permissions(&place.data, mode).map_err(|error| io_fault("set the mode of", &place.data, error))?;
    Ok(restored)
}

fn restore_tablespaces(
    part: &dyn PartReader,
    base: &BaseBackup,
    held: &[String],
    place: &Place,
    ours: &dyn Fn(&Path, EntryPath) -> Materialize,
    context: &RunContext,
    restored: &mut Restored,
) -> Result<()> {
    for tablespace in &base.tablespaces {
        let oid = tablespace.oid.to_string();
        let target = place.tablespaces.join(&oid);
        make_directory(&place.tablespaces)?;
        make_directory(&target)?;
        if held.contains(&oid) {
            let within = path(&[TABLESPACES, b"/", oid.as_bytes()].concat())?;
            restored.add(part.materialize(&ours(&target, within), context)?);
            let mode = fs::Permissions::from_mode(DIRECTORY_MODE);
            fs::set_permissions(&target, mode).map_err(|error| io_fault("set the mode of", &target, error))?;
        }
        restored.tablespaces.push((tablespace.oid, target));
    }
    Ok(())
}

fn refuse_lost(done: &Materialized) -> Result<()> {
    let Some(lost) = done.lost.first() else { return Ok(()) };
    let more = done.lost.len() - 1;
    Err(Fault::new(codes::REPO_RESTORE_INCOMPLETE, format!("restore `{}` and {more} more files", lost.path))
        .because(lost.why.clone())
        .hint("a cluster without them is not usable; restore from another base backup or a copy of the repository"))
}

pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).recursive(false).create(path);
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).map_err(|error| io_fault("make", parent, error))?;
            fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path).map_err(|error| io_fault("make", path, error))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|error| io_fault("make", path, error)),
    }
}

fn link(target: &Path, at: &Path) -> Result<()> {
    match symlink(target, at) {
        // Of a restore that was interrupted.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(at).and_then(|()| symlink(target, at)).map_err(|error| io_fault("link", at, error))
        }
        made => made.map_err(|error| io_fault("link", at, error)),
    }
}
