//! Restores to where the data lives: sessions in the way, old states kept, safety points.

use std::fs;
use std::process::Stdio;

use rekindle_testkit::fixtures::{
    compare_maps, compare_redis, postgres_fingerprint, postgres_stack, redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};

use super::stack::{Stack, assert_same_trees, wait_until};

fn databases(postgres: &Postgres) -> Vec<String> {
    let sql = "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1";
    postgres.psql("postgres", sql).lines().map(str::to_owned).collect()
}

#[test]
fn a_database_in_use_is_replaced_and_the_old_one_kept() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "saved").unwrap();
    let postgres = Postgres::start(PostgresOptions::default());
    let made = postgres_stack(&postgres, 300);
    let name = &made.databases[0];
    stack.postgres(&postgres, postgres.port(), &made.databases[..1], "");
    stack.complete();
    let saved = postgres_fingerprint(&postgres, name);

    let destroy = "DELETE FROM cards.events; UPDATE cards.users SET name = 'lost'";
    postgres.psql(name, destroy);
    fs::write(data.join("a"), "overwritten").unwrap();
    let changed = postgres_fingerprint(&postgres, name);
    assert_ne!(compare_maps(&saved, &changed), Vec::<String>::new());
    let before = databases(&postgres);

    // Somebody sits in the database and does not leave.
    let sleep = ["-X", "-d", name, "-c", "SELECT pg_sleep(600)"];
    let mut session = postgres.client("psql").args(sleep).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
    wait_until("a session", || postgres.psql("postgres", &sessions) != "0");
    let point = stack.newest()["id"].clone();
    let report = stack.place.json(0, &["restore", point.as_str().unwrap(), "--in-place"]);
    assert!(!session.wait().unwrap().success(), "the session was ended");

    assert_eq!(compare_maps(&saved, &postgres_fingerprint(&postgres, name)), Vec::<String>::new());
    assert_eq!(fs::read_to_string(data.join("a")).unwrap(), "saved");
    let kept: Vec<String> = databases(&postgres).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(kept.len(), 1, "the old database is kept: {report}");
    let old = postgres_fingerprint(&postgres, &kept[0]);
    let rows = |print: &std::collections::BTreeMap<String, String>| {
        print
            .iter()
            .filter(|(key, _)| key.starts_with("rows:"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&old), rows(&changed), "as it was");
    // The state before is also a point.
    let safety = report["result"]["safety_point"].as_str().expect("a safety point").to_owned();
    assert_eq!(stack.newest()["id"], safety.as_str());
    assert_eq!(stack.newest()["state"], "complete");
    stack.place.json(0, &["restore", &safety, "files", "--to", "before"]);
    let inside = super::stack::below(&stack.path("before"), &data);
    assert_eq!(fs::read_to_string(inside.join("a")).unwrap(), "overwritten");

    // Once more, and this time nothing is kept.
    postgres.psql(name, destroy);
    let count = databases(&postgres).len();
    stack.place.json(0, &["restore", point.as_str().unwrap(), "--in-place", "--discard-old"]);
    assert_eq!(databases(&postgres).len(), count);
    assert_eq!(compare_maps(&saved, &postgres_fingerprint(&postgres, name)), Vec::<String>::new());
}

#[test]
fn redis_comes_back_with_and_without_an_append_only_file() {
    for appendonly in [false, true] {
        let mut stack = Stack::new();
        let directory = stack.path("redis");
        let options = RedisOptions { appendonly, dir: Some(directory.clone()), ..RedisOptions::default() };
        let mut redis = Redis::start(options);
        redis_data(&redis, 30);
        stack.redis(&redis, redis.port(), &format!("data-dir = \"{}\"", directory.display()));
        stack.complete();
        let saved = redis_fingerprint(&redis);
        // A running server would write over the files.
        stack.place.ends(21, &["restore", "latest", "--in-place"]).says("RK-RD-011", &["cache"]);
        redis.command(&[b"FLUSHALL"]);
        redis.command(&[b"SET", b"new", b"1"]);
        redis.stop();
        // What stands there now cannot be captured: the server is down.
        stack.place.ends(21, &["restore", "latest", "--in-place"]).says("RK-EN-013", &["--no-safety-point"]);
        let report = stack.place.json(0, &["restore", "latest", "--in-place", "--no-safety-point"]);
        redis.restart();
        assert_eq!(compare_redis(&saved, &redis_fingerprint(&redis), 0), Vec::<String>::new(), "{appendonly} {report}");
        if appendonly {
            // A second start reads what the first one wrote.
            redis.command(&[b"SET", b"later", b"1"]);
            redis.restart();
            assert!(redis_fingerprint(&redis).keys.contains_key(&(0, b"later".to_vec())));
        }
    }
}

#[test]
fn redis_comes_back_key_by_key_into_a_running_server() {
    let mut stack = Stack::new();
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 30);
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    let saved = redis_fingerprint(&redis);
    stack.place.ends(21, &["restore", "latest", "--live"]).says("RK-RD-008", &["cache"]);
    assert_eq!(compare_redis(&saved, &redis_fingerprint(&redis), 0), Vec::<String>::new(), "untouched");
    redis.command(&[b"FLUSHALL"]);
    redis.command(&[b"FUNCTION", b"FLUSH"]);
    stack.place.json(0, &["restore", "latest", "--live"]);
    assert_eq!(compare_redis(&saved, &redis_fingerprint(&redis), 0), Vec::<String>::new());
}

#[test]
fn a_tree_in_place_keeps_the_old_one_beside() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    rekindle_testkit::fixtures::odd_tree_with(
        &data,
        &rekindle_testkit::fixtures::OddTreeOptions { small_files: 40, medium_files: 0, sparse: false, depth: 5 },
    );
    let copy = stack.path("copy");
    let copied = std::process::Command::new("cp").args(["-a", "-T"]).arg(&data).arg(&copy).status();
    assert!(copied.unwrap().success());
    stack.complete();
    fs::remove_dir_all(data.join("small")).unwrap();
    fs::write(data.join("added"), "later").unwrap();
    let report = stack.place.json(0, &["restore", "latest", "files", "--in-place", "--no-safety-point"]);
    assert_same_trees(&copy, &data);
    let old = fs::read_dir(stack.place.path()).unwrap().flatten().map(|entry| entry.path());
    let old: Vec<_> = old.filter(|path| path.join("added").exists()).collect();
    assert_eq!(old.len(), 1, "the old tree is kept: {report}");
    assert!(report["result"]["items"][0]["report"]["kept_old"].is_string(), "{report}");
}
