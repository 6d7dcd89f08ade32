//! Stops and starts containers around a restore in place: what is restored at rest, and the services of
//! the application that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{ListContainersOptionsBuilder, StartContainerOptions, StopContainerOptions};
use rekindle_core::port::{Component, Level, RunContext, Services};
use rekindle_core::{ComponentKind, Fault, Result, codes};
use tokio::time::Instant;

use super::compose::{Project, needs_of_label, start_order};
use super::engine::Engine;
use super::inspect::{Check, Container};

pub(super) const PROJECT_LABEL: &str = "com.docker.compose.project";
pub(super) const SERVICE_LABEL: &str = "com.docker.compose.service";
const NEEDS_LABEL: &str = "com.docker.compose.depends_on";
/// Longest wait until a started service is healthy, when the configuration does not say.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(250);
/// A container without a health check and without a component has to run for so long.
const STEADY: Duration = Duration::from_secs(2);

/// What may have to be stopped.
#[derive(Clone)]
pub struct ServicesOptions {
    pub compose: Option<PathBuf>,
    /// Services of the compose file that are stopped first and started last.
    pub app_services: Vec<String>,
    /// Containers whose data is replaced while they are stopped, with the components that probe them.
    pub at_rest: Vec<(String, Arc<dyn Component>)>,
    /// Also what does not run now: after a loss, everything is to run at the end.
    pub all: bool,
    /// Longest wait until a service is healthy.
    pub patience: Option<Duration>,
}

/// The containers around one restore.
pub struct StackServices {
    engine: Engine,
    options: ServicesOptions,
    /// In the order in which they start; known once they were stopped.
    units: Mutex<Option<Vec<Unit>>>,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    /// The service, or the container's own name.
    name: String,
    container: String,
}

impl StackServices {
    /// Nothing is asked yet.
    pub fn new(engine: Engine, options: ServicesOptions) -> Self {
        Self { engine, options, units: Mutex::default() }
    }

    /// What has to be stopped, in the order in which it starts: what runs now, or all of it.
    async fn plan(&self) -> Result<Vec<Unit>> {
        let project = self.options.compose.as_deref().map(Project::read).transpose()?;
        let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut units: BTreeMap<String, Vec<Container>> = BTreeMap::new();
        if let Some(project) = &project {
            for service in &self.options.app_services {
                project.known(service)?;
            }
            needs.extend(project.services.iter().map(|(name, service)| (name.clone(), service.needs.clone())));
            for (service, found) in of_project(&self.engine, project).await? {
                for container in &found {
                    let label = container.labels.get(NEEDS_LABEL).map(String::as_str).unwrap_or_default();
                    needs.entry(service.clone()).or_default().extend(needs_of_label(label));
                }
                if self.options.app_services.contains(&service) {
                    units.insert(service, found);
                }
            }
        }
        let mut resting = BTreeSet::new();
        for (name, _) in &self.options.at_rest {
            let container = self.engine.container(name).await?;
            let service = container.labels.get(SERVICE_LABEL).cloned().unwrap_or_else(|| name.clone());
            resting.insert(service.clone());
            units.insert(service, vec![container]);
        }
        let all: BTreeSet<String> = units.keys().cloned().collect();
        let mut order = start_order(&all, &needs);
        // Whatever the file says, the application comes after the data.
        order.sort_by_key(|name| !resting.contains(name));
        let running = order.into_iter().flat_map(|service| {
            let containers = units.remove(&service).unwrap_or_default();
            containers
                .into_iter()
                .filter(|one| self.options.all || one.state.running)
                .map(move |one| Unit { name: service.clone(), container: one.name })
        });
        Ok(running.collect())
    }

    async fn stop_one(&self, unit: &Unit) -> Result<()> {
        let what = format!("stop the service `{}`", unit.name);
        if self.options.all && !self.engine.container(&unit.container).await?.state.running {
            return Ok(());
        }
        let docker = self.engine.docker().await?;
        docker.stop_container(&unit.container, None::<StopContainerOptions>).await.map_err(|error| {
            let fault = self.engine.fault(&what, error);
            Fault::new(codes::CT_SERVICE, what).because(fault.chain()).hint("stop it by hand and restore again")
        })
    }

    async fn start_one(&self, unit: &Unit, context: &RunContext) -> Result<()> {
        let docker = self.engine.docker().await?;
        if let Err(error) = docker.start_container(&unit.container, None::<StartContainerOptions>).await {
            let what = format!("start the service `{}`", unit.name);
            let fault = self.engine.fault(&what, error);
            let hint = format!("see `docker logs {0}`, then `docker start {0}`", unit.container);
            return Err(Fault::new(codes::CT_SERVICE, what).because(fault.chain()).hint(hint));
        }
        self.wait_healthy(unit, context).await
    }

