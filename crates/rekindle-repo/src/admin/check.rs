//! A second opinion: the engine's own check of indexes, packs and trees.

use std::sync::Arc;

use rekindle_core::Result;
use rustic_core::CheckOptions;
use serde::Serialize;

use super::backend::Traffic;
use super::{engine, run};
use crate::repo::Repo;

/// What the engine found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Things that are wrong, in its words.
    pub errors: Vec<String>,
    /// Things that are odd.
    pub warnings: Vec<String>,
}

/// Lets `rustic_core` check the metadata of the repository. [`verify`](crate::verify) is the
/// first opinion and sees more; two programs that agree are worth more than one.
pub fn check(repo: &Repo) -> Result<CheckReport> {
    let what = "check the repository with the second engine";
    let outcome = run::run(what, || {
        let engine = engine::open(repo, &Arc::new(Traffic::default()))?;
        engine.check(CheckOptions::default()).map_err(|e| run::fault(what, e))
    })?;
    let mut report = CheckReport::default();
    for (level, error) in &outcome.value.0 {
        let text = error.to_string();
        if format!("{level:?}").eq_ignore_ascii_case("warn") {
            report.warnings.push(text);
        } else {
            report.errors.push(text);
        }
    }
    Ok(report)
}
