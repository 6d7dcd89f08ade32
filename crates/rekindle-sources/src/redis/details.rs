//! The component's own record in the manifest, and what a restore says about where things went.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::rdb::summary::RdbSummary;

/// Version of [`RedisDetails`] that is written, and the newest one that is read.
pub(crate) const DETAILS_VERSION: u32 = 1;

/// What the manifest says about a captured Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisDetails {
    pub version: u32,
    /// `redis` or `valkey`.
    pub server: String,
    pub server_version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// `master` or `slave`, as INFO says.
    pub role: String,
    /// Where the replication of the server stood shortly before the fork.
    pub replication_id: Option<String>,
    pub replication_offset: Option<u64>,
    /// Whether it keeps an append-only file; `None` when it did not say.
    pub appendonly: Option<bool>,
    /// Names of its files.
    pub files: FileNames,
    /// Loaded modules and their versions.
    pub modules: BTreeMap<String, i64>,
    /// How the last background save ended (`ok`, `err`), and the last write of the AOF.
    pub last_bgsave: Option<String>,
    pub last_aof_write: Option<String>,
    /// The moment of the fork: the data stands for it.
    pub forked_at: jiff::Timestamp,
    /// `eof-mark` (diskless) or `length` (from a file).
    pub framing: String,
    pub rdb: RdbSummary,
}

/// Names of the persistence files, as configured on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNames {
    pub dbfilename: String,
    pub appendfilename: String,
    pub appenddirname: String,
}

impl Default for FileNames {
    fn default() -> Self {
        Self {
            dbfilename: "dump.rdb".to_owned(),
            appendfilename: "appendonly.aof".to_owned(),
            appenddirname: "appendonlydir".to_owned(),
        }
    }
}

impl RedisDetails {
    /// Reads the record of a manifest.
    pub(crate) fn decode(value: &serde_json::Value) -> Result<Self> {
        let unusable =
            |why: String| Fault::new(codes::REPO_MANIFEST, "read the record of a Redis capture").because(why);
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version <= u64::from(DETAILS_VERSION) => {}
            Some(version) => {
                return Err(unusable(format!("version {version} is newer than this program knows"))
                    .hint("restore with the rekindle that took the backup, or a newer one"));
            }
            None => return Err(unusable("it has no version".to_owned())),
        }
        serde_json::from_value(value.clone()).map_err(|error| unusable(error.to_string()))
    }
}

/// Where a restore put the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placed {
    Directory {
        directory: PathBuf,
        /// The RDB file, and its copy at the start of an append-only file.
        rdb: PathBuf,
        aof_base: Option<PathBuf>,
        /// The directory with the old files, when there were any.
        #[serde(default)]
        kept: Option<PathBuf>,
    },
    Server {
        /// Without credentials.
        url: String,
        overwrite: bool,
        /// Keys restored, and skipped because they had expired, per database.
        restored: BTreeMap<u64, u64>,
        expired: u64,
        functions: u64,
    },
}
