//! Putting staged files into a data directory, with the old ones moved aside and brought back
//! when something fails.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, codes};

/// Mode of directories and files with data: nobody but the owner.
const DIRECTORY_MODE: u32 = 0o700;
pub(crate) const FILE_MODE: u32 = 0o600;
/// Tries to find a free name for the old state.
const ASIDE_TRIES: u32 = 1000;

/// Turns an I/O error at a path of the target into a fault.
pub(crate) fn fault(doing: &str, path: &Path, error: io::Error) -> Fault {
    Fault::new(codes::REDIS_TARGET, format!("{doing} `{}`", path.display())).because(error)
}

/// Who is to own restored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// The owner of a file or directory that is there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { uid: meta.uid(), gid: meta.gid() })
    }

    /// The account that distributions make for the server.
    pub(crate) fn service() -> Option<Self> {
        let accounts = fs::read_to_string("/etc/passwd").ok()?;
        ["redis", "valkey"].iter().find_map(|name| {
            let mut fields = accounts.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
            Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
    }
}

/// Makes a private directory; its parents must be there.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path).map_err(|error| fault("make", path, error))
}

/// Makes names and attributes in a directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| fault("sync", path, error))
}

/// Gives a tree to its owner, where the process may; private modes everywhere.
pub(crate) fn give(tree: &Path, owner: Option<Owner>) -> Result<()> {
    let meta = fs::symlink_metadata(tree).map_err(|error| fault("look at", tree, error))?;
    if meta.is_dir() {
        for child in fs::read_dir(tree).map_err(|error| fault("list", tree, error))? {
            give(&child.map_err(|error| fault("list", tree, error))?.path(), owner)?;
        }
    }
    let mode = if meta.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
    fs::set_permissions(tree, fs::Permissions::from_mode(mode))
        .map_err(|error| fault("set the mode of", tree, error))?;
    if let Some(owner) = owner
        && (owner.uid, owner.gid) != (meta.uid(), meta.gid())
        && rustix::process::geteuid().is_root()
    {
        chown(tree, Some(owner.uid), Some(owner.gid)).map_err(|error| fault("set the owner of", tree, error))?;
    }
    Ok(())
}

/// Moves what is staged into `directory`. Anything named in `replaced` or by the staged files is
/// moved aside first; when something fails, everything is moved back. Gives the place of the old
/// files, if there were any.
pub(crate) fn install(
    directory: &Path,
    staged: &Path,
    replaced: &[String],
    aside_name: &str,
) -> Result<Option<PathBuf>> {
    let mut moves: Vec<(PathBuf, PathBuf)> = Vec::new();
    let outcome = exchange(directory, staged, replaced, aside_name, &mut moves);
    if outcome.is_err() {
        for (from, to) in moves.iter().rev() {
            // The first error is the one to tell; what cannot be moved back stays where it is.
            let _ = fs::rename(to, from);
        }
    }
    outcome
}

fn exchange(
    directory: &Path,
    staged: &Path,
    replaced: &[String],
    aside_name: &str,
    moves: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<Option<PathBuf>> {
    let mut rename = |from: PathBuf, to: PathBuf| -> Result<()> {
        fs::rename(&from, &to).map_err(|error| fault("move", &from, error))?;
        moves.push((from, to));
        Ok(())
    };
    let mut aside = None;
    for name in replaced {
        let old = directory.join(name);
        if fs::symlink_metadata(&old).is_err() {
            continue;
        }
        let place = match &aside {
            Some(place) => place,
            None => aside.insert(make_aside(directory, aside_name)?),
        };
        rename(old, place.join(name))?;
    }
    let children = fs::read_dir(staged).map_err(|error| fault("list", staged, error))?;
    for child in children {
        let child = child.map_err(|error| fault("list", staged, error))?;
        rename(child.path(), directory.join(child.file_name()))?;
    }
    if let Some(place) = &aside {
        sync_directory(place)?;
    }
    sync_directory(directory)?;
    Ok(aside)
}

fn make_aside(directory: &Path, name: &str) -> Result<PathBuf> {
    for number in 1..=ASIDE_TRIES {
        let place = if number == 1 { directory.join(name) } else { directory.join(format!("{name}-{number}")) };
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&place) {
            Ok(()) => return Ok(place),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault("make", &place, error)),
        }
    }
    Err(Fault::new(codes::REDIS_TARGET, format!("find a free name for the old state in `{}`", directory.display()))
        .hint("remove old `pre-restore-…` directories there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(names: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    #[test]
    fn old_files_are_kept_aside_under_a_free_name() {
        let directory = directory_with(&[
            ("dump.rdb", "old"),
            ("appendonlydir/x", "old"),
            ("pre/keep", "earlier"),
            ("stage/dump.rdb", "new"),
        ]);
        let at = |name: &str| directory.path().join(name);
        let names = ["dump.rdb".to_owned(), "appendonlydir".to_owned(), "none".to_owned()];
        let aside = install(directory.path(), &at("stage"), &names, "pre").unwrap();
        assert_eq!(aside, Some(at("pre-2")));
        assert_eq!(fs::read_to_string(at("dump.rdb")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("pre-2/dump.rdb")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("pre-2/appendonlydir/x")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("pre/keep")).unwrap(), "earlier");
        assert!(!at("appendonlydir").exists());
    }

    #[test]
    fn a_failed_exchange_brings_the_old_files_back() {
        // The staged `blocked` is a file, the one in place a directory that is not replaced.
        let directory = directory_with(&[
            ("dump.rdb", "old"),
            ("blocked/x", "stays"),
            ("stage/blocked", "new"),
            ("stage/dump.rdb", "new"),
        ]);
        let at = |name: &str| directory.path().join(name);
        let names = ["dump.rdb".to_owned()];
        let fault = install(directory.path(), &at("stage"), &names, "pre").unwrap_err();
        assert!(fault.is(codes::REDIS_TARGET));
        assert_eq!(fs::read_to_string(at("dump.rdb")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("blocked/x")).unwrap(), "stays");
    }
}
