//! The order of hooks around a piece of work: `after` runs whatever happened.

use std::time::Duration;

use rekindle_core::port::{Hook, HookOutcome, HookRunner};
use rekindle_core::{Cancel, ComponentId, Fault, Result, RunId, codes};

/// How often the wish to stop is looked at while a hook runs.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// What hooks are told through their environment.
#[derive(Debug, Clone)]
pub(crate) struct HookContext {
    pub(crate) run: RunId,
    pub(crate) stack: String,
    pub(crate) component: Option<ComponentId>,
}

impl HookContext {
    fn variables(&self, moment: &str, status: &str, error: Option<&Fault>) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("REKINDLE_RUN_ID", self.run.to_string()),
            ("REKINDLE_STACK", self.stack.clone()),
            ("REKINDLE_HOOK", moment.to_owned()),
            ("REKINDLE_STATUS", status.to_owned()),
        ];
        if let Some(component) = &self.component {
            variables.push(("REKINDLE_COMPONENT", component.to_string()));
        }
        if let Some(fault) = error {
            variables.push(("REKINDLE_ERROR_CODE", fault.code().id.to_owned()));
            variables.push(("REKINDLE_ERROR", fault.chain()));
        }
        variables
    }

    fn subject(&self) -> String {
        self.component.as_ref().map_or_else(|| "the run".to_owned(), |id| format!("component `{id}`"))
    }
}

/// Ends when the run has to stop.
async fn stopped(cancel: &Cancel) -> Fault {
    loop {
        if let Err(fault) = cancel.check() {
            return fault;
        }
        tokio::time::sleep(CANCEL_POLL).await;
    }
}

/// Runs the hooks that come first. The first that fails or asks to skip ends it, and so does the wish to stop.
pub(crate) async fn before(
    runner: &dyn HookRunner,
    hooks: &[Hook],
    context: &HookContext,
    cancel: &Cancel,
) -> Result<()> {
    let variables = context.variables("before", "starting", None);
    for hook in hooks {
        let outcome = tokio::select! {
            outcome = runner.run(hook, &variables) => outcome,
            // Whoever runs the hook ends it when nobody waits for it any more.
            fault = stopped(cancel) => Err(fault),
        };
        match outcome {
            Ok(HookOutcome::Done) => {}
            Ok(HookOutcome::SoftSkip) => {
                let what = format!("skip {}: the before hook `{}` asked for it", context.subject(), hook.command[0]);
                return Err(Fault::new(codes::ENGINE_SOFT_SKIP, what));
            }
            Err(fault) => {
                return Err(fault.during(format!("run the before hook of {}", context.subject())));
            }
        }
    }
    Ok(())
}

/// Runs the on-error hooks (when there is an error) and then the after hooks; all of them,
/// whatever the others did, also in a run that has to stop: they undo what the first ones did. Gives what failed.
pub(crate) async fn closing(
    runner: &dyn HookRunner,
    on_error: &[Hook],
    after: &[Hook],
    context: &HookContext,
    error: Option<&Fault>,
) -> Vec<Fault> {
    let status = match error {
        None => "done",
        Some(fault) if fault.is(codes::ENGINE_SOFT_SKIP) => "skipped",
        Some(_) => "failed",
    };
    let mut failed = Vec::new();
    let failing = if status == "failed" { on_error } else { &[] };
    for (moment, hooks) in [("on-error", failing), ("after", after)] {
        let variables = context.variables(moment, status, error);
        for hook in hooks {
            if let Err(fault) = runner.run(hook, &variables).await {
                failed.push(fault.during(format!("run the {moment} hook of {}", context.subject())));
            }
        }
    }
    failed
}
