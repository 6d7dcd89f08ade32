//! The plan of a backup: what will be captured, in which order. A value that can be printed.

use std::sync::Arc;

use rekindle_core::port::{Component, Hook};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use serde::Serialize;

/// Hooks of a run or of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookSet {
    pub before: Vec<Hook>,
    /// These run whatever happened.
    pub after: Vec<Hook>,
    pub on_error: Vec<Hook>,
}

/// One component with what belongs to it.
#[derive(Clone)]
pub struct Planned {
    pub component: Arc<dyn Component>,
    pub hooks: HookSet,
}

/// What one run will do.
pub struct BackupPlan {
    pub stack: String,
    pub host: String,
    pub hooks: HookSet,
    /// In the order in which they begin.
    pub components: Vec<Planned>,
}

/// A plan for reading: the output of `--dry-run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanView {
    pub stack: String,
    pub host: String,
    pub steps: Vec<PlanStep>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanStep {
    pub component: ComponentId,
    pub kind: ComponentKind,
    /// Components of one stage run at the same time; a stage begins when the one before has begun.
    pub stage: u8,
    pub hooks: usize,
}

/// When a kind begins. Databases fix their moment first; files come last, since a file that no
/// row names is harmless while a row whose file is missing is broken.
pub fn stage(kind: ComponentKind) -> u8 {
    match kind {
        ComponentKind::Postgres => 0,
        ComponentKind::Redis => 1,
        ComponentKind::Prometheus | ComponentKind::Grafana => 2,
        ComponentKind::Files => 3,
    }
}

impl BackupPlan {
    /// Picks the wanted components (none named: all) and puts them into order.
    pub fn new(
        stack: String,
        host: String,
        hooks: HookSet,
        configured: Vec<Planned>,
        wanted: &[ComponentId],
    ) -> Result<Self> {
        for id in wanted {
            if !configured.iter().any(|planned| planned.component.id() == id) {
                return Err(unknown_component(id, &configured));
            }
        }
        let mut components: Vec<Planned> = configured
            .into_iter()
            .filter(|planned| wanted.is_empty() || wanted.contains(planned.component.id()))
            .collect();
        if components.is_empty() {
            return Err(Fault::new(codes::ENGINE_NO_COMPONENT, "plan the backup: no component is configured")
                .hint("add a [component.NAME] section to the configuration"));
        }
        components.sort_by_key(|planned| stage(planned.component.kind()));
        Ok(Self { stack, host, hooks, components })
    }

    /// The plan for reading.
    pub fn view(&self) -> PlanView {
        let steps = self.components.iter().map(|planned| PlanStep {
            component: planned.component.id().clone(),
            kind: planned.component.kind(),
            stage: stage(planned.component.kind()),
            hooks: planned.hooks.before.len() + planned.hooks.after.len() + planned.hooks.on_error.len(),
        });
        PlanView { stack: self.stack.clone(), host: self.host.clone(), steps: steps.collect() }
    }
}

fn unknown_component(id: &ComponentId, configured: &[Planned]) -> Fault {
    let names: Vec<&str> = configured.iter().map(|planned| planned.component.id().as_str()).collect();
    Fault::new(codes::ENGINE_NO_COMPONENT, format!("find the component `{id}`"))
        .hint(format!("choose from: {}", names.join(", ")))
}
