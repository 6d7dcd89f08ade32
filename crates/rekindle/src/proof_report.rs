//! Proofs as a page for people and auditors: one file, no script, nothing loaded from elsewhere.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rekindle_core::objective::Verdict;
use rekindle_core::port::Level;
use rekindle_core::proof_record::{ComponentProof, DrillResult, ProofRecord, VerificationResult, Work};
use rekindle_core::{Fault, Result, codes};

use crate::human;

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}th,td{border:1px solid #bbb;padding:.3em .6em;\
text-align:left;vertical-align:top}th{background:#f0f0f0}.passed,.good,.met{color:#060}.failed,.bad,.missed\
{color:#a00;font-weight:bold}.unproved,.warning,.risk{color:#850}code{word-break:break-all}h2{margin-top:2em}";

/// Writes a page; it may name paths and hosts, so only its owner reads it.
pub(crate) fn write(file: &Path, page: &str) -> Result<()> {
    let fault = |error: std::io::Error| {
        Fault::new(codes::CLI_OUTPUT, format!("write the report `{}`", file.display())).because(error)
    };
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(fault)?;
    open.write_all(page.as_bytes()).and_then(|()| open.sync_all()).map_err(fault)
}

/// The page of these proofs.
pub(crate) fn page(records: &[ProofRecord]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>rekindle: proofs</title>\
         <style>{STYLE}</style></head><body>\n<h1>Proof of restore</h1>\n"
    );
    for record in records {
        one(record, &mut page);
    }
    page.push_str(
        "<p>Each record is part of a hash chain in the repository, signed with Ed25519. \
                   <code>rekindle proof verify</code> checks the chain; <code>rekindle proof show --json</code> gives \
                   text, signature and public key for a check by other programs.</p>\n</body></html>\n",
    );
    page
}

// Writing into a `String` cannot fail.
fn one(record: &ProofRecord, page: &mut String) {
    let (what, point) = match &record.work {
        Work::Drill(drill) => ("Drill", Some(drill)),
        Work::Verification(_) => ("Verification of the stored data", None),
    };
    let outcome = record.outcome.as_str();
    let _ = writeln!(page, "<h2>{what}: <span class=\"{outcome}\">{outcome}</span></h2>\n<table>");
    row(page, "Proof", &record.sequence.to_string());
    if let Some(drill) = point {
        row(page, "Stack", &drill.stack);
        row(page, "Recovery point", drill.point.as_str());
        row(page, "Point written", &drill.point_time.to_string());
    }
    row(page, "Started", &record.started.to_string());
    row(page, "Finished", &record.finished.to_string());
    row(page, "By", &format!("{} on {}", record.user, record.host));
    row(page, "Program", &record.tool);
    row(page, "Run", &record.run);
    page.push_str("</table>\n");
    match &record.work {
        Work::Drill(drill) => drilled(drill, page),
        Work::Verification(found) => verified(found, page),
    }
}

fn row(page: &mut String, name: &str, value: &str) {
    let _ = writeln!(page, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value));
}

fn drilled(drill: &DrillResult, page: &mut String) {
    page.push_str(
        "<table>\n<tr><th>Component</th><th>Result</th><th>Engine</th><th>Data of</th><th>Size</th>\
         <th>Measured RTO</th><th>Objective</th><th>Age of the data</th><th>Objective</th></tr>\n",
    );
    for one in &drill.components {
        let outcome = one.outcome.as_str();
        let cells = [
            format!("{} ({})", escape(one.component.as_str()), one.kind),
            format!("<span class=\"{outcome}\">{outcome}</span>"),
            escape(one.engine.as_deref().unwrap_or("-")),
            one.recovered_to.unwrap_or(one.captured_at).to_string(),
            human::bytes(one.bytes),
            one.restore_ms.map_or_else(|| "-".to_owned(), human::millis),
            target(&one.rto, one.objective.rto_seconds),
            human::seconds(one.age_seconds),
            target(&one.rpo, one.objective.rpo_seconds),
        ];
        let _ = writeln!(page, "<tr><td>{}</td></tr>", cells.join("</td><td>"));
    }
    page.push_str("</table>\n");
    for one in &drill.components {
        component(one, page);
    }
    page.push_str("<h3>How the sandbox was held apart</h3>\n<ul>\n");
    for guarantee in &drill.guarantees {
        let _ = writeln!(page, "<li>{}</li>", escape(guarantee));
    }
    page.push_str("</ul>\n");
}

fn component(one: &ComponentProof, page: &mut String) {
    let _ = writeln!(page, "<h3>{}</h3>\n<table>\n<tr><th>Step</th><th>Time</th></tr>", escape(one.component.as_str()));
    for step in &one.steps {
        let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", escape(&step.name), human::millis(step.elapsed_ms));
    }
    page.push_str("</table>\n<table>\n<tr><th>Check</th><th>Result</th></tr>\n");
    for finding in &one.findings {
        let word = match finding.level {
            Level::Good => "good",
            Level::Warning => "warning",
            Level::Unproved => "unproved",
            Level::Bad => "bad",
        };
        let _ = writeln!(page, "<tr><td>{}</td><td class=\"{word}\">{word}</td></tr>", escape(&finding.text));
    }
    if let Some(problem) = &one.problem {
        let (message, code) = (escape(&problem.message), escape(&problem.code));
        let _ = writeln!(page, "<tr><td>{message}</td><td class=\"bad\">{code}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn verified(found: &VerificationResult, page: &mut String) {
    page.push_str("<table>\n");
    let part = found.part.map_or_else(|| "everything".to_owned(), |part| format!("part {} of {}", part.part, part.of));
    row(page, "Read back", &part);
    row(page, "Packs", &found.packs_read.to_string());
    row(page, "Size", &human::bytes(found.bytes_read));
    row(page, "Damage", &found.damage.to_string());
    row(page, "Points without damage", &found.points.len().to_string());
    let damaged: Vec<&str> = found.damaged.iter().map(rekindle_core::PointId::as_str).collect();
    row(page, "Damaged points", if damaged.is_empty() { "none".to_owned() } else { damaged.join(" ") }.as_str());
    page.push_str("</table>\n");
}

fn target(verdict: &Verdict, target: Option<u64>) -> String {
    let Some(target) = target else { return "none".to_owned() };
    let class = match verdict {
        Verdict::Met => "met",
        Verdict::AtRisk(_) => "risk",
        Verdict::Missed(_) => "missed",
    };
    format!("{}: <span class=\"{class}\">{}</span>", human::seconds(target), verdict.as_str())
}

/// Text that cannot become markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_become_markup() {
        let text = "<script src='//x'>\"&\u{7}";
        assert_eq!(super::escape(text), "&lt;script src=&#39;//x&#39;&gt;&quot;&amp;\u{fffd}");
    }
}
