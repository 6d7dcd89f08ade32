//! Restoring into a new directory.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Materialize, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{Fault, Result, codes};

use super::super::bug;
use super::super::layout::show;
use super::plan::{PathBytes, Place, Placed};
use super::room::{ensure, need};
use super::{may_set_owners, report_of, step, target_fault};

/// What stands at the target.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    EmptyDirectory,
    FullDirectory,
}

pub(super) fn restore(
    part: &dyn PartReader,
    request: &RestoreRequest,
    select: &[EntryPath],
    into: &Path,
    context: &RunContext,
) -> Result<RestoreReport> {
    let into = std::path::absolute(into).map_err(|error| target_fault("find", into, error))?;
    let found = look(&into)?;
    if found == Found::FullDirectory && !request.overwrite {
        let what = format!("restore into `{}`", show(&into));
        return Err(Fault::new(codes::FILES_TARGET_NOT_EMPTY, what)
            .because("it is not empty")
            .hint("choose another directory with `--to DIR`, or write over it with `--overwrite`"));
    }
    let started = context.clock.now();
    if found != Found::FullDirectory {
        // What is there already is not written again, so only an empty target needs all of it.
        ensure(&[(&into, need(part, select)?)])?;
    }
    if found == Found::Nothing {
        // Private until the stored attributes say otherwise.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&into)
            .map_err(|error| target_fault("create", &into, error))?;
    }
    let owners = may_set_owners();
    let order = Materialize { select: select.to_vec(), owners, ..Materialize::all(&into) };
    let written = part.materialize(&order, context)?;
    let mut report = report_of(written, owners);
    step(&mut report, "write", started, context);
    report.place = show(&into);
    let placed = Placed {
        places: vec![Place { entry: None, path: PathBytes::from(into.as_os_str().as_encoded_bytes()), kept: None }],
        select: select.iter().map(|path| path.as_bytes().into()).collect(),
        owners_set: owners,
    };
    report.details = serde_json::to_value(placed)
        .map_err(|error| bug("the record of a restore cannot be written").because(error))?;
    Ok(report)
}

fn look(into: &Path) -> Result<Found> {
    let mut names = match std::fs::read_dir(into) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A link that leads nowhere is not nothing.
            return match into.symlink_metadata() {
                Err(_) => Ok(Found::Nothing),
                Ok(_) => Err(target_fault("open", into, error)),
            };
        }
        Err(error) => return Err(target_fault("open", into, error)),
    };
    match names.next() {
        None => Ok(Found::EmptyDirectory),
        Some(Ok(_)) => Ok(Found::FullDirectory),
        Some(Err(error)) => Err(target_fault("list", into, error)),
    }
}
