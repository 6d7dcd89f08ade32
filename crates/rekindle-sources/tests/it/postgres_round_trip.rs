//! Real servers: captured, restored elsewhere and in place, compared fact by fact.

use std::collections::BTreeMap;

use rekindle_core::codes;
use rekindle_core::port::{RestoreRequest, Target};
use rekindle_sources::postgres::details::GlobalsRecord;
use rekindle_sources::postgres::{Databases, PostgresOptions};
use rekindle_testkit::Postgres;
use rekindle_testkit::fixtures::{compare_maps, postgres_fingerprint, postgres_stack};

use crate::postgres_support::{
    SHORT, capture, component, databases, options, request, restore, restore_and_check, server, whole,
};

/// The facts that do not depend on which server it is.
fn print(server: &Postgres, database: &str, same_major: bool) -> BTreeMap<String, String> {
    let mut print = postgres_fingerprint(server, database);
    // The superuser exists on both servers and is left as it is: its password hash has its own salt.
    print.remove(&format!("role:{}", server.superuser()));
    if !same_major {
        print.retain(|key, _| !key.starts_with("view:"));
    }
    print
}

fn round_trip(from: u32, to: u32, jobs: usize) {
    let (source, target) = (server(from), server(to));
    let stack = postgres_stack(&source, 2000);
    source.psql("postgres", "CREATE TABLE in_postgres AS SELECT 1 AS one");
    let part = capture(&whole(&source)).unwrap();
    let details = part.details();
    assert_eq!(details.globals, GlobalsRecord::WithPasswords);
    assert_eq!(details.databases.len(), 3);
    let cards = details.databases.iter().find(|d| d.name == stack.databases[0]).unwrap();
    let rows: i64 = source.psql(&cards.name, "SELECT count(*) FROM cards.prompt_cards").parse().unwrap();
    let table = cards.tables.iter().find(|t| t.name == "prompt_cards").unwrap();
    assert_eq!(table.exact_rows, Some(rows));
    assert!(cards.large_objects == 6 && !cards.lsn.is_empty());

    let mut elsewhere = request(Target::InPlace { discard_old: false });
    elsewhere.jobs = jobs;
    elsewhere.select = stack.databases.to_vec();
    let report = restore(&whole(&target), &part, &elsewhere).unwrap();
    assert_eq!(report.kept_old, None);
    assert_eq!(report.warnings, [] as [String; 0]);
    for database in &stack.databases {
        let before = print(&source, database, from == to);
        let after = print(&target, database, from == to);
        assert_eq!(compare_maps(&before, &after), [] as [String; 0], "{database}");
    }
}

#[test]
fn everything_comes_back_on_another_15() {
    round_trip(15, 15, 1);
}

#[test]
fn everything_comes_back_on_another_17_with_two_workers() {
    round_trip(17, 17, 2);
}

#[test]
fn a_15_comes_back_on_a_17() {
    round_trip(15, 17, 1);
}

#[test]
fn a_newer_dump_is_refused_by_an_older_server() {
    let (source, target) = (server(17), server(15));
    source.psql("postgres", "CREATE TABLE t AS SELECT 1 AS one");
    let part = capture(&component(options(&source, "postgres"))).unwrap();
    let fault = restore(&component(options(&target, "postgres")), &part, &request(Target::New(None))).unwrap_err();
    assert!(fault.is(codes::PG_VERSION), "{fault:?}");
    assert_eq!(databases(&target), ["postgres"]);
}

#[test]
fn a_new_database_stands_beside_the_live_one() {
    let source = server(15);
    let stack = postgres_stack(&source, 200);
    let name = &stack.databases[0];
    let component = component(PostgresOptions { exact_counts: true, ..options(&source, name) });
    let part = capture(&component).unwrap();
    source.psql(name, "DELETE FROM cards.notes");
    let report = restore(&component, &part, &request(Target::New(None))).unwrap();
    let restored = format!("{name}_restored_{SHORT}");
    assert!(report.place.contains(&restored), "{}", report.place);
    assert_eq!(source.psql(&restored, "SELECT count(*) FROM cards.notes"), "40");
    assert_eq!(source.psql(name, "SELECT count(*) FROM cards.notes"), "0");
    let again = restore(&component, &part, &request(Target::New(None))).unwrap_err();
    assert!(again.is(codes::PG_TARGET_EXISTS), "{again:?}");
    assert_eq!(source.psql(&restored, "SELECT count(*) FROM cards.notes"), "40", "the refusal touched nothing");

    let mut overwrite = request(Target::New(None));
    overwrite.overwrite = true;
    source.psql(&restored, "DELETE FROM cards.notes");
    restore(&component, &part, &overwrite).unwrap();
    assert_eq!(source.psql(&restored, "SELECT count(*) FROM cards.notes"), "40");

    // Damage after the restore is seen by the check.
    let named = RestoreRequest { ..request(Target::New(Some("other".to_owned()))) };
    let (report, _) = restore_and_check(&component, &part, &named).unwrap();
    source.psql("other", "DELETE FROM cards.notes WHERE id = 1; DROP TABLE cards.cache");
    let run = crate::postgres_support::run();
    let findings = crate::postgres_support::block_on(rekindle_core::port::Component::check(
        &component,
        std::sync::Arc::new(part),
        &report,
        &run.context,
    ))
    .unwrap();
    let bad: Vec<&str> = findings.iter().map(|f| f.text.as_str()).collect();
    assert!(bad.iter().any(|t| t.contains("has 39 rows instead of 40")), "{bad:?}");
    assert!(bad.iter().any(|t| t.contains("\"cache\" is not there")), "{bad:?}");
}

