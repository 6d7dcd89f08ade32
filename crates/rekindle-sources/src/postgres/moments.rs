//! Moments that recovery can find again: restore points by name, and a heartbeat.
//!
//! Recovery to a time stops at the first transaction that ended after it. A database in which
//! nothing happens gives it nothing to stop at, so it could not be recovered "to now", and how far
//! behind the log is could not be told. One small commit now and then mends both.

use rekindle_core::wal::Lsn;
use rekindle_core::{Fault, Result, codes};

use super::catalog::get;
use super::connect::{Server, Session};
use super::options::PostgresOptions;
use super::privilege;
use super::quote::ident;

/// How a heartbeat is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// One row of `rekindle.heartbeat`, replaced each time: it can be asked after a recovery.
    Table,
    /// `pg_logical_emit_message`: needs no table and no right to write.
    Message,
}

/// Something that was written into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Behind its record.
    pub lsn: Lsn,
    /// By the server's clock.
    pub at: jiff::Timestamp,
}

const NOW: &str = "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
/// The table of the heartbeat, as its owner makes it.
const TABLE: &str = "CREATE SCHEMA IF NOT EXISTS rekindle; \
    CREATE TABLE IF NOT EXISTS rekindle.heartbeat (one boolean PRIMARY KEY DEFAULT true CHECK (one), \
    seq bigint NOT NULL, at timestamptz NOT NULL)";
const BEAT: &str = "INSERT INTO rekindle.heartbeat AS old (seq, at) VALUES (1, clock_timestamp()) \
    ON CONFLICT (one) DO UPDATE SET seq = old.seq + 1, at = clock_timestamp()";
const MESSAGE: &str = "SELECT pg_logical_emit_message(true, 'rekindle', 'heartbeat')";

async fn connect(options: &PostgresOptions) -> Result<Session> {
    let server = Server {
        url: options.url.clone(),
        password: options.password.clone(),
        connect_timeout: options.connect_timeout,
    };
    server.connect(&options.url.database).await
}

fn read(lsn: &str, at: &str) -> Result<Written> {
    let bad = |error: String| Fault::new(codes::PG_QUERY, "read the server's answer").because(error);
    Ok(Written {
        lsn: lsn.parse().map_err(|error: rekindle_core::wal::BadLsn| bad(error.to_string()))?,
        at: at.parse().map_err(|error: jiff::Error| bad(error.to_string()))?,
    })
}

/// Writes a named restore point. Recovery stops at the first of a name.
pub async fn create_restore_point(options: &PostgresOptions, name: &str) -> Result<Written> {
    let session = connect(options).await?;
    let sql = format!("SELECT pg_create_restore_point($1)::text, {NOW}");
    let row = session.row("create a restore point", &sql, &[&name]).await.map_err(|fault| {
        if fault.is(codes::PG_PRIVILEGE) {
            return fault.hint(format!("run as superuser: {}", privilege::restore_points(&options.url.user)));
        }
        fault
    })?;
    read(&get::<String>(&row, 0)?, &get::<String>(&row, 1)?)
}

/// Makes the table of the heartbeat, where it is not there yet.
pub async fn prepare_heartbeat(options: &PostgresOptions) -> Result<()> {
    let session = connect(options).await?;
    session.run("SET default_transaction_read_only = off").await?;
    session.command("make the table of the heartbeat", TABLE).await.map_err(|fault| {
        let role = ident(&options.url.user);
        fault.hint(format!("run as superuser in that database: CREATE SCHEMA rekindle AUTHORIZATION {role}"))
    })
}

/// One heartbeat: a commit whose position and time are known. `Ok` means that the server has it,
/// not that the log was received.
pub async fn beat(options: &PostgresOptions, how: Heartbeat) -> Result<Written> {
    let session = connect(options).await?;
    session.run("SET default_transaction_read_only = off").await?;
    match how {
        Heartbeat::Table => session.command("write the heartbeat", BEAT).await?,
        Heartbeat::Message => session.command("write the heartbeat", MESSAGE).await?,
    }
    let sql = format!("SELECT pg_current_wal_lsn()::text, {NOW}");
    let row = session.row("ask for the position of the log", &sql, &[]).await?;
    read(&get::<String>(&row, 0)?, &get::<String>(&row, 1)?)
}
