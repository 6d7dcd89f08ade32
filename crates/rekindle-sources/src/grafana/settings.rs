//! What a Grafana is configured to: its own files, its environment, and its defaults.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, Secret, codes};

use super::details::KeyState;
use super::ini::{Ini, variables};
use super::options::GrafanaOptions;
use crate::files::show;

/// Grafana's own default of `secret_key`: everybody knows it.
pub(super) const DEFAULT_KEY: &str = "SW2YcwTIb9zpOOhoPsMm";
const CONFIG: &str = "/etc/grafana/grafana.ini";
const ENVIRONMENT_FILES: [&str; 2] = ["/etc/default/grafana-server", "/etc/sysconfig/grafana-server"];
const DATA: &str = "/var/lib/grafana";
const PROVISIONING: &str = "/etc/grafana/provisioning";
const HOME: &str = "/usr/share/grafana";

/// The settings that matter here.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) database: PathBuf,
    /// Configuration, provisioning, plugins: those that exist.
    pub(super) files: Vec<PathBuf>,
    /// Paths that its configuration names and that are not on this host.
    pub(super) missing: Vec<PathBuf>,
    pub(super) key_state: KeyState,
    /// The key, when only the configuration of rekindle names it.
    pub(super) named_key: Option<Secret<String>>,
    /// As far as it can be seen without asking the server.
    pub(super) version: Option<String>,
}

/// Grafana's files and environment.
struct Sources {
    ini: Ini,
    environment: BTreeMap<String, String>,
    /// Whether there was any of the two.
    any: bool,
    files: Vec<PathBuf>,
}

impl Sources {
    fn read(options: &GrafanaOptions) -> Result<Self> {
        let mut sources = Self { ini: Ini::default(), environment: BTreeMap::new(), any: false, files: Vec::new() };
        if let Some(text) = sources.file(options.config.as_deref(), &[CONFIG])? {
            sources.ini = Ini::parse(&text);
        }
        if let Some(text) = sources.file(options.environment_file.as_deref(), &ENVIRONMENT_FILES)? {
            sources.environment = variables(&text);
        }
        Ok(sources)
    }

    /// A named file has to be there; a usual one may be missing.
    fn file(&mut self, named: Option<&Path>, usual: &[&str]) -> Result<Option<String>> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match usual.iter().map(PathBuf::from).find(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let text = fs::read_to_string(&path).map_err(|error| {
            Fault::new(codes::GRAFANA_CONFIG, format!("read `{}`", show(&path)))
                .because(error)
                .hint("correct `config` or `environment-file`, or run as a user who may read it")
        })?;
        self.any = true;
        self.files.push(path);
        Ok(Some(text))
    }

    /// A setting: the environment wins over the file, as `GF_SECTION_KEY`.
    fn get(&self, section: &str, key: &str) -> Option<String> {
        let name = format!("GF_{section}_{key}").to_uppercase().replace(['.', '-'], "_");
        let given = self.environment.get(&name).filter(|value| !value.is_empty()).map(String::as_str);
        let given = given.or_else(|| self.ini.get(section, key))?;
        self.expanded(given)
    }

    /// `$__env{NAME}`, `${NAME}` and `$__file{PATH}`; `None` when what they name is not known here.
    fn expanded(&self, value: &str) -> Option<String> {
        let inner = |prefix: &str| value.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = inner("$__env{").or_else(|| inner("${")) {
            return self.environment.get(name).cloned();
        }
        match inner("$__file{") {
            Some(path) => fs::read_to_string(path).ok().map(|text| text.trim().to_owned()),
            None => Some(value.to_owned()),
        }
    }

    /// Whether a setting is made at all, readable or not.
    fn mentions(&self, section: &str, key: &str) -> bool {
        let name = format!("GF_{section}_{key}").to_uppercase();
        self.environment.contains_key(&name)
            || self.environment.contains_key(&format!("{name}__FILE"))
            || self.ini.get(section, key).is_some()
    }
}

impl Settings {
    /// Puts everything together. A database that is not SQLite is an error that names the right kind.
    pub(super) fn find(options: &GrafanaOptions) -> Result<Self> {
        let sources = Sources::read(options)?;
        refuse_other_database(&sources)?;
        let home = options.home.clone().unwrap_or_else(|| PathBuf::from(HOME));
        let data = options.data_dir.clone().or_else(|| sources.get("paths", "data").map(PathBuf::from));
        let data = home.join(data.unwrap_or_else(|| PathBuf::from(DATA)));
        let database = match &options.database {
            Some(path) => path.clone(),
            None => data.join(sources.get("database", "path").unwrap_or_else(|| "grafana.db".to_owned())),
        };
        let mut files = sources.files.clone();
        let mut missing = Vec::new();
        let mut take = |named: Option<String>, usual: Option<PathBuf>| {
            let path = named.as_ref().map(|path| home.join(path)).or(usual);
            match path {
                Some(path) if path.exists() => files.push(path),
                // The usual places are there or not; one that Grafana is told to use is missed.
                Some(path) if named.is_some() => missing.push(path),
                _ => {}
            }
        };
        take(sources.get("paths", "provisioning"), Some(PathBuf::from(PROVISIONING)));
        take(sources.get("paths", "plugins"), Some(data.join("plugins")));
        for (section, key) in [("auth.ldap", "config_file"), ("server", "cert_file"), ("server", "cert_key")] {
            take(sources.get(section, key), None);
        }
        for path in &options.config_paths {
            crate::files::companions::look(path).map_err(|error| {
                Fault::new(codes::GRAFANA_FILES, format!("read `{}`", show(path)))
                    .because(error)
                    .hint("check the path and who may read it, or take it out of `config-paths`")
            })?;
            files.push(path.clone());
        }
        files.sort();
        files.dedup();
        let version = fs::read_to_string(home.join("VERSION")).ok().map(|text| text.trim().to_owned());
        Ok(Self {
            database,
            files,
            missing,
            key_state: key_state(options, &sources),
            named_key: options.secret_key.clone(),
            version: version.filter(|text| !text.is_empty()),
        })
    }
}

