//! What is shipped for Prometheus and Grafana uses our names, and fires when it should.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle_core::objective::Objective;
use rekindle_core::schedule::{Agenda, Job, JobName, Overdue, Schedule, Task};
use rekindle_serve::Journal;
use rekindle_serve::journal::JobRecord;
use rekindle_serve::metrics::{Format, JobState, Snapshot, names, render};
use rekindle_serve::view::View;
use serde_json::{Value, json};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib").join(name)
}

fn known() -> BTreeSet<&'static str> {
    names::ALL.iter().map(|metric| metric.name).collect()
}

/// Everything in a text that looks like a metric of ours.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("rekindle_")).map(str::to_owned).collect()
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool").args(arguments).current_dir(shipped("prometheus")).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn alert_rules_fire_on_overdue_failed_rpo_missed_and_old_proofs_and_are_silent_on_a_healthy_day() {
    promtool(&["check", "rules", "rekindle-alerts.yml"]);
    let text = promtool(&["test", "rules", "rekindle-alerts.test.yml"]);
    assert!(text.contains("SUCCESS"), "{text}");
}

#[test]
fn rules_dashboard_and_documentation_use_names_that_exist() {
    let rules = std::fs::read_to_string(shipped("prometheus/rekindle-alerts.yml")).unwrap();
    let dashboard = std::fs::read_to_string(shipped("grafana/rekindle.json")).unwrap();
    let document = std::fs::read_to_string(shipped("../docs/metrics.md")).unwrap();
    for (what, text) in [("rules", &rules), ("dashboard", &dashboard), ("docs/metrics.md", &document)] {
        let used = used(text);
        assert!(used.len() > 10, "{what}");
        let unknown: Vec<_> = used.iter().filter(|name| !known().contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{what}: {unknown:?}");
    }
    let documented = used(&document);
    let silent: Vec<_> = known().into_iter().filter(|name| !documented.contains(*name)).collect();
    assert!(silent.is_empty(), "not in docs/metrics.md: {silent:?}");
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 8);
}

/// What `status --json` says of a stack with a log and two copies, one of which does not answer.
fn status() -> Value {
    json!({"result": {
        "points": 12, "newest": "aa", "newest_state": "complete",
        "components": [{
            "component": "db", "captured_at": "2026-06-01T11:00:00Z", "run_started": "2026-06-01T11:00:00Z", "age_seconds": 90,
            "recoverable_to": "2026-06-01T11:58:30Z", "bytes": 5000, "verdict": "at-risk", "why": "soon",
            "proved_at": "2026-05-31T12:00:00Z", "restore_ms": 41_500,
        }],
        "copies": [
            {"copy": "near", "reachable": true, "points": 11, "newest": "2026-06-01T10:00:00Z",
             "behind_since": "2026-06-01T11:00:00Z", "overdue_since": "2026-06-01T11:15:00Z"},
            {"copy": "far", "reachable": false},
        ],
    }})
}

fn at(time: &str) -> jiff::Timestamp {
    format!("2026-06-01T{time}Z").parse().unwrap()
}

