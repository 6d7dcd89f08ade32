//! Restoring in place: staged on the same file system, compared with the part, then swapped.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rekindle_core::entry::{EntryKind, EntryPath};
use rekindle_core::port::{
    LostEntry, Materialize, Materialized, PartReader, RestoreReport, RestoreRequest, RunContext, StoredEntry,
};
use rekindle_core::{Fault, Result, codes};
use rustix::fs::{CWD, FileType};

use super::super::attributes::apply;
use super::super::check::compare;
use super::super::layout::{live_path, show};
use super::super::sys::{Links, open_directory, status_at};
use super::super::{FilesComponent, bug};
use super::plan::{PathBytes, Place, Placed, first, pieces};
use super::room::{ensure, need};
use super::swap::{swap, undo};
use super::swap_contents::swap_contents;
use super::{may_set_owners, report_of, step, target_fault};

/// A piece of the part on its way to its place.
struct Piece {
    entry: StoredEntry,
    live: PathBuf,
    /// Directory that everything is written into.
    stage: PathBuf,
    /// The live place cannot be renamed: its content is swapped instead.
    is_mount: bool,
}

impl Piece {
    fn new(entry: StoredEntry, point: &str) -> Self {
        let live = live_path(&entry.path);
        let status = status_at(CWD, live.as_os_str().as_encoded_bytes());
        let is_directory = entry.meta.kind == EntryKind::Directory;
        let is_mount = is_directory && status.is_ok_and(|s| s.kind == FileType::Directory && s.mount_root);
        let stage = if is_mount {
            live.join(format!(".rekindle-stage-{point}"))
        } else {
            let mut name = OsString::from(".");
            name.push(live.file_name().unwrap_or_default());
            name.push(format!(".rekindle-{point}"));
            live.with_file_name(name)
        };
        Self { entry, live, stage, is_mount }
    }

    fn is_directory(&self) -> bool {
        self.entry.meta.kind == EntryKind::Directory
    }

    /// Where the piece itself is staged: the stage for a directory, a name in it for others.
    fn staged(&self) -> PathBuf {
        if self.is_directory() {
            self.stage.clone()
        } else {
            self.stage.join(self.live.file_name().unwrap_or_default())
        }
    }
}

pub(super) fn restore(
    component: &FilesComponent,
    part: &dyn PartReader,
    request: &RestoreRequest,
    select: &[EntryPath],
    discard_old: bool,
    context: &RunContext,
) -> Result<RestoreReport> {
    let (entries, warnings) = pieces(component, part, select)?;
    let point = request.point.short();
    let pieces: Vec<Piece> = entries.into_iter().map(|entry| Piece::new(entry, point)).collect();
    let started = context.clock.now();
    let mut needs = Vec::with_capacity(pieces.len());
    for piece in &pieces {
        let paths = std::slice::from_ref(&piece.entry.path);
        needs.push((piece.live.as_path(), need(part, paths)?));
    }
    ensure(&needs)?;
    let owners = may_set_owners();
    let mut total = Materialized::default();
    for piece in &pieces {
        context.cancel.check()?;
        make_parents(part, piece, owners)?;
        add(&mut total, stage(part, piece, owners, context)?);
    }
    let mut report = report_of(total, owners);
    report.warnings.extend(warnings);
    step(&mut report, "stage", started, context);
    let since = context.clock.now();
    for piece in &pieces {
        let within = Some(&piece.entry.path);
        let found = compare(part, within, &piece.staged(), &[], owners, context)?;
        add_missing(&mut report.lost, found.wrong);
    }
    step(&mut report, "compare", since, context);
    if !report.lost.is_empty() && !request.overwrite {
        return Err(incomplete(&report.lost, &pieces));
    }
    context.cancel.check()?;
    let since = context.clock.now();
    let kept = swap_all(&pieces, &format!(".pre-restore-{point}"), owners)?;
    step(&mut report, "swap", since, context);
    let places = pieces.iter().zip(&kept).map(|(piece, kept)| placed(piece, kept.as_deref())).collect();
    finish(&mut report, &pieces, kept, discard_old);
    let placed = Placed { places, select: Vec::new(), owners_set: owners };
    report.details = serde_json::to_value(placed)
        .map_err(|error| bug("the record of a restore cannot be written").because(error))?;
    Ok(report)
}

fn placed(piece: &Piece, kept: Option<&Path>) -> Place {
    Place {
        kept: kept.map(|kept| PathBytes::from(kept.as_os_str().as_encoded_bytes())),
        entry: Some(piece.entry.path.as_bytes().into()),
        path: PathBytes::from(piece.live.as_os_str().as_encoded_bytes()),
    }
}

fn add(total: &mut Materialized, more: Materialized) {
    total.entries += more.entries;
    total.bytes += more.bytes;
    total.kept_bytes += more.kept_bytes;
    total.lost.extend(more.lost);
    total.attribute_problems.extend(more.attribute_problems);
}

fn add_missing(lost: &mut Vec<LostEntry>, wrong: Vec<LostEntry>) {
    for entry in wrong {
        if !lost.iter().any(|known| known.path == entry.path) {
            lost.push(entry);
        }
    }
}

