//! The walk: every entry of the configured paths in entry order, with memory for one directory
//! listing per level and a bounded number of open directories.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rekindle_core::cancel::Cancel;
use rekindle_core::entry::{Content, Entry, EntryKind, EntryPath, Meta};
use rekindle_core::note::NoteClass;
use rekindle_core::{Fault, Result};
use rustix::fs::{CWD, FileType, readlinkat};
use rustix::io::Errno;

use super::attributes::{Reach, said, xattrs};
use super::content::{FileSource, never_equal};
use super::exclude::Excludes;
use super::journal::Journal;
use super::layout::Node;
use super::sys::{Links, Names, Status, names_in, open_directory, open_file, open_passage, status_at, status_of};
use super::{bug, read_fault, root_fault};

/// Directories kept open at a time; deeper ones are reached again from below.
const OPEN_DIRECTORIES_MAX: usize = 64;
/// How often a name is looked at again because it changed its kind in between.
const LOOKS_MAX: usize = 5;

/// The tag that marks a directory whose content can be made again
/// (Cache Directory Tagging Specification, <https://bford.info/cachedir/>).
const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// What the walk goes by.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) excludes: Excludes,
    pub(super) one_file_system: bool,
    pub(super) exclude_caches: bool,
    /// Never taken over unread, whatever the repository knows.
    pub(super) read_all: bool,
    /// Inodes (device, number) of rekindle's own places.
    pub(super) never: BTreeSet<(u64, u64)>,
    pub(super) effective_uid: u32,
}

/// What is taken of a directory.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// Only the way to configured paths.
    Passage,
    /// Everything; patterns are matched from this byte of the path on. The device is that of the
    /// configured path.
    All { relative_from: usize, device: u64 },
}

/// A directory being walked.
struct Frame {
    /// `None` while it is closed for being far up.
    open: Option<Arc<OwnedFd>>,
    identity: (u64, u64),
    path: Option<EntryPath>,
    names: Names,
    node: Option<Arc<Node>>,
    scope: Scope,
}

/// What looking at a name gave.
enum Seen {
    Entry(Box<Entry>),
    Nothing,
    /// It is not any more what it was: look again.
    Changed,
}

/// A name to be looked at.
struct Spot {
    directory: Arc<OwnedFd>,
    name: Vec<u8>,
    path: EntryPath,
    node: Option<Arc<Node>>,
    scope: Scope,
}

impl Spot {
    fn is_root(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.root)
    }
}

/// Gives the entries of the configured paths.
pub(super) struct Walk {
    rules: Arc<Rules>,
    journal: Arc<Journal>,
    cancel: Cancel,
    frames: Vec<Frame>,
}

impl Walk {
    /// Starts at `/`.
    pub(super) fn new(top: Arc<Node>, rules: Arc<Rules>, journal: Arc<Journal>, cancel: Cancel) -> Result<Self> {
        let mut walk = Self { rules, journal, cancel, frames: Vec::new() };
        let opened =
            if top.root { open_directory(CWD, b"/", Links::Follow) } else { open_passage(CWD, b"/", Links::Follow) };
        let open = opened.map_err(top_fault)?;
        let status = status_of(open.as_fd()).map_err(top_fault)?;
        let (names, scope) = if top.root {
            let scope = Scope::All { relative_from: 0, device: status.device };
            (names_in(&open).0, scope)
        } else {
            let below = top.below.keys().map(Vec::as_slice);
            (Names::from_sorted(below), Scope::Passage)
        };
        walk.push(open, &status, None, names, Some(top), scope);
        Ok(walk)
    }

    fn push(
        &mut self,
        open: OwnedFd,
        status: &Status,
        path: Option<EntryPath>,
        names: Names,
        node: Option<Arc<Node>>,
        scope: Scope,
    ) {
        self.frames.push(Frame { open: Some(Arc::new(open)), identity: status.identity(), path, names, node, scope });
        if let Some(far) = self.frames.len().checked_sub(OPEN_DIRECTORIES_MAX + 1) {
            self.frames[far].open = None;
        }
    }

