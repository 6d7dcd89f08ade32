//! Looks, before a capture is wanted, at what would go wrong with it.

use std::path::Path;

use rekindle_core::Result;
use rekindle_core::port::Finding;

use super::catalog::{self, get};
use super::connect::{Server, Session};
use super::details::ServerRecord;
use super::options::PostgresOptions;
use super::{chosen, find_programs, privilege};

/// Findings about the server, the programs and the role.
pub(super) async fn probe(options: &PostgresOptions, server: &Server, scratch: &Path) -> Result<Vec<Finding>> {
    let session = match server.connect(&options.url.database).await {
        Ok(session) => session,
        Err(fault) => return Ok(vec![bad(&fault)]),
    };
    let facts = catalog::server(&session, options.url.to_string()).await?;
    let mut findings = vec![Finding::good(format!(
        "PostgreSQL {} answers at {}{}",
        facts.version,
        options.url,
        if facts.standby { " (a standby)" } else { "" }
    ))];
    findings.push(programs(options, &facts).await);
    if options.password.is_some() && !scratch.is_dir() {
        findings.push(Finding::bad(
            format!("the scratch directory {} is not there", scratch.display()),
            "create it, readable for the backup user only",
        ));
    }
    let names = match chosen(&session, options).await {
        Ok(names) => names,
        Err(fault) => {
            findings.push(bad(&fault));
            return Ok(findings);
        }
    };
    if options.globals {
        findings.extend(passwords(&session, &options.url.user).await?);
    }
    for name in &names {
        match server.connect(name).await {
            Ok(session) => database(&session, name, options, &facts, &mut findings).await?,
            Err(fault) => findings.push(bad(&fault)),
        }
    }
    Ok(findings)
}

fn bad(fault: &rekindle_core::Fault) -> Finding {
    let remedy = fault.hint_text().unwrap_or("see the error").to_owned();
    Finding::bad(fault.chain(), remedy)
}

async fn programs(options: &PostgresOptions, facts: &ServerRecord) -> Finding {
    let major = facts.major();
    match find_programs(options, major, major, "pg_dump").await {
        Ok(programs) if programs.major == major => {
            Finding::good(format!("pg_dump {} in {}", programs.version, programs.place()))
        }
        Ok(programs) => Finding::warning(
            format!(
                "pg_dump {} in {} is newer than the server ({major}); its dumps may not restore \
                 into {major}",
                programs.version,
                programs.place()
            ),
            format!("install `postgresql-client-{major}`"),
        ),
        Err(fault) => bad(&fault),
    }
}

async fn passwords(session: &Session, role: &str) -> Result<Option<Finding>> {
    let sql = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
    let may: bool = get(&session.row("look at the role's privileges", sql, &[]).await?, 0)?;
    Ok((!may).then(|| {
        Finding::warning(
            format!("`{role}` may not read role passwords; roles are saved without them"),
            format!("run as superuser: {}", privilege::read_all(role)),
        )
    }))
}

/// What the role cannot read in one database.
async fn database(
    session: &Session,
    name: &str,
    options: &PostgresOptions,
    facts: &ServerRecord,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let role = &options.url.user;
    let before = findings.len();
    let (tables, _) = catalog::tables(session).await?;
    let row = session.row("look at the role's privileges", PRIVILEGES, &[]).await?;
    let (unreadable, secured): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
    if unreadable > 0 {
        let remedy = if facts.major() >= 14 {
            privilege::read_all(role)
        } else {
            format!("GRANT SELECT ON ALL TABLES IN SCHEMA … TO {}", super::quote::ident(role))
        };
        findings.push(Finding::bad(
            format!("`{role}` may not read {unreadable} tables or sequences of `{name}`"),
            format!("run as superuser: {remedy}"),
        ));
    }
    if secured > 0 {
        findings.push(Finding::bad(
            format!("row-level security hides rows of {secured} tables of `{name}` from `{role}`"),
            format!("run as superuser: {}", privilege::bypass_rls(role)),
        ));
    }
    let row = session.row("look at the large objects", LARGE_OBJECTS, &[]).await?;
    let hidden: i64 = get(&row, 0)?;
    if hidden > 0 && options.tables.is_empty() && !options.schema_only {
        findings.push(Finding::bad(
            format!("`{role}` may not read {hidden} large objects of `{name}`"),
            format!("run as superuser: {}", privilege::large_objects(role)),
        ));
    }
    if findings.len() == before {
        let row = session
            .row("ask for the database's size", "SELECT pg_size_pretty(pg_database_size(current_database()))", &[])
            .await?;
        findings.push(Finding::good(format!(
            "database `{name}`: {} tables, {}, all readable",
            tables.len(),
            get::<String>(&row, 0)?
        )));
    }
    Ok(())
}

/// Relations the role may not read, and tables whose rows a policy hides from it.
const PRIVILEGES: &str = "SELECT \
    count(*) FILTER (WHERE NOT has_schema_privilege(c.relnamespace, 'USAGE') OR NOT CASE \
        WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') \
        ELSE has_table_privilege(c.oid, 'SELECT') END), \
    count(*) FILTER (WHERE c.relrowsecurity AND NOT (r.rolsuper OR r.rolbypassrls) \
        AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE'))) \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_roles r ON r.rolname = current_user \
    WHERE c.relkind IN ('r', 'p', 'm', 'S') AND c.relpersistence <> 't' \
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Large objects the role may not read: neither superuser, nor compatibility, nor owner, nor grant.
const LARGE_OBJECTS: &str = "SELECT count(*) FROM pg_largeobject_metadata m \
    JOIN pg_roles r ON r.rolname = current_user \
    WHERE NOT r.rolsuper AND NOT current_setting('lo_compat_privileges')::bool \
      AND NOT pg_has_role(m.lomowner, 'USAGE') \
      AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT' \
          AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))";
