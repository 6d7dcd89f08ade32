//! A private Prometheus.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::http;
use crate::port::Port;
use crate::process::{Server, Signal, Traces, run, temp_dir};
use crate::tls::Certificate;
use crate::tools;

/// User and password of a server started with `login`, and the bcrypt hash its file needs.
pub const PROMETHEUS_USER: &str = "backup";
pub const PROMETHEUS_PASSWORD: &str = "rekindle-test";
const PASSWORD_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuupkfJuq3TPdRaZ5ua2RNF8F5ew/Y/tK";

/// How to start a server.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices, named where they are made")]
pub struct PrometheusOptions {
    /// Whether snapshots can be made.
    pub admin_api: bool,
    /// Whether it is an agent, which keeps no blocks.
    pub agent: bool,
    /// Whether it wants [`PROMETHEUS_USER`] and [`PROMETHEUS_PASSWORD`].
    pub login: bool,
    /// Whether it speaks TLS, with a certificate of an own authority.
    pub tls: bool,
    /// Whether it scrapes itself every second (not with `login` or `tls`).
    pub scrapes: bool,
    /// Hours of history it starts with, in blocks of two hours that end some hours ago.
    pub history_hours: u32,
    /// Series of that history, one sample each 15 seconds.
    pub history_series: u32,
    /// Further flags.
    pub flags: Vec<String>,
}

impl Default for PrometheusOptions {
    fn default() -> Self {
        Self {
            admin_api: true,
            agent: false,
            login: false,
            tls: false,
            scrapes: true,
            history_hours: 0,
            history_series: 10,
            flags: Vec::new(),
        }
    }
}

/// A running (or stopped) Prometheus; gone with all its files when dropped.
#[derive(Debug)]
pub struct Prometheus {
    server: Option<Server>,
    options: PrometheusOptions,
    certificate: Option<Certificate>,
    port: Port,
    dir: TempDir,
}

impl Prometheus {
    /// Starts a server.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub fn start(options: PrometheusOptions) -> Self {
        let dir = temp_dir("prom");
        let certificate = options.tls.then(|| Certificate::make(dir.path()));
        let mut prometheus = Self { server: None, options, certificate, port: Port::take(), dir };
        prometheus.write_config();
        if prometheus.options.history_hours > 0 {
            prometheus.make_history();
        }
        prometheus.launch();
        prometheus
    }

    /// `http://127.0.0.1:port`, or `https://…` with TLS.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.options.tls { "https" } else { "http" }, self.port())
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Its `--storage.tsdb.path`.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The directory with `prometheus.yml`, `rules/` and `sd/`.
    pub fn config_dir(&self) -> PathBuf {
        self.dir.path().join("etc")
    }

    /// The authority's certificate, of a server started with `tls`.
    pub fn ca(&self) -> Option<&Path> {
        self.certificate.as_ref().map(|certificate| certificate.ca.as_path())
    }

    /// The process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Asks its API; status and body.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn ask(&self, method: &str, target: &str) -> (u16, String) {
        http::request(self.port(), method, target, &[], b"").expect("talk to Prometheus")
    }

    /// Ends the server in order.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Signal::TERM);
        }
    }

    /// Starts the server again on the same port and data, stopping it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    fn launch(&mut self) {
        let log = self.dir.path().join("log");
        let _ = fs::remove_file(&log);
        let mut command = tools::command(tools::find("prometheus"));
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
        command
            .arg(flag("config.file", &self.config_dir().join("prometheus.yml")))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port()))
            .args(&self.options.flags)
            .current_dir(self.dir.path());
        if self.options.agent {
            command.arg("--enable-feature=agent").arg(flag("storage.agent.path", &self.data_dir()));
        } else {
            command
                .arg(flag("storage.tsdb.path", &self.data_dir()))
                // Equal durations switch compaction off: blocks stay as they are.
                .args(["--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h"]);
        }
        if self.options.admin_api {
            command.arg("--web.enable-admin-api");
        }
        if self.options.login || self.options.tls {
            command.arg(flag("web.config.file", &self.config_dir().join("web.yml")));
        }
        let traces = Traces { dir: self.dir.path().to_owned(), mount: None };
        let mut server = Server::spawn("prometheus", command, &log, Signal::KILL, &traces);
        // Over plain HTTP or TLS alike: it says so itself.
        server.wait_ready(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("Server is ready to receive web requests") { Ok(()) } else { Err("not ready".to_owned()) }
        });
        self.server = Some(server);
    }

    fn write_config(&self) {
        let etc = self.config_dir();
        for directory in [&etc, &etc.join("rules"), &etc.join("sd"), &self.data_dir()] {
            fs::create_dir_all(directory).expect("make a directory of Prometheus");
        }
        let write = |name: &str, text: &str| fs::write(etc.join(name), text).expect("write a file of Prometheus");
        let mut config = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n".to_owned();
        if !self.options.agent {
            config.push_str("rule_files: [\"rules/*.yml\"]\n");
        }
        config.push_str("scrape_configs:\n- job_name: found\n  file_sd_configs: [{files: [\"sd/*.json\"]}]\n");
        if self.options.scrapes && !self.options.tls && !self.options.login {
            let port = self.port();
            let _ = writeln!(config, "- job_name: self\n  static_configs: [{{targets: [\"127.0.0.1:{port}\"]}}]");
        }
        write("prometheus.yml", &config);
        write("rules/load.yml", "groups:\n- name: load\n  rules:\n  - record: up:sum\n    expr: sum(up)\n");
        write("sd/none.json", "[]\n");
        let mut web = String::new();
        if let Some(certificate) = &self.certificate {
            let (cert, key) = (certificate.cert.display(), certificate.key.display());
            let _ = writeln!(web, "tls_server_config:\n  cert_file: {cert}\n  key_file: {key}");
        }
        if self.options.login {
            let _ = writeln!(web, "basic_auth_users:\n  {PROMETHEUS_USER}: {PASSWORD_HASH}");
        }
        write("web.yml", &web);
    }

    /// Real blocks, made by `promtool` from text.
    fn make_history(&self) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        // Whole blocks of two hours that ended a while ago.
        let end = now.as_secs() / 7200 * 7200 - 4 * 3600;
        let start = end - u64::from(self.options.history_hours) * 3600;
        let mut text = "# TYPE history gauge\n".to_owned();
        for series in 0..self.options.history_series {
            for time in (start..end).step_by(15) {
                let value = time.wrapping_mul(2_654_435_761).wrapping_add(u64::from(series) * 977) % 100_003;
                let _ = writeln!(text, "history{{series=\"{series}\"}} {value} {time}");
            }
        }
        text.push_str("# EOF\n");
        let file = self.dir.path().join("history.txt");
        fs::write(&file, text).expect("write the history");
        let mut command = tools::command(tools::find("promtool"));
        command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&file).arg(self.data_dir());
        run(command);
        fs::remove_file(&file).expect("remove the history");
    }
}
