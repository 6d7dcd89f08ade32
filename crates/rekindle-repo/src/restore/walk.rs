//! Walking the stored directories: makes the directories of the target and everything without
//! content, collects the files.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rekindle_core::Result;
use rekindle_core::entry::{EntryKind, EntryPath, Meta};
use rekindle_core::fault::Class;
use rustix::fs::{FileType, Mode};
use rustix::io::{self, Errno};

use super::ahead::Ahead;
use super::attributes::set_named;
use super::batch;
use super::place::{DirectoryCache, DirectoryNumber, DirectoryRecord, file_type, look, open_directory};
use super::plan::{BLOBS_PER_BATCH_MAX, FILES_PER_BATCH_MAX, FileTask, Start};
use super::site::Site;
use super::space::{self, TargetError};
use super::special;
use crate::format::Id;
use crate::format::node::{Node, NodeContent};
use crate::read::tree::{DEPTH_MAX, check_node};

/// A further name of a file that is restored under another one.
pub(super) struct HardLink {
    pub(super) first: (DirectoryNumber, Box<[u8]>),
    pub(super) directory: DirectoryNumber,
    pub(super) name: Box<[u8]>,
    pub(super) size: u64,
}

/// A directory to go through.
struct Visit {
    tree: Id,
    /// Its path in the part; `None` for the top.
    path: Option<EntryPath>,
    number: DirectoryNumber,
    /// Whether it was there before.
    existed: bool,
    depth: usize,
}

/// What a selection says about a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// It and everything below.
    All,
    /// Only because something below is wanted.
    OnTheWay,
    No,
}

/// First name and content of every file with several names: by device and inode.
type FirstNames = HashMap<(u64, u64), (DirectoryNumber, Box<[u8]>, Id)>;

pub(super) struct Walker<'a, 'b> {
    site: &'b mut Site<'a>,
    todo: Vec<Visit>,
    ahead: Ahead,
    batch: Vec<FileTask>,
    batch_blobs: usize,
    first_names: FirstNames,
    links: Vec<HardLink>,
}

impl<'a, 'b> Walker<'a, 'b> {
    pub(super) fn new(site: &'b mut Site<'a>) -> Self {
        Self {
            site,
            todo: Vec::new(),
            ahead: Ahead::default(),
            batch: Vec::new(),
            batch_blobs: 0,
            first_names: HashMap::new(),
            links: Vec::new(),
        }
    }

    /// Restores everything below `tree`; gives the hard links that are still to be made.
    pub(super) fn run(mut self, tree: Id, within: Option<EntryPath>) -> Result<Vec<HardLink>> {
        self.todo.push(Visit { tree, path: within, number: 0, existed: true, depth: 0 });
        while let Some(visit) = self.todo.pop() {
            self.site.check_cancelled()?;
            self.directory(&visit)?;
            if self.batch.len() >= FILES_PER_BATCH_MAX || self.batch_blobs >= BLOBS_PER_BATCH_MAX {
                self.flush()?;
            }
        }
        self.flush()?;
        Ok(self.links)
    }

    fn flush(&mut self) -> Result<()> {
        self.batch_blobs = 0;
        batch::restore(self.site, std::mem::take(&mut self.batch))
    }

    fn directory(&mut self, visit: &Visit) -> Result<()> {
        let following = self.todo.iter().rev().map(|next| &next.tree);
        let nodes = match self.ahead.take(&self.site.reader, &visit.tree, following) {
            Ok(nodes) => nodes,
            Err(fault) if fault.class() == Class::Unreachable => return Err(fault),
            Err(fault) => {
                let why = format!("and everything below it: {}", fault.chain());
                self.lose_directory(visit, &why);
                return Ok(());
            }
        };
        if visit.existed && self.site.request.delete_extra {
            self.delete_extra(visit, &nodes)?;
        }
        let mut before: Option<Vec<u8>> = None;
        let mut inner = Vec::new();
        for node in nodes {
            if let Err(bad) = check_node(before.as_deref(), &node) {
                let why = format!("it is not restored: {}", bad.text());
                self.site.lose(visit.number, &node.name, &why);
                continue;
            }
            before = Some(node.name.clone());
            self.node(visit, node, &mut inner)?;
        }
        // The last one pushed is visited first: keeps the order of the part.
        inner.reverse();
        self.todo.append(&mut inner);
        Ok(())
    }

