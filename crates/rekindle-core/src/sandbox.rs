//! The port of a sandbox: a throw-away place that an ordinary restore goes to, with the real engine
//! started on what came back.

use std::sync::Arc;

use async_trait::async_trait;

use crate::fault::Result;
use crate::id::ComponentId;
use crate::manifest::ComponentRecord;
use crate::port::{Component, Finding, PartReader, RestoreReport, RunContext, Target};

/// A place that is ready for the ordinary restore.
pub struct Opened {
    /// The adapter of the component's kind, pointed at the sandbox and at nothing else.
    pub component: Arc<dyn Component>,
    /// Where it restores to.
    pub target: Target,
    /// Name and version of the engine, when it runs already.
    pub engine: Option<String>,
}

/// What the engine said about the restored data.
#[derive(Debug, Clone, Default)]
pub struct Proved {
    /// Name and version of the engine.
    pub engine: Option<String>,
    /// How long the engine took until the restored data was usable, in milliseconds.
    pub ready_ms: u64,
    pub findings: Vec<Finding>,
}

/// A sandbox for one component of one point.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Which component it is for.
    fn component(&self) -> &ComponentId;
    /// Makes the place, and starts the engine when the restore needs it to run. An engine or a place
    /// that is not to be had is `DRILL_NO_ENGINE` or `DRILL_SPACE`: this says nothing about the data.
    async fn open(&self, record: &ComponentRecord, context: &RunContext) -> Result<Opened>;
    /// Starts the engine on the restored data, when it does not run yet.
    async fn start(&self, record: &ComponentRecord, report: &RestoreReport, context: &RunContext) -> Result<Proved>;
    /// Looks at the restored data with the engine: built-in checks, then the user's.
    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>>;
    /// Makes what was restored read-only, and gives the way in for people; `None` when there is none.
    async fn way_in(&self, report: &RestoreReport, context: &RunContext) -> Result<Option<String>>;
    /// An error when the sandbox has outgrown its limits. Blocking.
    fn within_limits(&self) -> Result<()>;
    /// Ends every process of this sandbox and removes its files. Never hangs; may be called twice.
    /// Blocking.
    fn close(&self) -> Result<()>;
}
