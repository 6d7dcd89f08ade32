//! What an error of the operating system means here.

use std::io;
use std::path::Path;

use rekindle_core::{Fault, codes};
use rustix::io::Errno;

/// The error of `what` (verb and object) on a local path.
pub(super) fn fault(what: impl Into<String>, error: io::Error) -> Fault {
    let (code, hint) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => {
            (codes::STORE_FULL, Some("free space (or inodes) there, for example with `rekindle prune`"))
        }
        Some(Errno::DQUOT) => (codes::STORE_FULL, Some("raise the disk quota of this user, or free space there")),
        Some(Errno::FBIG) => {
            (codes::STORE_FULL, Some("the file system or the limit `ulimit -f` does not allow files this big"))
        }
        Some(Errno::ROFS) => (
            codes::STORE_DENIED,
            Some("the file system is mounted read-only: look at `dmesg` and `findmnt`, then remount it writable"),
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            (codes::STORE_DENIED, Some("give the user that runs rekindle the right to read and write there"))
        }
        Some(Errno::IO) => (codes::STORE_IO, Some("the disk reports errors: look at `dmesg` and `smartctl -a`")),
        Some(Errno::NOENT) => (codes::STORE_NOT_FOUND, None),
        Some(Errno::TIMEDOUT | Errno::STALE | Errno::HOSTDOWN | Errno::NOTCONN) => (
            codes::STORE_UNREACHABLE,
            Some("the file system is on the network and its server does not answer: check the mount"),
        ),
        _ => (codes::STORE_IO, None),
    };
    let fault = Fault::new(code, what).because(error);
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

/// The root directory is not there.
pub(super) fn root_missing(root: &Path) -> Fault {
    Fault::new(codes::STORE_ROOT, format!("open the storage directory `{}`: it does not exist", root.display()))
        .hint("is the disk mounted? A new repository is made with `rekindle init`")
}

/// `ENOENT` below the root: the root itself, or only this object?
pub(super) fn root_is_there(root: &Path) -> Result<(), Fault> {
    match std::fs::metadata(root) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Fault::new(
            codes::STORE_ROOT,
            format!("open the storage directory `{}`: it is not a directory", root.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(root_missing(root)),
        Err(error) => Err(fault(format!("open the storage directory `{}`", root.display()), error)),
    }
}

/// Whether the path is surely absent: the name, or a directory on the way to it.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
