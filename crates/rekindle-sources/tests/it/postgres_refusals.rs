//! No false success: every way in which a capture can go wrong ends in an error that names it.

use std::time::Duration;

use rekindle_core::codes;
use rekindle_core::port::{Component, Level};
use rekindle_core::{ErrorCode, Fault};
use rekindle_sources::postgres::PostgresOptions;
use rekindle_testkit::Postgres;

use crate::postgres_support::{block_on, capture, component, options, pull, run, server, shim};

const CANARY: &str = "canary-secret-4711";

fn filled(major: u32) -> Postgres {
    let source = server(major);
    source.psql("postgres", "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n");
    source
}

/// The error of a capture whose `pg_dump` is a script.
fn shimmed(source: &Postgres, script: &str) -> Fault {
    let (_folder, path) = shim(source, script);
    let options = PostgresOptions { bin_dir: Some(path), ..options(source, "postgres") };
    capture(&component(options)).err().unwrap()
}

fn assert_code(fault: &Fault, code: &'static ErrorCode) {
    assert!(fault.is(code), "{} instead of {}: {fault:?}", fault.code().id, code.id);
}

#[test]
fn a_dump_that_ends_badly_is_no_dump() {
    let source = filled(15);
    let late = shimmed(&source, "\"$REAL\" \"$@\"; echo 'late failure' >&2; exit 1");
    assert_code(&late, codes::PG_DUMP);
    assert!(late.chain().contains("late failure"), "{late:?}");
    let killed = shimmed(&source, "\"$REAL\" \"$@\" | head -c 300000; kill -9 $$");
    assert_code(&killed, codes::PG_DUMP);
    assert!(killed.chain().contains("signal: 9"), "{killed:?}");
    let half = shimmed(&source, "\"$REAL\" \"$@\" 2>/dev/null | head -c 300000; exit 0");
    assert_code(&half, codes::PG_TRUNCATED);
    let empty = shimmed(&source, "exit 0");
    assert_code(&empty, codes::PG_EMPTY);
    let text = shimmed(&source, "echo '-- PostgreSQL database dump'; exit 0");
    assert_code(&text, codes::PG_DUMP);
    let without = shimmed(&source, "\"$REAL\" \"$@\" --exclude-table=t");
    assert_code(&without, codes::PG_EMPTY);
    assert!(without.chain().contains("public.t"), "{without:?}");
    let other = shimmed(&source, "\"$REAL\" --format=custom --compress=0 --dbname=template1");
    assert_code(&other, codes::PG_DUMP);
    assert!(other.chain().contains("template1"), "{other:?}");
}

#[test]
fn a_silent_dump_is_ended() {
    let source = filled(15);
    let (_folder, path) = shim(&source, "sleep 1000");
    let idle = PostgresOptions {
        bin_dir: Some(path),
        idle_timeout: Duration::from_secs(2),
        globals: false,
        ..options(&source, "postgres")
    };
    let fault = capture(&component(idle)).err().unwrap();
    assert!(fault.chain().contains("idle limit"), "{fault:?}");
}

#[test]
fn a_server_that_dies_during_the_dump_is_noticed() {
    let mut source = filled(15);
    let run = run();
    // The dump waits in the middle until the server is gone.
    let marker = run.scratch.path().join("go");
    let script = format!(
        "\"$REAL\" \"$@\" | {{ head -c 100000; while [ ! -e {} ]; do sleep 0.05; done; cat; }}",
        marker.display()
    );
    let (_folder, path) = shim(&source, &script);
    let component = component(PostgresOptions { bin_dir: Some(path), ..options(&source, "postgres") });
    let fault = block_on(async {
        let mut capture = component.begin(&run.context).await.unwrap();
        let entries = capture.entries();
        let pulled = tokio::task::spawn_blocking(move || {
            let pulled = pull(entries, |name| {
                if !name.starts_with("databases/") || marker.exists() {
                    return;
                }
                source.kill9();
                source.restart();
                std::fs::write(&marker, "").unwrap();
            });
            (pulled, source)
        });
        match pulled.await.unwrap() {
            (Err(fault), _source) => {
                capture.abort().await;
                fault
            }
            (Ok(_), _source) => capture.finish().await.err().unwrap(),
        }
    });
    assert!([codes::PG_RESTARTED, codes::PG_TRUNCATED, codes::PG_DUMP].iter().any(|code| fault.is(code)), "{fault:?}");
}

#[test]
fn a_restart_between_dump_and_end_is_noticed() {
    let mut source = filled(15);
    let run = run();
    let component = component(options(&source, "postgres"));
    let fault = block_on(async {
        let mut capture = component.begin(&run.context).await.unwrap();
        let entries = capture.entries();
        tokio::task::spawn_blocking(move || pull(entries, |_| ())).await.unwrap().unwrap();
        source.restart();
        capture.finish().await.err().unwrap()
    });
    assert_code(&fault, codes::PG_RESTARTED);
}

