//! What a Prometheus says over its HTTP API
//! (<https://prometheus.io/docs/prometheus/latest/querying/api/>).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekindle_core::{Fault, Result, codes};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::options::PrometheusOptions;
use crate::http::{ANSWER_MAX, HttpClient, HttpOptions, Names};

/// Longest time for a snapshot: the head of a big server takes minutes to write.
const SNAPSHOT_MAX: Duration = Duration::from_hours(1);

pub(super) const NAMES: Names = Names {
    server: "Prometheus",
    connect: codes::PROM_CONNECT,
    login: codes::PROM_AUTH,
    tls: codes::PROM_TLS,
    answer: codes::PROM_ANSWER,
};

/// A server, reached over HTTP.
#[derive(Debug, Clone)]
pub(super) struct Server {
    http: HttpClient,
}

/// What it says about itself.
#[derive(Debug, Clone)]
pub(super) struct ServerFacts {
    pub(super) version: String,
    pub(super) flags: BTreeMap<String, String>,
    /// The working directory of the server: relative paths of its flags start there.
    pub(super) cwd: PathBuf,
    /// `15d`, `15d or 10GiB`, …
    pub(super) retention: String,
}

/// The data that is not in blocks yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) series: u64,
    pub(super) chunks: u64,
    /// Milliseconds since 1970 of its first sample.
    pub(super) min_time: Option<i64>,
}

/// What became of the wish for a snapshot.
#[derive(Debug)]
pub(super) enum SnapshotAnswer {
    /// The name of its directory below `snapshots/`.
    Made(String),
    AdminApiOff,
}

#[derive(Deserialize)]
struct Envelope<T> {
    status: String,
    data: Option<T>,
    #[serde(default)]
    error: String,
}

impl Server {
    pub(super) fn new(options: &PrometheusOptions) -> Result<Self> {
        Self::at(&options.http)
    }

    pub(super) fn at(options: &HttpOptions) -> Result<Self> {
        Ok(Self { http: HttpClient::new(options, &NAMES)? })
    }

    pub(super) fn address(&self) -> String {
        self.http.address()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let answer = self.http.ask(Method::GET, path, query, &[], ANSWER_MAX).await?;
        let parsed: Option<Envelope<T>> = serde_json::from_slice(&answer.body).ok();
        match parsed {
            Some(Envelope { data: Some(data), status, .. }) if status == "success" => Ok(data),
            Some(Envelope { error, .. }) if !error.is_empty() => Err(self.http.unexpected(path, &error)),
            _ => Err(self.http.unexpected(path, &format!("status {}: {}", answer.status, answer.shown()))),
        }
    }

    /// Version, flags, working directory. An agent is an error: it has no blocks.
    pub(super) async fn facts(&self) -> Result<ServerFacts> {
        #[derive(Deserialize)]
        struct Build {
            version: String,
        }
        #[derive(Deserialize)]
        struct Runtime {
            #[serde(rename = "CWD", default)]
            cwd: String,
            #[serde(rename = "storageRetention", default)]
            retention: String,
        }
        let flags: BTreeMap<String, String> = self.get("/api/v1/status/flags", &[]).await?;
        if is_agent(&flags) {
            return Err(Fault::new(codes::PROM_AGENT, format!("capture the Prometheus at {}", self.address()))
                .because("it runs in agent mode: it forwards what it scrapes and keeps no blocks")
                .hint("capture the server that its `remote_write` names; save the agent's own configuration with kind `files`"));
        }
        let build: Build = self.get("/api/v1/status/buildinfo", &[]).await?;
        let runtime: Runtime = self.get("/api/v1/status/runtimeinfo", &[]).await?;
        Ok(ServerFacts { version: build.version, flags, cwd: PathBuf::from(runtime.cwd), retention: runtime.retention })
    }

