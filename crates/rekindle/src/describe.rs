//! Choosing and describing recovery points.

use std::collections::BTreeMap;

use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::Trust;
use rekindle_core::{Fault, PointId};
use rekindle_repo::points::UnreadablePoint;
use rekindle_repo::source_proofs::ProvedThere;
use serde_json::{Value, json};

use crate::evidence::Evidence;
use crate::{human, output};

/// A point as data, short.
pub(crate) fn summary(point: &RecoveryPoint, trust: Trust, marks: &Marks) -> Value {
    let manifest = point.manifest();
    json!({
        "id": point.id(),
        "time": point.time(),
        "run": manifest.run,
        "stack": manifest.stack,
        "host": manifest.host,
        "state": manifest.state,
        "trust": trust,
        "suspicious": marks.suspicious(point),
        "held": marks.held(point.id()).is_some(),
        "components": manifest.components.iter().map(|one| &one.id).collect::<Vec<_>>(),
        "missing": manifest.missing.iter().map(|one| &one.id).collect::<Vec<_>>(),
        "bytes": bytes(point),
        "stored_bytes": manifest.components.iter().map(|one| one.stored_bytes).sum::<u64>(),
    })
}

/// Its state, with what people and the tripwire say: `complete, SUSPICIOUS, held`.
pub(crate) fn state(point: &RecoveryPoint, marks: &Marks) -> String {
    let mut text = point.state().as_str().to_owned();
    if marks.suspicious(point) {
        text.push_str(", SUSPICIOUS");
    }
    if marks.held(point.id()).is_some() {
        text.push_str(", held");
    }
    text
}

/// Bytes of all its components.
pub(crate) fn bytes(point: &RecoveryPoint) -> u64 {
    point.manifest().components.iter().map(|one| one.tally.bytes).sum()
}

/// Points as a table, newest last.
pub(crate) fn table(
    points: &[&RecoveryPoint],
    evidence: &Evidence,
    there: &BTreeMap<PointId, ProvedThere>,
    marks: &Marks,
) -> String {
    let trust = |point: &RecoveryPoint| {
        let source = if there.contains_key(point.id()) { " (source: proved)" } else { "" };
        format!("{}{source}", evidence.trust(point).as_str())
    };
    let rows: Vec<Vec<String>> = points.iter().map(|point| row(point, trust(point), marks)).collect();
    human::table(&["POINT", "TIME", "STACK", "HOST", "STATE", "TRUST", "SIZE", "NEW", "COMPONENTS"], &rows)
}

fn row(point: &RecoveryPoint, trust: String, marks: &Marks) -> Vec<String> {
    let manifest = point.manifest();
    let mut names: Vec<String> = manifest.components.iter().map(|one| one.id.to_string()).collect();
    names.extend(manifest.missing.iter().map(|one| format!("(missing: {})", one.id)));
    let stored = manifest.components.iter().map(|one| one.stored_bytes).sum();
    vec![
        point.id().short().to_owned(),
        human::time(point.time()),
        manifest.stack.clone(),
        manifest.host.clone(),
        state(point, marks),
        trust,
        human::bytes(bytes(point)),
        human::bytes(stored),
        names.join(" "),
    ]
}

/// A point that cannot be read, as data.
pub(crate) fn unreadable(point: &UnreadablePoint) -> Value {
    json!({"id": point.id, "state": "unreadable", "error": output::fault_object(&point.fault)})
}

/// The error of points that cannot be read.
pub(crate) fn unreadable_fault(points: &[UnreadablePoint]) -> Option<Fault> {
    let first = points.first()?;
    let what = format!("read point {}", first.id.short());
    let more = points.len() - 1;
    let why = match more {
        0 => first.fault.chain(),
        _ => format!("{} (and {more} more points)", first.fault.chain()),
    };
    Some(Fault::new(first.fault.code(), what).because(why).hint("rekindle verify; the points above are not affected"))
}
