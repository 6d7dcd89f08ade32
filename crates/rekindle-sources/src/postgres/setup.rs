//! Looks at a server from which base backups and the log are taken: the role's rights, the
//! settings, the slots; and says in SQL what to change.

use std::collections::BTreeMap;

use rekindle_core::port::Finding;
use rekindle_core::wal::WalMode;
use rekindle_core::{Cancel, Result, codes};

use super::catalog::get;
use super::connect::{Server, Session};
use super::options::PostgresOptions;
use super::quote::{ident, literal};
use super::replication::{Replication, ReplicationOptions};

/// A slot that nobody reads and that keeps more than this is told of.
const KEPT_WARN_BYTES: i64 = 1 << 30;
/// Left before the server gives a slot up (`safe_wal_size`): two segments of the usual size.
const SAFE_WARN_BYTES: i64 = 32 << 20;

/// Connects as backups do, and looks.
pub async fn look_at_log(options: &PostgresOptions, wal: WalMode, slot: &str) -> Result<Vec<Finding>> {
    let role = options.url.user.clone();
    let server = Server {
        url: options.url.clone(),
        password: options.password.clone(),
        connect_timeout: options.connect_timeout,
    };
    let mut findings = vec![login(options).await?];
    let session = match server.connect(&options.url.database).await {
        Ok(session) => session,
        Err(fault) if fault.is(codes::PG_AUTH) || fault.is(codes::PG_NO_DATABASE) => {
            findings.push(Finding::warning(
                format!("`{role}` may not log in to the database `{}`: {}", options.url.database, fault.chain()),
                "base backups work without; `restore-points create`, the heartbeat and this look at the settings do \
                 not: name a database in `url`, and allow the role in pg_hba.conf",
            ));
            return Ok(findings);
        }
        Err(fault) => return Err(fault),
    };
    let settings = settings(&session).await?;
    findings.extend(judge(&settings, wal));
    findings.extend(rights(&session, &role).await?);
    findings.extend(senders(&session, &settings).await?);
    findings.extend(slots(&session, slot, wal).await?);
    Ok(findings)
}

/// The SQL and the line of `pg_hba.conf` that make a role of the least rights.
pub(super) fn role_sql(role: &str, major: u32) -> String {
    let name = ident(role);
    let mut lines = vec![
        format!("CREATE ROLE {name} LOGIN REPLICATION CONNECTION LIMIT 8; \\password {role}"),
        format!("GRANT pg_read_all_settings TO {name};"),
        format!("GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal() TO {name};"),
    ];
    if major >= 15 {
        lines.push(format!("GRANT pg_checkpoint TO {name};"));
    }
    lines.join(" ")
}

/// The word `all` of `pg_hba.conf` does not mean replication.
pub(super) fn hba_line(role: &str) -> String {
    format!("hostssl replication {} ADDRESS scram-sha-256", ident(role))
}

async fn login(options: &PostgresOptions) -> Result<Finding> {
    let wanted = ReplicationOptions::new(options.url.clone(), options.password.clone());
    let role = options.url.user.clone();
    super::blocking(move || {
        Ok(match Replication::connect(&wanted, &Cancel::new()) {
            Ok(connection) => {
                connection.close();
                Finding::good(format!("`{role}` may open replication connections"))
            }
            Err(fault) => Finding::bad(
                format!("`{role}` cannot open a replication connection: {}", fault.chain()),
                format!(
                    "as superuser: {} In pg_hba.conf: `{}`; then SELECT pg_reload_conf();",
                    role_sql(&role, 15),
                    hba_line(&role)
                ),
            ),
        })
    })
    .await
}

type Settings = BTreeMap<String, String>;

