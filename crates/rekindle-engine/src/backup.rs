//! Backing up: every planned component into one recovery point.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::manifest::Completeness;
use rekindle_core::point::{Attachment, Draft, RecoveryPoint};
use rekindle_core::port::{HookRunner, Previous, Repository, RunContext, WriteSession};
use rekindle_core::proof::Part;
use rekindle_core::{ComponentId, Fault, Result, codes};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::component_run::{self, Job, Outcome};
use crate::hooks::{self, HookContext};
use crate::plan::{BackupPlan, Planned, stage};
use crate::report::{BackupReport, ComponentReport, Problem};
use crate::tripwire::Tripwire;

/// Choices of one run.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Read every file, also those that look unchanged.
    pub read_all: bool,
    /// Greatest wanted distance between the components' moments.
    pub max_skew: Option<Duration>,
    /// How captures are compared with earlier ones; `None`: they are not.
    pub tripwire: Option<Tripwire>,
    /// Files to store beside the manifest.
    pub attachments: Vec<Attachment>,
    /// Words for retention.
    pub tags: Vec<String>,
}

/// Runs a plan: one new recovery point, or an error and none.
///
/// A component that fails is missing from the point, which is then partial. The error of a run
/// without any captured component is that of its first component.
pub async fn backup(
    plan: BackupPlan,
    repository: Arc<dyn Repository>,
    runner: Arc<dyn HookRunner>,
    options: &BackupOptions,
    context: &RunContext,
) -> Result<BackupReport> {
    let hook_context = HookContext { run: context.run.clone(), stack: plan.stack.clone(), component: None };
    let run_hooks = plan.hooks.clone();
    let result = match hooks::before(&*runner, &run_hooks.before, &hook_context, &context.cancel).await {
        Ok(()) => work(plan, repository, Arc::clone(&runner), options, context).await,
        Err(fault) => Err(fault),
    };
    let partial = result.as_ref().ok().and_then(partial_fault);
    let error = result.as_ref().err().or(partial.as_ref());
    let failed = hooks::closing(&*runner, &run_hooks.on_error, &run_hooks.after, &hook_context, error).await;
    for fault in &failed {
        context.monitor.problem("run", fault);
    }
    result.map(|mut report| {
        report.problems.extend(failed.iter().map(Problem::from));
        report
    })
}

fn partial_fault(report: &BackupReport) -> Option<Fault> {
    let missing = report.components.iter().filter(|component| component.problem.is_some());
    let names: Vec<&str> = missing.map(|component| component.component.as_str()).collect();
    (report.state == Completeness::Partial).then(|| {
        let what = if names.is_empty() { "some entries".to_owned() } else { names.join(", ") };
        Fault::new(codes::ENGINE_PARTIAL, format!("back up the whole stack: missing {what}"))
    })
}

async fn work(
    plan: BackupPlan,
    repository: Arc<dyn Repository>,
    runner: Arc<dyn HookRunner>,
    options: &BackupOptions,
    context: &RunContext,
) -> Result<BackupReport> {
    let started = context.clock.now();
    let (session, points, previous) = open_session(repository, &plan, options, context).await?;
    let mut draft = Draft::new(plan.stack.clone(), plan.host.clone(), context.run.clone(), started);
    draft.tag(&options.tags);
    let outcomes = run_components(&plan, &session, &runner, previous, context).await;
    let (mut reports, mut first, mut hook_faults, mut told) = (Vec::new(), None, Vec::new(), Vec::new());
    for outcome in outcomes {
        reports.push(component_report(&outcome));
        told.extend(outcome.told);
        hook_faults.extend(outcome.hook_faults);
        match outcome.result {
            Ok(part) => draft.add(part),
            Err(fault) => {
                draft.missing(outcome.id, outcome.kind, &fault);
                first.get_or_insert(fault);
            }
        }
    }
    for attachment in &options.attachments {
        draft.attach(attachment.clone());
    }
    if let Some(tripwire) = &options.tripwire {
        draft.suspect(tripwire.judge(&draft.records(), &points, &plan.stack, &plan.host));
    }
    let point = finish(session, draft, first, context).await?;
    for fault in &hook_faults {
        context.monitor.problem("hooks", fault);
    }
    told.extend(hook_faults.iter().map(Problem::from));
    Ok(report(&point, plan.stack, reports, told, options, context))
}

