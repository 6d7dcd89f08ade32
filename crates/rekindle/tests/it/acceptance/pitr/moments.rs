//! Moments under load, on two versions; and every version once.

use std::time::Duration;

use rekindle_testkit::{Postgres, PostgresOptions};

use super::{Bench, MARKERS, Room, amcheck, caught_up, mark, marker_table, markers, now, numbers, options, serve};
use crate::acceptance::wal_support::{Log, server_directory};

/// Markers that are committed under load after the base backup, five in a second.
const MARKS: u32 = 100;

fn random_below(limit: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // A new state each time: good enough to choose a moment.
    std::collections::hash_map::RandomState::new().build_hasher().finish() % limit
}

/// Stream, base backup under load, more load with markers; then five random moments, each of which
/// comes back with exactly the markers committed up to it and with sound tables and indexes.
fn five_moments(major: u32) {
    let server = Postgres::start(options(major, &[("track_commit_timestamp", "on"), ("max_wal_size", "1GB")]));
    let log = Log::with(&server, "stream");
    let room = Room::new();
    marker_table(&server);
    server.psql(
        "postgres",
        "CREATE PROCEDURE mark(n int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..n LOOP \
         INSERT INTO marker DEFAULT VALUES; COMMIT; PERFORM pg_sleep(0.2); END LOOP; END $$",
    );
    Bench::init(&server, 2);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    let load = Bench::start(&server, 2);
    log.backup();
    let begun = now(&server);
    server.psql("postgres", &format!("CALL mark({MARKS})"));
    let ended = now(&server);
    drop(load);
    mark(&server, 1);
    caught_up(&log, &server);
    let span = u64::try_from(ended.duration_since(begun).as_millis()).unwrap();
    assert!(span >= u64::from(MARKS) * 200, "{span}");
    for number in 0..5 {
        let moment = begun + Duration::from_millis(random_below(span));
        let name = format!("moment-{number}");
        let copy = room.recovered(&log, major, &name, &["--at", &moment.to_string()]);
        let committed = format!("{MARKERS} WHERE pg_xact_commit_timestamp(xmin) <= '{moment}'");
        assert_eq!(markers(&copy), server.psql("postgres", &committed), "at {moment}");
        amcheck(&copy);
        drop(copy);
        std::fs::remove_dir_all(room.path(&name)).unwrap();
    }
    assert_eq!(receiver.stop(), 0);
}

#[test]
fn five_moments_under_load_of_15() {
    five_moments(15);
}

#[test]
fn five_moments_under_load_of_17() {
    five_moments(17);
}

/// The versions that no other test here takes; one that is not installed fails.
#[test]
fn every_other_version_streams_and_comes_back() {
    for major in [14, 16, 18] {
        let server = Postgres::start(options(major, &[]));
        let log = Log::with(&server, "stream");
        let room = Room::new();
        marker_table(&server);
        let receiver = log.receiver(&[]);
        receiver.wait_told("streaming timeline 1");
        log.backup();
        mark(&server, 5);
        caught_up(&log, &server);
        let copy = room.recovered(&log, major, "end", &["--latest"]);
        assert_eq!(markers(&copy), numbers(5), "{major}");
        assert_eq!(receiver.stop(), 0);
    }
}

/// Debian keeps the settings in `/etc`, where no base backup sees them; the copy has to start without.
#[test]
fn settings_outside_of_the_data_directory() {
    let first = Postgres::start(options(15, &[]));
    let (data, etc) = (first.data_dir().to_owned(), server_directory());
    let mut first = first;
    first.stop();
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        std::fs::rename(data.join(name), etc.path().join(name)).unwrap();
    }
    let conf = etc.path().join("postgresql.conf");
    let more = "\nmax_connections = 230\nmax_worker_processes = 20\nmax_locks_per_transaction = 90\n";
    std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + more).unwrap();
    let conf = conf.display().to_string();
    let server = Postgres::start(PostgresOptions {
        data_dir: Some(data),
        password: first.password().to_owned(),
        ..options(15, &[("config_file", &conf)])
    });
    let log = Log::with(&server, "stream");
    let room = Room::new();
    marker_table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    mark(&server, 4);
    caught_up(&log, &server);
    let data = room.path("copy");
    let done = log.restore(0, &data, &["--latest"]);
    assert!(done.to_string().contains("postgresql.conf"), "what was made is told: {done:#}");
    let made = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    assert!(made.contains("port = 5433") && !made.contains("230"), "{made}");
    assert!(data.join("pg_hba.conf").exists() && data.join("pg_ident.conf").exists());
    assert_eq!(markers(&serve(15, &data)), numbers(4));
    assert_eq!(receiver.stop(), 0);
}
