//! The directory of one run, and its limits.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rekindle_core::{Fault, Result, codes};
use rustix::fs::statvfs;

use super::confine::Confinement;
use super::proc::{Process, kill_all};

/// Beginning of the names of sites: then the process that made it, its start time, and a number.
pub(crate) const PREFIX: &str = "rk-sandbox-";
/// The list of its processes.
pub(crate) const PROCESSES: &str = "processes";
/// Free space that a sandbox never takes.
const RESERVE_BYTES: u64 = 128 << 20;
/// Room beside the data itself: logs, write-ahead log, temporary files of indexes.
const OVERHEAD_PERCENT: u64 = 120;
/// A Unix socket's path has room for so many bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
const NAMES_MAX: u32 = 1000;

/// Where sandboxes are made, and how far they may go.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// The directory that holds all sites.
    pub base: PathBuf,
    /// Address space of one engine process.
    pub memory_bytes: Option<u64>,
    /// Size of all sandboxes of one run.
    pub disk_bytes: Option<u64>,
    /// Directories with engines, looked into before the usual ones.
    pub programs: Vec<PathBuf>,
}

/// The directory of one run.
#[derive(Debug)]
pub struct Site {
    pub(crate) top: PathBuf,
    pub(crate) confinement: Confinement,
    pub(crate) options: SiteOptions,
    places: AtomicU32,
    processes: Mutex<Vec<(PathBuf, Process)>>,
}

pub(crate) fn fault(doing: &str, path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::DRILL_SANDBOX, format!("{doing} `{}`", path.display()))
        .because(error)
        .hint("set `dir` in [drill] to a local directory that may be written")
}

