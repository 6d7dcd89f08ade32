//! `diff`

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use rekindle_core::figures::{Counted, figures, schema};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{ComponentId, ComponentKind, Result};
use rekindle_repo::diff::{Change, Difference, components};
use rekindle_repo::points;
use rekindle_repo::points::Reader;
use serde::Serialize;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{group, human, wire};

/// Entries of one component that the text shows; `--json` and `--limit` have more.
const SHOWN: usize = 40;
/// Most entries of one component that are kept; all of them are counted.
const LIMIT: usize = 10_000;

/// Show what differs between two recovery points
///
/// Files by size and attributes, rows per table, objects of the schema, keys per database, samples. Nothing of the
/// content is read.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The earlier point: the beginning of its id
    before: String,
    /// The later point
    #[arg(default_value = "latest")]
    after: String,
    /// Components or groups; none: all of both points
    #[arg(long, value_name = "COMPONENT|GROUP")]
    only: Vec<String>,
    /// Most entries per component that are listed; all are counted
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    limit: usize,
}

/// How many entries differ, and by how much.
#[derive(Debug, Default, Serialize)]
struct Sum {
    added: u64,
    removed: u64,
    changed: u64,
    attributes: u64,
    added_bytes: u64,
    removed_bytes: u64,
}

/// A count that differs; `None`: not there, or not counted.
#[derive(Debug, Serialize)]
struct CountChange {
    #[serde(flatten)]
    counted: Counted,
    before: Option<u64>,
    after: Option<u64>,
    /// Whether both were counted, not estimated.
    exact: bool,
}

#[derive(Debug, Serialize)]
struct ComponentDiff {
    component: ComponentId,
    kind: ComponentKind,
    /// `same`, `changed`, `added` or `removed`.
    state: &'static str,
    bytes_before: Option<u64>,
    bytes_after: Option<u64>,
    counts: Vec<CountChange>,
    schema_added: Vec<String>,
    schema_removed: Vec<String>,
    entries: Sum,
    listed: Vec<Difference>,
    /// Entries that differ and are not listed.
    unlisted: u64,
}

#[derive(Debug, Serialize)]
struct Both {
    before: rekindle_core::PointId,
    after: rekindle_core::PointId,
    components: Vec<ComponentDiff>,
}

impl Diff {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repo = wire::open(session, &wire::place(session)?)?;
        let view = points::view(&repo)?;
        let before = points::resolve(&view, &self.before)?;
        let after = points::resolve(&view, &self.after)?;
        let reader = repo.reader()?;
        let mut all = Vec::new();
        for id in self.wanted(session, before, after)? {
            let records = (before.manifest().component(&id), after.manifest().component(&id));
            all.extend(self.component(session, &reader, records)?);
        }
        let both = Both { before: before.id().clone(), after: after.id().clone(), components: all };
        let text = text(&both, before, after);
        Ok(Answer::data(both, text))
    }

    fn wanted(&self, session: &Session, before: &RecoveryPoint, after: &RecoveryPoint) -> Result<Vec<ComponentId>> {
        let mut known: Vec<(ComponentId, ComponentKind)> = Vec::new();
        for record in after.manifest().components.iter().chain(&before.manifest().components) {
            if !known.iter().any(|(id, _)| *id == record.id) {
                known.push((record.id.clone(), record.kind));
            }
        }
        // Groups of the configuration, where there is one; else those that go by kind.
        let config = if self.only.is_empty() { None } else { wire::config(session).ok() };
        let wanted = group::wanted(&self.only, &known, config.as_ref())?;
        if wanted.is_empty() {
            return Ok(known.into_iter().map(|(id, _)| id).collect());
        }
        match wanted.iter().find(|id| !known.iter().any(|(known, _)| known == *id)) {
            None => Ok(wanted),
            Some(id) => {
                let names: Vec<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
                Err(rekindle_core::Fault::new(
                    rekindle_core::codes::ENGINE_NO_COMPONENT,
                    format!("compare `{id}`: neither point holds it"),
                )
                .hint(format!("choose from: {}", names.join(", "))))
            }
        }
    }

    fn component(
        &self,
        session: &Session,
        reader: &Reader,
        (before, after): (Option<&ComponentRecord>, Option<&ComponentRecord>),
    ) -> Result<Option<ComponentDiff>> {
        let Some(named) = after.or(before) else { return Ok(None) };
        let (mut entries, mut listed, mut unlisted) = (Sum::default(), Vec::new(), 0);
        components(reader, before, after, &session.cancel, &mut |one| {
            entries.count(&one);
            if listed.len() < self.limit {
                listed.push(one);
            } else {
                unlisted += 1;
            }
        })?;
        let counts = counts(before, after);
        let names = |record: Option<&ComponentRecord>| record.map(schema).unwrap_or_default();
        let (old, new) = (names(before), names(after));
        let without = |of: &[String], other: &[String]| {
            of.iter().filter(|name| other.binary_search(name).is_err()).cloned().collect::<Vec<_>>()
        };
        let (schema_added, schema_removed) = (without(&new, &old), without(&old, &new));
        let differs = entries.any() || !(counts.is_empty() && schema_added.is_empty() && schema_removed.is_empty());
        Ok(Some(ComponentDiff {
            component: named.id.clone(),
            kind: named.kind,
            state: match (before, after) {
                (None, _) => "added",
                (_, None) => "removed",
                _ if differs => "changed",
                _ => "same",
            },
            bytes_before: before.map(|record| record.tally.bytes),
            bytes_after: after.map(|record| record.tally.bytes),
            counts,
            schema_added,
            schema_removed,
            entries,
            listed,
            unlisted,
        }))
    }
}

