//! Roles: those that are missing are made; those that exist are left exactly as they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use rekindle_core::entry::{ContentRead, EntryPath, ReadFault};
use rekindle_core::port::PartReader;
use rekindle_core::{Fault, Result, codes};

use super::Job;
use crate::postgres::details::{DatabaseRecord, GlobalsRecord};
use crate::postgres::globals::{RoleKind, RoleStatement, statements};
use crate::postgres::{blocking, catalog};

/// More than the capture ever writes.
const GLOBALS_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Makes missing roles and looks that all owners are there.
pub(super) async fn restore(job: &mut Job<'_>, part: &Arc<dyn PartReader>, chosen: &[&DatabaseRecord]) -> Result<()> {
    if job.details.globals != GlobalsRecord::None {
        let part = Arc::clone(part);
        let sql = blocking(move || read(part.as_ref())).await?;
        let found = statements(&String::from_utf8_lossy(&sql));
        run(job, &found).await?;
        if job.details.globals == GlobalsRecord::WithoutPasswords {
            job.warn("the point has no role passwords: set those of new roles by hand");
        }
    }
    let existing = existing(job).await?;
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for record in chosen {
        needed.insert(&record.properties.owner);
        needed.extend(record.owners.iter().map(String::as_str));
    }
    let lacking: Vec<&str> = needed.into_iter().filter(|role| !existing.contains(*role)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let mut why = format!("there are no roles `{}`", lacking.join("`, `"));
    for warning in &job.report.warnings {
        why.push_str("; ");
        why.push_str(warning);
    }
    Err(Fault::new(codes::PG_ROLES, "find the owners of the restored objects")
        .because(why)
        .hint("create them on the target server (`CREATE ROLE …`), then restore again"))
}

async fn existing(job: &Job<'_>) -> Result<BTreeSet<String>> {
    let sql = "SELECT rolname::text FROM pg_roles";
    let names = catalog::names(&job.admin, "list the roles", sql).await?;
    Ok(names.into_iter().collect())
}

async fn run(job: &mut Job<'_>, found: &[RoleStatement]) -> Result<()> {
    let before = existing(job).await?;
    let is_new = |role: &String| !before.contains(role);
    for statement in found {
        job.context.cancel.check()?;
        let wanted = match statement.kind {
            RoleKind::Create | RoleKind::Alter => statement.roles.iter().all(is_new),
            RoleKind::Membership => statement.roles.iter().any(is_new),
        };
        if !wanted {
            continue;
        }
        let mut outcome = job.admin.try_command(&statement.sql).await;
        if outcome.is_err()
            && let Some((plain, _)) = statement.sql.rsplit_once(" GRANTED BY ")
        {
            // The role that granted it may be missing here; the membership counts.
            outcome = job.admin.try_command(plain).await;
        }
        if let Err(error) = outcome {
            // The server quotes no part of a statement here, so no password hash is repeated.
            let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            job.warn(format!("could not {}: {why}", statement.describe()));
        }
    }
    Ok(())
}

fn read(part: &dyn PartReader) -> Result<Vec<u8>> {
    let path =
        EntryPath::new("globals.sql").map_err(|error| Fault::new(codes::RUN_BUG, "name the roles").because(error))?;
    let mut content: Box<dyn ContentRead> = part.open(&path)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(given) => bytes.extend_from_slice(&buffer[..given]),
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => {
                return Err(Fault::new(codes::PG_ROLES, "read the roles: they are not there"));
            }
        }
        if bytes.len() > GLOBALS_BYTES_MAX {
            return Err(Fault::new(codes::PG_ROLES, "read the roles: far too long"));
        }
    }
    content.close()?;
    Ok(bytes)
}
