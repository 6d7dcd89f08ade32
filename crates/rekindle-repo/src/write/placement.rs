//! Where entries go: into directories as they come, when they come in order, or collected until
//! all are there, when they do not.

use std::collections::BTreeMap;

use rekindle_core::entry::{Entry, EntryPath};
use rekindle_core::{Fault, Result, codes};

use super::directories::{Directories, Finished};
use super::order::{Order, content_fits};
use crate::format::Id;
use crate::format::node::Node;

/// The entries of a component on their way into its tree.
pub(super) enum Placement {
    /// In tree order: a directory goes to the workers as soon as it is whole.
    Ordered { order: Order, directories: Directories },
    /// In any order: one node per entry stays in memory (its name, attributes and ids of blobs)
    /// until the end. Every path once, every parent present, as for the others.
    Any(BTreeMap<EntryPath, Node>),
}

impl Placement {
    pub(super) fn new(any_order: bool) -> Self {
        if any_order {
            Self::Any(BTreeMap::new())
        } else {
            Self::Ordered { order: Order::default(), directories: Directories::default() }
        }
    }

    /// Looks at the next entry; gives how many directories are around it.
    pub(super) fn check(&mut self, entry: &Entry) -> Result<usize> {
        match self {
            Self::Ordered { order, .. } => order.check(entry),
            Self::Any(_) => {
                content_fits(entry)?;
                Ok(entry.path.names().count() - 1)
            }
        }
    }

    /// Takes an entry whose content is stored; gives the directories that are finished by it.
    pub(super) fn add(&mut self, path: EntryPath, node: Node, finished: &mut Vec<Finished>) -> Result<()> {
        match self {
            Self::Ordered { directories, .. } => directories.add(path, node, finished),
            Self::Any(nodes) => {
                let what = format!("store `{path}`");
                match nodes.insert(path, node) {
                    None => Ok(()),
                    Some(_) => Err(Fault::new(codes::REPO_ORDER, what).because("it came twice")),
                }
            }
        }
    }

    /// Finishes everything; gives the id of the top directory. `emit` takes each directory.
    pub(super) fn finish(self, emit: &mut dyn FnMut(Vec<Finished>) -> Result<()>) -> Result<Id> {
        let directories = match self {
            Self::Ordered { directories, .. } => directories,
            Self::Any(nodes) => {
                let (mut order, mut directories) = (Order::default(), Directories::default());
                for (path, node) in nodes {
                    order.step(&path, &node.meta.kind)?;
                    let mut finished = Vec::new();
                    directories.add(path, node, &mut finished)?;
                    emit(finished)?;
                }
                directories
            }
        };
        let mut finished = Vec::new();
        let root = directories.finish(&mut finished)?;
        emit(finished)?;
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rekindle_core::entry::{Content, EntryKind, Meta};

    use super::*;
    use crate::format::node::NodeContent;

    const PATHS: [&str; 8] = ["a/", "a/b", "a/c/", "a/c/d", "a!", "b/", "b/x", "c"];

    fn place(paths: &[&str], any_order: bool) -> Result<Id> {
        let mut placement = Placement::new(any_order);
        let mut trees = 0;
        for text in paths {
            let kind = if text.ends_with('/') { EntryKind::Directory } else { EntryKind::Fifo };
            let path = EntryPath::new(text.trim_end_matches('/')).unwrap();
            let meta = Meta::synthetic(kind, jiff::Timestamp::UNIX_EPOCH);
            placement.check(&Entry { path: path.clone(), meta: meta.clone(), content: Content::None })?;
            let node = Node { name: path.name().to_vec(), meta, content: NodeContent::Nothing };
            let mut finished = Vec::new();
            placement.add(path, node, &mut finished)?;
            trees += finished.len();
        }
        let root = placement.finish(&mut |finished| {
            trees += finished.len();
            Ok(())
        })?;
        assert_eq!(trees, 1 + paths.iter().filter(|path| path.ends_with('/')).count());
        Ok(root)
    }

    proptest! {
        #[test]
        fn any_order_gives_the_tree_of_the_right_order(paths in Just(PATHS.to_vec()).prop_shuffle()) {
            prop_assert_eq!(place(&paths, true).unwrap(), place(&PATHS, false).unwrap());
        }
    }

    #[test]
    fn doubles_and_entries_without_their_directory_are_refused() {
        for bad in [&["c", "c"][..], &["b/x"], &["a/b", "a"], &["a/", "a/"]] {
            assert!(place(bad, true).unwrap_err().is(codes::REPO_ORDER), "{bad:?}");
        }
    }
}
