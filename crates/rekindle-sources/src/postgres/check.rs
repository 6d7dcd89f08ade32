//! Whether a restored database is what the point says.

use std::collections::BTreeMap;

use rekindle_core::Result;
use rekindle_core::port::{Finding, PartReader, RestoreReport, RunContext};
use rekindle_core::{Fault, codes};

use super::catalog::{self, get};
use super::connect::Session;
use super::details::{DatabaseRecord, Details, Sequence, Table};
use super::quote::qualified;
use super::{PostgresComponent, restore, users_checks};

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Data that is not as it was.
    pub(super) differences: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// What is probably lost; and what may be.
    doubts: Vec<String>,
    unknown: Vec<String>,
    tables: usize,
    counted: usize,
    /// Tables whose rows were not counted, and that have some, or none, as they had.
    as_before: usize,
}

/// From here on an estimate of PostgreSQL is no remnant of a few rows that are long gone.
const ESTIMATE_TRUSTED: i64 = 100;

impl Compared {
    /// A table that lost all of its rows, or that has some and had none.
    fn look_for_rows(&mut self, was: &Table, name: &str, there: bool) {
        let estimate = was.estimated_rows;
        match was.has_rows {
            Some(had) if had == there => self.as_before += 1,
            Some(true) => self.differences.push(format!("{name} is empty, and it had rows")),
            Some(false) => self.differences.push(format!("{name} has rows, and it had none")),
            None if there || estimate <= 0 => {}
            None if estimate >= ESTIMATE_TRUSTED => {
                self.doubts.push(format!("{name} is empty; PostgreSQL had estimated {estimate} rows"));
            }
            None => self.unknown.push(format!("{name} is empty; PostgreSQL had estimated {estimate} rows")),
        }
    }
}

/// Compares a database with its record: tables and rows, sequences, extensions, large objects,
/// indexes.
pub(super) async fn compare(session: &Session, record: &DatabaseRecord, details: &Details) -> Result<Compared> {
    let mut compared = Compared::default();
    session.run("SET statement_timeout = 0").await?;
    let filtered = !details.tables.is_empty() || !details.exclude_tables.is_empty();
    compare_tables(session, record, filtered, &mut compared).await?;
    if !filtered {
        compare_sequences(session, record, details.schema_only, &mut compared).await?;
        compare_extensions(session, record, &mut compared).await?;
    }
    if !filtered && !details.schema_only {
        let now = catalog::large_objects(session).await?;
        if now != record.large_objects {
            let was = record.large_objects;
            compared.differences.push(format!("{now} large objects instead of {was}"));
        }
    }
    let sql = "SELECT count(*) FROM pg_index WHERE NOT indisvalid OR NOT indisready";
    let invalid: i64 = get(&session.row("look for invalid indexes", sql, &[]).await?, 0)?;
    if invalid > 0 {
        compared.warnings.push(format!("{invalid} invalid indexes"));
    }
    Ok(compared)
}

async fn compare_tables(
    session: &Session,
    record: &DatabaseRecord,
    filtered: bool,
    compared: &mut Compared,
) -> Result<()> {
    let (tables, _) = catalog::tables(session).await?;
    let there: BTreeMap<(&str, &str), &Table> =
        tables.iter().map(|table| ((table.schema.as_str(), table.name.as_str()), table)).collect();
    for table in &record.tables {
        if filtered && !table.dumped {
            continue;
        }
        let name = qualified(&table.schema, &table.name);
        if !there.contains_key(&(table.schema.as_str(), table.name.as_str())) {
            compared.differences.push(format!("the table {name} is not there"));
            continue;
        }
        compared.tables += 1;
        if let Some(expected) = table.exact_rows {
            compared.counted += 1;
            let now = catalog::count(session, &table.schema, &table.name).await?;
            if now != expected {
                compared.differences.push(format!("{name} has {now} rows instead of {expected}"));
            }
        } else if table.dumped {
            compared.look_for_rows(table, &name, !is_empty(session, &name).await?);
        }
    }
    Ok(())
}

async fn is_empty(session: &Session, name: &str) -> Result<bool> {
    let sql = format!("SELECT NOT EXISTS (SELECT FROM ONLY {name})");
    get(&session.row("look into a table", &sql, &[]).await?, 0)
}

