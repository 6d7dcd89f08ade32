//! Restoring a snapshot without a manifest: one that restic or rustic made, or what is left of a
//! point that lost its own. Files into a new directory.

use std::fmt::Write as _;

use std::path::{Path, PathBuf};

use rekindle_core::port::{Materialize, RunContext};
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::Repo;
use rekindle_repo::points::{self, NamedSnapshot};
use serde_json::json;

use crate::human;
use crate::output::Answer;

/// Fewest digits that choose a snapshot, as for points.
const PREFIX_DIGITS_MIN: usize = 4;

/// The only snapshot of another program whose id begins so.
pub(super) fn find(repository: &Repo, word: &str) -> Result<Option<NamedSnapshot>> {
    if word.len() < PREFIX_DIGITS_MIN || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let wanted = word.to_ascii_lowercase();
    let mut found = points::foreign_snapshots(repository)?.into_iter().filter(|one| one.id.hex().starts_with(&wanted));
    Ok(found.next().filter(|_| found.next().is_none()))
}

/// The snapshot of the only point whose id begins so, if its manifest cannot be read.
pub(super) fn damaged(repository: &Repo, word: &str) -> Result<Option<NamedSnapshot>> {
    let wanted = word.to_ascii_lowercase();
    let view = points::view(repository)?;
    let mut found = view.unreadable.iter().filter(|one| one.id.as_str().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(one), None) if one.fault.is(codes::REPO_MANIFEST) => points::bare(repository, &one.id).map(Some),
        _ => Ok(None),
    }
}

/// Writes all of it into a directory that is new or empty.
pub(super) fn restore(
    repository: &Repo,
    snapshot: &NamedSnapshot,
    to: Option<&PathBuf>,
    context: &RunContext,
) -> Result<Answer> {
    let short = &snapshot.id.hex()[..8];
    let what = || format!("restore the snapshot {short}");
    let Some(to) = to else {
        return Err(Fault::new(codes::CLI_USAGE, what())
            .because("it has no manifest that can be read, so only a directory can be its target")
            .hint(format!("rekindle restore {short} --to DIRECTORY")));
    };
    empty(to)?;
    let part = points::open_foreign(&repository.reader()?, snapshot, None)?;
    let written = part.materialize(&Materialize::all(to), context)?;
    let mut text = format!(
        "snapshot {short} restored to {}: {} entries, {}\n",
        to.display(),
        written.entries,
        human::bytes(written.bytes)
    );
    for lost in &written.lost {
        let _ = writeln!(text, "  LOST {}: {}", lost.path, lost.why);
    }
    for problem in &written.attribute_problems {
        let _ = writeln!(text, "  warning: {}: {}", problem.path, problem.why);
    }
    let answer = Answer::words(json!({"snapshot": snapshot.id.hex(), "to": to, "report": written}), text);
    if written.lost.is_empty() {
        return Ok(answer);
    }
    let fault = Fault::new(codes::REPO_RESTORE_INCOMPLETE, what())
        .because(format!("{} entries are lost", written.lost.len()))
        .hint("rekindle verify --read-data");
    Ok(answer.exit(fault.exit_code()).with_fault(fault))
}

/// Makes the directory; one that holds something is refused.
fn empty(to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Fault::new(codes::REPO_TARGET_IO, format!("make {}", to.display()))
            .because(error)
            .hint("choose another directory with --to")
    };
    std::fs::create_dir_all(to).map_err(failed)?;
    if std::fs::read_dir(to).map_err(failed)?.next().is_some() {
        return Err(Fault::new(codes::FILES_TARGET_NOT_EMPTY, format!("restore into {}", to.display()))
            .because("it is not empty")
            .hint("choose another directory with --to"));
    }
    Ok(())
}
