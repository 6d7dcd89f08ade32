//! The server drops WAL before it was received: recorded, a new base backup by itself, and nothing
//! is recovered across it.

use rekindle_testkit::Postgres;

use super::{Room, caught_up, mark, marker_table, markers, now};
use crate::acceptance::wal_support::{Log, server_directory, small_segments};

#[derive(Clone, Copy)]
enum Loss {
    /// `max_slot_wal_keep_size` was exceeded: the server invalidates the slot.
    Exceeded,
    /// Somebody dropped the slot, and the WAL was used again.
    Dropped,
}

fn lose(server: &Postgres, loss: Loss) {
    if matches!(loss, Loss::Dropped) {
        server.psql("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    }
    for _ in 0..6 {
        mark(server, 20_000);
        server.psql("postgres", "CHECKPOINT");
    }
    let status = server.psql("postgres", "SELECT wal_status FROM pg_replication_slots");
    assert_eq!(status, if matches!(loss, Loss::Dropped) { "" } else { "lost" });
}

#[test]
fn a_gap_starts_a_base_backup_by_itself_and_recovery_across_it_is_refused() {
    for (major, loss) in [(15, Loss::Exceeded), (17, Loss::Dropped)] {
        let directory = server_directory();
        let limits = [("max_slot_wal_keep_size", "2MB"), ("max_wal_size", "4MB"), ("min_wal_size", "2MB")];
        let server = small_segments(major, directory.path(), &limits);
        let log = Log::with(&server, "stream");
        let room = Room::new();
        marker_table(&server);
        let receiver = log.receiver(&[]);
        receiver.wait_told("streaming timeline 1");
        log.backup();
        let before = mark(&server, 3);
        mark(&server, 1);
        caught_up(&log, &server);
        assert_eq!(receiver.stop(), 0);
        let lost_from = now(&server);
        mark(&server, 1);
        let inside = now(&server);
        lose(&server, loss);
        let receiver = log.receiver(&[]);
        receiver.wait_told("RK-WA-009");
        receiver.wait_told("a new base backup was started");
        receiver.wait_told("the new base backup ended: exit status: 0");
        let after = mark(&server, 5);
        let end = markers(&server);
        mark(&server, 1);
        caught_up(&log, &server);
        assert_eq!(log.place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 2, "{major}");
        assert_eq!(log.state()["gaps"].as_array().unwrap().len(), 1, "{major}");
        // Before the gap and behind the new base backup everything comes back; between, nothing does.
        let copy = room.recovered(&log, major, "before", &["--at", &before.to_string()]);
        assert_eq!(markers(&copy), "1,2,3", "{major}");
        let copy = room.recovered(&log, major, "after", &["--at", &after.to_string()]);
        assert_eq!(markers(&copy), end, "{major}");
        for moment in [lost_from, inside] {
            let (code, value) = room.refused(&log, &["--at", &moment.to_string()]);
            assert_eq!(code, "RK-PT-006", "{major}: {value:#}");
            assert!(value["error"]["hint"].as_str().unwrap().contains("--lsn"), "{value:#}");
        }
        assert_eq!(receiver.stop(), 0);
    }
}