async fn open_session(
    repository: Arc<dyn Repository>,
    plan: &BackupPlan,
    options: &BackupOptions,
    context: &RunContext,
) -> Result<(Arc<dyn WriteSession>, Vec<RecoveryPoint>, BTreeMap<ComponentId, Previous>)> {
    context.monitor.phase("repository", "open");
    let (stack, host, read_all) = (plan.stack.clone(), plan.host.clone(), options.read_all);
    let context = context.clone();
    blocking(move || {
        let session = repository.begin(&context)?;
        // Read even when nothing is reused: they say whose repository this is.
        let points = repository.points().inspect_err(|_| session.abandon())?;
        alone_or_safe(&points, repository.as_ref(), &host).inspect_err(|_| session.abandon())?;
        let previous = if read_all { BTreeMap::new() } else { reusable(&points, &repository, &stack, &host) };
        Ok((session, points, previous))
    })
    .await
}

/// Several hosts in one repository need a storage that keeps them from writing over each other's records.
fn alone_or_safe(points: &[RecoveryPoint], repository: &dyn Repository, host: &str) -> Result<()> {
    let Some(other) = points.iter().map(|point| &point.manifest().host).find(|other| *other != host) else {
        return Ok(());
    };
    if repository.may_be_shared()? {
        return Ok(());
    }
    Err(Fault::new(codes::REPO_UNFIT_STORE, format!("write a point of `{host}` into a repository of `{other}`"))
        .because("the storage has no put-if-absent: two hosts could write over each other's records unnoticed")
        .hint("give each host a repository of its own; if it is the same host under a new name, set `host` in [stack]"))
}

/// The newest capture without loss of each component, of this stack and host.
fn reusable(
    points: &[RecoveryPoint],
    repository: &Arc<dyn Repository>,
    stack: &str,
    host: &str,
) -> BTreeMap<ComponentId, Previous> {
    let mine = points.iter().filter(|point| point.manifest().stack == stack && point.manifest().host == host);
    let records = mine.flat_map(|point| point.manifest().components.iter().map(move |record| (point.id(), record)));
    // Points come oldest first, so the newest record of a component stays.
    records
        .filter(|(_, record)| !record.notes.make_partial())
        .map(|(point, record)| {
            let previous =
                Previous { point: point.clone(), record: record.clone(), repository: Arc::clone(repository) };
            (record.id.clone(), previous)
        })
        .collect()
}

/// Starts the components stage by stage: a stage starts once all of the one before have begun, so
/// that files are read after the databases fixed their moment. Gives outcomes in plan order.
async fn run_components(
    plan: &BackupPlan,
    session: &Arc<dyn WriteSession>,
    runner: &Arc<dyn HookRunner>,
    mut previous: BTreeMap<ComponentId, Previous>,
    context: &RunContext,
) -> Vec<Outcome> {
    let mut running = JoinSet::new();
    let mut waiting: Vec<oneshot::Receiver<()>> = Vec::new();
    let mut current = None;
    for planned in &plan.components {
        let this = stage(planned.component.kind());
        if current.is_some_and(|before| before != this) {
            for begun in waiting.drain(..) {
                // An error means it will never begin: the next stage need not wait for it.
                let _ = begun.await;
            }
        }
        current = Some(this);
        let (begun, wait) = oneshot::channel();
        waiting.push(wait);
        let job = Job {
            planned: Planned::clone(planned),
            session: Arc::clone(session),
            runner: Arc::clone(runner),
            previous: previous.remove(planned.component.id()),
            context: context.clone(),
            stack: plan.stack.clone(),
            begun,
        };
        running.spawn(component_run::run(job));
    }
    let mut outcomes = collect(running, plan).await;
    let position = |id: &ComponentId| plan.components.iter().position(|planned| planned.component.id() == id);
    outcomes.sort_by_key(|outcome| position(&outcome.id));
    outcomes
}

