//! Owners, modes, times and extended attributes of restored entries.
//!
//! The order matters: owners first (`chown` clears set-uid, set-gid and file capabilities), then
//! extended attributes and the mode, times last (everything else changes them).

use std::os::fd::{AsRawFd, BorrowedFd};

use rekindle_core::entry::{EntryKind, FileTime, Meta};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::place::file_type;

/// Set-uid and set-gid.
const SET_ID_BITS: u32 = 0o6000;

/// Whose an entry becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Of whoever restores.
    Restorer,
    /// As it was saved.
    Stored,
    /// This user and group.
    Given(u32, u32),
}

impl Owners {
    fn of(self, meta: &Meta) -> Option<(u32, u32)> {
        match self {
            Self::Restorer => None,
            Self::Stored => Some((meta.uid, meta.gid)),
            Self::Given(uid, gid) => Some((uid, gid)),
        }
    }
}

/// What could not be set, ready to be read by somebody.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, what: &str, error: Errno) {
        self.0.push(format!("{what}: {}", std::io::Error::from(error)));
    }

    /// All of them in one line; `None` when there were none.
    pub(crate) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// Sets the attributes of an open file or directory. What is right already, as on a file that was just
/// made, is not set again: each change is written into the file system's journal.
pub(crate) fn set_open(fd: BorrowedFd<'_>, meta: &Meta, owners: Owners) -> Problems {
    let mut problems = Problems::default();
    let there = rustix::fs::fstat(fd).ok();
    let mut changed = there.is_none();
    let mut owned = false;
    if let Some((uid, gid)) = owners.of(meta) {
        let same = |stat: &rustix::fs::Stat| (stat.st_uid, stat.st_gid) == (uid, gid);
        if there.as_ref().is_some_and(same) {
            owned = owners == Owners::Stored;
        } else {
            changed = true;
            match rustix::fs::fchown(fd, owner(uid), group(gid)) {
                Ok(()) => owned = owners == Owners::Stored,
                Err(error) => problems.note("set owner", error),
            }
        }
    }
    for (name, value) in &meta.xattrs {
        // An access control list changes the mode.
        changed = true;
        if let Err(error) = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            problems.note(&format!("set {}", readable(name)), error);
        }
    }
    let wanted = mode(meta, owned);
    let same = |stat: &rustix::fs::Stat| stat.st_mode & 0o7777 == wanted.as_raw_mode();
    if (changed || !there.as_ref().is_some_and(same))
        && let Err(error) = rustix::fs::fchmod(fd, wanted)
    {
        problems.note("set mode", error);
    }
    if let Err(error) = rustix::fs::futimens(fd, &times(meta)) {
        problems.note("set times", error);
    }
    problems
}

/// Sets the attributes of an entry that cannot or must not be opened: a link, a FIFO, a device.
pub(crate) fn set_named(directory: BorrowedFd<'_>, name: &[u8], meta: &Meta, owners: Owners) -> Problems {
    let mut problems = Problems::default();
    let link = matches!(meta.kind, EntryKind::Symlink { .. });
    let mut owned = false;
    if let Some((uid, gid)) = owners.of(meta) {
        let set = rustix::fs::chownat(directory, name, owner(uid), group(gid), AtFlags::SYMLINK_NOFOLLOW);
        match set {
            Ok(()) => owned = owners == Owners::Stored,
            Err(error) => problems.note("set owner", error),
        }
    }
    // There is no `setxattrat` before Linux 6.13: the way over the open directory is not a path
    // that somebody could have changed, and its last name is not followed.
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    for (key, value) in &meta.xattrs {
        let set = rustix::fs::lsetxattr(path.as_slice(), key.as_slice(), value, XattrFlags::empty());
        if let Err(error) = set {
            problems.note(&format!("set {}", readable(key)), error);
        }
    }
    // A link has no mode of its own on Linux; `chmod` would change what it points to.
    if !link && let Err(error) = set_mode_of_special(directory, name, mode(meta, owned)) {
        problems.note("set mode", error);
    }
    let set = rustix::fs::utimensat(directory, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW);
    if let Err(error) = set {
        problems.note("set times", error);
    }
    problems
}

/// `fchmodat` follows links before Linux 6.6, and somebody may put one there while we run: the
/// entry is held by an `O_PATH` descriptor and its type is looked at before its mode is set.
fn set_mode_of_special(directory: BorrowedFd<'_>, name: &[u8], mode: Mode) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if file_type(&rustix::fs::fstat(&held)?) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), mode)
}

/// A file whose owner was not set belongs to whoever restores: with set-uid it would run with
/// the restorer's rights, so these bits only go with the owner.
fn mode(meta: &Meta, owned: bool) -> Mode {
    let bits = if owned || matches!(meta.kind, EntryKind::Directory) { meta.mode } else { meta.mode & !SET_ID_BITS };
    Mode::from_raw_mode(bits & 0o7777)
}

fn owner(uid: u32) -> Option<Uid> {
    // -1 means "leave it" to chown(2) and is no user.
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

fn times(meta: &Meta) -> Timestamps {
    Timestamps { last_access: timespec(meta.accessed), last_modification: timespec(meta.modified) }
}

fn timespec(time: FileTime) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds.min(999_999_999)) }
}

fn readable(name: &[u8]) -> String {
    format!("`{}`", String::from_utf8_lossy(name).escape_debug())
}
