//! A mount point cannot be renamed: what is in it is swapped name by name.
//!
//! The restored entries are staged in a hidden directory inside the mount; that directory then
//! becomes the place where the old entries are kept. Nothing is deleted, so that a crash in the
//! middle leaves every old and every new entry in one of the two.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rekindle_core::Result;
use rustix::fs::fsync;
use rustix::io::Errno;

use super::super::sys::{Links, Names, names_in, open_directory};
use super::swap::{exchange_at, free_name, parent_of, rename_new};
use super::swap_fault;

/// Names of a mount's top that are never moved: kept old states, staging, and what fsck uses.
fn stays(name: &[u8]) -> bool {
    name.starts_with(b".pre-restore-") || name.starts_with(b".rekindle-") || name == b"lost+found"
}

/// How one name is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Exchange,
    NewOut,
    OldIn,
}

/// Swaps what is in `live` with what is in `staged` (a directory inside it); gives the directory
/// in which the old entries are kept.
pub(super) fn swap_contents(staged: &Path, live: &Path, suffix: &str) -> Result<PathBuf> {
    let fail = |errno| swap_fault("swap what is in", live, errno);
    let inside = parent_of(staged)?;
    // `.pre-restore-<point>` inside the mount.
    let holder = free_name(inside.as_fd(), live, suffix.as_ref())?;
    let (old_name, new_name) = (name(staged), name(&holder));
    rename_new((inside.as_fd(), old_name), (inside.as_fd(), new_name)).map_err(fail)?;
    let kept = open_directory(inside.as_fd(), new_name, Links::Refuse).map_err(fail)?;
    let moves = moves(list(&inside)?, list(&kept)?);
    let mut done = Vec::with_capacity(moves.len());
    for (name, kind) in moves {
        if let Err(errno) = shift(inside.as_fd(), kept.as_fd(), &name, kind) {
            let undone = take_back(inside.as_fd(), kept.as_fd(), &done);
            let _ = rename_new((inside.as_fd(), new_name), (inside.as_fd(), old_name));
            let hint = match undone {
                Ok(()) => "what was moved was moved back; nothing is changed".to_owned(),
                Err(_) => format!(
                    "old and new entries stand in `{}` and `{}`: nothing is lost, but look at both",
                    super::show(live),
                    super::show(&holder)
                ),
            };
            return Err(fail(errno).hint(hint));
        }
        done.push((name, kind));
    }
    fsync(&kept).map_err(fail)?;
    fsync(&inside).map_err(fail)?;
    Ok(holder)
}

fn name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_encoded_bytes()
}

fn list(directory: impl AsFd) -> Result<Names> {
    // A second description: a listing moves the position of the first.
    let again = open_directory(directory.as_fd(), b".", Links::Refuse)
        .map_err(|errno| swap_fault("list", Path::new("."), errno))?;
    match names_in(&again) {
        (names, None) => Ok(names),
        (_, Some(error)) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Err(swap_fault("list", Path::new("."), errno))
        }
    }
}

fn moves(mut old: Names, mut new: Names) -> BTreeMap<Vec<u8>, Move> {
    let mut moves = BTreeMap::new();
    while let Some(name) = new.take_next() {
        if !stays(&name) || !old.contains(&name) {
            moves.insert(name, Move::NewOut);
        }
    }
    while let Some(name) = old.take_next() {
        if stays(&name) {
            continue;
        }
        let kind = if moves.contains_key(&name) { Move::Exchange } else { Move::OldIn };
        moves.insert(name, kind);
    }
    moves
}

fn shift(inside: BorrowedFd<'_>, kept: BorrowedFd<'_>, name: &[u8], kind: Move) -> Result<(), Errno> {
    match kind {
        Move::Exchange => exchange_at((kept, name), (inside, name)),
        Move::NewOut => rename_new((kept, name), (inside, name)),
        Move::OldIn => rename_new((inside, name), (kept, name)),
    }
}

fn take_back(inside: BorrowedFd<'_>, kept: BorrowedFd<'_>, done: &[(Vec<u8>, Move)]) -> Result<(), Errno> {
    done.iter().rev().try_for_each(|(name, kind)| {
        let back = match kind {
            Move::Exchange => Move::Exchange,
            Move::NewOut => Move::OldIn,
            Move::OldIn => Move::NewOut,
        };
        shift(inside, kept, name, back)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_change_places_and_kept_states_stay() {
        let place = tempfile::tempdir().unwrap();
        let live = place.path();
        let staged = live.join(".rekindle-stage-x");
        std::fs::create_dir(&staged).unwrap();
        std::fs::create_dir(live.join(".pre-restore-older")).unwrap();
        for (path, text) in [("both", "old"), ("old", "old")] {
            std::fs::write(live.join(path), text).unwrap();
        }
        for (path, text) in [("both", "new"), ("new", "new")] {
            std::fs::write(staged.join(path), text).unwrap();
        }
        let kept = swap_contents(&staged, live, ".pre-restore-x").unwrap();
        assert_eq!(kept, live.join(".pre-restore-x"));
        let read = |path: &str| std::fs::read_to_string(live.join(path)).ok();
        assert_eq!(read("both").as_deref(), Some("new"));
        assert_eq!(read("new").as_deref(), Some("new"));
        assert_eq!(read("old"), None);
        assert_eq!(read(".pre-restore-x/both").as_deref(), Some("old"));
        assert_eq!(read(".pre-restore-x/old").as_deref(), Some("old"));
        assert!(live.join(".pre-restore-older").is_dir() && !staged.exists());
    }
}
