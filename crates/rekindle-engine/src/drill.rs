//! A drill: the ordinary restore ([`crate::restore`]) of a point into sandboxes, the real engines
//! started on what came back, checks, a stopwatch, and everything gone afterwards.
//!
//! A drill never says `passed` because something could not be looked at: an engine that is not here,
//! a finding that is *unproved*, or no finding at all make it `unproved`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::cancel::Reason;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::objective::{Objective, Verdict, age_seconds, judge_age, judge_restore};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{
    Finding, HookRunner, Level, PartReader, Recovery, Repository, RestoreReport, RestoreRequest, RunContext, Step,
};
use rekindle_core::proof_record::{ComponentProof, DrillResult, Outcome, ProofProblem};
use rekindle_core::sandbox::Sandbox;
use rekindle_core::{Cancel, Class, Fault, Result, codes};

use crate::pitr::moment;
use crate::restore::{ItemReport, RestoreItem, RestorePlan, restore};

/// Between two looks at limits, deadline and Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a stopped component may take to end by itself before it is left behind and its processes
/// are killed.
const GRACE: Duration = Duration::from_secs(5);

/// How far a component is brought.
#[derive(Debug)]
pub enum Way {
    /// As it was captured.
    Captured,
    /// A base backup, and the log behind it.
    Replayed(Box<Recovery>),
    /// There is no way to the wanted moment, and this is why: it is the result of the drill.
    Blocked(Fault),
}

impl Way {
    fn recovery(&self) -> Result<Option<Recovery>> {
        match self {
            Self::Captured => Ok(None),
            Self::Replayed(recovery) => Ok(Some((**recovery).clone())),
            Self::Blocked(fault) => {
                let same = Fault::new(fault.code(), fault.chain());
                Err(fault.hint_text().map(str::to_owned).into_iter().fold(same, Fault::hint))
            }
        }
    }
}

/// One component to drill.
pub struct DrillItem {
    pub sandbox: Arc<dyn Sandbox>,
    pub objective: Objective,
    pub way: Way,
}

/// What one drill will do.
pub struct DrillPlan {
    pub point: RecoveryPoint,
    /// In the order of a restore.
    pub items: Vec<DrillItem>,
    /// Hard limit for all of it.
    pub timeout: Duration,
    /// Parallel workers of the restore program, where it has some.
    pub jobs: usize,
    /// What holds the sandboxes apart from the host.
    pub guarantees: Vec<String>,
}

/// Everything went well, and in time.
pub fn exit_code(result: &DrillResult) -> u8 {
    let good = |one: &ComponentProof| one.outcome == Outcome::Passed && !matches!(one.rto, Verdict::Missed(_));
    if !result.components.is_empty() && result.components.iter().all(good) { 0 } else { Class::Negative.exit_code() }
}

/// The errors that belong to a result that is not good.
pub fn faults(result: &DrillResult) -> Vec<Fault> {
    let short = result.point.short();
    result.components.iter().filter_map(|one| fault(one, short)).collect()
}

fn fault(one: &ComponentProof, point: &str) -> Option<Fault> {
    let what = format!("drill `{}` of point {point}", one.component);
    let why = || {
        let said = one.problem.as_ref().map(|problem| problem.message.clone());
        let worst = one.findings.iter().filter(|finding| finding.level >= Level::Unproved).max_by_key(|f| f.level);
        said.or_else(|| worst.map(|finding| finding.text.clone())).unwrap_or_else(|| "nothing was checked".to_owned())
    };
    let hint = one.problem.as_ref().and_then(|problem| problem.hint.clone());
    match one.outcome {
        Outcome::Failed => Some(Fault::new(codes::DRILL_FAILED, what).because(why()).hint(hint.unwrap_or_else(|| {
            "do not rely on this point; drill the one before it, and look at what changed".to_owned()
        }))),
        Outcome::Unproved => Some(
            Fault::new(codes::DRILL_UNPROVED, what)
                .because(why())
                .hint(hint.unwrap_or_else(|| "provide what is lacking, or drill on another host".to_owned())),
        ),
        Outcome::Passed => match &one.rto {
            Verdict::Missed(why) => Some(
                Fault::new(codes::ENGINE_OBJECTIVE, format!("meet the RTO of `{}`", one.component))
                    .because(why.clone())
                    .hint("make the restore faster (`jobs`, closer storage), or allow a longer `rto`"),
            ),
            Verdict::Met | Verdict::AtRisk(_) => None,
        },
    }
}

