//! Grafana's files through the program: the database saved while it is written, restored, compared.
//! Grafana itself is not run: the schema is its own, the writer is a real SQLite.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rekindle_testkit::grafana::{GrafanaFiles, sqlite};
use serde_json::Value;

use super::stack::{Stack, wait_until};

fn stack_of(grafana: &GrafanaFiles) -> Stack {
    let mut stack = Stack::new();
    set(&mut stack, grafana, "");
    stack
}

fn set(stack: &mut Stack, grafana: &GrafanaFiles, more: &str) {
    stack.set(&format!(
        "[component.dashboards]\nkind = \"grafana\"\nconfig = \"{}\"\nhome = \"{}\"\n{more}",
        grafana.config().display(),
        grafana.home().display()
    ));
}

fn record(stack: &Stack) -> Value {
    stack.place.json(0, &["show", "latest"])["result"]["manifest"]["components"][0].take()
}

/// Every finding, of which none is bad and only one says what was not proved.
fn findings(summary: &Value) -> Vec<String> {
    let findings = summary["items"][0]["findings"].as_array().unwrap();
    let of = |level: &str| findings.iter().filter(|one| one["level"] == level).count();
    assert_eq!((of("bad"), of("warning")), (0, 1), "{findings:#?}");
    findings.iter().map(|one| one["text"].as_str().unwrap().to_owned()).collect()
}

fn count(database: &Path, table: &str) -> u64 {
    sqlite(database, &format!("SELECT count(*) FROM {table}")).parse().unwrap()
}

fn saved_while_written(wal: bool) {
    let grafana = GrafanaFiles::make(wal);
    let stack = stack_of(&grafana);
    let writer = grafana.write_in_a_loop();
    for round in 0..3 {
        let before = count(&grafana.database(), "dashboard");
        wait_until("the writer has written", || count(&grafana.database(), "dashboard") > before);
        stack.complete();
        let to = format!("back-{round}");
        let summary = stack.place.json(0, &["restore", "latest", "dashboards", "--to", &to])["result"].take();
        let findings = findings(&summary);
        assert!(findings.iter().any(|text| text.contains("integrity check")), "{findings:?}");
        let database = stack.path(&to).join("grafana.db");
        let boards = count(&database, "dashboard");
        assert!(boards > before, "what was there before is there");
        assert_eq!(boards, count(&database, "dashboard_version"), "no transaction is torn");
        assert_eq!(record(&stack)["details"]["tables"]["dashboard"], boards);
    }
    let written = writer.finish();
    assert_eq!(count(&grafana.database(), "dashboard"), 500 + written, "the writer was never refused");
    let details = &record(&stack)["details"];
    assert_eq!(details["journal_mode"], if wal { "wal" } else { "delete" });
    assert_eq!(details["migrations"]["migration_log"], "add uid column to star");
    assert_eq!(details["server_version"], "11.6.0");
}

#[test]
fn a_database_in_wal_mode_is_saved_while_it_is_written() {
    saved_while_written(true);
}

#[test]
fn a_database_with_a_rollback_journal_is_saved_while_it_is_written() {
    saved_while_written(false);
}

#[test]
fn in_place_nothing_old_stays_beside_the_database() {
    let grafana = GrafanaFiles::make(false);
    let database = grafana.database();
    let stack = stack_of(&grafana);
    stack.complete();
    grafana.sql("DELETE FROM dashboard");
    for end in ["-wal", "-shm", "-journal"] {
        fs::write(database.with_file_name(format!("grafana.db{end}")), "stale").unwrap();
    }
    std::os::unix::fs::chown(&database, Some(472), Some(472)).unwrap();
    fs::remove_dir_all(grafana.etc().join("provisioning")).unwrap();
    let restore = ["restore", "latest", "dashboards", "--in-place", "--no-safety-point"];
    let summary = stack.place.json(0, &restore)["result"].take();
    findings(&summary);
    assert_eq!(count(&database, "dashboard"), 500);
    let names: Vec<_> = fs::read_dir(grafana.data_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with("-wal")), "{names:?}");
    let kept = Path::new(summary["items"][0]["report"]["kept_old"].as_str().unwrap()).to_owned();
    assert_eq!(fs::read(kept.join("grafana.db-wal")).unwrap(), b"stale");
    let owner = fs::metadata(&database).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (472, 472));
    assert!(grafana.etc().join("provisioning/datasources/prometheus.yaml").exists());
}

