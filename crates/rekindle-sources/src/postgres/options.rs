//! What a `postgres` component is told by the configuration.

use std::path::PathBuf;
use std::time::Duration;

use rekindle_core::Secret;

use super::physical::PhysicalOptions;
use super::programs::Home;
use super::url::{BadUrl, ServerUrl};

/// Which databases of the server are saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// The one of the URL.
    One,
    /// These.
    List(Vec<String>),
    /// Every database that allows connections and is no template, as found at each run.
    All,
}

/// Everything a component needs to know; see [`PostgresOptions::new`] for the defaults.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub url: ServerUrl,
    pub password: Option<Secret<String>>,
    pub databases: Databases,
    /// Definitions without rows.
    pub schema_only: bool,
    /// Only tables that match these patterns of `pg_dump --table` (then no large objects).
    pub tables: Vec<String>,
    /// Not the tables that match these patterns of `pg_dump --exclude-table`.
    pub exclude_tables: Vec<String>,
    /// Count the rows of every dumped table in the snapshot of the dump.
    pub exact_counts: bool,
    /// Save roles and their memberships.
    pub globals: bool,
    /// The server's data directory on this host, for a restore in place.
    pub data_dir: Option<PathBuf>,
    /// Where `pg_dump` and its companions are, when they are not where they are usually found.
    pub bin_dir: Option<PathBuf>,
    /// Longest wait for a table that somebody has locked.
    pub lock_timeout: Duration,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest pause of `pg_dump` without a byte.
    pub idle_timeout: Duration,
    /// Where a dump is put for a restore with several workers; none: the run's scratch directory.
    pub spool_dir: Option<PathBuf>,
    /// The user's SQL, asked of what was restored: each gives one row whose first column is true.
    pub checks: Vec<String>,
    /// Where servers that are started for a recovery have their sockets; none: the directory for temporary files.
    pub private_dir: Option<PathBuf>,
    /// Base backups of the whole cluster instead of dumps.
    pub physical: Option<PhysicalOptions>,
    /// The container the server runs in, whose client programs are used where this host has none.
    pub home: Option<Home>,
}

impl PostgresOptions {
    /// The defaults for a server: its one database, roles, estimated counts.
    pub fn new(url: ServerUrl, password: Option<Secret<String>>) -> Self {
        Self {
            url,
            password,
            databases: Databases::One,
            schema_only: false,
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            exact_counts: false,
            globals: true,
            data_dir: None,
            bin_dir: None,
            lock_timeout: Duration::from_mins(5),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_mins(30),
            spool_dir: None,
            checks: Vec::new(),
            private_dir: None,
            physical: None,
            home: None,
        }
    }

    /// The defaults for a URL, which may hold the password.
    pub fn from_url(text: &str) -> Result<Self, BadUrl> {
        let (url, password) = ServerUrl::parse(text)?;
        Ok(Self::new(url, password))
    }

    /// Whether only some tables are saved.
    pub fn is_filtered(&self) -> bool {
        !self.tables.is_empty() || !self.exclude_tables.is_empty()
    }
}
