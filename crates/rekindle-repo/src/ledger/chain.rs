//! Reading the chain: pure rules over the records that were found.

use std::collections::BTreeMap;

use rekindle_core::PointId;
use rekindle_core::manifest::LedgerHead;

use super::record::{Action, Entry};

/// Everything that is wrong with a chain whose records were read one by one.
///
/// `found` holds the records in the order of their numbers; unreadable ones were told already.
pub(super) fn problems(found: &[(u64, Option<Entry>)]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expected = 1;
    let mut before: Option<&Entry> = None;
    for (sequence, entry) in found {
        if *sequence > expected {
            problems.push(missing(expected, *sequence - 1));
            before = None;
        }
        if let Some(entry) = entry {
            let wanted = before.map(|e| e.hash.as_str());
            let knows_before = before.is_some() || *sequence == 1;
            if knows_before && entry.record.previous.as_deref() != wanted {
                problems.push(format!("ledger record {sequence} does not follow record {}", sequence - 1));
            }
        }
        before = entry.as_ref();
        expected = sequence + 1;
    }
    problems
}

fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("ledger record {first} is missing")
    } else {
        format!("ledger records {first} to {last} are missing")
    }
}

/// What is wrong when a manifest knows this head; `None` when the chain has it.
pub fn contradiction(entries: &[Entry], head: &LedgerHead) -> Option<String> {
    match entries.iter().find(|e| e.record.sequence == head.sequence) {
        Some(entry) if entry.hash == head.hash => None,
        Some(_) => Some(format!("ledger record {} is another one than a point has seen", head.sequence)),
        None => Some(format!("ledger record {} is missing, and a point has seen it", head.sequence)),
    }
}

/// The points that should be in the repository, with the ids of their trees.
pub fn live(entries: &[Entry]) -> BTreeMap<PointId, String> {
    let mut live = BTreeMap::new();
    for Entry { record, .. } in entries {
        match record.action {
            Action::Committed | Action::Adopted => {
                live.insert(record.point.clone(), record.tree.clone());
            }
            Action::Forgotten => {
                live.remove(&record.point);
            }
        }
    }
    live
}
