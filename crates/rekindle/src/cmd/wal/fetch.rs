//! `wal fetch`

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use rekindle_core::wal::absence::{self, Absence};
use rekindle_core::wal::lineage::survey;
use rekindle_core::wal::{Cluster, SegmentName, SystemId, WalArchive, WalFile, WalLog};
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_repo::wal::Archive;
use serde_json::json;

use super::spool::Spool;
use crate::exit::Reader;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;

/// A helper that fetches ahead ends by then, whatever happens.
const AHEAD_LONGEST: Duration = Duration::from_mins(1);
/// The log may change between looking for a file and listing.
const LOOKS_MAX: u32 = 3;

/// Bring one WAL file back: the program for `restore_command`
///
/// In postgresql.conf: restore_command = 'rekindle --config /etc/rekindle/rekindle.toml wal fetch %f "%p"'
///
/// Exit code 0: the file is there, verified. 1: the log was read with the right key, and neither the file nor anything
/// after it is in it: the end of the archive. 200: everything else (storage not reachable, wrong key, damage, a hole in
/// the log, wrong cluster), so that the server stops instead of taking it for the end of the archive and promoting.
/// On a standby (standby.signal) every failure is 1, because the server asks again by itself.
#[derive(Debug, Clone, Args)]
pub(crate) struct Fetch {
    /// Name of the file (%f)
    name: String,
    /// Where to put it (%p)
    target: PathBuf,
    /// The postgres component [default: the only one]
    #[arg(long, value_name = "COMPONENT", conflicts_with = "system")]
    component: Option<ComponentId>,
    /// System identifier of the cluster, instead of a component; no configuration is needed then
    #[arg(long, value_name = "ID")]
    system: Option<SystemId>,
    /// Segments to fetch ahead, in a helper that ends by itself; 0: none
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=64))]
    prefetch: u32,
    /// Longest time for the file, retries included; what is not there by then ends with 200. PostgreSQL itself
    /// waits as long as it takes
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Private directory for segments fetched ahead, at most 256 MiB [default: one below the directory for temporary
    /// files]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

/// What came of it.
enum Got {
    Bytes(Vec<u8>),
    /// The bytes of an open segment, filled up with zeros.
    Tail(Vec<u8>),
    Ahead,
    Nothing,
}

impl Fetch {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        super::no_longer_than(session, self.longest(), Reader::restore_command(), "fetch a WAL file");
        let (archive, cluster, place) = self.open(session)?;
        let file = self.file(cluster)?;
        let log = archive.log(cluster)?;
        let spool = self.spool(&place, cluster);
        let got = self.get(&*log, file, spool.as_ref())?;
        let source = match got {
            Got::Nothing => {
                if let Some(spool) = &spool {
                    spool.clear();
                }
                return Ok(Answer::words(json!({"file": self.name, "state": "absent"}), "").exit(1));
            }
            Got::Ahead => "fetched ahead",
            Got::Bytes(bytes) => {
                self.write(&bytes)?;
                "log"
            }
            Got::Tail(bytes) => {
                self.write(&bytes)?;
                "tail"
            }
        };
        if let (WalFile::Segment(segment), Some(spool)) = (file, &spool)
            && spool.wants(segment, self.prefetch)
        {
            fetch_ahead();
        }
        Ok(Answer::words(json!({"file": self.name, "state": "fetched", "from": source}), ""))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    fn open(&self, session: &Session) -> Result<(Archive, Cluster, String), Faults> {
        let here = super::control(Path::new("."));
        if self.system.is_some() || (session.global.repo.is_some() && session.global.config.is_none()) {
            let archive = super::archive(&super::open(session, wire::place(session)?, self.longest())?);
            let Some(wanted) = self.system.or(here.map(|cluster| cluster.system)) else {
                return Err(Fault::new(codes::CLI_USAGE, "choose the WAL log")
                    .hint("give --system ID, or a configuration; `rekindle wal status` shows the logs")
                    .into());
            };
            let cluster = archive.clusters()?.into_iter().find(|one| one.system == wanted).ok_or_else(|| {
                Fault::new(codes::WAL_UNBOUND, format!("find the WAL log of the cluster {wanted}"))
                    .hint("`rekindle wal status` shows the logs of the repository")
            })?;
            same_cluster(here, cluster)?;
            return Ok((archive, cluster, place_name(session)));
        }
        let config = wire::config(session)?;
        let owner = super::owner(&config, self.component.as_ref())?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let archive = super::archive(&super::open(session, place, self.longest())?);
        let cluster = super::bound(&archive, &owner)?;
        // A restored copy of an earlier cluster of this component has a log of its own.
        let cluster = match here {
            Some(here) if here != cluster => {
                archive.clusters()?.into_iter().find(|one| *one == here).unwrap_or(cluster)
            }
            _ => cluster,
        };
        same_cluster(here, cluster)?;
        let copy = session.global.copy.as_deref().unwrap_or_default();
        Ok((archive, cluster, format!("{} {copy}", config.repository.url)))
    }

    fn file(&self, cluster: Cluster) -> Result<WalFile> {
        WalFile::parse(&self.name, cluster.segment_size).map_err(|bad| {
            Fault::new(codes::WAL_NOT_WAL, format!("fetch `{}`", self.name.escape_debug()))
                .because(bad)
                .hint("restore_command = 'rekindle wal fetch %f \"%p\"'")
        })
    }

    fn spool(&self, place: &str, cluster: Cluster) -> Option<Spool> {
        if self.prefetch == 0 {
            return None;
        }
        let here = std::env::current_dir().unwrap_or_default();
        match Spool::open(self.spool.as_deref(), &format!("{place}\n{}\n{}", cluster.system, here.display()), cluster) {
            Ok(spool) => Some(spool),
            Err(error) => {
                tracing::info!(%error, "no segments are fetched ahead");
                None
            }
        }
    }

    fn get(&self, log: &dyn WalLog, file: WalFile, spool: Option<&Spool>) -> Result<Got> {
        let segment = match file {
            WalFile::Segment(segment) => segment,
            WalFile::Extra(extra) => return Ok(log.extra(extra)?.map_or(Got::Nothing, Got::Bytes)),
            WalFile::History(timeline) => {
                return match log.history(timeline)? {
                    Some(bytes) => Ok(Got::Bytes(bytes)),
                    None => absent(log, file).map(|_| Got::Nothing),
                };
            }
        };
        if let Some(spool) = spool
            && spool.take(segment, &self.target).map_err(|error| unwritable(&self.target, error))?
        {
            return Ok(Got::Ahead);
        }
        for _ in 0..LOOKS_MAX {
            if let Some(bytes) = log.segment(segment)? {
                return Ok(Got::Bytes(bytes));
            }
            match absent(log, file)? {
                Absence::End => return Ok(Got::Nothing),
                Absence::Tail => {
                    if let Some(tail) = log.tail(segment)? {
                        let mut bytes = tail.bytes;
                        bytes.resize(log.cluster().segment_size.bytes() as usize, 0);
                        return Ok(Got::Tail(bytes));
                    }
                }
                // It came in between.
                Absence::Sealed => {}
            }
        }
        Err(Fault::new(codes::WAL_GAP, format!("fetch `{}`", self.name)).because("the log changes while it is read"))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        write_whole(&self.target, bytes).map_err(|error| unwritable(&self.target, error))
    }

    /// Fetches the next segments into the spool. Nobody waits for it, and its errors are nobody's:
    /// whoever needs a segment fetches it itself.
    pub(super) fn prefetch(&self, session: &Session) -> Result<Answer, Faults> {
        super::no_longer_than(session, AHEAD_LONGEST, Reader::People, "fetch WAL ahead");
        let (archive, cluster, place) = self.open(session)?;
        let WalFile::Segment(segment) = self.file(cluster)? else {
            return Ok(Answer::words(json!({}), ""));
        };
        let log = archive.log(cluster)?;
        let fetched = match self.spool(&place, cluster) {
            Some(spool) => ahead(&log, &spool, segment, self.prefetch)?,
            None => 0,
        };
        Ok(Answer::words(json!({"fetched": fetched}), ""))
    }
}

fn ahead(log: &Arc<dyn WalLog>, spool: &Spool, after: SegmentName, count: u32) -> Result<u32> {
    let Some(_alone) = spool.alone() else {
        return Ok(0);
    };
    spool.forget_before(after);
    let (mut next, mut fetched) = (after.next(), 0);
    for _ in 0..spool.capacity(count) {
        if !spool.has(next) {
            let kept = spool.put(next, || log.segment(next))?;
            if !kept {
                break;
            }
            fetched += 1;
        }
        next = next.next();
    }
    Ok(fetched)
}

/// The URL of `--repo`, for the name of a spool.
fn place_name(session: &Session) -> String {
    session.global.repo.clone().unwrap_or_default()
}

fn same_cluster(here: Option<Cluster>, cluster: Cluster) -> Result<()> {
    match here {
        Some(here) if here.system != cluster.system => {
            let what = format!("fetch WAL of the cluster {}", cluster.system);
            Err(Fault::new(codes::WAL_OTHER_CLUSTER, what)
                .because(format!("this data directory belongs to the cluster {}", here.system))
                .hint("name the right component, or --system"))
        }
        _ => Ok(()),
    }
}

/// Why the file is not there. An error when it should be.
fn absent(log: &dyn WalLog, file: WalFile) -> Result<Absence> {
    let (inventory, lineage) = survey(log)?;
    absence::judge(&inventory, &lineage, file).map_err(|missing| {
        let code = if matches!(file, WalFile::History(_)) { codes::WAL_HISTORY } else { codes::WAL_GAP };
        Fault::new(code, format!("fetch `{}`", file.file(inventory.cluster.segment_size)))
            .because(missing)
            .hint("rekindle wal verify; recover to a moment before the hole, or from a later base backup")
    })
}

fn unwritable(path: &Path, error: io::Error) -> Fault {
    Fault::new(codes::WAL_FILE, format!("write `{}`", path.display()))
        .because(error)
        .hint("make room, and run this as the user of the server, in its data directory")
}

/// What this process is writing: to be removed when it has to end before it is done.
static UNFINISHED: Mutex<Option<PathBuf>> = Mutex::new(None);
/// A disk that stands still must not keep the process from ending.
const REMOVE_LONGEST: Duration = Duration::from_secs(1);

fn unfinished(now: Option<PathBuf>) -> Option<PathBuf> {
    std::mem::replace(&mut *UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner), now)
}

