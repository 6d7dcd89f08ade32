//! From tables to the checked configuration, rule by rule.

mod component;
mod containers;
mod copy;
pub(crate) mod fleet;
mod group;
mod kinds;
mod monitoring;
mod notify;
mod policy;
mod repository;
mod serve;

use std::path::Path;

use rekindle_core::codes;
use rekindle_core::tripwire::Thresholds;
use toml::de::DeTable;

use crate::model::{Component, Config, Files, Kind, Stack};
use crate::problem::{Problems, Sink};
use crate::section::Section;
use crate::spec;

/// Names of stacks and hosts go into file names and snapshots.
const NAME_LENGTH_MAX: usize = 63;

/// Reads a whole file.
pub(crate) fn config(file: &Path, text: &str) -> Result<Config, Problems> {
    let sink = Sink::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let hint = syntax_hint(error.message());
            sink.add(codes::CONFIG_SYNTAX, span, error.message().replace('\n', ", "), Some(hint));
        }
        return sink.finish(None);
    }
    let config = from_root(file, root.get_ref(), &sink);
    sink.finish(config)
}

fn syntax_hint(message: &str) -> String {
    if message.contains("duplicate") {
        "remove one of the two".to_owned()
    } else {
        "texts stand in \"…\", lists in […], tables in […] on a line of their own; see toml.io".to_owned()
    }
}

fn from_root<'a>(file: &Path, root: &'a DeTable<'a>, sink: &'a Sink<'a>) -> Option<Config> {
    let top = Section::new(String::new(), root, 0..0, spec::ROOT, sink);
    let stack = top.table("stack", spec::STACK).and_then(|section| stack(&section));
    let repository = top.table("repository", spec::REPOSITORY).and_then(|section| repository::read(&section));
    let hooks = top.table("hooks", spec::HOOKS).map(|section| policy::hooks(&section));
    let retention = top.table("retention", spec::RETENTION).map(|section| policy::retention(&section));
    let drill = top.table("drill", spec::DRILL).map(|section| policy::drill(&section));
    let usual = Thresholds::default();
    let tripwire = top.table("tripwire", spec::TRIPWIRE);
    let tripwire = tripwire.map_or(usual, |section| policy::tripwire(&section, &usual));
    let recover = top.table("recover", spec::RECOVER).map(|section| policy::recover(&section)).unwrap_or_default();
    let mut components = component::all(&top, &tripwire);
    if let (Some(stack), Some(components)) = (&stack, &mut components) {
        containers::add_compose(&top, stack, components);
        containers::refuse_unused(&top, stack, hooks.as_ref(), components);
    }
    let copies = copy::all(&top);
    let serve = serve::read(&top);
    let pauses = serve::pauses(&top);
    let receivers = notify::all(&top);
    if let (Some(repository), Some(copies), Some(components)) = (&repository, &copies, &components) {
        copy::apart(&top, &repository.url, copies);
        for url in std::iter::once(&repository.url).chain(copies.iter().map(|one| &one.repository.url)) {
            apart(sink, url, components);
        }
    }
    let groups = components.as_ref().and_then(|components| group::all(&top, components));
    Some(Config {
        file: file.to_owned(),
        groups: groups?,
        stack: stack?,
        repository: repository?,
        copies: copies?,
        components: components?.into_iter().map(|(component, _)| component).collect(),
        hooks: hooks.unwrap_or_default(),
        tripwire,
        recover,
        retention: match retention {
            Some(policy) => Some(policy?),
            None => None,
        },
        drill: match drill {
            Some(drill) => drill?,
            None => crate::model::Drill::default(),
        },
        serve: serve?,
        pauses: pauses?,
        receivers: receivers?,
    })
}

fn stack(section: &Section<'_>) -> Option<Stack> {
    let stack = name(section, "name");
    let host = name(section, "host");
    Some(Stack {
        state_dir: section.path("state-dir"),
        max_skew: section.duration("max-skew").map(|at| at.value),
        docker_host: containers::docker_host(section),
        app_services: containers::app_services(section),
        compose: section.path("compose"),
        start_timeout: section.duration("start-timeout").map(|at| at.value),
        host,
        name: stack?,
    })
}

fn name(section: &Section<'_>, key: &str) -> Option<String> {
    let text = section.text(key)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.value.len() > NAME_LENGTH_MAX
        || !text.value.chars().all(good)
        || !text.value.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        section.bad(
            key,
            &text.span,
            "it is not a usable name",
            "use at most 63 letters, digits, `.`, `-` and `_`, and start with a letter or digit",
        );
        return None;
    }
    Some(text.value.to_owned())
}

/// A repository inside what it saves would save itself; the other way round, a restore or prune
/// could write over the source.
fn apart(sink: &Sink<'_>, url: &str, components: &[(Component, std::ops::Range<usize>)]) {
    let path = url.strip_prefix("file://").unwrap_or(url);
    if !path.starts_with('/') {
        return;
    }
    let repository = Path::new(path);
    for (component, span) in components {
        let Kind::Files(Files { paths, .. }) = &component.kind else {
            continue;
        };
        for path in paths {
            let text = if repository.starts_with(path) {
                format!("the repository {} lies inside {}", repository.display(), path.display())
            } else if path.starts_with(repository) {
                format!("{} lies inside the repository {}", path.display(), repository.display())
            } else {
                continue;
            };
            sink.add(
                codes::CONFIG_VALUE,
                span.clone(),
                format!("`component.{}.paths`: {text}", component.id),
                Some("keep the repository outside of what it saves, best on another host".into()),
            );
        }
    }
}
