//! Where the restored cluster goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rekindle_core::port::{RestoreRequest, Target};
use rekindle_core::wal::{BaseBackup, Cluster, cluster_of_control};
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};

use super::io_fault;
use super::owner::Owner;
use crate::occupied::occupant;

/// Names of a server that works on a data directory.
const SERVERS: [&str; 3] = ["postgres", "postmaster", "edb-postgres"];
/// Space that is left free beyond what the base backup takes: the window of the log, and what the
/// server itself writes.
const HEADROOM_BYTES: u64 = 512 << 20;
/// How long the server of a try that was killed may take to end.
const OWN_END_MAX: Duration = Duration::from_secs(30);

/// The directories of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the cluster is restored and recovered.
    pub(super) data: PathBuf,
    /// The live directory whose place it takes afterwards.
    pub(super) replaces: Option<PathBuf>,
    /// The directory of the tablespaces.
    pub(super) tablespaces: PathBuf,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Place {
    /// Where a request wants the cluster. `live` is the configured data directory.
    pub(super) fn of(id: &ComponentId, live: Option<&Path>, request: &RestoreRequest) -> Result<Self> {
        let short = request.point.short();
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| io_fault("find", path, error));
        match &request.target {
            Target::New(name) => {
                let named = name.as_ref().map(PathBuf::from);
                let beside = live.and_then(Path::parent).unwrap_or(Path::new("."));
                let data = absolute(&named.unwrap_or_else(|| beside.join(format!("{id}-{short}"))))?;
                Ok(Self { tablespaces: with_suffix(&data, ".tablespaces"), data, replaces: None })
            }
            Target::InPlace { .. } => {
                let live = live.ok_or_else(|| {
                    Fault::new(codes::PITR_PLACE, format!("restore `{id}` in place"))
                        .because("its data directory is not configured")
                        .hint("set `data-dir` of the component, or restore with --to DIR")
                })?;
                let live = live.canonicalize().or_else(|_| absolute(live))?;
                Ok(Self {
                    data: with_suffix(&live, &format!(".rekindle-restore-{short}")),
                    tablespaces: with_suffix(&live, &format!(".tablespaces-{short}")),
                    replaces: Some(live),
                })
            }
            Target::Live => Err(Fault::new(codes::PG_TARGET, format!("restore `{id}` into a running server"))
                .because("a base backup is a whole cluster of its own")
                .hint("restore with --to DIR, or stop the server and use --in-place")),
        }
    }

    /// Refuses a place that holds something, or that a server works on. Nothing is changed.
    pub(super) fn refuse(&self, base: &BaseBackup, overwrite: bool, cancel: &Cancel) -> Result<()> {
        if let Some(live) = &self.replaces {
            refuse_running(live)?;
            refuse_other(live, base.cluster, overwrite)?;
        }
        if overwrite && self.replaces.is_some() {
            wait_for_our_own(&self.data, cancel);
        }
        for directory in [&self.data, &self.tablespaces] {
            refuse_running(directory)?;
            match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
                Ok(true) => {}
                // What an interrupted restore left, when told so: what is there and right is kept.
                Ok(false) if overwrite && unfinished(&self.data) => {}
                // Staged beside the live one and never swapped: nothing but an earlier try made it.
                Ok(false) if overwrite && self.replaces.is_some() => {
                    fs::remove_dir_all(directory).map_err(|error| io_fault("remove", directory, error))?;
                }
                Ok(false) => {
                    return Err(Fault::new(codes::PITR_PLACE, format!("restore into `{}`", directory.display()))
                        .because("the directory is not empty")
                        .hint(
                            "choose another directory with --to DIR, or remove this one; a restore that was \
                             interrupted goes on with --overwrite",
                        ));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_fault("list", directory, error)),
            }
        }
        Ok(())
    }

    /// Refuses a place without room, or that the owner cannot reach.
    pub(super) fn refuse_unfit(&self, owner: Option<Owner>, bytes: u64) -> Result<()> {
        if let Some(closed) = owner.and_then(|owner| owner.barrier(&self.data)) {
            return Err(Fault::new(codes::PITR_PLACE, format!("restore into `{}`", self.data.display()))
                .because(format!("the user who is to run the server may not pass `{}`", closed.display()))
                .hint("choose another directory with --to DIR, for example below /var/lib/postgresql"));
        }
        let there = self.data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let space =
            rustix::fs::statvfs(there).map_err(|error| io_fault("ask for free space at", there, error.into()))?;
        let (free, wanted) = (space.f_bavail.saturating_mul(space.f_frsize), bytes.saturating_add(HEADROOM_BYTES));
        if free < wanted {
            return Err(Fault::new(codes::PITR_PLACE, format!("restore into `{}`", self.data.display()))
                .because(format!("{wanted} bytes are needed, {free} are free"))
                .hint("choose another directory with --to DIR, or make room"));
        }
        Ok(())
    }
}

/// Whether a directory is one that a restore was writing: `pg_control` comes last.
fn unfinished(data: &Path) -> bool {
    !data.join("global/pg_control").exists()
}

/// The server of an earlier try, in a directory that has our name, was killed together with it: it may take a
/// moment to end.
fn wait_for_our_own(directory: &Path, cancel: &Cancel) {
    let since = Instant::now();
    while refuse_running(directory).is_err() && since.elapsed() < OWN_END_MAX && !cancel.is_cancelled() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server that works there would be damaged, and would damage what is restored.
pub(super) fn refuse_running(directory: &Path) -> Result<()> {
    let refuse = |seen: String| {
        Err(Fault::new(codes::PITR_PLACE, format!("restore into `{}`", directory.display()))
            .because(seen)
            .hint("stop the server first, for example `systemctl stop postgresql` or `pg_ctl stop -D DIR`"))
    };
    let pid_file = directory.join("postmaster.pid");
    let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
    if let Some(pid) = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // The number may belong to somebody else after a restart of the machine.
        if SERVERS.contains(&name.trim()) {
            return refuse(format!("a server runs there as process {pid}"));
        }
    }
    match occupant(directory, |name| SERVERS.contains(&name)) {
        Some(found) => refuse(format!("`{}` (process {}) works there", found.name, found.pid)),
        None => Ok(()),
    }
}

/// The cluster in a directory.
fn cluster_in(data: &Path) -> Option<Cluster> {
    cluster_of_control(&fs::read(data.join("global/pg_control")).ok()?)
}

fn refuse_other(live: &Path, cluster: Cluster, overwrite: bool) -> Result<()> {
    match cluster_in(live) {
        Some(other) if other.system != cluster.system && !overwrite => {
            Err(Fault::new(codes::PITR_SYSTEM, format!("restore in the place of `{}`", live.display()))
                .because(format!("it holds the cluster {}, the base backup is of {}", other.system, cluster.system))
                .hint("choose another directory with --to DIR; or pass --overwrite if this is meant"))
        }
        _ => Ok(()),
    }
}
