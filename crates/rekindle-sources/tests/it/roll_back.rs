//! What stands at a place, and putting the old state back after a restore in place.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rekindle_core::port::{Component, RestoreReport, Target};
use rekindle_testkit::Redis;
use rekindle_testkit::RedisProgram;

use crate::memory_part::request;
use crate::{files_support, postgres_support, redis_support};

const IN_PLACE: Target = Target::InPlace { discard_old: false };

#[test]
fn files_are_put_back_and_the_restored_ones_kept() {
    let place = tempfile::tempdir().unwrap();
    let live = place.path().join("live");
    fs::create_dir(&live).unwrap();
    fs::write(live.join("a"), "saved").unwrap();
    let options = files_support::options(&[&live]);
    let part = Arc::new(files_support::MemoryPart::of(options.clone()));
    let component = files_support::component(options);
    let context = files_support::context(place.path());
    let occupied = || files_support::wait(component.occupied(part.clone(), &context)).unwrap();
    assert!(occupied().unwrap().contains("live` is not empty"));
    fs::remove_dir_all(&live).unwrap();
    assert_eq!(occupied(), None, "absent");
    fs::create_dir(&live).unwrap();
    assert_eq!(occupied(), None, "empty");
    fs::write(live.join("a"), "old").unwrap();

    let restored = files_support::wait(component.restore(part.clone(), &request(IN_PLACE), &context)).unwrap();
    assert_eq!(fs::read_to_string(live.join("a")).unwrap(), "saved");
    // As a journal keeps it.
    let text = serde_json::to_string(&restored).unwrap();
    let report: RestoreReport = serde_json::from_str(&text).unwrap();
    files_support::wait(component.roll_back(&report, &context)).unwrap();
    assert_eq!(fs::read_to_string(live.join("a")).unwrap(), "old");
}

#[test]
fn a_redis_directory_is_put_back() {
    let (_keep, directory) = redis_support::temporary();
    let server = |dir: &Path| rekindle_testkit::RedisOptions {
        appendonly: true,
        dir: Some(dir.to_owned()),
        ..redis_support::server_options(RedisProgram::Redis)
    };
    let mut redis = Redis::start(server(&directory));
    redis.command(&[b"SET", b"k", b"saved"]);
    let options = redis_support::options_of(&redis);
    let options = rekindle_sources::redis::RedisOptions { data_dir: Some(directory.clone()), ..options };
    let component = redis_support::component(options);
    let part = Arc::new(redis_support::capture(&component).unwrap());
    redis.command(&[b"SET", b"k", b"old"]);
    redis.stop();
    let context = redis_support::context();
    let occupied = redis_support::block_on(component.occupied(part.clone(), &context)).unwrap();
    assert!(occupied.is_some());
    let report = redis_support::block_on(component.restore(part, &request(IN_PLACE), &context)).unwrap();
    assert!(report.kept_old.is_some(), "{report:?}");
    redis.restart();
    assert_eq!(redis.command(&[b"GET", b"k"]).bytes(), b"saved");
    redis.stop();
    redis_support::block_on(component.roll_back(&report, &context)).unwrap();
    redis.restart();
    assert_eq!(redis.command(&[b"GET", b"k"]).bytes(), b"old");
}

#[test]
fn databases_are_put_back_in_one_step() {
    let server = postgres_support::server(15);
    server.psql("postgres", "CREATE DATABASE app");
    server.psql("app", "CREATE TABLE t AS SELECT 1 AS n");
    let component = postgres_support::component(postgres_support::options(&server, "app"));
    let part = Arc::new(postgres_support::capture(&component).unwrap());
    let run = postgres_support::run();
    let occupied = || postgres_support::block_on(component.occupied(part.clone(), &run.context)).unwrap();
    assert!(occupied().unwrap().contains("`app`"));
    server.psql("app", "DROP TABLE t");
    assert_eq!(occupied(), None, "a database without objects");
    server.psql("app", "CREATE TABLE t AS SELECT 7 AS n");
    let report = postgres_support::block_on(component.restore(part.clone(), &request(IN_PLACE), &run.context)).unwrap();
    assert_eq!(server.psql("app", "SELECT n FROM t"), "1");
    let text = serde_json::to_string(&report).unwrap();
    let report: RestoreReport = serde_json::from_str(&text).unwrap();
    postgres_support::block_on(component.roll_back(&report, &run.context)).unwrap();
    assert_eq!(server.psql("app", "SELECT n FROM t"), "7");
    server.psql("postgres", "DROP DATABASE app");
    assert_eq!(occupied(), None, "absent");
}
