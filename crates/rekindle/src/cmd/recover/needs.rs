//! What this host lacks for a recovery, each with the command that gets it.

use std::path::{Path, PathBuf};

use rekindle_config::{Config, Kind, references};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::wal::BaseBackup;
use rekindle_core::{ComponentId, Fault, codes};
use serde::Serialize;

use crate::wire::components::is_base;

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Need {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) component: Option<ComponentId>,
    /// The key of a secret in the configuration.
    #[serde(skip)]
    pub(super) secret: Option<String>,
    /// What, and why it is needed.
    pub(super) what: String,
    pub(super) remedy: String,
    /// Without it the recovery cannot begin; else somebody should know.
    pub(super) required: bool,
}

/// The fault of everything that is missing.
pub(super) fn fault(needs: &[Need]) -> Option<Fault> {
    let missing: Vec<&Need> = needs.iter().filter(|need| need.required).collect();
    let first = missing.first()?;
    let list: Vec<&str> = missing.iter().map(|need| need.what.as_str()).collect();
    Some(Fault::new(codes::RECOVER_NEEDS, "recover on this host").because(list.join("; ")).hint(first.remedy.clone()))
}

/// Secrets of these components that cannot be read here.
pub(super) fn secrets(text: &str, file: &Path, chosen: &[ComponentId]) -> Vec<Need> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut needs = Vec::new();
    for reference in references(text) {
        let of = reference.key.strip_prefix("component.").and_then(|rest| rest.split('.').next());
        let component = of.and_then(|name| chosen.iter().find(|id| id.as_str() == name));
        let Some(component) = component else { continue };
        if let Err(fault) = reference.resolve(directory) {
            needs.push(Need {
                component: Some(component.clone()),
                secret: Some(reference.key.clone()),
                what: format!("the secret `{}` cannot be read: {}", reference.key, fault.chain()),
                remedy: format!("--set {}=file:/path, with the secret in a file of mode 0600", reference.key),
                required: true,
            });
        }
    }
    needs
}

/// Where programs are, beside PATH.
const FOLDERS: [&str; 6] =
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/share/grafana/bin", "/usr/lib/postgresql", "/opt"];

fn is_there(name: &str, more: Option<&Path>) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let usual = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let configured = more.map(|folder| folder.join(name));
    in_path.chain(usual).chain(configured).any(|file| file.is_file())
}

/// Major versions of PostgreSQL whose programs are in distribution folders.
fn postgres_majors() -> Vec<u64> {
    let numbers = |folder: &str, before: &str| -> Vec<u64> {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let number = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let major = name.to_str()?.strip_prefix(before)?.parse().ok()?;
            entry.path().join("bin/pg_restore").is_file().then_some(major)
        };
        names.filter_map(number).collect()
    };
    let mut all = numbers("/usr/lib/postgresql", "");
    all.extend(numbers("/usr", "pgsql-"));
    all
}

