//! What the catalogues say: the server, its databases, and what is in each.

use jiff::Timestamp;
use rekindle_core::{Fault, Result, codes};
use tokio_postgres::Row;

use super::connect::Session;
use super::details::{Extension, Grant, Properties, Sequence, ServerRecord, Setting, Table};

/// The oldest server whose catalogues we know: PostgreSQL 12.
const SERVER_MIN: i32 = 120_000;

/// The moment of one database's snapshot.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    /// For `pg_dump --snapshot`.
    pub(super) snapshot: String,
    pub(super) at: Timestamp,
    pub(super) lsn: String,
    pub(super) size: i64,
}

/// Facts about the server.
pub(super) async fn server(session: &Session, address: String) -> Result<ServerRecord> {
    let row = session
        .row(
            "ask for the server's identity",
            "SELECT current_setting('server_version'), \
                    current_setting('server_version_num')::int4, \
                    (SELECT system_identifier::text FROM pg_control_system()), \
                    pg_is_in_recovery(), \
                    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8, \
                    CASE WHEN pg_is_in_recovery() \
                         THEN (SELECT timeline_id FROM pg_control_checkpoint()) \
                         ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))\
                              ::bit(32)::int4 END, \
                    (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries')",
            &[],
        )
        .await?;
    let record = ServerRecord {
        version: get(&row, 0)?,
        version_number: get(&row, 1)?,
        system_identifier: get(&row, 2)?,
        standby: get(&row, 3)?,
        started: time(get(&row, 4)?)?,
        timeline: get(&row, 5)?,
        preload: get(&row, 6)?,
        address,
    };
    if record.version_number < SERVER_MIN {
        return Err(Fault::new(codes::PG_VERSION, format!("use PostgreSQL {}", record.version))
            .because("the oldest supported version is 12")
            .hint("upgrade the server; PostgreSQL 11 and older get no fixes any more"));
    }
    Ok(record)
}

/// Databases that can be connected to and are no templates.
pub(super) async fn databases(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate \
               ORDER BY datname::text COLLATE \"C\"";
    names(session, "list the databases", sql).await
}