async fn settings(session: &Session) -> Result<Settings> {
    let names = "SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'max_wal_senders', \
         'max_replication_slots', 'full_page_writes', 'archive_mode', 'archive_command', 'archive_library', \
         'max_slot_wal_keep_size', 'summarize_wal', 'data_checksums', 'idle_replication_slot_timeout', \
         'server_version_num', 'fsync')";
    let rows = session.rows("look at the settings", names, &[]).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

/// What is found wrong with the settings.
struct Judge<'a> {
    settings: &'a Settings,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn of(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> i64 {
        self.of(name).parse().unwrap_or(0)
    }

    fn bad(&mut self, wrong: bool, text: impl Into<String>, remedy: impl Into<String>) {
        if wrong {
            self.findings.push(Finding::bad(text, remedy));
        }
    }

    fn warn(&mut self, wrong: bool, text: impl Into<String>, remedy: impl Into<String>) {
        if wrong {
            self.findings.push(Finding::warning(text, remedy));
        }
    }

    /// For base backups.
    fn server(&mut self) {
        let minimal = self.of("wal_level") == "minimal";
        self.bad(minimal, "wal_level = minimal: no base backups, no log", restart("wal_level", "replica"));
        let senders = self.number("max_wal_senders");
        let text = format!("max_wal_senders = {senders}: a base backup takes two, the log one");
        self.bad(senders < 3, text, restart("max_wal_senders", "10"));
        let off = self.of("full_page_writes") == "off";
        let text = "full_page_writes = off: base backups of a running server may hold torn pages";
        self.bad(off, text, reload("full_page_writes", "on"));
        let off = self.of("fsync") == "off";
        self.bad(off, "fsync = off: a crash loses the cluster", reload("fsync", "on"));
        let off = self.of("data_checksums") == "off";
        let text = "data_checksums = off: damaged pages are saved without anybody noticing";
        self.warn(off, text, "stop the server once and run pg_checksums --enable -D DIR");
        let off = self.number("server_version_num") >= 170_000 && self.of("summarize_wal") == "off";
        let text = "summarize_wal = off: every base backup reads the whole cluster";
        self.warn(off, text, reload("summarize_wal", "on"));
        let command = self.of("archive_command");
        let both = !command.is_empty() && command != "(disabled)" && !self.of("archive_library").is_empty();
        let text =
            "archive_command and archive_library are both set: the archiver of PostgreSQL 16 and newer refuses to run";
        self.bad(both, text, "ALTER SYSTEM RESET archive_library; SELECT pg_reload_conf();");
    }

    /// For a replication slot.
    fn stream(&mut self) {
        let endless = self.number("max_slot_wal_keep_size") < 0;
        let text = "max_slot_wal_keep_size = -1: when the receiver is away for long, WAL fills the server's disk and \
                    stops it";
        let remedy = format!("{} (about half of what is free)", reload("max_slot_wal_keep_size", "'20GB'"));
        self.warn(endless, text, remedy);
        let none = self.number("max_replication_slots") < 1;
        let text = "max_replication_slots = 0: there is no slot to be had";
        self.bad(none, text, restart("max_replication_slots", "10"));
        let limited = self.number("idle_replication_slot_timeout") > 0;
        let text = "idle_replication_slot_timeout is set: a receiver that is away for longer loses its slot, and a \
                    gap is left in the log";
        self.warn(limited, text, reload("idle_replication_slot_timeout", "0"));
    }

    /// For `archive_command`.
    fn archive(&mut self) {
        let off = self.of("archive_mode") == "off";
        let text = "archive_mode = off: the server does not give its log away";
        self.bad(off, text, restart("archive_mode", "on"));
        let other = !off && !self.of("archive_command").contains("wal push");
        let text =
            format!("archive_command is {}, which is not `rekindle wal push`", literal(self.of("archive_command")));
        let command = "'rekindle --config /etc/rekindle/rekindle.toml wal push %p'";
        self.bad(other, text, reload("archive_command", command));
    }
}

fn restart(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = {value}; then restart the server")
}

fn reload(name: &str, value: &str) -> String {
    format!("ALTER SYSTEM SET {name} = {value}; SELECT pg_reload_conf();")
}

/// What the settings mean for base backups and the log.
fn judge(settings: &Settings, wal: WalMode) -> Vec<Finding> {
    let mut judge = Judge { settings, findings: Vec::new() };
    judge.server();
    if wal.uses_slot() {
        judge.stream();
    }
    if matches!(wal, WalMode::Archive | WalMode::Both) {
        judge.archive();
    }
    if judge.findings.is_empty() {
        let text = "the server's settings allow base backups and what is said of its log";
        judge.findings.push(Finding::good(text));
    }
    judge.findings
}

async fn rights(session: &Session, role: &str) -> Result<Vec<Finding>> {
    let sql = "SELECT r.rolsuper, r.rolreplication, r.rolconnlimit, \
        has_function_privilege('pg_create_restore_point(text)', 'EXECUTE') FROM pg_roles r \
        WHERE r.rolname = current_user";
    let row = session.row("look at the role's rights", sql, &[]).await?;
    let (superuser, replication): (bool, bool) = (get(&row, 0)?, get(&row, 1)?);
    let (limit, names): (i32, bool) = (get(&row, 2)?, get(&row, 3)?);
    let mut findings = Vec::new();
    let name = ident(role);
    if superuser {
        findings.push(Finding::warning(
            format!("`{role}` is a superuser: whoever gets its password has everything"),
            format!("a role of its own is enough: {}", role_sql("rekindle_backup", 15)),
        ));
    } else if !replication {
        findings.push(Finding::bad(
            format!("`{role}` lacks the right REPLICATION"),
            format!("as superuser: ALTER ROLE {name} REPLICATION;"),
        ));
    }
    if (0..3).contains(&limit) {
        findings.push(Finding::bad(
            format!("`{role}` may have {limit} connections; a base backup with its log takes three"),
            format!("as superuser: ALTER ROLE {name} CONNECTION LIMIT 8;"),
        ));
    }
    if !names {
        findings.push(Finding::warning(
            format!("`{role}` may not create restore points"),
            format!("as superuser: {}", super::privilege::restore_points(role)),
        ));
    }
    Ok(findings)
}

