//! From bad blobs to the points and paths that need them.

use std::collections::HashMap;

use super::BadBlobs;
use super::report::VerifyReport;
use crate::format::Id;
use crate::format::node::NodeContent;
use crate::format::pack::BlobKind;
use crate::format::snapshot::Snapshot;
use crate::points::NamedSnapshot;
use crate::read::blobs::SharedReader;
use crate::read::tree::{DEPTH_MAX, readable};

/// Names every path of every snapshot that needs a bad blob.
pub(super) fn name(reader: &SharedReader, snapshots: &[(Id, Snapshot)], bad: &BadBlobs, report: &mut VerifyReport) {
    if bad.is_empty() {
        return;
    }
    let mut search = Search { reader, bad, touched: HashMap::new() };
    for (id, snapshot) in snapshots {
        let mut paths = Vec::new();
        search.below(&snapshot.tree, "", 0, &mut paths);
        for path in paths {
            report.affect(&id.hex(), path);
        }
    }
}

/// The paths of one snapshot that need a bad blob, escaped for reading.
pub(crate) fn paths_of(reader: &SharedReader, snapshot: &NamedSnapshot, bad: &BadBlobs) -> Vec<String> {
    let mut paths = Vec::new();
    if !bad.is_empty() {
        let mut search = Search { reader, bad, touched: HashMap::new() };
        search.below(&snapshot.snapshot.tree, "", 0, &mut paths);
    }
    paths.sort();
    paths
}

struct Search<'a> {
    reader: &'a SharedReader,
    bad: &'a BadBlobs,
    /// Whether anything below a tree is bad; clean ones are not read again for the next snapshot.
    touched: HashMap<Id, bool>,
}

impl Search<'_> {
    /// Collects bad paths below a tree; gives whether there are any.
    fn below(&mut self, tree: &Id, prefix: &str, depth: usize, paths: &mut Vec<String>) -> bool {
        if self.touched.get(tree) == Some(&false) {
            return false;
        }
        let before = paths.len();
        if self.bad.contains(&(BlobKind::Tree, *tree)) || depth > DEPTH_MAX {
            paths.push(if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() });
        }
        if let Ok(nodes) = self.reader.tree(tree) {
            for node in nodes {
                let path =
                    if prefix.is_empty() { readable(&node.name) } else { format!("{prefix}/{}", readable(&node.name)) };
                match &node.content {
                    NodeContent::Subtree(inner) => {
                        self.below(inner, &path, depth + 1, paths);
                    }
                    NodeContent::Blobs(ids) if ids.iter().any(|id| self.bad.contains(&(BlobKind::Data, *id))) => {
                        paths.push(path);
                    }
                    NodeContent::Blobs(_) | NodeContent::Nothing => {}
                }
            }
        }
        let touched = paths.len() > before;
        self.touched.insert(*tree, touched);
        touched
    }
}