/// Programs of a component that are not found here.
pub(super) fn programs(config: &Config, record: &ComponentRecord) -> Vec<Need> {
    let configured = config.components.iter().find(|one| one.id == record.id);
    let Some(configured) = configured else { return Vec::new() };
    let need = |what: String, remedy: String, required| Need {
        component: Some(record.id.clone()),
        secret: None,
        what,
        remedy,
        required,
    };
    let server = |name: &str, remedy: &str| {
        need(
            format!("`{name}` of `{}` is not installed here (no matter when it runs in a container)", record.id),
            remedy.to_owned(),
            false,
        )
    };
    match &configured.kind {
        Kind::Postgres(postgres) if is_base(record) => base(record, postgres.bin_dir.as_deref()).into_iter().collect(),
        Kind::Postgres(postgres) => {
            let number = record.details.pointer("/server/version_number").and_then(serde_json::Value::as_u64);
            let major = number.map_or(0, |number| number / 10_000);
            let bin: Option<PathBuf> = postgres.bin_dir.clone();
            let found = is_there("pg_restore", bin.as_deref()) || postgres_majors().iter().any(|one| *one >= major);
            if found {
                return Vec::new();
            }
            vec![need(
                format!("`pg_restore` of PostgreSQL {major} or newer, for `{}`", record.id),
                format!(
                    "apt install postgresql-client-{major} (Debian), or dnf install postgresql{major} (RPM of postgresql.org)"
                ),
                true,
            )]
        }
        Kind::Redis(redis) if redis.data_dir.is_some() => {
            let found = is_there("redis-server", None) || is_there("valkey-server", None);
            if found {
                Vec::new()
            } else {
                vec![server("redis-server", "apt install redis-server, or dnf install redis")]
            }
        }
        Kind::Prometheus(prometheus) => {
            if is_there("prometheus", prometheus.bin_dir.as_deref()) {
                return Vec::new();
            }
            vec![server("prometheus", "apt install prometheus, or the release of prometheus.io")]
        }
        Kind::Grafana(grafana) => {
            let home = grafana.home.as_ref().map(|home| home.join("bin"));
            let found = ["grafana-server", "grafana"].iter().any(|name| is_there(name, home.as_deref()));
            let version =
                record.details.get("server_version").and_then(serde_json::Value::as_str).unwrap_or("as captured");
            let remedy = format!(
                "install exactly Grafana {version}: apt install grafana={version}, or dnf install grafana-{version} (repositories of grafana.com)"
            );
            if found { Vec::new() } else { vec![server("grafana", &remedy)] }
        }
        Kind::Redis(_) | Kind::Files(_) => Vec::new(),
    }
}

/// A base backup is replayed by a server of its own major version.
fn base(record: &ComponentRecord, bin_dir: Option<&Path>) -> Option<Need> {
    let base = BaseBackup::of(&record.details)?.ok()?;
    let major = base.server_version / 10_000;
    let usual = [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/pgsql-{major}/bin")];
    let folders = usual.iter().map(Path::new).chain(bin_dir);
    // Elsewhere it is found by its version when it is started.
    if is_there("postgres", None) || folders.into_iter().any(|folder| folder.join("postgres").is_file()) {
        return None;
    }
    Some(Need {
        component: Some(record.id.clone()),
        secret: None,
        what: format!("`postgres` {major}, which replays the log of `{}`", record.id),
        remedy: format!(
            "apt install postgresql-{major} (Debian), or dnf install postgresql{major}-server (RPM of postgresql.org)"
        ),
        required: true,
    })
}

/// A server that has to answer before the recovery begins, and does not.
pub(super) fn unreachable(component: &ComponentId, record: Option<&ComponentRecord>, fault: &Fault) -> Need {
    let number = record.and_then(|record| record.details.pointer("/server/version_number"));
    let remedy = match number.and_then(serde_json::Value::as_u64).map(|number| number / 10_000) {
        Some(major) => format!(
            "start an empty server there: apt install postgresql-{major} (Debian), or dnf install postgresql{major}-server (RPM of postgresql.org)"
        ),
        None => fault.hint_text().unwrap_or("start the server").to_owned(),
    };
    Need {
        component: Some(component.clone()),
        secret: None,
        what: format!("the server of `{component}` does not answer: {}", fault.chain()),
        remedy,
        required: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_not_here_is_named_with_its_key() {
        let text = "[repository]\npassword = 'file:/no/key'\n[component.db]\nkind = 'postgres'\nurl = 'x'\npassword = 'file:/no/such'\n\
                    [component.other]\nkind = 'redis'\nurl = 'x'\npassword = 'env:REKINDLE_TEST_NOT_SET'\n";
        let needs = secrets(text, Path::new("/etc/x.toml"), &["db".parse().unwrap()]);
        assert_eq!(needs.len(), 1, "{needs:?}");
        assert!(needs[0].remedy.starts_with("--set component.db.password=file:"), "{needs:?}");
        assert!(fault(&needs).unwrap().is(codes::RECOVER_NEEDS));
        assert!(fault(&[Need { required: false, ..needs[0].clone() }]).is_none());
    }
}
