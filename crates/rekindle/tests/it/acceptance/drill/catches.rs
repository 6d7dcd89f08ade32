//! What a drill has to catch. Points are real; where the program itself would not take a bad backup,
//! the drill is shown a point that is not what its manifest says.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rekindle_core::manifest::ComponentRecord;
use rekindle_core::objective::{Objective, Verdict};
use rekindle_core::port::RestoreReport;
use rekindle_core::proof_record::Outcome;
use rekindle_core::sandbox::Sandbox;
use rekindle_sources::postgres::PostgresSandbox;
use rekindle_sources::redis::RedisSandbox;
use rekindle_sources::sandbox::{Checks, DirectorySandbox};
use rekindle_testkit::fixtures::redis_data;
use rekindle_testkit::grafana::GrafanaFiles;
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::json;

use super::super::stack::Stack;
use super::bench::{Bench, Lie, Meddled, Panicking, failed, id};
use super::{nothing_is_left, outcomes, pairs, small_database, stack};

#[test]
fn drill_catches_the_wrong_database_a_missing_role_and_a_missing_extension() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    postgres.psql("shop", "CREATE EXTENSION pgcrypto");
    let mut stack = stack();
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], "");
    stack.complete();
    let bench = Bench::of(&stack);
    let first = bench.newest().id().clone();
    let sandbox = |site| -> Arc<dyn Sandbox> { Arc::new(PostgresSandbox::new(site, id("database"), None)) };
    let good = bench.drill(sandbox, &Lie::default());
    assert_eq!(good.outcome, Outcome::Passed, "{good:#?}");

    // The dump is of an earlier, other state of the world than the manifest says.
    postgres.psql("shop", "DROP TABLE orders; CREATE TABLE invoices (id int); INSERT INTO invoices VALUES (1)");
    stack.complete();
    let lie = Lie { other: Some(("databases/shop.dump", first)), ..Lie::default() };
    failed("the dump of the wrong database", &bench.drill(sandbox, &lie), "invoices");

    let lie = Lie {
        record: Some(|record| record.details["databases"][0]["tables"][0]["exact_rows"] = json!(7)),
        ..Lie::default()
    };
    failed("a table with fewer rows than counted", &bench.drill(sandbox, &lie), "instead of 7");

    let lie = Lie { record: Some(|record| record.details["globals"] = json!("none")), ..Lie::default() };
    failed("a missing role", &bench.drill(sandbox, &lie), "shop_owner");

    let plpgsql = |record: &mut ComponentRecord| {
        let extensions = record.details["databases"][0]["extensions"].as_array_mut().unwrap();
        extensions.push(json!({"name": "pg_trgm", "version": "1.6"}));
    };
    let lie = Lie { record: Some(plpgsql), ..Lie::default() };
    failed("a missing extension", &bench.drill(sandbox, &lie), "pg_trgm");

    let lie = Lie { cut: Some(("databases/shop.dump", 20)), ..Lie::default() };
    failed("a truncated dump", &bench.drill(sandbox, &lie), "pg_restore");

    // What is lacking here is no proof of anything.
    for (lie, says) in [
        (
            Lie { record: Some(|r| r.details["server"]["version_number"] = json!(990_001)), ..Lie::default() },
            "PostgreSQL 99",
        ),
        (
            Lie {
                record: Some(|record| {
                    let extensions = record.details["databases"][0]["extensions"].as_array_mut().unwrap();
                    extensions.push(json!({"name": "of_another_world", "version": "1"}));
                }),
                ..Lie::default()
            },
            "of_another_world",
        ),
        (
            Lie {
                record: Some(|r| r.details["databases"][0]["properties"]["collate"] = json!("xx_XX.UTF-8")),
                ..Lie::default()
            },
            "xx_XX",
        ),
    ] {
        let (proof, exit) = bench.drill_with(sandbox, &lie, Objective::default());
        assert_eq!((proof.outcome, exit), (Outcome::Unproved, 4), "{says}: {proof:#?}");
        assert!(proof.problem.unwrap().message.contains(says));
    }
    nothing_is_left(&stack);
}

/// Sections of a dump without counted rows.
fn uncounted(stack: &mut Stack, postgres: &Postgres, more: &str) {
    stack.place.write("pg-password", &format!("{}\n", postgres.password()));
    stack.set(&format!(
        "[component.database]\nkind = \"postgres\"\nurl = \"postgres://postgres@127.0.0.1:{}/shop\"\n\
         password = \"file:pg-password\"\n{more}",
        postgres.port()
    ));
}

fn first_table(record: &mut ComponentRecord) -> &mut serde_json::Value {
    &mut record.details["databases"][0]["tables"][0]
}

