//! Writing files: temporary name, bytes, fsync, final name, fsync of the directory.
//!
//! After a failed fsync the kernel may have dropped the dirty pages and call the next fsync of the
//! same file a success (Rebello et al., "Can Applications Recover from fsync Failures?", ATC '20).
//! So nothing is ever synced twice: the file is given up, and a retry writes a new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::failure::{fault, is_absent, root_is_there, root_missing};
use super::read;
use crate::key::{Key, TEMPORARY_PREFIX};
use crate::store::{PutMode, PutOutcome, compare_existing};

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

pub(super) fn put(root: &Path, key: &Key, data: &[u8], mode: PutMode) -> Result<PutOutcome> {
    let path = root.join(key.as_str());
    if mode == PutMode::IfAbsent && read::head(root, key)?.is_some() {
        return compare_stored(root, key, &path, data);
    }
    let directory = path.parent().unwrap_or(root);
    create_directories(directory, Some(root))?;
    let temporary = write_temporary(directory, data)
        .map_err(|e| fault(format!("write `{key}` ({} bytes) into `{}`", data.len(), root.display()), e))?;
    let named = match mode {
        PutMode::Overwrite => fs::rename(&temporary, &path),
        PutMode::IfAbsent => rename_if_absent(&temporary, &path),
    };
    if let Err(e) = named {
        // Best effort: a file that stays is swept later.
        let _ = fs::remove_file(&temporary);
        if mode == PutMode::IfAbsent && e.kind() == io::ErrorKind::AlreadyExists {
            return compare_stored(root, key, &path, data);
        }
        return Err(fault(format!("give `{key}` its name in `{}`", root.display()), e));
    }
    sync_directory(directory)?;
    Ok(PutOutcome::Written)
}

pub(super) fn delete(root: &Path, key: &Key) -> Result<()> {
    let path = root.join(key.as_str());
    match fs::remove_file(&path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(root)),
        Err(e) if is_absent(&e) => root_is_there(root),
        Err(e) => Err(fault(format!("delete `{key}` of `{}`", root.display()), e)),
    }
}

/// Makes the missing directories down to `path` and syncs each parent that got a new entry.
/// Nothing is made at or above `floor`, which has to exist.
pub(super) fn create_directories(path: &Path, floor: Option<&Path>) -> Result<()> {
    let mut missing = Vec::new();
    for directory in path.ancestors() {
        let is_floor = floor == Some(directory);
        match fs::metadata(directory) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => return Err(make(directory, io::Error::other("there is a file of this name"))),
            Err(e) if is_absent(&e) && is_floor => return Err(root_missing(directory)),
            Err(e) if is_absent(&e) && directory.as_os_str().is_empty() => break,
            Err(e) if is_absent(&e) => missing.push(directory),
            Err(e) => return Err(make(directory, e)),
        }
    }
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Ok(()) => {}
            // Another writer made it first; it may not have synced it yet, so this one does too.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(make(directory, e)),
        }
        if let Some(parent) = directory.parent() {
            sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        }
    }
    Ok(())
}

fn make(directory: &Path, error: io::Error) -> Fault {
    fault(format!("make the directory `{}`", directory.display()), error)
}

/// The bytes in a synced file with a name of its own; removed again when anything fails.
fn write_temporary(directory: &Path, data: &[u8]) -> io::Result<PathBuf> {
    let path = directory.join(format!("{TEMPORARY_PREFIX}{:032x}", rand::random::<u128>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
    let written = file.write_all(data).and_then(|()| file.sync_all()).and_then(|()| check_length(&file, data.len()));
    match written {
        Ok(()) => Ok(path),
        Err(e) => {
            drop(file);
            let _ = fs::remove_file(&path);
            Err(e)
        }
    }
}

fn check_length(file: &File, wanted: usize) -> io::Result<()> {
    let stored = file.metadata()?.len();
    if stored == wanted as u64 {
        Ok(())
    } else {
        Err(io::Error::other(format!("the file holds {stored} bytes after {wanted} were written")))
    }
}

/// Renames unless the target exists. File systems without `RENAME_NOREPLACE` (NFS, some FUSE)
/// get a hard link instead, which is just as atomic.
fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_if_absent(from, to),
        Err(e) => Err(e.into()),
    }
}

fn link_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    // The object is in place under its name; a second name that stays is swept later.
    let _ = fs::remove_file(from);
    Ok(())
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|e| fault(format!("sync the directory `{}`", directory.display()), e))
}

/// The object is there; it may be the work of a writer that crashed before its directory sync.
fn compare_stored(root: &Path, key: &Key, path: &Path, data: &[u8]) -> Result<PutOutcome> {
    let stored = read::whole(root, key)?;
    let outcome = compare_existing(key, &read::place(root), data, &stored)?;
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| fault(format!("sync `{key}` of `{}`", root.display()), e))?;
    sync_directory(path.parent().unwrap_or(root))?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_core::codes;

    #[test]
    fn both_ways_to_name_a_file_refuse_an_existing_one() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("object");
        for (way, number) in [(rename_if_absent as fn(&Path, &Path) -> io::Result<()>, 1), (link_if_absent, 2)] {
            let _ = fs::remove_file(&target);
            let first = write_temporary(directory.path(), b"first").unwrap();
            way(&first, &target).unwrap();
            let second = write_temporary(directory.path(), b"second").unwrap();
            let refused = way(&second, &target).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "way {number}");
            assert_eq!(fs::read(&target).unwrap(), b"first", "way {number}");
            assert!(!first.exists(), "way {number}");
            fs::remove_file(second).unwrap();
        }
    }

    #[test]
    fn a_code_says_what_the_system_said() {
        for (errno, code) in [
            (Errno::NOSPC, codes::STORE_FULL),
            (Errno::DQUOT, codes::STORE_FULL),
            (Errno::ROFS, codes::STORE_DENIED),
            (Errno::ACCESS, codes::STORE_DENIED),
            (Errno::IO, codes::STORE_IO),
        ] {
            assert!(fault("write `x`", errno.into()).is(code), "{errno}");
        }
    }
}
