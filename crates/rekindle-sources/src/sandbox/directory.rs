//! The sandbox of what is restored into a directory: files, Prometheus, Grafana. Their ordinary check
//! starts the engine itself (Prometheus) or opens the data (SQLite).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::{Component, Finding, PartReader, RestoreReport, RunContext, Target};
use rekindle_core::sandbox::{Opened, Proved, Sandbox};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

use super::{Checks, Site};

/// A directory, and the adapter that restores into it.
pub struct DirectorySandbox {
    site: Arc<Site>,
    component: Arc<dyn Component>,
    checks: Checks,
    place: Mutex<Option<PathBuf>>,
}

impl std::fmt::Debug for DirectorySandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectorySandbox").field("component", self.component.id()).finish_non_exhaustive()
    }
}

impl DirectorySandbox {
    /// A sandbox for this adapter; nothing is made yet.
    pub fn new(site: Arc<Site>, component: Arc<dyn Component>, checks: Checks) -> Self {
        Self { site, component, checks, place: Mutex::default() }
    }

    fn place(&self) -> Option<PathBuf> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn data(place: &Path) -> PathBuf {
    place.join("data")
}

#[async_trait]
impl Sandbox for DirectorySandbox {
    fn component(&self) -> &ComponentId {
        self.component.id()
    }

    async fn open(&self, record: &ComponentRecord, _context: &RunContext) -> Result<Opened> {
        self.site.ensure_room(record.tally.bytes)?;
        let place = self.site.place()?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
        let target = Target::New(Some(data(&place).to_string_lossy().into_owned()));
        Ok(Opened { component: Arc::clone(&self.component), target, engine: None })
    }

    async fn start(&self, record: &ComponentRecord, _: &RestoreReport, _: &RunContext) -> Result<Proved> {
        let version = record.details.get("server_version").and_then(serde_json::Value::as_str);
        let engine = match record.kind {
            ComponentKind::Prometheus => version.map(|version| format!("Prometheus (captured from {version})")),
            ComponentKind::Grafana => Some(format!("SQLite {}", rusqlite::version())),
            ComponentKind::Files | ComponentKind::Postgres | ComponentKind::Redis => None,
        };
        Ok(Proved { engine, ..Proved::default() })
    }

    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        _report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let Some(place) = self.place() else {
            return Err(Fault::new(codes::RUN_BUG, "look into a sandbox that is not open"));
        };
        let (site, checks, context) = (Arc::clone(&self.site), self.checks.clone(), context.clone());
        let kind = self.component.kind();
        let looked = tokio::task::spawn_blocking(move || {
            let data = data(&place);
            let mut findings = Vec::new();
            if kind == ComponentKind::Files {
                findings.push(crate::files::every_byte(&*part, &data, &context)?);
            }
            let variables = [("REKINDLE_PLACE", OsString::from(&data))];
            findings.extend(checks.run(&site, &place, &variables, &context.cancel)?);
            Ok(findings)
        });
        looked.await.map_err(|error| Fault::new(codes::RUN_BUG, "look into a sandbox").because(error))?
    }

    async fn way_in(&self, _report: &RestoreReport, _context: &RunContext) -> Result<Option<String>> {
        Ok(self.place().map(|place| data(&place).display().to_string()))
    }

    fn within_limits(&self) -> Result<()> {
        self.site.within_limits()
    }

    fn close(&self) -> Result<()> {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        place.map_or(Ok(()), |place| self.site.clear(&place))
    }
}
