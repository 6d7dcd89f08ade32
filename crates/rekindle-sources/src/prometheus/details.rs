//! The component's own record in the manifest.

use std::path::PathBuf;

use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

/// Version of [`PrometheusDetails`] that is written, and the newest one that is read.
pub(super) const DETAILS_VERSION: u32 = 1;

/// What the manifest says about a captured Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrometheusDetails {
    pub version: u32,
    pub server_version: String,
    /// `snapshot`, or `blocks` when only the immutable blocks were taken.
    pub method: String,
    /// The data directory on the captured host.
    pub data_dir: PathBuf,
    /// As the server says it: `15d`, `15d or 10GiB`.
    pub retention: String,
    /// Milliseconds since 1970 of the first sample, and of the moment after the last one.
    pub min_time: Option<i64>,
    pub max_time: Option<i64>,
    /// Sums over the blocks; a series counts once in each block it is in.
    pub samples: u64,
    pub series: u64,
    pub blocks: Vec<BlockFacts>,
    /// Series of the head that are not in the point (`method` is `blocks`).
    pub head_series_left_out: u64,
    /// Configuration files that are in the part, by their full path.
    pub files: Vec<PathBuf>,
}

/// One block, as its `meta.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFacts {
    pub ulid: String,
    pub min_time: i64,
    /// Not included.
    pub max_time: i64,
    pub samples: u64,
    pub series: u64,
    pub chunks: u64,
    pub tombstones: u64,
    /// How often it was compacted.
    pub level: u32,
    pub bytes: u64,
}

impl PrometheusDetails {
    /// Reads the record of a manifest.
    pub(super) fn decode(value: &serde_json::Value) -> Result<Self> {
        let too_new = value.get("version").and_then(serde_json::Value::as_u64) > Some(u64::from(DETAILS_VERSION));
        serde_json::from_value(value.clone()).ok().filter(|_| !too_new).ok_or_else(|| {
            Fault::new(codes::REPO_MANIFEST, "read what the manifest says about Prometheus")
                .because(if too_new { "a newer rekindle wrote it" } else { "it is not as expected" })
                .hint("use a newer rekindle, or restore the files with `rekindle cat`")
        })
    }
}
