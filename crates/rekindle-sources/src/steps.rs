//! How long the steps of a restore take.

use std::time::Instant;

use rekindle_core::port::Step;

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
