//! Extended attributes (POSIX ACLs among them), owner names, and setting them on directories.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use rekindle_core::entry::{EntryKind, FileTime, Meta};
use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens,
    getxattr, lgetxattr, listxattr, llistxattr,
};
use rustix::io::Errno;

use super::sys::Status;

/// The kernel's own limit for the list of names and for one value (`XATTR_LIST_MAX`,
/// `XATTR_SIZE_MAX` of linux/limits.h).
const XATTR_BYTES_MAX: usize = 64 * 1024;
const XATTR_BYTES_FIRST: usize = 512;

/// How an inode is reached for its extended attributes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach<'a> {
    /// It is open for reading.
    Open(BorrowedFd<'a>),
    /// It is open as a place (`O_PATH`) only.
    Place(BorrowedFd<'a>),
    /// A name in an open directory; a link is not followed.
    Name(BorrowedFd<'a>, &'a [u8]),
}

impl Reach<'_> {
    /// A path through `/proc/self/fd`, because Linux had no `*xattrat` calls before 6.13.
    fn path(self) -> Vec<u8> {
        match self {
            Self::Open(fd) | Self::Place(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(),
            Self::Name(fd, name) => {
                let mut path = format!("/proc/self/fd/{}/", fd.as_raw_fd()).into_bytes();
                path.extend_from_slice(name);
                path
            }
        }
    }

    fn list(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Place(_) => listxattr(self.path(), buffer),
            Self::Name(..) => llistxattr(self.path(), buffer),
        }
    }

    fn get(self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Place(_) => getxattr(self.path(), name, buffer),
            Self::Name(..) => lgetxattr(self.path(), name, buffer),
        }
    }
}

fn growing(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; XATTR_BYTES_FIRST];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < XATTR_BYTES_MAX => {
                buffer.resize((buffer.len() * 4).min(XATTR_BYTES_MAX), 0);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Extended attributes: names and values, sorted by name.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All extended attributes, and why some of them are not there.
pub(super) fn xattrs(reach: Reach<'_>) -> (Xattrs, Option<String>) {
    let list = match growing(|buffer| reach.list(buffer)) {
        Ok(list) => list,
        // The file system has none, or it went away: whoever reads it next will say so.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOENT) => return (Vec::new(), None),
        Err(errno) => {
            let why = format!("list extended attributes: {}", said(errno));
            return (Vec::new(), Some(why));
        }
    };
    let mut found = Vec::new();
    let mut problem = None;
    for name in list.split(|byte| *byte == 0).filter(|n| !n.is_empty()) {
        match growing(|buffer| reach.get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // It was removed since the list was made.
            Err(Errno::NODATA | Errno::NOENT) => {}
            Err(errno) => {
                let name = String::from_utf8_lossy(name).escape_debug().to_string();
                problem = Some(format!("read extended attribute `{name}`: {}", said(errno)));
            }
        }
    }
    found.sort();
    (found, problem)
}

/// The system's words for an error number.
pub(super) fn said(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

/// Names of users and groups, each asked for once.
#[derive(Debug, Default)]
pub(super) struct OwnerNames {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl OwnerNames {
    fn user(&mut self, uid: u32) -> Option<String> {
        let look = || {
            let user = uzers::get_user_by_uid(uid)?;
            user.name().to_str().map(str::to_owned)
        };
        self.users.entry(uid).or_insert_with(look).clone()
    }

    fn group(&mut self, gid: u32) -> Option<String> {
        let look = || {
            let group = uzers::get_group_by_gid(gid)?;
            group.name().to_str().map(str::to_owned)
        };
        self.groups.entry(gid).or_insert_with(look).clone()
    }

    /// Puts the attributes of an entry together.
    pub(super) fn meta(&mut self, kind: EntryKind, status: &Status, xattrs: Xattrs) -> Meta {
        let size = if matches!(kind, EntryKind::File) { status.size } else { 0 };
        Meta {
            kind,
            mode: status.mode,
            uid: status.uid,
            gid: status.gid,
            user: self.user(status.uid),
            group: self.group(status.gid),
            modified: status.modified,
            changed: status.changed,
            accessed: status.accessed,
            inode: status.inode,
            device: status.device,
            links: status.links,
            size,
            xattrs,
        }
    }
}

/// Gives an open directory the attributes of an entry: owner first (it clears set-id bits), then
/// extended attributes, then the mode (an ACL changes it), then the times. Says what did not work.
pub(super) fn apply(directory: BorrowedFd<'_>, meta: &Meta, owners: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if owners {
        let owner = Some(Uid::from_raw(meta.uid));
        let group = Some(Gid::from_raw(meta.gid));
        if let Err(errno) = fchown(directory, owner, group) {
            problems.push(format!("set the owner: {}", said(errno)));
        }
    }
    for (name, value) in &meta.xattrs {
        if let Err(errno) = fsetxattr(directory, name.as_slice(), value, XattrFlags::empty()) {
            let name = String::from_utf8_lossy(name);
            problems.push(format!("set `{}`: {}", name.escape_debug(), said(errno)));
        }
    }
    if let Err(errno) = fchmod(directory, Mode::from_raw_mode(meta.mode & 0o7777)) {
        problems.push(format!("set the mode: {}", said(errno)));
    }
    let times = Timestamps { last_access: timespec(meta.accessed), last_modification: timespec(meta.modified) };
    if let Err(errno) = futimens(directory, &times) {
        problems.push(format!("set the times: {}", said(errno)));
    }
    problems
}

fn timespec(time: FileTime) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) }
}
