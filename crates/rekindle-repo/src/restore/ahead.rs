//! The trees of the directories that come next, read and parsed by all cores at once: one core alone
//! would leave the others idle until the first file can be written.

use std::collections::HashMap;

use rekindle_core::Result;

use crate::format::Id;
use crate::format::node::Node;
use crate::format::pack::BlobKind;
use crate::read::blobs::BlobReader;
use crate::read::parallel;

/// Most trees that are held.
const TREES_MAX: usize = 32;
/// Most bytes of stored trees that are read ahead at once; parsed they take several times as much.
const BYTES_MAX: u64 = 4 << 20;

/// Trees that were read before their turn.
#[derive(Default)]
pub(super) struct Ahead {
    trees: HashMap<Id, Result<Vec<Node>>>,
}

impl Ahead {
    /// The tree `id`. When it is not there yet, it is read together with those `following` it, as far as
    /// there is room.
    pub(super) fn take<'i>(
        &mut self,
        reader: &BlobReader,
        id: &Id,
        following: impl Iterator<Item = &'i Id>,
    ) -> Result<Vec<Node>> {
        if let Some(tree) = self.trees.remove(id) {
            return tree;
        }
        let mut wanted = vec![*id];
        let mut bytes = length(reader, id);
        for next in following {
            bytes += length(reader, next);
            if self.trees.len() + wanted.len() > TREES_MAX || bytes > BYTES_MAX {
                break;
            }
            if !wanted.contains(next) && !self.trees.contains_key(next) {
                wanted.push(*next);
            }
        }
        let read = parallel::map(&wanted, parallel::cores(), |id| reader.tree(id));
        self.trees.extend(wanted.into_iter().zip(read));
        self.trees.remove(id).unwrap_or_else(|| reader.tree(id))
    }
}

/// Length of a stored tree; one that is missing is told when it is read.
fn length(reader: &BlobReader, id: &Id) -> u64 {
    reader.index.find(BlobKind::Tree, id).next().map_or(0, |location| location.blob.content_length())
}