#[test]
fn drill_catches_an_empty_table_that_had_rows() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    let mut stack = stack();
    uncounted(&mut stack, &postgres, "");
    postgres.psql("shop", "CREATE TABLE queue AS SELECT n FROM generate_series(1, 500) n; ANALYZE; DELETE FROM queue");
    postgres.psql("shop", "TRUNCATE orders");
    stack.complete();
    let bench = Bench::of(&stack);
    let emptied = bench.newest().id().clone();
    postgres.psql("shop", "INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 200) n");
    stack.complete();
    let sandbox = |site| -> Arc<dyn Sandbox> { Arc::new(PostgresSandbox::new(site, id("database"), None)) };
    // A queue that was emptied before the backup, whatever PostgreSQL estimates: no false alarm.
    let good = bench.drill(sandbox, &Lie::default());
    assert_eq!(good.outcome, Outcome::Passed, "{good:#?}");
    assert!(format!("{:?}", good.findings).contains("2 more with or without rows as they were"), "{good:#?}");

    // The dump lacks the rows that were there when it was made.
    let other = Some(("databases/shop.dump", emptied));
    let lie = Lie { other: other.clone(), ..Lie::default() };
    failed("rows that nobody counted", &bench.drill(sandbox, &lie), "is empty, and it had rows");
    let lie = Lie { record: Some(|record| first_table(record)["has_rows"] = json!(false)), ..Lie::default() };
    failed("rows in a table that had none", &bench.drill(sandbox, &lie), "has rows, and it had none");

    // Points of an older program: only an estimate is known.
    let many: fn(&mut ComponentRecord) = |record| only_estimated(record, 5000);
    let lie = Lie { record: Some(many), other: other.clone(), ..Lie::default() };
    failed("many estimated rows", &bench.drill(sandbox, &lie), "had estimated 5000 rows");
    let lie = Lie { record: Some(|record| only_estimated(record, 5)), other, ..Lie::default() };
    let proof = bench.drill(sandbox, &lie);
    assert_eq!(proof.outcome, Outcome::Unproved, "few estimated rows: {proof:#?}");
    nothing_is_left(&stack);
}

/// As a point of an older program says it.
fn only_estimated(record: &mut ComponentRecord, rows: i64) {
    for table in record.details["databases"][0]["tables"].as_array_mut().unwrap() {
        table.as_object_mut().unwrap().remove("has_rows");
        table["estimated_rows"] = json!(if table["name"] == "orders" { rows } else { 0 });
    }
}

#[test]
fn a_library_that_has_to_be_preloaded_is_there_or_nothing_is_proved() {
    let library = ("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned());
    let postgres = Postgres::start(PostgresOptions { settings: vec![library], ..PostgresOptions::default() });
    small_database(&postgres);
    postgres.psql("shop", "CREATE EXTENSION pg_stat_statements");
    let mut stack = stack();
    // The view refuses when the library was not loaded at the start.
    uncounted(&mut stack, &postgres, "checks = [\"SELECT count(*) >= 0 FROM pg_stat_statements\"]");
    stack.complete();
    let answer = stack.place.json(0, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "passed")]), "{answer:#}");
    let bench = Bench::of(&stack);
    let sandbox = |site| -> Arc<dyn Sandbox> { Arc::new(PostgresSandbox::new(site, id("database"), None)) };
    let lie =
        Lie { record: Some(|r| r.details["server"]["preload"] = json!("library_of_another_world")), ..Lie::default() };
    let (proof, exit) = bench.drill_with(sandbox, &lie, Objective::default());
    assert_eq!((proof.outcome, exit), (Outcome::Unproved, 4), "{proof:#?}");
    assert!(proof.problem.unwrap().message.contains("library_of_another_world"));
    nothing_is_left(&stack);
}

#[test]
fn drill_catches_a_too_slow_restore() {
    let mut stack = stack();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.complete();
    let bench = Bench::of(&stack);
    let sandbox = |site| -> Arc<dyn Sandbox> {
        let options = rekindle_sources::files::FilesOptions { paths: vec!["/".into()], ..Default::default() };
        let component = rekindle_sources::files::FilesComponent::new(id("files"), options).unwrap();
        Arc::new(DirectorySandbox::new(site, Arc::new(component), Checks::default()))
    };
    let objective = Objective { rto_seconds: Some(0), ..Objective::default() };
    let (proof, exit) = bench.drill_with(sandbox, &Lie::default(), objective);
    assert_eq!((proof.outcome, exit), (Outcome::Passed, 4), "{proof:#?}");
    assert!(matches!(proof.rto, Verdict::Missed(_)));
    let objective = Objective { rto_seconds: Some(3600), ..Objective::default() };
    assert_eq!(bench.drill_with(sandbox, &Lie::default(), objective).1, 0);
    // Limits that nobody looks at any more end the drill.
    let panicking = |site| -> Arc<dyn Sandbox> { Arc::new(Panicking { inner: sandbox(site) }) };
    failed("a panic in the look at the limits", &bench.drill(panicking, &Lie::default()), "limits of the sandbox");
}

