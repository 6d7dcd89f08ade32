//! Prometheus and Grafana's data in containers: paths inside become paths of this host.

use std::path::PathBuf;

use rekindle_testkit::Podman;
use rekindle_testkit::grafana::{GrafanaFiles, sqlite};
use rekindle_testkit::http::request;
use rekindle_testkit::port::Port;
use serde_json::{Value, json};

use super::stack::{Stack, wait_until};
use crate::run::Place;

struct Monitoring {
    stack: Stack,
    podman: Podman,
    port: Port,
}

impl Monitoring {
    fn start() -> Self {
        let podman = Podman::start();
        let place = Place::new();
        let url = format!("file://{}", place.path().join("repo").display());
        let mut stack = Stack::at(place, &format!("url = \"{url}\""), &url);
        // Containers without a compose file.
        stack.in_stack(&format!("docker-host = \"{}\"\nstart-timeout = \"30s\"", podman.host()));
        let port = Port::take();
        let number = port.number();
        stack.add(&format!(
            "[component.metrics]\nkind = \"prometheus\"\nurl = \"http://127.0.0.1:{number}\"\ncontainer = \"prom\""
        ));
        stack.add("[component.dashboards]\nkind = \"grafana\"\ncontainer = \"graf\"");
        stack
            .add("[component.plugins]\nkind = \"files\"\npaths = [\"/var/lib/grafana/plugins\"]\ncontainer = \"graf\"");
        stack.place.write(
            "etc/prometheus.yml",
            &format!("scrape_configs:\n- job_name: self\n  scrape_interval: 1s\n  static_configs: [{{targets: [\"127.0.0.1:{number}\"]}}]\n"),
        );
        Self { stack, podman, port }
    }

    /// Debian's Prometheus of this machine in a container; Grafana's data without Grafana.
    fn create(&self) -> PathBuf {
        let etc = format!("{}:/etc/prometheus:ro", self.stack.path("etc").display());
        let listen = format!("--web.listen-address=127.0.0.1:{}", self.port.number());
        let volumes = ["-v", "prom_data:/prometheus", "-v", &etc, "-v", "/usr/bin/prometheus:/bin/prometheus:ro"];
        let flags = [
            "/bin/prometheus",
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--web.enable-admin-api",
            &listen,
        ];
        self.podman.run("prom", &volumes, &flags);
        let key = "GF_SECURITY_SECRET_KEY=canary-of-the-container";
        self.podman.run("graf", &["-v", "graf_data:/var/lib/grafana", "-e", key], &["sleep", "600"]);
        self.podman.volume("graf_data")
    }

    /// An answer of Prometheus; nothing while it does not answer.
    fn ask(&self, target: &str) -> Value {
        let answer = request(self.port.number(), "GET", target, &[], b"");
        answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }
}

#[test]
fn monitoring_in_containers_is_saved_running_and_restored_stopped() {
    let one = Monitoring::start();
    let volume = one.create();
    let grafana = GrafanaFiles::make(false);
    std::fs::copy(grafana.database(), volume.join("grafana.db")).unwrap();
    std::fs::create_dir_all(volume.join("plugins/clock")).unwrap();
    std::fs::write(volume.join("plugins/clock/plugin.json"), "{}").unwrap();
    wait_until("samples in the head", || {
        one.ask("/api/v1/status/tsdb")["data"]["headStats"]["chunkCount"].as_u64() > Some(0)
    });
    let point = one.stack.complete()["point"].as_str().unwrap().to_owned();
    assert!(one.podman.runs("prom"), "nothing was stopped");
    let manifest = one.stack.place.json(0, &["show", &point])["result"]["manifest"].take();
    assert!(!manifest.to_string().contains("canary"), "{manifest}");
    let files = manifest["components"].as_array().unwrap().iter().find(|one| one["id"] == "metrics").unwrap()["details"]["files"].to_string();
    assert!(files.contains(&one.stack.path("etc").display().to_string()), "mounted configuration: {files}");
    assert_eq!(one.stack.place.ends(0, &["cat", &point, "dashboards/secret-key"]).out, "canary-of-the-container");

    for container in ["prom", "graf"] {
        one.podman.podman(&["rm", "-f", "-t", "0", container]);
    }
    for volume in ["prom_data", "graf_data"] {
        one.podman.podman(&["volume", "rm", volume]);
    }
    let volume = one.create();
    let answer =
        one.stack.place.json(0, &["restore", &point, "full", "--in-place", "--no-safety-point"])["result"].take();
    let mut stopped: Vec<&str> =
        answer["services"]["stopped"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    stopped.sort_unstable();
    assert_eq!(stopped, ["graf", "prom"], "{answer}");
    assert_eq!(answer["services"]["rolled_back"], json!(null));
    assert_eq!(sqlite(&volume.join("grafana.db"), "SELECT count(*) FROM dashboard"), "500");
    assert!(volume.join("plugins/clock/plugin.json").exists());
    assert!(one.podman.runs("prom") && one.podman.runs("graf"));
    // The block that was made of the head is served again.
    wait_until("the restored block", || one.ask("/api/v1/status/tsdb")["status"] == "success");
    let oldest = one.ask("/api/v1/query?query=min_over_time(prometheus_tsdb_lowest_timestamp_seconds%5B1h%5D)");
    assert_eq!(oldest["status"], "success", "{oldest}");
    assert!(
        one.podman.volume("prom_data").read_dir().unwrap().any(|entry| entry
            .unwrap()
            .path()
            .join("meta.json")
            .exists())
    );
}
