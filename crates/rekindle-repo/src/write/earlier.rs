//! The tree of an earlier point, walked in step with the entries; one directory per level is in
//! memory, never the whole tree.

use std::collections::HashMap;

use rekindle_core::entry::{EntryKind, EntryPath, Meta};
use rekindle_core::{Fault, Result, codes};

use super::Shared;
use super::known::TreePlace;
use crate::format::node::{Node, NodeContent};
use crate::format::{Id, tree};

/// An earlier tree of the same component.
pub(super) struct Earlier {
    /// The directory at each level, as the entries are now; `None` where it did not exist.
    levels: Vec<Option<Vec<Node>>>,
    /// Directories that were looked at by path, for entries that come in any order.
    seen: HashMap<EntryPath, Option<Vec<Node>>>,
}

impl Earlier {
    /// Opens the tree. What cannot be read is told to the monitor and not reused.
    pub(super) fn open(shared: &Shared, root: &Id) -> Self {
        Self { levels: vec![load(shared, root)], seen: HashMap::new() }
    }

    /// The node at a path, wherever the entries are now.
    pub(super) fn find_path(&mut self, shared: &Shared, path: &EntryPath) -> Option<&Node> {
        let nodes = match path.parent() {
            None => self.levels.first()?.as_ref()?,
            Some(parent) => {
                if !self.seen.contains_key(&parent) {
                    let subtree = self.find_path(shared, &parent).and_then(|node| match node.content {
                        NodeContent::Subtree(id) => Some(id),
                        _ => None,
                    });
                    let nodes = subtree.and_then(|id| load(shared, &id));
                    self.seen.insert(parent.clone(), nodes);
                }
                self.seen.get(&parent)?.as_ref()?
            }
        };
        let at = nodes.binary_search_by(|node| node.name.as_slice().cmp(path.name())).ok()?;
        nodes.get(at)
    }

    /// Takes note of the next entry, which has `depth` directories around it; gives its node.
    pub(super) fn step(&mut self, shared: &Shared, depth: usize, name: &[u8], meta: &Meta) -> Option<&Node> {
        self.levels.truncate(depth + 1);
        if meta.kind == EntryKind::Directory {
            let subtree = self.find(depth, name).and_then(|node| match node.content {
                NodeContent::Subtree(id) => Some(id),
                _ => None,
            });
            let level = subtree.and_then(|id| load(shared, &id));
            self.levels.push(level);
            return None;
        }
        self.find(depth, name)
    }

    fn find(&self, depth: usize, name: &[u8]) -> Option<&Node> {
        let nodes = self.levels.get(depth)?.as_ref()?;
        let at = nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).ok()?;
        nodes.get(at)
    }
}

/// The blobs of an earlier file, if this entry is the same file, unchanged, and all of them are
/// still in the repository.
pub(super) fn unchanged(shared: &Shared, before: &Node, now: &Meta) -> Option<Vec<Id>> {
    let NodeContent::Blobs(blobs) = &before.content else {
        return None;
    };
    let then = &before.meta;
    let same = then.kind == EntryKind::File
        && now.kind == EntryKind::File
        && then.size == now.size
        && then.modified == now.modified
        && then.changed == now.changed
        && then.inode == now.inode
        && now.inode != 0;
    if !same {
        return None;
    }
    whole(shared, blobs, now.size)
}

/// The blobs of an earlier file of which the source says that it is the same as this entry.
pub(super) fn held(shared: &Shared, before: &Node, now: &Meta) -> Option<Vec<Id>> {
    let NodeContent::Blobs(blobs) = &before.content else {
        return None;
    };
    let files = before.meta.kind == EntryKind::File && now.kind == EntryKind::File;
    if files && before.meta.size == now.size { whole(shared, blobs, now.size) } else { None }
}

/// The blobs of an earlier file with the lengths of their contents, if all of them are still in the repository.
pub(super) fn parts(shared: &Shared, before: &Node, now: &Meta) -> Option<Vec<(Id, u64)>> {
    let NodeContent::Blobs(blobs) = &before.content else {
        return None;
    };
    let files = before.meta.kind == EntryKind::File && now.kind == EntryKind::File;
    let part = |id: &Id| Some((*id, shared.known.data_length(id)?));
    if files { blobs.iter().map(part).collect() } else { None }
}

/// The blobs, if all of them are still in the repository and make up this length.
fn whole(shared: &Shared, blobs: &[Id], size: u64) -> Option<Vec<Id>> {
    let held = blobs.iter().try_fold(0_u64, |sum, id| Some(sum + shared.known.data_length(id)?))?;
    (held == size).then(|| blobs.to_vec())
}

fn load(shared: &Shared, id: &Id) -> Option<Vec<Node>> {
    match read(shared, id) {
        Ok(mut nodes) => {
            nodes.sort_by(|a, b| a.name.cmp(&b.name));
            Some(nodes)
        }
        Err(fault) => {
            shared.monitor.problem("repository", &fault);
            None
        }
    }
}

fn read(shared: &Shared, id: &Id) -> Result<Vec<Node>> {
    let damaged = |why: String| {
        Fault::new(codes::REPO_DAMAGED, format!("read earlier directory {id}"))
            .because(why)
            .hint("its files are read again; run `rekindle verify`")
    };
    let TreePlace { pack, pack_end, blob } =
        shared.known.tree(id).ok_or_else(|| damaged("no index file names it".to_owned()))?;
    let start = u64::from(blob.offset);
    let range = start..start + u64::from(blob.length);
    let sealed = shared.blocks.range(shared.repo.store(), pack, u64::from(*pack_end), range)?;
    blob.open(shared.repo.key(), &sealed).and_then(|json| tree::decode(&json)).map_err(|bad| damaged(bad.to_string()))
}