    fn lose_directory(&self, visit: &Visit, why: &str) {
        let record = self.site.directories.get(visit.number);
        self.site.lose(record.parent, &record.name, why);
    }

    fn wanted(&self, path: &EntryPath) -> Wanted {
        let select = &self.site.request.select;
        if select.is_empty() || select.iter().any(|chosen| path.is_within(chosen)) {
            Wanted::All
        } else if select.iter().any(|chosen| chosen.is_within(path)) {
            Wanted::OnTheWay
        } else {
            Wanted::No
        }
    }

    fn node(&mut self, visit: &Visit, node: Node, inner: &mut Vec<Visit>) -> Result<()> {
        let path = match &visit.path {
            Some(path) => path.child(&node.name),
            None => EntryPath::new(node.name.clone()),
        };
        let path = match path {
            Ok(path) => path,
            Err(bad) => {
                self.site.lose(visit.number, &node.name, bad.0);
                return Ok(());
            }
        };
        let wanted = self.wanted(&path);
        match (wanted, &node.content) {
            (Wanted::No, _) | (Wanted::OnTheWay, NodeContent::Blobs(_) | NodeContent::Nothing) => Ok(()),
            (_, NodeContent::Subtree(tree)) => {
                let tree = *tree;
                self.enter(visit, node, path, tree, wanted, inner)
            }
            (Wanted::All, NodeContent::Blobs(_)) => {
                self.file(visit, node);
                Ok(())
            }
            (Wanted::All, NodeContent::Nothing) => self.special(visit, &node),
        }
    }

    fn enter(
        &mut self,
        visit: &Visit,
        node: Node,
        path: EntryPath,
        tree: Id,
        wanted: Wanted,
        inner: &mut Vec<Visit>,
    ) -> Result<()> {
        if visit.depth >= DEPTH_MAX {
            self.site.lose(visit.number, &node.name, "it is nested too deep");
            return Ok(());
        }
        let made = self.at(visit.number, |directory| {
            let existed = make_directory(directory, &node.name)?;
            let inside = existed.then(|| open_directory(directory, &node.name));
            inside.transpose()
        });
        let existed = match made.map_err(|error| space::judge("make the directory", error)) {
            Ok(None) => false,
            Ok(Some(inside)) => {
                self.site.note_file_system(inside);
                true
            }
            Err(TargetError::Fatal(fault)) => return Err(fault),
            Err(TargetError::Entry(why)) => {
                let why = format!("and everything below it: {why}");
                self.site.lose(visit.number, &node.name, &why);
                return Ok(());
            }
        };
        let number = self.site.directories.add(DirectoryRecord {
            parent: visit.number,
            name: node.name.into_boxed_slice(),
            meta: Some(Box::new(node.meta)),
        });
        if wanted == Wanted::All {
            self.site.done(0, 0);
        }
        inner.push(Visit { tree, path: Some(path), number, existed, depth: visit.depth + 1 });
        Ok(())
    }

    fn file(&mut self, visit: &Visit, node: Node) {
        let NodeContent::Blobs(blobs) = node.content else {
            return;
        };
        let size = node.meta.size;
        let content: Vec<u8> = blobs.iter().flat_map(|id| id.0).collect();
        if self.is_further_name(visit, &node.name, &node.meta, &content) {
            return;
        }
        let name = node.name.into_boxed_slice();
        self.batch_blobs += blobs.len();
        self.batch.push(FileTask {
            directory: visit.number,
            name,
            meta: Box::new(node.meta),
            blobs,
            may_exist: visit.existed,
            size,
            kept: 0,
            start: Start::AtWrite,
            pending: AtomicU32::new(0),
            pending_bytes: AtomicU64::new(0),
            failed: OnceLock::new(),
        });
    }

