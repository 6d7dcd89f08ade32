//! Restoring: components of a point to their targets, checked afterwards.

use std::sync::Arc;

use rekindle_core::port::{
    Component, Finding, HookRunner, Level, PartReader, Repository, RestoreReport, RestoreRequest, RunContext, Services,
    Target,
};
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, Result, codes};
use serde::Serialize;

use crate::around::{self, ServicesReport};
use crate::backup::{BackupOptions, backup};
use crate::component_run::named;
use crate::plan::{BackupPlan, stage};
use crate::report::Problem;

/// One component and where it goes.
#[derive(Clone)]
pub struct RestoreItem {
    pub component: Arc<dyn Component>,
    pub request: RestoreRequest,
}

/// What one restore will do, in this order.
pub struct RestorePlan {
    pub point: PointId,
    pub items: Vec<RestoreItem>,
    /// Taken before anything is restored in place; a failure of it refuses the restore.
    pub safety: Option<BackupPlan>,
    /// Stopped before anything is restored in place, started after it.
    pub services: Option<Arc<dyn Services>>,
}

/// A plan for reading: the output of `--dry-run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePlanView {
    pub point: PointId,
    pub safety_point: bool,
    pub items: Vec<RestoreItemView>,
}

/// One step of a restore plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreItemView {
    pub component: ComponentId,
    pub kind: ComponentKind,
    pub target: Target,
    pub entries: u64,
    pub bytes: u64,
    /// The moment the data stands for.
    pub captured_at: jiff::Timestamp,
}

/// What became of one component.
#[derive(Debug, Clone, Serialize)]
pub struct ItemReport {
    pub component: ComponentId,
    pub kind: ComponentKind,
    /// `restored`, `incomplete` (something is lost), `wrong` (the check says no), `failed`, or
    /// `rolled-back` (the state before stands there again).
    pub state: &'static str,
    pub elapsed_ms: u64,
    /// Of these, the restore itself, without the check after it.
    pub restore_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<RestoreReport>,
    pub findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    #[serde(skip)]
    exit_code: u8,
}

impl ItemReport {
    /// The old state stands at its place again.
    pub(crate) fn rolled_back(&mut self) {
        self.state = "rolled-back";
        self.exit_code = codes::ENGINE_ROLLED_BACK.class.exit_code();
    }
}

/// What one restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreSummary {
    pub point: PointId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_point: Option<PointId>,
    pub elapsed_ms: u64,
    pub items: Vec<ItemReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<ServicesReport>,
}

impl RestoreSummary {
    /// 0 when everything is there, checked and running; else the code of the services, or of the first item
    /// that is not.
    pub fn exit_code(&self) -> u8 {
        let services = self.services.iter().map(|services| services.exit_code);
        services.chain(self.items.iter().map(|item| item.exit_code)).find(|code| *code != 0).unwrap_or(0)
    }
}

impl RestorePlan {
    /// Puts the items into the order of a restore: databases, caches, monitoring, files.
    pub fn new(point: PointId, mut items: Vec<RestoreItem>, safety: Option<BackupPlan>) -> Result<Self> {
        if items.is_empty() {
            return Err(Fault::new(codes::ENGINE_NO_COMPONENT, "plan the restore: no component is chosen")
                .hint("name a component of the point; `rekindle show POINT` lists them"));
        }
        items.sort_by_key(|item| stage(item.component.kind()));
        Ok(Self { point, items, safety, services: None })
    }

    /// The same with services that are stopped meanwhile. The old state has to be kept then: it is what a
    /// roll-back needs.
    pub fn with_services(self, services: Arc<dyn Services>) -> Result<Self> {
        if self.items.iter().any(|item| item.request.target == Target::InPlace { discard_old: true }) {
            return Err(Fault::new(codes::CLI_USAGE, "restore in place with services around it, keeping no old state")
                .because("when a service does not become healthy, the old state is brought back")
                .hint("leave `--discard-old` out, and remove the kept state when all is well"));
        }
        Ok(Self { services: Some(services), ..self })
    }

    /// The plan for reading; opens each part, so a component that the point lacks is an error here.
    pub fn view(&self, repository: &dyn Repository) -> Result<RestorePlanView> {
        let mut items = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let part = repository.open(&self.point, item.component.id())?;
            let record = part.record();
            items.push(RestoreItemView {
                component: record.id.clone(),
                kind: record.kind,
                target: item.request.target.clone(),
                entries: record.tally.entries,
                bytes: record.tally.bytes,
                captured_at: record.captured_at,
            });
        }
        Ok(RestorePlanView { point: self.point.clone(), safety_point: self.safety.is_some(), items })
    }
}