    /// Leaves a directory; the one above is opened again if it was closed.
    fn pop(&mut self) -> Result<()> {
        let Some(left) = self.frames.pop() else {
            return Ok(());
        };
        let Some(above) = self.frames.last_mut() else {
            return Ok(());
        };
        if above.open.is_some() {
            return Ok(());
        }
        let Some(from) = left.open else {
            return Err(bug("a directory was left that was not open"));
        };
        let found =
            open_directory(from.as_fd(), b"..", Links::Refuse).and_then(|open| Ok((status_of(open.as_fd())?, open)));
        match found {
            Ok((status, open)) if status.identity() == above.identity => {
                above.open = Some(Arc::new(open));
                Ok(())
            }
            result => {
                let why = result.map_or_else(
                    |errno| format!("return to it: {}", said(errno)),
                    |_| "it was moved while it was walked".to_owned(),
                );
                above.names = Names::default();
                // Keeps the rule that a frame on top is open; its names are given up.
                above.open = Some(from);
                match above.path.clone() {
                    Some(path) => self.journal.note(NoteClass::Unreadable, &path, why),
                    None => Err(bug("the top directory was lost")),
                }
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        loop {
            self.cancel.check()?;
            let Some(frame) = self.frames.last_mut() else {
                return Ok(None);
            };
            let Some(name) = frame.names.take_next() else {
                self.pop()?;
                continue;
            };
            let Some(directory) = frame.open.clone() else {
                return Err(bug("a directory on top was not open"));
            };
            let path = match &frame.path {
                Some(above) => above.child(&name),
                None => EntryPath::new(name.clone()),
            };
            let path = path.map_err(|why| bug("the kernel gave an unusable name").because(why))?;
            let node = frame.node.as_ref();
            let spot = Spot {
                node: node.and_then(|node| node.below.get(&name)).cloned(),
                scope: frame.scope,
                directory,
                name,
                path,
            };
            if let Some(entry) = self.visit(&spot)? {
                return Ok(Some(entry));
            }
        }
    }

    fn visit(&mut self, spot: &Spot) -> Result<Option<Entry>> {
        for _ in 0..LOOKS_MAX {
            match self.look(spot)? {
                Seen::Entry(entry) => return Ok(Some(*entry)),
                Seen::Nothing => return Ok(None),
                Seen::Changed => {}
            }
        }
        if spot.is_root() {
            return Err(root_fault(&spot.path, Errno::AGAIN));
        }
        let text = "it was replaced again and again";
        self.journal.note(NoteClass::Unreadable, &spot.path, text)?;
        Ok(None)
    }

    fn look(&mut self, spot: &Spot) -> Result<Seen> {
        let relative_from = match spot.scope {
            // Above the configured paths links are the user's own way of naming places.
            Scope::Passage if !spot.is_root() => return self.pass(spot, Links::Follow),
            Scope::Passage => 0,
            Scope::All { relative_from, .. } => relative_from,
        };
        let status = match status_at(spot.directory.as_fd(), &spot.name) {
            Ok(status) => status,
            Err(errno) => return self.missing(spot, "look at it", errno),
        };
        let is_directory = status.kind == FileType::Directory;
        let relative = &spot.path.as_bytes()[relative_from..];
        if !spot.is_root() && self.rules.excludes.hold(relative, is_directory) {
            self.journal.count(|counts| counts.excluded += 1);
            return match &spot.node {
                Some(_) => self.pass(spot, Links::Refuse),
                None => Ok(Seen::Nothing),
            };
        }
        match status.kind {
            FileType::Directory => self.directory(spot, &status),
            FileType::RegularFile => self.file(spot, &status),
            FileType::Symlink => self.symlink(spot, &status),
            _ => self.special(spot, &status),
        }
    }

    /// An entry that could not be looked at or opened.
    fn missing(&self, spot: &Spot, doing: &str, errno: Errno) -> Result<Seen> {
        if spot.is_root() {
            return Err(root_fault(&spot.path, errno));
        }
        match errno {
            Errno::NOENT => {
                self.journal.note(NoteClass::Vanished, &spot.path, "it is gone")?;
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                return Err(read_fault(&spot.path, errno));
            }
            errno => {
                let text = format!("{doing}: {}", said(errno));
                self.journal.note(NoteClass::Unreadable, &spot.path, text)?;
            }
        }
        Ok(Seen::Nothing)
    }

    /// A directory of which only the way to configured paths is taken.
    fn pass(&mut self, spot: &Spot, links: Links) -> Result<Seen> {
        let open =
            open_passage(spot.directory.as_fd(), &spot.name, links).map_err(|errno| root_fault(&spot.path, errno))?;
        let status = status_of(open.as_fd()).map_err(|errno| root_fault(&spot.path, errno))?;
        let meta = self.meta(spot, EntryKind::Directory, &status, Reach::Place(open.as_fd()))?;
        let below = spot.node.iter().flat_map(|node| node.below.keys());
        let names = Names::from_sorted(below.map(Vec::as_slice));
        let (path, node) = (Some(spot.path.clone()), spot.node.clone());
        self.push(open, &status, path, names, node, Scope::Passage);
        Ok(self.bare(spot, meta))
    }

    fn directory(&mut self, spot: &Spot, listed: &Status) -> Result<Seen> {
        let reach = Reach::Name(spot.directory.as_fd(), &spot.name);
        if let Some(why) = self.barred(spot, listed) {
            let meta = self.meta(spot, EntryKind::Directory, listed, reach)?;
            self.journal.note(NoteClass::NotEntered, &spot.path, why)?;
            return Ok(self.bare(spot, meta));
        }
        let open = match open_directory(spot.directory.as_fd(), &spot.name, Links::Refuse) {
            Ok(open) => open,
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Seen::Changed),
            Err(Errno::NOENT) => return self.missing(spot, "open it", Errno::NOENT),
            Err(errno) => {
                // The directory itself is known; what is in it is not.
                self.missing(spot, "list the directory", errno)?;
                let meta = self.meta(spot, EntryKind::Directory, listed, reach)?;
                return Ok(self.bare(spot, meta));
            }
        };
        let status = status_of(open.as_fd()).map_err(|errno| read_fault(&spot.path, errno))?;
        let kind = EntryKind::Directory;
        let meta = self.meta(spot, kind, &status, Reach::Open(open.as_fd()))?;
        let (mut names, error) = names_in(&open);
        if let Some(error) = error {
            if spot.is_root() {
                return Err(root_fault(&spot.path, error));
            }
            let count = names.len();
            let text = format!("list the directory: {error} (after {count} names)");
            self.journal.note(NoteClass::Unreadable, &spot.path, text)?;
        }
        if self.rules.exclude_caches && names.contains(CACHE_TAG_NAME) && is_cache(&open) {
            let node = spot.node.as_ref();
            names.retain(|name| name == CACHE_TAG_NAME || node.is_some_and(|node| node.below.contains_key(name)));
            self.journal.count(|counts| counts.caches += 1);
        }
        let scope = match spot.scope {
            Scope::All { .. } if !spot.is_root() => spot.scope,
            _ => Scope::All { relative_from: spot.path.as_bytes().len() + 1, device: status.device },
        };
        let (path, node) = (Some(spot.path.clone()), spot.node.clone());
        self.push(open, &status, path, names, node, scope);
        Ok(self.bare(spot, meta))
    }

    /// Why a directory is recorded but not entered.
    fn barred(&self, spot: &Spot, status: &Status) -> Option<&'static str> {
        if self.rules.never.contains(&status.identity()) {
            return Some("it belongs to rekindle itself");
        }
        match spot.scope {
            Scope::All { device, .. } if self.rules.one_file_system && device != status.device && !spot.is_root() => {
                Some("another file system begins here")
            }
            _ => None,
        }
    }

