//! The SQLite database: copied by its online backup API, which sees one state of it whatever others
//! write meanwhile, in every journal mode (<https://www.sqlite.org/backup.html>).
//!
//! That API needs a second database to write to, so the copy is staged: in a private directory, in a
//! file that has no name any more by the time it is read. See ADR 0006.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_core::{Cancel, Fault, Result, codes};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::files::show;

/// Pages copied between two looks at the signal to stop.
const STEP_PAGES: i32 = 2000;
/// Longest wait for a writer that holds the database.
const BUSY_MAX: Duration = Duration::from_mins(1);
const BUSY_EVERY: Duration = Duration::from_millis(50);

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) tables: BTreeMap<String, u64>,
    pub(super) migrations: BTreeMap<String, String>,
}

/// A whole, checked copy that has no name.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) file: File,
    pub(super) bytes: u64,
    pub(super) journal_mode: String,
    pub(super) facts: Facts,
}

fn unreadable(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::GRAFANA_DATABASE, format!("read the database `{}`", show(path)))
        .because(error)
        .hint("check `data-dir` or `database`, and run as root or as Grafana's user; it has to be a local file system")
}

fn damaged(path: &Path, why: String) -> Fault {
    Fault::new(codes::GRAFANA_DAMAGED, format!("check the database `{}`", show(path)))
        .because(why)
        .hint("`sqlite3 FILE 'PRAGMA integrity_check'` says more; restore an older point, or `.recover` it")
}

fn stage_fault(directory: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::GRAFANA_STAGE, format!("stage a copy of the database in `{}`", show(directory)))
        .because(error)
        .hint("set `stage-dir` to a local directory with as much room as the database")
}

/// Opens a database for reading; nothing is created.
pub(super) fn open(path: &Path) -> Result<Connection> {
    if let Err(error) = fs::metadata(path) {
        return Err(unreadable(path, error));
    }
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| unreadable(path, error))?;
    connection.busy_timeout(BUSY_MAX).map_err(|error| unreadable(path, error))?;
    Ok(connection)
}

/// Copies, checks and counts. Blocking.
pub(super) fn copy(path: &Path, stage_dir: &Path, cancel: &Cancel) -> Result<Copy> {
    let source = open(path)?;
    let read = |error| unreadable(path, error);
    let journal_mode: String = source.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(read)?;
    // One state for all steps: with a writer the backup would else begin again at each of its commits.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master").map_err(read)?;
    let stage = Stage::make(stage_dir)?;
    let mut target = Connection::open(stage.path()).map_err(|error| stage_fault(stage_dir, error))?;
    target
        .execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")
        .map_err(|error| stage_fault(stage_dir, error))?;
    run(path, &source, &mut target, stage_dir, cancel)?;
    drop(source);
    // A copy of a WAL database says that it is one; by itself it has no log to look for.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(|error| stage_fault(stage_dir, error))?;
    sound(&target).map_err(|why| damaged(path, why))?;
    let facts = facts(&target).map_err(|error| damaged(path, error.to_string()))?;
    if facts.tables.is_empty() {
        return Err(unreadable(path, "it holds no table: is it Grafana's database?"));
    }
    target.close().map_err(|(_, error)| stage_fault(stage_dir, error))?;
    let file = stage.into_file();
    let bytes = file.metadata().map_err(|error| stage_fault(stage_dir, error))?.len();
    Ok(Copy { file, bytes, journal_mode, facts })
}

fn run(path: &Path, source: &Connection, target: &mut Connection, stage_dir: &Path, cancel: &Cancel) -> Result<()> {
    let backup = Backup::new(source, target).map_err(|error| stage_fault(stage_dir, error))?;
    let started = Instant::now();
    loop {
        cancel.check()?;
        match backup.step(STEP_PAGES) {
            Ok(StepResult::Done) => return Ok(()),
            Ok(StepResult::More) => {}
            Ok(_) if started.elapsed() < BUSY_MAX => std::thread::sleep(BUSY_EVERY),
            Ok(_) => {
                let why = format!("another program has held it for {} s", BUSY_MAX.as_secs());
                return Err(unreadable(path, why));
            }
            Err(error) => {
                let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
                return Err(if full { stage_fault(stage_dir, error) } else { unreadable(path, error) });
            }
        }
    }
}

