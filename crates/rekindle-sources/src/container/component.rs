//! A component whose server runs in a container: the usual adapter, told what an inspection of the
//! container found.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result};

use super::engine::Engine;
use super::inspect::Container;

/// Makes the adapter: with what was found, or without, for a restore to a new place where the container
/// is not there any more.
pub type Build = Arc<dyn Fn(Option<&Container>, Use) -> Result<Arc<dyn Component>> + Send + Sync>;

/// What an adapter is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Capture,
    /// Also for looking at what a restore would need.
    Restore,
}

/// A component in a container.
pub struct Contained {
    id: ComponentId,
    kind: ComponentKind,
    engine: Engine,
    container: String,
    build: Build,
    /// The adapter of a restore: it knows things that its check needs.
    restored: Mutex<Option<Arc<dyn Component>>>,
}

impl fmt::Debug for Contained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contained").field("id", &self.id).field("container", &self.container).finish_non_exhaustive()
    }
}

impl Contained {
    /// A component in the container of this name; nothing is asked yet.
    pub fn new(id: ComponentId, kind: ComponentKind, engine: Engine, container: String, build: Build) -> Self {
        Self { id, kind, engine, container, build, restored: Mutex::default() }
    }

    /// Whether its server has to answer for a capture.
    fn needs_server(&self) -> bool {
        match self.kind {
            ComponentKind::Postgres | ComponentKind::Redis | ComponentKind::Prometheus => true,
            ComponentKind::Grafana | ComponentKind::Files => false,
        }
    }

    fn named(&self, doing: &str) -> String {
        format!("{doing} of `{}` in the container `{}`", self.id, self.container)
    }

    async fn found(&self) -> Result<Arc<dyn Component>> {
        let container = self.engine.container(&self.container).await?;
        if self.needs_server() {
            container.running()?;
        }
        (self.build)(Some(&container), Use::Capture)
    }

    async fn for_restore(&self, target: &Target) -> Result<Arc<dyn Component>> {
        let new_place = matches!(target, Target::New(_)) && self.kind != ComponentKind::Postgres;
        match self.engine.container(&self.container).await {
            Ok(container) => (self.build)(Some(&container), Use::Restore),
            // A new place needs neither the container nor its volumes.
            Err(_) if new_place => (self.build)(None, Use::Restore),
            Err(fault) => Err(fault),
        }
    }

    fn keep(&self, component: Arc<dyn Component>) {
        *self.restored.lock().unwrap_or_else(PoisonError::into_inner) = Some(component);
    }

    async fn kept(&self) -> Result<Arc<dyn Component>> {
        let kept = self.restored.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match kept {
            Some(component) => Ok(component),
            None => self.for_restore(&Target::InPlace { discard_old: false }).await,
        }
    }
}

#[async_trait]
impl Component for Contained {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        self.kind
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        context.cancel.check()?;
        let container = match self.engine.container(&self.container).await {
            Ok(container) => container,
            Err(fault) => return Ok(vec![bad(&fault)]),
        };
        let mut findings = vec![match container.running() {
            Ok(()) => Finding::good(format!("the container `{}` ({}) runs", self.container, container.image)),
            Err(fault) => bad(&fault),
        }];
        findings.extend(image(&self.engine, &container).await?);
        if self.needs_server() && !container.state.running {
            return Ok(findings);
        }
        match (self.build)(Some(&container), Use::Restore) {
            Ok(component) => findings.extend(component.probe(context).await?),
            Err(fault) => findings.push(bad(&fault)),
        }
        Ok(findings)
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        let frame = |fault: Fault| fault.during(self.named("begin backup"));
        self.found().await.map_err(frame)?.begin(context).await.map_err(frame)
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let component = self.for_restore(&request.target).await.map_err(|fault| fault.during(self.named("restore")))?;
        self.keep(Arc::clone(&component));
        component.restore(part, request, context).await
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.kept().await?.check(part, report, context).await
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, context: &RunContext) -> Result<Option<String>> {
        let component =
            self.for_restore(&self.home()).await.map_err(|fault| fault.during(self.named("look at the place")))?;
        component.occupied(part, context).await
    }

    async fn roll_back(&self, report: &RestoreReport, context: &RunContext) -> Result<()> {
        self.kept().await?.roll_back(report, context).await
    }
}

/// A container outlives its image only until somebody makes it again.
pub(super) async fn image(engine: &Engine, container: &Container) -> Result<Option<Finding>> {
    if container.image_id.is_empty() || engine.has_image(&container.image_id).await? {
        return Ok(None);
    }
    Ok(Some(Finding::bad(
        format!("the image `{}` of the container `{}` is not here any more", container.image, container.name),
        format!(
            "`docker pull {}`: without it the container cannot be made again; the digest is in the point",
            container.image
        ),
    )))
}

pub(super) fn bad(fault: &Fault) -> Finding {
    let remedy = fault.hint_text().unwrap_or("see the error").to_owned();
    Finding::bad(format!("[{}] {}", fault.code().id, fault.chain()), remedy)
}
