//! The few system calls a walk is made of. Everything goes by directory handle and nothing follows
//! a link, so that a path which changes under the walk cannot lead it elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rekindle_core::entry::FileTime;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags, makedev, openat, statx};
use rustix::io::Errno;

/// Bytes of one `getdents64` answer.
const DIRECTORY_BUFFER_BYTES: usize = 64 * 1024;

/// What `statx(2)` says about an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: FileType,
    /// Permission bits, `0o7777`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Bytes that the file system has really given it.
    pub(super) allocated: u64,
    pub(super) inode: u64,
    pub(super) device: u64,
    /// The device a device node stands for.
    pub(super) node_device: u64,
    pub(super) links: u64,
    pub(super) modified: FileTime,
    pub(super) changed: FileTime,
    pub(super) accessed: FileTime,
    /// Another file system (or a bind mount) begins here.
    pub(super) mount_root: bool,
}

impl Status {
    /// What tells one inode from another.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the content can be taken for the same: same inode, size and both times.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.identity() == other.identity()
            && self.size == other.size
            && self.modified == other.modified
            && self.changed == other.changed
    }

    /// Whether less is allocated than the size says: there are holes (or it is compressed).
    pub(super) fn may_have_holes(&self) -> bool {
        self.allocated < self.size
    }
}

fn time(seconds: i64, nanoseconds: u32) -> FileTime {
    FileTime { seconds, nanoseconds }
}

impl From<Statx> for Status {
    fn from(raw: Statx) -> Self {
        let mode = u32::from(raw.stx_mode);
        Self {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            uid: raw.stx_uid,
            gid: raw.stx_gid,
            size: raw.stx_size,
            allocated: raw.stx_blocks.saturating_mul(512),
            inode: raw.stx_ino,
            device: makedev(raw.stx_dev_major, raw.stx_dev_minor),
            node_device: makedev(raw.stx_rdev_major, raw.stx_rdev_minor),
            links: u64::from(raw.stx_nlink),
            modified: time(raw.stx_mtime.tv_sec, raw.stx_mtime.tv_nsec),
            changed: time(raw.stx_ctime.tv_sec, raw.stx_ctime.tv_nsec),
            accessed: time(raw.stx_atime.tv_sec, raw.stx_atime.tv_nsec),
            mount_root: raw.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}

/// Status of a name in a directory; a link is not followed.
pub(super) fn status_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Status, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(directory, name, flags, StatxFlags::BASIC_STATS).map(Status::from)
}

/// Status of what is open.
pub(super) fn status_of(open: BorrowedFd<'_>) -> Result<Status, Errno> {
    statx(open, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Status::from)
}

/// Whether the way to a directory may lead through a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Follow,
    Refuse,
}

/// Opens a directory for listing.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &[u8], links: Links) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(parent, name, with(links, flags), Mode::empty())
}

/// Opens a directory only to go through it: the right to search is enough.
pub(super) fn open_passage(parent: BorrowedFd<'_>, name: &[u8], links: Links) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(parent, name, with(links, flags), Mode::empty())
}

fn with(links: Links, flags: OFlags) -> OFlags {
    match links {
        Links::Follow => flags,
        Links::Refuse => flags | OFlags::NOFOLLOW,
    }
}

/// Opens a file for reading without ever waiting for it (a FIFO that took its place would
/// otherwise block) and, where the kernel allows it, without touching its access time.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &[u8], keep_access_time: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if keep_access_time {
        // Only the owner and CAP_FOWNER may ask for it (open(2)); a user namespace can refuse.
        match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => {}
            result => return result,
        }
    }
    openat(parent, name, flags, Mode::empty())
}

/// The names of a directory, in two allocations instead of one per name.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
    next: usize,
}

impl Names {
    /// A list from names that are there already.
    pub(super) fn from_sorted<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut list = Self::default();
        names.for_each(|name| list.push(name));
        list
    }

    fn push(&mut self, name: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.spans.push((start, self.bytes.len()));
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.spans.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        // A directory that changes while it is listed may give a name twice.
        self.spans.dedup_by(|a, b| bytes[a.0..a.1] == bytes[b.0..b.1]);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether a name is among them.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.spans.binary_search_by(|span| self.bytes[span.0..span.1].cmp(name)).is_ok()
    }

    /// Leaves only some of them.
    pub(super) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.spans.retain(|span| keep(&bytes[span.0..span.1]));
    }

    /// The next one in byte order.
    pub(super) fn take_next(&mut self) -> Option<Vec<u8>> {
        let span = *self.spans.get(self.next)?;
        self.next += 1;
        Some(self.bytes[span.0..span.1].to_vec())
    }
}

/// Lists a directory in byte order. An error in the middle comes with the names until there.
pub(super) fn names_in(directory: impl AsFd) -> (Names, Option<io::Error>) {
    let mut names = Names::default();
    let mut buffer = Vec::with_capacity(DIRECTORY_BUFFER_BYTES);
    let mut listing = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut error = None;
    while let Some(entry) = listing.next() {
        match entry {
            Ok(entry) => match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(name),
            },
            Err(Errno::INTR) => {}
            Err(errno) => {
                error = Some(errno.into());
                break;
            }
        }
    }
    names.sort();
    (names, error)
}
