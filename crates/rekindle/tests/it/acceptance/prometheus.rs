//! Prometheus through the program: saved while it ingests, restored, opened by a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rekindle_testkit::{PROMETHEUS_PASSWORD, PROMETHEUS_USER, Prometheus, PrometheusOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::stack::{Stack, end, wait_until};

/// Two days: enough that its blocks outweigh what the server writes about itself meanwhile.
const HISTORY: PrometheusOptions = PrometheusOptions {
    admin_api: true,
    agent: false,
    login: false,
    tls: false,
    scrapes: true,
    history_hours: 48,
    history_series: 40,
    flags: Vec::new(),
};

fn stack_of(server: &Prometheus, more: &str) -> Stack {
    let mut stack = Stack::new();
    set(&mut stack, &server.url(), more);
    stack
}

fn set(stack: &mut Stack, url: &str, more: &str) {
    stack.set(&format!("[component.metrics]\nkind = \"prometheus\"\nurl = \"{url}\"\n{more}"));
}

fn metrics(report: &Value) -> &Value {
    &report["components"][0]
}

fn record(stack: &Stack) -> Value {
    stack.place.json(0, &["show", "latest"])["result"]["manifest"]["components"][0].take()
}

fn snapshots(server: &Prometheus) -> Vec<PathBuf> {
    let listed = fs::read_dir(server.data_dir().join("snapshots"));
    listed.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn records(server: &Prometheus) -> Vec<PathBuf> {
    let listed = fs::read_dir(server.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    listed.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".rekindle-")).collect()
}

/// Waits until the server has samples of its own in its head.
fn ingesting(server: &Prometheus) {
    wait_until("samples in the head", || {
        let (_, said) = server.ask("GET", "/api/v1/status/tsdb");
        let said: Value = serde_json::from_str(&said).unwrap();
        said["data"]["headStats"]["chunkCount"].as_u64() > Some(0)
    });
}

