//! Redis and Valkey: capture over the replication protocol, restore into a data directory or
//! key by key, check.

mod capture;
mod check;
mod client;
mod details;
mod facts;
mod options;
mod probe;
mod rdb;
mod restore;
mod sandbox;
mod surroundings;
mod sync;
mod transport;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, Secret, codes};

pub use details::{FileNames, RedisDetails};
pub use options::RedisOptions;
pub use rdb::summary::{DatabaseCount, RdbSummary};
pub use sandbox::RedisSandbox;

/// A Redis or Valkey server.
#[derive(Debug, Clone)]
pub struct RedisComponent {
    id: ComponentId,
    options: Arc<RedisOptions>,
    /// The other server a restore went to, with its credentials, for the check after it.
    restored_to: Arc<Mutex<Option<Secret<String>>>>,
}

impl RedisComponent {
    /// A component with this name; nothing is connected yet.
    pub fn new(id: ComponentId, options: RedisOptions) -> Self {
        Self { id, options: Arc::new(options), restored_to: Arc::default() }
    }

    /// Runs blocking work beside the async world.
    async fn blocking<T: Send + 'static>(
        &self,
        context: &RunContext,
        work: impl FnOnce(&Self, &RunContext) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (this, context) = (self.clone(), context.clone());
        tokio::task::spawn_blocking(move || work(&this, &context))
            .await
            .map_err(|error| Fault::new(codes::RUN_BUG, "work with Redis").because(error))?
    }
}

#[async_trait]
impl Component for RedisComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Redis
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        self.blocking(context, |this, context| probe::probe(&this.options, context)).await
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        let capture = self
            .blocking(context, |this, context| {
                capture::RedisCapture::begin(&this.id, &this.options, context)
                    .map_err(|fault| fault.during(format!("begin the capture of `{}`", this.id)))
            })
            .await?;
        Ok(Box::new(capture))
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let request = request.clone();
        if !request.select.is_empty() {
            return Err(Fault::new(codes::ENGINE_TARGET, format!("restore parts of `{}`", self.id))
                .because("a Redis is restored as a whole")
                .hint("leave the selection out, or read single files with `rekindle cat`"));
        }
        self.blocking(context, move |this, context| {
            let restored = match request.target {
                Target::Live => {
                    let server = request.server.clone().map(Secret::new);
                    *this.restored_to.lock().unwrap_or_else(PoisonError::into_inner) = server;
                    restore::live::restore(&this.id, &this.options, &*part, &request, context)
                }
                Target::New(_) | Target::InPlace { .. } => {
                    restore::directory::restore(&this.id, &this.options, &*part, &request, context)
                }
            };
            restored.map_err(|fault| fault.during(format!("restore `{}`", this.id)))
        })
        .await
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let report = report.clone();
        self.blocking(context, move |this, context| {
            let server = this.restored_to.lock();
            let server = server.unwrap_or_else(PoisonError::into_inner).clone();
            let server = server.as_ref().map(|url| url.expose().as_str());
            check::check(&this.options, server, &*part, &report, context)
                .map_err(|fault| fault.during(format!("check `{}`", this.id)))
        })
        .await
    }

    /// Without a data directory, the running server.
    fn home(&self) -> Target {
        match &self.options.data_dir {
            Some(_) => Target::InPlace { discard_old: false },
            None => Target::Live,
        }
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, context: &RunContext) -> Result<Option<String>> {
        self.blocking(context, move |this, context| match &this.options.data_dir {
            Some(_) => restore::directory::occupied(&this.id, &this.options, &*part),
            None => restore::live::occupied(&this.options, &context.cancel),
        })
        .await
    }

    async fn roll_back(&self, report: &RestoreReport, context: &RunContext) -> Result<()> {
        let report = report.clone();
        self.blocking(context, move |this, _| {
            restore::roll_back::roll_back(&report).map_err(|fault| fault.during(format!("roll back `{}`", this.id)))
        })
        .await
    }
}
