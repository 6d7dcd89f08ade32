//! Listing and sweeping: every directory is read to its end, or the whole call fails.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rekindle_core::{Fault, Result, codes};

use super::failure::{fault, is_absent, root_is_there};
use super::read::object_meta;
use crate::key::{Key, TEMPORARY_PREFIX, segment_is_usable};
use crate::store::ObjectMeta;

/// Deeper trees are a loop of symbolic links, not ours.
const DEPTH_MAX: usize = 64;

pub(super) fn list(root: &Path, prefix: &str) -> Result<Vec<ObjectMeta>> {
    root_is_there(root)?;
    let mut found = Vec::new();
    let mut pending = vec![(prefix.to_owned(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        if depth > DEPTH_MAX {
            return Err(Fault::new(
                codes::STORE_LIST,
                format!("list `{}`: `{directory}` is nested too deeply", root.display()),
            )
            .hint("look for a symbolic link that leads back into the storage directory"));
        }
        for entry in entries(root, &directory)? {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| segment_is_usable(name)) else { continue };
            let path = format!("{directory}{name}");
            // Follows symbolic links: an operator may have moved a directory to another disk.
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => pending.push((format!("{path}/"), depth + 1)),
                Ok(meta) if meta.is_file() => found.push(object_meta(Key::new(&path)?, &meta)),
                Ok(_) => {}
                // Deleted since the directory was read; a link to nowhere is no object either.
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(failed(root, &path, e)),
            }
        }
    }
    // A file system that vanished during the walk looks like deletions; look once more.
    root_is_there(root)?;
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(found)
}

/// Removes unfinished files that have not been touched for `age`; gives their number.
pub(super) fn sweep(root: &Path, age: Duration) -> Result<u64> {
    root_is_there(root)?;
    let mut removed = 0;
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        for entry in entries(root, &directory)? {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let path = format!("{directory}{name}");
            let kind = entry.file_type().map_err(|e| failed(root, &path, e))?;
            if kind.is_dir() && segment_is_usable(name) {
                pending.push(format!("{path}/"));
            } else if kind.is_file()
                && name.starts_with(TEMPORARY_PREFIX)
                && is_older(&entry, age).map_err(|e| failed(root, &path, e))?
            {
                match fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    Err(e) if is_absent(&e) => {}
                    Err(e) => {
                        return Err(fault(format!("remove the unfinished file `{path}` of `{}`", root.display()), e));
                    }
                }
            }
        }
    }
    Ok(removed)
}

fn is_older(entry: &DirEntry, age: Duration) -> io::Result<bool> {
    let modified = entry.metadata()?.modified()?;
    // A time in the future is not old.
    Ok(SystemTime::now().duration_since(modified).is_ok_and(|since| since >= age))
}

/// All entries of one directory; an absent one has none.
fn entries(root: &Path, directory: &str) -> Result<Vec<DirEntry>> {
    match fs::read_dir(root.join(directory)).and_then(Iterator::collect) {
        Ok(entries) => Ok(entries),
        Err(e) if is_absent(&e) => Ok(Vec::new()),
        Err(e) => Err(failed(root, directory, e)),
    }
}

fn failed(root: &Path, path: &str, error: io::Error) -> Fault {
    let seen = fault(format!("read the directory `{path}`"), error);
    let what = format!("list `{}`", root.display());
    // What the operator can act on keeps its code; the rest is an incomplete listing.
    if seen.is(codes::STORE_DENIED) || seen.is(codes::STORE_UNREACHABLE) {
        seen.during(what)
    } else {
        Fault::new(codes::STORE_LIST, what).because(seen)
    }
}
