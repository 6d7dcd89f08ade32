//! The main job: a stack with everything in it is saved, destroyed, and comes back equal.

use std::collections::BTreeMap;
use std::fs;

use rekindle_testkit::fixtures::{
    OddTreeOptions, compare_maps, compare_redis, odd_tree, odd_tree_with, postgres_fingerprint, postgres_stack,
    redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::Value;

use super::stack::{Stack, assert_same_trees, below};
use crate::run::Place;

const ROWS: u64 = 2000;
const KEYS: usize = 60;

fn nothing() -> Vec<String> {
    Vec::new()
}

/// What a database must come back as. Views are printed differently by each major version; the
/// superuser is the target server's own.
fn facts(postgres: &Postgres, database: &str, same_major: bool) -> BTreeMap<String, String> {
    let mut print = postgres_fingerprint(postgres, database);
    print.retain(|key, _| key != "role:postgres" && (same_major || !key.starts_with("view:")));
    print
}

fn stored_bytes(report: &Value) -> u64 {
    report["components"].as_array().unwrap().iter().map(|one| one["stored_bytes"].as_u64().unwrap()).sum()
}

#[test]
fn a_destroyed_stack_comes_back_equal() {
    let mut stack = Stack::new();
    let original = stack.files("data");
    odd_tree(&original);
    let mut redis = Redis::start(RedisOptions {
        appendonly: true,
        dir: Some(stack.path("redis")),
        password: Some("canary-redis-password".to_owned()),
        ..RedisOptions::default()
    });
    redis_data(&redis, KEYS);
    let redis_more = format!("data-dir = \"{}\"", stack.path("redis").display());
    stack.redis(&redis, redis.port(), &redis_more);
    let postgres = Postgres::start(PostgresOptions::default());
    let made = postgres_stack(&postgres, ROWS);
    stack.postgres_stack(&postgres, &made);

    let first = stack.complete();
    assert_eq!(first["components"].as_array().unwrap().len(), 3);
    look_at_everything(&stack);
    let second = stack.complete();
    assert!(stored_bytes(&second) < stored_bytes(&first) / 4, "unchanged data is stored once: {second}");
    let files = &second["components"][2];
    assert_eq!((&files["component"], &files["unchanged_bytes"]), (&"files".into(), &files["bytes"]), "{files}");

    let before: Vec<_> = made.databases.iter().map(|name| facts(&postgres, name, true)).collect();
    let keys = redis_fingerprint(&redis);
    let copy = stack.path("copy");
    fs::rename(&original, &copy).unwrap();
    drop(postgres);
    redis.kill9();
    fs::remove_dir_all(stack.path("redis")).unwrap();
    fs::create_dir(stack.path("redis")).unwrap();

    let postgres = Postgres::start(PostgresOptions { password: "another-password".to_owned(), ..Default::default() });
    stack.postgres_stack(&postgres, &made);
    let restored = stack.place.json(0, &["restore", "latest", "--in-place", "--no-safety-point"]);
    for item in restored["result"]["items"].as_array().unwrap() {
        assert_eq!(item["state"], "restored", "{item}");
    }
    for (name, before) in made.databases.iter().zip(&before) {
        assert_eq!(compare_maps(before, &facts(&postgres, name, true)), nothing(), "{name}");
    }
    redis.restart();
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&redis), 0), nothing());
    assert_same_trees(&copy, &original);
    // The old point is as good as the newest one.
    stack.place.json(0, &["verify", "--read-data"]);
}

fn look_at_everything(stack: &Stack) {
    let place = &stack.place;
    let shown = place.json(0, &["show", "latest"]);
    assert_eq!(shown["result"]["manifest"]["missing"], serde_json::json!([]));
    for component in ["database", "cache", "files"] {
        let listed = place.json(0, &["ls", "latest", component, "--recursive"]);
        let entries = listed["result"]["entries"].as_array().unwrap();
        let file = entries.iter().find(|entry| entry["kind"] == "file" && entry["size"].as_u64() < Some(1 << 20));
        let file = file.unwrap_or_else(|| panic!("a file in {component}: {listed}"));
        let name = format!("{component}/{}", file["path"].as_str().unwrap());
        let content = place.command(&["cat", "latest", &name]).output().unwrap();
        assert_eq!(Some(content.stdout.len() as u64), file["size"].as_u64(), "{name}");
    }
}

#[test]
fn a_bare_machine_needs_repository_and_key_only() {
    let mut stack = Stack::new();
    let original = stack.files("data");
    odd_tree_with(&original, &OddTreeOptions { small_files: 50, sparse: false, ..OddTreeOptions::default() });
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, KEYS);
    stack.redis(&redis, redis.port(), "");
    let postgres = Postgres::start(PostgresOptions::default());
    let made = postgres_stack(&postgres, ROWS);
    stack.postgres_stack(&postgres, &made);
    stack.complete();

    let newer = Postgres::start(PostgresOptions { major: 17, ..PostgresOptions::default() });
    let mut bare = Place::new();
    bare.set("PATH", &format!("{}:/usr/bin:/bin", newer.bin_dir().display()));
    bare.write("key", &format!("{}\n", super::stack::REPOSITORY_PASSWORD));
    let url = stack.path("repo").display().to_string();
    let restore = |arguments: &[&str]| {
        let with = ["--repo", &url, "--password-file", "key"];
        let all: Vec<&str> = ["restore", "latest"].iter().chain(arguments).chain(&with).copied().collect();
        bare.json(0, &all)
    };
    restore(&["files", "--to", "files"]);
    assert_same_trees(&original, &below(&bare.path().join("files"), &original));

    restore(&["cache", "--to", "redis"]);
    let came = Redis::start(RedisOptions { dir: Some(bare.path().join("redis")), ..RedisOptions::default() });
    assert_eq!(compare_redis(&redis_fingerprint(&redis), &redis_fingerprint(&came), 0), nothing());

    // A newer major than the one it comes from.
    bare.write("target", &format!("{}\n", newer.password()));
    let server = format!("postgres://postgres@127.0.0.1:{}/postgres", newer.port());
    let report = restore(&["database", "--server", &server, "--server-password-file", "target"]);
    let databases = newer.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate");
    for name in &made.databases {
        let short = &report["result"]["point"].as_str().unwrap()[..8];
        let came = databases.lines().find(|line| line.starts_with(name.as_str()));
        let came = came.unwrap_or_else(|| panic!("{name} {short} in {databases}: {report}"));
        let differences = compare_maps(&facts(&postgres, name, false), &facts(&newer, came, false));
        let named = |line: &&String| !line.contains(name.as_str());
        assert_eq!(differences.iter().filter(named).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
}
