//! Bringing a captured Redis back: into a data directory, or key by key into a running server.

pub(crate) mod directory;
pub(crate) mod install;
pub(crate) mod live;
pub(crate) mod source;

use std::time::Instant;

use rekindle_core::port::Step;

/// What a restore leaves to the operator, told with each.
pub(crate) const NOT_APPLIED: &str =
    "configuration and ACL users are in the point (`config.json`, `acl.txt`), not applied";

/// Measures the steps of a restore.
#[derive(Debug)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    since: Instant,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new(), since: Instant::now() }
    }

    /// The step that has just ended.
    pub(crate) fn done(&mut self, name: &str) {
        let elapsed = self.since.elapsed().as_millis();
        self.steps.push(Step { name: name.to_owned(), elapsed_ms: u64::try_from(elapsed).unwrap_or(u64::MAX) });
        self.since = Instant::now();
    }

    pub(crate) fn into_vec(self) -> Vec<Step> {
        self.steps
    }
}
