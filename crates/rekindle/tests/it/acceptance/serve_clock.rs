//! The service and its runs on other clocks (libfaketime), and what a real Prometheus makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::{Timestamp, ToSpan};
use rekindle_testkit::{Prometheus, PrometheusOptions};
use serde_json::{Value, json};

use super::serve::{Served, stop};
use super::stack::{Stack, noise, wait_until};
use crate::run::Ended;

/// Runs the program with its clock at this moment. Its pauses are real.
pub(super) fn at(stack: &Stack, moment: Timestamp, arguments: &[&str]) -> Ended {
    let real = stack.place.command(arguments);
    let mut command = Command::new("faketime");
    command.args(["-m", "-f", &format!("@{}", moment.strftime("%Y-%m-%d %H:%M:%S"))]);
    command.arg(real.get_program()).args(real.get_args()).current_dir(stack.place.path()).env_clear();
    for (name, value) in real.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ended::of(command.output().expect("run faketime: scripts/setup --tests installs it"))
}

/// The shipped rules without their patience: a test cannot wait for a quarter of an hour.
fn rules() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/prometheus/rekindle-alerts.yml");
    let text = fs::read_to_string(file).unwrap();
    let mut rule = String::new();
    let mut all = String::new();
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            name.clone_into(&mut rule);
        }
        // What a disk does within seconds says nothing about a week.
        if line.trim().starts_with("for: ") && rule != "RekindleRepositoryFilling" {
            all.push_str("        for: 1s\n");
        } else {
            all.push_str(line);
            all.push('\n');
        }
    }
    all
}

/// A Prometheus that scrapes this port and judges by the shipped rules.
fn watching(port: u16) -> Prometheus {
    let mut prometheus = Prometheus::start(PrometheusOptions { scrapes: false, ..PrometheusOptions::default() });
    let etc = prometheus.config_dir();
    fs::write(etc.join("rules/rekindle.yml"), rules()).unwrap();
    let target = json!([{"targets": [format!("127.0.0.1:{port}")]}]);
    fs::write(etc.join("sd/rekindle.json"), target.to_string()).unwrap();
    prometheus.restart();
    prometheus
}

fn firing(prometheus: &Prometheus) -> Vec<String> {
    let (status, text) = prometheus.ask("GET", "/api/v1/alerts");
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let alerts = answer["data"]["alerts"].as_array().unwrap();
    let mut names: Vec<String> = alerts
        .iter()
        .filter(|alert| alert["state"] == "firing")
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// How often the rules were judged without an error.
fn judged(prometheus: &Prometheus) -> f64 {
    let (_, text) = prometheus.ask("GET", "/metrics");
    let value = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start) && line.contains("rekindle.yml"));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    assert!(value("prometheus_rule_evaluation_failures_total") < 1.0, "a rule cannot be judged");
    value("prometheus_rule_evaluations_total")
}

