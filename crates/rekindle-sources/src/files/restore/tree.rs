//! One directory of a part takes the place of a directory on disk: staged on the same file system,
//! then swapped; the old one is kept.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Materialize, Materialized, PartReader, RunContext};
use rekindle_core::{Fault, Result, codes};
use rustix::fs::{CWD, FileType};

use super::super::attributes::apply;
use super::super::layout::show;
use super::super::sys::{Links, Status, open_directory, status_at};
use super::plan::first;
use super::room::{ensure, need};
use super::swap::swap;
use super::swap_contents::swap_contents;
use super::{may_set_owners, target_fault};

/// What is to be put where.
pub(crate) struct TreeOrder<'a> {
    pub(crate) part: &'a dyn PartReader,
    /// A directory of the part.
    pub(crate) within: EntryPath,
    /// The directory whose place it takes.
    pub(crate) live: &'a Path,
    /// Short id of the point, for names.
    pub(crate) point: &'a str,
    /// Swap although entries are lost.
    pub(crate) with_losses: bool,
}

/// What was done.
#[derive(Debug)]
pub(crate) struct TreePlaced {
    pub(crate) written: Materialized,
    /// Where the old directory (or, for a mount, what was in it) is.
    pub(crate) kept: Option<PathBuf>,
}

/// Writes the directory beside its place (inside it, when that is a mount point), then swaps.
/// `ready` is asked right before the swap; its error leaves everything as it was.
pub(crate) fn place(order: &TreeOrder<'_>, ready: &dyn Fn() -> Result<()>, context: &RunContext) -> Result<TreePlaced> {
    let TreeOrder { part, live, point, .. } = *order;
    let status = status_at(CWD, live.as_os_str().as_encoded_bytes()).ok();
    let status = status.filter(|status| status.kind == FileType::Directory);
    ensure(&[(live, need(part, std::slice::from_ref(&order.within))?)])?;
    if let Some(parent) = live.parent() {
        DirBuilder::new().recursive(true).create(parent).map_err(|error| target_fault("create", parent, error))?;
    }
    let is_mount = status.as_ref().is_some_and(|status| status.mount_root);
    let stage = if is_mount {
        live.join(format!(".rekindle-stage-{point}"))
    } else {
        let mut name = OsString::from(".");
        name.push(live.file_name().unwrap_or_default());
        name.push(format!(".rekindle-{point}"));
        live.with_file_name(name)
    };
    let written = write(order, &stage, status.as_ref(), context)?;
    if !written.lost.is_empty() && !order.with_losses {
        let some: Vec<String> = written.lost.iter().take(3).map(|l| format!("`{}` ({})", l.path, l.why)).collect();
        return Err(Fault::new(codes::FILES_INCOMPLETE, format!("put the restored directory at `{}`", show(live)))
            .because(format!("{} entries are lost: {}", written.lost.len(), some.join(", ")))
            .hint(format!(
                "nothing was swapped; what could be restored is in `{}`; choose another point, or take what there is with `--overwrite`",
                show(&stage)
            )));
    }
    context.cancel.check()?;
    ready()?;
    let suffix = format!(".pre-restore-{point}");
    let kept = if is_mount { Some(swap_contents(&stage, live, &suffix)?) } else { swap(&stage, live, &suffix)?.kept };
    Ok(TreePlaced { written, kept })
}

fn write(order: &TreeOrder<'_>, stage: &Path, old: Option<&Status>, context: &RunContext) -> Result<Materialized> {
    match DirBuilder::new().mode(0o700).create(stage) {
        Ok(()) => {}
        // Left by an earlier try: what is right in it is not written again.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(target_fault("create", stage, error)),
    }
    let name = stage.as_os_str().as_encoded_bytes();
    let open = open_directory(CWD, name, Links::Refuse).map_err(|errno| target_fault("open", stage, errno))?;
    let owners = may_set_owners();
    let materialize =
        Materialize { within: Some(order.within.clone()), owners, delete_extra: true, ..Materialize::all(stage) };
    let written = order.part.materialize(&materialize, context)?;
    if let Some(entry) = first(order.part, &order.within)? {
        let mut meta = entry.meta;
        // The directory that is there knows best whose it is.
        if let Some(old) = old {
            (meta.uid, meta.gid, meta.mode) = (old.uid, old.gid, old.mode);
        }
        let _ = apply(open.as_fd(), &meta, owners);
    }
    Ok(written)
}