#[test]
fn a_wrong_password_is_told_without_it() {
    let source = server(15);
    let mut wrong = options(&source, "postgres");
    wrong.password = Some(rekindle_core::Secret::new(CANARY.to_owned()));
    let fault = capture(&component(wrong.clone())).err().unwrap();
    assert_code(&fault, codes::PG_AUTH);
    assert!(!format!("{fault:?} {wrong:?}").contains(CANARY));
    let mut none = wrong;
    none.password = None;
    assert_code(&capture(&component(none)).err().unwrap(), codes::PG_AUTH);
}

#[test]
fn no_server_is_told_as_such() {
    let mut source = server(15);
    let options = options(&source, "postgres");
    source.stop();
    assert_code(&capture(&component(options)).err().unwrap(), codes::PG_CONNECT);
}

#[test]
fn the_password_is_seen_nowhere() {
    let source = filled(15);
    source.psql("postgres", &format!("CREATE ROLE backup LOGIN SUPERUSER PASSWORD '{CANARY}'"));
    let script = "{ cat /proc/*/cmdline 2>/dev/null; env; } > \"${0%/*}/seen\"; exec \"$REAL\" \"$@\"";
    let (folder, path) = shim(&source, script);
    let mut options = options(&source, "postgres");
    options.url.user = "backup".to_owned();
    options.password = Some(rekindle_core::Secret::new(CANARY.to_owned()));
    capture(&component(PostgresOptions { bin_dir: Some(path), ..options.clone() })).unwrap();
    let seen = String::from_utf8_lossy(&std::fs::read(folder.path().join("seen")).unwrap()).into_owned();
    assert!(seen.contains("PGPASSFILE=") && seen.contains("--format=custom"), "{seen}");
    assert!(!seen.contains(CANARY), "{seen}");
    let part = capture(&component(options)).unwrap();
    assert!(!part.record.details.to_string().contains(CANARY));
    let leaks = part.files.values().any(|bytes| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()));
    assert!(!leaks);
}

#[test]
fn a_lacking_privilege_is_told_with_its_statement() {
    let source = filled(15);
    source.psql(
        "postgres",
        &format!(
            "CREATE ROLE backup LOGIN PASSWORD '{CANARY}';
             CREATE TABLE secured (n int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
             SELECT lo_from_bytea(0, 'blob');"
        ),
    );
    let mut options = options(&source, "postgres");
    options.url.user = "backup".to_owned();
    options.password = Some(rekindle_core::Secret::new(CANARY.to_owned()));
    let component = component(options);
    let probed = |level| {
        let run = run();
        let findings = block_on(component.probe(&run.context)).unwrap();
        let found = findings.into_iter().filter(|f| f.level == level);
        found.map(|f| f.remedy.unwrap_or(f.text)).collect::<Vec<_>>().join("\n")
    };
    let fault = capture(&component).err().unwrap();
    assert_code(&fault, codes::PG_PRIVILEGE);
    let remedies = probed(Level::Bad);
    for sql in ["GRANT pg_read_all_data TO \"backup\"", "BYPASSRLS", "lo_compat_privileges"] {
        assert!(remedies.contains(sql), "{remedies}");
    }
    source.psql("postgres", "GRANT pg_read_all_data TO backup");
    let fault = capture(&component).err().unwrap();
    assert_code(&fault, codes::PG_PRIVILEGE);
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("BYPASSRLS")), "{fault:?}");
    source.psql("postgres", "ALTER ROLE backup BYPASSRLS");
    let fault = capture(&component).err().unwrap();
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("lo_compat_privileges")), "{fault:?}");
    source.psql("postgres", "ALTER ROLE backup SET lo_compat_privileges = on");
    capture(&component).unwrap();
    assert_eq!(probed(Level::Bad), "");
    assert!(probed(Level::Good).contains("all readable"));
}

#[test]
fn a_locked_table_ends_the_wait() {
    let source = filled(15);
    let mut locker = source
        .client("psql")
        .args(["-X", "-d", "postgres", "-c", "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while source.psql("postgres", held) != "1" {
        std::thread::sleep(Duration::from_millis(20));
    }
    let patience = PostgresOptions { lock_timeout: Duration::from_millis(500), ..options(&source, "postgres") };
    let fault = capture(&component(patience)).err().unwrap();
    locker.kill().unwrap();
    locker.wait().unwrap();
    assert_code(&fault, codes::PG_LOCKED);
}

#[test]
fn tls_is_used_and_verified_as_asked() {
    let source = Postgres::start(rekindle_testkit::PostgresOptions { major: 15, tls: true, ..Default::default() });
    let ca = source.ca().unwrap().display().to_string();
    for (mode, root, works) in [
        ("require", "", true),
        ("verify-ca", ca.as_str(), true),
        ("verify-full", ca.as_str(), true),
        ("verify-full", "", false),
    ] {
        let root = if root.is_empty() { String::new() } else { format!("&sslrootcert={root}") };
        let url = format!("{}?sslmode={mode}{root}", source.url());
        let options =
            PostgresOptions { bin_dir: Some(source.bin_dir().to_owned()), ..PostgresOptions::from_url(&url).unwrap() };
        let result = capture(&component(options));
        assert_eq!(result.is_ok(), works, "{mode}{root}: {:?}", result.err());
    }
}
