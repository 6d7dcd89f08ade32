//! The last step in place: the restored database takes the name of the old one.
//!
//! All renames are one transaction, so a crash at any instruction leaves either the old names or
//! the new ones. `ALTER DATABASE … RENAME` locks the database against new connections and then
//! waits up to five seconds for the sessions in it to leave (`CountOtherDBBackends` in
//! PostgreSQL's `procarray.c`); a second connection ends these sessions meanwhile. So clients that
//! connect again and again cannot get in between, and nothing like `ALLOW_CONNECTIONS false` has
//! to be undone after a crash.

use std::fmt::Write as _;
use std::time::Duration;

use rekindle_core::{Fault, Result, codes};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::target::Plan;
use super::{Job, create};
use crate::postgres::catalog::{self, get};
use crate::postgres::connect::Session;
use crate::postgres::quote::ident;

/// How often sessions that still hold the database are ended, and cancel flags are looked at.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// Each attempt waits up to five seconds for sessions to leave.
const ATTEMPTS_MAX: u32 = 6;

/// Renames everything that has to be; gives the name under which each old database is kept.
pub(super) async fn swap(job: &mut Job<'_>, plans: &[Plan<'_>]) -> Result<Vec<Option<String>>> {
    let mut renames = Vec::new();
    for plan in plans {
        let Some(replace) = &plan.replace else {
            continue;
        };
        if let Some(keep_as) = &replace.keep_as {
            renames.push((replace.name.clone(), keep_as.clone()));
        }
        renames.push((plan.build_as.clone(), replace.name.clone()));
    }
    if !renames.is_empty() {
        job.context.cancel.check()?;
        let second = job.server.connect(job.admin.database()).await?;
        second.run(create::WRITABLE).await?;
        rename_all(&job.admin, &second, &renames).await?;
    }
    let mut kept = Vec::new();
    for plan in plans {
        let keep_as = plan.replace.as_ref().and_then(|r| r.keep_as.clone());
        kept.push(match keep_as {
            Some(old) => discard(job, old).await,
            None => None,
        });
    }
    Ok(kept)
}

/// Drops the old database when that was asked for; gives the name of what is still there.
async fn discard(job: &mut Job<'_>, old: String) -> Option<String> {
    use rekindle_core::port::Target;
    if !matches!(job.request.target, Target::InPlace { discard_old: true }) {
        return Some(old);
    }
    match create::drop_database(&job.admin, &job.facts, &old).await {
        Ok(()) => None,
        Err(fault) => {
            job.warn(format!("the old database is kept: {}", fault.chain()));
            Some(old)
        }
    }
}

pub(super) async fn rename_all(admin: &Session, second: &Session, renames: &[(String, String)]) -> Result<()> {
    let mut last = None;
    for _ in 0..ATTEMPTS_MAX {
        match attempt(admin, second, renames).await {
            Ok(()) => return agreed(second, renames).await,
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => last = Some(error),
            Err(error) => return Err(failed(error)),
        }
    }
    let sessions = holders(second, renames).await.unwrap_or_default();
    let fault = Fault::new(codes::PG_SWAP, "rename the databases");
    let fault = match last {
        Some(error) => fault.because(error),
        None => fault,
    };
    Err(fault.during(format!(
        "replace the databases (still in use by {})",
        if sessions.is_empty() {
            "a prepared transaction or a session that cannot be ended".to_owned()
        } else {
            sessions.join(", ")
        }
    )))
}

fn failed(error: tokio_postgres::Error) -> Fault {
    Fault::new(codes::PG_SWAP, "rename the databases").because(error)
}

/// One transaction with every rename, while a second connection ends the sessions in the way.
async fn attempt(admin: &Session, second: &Session, renames: &[(String, String)]) -> Result<(), tokio_postgres::Error> {
    let mut sql = "BEGIN; ".to_owned();
    for (from, to) in renames {
        let _ = write!(sql, "ALTER DATABASE {} RENAME TO {}; ", ident(from), ident(to));
    }
    sql.push_str("COMMIT");
    let renaming = admin.try_command(&sql);
    tokio::pin!(renaming);
    let names: Vec<&str> = renames.iter().map(|(from, _)| from.as_str()).collect();
    let parameters: [&(dyn ToSql + Sync); 1] = [&names];
    loop {
        // Ended first, so that the usual case needs no waiting.
        let ending = second.rows("end sessions", END_SESSIONS, &parameters);
        tokio::pin!(ending);
        let result = tokio::select! {
            result = &mut renaming => Some(result),
            _ = &mut ending => None,
        };
        let result = if let Some(result) = result {
            result
        } else {
            tokio::select! {
                result = &mut renaming => result,
                () = tokio::time::sleep(POLL) => continue,
            }
        };
        if result.is_err() {
            // Nothing was renamed; the transaction is only waiting to be closed.
            admin.try_command("ROLLBACK").await?;
        }
        return result;
    }
}

/// Reads back that the names are as they should be: an answer may be lost, a rename may not.
async fn agreed(second: &Session, renames: &[(String, String)]) -> Result<()> {
    let sql = "SELECT datname::text FROM pg_database";
    let names = catalog::names(second, "list the databases", sql).await?;
    match renames.iter().find(|(_, to)| !names.contains(to)) {
        None => Ok(()),
        Some((_, to)) => Err(Fault::new(codes::PG_SWAP, format!("find the database `{to}` after the renames"))),
    }
}

async fn holders(second: &Session, renames: &[(String, String)]) -> Result<Vec<String>> {
    let names: Vec<&str> = renames.iter().map(|(from, _)| from.as_str()).collect();
    let rows = second.rows("list the sessions", LIST_SESSIONS, &[&names]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = ANY ($1::text[]) AND pid <> pg_backend_pid()";
const LIST_SESSIONS: &str = "SELECT format('pid %s (%s, %s)', pid, usename, application_name) \
    FROM pg_stat_activity WHERE datname = ANY ($1::text[]) AND pid <> pg_backend_pid()";
