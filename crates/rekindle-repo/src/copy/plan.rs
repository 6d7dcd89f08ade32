//! What of a point the far side does not hold.

use std::collections::HashSet;

use rekindle_core::{Cancel, Class, Fault};

use super::Trouble;
use super::far::Far;
use crate::format::Id;
use crate::format::node::NodeContent;
use crate::format::pack::BlobKind;
use crate::read::blobs::SharedReader;
use crate::read::parallel;
use crate::verify::BadBlobs;

/// A point compared with the far side.
pub(super) struct Planned {
    /// Its top tree.
    pub(super) root: Id,
    /// Every tree that was looked at.
    pub(super) trees: Vec<Id>,
    /// Blobs that the far side does not hold, each once.
    pub(super) missing: Vec<(BlobKind, Id)>,
}

/// What one tree needs.
struct Looked {
    subtrees: Vec<Id>,
    missing: Vec<Id>,
}

/// Reads every tree of a point, level by level, and asks the far side for every blob. Trees in
/// `settled` are known to be whole there, with everything below them.
pub(super) fn plan(
    reader: &SharedReader,
    far: &Far<'_>,
    root: Id,
    settled: &HashSet<Id>,
    cancel: &Cancel,
) -> Result<Planned, Trouble> {
    let mut seen = HashSet::new();
    let mut missing: HashSet<(BlobKind, Id)> = HashSet::new();
    let mut level: Vec<Id> = if settled.contains(&root) { Vec::new() } else { vec![root] };
    while !level.is_empty() {
        cancel.check()?;
        let looked = parallel::map(&level, parallel::waiters(), |id| {
            cancel.check()?;
            look(reader, far, id)
        });
        let mut next = Vec::new();
        for (id, looked) in level.iter().zip(looked) {
            let looked = looked.map_err(|fault| of_tree(*id, fault))?;
            if !far.holds(BlobKind::Tree, id) {
                missing.insert((BlobKind::Tree, *id));
            }
            missing.extend(looked.missing.into_iter().map(|blob| (BlobKind::Data, blob)));
            next.extend(looked.subtrees);
            seen.insert(*id);
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|id| !seen.contains(id) && !settled.contains(id));
        level = next;
    }
    Ok(Planned { root, trees: seen.into_iter().collect(), missing: missing.into_iter().collect() })
}

fn look(reader: &SharedReader, far: &Far<'_>, id: &Id) -> Result<Looked, Fault> {
    let mut looked = Looked { subtrees: Vec::new(), missing: Vec::new() };
    for node in reader.tree(id)? {
        match node.content {
            NodeContent::Subtree(tree) => looked.subtrees.push(tree),
            NodeContent::Blobs(blobs) => {
                looked.missing.extend(blobs.into_iter().filter(|blob| !far.holds(BlobKind::Data, blob)));
            }
            NodeContent::Nothing => {}
        }
    }
    Ok(looked)
}

fn of_tree(id: Id, fault: Fault) -> Trouble {
    if fault.class() == Class::Damaged {
        return Trouble::Point { fault, bad: BadBlobs::from([(BlobKind::Tree, id)]) };
    }
    Trouble::All(fault)
}
