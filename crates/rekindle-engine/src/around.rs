//! What happens around a restore in place: services are stopped before and started after it, and when they
//! do not become healthy, everything goes back to the state before.

use std::sync::Arc;

use rekindle_core::port::{RunContext, Services};
use rekindle_core::{Cancel, Fault, Result, codes};
use serde::Serialize;

use crate::report::Problem;
use crate::restore::{ItemReport, RestoreItem};

/// What was done with the services.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServicesReport {
    /// In the order in which they were stopped.
    pub stopped: Vec<String>,
    /// In the order in which they were started and became healthy; after a roll-back those of the second time.
    pub started: Vec<String>,
    /// Why everything was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Problem>,
    /// Why services do not run, when they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    #[serde(skip)]
    pub(crate) exit_code: u8,
}

/// The context of steps that are done also after the run was cancelled: services that were stopped are
/// started again.
fn to_the_end(context: &RunContext) -> RunContext {
    RunContext { cancel: Cancel::new(), ..context.clone() }
}

/// Stops the services, if there are any.
pub(crate) async fn stop(services: Option<&Arc<dyn Services>>, context: &RunContext) -> Result<Option<ServicesReport>> {
    let Some(services) = services else { return Ok(None) };
    let stopped = services.stop(context).await?;
    Ok(Some(ServicesReport { stopped, started: Vec::new(), rolled_back: None, problem: None, exit_code: 0 }))
}

/// Starts what was stopped. When not all of it becomes healthy, everything restored is taken back, and the
/// services are started again with the state before.
pub(crate) async fn start(
    services: Option<&Arc<dyn Services>>,
    report: &mut Option<ServicesReport>,
    done: &mut [(&RestoreItem, ItemReport)],
    context: &RunContext,
) {
    let (Some(services), Some(report)) = (services, report) else { return };
    let context = to_the_end(context);
    let unhealthy = match services.start(&context).await {
        Ok(started) => {
            report.started = started;
            return;
        }
        Err(fault) => fault,
    };
    if !done.iter().any(|(_, item)| item.report.is_some()) {
        // Nothing was replaced: it is their old state that does not come up.
        note(report, &unhealthy.during("start the services again (nothing was replaced)"), &context);
        return;
    }
    let why = Fault::new(codes::ENGINE_ROLLED_BACK, "restore in place: the services did not become healthy")
        .because(unhealthy)
        .hint("what was restored stands beside the old state (`*rekindle-rolled-back*`, `*_rolled_back`); look into the service's log, or restore to a new place with `--to`");
    context.monitor.problem("services", &why);
    report.rolled_back = Some(Problem::from(&why));
    report.exit_code = why.exit_code();
    if let Err(fault) = take_back(services, done, &context).await {
        note(report, &fault, &context);
    }
    match services.start(&context).await {
        Ok(started) => report.started = started,
        Err(fault) => note(report, &fault.during("start the services with the state before"), &context),
    }
}

fn note(report: &mut ServicesReport, fault: &Fault, context: &RunContext) {
    context.monitor.problem("services", fault);
    // The first is the one that the others follow from.
    report.problem.get_or_insert_with(|| Problem::from(fault));
    // A state between the two is worse than a clean way back.
    report.exit_code =
        if report.rolled_back.is_some() { codes::ENGINE_ROLL_BACK.class.exit_code() } else { fault.exit_code() };
}

/// Brings the old state of everything back, last restored first.
async fn take_back(
    services: &Arc<dyn Services>,
    done: &mut [(&RestoreItem, ItemReport)],
    context: &RunContext,
) -> Result<()> {
    services.stop(context).await.map_err(|fault| fault.during("stop the services to bring the old state back"))?;
    let mut first = None;
    for (item, report) in done.iter_mut().rev() {
        let Some(restored) = &report.report else { continue };
        context.monitor.phase(report.component.as_str(), "roll back");
        match item.component.roll_back(restored, context).await {
            Ok(()) => report.rolled_back(),
            Err(fault) => {
                context.monitor.problem(report.component.as_str(), &fault);
                first.get_or_insert(fault);
            }
        }
    }
    match first {
        None => Ok(()),
        Some(fault) => Err(Fault::new(codes::ENGINE_ROLL_BACK, "bring the old state back")
            .because(fault)
            .hint("the kept states are named in the report of each component; put them back by hand, or restore the safety point")),
    }
}