#[test]
fn in_place_ends_live_sessions_and_keeps_the_old_database() {
    let source = server(15);
    let stack = postgres_stack(&source, 200);
    let name = &stack.databases[0];
    let component = component(PostgresOptions { exact_counts: true, ..options(&source, name) });
    let part = capture(&component).unwrap();
    let before = print(&source, name, true);
    source.psql(name, "DELETE FROM cards.notes");
    let mut held: Vec<_> = (0..3)
        .map(|_| {
            let sql = "BEGIN; SELECT count(*) FROM cards.users; SELECT pg_sleep(600)";
            let mut psql = source.client("psql");
            psql.args(["-X", "-q", "-d", name, "-c", sql]).stdout(std::process::Stdio::null());
            psql.stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event = 'PgSleep'");
    while source.psql("postgres", &sessions) != "3" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let report = restore(&component, &part, &request(Target::InPlace { discard_old: false })).unwrap();
    for session in &mut held {
        assert!(!session.wait().unwrap().success(), "the session was ended");
    }
    let kept = format!("{name}_pre_restore_{SHORT}");
    assert!(report.kept_old.as_ref().is_some_and(|old| old.contains(&kept)), "{report:?}");
    assert_eq!(source.psql(&kept, "SELECT count(*) FROM cards.notes"), "0");
    assert_eq!(compare_maps(&before, &print(&source, name, true)), [] as [String; 0]);

    let report = restore(&component, &part, &request(Target::InPlace { discard_old: true })).unwrap();
    assert_eq!(report.kept_old, None);
    let left = databases(&source);
    assert_eq!(left.iter().filter(|n| n.contains("restore")).collect::<Vec<_>>(), [&kept]);
}

#[test]
fn a_restore_that_fails_leaves_the_live_database_and_no_other() {
    let source = server(15);
    let stack = postgres_stack(&source, 200);
    let name = &stack.databases[0];
    let component = component(options(&source, name));
    let mut part = capture(&component).unwrap();
    let before = (databases(&source), print(&source, name, true));
    let dump = part.files.get_mut(&format!("databases/{name}.dump")).unwrap();
    dump.truncate(dump.len() * 2 / 3);
    let fault = restore(&component, &part, &request(Target::InPlace { discard_old: true })).unwrap_err();
    assert!(fault.is(codes::PG_RESTORE), "{fault:?}");
    assert_eq!((databases(&source), print(&source, name, true)), before);
}

#[test]
fn rows_that_differ_from_the_manifest_stop_before_the_swap() {
    let source = server(15);
    source.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10) AS n");
    let component = component(PostgresOptions { exact_counts: true, ..options(&source, "postgres") });
    let mut part = capture(&component).unwrap();
    part.record.details["databases"][0]["tables"][0]["exact_rows"] = 11.into();
    let fault = restore(&component, &part, &request(Target::InPlace { discard_old: true })).unwrap_err();
    assert!(fault.is(codes::PG_COUNTS) && fault.chain().contains("10 rows instead of 11"), "{fault:?}");
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("postgres_restored")), "{fault:?}");
    assert_eq!(source.psql("postgres", "SELECT count(*) FROM t"), "10");
}

#[test]
fn unknown_names_are_told_with_the_known_ones() {
    let source = server(15);
    source.psql("postgres", "CREATE TABLE t (n int)");
    let absent = component(options(&source, "absent"));
    assert!(capture(&absent).err().unwrap().is(codes::PG_NO_DATABASE));
    let listed = PostgresOptions { databases: Databases::List(vec!["gone".into()]), ..options(&source, "postgres") };
    let fault = capture(&component(listed)).err().unwrap();
    assert!(fault.is(codes::PG_NO_DATABASE) && fault.chain().contains("`postgres`"), "{fault:?}");
    let here = component(options(&source, "postgres"));
    let part = capture(&here).unwrap();
    let mut wanted = request(Target::New(None));
    wanted.select = vec!["nothing".to_owned()];
    let fault = restore(&here, &part, &wanted).unwrap_err();
    assert!(fault.is(codes::PG_NO_DATABASE) && fault.chain().contains("`postgres`"), "{fault:?}");
}

#[test]
fn schema_only_and_chosen_tables() {
    let source = server(15);
    let stack = postgres_stack(&source, 100);
    let name = &stack.databases[0];
    let schema = component(PostgresOptions { schema_only: true, ..options(&source, name) });
    let part = capture(&schema).unwrap();
    assert!(part.details().databases[0].tables.iter().all(|table| !table.dumped));
    restore(&schema, &part, &request(Target::New(Some("shape".into())))).unwrap();
    assert_eq!(source.psql("shape", "SELECT count(*) FROM cards.users"), "0");

    let tables = vec!["cards.attachments".to_owned()];
    let some = component(PostgresOptions { tables, exact_counts: true, globals: false, ..options(&source, name) });
    let part = capture(&some).unwrap();
    let dumped: Vec<String> =
        part.details().databases[0].tables.iter().filter(|t| t.dumped).map(|t| t.name.clone()).collect();
    assert_eq!(dumped, ["attachments"]);
    assert!(!part.files.contains_key("globals.sql"));
    let wrong = component(PostgresOptions { tables: vec!["cards.nope".into()], ..options(&source, name) });
    assert!(capture(&wrong).err().unwrap().is(codes::PG_EMPTY));
}
