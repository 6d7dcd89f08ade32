//! The service keeps the receiver of a write-ahead log running, and says how far the log goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rekindle_testkit::{Postgres, PostgresOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::serve::{Served, stop};
use super::stack::wait_until;

const RECEIVING: &str = "SELECT count(*) FROM pg_replication_slots WHERE active";

fn with_database(server: &Postgres) -> Served {
    let mut served = Served::new("");
    // The server's programs run as their own user.
    fs::set_permissions(served.stack.place.path(), fs::Permissions::from_mode(0o711)).unwrap();
    served.stack.place.write("pg-password", &format!("{}\n", server.password()));
    served.stack.set(&format!(
        "[component.database]\nkind = \"postgres\"\nmethod = \"physical\"\nwal = \"stream\"\ndata-dir = \"{}\"\n\
         url = \"postgres://postgres@127.0.0.1:{}/postgres\"\npassword = \"file:pg-password\"",
        server.data_dir().display(),
        server.port()
    ));
    served
}

/// The process that receives the log for this stack.
fn receiver(served: &Served) -> Option<Pid> {
    let config = served.stack.path("rekindle.toml").display().to_string();
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).replace('\0', " ");
        (line.contains(&config) && line.contains("wal stream database")).then(|| Pid::from_raw(pid)).flatten()
    })
}

#[test]
fn a_receiver_that_dies_is_started_again_and_counted_over_restarts_of_the_service() {
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() });
    server.psql("postgres", "CREATE TABLE marker (n int PRIMARY KEY)");
    let served = with_database(&server);
    let child = served.start();
    wait_until("the receiver", || served.metric("rekindle_wal_stream_up").as_deref() == Some("1"));
    assert_eq!(served.metric("rekindle_wal_stream_restarts_total").as_deref(), Some("0"));
    wait_until("the slot", || server.psql("postgres", RECEIVING) == "1");
    served.stack.place.ends(0, &["backup", "database"]);

    kill_process(receiver(&served).expect("a receiver"), Signal::KILL).unwrap();
    wait_until("a new receiver", || {
        served.metric("rekindle_wal_stream_restarts_total").as_deref() == Some("1")
            && served.metric("rekindle_wal_stream_up").as_deref() == Some("1")
    });
    wait_until("the slot again", || server.psql("postgres", RECEIVING) == "1");
    server.psql("postgres", "INSERT INTO marker VALUES (1)");
    stop(child);
    assert_eq!(receiver(&served), None, "it ends with the service");
    wait_until("the slot is free", || server.psql("postgres", RECEIVING) == "0");

    let child = served.start();
    wait_until("the log's age", || served.metric("rekindle_wal_lag_seconds").is_some());
    let lag: f64 = served.metric("rekindle_wal_lag_seconds").unwrap().parse().unwrap();
    assert!(lag < 120.0, "the commit after the base backup is in the log: {lag}");
    assert_eq!(served.metric("rekindle_wal_stream_restarts_total").as_deref(), Some("1"));
    stop(child);
}
