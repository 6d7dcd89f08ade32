//! `audit`, and the record of every command that changes the repository or takes data out of it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::{Args, Subcommand};
use rekindle_core::port::{Clock, Monitor as _};
use rekindle_core::{Class, Fault, codes};
use rekindle_repo::audit::{self, Act};
use rekindle_repo::format::Id;
use rekindle_repo::{Repo, anew, points, trust};
use serde_json::{Value, json};

use crate::output::Answer;
use crate::session::{Faults, Session, SystemClock};
use crate::{human, wire};

/// Show who did what, from a signed chain that notices every change
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List operations, oldest first
    List {
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Check every chain of the repository: acts, points, proofs and marks
    Verify,
    /// Begin new records after the signing key was lost or replaced; holds and proofs have to be made again
    Anew,
}

impl Audit {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repo = wire::open(session, &wire::place(session)?)?;
        match self.what {
            What::List { last } => list(&repo, last),
            What::Verify => verify(&repo),
            What::Anew => begin_anew(session, &repo),
        }
    }
}

fn list(repo: &Repo, last: Option<usize>) -> Result<Answer, Faults> {
    let read = audit::read(repo)?;
    let mut acts: Vec<(u64, &Act)> =
        read.entries.iter().map(|entry| (entry.head().sequence, &entry.record.act)).collect();
    let surplus = last.map_or(0, |last| acts.len().saturating_sub(last));
    acts.drain(..surplus);
    let rows: Vec<Vec<String>> = acts
        .iter()
        .map(|(number, act)| {
            vec![
                number.to_string(),
                human::time(act.time),
                format!("{}@{}", act.user, act.host),
                act.operation.clone(),
                act.error.clone().unwrap_or_else(|| act.exit_code.to_string()),
                act.subjects.join(" "),
            ]
        })
        .collect();
    let text = if rows.is_empty() {
        "Nothing is recorded yet.\n".to_owned()
    } else {
        human::table(&["NUMBER", "TIME", "WHO", "OPERATION", "END", "SUBJECTS"], &rows)
    };
    let list: Vec<Value> = acts
        .iter()
        .map(|(number, act)| {
            let mut one = json!(act);
            one["number"] = json!(number);
            one
        })
        .collect();
    let answer = Answer::data(json!({"acts": list, "problems": read.problems}), text);
    Ok(match changed(&read.problems) {
        None => answer,
        Some(fault) => answer.worse(fault),
    })
}

fn begin_anew(session: &Session, repo: &Repo) -> Result<Answer, Faults> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let aside = anew::begin(repo, &clock, &act(session, audit::ANEW, Vec::new(), 0, None))?;
    let text = format!(
        "The records begin anew; {aside} old objects lie below `rekindle/aside/`. What the lost key had signed counts no \
         more: place holds again (`rekindle point hold`) and prove points again (`rekindle drill`) before anything is removed.\n"
    );
    Ok(Answer::words(json!({"put_aside": aside}), text))
}

/// Something that was done by this command line.
fn act(session: &Session, operation: &str, subjects: Vec<String>, exit_code: u8, error: Option<String>) -> Act {
    let arguments: Vec<u8> =
        std::env::args_os().flat_map(|word| [word.into_encoded_bytes(), vec![0]].concat()).collect();
    Act {
        time: session.now(),
        user: wire::user_name(),
        host: wire::host_name(),
        operation: operation.to_owned(),
        subjects,
        arguments: Id::of(&arguments).hex(),
        exit_code,
        error,
    }
}

fn verify(repo: &Repo) -> Result<Answer, Faults> {
    let view = points::view(repo)?;
    let trust::Records { acts, ledger, proofs, problems } = trust::look(repo, &view)?;
    let mut text = format!("acts {acts}, ledger records {ledger}, proofs {proofs}\n");
    for problem in &problems {
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "CHANGED: {problem}");
    }
    if problems.is_empty() {
        text.push_str("nothing was changed\n");
    }
    let answer = Answer::data(
        json!({"acts": acts, "ledger_records": ledger, "proof_records": proofs, "problems": problems}),
        text,
    );
    Ok(match changed(&problems) {
        None => answer,
        Some(fault) => answer.worse(fault),
    })
}

fn changed(problems: &[String]) -> Option<Fault> {
    let first = problems.first()?;
    Some(
        Fault::new(codes::REPO_AUDIT, "trust the records of the repository")
            .because(first.clone())
            .hint("somebody changed or removed records: find out who can write to the storage; `rekindle verify` shows what else is wrong"),
    )
}

/// Enters what a command did. A command that only read is not held up by a repository that cannot be
/// written to; one that changed something is worse without its record.
pub(super) fn record(
    session: &Session,
    operation: &str,
    reads: bool,
    (opened, from): (Option<Repo>, Option<&str>),
    answer: Result<Answer, Faults>,
) -> Result<Answer, Faults> {
    let (exit_code, error, subjects) = match &answer {
        Ok(answer) => (answer.exit_code(), answer.first_error(), subjects(answer.result())),
        Err(Faults(faults)) => match faults.first() {
            // Nothing was opened, so nothing was done.
            Some(fault) if nothing_done(session, fault) => return answer,
            Some(fault) => (fault.exit_code(), Some(fault.code().id.to_owned()), Vec::new()),
            None => return answer,
        },
    };
    let act = act(session, operation, subjects, exit_code, error);
    let lost = matches!(&answer, Err(Faults(faults)) if faults.iter().any(|fault| fault.class() == Class::Unreachable));
    let repo = match opened {
        Some(repo) => Ok(repo),
        None => open(session, from, lost),
    };
    let written = repo.and_then(|repo| audit::append(&repo, &act).map_err(Some));
    match (written, answer) {
        (Ok(_) | Err(None), answer) => answer,
        (Err(Some(fault)), Ok(answer)) if !reads => Ok(answer.worse(fault.during("write the audit log"))),
        (Err(Some(fault)), answer) => {
            session.progress.problem("audit", &fault);
            answer
        }
    }
}

/// The repository that a command works on. `Err(None)`: it cannot be said which. `once`: the storage went away
/// a moment ago; nobody is to wait for it again.
pub(super) fn open(session: &Session, from: Option<&str>, once: bool) -> Result<Repo, Option<Fault>> {
    let place = match from {
        None => wire::place(session),
        Some(url) => {
            wire::password_given(session).and_then(|given| wire::bare_place(url, given.as_ref())).map_err(Faults::from)
        }
    };
    let mut place = place.map_err(|Faults(faults)| faults.into_iter().next())?;
    if once {
        place.options.limits.attempts_max = 1;
    }
    wire::open(session, &place).map_err(Some)
}

fn nothing_done(session: &Session, fault: &Fault) -> bool {
    match fault.class() {
        Class::Usage | Class::Config | Class::NoRepository | Class::WrongKey | Class::Locked => true,
        // It may have gone away in the middle.
        Class::Unreachable => !session.opened.load(Ordering::Relaxed),
        _ => false,
    }
}

/// Fields of an answer that say what it was about.
fn subjects(result: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut found: Vec<String> = ["point", "key", "directory"].iter().filter_map(|name| text(&result[*name])).collect();
    let list = |name: &str| result[name].as_array().cloned().unwrap_or_default();
    found.extend(list("removed").iter().filter_map(text));
    for (name, field) in [("items", "component"), ("copies", "copy"), ("components", "component")] {
        found.extend(list(name).iter().filter_map(|one| text(&one[field])));
    }
    found
}
