//! The content of one file: opened late, read without waiting, and believed only when the file was
//! the same before and after.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rekindle_core::entry::{Closing, ContentRead, ContentSource, EntryKind, EntryPath, FileTime, Meta, ReadFault};
use rekindle_core::note::NoteClass;
use rekindle_core::{Fault, Result};
use rustix::fs::{Advice, FileType, SeekFrom, fadvise, seek};
use rustix::io::{Errno, pread};

use super::attributes::{Reach, said, xattrs};
use super::journal::Journal;
use super::root_fault;
use super::sys::{Status, open_file, status_of};

/// How often a file that changed while it was read is read again.
const READ_AGAIN_MAX: u8 = 2;
/// Files from here on are announced to the kernel as being read from start to end.
const ADVISE_BYTES_MIN: u64 = 1 << 20;
/// Virtual file systems (`/proc`, some FUSE ones) say 0 bytes and give more: such files are read to
/// their end, up to this much.
const UNTOLD_BYTES_MAX: u64 = 64 << 20;
/// The kernel stamps changes with the time of its last tick (10 ms at 100 Hz), so a change within
/// this time after a reading may leave every time of the file as it was.
const TICK_NANOSECONDS: i128 = 20_000_000;

/// A listed file.
pub(super) struct FileSource {
    pub(super) journal: Arc<Journal>,
    pub(super) directory: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) path: EntryPath,
    pub(super) listed: Status,
    pub(super) meta: Meta,
    /// It is a configured path: without it the component has nothing to show.
    pub(super) is_root: bool,
    pub(super) keep_access_time: bool,
    pub(super) tries: u8,
}

impl FileSource {
    /// Leaves this file out, and says why.
    fn skip(&self, class: NoteClass, errno: Errno, text: String) -> ReadFault {
        if self.is_root {
            return ReadFault::Abort(root_fault(&self.path, errno));
        }
        match self.journal.note(class, &self.path, text) {
            Ok(()) => ReadFault::Skip,
            Err(fault) => ReadFault::Abort(fault),
        }
    }

    fn refused(&self, errno: Errno) -> ReadFault {
        match errno {
            Errno::NOENT => self.skip(NoteClass::Vanished, errno, "it is gone".to_owned()),
            // What O_NOFOLLOW says of a link, and what opening a socket says.
            Errno::LOOP | Errno::NXIO | Errno::NODEV => self.replaced(errno),
            // Ours to mend, not the file's fault: the next one would fail as well.
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => ReadFault::Abort(super::read_fault(&self.path, errno)),
            errno => self.skip(NoteClass::Unreadable, errno, format!("open: {}", said(errno))),
        }
    }

    fn replaced(&self, errno: Errno) -> ReadFault {
        let text = "it was replaced by something that is not a file".to_owned();
        self.skip(NoteClass::Vanished, errno, text)
    }

    /// Attributes of the inode that was really opened.
    fn fresh_meta(&self, open: &OwnedFd, status: &Status) -> Result<Meta> {
        let (xattrs, problem) = xattrs(Reach::Open(open.as_fd()));
        if let Some(why) = problem {
            self.journal.note(NoteClass::AttributeUnreadable, &self.path, why)?;
        }
        Ok(self.journal.meta(EntryKind::File, status, xattrs))
    }
}

