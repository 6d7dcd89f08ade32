//! The slot of a base backup that fails: taken back, or told.

use std::process::{Child, Stdio};

use rekindle_testkit::Postgres;
use rustix::process::{Pid, Signal, kill_process};

use super::options;
use crate::acceptance::stack::{end, wait_until};
use crate::acceptance::wal_support::Log;
use crate::run::Ended;

const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'rekindle_shop_database'";

/// A running base backup whose WAL nobody brings: it waits for it.
fn waiting(log: &Log, server: &Postgres) -> Child {
    let mut command = log.place.command(&["backup"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the backup made its slot", || server.psql("postgres", SLOTS) == "1");
    let over = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    wait_until("everything was sent", || server.psql("postgres", over) == "0");
    child
}

fn interrupted(child: Child) -> Ended {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    end(child)
}

#[test]
fn a_slot_of_a_failed_base_backup_is_dropped_or_told() {
    let mut server = Postgres::start(options(15, &[]));
    let log = Log::with(&server, "stream");
    let ended = interrupted(waiting(&log, &server));
    assert_eq!(ended.code, 130, "{ended:#?}");
    assert!(!ended.err.contains("replication slot"), "{ended:#?}");
    assert_eq!(server.psql("postgres", SLOTS), "0", "nobody would read it");
    // The server is away by then: the slot stays, and whoever looks at the run knows.
    let child = waiting(&log, &server);
    server.kill9();
    let ended = interrupted(child);
    assert_eq!(ended.code, 130, "{ended:#?}");
    ended.says("RK-PG-033", &["drop the replication slot `rekindle_shop_database`", "without end"]);
    server.restart();
    assert_eq!(server.psql("postgres", SLOTS), "1");
}