async fn senders(session: &Session, settings: &Settings) -> Result<Option<Finding>> {
    let row = session.row("count the WAL senders", "SELECT count(*) FROM pg_stat_replication", &[]).await?;
    let used: i64 = get(&row, 0)?;
    let most = settings.get("max_wal_senders").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    Ok((most >= 3 && most - used < 2).then(|| {
        Finding::warning(
            format!("{used} of {most} WAL senders are in use; a base backup takes two"),
            "ALTER SYSTEM SET max_wal_senders = 20; then restart the server",
        )
    }))
}

/// Slots keep WAL on the server's disk, for a receiver or for nobody.
async fn slots(session: &Session, own: &str, wal: WalMode) -> Result<Vec<Finding>> {
    let sql = "SELECT slot_name::text, active, coalesce(wal_status, ''), safe_wal_size::int8, \
        coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
            ELSE pg_current_wal_lsn() END, restart_lsn), 0)::int8 FROM pg_replication_slots";
    let rows = session.rows("look at the replication slots", sql, &[]).await?;
    let (mut findings, mut seen) = (Vec::new(), false);
    for row in &rows {
        let (name, active): (String, bool) = (get(row, 0)?, get(row, 1)?);
        let (status, safe, kept): (String, Option<i64>, i64) = (get(row, 2)?, get(row, 3)?, get(row, 4)?);
        let ours = name == own;
        seen |= ours;
        let mebibytes = kept >> 20;
        if status == "lost" {
            findings.push(Finding::bad(
                format!("the slot `{name}` is lost: WAL that it stood for was removed"),
                if ours {
                    "rekindle wal stream records the gap and takes a new slot; then take a base backup".to_owned()
                } else {
                    format!("SELECT pg_drop_replication_slot({});", literal(&name))
                },
            ));
        } else if !active && kept > KEPT_WARN_BYTES {
            findings.push(Finding::warning(
                format!("nobody reads the slot `{name}`, and it keeps {mebibytes} MiB of WAL"),
                if ours {
                    "start `rekindle wal stream`".to_owned()
                } else {
                    format!("if nobody needs it: SELECT pg_drop_replication_slot({});", literal(&name))
                },
            ));
        } else if status == "unreserved" || safe.is_some_and(|safe| safe < SAFE_WARN_BYTES) {
            findings.push(Finding::bad(
                format!("the slot `{name}` is about to be lost: {mebibytes} MiB behind"),
                "start its reader, or raise max_slot_wal_keep_size at once",
            ));
        }
    }
    if wal.uses_slot() && !seen {
        findings.push(Finding::warning(
            format!("there is no slot `{own}` yet"),
            "`rekindle wal stream` makes it, before the first base backup",
        ));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_core::port::Level;

    fn good() -> Settings {
        let pairs = [
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            ("full_page_writes", "on"),
            ("fsync", "on"),
            ("data_checksums", "on"),
            ("archive_mode", "on"),
            ("archive_command", "rekindle wal push %p"),
            ("archive_library", ""),
            ("max_slot_wal_keep_size", "20480"),
            ("summarize_wal", "on"),
            ("server_version_num", "170011"),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn each_wrong_setting_is_told_with_its_remedy() {
        assert_eq!(judge(&good(), WalMode::Both)[0].level, Level::Good);
        for (name, value) in [
            ("wal_level", "minimal"),
            ("max_wal_senders", "2"),
            ("max_replication_slots", "0"),
            ("full_page_writes", "off"),
            ("fsync", "off"),
            ("data_checksums", "off"),
            ("archive_mode", "off"),
            ("archive_command", "cp %p /x"),
            ("archive_library", "basic_archive"),
            ("max_slot_wal_keep_size", "-1"),
            ("summarize_wal", "off"),
            ("idle_replication_slot_timeout", "60"),
        ] {
            let mut settings = good();
            settings.insert(name.to_owned(), value.to_owned());
            let findings = judge(&settings, WalMode::Both);
            assert_eq!(findings.len(), 1, "{name}: {findings:?}");
            assert!(findings[0].level > Level::Good && findings[0].remedy.is_some(), "{findings:?}");
        }
    }
}
