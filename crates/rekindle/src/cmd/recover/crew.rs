//! Who does the work of a recovery: the configured components with their commands and checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rekindle_config::{Component as Configured, Config};
use rekindle_core::port::{Hook, Recovery};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use rekindle_engine::recover::{AT_ONCE_MAX, Actor, Checks, Commands, Crew, RecoveryPlan};
use rekindle_repo::Repo;

use crate::wire;
use crate::wire::components::{self, Wishes};

/// Longest time of a command, and longest wait for a server, when nothing is said.
const COMMAND_MAX: Duration = Duration::from_mins(5);
const READY_MAX: Duration = Duration::from_mins(1);
/// Longest run of one check.
const CHECK_MAX: Duration = Duration::from_mins(30);

/// What the command line says about the work.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Workers of restore programs.
    pub(super) jobs: usize,
    pub(super) at_once: Option<usize>,
    /// Whether the user's own checks are asked.
    pub(super) checks: bool,
}

/// The crew of a plan. `recoveries` are the ways of its base backups.
pub(super) fn crew(
    config: &Config,
    plan: &RecoveryPlan,
    repo: &Arc<Repo>,
    mut recoveries: BTreeMap<ComponentId, Recovery>,
    how: How,
) -> Result<Crew> {
    let mut actors = BTreeMap::new();
    for choice in &plan.choices {
        let found = config.components.iter().find(|one| one.id == choice.component);
        let Some(configured) = found.filter(|one| one.kind() == choice.kind) else {
            let what = format!("recover `{}`: the configuration has no such {}", choice.component, choice.kind);
            return Err(Fault::new(codes::RECOVER_CONFIG, what)
                .hint("use the configuration in the repository with --from URL, or leave it out with --only"));
        };
        let wishes = Wishes { checks: how.checks, ..Wishes::default() };
        let actor = Actor {
            component: components::of_config(configured, &config.stack.name, &[], &wishes)?,
            commands: commands(&configured.recover),
            checks: if how.checks { checks(configured) } else { Checks::default() },
            recovery: recoveries.remove(&choice.component),
            rto_seconds: configured.objective.rto_seconds,
        };
        actors.insert(choice.component.clone(), actor);
    }
    let ids: Vec<ComponentId> = plan.choices.iter().map(|choice| choice.component.clone()).collect();
    Ok(Crew {
        repository: Arc::clone(repo) as _,
        runner: wire::containers::hook_runner(Some(config)),
        actors,
        stack: commands(&config.recover),
        services: wire::containers::services(config, &ids, true)?,
        jobs: how.jobs,
        at_once: how
            .at_once
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
            .min(AT_ONCE_MAX),
    })
}

fn commands(recover: &rekindle_config::Recover) -> Commands {
    let timeout = recover.timeout.unwrap_or(COMMAND_MAX);
    let all = |commands: &[rekindle_config::Command]| {
        let one = |command: &rekindle_config::Command| Hook { command: command.argv.clone(), timeout, container: None };
        commands.iter().map(one).collect()
    };
    Commands { stop: all(&recover.stop), start: all(&recover.start), ready: recover.ready.unwrap_or(READY_MAX) }
}

/// Commands that find their data in place as they do in a sandbox. SQL is asked by the component itself.
fn checks(configured: &Configured) -> Checks {
    let all = configured.checks.commands.iter();
    let hooks: Vec<Hook> =
        all.map(|command| Hook { command: command.argv.clone(), timeout: CHECK_MAX, container: None }).collect();
    match configured.kind() {
        // Below a sandbox, files stand under their whole paths.
        ComponentKind::Files => Checks { hooks, place: "/".to_owned(), left_out: 0 },
        // What they find there has another shape than the place of a live server.
        _ => Checks { hooks: Vec::new(), place: String::new(), left_out: hooks.len() },
    }
}
