//! A compose file: which services there are, and which needs which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, codes};
use saphyr::{LoadableYamlNode, Yaml};

/// What a compose file says, as far as it is of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    pub file: PathBuf,
    /// As compose names it: containers, volumes and networks carry it as a label.
    pub name: String,
    pub services: BTreeMap<String, Service>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    pub container_name: Option<String>,
    pub image: Option<String>,
    /// Services that have to run before it.
    pub needs: BTreeSet<String>,
}

fn fault(file: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::CT_COMPOSE, format!("read the compose file `{}`", file.display()))
        .because(why)
        .hint("check it with `docker compose config`, or correct `compose` of [stack]")
}

impl Project {
    /// Reads a compose file and the `.env` beside it.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| fault(file, error))?;
        let environment = std::fs::read_to_string(file.with_file_name(".env")).unwrap_or_default();
        Self::parse(file, &text, &environment)
    }

    fn parse(file: &Path, text: &str, environment: &str) -> Result<Self> {
        let documents = Yaml::load_from_str(text).map_err(|error| fault(file, error.to_string()))?;
        let top = documents.first().ok_or_else(|| fault(file, "it is empty"))?;
        let listed = top.as_mapping_get("services").and_then(Yaml::as_mapping);
        let listed = listed.ok_or_else(|| fault(file, "it has no `services`"))?;
        let services =
            listed.iter().filter_map(|(name, service)| Some((name.as_str()?.to_owned(), Service::of(service))));
        let services: BTreeMap<String, Service> = services.collect();
        let named = top.as_mapping_get("name").and_then(Yaml::as_str).and_then(plain);
        let name = named.or_else(|| from_environment(environment)).unwrap_or_else(|| from_directory(file));
        Ok(Self { file: file.to_owned(), name, services })
    }

    /// An error for a service that the file does not have.
    pub fn known(&self, service: &str) -> Result<()> {
        if self.services.contains_key(service) {
            return Ok(());
        }
        let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
        Err(Fault::new(codes::CT_COMPOSE, format!("find the service `{service}` in `{}`", self.file.display()))
            .because(format!("it has: {}", names.join(", ")))
            .hint("correct `app-services` of [stack]"))
    }
}

impl Service {
    fn of(service: &Yaml<'_>) -> Self {
        let text = |key: &str| service.as_mapping_get(key).and_then(Yaml::as_str).and_then(plain);
        let needs = service.as_mapping_get("depends_on");
        let list = needs.and_then(Yaml::as_vec).into_iter().flatten().filter_map(Yaml::as_str);
        let map = needs.and_then(Yaml::as_mapping).into_iter().flatten().filter_map(|(name, _)| name.as_str());
        Self {
            container_name: text("container_name"),
            image: text("image"),
            needs: list.chain(map).map(str::to_owned).collect(),
        }
    }
}

/// A text that compose takes as it is: without variables.
fn plain(text: &str) -> Option<String> {
    (!text.contains('$') && !text.is_empty()).then(|| text.to_owned())
}

fn from_environment(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("COMPOSE_PROJECT_NAME="))?;
    plain(line.trim().trim_matches(['"', '\'']))
}

/// As compose makes it of the directory: lower case, without other characters than letters, digits, `-`, `_`.
fn from_directory(file: &Path) -> String {
    let directory = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = directory.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

/// The names in the order in which they have to start: a service after what it needs, directly or through
/// services that are not named here. Circles (which compose refuses) are broken by name.
pub(super) fn start_order(wanted: &BTreeSet<String>, needs: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    fn visit(
        name: &str,
        needs: &BTreeMap<String, BTreeSet<String>>,
        seen: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for needed in needs.get(name).into_iter().flatten() {
            visit(needed, needs, seen, order);
        }
        order.push(name.to_owned());
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in wanted {
        visit(name, needs, &mut seen, &mut order);
    }
    order.retain(|name| wanted.contains(name));
    order
}

/// The label of compose: `redis:service_healthy:false,postgres:service_started:true`.
pub(super) fn needs_of_label(label: &str) -> BTreeSet<String> {
    let names = label.split(',').filter_map(|one| one.split(':').next()).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
services:
  frontend: { image: shop/frontend, depends_on: [backend] }
  backend:
    image: ${REGISTRY}/backend
    container_name: prompt-backend
    depends_on:
      postgres: { condition: service_healthy }
      redis: { condition: service_started }
  postgres: { image: 'postgres:16' }
  redis:
    image: redis:7
";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn services_and_their_needs_are_read() {
        let project = Project::parse(Path::new("/opt/Prompt.Card-system/docker-compose.yml"), FILE, "").unwrap();
        assert_eq!(project.name, "promptcard-system");
        assert_eq!(project.services["backend"].needs, set(&["postgres", "redis"]));
        assert_eq!(project.services["backend"].image, None, "a variable is not a name");
        assert_eq!(project.services["backend"].container_name.as_deref(), Some("prompt-backend"));
        assert_eq!(project.services["frontend"].needs, set(&["backend"]));
        assert!(project.known("redis").is_ok());
        let fault = project.known("web").unwrap_err();
        assert!(fault.is(codes::CT_COMPOSE) && fault.chain().contains("backend, frontend"), "{fault:?}");
        let named =
            Project::parse(Path::new("/x/c.yml"), &format!("name: shop\n{FILE}"), "COMPOSE_PROJECT_NAME=y").unwrap();
        assert_eq!(named.name, "shop");
        let named = Project::parse(Path::new("/x/c.yml"), FILE, "A=b\nCOMPOSE_PROJECT_NAME=\"y\"\n").unwrap();
        assert_eq!(named.name, "y");
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        for text in ["", "- a", "services: 3", "a: [", "version: '3'"] {
            let fault = Project::parse(Path::new("/x/c.yml"), text, "").unwrap_err();
            assert!(fault.is(codes::CT_COMPOSE) && fault.hint_text().is_some(), "{text}: {fault:?}");
        }
    }

    #[test]
    fn what_is_needed_starts_first() {
        let needs = BTreeMap::from([
            ("frontend".to_owned(), set(&["backend"])),
            ("backend".to_owned(), set(&["cache", "db"])),
            ("cache".to_owned(), set(&["db"])),
        ]);
        assert_eq!(start_order(&set(&["backend", "cache", "frontend"]), &needs), ["cache", "backend", "frontend"]);
        assert_eq!(start_order(&set(&["frontend", "db"]), &needs), ["db", "frontend"], "through others");
        let circle = BTreeMap::from([("a".to_owned(), set(&["b"])), ("b".to_owned(), set(&["a"]))]);
        assert_eq!(start_order(&set(&["a", "b"]), &circle).len(), 2);
        assert_eq!(needs_of_label("redis:service_healthy:false,pg:service_started:true"), set(&["redis", "pg"]));
        assert_eq!(needs_of_label(""), set(&[]));
    }
}
