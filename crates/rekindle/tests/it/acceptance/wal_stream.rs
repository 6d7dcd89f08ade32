//! `wal stream` and the archive on real servers: kills, promotions, lost slots, lost servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_testkit::{Postgres, PostgresOptions};
use rustix::process::Signal;

use super::wal_support::{
    Log, base_backup, ended, lsn, position, recoverable, server_directory, small_segments, try_recovery,
};

fn options(major: u32, settings: &[(&str, &str)]) -> PostgresOptions {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PostgresOptions { major, settings, ..PostgresOptions::default() }
}

fn table(server: &Postgres) {
    server
        .psql("postgres", "CREATE TABLE t (n bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), x text)");
}

fn rows(server: &Postgres, count: u32) {
    server.psql("postgres", &format!("INSERT INTO t (x) SELECT repeat('x', 500) FROM generate_series(1, {count})"));
}

fn count(server: &Postgres) -> i64 {
    server.psql("postgres", "SELECT count(*) FROM t").trim().parse().unwrap()
}

/// Recovers a base backup from the log and gives what the query answers on the promoted server.
fn recovered(log: &Log, major: u32, data: &Path, query: &str) -> String {
    log.give_to_server();
    recoverable(data, &log.line("fetch %f \"%p\""), "");
    let mut options = options(major, &[]);
    options.data_dir = Some(data.to_owned());
    let server = Postgres::start(options);
    let begun = Instant::now();
    while server.psql("postgres", "SELECT pg_is_in_recovery()").trim() == "t" {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    server.psql("postgres", query).trim().to_owned()
}

#[test]
fn archive_command_and_restore_command_on_a_real_server() {
    let log = Log::new(1, "unused");
    let archive = log.line("push \"%p\"");
    let server = Postgres::start(options(15, &[("archive_mode", "on"), ("archive_command", &archive)]));
    log.give_to_server();
    let directory = server_directory();
    table(&server);
    let base = directory.path().join("base");
    base_backup(&server, &base);
    rows(&server, 2000);
    let written = count(&server);
    let switched = lsn(server.psql("postgres", "SELECT pg_switch_wal()").trim());
    log.wait_for(switched);
    // The server stops instead of promoting when the log cannot be read.
    fs::rename(log.path("key"), log.path("lost")).unwrap();
    recoverable(&base, &log.line("fetch %f \"%p\""), "");
    let told = try_recovery(15, &base);
    assert!(told.contains("could not restore file") || told.contains("FATAL"), "{told}");
    assert!(!told.contains("archive recovery complete") && !told.contains("selected new timeline"), "{told}");
    fs::rename(log.path("lost"), log.path("key")).unwrap();
    fs::rename(log.path("repo"), log.path("away")).unwrap();
    let told = try_recovery(15, &base);
    assert!(!told.contains("archive recovery complete") && !told.contains("selected new timeline"), "{told}");
    fs::rename(log.path("away"), log.path("repo")).unwrap();
    // The program itself is gone: the shell answers 127.
    recoverable(&base, "/no/such/program wal fetch %f \"%p\"", "");
    let told = try_recovery(15, &base);
    assert!(!told.contains("archive recovery complete") && !told.contains("selected new timeline"), "{told}");
    let answer =
        recovered(&log, 15, &base, "SELECT count(*), substr(pg_walfile_name(pg_current_wal_lsn()), 8, 1) FROM t");
    assert_eq!(answer, format!("{written}|2"));
    let failed = server.psql("postgres", "SELECT failed_count FROM pg_stat_archiver");
    assert_eq!(failed.trim(), "0");
    log.place.ends(0, &["wal", "verify", "--deep"]);
}

#[test]
fn fifty_killed_receivers_leave_no_gap() {
    for (major, kills) in [(15, 40_u64), (17, 10)] {
        let directory = server_directory();
        let kept = directory.path().join("kept");
        fs::create_dir(&kept).unwrap();
        std::os::unix::fs::chown(&kept, Postgres::os_user().map(|ids| ids.0), Postgres::os_user().map(|ids| ids.1))
            .unwrap();
        let archive = format!("cp %p {}/%f", kept.display());
        let server = small_segments(major, directory.path(), &[("archive_mode", "on"), ("archive_command", &archive)]);
        let log = Log::of(&server);
        table(&server);
        let first = log.receiver(&[]);
        first.wait_told("streaming timeline 1");
        let begun = log_start(&log, &server);
        first.kill();
        for kill in 0..kills {
            let receiver = log.receiver(&[]);
            rows(&server, 300);
            // From before the connection up to several seals.
            std::thread::sleep(Duration::from_millis(kill * 37 % 400));
            rows(&server, 900);
            receiver.kill();
        }
        let end = lsn(server.psql("postgres", "SELECT pg_switch_wal()").trim());
        let last = log.receiver(&[]);
        log.wait_for(end);
        assert_eq!(last.stop(), 0, "{}", fs::read_to_string(log.path("receiver.log")).unwrap());
        let state = log.state();
        assert_eq!(state["runs"].as_array().unwrap().len(), 1, "no hole: {state:#}");
        assert!(lsn(state["runs"][0]["from"].as_str().unwrap()) <= begun);
        assert!(state["segments"].as_u64().unwrap() >= kills / 2, "{state:#}");
        log.place.ends(0, &["wal", "verify", "--deep"]);
        same_as_archived(&log, &kept, directory.path());
    }
}

fn log_start(log: &Log, server: &Postgres) -> u64 {
    log.wait_for(1);
    position(server)
}

/// Every sealed segment holds the bytes that the server archived itself.
fn same_as_archived(log: &Log, kept: &Path, directory: &Path) {
    let mut compared = 0;
    let first = log.state()["runs"][0]["first"].as_str().unwrap().to_owned();
    for entry in fs::read_dir(kept).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.len() == 24 && name >= first {
            assert_eq!(log.fetch(directory, &name), 0, "{name}");
            assert!(fs::read(directory.join("fetched")).unwrap() == fs::read(entry.path()).unwrap(), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared}");
}

#[test]
fn a_stopped_receiver_has_shipped_everything_and_a_second_one_is_refused() {
    let server = Postgres::start(PostgresOptions::default());
    let log = Log::of(&server);
    table(&server);
    let receiver = log.receiver(&["--every", "60"]);
    receiver.wait_told("streaming timeline 1");
    let second = log.place.run(&["wal", "stream"]);
    assert_eq!(second.code, 11, "{second:#?}");
    second.says("RK-WA-008", &["replication slot `rekindle_shop_database`"]);
    rows(&server, 100);
    let written = position(&server);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.stop(), 0);
    assert!(log.head() >= written, "{:X} < {written:X}", log.head());
    // What is confirmed is durable, and the server knows.
    let confirmed = server.psql("postgres", "SELECT restart_lsn FROM pg_replication_slots");
    assert!(lsn(confirmed.trim()) <= log.head());
    // A slot nobody reads is told.
    let status = log.place.run(&["wal", "status"]);
    assert_eq!(status.code, 4, "{status:#?}");
    assert!(status.out.contains("no receiver uses the replication slot"), "{status:#?}");
    assert!(status.out.contains("max_slot_wal_keep_size"), "{status:#?}");
    // The same configuration beside another cluster.
    let clone = Postgres::start(PostgresOptions::default());
    log.configure("database", clone.port());
    log.place.write("pg-password", clone.password());
    let refused = log.place.run(&["wal", "stream"]);
    assert_eq!(refused.code, 21, "{refused:#?}");
    refused.says("RK-WA-002", &["is bound to the cluster"]);
}

#[test]
fn the_repository_away_and_the_server_restarted() {
    let mut server = Postgres::start(PostgresOptions::default());
    let log = Log::of(&server);
    table(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.wait_for(position(&server));
    fs::rename(log.path("repo"), log.path("away")).unwrap();
    rows(&server, 3000);
    std::thread::sleep(Duration::from_secs(4));
    fs::rename(log.path("away"), log.path("repo")).unwrap();
    log.wait_for(position(&server));
    server.restart();
    rows(&server, 3000);
    log.wait_for(position(&server));
    server.kill9();
    server.restart();
    rows(&server, 100);
    log.wait_for(position(&server));
    assert_eq!(receiver.stop(), 0);
    assert!(log.state()["gaps"].as_array().unwrap().is_empty());
    log.place.ends(0, &["wal", "verify", "--deep"]);
}

/// A slot that is dropped, and one that the server gives up because its WAL takes too much room.
#[test]
fn a_lost_slot_is_a_recorded_gap_and_a_new_slot() {
    for major in [15, 17] {
        let directory = server_directory();
        let limits = [("max_slot_wal_keep_size", "2MB"), ("max_wal_size", "4MB"), ("min_wal_size", "2MB")];
        let server = small_segments(major, directory.path(), &limits);
        let log = Log::of(&server);
        table(&server);
        let receiver = log.receiver(&["--no-backup"]);
        receiver.wait_told("streaming timeline 1");
        rows(&server, 100);
        log.wait_for(position(&server));
        let before = log.head();
        assert_eq!(receiver.stop(), 0);
        for _ in 0..6 {
            rows(&server, 8000);
            server.psql("postgres", "CHECKPOINT");
        }
        let lost = server.psql("postgres", "SELECT wal_status FROM pg_replication_slots");
        assert_eq!(lost.trim(), "lost", "{major}");
        let receiver = log.receiver(&["--no-backup"]);
        receiver.wait_told("RK-WA-009");
        rows(&server, 100);
        log.wait_for(position(&server));
        assert_eq!(receiver.stop(), 0);
        let state = log.state();
        let gaps = state["gaps"].as_array().unwrap();
        assert_eq!(gaps.len(), 1, "{major}: {state:#}");
        assert_eq!(lsn(gaps[0]["from"].as_str().unwrap()), before, "{major}: from the last durable byte");
        assert!(receiver_log(&log).contains("a new base backup is needed"));
        // A recovery may not run into the hole.
        let missing = rekindle_core::wal::SegmentName {
            timeline: rekindle_core::wal::Timeline(1),
            number: rekindle_core::wal::SegmentNumber(before / (1 << 20) + 1),
        };
        let name = missing.file(rekindle_core::wal::SegmentSize::try_from(1 << 20).unwrap());
        assert_eq!(log.fetch(directory.path(), &name), 200, "{major}: {name}");
        // The slot is dropped while its WAL is still there: no gap.
        server.psql("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
        rows(&server, 100);
        let receiver = log.receiver(&["--no-backup"]);
        log.wait_for(position(&server));
        assert_eq!(receiver.stop(), 0);
        assert_eq!(log.state()["gaps"].as_array().unwrap().len(), 1, "{major}");
    }
}

fn receiver_log(log: &Log) -> String {
    fs::read_to_string(log.path("receiver.log")).unwrap()
}

/// Ends the recovery of a stopped cluster where its WAL ends: a new timeline.
fn promote(server: &mut Postgres, timeline: u32) {
    server.stop();
    let data = server.data_dir().to_owned();
    let conf = data.join("postgresql.auto.conf");
    fs::write(&conf, "restore_command = 'false'\n").unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    let user = Postgres::os_user();
    for path in [conf, data.join("recovery.signal")] {
        std::os::unix::fs::chown(path, user.map(|ids| ids.0), user.map(|ids| ids.1)).unwrap();
    }
    server.restart();
    let begun = Instant::now();
    while server.psql("postgres", "SELECT pg_is_in_recovery()").trim() == "t" {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
    server.psql("postgres", "CHECKPOINT");
    let now = server.psql("postgres", "SELECT timeline_id FROM pg_control_checkpoint()");
    assert_eq!(now.trim(), timeline.to_string());
}

#[test]
fn two_promotions_of_which_one_happens_without_the_receiver() {
    let mut server = Postgres::start(PostgresOptions::default());
    let log = Log::of(&server);
    table(&server);
    let directory = server_directory();
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    let base = directory.path().join("base");
    base_backup(&server, &base);
    rows(&server, 200);
    promote(&mut server, 2);
    rows(&server, 200);
    receiver.wait_told("streaming timeline 2");
    log.wait_for(position(&server));
    assert_eq!(receiver.stop(), 0);
    rows(&server, 200);
    promote(&mut server, 3);
    rows(&server, 200);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 3");
    log.wait_for(position(&server));
    assert_eq!(receiver.stop(), 0);
    let state = log.state();
    assert_eq!(state["histories"], serde_json::json!([2, 3]), "{state:#}");
    let answer =
        recovered(&log, 15, &base, "SELECT count(*), substr(pg_walfile_name(pg_current_wal_lsn()), 8, 1) FROM t");
    assert_eq!(answer, format!("{}|4", count(&server)));
}

#[test]
fn a_signal_while_nothing_happens_ends_it_too() {
    let server = Postgres::start(PostgresOptions::default());
    let log = Log::of(&server);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    std::thread::sleep(Duration::from_secs(3));
    let objects = || ended(log.command_in(log.place.path(), &["wal", "status", "--no-server", "--json"])).out;
    let (before, at) = (objects(), position(&server));
    std::thread::sleep(Duration::from_secs(3));
    let after = objects();
    assert!(after == before || position(&server) > at, "an idle server costs nothing");
    assert_eq!(receiver.stop_by(Signal::INT), 0);
}