#[test]
fn drill_catches_a_truncated_rdb_and_a_stale_append_only_file() {
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 20);
    let mut stack = stack();
    stack.redis(&redis, redis.port(), "appendonly = true\n");
    stack.complete();
    let bench = Bench::of(&stack);
    let plain =
        |site| -> Arc<dyn Sandbox> { Arc::new(RedisSandbox::new(site, id("cache"), Some(true), Checks::default())) };
    let good = bench.drill(plain, &Lie::default());
    assert_eq!(good.outcome, Outcome::Passed, "{good:#?}");
    assert!(good.engine.as_deref().is_some_and(|engine| engine.starts_with("Redis 7.0")), "{good:#?}");

    let lie = Lie { cut: Some(("dump.rdb", 100)), ..Lie::default() };
    failed("a truncated RDB", &bench.drill(plain, &lie), "RDB");

    let count = |record: &mut ComponentRecord| record.details["rdb"]["databases"]["0"]["keys"] = json!(1);
    let lie = Lie { record: Some(count), ..Lie::default() };
    failed("other keys than counted", &bench.drill(plain, &lie), "differ from the manifest");

    // An old append-only file in the directory wins over the restored RDB when the server starts.
    let stale = |site| -> Arc<dyn Sandbox> { Arc::new(Meddled { inner: plain(site), meddle: plant_stale_aof }) };
    failed("a stale AOF", &bench.drill(stale, &Lie::default()), "keys");

    let lie = Lie { record: Some(|record| record.details["rdb"]["version"] = json!(78)), ..Lie::default() };
    let proof = bench.drill(plain, &lie);
    assert!(proof.outcome != Outcome::Passed, "{proof:#?}");
    nothing_is_left(&stack);
}

fn plant_stale_aof(report: &RestoreReport) {
    let directory = PathBuf::from(&report.place).join("appendonlydir");
    for entry in fs::read_dir(&directory).unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
    let set = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$5\r\nstale\r\n$1\r\n1\r\n";
    fs::write(directory.join("appendonly.aof.1.incr.aof"), set).unwrap();
    fs::write(directory.join("appendonly.aof.manifest"), "file appendonly.aof.1.incr.aof seq 1 type i\n").unwrap();
}

/// A data source's password, sealed by OpenSSL with `canary-secret-key`, the key of the fixture.
const SEALED: &str = "obLD1OX2BxgAAQIDBAUGBwgJCgsMDQ4Pv5WXoF1Tkm9Z8KQAGzRHrIQL0MXZ9OkYYqMH3mYp8xyRI259+9g=";

#[test]
fn drill_catches_a_grafana_without_its_key() {
    let grafana = GrafanaFiles::make(false);
    grafana.sql(&format!(
        "INSERT INTO data_source (org_id, version, type, name, access, url, secure_json_data, uid) \
         VALUES (1, 1, 'postgres', 'shop', 'proxy', 'db', '{{\"password\": \"{SEALED}\"}}', 'x')"
    ));
    let mut stack = stack();
    let set = |stack: &mut Stack, key: &str| {
        stack.set(&format!(
            "[component.dashboards]\nkind = \"grafana\"\nconfig = \"{}\"\nhome = \"{}\"\n{key}",
            grafana.config().display(),
            grafana.home().display()
        ));
        stack.complete();
    };
    set(&mut stack, "");
    let answer = stack.place.json(0, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "passed")]));
    assert!(answer.to_string().contains("opens all 1 encrypted values"), "{answer:#}");

    // Another key than the one Grafana runs with.
    stack.place.write("grafana-key", "not-the-key");
    set(&mut stack, "secret-key = \"file:grafana-key\"");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "failed")]));
    assert!(answer["error"]["message"].as_str().unwrap().contains("does not open"), "{answer:#}");

    // A key that is nowhere in the point.
    let ini = fs::read_to_string(grafana.config()).unwrap();
    fs::write(grafana.config(), ini.replace("canary-secret-key", "${KEPT_ELSEWHERE}")).unwrap();
    set(&mut stack, "");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("dashboards", "failed")]));
    assert!(answer["error"]["message"].as_str().unwrap().contains("does not hold the `secret_key`"), "{answer:#}");
}

#[test]
fn what_the_users_checks_say_counts() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    postgres.psql("shop", "TRUNCATE orders");
    let mut stack = stack();
    let check = "checks = [\"SELECT count(*) > 0 FROM orders\"]";
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], check);
    stack.complete();
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "an empty table that has to have rows");
    assert!(answer["error"]["message"].as_str().unwrap().contains("says no"), "{answer:#}");

    // A backup of another database than the one the application uses.
    postgres.psql("postgres", "CREATE DATABASE other");
    stack.postgres(&postgres, postgres.port(), &["other".to_owned()], check);
    stack.complete();
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "failed")]), "the wrong database");
    nothing_is_left(&stack);
}
