//! PostgreSQL to the second, end to end: only the built program and real servers, from the stream
//! and the base backup to the recovered cluster.

mod faults;
mod gap;
mod golden;
mod idle;
mod loss;
mod moments;
mod odd;
mod promote;
mod receivers;
mod retention;
mod slot;
mod standby;
mod verified;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rekindle_testkit::{Postgres, PostgresOptions};
use serde_json::Value;

use super::wal_support::{Log, position, server_directory};

const MARKERS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM marker";
const NOW: &str = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// A server of a version with these settings. What it acknowledges, it has written: tests ask where its
/// log ends.
fn options(major: u32, settings: &[(&str, &str)]) -> PostgresOptions {
    let written = [("synchronous_commit", "on"), ("full_page_writes", "on")];
    let settings =
        written.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    PostgresOptions { major, settings, ..PostgresOptions::default() }
}

fn marker_table(server: &Postgres) {
    server.psql("postgres", "CREATE TABLE marker (id bigserial PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())");
}

/// Commits so many markers at once; the moment after them, by the server's clock.
fn mark(server: &Postgres, count: u32) -> jiff::Timestamp {
    server.psql("postgres", &format!("INSERT INTO marker SELECT FROM generate_series(1, {count})"));
    now(server)
}

fn now(server: &Postgres) -> jiff::Timestamp {
    server.psql("postgres", NOW).parse().unwrap()
}

fn markers(server: &Postgres) -> String {
    server.psql("postgres", MARKERS)
}

fn numbers(upto: u32) -> String {
    (1..=upto).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

/// Writes about so many MiB of WAL.
fn write_wal(server: &Postgres, mib: u32) {
    server.psql("postgres", "CREATE TABLE IF NOT EXISTS filler (x text)");
    let row = "repeat(md5(n::text), 32)";
    server.psql("postgres", &format!("INSERT INTO filler SELECT {row} FROM generate_series(1, {mib} * 1000) n"));
    server.psql("postgres", "TRUNCATE filler");
}

/// Where clusters are recovered: a directory of the servers' user.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(server_directory())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Recovers by the program, which must prove it, and runs the cluster.
    fn recovered(&self, log: &Log, major: u32, name: &str, target: &[&str]) -> Postgres {
        let data = self.path(name);
        let done = log.restore(0, &data, target);
        let item = &done["result"]["items"][0];
        assert_eq!(item["state"], "restored", "{item:#}");
        serve(major, &data)
    }

    /// The code of a recovery that must be refused before anything is written.
    fn refused(&self, log: &Log, target: &[&str]) -> (String, Value) {
        let data = self.path("refused");
        let value = log.restore(21, &data, target);
        assert!(!data.exists(), "{value:#}");
        (value["error"]["code"].as_str().unwrap().to_owned(), value)
    }
}

/// Runs a recovered cluster.
fn serve(major: u32, data: &Path) -> Postgres {
    Postgres::start(PostgresOptions { data_dir: Some(data.to_owned()), ..options(major, &[]) })
}

fn amcheck(server: &Postgres) {
    let mut command = server.client("pg_amcheck");
    let output = command.args(["--all", "--install-missing", "--heapallindexed"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A running `pgbench`; killed when dropped.
struct Bench(Child);

impl Bench {
    fn init(server: &Postgres, scale: u32) {
        let mut command = server.client("pgbench");
        let made = command.args(["-i", "-q", "-s", &scale.to_string(), "postgres"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }

    fn start(server: &Postgres, clients: u32) -> Self {
        let mut command: Command = server.client("pgbench");
        command.args(["-n", "-T", "600", "-c", &clients.to_string(), "postgres"]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the log has everything that the server has written by now.
fn caught_up(log: &Log, server: &Postgres) {
    log.wait_for(position(server));
}