    fn file(&self, spot: &Spot, status: &Status) -> Result<Seen> {
        let reach = Reach::Name(spot.directory.as_fd(), &spot.name);
        let meta = self.meta(spot, EntryKind::File, status, reach)?;
        self.journal.count(|counts| {
            counts.files += 1;
            counts.hard_links += u64::from(status.links > 1);
            counts.bytes += status.size;
            counts.allocated_bytes += status.allocated;
        });
        let uid = self.rules.effective_uid;
        let source = FileSource {
            journal: Arc::clone(&self.journal),
            directory: Arc::clone(&spot.directory),
            name: spot.name.clone(),
            path: spot.path.clone(),
            listed: *status,
            meta: meta.clone(),
            is_root: spot.is_root(),
            keep_access_time: uid == 0 || uid == status.uid,
            tries: 0,
        };
        let mut meta = meta;
        if self.rules.read_all {
            meta.changed = never_equal(meta.changed);
        }
        Ok(Seen::Entry(Box::new(Entry { path: spot.path.clone(), meta, content: Content::File(Box::new(source)) })))
    }

    fn symlink(&self, spot: &Spot, status: &Status) -> Result<Seen> {
        let target = match readlinkat(spot.directory.as_fd(), spot.name.as_slice(), Vec::new()) {
            Ok(target) => target.into_bytes(),
            Err(Errno::INVAL) => return Ok(Seen::Changed),
            Err(errno) => return self.missing(spot, "read the link", errno),
        };
        if spot.is_root() {
            let shown = String::from_utf8_lossy(&target).escape_debug().to_string();
            let text = format!("a configured path is a symbolic link: only the link is saved, not `{shown}`");
            self.journal.note(NoteClass::Information, &spot.path, text)?;
        }
        let reach = Reach::Name(spot.directory.as_fd(), &spot.name);
        let meta = self.meta(spot, EntryKind::Symlink { target }, status, reach)?;
        Ok(self.bare(spot, meta))
    }

