//! Snapshots the server makes for us, and getting rid of them.
//!
//! A snapshot pins the disk space of its blocks, and the server has no call to remove one. So each is
//! written down beside it *before* it is asked for: whoever finds the record of a run that is gone
//! removes what that run left. Only names that a record of ours holds are ever removed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rekindle_core::entry::check_name;
use rekindle_core::{Fault, Result, RunId, codes};
use serde::{Deserialize, Serialize};

use crate::files::show;

/// Beginning of the names of our records, in the data directory. The server looks only at ULIDs there.
const RECORD_PREFIX: &str = ".rekindle-snapshot-";
/// Bytes of a record that are read.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// What is written down about one snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    run: String,
    /// Snapshots that were there before ours was asked for.
    before: BTreeSet<String>,
    /// The name of ours, once the server has said it.
    name: Option<String>,
}

/// A snapshot of ours; removed at the latest when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    data_dir: PathBuf,
    path: PathBuf,
    record: Record,
    /// Locked as long as the run lives: others do not take its snapshot for a left-over.
    file: Option<File>,
    /// The server was asked and has not answered: it may make a snapshot whose name nobody heard.
    asked: bool,
}

/// What a look for left-overs found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeftOver {
    Removed {
        run: String,
        snapshot: String,
    },
    /// The run ended before the server had answered: these came since, and may be of somebody else.
    Unclear {
        run: String,
        candidates: Vec<String>,
    },
    Failed {
        run: String,
        why: String,
    },
}

fn data_fault(doing: &str, path: &Path, error: io::Error) -> Fault {
    Fault::new(codes::PROM_DATA_DIR, format!("{doing} `{}`", show(path)))
        .because(error)
        .hint("rekindle has to write in the server's data directory to remove its snapshots: run as root or as the server's user, or set `method = \"blocks\"`")
}

