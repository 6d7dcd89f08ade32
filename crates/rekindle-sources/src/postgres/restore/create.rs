//! `CREATE DATABASE` and what belongs to a database beside its content.

use rekindle_core::{Fault, Result, codes};

use super::Job;
use super::target::Plan;
use crate::postgres::catalog::{self, get};
use crate::postgres::connect::Session;
use crate::postgres::details::{Grant, Properties, ServerRecord, Setting};
use crate::postgres::quote::{ident, literal};

/// The backup role may be guarded by `default_transaction_read_only`; a restore has to write, and
/// its statements take the time they take.
pub(super) const WRITABLE: &str = "SET default_transaction_read_only = off; SET statement_timeout = 0";

/// Settings whose value is a list of names (`GUC_LIST_QUOTE` in PostgreSQL's sources).
const LIST_SETTINGS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Whether our role may create databases at all.
pub(super) async fn may_create(admin: &Session) -> Result<()> {
    let sql = "SELECT rolsuper OR rolcreatedb, rolname::text FROM pg_roles \
               WHERE rolname = current_user";
    let row = admin.row("look at the role's privileges", sql, &[]).await?;
    if get(&row, 0)? {
        return Ok(());
    }
    let role: String = get(&row, 1)?;
    Err(Fault::new(codes::PG_PRIVILEGE, format!("create a database as `{role}`"))
        .because("the role may not create databases")
        .hint(format!(
            "restore as a superuser (`--server postgres://postgres@…`), or run: ALTER ROLE {} \
                 CREATEDB",
            ident(&role)
        )))
}

/// Makes the empty database, from `template0`, as the old one was made.
pub(super) async fn create(job: &mut Job<'_>, plan: &Plan<'_>) -> Result<()> {
    let sql = "SELECT spcname::text FROM pg_tablespace";
    let tablespaces = catalog::names(&job.admin, "list the tablespaces", sql).await?;
    let properties = &plan.record.properties;
    let mut wanted = vec![&properties.tablespace];
    wanted.extend(&plan.record.tablespaces);
    if let Some(lacking) = wanted.into_iter().find(|name| !tablespaces.contains(name)) {
        job.warn(format!(
            "there is no tablespace `{lacking}`: everything of `{}` goes into the default one",
            plan.build_as
        ));
    }
    let tablespace = Some(properties.tablespace.as_str())
        .filter(|name| *name != "pg_default" && tablespaces.iter().any(|t| t == name));
    let sql = statement(&plan.build_as, properties, job.facts.major(), tablespace);
    job.admin.command(&format!("create the database `{}`", plan.build_as), &sql).await.map_err(|fault| {
        if fault.is(codes::PG_QUERY) {
            fault.hint(format!(
                "the server must know the locale `{}` (`locale -a`; `pg_collation` for ICU)",
                properties.collate
            ))
        } else {
            fault
        }
    })
}

pub(in crate::postgres) fn statement(
    name: &str,
    properties: &Properties,
    major: u32,
    tablespace: Option<&str>,
) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} WITH TEMPLATE = template0 OWNER = {} ENCODING = {} LC_COLLATE = {} \
         LC_CTYPE = {}",
        ident(name),
        ident(&properties.owner),
        literal(&properties.encoding),
        literal(&properties.collate),
        literal(&properties.ctype)
    );
    let mut add = |clause: &str, value: &str| {
        sql.push_str(clause);
        sql.push_str(value);
    };
    if major >= 15 {
        add(" LOCALE_PROVIDER = ", &properties.provider);
        let locale = properties.locale.as_deref().unwrap_or_default();
        match properties.provider.as_str() {
            "icu" => add(" ICU_LOCALE = ", &literal(locale)),
            "builtin" => add(" BUILTIN_LOCALE = ", &literal(locale)),
            _ => {}
        }
        if let Some(rules) = &properties.icu_rules {
            add(" ICU_RULES = ", &literal(rules));
        }
    }
    if let Some(tablespace) = tablespace {
        add(" TABLESPACE = ", &ident(tablespace));
    }
    sql
}

/// Gives the planner its statistics, which a dump does not hold.
pub(super) async fn analyze(job: &mut Job<'_>, plan: &Plan<'_>) -> Result<()> {
    let session = job.server.connect(&plan.build_as).await?;
    session.run(WRITABLE).await?;
    let canceller = session.canceller();
    let analyzing = session.command("gather statistics", "ANALYZE");
    tokio::pin!(analyzing);
    loop {
        tokio::select! {
            result = &mut analyzing => return result,
            () = tokio::time::sleep(super::swap::POLL) => {}
        }
        if let Err(fault) = job.context.cancel.check() {
            canceller.cancel().await;
            return Err(fault);
        }
    }
}

