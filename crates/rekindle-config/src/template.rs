//! The commented configuration that `init` writes.

use std::fmt::Write as _;

/// What `init` found and was told.
#[derive(Debug, Clone)]
pub struct Draft {
    pub stack: String,
    pub repository_url: String,
    /// A reference, as `file:/etc/rekindle/repository-key`.
    pub password: String,
    pub components: Vec<DraftComponent>,
}

/// One component to write.
#[derive(Debug, Clone)]
pub enum DraftComponent {
    Postgres { id: String, url: String, password: Option<String>, found: String },
    Redis { id: String, url: String, password: Option<String>, found: String },
    Files { id: String, paths: Vec<String>, found: String },
    Prometheus { id: String, url: String, found: String },
    Grafana { id: String, data_dir: String, found: String },
}

impl Draft {
    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(HEAD);
        let _ = writeln!(text, "[stack]\nname = {}", quoted(&self.stack));
        text.push_str("# Greatest acceptable time between the captures of one point:\n# max-skew = \"5m\"\n\n");
        text.push_str(REPOSITORY);
        let _ = writeln!(text, "url = {}", quoted(&self.repository_url));
        text.push_str("# Without this password nothing can be restored. Keep a copy off this host.\n");
        let _ = writeln!(text, "password = {}", quoted(&self.password));
        for component in &self.components {
            text.push('\n');
            component.write(&mut text);
        }
        text.push_str(TAIL);
        text
    }
}

impl DraftComponent {
    fn write(&self, text: &mut String) {
        // Writing into a `String` cannot fail.
        let _ = match self {
            Self::Postgres { id, url, password, found } => {
                let _ = writeln!(text, "# {found}\n[component.{id}]\nkind = \"postgres\"\nurl = {}", quoted(url));
                write_password(text, password.as_deref(), "env:PGPASSWORD");
                text.write_str(POSTGRES)
            }
            Self::Redis { id, url, password, found } => {
                let _ = writeln!(text, "# {found}\n[component.{id}]\nkind = \"redis\"\nurl = {}", quoted(url));
                write_password(text, password.as_deref(), "file:/etc/rekindle/redis-password");
                text.write_str(REDIS)
            }
            Self::Files { id, paths, found } => {
                let list: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
                let _ = writeln!(text, "# {found}\n[component.{id}]\nkind = \"files\"\npaths = [{}]", list.join(", "));
                text.write_str(FILES)
            }
            Self::Prometheus { id, url, found } => {
                let _ = writeln!(text, "# {found}\n[component.{id}]\nkind = \"prometheus\"\nurl = {}", quoted(url));
                text.write_str(PROMETHEUS)
            }
            Self::Grafana { id, data_dir, found } => {
                let data_dir = quoted(data_dir);
                let _ = writeln!(text, "# {found}\n[component.{id}]\nkind = \"grafana\"\ndata-dir = {data_dir}");
                text.write_str(GRAFANA)
            }
        };
    }
}