/// The first column of each row.
pub(super) async fn names(session: &Session, what: &str, sql: &str) -> Result<Vec<String>> {
    let rows = session.rows(what, sql, &[]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// Starts the transaction whose snapshot everything of this database is read in.
pub(super) async fn freeze(session: &Session) -> Result<Moment> {
    session.command("start the snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let row = session
        .row(
            "export the snapshot",
            "SELECT pg_export_snapshot(), \
                    (extract(epoch FROM statement_timestamp()) * 1000000)::int8, \
                    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                          ELSE pg_current_wal_lsn() END)::text, \
                    pg_database_size(current_database())",
            &[],
        )
        .await?;
    Ok(Moment {
        snapshot: get(&row, 0)?,
        at: time(get(&row, 1)?)?,
        lsn: get::<Option<String>>(&row, 2)?.unwrap_or_default(),
        size: get(&row, 3)?,
    })
}

/// What `CREATE DATABASE` needs, for the database we are connected to.
pub(super) async fn properties(session: &Session, server: &ServerRecord) -> Result<Properties> {
    let major = server.major();
    let provider = match major {
        15.. => "d.datlocprovider::text",
        _ => "'c'",
    };
    let locale = match major {
        17.. => "d.datlocale::text",
        15 | 16 => "d.daticulocale::text",
        _ => "NULL::text",
    };
    let rules = match major {
        16.. => "d.daticurules::text",
        _ => "NULL::text",
    };
    let collation_version = match major {
        15.. => "d.datcollversion::text",
        _ => "NULL::text",
    };
    let sql = format!(
        "SELECT pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, \
                d.datcollate::text, d.datctype::text, {provider}, {locale}, {rules}, \
                {collation_version}, t.spcname::text, d.datconnlimit, d.datistemplate, \
                shobj_description(d.oid, 'pg_database'), d.datacl IS NOT NULL \
         FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace \
         WHERE d.datname = current_database()"
    );
    let row = session.row("read the database's properties", &sql, &[]).await?;
    let own_grants: bool = get(&row, 12)?;
    Ok(Properties {
        owner: get(&row, 0)?,
        encoding: get(&row, 1)?,
        collate: get(&row, 2)?,
        ctype: get(&row, 3)?,
        provider: match get::<String>(&row, 4)?.as_str() {
            "i" => "icu",
            "b" => "builtin",
            _ => "libc",
        }
        .to_owned(),
        locale: get(&row, 5)?,
        icu_rules: get(&row, 6)?,
        collation_version: get(&row, 7)?,
        tablespace: get(&row, 8)?,
        connection_limit: get(&row, 9)?,
        is_template: get(&row, 10)?,
        comment: get(&row, 11)?,
        settings: settings(session).await?,
        grants: if own_grants { Some(grants(session).await?) } else { None },
    })
}

async fn settings(session: &Session) -> Result<Vec<Setting>> {
    let sql = "SELECT r.rolname::text, s.setting FROM pg_db_role_setting c \
               JOIN pg_database d ON d.oid = c.setdatabase \
               LEFT JOIN pg_roles r ON r.oid = c.setrole \
               CROSS JOIN LATERAL unnest(c.setconfig) AS s(setting) \
               WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2";
    let rows = session.rows("read the database's settings", sql, &[]).await?;
    let mut settings = Vec::with_capacity(rows.len());
    for row in &rows {
        let setting: String = get(row, 1)?;
        if let Some((name, value)) = setting.split_once('=') {
            settings.push(Setting { role: get(row, 0)?, name: name.to_owned(), value: value.to_owned() });
        }
    }
    Ok(settings)
}

async fn grants(session: &Session) -> Result<Vec<Grant>> {
    let sql = "SELECT CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, \
                      a.privilege_type::text, a.is_grantable \
               FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) a \
               WHERE d.datname = current_database() ORDER BY 1 NULLS FIRST, 2";
    let rows = session.rows("read the database's grants", sql, &[]).await?;
    rows.iter()
        .map(|row| Ok(Grant { grantee: get(row, 0)?, privilege: get(row, 1)?, grantable: get(row, 2)? }))
        .collect()
}

/// Installed extensions.
pub(super) async fn extensions(session: &Session) -> Result<Vec<Extension>> {
    let sql = "SELECT extname::text, extversion FROM pg_extension ORDER BY 1";
    let rows = session.rows("list the extensions", sql, &[]).await?;
    rows.iter().map(|row| Ok(Extension { name: get(row, 0)?, version: get(row, 1)? })).collect()
}

/// Tables that no extension owns, with PostgreSQL's own estimate of their rows; and how many of
/// them are unlogged.
pub(super) async fn tables(session: &Session) -> Result<(Vec<Table>, usize)> {
    let sql = "SELECT n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::int8, \
                      c.relpersistence = 'u' \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' \
                 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
                 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass \
                                 AND d.objid = c.oid AND d.deptype = 'e') \
               ORDER BY n.nspname::text COLLATE \"C\", c.relname::text COLLATE \"C\"";
    let rows = session.rows("list the tables", sql, &[]).await?;
    let mut unlogged = 0;
    let mut tables = Vec::with_capacity(rows.len());
    for row in &rows {
        unlogged += usize::from(get::<bool>(row, 4)?);
        tables.push(Table {
            schema: get(row, 0)?,
            name: get(row, 1)?,
            kind: get(row, 2)?,
            dumped: false,
            estimated_rows: get(row, 3)?,
            has_rows: None,
            exact_rows: None,
        });
    }
    Ok((tables, unlogged))
}

/// Sequences with their last values. Sequences are not part of a snapshot: they may have moved on
/// when they are dumped.
pub(super) async fn sequences(session: &Session) -> Result<Vec<Sequence>> {
    let sql = "SELECT schemaname::text, sequencename::text, last_value, increment_by, cycle \
               FROM pg_sequences WHERE schemaname !~ '^pg_' ORDER BY 1, 2";
    let rows = session.rows("list the sequences", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Sequence {
                schema: get(row, 0)?,
                name: get(row, 1)?,
                last_value: get(row, 2)?,
                increment: get(row, 3)?,
                cycles: get(row, 4)?,
            })
        })
        .collect()
}

/// How many large objects there are.
pub(super) async fn large_objects(session: &Session) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_largeobject_metadata";
    let row = session.row("count the large objects", sql, &[]).await?;
    get(&row, 0)
}

/// Counts the rows of one table (not of those that inherit from it).
pub(super) async fn count(session: &Session, schema: &str, name: &str) -> Result<i64> {
    let name = super::quote::qualified(schema, name);
    let row =
        session.row(&format!("count the rows of {name}"), &format!("SELECT count(*) FROM ONLY {name}"), &[]).await?;
    get(&row, 0)
}

/// Tables that are asked for in one statement.
const ASKED_AT_ONCE: usize = 100;

/// Which of these tables (schema and name) have a row, in their order. It reads each no further than its first row.
pub(super) async fn with_rows(session: &Session, tables: &[(String, String)]) -> Result<Vec<bool>> {
    let mut all = Vec::with_capacity(tables.len());
    for some in tables.chunks(ASKED_AT_ONCE) {
        let one = |(number, (schema, name)): (usize, &(String, String))| {
            format!("({number}, EXISTS (SELECT FROM ONLY {}))", super::quote::qualified(schema, name))
        };
        let asked: Vec<String> = some.iter().enumerate().map(one).collect();
        let sql = format!("SELECT answer.there FROM (VALUES {}) answer (n, there) ORDER BY answer.n", asked.join(", "));
        for row in &session.rows("look which tables have rows", &sql, &[]).await? {
            all.push(get(row, 0)?);
        }
    }
    Ok(all)
}

/// A column, with the error of this program.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column)
        .map_err(|error| Fault::new(codes::PG_QUERY, format!("read column {} of an answer", column + 1)).because(error))
}

fn time(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|error| Fault::new(codes::PG_QUERY, "read the server's time").because(error))
}
