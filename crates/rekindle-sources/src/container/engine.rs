//! The connection to a container engine: Docker, or Podman's API that answers as Docker's does.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::InspectContainerOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use rekindle_core::{Fault, Result, codes};
use tokio::sync::OnceCell;

use super::inspect::Container;

/// Longest wait for one answer of the engine. Stopping a container takes its stop timeout.
const ANSWER_MAX: Duration = Duration::from_mins(3);
/// Longest wait for the first answer: a socket that nobody serves must not look like work.
const HELLO_MAX: Duration = Duration::from_secs(15);
/// Status of an HTTP answer that means "there is none".
const NOT_FOUND: u16 = 404;

/// Where the engine is looked for.
#[derive(Debug, Clone, Default)]
pub struct EnginePlaces {
    /// `unix:///path`, `tcp://host:port` or `http://host:port`: the only place that is tried.
    pub host: Option<String>,
    /// Sockets that are tried in this order when no place is named.
    pub sockets: Vec<PathBuf>,
}

/// A container engine; connected at its first use.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    places: EnginePlaces,
    docker: OnceCell<Docker>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Engine").field(&self.0.places).finish()
    }
}

impl Engine {
    /// An engine that is not asked anything yet.
    pub fn new(places: EnginePlaces) -> Self {
        Self(Arc::new(Shared { places, docker: OnceCell::new() }))
    }

    /// Its address, for reading.
    pub fn address(&self) -> String {
        let places = &self.0.places;
        let socket =
            || places.sockets.iter().find(|path| path.exists()).map(|path| format!("unix://{}", path.display()));
        places.host.clone().or_else(socket).unwrap_or_else(|| "no socket".to_owned())
    }

    /// The connection; asked for its version once, which also agrees on the version of the API.
    pub(super) async fn docker(&self) -> Result<&Docker> {
        self.0.docker.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Docker> {
        let docker = self.open()?;
        let asked = tokio::time::timeout(HELLO_MAX, docker.negotiate_version()).await;
        match asked {
            Ok(Ok(docker)) => Ok(docker),
            Ok(Err(error)) => Err(self.refused(error)),
            Err(_) => Err(self.refused(format!("no answer within {} s", HELLO_MAX.as_secs()))),
        }
    }

    fn open(&self) -> Result<Docker> {
        let places = &self.0.places;
        let seconds = ANSWER_MAX.as_secs();
        let opened = match &places.host {
            Some(host) if host.starts_with("unix://") => Docker::connect_with_unix(host, seconds, API_DEFAULT_VERSION),
            Some(host) if host.starts_with("tcp://") || host.starts_with("http://") => {
                Docker::connect_with_http(host, seconds, API_DEFAULT_VERSION)
            }
            Some(_) => {
                return Err(Fault::new(codes::CT_SOCKET, "read the address of the container engine")
                    .because("it is neither unix:// nor tcp:// nor http://")
                    .hint("set `docker-host` of [stack] to `unix:///var/run/docker.sock`, or to `tcp://HOST:PORT` of a socket proxy (TLS and ssh: forward the socket with `ssh -L`)"));
            }
            None => {
                let Some(path) = places.sockets.iter().find(|path| path.exists()) else {
                    return Err(no_socket(&places.sockets));
                };
                Docker::connect_with_unix(&format!("unix://{}", path.display()), seconds, API_DEFAULT_VERSION)
            }
        };
        opened.map_err(|error| self.refused(error))
    }

    fn refused(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        let address = self.address();
        let hint = match address.strip_prefix("unix://") {
            Some(socket) => remedy(Path::new(socket)),
            None => {
                "check the address, and that the socket proxy lets CONTAINERS, EXEC, IMAGES and POST through".to_owned()
            }
        };
        Fault::new(codes::CT_SOCKET, format!("reach the container engine at {address}")).because(cause).hint(hint)
    }

    /// What the engine says about itself: `Docker 24.0.7`, `Podman Engine 4.3.1`.
    pub async fn version(&self) -> Result<String> {
        let version = self.docker().await?.version().await.map_err(|error| self.fault("ask for the version", error))?;
        let component = version.components.unwrap_or_default().into_iter().next();
        let name = component.as_ref().map_or("Docker", |one| one.name.as_str());
        let number = version.version.unwrap_or_default();
        Ok(format!("{} {number}", if name == "Engine" { "Docker" } else { name }))
    }

    /// A container by name or id, with what is known about it.
    pub async fn container(&self, name: &str) -> Result<Container> {
        let found = self.docker().await?.inspect_container(name, None::<InspectContainerOptions>).await;
        match found {
            Ok(found) => Ok(Container::new(self.clone(), name, found)),
            Err(Error::DockerResponseServerError { status_code: NOT_FOUND, .. }) => {
                Err(Fault::new(codes::CT_ABSENT, format!("find the container `{name}`"))
                    .because(format!("{} has none of this name", self.address()))
                    .hint("see the names with `docker ps -a` or `podman ps -a`; create it again from the compose file (`docker compose up -d`), or correct `container`"))
            }
            Err(error) => Err(self.fault(&format!("look at the container `{name}`"), error)),
        }
    }

    /// Whether the image of this id or name is here.
    pub async fn has_image(&self, image: &str) -> Result<bool> {
        match self.docker().await?.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(self.fault(&format!("look at the image `{image}`"), error)),
        }
    }

    /// An error of the engine, in our words.
    pub(super) fn fault(&self, what: &str, error: Error) -> Fault {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Fault::new(codes::CT_ANSWER, what).because(format!("{message} (status {status_code})")).hint(
                    "see the engine's log (`journalctl -u docker`); behind a socket proxy, check what it lets through",
                )
            }
            Error::RequestTimeoutError => Fault::new(codes::CT_ANSWER, what)
                .because(format!("no answer within {} s", ANSWER_MAX.as_secs()))
                .hint("see whether the engine still works: `docker ps`"),
            error => self.refused(error).during(what.to_owned()),
        }
    }
}

fn no_socket(tried: &[PathBuf]) -> Fault {
    let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
    Fault::new(codes::CT_SOCKET, "find the socket of Docker or Podman")
        .because(format!("there is none of {}", tried.join(", ")))
        .hint(
            "start it (`systemctl start docker`, or `systemctl start podman.socket`), or name its place with `docker-host` of [stack] or DOCKER_HOST",
        )
}

/// What to do about a socket that does not answer.
fn remedy(socket: &Path) -> String {
    let here = std::os::unix::net::UnixStream::connect(socket);
    match here {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "run rekindle as root or as a member of the socket's group; or give it a socket proxy (`docker-host`)".to_owned()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("start Docker or Podman's socket so that {} exists, or correct `docker-host`", socket.display())
        }
        _ => "nobody serves this socket: start Docker (`systemctl start docker`) or Podman (`systemctl start podman.socket`)".to_owned(),
    }
}
