//! The journal of runs: one SQLite file in the state directory, written before and after each run.
//!
//! It is a memory, not the truth: points are in the repository. Lost or damaged, it is made anew
//! and filled from what the repository holds ([`Journal::adopt_points`]).

mod notices;
mod runs;
mod schema;

pub use notices::{Lost, News, Open, Parcel};
pub use runs::{JobRecord, OpenRun, RunRecord, Totals};

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rekindle_core::{Fault, Result, codes};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

const SET_FACT: &str = "INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";

/// The open journal. One process at a time writes it (see `serve.lock`).
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    /// The file.
    path: PathBuf,
    /// Whether it was made anew when it was opened.
    pub fresh: bool,
}

impl Journal {
    /// Opens or makes the journal in this directory. A damaged one is put aside, not written over.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self> {
        let path = directory.join("journal.sqlite");
        let fresh = !path.exists();
        match schema::connect(&path) {
            Ok(db) => Ok(Self { db, path, fresh }),
            Err(error) if !fresh && schema::is_damaged(&error) => {
                let aside = directory.join(format!("journal.sqlite.damaged-{}", now.as_second()));
                tracing::warn!(error = %error, aside = %aside.display(), "the journal is damaged and is made anew");
                let moved = std::fs::rename(&path, &aside);
                // Left beside a new file they would be replayed into it.
                for tail in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(directory.join(format!("journal.sqlite{tail}")));
                }
                moved.map_err(|error| failed(&path, "put the damaged journal aside").because(error))?;
                let db = schema::connect(&path).map_err(|error| failed(&path, "make the journal").because(error))?;
                Ok(Self { db, path, fresh: true })
            }
            Err(error) => Err(failed(&path, "open the journal").because(error)),
        }
    }

    /// The journal in this directory, to look at only: another process may write it. `None`: there is none.
    pub fn look(directory: &Path) -> Result<Option<Self>> {
        Self::existing(directory, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// The journal in this directory, to add a word to while another process may write it. One that is damaged is
    /// left as it is, for that process to see. `None`: there is none.
    pub fn amend(directory: &Path) -> Result<Option<Self>> {
        Self::existing(directory, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    fn existing(directory: &Path, how: OpenFlags) -> Result<Option<Self>> {
        let path = directory.join("journal.sqlite");
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return Err(failed(&path, "look for the journal").because(error)),
        }
        let open = || {
            let db = Connection::open_with_flags(&path, how)?;
            db.busy_timeout(schema::BUSY_MAX)?;
            Ok(db)
        };
        let opened: rusqlite::Result<Connection> = open();
        let db = opened.map_err(|error| failed(&path, "open the journal").because(error))?;
        Ok(Some(Self { db, path, fresh: false }))
    }

    /// A remembered word.
    pub fn fact(&self, name: &str) -> Result<Option<String>> {
        self.db
            .query_row("SELECT value FROM fact WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed("read the journal", error))
    }

    /// Remembers a word.
    pub fn set_fact(&self, name: &str, value: &str) -> Result<()> {
        self.change(SET_FACT, params![name, value])
    }

    fn change(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        self.db.execute(sql, values).map(drop).map_err(|error| self.failed("write the journal", error))
    }

    fn failed(&self, what: &str, error: rusqlite::Error) -> Fault {
        failed(&self.path, what).because(error)
    }
}

fn failed(path: &Path, what: &str) -> Fault {
    Fault::new(codes::ENGINE_STATE, format!("{what} {}", path.display()))
        .hint("check the disk; without its journal the service does not know what ran")
}

/// Moments are kept as milliseconds since 1970.
pub(crate) fn to_ms(moment: Timestamp) -> i64 {
    moment.as_millisecond()
}

pub(crate) fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
