//! `show`

use std::fmt::Write as _;

use clap::Args;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::proof_record::Trust;
use rekindle_repo::source_proofs::ProvedThere;
use serde_json::json;

use crate::evidence::Evidence;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::{self, attached};
use crate::{describe, human};

/// Notes of one component that are shown in the text; `--json` has all of them.
const NOTES_SHOWN_MAX: usize = 10;

/// Show what a recovery point holds and what is missing from it
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Beginning of the point's id, or `latest`
    #[arg(default_value = "latest")]
    point: String,
}

impl Show {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let point = wire::point(&repository, &self.point)?;
        let evidence = Evidence::read(&repository)?;
        let trust = evidence.trust(&point);
        let there = evidence.proved_there(std::slice::from_ref(&point)).remove(point.id());
        let (marks, doubt) = attached::marks_shown(&repository);
        let result = json!({
            "id": point.id(),
            "time": point.time(),
            "trust": trust,
            "proved_in_source": there,
            "suspicious": marks.suspicious(&point),
            "accepted": marks.accepted(point.id()),
            "held": marks.held(point.id()),
            "manifest": point.manifest(),
        });
        let answer = Answer::data(result, text(&point, trust, there.as_ref(), &marks));
        let faults = evidence.fault.into_iter().chain(doubt);
        Ok(faults.fold(answer, |answer, fault| answer.exit(fault.exit_code()).with_fault(fault)))
    }
}

fn text(point: &RecoveryPoint, trust: Trust, there: Option<&ProvedThere>, marks: &Marks) -> String {
    let manifest = point.manifest();
    let mut text = format!(
        "point     {}\ntime      {}\nstack     {} on {}\nstate     {}, {}\nskew      {}\nwritten   {} by {}\n\n",
        point.id(),
        human::time(point.time()),
        manifest.stack,
        manifest.host,
        describe::state(point, marks),
        trust.as_str(),
        human::millis(manifest.skew_ms),
        human::time(manifest.finished),
        manifest.tool,
    );
    let rows: Vec<Vec<String>> = manifest.components.iter().map(row).collect();
    text.push_str(&human::table(&["COMPONENT", "KIND", "CAPTURED", "ENTRIES", "SIZE", "UNCHANGED", "NEW"], &rows));
    // Writing into a `String` cannot fail.
    for one in &manifest.suspicions {
        let _ = writeln!(text, "\nodd: {}: {}", one.component, one.text);
    }
    for (word, mark) in [("accepted", marks.accepted(point.id())), ("held", marks.held(point.id()))] {
        let Some(mark) = mark else { continue };
        let reason = mark.reason.as_deref().unwrap_or("no reason given");
        let from = if mark.origin.is_some() { " in the repository it is a copy of" } else { "" };
        let _ = writeln!(text, "\n{word} by {} on {}{from}: {reason}", mark.user, human::time(mark.time));
    }
    if let Some(there) = there {
        let (at, id) = (human::time(there.at), there.repository.get(..8).unwrap_or_default());
        let _ = writeln!(
            text,
            "\nproved on {at} in repository {id}, which it is a copy of: of the bytes here, only a drill here tells"
        );
    }
    for missing in &manifest.missing {
        let _ = writeln!(text, "\nmissing: {} ({}): [{}] {}", missing.id, missing.kind, missing.code, missing.error);
        if let Some(hint) = &missing.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    for component in &manifest.components {
        notes(component, &mut text);
    }
    text
}

fn row(record: &ComponentRecord) -> Vec<String> {
    vec![
        record.id.to_string(),
        record.kind.to_string(),
        human::time(record.captured_at),
        record.tally.entries.to_string(),
        human::bytes(record.tally.bytes),
        human::bytes(record.tally.unchanged_bytes),
        human::bytes(record.stored_bytes),
    ]
}

fn notes(record: &ComponentRecord, text: &mut String) {
    if record.notes.counts.is_empty() {
        return;
    }
    let counts: Vec<String> =
        record.notes.counts.iter().map(|(class, count)| format!("{count} {}", class.as_str())).collect();
    let _ = writeln!(text, "\nnotes of {}: {}", record.id, counts.join(", "));
    for note in record.notes.listed.iter().take(NOTES_SHOWN_MAX) {
        let _ = writeln!(text, "  {}: {} {}", note.class.as_str(), note.subject, note.text);
    }
    if record.notes.listed.len() > NOTES_SHOWN_MAX {
        let _ = writeln!(text, "  … {} more (--json shows them)", record.notes.listed.len() - NOTES_SHOWN_MAX);
    }
}
