//! Where the parts of a Grafana are.

use std::path::PathBuf;

use rekindle_core::Secret;

use crate::http::HttpOptions;

/// Everything the component has to be told; by default the places of Grafana's own packages.
#[derive(Debug, Clone, Default)]
pub struct GrafanaOptions {
    /// `grafana.ini`; `None`: `/etc/grafana/grafana.ini` where it exists.
    pub config: Option<PathBuf>,
    /// File with `GF_…` variables; `None`: `/etc/default/grafana-server` where it exists.
    pub environment_file: Option<PathBuf>,
    /// The data directory on this host; `None`: as the configuration says.
    pub data_dir: Option<PathBuf>,
    /// The database file on this host; `None`: as the configuration says.
    pub database: Option<PathBuf>,
    /// Further files and directories to save.
    pub config_paths: Vec<PathBuf>,
    /// `secret_key`, when it stands in none of these files.
    pub secret_key: Option<Secret<String>>,
    /// Directory with `VERSION`; `None`: `/usr/share/grafana`.
    pub home: Option<PathBuf>,
    /// Where the copy of the database is put while it is checked and read; `None`: the system's
    /// temporary directory.
    pub stage_dir: Option<PathBuf>,
    /// The API, for the readable export and the version.
    pub http: Option<HttpOptions>,
}
