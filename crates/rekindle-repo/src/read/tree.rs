//! Walking the directories of a snapshot, with names that cannot do harm.

use rekindle_core::entry::{EntryPath, check_name};
use rekindle_core::port::StoredEntry;
use rekindle_core::{Fault, Result, codes};

use super::blobs::SharedReader;
use crate::format::Id;
use crate::format::node::{Node, NodeContent};

/// Directories inside directories; the kernel's own limit on path length is reached far earlier.
pub(crate) const DEPTH_MAX: usize = 2048;

/// Why a node must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadNode {
    /// The name would leave the directory.
    Name(&'static str),
    /// The name is not greater than the one before it: doubled, or out of order.
    Order,
}

impl BadNode {
    /// For reading.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Name(rule) => rule,
            Self::Order => "its name stands twice in its directory, or out of order",
        }
    }
}

/// Checks the name of a node against the rules and against the name before it.
pub(crate) fn check_node(before: Option<&[u8]>, node: &Node) -> Result<(), BadNode> {
    check_name(&node.name).map_err(|bad| BadNode::Name(bad.0))?;
    match before {
        Some(before) if before >= node.name.as_slice() => Err(BadNode::Order),
        _ => Ok(()),
    }
}

/// A name of a node for reading.
pub(crate) fn readable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// The node at `path` below a tree; `REPO_NO_ENTRY` when there is none.
pub(crate) fn find(reader: &SharedReader, root: &Id, path: &EntryPath) -> Result<Node> {
    let absent = || {
        Fault::new(codes::REPO_NO_ENTRY, format!("find `{path}` in the point"))
            .hint("run `rekindle ls` to see what there is")
    };
    let mut tree = *root;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let node = reader.tree(&tree)?.into_iter().find(|node| node.name == name).ok_or_else(absent)?;
        match (names.peek(), &node.content) {
            (None, _) => return Ok(node),
            (Some(_), NodeContent::Subtree(inner)) => tree = *inner,
            (Some(_), _) => return Err(absent()),
        }
    }
    Err(absent())
}

/// Every entry below a tree, in [`EntryPath`] order, read directory by directory.
pub(crate) struct Walk {
    reader: SharedReader,
    /// Open directories: path, nodes still to come, last name.
    stack: Vec<Level>,
    /// A directory whose tree is to be read next.
    enter: Option<(Option<EntryPath>, Id)>,
}

struct Level {
    path: Option<EntryPath>,
    nodes: std::vec::IntoIter<Node>,
    before: Option<Vec<u8>>,
}

impl Walk {
    /// Everything below `tree`, whose own path is `path` (`None`: the top).
    pub(crate) fn below(reader: SharedReader, path: Option<EntryPath>, tree: Id) -> Self {
        Self { reader, stack: Vec::new(), enter: Some((path, tree)) }
    }

    fn enter(&mut self, path: Option<EntryPath>, tree: &Id) -> Result<()> {
        let place = || path.as_ref().map_or_else(|| "the top".to_owned(), |p| format!("`{p}`"));
        if self.stack.len() >= DEPTH_MAX {
            return Err(Fault::new(codes::REPO_DAMAGED, format!("read {}", place()))
                .because("the directories are nested too deep"));
        }
        let nodes = self.reader.tree(tree).map_err(|fault| fault.during(format!("read directory {}", place())))?;
        self.stack.push(Level { path, nodes: nodes.into_iter(), before: None });
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<(EntryPath, Node)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((path, tree)) = self.enter.take()
            && let Err(fault) = self.enter(path, &tree)
        {
            return Some(Err(fault));
        }
        loop {
            let level = self.stack.last_mut()?;
            let Some(node) = level.nodes.next() else {
                self.stack.pop();
                continue;
            };
            let checked = check_node(level.before.as_deref(), &node);
            let path = match (checked, &level.path) {
                (Ok(()), Some(path)) => path.child(&node.name).map_err(|bad| bad.0),
                (Ok(()), None) => EntryPath::new(node.name.clone()).map_err(|bad| bad.0),
                (Err(bad), _) => Err(bad.text()),
            };
            let path = match path {
                Ok(path) => path,
                Err(why) => {
                    let place = level.path.as_ref().map(ToString::to_string);
                    return Some(Err(unsafe_name(place.as_deref(), &node.name, why)));
                }
            };
            level.before = Some(node.name.clone());
            if let NodeContent::Subtree(tree) = &node.content {
                self.enter = Some((Some(path.clone()), *tree));
            }
            return Some(Ok((path, node)));
        }
    }
}

fn unsafe_name(directory: Option<&str>, name: &[u8], why: &'static str) -> Fault {
    let what = format!("use the stored name `{}` in `{}`", readable(name), directory.unwrap_or("/"));
    Fault::new(codes::REPO_UNSAFE_NAME, what).because(why)
}

/// What a port gives for a node.
pub(crate) fn stored(path: EntryPath, node: Node) -> StoredEntry {
    StoredEntry { path, meta: node.meta }
}
