//! The server is gone with its whole data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rekindle_testkit::{Postgres, PostgresOptions};

use super::{Bench, Room, mark, marker_table, markers, numbers, options, write_wal};
use crate::acceptance::wal_support::{Log, lsn};

/// Trials of [`what_is_lost_with_the_server`]; the published distribution is over 20.
fn trials() -> u32 {
    std::env::var("REKINDLE_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// SIGKILL and removal of the data directory under load, with `wal stream` running: what was
/// acknowledged more than two seconds before is there, and there is no hole in what is there. Each second
/// time the receiver dies in the same moment, as when it runs on the host that is lost.
#[test]
fn what_is_lost_with_the_server() {
    let mut lost = [Vec::new(), Vec::new()];
    for trial in 0..trials() {
        let (with_receiver, major) = (trial % 2 == 1, if trial / 2 % 2 == 0 { 15 } else { 17 });
        let (ms, rows) = one_loss(major, 2500 + trial * 137 % 1000, with_receiver);
        // A receiver that dies too takes with it what it had not stored; how long storing takes is the disk's.
        let longest = if with_receiver { 5000 } else { 2000 };
        assert!(ms <= longest, "trial {trial}: commits of {ms} ms before the end are lost ({rows} rows)");
        lost[usize::from(with_receiver)].push((ms, rows));
    }
    for (who, mut lost) in ["the server", "the server and the receiver"].iter().zip(lost) {
        lost.sort_unstable();
        let median = lost.get(lost.len() / 2);
        eprintln!("{who} died; age in ms of the oldest lost commit, and lost rows: {lost:?}; median {median:?}");
    }
}

/// Age of the oldest acknowledged row that is lost, in milliseconds, and how many are.
fn one_loss(major: u32, load_ms: u32, with_receiver: bool) -> (i128, i64) {
    let mut server = Postgres::start(PostgresOptions { durable: true, ..options(major, &[]) });
    let log = Log::with(&server, "stream");
    let room = Room::new();
    server
        .psql("postgres", "CREATE TABLE t (n bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp(), x text)");
    Bench::init(&server, 1);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    let load = Bench::start(&server, 2);
    let acknowledged = commit_rows(&server, &room.path("committed.sql"), load_ms);
    let survivor = if with_receiver {
        receiver.kill();
        None
    } else {
        Some(receiver)
    };
    let killed = jiff::Timestamp::now();
    server.kill9();
    fs::remove_dir_all(server.data_dir()).unwrap();
    drop(load);
    if let Some(receiver) = survivor {
        receiver.wait_told("RK-PG");
        assert_eq!(receiver.stop(), 0);
    }
    let copy = room.recovered(&log, major, "back", &["--latest"]);
    let answer = copy.psql("postgres", "SELECT coalesce(max(n), 0), count(*) FROM t");
    let (last, count) = answer.split_once('|').unwrap();
    assert_eq!(last, count, "one client, one sequence: no row in the middle is missing");
    let last: i64 = last.parse().unwrap();
    let committed = committed(&acknowledged);
    let (newest, newest_at) = *committed.iter().max().unwrap();
    // Sessions may have gone on for a moment after the signal was sent.
    let died = killed.max(newest_at);
    let first_lost = committed.iter().filter(|(n, _)| *n > last).map(|(_, at)| *at).min();
    (first_lost.map_or(0, |at| died.duration_since(at).as_millis()), newest - last.min(newest))
}

/// Commits one row after the other for a while; psql's output is what was acknowledged.
fn commit_rows(server: &Postgres, script: &Path, ms: u32) -> PathBuf {
    let insert = "INSERT INTO t (x) VALUES (repeat('y', 200)) RETURNING n, at;\n";
    fs::write(script, insert.repeat(200_000)).unwrap();
    let out = script.with_extension("out");
    let mut psql: Command = server.client("psql");
    psql.args(["-X", "-q", "-A", "-t", "-d", "postgres", "-f"]).arg(script);
    let mut child = psql.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(u64::from(ms)));
    std::thread::spawn(move || {
        // It ends with the server.
        std::thread::sleep(Duration::from_millis(500));
        let _ = child.kill();
        let _ = child.wait();
    });
    out
}

/// Number and time of every acknowledged row.
fn committed(path: &Path) -> Vec<(i64, jiff::Timestamp)> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (n, at) = line.split_once('|')?;
        Some((n.parse().ok()?, at.replacen("+00", "+00:00", 1).parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// With `archive_command` alone everything comes back that the last archived segment holds.
#[test]
fn with_the_archive_alone_as_far_as_the_last_segment() {
    let mut log = Log::new(1, "unused");
    log.run_as_server();
    let archive = log.line("push \"%p\"");
    let mut server = Postgres::start(options(15, &[("archive_mode", "on"), ("archive_command", &archive)]));
    log.set_wal("archive");
    log.follow(&server);
    let room = Room::new();
    marker_table(&server);
    log.backup();
    mark(&server, 5);
    write_wal(&server, 20);
    mark(&server, 2);
    let switched = lsn(server.psql("postgres", "SELECT pg_switch_wal()").trim());
    log.wait_for(switched);
    mark(&server, 30);
    server.kill9();
    fs::remove_dir_all(server.data_dir()).unwrap();
    let copy = room.recovered(&log, 15, "back", &["--latest"]);
    assert_eq!(markers(&copy), numbers(7));
}