/// Beginning of the names of staging directories.
const STAGE_PREFIX: &str = "rekindle-grafana-";
/// A staging directory younger than this may have its file still to come.
const SWEEP_AGE_MIN: Duration = Duration::from_mins(10);

/// Removes copies of runs that were killed: of this user, and locked by nobody any more.
fn sweep(stage_dir: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(stage_dir).into_iter().flatten().flatten() {
        let named = entry.file_name().to_string_lossy().starts_with(STAGE_PREFIX);
        let Some(meta) = entry.metadata().ok().filter(|meta| named && meta.is_dir() && meta.uid() == own) else {
            continue;
        };
        let old = meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SWEEP_AGE_MIN));
        let left = File::open(entry.path().join(STAGED)).is_ok_and(|file| file.try_lock().is_ok());
        if old && left && fs::remove_dir_all(entry.path()).is_ok() {
            tracing::warn!("the copy `{}` that an interrupted run had left was removed", entry.path().display());
        }
    }
}

/// Name of the copy.
const STAGED: &str = "grafana.db";

/// A private file for the copy; its directory goes with this.
struct Stage {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    file: File,
}

impl Stage {
    fn make(stage_dir: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(stage_dir)
            .map_err(|error| stage_fault(stage_dir, error))?;
        sweep(stage_dir);
        // Made with mode 0700.
        let directory = tempfile::Builder::new()
            .prefix(STAGE_PREFIX)
            .tempdir_in(stage_dir)
            .map_err(|error| stage_fault(stage_dir, error))?;
        let path = directory.path().join(STAGED);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| stage_fault(stage_dir, error))?;
        // Ours alone; file systems without locks do without.
        let _ = file.try_lock();
        Ok(Self { _directory: directory, path, file })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// The open file; name and directory go.
    fn into_file(self) -> File {
        self.file
    }
}

/// Whether SQLite finds nothing wrong; else the first thing it names.
fn sound(connection: &Connection) -> std::result::Result<(), String> {
    let first: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if first == "ok" { Ok(()) } else { Err(first) }
}

fn facts(connection: &Connection) -> rusqlite::Result<Facts> {
    let mut found = Facts { tables: BTreeMap::new(), migrations: BTreeMap::new() };
    let mut names = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for name in names {
        let quoted = name.replace('"', "\"\"");
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM \"{quoted}\""), [], |row| row.get(0))?;
        found.tables.insert(name, u64::try_from(rows).unwrap_or(0));
    }
    for log in ["migration_log", "resource_migration_log"] {
        if !found.tables.contains_key(log) {
            continue;
        }
        let newest = format!("SELECT migration_id FROM {log} ORDER BY id DESC LIMIT 1");
        let mut rows = connection.prepare(&newest)?;
        if let Some(head) = rows.query_map([], |row| row.get(0))?.next() {
            found.migrations.insert(log.to_owned(), head?);
        }
    }
    Ok(found)
}

/// Checks a database at rest and counts what is in it. Blocking.
pub(super) fn look(path: &Path) -> Result<Facts> {
    let connection = open(path)?;
    sound(&connection).map_err(|why| damaged(path, why))?;
    facts(&connection).map_err(|error| damaged(path, error.to_string()))
}

/// Whether it can be opened as a database at all; quick.
pub(super) fn glance(path: &Path) -> Result<String> {
    let connection = open(path)?;
    let read = |error| unreadable(path, error);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
        .map_err(read)?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(read)?;
    Ok(format!("{tables} tables, journal mode `{mode}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_killed_runs_go_and_those_of_living_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - SWEEP_AGE_MIN * 2;
        let make = |name: &str| {
            let directory = place.path().join(name);
            fs::create_dir(&directory).unwrap();
            let file = File::create(directory.join(STAGED)).unwrap();
            File::open(&directory).unwrap().set_modified(old).unwrap();
            file
        };
        let living = make("rekindle-grafana-living");
        living.try_lock().unwrap();
        drop(make("rekindle-grafana-killed"));
        drop(make("of-somebody-else"));
        sweep(place.path());
        let mut names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["of-somebody-else", "rekindle-grafana-living"]);
    }
}