    /// Asks the service itself, again and again, until it is well.
    async fn wait_healthy(&self, unit: &Unit, context: &RunContext) -> Result<()> {
        let patience = self.options.patience.unwrap_or(PATIENCE);
        let (since, mut down) = (Instant::now(), 0);
        let mut last = "it did not answer".to_owned();
        while since.elapsed() < patience {
            let found = self.engine.container(&unit.container).await?;
            if found.state.running {
                down = 0;
                match self.ask(&found, since, patience, context).await? {
                    None => return Ok(()),
                    Some(why) => last = why,
                }
            } else {
                down += 1;
                last = format!("it is {} (exit code {})", found.state.word, found.state.exit_code);
                // A restart policy may bring it up again; without one it stays down.
                if down > 8 {
                    break;
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Fault::new(codes::CT_UNHEALTHY, format!("wait until the service `{}` is healthy", unit.name))
            .because(format!("after {} s: {last}", since.elapsed().as_secs()))
            .hint(format!(
                "see `docker logs {}`; a slow start needs a longer `start-timeout` of [stack]",
                unit.container
            )))
    }

    /// `None` when it is well, else why not.
    async fn ask(
        &self,
        found: &Container,
        since: Instant,
        patience: Duration,
        context: &RunContext,
    ) -> Result<Option<String>> {
        if let Some(check) = &found.check {
            let left = patience.saturating_sub(since.elapsed()).max(POLL);
            return checked(found, check, left).await;
        }
        match found.state.healthy {
            Some(true) => return Ok(None),
            Some(false) => return Ok(Some("the engine calls it unhealthy".to_owned())),
            None => {}
        }
        // The probes of other kinds do not ask a server.
        let asks = |kind| matches!(kind, ComponentKind::Redis | ComponentKind::Prometheus);
        let mut probes =
            self.options.at_rest.iter().filter(|(name, component)| *name == found.name && asks(component.kind()));
        let Some((_, component)) = probes.next() else {
            return Ok((since.elapsed() < STEADY).then(|| "it does not run long enough yet".to_owned()));
        };
        let findings = component.probe(context).await?;
        Ok(findings.into_iter().find(|finding| finding.level == Level::Bad).map(|finding| finding.text))
    }

    fn kept(&self) -> Option<Vec<Unit>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A second stop (for a roll-back) is about the same containers as the first.
    async fn units(&self) -> Result<Vec<Unit>> {
        if let Some(units) = self.kept() {
            return Ok(units);
        }
        let units = self.plan().await?;
        *self.units.lock().unwrap_or_else(PoisonError::into_inner) = Some(units.clone());
        Ok(units)
    }
}

#[async_trait]
impl Services for StackServices {
    async fn stop(&self, context: &RunContext) -> Result<Vec<String>> {
        let units = self.units().await?;
        let mut stopped: Vec<&Unit> = Vec::new();
        for unit in units.iter().rev() {
            context.monitor.phase("services", &format!("stop {}", unit.name));
            let result = context.cancel.check();
            let result = match result {
                Ok(()) => self.stop_one(unit).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = result {
                let mut left = Vec::new();
                for unit in stopped.iter().rev() {
                    if self.start_one(unit, context).await.is_err() {
                        left.push(unit.container.clone());
                    }
                }
                let note =
                    if left.is_empty() { String::new() } else { format!("; start by hand: {}", left.join(", ")) };
                return Err(fault.during(format!("stop the services before the restore (nothing was touched{note})")));
            }
            stopped.push(unit);
        }
        Ok(stopped.into_iter().map(|unit| unit.name.clone()).collect())
    }

    async fn start(&self, context: &RunContext) -> Result<Vec<String>> {
        // A recovery that goes on after a kill did not stop them in this process.
        let units = if self.options.all { self.units().await? } else { self.kept().unwrap_or_default() };
        let mut started = Vec::with_capacity(units.len());
        for unit in &units {
            context.monitor.phase("services", &format!("start {}", unit.name));
            self.start_one(unit, context).await?;
            started.push(unit.name.clone());
        }
        Ok(started)
    }
}

/// The containers of a project, by service. Compose (and podman-compose) mark them with labels; a
/// `container_name` will do where there are none.
pub(super) async fn of_project(engine: &Engine, project: &Project) -> Result<BTreeMap<String, Vec<Container>>> {
    let filters = std::collections::HashMap::from([("label", vec![format!("{PROJECT_LABEL}={}", project.name)])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let listed = engine.docker().await?.list_containers(Some(options)).await;
    let listed = listed.map_err(|error| engine.fault("list the containers of the compose project", error))?;
    let mut found: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for summary in listed {
        let service = summary.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)).cloned();
        let name =
            summary.names.unwrap_or_default().into_iter().next().map(|name| name.trim_start_matches('/').to_owned());
        if let (Some(service), Some(name)) = (service, name.or(summary.id)) {
            found.entry(service).or_default().push(engine.container(&name).await?);
        }
    }
    for (name, service) in &project.services {
        if let (false, Some(container)) = (found.contains_key(name), &service.container_name) {
            match engine.container(container).await {
                Ok(container) => {
                    found.insert(name.clone(), vec![container]);
                }
                Err(fault) if fault.is(codes::CT_ABSENT) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(found)
}

/// Runs a health check as the engine would: engines without a service manager never do.
async fn checked(container: &Container, check: &Check, left: Duration) -> Result<Option<String>> {
    let inside = container.inside();
    let run = inside.run(check.command.clone(), Vec::new());
    match tokio::time::timeout(check.timeout.min(left), run).await {
        Ok(Ok(exit)) if exit.code == 0 => Ok(None),
        Ok(Ok(exit)) => Ok(Some(format!("its health check ended with exit status {} ({})", exit.code, exit.stderr))),
        // It may have stopped this moment: the next look at it says so.
        Ok(Err(fault)) if fault.is(codes::CT_SOCKET) => Err(fault),
        Ok(Err(fault)) => Ok(Some(fault.chain())),
        Err(_) => Ok(Some("its health check did not end in time".to_owned())),
    }
}
