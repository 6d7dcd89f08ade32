//! Tables of the journal.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

/// The version of the tables.
const VERSION: i64 = 1;
/// Longest wait for another process that reads or writes.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(10);

const TABLES: &str = "
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
-- One row per scheduled job; component is '' for jobs of the whole repository.
CREATE TABLE job (
    task TEXT NOT NULL, component TEXT NOT NULL, since INTEGER NOT NULL, newest_good INTEGER,
    PRIMARY KEY (task, component)
) STRICT;
CREATE TABLE run (
    id TEXT PRIMARY KEY, task TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER,
    how TEXT, exit_code INTEGER, point TEXT, code TEXT, message TEXT
) STRICT;
CREATE INDEX run_open ON run (ended) WHERE ended IS NULL;
-- What a run was for: an occurrence of each of its jobs.
CREATE TABLE run_job (
    run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE, task TEXT NOT NULL, component TEXT NOT NULL,
    slot INTEGER NOT NULL, attempt INTEGER NOT NULL, missed INTEGER NOT NULL, started INTEGER NOT NULL,
    ended INTEGER, how TEXT, bytes INTEGER, stored_bytes INTEGER, elapsed_ms INTEGER,
    PRIMARY KEY (run, task, component)
) STRICT;
CREATE INDEX run_job_newest ON run_job (task, component, started);
-- Conditions that were told and are not over.
CREATE TABLE notice (
    key TEXT PRIMARY KEY, event TEXT NOT NULL, since INTEGER NOT NULL, told INTEGER NOT NULL, text TEXT NOT NULL
) STRICT;
-- Messages on their way.
CREATE TABLE parcel (
    id INTEGER PRIMARY KEY, target TEXT NOT NULL, event TEXT NOT NULL, made INTEGER NOT NULL,
    attempts INTEGER NOT NULL, next INTEGER NOT NULL
) STRICT;
-- Counters that survive a restart.
CREATE TABLE counter (name TEXT NOT NULL, label TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (name, label)) STRICT;
";

/// Opens the file, makes the tables of a new one, and checks the pages of an old one.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY_MAX)?;
    // A committed transaction survives a power cut.
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", "on")?;
    let answer: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if answer != "ok" {
        return Err(damaged(&answer));
    }
    let work = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = work.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => {
            work.execute_batch(TABLES)?;
            work.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        newer => return Err(damaged(&format!("its version {newer} is not known to this program"))),
    }
    work.commit()?;
    Ok(db)
}

fn damaged(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(why.to_owned()))
}

/// Whether the file itself is bad, not the disk or the permissions.
pub(super) fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
