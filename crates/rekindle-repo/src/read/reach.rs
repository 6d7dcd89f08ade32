//! Whether everything a tree needs is in the index.

use std::collections::HashSet;

use crate::format::Id;
use crate::format::node::NodeContent;
use crate::format::pack::BlobKind;
use crate::read::blobs::SharedReader;
use crate::read::parallel;

/// Reads every tree below `root` and looks every data blob up. `Err` says what is missing first.
pub(crate) fn whole(reader: &SharedReader, root: &Id) -> Result<(), String> {
    let mut seen = HashSet::from([*root]);
    let mut level = vec![*root];
    while !level.is_empty() {
        let read = parallel::map(&level, parallel::waiters(), |id| one(reader, id));
        let mut next = Vec::new();
        for result in read {
            next.extend(result?.into_iter().filter(|id| seen.insert(*id)));
        }
        level = next;
    }
    Ok(())
}

fn one(reader: &SharedReader, id: &Id) -> Result<Vec<Id>, String> {
    let nodes = reader.tree(id).map_err(|fault| fault.chain())?;
    let mut subtrees = Vec::new();
    for node in nodes {
        match node.content {
            NodeContent::Subtree(tree) => subtrees.push(tree),
            NodeContent::Nothing => {}
            NodeContent::Blobs(ids) => {
                let missing = ids.iter().find(|id| reader.index.find(BlobKind::Data, id).next().is_none());
                if let Some(id) = missing {
                    return Err(reader.index.absent(BlobKind::Data, id).chain());
                }
            }
        }
    }
    Ok(subtrees)
}
