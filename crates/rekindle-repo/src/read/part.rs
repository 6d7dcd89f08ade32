//! A component of a point (or any directory of a foreign snapshot), for reading.

use std::ops::Range;

use rekindle_core::entry::{ContentRead, EntryKind, EntryPath};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::{Materialize, Materialized, PartReader, RunContext, StoredEntry};
use rekindle_core::{Fault, Result, codes};

use super::blobs::SharedReader;
use super::stream::Stream;
use super::tree::{Walk, find, stored};
use crate::format::Id;
use crate::format::node::NodeContent;
use crate::restore;

/// Whether what is read must fit the tally of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tallied {
    /// The record is a manifest's: entries and bytes are known.
    Yes,
    /// The record was made up for a foreign snapshot.
    No,
}

/// Reads one component.
#[derive(Debug)]
pub(crate) struct RepoPart {
    pub(crate) reader: SharedReader,
    pub(crate) tree: Id,
    pub(crate) record: ComponentRecord,
    pub(crate) tallied: Tallied,
}

impl PartReader for RepoPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, within: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        let reader = SharedReader::clone(&self.reader);
        let Some(path) = within else {
            let walk = Walk::below(reader, None, self.tree);
            return Ok(Box::new(walk.map(|item| item.map(|(path, node)| stored(path, node)))));
        };
        let node = find(&self.reader, &self.tree, path)?;
        let below = match node.content {
            NodeContent::Subtree(tree) => Some(Walk::below(reader, Some(path.clone()), tree)),
            NodeContent::Blobs(_) | NodeContent::Nothing => None,
        };
        let first = stored(path.clone(), node);
        let rest = below.into_iter().flatten();
        Ok(Box::new(std::iter::once(Ok(first)).chain(rest.map(|item| item.map(|(path, node)| stored(path, node))))))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        let node = find(&self.reader, &self.tree, path)?;
        match (node.meta.kind == EntryKind::File, node.content) {
            (true, NodeContent::Blobs(ids)) => {
                let reader = SharedReader::clone(&self.reader);
                let stream = Stream::new(reader, node.meta, ids)?;
                let name = path.to_string();
                Ok(match self.record.streams.iter().find(|digest| digest.path == name) {
                    Some(digest) => Box::new(stream.promising(digest.clone())),
                    None => Box::new(stream),
                })
            }
            _ => {
                Err(Fault::new(codes::REPO_NO_ENTRY, format!("read the content of `{path}`"))
                    .because("it is not a file"))
            }
        }
    }

    fn open_parts(&self, path: &EntryPath, parts: &[Range<u64>]) -> Result<Box<dyn ContentRead>> {
        let mut node = find(&self.reader, &self.tree, path)?;
        let what = || format!("read {} parts of `{path}`", parts.len());
        let NodeContent::Blobs(ids) = node.content else {
            return Err(Fault::new(codes::REPO_NO_ENTRY, what()).because("it is not a file"));
        };
        let (mut wanted, mut parts, mut at) = (Vec::new(), parts.iter().peekable(), 0);
        node.meta.size = 0;
        for id in ids {
            let length = self.reader.length(&id)?;
            let end = at + length;
            while parts.next_if(|part| part.end <= at).is_some() {}
            if let Some(part) = parts.peek().filter(|part| part.start < end) {
                if at < part.start || part.end < end {
                    return Err(
                        Fault::new(codes::RUN_BUG, what()).because("they do not lie on the borders of its chunks")
                    );
                }
                wanted.push(id);
                node.meta.size += length;
            }
            at = end;
        }
        Ok(Box::new(Stream::new(SharedReader::clone(&self.reader), node.meta, wanted)?))
    }

    fn materialize(&self, request: &Materialize, context: &RunContext) -> Result<Materialized> {
        restore::materialize(self, request, context)
    }
}
