//! What runs on this host: a look that changes nothing, for `init`.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rekindle_config::DraftComponent;

/// Longest wait for an answer of a local port.
const CONNECT_MAX: Duration = Duration::from_millis(300);
const POSTGRES_SOCKETS: [&str; 3] = ["/run/postgresql", "/var/run/postgresql", "/tmp"];
const REDIS_SOCKETS: [&str; 4] =
    ["/run/redis/redis-server.sock", "/run/redis/redis.sock", "/run/valkey/valkey.sock", "/tmp/redis.sock"];
const GRAFANA_DATA: [&str; 2] = ["/var/lib/grafana", "/usr/share/grafana/data"];
const COMPOSE_FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

/// The components to suggest. `directory` is where a compose file may stand.
pub(crate) fn look(directory: &Path) -> Vec<DraftComponent> {
    let services = compose_services(directory);
    postgres(&services).into_iter().chain(redis(&services)).chain(prometheus(&services)).chain(grafana()).collect()
}

fn answers(port: u16) -> bool {
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&local, CONNECT_MAX).is_ok()
}

fn postgres(services: &[Service]) -> Option<DraftComponent> {
    let draft =
        |url: String, found: String| DraftComponent::Postgres { id: "database".to_owned(), url, password: None, found };
    if answers(5432) {
        let found = "Something answers on 127.0.0.1:5432. Set user and password.".to_owned();
        return Some(draft("postgres://postgres@127.0.0.1:5432/postgres".to_owned(), found));
    }
    let socket = POSTGRES_SOCKETS.into_iter().find(|place| Path::new(place).join(".s.PGSQL.5432").exists());
    if let Some(place) = socket {
        let found = format!("There is a PostgreSQL socket in {place}. Set the user.");
        return Some(draft(format!("postgres://postgres@/postgres?host={place}"), found));
    }
    let service = services.iter().find(|service| service.runs(&["postgres", "postgis", "timescale"]))?;
    let url = format!("postgres://postgres@{}:5432/postgres", service.name);
    Some(draft(url, service.found()))
}

fn redis(services: &[Service]) -> Option<DraftComponent> {
    let draft =
        |url: String, found: String| DraftComponent::Redis { id: "cache".to_owned(), url, password: None, found };
    if answers(6379) {
        let found = "Something answers on 127.0.0.1:6379.".to_owned();
        return Some(draft("redis://127.0.0.1:6379".to_owned(), found));
    }
    if let Some(socket) = REDIS_SOCKETS.into_iter().find(|place| Path::new(place).exists()) {
        return Some(draft(format!("unix://{socket}"), format!("There is a socket at {socket}.")));
    }
    let service = services.iter().find(|service| service.runs(&["redis", "valkey"]))?;
    Some(draft(format!("redis://{}:6379", service.name), service.found()))
}

fn prometheus(services: &[Service]) -> Option<DraftComponent> {
    let draft = |url: String, found: String| DraftComponent::Prometheus { id: "metrics".to_owned(), url, found };
    if answers(9090) {
        let found = "Something answers on 127.0.0.1:9090. Is it Prometheus? `rekindle doctor` tells.".to_owned();
        return Some(draft("http://127.0.0.1:9090".to_owned(), found));
    }
    let service = services.iter().find(|service| service.runs(&["prometheus"]))?;
    Some(draft(format!("http://{}:9090", service.name), service.found()))
}

fn grafana() -> Option<DraftComponent> {
    let data_dir = GRAFANA_DATA.into_iter().find(|place| Path::new(place).join("grafana.db").exists())?;
    let found = format!("There is a database of Grafana in {data_dir}.");
    Some(DraftComponent::Grafana { id: "dashboards".to_owned(), data_dir: data_dir.to_owned(), found })
}

/// A service of a compose file.
#[derive(Debug, PartialEq, Eq)]
struct Service {
    file: &'static str,
    name: String,
    image: String,
}

impl Service {
    /// Whether its image is named so, whatever registry it comes from.
    fn runs(&self, names: &[&str]) -> bool {
        let last = self.image.rsplit('/').next().unwrap_or_default();
        names.iter().any(|name| last.starts_with(name))
    }

    fn found(&self) -> String {
        format!(
            "{} runs `{}` as the service `{}`: this URL works inside its network.",
            self.file, self.image, self.name
        )
    }
}

fn compose_services(directory: &Path) -> Vec<Service> {
    let read = |file: &'static str| {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        Some(services_of(file, &text))
    };
    COMPOSE_FILES.into_iter().find_map(read).unwrap_or_default()
}

/// Services with an image, judged by indentation: enough for a suggestion that people check.
fn services_of(file: &'static str, text: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let (mut inside, mut depth, mut name) = (false, None, String::new());
    for line in text.lines() {
        let words = line.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        if indent == 0 {
            inside = words == "services:";
            continue;
        }
        if !inside {
            continue;
        }
        if indent <= *depth.get_or_insert(indent) {
            words.trim_end_matches(':').trim_matches(['"', '\'']).clone_into(&mut name);
        } else if let Some(image) = words.strip_prefix("image:") {
            let image = image.trim().trim_matches(['"', '\'']).to_owned();
            let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !name.is_empty() && name.chars().all(host) {
                services.push(Service { file, name: name.clone(), image });
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_images_are_found() {
        let text = "\
name: x
services:
  # the data
  db:
    image: \"docker.io/library/postgres:16\"
    environment:
      image: no
  'queue':
    build: .
    image: redis:7-alpine
volumes:
  image: none
";
        let services = services_of("compose.yaml", text);
        let names: Vec<_> = services.iter().map(|one| (one.name.as_str(), one.image.as_str())).collect();
        assert_eq!(names, [("db", "docker.io/library/postgres:16"), ("db", "no"), ("queue", "redis:7-alpine")]);
        assert!(services[0].runs(&["postgres"]) && !services[0].runs(&["redis"]));
        assert!(services[2].runs(&["redis"]));
    }
}
