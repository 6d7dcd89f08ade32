//! Several writers of one log: two receivers with slots of their own, and the archiver beside them.

use std::time::Duration;

use super::{Room, caught_up, mark, marker_table, markers};
use crate::acceptance::stack::wait_until;
use crate::acceptance::wal_support::{Log, server_directory, small_segments};

/// The same bytes come three ways, at once, and two of the ways are killed again and again.
#[test]
fn receivers_and_the_archiver_write_one_log() {
    let mut log = Log::new(1, "unused");
    log.run_as_server();
    let archive = log.line("push \"%p\"");
    let directory = server_directory();
    let server = small_segments(15, directory.path(), &[("archive_mode", "on"), ("archive_command", &archive)]);
    log.follow(&server);
    let room = Room::new();
    marker_table(&server);
    let slots = [&["--slot", "one"][..], &["--slot", "two"]];
    let receiver = log.receiver(slots[0]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    for round in 0..6_u64 {
        let second = log.receiver(slots[1]);
        mark(&server, 6000);
        std::thread::sleep(Duration::from_millis(300 + round * 97 % 400));
        mark(&server, 6000);
        second.kill();
    }
    let second = log.receiver(slots[1]);
    mark(&server, 3000);
    caught_up(&log, &server);
    assert_eq!(second.stop(), 0, "{}", receiver.told());
    assert_eq!(receiver.stop(), 0);
    let told = std::fs::read_to_string(log.path("receiver.log")).unwrap();
    assert!(!told.contains("RK-WA-001") && !told.contains("CONFLICT"), "{told}");
    let state = log.state();
    assert_eq!(state["runs"].as_array().unwrap().len(), 1, "no hole: {state:#}");
    assert!(state["segments"].as_u64().unwrap() >= 5, "{state:#}");
    // The archiver brings the same segments in its own time, and none of them is refused.
    let enough = "SELECT archived_count >= 5 FROM pg_stat_archiver";
    wait_until("five segments are archived", || server.psql("postgres", enough) == "t");
    assert_eq!(server.psql("postgres", "SELECT failed_count FROM pg_stat_archiver"), "0", "{}", server.log_tail());
    log.place.ends(0, &["wal", "verify", "--deep"]);
    assert_eq!(markers(&room.recovered(&log, 15, "back", &["--latest"])), markers(&server));
}
