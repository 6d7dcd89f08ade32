//! Retention of WAL with real base backups.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{Room, caught_up, mark, marker_table, markers, write_wal};
use crate::acceptance::wal_support::{Log, server_directory, small_segments};

/// Makes every object of the log three days old, by the clock of the storage.
fn age(directory: &Path) {
    let old = SystemTime::now() - Duration::from_hours(72);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        } else {
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        }
    }
}

fn pruned(log: &Log, code: i32) -> Value {
    log.place.json(code, &["prune"])["result"]["wal"][0].clone()
}

fn removed(wal: &Value) -> usize {
    wal["removed"].as_array().unwrap().len()
}

#[test]
fn wal_goes_with_the_base_backups_that_needed_it() {
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[]);
    let log = Log::with(&server, "stream");
    let room = Room::new();
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    write_wal(&server, 3);
    caught_up(&log, &server);
    // Nothing goes before the first base backup, however old it is.
    age(&log.path("repo/rekindle/wal"));
    let wal = pruned(&log, 0);
    assert_eq!((removed(&wal), &wal["refused"]), (0, &Value::from("NoBase")), "{wal:#}");
    log.backup();
    let first = mark(&server, 3);
    write_wal(&server, 3);
    log.backup();
    let second = mark(&server, 2);
    let end = markers(&server);
    write_wal(&server, 2);
    mark(&server, 1);
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    let segments = || log.state()["segments"].as_u64().unwrap();
    let before = segments();
    // What nobody needs is younger than a day: it stays, and is told.
    let young = pruned(&log, 0);
    assert!(removed(&young) > 0 && young["needed"].as_u64().unwrap() > 5, "aged before the first backup: {young:#}");
    age(&log.path("repo/rekindle/wal"));
    assert_eq!(removed(&pruned(&log, 0)), 0, "both base backups need the rest");
    let came =
        |name: &str, moment: jiff::Timestamp| markers(&room.recovered(&log, 15, name, &["--at", &moment.to_string()]));
    assert_eq!(came("first", first), "1,2,3");
    // A point whose record cannot be told apart from others is never taken for none: the listing counts.
    let points = log.place.json(0, &["list"])["result"]["points"].as_array().unwrap().clone();
    assert_eq!(points.len(), 2);
    let oldest = points.iter().map(|point| point["id"].as_str().unwrap()).next_back().unwrap().to_owned();
    let newest = points[0]["id"].as_str().unwrap().to_owned();
    log.place.ends(21, &["forget", &newest, &oldest]);
    let forgotten = forget_older(&log, &points);
    // Each base backup holds its WAL for an hour; that hour is over.
    fs::remove_dir_all(log.path("repo/rekindle/leases/wal-holds")).unwrap();
    let plan = log.place.json(0, &["prune", "--dry-run"])["result"]["wal"][0].clone();
    let wal = pruned(&log, 0);
    assert_eq!(plan["removed"], wal["removed"], "a dry run says what goes");
    assert!(removed(&wal) >= 3, "{wal:#}");
    assert!(segments() < before);
    assert_eq!(came("second", second), end);
    let (code, value) = room.refused(&log, &["--at", &first.to_string()]);
    assert_eq!(code, "RK-PT-003", "{forgotten}: {value:#}");
    log.place.ends(0, &["wal", "verify", "--deep"]);
    log.place.ends(0, &["verify", "--read-data"]);
}

/// Forgets the older of two points; its id.
fn forget_older(log: &Log, points: &[Value]) -> String {
    let started = |point: &Value| point["started"].as_str().unwrap_or_default().to_owned();
    let older = points.iter().min_by_key(|point| started(point)).unwrap();
    let id = older["id"].as_str().unwrap().to_owned();
    log.place.ends(0, &["forget", &id]);
    id
}

/// A running backup or recovery holds what it needs; one that ended long ago holds nothing.
#[test]
fn holds_keep_wal_and_old_ones_are_swept() {
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[]);
    let log = Log::with(&server, "stream");
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    write_wal(&server, 2);
    log.backup();
    caught_up(&log, &server);
    let holds = || log.state()["holds"].as_array().unwrap().len();
    // Those of the two base backups, for an hour after each.
    assert_eq!(holds(), 2);
    pruned(&log, 0);
    assert_eq!(holds(), 2, "still in force");
    assert_eq!(receiver.stop(), 0);
}