    fn special(&self, spot: &Spot, status: &Status) -> Result<Seen> {
        let device = status.node_device;
        let (kind, word) = match status.kind {
            FileType::Fifo => (EntryKind::Fifo, "a FIFO"),
            FileType::Socket => (EntryKind::Socket, "a socket"),
            FileType::CharacterDevice => (EntryKind::CharDevice { device }, "a character device"),
            FileType::BlockDevice => (EntryKind::BlockDevice { device }, "a block device"),
            _ => {
                let text = "it is of a kind that is not known";
                self.journal.note(NoteClass::Unreadable, &spot.path, text)?;
                return Ok(Seen::Nothing);
            }
        };
        let text = format!("{word}: recorded, never opened");
        self.journal.note(NoteClass::Special, &spot.path, text)?;
        let reach = Reach::Name(spot.directory.as_fd(), &spot.name);
        let meta = self.meta(spot, kind, status, reach)?;
        Ok(self.bare(spot, meta))
    }

    fn meta(&self, spot: &Spot, kind: EntryKind, status: &Status, reach: Reach<'_>) -> Result<Meta> {
        let (xattrs, problem) = xattrs(reach);
        if let Some(why) = problem {
            self.journal.note(NoteClass::AttributeUnreadable, &spot.path, why)?;
        }
        Ok(self.journal.meta(kind, status, xattrs))
    }

    /// An entry without content.
    fn bare(&self, spot: &Spot, meta: Meta) -> Seen {
        self.journal.count(|counts| match meta.kind {
            EntryKind::Directory => counts.directories += 1,
            EntryKind::Symlink { .. } => counts.symlinks += 1,
            _ => counts.special += 1,
        });
        Seen::Entry(Box::new(Entry { path: spot.path.clone(), meta, content: Content::None }))
    }
}

impl Iterator for Walk {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(entry) => entry.map(Ok),
            Err(fault) => {
                self.frames.clear();
                Some(Err(fault))
            }
        }
    }
}

fn top_fault(errno: Errno) -> Fault {
    Fault::new(rekindle_core::codes::FILES_ROOT, "open `/`").because(std::io::Error::from(errno))
}

fn is_cache(directory: &OwnedFd) -> bool {
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    open_file(directory.as_fd(), CACHE_TAG_NAME, false)
        .and_then(|tag| rustix::io::pread(&tag, &mut start, 0))
        .is_ok_and(|length| start[..length] == *CACHE_TAG_SIGNATURE)
}
