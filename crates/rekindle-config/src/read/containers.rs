//! What a configuration says about containers.

use std::ops::Range;
use std::path::PathBuf;

use rekindle_core::codes;
use rekindle_core::objective::Objective;
use rekindle_core::tripwire::Thresholds;

use crate::model::{Component, Compose, Files, Hooks, Kind, Recover, Stack};
use crate::section::Section;

/// The component that a compose file adds.
const COMPOSE: &str = "compose";

/// Compose itself reads this one too, when the first has its usual name.
const OVERRIDES: [(&str, &[&str]); 4] = [
    ("docker-compose.yml", &["docker-compose.override.yml", "docker-compose.override.yaml"]),
    ("docker-compose.yaml", &["docker-compose.override.yml", "docker-compose.override.yaml"]),
    ("compose.yml", &["compose.override.yml", "compose.override.yaml"]),
    ("compose.yaml", &["compose.override.yml", "compose.override.yaml"]),
];

pub(super) fn docker_host(section: &Section<'_>) -> Option<String> {
    let text = section.text("docker-host")?;
    if ["unix:///", "tcp://", "http://"].iter().any(|scheme| text.value.starts_with(scheme)) {
        return Some(text.value.to_owned());
    }
    let hint = "write `unix:///var/run/docker.sock` or `tcp://HOST:PORT`; forward a TLS or ssh endpoint with `ssh -L`";
    section.bad("docker-host", &text.span, "it is neither unix:// nor tcp:// nor http://", hint);
    None
}

pub(super) fn app_services(section: &Section<'_>) -> Vec<String> {
    if section.span_of("compose").is_none()
        && let Some(span) = section.span_of("app-services")
    {
        let hint = "add `compose = \"docker-compose.yml\"`";
        section.bad("app-services", &span, "it names services of no compose file", hint);
    }
    let services = section.texts("app-services").map(|at| at.value).unwrap_or_default();
    services.into_iter().map(|at| at.value.to_owned()).collect()
}

/// The compose file, what compose reads with it, and what the engine knows, as a component of its own.
pub(super) fn add_compose(top: &Section<'_>, stack: &Stack, components: &mut Vec<(Component, Range<usize>)>) {
    for (component, _) in components.iter_mut() {
        if let Some(place) = &mut component.container {
            place.docker_host.clone_from(&stack.docker_host);
        }
    }
    let Some(file) = &stack.compose else { return };
    let Ok(id) = COMPOSE.parse() else { return };
    if let Some((_, span)) = components.iter().find(|(one, _)| one.id == id) {
        let why = "this name is taken by the component that `compose` of [stack] adds";
        top.bad("component.compose", span, why, "rename the component");
        return;
    }
    let span = top.raw_table("stack").map_or(0..0, |(_, span)| span);
    let files = Files {
        paths: compose_files(file),
        exclude: Vec::new(),
        one_file_system: false,
        exclude_caches: false,
        vanished: None,
        changed: None,
        unreadable: None,
        compose: Some(Compose { file: file.clone(), docker_host: stack.docker_host.clone() }),
    };
    let component = Component {
        id,
        kind: Kind::Files(files),
        container: None,
        schedule: None,
        objective: Objective::default(),
        retention: None,
        hooks: Hooks::default(),
        checks: crate::model::Checks::default(),
        tripwire: Thresholds::default(),
        recover: Recover::default(),
    };
    components.push((component, span));
}

fn compose_files(file: &std::path::Path) -> Vec<PathBuf> {
    let name = file.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let overrides = OVERRIDES.iter().find(|(main, _)| *main == name).map_or(&[][..], |(_, overrides)| overrides);
    let beside = overrides.iter().chain(&[".env"]).map(|name| file.with_file_name(name));
    std::iter::once(file.to_owned()).chain(beside.filter(|path| path.exists())).collect()
}

/// A key that does nothing is an error.
pub(super) fn refuse_unused(
    top: &Section<'_>,
    stack: &Stack,
    hooks: Option<&Hooks>,
    components: &[(Component, Range<usize>)],
) {
    let in_hooks = |hooks: &Hooks| hooks.container.is_some();
    let used = stack.compose.is_some()
        || hooks.is_some_and(in_hooks)
        || components.iter().any(|(one, _)| one.container.is_some() || in_hooks(&one.hooks));
    let Some((table, _)) = top.raw_table("stack") else { return };
    for key in ["docker-host", "start-timeout"] {
        if let (false, Some(value)) = (used, table.get(key)) {
            let text = format!("`stack.{key}`: nothing of this stack is in a container");
            let hint = "add `container = \"NAME\"` to a component or `compose` to [stack], or remove the key";
            top.sink.add(codes::CONFIG_VALUE, value.span(), text, Some(hint.to_owned()));
        }
    }
}
