//! The restore target as open directories.
//!
//! Every path below the target is reached name by name from an open directory, and no symbolic
//! link is ever followed on the way: a link that stands (or is put, while we run) where a
//! directory is expected is an error, not a way out of the target (CWE-59).

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rekindle_core::entry::Meta;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::{self, Errno};

/// Directories a worker keeps open at most; with it stays far below the usual limit of 1024.
const OPEN_DIRECTORIES_MAX: usize = 48;

/// Number of a directory in [`Directories`]; 0 is the target itself.
pub(crate) type DirectoryNumber = u32;

/// A directory that takes part in the restore.
#[derive(Debug)]
pub(crate) struct DirectoryRecord {
    pub(crate) parent: DirectoryNumber,
    pub(crate) name: Box<[u8]>,
    /// Attributes to set at the very end; `None` for the target itself and for directories
    /// that only lead to a selected path.
    pub(crate) meta: Option<Box<Meta>>,
}

/// Every directory of the restore, each after its parent.
#[derive(Debug)]
pub(crate) struct Directories {
    records: Vec<DirectoryRecord>,
}

impl Directories {
    /// Only the target itself.
    pub(crate) fn new() -> Self {
        let target = DirectoryRecord { parent: 0, name: Box::default(), meta: None };
        Self { records: vec![target] }
    }

    /// Adds a directory below another one.
    pub(crate) fn add(&mut self, record: DirectoryRecord) -> DirectoryNumber {
        self.records.push(record);
        u32::try_from(self.records.len() - 1).unwrap_or(u32::MAX)
    }

    /// A directory by its number.
    pub(crate) fn get(&self, number: DirectoryNumber) -> &DirectoryRecord {
        &self.records[number as usize]
    }

    /// Numbers of all directories but the target, children before parents.
    pub(crate) fn bottom_up(&self) -> impl Iterator<Item = DirectoryNumber> + use<> {
        (1..u32::try_from(self.records.len()).unwrap_or(u32::MAX)).rev()
    }

    /// Path of `name` in a directory, from the target, as bytes.
    pub(crate) fn path(&self, number: DirectoryNumber, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut at = number;
        while at != 0 {
            let record = self.get(at);
            names.push(&record.name);
            at = record.parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

/// Opens the target directory itself. The way to it is the user's, so links on it are followed.
pub(crate) fn open_target(path: &Path) -> io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory inside another one; a symbolic link is `ENOTDIR` or `ELOOP`.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// What stands under a name, links not followed; `None` when nothing does.
pub(crate) fn look(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What kind of file a `stat` describes.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

/// Opens directories of the restore for one worker and keeps the last ones open.
pub(crate) struct DirectoryCache<'a> {
    target: BorrowedFd<'a>,
    open: HashMap<DirectoryNumber, Rc<OwnedFd>>,
}

impl<'a> DirectoryCache<'a> {
    /// Nothing open but the target.
    pub(crate) fn new(target: BorrowedFd<'a>) -> Self {
        Self { target, open: HashMap::new() }
    }

    /// Calls `work` with the open directory.
    pub(crate) fn with<T>(
        &mut self,
        directories: &Directories,
        number: DirectoryNumber,
        work: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> io::Result<T> {
        if number == 0 {
            return Ok(work(self.target));
        }
        let fd = self.open(directories, number)?;
        Ok(work(fd.as_fd()))
    }

    fn open(&mut self, directories: &Directories, number: DirectoryNumber) -> io::Result<Rc<OwnedFd>> {
        if let Some(fd) = self.open.get(&number) {
            return Ok(Rc::clone(fd));
        }
        let mut missing = vec![number];
        let mut at = directories.get(number).parent;
        let mut from: Option<Rc<OwnedFd>> = None;
        while at != 0 {
            if let Some(fd) = self.open.get(&at) {
                from = Some(Rc::clone(fd));
                break;
            }
            missing.push(at);
            at = directories.get(at).parent;
        }
        for number in missing.into_iter().rev() {
            let parent = from.as_ref().map_or(self.target, |fd| fd.as_fd());
            let fd = Rc::new(open_directory(parent, &directories.get(number).name)?);
            if self.open.len() >= OPEN_DIRECTORIES_MAX {
                self.open.clear();
            }
            self.open.insert(number, Rc::clone(&fd));
            from = Some(fd);
        }
        from.ok_or(Errno::NOENT)
    }
}
