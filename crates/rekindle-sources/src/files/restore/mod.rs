//! Bringing files back: into a new place, or in place of what stands there.

mod in_place;
mod new_place;
mod occupied;
mod plan;

mod roll_back;
mod room;
mod swap;
mod swap_contents;
pub(crate) mod tree;

use std::path::PathBuf;

use rekindle_core::port::{
    LostEntry, Materialized, PartReader, RestoreReport, RestoreRequest, RunContext, Step, Target,
};
use rekindle_core::{Fault, Result, codes};
use rustix::io::Errno;

use super::FilesComponent;
use super::layout::show;

pub(crate) use occupied::holds_something;
pub(super) use plan::{Place, Placed, first};
pub(super) use roll_back::roll_back;
pub(crate) use roll_back::take_back;

/// Restores a part as asked for.
pub(super) fn restore(
    component: &FilesComponent,
    part: &dyn PartReader,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    let select = plan::selection(part, request)?;
    match &request.target {
        Target::New(directory) => {
            let into =
                directory.clone().unwrap_or_else(|| format!("./restore-{}-{}", component.id, request.point.short()));
            new_place::restore(part, request, &select, &PathBuf::from(into), context)
        }
        Target::InPlace { discard_old } => in_place::restore(component, part, request, &select, *discard_old, context),
        Target::Live => Err(Fault::new(
            codes::ENGINE_TARGET,
            format!("restore the files of `{}` into a running server", component.id),
        )
        .because("files have no server")
        .hint("restore into a directory (`--to DIR`) or in place (`--in-place`)")),
    }
}

/// Whether owners can be given back: only root may give files away.
pub(crate) fn may_set_owners() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) const OWNERS_NOT_SET: &str = "owners and groups were not set, because this is not run as root: everything belongs to the \
     user who restored it";

/// A report of what `materialize` did.
fn report_of(written: Materialized, owners: bool) -> RestoreReport {
    let mut report = RestoreReport {
        entries: written.entries,
        bytes: written.bytes,
        lost: written.lost,
        ..RestoreReport::default()
    };
    if !owners {
        report.warnings.push(OWNERS_NOT_SET.to_owned());
    }
    warn_of_attributes(&mut report.warnings, &written.attribute_problems);
    report
}

/// Attribute problems a report names one by one; the others are counted.
const ATTRIBUTE_WARNINGS_MAX: usize = 20;

pub(crate) fn warn_of_attributes(warnings: &mut Vec<String>, problems: &[LostEntry]) {
    let named = problems.iter().take(ATTRIBUTE_WARNINGS_MAX);
    warnings.extend(named.map(|problem| format!("`{}`: {}", problem.path, problem.why)));
    if let Some(more) = problems.len().checked_sub(ATTRIBUTE_WARNINGS_MAX + 1) {
        let more = more + 1;
        warnings.push(format!("{more} more entries have attributes that could not be set"));
    }
}

/// Adds a finished step.
fn step(report: &mut RestoreReport, name: &str, since: jiff::Timestamp, context: &RunContext) {
    let elapsed = context.clock.now().duration_since(since).as_millis();
    report.steps.push(Step { name: name.to_owned(), elapsed_ms: u64::try_from(elapsed).unwrap_or(0) });
}

pub(super) fn target_fault(doing: &str, path: &std::path::Path, why: impl Into<std::io::Error>) -> Fault {
    Fault::new(codes::FILES_TARGET, format!("{doing} `{}`", show(path)))
        .because(why.into())
        .hint("check the directory, its rights and its file system, or restore to another one with `--to DIR`")
}

fn swap_fault(doing: &str, path: &std::path::Path, why: Errno) -> Fault {
    Fault::new(codes::FILES_SWAP, format!("{doing} `{}`", show(path))).because(std::io::Error::from(why))
}
