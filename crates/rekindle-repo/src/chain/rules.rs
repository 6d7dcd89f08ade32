//! Reading a chain: pure rules over the records that were found.

use rekindle_core::manifest::LedgerHead;

use super::link::{Entry, Link};

/// Everything that is wrong with a chain whose records were read one by one.
///
/// `found` holds the records in the order of their numbers; unreadable ones were told already.
pub(super) fn problems<R: Link>(found: &[(u64, Option<Entry<R>>)]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expected = 1;
    let mut before: Option<&Entry<R>> = None;
    for (sequence, entry) in found {
        if *sequence > expected {
            problems.push(missing::<R>(expected, *sequence - 1));
            before = None;
        }
        if let Some(entry) = entry {
            let wanted = before.map(|e| e.hash.as_str());
            let knows_before = before.is_some() || *sequence == 1;
            if knows_before && entry.record.previous() != wanted {
                problems.push(format!("{} {sequence} does not follow number {}", R::RECORD, sequence - 1));
            }
        }
        before = entry.as_ref();
        expected = sequence + 1;
    }
    problems
}

fn missing<R: Link>(first: u64, last: u64) -> String {
    let record = R::RECORD;
    if first == last {
        format!("{record} {first} is missing")
    } else {
        format!("{record}s {first} to {last} are missing")
    }
}

/// What is wrong when a manifest knows this head; `None` when the chain has it.
pub fn contradiction<R: Link>(entries: &[Entry<R>], head: &LedgerHead) -> Option<String> {
    let (record, number) = (R::RECORD, head.sequence);
    match entries.iter().find(|e| e.record.sequence() == number) {
        Some(entry) if entry.hash == head.hash => None,
        Some(_) => Some(format!("{record} {number} is another one than a point has seen")),
        None => Some(format!("{record} {number} is missing, and a point has seen it")),
    }
}