/// Settings, grants, comment and limits of the database. What cannot be set is a warning: the
/// data is there.
pub(super) async fn properties(job: &mut Job<'_>, plan: &Plan<'_>) -> Result<()> {
    let name = ident(&plan.build_as);
    let properties = &plan.record.properties;
    let mut commands: Vec<String> = properties.settings.iter().map(|setting| setting_sql(&name, setting)).collect();
    if let Some(grants) = &properties.grants {
        let owner = ident(&properties.owner);
        commands.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC, {owner}"));
        commands.extend(grants.iter().map(|grant| grant_sql(&name, grant)));
    }
    if let Some(comment) = &properties.comment {
        commands.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
    }
    if properties.connection_limit != -1 {
        let limit = properties.connection_limit;
        commands.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
    }
    if properties.is_template {
        commands.push(format!("ALTER DATABASE {name} IS_TEMPLATE true"));
    }
    for sql in commands {
        job.context.cancel.check()?;
        if let Err(error) = job.admin.try_command(&sql).await {
            let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            job.warn(format!("could not run `{sql}`: {why}"));
        }
    }
    Ok(())
}

fn setting_sql(database: &str, setting: &Setting) -> String {
    let subject = match &setting.role {
        Some(role) => format!("ROLE {} IN DATABASE {database}", ident(role)),
        None => format!("DATABASE {database}"),
    };
    let value = if LIST_SETTINGS.contains(&setting.name.to_ascii_lowercase().as_str()) {
        let names: Vec<String> = list(&setting.value).iter().map(|n| literal(n)).collect();
        if names.is_empty() { "''".to_owned() } else { names.join(", ") }
    } else {
        literal(&setting.value)
    };
    // Names of extensions' settings have a dot between two identifiers.
    let name: Vec<String> = setting.name.split('.').map(ident).collect();
    format!("ALTER {subject} SET {} TO {value}", name.join("."))
}

/// The names of a list such as `"$user", public`.
fn list(value: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    let mut seen = false;
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                current.push('"');
            }
            '"' => {
                quoted = !quoted;
                seen = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut current));
                seen = false;
            }
            c if c.is_whitespace() && !quoted => {}
            c => {
                current.push(c);
                seen = true;
            }
        }
    }
    if seen {
        names.push(current);
    }
    names
}

fn grant_sql(database: &str, grant: &Grant) -> String {
    // The privilege is one of PostgreSQL's words, but it comes from a file.
    let privilege: String = grant.privilege.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').collect();
    let grantee = grant.grantee.as_deref().map_or("PUBLIC".to_owned(), ident);
    let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
    format!("GRANT {privilege} ON DATABASE {database} TO {grantee}{option}")
}

/// Removes a database with whoever is in it.
pub(super) async fn drop_database(admin: &Session, facts: &ServerRecord, name: &str) -> Result<()> {
    let force = if facts.major() >= 13 { " WITH (FORCE)" } else { "" };
    let sql = format!("DROP DATABASE IF EXISTS {}{force}", ident(name));
    admin.command(&format!("drop the database `{name}`"), &sql).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, role: Option<&str>) -> String {
        let setting = Setting { role: role.map(str::to_owned), name: name.to_owned(), value: value.to_owned() };
        setting_sql("\"app\"", &setting)
    }

    #[test]
    fn settings_are_made_again_as_they_were() {
        assert_eq!(
            setting("search_path", r#""$user", "odd, ""one""", public"#, None),
            r#"ALTER DATABASE "app" SET "search_path" TO '$user', 'odd, "one"', 'public'"#
        );
        assert_eq!(
            setting("app.flag", "it's, on", Some("bob")),
            r#"ALTER ROLE "bob" IN DATABASE "app" SET "app"."flag" TO 'it''s, on'"#
        );
        assert_eq!(list(r#""""#), [""]);
        assert!(list("").is_empty());
    }

    #[test]
    fn the_locale_provider_is_named_where_it_exists() {
        let properties = Properties {
            owner: "o".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            provider: "icu".into(),
            locale: Some("de".into()),
            icu_rules: None,
            collation_version: None,
            tablespace: "pg_default".into(),
            connection_limit: -1,
            is_template: false,
            comment: None,
            settings: vec![],
            grants: None,
        };
        assert!(statement("n", &properties, 15, None).ends_with("LOCALE_PROVIDER = icu ICU_LOCALE = 'de'"));
        assert!(statement("n", &properties, 14, None).ends_with("LC_CTYPE = 'C'"));
    }
}