impl Sum {
    fn count(&mut self, one: &Difference) {
        match one.change {
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Changed => self.changed += 1,
            Change::Attributes => self.attributes += 1,
        }
        let (before, after) = (one.before.unwrap_or(0), one.after.unwrap_or(0));
        self.added_bytes += after.saturating_sub(before);
        self.removed_bytes += before.saturating_sub(after);
    }

    fn any(&self) -> bool {
        self.added + self.removed + self.changed + self.attributes > 0
    }
}

fn counts(before: Option<&ComponentRecord>, after: Option<&ComponentRecord>) -> Vec<CountChange> {
    let of = |record: Option<&ComponentRecord>| record.map(figures).unwrap_or_default();
    let (old, new) = (of(before), of(after));
    let names: BTreeSet<&Counted> = old.keys().chain(new.keys()).collect();
    let change = |name: &Counted| {
        let (a, b) = (old.get(name), new.get(name));
        let (before, after) = (a.map(|one| one.value), b.map(|one| one.value));
        let exact = a.is_none_or(|one| one.exact) && b.is_none_or(|one| one.exact);
        (before != after).then(|| CountChange { counted: name.clone(), before, after, exact })
    };
    names.into_iter().filter_map(change).collect()
}

fn text(both: &Both, before: &RecoveryPoint, after: &RecoveryPoint) -> String {
    let mut text = format!(
        "from {} of {}\nto   {} of {}\n",
        before.id().short(),
        human::time(before.time()),
        after.id().short(),
        human::time(after.time())
    );
    for one in &both.components {
        component_text(one, &mut text);
    }
    text
}

/// Writing into a `String` cannot fail.
fn component_text(one: &ComponentDiff, text: &mut String) {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "nothing".to_owned(), human::bytes);
    let _ = writeln!(
        text,
        "\n{} ({}): {}, {} → {}",
        one.component,
        one.kind,
        one.state,
        size(one.bytes_before),
        size(one.bytes_after)
    );
    let value = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    for change in &one.counts {
        let about = if change.exact { "" } else { " (estimated)" };
        let name = if change.counted.name.is_empty() { "" } else { &change.counted.name };
        let unit = change.counted.unit.as_str();
        let (old, new) = (value(change.before), value(change.after));
        let _ = writeln!(text, "  {unit:<8} {old} → {new}{about}  {name}");
    }
    for (mark, names) in [("+", &one.schema_added), ("-", &one.schema_removed)] {
        for name in names {
            let _ = writeln!(text, "  schema {mark} {name}");
        }
    }
    let sum = &one.entries;
    if !sum.any() {
        return;
    }
    let _ = writeln!(
        text,
        "  entries: {} added, {} removed, {} changed, {} with other attributes; +{} -{}",
        sum.added,
        sum.removed,
        sum.changed,
        sum.attributes,
        human::bytes(sum.added_bytes),
        human::bytes(sum.removed_bytes)
    );
    for entry in one.listed.iter().take(SHOWN) {
        let mark = match entry.change {
            Change::Added => "+",
            Change::Removed => "-",
            Change::Changed => "M",
            Change::Attributes => "U",
        };
        let sizes = match (entry.before, entry.after) {
            (Some(a), Some(b)) if a != b => format!("  {} → {}", human::bytes(a), human::bytes(b)),
            (None, Some(size)) | (Some(size), None) => format!("  {}", human::bytes(size)),
            _ => String::new(),
        };
        let _ = writeln!(text, "  {mark} {}{sizes}", entry.path);
    }
    let hidden = one.listed.len().saturating_sub(SHOWN) as u64 + one.unlisted;
    if hidden > 0 {
        let _ = writeln!(text, "  … {hidden} more (--json lists them)");
    }
}
