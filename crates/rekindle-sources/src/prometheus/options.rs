//! How a Prometheus is reached, and what is known about its files.

use std::path::PathBuf;

use crate::http::{HttpOptions, Login};

/// How the data is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// By the snapshot API; of the immutable blocks when the admin API is off.
    #[default]
    Auto,
    /// By the snapshot API or not at all.
    Snapshot,
    /// Of the immutable blocks: what is in the head (up to about three hours) is left out.
    Blocks,
}

/// Everything the component has to be told.
#[derive(Debug, Clone)]
pub struct PrometheusOptions {
    pub http: HttpOptions,
    /// The server's `--storage.tsdb.path` as this host sees it; `None`: as the server says.
    pub data_dir: Option<PathBuf>,
    /// Files and directories to save with it; `None`: those the server's configuration names.
    pub config_paths: Option<Vec<PathBuf>>,
    pub method: Method,
    /// Directory with `prometheus` and `promtool`, for the check after a restore.
    pub bin_dir: Option<PathBuf>,
}

impl PrometheusOptions {
    /// The options for a server at this URL, everything else as usual.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            http: HttpOptions { url: url.into(), login: Login::None, ca_file: None },
            data_dir: None,
            config_paths: None,
            method: Method::Auto,
            bin_dir: None,
        }
    }
}
