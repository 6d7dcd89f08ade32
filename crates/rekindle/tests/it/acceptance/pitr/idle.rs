//! A database in which nothing happens.

use std::time::Duration;

use rekindle_testkit::Postgres;

use super::{Room, caught_up, mark, marker_table, markers, now, numbers, options};
use crate::acceptance::wal_support::Log;

#[test]
fn an_idle_database_comes_back_to_now_by_the_heartbeat_of_the_stream() {
    let server = Postgres::start(options(15, &[]));
    let log = Log::with(&server, "stream");
    let room = Room::new();
    marker_table(&server);
    let receiver = log.receiver(&["--heartbeat", "1"]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    // The first heartbeat comes a second after the stream.
    let begun = std::time::Instant::now();
    while server.psql("postgres", "SELECT count(*) FROM rekindle.heartbeat").trim() == "0" {
        assert!(begun.elapsed() < Duration::from_mins(1), "no heartbeat: {}", receiver.told());
        std::thread::sleep(Duration::from_millis(50));
    }
    mark(&server, 3);
    let quiet = now(&server);
    // Nobody writes but the receiver.
    std::thread::sleep(Duration::from_secs(3));
    caught_up(&log, &server);
    let copy = room.recovered(&log, 15, "quiet", &["--at", &quiet.to_string()]);
    assert_eq!(markers(&copy), numbers(3));
    assert!(copy.psql("postgres", "SELECT seq FROM rekindle.heartbeat").parse::<u32>().unwrap() >= 1);
    let told = receiver.told();
    assert_eq!(receiver.stop(), 0, "{told}");
    // A role that may not make a table writes messages.
    server.psql("postgres", "CREATE ROLE weak LOGIN REPLICATION PASSWORD 'canary-weak'");
    log.place.write("pg-password", "canary-weak");
    let config = log.place.read("rekindle.toml").replace("postgres://postgres@", "postgres://weak@");
    log.place.write("rekindle.toml", &config);
    let receiver = log.receiver(&["--heartbeat", "1"]);
    receiver.wait_told("heartbeats are messages in the log");
    let quiet = now(&server);
    std::thread::sleep(Duration::from_secs(3));
    caught_up(&log, &server);
    let copy = room.recovered(&log, 15, "message", &["--at", &quiet.to_string()]);
    assert_eq!(markers(&copy), numbers(3));
    assert_eq!(receiver.stop(), 0);
}