fn good_findings(summary: &Value) -> Vec<String> {
    let findings = summary["items"][0]["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["level"] == "good"), "{findings:#?}");
    findings.iter().map(|finding| finding["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_server_that_ingests_is_saved_and_comes_back() {
    let server = Prometheus::start(HISTORY);
    ingesting(&server);
    let pid = server.pid();
    let stack = stack_of(&server, "");
    let first = stack.complete();
    assert!(metrics(&first)["stored_bytes"].as_u64().unwrap() > 100_000, "{first:#}");
    assert!(snapshots(&server).is_empty() && records(&server).is_empty(), "the snapshot is gone");
    let details = &record(&stack)["details"];
    assert_eq!(details["method"], "snapshot");
    // 24 blocks of history, and the head.
    assert_eq!(details["blocks"].as_array().unwrap().len(), 25, "{details:#}");
    assert!(details["samples"].as_u64().unwrap() > 48 * 240 * 40);

    let summary = stack.place.json(0, &["restore", "latest", "metrics", "--to", "back"])["result"].take();
    let findings = good_findings(&summary);
    assert!(findings.iter().any(|text| text.contains("opened 25 of 25 blocks")), "{findings:#?}");
    assert!(findings.iter().any(|text| text.contains("as many as the point says")), "{findings:#?}");
    let rules = server.config_dir().join("rules/load.yml");
    let restored = stack.path("back/files").join(rules.strip_prefix("/").unwrap());
    assert_eq!(fs::read(restored).unwrap(), fs::read(&rules).unwrap());
    assert!(
        stack.path("back/files").join(server.config_dir().strip_prefix("/").unwrap()).join("sd/none.json").exists()
    );
    assert_eq!(server.pid(), pid);
    assert_eq!(server.ask("GET", "/-/ready").0, 200, "nothing was stopped");
}

#[test]
fn an_unchanged_block_is_not_stored_again() {
    let server = Prometheus::start(PrometheusOptions { scrapes: false, ..HISTORY });
    let stack = stack_of(&server, "");
    let first = stack.complete();
    let second = stack.complete();
    let stored = |report: &Value| metrics(report)["stored_bytes"].as_u64().unwrap();
    assert!(stored(&second) * 20 < stored(&first), "{} then {}", stored(&first), stored(&second));
    let (read, unchanged) = (metrics(&second)["bytes"].as_u64(), metrics(&second)["unchanged_bytes"].as_u64());
    assert!(unchanged.unwrap() * 100 > read.unwrap() * 95, "{second:#}");
    // What was taken over is as good as what was read.
    let summary = stack.place.json(0, &["restore", "latest", "metrics", "--to", "back"])["result"].take();
    good_findings(&summary);
}

#[test]
fn in_place_the_old_data_is_kept_and_no_old_log_stays() {
    let mut server = Prometheus::start(HISTORY);
    ingesting(&server);
    let data = format!("data-dir = \"{}\"", server.data_dir().display());
    let stack = stack_of(&server, &data);
    stack.complete();
    let restore = ["restore", "latest", "metrics", "--in-place", "--no-safety-point"];
    stack.place.ends(21, &restore).says("RK-PM-012", &["stop it first"]);
    server.stop();
    let rules = server.config_dir().join("rules");
    fs::remove_dir_all(&rules).unwrap();
    let own = server.config_dir().join("prometheus.yml");
    let changed = fs::read_to_string(&own).unwrap() + "# changed since\n";
    fs::write(&own, &changed).unwrap();

    let summary = stack.place.json(0, &restore)["result"].take();
    good_findings(&summary);
    let kept = summary["items"][0]["report"]["kept_old"].as_str().unwrap();
    assert!(Path::new(kept).join("wal").is_dir(), "{summary:#}");
    assert!(!server.data_dir().join("wal").exists());
    assert!(rules.join("load.yml").exists(), "what was missing is back");
    assert_eq!(fs::read_to_string(&own).unwrap(), changed, "what is there is left alone");
    let warnings = summary["items"][0]["report"]["warnings"].to_string();
    assert!(warnings.contains("left as they are") && warnings.contains("prometheus.yml"), "{warnings}");
    server.restart();
    let (_, answer) = server.ask("GET", "/api/v1/query?query=count(count_over_time(history%5B4d%5D))");
    assert!(answer.contains("\"40\""), "{answer}");
}

#[test]
fn a_killed_run_leaves_a_snapshot_that_the_next_run_removes() {
    let server = Prometheus::start(PrometheusOptions { scrapes: false, ..HISTORY });
    let stack = stack_of(&server, "");
    let others = server.data_dir().join("snapshots/of-somebody-else");
    fs::create_dir_all(&others).unwrap();
    for _ in 0..20 {
        let mut child = stack.start(&["backup"]);
        let until = Instant::now() + Duration::from_secs(30);
        while child.try_wait().unwrap().is_none() && Instant::now() < until {
            let named =
                records(&server).iter().any(|path| fs::read_to_string(path).is_ok_and(|t| t.contains("\"name\":\"")));
            if named {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if !records(&server).is_empty() {
            break;
        }
    }
    let left = snapshots(&server);
    assert_eq!((left.len(), records(&server).len()), (2, 1), "{left:?}");
    let doctor = stack.place.run(&["doctor"]);
    assert!(doctor.out.contains("interrupted runs have left a snapshot"), "{doctor:?}");

    let ended = stack.place.ends(0, &["backup", "--json"]);
    assert!(ended.out.contains("that the interrupted run"), "{ended:?}");
    assert!(ended.err.contains("had left was removed"), "{ended:?}");
    assert_eq!(snapshots(&server), [others]);
    assert!(records(&server).is_empty());
}

#[test]
fn a_stopped_run_removes_its_snapshot() {
    let server = Prometheus::start(PrometheusOptions { scrapes: false, ..HISTORY });
    let stack = stack_of(&server, "");
    for _ in 0..20 {
        let mut child = stack.start(&["backup", "--force"]);
        wait_until("the snapshot is there", || child.try_wait().unwrap().is_some() || !snapshots(&server).is_empty());
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        let ended = end(child);
        assert!(snapshots(&server).is_empty() && records(&server).is_empty(), "{ended:?}");
        if ended.code == 143 {
            return;
        }
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    panic!("no run was stopped in its middle");
}

#[test]
fn without_the_admin_api_the_blocks_are_saved_and_the_loss_is_told() {
    let server = Prometheus::start(PrometheusOptions { admin_api: false, ..HISTORY });
    ingesting(&server);
    let mut stack = stack_of(&server, "");
    stack.complete();
    let record = record(&stack);
    assert_eq!(record["details"]["method"], "blocks");
    assert_eq!(record["details"]["blocks"].as_array().unwrap().len(), 24);
    let notes = record["notes"]["listed"].to_string();
    assert!(notes.contains("the admin API is off") && notes.contains("up to about three hours"), "{notes}");
    let summary = stack.place.json(0, &["restore", "latest", "metrics", "--to", "back"])["result"].take();
    good_findings(&summary);

    set(&mut stack, &server.url(), "method = \"snapshot\"");
    stack.place.ends(21, &["backup"]).says("RK-PM-008", &["--web.enable-admin-api"]);
}

#[test]
fn without_a_single_block_a_point_of_blocks_is_partial() {
    let server = Prometheus::start(PrometheusOptions { admin_api: false, ..PrometheusOptions::default() });
    ingesting(&server);
    let stack = stack_of(&server, "");
    let report = stack.place.json(3, &["backup"]);
    assert_eq!(report["result"]["state"], "partial");
}

#[test]
fn an_agent_is_told_from_a_server() {
    let server = Prometheus::start(PrometheusOptions { agent: true, ..PrometheusOptions::default() });
    let stack = stack_of(&server, "");
    stack.place.ends(1, &["backup"]).says("RK-PM-005", &["agent mode", "remote_write"]);
}

#[test]
fn a_wrong_data_directory_is_named() {
    let server = Prometheus::start(HISTORY);
    ingesting(&server);
    let mut stack = stack_of(&server, "");
    let nothing = stack.path("nothing");
    fs::create_dir_all(&nothing).unwrap();
    set(&mut stack, &server.url(), &format!("data-dir = \"{}\"", nothing.display()));
    stack.place.ends(20, &["backup"]).says("RK-PM-006", &["neither `wal` nor blocks", "set `data-dir`"]);
    // One that looks right, but is another server's.
    fs::create_dir_all(nothing.join("wal")).unwrap();
    stack.place.ends(20, &["backup"]).says("RK-PM-006", &["in another directory", "the snapshot was removed there"]);
    assert!(snapshots(&server).is_empty(), "nothing is left behind");
    assert_eq!(fs::read_dir(&nothing).unwrap().count(), 1);
}

#[test]
fn snapshots_on_another_file_system_are_explained() {
    let server = Prometheus::start(HISTORY);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), server.data_dir().join("snapshots")).unwrap();
    let mut stack = stack_of(&server, "");
    stack.place.ends(1, &["backup"]).says("RK-PM-007", &["cross-device", "same file system"]);
    assert!(records(&server).is_empty());
    set(&mut stack, &server.url(), "method = \"blocks\"");
    stack.complete();
}

#[test]
fn login_and_tls_are_used_and_their_absence_is_explained() {
    let server = Prometheus::start(PrometheusOptions { login: true, tls: true, ..HISTORY });
    let mut stack = stack_of(&server, "");
    stack.place.ends(20, &["backup"]).says("RK-PM-003", &["ca-file"]);
    let ca = format!("ca-file = \"{}\"\n", server.ca().unwrap().display());
    set(&mut stack, &server.url(), &ca);
    stack.place.ends(20, &["backup"]).says("RK-PM-002", &["set `username` and `password`"]);
    stack.place.write("secret", "canary-wrong\n");
    let login = format!("{ca}username = \"{PROMETHEUS_USER}\"\npassword = \"file:secret\"");
    set(&mut stack, &server.url(), &login);
    let ended = stack.place.ends(20, &["backup"]);
    ended.says("RK-PM-002", &["check `username` and `password`"]);
    assert!(!ended.err.contains("canary"), "{ended:?}");
    stack.place.write("secret", &format!("{PROMETHEUS_PASSWORD}\n"));
    stack.complete();
    let files = record(&stack)["details"]["files"].to_string();
    assert!(files.contains("web.yml") && files.contains("server.key"), "{files}");
    set(&mut stack, &server.url().replace("https://", "http://"), "");
    stack.place.ends(20, &["backup"]).says("RK-PM-003", &["write `https://`"]);
}