impl Site {
    /// Makes the directory. Blocking.
    pub fn make(options: SiteOptions) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&options.base)
            .map_err(|error| fault("create", &options.base, error))?;
        let base = options.base.canonicalize().map_err(|error| fault("find", &options.base, error))?;
        let own = Process::of(std::process::id())
            .ok_or_else(|| Fault::new(codes::DRILL_SANDBOX, "look at our own process in /proc"))?;
        let confinement = Confinement::find(options.memory_bytes);
        // The engine's user has to get through to its place; root's own places are closed.
        let mode = if confinement.is_root() { 0o711 } else { 0o700 };
        for number in 0..NAMES_MAX {
            let top = base.join(format!("{PREFIX}{}-{}-{number}", own.pid, own.started));
            match DirBuilder::new().mode(0o700).create(&top) {
                Ok(()) => {
                    fs::set_permissions(&top, fs::Permissions::from_mode(mode))
                        .map_err(|error| fault("open", &top, error))?;
                    return Ok(Self {
                        top,
                        confinement,
                        options,
                        places: AtomicU32::new(0),
                        processes: Mutex::default(),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fault("create", &top, error)),
            }
        }
        Err(fault("find a free name in", &base, "all are taken"))
    }

    /// What is guaranteed about engines here, in sentences.
    pub fn guarantees(&self) -> Vec<String> {
        let mut all = self.confinement.guarantees();
        all.push(match self.options.disk_bytes {
            Some(bytes) => format!("disk: all sandboxes of this run together are stopped above {bytes} bytes"),
            None => format!("disk: stopped when less than {} bytes are free", RESERVE_BYTES / 2),
        });
        all
    }

    /// A new closed directory for one component.
    pub(crate) fn place(&self) -> Result<PathBuf> {
        let place = self.top.join(self.places.fetch_add(1, Ordering::Relaxed).to_string());
        DirBuilder::new().mode(0o700).create(&place).map_err(|error| fault("create", &place, error))?;
        Ok(place)
    }

    /// The directory for sockets of a place.
    pub(crate) fn sockets(place: &Path, name: &str) -> Result<PathBuf> {
        let sockets = place.join("s");
        if sockets.join(name).as_os_str().len() > SOCKET_PATH_MAX {
            return Err(fault("put a socket into", &sockets, "its path would be longer than 107 bytes")
                .hint("set `dir` in [drill] to a directory with a shorter path"));
        }
        DirBuilder::new().mode(0o700).create(&sockets).map_err(|error| fault("create", &sockets, error))?;
        Ok(sockets)
    }

    /// Writes a started process into the list.
    pub(crate) fn record(&self, place: &Path, process: Process) -> Result<()> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).push((place.to_owned(), process));
        let list = self.top.join(PROCESSES);
        let line = format!("{} {}\n", process.pid, process.started);
        let written = OpenOptions::new().create(true).append(true).mode(0o600).open(&list);
        written.and_then(|mut file: File| file.write_all(line.as_bytes())).map_err(|error| fault("write", &list, error))
    }

    /// Refuses what will not fit. Blocking.
    pub(crate) fn ensure_room(&self, bytes: u64) -> Result<()> {
        let need = bytes / 100 * OVERHEAD_PERCENT + RESERVE_BYTES;
        let free = self.free()?;
        let (what, hint) = ("make room for a restore into the sandbox", "set `dir` in [drill] to a larger file system");
        if need > free {
            let why = format!("it needs about {need} bytes, and {free} are free in `{}`", self.top.display());
            return Err(Fault::new(codes::DRILL_SPACE, what).because(why).hint(hint));
        }
        match self.options.disk_bytes {
            Some(limit) if bytes > limit => {
                let why = format!("it needs about {bytes} bytes, and `disk` in [drill] is {limit}");
                Err(Fault::new(codes::DRILL_SPACE, what).because(why).hint("raise `disk` in [drill]"))
            }
            _ => Ok(()),
        }
    }

    /// An error when the limits are passed. Blocking.
    pub(crate) fn within_limits(&self) -> Result<()> {
        let over = |why: String| {
            Err(Fault::new(codes::DRILL_SPACE, format!("keep the sandbox `{}` within its limits", self.top.display()))
                .because(why)
                .hint("raise `disk` in [drill], or set `dir` to a larger file system"))
        };
        let free = self.free()?;
        if free < RESERVE_BYTES / 2 {
            return over(format!("only {free} bytes are free"));
        }
        match self.options.disk_bytes {
            Some(limit) => {
                let used = size(&self.top);
                if used > limit { over(format!("it has grown to {used} bytes, the limit is {limit}")) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    fn free(&self) -> Result<u64> {
        let found = statvfs(&self.top).map_err(|error| fault("look at the free space of", &self.top, error))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Ends everything in a place and removes it. Blocking.
    pub(crate) fn clear(&self, place: &Path) -> Result<()> {
        let recorded: Vec<Process> = {
            let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            processes.iter().filter(|(of, _)| of == place).map(|(_, process)| *process).collect()
        };
        remove(place, &recorded)
    }
}

impl Drop for Site {
    /// Places are cleared by whoever used them; an interrupted run may have left one.
    fn drop(&mut self) {
        let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let recorded: Vec<Process> = processes.iter().map(|(_, process)| *process).collect();
        if let Err(fault) = remove(&self.top, &recorded) {
            tracing::warn!(error = %fault.chain(), "a sandbox is left; `rekindle drill --clean` removes it");
        }
    }
}

/// Kills what works in a directory, then removes it.
pub(crate) fn remove(directory: &Path, recorded: &[Process]) -> Result<()> {
    let (_, left) = kill_all(directory, recorded);
    if let Some(process) = left.first() {
        return Err(fault("clear", directory, format!("process {} does not end", process.pid)));
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            // Restored directories may forbid their owner to remove what is in them.
            open_up(directory);
            match fs::remove_dir_all(directory) {
                Err(again) if again.kind() != std::io::ErrorKind::NotFound => Err(fault("remove", directory, error)),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn open_up(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Bytes on disk below a directory; what vanishes meanwhile does not count.
fn size(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        total += if meta.is_dir() { size(&entry.path()) } else { meta.blocks() * 512 };
    }
    total
}
