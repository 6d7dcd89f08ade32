//! What is known about one container: state, mounts, ports, health check.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use rekindle_core::{Fault, Result, Secret, codes};

use super::engine::Engine;
use super::exec::Inside;

/// Longest run of a health check when the container does not say.
const CHECK_MAX: Duration = Duration::from_secs(30);

/// A container as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Container {
    engine: Engine,
    /// As it was asked for.
    pub name: String,
    pub id: String,
    pub state: State,
    /// Id of its image (`sha256:…`), and the name it was made from.
    pub image_id: String,
    pub image: String,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    /// Ports inside, by the port on this host.
    pub ports: BTreeMap<u16, u16>,
    pub networks: Vec<String>,
    /// Its environment may hold secrets.
    variables: BTreeMap<String, Secret<String>>,
    /// The command of its health check, as the image or the compose file has it.
    pub check: Option<Check>,
}

/// Whether it runs, and how it feels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub running: bool,
    pub exit_code: i64,
    /// The engine's own verdict, when it has one.
    pub healthy: Option<bool>,
    /// As the engine words it: `running`, `exited`, …
    pub word: String,
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub command: Vec<String>,
    pub timeout: Duration,
}

/// Something of the host (or a volume) inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Name, when it is a volume.
    pub volume: Option<String>,
    /// Where it is on the engine's host.
    pub source: PathBuf,
    /// Where it is inside.
    pub destination: PathBuf,
    pub writable: bool,
}

impl Container {
    pub(super) fn new(engine: Engine, name: &str, found: ContainerInspectResponse) -> Self {
        let config = found.config.unwrap_or_default();
        let network = found.network_settings.unwrap_or_default();
        Self {
            engine,
            name: name.to_owned(),
            id: found.id.unwrap_or_else(|| name.to_owned()),
            state: state(found.state.unwrap_or_default()),
            image_id: found.image.unwrap_or_default(),
            image: config.image.unwrap_or_default(),
            mounts: found.mounts.unwrap_or_default().into_iter().filter_map(mount).collect(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            ports: network.ports.map(ports).unwrap_or_default(),
            networks: network.networks.unwrap_or_default().into_keys().collect(),
            variables: variables(&config.env.unwrap_or_default()),
            check: config.healthcheck.and_then(check),
        }
    }

    /// An error unless it runs.
    pub fn running(&self) -> Result<()> {
        if self.state.running {
            return Ok(());
        }
        Err(Fault::new(codes::CT_STOPPED, format!("work with the container `{}`", self.name))
            .because(format!("it is {} (exit code {})", self.state.word, self.state.exit_code))
            .hint(format!("see why with `docker logs {0}`, then `docker start {0}`", self.name)))
    }

    /// Where a path inside it is on this host.
    pub fn host_path(&self, inside: &Path) -> Result<PathBuf> {
        let fault =
            || Fault::new(codes::CT_VOLUME, format!("find `{}` of the container `{}`", inside.display(), self.name));
        let holding =
            self.mounts.iter().filter_map(|mount| Some((mount, inside.strip_prefix(&mount.destination).ok()?)));
        // The innermost mount is the one that is seen.
        let Some((mount, rest)) = holding.max_by_key(|(mount, _)| mount.destination.components().count()) else {
            let known: Vec<String> =
                self.mounts.iter().map(|mount| format!("`{}`", mount.destination.display())).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return Err(fault()
                .because(format!("it is in no volume; mounted are: {known}"))
                .hint("what is in no volume goes with the container: put the data into a volume, or name the path inside the container where its volume is"));
        };
        let path = if rest.as_os_str().is_empty() { mount.source.clone() } else { mount.source.join(rest) };
        match std::fs::symlink_metadata(&mount.source) {
            Ok(_) => Ok(path),
            Err(error) => Err(fault()
                .because(format!("its volume is `{}` on the engine's host: {error}", mount.source.display()))
                .hint("run rekindle on that host, as root or with access to the volume; or mount the volume into rekindle's own container under the same path")),
        }
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<Secret<String>> {
        self.variables.get(name).filter(|value| !value.expose().is_empty()).cloned()
    }

    /// The port inside for one on this host; the same when it is not published.
    pub fn port_inside(&self, on_host: u16) -> u16 {
        self.ports.get(&on_host).copied().unwrap_or(on_host)
    }

    /// It, as the place where programs run. To be called on the runtime that serves the engine.
    pub fn inside(&self) -> Inside {
        Inside::new(self.engine.clone(), self.name.clone(), self.id.clone())
    }
}

fn state(state: bollard::models::ContainerState) -> State {
    let health = state.health.and_then(|health| health.status);
    State {
        running: state.running.unwrap_or(false) && !state.paused.unwrap_or(false) && !state.restarting.unwrap_or(false),
        exit_code: state.exit_code.unwrap_or(0),
        healthy: match health {
            Some(HealthStatusEnum::HEALTHY) => Some(true),
            Some(HealthStatusEnum::UNHEALTHY) => Some(false),
            _ => None,
        },
        word: state.status.map_or_else(|| "in an unknown state".to_owned(), |status| status.to_string()),
    }
}

fn variables(list: &[String]) -> BTreeMap<String, Secret<String>> {
    let split = list.iter().filter_map(|one| one.split_once('='));
    split.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).collect()
}

fn mount(mount: bollard::models::MountPoint) -> Option<Mount> {
    Some(Mount {
        volume: mount.name.filter(|name| !name.is_empty()),
        source: PathBuf::from(mount.source.filter(|source| !source.is_empty())?),
        destination: PathBuf::from(mount.destination?),
        writable: mount.rw.unwrap_or(true),
    })
}

fn ports(map: bollard::models::PortMap) -> BTreeMap<u16, u16> {
    let mut ports = BTreeMap::new();
    for (inside, bindings) in map {
        // `5432/tcp`
        let Some(inside) = inside.strip_suffix("/tcp").and_then(|number| number.parse().ok()) else { continue };
        for binding in bindings.unwrap_or_default() {
            if let Some(outside) = binding.host_port.and_then(|number| number.parse().ok()) {
                ports.insert(outside, inside);
            }
        }
    }
    ports
}

/// `["CMD", program, …]`, `["CMD-SHELL", line]`, or `["NONE"]`.
fn check(config: bollard::models::HealthConfig) -> Option<Check> {
    let test = config.test?;
    let (kind, rest) = test.split_first()?;
    let command = match kind.as_str() {
        "CMD" if !rest.is_empty() => rest.to_vec(),
        "CMD-SHELL" if !rest.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
        _ => return None,
    };
    let nanoseconds = config.timeout.and_then(|timeout| u64::try_from(timeout).ok()).filter(|timeout| *timeout > 0);
    Some(Check { command, timeout: nanoseconds.map_or(CHECK_MAX, Duration::from_nanos) })
}

#[cfg(test)]
mod tests {
    use bollard::models::HealthConfig;

