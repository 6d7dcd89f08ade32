//! Drills through the program, on real servers: what passes, what is recorded, what is left behind.

mod bench;
mod catches;
mod faults;
mod peek;
mod physical;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rekindle_testkit::fixtures::{
    compare_maps, compare_redis, compare_trees, postgres_fingerprint, redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::{Value, json};

use super::stack::Stack;

/// A stack whose sandboxes are below its own directory, open for the users of engines.
fn stack() -> Stack {
    let mut stack = Stack::new();
    fs::set_permissions(stack.place.path(), fs::Permissions::from_mode(0o711)).unwrap();
    set_drill(&mut stack, "");
    stack
}

fn set_drill(stack: &mut Stack, more: &str) {
    let section = format!("[drill]\ndir = \"{}\"\n{more}", sandboxes(stack).display());
    stack.set(&section);
}

fn sandboxes(stack: &Stack) -> PathBuf {
    stack.path("sb")
}

/// Processes that work in a directory or name it on their command line.
fn processes_of(directory: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| *pid != own && pid.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|pid| {
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (cwd || line.contains(directory.to_str().unwrap())).then(|| format!("{pid}: {line}"))
        })
        .collect()
}

/// Nothing of any drill is left: no process, and so no socket and port, and no directory.
fn nothing_is_left(stack: &Stack) {
    let base = sandboxes(stack);
    assert_eq!(processes_of(&base), Vec::<String>::new());
    let left: Vec<PathBuf> = fs::read_dir(&base).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

fn small_database(postgres: &Postgres) {
    postgres.psql("postgres", "CREATE ROLE shop_owner; CREATE DATABASE shop OWNER shop_owner");
    postgres.psql(
        "shop",
        "CREATE TABLE orders (id int PRIMARY KEY, note text); ALTER TABLE orders OWNER TO shop_owner; \
         INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 200) n",
    );
}

fn outcomes(answer: &Value) -> Vec<(String, String)> {
    let drills = answer["result"]["drills"].as_array().unwrap();
    let components = drills.iter().flat_map(|drill| drill["work"]["components"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    components.map(|one| (text(&one["component"]), text(&one["outcome"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn a_drilled_stack_is_proved_and_the_live_one_is_not_touched() {
    let settings = vec![("log_connections".to_owned(), "on".to_owned())];
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() });
    small_database(&postgres);
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 20);
    let mut stack = stack();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    fs::create_dir(data.join("closed")).unwrap();
    fs::write(data.join("closed/b"), vec![7; 300_000]).unwrap();
    fs::set_permissions(data.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
    stack.postgres(
        &postgres,
        postgres.port(),
        &["shop".to_owned()],
        "objective = { rpo = \"1h\", rto = \"10m\", proof = \"1d\" }\nchecks = [\"SELECT count(*) = 200 FROM orders\"]",
    );
    stack.redis(&redis, redis.port(), "checks = [[\"sh\", \"-c\", 'test -S \"$REKINDLE_SOCKET\"']]");
    stack.complete();

    let status = stack.place.json(0, &["status"]);
    let database = |status: &Value| {
        let all = status["result"]["components"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["component"] == "database").unwrap()
    };
    assert_eq!(database(&status)["verdict"], "at-risk", "no restore was measured or proved");

    let rows = postgres_fingerprint(&postgres, "shop");
    let keys = redis_fingerprint(&redis);
    let copy = stack.path("copy");
    assert!(std::process::Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap().success());
    let connections = |log: &str| log.matches("connection received").count();
    let connected = connections(&postgres.log_text());
    let received = |redis: &Redis| {
        let info = redis.command(&[b"INFO", b"stats"]);
        let info = String::from_utf8_lossy(info.bytes()).into_owned();
        let (_, rest) = info.split_once("total_connections_received:").unwrap();
        rest.lines().next().unwrap().parse::<u64>().unwrap()
    };
    let asked = received(&redis);

    let answer = stack.place.json(0, &["drill", "--html", "proof.html"]);
    assert_eq!(
        outcomes(&answer),
        pairs(&[("database", "passed"), ("cache", "passed"), ("files", "passed")]),
        "{answer:#}"
    );
    nothing_is_left(&stack);

    // The live stack was not even asked.
    assert_eq!(connections(&postgres.log_text()), connected, "no connection to the live PostgreSQL");
    assert_eq!(received(&redis), asked + 1, "no connection to the live Redis but this question");
    assert_eq!(compare_maps(&rows, &postgres_fingerprint(&postgres, "shop")), Vec::<String>::new());
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&redis), 120_000), Vec::<String>::new());
    assert_eq!(compare_trees(&data, &copy), Vec::<String>::new());

    let record = &answer["result"]["drills"][0];
    let one = &record["work"]["components"][0];
    assert!(one["engine"].as_str().unwrap().starts_with("PostgreSQL 15."), "{one:#}");
    assert!(one["restore_ms"].as_u64().unwrap() > 0, "{one:#}");
    let findings = one["findings"].to_string();
    for part in ["rows of 1 counted and equal", "pg_amcheck finds nothing wrong", "SELECT count(*) = 200"] {
        assert!(findings.contains(part), "{part}: {findings}");
    }
    let guarantees = record["work"]["guarantees"].to_string();
    assert!(guarantees.contains("network namespace") || guarantees.contains("NOT prevented"), "{guarantees}");
    everything_says_proved(&stack, record);
    assert_eq!(database(&stack.place.json(0, &["status"]))["verdict"], "met");
}

/// list, show, status, proof and the plan of a restore.
fn everything_says_proved(stack: &Stack, record: &Value) {
    assert_eq!(stack.newest()["trust"], "proved");
    assert_eq!(stack.place.json(0, &["show"])["result"]["trust"], "proved");
    let status = stack.place.json(0, &["status"]);
    for one in status["result"]["components"].as_array().unwrap() {
        assert_eq!((&one["trust"], &one["newest_drill"]), (&json!("proved"), &json!("passed")), "{one:#}");
        assert!(one["proof_age_seconds"].as_u64().unwrap() < 600 && one["forecast"]["measured"] == 1, "{one:#}");
    }
    let listed = stack.place.json(0, &["proof", "list"]);
    assert_eq!(listed["result"]["proofs"], json!([record]));
    let shown = stack.place.json(0, &["proof", "show", "latest"]);
    let signed: Value = serde_json::from_str(shown["result"]["signed"].as_str().unwrap()).unwrap();
    assert_eq!(signed, *record, "what was signed is what is shown");
    assert_eq!(stack.place.json(0, &["proof", "verify"])["result"]["records"], 1);
    assert_eq!(stack.place.json(0, &["verify"])["result"]["proof_records"], 1);
    let page = stack.place.read("proof.html");
    for part in ["Proof of restore", "PostgreSQL 15.", "Measured RTO", record["work"]["point"].as_str().unwrap()] {
        assert!(page.contains(part), "{part}");
    }
    let plan = stack.place.json(0, &["restore", "latest", "--dry-run"]);
    assert!(plan["result"]["items"][0]["forecast"]["seconds"].as_u64().unwrap() >= 1, "{plan:#}");
    // A new point is not proved by the drill of an older one.
    stack.complete();
    assert_eq!(stack.newest()["trust"], "unverified");
    stack.place.ends(0, &["verify", "--read-data"]);
    assert_eq!(stack.newest()["trust"], "verified");
}

#[test]
fn a_changed_or_removed_proof_is_seen_and_nothing_is_believed() {
    let mut stack = stack();
    let data = stack.files("data");
    fs::write(data.join("a"), "one").unwrap();
    stack.complete();
    stack.place.json(0, &["drill"]);
    stack.place.json(0, &["drill", "files"]);
    // This point has seen both.
    stack.complete();
    let proofs = stack.path("repo/rekindle/proofs");
    let first = proofs.join("000000000001");
    let whole = fs::read(&first).unwrap();
    let seen = |what: &str| {
        for arguments in [&["proof", "verify"][..], &["verify"], &["proof", "list"], &["list"], &["show"], &["status"]]
        {
            let value = stack.place.json(13, arguments);
            assert!(value.to_string().contains("RK-RP-020"), "{what}: {value}");
        }
        let points = stack.place.json(13, &["list"])["result"]["points"].clone();
        assert!(points.as_array().unwrap().iter().all(|point| point["trust"] == "unverified"), "{what}");
    };
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&first, changed).unwrap();
        seen("a changed byte");
    }
    fs::write(&first, fs::read(proofs.join("000000000002")).unwrap()).unwrap();
    seen("another record in its place");
    fs::remove_file(&first).unwrap();
    seen("a removed record");
    fs::write(&first, &whole).unwrap();
    stack.place.json(0, &["proof", "verify"]);
    let last = proofs.join("000000000002");
    let kept = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    let value = stack.place.json(13, &["verify"]);
    assert!(value.to_string().contains("a point has seen it"), "cut off at its end: {value}");
    fs::write(&last, kept).unwrap();
    stack.place.json(0, &["verify"]);
}

#[test]
fn parts_are_read_one_after_the_other_until_all_was_read() {
    let mut stack = stack();
    let data = stack.files("data");
    for n in 0..8 {
        fs::write(data.join(n.to_string()), super::stack::noise(n, 200_000)).unwrap();
        stack.complete();
    }
    let read_at = || stack.place.json(0, &["status"])["result"]["data_read_at"].clone();
    let (mut packs, total) = (0, stack.place.json(0, &["verify"])["result"]["packs"].as_u64().unwrap());
    for part in 1..=3 {
        assert_eq!(read_at(), Value::Null, "before part {part}");
        let result = stack.place.json(0, &["verify", "--next", "1/3"])["result"].take();
        assert_eq!(result["part"], json!({"part": part, "of": 3}));
        packs += result["packs_read"].as_u64().unwrap();
    }
    assert_eq!(packs, total, "every pack once");
    assert!(read_at().is_string());
    assert_eq!(stack.place.json(0, &["verify", "--next", "1/3"])["result"]["part"]["part"], 1);
    assert_eq!(stack.newest()["trust"], "unverified", "parts do not verify a point");
    stack.place.ends(2, &["verify", "--next", "3/3"]);
}

#[test]
fn a_base_backup_is_recovered_started_and_asked() {
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    let mut stack = stack();
    stack.place.write("pg-password", &format!("{}\n", postgres.password()));
    let section = |check: &str| {
        format!(
            "[component.database]\nkind = \"postgres\"\nmethod = \"physical\"\npassword = \"file:pg-password\"\n\
             url = \"postgres://postgres@127.0.0.1:{}/shop\"\nchecks = [\"{check}\"]",
            postgres.port()
        )
    };
    stack.set(&section("SELECT count(*) = 200 FROM orders"));
    stack.complete();
    let answer = stack.place.json(0, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "passed")]), "{answer:#}");
    let one = &answer["result"]["drills"][0]["work"]["components"][0];
    assert!(one["engine"].as_str().unwrap().starts_with("PostgreSQL 15."), "{one:#}");
    nothing_is_left(&stack);
    stack.set(&section("SELECT count(*) = 7 FROM orders"));
    assert_eq!(outcomes(&stack.place.json(4, &["drill"])), pairs(&[("database", "failed")]));
    nothing_is_left(&stack);
}