fn write_password(text: &mut String, reference: Option<&str>, example: &str) {
    let _ = match reference {
        Some(reference) => writeln!(text, "password = {}", quoted(reference)),
        None => writeln!(text, "# password = {}", quoted(example)),
    };
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

const HEAD: &str = "\
# Configuration of rekindle. `rekindle check-config` checks it;
# `rekindle check-config --schema` prints a JSON Schema for editors.
#
# A secret never stands in this file. Write where it is kept:
#   file:/path          a file of mode 0600
#   env:NAME            an environment variable
#   command:prog arg …  what a program prints
#   credential:NAME     a systemd credential (LoadCredential=)

";

const REPOSITORY: &str = "\
[repository]
# file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.
# A repository on the same disk is lost together with the data: use another host.
";

const POSTGRES: &str = "\
databases = \"all\"              # or [\"one\", \"two\"]; without it, the one in the URL
# Instead of pg_dump, base backups of the whole cluster (then without `databases`):
#   method = \"physical\"
#   wal = \"stream\"              # and `rekindle wal stream` running: recovery to the second
# schedule = \"*/30 * * * *\"    # when cron or a timer runs `rekindle backup`
# objective = { rpo = \"1h\", rto = \"30m\" }
";

const REDIS: &str = "\
# data-dir = \"/var/lib/redis\"  # for a restore in place
# schedule = \"*/30 * * * *\"
# objective = { rpo = \"1h\", rto = \"10m\" }
";

const FILES: &str = "\
# exclude = [\"node_modules\", \"*.log\"]
# exclude-caches = true
# policy = { vanished = \"note\", changed = \"note\", unreadable = \"partial\" }
";

const PROMETHEUS: &str = "\
# username = \"backup\"
# password = \"file:/etc/rekindle/prometheus-password\"
# data-dir = \"/var/lib/prometheus/metrics2\"  # where its storage.tsdb.path is on this host
# config-paths = [\"/etc/prometheus\"]
# schedule = \"0 */4 * * *\"
";

const GRAFANA: &str = "\
# config = \"/etc/grafana/grafana.ini\"
# secret-key = \"env:GF_SECURITY_SECRET_KEY\"  # when it stands in no file of Grafana
# url = \"http://127.0.0.1:3000\"     # adds a readable export
# token = \"file:/etc/rekindle/grafana-token\"
# schedule = \"0 */4 * * *\"
";

const TAIL: &str = "
# Programs around every run, without a shell: [program, argument, …].
# [hooks]
# before = [[\"systemctl\", \"start\", \"maintenance-page\"]]
# after = [[\"systemctl\", \"stop\", \"maintenance-page\"]]
# timeout = \"5m\"

# Which points `rekindle forget` keeps. Without this table nothing is ever removed.
# [retention]
# keep-hourly = 24
# keep-daily = 30
# keep-monthly = 12
# min-keep = 3
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The written file, and the same with every example switched on, must be accepted.
    #[test]
    fn what_init_writes_is_accepted() {
        let draft = Draft {
            stack: "shop".into(),
            repository_url: "file:///backups/repo".into(),
            password: "file:/etc/rekindle/repository-key".into(),
            components: vec![
                DraftComponent::Postgres {
                    id: "database".into(),
                    url: "postgres://postgres@127.0.0.1:5432/postgres".into(),
                    password: None,
                    found: "answers on 127.0.0.1:5432".into(),
                },
                DraftComponent::Redis {
                    id: "cache".into(),
                    url: "redis://127.0.0.1:6379".into(),
                    password: Some("env:REDIS_PASSWORD".into()),
                    found: "answers on 127.0.0.1:6379".into(),
                },
                DraftComponent::Files {
                    id: "uploads".into(),
                    paths: vec!["/srv/a \"b\" \\ \u{7}".into()],
                    found: "named".into(),
                },
                DraftComponent::Prometheus {
                    id: "metrics".into(),
                    url: "http://127.0.0.1:9090".into(),
                    found: "answers on 127.0.0.1:9090".into(),
                },
                DraftComponent::Grafana {
                    id: "dashboards".into(),
                    data_dir: "/var/lib/grafana".into(),
                    found: "a database is there".into(),
                },
            ],
        };
        let text = draft.to_toml();
        let config = crate::parse(Path::new("/x/rekindle.toml"), &text).map_err(|p| p.to_string()).unwrap();
        assert_eq!(config.components.len(), 5);

        let is_example = |line: &str| {
            line.starts_with("# [")
                || line.split_once(" = ").is_some_and(|(key, _)| !key.trim_start_matches("# ").contains(' '))
        };
        let all: String = text
            .lines()
            .map(|line| if is_example(line) { line.trim_start_matches("# ") } else { line })
            .filter(|line| *line != "password = \"env:PGPASSWORD\"")
            .fold(String::new(), |all, line| all + line + "\n");
        let config = crate::parse(Path::new("/x/rekindle.toml"), &all).map_err(|p| format!("{p}\n{all}")).unwrap();
        assert!(config.retention.is_some() && config.components[0].schedule.is_some());
        assert_eq!(config.hooks.before.len(), 1);
    }
}
