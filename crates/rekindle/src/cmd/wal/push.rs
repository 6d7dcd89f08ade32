//! `wal push`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rekindle_core::wal::{Cluster, LongHeader, Owner, Put, WalArchive, WalFile};
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_repo::wal::Archive;
use serde_json::json;

use crate::exit::Reader;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;

/// The server tries again by itself; its own patience is endless, an administrator's is not.
const LONGEST: Duration = Duration::from_secs(55);

/// Store one WAL file: the program for `archive_command`
///
/// In postgresql.conf: archive_command = 'rekindle --config /etc/rekindle/rekindle.toml wal push "%p"'
///
/// Exit code 0 means durable in the repository. Every failure ends with 1 to 125, so that the server counts it and
/// keeps the file. The same file again is a success; other content under a known name is refused and an alarm.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The file, as the server names it (%p)
    file: PathBuf,
    /// The postgres component [default: the only one]
    #[arg(long, value_name = "COMPONENT")]
    component: Option<ComponentId>,
}

impl Push {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        super::no_longer_than(session, LONGEST, Reader::ArchiveCommand, "store a WAL file");
        let config = wire::config(session)?;
        let owner = super::owner(&config, self.component.as_ref())?;
        let name = file_name(&self.file)?;
        let bytes = std::fs::read(&self.file).map_err(|error| unreadable(&self.file, error))?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let archive = super::archive(&super::open(session, place, LONGEST)?);
        let put = store(&archive, &owner, &self.file, name, &bytes)?;
        let word = match put {
            Put::New => "stored",
            Put::Same => "there already",
        };
        // Each line would go into the server's log, for every segment.
        Ok(Answer::words(json!({"file": name, "state": word}), ""))
    }
}

fn store(archive: &Archive, owner: &Owner, path: &Path, name: &str, bytes: &[u8]) -> Result<Put> {
    let cluster = cluster(archive, owner, path, bytes)?;
    let file = WalFile::parse(name, cluster.segment_size).map_err(|bad| not_wal(name, bad))?;
    let log = archive.bind(owner, cluster)?;
    match file {
        WalFile::Segment(segment) => log.put_segment(segment, bytes),
        WalFile::History(timeline) => log.put_history(timeline, bytes),
        WalFile::Extra(extra) => log.put_extra(extra, bytes),
    }
}

/// Whose file it is: a segment says so itself; for the others the control file of the data
/// directory does, or else what the component is bound to.
fn cluster(archive: &Archive, owner: &Owner, path: &Path, bytes: &[u8]) -> Result<Cluster> {
    let name = file_name(path)?;
    if name.len() == 24 || name.ends_with(".partial") {
        return LongHeader::parse(bytes).map(|header| header.cluster).map_err(|bad| not_wal(name, bad));
    }
    let data = path.parent().and_then(Path::parent);
    let data = data.map(|data| if data.as_os_str().is_empty() { Path::new(".") } else { data });
    match data.and_then(super::control) {
        Some(cluster) => Ok(cluster),
        None => super::bound(archive, owner),
    }
}

fn file_name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| not_wal(&path.display().to_string(), "it has no name"))
}

fn not_wal(name: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::WAL_NOT_WAL, format!("store `{}` in the WAL log", name.escape_debug()))
        .because(why)
        .hint("nothing was stored; archive_command = 'rekindle wal push \"%p\"'")
}

fn unreadable(path: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::WAL_FILE, format!("read `{}`", path.display()))
        .because(error)
        .hint("`%p` is relative to the data directory, where the server runs the command")
}
