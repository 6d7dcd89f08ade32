//! Which files belong to a server: its configuration, and what that names.

use std::path::{Path, PathBuf};

use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::{Fault, Result, codes};

use super::glob;
use super::options::PrometheusOptions;
use super::server::ServerFacts;
use crate::files::companions::look;
use crate::files::show;

/// The paths to save; what cannot be found is noted. `rendered` is the configuration as the server
/// writes it.
pub(super) fn find(
    options: &PrometheusOptions,
    facts: &ServerFacts,
    rendered: &str,
    notes: &mut Notes,
) -> Result<Vec<PathBuf>> {
    if let Some(configured) = &options.config_paths {
        for path in configured {
            look(path).map_err(|error| {
                Fault::new(codes::PROM_FILES, format!("read `{}`", show(path)))
                    .because(error)
                    .hint("check the path and who may read it, or take it out of `config-paths`")
            })?;
        }
        return Ok(configured.clone());
    }
    let mut wanted: Vec<PathBuf> = Vec::new();
    let mut own = |flag: &str| {
        let path = facts.flag(flag);
        (!path.is_empty()).then(|| {
            let path = facts.cwd.join(path);
            wanted.push(path.clone());
            path
        })
    };
    let config = own("config.file");
    let web = own("web.config.file");
    let base = config.as_deref().and_then(Path::parent).unwrap_or(&facts.cwd).to_owned();
    wanted.extend(referenced(rendered).into_iter().flat_map(|path| named(&base, &facts.cwd, &path)));
    if let Some(web) = &web
        && let Ok(text) = std::fs::read_to_string(web)
    {
        let base = web.parent().unwrap_or(&facts.cwd).to_owned();
        wanted.extend(referenced(&text).into_iter().map(|path| base.join(path)));
    }
    wanted.sort();
    wanted.dedup();
    let mut found = Vec::new();
    for path in wanted {
        match look(&path) {
            Ok(()) => found.push(path),
            Err(error) => notes.add(
                NoteClass::Incomplete,
                show(&path),
                format!("the server names this file, but it is not in the backup: {error}; set `config-paths` to where it is on this host"),
            ),
        }
    }
    Ok(found)
}

/// The server writes paths joined to the directory of its configuration, which may itself be
/// relative to the working directory.
fn named(base: &Path, cwd: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path);
    let joined = if path.is_absolute() { path.to_owned() } else { cwd.join(path) };
    let found = glob::expand(&joined);
    if path.is_absolute() || found.iter().any(|path| path.exists()) {
        return found;
    }
    glob::expand(&base.join(path))
}

/// Paths in a configuration: the lists `rule_files`, `files` and `scrape_config_files`, and every
/// key that ends in `_file`. The server writes its configuration in block style, one key per line.
pub(super) fn referenced(yaml: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut list: Option<usize> = None;
    for line in yaml.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(column) = list {
            match trimmed.strip_prefix("- ") {
                Some(item) if indent >= column => {
                    paths.push(unquoted(item).to_owned());
                    continue;
                }
                _ => list = None,
            }
        }
        let key = trimmed.trim_start_matches("- ");
        let column = line.len() - key.len();
        let Some((key, value)) = key.split_once(':') else { continue };
        let value = unquoted(value);
        if matches!(key, "rule_files" | "files" | "scrape_config_files") && value.is_empty() {
            list = Some(column);
        } else if key.ends_with("_file") && !value.is_empty() {
            paths.push(value.to_owned());
        }
    }
    paths
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_in_a_configuration_as_the_server_writes_it() {
        let yaml = "\
global:
  scrape_interval: 1s
rule_files:
- rules/*.yml
- \"/etc/x.yml\"
scrape_configs:
- job_name: self
  basic_auth:
    username: u
    password_file: pw
  static_configs:
  - targets:
    - 127.0.0.1:9090
- job_name: sd
  file_sd_configs:
  - files:
    - sd/*.json
    - sd/b.json
    refresh_interval: 5m
  tls_config:
    ca_file: ca.pem
";
        assert_eq!(referenced(yaml), ["rules/*.yml", "/etc/x.yml", "pw", "sd/*.json", "sd/b.json", "ca.pem"]);
    }
}
