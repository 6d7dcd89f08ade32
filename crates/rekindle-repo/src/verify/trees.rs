//! Every tree of every snapshot: readable, well-formed, its blobs in the index, its sizes right.

use std::collections::HashMap;

use rekindle_core::entry::EntryKind;
use rekindle_core::{Cancel, Fault, Result, codes};

use super::report::VerifyReport;
use super::{BadBlobs, refuse_unreachable};
use crate::format::Id;
use crate::format::node::{Node, NodeContent};
use crate::format::pack::BlobKind;
use crate::read::blobs::SharedReader;
use crate::read::parallel;
use crate::read::tree::{check_node, readable};

/// What one tree holds itself.
struct Facts {
    entries: u64,
    bytes: u64,
    subtrees: Vec<Id>,
}

/// Every readable tree.
pub(super) struct Forest(HashMap<Id, Facts>);

impl Forest {
    /// Entries and bytes below a tree; `None` when a part of it is not readable.
    pub(super) fn sums(&self, root: &Id) -> Option<(u64, u64)> {
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        let mut todo = vec![*root];
        while let Some(id) = todo.pop() {
            let facts = self.0.get(&id)?;
            entries = entries.saturating_add(facts.entries);
            bytes = bytes.saturating_add(facts.bytes);
            todo.extend(&facts.subtrees);
        }
        Some((entries, bytes))
    }
}

/// What is wrong in one tree.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    missing: Vec<Id>,
}

/// Reads everything below the roots, level by level, in parallel; each tree once.
pub(super) fn read(
    reader: &SharedReader,
    roots: &[Id],
    cancel: &Cancel,
    bad: &mut BadBlobs,
    report: &mut VerifyReport,
) -> Result<Forest> {
    let mut forest = HashMap::new();
    let mut level: Vec<Id> = roots.to_vec();
    level.sort_unstable();
    level.dedup();
    while !level.is_empty() {
        let read = parallel::map(&level, parallel::waiters(), |id| cancel.check().and_then(|()| reader.tree(id)));
        // What was not read any more is not damage.
        cancel.check()?;
        let mut next = Vec::new();
        for (id, result) in level.iter().zip(read) {
            match result {
                Ok(nodes) => {
                    let (facts, findings) = look(reader, &nodes);
                    tell(id, findings, bad, report);
                    next.extend(facts.subtrees.iter().copied());
                    forest.insert(*id, facts);
                }
                Err(fault) => {
                    refuse_unreachable(&fault)?;
                    bad.insert((BlobKind::Tree, *id));
                    report.damage(format!("tree {id}"), &fault);
                }
            }
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|id| !forest.contains_key(id) && !bad.contains(&(BlobKind::Tree, *id)));
        level = next;
    }
    report.trees = forest.len() as u64;
    Ok(Forest(forest))
}

fn tell(id: &Id, findings: Findings, bad: &mut BadBlobs, report: &mut VerifyReport) {
    for blob in findings.missing {
        if bad.insert((BlobKind::Data, blob)) {
            let fault = Fault::new(codes::REPO_DAMAGED, format!("find data blob {blob}")).because("no index names it");
            report.damage(format!("blob {blob}"), &fault);
        }
    }
    for problem in findings.problems {
        let fault = Fault::new(codes::REPO_DAMAGED, format!("use tree {id}")).because(problem);
        report.damage(format!("tree {id}"), &fault);
        bad.insert((BlobKind::Tree, *id));
    }
}

fn look(reader: &SharedReader, nodes: &[Node]) -> (Facts, Findings) {
    let mut facts = Facts { entries: nodes.len() as u64, bytes: 0, subtrees: Vec::new() };
    let mut findings = Findings::default();
    let mut before: Option<&[u8]> = None;
    for node in nodes {
        if let Err(why) = check_node(before, node) {
            findings.problems.push(format!("entry `{}`: {}", readable(&node.name), why.text()));
        }
        before = Some(&node.name);
        match &node.content {
            NodeContent::Subtree(tree) => facts.subtrees.push(*tree),
            NodeContent::Nothing => {}
            NodeContent::Blobs(ids) => file(reader, node, ids, &mut facts, &mut findings),
        }
    }
    (facts, findings)
}

fn file(reader: &SharedReader, node: &Node, ids: &[Id], facts: &mut Facts, findings: &mut Findings) {
    debug_assert!(node.meta.kind == EntryKind::File);
    let (mut size, mut whole) = (0_u64, true);
    for id in ids {
        if let Some(location) = reader.index.find(BlobKind::Data, id).next() {
            size = size.saturating_add(location.blob.content_length());
        } else {
            whole = false;
            findings.missing.push(*id);
        }
    }
    // Streams written by rustic record no size.
    if whole && node.meta.size != size && node.meta.size != 0 {
        let name = readable(&node.name);
        let recorded = node.meta.size;
        findings.problems.push(format!("entry `{name}`: its blobs hold {size} bytes and its record says {recorded}"));
    }
    facts.bytes = facts.bytes.saturating_add(size);
}