impl ContentSource for FileSource {
    fn open(&mut self) -> Result<Box<dyn ContentRead>, ReadFault> {
        let now = now();
        let opened = open_file(self.directory.as_fd(), &self.name, self.keep_access_time);
        let file = opened.map_err(|errno| self.refused(errno))?;
        let before = status_of(file.as_fd()).map_err(|errno| self.refused(errno))?;
        if before.kind != FileType::RegularFile {
            return Err(self.replaced(Errno::NXIO));
        }
        let mut meta =
            if before.same_content(&self.listed) { self.meta.clone() } else { self.fresh_meta(&file, &before)? };
        if nanoseconds(before.changed) + TICK_NANOSECONDS > now {
            meta.changed = never_equal(before.changed);
        } else {
            meta.changed = before.changed;
        }
        if before.size >= ADVISE_BYTES_MIN {
            // Only a hint: file systems that do not know it read as well without.
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        self.tries += 1;
        Ok(Box::new(FileRead {
            journal: Arc::clone(&self.journal),
            path: self.path.clone(),
            last_try: self.tries > READ_AGAIN_MAX,
            is_root: self.is_root,
            position: 0,
            data_end: if before.may_have_holes() { 0 } else { u64::MAX },
            next_data: 0,
            file,
            before,
            meta,
        }))
    }

    fn unchanged(self: Box<Self>, _size: u64) {}
}

/// A change time that no later look at the file gives: the next run reads it again.
pub(super) fn never_equal(time: FileTime) -> FileTime {
    match time.nanoseconds {
        0 => FileTime { seconds: time.seconds.saturating_sub(1), nanoseconds: 999_999_999 },
        nanoseconds => FileTime { nanoseconds: nanoseconds - 1, ..time },
    }
}

fn nanoseconds(time: FileTime) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

fn now() -> i128 {
    // The clock of the machine on purpose: it is compared with times its kernel stamped.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i128::try_from(since.as_nanos()).ok())
        .unwrap_or(i128::MAX)
}

/// A file being read, up to the size it had when it was opened: a file that grows (a log) ends.
struct FileRead {
    journal: Arc<Journal>,
    path: EntryPath,
    file: OwnedFd,
    before: Status,
    meta: Meta,
    position: u64,
    /// Where the known data ends and a hole may begin; `u64::MAX` in a file without holes.
    data_end: u64,
    /// Where the data after the known hole begins.
    next_data: u64,
    last_try: bool,
    is_root: bool,
}

impl FileRead {
    /// Finds out whether `position` is in a hole, and where that or the data ends.
    fn locate(&mut self) -> Result<(), Errno> {
        match seek(&self.file, SeekFrom::Data(self.position)) {
            Ok(data) => self.next_data = data,
            // Nothing but a hole until the end.
            Err(Errno::NXIO) => self.next_data = self.before.size,
            // The file system does not know holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.next_data = self.position;
                self.data_end = u64::MAX;
                return Ok(());
            }
            Err(errno) => return Err(errno),
        }
        if self.next_data < self.before.size {
            self.data_end = seek(&self.file, SeekFrom::Hole(self.next_data))?;
        }
        Ok(())
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let left = match self.before.size {
            0 => UNTOLD_BYTES_MAX.saturating_sub(self.position),
            size => size.saturating_sub(self.position),
        };
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.position >= self.data_end && self.position >= self.next_data {
            self.locate()?;
        }
        if self.position < self.next_data {
            let given = clamp(left.min(self.next_data - self.position), buffer.len());
            buffer[..given].fill(0);
            return Ok(given);
        }
        let most = clamp(left.min(self.data_end - self.position), buffer.len());
        loop {
            match pread(&self.file, &mut buffer[..most], self.position) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    fn differs(&self, after: &Status) -> Option<String> {
        if self.position < self.before.size {
            let (was, got) = (self.before.size, self.position);
            return Some(format!("it shrank from {was} to {got} bytes"));
        }
        if after.same_content(&self.before) {
            return None;
        }
        Some(if after.size == self.before.size {
            "its content or attributes changed".to_owned()
        } else {
            let (was, is) = (self.before.size, after.size);
            format!("its size went from {was} to {is} bytes")
        })
    }
}

/// At most a buffer of the rest of a range.
fn clamp(range: u64, buffer: usize) -> usize {
    usize::try_from(range).map_or(buffer, |range| range.min(buffer))
}

impl ContentRead for FileRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        match self.step(buffer) {
            Ok(given) => {
                self.position += given as u64;
                Ok(given)
            }
            Err(errno) if self.is_root => Err(ReadFault::Abort(root_fault(&self.path, errno))),
            Err(errno) => {
                let text = format!("read at byte {}: {}", self.position, said(errno));
                self.journal.note(NoteClass::Unreadable, &self.path, text)?;
                Err(ReadFault::Skip)
            }
        }
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        let after = status_of(self.file.as_fd()).map_err(|errno| super::read_fault(&self.path, errno))?;
        let Some(difference) = self.differs(&after) else {
            return Ok(Closing::Keep(Box::new(self.meta)));
        };
        if !self.last_try {
            return Ok(Closing::Retry);
        }
        let text = format!("{difference} while it was read, also at the last try");
        self.journal.note(NoteClass::ChangedWhileRead, &self.path, text)?;
        // The attributes from before the reading, so that the next run sees a changed file.
        let mut meta = self.meta;
        meta.changed = never_equal(meta.changed);
        Ok(Closing::Keep(Box::new(meta)))
    }
}