#[test]
fn seed_alerts_fire_in_a_real_prometheus_and_are_silent_on_a_healthy_day() {
    let mut served = Served::new("");
    let data = served.stack.path("data");
    served.stack.set(&format!(
        "[component.files]\nkind = \"files\"\npaths = [\"{}\"]\nschedule = \"0 * * * *\"\n\
         objective = {{ rpo = \"2h\", rto = \"10m\", proof = \"7d\" }}",
        data.display()
    ));
    let ended = at(&served.stack, Timestamp::now() - 3.hours(), &["backup"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
    let away = served.stack.path("away");
    fs::rename(&data, &away).unwrap();
    let child = served.start();
    let prometheus = watching(served.port);
    let expected = ["RekindleFailed", "RekindleOverdue", "RekindleProofOld", "RekindleRpoMissed"];
    let mut seen = Vec::new();
    wait_until("four alerts", || {
        seen = firing(&prometheus);
        expected.iter().all(|name| seen.iter().any(|one| one == name))
    });
    assert_eq!(seen, expected, "nothing else is wrong");
    stop(child);

    fs::rename(&away, &data).unwrap();
    served.stack.place.ends(0, &["drill", "--all"]);
    served.an_hour_passes();
    let child = served.start();
    wait_until("silence", || served.metric("rekindle_up").is_some() && firing(&prometheus).is_empty());
    // Silent since every rule was judged some times more.
    let (before, rules) = (judged(&prometheus), rules().matches("- alert: ").count());
    #[expect(clippy::cast_precision_loss, reason = "a dozen rules")]
    let enough = before + 5.0 * rules as f64;
    wait_until("some judgements", || judged(&prometheus) > enough);
    assert_eq!(firing(&prometheus), [] as [String; 0]);
    stop(child);
}

/// What a point's time says.
fn days(stack: &Stack) -> Vec<String> {
    let points = stack.points();
    points.iter().map(|point| point["time"].as_str().unwrap()[..10].to_owned()).collect()
}

fn month() -> (Stack, PathBuf) {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.path("data");
    fs::create_dir(&data).unwrap();
    stack.add(&format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]", data.display()));
    stack.add("[retention]\nkeep-daily = 7\nkeep-weekly = 3\nmin-keep = 3");
    (stack, data)
}

/// October 2026 with two backups a day, a week of failures and a host that was off for three days.
#[test]
fn seed_retention_a_month_of_real_runs_keeps_what_the_policy_says() {
    let (stack, data) = month();
    let start: Timestamp = "2026-10-01T02:00:00Z".parse().unwrap();
    for half in 0..62_i64 {
        let now = start + (12 * half).hours();
        let day = half / 2 + 1;
        if (20..23).contains(&day) {
            continue;
        }
        fs::write(data.join("state"), noise(half.unsigned_abs(), 20_000)).unwrap();
        let broken = (8..15).contains(&day);
        let away = data.with_extension("away");
        if broken {
            fs::rename(&data, &away).unwrap();
        }
        let ended = at(&stack, now, &["backup"]);
        assert_eq!(ended.code == 0, !broken, "{now}: {ended:#?}");
        if broken {
            fs::rename(&away, &data).unwrap();
        }
        if half % 2 == 1 {
            let ended = at(&stack, now + 1.hours(), &["run", "prune"]);
            assert_eq!(ended.code, 0, "{now}: {ended:#?}");
        }
        assert!(!stack.complete_points().is_empty(), "{now}: no complete point is left");
        if day == 14 && half % 2 == 1 {
            // Seven days of failures have pushed out nothing that was good.
            assert!(days(&stack).iter().any(|day| day == "2026-10-07"), "{:?}", days(&stack));
        }
    }
    let left = days(&stack);
    // The last seven days that have points; the last three weeks; nothing of the days that were off.
    for day in ["2026-10-31", "2026-10-30", "2026-10-29", "2026-10-28", "2026-10-27", "2026-10-26", "2026-10-25"] {
        assert!(left.iter().any(|one| one == day), "{day}: {left:?}");
    }
    assert!(left.len() < 14, "retention has kept too much: {left:?}");
    stack.place.ends(0, &["verify", "--read-data"]);
}

#[test]
fn days_and_schedules_are_those_of_the_service_wherever_they_are_judged() {
    let mut served = Served::new("");
    served.stack.place.set("TZ", "UTC");
    let data = served.stack.path("data").display().to_string();
    served.stack.set(&format!("[component.files]\nkind = \"files\"\npaths = [\"{data}\"]\nschedule = \"0 * * * *\""));
    served.stack.set("[retention]\nkeep-daily = 2\nmin-keep = 1");
    // Half past eleven in the evening of Tokyo, and half past midnight.
    for moment in ["2026-10-01T14:30:00Z", "2026-10-01T15:30:00Z"] {
        let ended = at(&served.stack, moment.parse().unwrap(), &["backup"]);
        assert_eq!(ended.code, 0, "{ended:#?}");
    }
    let file = served.stack.place.read("rekindle.toml");
    for (zone, kept) in [("UTC", 1), ("Asia/Tokyo", 2)] {
        served
            .stack
            .place
            .write("rekindle.toml", &file.replace("time-zone = \"UTC\"", &format!("time-zone = \"{zone}\"")));
        let plan = served.stack.place.json(0, &["forget", "--dry-run"]);
        let decisions = plan["result"]["decisions"].as_array().unwrap();
        assert_eq!(decisions.iter().filter(|one| one["keep"] == true).count(), kept, "{zone}: {plan}");
    }
    // What could not be started is not late, for `status` as for the service.
    let late = || {
        let said: Value = serde_json::from_str(&served.stack.place.run(&["status", "--json"]).out).unwrap();
        said["result"]["components"][0]["overdue_since"].clone()
    };
    assert_eq!(late(), "2026-10-01T16:00:00Z");
    let pause = "[pause.release]\nstart = \"0 0 1 1 *\"\nlength = \"53w\"\n";
    served.stack.place.write("rekindle.toml", &format!("{file}\n{pause}"));
    assert_eq!(late(), Value::Null);
}