async fn compare_sequences(
    session: &Session,
    record: &DatabaseRecord,
    schema_only: bool,
    compared: &mut Compared,
) -> Result<()> {
    let sequences = catalog::sequences(session).await?;
    let there: BTreeMap<(&str, &str), &Sequence> =
        sequences.iter().map(|sequence| ((sequence.schema.as_str(), sequence.name.as_str()), sequence)).collect();
    for was in &record.sequences {
        let name = qualified(&was.schema, &was.name);
        let Some(now) = there.get(&(was.schema.as_str(), was.name.as_str())) else {
            compared.differences.push(format!("the sequence {name} is not there"));
            continue;
        };
        if !schema_only && went_back(was, now) {
            compared.differences.push(format!(
                "the sequence {name} is at {} and was at {}",
                shown(now.last_value),
                shown(was.last_value)
            ));
        }
    }
    Ok(())
}

fn shown(value: Option<i64>) -> String {
    value.map_or_else(|| "its start".to_owned(), |value| value.to_string())
}

/// A sequence may have moved on between its reading and its dump, but never back.
fn went_back(was: &Sequence, now: &Sequence) -> bool {
    match (was.last_value, now.last_value) {
        (None, _) => false,
        _ if was.cycles => false,
        (Some(_), None) => true,
        (Some(was_at), Some(now_at)) if was.increment < 0 => now_at > was_at,
        (Some(was_at), Some(now_at)) => now_at < was_at,
    }
}

async fn compare_extensions(session: &Session, record: &DatabaseRecord, compared: &mut Compared) -> Result<()> {
    let there = catalog::extensions(session).await?;
    for was in &record.extensions {
        match there.iter().find(|now| now.name == was.name) {
            None => compared.differences.push(format!("the extension `{}` is not there", was.name)),
            Some(now) if now.version != was.version => compared
                .warnings
                .push(format!("the extension `{}` has version {} instead of {}", was.name, now.version, was.version)),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The checks after a restore, for every database of its report.
pub(super) async fn check(
    component: &PostgresComponent,
    part: &dyn PartReader,
    report: &RestoreReport,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let details = Details::decode(&part.record().details)?;
    let restored: restore::Restored = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::PG_DETAILS, "read the report of the restore").because(error))?;
    let server = restore::server_of(component, &restored)?;
    let mut findings = Vec::new();
    for database in &restored.databases {
        context.cancel.check()?;
        let record = details.databases.iter().find(|r| r.name == database.name);
        let Some(record) = record else {
            findings.push(Finding::bad(
                format!("the point has no database `{}`", database.name),
                "check with the point the restore was made from",
            ));
            continue;
        };
        let session = server.connect(&database.restored_as).await?;
        let compared = compare(&session, record, &details).await?;
        findings.extend(judged(&database.restored_as, &compared));
        findings.extend(owner(&session, &database.restored_as, record).await?);
    }
    let (checks, name) = (&component.options.checks, &component.options.url.database);
    if !checks.is_empty() {
        let alone = restored.databases.first().filter(|_| restored.databases.len() == 1);
        match restored.databases.iter().find(|one| one.name == *name).or(alone) {
            Some(one) => findings.extend(users_checks::ask(&server.connect(&one.restored_as).await?, checks).await?),
            None => findings.push(users_checks::no_database(name)),
        }
    }
    Ok(findings)
}

fn judged(name: &str, compared: &Compared) -> Vec<Finding> {
    let mut findings: Vec<Finding> = compared
        .differences
        .iter()
        .chain(&compared.doubts)
        .map(|text| {
            Finding::bad(
                format!("database `{name}`: {text}"),
                "restore again; if it differs again, check the point with `rekindle verify`",
            )
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::good(format!(
            "database `{name}`: {} tables are there, rows of {} counted and equal, {} more with or without rows as \
             they were, sequences, extensions and large objects as in the point",
            compared.tables, compared.counted, compared.as_before
        )));
    }
    findings.extend(compared.unknown.iter().map(|text| {
        let remedy = "look at the table; `exact-counts = true` records its rows from the next backup on";
        Finding::unproved(format!("database `{name}`: {text}"), remedy)
    }));
    findings.extend(compared.warnings.iter().map(|text| {
        Finding::warning(format!("database `{name}`: {text}"), "see whether the application can live with it")
    }));
    findings
}

async fn owner(session: &Session, name: &str, record: &DatabaseRecord) -> Result<Option<Finding>> {
    let sql = "SELECT pg_get_userbyid(datdba)::text FROM pg_database \
               WHERE datname = current_database()";
    let now: String = get(&session.row("ask for the owner", sql, &[]).await?, 0)?;
    let was = &record.properties.owner;
    Ok((now != *was).then(|| {
        Finding::bad(
            format!("database `{name}` belongs to `{now}` instead of `{was}`"),
            format!("run: ALTER DATABASE {} OWNER TO {}", super::quote::ident(name), super::quote::ident(was)),
        )
    }))
}
