//! Whether some process works on a directory: a restore under a running server would be lost, or
//! would damage both.

use std::fs;
use std::path::Path;

/// A process that has a file open at or below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    pub(crate) pid: u32,
    /// The program's name, as the kernel has it (at most 15 bytes).
    pub(crate) name: String,
}

/// The first other process with a file open at or below `path` for which `counts` holds. Processes
/// of other users are seen only by root: `None` proves nothing by itself.
pub(crate) fn occupant(path: &Path, counts: impl Fn(&str) -> bool) -> Option<Occupant> {
    let path = path.canonicalize().ok()?;
    let own = std::process::id();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
        if pid == own || !counts(&name) {
            return None;
        }
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let inside = open.any(|fd| fs::read_link(fd.path()).is_ok_and(|file| file.starts_with(&path)));
        inside.then_some(Occupant { pid, name })
    })
}