impl Held {
    /// Writes down, durably, that a snapshot is about to be asked for.
    pub(super) fn prepare(data_dir: &Path, run: &RunId) -> Result<Self> {
        let path = data_dir.join(format!("{RECORD_PREFIX}{run}"));
        let record = Record { version: 1, run: run.to_string(), before: snapshots(data_dir), name: None };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| data_fault("write", &path, error))?;
        // A new file of a new name: nobody else has it locked. File systems without locks do without.
        let _ = file.try_lock();
        let mut held = Self { data_dir: data_dir.to_owned(), path, record, file: Some(file), asked: false };
        held.write()?;
        File::open(data_dir).and_then(|open| open.sync_all()).map_err(|error| data_fault("sync", data_dir, error))?;
        Ok(held)
    }

    fn write(&mut self) -> Result<()> {
        let json = serde_json::to_vec(&self.record)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write a record of a snapshot").because(error))?;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut store = || {
            file.seek(io::SeekFrom::Start(0))?;
            file.write_all(&json)?;
            file.set_len(json.len() as u64)?;
            file.sync_all()
        };
        store().map_err(|error| data_fault("write", &self.path, error))
    }

    /// From now on the server may be making one.
    pub(super) fn asking(&mut self) {
        self.asked = true;
    }

    /// The server has answered that it makes none.
    pub(super) fn refused(&mut self) {
        self.asked = false;
    }

    /// The server has named it.
    pub(super) fn made(&mut self, name: &str) -> Result<()> {
        check_name(name.as_bytes())
            .map_err(|why| Fault::new(codes::PROM_ANSWER, "use the name of a snapshot").because(why))?;
        self.record.name = Some(name.to_owned());
        self.write()
    }

    /// Where it is.
    pub(super) fn directory(&self) -> Option<PathBuf> {
        self.record.name.as_ref().map(|name| self.data_dir.join("snapshots").join(name))
    }

    /// Removes it and the record of it. After an error the record stays, for the next run.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        if self.asked && self.record.name.is_none() {
            // The record stays: the next run tells what may be left.
            self.file = None;
            return Ok(());
        }
        if let Some(directory) = self.directory() {
            remove_tree(&directory)?;
        }
        fs::remove_file(&self.path)?;
        self.file = None;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(
                "the snapshot {} could not be removed ({error}); the next run tries again",
                self.record.name.as_deref().unwrap_or("just made")
            );
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names of the snapshots in a data directory; none where they cannot be listed.
pub(super) fn snapshots(data_dir: &Path) -> BTreeSet<String> {
    let listed = fs::read_dir(data_dir.join("snapshots"));
    listed.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Records of runs that have ended without removing their snapshot.
fn abandoned(data_dir: &Path) -> Vec<(PathBuf, File)> {
    let listed = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let named = listed.filter(|entry| entry.file_name().to_string_lossy().starts_with(RECORD_PREFIX));
    named
        .filter_map(|entry| {
            let file = OpenOptions::new().read(true).write(true).open(entry.path()).ok()?;
            match file.try_lock() {
                Ok(()) => Some((entry.path(), file)),
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
            }
        })
        .collect()
}

/// How many runs have left something, without changing it.
pub(super) fn count_abandoned(data_dir: &Path) -> usize {
    abandoned(data_dir).len()
}

/// Removes what runs that are gone have left.
pub(super) fn sweep(data_dir: &Path) -> Vec<LeftOver> {
    let mut found = Vec::new();
    for (path, file) in abandoned(data_dir) {
        let mut bytes = Vec::new();
        let read = (&file).take(RECORD_BYTES_MAX).read_to_end(&mut bytes);
        let record: Option<Record> = read.ok().and_then(|_| serde_json::from_slice(&bytes).ok());
        let Some(record) = record else {
            // The record is made durable before the server is asked: without one there is no snapshot.
            let _ = fs::remove_file(&path);
            continue;
        };
        let run = record.run;
        let Some(name) = record.name.filter(|name| check_name(name.as_bytes()).is_ok()) else {
            let candidates: Vec<String> = snapshots(data_dir).difference(&record.before).cloned().collect();
            let _ = fs::remove_file(&path);
            if !candidates.is_empty() {
                found.push(LeftOver::Unclear { run, candidates });
            }
            continue;
        };
        let directory = data_dir.join("snapshots").join(&name);
        let existed = directory.exists();
        match remove_tree(&directory).and_then(|()| fs::remove_file(&path)) {
            Ok(()) if existed => found.push(LeftOver::Removed { run, snapshot: name }),
            Ok(()) => {}
            Err(error) => found.push(LeftOver::Failed { run, why: format!("`{}`: {error}", show(&directory)) }),
        }
    }
    found
}

impl LeftOver {
    /// For reading.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Removed { run, snapshot } => {
                format!("the snapshot `{snapshot}` that the interrupted run {run} had left was removed")
            }
            Self::Unclear { run, candidates } => format!(
                "the interrupted run {run} may have left one of the snapshots `{}`: remove what nobody needs below `snapshots/`",
                candidates.join("`, `")
            ),
            Self::Failed { run, why } => {
                format!("the snapshot that the interrupted run {run} had left could not be removed: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::new(jiff::Timestamp::UNIX_EPOCH, 7)
    }

    fn data() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("snapshots/others/x")).unwrap();
        place
    }

    fn left(place: &Path) -> Vec<String> {
        let mut names: Vec<String> = snapshots(place).into_iter().collect();
        names.extend(fs::read_dir(place).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()));
        names.retain(|name| name != "snapshots");
        names
    }

    #[test]
    fn a_snapshot_goes_with_its_run_and_others_stay() {
        let place = data();
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        fs::create_dir_all(place.path().join("snapshots/ours/01")).unwrap();
        held.made("ours").unwrap();
        assert_eq!(sweep(place.path()), [], "a run that lives keeps its snapshot");
        drop(held);
        assert_eq!(left(place.path()), ["others"]);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_told() {
        let place = data();
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        fs::create_dir_all(place.path().join("snapshots/ours/01")).unwrap();
        held.made("ours").unwrap();
        // As a kill does: the lock goes, everything else stays.
        held.file = None;
        let found = sweep(place.path());
        assert!(matches!(&found[..], [LeftOver::Removed { snapshot, .. }] if snapshot == "ours"), "{found:?}");
        assert_eq!(left(place.path()), ["others"]);
    }

    #[test]
    fn a_snapshot_without_a_name_is_told_and_not_removed() {
        let place = data();
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        held.file = None;
        fs::create_dir_all(place.path().join("snapshots/unknown")).unwrap();
        let found = sweep(place.path());
        assert!(
            matches!(&found[..], [LeftOver::Unclear { candidates, .. }] if candidates == &["unknown"]),
            "{found:?}"
        );
        assert_eq!(left(place.path()), ["others", "unknown"]);
    }

    #[test]
    fn a_question_without_an_answer_is_told_by_the_next_run() {
        let place = data();
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        held.asking();
        drop(held);
        fs::create_dir_all(place.path().join("snapshots/late")).unwrap();
        let found = sweep(place.path());
        assert!(matches!(&found[..], [LeftOver::Unclear { candidates, .. }] if candidates == &["late"]), "{found:?}");
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        held.asking();
        held.refused();
        drop(held);
        assert_eq!(sweep(place.path()), []);
        assert_eq!(left(place.path()), ["late", "others"]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_not_taken() {
        let place = data();
        let mut held = Held::prepare(place.path(), &run()).unwrap();
        assert!(held.made("../wal").unwrap_err().is(codes::PROM_ANSWER));
    }
}