    /// Whether this is a further name of a file whose first name was met before; it becomes a
    /// hard link then. `content` tells whether both were the same when they were saved.
    fn is_further_name(&mut self, visit: &Visit, name: &[u8], meta: &Meta, content: &[u8]) -> bool {
        if meta.links < 2 || meta.inode == 0 {
            return false;
        }
        let content = Id::of(content);
        let name: Box<[u8]> = name.into();
        match self.first_names.entry((meta.device, meta.inode)) {
            Entry::Vacant(entry) => {
                entry.insert((visit.number, name, content));
                false
            }
            // A file that changed between two looks is two files.
            Entry::Occupied(entry) if entry.get().2 != content => false,
            Entry::Occupied(entry) => {
                let (directory, first, _) = entry.get();
                let first = (*directory, first.clone());
                let size = if meta.kind == EntryKind::File { meta.size } else { 0 };
                self.links.push(HardLink { first, directory: visit.number, name, size });
                true
            }
        }
    }

    fn special(&mut self, visit: &Visit, node: &Node) -> Result<()> {
        let content = format!("{:?}", node.meta.kind);
        if self.is_further_name(visit, &node.name, &node.meta, content.as_bytes()) {
            return Ok(());
        }
        let owners = self.site.owners();
        let made = self.at(visit.number, |directory| {
            special::make(directory, &node.name, &node.meta.kind)?;
            Ok(set_named(directory, &node.name, &node.meta, owners))
        });
        match made.map_err(|error| space::judge(make_what(&node.meta.kind), error)) {
            Ok(problems) => {
                if let Some(text) = problems.text() {
                    let path = self.site.path(visit.number, &node.name);
                    self.site.report.attribute_problem(&path, text);
                }
                self.site.done(0, 0);
            }
            Err(TargetError::Fatal(fault)) => return Err(fault),
            Err(TargetError::Entry(why)) => self.site.lose(visit.number, &node.name, &why),
        }
        Ok(())
    }

    /// Removes what the part does not have from a directory that was there before.
    fn delete_extra(&self, visit: &Visit, nodes: &[Node]) -> Result<()> {
        // What a selection leaves out is not "extra".
        let whole = match &visit.path {
            Some(path) => self.wanted(path) == Wanted::All,
            None => self.site.request.select.is_empty(),
        };
        if !whole {
            return Ok(());
        }
        let keep: HashSet<&[u8]> = nodes.iter().map(|node| node.name.as_slice()).collect();
        let mut failed = Vec::new();
        self.at(visit.number, |directory| {
            for name in special::names(directory)? {
                if keep.contains(name.as_slice()) {
                    continue;
                }
                if let Err(error) = special::remove_all(directory, &name) {
                    failed.push((name, error));
                }
            }
            Ok(())
        })
        .or_else(|error| match space::judge("list the target", error) {
            TargetError::Fatal(fault) => Err(fault),
            TargetError::Entry(why) => {
                self.lose_directory(visit, &why);
                Ok(())
            }
        })?;
        for (name, error) in failed {
            let why = format!("it is not part of the point and could not be removed: {}", std::io::Error::from(error));
            let path = self.site.path(visit.number, &name);
            self.site.report.attribute_problem(&path, why);
        }
        Ok(())
    }

    fn at<T>(&self, number: DirectoryNumber, work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        DirectoryCache::new(self.site.target.as_fd())
            .with(&self.site.directories, number, work)
            .and_then(|result| result)
    }
}

fn make_what(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::Symlink { .. } => "make the symbolic link",
        EntryKind::BlockDevice { .. } | EntryKind::CharDevice { .. } => "make the device",
        EntryKind::Fifo => "make the FIFO",
        EntryKind::Socket => "make the socket",
        EntryKind::File | EntryKind::Directory => "make the entry",
    }
}

/// Makes a directory only its owner can enter; gives whether one was there already.
fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let private = Mode::from_raw_mode(0o700);
    match rustix::fs::mkdirat(parent, name, private) {
        Ok(()) => return Ok(false),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let found = look(parent, name)?.ok_or(Errno::NOENT)?;
    if file_type(&found) != FileType::Directory {
        special::clear(parent, name, file_type(&found))?;
        rustix::fs::mkdirat(parent, name, private)?;
        return Ok(false);
    }
    // A directory an earlier restore closed again (0500, say) must be open for us until the end.
    if found.st_mode & 0o700 != 0o700 {
        let fd = open_directory(parent, name)?;
        rustix::fs::fchmod(&fd, private)?;
    }
    Ok(true)
}
