//! A password in its file: written for the same readers, and on the disk before anything relies on it.

use std::fs::{File, Permissions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, Secret, codes};
use rustix::io::Errno;

/// The file that is replaced, not a link to it.
pub(super) fn replaced(file: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(file).map_err(|error| unwritable(file, error))
}

/// Where the new password lies until the repository knows it. What an interrupted rotation left there is
/// written over: the old password still opens everything.
pub(super) fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    target.with_file_name(name)
}

/// Writes a password. In the place of `like`, whoever could read that file can read this one, and nobody else.
pub(super) fn write_private(path: &Path, text: &str, like: Option<&Path>) -> Result<()> {
    if like.is_some() {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(path, error)),
            _ => {}
        }
    }
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        if let Some(like) = like {
            same_readers(&file, like)?;
        }
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(|error| {
        if like.is_some() {
            // Nobody knows what it holds.
            let _ = std::fs::remove_file(path);
        }
        unwritable(path, error)
    })
}

/// Owner, group, mode and access list of another file.
fn same_readers(file: &File, like: &Path) -> std::io::Result<()> {
    const ACCESS_LIST: &str = "system.posix_acl_access";
    let wanted = std::fs::metadata(like)?;
    let made = file.metadata()?;
    if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
        std::os::unix::fs::fchown(file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    let mut list = [0; 4096];
    match rustix::fs::getxattr(like, ACCESS_LIST, &mut list[..]) {
        // The mode is part of it.
        Ok(length) => {
            return Ok(rustix::fs::fsetxattr(file, ACCESS_LIST, &list[..length], rustix::fs::XattrFlags::empty())?);
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    // The directory may have given it one, whose users the mode would let in.
    match rustix::fs::fremovexattr(file, ACCESS_LIST) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.set_permissions(Permissions::from_mode(wanted.mode() & 0o777))
}

/// Keeps a second rotation of the same file out, until it is dropped. `known` is the password in use: another one
/// in the file was put there by a rotation that has just ended.
pub(super) fn alone(target: &Path, known: &Secret<String>) -> Result<File> {
    // For writing, where that is allowed: some network file systems lock nothing else.
    let opened = match File::options().read(true).write(true).open(target) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => File::open(target),
        opened => opened,
    };
    let mut file = opened.map_err(|error| unwritable(target, error))?;
    match file.try_lock() {
        Ok(()) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|error| unwritable(target, error))?;
            if text.trim_end_matches(['\r', '\n']) == known.expose().trim_end_matches(['\r', '\n']) {
                return Ok(file);
            }
            Err(Fault::new(codes::ENGINE_RUNNING, format!("replace the password in {}", target.display()))
                .because("it was replaced a moment ago, or is not the password in use")
                .hint("run it again"))
        }
        Err(TryLockError::Error(error)) => Err(unwritable(target, error)),
        Err(TryLockError::WouldBlock) => {
            Err(Fault::new(codes::ENGINE_RUNNING, format!("replace the password in {}", target.display()))
                .because("another `key rotate` is doing that")
                .hint("wait until it has ended"))
        }
    }
}

pub(super) fn sync_directory(file: &Path) -> Result<()> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| unwritable(file, error))
}

pub(super) fn unwritable(path: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::CLI_OUTPUT, format!("write the new password to {}", path.display()))
        .because(error)
        .hint("run it as a user who may write there and give the file its owner, or name a new file: --out FILE")
}
