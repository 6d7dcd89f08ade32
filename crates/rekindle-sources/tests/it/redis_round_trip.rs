//! Real servers, every type, there and back.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rekindle_core::codes;
use rekindle_core::note::NoteClass;
use rekindle_core::port::{Component, Level, Target};
use rekindle_sources::redis::RedisOptions;
use rekindle_testkit::fixtures::{compare_redis, redis_data, redis_fingerprint};
use rekindle_testkit::{Redis, RedisOptions as ServerOptions, RedisProgram};

use crate::redis_support::{
    block_on, capture, component, component_of, context, context_ahead, new_directory, options_of, request, restore,
    restore_and_check, server, server_options, temporary,
};

/// Milliseconds by which an expiry may differ: they are absolute, so none.
const EXPIRY_TOLERANCE_MS: u64 = 0;
const KEYS: usize = 300;

fn assert_same(before: &Redis, after: &Redis) {
    let (before, after) = (redis_fingerprint(before), redis_fingerprint(after));
    assert!(!before.keys.is_empty());
    let differences = compare_redis(&before, &after, EXPIRY_TOLERANCE_MS);
    assert!(differences.is_empty(), "{differences:#?}");
}

fn through_a_directory(program: RedisProgram, appendonly: bool) {
    let source = Redis::start(ServerOptions { appendonly, ..server_options(program) });
    redis_data(&source, KEYS);
    let part = capture(&component_of(&source)).unwrap();
    let details = part.redis_details();
    let keys: usize = redis_fingerprint(&source).keys.len();
    assert_eq!(details.rdb.keys(), keys as u64);
    assert_eq!(details.rdb.functions, 1);
    let magic = if program == RedisProgram::Valkey { "VALKEY" } else { "REDIS" };
    assert_eq!(details.rdb.magic, magic);
    assert_eq!(details.appendonly, Some(appendonly));
    assert_eq!(details.framing, "eof-mark");
    assert!(details.rdb.checksum.is_some());
    let names: Vec<_> = part.files.keys().collect();
    assert_eq!(names, ["acl.txt", "config.json", "dump.rdb", "info.json"]);
    assert!(part.text("acl.txt").starts_with("user default on"));
    assert!(part.text("config.json").contains("\"maxmemory\""));

    let (_keep, directory) = temporary();
    let report = restore(&component_of(&source), &part, &new_directory(&directory)).unwrap();
    assert_eq!(report.bytes, part.dump().len() as u64);
    assert_eq!(directory.join("appendonlydir").exists(), appendonly);
    let mode = fs::metadata(directory.join("dump.rdb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut target = Redis::start(ServerOptions { appendonly, dir: Some(directory), ..server_options(program) });
    assert_same(&source, &target);
    if appendonly {
        target.command(&[b"SET", b"after", b"restore"]);
        target.restart();
        assert_eq!(target.command(&[b"GET", b"after"]).bytes(), b"restore");
    }
}

#[test]
fn redis_without_append_only_file() {
    through_a_directory(RedisProgram::Redis, false);
}

#[test]
fn redis_with_append_only_file() {
    through_a_directory(RedisProgram::Redis, true);
}

#[test]
fn valkey_without_append_only_file() {
    through_a_directory(RedisProgram::Valkey, false);
}

#[test]
fn valkey_with_append_only_file() {
    through_a_directory(RedisProgram::Valkey, true);
}

#[test]
fn a_synchronisation_from_a_file_says_its_length() {
    let mut options = server_options(RedisProgram::Redis);
    options.lines.push("repl-diskless-sync no".to_owned());
    let source = Redis::start(options);
    redis_data(&source, 20);
    let part = capture(&component_of(&source)).unwrap();
    assert_eq!(part.redis_details().framing, "length");
    assert_eq!(part.redis_details().rdb.keys(), redis_fingerprint(&source).keys.len() as u64);
}

fn key_by_key(program: RedisProgram) {
    let source = server(program);
    redis_data(&source, KEYS);
    let part = capture(&component_of(&source)).unwrap();
    let target = server(program);
    let component = component_of(&source);
    let mut request = request(Target::Live);
    request.server = Some(target.url());
    let report = restore(&component, &part, &request).unwrap();
    assert_eq!(report.entries, part.redis_details().rdb.keys());
    assert_same(&source, &target);

    let fault = restore(&component, &part, &request).unwrap_err();
    assert!(fault.is(codes::REDIS_TARGET_NOT_EMPTY), "{fault:#}");
    request.overwrite = true;
    target.command(&[b"SET", b"string:1", b"other"]);
    restore(&component, &part, &request).unwrap();
    assert_same(&source, &target);
}

#[test]
fn redis_key_by_key_into_a_running_server() {
    key_by_key(RedisProgram::Redis);
}

#[test]
fn valkey_key_by_key_into_a_running_server() {
    key_by_key(RedisProgram::Valkey);
}

#[test]
fn fields_of_hashes_with_expiries_survive_in_valkey() {
    let source = server(RedisProgram::Valkey);
    source.command(&[b"HSET", b"h", b"a", b"1", b"b", b"2"]);
    source.command(&[b"HPEXPIREAT", b"h", b"4070908800000", b"FIELDS", b"1", b"a"]);
    let part = capture(&component_of(&source)).unwrap();
    assert_eq!(part.redis_details().rdb.magic, "VALKEY");
    let target = server(RedisProgram::Valkey);
    restore(&component_of(&target), &part, &request(Target::Live)).unwrap();
    let asked = target.command(&[b"HPEXPIRETIME", b"h", b"FIELDS", b"2", b"a", b"b"]);
    let times: Vec<i64> = asked.array().iter().map(rekindle_testkit::Value::integer).collect();
    assert_eq!(times, [4_070_908_800_000, -1]);
}

#[test]
fn expired_keys_are_left_out_and_counted() {
    let source = server(RedisProgram::Redis);
    source.command(&[b"SET", b"stays", b"1"]);
    source.command(&[b"SET", b"goes", b"1", b"EX", b"3600"]);
    let part = capture(&component_of(&source)).unwrap();
    let counts = part.redis_details().rdb.databases[&0];
    assert_eq!((counts.keys, counts.expires, counts.expired), (2, 1, 0));
    let target = server(RedisProgram::Redis);
    let (report, findings) =
        restore_and_check(&component_of(&target), &part, &request(Target::Live), &context_ahead(2)).unwrap();
    assert_eq!(report.entries, 1);
    assert!(report.warnings[0].starts_with("1 keys had expired"), "{:?}", report.warnings);
    assert!(findings.iter().all(|finding| finding.level == Level::Good), "{findings:?}");
    assert_eq!(target.command(&[b"DBSIZE"]).integer(), 1);
}

#[test]
fn a_check_finds_what_was_changed_after_the_restore() {
    let source = server(RedisProgram::Redis);
    redis_data(&source, 10);
    let part = capture(&component_of(&source)).unwrap();
    let target = server(RedisProgram::Redis);
    let component = component_of(&target);
    let report = restore(&component, &part, &request(Target::Live)).unwrap();
    target.command(&[b"SET", b"string:1", b"other"]);
    target.command(&[b"DEL", b"set:2"]);
    let part = std::sync::Arc::new(part);
    let findings = block_on(component.check(part.clone(), &report, &context())).unwrap();
    let bad: Vec<_> = findings.iter().filter(|f| f.level == Level::Bad).collect();
    assert_eq!(bad.len(), 2, "{findings:?}");

    let (_keep, directory) = temporary();
    let report = restore(&component, &part, &new_directory(&directory)).unwrap();
    let mut bytes = part.dump().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(directory.join("dump.rdb"), bytes).unwrap();
    let findings = block_on(component.check(part, &report, &context())).unwrap();
    assert!(findings.iter().all(|finding| finding.level == Level::Bad), "{findings:?}");
}

#[test]
fn an_empty_server_is_a_valid_backup() {
    let source = server(RedisProgram::Redis);
    let part = capture(&component_of(&source)).unwrap();
    assert_eq!(part.redis_details().rdb.keys(), 0);
    let (_keep, directory) = temporary();
    restore(&component_of(&source), &part, &new_directory(&directory)).unwrap();
}

#[test]
fn over_tls_a_socket_and_without_config() {
    let source = Redis::start(ServerOptions { tls: true, without_config: true, ..server_options(RedisProgram::Redis) });
    redis_data(&source, 10);
    let keys = redis_fingerprint(&source).keys.len() as u64;
    let socket = component(RedisOptions::new(format!("unix://{}", source.socket().display())));
    for component in [component_of(&source), socket] {
        let part = capture(&component).unwrap();
        assert_eq!(part.redis_details().rdb.keys(), keys);
        assert!(!part.files.contains_key("config.json"));
        assert_eq!(part.record.notes.count(NoteClass::Incomplete), 1);
        assert_eq!(part.redis_details().appendonly, Some(false), "INFO says it");
    }
    let untrusted = component(RedisOptions { ca_file: None, ..options_of(&source) });
    assert!(capture(&untrusted).err().unwrap().is(codes::REDIS_TLS));
}

#[test]
fn names_of_the_files_are_those_of_the_server() {
    let mut options = server_options(RedisProgram::Redis);
    options.appendonly = true;
    options.lines.extend([
        "dbfilename cache.rdb".to_owned(),
        "appendfilename \"cache file.aof\"".to_owned(),
        "appenddirname aofs".to_owned(),
    ]);
    let source = Redis::start(options.clone());
    redis_data(&source, 10);
    let part = capture(&component_of(&source)).unwrap();
    let (_keep, directory) = temporary();
    restore(&component_of(&source), &part, &new_directory(&directory)).unwrap();
    assert!(directory.join("cache.rdb").exists());
    let target = Redis::start(ServerOptions { dir: Some(directory), ..options });
    assert_same(&source, &target);
}
