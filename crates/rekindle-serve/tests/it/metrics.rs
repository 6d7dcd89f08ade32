//! What is shipped for Prometheus and Grafana uses our names, and fires when it should.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle_serve::metrics::names;
use serde_json::Value;

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
