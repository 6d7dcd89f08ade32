//! A bad way between the server and the receiver: it stands still, or is slow beyond use.

use rekindle_testkit::{Direction, Fault, Postgres, Proxy};

use super::wal_support::{Log, Receiver, position, server_directory, small_segments};

/// A receiver whose first connection is a bad one.
struct Bad {
    server: Postgres,
    log: Log,
    receiver: Receiver,
    _proxy: Proxy,
    _directory: tempfile::TempDir,
}

impl Bad {
    fn start(fault: Fault) -> Self {
        let directory = server_directory();
        let server = small_segments(15, directory.path(), &[("wal_sender_timeout", "5s")]);
        let proxy = Proxy::start(server.port());
        let log = Log::of(&server);
        log.configure("database", proxy.port());
        server.psql("postgres", "CREATE TABLE t (x text)");
        rows(&server, 100);
        proxy.script([fault]);
        let receiver = log.receiver(&["--timeout", "8", "--no-backup"]);
        Self { server, log, receiver, _proxy: proxy, _directory: directory }
    }

    /// It goes on by itself, and nothing is missing.
    fn recovers(self) {
        rows(&self.server, 3000);
        self.log.wait_for(position(&self.server));
        assert_eq!(self.receiver.stop(), 0);
        let state = self.log.state();
        assert!(state["gaps"].as_array().unwrap().is_empty(), "{state:#}");
        assert_eq!(state["runs"].as_array().unwrap().len(), 1, "no hole: {state:#}");
        self.log.place.ends(0, &["wal", "verify", "--deep"]);
    }
}

fn rows(server: &Postgres, count: u32) {
    server.psql("postgres", &format!("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, {count})"));
}

#[test]
fn a_link_that_stops_in_the_stream_is_noticed_told_and_left() {
    let after = 400_000;
    let standing = Fault::StallAfter(Direction::ToClient, after);
    let trickling = Fault::SlowAfter(Direction::ToClient, after, 1);
    for fault in [standing, trickling] {
        let bad = Bad::start(fault);
        bad.receiver.wait_told("streaming timeline 1");
        // What came before the link stopped is stored after a moment.
        bad.log.wait_for(1);
        rows(&bad.server, 4000);
        // It is behind, and that is told while nothing has been noticed yet.
        let status = bad.log.place.run(&["wal", "status", "--json"]);
        let told: serde_json::Value = serde_json::from_str(&status.out).unwrap();
        let behind = told["result"]["servers"][0]["behind_bytes"].as_u64().unwrap();
        assert!(behind > 2_000_000, "{fault:?}: {told:#}");
        bad.receiver.wait_told("no whole message came from the server for 8 s");
        bad.recovers();
    }
}

#[test]
fn a_link_that_is_slow_from_the_first_byte_is_noticed_and_told() {
    let bad = Bad::start(Fault::SlowAfter(Direction::ToClient, 0, 1));
    bad.receiver.wait_told("no whole answer came within 8 s");
    bad.receiver.wait_told("streaming timeline 1");
    bad.recovers();
}

/// A server that has nothing to say is not taken for one that is gone.
#[test]
fn an_idle_server_is_no_silent_one() {
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[]);
    let log = Log::of(&server);
    let receiver = log.receiver(&["--timeout", "2", "--no-backup"]);
    receiver.wait_told("streaming timeline 1");
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert!(!receiver.told().contains("no whole message"), "{}", receiver.told());
    assert_eq!(receiver.stop(), 0);
}
