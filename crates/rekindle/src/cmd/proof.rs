//! `proof`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rekindle_core::proof_record::{ProofRecord, VerificationResult, Work};
use rekindle_core::{Fault, codes};
use rekindle_repo::proofs::{self, Entry};
use rekindle_repo::{Repo, points};
use serde_json::json;

use super::drill::result_text;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, proof_report, wire};

/// Show and check the recorded proofs: what drills and verifications found
#[derive(Debug, Args)]
pub(crate) struct Proof {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List proofs, newest last
    List {
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Show one proof; with --json also what was signed, the signature and the public key
    Show {
        /// Number of the proof, or `latest`
        #[arg(default_value = "latest")]
        proof: String,
        /// Also write it as a page for people and auditors
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Check the chain of proofs: every signature and link, and the heads that recovery points have seen
    Verify,
}

impl Proof {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        match &self.verb {
            Verb::List { last } => list(&repository, *last),
            Verb::Show { proof, html } => show(&repository, proof, html.as_ref()),
            Verb::Verify => verify(&repository),
        }
    }
}

fn list(repository: &Repo, last: Option<usize>) -> Result<Answer, Faults> {
    let mut records = proofs::read_all(repository)?;
    let surplus = last.map_or(0, |last| records.len().saturating_sub(last));
    records.drain(..surplus);
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    let text = if rows.is_empty() {
        "Nothing was proved yet: `rekindle drill` does it.\n".to_owned()
    } else {
        human::table(&["PROOF", "TIME", "WHAT", "POINT", "RESULT", "BY"], &rows)
    };
    Ok(Answer::data(json!({"proofs": records}), text))
}

fn row(record: &ProofRecord) -> Vec<String> {
    let (what, point) = match &record.work {
        Work::Drill(drill) => {
            let names: Vec<&str> = drill.components.iter().map(|one| one.component.as_str()).collect();
            (format!("drill of {}", names.join(", ")), drill.point.short().to_owned())
        }
        Work::Verification(found) => (format!("read back {}", part(found)), "-".to_owned()),
    };
    vec![
        record.sequence.to_string(),
        human::time(record.finished),
        what,
        point,
        record.outcome.as_str().to_owned(),
        format!("{} on {}", record.user, record.host),
    ]
}

fn part(found: &VerificationResult) -> String {
    found.part.map_or_else(|| "everything".to_owned(), |part| format!("part {}/{}", part.part, part.of))
}

fn show(repository: &Repo, word: &str, html: Option<&PathBuf>) -> Result<Answer, Faults> {
    let entries = proofs::entries(repository)?;
    let found = match word {
        "latest" => entries.last(),
        number => entries.iter().find(|entry| entry.record.sequence.to_string() == number),
    };
    let Some(Entry { record, hash, signed, signature }) = found else {
        return Err(Fault::new(codes::PROOF_ABSENT, format!("find the proof `{}`", word.escape_debug()))
            .hint("`rekindle proof list` shows the numbers; `rekindle drill` makes one")
            .into());
    };
    if let Some(file) = html {
        proof_report::write(file, &proof_report::page(std::slice::from_ref(record)))?;
    }
    let result = json!({
        "proof": record,
        "hash": hash,
        "signed": signed,
        "signature": signature,
        "public_key": proofs::public_key(repository)?,
    });
    Ok(Answer::data(result, text(record, hash)))
}

fn text(record: &ProofRecord, hash: &str) -> String {
    let mut text = format!(
        "result    {}\nstarted   {}\nfinished  {}\nby        {} on {} ({})\nhash      {hash}\n\n",
        record.outcome.as_str(),
        human::time(record.started),
        human::time(record.finished),
        record.user,
        record.host,
        record.tool,
    );
    match &record.work {
        Work::Drill(drill) => text.push_str(&result_text(drill, record.sequence)),
        Work::Verification(found) => {
            // Writing into a `String` cannot fail.
            let _ = writeln!(
                text,
                "proof {}: read back {}: {} packs, {}; {} things are wrong, {} points without damage, {} damaged",
                record.sequence,
                part(found),
                found.packs_read,
                human::bytes(found.bytes_read),
                found.damage,
                found.points.len(),
                found.damaged.len(),
            );
        }
    }
    text
}

fn verify(repository: &Repo) -> Result<Answer, Faults> {
    let view = points::view(repository)?;
    let (records, problems) = proofs::problems(repository, &view)?;
    let mut text = format!("{records} proofs\n");
    for problem in &problems {
        let _ = writeln!(text, "WRONG: {problem}");
    }
    if problems.is_empty() {
        text.push_str("every record is whole, signed and in its place\n");
    }
    let result = json!({
        "records": records,
        "problems": problems,
        "public_key": proofs::public_key(repository)?,
        "head": proofs::head(repository).ok().flatten(),
    });
    let answer = Answer::data(result, text);
    let Some(first) = problems.first() else { return Ok(answer) };
    let fault = Fault::new(codes::REPO_PROOFS, "verify the chain of proofs")
        .because(first.clone())
        .hint("find out who changed it; put the objects below `rekindle/proofs/` back from a copy, and drill again");
    Ok(answer.exit(fault.exit_code()).with_fault(fault))
}
