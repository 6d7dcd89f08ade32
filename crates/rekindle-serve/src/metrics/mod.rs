//! Metrics: every name in one place ([`names`]), one text for `/metrics` and for the textfile.

pub mod names;
mod text;

pub use text::{Format, render};

use std::path::Path;

use rekindle_core::objective::Objective;
use rekindle_core::schedule::{Agenda, Job};
use rekindle_core::{ComponentId, Fault, Result, codes};

use crate::journal::{JobRecord, Totals};
use crate::streams::StreamState;
use crate::view::View;

/// Everything the metrics say.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub stack: String,
    pub version: String,
    pub jobs: Vec<JobState>,
    pub agenda: Agenda,
    pub objectives: Vec<(ComponentId, Objective)>,
    pub view: View,
    pub totals: Totals,
    pub streams: Vec<StreamState>,
    /// Names of those who are told.
    pub receivers: Vec<String>,
    pub parcels_waiting: i64,
    /// Seconds since 1970 when this was put together.
    pub now: jiff::Timestamp,
}

/// A job and its newest runs.
#[derive(Debug, Clone)]
pub struct JobState {
    pub job: Job,
    pub running: bool,
    pub newest: Option<JobRecord>,
    pub newest_run_good: Option<JobRecord>,
    /// The moment the newest good result stands for.
    pub newest_good: Option<jiff::Timestamp>,
}

/// Writes the textfile for the node exporter: whole or not at all.
pub fn write_textfile(path: &Path, text: &str) -> Result<()> {
    let failed = |error: std::io::Error| {
        Fault::new(codes::SERVE_TEXTFILE, format!("write the metrics to {}", path.display()))
            .because(error)
            .hint("make its directory and let this user write to it, or remove `textfile` from [serve]")
    };
    let mut beside = path.as_os_str().to_owned();
    // The node exporter reads `*.prom` only.
    beside.push(format!(".{}.new", std::process::id()));
    std::fs::write(&beside, text).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
