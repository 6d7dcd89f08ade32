//! One component of a backup: hooks, begin, store, finish, join.

use std::sync::{Arc, Mutex, PoisonError};

use rekindle_core::port::{Capture, HookRunner, Monitor, Previous, Reuse, RunContext, WriteSession};
use rekindle_core::proof::{Part, StoredPart};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use tokio::sync::oneshot;

use crate::hooks::{self, HookContext};
use crate::plan::Planned;
use crate::report::Problem;

/// What became of one component.
pub(crate) struct Outcome {
    pub(crate) id: ComponentId,
    pub(crate) kind: ComponentKind,
    pub(crate) result: Result<Part>,
    pub(crate) elapsed_ms: u64,
    /// After and on-error hooks that failed.
    pub(crate) hook_faults: Vec<Fault>,
    /// What the capture told without failing of it.
    pub(crate) told: Vec<Problem>,
}

/// Passes everything on and remembers the problems, so that they stand in the report too.
struct Remembering {
    inner: Arc<dyn Monitor>,
    told: Mutex<Vec<Problem>>,
}

impl Monitor for Remembering {
    fn phase(&self, scope: &str, phase: &str) {
        self.inner.phase(scope, phase);
    }

    fn expect(&self, scope: &str, entries: Option<u64>, bytes: Option<u64>) {
        self.inner.expect(scope, entries, bytes);
    }

    fn advance(&self, scope: &str, entries: u64, bytes: u64) {
        self.inner.advance(scope, entries, bytes);
    }

    fn problem(&self, scope: &str, fault: &Fault) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(Problem::from(fault));
        self.inner.problem(scope, fault);
    }
}

/// What one component needs from its run.
pub(crate) struct Job {
    pub(crate) planned: Planned,
    pub(crate) session: Arc<dyn WriteSession>,
    pub(crate) runner: Arc<dyn HookRunner>,
    /// The newest capture that may be built on.
    pub(crate) previous: Option<Previous>,
    pub(crate) context: RunContext,
    pub(crate) stack: String,
    /// Told (or dropped) once the component's moment is fixed or will never be.
    pub(crate) begun: oneshot::Sender<()>,
}

/// Runs one component to its end. Never panics through: a panicking adapter is an error.
pub(crate) async fn run(mut job: Job) -> Outcome {
    let started = job.context.clock.now();
    let component = Arc::clone(&job.planned.component);
    let (id, kind) = (component.id().clone(), component.kind());
    let hook_context =
        HookContext { run: job.context.run.clone(), stack: job.stack.clone(), component: Some(id.clone()) };
    let hooks = job.planned.hooks.clone();
    let (runner, context) = (Arc::clone(&job.runner), job.context.clone());
    let remembering = Arc::new(Remembering { inner: Arc::clone(&context.monitor), told: Mutex::default() });
    job.context.monitor = Arc::<Remembering>::clone(&remembering) as _;
    let result = match hooks::before(&*runner, &hooks.before, &hook_context, &context.cancel).await {
        Ok(()) => capture(job).await,
        Err(fault) => Err(fault),
    };
    let result = result.map_err(|fault| named(fault, "back up", kind, &id));
    let error = result.as_ref().err();
    if let Some(fault) = error {
        context.monitor.problem(id.as_str(), fault);
    }
    let hook_faults = hooks::closing(&*runner, &hooks.on_error, &hooks.after, &hook_context, error).await;
    let elapsed = context.clock.now().duration_since(started).as_millis();
    let told = std::mem::take(&mut *remembering.told.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome { id, kind, result, elapsed_ms: u64::try_from(elapsed).unwrap_or(0), hook_faults, told }
}

async fn capture(job: Job) -> Result<Part> {
    let Job { planned, session, previous, context, begun, .. } = job;
    let component = planned.component;
    let id = component.id().clone();
    context.cancel.check()?;
    context.monitor.phase(id.as_str(), "begin");
    let reuse = previous.as_ref().map_or(Reuse::Nothing, |previous| Reuse::Tree(previous.record.tree.clone()));
    let mut capture = component.begin_after(previous, &context).await?;
    // Nobody waits any more when the run was given up; that is not this component's concern.
    let _ = begun.send(());
    context.monitor.phase(id.as_str(), "store");
    let (shape, entries) = (capture.shape(), capture.entries());
    let stored = on_thread(id.clone(), move |id| session.store_shaped(id, entries, reuse, shape)).await;
    match stored {
        Ok(holds) => join(capture, holds).await,
        Err(fault) => {
            capture.abort().await;
            Err(fault)
        }
    }
}

async fn join(capture: Box<dyn Capture>, holds: StoredPart) -> Result<Part> {
    let gave = capture.finish().await?;
    Part::join(gave, holds).map_err(|mismatch| {
        Fault::new(codes::ENGINE_MISMATCH, "compare what the source gave with what the repository holds")
            .because(mismatch)
            .hint("run the backup again; if it happens twice, report it as a bug")
    })
}

/// Runs blocking work on a thread of its own: a store may take hours, and the async runtime's
/// blocking threads are for short things.
async fn on_thread(
    id: ComponentId,
    work: impl FnOnce(&ComponentId) -> Result<StoredPart> + Send + 'static,
) -> Result<StoredPart> {
    let (sender, receiver) = oneshot::channel();
    let name = format!("store-{id}");
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        let _ = sender.send(work(&id));
    });
    if let Err(error) = spawned {
        return Err(Fault::new(codes::ENGINE_STATE, "start a thread for a component").because(error));
    }
    // The sender is dropped without a value only when the thread panicked.
    receiver.await.unwrap_or_else(|_| {
        Err(Fault::new(codes::RUN_BUG, "store the component: its thread panicked")
            .hint("report this as a bug, with the log of the run"))
    })
}

/// Puts verb, kind and name around an error that does not say yet which component it is about.
pub(crate) fn named(fault: Fault, verb: &str, kind: ComponentKind, id: &ComponentId) -> Fault {
    if fault.what().contains(&format!("`{id}`")) { fault } else { fault.during(format!("{verb} {kind} `{id}`")) }
}
