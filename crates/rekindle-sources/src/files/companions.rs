//! Files that belong to another kind of component: configuration, rules, provisioning, plugins.
//!
//! They stand in the part below `files/`, under their full path, and are captured as the kind
//! `files` does it. A restore in place puts back those that are not there any more and never
//! writes over one that is: it may have been changed since on purpose.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::{Entries, Entry, EntryKind, EntryPath, Meta};
use rekindle_core::note::Notes;
use rekindle_core::port::{Materialize, Materialized, PartReader, RunContext, StoredEntry};
use rekindle_core::{Fault, Result};
use rustix::fs::{CWD, FileType, readlinkat};
use rustix::io::Errno;

use super::bug;
use super::check::same_bytes;
use super::exclude::Excludes;
use super::journal::Journal;
use super::layout::{Layout, show};
use super::restore::{first, may_set_owners};
use super::sys::{Links, open_directory, open_file, status_at};
use super::walk::{Rules, Walk};

/// The directory of a part that holds them.
pub(crate) const TOP: &str = "files";

/// A capture of such files, as a piece of another one.
pub(crate) struct Companions {
    walk: Option<Walk>,
    journal: Arc<Journal>,
    at: jiff::Timestamp,
}

/// Whether a file or directory is there and may be read.
pub(crate) fn look(path: &Path) -> std::io::Result<()> {
    let name = path.as_os_str().as_encoded_bytes();
    let opened = status_at(CWD, name).and_then(|status| match status.kind {
        FileType::Directory => open_directory(CWD, name, Links::Refuse).map(|_| ()),
        FileType::RegularFile => open_file(CWD, name, false).map(|_| ()),
        _ => Ok(()),
    });
    opened.map_err(std::io::Error::from)
}

impl Companions {
    /// Gets ready to walk; every path is absolute and has been looked at. No paths, no entries.
    pub(crate) fn begin(paths: &[PathBuf], context: &RunContext) -> Result<Self> {
        let journal = Arc::new(Journal::new(std::collections::BTreeMap::new()));
        let mut this = Self { walk: None, journal: Arc::clone(&journal), at: context.clock.now() };
        if paths.is_empty() {
            return Ok(this);
        }
        let rules = Arc::new(Rules {
            excludes: Excludes::new(&[])?,
            one_file_system: false,
            exclude_caches: false,
            read_all: false,
            never: BTreeSet::new(),
            effective_uid: rustix::process::geteuid().as_raw(),
        });
        let top = Layout::new(paths)?.top;
        this.walk = Some(Walk::new(top, rules, journal, context.cancel.clone())?);
        Ok(this)
    }

    /// The entries, the directory that holds them first.
    pub(crate) fn entries(&mut self) -> Entries {
        let Some(walk) = self.walk.take() else {
            return Box::new(std::iter::empty());
        };
        let meta = Meta { mode: 0o755, ..Meta::synthetic(EntryKind::Directory, self.at) };
        let content = rekindle_core::entry::Content::None;
        let top = top().map(|path| Entry { path, meta, content });
        let inside = |mut entry: Entry| {
            entry.path = below_top(&entry.path)?;
            Ok(entry)
        };
        Box::new(std::iter::once(top).chain(walk.map(move |entry| entry.and_then(inside))))
    }

    /// What was noted about single files.
    pub(crate) fn notes(&self) -> Notes {
        self.journal.notes()
    }
}

fn top() -> Result<EntryPath> {
    EntryPath::new(TOP).map_err(|why| bug("name the directory of the files").because(why))
}

fn below_top(path: &EntryPath) -> Result<EntryPath> {
    let mut bytes = TOP.as_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(path.as_bytes());
    EntryPath::new(bytes).map_err(|why| bug("name a file").because(why))
}

/// What a restore did with them.
#[derive(Debug, Default)]
pub(crate) struct PutBack {
    pub(crate) written: Materialized,
    /// Were not there and are now.
    pub(crate) restored: Vec<PathBuf>,
    /// Are there and differ from the point; the point's are in `aside`.
    pub(crate) differing: Vec<PathBuf>,
    pub(crate) aside: Option<PathBuf>,
}

