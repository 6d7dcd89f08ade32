//! Promotion: both sides come back, and servers that write the same timeline are found out.

use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_testkit::{Postgres, PostgresOptions};

use super::{Room, caught_up, mark, marker_table, markers, options};
use crate::acceptance::wal_support::{Log, as_server, lsn, position};

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_mins(1), "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A running standby of a server.
pub(super) fn standby(primary: &Postgres, data: &Path, settings: &[(&str, &str)]) -> Postgres {
    let mut command = primary.client("pg_basebackup");
    command.args(["-X", "stream", "-c", "fast", "-R", "--no-sync", "-D"]).arg(data);
    as_server(&mut command);
    let made = command.current_dir(data.parent().unwrap()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let options = options(primary.major(), settings);
    Postgres::start(PostgresOptions {
        data_dir: Some(data.to_owned()),
        password: primary.password().to_owned(),
        ..options
    })
}

/// Waits until a standby has replayed what its primary has written.
pub(super) fn follows(standby: &Postgres, primary: &Postgres) {
    let wanted = position(primary);
    let replayed = || lsn(standby.psql("postgres", "SELECT pg_last_wal_replay_lsn()").trim());
    wait_until("the standby follows", || replayed() >= wanted);
}

pub(super) fn promote(standby: &Postgres) {
    assert_eq!(standby.psql("postgres", "SELECT pg_promote()"), "t");
    standby.psql("postgres", "CHECKPOINT");
}

fn archived(server: &Postgres) -> String {
    server.psql("postgres", "SELECT archived_count > 0, failed_count > 0, last_failed_wal FROM pg_stat_archiver")
}

#[test]
fn both_sides_of_a_promotion_come_back_and_split_brain_is_found() {
    let mut log = Log::new(1, "unused");
    log.run_as_server();
    let archive = log.line("push \"%p\"");
    let archiving = [("archive_mode", "on"), ("archive_command", archive.as_str())];
    let old = Postgres::start(options(15, &archiving));
    log.follow(&old);
    let room = Room::new();
    marker_table(&old);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 1");
    log.backup();
    let before = mark(&old, 3);
    mark(&old, 1);
    let new = standby(&old, &room.path("new"), &archiving);
    let third = standby(&old, &room.path("third"), &archiving);
    for one in [&new, &third] {
        follows(one, &old);
    }
    caught_up(&log, &old);
    receiver.kill();
    promote(&new);
    // The old primary goes on as if nothing had happened, and archives: its own line, which nobody else has.
    mark(&old, 100);
    let end = lsn(old.psql("postgres", "SELECT pg_switch_wal()").trim());
    let old_end = markers(&old);
    wait_until("the old line is archived", || {
        old.psql("postgres", "SELECT last_archived_wal FROM pg_stat_archiver")
            == old.psql("postgres", &format!("SELECT pg_walfile_name(pg_lsn '{}' - 1)", rekindle_core::wal::Lsn(end)))
    });

    log.follow(&new);
    let receiver = log.receiver(&[]);
    receiver.wait_told("streaming timeline 2");
    let between = mark(&new, 2);
    log.backup();
    mark(&new, 2);
    caught_up(&log, &new);
    let new_end = markers(&new);
    assert_eq!(log.state()["histories"], serde_json::json!([2]));

    third_is_refused(&log, &old, &third);
    log.follow(&new);
    old_side_and_new_side(&log, &room, &old_end, &new_end, [before, between]);
    assert_eq!(receiver.stop(), 0);
    // Whoever follows the old server is told.
    log.follow(&old);
    let status = log.place.run(&["wal", "status"]);
    assert!(status.out.contains("another server was promoted"), "{status:#?}");
    let stray = log.receiver(&[]);
    stray.wait_told("another server was promoted");
}

/// A second standby is promoted to the same timeline: another history, so nothing of it is stored.
fn third_is_refused(log: &Log, old: &Postgres, third: &Postgres) {
    follows(third, old);
    promote(third);
    mark(third, 50);
    third.psql("postgres", "SELECT pg_switch_wal()");
    wait_until("the archiver fails", || archived(third).ends_with("|t|00000002.history"));
    assert!(archived(third).starts_with("f|"), "{}", archived(third));
    assert!(third.log_text().contains("RK-WA-001"), "{}", third.log_tail());
    log.follow(third);
    let ended = log.place.run(&["wal", "stream"]);
    assert_eq!(ended.code, 21, "{ended:#?}");
    ended.says("RK-WA-001", &["nothing was overwritten"]);
}

fn old_side_and_new_side(
    log: &Log,
    room: &Room,
    old_end: &str,
    new_end: &str,
    [before, between]: [jiff::Timestamp; 2],
) {
    let comes_back = |name: &str, target: &[&str]| markers(&room.recovered(log, 15, name, target));
    assert_eq!(comes_back("before", &["--at", &before.to_string()]), "1,2,3");
    let new_side = comes_back("between", &["--at", &between.to_string()]);
    assert!(new_end.starts_with(&new_side) && new_side.split(',').count() == 6, "{new_side} of {new_end}");
    assert_eq!(comes_back("new-end", &["--latest"]), new_end);
    assert_eq!(comes_back("old-end", &["--latest", "--timeline", "1"]), old_end);
}
