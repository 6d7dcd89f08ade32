//! Words of the command line that mean several components: `full`, the groups of the configuration, and
//! some that go by kind.

use rekindle_config::{Config, Kind};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

/// Groups that exist without a configuration, and the kinds in them. A `[group]` of the same name wins.
const BY_KIND: [(&str, &[ComponentKind]); 5] = [
    ("database", &[ComponentKind::Postgres]),
    ("redis", &[ComponentKind::Redis]),
    ("app", &[ComponentKind::Files]),
    // Which files are configuration is for `[group]` to say; those of the compose file are.
    ("config", &[]),
    ("monitoring", &[ComponentKind::Prometheus, ComponentKind::Grafana]),
];

/// The named components, each once; `full` means all, which is an empty list. A component wins over a
/// group of the same name. `known` are those there are to choose from.
pub(crate) fn wanted(
    words: &[String],
    known: &[(ComponentId, ComponentKind)],
    config: Option<&Config>,
) -> Result<Vec<ComponentId>> {
    if words.iter().any(|word| word == "full") {
        return match words.len() {
            1 => Ok(Vec::new()),
            _ => Err(Fault::new(codes::CLI_USAGE, "choose components: `full` means all of them")
                .hint("name `full` alone, or the components without it")),
        };
    }
    let mut ids: Vec<ComponentId> = Vec::new();
    for word in words {
        for id in members(word, known, config)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

fn members(word: &str, known: &[(ComponentId, ComponentKind)], config: Option<&Config>) -> Result<Vec<ComponentId>> {
    let id: ComponentId = word.parse().map_err(|bad: rekindle_core::id::BadId| {
        Fault::new(codes::ENGINE_NO_COMPONENT, "choose components")
            .because(bad)
            .hint("rekindle check-config lists them")
    })?;
    if known.iter().any(|(one, _)| *one == id) {
        return Ok(vec![id]);
    }
    let named = config.and_then(|config| config.groups.get(word));
    let kinds = BY_KIND.iter().find(|(name, _)| *name == word).map(|(_, kinds)| *kinds);
    let found: Vec<ComponentId> = match (named, kinds) {
        (Some(ids), _) => ids.clone(),
        (None, Some(kinds)) => {
            let compose = |id: &ComponentId| config.is_some_and(|config| is_compose(config, id));
            let member = |(id, kind): &&(ComponentId, ComponentKind)| {
                if compose(id) { word == "config" } else { kinds.contains(kind) }
            };
            known.iter().filter(member).map(|(id, _)| id.clone()).collect()
        }
        // Neither: the engine says which components there are.
        (None, None) => return Ok(vec![id]),
    };
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
    Err(Fault::new(codes::ENGINE_NO_COMPONENT, format!("choose the components of the group `{word}`: it is empty"))
        .hint(format!("name its components in `[group]`, as `{word} = [\"…\"]`; there are: {}", names.join(", "))))
}

/// Whether it is the component that `compose` of [stack] adds.
fn is_compose(config: &Config, id: &ComponentId) -> bool {
    let files = config.components.iter().find(|one| one.id == *id).map(|one| &one.kind);
    matches!(files, Some(Kind::Files(files)) if files.compose.is_some())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const STACK: &str = "[stack]\nname = 's'\n[repository]\nurl = '/r'\npassword = 'file:/k'\n[component.db]\nkind = 'postgres'\nurl = 'postgres://u@h/d'\n[component.uploads]\nkind = 'files'\npaths = ['/u']\n[component.settings]\nkind = 'files'\npaths = ['/s']\n[component.metrics]\nkind = 'prometheus'\nurl = 'http://h'\n[component.boards]\nkind = 'grafana'\n";

    fn chosen(words: &[&str], groups: &str) -> Result<Vec<String>> {
        let config = rekindle_config::parse(Path::new("/x.toml"), &format!("{STACK}{groups}"));
        let config = config.map_err(|problems| problems.to_string()).unwrap();
        let known: Vec<_> = config.components.iter().map(|one| (one.id.clone(), one.kind())).collect();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Ok(wanted(&words, &known, Some(&config))?.into_iter().map(String::from).collect())
    }

    #[test]
    fn words_go_by_name_then_group_then_kind() {
        assert_eq!(chosen(&["database", "db"], "").unwrap(), ["db"]);
        assert_eq!(chosen(&["monitoring"], "").unwrap(), ["metrics", "boards"]);
        assert_eq!(chosen(&["app"], "").unwrap(), ["uploads", "settings"]);
        let groups = "[group]\nconfig = ['settings']\napp = ['uploads']\nnight = ['db', 'uploads']\n";
        assert_eq!(chosen(&["app"], groups).unwrap(), ["uploads"]);
        assert_eq!(chosen(&["config", "night"], groups).unwrap(), ["settings", "db", "uploads"]);
        assert_eq!(chosen(&["full"], groups).unwrap(), [""; 0]);
    }

    #[test]
    fn the_compose_file_is_configuration() {
        let stack = STACK.replacen("name = 's'", "name = 's'\ncompose = '/c/docker-compose.yml'", 1);
        let config = rekindle_config::parse(Path::new("/x.toml"), &stack);
        let config = config.map_err(|problems| problems.to_string()).unwrap();
        let known: Vec<_> = config.components.iter().map(|one| (one.id.clone(), one.kind())).collect();
        let chosen = |word: &str| wanted(&[word.to_owned()], &known, Some(&config)).unwrap();
        assert_eq!(chosen("config"), ["compose".parse().unwrap()]);
        assert_eq!(chosen("app"), ["uploads".parse().unwrap(), "settings".parse().unwrap()]);
    }

    #[test]
    fn an_empty_group_says_how_to_fill_it() {
        for (word, groups) in [("config", ""), ("redis", "")] {
            let fault = chosen(&[word], groups).unwrap_err();
            assert!(fault.is(codes::ENGINE_NO_COMPONENT), "{fault:?}");
            assert!(fault.hint_text().unwrap().contains(&format!("`{word} = [")), "{fault:?}");
        }
    }
}