/// Runs a plan. One component's failure does not keep the others from coming back.
pub async fn restore(
    plan: RestorePlan,
    repository: Arc<dyn Repository>,
    runner: Arc<dyn HookRunner>,
    context: &RunContext,
) -> Result<RestoreSummary> {
    let started = context.clock.now();
    let parts = open_parts(&plan, &repository).await?;
    let safety_point = match plan.safety {
        None => None,
        Some(safety) => Some(take_safety_point(safety, &repository, runner, context).await?),
    };
    let mut services = around::stop(plan.services.as_ref(), context).await?;
    let mut done: Vec<(&RestoreItem, ItemReport)> = Vec::with_capacity(plan.items.len());
    let mut stopped = None;
    for (item, part) in plan.items.iter().zip(parts) {
        if let Err(fault) = context.cancel.check() {
            stopped = Some(fault);
            break;
        }
        done.push((item, restore_item(item, part, context).await));
    }
    around::start(plan.services.as_ref(), &mut services, &mut done, context).await;
    if let Some(fault) = stopped {
        return Err(fault);
    }
    let items = done.into_iter().map(|(_, report)| report).collect();
    let elapsed_ms = elapsed_ms(context, started);
    Ok(RestoreSummary { point: plan.point, safety_point, elapsed_ms, items, services })
}

/// Opens every part before the first target is touched.
async fn open_parts(plan: &RestorePlan, repository: &Arc<dyn Repository>) -> Result<Vec<Arc<dyn PartReader>>> {
    let ids: Vec<ComponentId> = plan.items.iter().map(|item| item.component.id().clone()).collect();
    let (point, repository) = (plan.point.clone(), Arc::clone(repository));
    let opened = tokio::task::spawn_blocking(move || {
        ids.iter().map(|id| repository.open(&point, id)).collect::<Result<Vec<_>>>()
    });
    opened.await.map_err(|error| Fault::new(codes::RUN_BUG, "open the point").because(error))?
}

async fn take_safety_point(
    plan: BackupPlan,
    repository: &Arc<dyn Repository>,
    runner: Arc<dyn HookRunner>,
    context: &RunContext,
) -> Result<PointId> {
    let refuse = |fault: Fault| {
        Fault::new(codes::ENGINE_SAFETY, "take a safety point before the restore in place")
            .because(fault)
            .hint("mend the cause, or pass --no-safety-point if what stands there now is worthless")
    };
    context.monitor.phase("run", "safety point");
    let report = backup(plan, Arc::clone(repository), runner, &BackupOptions::default(), context).await;
    let report = report.map_err(refuse)?;
    if report.exit_code() == 3 {
        let what = format!("back up the present state: point {} is partial", report.point.short());
        return Err(refuse(Fault::new(codes::ENGINE_PARTIAL, what)));
    }
    Ok(report.point)
}

async fn restore_item(item: &RestoreItem, part: Arc<dyn PartReader>, context: &RunContext) -> ItemReport {
    let started = context.clock.now();
    let component = &item.component;
    let (id, kind) = (component.id().clone(), component.kind());
    context.monitor.phase(id.as_str(), "restore");
    let restored = component.restore(Arc::clone(&part), &item.request, context).await;
    let restore_ms = elapsed_ms(context, started);
    let (report, findings, problem) = match restored {
        Err(fault) => (None, Vec::new(), Some(fault)),
        Ok(report) => {
            context.monitor.phase(id.as_str(), "check");
            match component.check(part, &report, context).await {
                Ok(findings) => (Some(report), findings, None),
                Err(fault) => (Some(report), Vec::new(), Some(fault)),
            }
        }
    };
    let problem = problem.map(|fault| named(resumable(fault), "restore", kind, &id));
    if let Some(fault) = &problem {
        context.monitor.problem(id.as_str(), fault);
    }
    let lost = report.as_ref().is_some_and(|report| !report.lost.is_empty());
    let wrong = findings.iter().any(|finding| finding.level == Level::Bad);
    let (state, exit_code) = match &problem {
        Some(fault) => ("failed", fault.exit_code()),
        None if lost => ("incomplete", codes::REPO_RESTORE_INCOMPLETE.class.exit_code()),
        None if wrong => ("wrong", rekindle_core::Class::Negative.exit_code()),
        None => ("restored", 0),
    };
    let problem = problem.as_ref().map(Problem::from);
    ItemReport {
        component: id,
        kind,
        state,
        elapsed_ms: elapsed_ms(context, started),
        restore_ms,
        report,
        findings,
        problem,
        exit_code,
    }
}

/// A restore that was stopped can go on where it was.
fn resumable(fault: Fault) -> Fault {
    if fault.is(codes::RUN_INTERRUPTED) || fault.is(codes::RUN_TERMINATED) {
        return fault
            .hint("run the same command again, to a new place with --overwrite: what is there and right is kept");
    }
    fault
}

pub(crate) fn elapsed_ms(context: &RunContext, started: jiff::Timestamp) -> u64 {
    u64::try_from(context.clock.now().duration_since(started).as_millis()).unwrap_or(0)
}
