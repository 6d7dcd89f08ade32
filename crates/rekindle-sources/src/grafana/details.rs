//! The component's own record in the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

/// Version of [`GrafanaDetails`] that is written, and the newest one that is read.
pub(super) const DETAILS_VERSION: u32 = 1;

/// What is known about the key that encrypts passwords of data sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// One of its own, and it is in the point.
    Own,
    /// Grafana's default, which everybody knows.
    Default,
    /// It could not be found: the point does not hold it.
    Unknown,
}

impl KeyState {
    /// What is wrong, and what to do about it.
    pub(super) fn warning(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Own => None,
            Self::Default => Some((
                "Grafana encrypts passwords with its DEFAULT secret_key, which everybody knows",
                "set `secret_key` in `[security]` to a key of your own (Grafana's documentation: \"secret_key\"), then back up",
            )),
            Self::Unknown => Some((
                "secret_key is NOT in the backup: after a restore elsewhere no data source has its password",
                "set `secret-key` to where it is kept (as `env:GF_SECURITY_SECRET_KEY`), or `config` and `environment-file`",
            )),
        }
    }
}

/// What the manifest says about a captured Grafana. It never holds the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrafanaDetails {
    pub version: u32,
    /// As the server or its `VERSION` file says.
    pub server_version: Option<String>,
    /// The database file on the captured host.
    pub database: PathBuf,
    /// `delete` or `wal`, when it was captured; the copy is always in `delete`.
    pub journal_mode: String,
    /// Rows per table.
    pub tables: BTreeMap<String, u64>,
    /// Newest migration per log table (`migration_log`, `resource_migration_log`).
    pub migrations: BTreeMap<String, String>,
    pub secret_key: KeyState,
    /// Files that are in the part, by their full path.
    pub files: Vec<PathBuf>,
    /// Whether there is a readable export of the API.
    pub export: bool,
}

impl GrafanaDetails {
    /// Reads the record of a manifest.
    pub(super) fn decode(value: &serde_json::Value) -> Result<Self> {
        let too_new = value.get("version").and_then(serde_json::Value::as_u64) > Some(u64::from(DETAILS_VERSION));
        serde_json::from_value(value.clone()).ok().filter(|_| !too_new).ok_or_else(|| {
            Fault::new(codes::REPO_MANIFEST, "read what the manifest says about Grafana")
                .because(if too_new { "a newer rekindle wrote it" } else { "it is not as expected" })
                .hint("use a newer rekindle, or restore the files with `rekindle cat`")
        })
    }
}
