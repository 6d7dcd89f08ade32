//! The directories of a component while its entries arrive: each is finished, and goes to the
//! workers, as soon as the last entry below it is there.

use rekindle_core::entry::{EntryKind, EntryPath};
use rekindle_core::{Fault, Result, codes};

use crate::format::node::{Node, NodeContent};
use crate::format::tree::TreeBuilder;
use crate::format::{BadFormat, Id};

struct Open {
    path: EntryPath,
    node: Node,
    tree: TreeBuilder,
}

/// A finished directory.
pub(super) type Finished = (Id, Vec<u8>);

/// Directories that are not finished, from the top down.
#[derive(Default)]
pub(super) struct Directories {
    top: TreeBuilder,
    open: Vec<Open>,
}

fn bug(path: &EntryPath, bad: BadFormat) -> Fault {
    Fault::new(codes::REPO_ORDER, format!("store `{path}`")).because(bad)
}

impl Directories {
    /// Takes the next entry, in order; gives the directories that are finished by it.
    pub(super) fn add(&mut self, path: EntryPath, node: Node, finished: &mut Vec<Finished>) -> Result<()> {
        while let Some(last) = self.open.last() {
            if path.is_within(&last.path) {
                break;
            }
            self.close_last(finished)?;
        }
        if node.meta.kind == EntryKind::Directory {
            self.open.push(Open { path, node, tree: TreeBuilder::default() });
            return Ok(());
        }
        self.parent().push(&node).map_err(|bad| bug(&path, bad))
    }

    fn parent(&mut self) -> &mut TreeBuilder {
        match self.open.last_mut() {
            Some(last) => &mut last.tree,
            None => &mut self.top,
        }
    }

    fn close_last(&mut self, finished: &mut Vec<Finished>) -> Result<()> {
        let Some(Open { path, mut node, tree }) = self.open.pop() else {
            return Ok(());
        };
        let (id, json) = tree.finish();
        node.content = NodeContent::Subtree(id);
        finished.push((id, json));
        self.parent().push(&node).map_err(|bad| bug(&path, bad))
    }

    /// Finishes everything; gives the id of the top directory, which is the last finished one.
    pub(super) fn finish(mut self, finished: &mut Vec<Finished>) -> Result<Id> {
        while !self.open.is_empty() {
            self.close_last(finished)?;
        }
        let (id, json) = self.top.finish();
        finished.push((id, json));
        Ok(id)
    }
}
