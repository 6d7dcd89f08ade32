//! The recovered cluster takes the place of the old one, which is kept.

use std::fs::File;
use std::path::{Path, PathBuf};

use rekindle_core::port::RestoreReport;
use rekindle_core::{Fault, Result, codes};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::Recovered;
use super::place::refuse_running;

/// How many kept old states of one point a place may have.
const KEPT_MAX: u32 = 100;

fn rename_new(from: &Path, to: &Path) -> std::result::Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot say it in one step.
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => rustix::fs::rename(from, to),
        other => other,
    }
}

/// Moves the old directory aside and the new one to its place; when that fails, the old one goes
/// back. Gives the name under which the old one is kept, if there was one.
pub(super) fn swap(staged: &Path, live: &Path, short: &str) -> Result<Option<PathBuf>> {
    let fail = |doing: &str, errno: Errno| {
        let fault =
            Fault::new(codes::PITR_PLACE, format!("{doing} `{}`", live.display())).because(std::io::Error::from(errno));
        fault.hint(format!(
            "the recovered cluster is whole and stands at `{}`; a directory that is a mount point cannot be \
             exchanged: point the server's `data_directory` there",
            staged.display()
        ))
    };
    let kept = if live.exists() { Some(aside(live, short).map_err(|errno| fail("move aside", errno))?) } else { None };
    if let Err(errno) = rename_new(staged, live) {
        if let Some(kept) = &kept {
            let _ = rename_new(kept, live);
        }
        return Err(fail("put the recovered cluster in the place of", errno));
    }
    let parent = live.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| super::io_fault("sync", parent, error))?;
    Ok(kept)
}

/// The kept directory stands at its place again, and what was recovered beside it.
pub(in crate::postgres) fn roll_back(report: &RestoreReport) -> Result<()> {
    let kept = report.kept_old.as_deref().unwrap_or("nothing");
    let fail = |why: String| {
        Fault::new(codes::ENGINE_ROLL_BACK, "bring the old cluster back")
            .because(format!("{why}; kept is: {kept}"))
            .hint("stop the restored server, put the kept directory back and start the old one")
    };
    let recovered: Recovered =
        serde_json::from_value(report.details.clone()).map_err(|error| fail(format!("the report: {error}")))?;
    let live = &recovered.directory;
    let old = Path::new(kept);
    if report.kept_old.is_none() || !old.is_dir() {
        return Err(fail("there is no old state".to_owned()));
    }
    refuse_running(live).map_err(|fault| fail(fault.chain()))?;
    let aside = named_aside(live, "rolled-back").map_err(|errno| fail(format!("move it aside: {errno}")))?;
    if let Err(errno) = rename_new(old, live) {
        let _ = rename_new(&aside, live);
        return Err(fail(format!("put it back: {errno}")));
    }
    let parent = live.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| super::io_fault("sync", parent, error))
}

fn aside(live: &Path, short: &str) -> std::result::Result<PathBuf, Errno> {
    named_aside(live, &format!("pre-restore-{short}"))
}

/// Moves a directory to a free name beside it.
fn named_aside(live: &Path, suffix: &str) -> std::result::Result<PathBuf, Errno> {
    for number in 1..=KEPT_MAX {
        let mut name = live.as_os_str().to_owned();
        name.push(format!(".{suffix}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let kept = PathBuf::from(name);
        match rename_new(live, &kept) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => {}
            Ok(()) => return Ok(kept),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}
