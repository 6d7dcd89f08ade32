//! Whether something stands at a place.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a path is there and, when it is a directory, holds something.
pub(crate) fn holds_something(path: &Path) -> std::io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => {
            // What file systems and earlier restores leave in a mount is nobody's data.
            let mut names = std::fs::read_dir(path)?;
            let nothing = |name: &[u8]| name == b"lost+found" || name.starts_with(b".rekindle-");
            Ok(names.any(|entry| entry.map_or(true, |entry| !nothing(entry.file_name().as_bytes()))))
        }
        Ok(_) => Ok(true),
    }
}
