//! Who owns the restored cluster and runs its server: PostgreSQL refuses to run as root, and a data
//! directory that belongs to somebody else.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rekindle_core::{Fault, Result, codes};

/// The account that distributions make for the server.
const SERVICE: &str = "postgres";

/// An unprivileged user. Only root gives files away; everybody else owns what it restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whether this process may give files to others.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Owner {
    /// The user a name or number stands for.
    fn named(name: &str) -> Result<Self> {
        let unknown = || {
            Fault::new(codes::PITR_PLACE, format!("find the user `{}`", name.escape_debug()))
                .hint("name an existing, unprivileged user with --owner")
        };
        let user = match name.parse::<u32>() {
            Ok(uid) => uzers::get_user_by_uid(uid),
            Err(_) => uzers::get_user_by_name(name),
        };
        let user = user.ok_or_else(unknown)?;
        if user.uid() == 0 {
            return Err(Fault::new(codes::PITR_PLACE, "run the recovering server as root")
                .because("PostgreSQL refuses to run as root")
                .hint("name an unprivileged user with --owner, for example --owner postgres"));
        }
        Ok(Self { uid: user.uid(), gid: user.primary_group_id() })
    }

    /// Who is to own the cluster: the owner of the directory that it replaces, the named user, the
    /// account `postgres`. `None` when this process is not root: then everything is its own.
    pub(super) fn choose(named: Option<&str>, replaces: Option<&Path>) -> Result<Option<Self>> {
        if !is_root() {
            let own = rustix::process::geteuid().as_raw();
            return match named.map(Self::named).transpose()? {
                Some(other) if other.uid != own => {
                    Err(Fault::new(codes::PITR_PLACE, "give the restored cluster to another user")
                        .because("only root may do that")
                        .hint("run as root, or as that user"))
                }
                _ => Ok(None),
            };
        }
        if let Some(name) = named {
            return Self::named(name).map(Some);
        }
        let replaced = replaces.and_then(|path| fs::metadata(path).ok());
        if let Some(meta) = replaced.filter(|meta| meta.uid() != 0) {
            return Ok(Some(Self { uid: meta.uid(), gid: meta.gid() }));
        }
        Self::named(SERVICE).map(Some).map_err(|_| {
            Fault::new(codes::PITR_PLACE, "choose the user who is to run the recovering server")
                .because("PostgreSQL refuses to run as root, and there is no user `postgres`")
                .hint("name an unprivileged user with --owner")
        })
    }

    /// Makes a command run as this user.
    pub(super) fn run(owner: Option<Self>, command: &mut Command) {
        if let Some(Self { uid, gid }) = owner {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives one file or directory.
    pub(super) fn give(owner: Option<Self>, path: &Path) -> io::Result<()> {
        owner.map_or(Ok(()), |Self { uid, gid }| chown(path, Some(uid), Some(gid)))
    }

    /// Gives a whole tree; links themselves and not what they lead to.
    pub(super) fn give_tree(owner: Option<Self>, path: &Path) -> io::Result<()> {
        let Some(Self { uid, gid }) = owner else { return Ok(()) };
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path)?;
            // Each change is written into the file system's journal, also one that changes nothing.
            if (meta.uid(), meta.gid()) != (uid, gid) {
                lchown(&path, Some(uid), Some(gid))?;
            }
            if meta.is_dir() {
                for entry in fs::read_dir(&path)? {
                    todo.push(entry?.path());
                }
            }
        }
        Ok(())
    }

    /// The first directory above `path` that this user may not pass.
    pub(super) fn barrier(self, path: &Path) -> Option<&Path> {
        let closed = |directory: &&Path| {
            let Ok(meta) = fs::metadata(directory) else { return false };
            let shift = if meta.uid() == self.uid {
                6
            } else if meta.gid() == self.gid {
                3
            } else {
                0
            };
            meta.mode() >> shift & 1 == 0
        };
        path.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty()).find(closed)
    }
}