/// Name, labels beside the stack, value.
fn expected() -> Vec<(&'static str, &'static str, i64)> {
    let second = |time: &str| at(time).as_second();
    let of_db = "component=\"db\"";
    let of_job = "task=\"backup\",component=\"db\"";
    vec![
        ("up", "", 1),
        ("build_info", "version=\"1.2.3\"", 1),
        ("metrics_timestamp_seconds", "", second("12:00:00")),
        ("last_attempt_timestamp_seconds", of_job, second("11:30:00")),
        ("last_attempt_success", of_job, 0),
        ("last_success_timestamp_seconds", of_job, second("11:00:05")),
        ("run_duration_seconds", of_job, 7),
        ("schedule_interval_seconds", of_job, 1800),
        ("overdue", of_job, 1),
        ("running", of_job, 1),
        ("queued", of_job, 0),
        ("runs_total", "task=\"backup\",result=\"bad\"", 3),
        ("missed_occurrences_total", "task=\"backup\"", 2),
        ("data_timestamp_seconds", of_db, second("11:58:30")),
        ("data_bytes", of_db, 5000),
        ("stored_bytes", of_job, 321),
        ("objective_verdict", of_db, 1),
        ("rpo_target_seconds", of_db, 3600),
        ("rpo_current_seconds", of_db, 90),
        ("rto_target_seconds", of_db, 60),
        ("rto_measured_seconds", of_db, 42),
        ("proof_target_seconds", of_db, 86_400),
        ("last_proof_timestamp_seconds", of_db, second("12:00:00") - 86_400),
        ("points", "", 12),
        ("newest_point_complete", "", 1),
        ("repository_read_timestamp_seconds", "", second("12:00:00")),
        ("repository_reachable", "", 1),
        ("repository_free_bytes", "", 700),
        ("copy_lag_seconds", "copy=\"near\"", 3600),
        ("copy_data_timestamp_seconds", "copy=\"near\"", second("10:00:00")),
        ("copy_points", "copy=\"near\"", 11),
        ("copy_reachable", "copy=\"near\"", 1),
        ("copy_reachable", "copy=\"far\"", 0),
        ("copy_overdue", "copy=\"near\"", 1),
        ("wal_lag_seconds", of_db, 90),
        ("notifications_total", "receiver=\"ops\",result=\"lost\"", 0),
        ("notifications_waiting", "", 4),
    ]
}

#[test]
fn every_value_is_what_the_journal_and_the_repository_say() {
    let directory = tempfile::tempdir().unwrap();
    let now = at("12:00:00");
    let journal = Journal::open(directory.path(), now).unwrap();
    let mut view = View::default();
    view.take(&journal, Some(&status()), now).unwrap();
    (view.free_bytes, view.total_bytes) = (Some(700), Some(1000));
    let name = JobName { task: Task::Backup, component: Some("db".parse().unwrap()) };
    let job = Job { name: name.clone(), schedule: Schedule::parse("*/30 * * * *").unwrap() };
    let record = |started: &str, ended: &str, good, stored| JobRecord {
        started: at(started),
        ended: Some(at(ended)),
        good,
        bytes: Some(5000),
        stored_bytes: Some(stored),
    };
    let overdue = Overdue { job: name, since: at("11:30:00") };
    let snapshot = Snapshot {
        stack: "shop".to_owned(),
        version: "1.2.3".to_owned(),
        jobs: vec![JobState {
            job,
            running: true,
            newest: Some(record("11:30:00", "11:30:07", false, 1)),
            newest_run_good: Some(record("11:00:00", "11:00:09", true, 321)),
            newest_good: Some(at("11:00:05")),
        }],
        agenda: Agenda { overdue: vec![overdue], ..Agenda::default() },
        objectives: vec![(
            "db".parse().unwrap(),
            Objective { rpo_seconds: Some(3600), rto_seconds: Some(60), proof_seconds: Some(86_400) },
        )],
        view,
        totals: [(("runs".to_owned(), "backup bad".to_owned()), 3), (("missed".to_owned(), "backup".to_owned()), 2)]
            .into(),
        streams: Vec::new(),
        receivers: vec!["ops".to_owned()],
        parcels_waiting: 4,
        now,
    };
    let text = render(&snapshot, Format::Prometheus);
    let expected = expected();
    for (name, labels, value) in &expected {
        let labels = if labels.is_empty() { String::new() } else { format!(",{labels}") };
        let line = format!("\nrekindle_{name}{{stack=\"shop\"{labels}}} {value}\n");
        assert!(text.contains(&line), "{line}: {text}");
    }
    let told: BTreeSet<String> = expected.iter().map(|(name, ..)| format!("rekindle_{name}")).collect();
    let stream = |name: &&str| !name.starts_with("rekindle_wal_stream_");
    let untold: Vec<&str> = known().into_iter().filter(stream).filter(|name| !told.contains(*name)).collect();
    assert!(untold.is_empty(), "no value of these was looked at: {untold:?}");
}