fn key_state(options: &GrafanaOptions, sources: &Sources) -> KeyState {
    let key = options.secret_key.as_ref().map(|key| key.expose().clone());
    match key.or_else(|| sources.get("security", "secret_key")) {
        Some(key) if key == DEFAULT_KEY => KeyState::Default,
        Some(_) => KeyState::Own,
        None if sources.mentions("security", "secret_key") => KeyState::Unknown,
        // Not mentioned anywhere that Grafana looks: it uses its default.
        None if sources.any => KeyState::Default,
        None => KeyState::Unknown,
    }
}

fn refuse_other_database(sources: &Sources) -> Result<()> {
    let url = sources.get("database", "url");
    let kind = url.as_deref().and_then(|url| url.split("://").next().map(ToOwned::to_owned));
    let kind = kind.or_else(|| sources.get("database", "type")).unwrap_or_else(|| "sqlite3".to_owned());
    if kind == "sqlite3" {
        return Ok(());
    }
    let get = |key| sources.get("database", key).unwrap_or_else(|| "?".to_owned());
    let place = match url.as_deref().and_then(|url| url.rsplit('@').next()) {
        Some(place) => place.to_owned(),
        None => format!("{}/{}", get("host"), get("name")),
    };
    let hint = if kind == "postgres" {
        format!(
            "save it with a component of kind `postgres` (`url = \"postgres://USER@{place}\"`), and Grafana's configuration and plugins with kind `files`"
        )
    } else {
        format!(
            "this version cannot save {kind}: dump it from a `before` hook and save the dump, Grafana's configuration and plugins with kind `files`"
        )
    };
    Err(Fault::new(codes::GRAFANA_OTHER_DATABASE, "find the database of Grafana")
        .because(format!("it is {kind} at {place}, not SQLite"))
        .hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ini: &str, environment: &str, key: Option<&str>) -> Result<Settings> {
        let place = tempfile::tempdir().unwrap();
        let (config, variables) = (place.path().join("grafana.ini"), place.path().join("env"));
        fs::write(&config, ini).unwrap();
        fs::write(&variables, environment).unwrap();
        Settings::find(&GrafanaOptions {
            config: Some(config),
            environment_file: Some(variables),
            secret_key: key.map(|key| Secret::new(key.to_owned())),
            ..GrafanaOptions::default()
        })
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let found = settings("[paths]\ndata = /a\n[database]\npath = x.db\n", "GF_PATHS_DATA=/b\n", None).unwrap();
        assert_eq!(found.database, Path::new("/b/x.db"));
    }

    #[test]
    fn a_named_path_that_is_not_here_is_missed() {
        let found =
            settings("[paths]\nprovisioning = /not/there\n[auth.ldap]\nconfig_file = /nor/there\n", "", None).unwrap();
        assert_eq!(found.missing, [PathBuf::from("/not/there"), PathBuf::from("/nor/there")]);
    }

    #[test]
    fn the_key_is_own_default_or_unknown() {
        let state = |ini, environment, key| settings(ini, environment, key).unwrap().key_state;
        assert_eq!(state("", "", None), KeyState::Default);
        assert_eq!(state("[security]\nsecret_key = SW2YcwTIb9zpOOhoPsMm\n", "", None), KeyState::Default);
        assert_eq!(state("[security]\nsecret_key = mine\n", "", None), KeyState::Own);
        assert_eq!(state("[security]\nsecret_key = ${KEY}\n", "", None), KeyState::Unknown);
        assert_eq!(state("[security]\nsecret_key = ${KEY}\n", "KEY=mine\n", None), KeyState::Own);
        assert_eq!(state("", "", Some("mine")), KeyState::Own);
    }

    #[test]
    fn another_database_is_refused_without_its_password() {
        for ini in [
            "[database]\nurl = postgres://u:canary@pg:5432/grafana\n",
            "[database]\ntype = postgres\nhost = pg:5432\nname = grafana\npassword = canary\n",
        ] {
            let fault = settings(ini, "", None).unwrap_err();
            assert!(fault.is(codes::GRAFANA_OTHER_DATABASE), "{fault:?}");
            let said = format!("{fault:?}");
            assert!(
                said.contains("pg:5432/grafana") && said.contains("kind `postgres`") && !said.contains("canary"),
                "{said}"
            );
        }
    }
}
