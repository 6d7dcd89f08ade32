//! Grafana: its SQLite database by the online backup API, its configuration, provisioning and
//! plugins; restore and check of the database file.
//!
//! In a part: `grafana.db`; `files/` with everything else under its full path; `grafana.json` with what
//! was found out; `secret-key` when the configuration names one; `api/` with a readable export when
//! the server's API is configured.

mod capture;
mod check;
mod database;
mod details;
mod export;
mod ini;
mod options;
mod probe;
mod restore;
mod roll_back;
mod secrets;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

pub use details::{GrafanaDetails, KeyState};
pub use options::GrafanaOptions;

/// A Grafana.
#[derive(Debug, Clone)]
pub struct GrafanaComponent {
    id: ComponentId,
    options: Arc<GrafanaOptions>,
}

impl GrafanaComponent {
    /// A component with this name; nothing is opened yet.
    pub fn new(id: ComponentId, options: GrafanaOptions) -> Self {
        Self { id, options: Arc::new(options) }
    }
}

/// Runs something that waits for the file system away from the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::new(codes::RUN_BUG, "work on the files of Grafana").because(error))?
}

#[async_trait]
impl Component for GrafanaComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Grafana
    }

    async fn probe(&self, _context: &RunContext) -> Result<Vec<Finding>> {
        probe::probe(&self.options).await
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        match capture::GrafanaCapture::begin(&self.id, &self.options, context).await {
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
        let (this, request, context) = (self.clone(), request.clone(), context.clone());
        blocking(move || restore::restore(&this.id, &this.options, &*part, &request, &context))
            .await
            .map_err(|fault| fault.during(format!("restore `{}`", self.id)))
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        _context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let report = report.clone();
        blocking(move || check::check(&*part, &report))
            .await
            .map_err(|fault| fault.during(format!("check `{}`", self.id)))
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, _context: &RunContext) -> Result<Option<String>> {
        let this = self.clone();
        blocking(move || restore::occupied(&this.id, &this.options, &part.record().details, &crate::home::request()?))
            .await
    }

    async fn roll_back(&self, report: &RestoreReport, _context: &RunContext) -> Result<()> {
        let report = report.clone();
        blocking(move || roll_back::roll_back(&report))
            .await
            .map_err(|fault| fault.during(format!("roll back `{}`", self.id)))
    }
}