#[test]
fn another_version_or_an_open_database_is_refused() {
    let grafana = GrafanaFiles::make(false);
    let stack = stack_of(&grafana);
    stack.complete();
    let restore = ["restore", "latest", "dashboards", "--in-place", "--no-safety-point"];
    fs::write(grafana.home().join("VERSION"), "12.4.0\n").unwrap();
    stack.place.ends(21, &restore).says("RK-GR-014", &["captured from 11.6.0", "--overwrite"]);
    let writer = grafana.write_in_a_loop();
    wait_until("the writer has written", || count(&grafana.database(), "dashboard") > 500);
    let told: Vec<&str> = restore.iter().copied().chain(["--overwrite"]).collect();
    stack.place.ends(21, &told).says("RK-GR-012", &["sqlite3", "stop it first"]);
    writer.finish();
    stack.place.ends(0, &told);
    assert_eq!(count(&grafana.database(), "dashboard"), 500);
}

#[test]
fn the_key_is_saved_and_its_absence_is_loud() {
    let grafana = GrafanaFiles::make(false);
    let mut stack = stack_of(&grafana);
    let ended = stack.place.ends(0, &["backup"]);
    assert!(!ended.err.contains("canary") && !ended.err.contains("secret_key"), "{ended:?}");
    assert_eq!(record(&stack)["details"]["secret_key"], "own");
    assert!(!record(&stack).to_string().contains("canary"), "the manifest never holds it");

    let ini = fs::read_to_string(grafana.config()).unwrap().replace("secret_key = canary-secret-key\n", "");
    fs::write(grafana.config(), ini.clone()).unwrap();
    let ended = stack.place.ends(0, &["backup"]);
    assert!(ended.err.contains("DEFAULT secret_key"), "{ended:?}");
    fs::write(grafana.config(), format!("{ini}secret_key = ${{KEY}}\n")).unwrap();
    let ended = stack.place.ends(0, &["backup"]);
    assert!(ended.err.contains("secret_key is NOT in the backup"), "{ended:?}");

    stack.place.write("key-of-grafana", "canary-other-key\n");
    set(&mut stack, &grafana, "secret-key = \"file:key-of-grafana\"");
    stack.place.ends(0, &["backup"]);
    let saved = stack.place.ends(0, &["cat", "latest", "dashboards/secret-key"]);
    assert_eq!(saved.out, "canary-other-key");
}

#[test]
fn other_databases_and_damage_are_named() {
    let grafana = GrafanaFiles::make(false);
    let mut stack = stack_of(&grafana);
    let ini = fs::read_to_string(grafana.config()).unwrap();
    let other = ini.replace("[database]", "[database]\nurl = postgres://grafana:canary@pg:5432/grafana");
    fs::write(grafana.config(), other).unwrap();
    let ended = stack.place.ends(5, &["backup"]);
    ended.says("RK-GR-006", &["postgres at pg:5432/grafana", "kind `postgres`"]);
    assert!(!ended.err.contains("canary"), "{ended:?}");
    fs::write(grafana.config(), ini).unwrap();
    set(&mut stack, &grafana, "stage-dir = \"/proc/nothing\"");
    stack.place.ends(1, &["backup"]).says("RK-GR-009", &["stage-dir"]);
    set(&mut stack, &grafana, "");
    let mut bytes = fs::read(grafana.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0x5a);
    fs::write(grafana.database(), bytes).unwrap();
    stack.place.ends(1, &["backup"]).says("RK-GR-008", &["integrity_check"]);
    fs::remove_file(grafana.database()).unwrap();
    stack.place.ends(20, &["backup"]).says("RK-GR-007", &["data-dir"]);
}

#[test]
fn a_server_that_does_not_answer_costs_the_export_and_not_the_backup() {
    let grafana = GrafanaFiles::make(false);
    let mut stack = stack_of(&grafana);
    stack.place.write("token", "canary-token\n");
    let port = rekindle_testkit::port::Port::take();
    set(&mut stack, &grafana, &format!("url = \"http://127.0.0.1:{}\"\ntoken = \"file:token\"", port.number()));
    let ended = stack.place.ends(0, &["backup"]);
    assert!(ended.err.contains("no readable export"), "{ended:?}");
    let record = record(&stack);
    assert_eq!(record["details"]["export"], false);
    assert!(record["notes"]["listed"].to_string().contains("no readable export"), "{record:#}");
}