async fn collect(mut running: JoinSet<Outcome>, plan: &BackupPlan) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(plan.components.len());
    while let Some(joined) = running.join_next().await {
        outcomes.extend(joined.ok());
    }
    // A task that panicked gave no outcome; its component must not be forgotten.
    for planned in &plan.components {
        if !outcomes.iter().any(|outcome| &outcome.id == planned.component.id()) {
            outcomes.push(Outcome {
                id: planned.component.id().clone(),
                kind: planned.component.kind(),
                result: Err(Fault::new(codes::RUN_BUG, format!("back up `{}`: it panicked", planned.component.id()))
                    .hint("report this as a bug, with the log of the run")),
                elapsed_ms: 0,
                hook_faults: Vec::new(),
                told: Vec::new(),
            });
        }
    }
    outcomes
}

async fn finish(
    session: Arc<dyn WriteSession>,
    draft: Draft,
    first: Option<Fault>,
    context: &RunContext,
) -> Result<RecoveryPoint> {
    let stopped = context.cancel.check().err();
    if draft.is_empty() || stopped.is_some() {
        blocking(move || {
            session.abandon();
            Ok(())
        })
        .await?;
        let nothing = || Fault::new(codes::ENGINE_NOTHING, "back up the stack: nothing was captured");
        return Err(stopped.or(first).unwrap_or_else(nothing));
    }
    context.monitor.phase("repository", "commit");
    let committed = blocking(move || session.commit(draft)).await;
    committed.map_err(|fault| match first {
        // When the storage failed, the components failed with it: their error is the story.
        Some(first) if first.class() == fault.class() => first,
        _ => fault.during("commit the recovery point"),
    })
}

/// Runs short blocking work of the repository; a panic in it is an error.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(codes::RUN_BUG, "work on the repository").because(error)),
    }
}

fn component_report(outcome: &Outcome) -> ComponentReport {
    let part = outcome.result.as_ref().ok();
    let stored = part.map(Part::stored);
    let tally = stored.map(|stored| stored.tally).unwrap_or_default();
    ComponentReport {
        component: outcome.id.clone(),
        kind: outcome.kind,
        state: if part.is_some() { "captured" } else { "missing" },
        captured_at: None,
        entries: tally.entries,
        bytes: tally.bytes,
        unchanged_bytes: tally.unchanged_bytes,
        added_bytes: stored.map_or(0, |stored| stored.added_bytes),
        stored_bytes: stored.map_or(0, |stored| stored.stored_bytes),
        elapsed_ms: outcome.elapsed_ms,
        notes: part.map(|part| part.notes().clone()).unwrap_or_default(),
        problem: outcome.result.as_ref().err().map(Problem::from),
    }
}

fn report(
    point: &RecoveryPoint,
    stack: String,
    mut components: Vec<ComponentReport>,
    problems: Vec<Problem>,
    options: &BackupOptions,
    context: &RunContext,
) -> BackupReport {
    let manifest = point.manifest();
    for report in &mut components {
        report.captured_at = manifest.component(&report.component).map(|record| record.captured_at);
    }
    let limit = options.max_skew.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    BackupReport {
        run: context.run.clone(),
        stack,
        point: point.id().clone(),
        state: point.state(),
        trust: "unverified",
        started: manifest.started,
        finished: context.clock.now(),
        skew_ms: manifest.skew_ms,
        skew_exceeded: limit.is_some_and(|limit| manifest.skew_ms > limit),
        components,
        suspicions: manifest.suspicions.clone(),
        problems,
    }
}
