//! Components, hooks and services in containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_config::{Component as Configured, Config, InContainer, Kind};
use rekindle_core::port::{Component, Services};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, Secret};
use rekindle_sources::container::{
    Build, ComposeComponent, Contained, Container, Engine, EnginePlaces, ServicesOptions, StackHooks, StackServices,
    Use,
};
use rekindle_sources::files::FilesOptions;

use super::components::{self, Wishes};

/// Where the official images keep their data.
const REDIS_DATA: &str = "/data";
const PROMETHEUS_DATA: &str = "/prometheus";
const GRAFANA_DATA: &str = "/var/lib/grafana";
const GRAFANA_INI: &str = "/etc/grafana/grafana.ini";
const GRAFANA_KEY: &str = "GF_SECURITY_SECRET_KEY";

/// The configured engine, else that of DOCKER_HOST, else what serves one of the usual sockets.
pub(crate) fn engine(host: Option<&str>) -> Engine {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut sockets: Vec<PathBuf> = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from).to_vec();
    sockets.extend(variable("XDG_RUNTIME_DIR").map(|directory| Path::new(&directory).join("podman/podman.sock")));
    sockets.extend(variable("HOME").map(|directory| Path::new(&directory).join(".docker/run/docker.sock")));
    Engine::new(EnginePlaces { host: host.map(str::to_owned).or_else(|| variable("DOCKER_HOST")), sockets })
}

/// A runner that knows containers; it asks for the engine only when a hook names one.
pub(crate) fn hook_runner(config: Option<&Config>) -> Arc<StackHooks> {
    Arc::new(StackHooks::new(engine(config.and_then(|config| config.stack.docker_host.as_deref()))))
}

/// A component in a container. What is wrong with its configuration is told now; the container is looked at
/// when it is needed.
pub(crate) fn contained(
    configured: &Configured,
    place: &InContainer,
    stack: &str,
    own_places: &[PathBuf],
    wishes: &Wishes,
) -> Result<Arc<dyn Component>> {
    components::plain(configured, stack, own_places, wishes, None)?;
    let (configured, own_places, wishes) = (configured.clone(), own_places.to_vec(), wishes.clone());
    let (stack, id, kind) = (stack.to_owned(), configured.id.clone(), configured.kind());
    let build: Build = Arc::new(move |found, to| {
        let Some(container) = found else {
            return components::plain(&configured, &stack, &own_places, &wishes, None);
        };
        let mut there = configured.clone();
        there.kind = on_this_host(there.kind, container, to)?;
        components::plain(&there, &stack, &own_places, &wishes, Some(container))
    });
    Ok(Arc::new(Contained::new(id, kind, engine(place.docker_host.as_deref()), place.name.clone(), build)))
}

/// The files of a compose project.
pub(crate) fn compose(
    id: ComponentId,
    place: &rekindle_config::Compose,
    mut files: FilesOptions,
) -> Arc<dyn Component> {
    let engine = engine(place.docker_host.as_deref());
    // A configuration named by a relative path has relative paths in it; a part of files has whole ones.
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    files.paths = files.paths.iter().map(|path| whole(path)).collect();
    Arc::new(ComposeComponent::new(id, engine, whole(&place.file), files))
}

/// Paths inside the container become paths of this host.
fn on_this_host(kind: Kind, container: &Container, to: Use) -> Result<Kind> {
    let usual = |configured: &Option<PathBuf>, usual: &str| match configured {
        Some(path) => container.host_path(path),
        None => container.host_path(Path::new(usual)),
    };
    Ok(match kind {
        Kind::Postgres(postgres) => Kind::Postgres(postgres),
        Kind::Redis(mut redis) => {
            // Saved over the wire: only a restore in place needs the directory.
            redis.data_dir = match (usual(&redis.data_dir, REDIS_DATA), to) {
                (Ok(path), _) => Some(path),
                (Err(_), Use::Capture) => None,
                (Err(fault), Use::Restore) => return Err(fault),
            };
            Kind::Redis(redis)
        }
        Kind::Files(mut files) => {
            files.paths = files.paths.iter().map(|path| container.host_path(path)).collect::<Result<_>>()?;
            Kind::Files(files)
        }
        Kind::Prometheus(mut prometheus) => {
            let inside = prometheus.data_dir.clone().unwrap_or_else(|| PathBuf::from(PROMETHEUS_DATA));
            prometheus.data_dir = Some(container.host_path(&inside)?);
            prometheus.config_paths = Some(match prometheus.config_paths {
                Some(paths) => paths.iter().map(|path| container.host_path(path)).collect::<Result<_>>()?,
                None => beside(container, &inside),
            });
            Kind::Prometheus(prometheus)
        }
        Kind::Grafana(mut grafana) => {
            let inside = grafana.data_dir.clone().unwrap_or_else(|| PathBuf::from(GRAFANA_DATA));
            grafana.data_dir = Some(container.host_path(&inside)?);
            grafana.database = grafana.database.as_deref().map(|path| container.host_path(path)).transpose()?;
            grafana.config = match grafana.config {
                Some(path) => Some(container.host_path(&path)?),
                None => container.host_path(Path::new(GRAFANA_INI)).ok().filter(|path| path.exists()),
            };
            grafana.config_paths = if grafana.config_paths.is_empty() {
                beside(container, &inside)
            } else {
                grafana.config_paths.iter().map(|path| container.host_path(path)).collect::<Result<_>>()?
            };
            Kind::Grafana(grafana)
        }
    })
}

/// What is mounted besides the data: its configuration. Sockets and pseudo files are not saved.
fn beside(container: &Container, data: &Path) -> Vec<PathBuf> {
    let others = container.mounts.iter().filter(|mount| !data.starts_with(&mount.destination));
    let readable = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_dir() || meta.is_file());
    let mut paths: Vec<PathBuf> = others.map(|mount| mount.source.clone()).filter(readable).collect();
    paths.retain(|path| !["/proc", "/sys", "/dev", "/run", "/var/run"].iter().any(|system| path.starts_with(system)));
    paths
}

/// The key of a Grafana whose container gets it through its environment.
pub(crate) fn grafana_key(container: &Container) -> Option<Secret<String>> {
    container.variable(GRAFANA_KEY)
}

/// What has to be stopped around a restore in place of these components; `None` when nothing has. `all`: also what does
/// not run now, so that everything runs at the end.
pub(crate) fn services(config: &Config, ids: &[ComponentId], all: bool) -> Result<Option<Arc<dyn Services>>, Fault> {
    let mut at_rest = Vec::new();
    for one in config.components.iter().filter(|one| ids.contains(&one.id)) {
        // PostgreSQL is restored through its server.
        if let (Some(place), false) = (&one.container, one.kind() == ComponentKind::Postgres) {
            at_rest
                .push((place.name.clone(), components::of_config(one, &config.stack.name, &[], &Wishes::default())?));
        }
    }
    if at_rest.is_empty() && config.stack.app_services.is_empty() {
        return Ok(None);
    }
    let options = ServicesOptions {
        compose: config.stack.compose.clone(),
        app_services: config.stack.app_services.clone(),
        at_rest,
        all,
        patience: config.stack.start_timeout,
    };
    Ok(Some(Arc::new(StackServices::new(engine(config.stack.docker_host.as_deref()), options))))
}
