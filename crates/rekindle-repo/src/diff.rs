//! What differs between two trees, without reading content: equal subtrees are skipped by their
//! ids, and of the others only the directories are read, one pair at a time.

use std::cmp::Ordering;
use std::mem::discriminant;

use rekindle_core::entry::EntryKind;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::{Cancel, Fault, Result, codes};
use serde::Serialize;

use crate::format::Id;
use crate::format::node::{Node, NodeContent};
use crate::points::Reader;
use crate::read::blobs::SharedReader;
use crate::read::tree::{DEPTH_MAX, check_node, readable};

/// How an entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Added,
    Removed,
    /// Other content, target or kind.
    Changed,
    /// The same content with another mode, owner, time or attribute.
    Attributes,
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Below the component, escaped for reading; a directory ends with `/`.
    pub path: String,
    pub change: Change,
    /// Bytes before and after; `None` where it is no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Walks the trees of a component in two points and tells every difference in the order of names.
/// `None` stands for a point without the component. Memory is bound by the width of the
/// directories on one path.
pub fn components(
    reader: &Reader,
    before: Option<&ComponentRecord>,
    after: Option<&ComponentRecord>,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Difference),
) -> Result<()> {
    let tree = |record: Option<&ComponentRecord>| {
        record.map(|record| record.tree.parse::<Id>()).transpose().map_err(|bad| {
            Fault::new(codes::REPO_MANIFEST, "compare points: a manifest names a tree that is no id").because(bad)
        })
    };
    let (before, after) = (tree(before)?, tree(after)?);
    let mut walk = Walk { reader: &reader.0, cancel, tell };
    walk.trees("", before.as_ref(), after.as_ref(), 0)
}

struct Walk<'a> {
    reader: &'a SharedReader,
    cancel: &'a Cancel,
    tell: &'a mut dyn FnMut(Difference),
}

impl Walk<'_> {
    fn trees(&mut self, above: &str, before: Option<&Id>, after: Option<&Id>, depth: usize) -> Result<()> {
        if before == after {
            return Ok(());
        }
        self.cancel.check()?;
        if depth > DEPTH_MAX {
            return Err(Fault::new(codes::REPO_DAMAGED, format!("compare `{above}`"))
                .because("the directories are nested too deep"));
        }
        let mut old = self.nodes(above, before)?.into_iter().peekable();
        let mut new = self.nodes(above, after)?.into_iter().peekable();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let a = if order == Ordering::Greater { None } else { old.next() };
            let b = if order == Ordering::Less { None } else { new.next() };
            self.pair(above, a.as_ref(), b.as_ref(), depth)?;
        }
    }

    fn nodes(&self, above: &str, tree: Option<&Id>) -> Result<Vec<Node>> {
        let Some(tree) = tree else { return Ok(Vec::new()) };
        let nodes = self.reader.tree(tree).map_err(|fault| fault.during(format!("read the directory `{above}`")))?;
        let mut before: Option<&[u8]> = None;
        for node in &nodes {
            // Out of order, a merge would tell nonsense.
            check_node(before, node).map_err(|bad| {
                Fault::new(codes::REPO_DAMAGED, format!("read the directory `{above}`")).because(bad.text())
            })?;
            before = Some(&node.name);
        }
        Ok(nodes)
    }

    fn pair(&mut self, above: &str, old: Option<&Node>, new: Option<&Node>, depth: usize) -> Result<()> {
        let Some(node) = new.or(old) else { return Ok(()) };
        let name = readable(&node.name);
        let same_kind = match (old, new) {
            (Some(a), Some(b)) => discriminant(&a.meta.kind) == discriminant(&b.meta.kind),
            _ => true,
        };
        if !same_kind {
            // A file that became a directory: one is gone, the other is new.
            self.pair(above, old, None, depth)?;
            return self.pair(above, None, new, depth);
        }
        let directory = node.meta.kind == EntryKind::Directory;
        let path = format!("{above}{name}{}", if directory { "/" } else { "" });
        if let Some(change) = change(old, new) {
            (self.tell)(Difference { path: path.clone(), change, before: size(old), after: size(new) });
        }
        let inner = |node: Option<&Node>| match node.map(|node| &node.content) {
            Some(NodeContent::Subtree(tree)) => Some(*tree),
            _ => None,
        };
        self.trees(&path, inner(old).as_ref(), inner(new).as_ref(), depth + 1)
    }
}

fn size(node: Option<&Node>) -> Option<u64> {
    node.filter(|node| node.meta.kind == EntryKind::File).map(|node| node.meta.size)
}

/// Inodes, devices and access times are of no file's content and differ from host to host.
fn change(old: Option<&Node>, new: Option<&Node>) -> Option<Change> {
    let (old, new) = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => return Some(Change::Added),
        (Some(_), None) => return Some(Change::Removed),
        (Some(old), Some(new)) => (old, new),
    };
    let directory = matches!(old.content, NodeContent::Subtree(_));
    let content = directory || (old.content == new.content && old.meta.kind == new.meta.kind);
    let attributes = |node: &Node| {
        let meta = &node.meta;
        // The times of a directory change with every file in it.
        let modified = if directory { None } else { Some(meta.modified) };
        (meta.mode, meta.uid, meta.gid, modified, meta.xattrs.clone())
    };
    match (content, attributes(old) == attributes(new)) {
        (false, _) => Some(Change::Changed),
        (true, false) => Some(Change::Attributes),
        (true, true) => None,
    }
}
