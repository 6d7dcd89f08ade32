//! Drills that are killed, hang, or meet damage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_testkit::fixtures::redis_data;
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::Value;

use super::super::stack::Random;
use super::{nothing_is_left, outcomes, pairs, sandboxes, set_drill, small_database, stack};

const TRIALS: u64 = 20;
const SEED: u64 = 0x5eed_0d11;

#[test]
fn a_drill_killed_at_any_moment_leaves_nothing_after_the_janitor() {
    let seed = std::env::var("REKINDLE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    println!("REKINDLE_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let postgres = Postgres::start(PostgresOptions::default());
    small_database(&postgres);
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 20);
    let mut stack = stack();
    stack.quicken();
    let data = stack.files("data");
    fs::write(data.join("a"), vec![7; 300_000]).unwrap();
    stack.postgres(&postgres, postgres.port(), &["shop".to_owned()], "");
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    let begun = Instant::now();
    stack.place.json(0, &["drill"]);
    let usual = begun.elapsed();
    let (mut killed, mut sites) = (0, 0);
    for trial in 0..TRIALS {
        let mut child = stack.start(&["drill"]);
        std::thread::sleep(random.before(usual));
        child.kill().unwrap();
        killed += u64::from(!child.wait().unwrap().success());
        sites += fs::read_dir(sandboxes(&stack)).unwrap().count();
        stack.place.json(0, &["drill", "--clean"]);
        nothing_is_left(&stack);
        if trial % 5 == 4 {
            stack.place.json(0, &["proof", "verify"]);
        }
    }
    assert!(killed >= TRIALS / 2, "most drills are to be killed: {killed}");
    assert!(sites >= 5, "some left a sandbox behind: {sites}");
    // The next drill needs no help.
    let answer = stack.place.json(0, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("database", "passed"), ("cache", "passed"), ("files", "passed")]));
    nothing_is_left(&stack);
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// One component, a Redis, with a program in place of the server for its sandbox.
fn with_engine(run: &str) -> (super::Stack, Redis) {
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 5);
    let mut stack = stack();
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    let programs = stack.path("programs");
    fs::create_dir(&programs).unwrap();
    let version = "case \"$1\" in --version) echo 'Redis server v=7.0.15 sha=0'; exit 0;; esac";
    script(&programs.join("redis-server"), &format!("#!/bin/sh\n{version}\n{run}\n"));
    set_drill(&mut stack, &format!("programs = [\"{}\"]\n", programs.display()));
    (stack, redis)
}

fn problem(answer: &Value) -> &Value {
    &answer["result"]["drills"][0]["work"]["components"][0]["problem"]
}

#[test]
fn a_hung_engine_is_stopped_by_the_limit_and_has_failed() {
    let (stack, _redis) = with_engine("trap '' TERM INT QUIT\nwhile :; do sleep 60; done");
    let begun = Instant::now();
    let answer = stack.place.json(4, &["drill", "--timeout", "3"]);
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    assert_eq!(outcomes(&answer), pairs(&[("cache", "failed")]));
    assert_eq!(problem(&answer)["code"], "RK-DR-005", "{answer:#}");
    assert_eq!(answer["error"]["code"], "RK-DR-001");
    nothing_is_left(&stack);
    assert_eq!(stack.newest()["trust"], "unverified");
    let listed = stack.place.json(0, &["proof", "list"]);
    assert_eq!(listed["result"]["proofs"][0]["outcome"], "failed", "the failure is recorded");
}

#[test]
fn an_engine_that_dies_has_failed_and_one_that_is_too_old_proves_nothing() {
    let (stack, _redis) = with_engine("echo 'corrupt'; exit 1");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("cache", "failed")]));
    assert!(problem(&answer)["message"].as_str().unwrap().contains("corrupt"), "{answer:#}");
    let (stack, _redis) = with_engine("echo \"# Can't handle RDB format version 10\"; exit 1");
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("cache", "unproved")]));
    assert_eq!(answer["error"]["code"], "RK-DR-002", "{answer:#}");
    nothing_is_left(&stack);
}

#[test]
fn drill_catches_a_corrupted_pack_and_the_proof_is_taken_away() {
    let mut stack = stack();
    let data = stack.files("data");
    for n in 0..4 {
        fs::write(data.join(n.to_string()), super::super::stack::noise(n, 400_000)).unwrap();
    }
    stack.complete();
    stack.place.json(0, &["drill"]);
    assert_eq!(stack.newest()["trust"], "proved");
    let packs = files_below(&stack.path("repo/data"));
    let largest = packs.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(largest, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(largest, bytes).unwrap();
    let answer = stack.place.json(4, &["drill"]);
    assert_eq!(outcomes(&answer), pairs(&[("files", "failed")]), "{answer:#}");
    assert_eq!(stack.newest()["trust"], "unverified", "the newest evidence counts");
    nothing_is_left(&stack);
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files_below(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

#[test]
fn an_interrupted_drill_says_so_and_records_nothing() {
    let (stack, _redis) = with_engine("trap '' TERM\nwhile :; do sleep 60; done");
    let child = stack.start(&["drill"]);
    let site = || {
        fs::read_dir(sandboxes(&stack))
            .into_iter()
            .flatten()
            .flatten()
            .any(|site| site.path().join("processes").exists())
    };
    super::super::stack::wait_until("the engine runs", site);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = super::super::stack::end(child);
    assert_eq!(ended.code, 130, "{ended:#?}");
    nothing_is_left(&stack);
    assert_eq!(stack.place.json(0, &["proof", "list"])["result"]["proofs"], serde_json::json!([]));
}
