//! Roles and their memberships: taking them with `pg_dumpall`, and reading what it wrote.

use std::ffi::OsString;

use rekindle_core::{Fault, Result, codes};

use super::access::Access;
use super::details::GlobalsRecord;
use super::options::PostgresOptions;
use super::programs::Programs;
use crate::child::{Ended, Stop, output};

/// Roles of a server take some hundred bytes each.
const GLOBALS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The SQL of the roles, and whether their password hashes are in it. Blocking.
pub(super) fn capture(
    options: &PostgresOptions,
    programs: &Programs,
    access: &Access,
    stop: &Stop,
) -> Result<(Vec<u8>, GlobalsRecord)> {
    let with = dump(options, programs, access, stop.clone(), &[]);
    match with {
        Ok(sql) => Ok((sql, GlobalsRecord::WithPasswords)),
        // Hashes are in `pg_authid`, which only superusers and members of `pg_read_all_data` read.
        Err(fault) if fault.is(codes::PG_PRIVILEGE) => {
            let without = ["--no-role-passwords"];
            let sql = dump(options, programs, access, stop.clone(), &without)?;
            Ok((sql, GlobalsRecord::WithoutPasswords))
        }
        Err(fault) => Err(fault),
    }
}

fn dump(options: &PostgresOptions, programs: &Programs, access: &Access, stop: Stop, more: &[&str]) -> Result<Vec<u8>> {
    let mut args: Vec<OsString> = vec!["--globals-only".into(), "--no-password".into()];
    let database = &options.url.database;
    // `--database` would take such a name for a connection string.
    if !database.contains('=') && !database.contains("://") {
        args.push(format!("--database={database}").into());
    }
    args.extend(more.iter().map(OsString::from));
    let what = "dump the roles".to_owned();
    let spec = access.child(programs, "pg_dumpall", args, options.idle_timeout, what, codes::PG_DUMP);
    let role = options.url.user.clone();
    let judge = Box::new(move |ended: &Ended| super::dump::judge(ended, "dump the roles", &role));
    let sql = output(spec, stop, GLOBALS_BYTES_MAX, judge)?;
    let text = String::from_utf8_lossy(&sql);
    if !text.contains("CREATE ROLE ") {
        return Err(Fault::new(codes::PG_EMPTY, "check the dump of the roles")
            .because("there is not one role in it")
            .hint("see that `pg_dumpall` is the real one (`bin-dir`), then run again"));
    }
    Ok(sql)
}

/// A statement about a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoleStatement {
    pub(super) kind: RoleKind,
    /// The roles it changes or names: it is only run when one of them is new.
    pub(super) roles: Vec<String>,
    pub(super) sql: String,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoleKind {
    Create,
    /// Attributes, settings, comments, labels, grants on parameters.
    Alter,
    Membership,
}

impl RoleStatement {
    /// For errors: never the whole text, which may hold a password hash.
    pub(super) fn describe(&self) -> String {
        let roles = self.roles.join("` and `");
        match self.kind {
            RoleKind::Create => format!("create the role `{roles}`"),
            RoleKind::Alter => format!("set attributes of the role `{roles}`"),
            RoleKind::Membership => format!("grant a membership between `{roles}`"),
        }
    }
}

/// The statements about roles in the output of `pg_dumpall --globals-only`. Tablespaces and
/// settings per database are left out: the first are places on another machine, the second are
/// restored with their database.
pub(super) fn statements(sql: &str) -> Vec<RoleStatement> {
    split(sql).iter().filter_map(|text| classify(text)).collect()
}

/// Cuts SQL at its semicolons, outside of quotes; comments and psql's own commands are dropped.
fn split(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut quote: Option<char> = None;
    let mut line_start = true;
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        let at_line_start = std::mem::replace(&mut line_start, c == '\n');
        match quote {
            Some(open) => {
                current.push(c);
                if c == open {
                    quote = None;
                }
            }
            None if c == '\\' && at_line_start && current.trim().is_empty()
                || c == '-' && chars.peek() == Some(&'-') =>
            {
                while chars.next_if(|next| *next != '\n').is_some() {}
            }
            None if c == ';' => {
                let statement = std::mem::take(&mut current).trim().to_owned();
                if !statement.is_empty() {
                    statements.push(statement);
                }
            }
            None => {
                if c == '"' || c == '\'' {
                    quote = Some(c);
                }
                current.push(c);
            }
        }
    }
    statements
}

fn classify(sql: &str) -> Option<RoleStatement> {
    let statement = |kind, roles| Some(RoleStatement { kind, roles, sql: sql.to_owned() });
    if let Some(rest) = sql.strip_prefix("CREATE ROLE ") {
        return statement(RoleKind::Create, vec![identifier(rest)?.0]);
    }
    if let Some(rest) = sql.strip_prefix("ALTER ROLE ") {
        let (role, rest) = identifier(rest)?;
        if rest.trim_start().starts_with("IN DATABASE ") {
            return None;
        }
        return statement(RoleKind::Alter, vec![role]);
    }
    if let Some(rest) = sql.strip_prefix("COMMENT ON ROLE ") {
        return statement(RoleKind::Alter, vec![identifier(rest)?.0]);
    }
    if sql.starts_with("SECURITY LABEL ") {
        let (_, rest) = sql.split_once(" ON ROLE ")?;
        return statement(RoleKind::Alter, vec![identifier(rest)?.0]);
    }
    if let Some(rest) = sql.strip_prefix("GRANT ") {
        if let Some((_, rest)) = rest.split_once(" ON PARAMETER ") {
            let (_, rest) = rest.split_once(" TO ")?;
            return statement(RoleKind::Alter, vec![identifier(rest)?.0]);
        }
        let (group, rest) = identifier(rest)?;
        let rest = rest.trim_start().strip_prefix("TO ")?;
        return statement(RoleKind::Membership, vec![group, identifier(rest)?.0]);
    }
    None
}

/// The identifier a text starts with, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"--
-- PostgreSQL database cluster dump; with a semicolon
--

\restrict abc;def

SET default_transaction_read_only = off;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:a;b''c';
CREATE ROLE "odd; ""name""";
ALTER ROLE app SET search_path TO 'a; b', 'public';
ALTER ROLE app IN DATABASE "x" SET work_mem TO '8MB';
COMMENT ON ROLE app IS 'it''s -- not a comment';
GRANT app TO "odd; ""name""" WITH ADMIN OPTION GRANTED BY postgres;
GRANT SET ON PARAMETER work_mem TO app;
CREATE TABLESPACE fast OWNER app LOCATION '/fast';
GRANT ALL ON TABLESPACE fast TO app;

\unrestrict abc
"#;

    #[test]
    fn role_statements_are_found_and_others_are_not() {
        let found = statements(SAMPLE);
        let seen: Vec<(RoleKind, Vec<&str>)> =
            found.iter().map(|s| (s.kind, s.roles.iter().map(String::as_str).collect())).collect();
        let odd = "odd; \"name\"";
        assert_eq!(
            seen,
            [
                (RoleKind::Create, vec!["app"]),
                (RoleKind::Alter, vec!["app"]),
                (RoleKind::Create, vec![odd]),
                (RoleKind::Alter, vec!["app"]),
                (RoleKind::Alter, vec!["app"]),
                (RoleKind::Membership, vec!["app", odd]),
                (RoleKind::Alter, vec!["app"]),
            ]
        );
        assert!(found[1].sql.ends_with("a;b''c'"), "{}", found[1].sql);
        assert!(!found[1].describe().contains("SCRAM"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[A-Z a-z\"';\\\\\n-]{0,200}") {
            let _ = statements(&text);
        }
    }
}
