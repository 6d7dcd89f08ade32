//! One file of the target: found, made, filled, finished.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{self, Errno};

use super::place::{file_type, look};
use super::plan::{FileTask, Start};
use super::special::clear;
use crate::format::Id;
use crate::read::index::Location;

/// Unit of holes: zeros are looked for in such blocks of the file, and in what a blob holds of one.
const HOLE_BLOCK_BYTES: usize = 4096;

/// A file as the first look found or made it.
pub(super) struct Prepared {
    pub(super) start: Start,
    /// Numbers of the blobs that are there already.
    pub(super) present: Vec<bool>,
    /// The open file, unless it is made at its only write.
    pub(super) open: Option<OwnedFd>,
}

/// Looks at what stands under the name, keeps what is right of it, makes the file otherwise.
pub(super) fn prepare(directory: BorrowedFd<'_>, task: &FileTask, locations: &[Location]) -> io::Result<Prepared> {
    if task.may_exist
        && let Some(stat) = look(directory, &task.name)?
    {
        if let Some(prepared) = take_over(directory, task, &stat, locations)? {
            return Ok(prepared);
        }
        clear(directory, &task.name, file_type(&stat))?;
    }
    if locations.len() == 1 {
        return Ok(Prepared { start: Start::AtWrite, present: vec![false], open: None });
    }
    let fd = create(directory, &task.name, 0o600)?;
    if task.size > 0 {
        rustix::fs::ftruncate(&fd, task.size)?;
    }
    let stat = rustix::fs::fstat(&fd)?;
    Ok(Prepared {
        start: Start::Made { device: stat.st_dev, inode: stat.st_ino, holes: true },
        present: vec![false; locations.len()],
        open: Some(fd),
    })
}

/// `None` when what is there cannot be used and has to go.
fn take_over(
    directory: BorrowedFd<'_>,
    task: &FileTask,
    found: &Stat,
    locations: &[Location],
) -> io::Result<Option<Prepared>> {
    // A second name of the file may be outside of the target: such a file is never written to.
    if file_type(found) != FileType::RegularFile || found.st_nlink != 1 {
        return Ok(None);
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(directory, &*task.name, flags, Mode::empty()) else {
        return Ok(None);
    };
    let stat = rustix::fs::fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) != (found.st_dev, found.st_ino) || stat.st_nlink != 1 {
        return Ok(None);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let present = compare(fd.as_fd(), length, locations)?;
    if length != task.size {
        rustix::fs::ftruncate(&fd, task.size)?;
    }
    Ok(Some(Prepared {
        start: Start::Made { device: stat.st_dev, inode: stat.st_ino, holes: false },
        present,
        open: Some(fd),
    }))
}

/// Which blobs stand at their places already.
fn compare(fd: BorrowedFd<'_>, length: u64, locations: &[Location]) -> io::Result<Vec<bool>> {
    let mut present = Vec::with_capacity(locations.len());
    let mut buffer = Vec::new();
    let mut at = 0_u64;
    for location in locations {
        let bytes = location.blob.content_length();
        let end = at.saturating_add(bytes);
        let same = end <= length && {
            buffer.resize(usize::try_from(bytes).unwrap_or(0), 0);
            read_exact(fd, &mut buffer, at)? && Id::of(&buffer) == location.blob.id
        };
        present.push(same);
        at = end;
    }
    Ok(present)
}

fn read_exact(fd: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[done..], at + done as u64) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Makes a new file; something that stands there is an error.
pub(super) fn create(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    rustix::fs::openat(
        directory,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(mode),
    )
}

/// Opens the file for one more write, and makes sure it is still the same.
pub(super) fn reopen(directory: BorrowedFd<'_>, name: &[u8], device: u64, inode: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if (stat.st_dev, stat.st_ino) == (device, inode) { Ok(fd) } else { Err(Errno::STALE) }
}

/// Removes a file that could not be given back whole.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Writes content at its place. With `holes`, zeros are left out where the file has a hole; the
/// end of the last byte written is given, so that the caller can set the length.
pub(super) fn write_at(fd: BorrowedFd<'_>, content: &[u8], at: u64, holes: bool) -> io::Result<u64> {
    if !holes {
        write_all(fd, content, at)?;
        return Ok(at + content.len() as u64);
    }
    let mut written = 0;
    let mut run: Option<usize> = None;
    let mut position = 0;
    while position < content.len() {
        let block = (at + position as u64) % HOLE_BLOCK_BYTES as u64;
        let to_border = HOLE_BLOCK_BYTES - usize::try_from(block).unwrap_or(0);
        let end = (position + to_border).min(content.len());
        if is_zero(&content[position..end]) {
            if let Some(start) = run.take() {
                write_all(fd, &content[start..position], at + start as u64)?;
                written = at + position as u64;
            }
        } else if run.is_none() {
            run = Some(position);
        }
        position = end;
    }
    if let Some(start) = run {
        write_all(fd, &content[start..], at + start as u64)?;
        written = at + content.len() as u64;
    }
    Ok(written)
}

fn is_zero(block: &[u8]) -> bool {
    block.first() == Some(&0) && block[1..] == block[..block.len() - 1]
}

fn write_all(fd: BorrowedFd<'_>, mut content: &[u8], mut at: u64) -> io::Result<()> {
    while !content.is_empty() {
        match rustix::io::pwrite(fd, content, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                content = &content[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[(Vec<u8>, u64)], length: u64) -> (Vec<u8>, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        for (piece, at) in pieces {
            write_at(file.as_fd(), piece, *at, true).unwrap();
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        (content, file.metadata().unwrap().blocks() * 512)
    }

    #[test]
    fn zeros_become_holes() {
        let (content, room) = written(&[(vec![0; 1 << 20], 0), (vec![1], 1 << 20)], (1 << 20) + 1);
        assert_eq!(content.len(), (1 << 20) + 1);
        assert_eq!(content[1 << 20], 1);
        assert!(room <= 64 << 10, "{room} bytes for one byte of data");
    }

    proptest! {
        #[test]
        fn content_is_never_changed(
            runs in proptest::collection::vec((any::<bool>(), 1..20_000_usize), 1..6),
            cuts in proptest::collection::vec(1..9_000_usize, 0..6),
        ) {
            let content: Vec<u8> = runs
                .iter()
                .flat_map(|(zero, length)| std::iter::repeat_n(u8::from(!zero), *length))
                .collect();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                let end = (start + cut).min(content.len());
                pieces.push((content[start..end].to_vec(), start as u64));
                start = end;
            }
            pieces.push((content[start..].to_vec(), start as u64));
            pieces.reverse();
            prop_assert_eq!(written(&pieces, content.len() as u64).0, content);
        }
    }
}