/// Runs a drill. `Err` only when it could not be run at all or was interrupted: what is wrong with
/// the data is in the result.
pub async fn drill(
    plan: DrillPlan,
    repository: Arc<dyn Repository>,
    runner: Arc<dyn HookRunner>,
    context: &RunContext,
) -> Result<DrillResult> {
    let deadline = Instant::now() + plan.timeout;
    let began = context.clock.now();
    let mut components = Vec::with_capacity(plan.items.len());
    for item in &plan.items {
        context.cancel.check()?;
        let Some(record) = plan.point.manifest().component(item.sandbox.component()) else {
            let what = format!("find `{}` in point {}", item.sandbox.component(), plan.point.id().short());
            return Err(Fault::new(codes::ENGINE_NO_COMPONENT, what).hint("`rekindle show POINT` lists them"));
        };
        let job = Job { plan: &plan, item, record, repository: &repository, runner: &runner };
        let measured = job.guarded(deadline, context).await;
        // An interrupted drill has no result; the sandbox is gone already.
        context.cancel.check()?;
        components.push(measured.proof(item, record, began));
    }
    Ok(DrillResult {
        stack: plan.point.manifest().stack.clone(),
        point: plan.point.id().clone(),
        point_time: plan.point.time(),
        components,
        guarantees: plan.guarantees,
    })
}

struct Job<'a> {
    plan: &'a DrillPlan,
    item: &'a DrillItem,
    record: &'a ComponentRecord,
    repository: &'a Arc<dyn Repository>,
    runner: &'a Arc<dyn HookRunner>,
}

/// What became of one component so far.
#[derive(Default)]
struct Measured {
    engine: Option<String>,
    restore_ms: Option<u64>,
    /// The moment that the restored data stands for, when the log was replayed.
    recovered_to: Option<jiff::Timestamp>,
    elapsed_ms: u64,
    steps: Vec<Step>,
    findings: Vec<Finding>,
    problem: Option<Fault>,
}

impl Job<'_> {
    /// Runs one component under its limits, and clears its sandbox away whatever happened.
    async fn guarded(&self, deadline: Instant, context: &RunContext) -> Measured {
        let since = Instant::now();
        // Only this component is stopped when it outgrows a limit.
        let inner = RunContext { cancel: Cancel::new(), ..context.clone() };
        let mut measured = Measured::default();
        let stopped = {
            let work = Box::pin(self.run(&mut measured, &inner));
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => result.err(),
                fault = self.watch(deadline, context) => {
                    inner.cancel.cancel(Reason::Terminated);
                    let _ = tokio::time::timeout(GRACE, &mut work).await;
                    Some(fault)
                }
            }
        };
        measured.problem = stopped;
        let sandbox = Arc::clone(&self.item.sandbox);
        let since_close = Instant::now();
        let closed = tokio::task::spawn_blocking(move || sandbox.close()).await;
        measured.step("tear down", since_close);
        let closed = closed.unwrap_or_else(|error| Err(Fault::new(codes::RUN_BUG, "close the sandbox").because(error)));
        if let Err(fault) = closed {
            context.monitor.problem(self.record.id.as_str(), &fault);
            measured.problem.get_or_insert(fault);
        }
        measured.elapsed_ms = millis(since);
        measured
    }

    /// Ends when the component has to be stopped.
    async fn watch(&self, deadline: Instant, context: &RunContext) -> Fault {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(fault) = context.cancel.check() {
                return fault;
            }
            if Instant::now() > deadline {
                let why = format!("it did not end within {} s", self.plan.timeout.as_secs());
                return Fault::new(codes::DRILL_TIMEOUT, format!("drill `{}`", self.record.id))
                    .because(why)
                    .hint("if the engine hangs, mend it; if the data has grown, raise `timeout` in [drill]");
            }
            let sandbox = Arc::clone(&self.item.sandbox);
            match tokio::task::spawn_blocking(move || sandbox.within_limits()).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return fault,
                // Limits that nobody looks at are no limits.
                Err(error) => return Fault::new(codes::RUN_BUG, "look at the limits of the sandbox").because(error),
            }
        }
    }

    async fn run(&self, measured: &mut Measured, context: &RunContext) -> Result<()> {
        let (sandbox, id) = (&self.item.sandbox, self.record.id.as_str());
        let recovery = self.item.way.recovery()?;
        context.monitor.phase(id, "sandbox");
        let since = Instant::now();
        let opened = sandbox.open(self.record, context).await?;
        measured.step("sandbox", since);
        measured.engine = opened.engine;
        let recovered_to = recovery.as_ref().map(|recovery| moment(&recovery.plan));
        let item = RestoreItem { component: opened.component, request: self.request(opened.target, recovery) };
        let plan = RestorePlan::new(self.plan.point.id().clone(), vec![item], None)?;
        let summary = Box::pin(restore(plan, Arc::clone(self.repository), Arc::clone(self.runner), context)).await?;
        let Some(restored) = summary.items.into_iter().next() else {
            return Err(Fault::new(codes::RUN_BUG, "restore one component").because("there is no report"));
        };
        let report = measured.take(restored)?;
        measured.recovered_to = recovered_to;
        if measured.findings.iter().any(|finding| finding.level == Level::Bad) {
            return Ok(());
        }
        context.monitor.phase(id, "engine");
        let since = Instant::now();
        let started = sandbox.start(self.record, &report, context).await?;
        measured.step("engine", since);
        measured.engine = started.engine.or(measured.engine.take());
        measured.restore_ms = measured.restore_ms.map(|ms| ms + started.ready_ms);
        measured.findings.extend(started.findings);
        context.monitor.phase(id, "look");
        let since = Instant::now();
        let part = self.part().await?;
        measured.findings.extend(sandbox.look(part, &report, context).await?);
        measured.step("look", since);
        Ok(())
    }

    fn request(&self, target: rekindle_core::port::Target, recovery: Option<Recovery>) -> RestoreRequest {
        RestoreRequest {
            point: self.plan.point.id().clone(),
            target,
            select: Vec::new(),
            overwrite: false,
            jobs: self.plan.jobs,
            server: None,
            recovery,
        }
    }

    async fn part(&self) -> Result<Arc<dyn PartReader>> {
        let (repository, point, id) =
            (Arc::clone(self.repository), self.plan.point.id().clone(), self.record.id.clone());
        let opened = tokio::task::spawn_blocking(move || repository.open(&point, &id)).await;
        opened.map_err(|error| Fault::new(codes::RUN_BUG, "open the point").because(error))?
    }
}