/// The process ends now: nothing half-written stays behind.
pub(super) fn give_up() {
    let Some(path) = unfinished(None) else { return };
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::fs::remove_file(path);
        let _ = done.send(());
    });
    let _ = wait.recv_timeout(REMOVE_LONGEST);
}

/// A file that is there whole or not at all.
pub(super) fn write_whole(target: &Path, bytes: &[u8]) -> io::Result<()> {
    write_checked(target, bytes, || true).map(drop)
}

/// As [`write_whole`]; it gets its name only when the check says so, and else is gone.
pub(super) fn write_checked(target: &Path, bytes: &[u8], check: impl FnOnce() -> bool) -> io::Result<bool> {
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(format!(".rekindle-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    unfinished(Some(temporary.clone()));
    let write = move |temporary: &Path| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
        file.write_all(bytes)?;
        drop(file);
        if !check() {
            std::fs::remove_file(temporary)?;
            return Ok(false);
        }
        std::fs::rename(temporary, target).map(|()| true)
    };
    let written = write(&temporary).inspect_err(|_| {
        // What is left of it helps nobody.
        let _ = std::fs::remove_file(&temporary);
    });
    unfinished(None);
    written
}

/// Starts this program again as the helper that fetches ahead: its own session, no terminal, no
/// pipe of the server's.
fn fetch_ahead() {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let after_wal = arguments.iter().position(|word| word == "wal").map_or(0, |at| at + 1);
    let Some(verb) = arguments.iter_mut().skip(after_wal).find(|word| *word == "fetch") else {
        return;
    };
    *verb = "prefetch".into();
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    if let Err(error) = started {
        tracing::info!(%error, "the helper that fetches ahead did not start");
    }
}
