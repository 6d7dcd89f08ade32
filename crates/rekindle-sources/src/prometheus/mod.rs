//! Prometheus: capture through its snapshot API (or of the immutable blocks, when that is off),
//! restore of the blocks into a data directory, check by a real Prometheus.
//!
//! In a part the blocks stand below `blocks/`, configuration, rules and discovery files below
//! `files/` under their full path, and what the server said about itself in `server.json` and
//! `server-config.yml`.

mod blocks;
mod capture;
mod check;
mod config_files;
mod details;
mod engine;
mod glob;
mod options;
mod probe;
mod restore;
mod retention;
mod server;
mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

pub use details::{BlockFacts, PrometheusDetails};
pub use options::{Method, PrometheusOptions};

/// A Prometheus server.
#[derive(Debug, Clone)]
pub struct PrometheusComponent {
    id: ComponentId,
    options: Arc<PrometheusOptions>,
}

impl PrometheusComponent {
    /// A component with this name; nothing is connected yet.
    pub fn new(id: ComponentId, options: PrometheusOptions) -> Self {
        Self { id, options: Arc::new(options) }
    }
}

/// Runs something that waits for the file system away from the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::new(codes::RUN_BUG, "work on the files of Prometheus").because(error))?
}

#[async_trait]
impl Component for PrometheusComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Prometheus
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        probe::probe(&self.options, context).await
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        let begun = capture::PrometheusCapture::begin(&self.id, &self.options, context).await;
        match begun {
            Ok(capture) => Ok(Box::new(capture)),
            Err(fault) => Err(fault.during(format!("begin the capture of `{}`", self.id))),
        }
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        restore::restore(&self.id, &self.options, part, request, context)
            .await
            .map_err(|fault| fault.during(format!("restore `{}`", self.id)))
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        check::check(&self.options, part, report, context)
            .await
            .map_err(|fault| fault.during(format!("check `{}`", self.id)))
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, _context: &RunContext) -> Result<Option<String>> {
        let this = self.clone();
        blocking(move || restore::occupied(&this.id, &this.options, &part.record().details, &crate::home::request()?))
            .await
    }

    async fn roll_back(&self, report: &RestoreReport, _context: &RunContext) -> Result<()> {
        restore::roll_back(&self.options, report)
            .await
            .map_err(|fault| fault.during(format!("roll back `{}`", self.id)))
    }
}