impl Measured {
    fn step(&mut self, name: &str, since: Instant) {
        self.steps.push(Step { name: name.to_owned(), elapsed_ms: millis(since) });
    }

    /// What the ordinary restore and its check say.
    fn take(&mut self, item: ItemReport) -> Result<RestoreReport> {
        self.restore_ms = Some(item.restore_ms);
        self.steps.push(Step { name: "restore".to_owned(), elapsed_ms: item.restore_ms });
        let details = item.report.as_ref().map(|report| report.steps.clone()).unwrap_or_default();
        self.steps.extend(details.into_iter().map(|step| Step { name: format!("restore: {}", step.name), ..step }));
        let checked = item.elapsed_ms.saturating_sub(item.restore_ms);
        self.steps.push(Step { name: "check".to_owned(), elapsed_ms: checked });
        self.findings.extend(item.findings);
        if let Some(problem) = item.problem {
            let code = codes::all().find(|code| code.id == problem.code).unwrap_or(codes::RUN_BUG);
            let fault = Fault::new(code, problem.message);
            return Err(match problem.hint {
                Some(hint) => fault.hint(hint),
                None => fault,
            });
        }
        let Some(report) = item.report else {
            return Err(Fault::new(codes::RUN_BUG, "restore a component").because("there is no report"));
        };
        if let Some(first) = report.lost.first() {
            let what = format!("restore into the sandbox: {} entries are lost", report.lost.len());
            return Err(Fault::new(codes::REPO_RESTORE_INCOMPLETE, what)
                .because(format!("first `{}`: {}", first.path, first.why))
                .hint("rekindle verify --read-data"));
        }
        Ok(report)
    }

    fn outcome(&self) -> Outcome {
        let levels = || self.findings.iter().map(|finding| finding.level);
        match &self.problem {
            _ if levels().any(|level| level == Level::Bad) => Outcome::Failed,
            Some(fault) if says_nothing(fault) => Outcome::Unproved,
            Some(_) => Outcome::Failed,
            None if levels().any(|level| level == Level::Unproved) => Outcome::Unproved,
            None if levels().any(|level| level == Level::Good) => Outcome::Passed,
            // Nothing was found to be right.
            None => Outcome::Unproved,
        }
    }

    fn proof(self, item: &DrillItem, record: &ComponentRecord, began: jiff::Timestamp) -> ComponentProof {
        let outcome = self.outcome();
        let age = age_seconds(began, self.recovered_to.unwrap_or(record.captured_at));
        let rto = self.restore_ms.map_or(Verdict::Met, |ms| judge_restore(&item.objective, ms));
        ComponentProof {
            component: record.id.clone(),
            kind: record.kind,
            outcome,
            captured_at: record.captured_at,
            recovered_to: self.recovered_to,
            entries: record.tally.entries,
            bytes: record.tally.bytes,
            engine: self.engine,
            restore_ms: self.restore_ms,
            elapsed_ms: self.elapsed_ms,
            age_seconds: age,
            steps: self.steps,
            findings: self.findings,
            problem: self.problem.as_ref().map(|fault| ProofProblem {
                code: fault.code().id.to_owned(),
                message: fault.chain(),
                hint: fault.hint_text().map(str::to_owned),
            }),
            objective: item.objective,
            rto,
            rpo: judge_age(&item.objective, age),
        }
    }
}

/// Whether an error is about this host, and says nothing about the data.
fn says_nothing(fault: &Fault) -> bool {
    let here = [
        codes::DRILL_NO_ENGINE,
        codes::DRILL_SPACE,
        codes::DRILL_SANDBOX,
        codes::PG_NO_PROGRAM,
        codes::PG_EXTENSION,
        codes::PITR_PLACE,
        // Whether an idle log goes as far as a moment cannot be known.
        codes::PITR_AFTER,
        codes::REPO_TARGET_FULL,
        codes::FILES_SPACE,
    ];
    let storage = fault.code().id.starts_with("RK-ST-") && fault.class() == Class::Unreachable;
    storage || here.iter().any(|code| fault.is(code))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