/// Makes directories above the place that are not there, as the part knows them. Those that are
/// there stay as they are.
fn make_parents(part: &dyn PartReader, piece: &Piece, owners: bool) -> Result<()> {
    let mut missing = Vec::new();
    let mut above = piece.entry.path.parent();
    while let Some(path) = above {
        if live_path(&path).exists() {
            break;
        }
        above = path.parent();
        missing.push(path);
    }
    for path in missing.iter().rev() {
        let live = live_path(path);
        DirBuilder::new().mode(0o700).create(&live).map_err(|error| target_fault("create", &live, error))?;
    }
    // From the inside out, so that making a child does not touch the times of its parent.
    for path in &missing {
        let live = live_path(path);
        if let Some(entry) = first(part, path)? {
            set_attributes(&live, &entry, owners)?;
        }
    }
    Ok(())
}

fn set_attributes(directory: &Path, entry: &StoredEntry, owners: bool) -> Result<Vec<LostEntry>> {
    let name = directory.as_os_str().as_encoded_bytes();
    let open = open_directory(CWD, name, Links::Refuse).map_err(|errno| target_fault("open", directory, errno))?;
    let problems = apply(open.as_fd(), &entry.meta, owners);
    Ok(problems.into_iter().map(|why| LostEntry { path: entry.path.to_string(), why }).collect())
}

/// Writes a piece beside (or, for a mount, inside) its place. A stage that an earlier try left is
/// used again: what is right in it is not written again, what does not belong to it goes.
fn stage(part: &dyn PartReader, piece: &Piece, owners: bool, context: &RunContext) -> Result<Materialized> {
    let stage = &piece.stage;
    match DirBuilder::new().mode(0o700).create(stage) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let name = stage.as_os_str().as_encoded_bytes();
            open_directory(CWD, name, Links::Refuse).map_err(|errno| target_fault("open", stage, errno))?;
        }
        Err(error) => return Err(target_fault("create", stage, error)),
    }
    let (within, select) = if piece.is_directory() {
        (Some(piece.entry.path.clone()), Vec::new())
    } else {
        (piece.entry.path.parent(), vec![piece.entry.path.clone()])
    };
    let order = Materialize { within, select, owners, delete_extra: true, ..Materialize::all(stage) };
    let mut written = part.materialize(&order, context)?;
    if piece.is_directory() && !piece.is_mount {
        // `materialize` fills a directory; the directory itself is ours.
        let problems = set_attributes(stage, &piece.entry, owners)?;
        written.attribute_problems.extend(problems);
    }
    Ok(written)
}

fn incomplete(lost: &[LostEntry], pieces: &[Piece]) -> Fault {
    let some: Vec<String> = lost.iter().take(3).map(|entry| format!("`{}` ({})", entry.path, entry.why)).collect();
    let stages: Vec<String> = pieces.iter().map(|piece| show(&piece.stage)).collect();
    let (count, places) = (lost.len(), stages.join("`, `"));
    Fault::new(codes::FILES_INCOMPLETE, "put the restored files in place")
        .because(format!("{count} entries are lost: {}", some.join(", ")))
        .hint(format!(
            "nothing was swapped; what could be restored is in `{places}`; choose another point, or \
             take what there is with `--overwrite`"
        ))
}

/// Swaps every piece, or none.
fn swap_all(pieces: &[Piece], suffix: &str, owners: bool) -> Result<Vec<Option<PathBuf>>> {
    let mut done = Vec::with_capacity(pieces.len());
    // Mounts last: their swap is the only one that is not taken back.
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|index| pieces[*index].is_mount);
    let mut kept = vec![None; pieces.len()];
    for index in order {
        let piece = &pieces[index];
        let result = if piece.is_mount {
            swap_contents(&piece.stage, &piece.live, suffix).map(|holder| {
                kept[index] = Some(holder);
            })
        } else {
            swap(&piece.staged(), &piece.live, suffix).map(|swapped| {
                kept[index].clone_from(&swapped.kept);
                done.push((index, swapped));
            })
        };
        if let Err(fault) = result {
            for (index, swapped) in done.iter().rev() {
                if undo(swapped, &pieces[*index].staged()).is_err() {
                    let place = show(&swapped.live);
                    return Err(fault.hint(format!(
                        "`{place}` was swapped already and could not be swapped back: its old \
                         state stands beside it as `*{suffix}`"
                    )));
                }
            }
            return Err(fault);
        }
        if piece.is_mount {
            set_attributes(&piece.live, &piece.entry, owners)?;
        }
    }
    Ok(kept)
}

/// Clears the stages, drops or names the old states, and writes down where things are.
fn finish(report: &mut RestoreReport, pieces: &[Piece], kept: Vec<Option<PathBuf>>, discard_old: bool) {
    let mut old = Vec::new();
    for (piece, kept) in pieces.iter().zip(kept) {
        if !piece.is_directory() {
            // Empty by now; if it is not, it is better kept.
            let _ = std::fs::remove_dir(&piece.stage);
        }
        if piece.is_mount {
            report
                .warnings
                .push(format!("`{}` is a mount point: what is in it was swapped name by name", show(&piece.live)));
        }
        let Some(kept) = kept else { continue };
        if !discard_old {
            old.push(show(&kept));
        } else if let Err(error) = remove(&kept) {
            report.warnings.push(format!("the old state `{}` could not be removed: {error}", show(&kept)));
            old.push(show(&kept));
        }
    }
    report.kept_old = (!old.is_empty()).then(|| old.join(", "));
    let places: Vec<String> = pieces.iter().map(|piece| show(&piece.live)).collect();
    report.place = places.join(", ");
}

fn remove(path: &Path) -> std::io::Result<()> {
    let status = status_at(CWD, path.as_os_str().as_encoded_bytes());
    match status.map_err(std::io::Error::from)? {
        status if status.kind == FileType::Directory => std::fs::remove_dir_all(path),
        _ => std::fs::remove_file(path),
    }
}
