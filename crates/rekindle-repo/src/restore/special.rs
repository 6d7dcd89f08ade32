//! Entries without content: links, FIFOs, sockets, devices; and taking away what is in the way.

use std::os::fd::{AsFd, BorrowedFd};

use rekindle_core::entry::EntryKind;
use rustix::fs::{AtFlags, FileType, Mode, RawDir};
use rustix::io::{self, Errno};

use super::place::{file_type, look, open_directory};

/// Depth of directories below which `remove_all` gives up: each level is an open directory.
const REMOVE_DEPTH_MAX: usize = 512;

/// Makes a link, FIFO, socket or device. What stands there and is the same stays; anything else
/// but a directory is replaced.
pub(crate) fn make(directory: BorrowedFd<'_>, name: &[u8], kind: &EntryKind) -> io::Result<()> {
    if let Some(stat) = look(directory, name)? {
        if is_same(directory, name, file_type(&stat), stat.st_rdev, kind) {
            return Ok(());
        }
        clear(directory, name, file_type(&stat))?;
    }
    let mode = Mode::from_raw_mode(0o600);
    match kind {
        EntryKind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), directory, name),
        EntryKind::Fifo => rustix::fs::mknodat(directory, name, FileType::Fifo, mode, 0),
        EntryKind::Socket => rustix::fs::mknodat(directory, name, FileType::Socket, mode, 0),
        EntryKind::BlockDevice { device } => rustix::fs::mknodat(directory, name, FileType::BlockDevice, mode, *device),
        EntryKind::CharDevice { device } => {
            rustix::fs::mknodat(directory, name, FileType::CharacterDevice, mode, *device)
        }
        EntryKind::File | EntryKind::Directory => Err(Errno::INVAL),
    }
}

fn is_same(directory: BorrowedFd<'_>, name: &[u8], found: FileType, found_device: u64, kind: &EntryKind) -> bool {
    match (found, kind) {
        (FileType::Symlink, EntryKind::Symlink { target }) => {
            rustix::fs::readlinkat(directory, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.as_slice())
        }
        (FileType::Fifo, EntryKind::Fifo) | (FileType::Socket, EntryKind::Socket) => true,
        (FileType::BlockDevice, EntryKind::BlockDevice { device })
        | (FileType::CharacterDevice, EntryKind::CharDevice { device }) => found_device == *device,
        _ => false,
    }
}

/// Makes one name stand for the same file as another one of the restore.
pub(crate) fn link(
    first_directory: BorrowedFd<'_>,
    first_name: &[u8],
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    let first = look(first_directory, first_name)?.ok_or(Errno::NOENT)?;
    if let Some(there) = look(directory, name)? {
        if (there.st_dev, there.st_ino) == (first.st_dev, first.st_ino) {
            return Ok(());
        }
        clear(directory, name, file_type(&there))?;
    }
    rustix::fs::linkat(first_directory, first_name, directory, name, AtFlags::empty())
}

/// Takes away one entry that stands where another is to be written. A directory stays: `EISDIR`.
pub(crate) fn clear(directory: BorrowedFd<'_>, name: &[u8], found: FileType) -> io::Result<()> {
    if found == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    rustix::fs::unlinkat(directory, name, AtFlags::empty())
}

/// Removes an entry and, for a directory, everything below it; no link is followed.
pub(crate) fn remove_all(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    remove_below(directory, name, REMOVE_DEPTH_MAX)
}

fn remove_below(directory: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    let Some(stat) = look(directory, name)? else {
        return Ok(());
    };
    if file_type(&stat) != FileType::Directory {
        return rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let inner = open_directory(directory, name)?;
    for child in names(inner.as_fd())? {
        remove_below(inner.as_fd(), &child, depth)?;
    }
    rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    // A second description: reading moves the position of the first one otherwise.
    let own = open_directory(directory, b".")?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(own, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
