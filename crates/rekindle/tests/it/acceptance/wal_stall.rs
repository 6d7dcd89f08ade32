//! `wal fetch` from a storage that stands still: it ends at its own limit, never says "the end of the archive",
//! and leaves nothing half-written where the server looks.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_core::wal::{Cluster, SegmentName, SegmentNumber, SegmentSize, SystemId, Timeline, sample_segment};
use rekindle_testkit::{Direction, Fault, Postgres, Proxy, S3, S3Options, tools};

use super::wal_support::{Log, ended};
use crate::run::Place;

fn cluster() -> Cluster {
    let segment_size = SegmentSize::try_from(1 << 20).unwrap();
    Cluster { system: SystemId(7_434_000_000_000_000_001), segment_size }
}

fn name(number: u64) -> String {
    SegmentName { timeline: Timeline(1), number: SegmentNumber(number) }.file(cluster().segment_size)
}

/// Two segments in the log; a directory as the server's.
fn pushed(log: &Log) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("pg_wal")).unwrap();
    for number in [5, 6] {
        let segment = SegmentName { timeline: Timeline(1), number: SegmentNumber(number) };
        let file = format!("pg_wal/{}", name(number));
        let mut bytes = sample_segment(segment, cluster(), 15, 7);
        // Not to be compressed: it goes over the wire as it is.
        let mut state = number;
        for byte in &mut bytes[8192..] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_le_bytes()[7];
        }
        fs::write(directory.path().join(&file), bytes).unwrap();
        let push = ended(log.command_in(directory.path(), &["wal", "push", &file]));
        assert_eq!(push.code, 0, "{push:#?}");
    }
    directory
}

/// Fetches with a limit of so many seconds; it ends with 200 soon after, and nothing was left behind.
fn stalls(log: &Log, directory: &Path, what: &str, number: u64, seconds: u64) {
    let begun = Instant::now();
    let arguments =
        ["wal", "fetch", &name(number), "pg_wal/RECOVERYXLOG", "--prefetch", "0", "--timeout", &seconds.to_string()];
    let ended = ended(log.command_in(directory, &arguments));
    assert_eq!(ended.code, 200, "{what}: {ended:#?}");
    assert!(ended.err.contains("RK-ST-"), "{what}: the storage is named: {ended:#?}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(seconds + 20), "{what}: {took:?}");
    nothing_left(directory, what);
}

fn nothing_left(directory: &Path, what: &str) {
    let names = fs::read_dir(directory.join("pg_wal")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [name(5), name(6)], "{what}");
}

#[test]
fn a_store_that_stands_still_stops_the_server_and_leaves_nothing() {
    let s3 = S3::start(S3Options::default());
    let proxy = Proxy::start(s3.port());
    let server = Postgres::start(rekindle_testkit::PostgresOptions::default());
    let mut place = Place::new();
    let key = s3.admin_key();
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    place.write("s3-access", &key.access);
    place.write("s3-secret", &key.secret);
    let url = format!("s3://{}/log?endpoint=http://127.0.0.1:{}&region={}", s3.bucket(), proxy.port(), s3.region());
    let lines = "access-key-id = \"file:s3-access\"\nsecret-access-key = \"file:s3-secret\"\n".to_owned();
    let log = Log::at(place, Some((url, lines)), &server, "archive");
    let directory = pushed(&log);
    proxy.set(Fault::Stall);
    stalls(&log, directory.path(), "silent from the first byte", 5, 4);
    proxy.set(Fault::StallAfter(Direction::ToClient, 300_000));
    stalls(&log, directory.path(), "silent in the middle of the segment", 6, 4);
    proxy.set(Fault::SlowAfter(Direction::ToClient, 100_000, 1000));
    stalls(&log, directory.path(), "a kilobyte per second", 5, 4);
    // The end of the archive is not proved while nothing can be listed.
    proxy.set(Fault::Stall);
    stalls(&log, directory.path(), "behind the end", 7, 4);
    proxy.set(Fault::None);
    assert_eq!(log.fetch(directory.path(), &name(5)), 0, "and it is there all the time");
    assert_eq!(log.fetch(directory.path(), &name(7)), 1, "the end, now that it is proved");
}

/// A disk that hangs in the middle of a call cannot be asked to stop: the process ends all the same.
#[test]
fn a_disk_that_hangs_ends_the_process_at_its_limit() {
    let log = Log::new(1, "unused");
    let directory = pushed(&log);
    let object = log.path(&format!("repo/rekindle/wal/{}/00000001/{}", cluster().system, name(5)));
    let kept = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&object).status().unwrap();
    assert!(made.success());
    stalls(&log, directory.path(), "a read that never ends", 5, 2);
    fs::remove_file(&object).unwrap();
    fs::write(&object, kept).unwrap();
    assert_eq!(log.fetch(directory.path(), &name(5)), 0);
}

/// The limit comes while the file is being given its name.
#[test]
fn a_file_that_is_not_finished_at_the_limit_is_taken_away() {
    let log = Log::new(1, "unused");
    let directory = pushed(&log);
    let timeout = ["wal", "fetch", &name(5), "pg_wal/RECOVERYXLOG", "--prefetch", "0", "--timeout", "2"];
    let inner = log.command_in(directory.path(), &timeout);
    let mut command = std::process::Command::new(tools::find("strace"));
    command
        .args(["-f", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2", "-e"])
        .arg("inject=rename,renameat,renameat2:delay_enter=6000000")
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(directory.path());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ended = ended(command);
    assert_eq!(ended.code, 200, "{ended:#?}");
    assert!(ended.err.contains("not done after 2 s"), "{ended:#?}");
    nothing_left(directory.path(), "in the middle of a rename");
}
