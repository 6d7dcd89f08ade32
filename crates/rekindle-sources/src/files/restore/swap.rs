//! One name takes the place of another on the same file system, atomically where the kernel can.
//!
//! The staged tree first gets the name under which the old one will be kept; then the two are
//! exchanged. So at every moment either the old or the new state stands at its place, whole, and
//! a leftover staging directory never holds the only copy of anything.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rekindle_core::Result;
use rustix::fs::{CWD, RenameFlags, fsync, renameat, renameat_with};
use rustix::io::Errno;

use super::super::sys::{Links, open_directory, status_at};
use super::swap_fault;

/// How many kept old states of one point a place may have.
const KEPT_MAX: u32 = 100;

/// A name whose content was exchanged.
#[derive(Debug)]
pub(super) struct Swapped {
    pub(super) live: PathBuf,
    /// Where the old state is; `None` when there was none.
    pub(super) kept: Option<PathBuf>,
}

/// Opens the directory that holds a path; the way to it may lead through links.
pub(super) fn parent_of(path: &Path) -> Result<OwnedFd> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    open_directory(CWD, parent.as_os_str().as_encoded_bytes(), Links::Follow)
        .map_err(|errno| swap_fault("open", parent, errno))
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_encoded_bytes()
}

/// The first free name of `<stem>`, `<stem>-2`, … in a directory.
pub(super) fn free_name(open: BorrowedFd<'_>, directory: &Path, stem: &OsStr) -> Result<PathBuf> {
    for number in 1..=KEPT_MAX {
        let mut name = stem.to_owned();
        if number > 1 {
            name.push(format!("-{number}"));
        }
        match status_at(open, name.as_encoded_bytes()) {
            Err(Errno::NOENT) => return Ok(directory.join(name)),
            Ok(_) => {}
            Err(errno) => return Err(swap_fault("look at", &directory.join(name), errno)),
        }
    }
    Err(swap_fault("find a free name for the old state in", directory, Errno::EXIST)
        .hint("remove old states (`*.pre-restore-*`) that are not needed any more"))
}

/// Puts `staged` in the place of `live`; both are on one file system.
pub(super) fn swap(staged: &Path, live: &Path, suffix: &str) -> Result<Swapped> {
    let parent = parent_of(live)?;
    let at = parent.as_fd();
    let staged_parent = parent_of(staged)?;
    let fail = |errno| swap_fault("put the restored tree in the place of", live, errno);
    let kept = match status_at(at, name_of(live)) {
        Ok(_) => {
            let mut stem = live.file_name().unwrap_or_default().to_owned();
            stem.push(suffix);
            let directory = live.parent().unwrap_or(Path::new("/"));
            Some(free_name(at, directory, &stem)?)
        }
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(fail(errno)),
    };
    let from = (staged_parent.as_fd(), name_of(staged));
    match &kept {
        None => rename_new(from, (at, name_of(live))).map_err(fail)?,
        Some(kept) => {
            rename_new(from, (at, name_of(kept))).map_err(fail)?;
            fsync(&parent).map_err(fail)?;
            if let Err(errno) = exchange(at, name_of(kept), name_of(live)) {
                // Back to where it was, so that the next try finds it.
                let _ = renameat(at, name_of(kept), from.0, from.1);
                return Err(fail(errno).hint("nothing was changed; the restored tree stands beside the old one"));
            }
        }
    }
    fsync(&parent).map_err(fail)?;
    fsync(&staged_parent).map_err(fail)?;
    Ok(Swapped { live: live.to_owned(), kept })
}

/// Takes a swap back: the old state stands at its place again.
pub(super) fn undo(swapped: &Swapped, staged: &Path) -> Result<()> {
    let parent = parent_of(&swapped.live)?;
    let at = parent.as_fd();
    let fail = |errno| swap_fault("take back the swap of", &swapped.live, errno);
    if let Some(kept) = &swapped.kept {
        exchange(at, name_of(kept), name_of(&swapped.live)).map_err(fail)?;
    }
    let new = swapped.kept.as_ref().unwrap_or(&swapped.live);
    let staged_parent = parent_of(staged)?;
    rename_new((at, name_of(new)), (staged_parent.as_fd(), name_of(staged))).map_err(fail)?;
    fsync(&parent).map_err(fail)
}

type Named<'a> = (BorrowedFd<'a>, &'a [u8]);

/// Renames to a name that must be free.
pub(super) fn rename_new(from: Named<'_>, to: Named<'_>) -> Result<(), Errno> {
    match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => match status_at(to.0, to.1) {
            Err(Errno::NOENT) => renameat(from.0, from.1, to.0, to.1),
            Ok(_) => Err(Errno::EXIST),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}

/// Exchanges two names of one directory. Where the file system cannot do it in one step
/// (renameat2(2), `RENAME_EXCHANGE`: EINVAL), in three; in between `b` is missing for a moment.
fn exchange(directory: BorrowedFd<'_>, a: &[u8], b: &[u8]) -> Result<(), Errno> {
    exchange_at((directory, a), (directory, b))
}

/// The same for names of two directories.
pub(super) fn exchange_at(a: Named<'_>, b: Named<'_>) -> Result<(), Errno> {
    match renameat_with(a.0, a.1, b.0, b.1, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS) => in_three_steps(a, b),
        result => result,
    }
}

fn in_three_steps(a: Named<'_>, b: Named<'_>) -> Result<(), Errno> {
    let mut between = b".".to_vec();
    between.extend_from_slice(b.1);
    between.extend_from_slice(b".rekindle-exchange");
    let between = (b.0, between.as_slice());
    rename_new(b, between)?;
    if let Err(errno) = renameat(a.0, a.1, b.0, b.1) {
        renameat(between.0, between.1, b.0, b.1)?;
        return Err(errno);
    }
    renameat(between.0, between.1, a.0, a.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_steps_exchange_as_well_as_one() {
        let place = tempfile::tempdir().unwrap();
        let directory = open_directory(CWD, place.path().as_os_str().as_encoded_bytes(), Links::Refuse).unwrap();
        std::fs::write(place.path().join("a"), "old a").unwrap();
        std::fs::create_dir(place.path().join("b")).unwrap();
        in_three_steps((directory.as_fd(), b"a"), (directory.as_fd(), b"b")).unwrap();
        assert!(place.path().join("a").is_dir());
        assert_eq!(std::fs::read(place.path().join("b")).unwrap(), b"old a");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2);
    }
}