impl PutBack {
    /// What an operator should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.restored.is_empty() {
            warnings.push(format!("put back where nothing was: {}", list(&self.restored)));
        }
        if let Some(aside) = &self.aside {
            let differing = list(&self.differing);
            warnings.push(format!(
                "left as they are, because they differ from the point: {differing}; those of the point are in `{}`",
                show(aside)
            ));
        }
        warnings
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| format!("`{}`", show(path))).collect();
    shown.join(", ")
}

/// Writes all of them into a directory.
pub(crate) fn write(part: &dyn PartReader, into: &Path, context: &RunContext) -> Result<Materialized> {
    write_some(part, into, Vec::new(), context)
}

/// Whether the part has any.
pub(crate) fn any(part: &dyn PartReader) -> Result<bool> {
    Ok(first(part, &top()?)?.is_some())
}

fn write_some(
    part: &dyn PartReader,
    into: &Path,
    select: Vec<EntryPath>,
    context: &RunContext,
) -> Result<Materialized> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(into)
        .map_err(|error| super::restore::target_fault("create", into, error))?;
    let owners = may_set_owners();
    let order = Materialize { within: Some(top()?), select, owners, ..Materialize::all(into) };
    part.materialize(&order, context)
}

/// Puts back what is missing at its place; what differs is written below `aside` instead.
pub(crate) fn put_back(part: &dyn PartReader, aside: &Path, context: &RunContext) -> Result<PutBack> {
    let mut done = PutBack::default();
    if !any(part)? {
        return Ok(done);
    }
    let (mut missing, mut differing): (Vec<EntryPath>, Vec<EntryPath>) = (Vec::new(), Vec::new());
    for stored in part.list(Some(&top()?))? {
        context.cancel.check()?;
        let stored = stored?;
        let Some(live) = live(&stored.path) else { continue };
        if missing.last().is_some_and(|above| stored.path.is_within(above)) {
            continue;
        }
        match compare(part, &stored, &live)? {
            Found::Nothing => {
                missing.push(stored.path);
                done.restored.push(live);
            }
            Found::Same => {}
            Found::Other => {
                differing.push(stored.path);
                done.differing.push(live);
            }
        }
    }
    for (path, live) in missing.into_iter().zip(&done.restored) {
        let into = live.parent().unwrap_or(Path::new("/"));
        let order = Materialize {
            within: path.parent(),
            select: vec![path],
            owners: may_set_owners(),
            ..Materialize::all(into)
        };
        add(&mut done.written, part.materialize(&order, context)?);
    }
    if !differing.is_empty() {
        add(&mut done.written, write_some(part, aside, differing, context)?);
        done.aside = Some(aside.to_owned());
    }
    Ok(done)
}

fn add(total: &mut Materialized, more: Materialized) {
    total.entries += more.entries;
    total.bytes += more.bytes;
    total.kept_bytes += more.kept_bytes;
    total.lost.extend(more.lost);
    total.attribute_problems.extend(more.attribute_problems);
}

/// Where an entry belongs on this machine; `None` for the directory that holds all of them.
fn live(path: &EntryPath) -> Option<PathBuf> {
    let rest = path.as_bytes().get(TOP.len() + 1..)?;
    Some(Path::new("/").join(OsStr::from_bytes(rest)))
}

enum Found {
    Nothing,
    Same,
    Other,
}

fn compare(part: &dyn PartReader, stored: &StoredEntry, live: &Path) -> Result<Found, Fault> {
    let name = live.as_os_str().as_encoded_bytes();
    let status = match status_at(CWD, name) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(errno) => return Err(super::restore::target_fault("look at", live, errno)),
        Ok(status) => status,
    };
    let same = match &stored.meta.kind {
        // The way to it may lead through a link of this machine's own.
        EntryKind::Directory => live.is_dir(),
        EntryKind::File => {
            status.kind == FileType::RegularFile
                && status.size == stored.meta.size
                && same_bytes(part, &stored.path, live, u64::MAX)?.is_ok()
        }
        EntryKind::Symlink { target } => {
            readlinkat(CWD, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.as_slice())
        }
        _ => true,
    };
    Ok(if same { Found::Same } else { Found::Other })
}