    /// The head.
    pub(super) async fn head(&self) -> Result<Head> {
        #[derive(Deserialize)]
        struct Status {
            #[serde(rename = "headStats")]
            head: Stats,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stats {
            num_series: u64,
            chunk_count: u64,
            min_time: i64,
        }
        let Status { head } = self.get("/api/v1/status/tsdb", &[]).await?;
        // An empty head has the greatest time of all as its first one.
        let min_time = Some(head.min_time).filter(|time| *time != i64::MAX);
        Ok(Head { series: head.num_series, chunks: head.chunk_count, min_time })
    }

    /// The running configuration, as the server writes it: secrets are left out.
    pub(super) async fn config(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Config {
            yaml: String,
        }
        Ok(self.get::<Config>("/api/v1/status/config", &[]).await?.yaml)
    }

    /// The names of all metrics between two moments, in milliseconds since 1970.
    pub(super) async fn metric_names(&self, from_ms: i64, to_ms: i64) -> Result<Vec<String>> {
        let (from, to) = (seconds(from_ms), seconds(to_ms));
        self.get("/api/v1/label/__name__/values", &[("start", from.as_str()), ("end", to.as_str())]).await
    }

    /// One number out of an instant query; `None` when the answer is empty.
    pub(super) async fn number(&self, query: &str, at_ms: i64, longest: Duration) -> Result<Option<f64>> {
        #[derive(Deserialize)]
        struct Data {
            result: Vec<Sample>,
        }
        #[derive(Deserialize)]
        struct Sample {
            value: (f64, String),
        }
        let path = "/api/v1/query";
        let time = seconds(at_ms);
        let timeout = format!("{}s", longest.as_secs());
        let parameters = [("query", query), ("time", time.as_str()), ("timeout", timeout.as_str())];
        let answer = self.http.ask(Method::GET, path, &parameters, &[], longest).await?;
        let parsed: Envelope<Data> = serde_json::from_slice(&answer.body)
            .map_err(|error| self.http.unexpected(path, &format!("status {}: {error}", answer.status)))?;
        let data = parsed.data.ok_or_else(|| self.http.unexpected(path, &parsed.error))?;
        let Some(sample) = data.result.first() else { return Ok(None) };
        sample.value.1.parse().map(Some).map_err(|_| self.http.unexpected(path, "its value is not a number"))
    }

    /// The text of a plain page (`/metrics`, `/-/ready`), when its status is 200.
    pub(super) async fn page(&self, path: &str) -> Result<Option<String>> {
        let answer = self.http.ask(Method::GET, path, &[], &[], ANSWER_MAX).await?;
        Ok((answer.status == 200).then(|| answer.text()))
    }

    /// Lets the server write all of its data, the head included, below its `snapshots/`.
    pub(super) async fn snapshot(&self) -> Result<SnapshotAnswer> {
        #[derive(Deserialize)]
        struct Made {
            name: String,
        }
        let path = "/api/v1/admin/tsdb/snapshot";
        let answer = self.http.ask(Method::POST, path, &[("skip_head", "false")], &[], SNAPSHOT_MAX).await?;
        let parsed: Option<Envelope<Made>> = serde_json::from_slice(&answer.body).ok();
        let said = match parsed {
            Some(Envelope { data: Some(made), status, .. }) if status == "success" => {
                return Ok(SnapshotAnswer::Made(made.name));
            }
            // The server answers with status 500 and these words.
            Some(Envelope { error, .. }) if error.contains("admin APIs disabled") => {
                return Ok(SnapshotAnswer::AdminApiOff);
            }
            Some(Envelope { error, .. }) if !error.is_empty() => error,
            _ => return Err(self.http.unexpected(path, &format!("status {}: {}", answer.status, answer.shown()))),
        };
        let hint = if said.contains("cross-device") || said.contains("create snapshot block dir") {
            "a snapshot consists of hard links: `snapshots` has to be on the same file system as the blocks; \
             take the mount or link away, or set `method = \"blocks\"`"
        } else {
            "the server's log says more; check the free space and the rights of its data directory"
        };
        Err(Fault::new(codes::PROM_SNAPSHOT, format!("make a snapshot of the Prometheus at {}", self.address()))
            .because(said)
            .hint(hint))
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

fn is_agent(flags: &BTreeMap<String, String>) -> bool {
    let flag = |name: &str| flags.get(name).map_or("", String::as_str);
    // A feature up to 2.x, a flag of its own from 3.0 on.
    flag("agent") == "true" || flag("enable-feature").split([',', ' ', '[', ']']).any(|word| word == "agent")
}

impl ServerFacts {
    /// A flag; empty when the server does not have it.
    pub(super) fn flag(&self, name: &str) -> &str {
        self.flags.get(name).map_or("", String::as_str)
    }

    /// Whether snapshots can be made.
    pub(super) fn has_admin_api(&self) -> bool {
        self.flag("web.enable-admin-api") == "true"
    }

    /// The data directory as the server itself sees it.
    pub(super) fn data_dir(&self) -> PathBuf {
        let path = Path::new(self.flag("storage.tsdb.path"));
        self.cwd.join(if path.as_os_str().is_empty() { Path::new("data") } else { path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_known_by_their_flags() {
        let flags = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(is_agent(&flags("enable-feature", "agent")));
        assert!(is_agent(&flags("enable-feature", "[exemplar-storage,agent]")));
        assert!(is_agent(&flags("agent", "true")));
        assert!(!is_agent(&flags("agent", "false")));
        assert!(!is_agent(&flags("enable-feature", "agent-of-another-kind")));
    }
}
