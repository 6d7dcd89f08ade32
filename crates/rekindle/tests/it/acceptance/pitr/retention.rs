//! Retention of WAL with real base backups.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rekindle_core::Secret;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Cluster, Lsn, SegmentSize, SystemId, Timeline, WalArchive};
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::StoreOptions;
use rekindle_testkit::Postgres;
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
    let beside = beside_prune(&log);
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
    assert!(
        beside + removed(&young) > 0 && young["needed"].as_u64().unwrap() > 5,
        "aged before the first backup: {young:#}"
    );
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

/// A base backup while somebody prunes all the time: one waits or is refused, none takes from the other.
/// Segments that were removed meanwhile: those from before the first base backup.
fn beside_prune(log: &Log) -> usize {
    let prune = ["prune", "--keep-marked", "0", "--max-unused", "0", "--max-delete", "100", "--json"];
    let mut gone = 0;
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| log.place.run(&["backup"]));
        while !backup.is_finished() {
            let ended = log.place.run(&prune);
            assert!(matches!(ended.code, 0 | 11), "{ended:#?}");
            if ended.code == 0 {
                let value: Value = serde_json::from_str(&ended.out).unwrap();
                gone += removed(&value["result"]["wal"][0]);
            }
        }
        let ended = backup.join().unwrap();
        assert!(matches!(ended.code, 0 | 11), "{ended:#?}");
        if ended.code == 11 {
            log.backup();
        }
    });
    gone
}

/// Forgets the older of two points; its id.
fn forget_older(log: &Log, points: &[Value]) -> String {
    let started = |point: &Value| point["started"].as_str().unwrap_or_default().to_owned();
    let older = points.iter().min_by_key(|point| started(point)).unwrap();
    let id = older["id"].as_str().unwrap().to_owned();
    log.place.ends(0, &["forget", &id]);
    id
}

struct At(jiff::Timestamp);

impl Clock for At {
    fn now(&self) -> jiff::Timestamp {
        self.0
    }
}

/// Somebody held the log for an hour, so long ago, and was killed before it could let go.
fn left_hold(log: &Log, server: &Postgres, hours_ago: i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("file://{}", log.path("repo").display());
    let store = rekindle_store::open(&StoreOptions::new(&url).unwrap()).unwrap();
    let password = Secret::new(log.place.read("key").trim().to_owned());
    let repo = Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap();
    let system = server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
    let size = SegmentSize::try_from(1 << 20).unwrap();
    let cluster = Cluster { system: SystemId(system.parse().unwrap()), segment_size: size };
    let clock = At(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours_ago));
    let log = Archive::new(&repo, Arc::new(clock)).log(cluster).unwrap();
    log.hold(Timeline(1), Lsn(0), "a recovery that was killed", Duration::from_hours(1)).unwrap();
}

/// A running backup or recovery holds what it needs; a hold that expired long ago is swept.
#[test]
fn holds_keep_wal_and_old_ones_are_swept() {
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[]);
    let log = Log::with(&server, "stream");
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    write_wal(&server, 2);
    log.backup();
    caught_up(&log, &server);
    assert_eq!(receiver.stop(), 0);
    age(&log.path("repo/rekindle/wal"));
    left_hold(&log, &server, 0);
    let holds = || log.state()["holds"].as_array().unwrap().len();
    // That of the base backup, for an hour after it, and the new one.
    assert_eq!(holds(), 2);
    let wal = pruned(&log, 0);
    assert_eq!((removed(&wal), wal["removed_holds"].as_u64()), (0, Some(0)), "in force: {wal:#}");
    fs::remove_dir_all(log.path("repo/rekindle/leases/wal-holds")).unwrap();
    left_hold(&log, &server, 72);
    let wal = pruned(&log, 0);
    assert!(removed(&wal) > 0, "an old hold holds nothing: {wal:#}");
    assert_eq!((wal["removed_holds"].as_u64(), holds()), (Some(1), 0));
}