    use super::*;
    use crate::container::EnginePlaces;

    fn container(mounts: Vec<Mount>) -> Container {
        Container {
            engine: Engine::new(EnginePlaces::default()),
            name: "c".to_owned(),
            id: "c".to_owned(),
            state: State { running: true, exit_code: 0, healthy: None, word: "running".to_owned() },
            image_id: String::new(),
            image: String::new(),
            mounts,
            labels: BTreeMap::new(),
            ports: BTreeMap::from([(15432, 5432)]),
            networks: Vec::new(),
            variables: BTreeMap::new(),
            check: None,
        }
    }

    #[test]
    fn the_innermost_mount_says_where_a_path_is() {
        let host = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            std::fs::create_dir_all(host.path().join(name)).unwrap();
            host.path().join(name)
        };
        let mount =
            |source: PathBuf, inside: &str| Mount { volume: None, source, destination: inside.into(), writable: true };
        let found =
            container(vec![mount(at("a"), "/data"), mount(at("b"), "/data/inner"), mount("/gone/away".into(), "/far")]);
        assert_eq!(found.host_path(Path::new("/data")).unwrap(), at("a"));
        assert_eq!(found.host_path(Path::new("/data/x/y")).unwrap(), at("a").join("x/y"));
        assert_eq!(found.host_path(Path::new("/data/inner/z")).unwrap(), at("b").join("z"));
        for (path, told) in [("/database", "in no volume"), ("/far/x", "/gone/away")] {
            let fault = found.host_path(Path::new(path)).unwrap_err();
            assert!(fault.is(codes::CT_VOLUME) && fault.chain().contains(told), "{fault:?}");
            assert!(fault.hint_text().is_some());
        }
        assert_eq!((found.port_inside(15432), found.port_inside(5432)), (5432, 5432));
    }

    #[test]
    fn health_checks_are_commands_or_none() {
        let of = |words: &[&str]| {
            let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
            check(HealthConfig { test, timeout: Some(5_000_000_000), ..HealthConfig::default() })
        };
        let found = of(&["CMD", "redis-cli", "ping"]).unwrap();
        assert_eq!((found.command.len(), found.timeout), (2, Duration::from_secs(5)));
        assert_eq!(of(&["CMD-SHELL", "pg_isready -q"]).unwrap().command[2], "pg_isready -q");
        assert_eq!((of(&["NONE"]), of(&["CMD"])), (None, None));
    }
}
