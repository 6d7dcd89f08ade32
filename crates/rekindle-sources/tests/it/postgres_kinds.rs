//! Servers and databases that are not the ordinary ones: a standby, other locales, tablespaces, a role that is no
//! superuser.

use std::path::Path;
use std::process::Command;

use rekindle_core::note::NoteClass;
use rekindle_core::port::{Level, Target};
use rekindle_sources::postgres::PostgresOptions;
use rekindle_sources::postgres::details::GlobalsRecord;
use rekindle_testkit::fixtures::{compare_maps, postgres_fingerprint, postgres_stack};
use rekindle_testkit::{Postgres, PostgresOptions as ServerOptions};

use crate::postgres_support::{capture, component, request, restore, restore_and_check, server, whole};

/// Gives a tree to the user that servers run as.
fn give(path: &Path) {
    if let Some((uid, gid)) = Postgres::os_user() {
        let done = Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(path).status().unwrap();
        assert!(done.success());
    }
}

/// A standby of this server, with everything replayed that the server has written.
fn standby(primary: &Postgres, dir: &Path) -> Postgres {
    let data = dir.join("data");
    let mut command = primary.client("pg_basebackup");
    command.args(["-X", "stream", "-c", "fast", "--no-sync", "-R", "-D"]).arg(&data);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    give(dir);
    let standby = Postgres::start(ServerOptions {
        major: primary.major(),
        data_dir: Some(data),
        password: primary.password().to_owned(),
        ..ServerOptions::default()
    });
    let wanted = primary.psql("postgres", "SELECT pg_current_wal_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{wanted}'");
    while standby.psql("postgres", &replayed) != "t" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    standby
}

#[test]
fn a_standby_gives_all_that_its_primary_has() {
    let primary = server(15);
    let stack = postgres_stack(&primary, 200);
    let dir = tempfile::tempdir().unwrap();
    let standby = standby(&primary, dir.path());
    let part = capture(&whole(&standby)).unwrap();
    let details = part.details();
    assert!(details.databases.iter().all(|database| !database.lsn.is_empty()));
    assert_eq!(details.globals, GlobalsRecord::WithPasswords);
    // The rows of unlogged tables are on no standby, and the point says so.
    let notes = &part.record.notes;
    let said = notes.listed.iter().any(|note| note.class == NoteClass::Incomplete && note.text.contains("unlogged"));
    assert!(said, "{notes:?}");
    let target = server(15);
    let mut wanted = request(Target::InPlace { discard_old: false });
    wanted.select = stack.databases.to_vec();
    let report = restore(&whole(&target), &part, &wanted).unwrap();
    assert_eq!(report.warnings, [] as [String; 0]);
    for database in &stack.databases {
        let [before, after] = [&primary, &target].map(|server| {
            let mut print = postgres_fingerprint(server, database);
            print.remove(&format!("role:{}", server.superuser()));
            print.retain(|key, _| !key.starts_with("unlogged:"));
            print
        });
        assert_eq!(compare_maps(&before, &after), [] as [String; 0], "{database}");
    }
}

#[test]
fn databases_come_back_with_their_locale() {
    for (major, more) in [(15, "LOCALE_PROVIDER icu ICU_LOCALE 'de'"), (17, "LOCALE_PROVIDER builtin LOCALE 'C.UTF-8'")]
    {
        let (source, target) = (server(major), server(major));
        source.psql("postgres", &format!("CREATE DATABASE cards TEMPLATE template0 {more}"));
        source.psql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
        // In German order, ä stands between a and z; in that of C it stands behind.
        source.psql("cards", "CREATE TABLE word (w text); INSERT INTO word VALUES ('z'), ('ä'), ('a')");
        source.psql("latin", "CREATE TABLE word (w text); INSERT INTO word VALUES ('ä')");
        let part = capture(&whole(&source)).unwrap();
        let mut wanted = request(Target::InPlace { discard_old: false });
        wanted.select = vec!["cards".into(), "latin".into()];
        restore(&whole(&target), &part, &wanted).unwrap();
        let order = "SELECT string_agg(w, ' ' ORDER BY w) FROM word";
        assert_eq!(target.psql("cards", order), source.psql("cards", order));
        assert_eq!(target.psql("cards", order) == "a ä z", major == 15, "the locale counts");
        assert_eq!(target.psql("latin", "SELECT w FROM word"), "ä");
        let locale = if major == 15 { "daticulocale" } else { "datlocale" };
        let kind = format!(
            "SELECT datname, encoding, datcollate, datctype, datlocprovider, {locale} FROM pg_database \
             WHERE datname IN ('cards', 'latin') ORDER BY 1"
        );
        assert_eq!(target.psql("postgres", &kind), source.psql("postgres", &kind));
    }
}

#[test]
fn tablespaces_are_used_where_they_are_and_told_where_not() {
    let source = server(15);
    let dir = tempfile::tempdir().unwrap();
    let space = |server: &Postgres, name: &str| {
        let place = dir.path().join(name);
        std::fs::create_dir(&place).unwrap();
        give(dir.path());
        server.psql("postgres", &format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()));
    };
    space(&source, "of-source");
    source.psql("postgres", "CREATE DATABASE cards TABLESPACE fast");
    source.psql("cards", "CREATE TABLE a AS SELECT generate_series(1, 50) AS n");
    source.psql("cards", "CREATE TABLE b TABLESPACE pg_default AS SELECT generate_series(1, 50) AS n");
    let part = capture(&whole(&source)).unwrap();
    let place_of = |server: &Postgres| {
        server.psql(
            "cards",
            "SELECT (SELECT spcname FROM pg_tablespace t JOIN pg_database d ON t.oid = d.dattablespace \
             WHERE datname = 'cards'), (SELECT sum(n) FROM a), (SELECT sum(n) FROM b)",
        )
    };
    for (with, expected) in [(true, "fast|1275|1275"), (false, "pg_default|1275|1275")] {
        let target = server(15);
        if with {
            space(&target, "of-target");
        }
        let mut wanted = request(Target::InPlace { discard_old: false });
        wanted.select = vec!["cards".into()];
        let report = restore(&whole(&target), &part, &wanted).unwrap();
        assert_eq!(place_of(&target), expected);
        assert_eq!(report.warnings.iter().any(|text| text.contains("no tablespace `fast`")), !with, "{report:?}");
    }
}

/// What most applications have: a role that owns its database and may make others.
#[test]
fn a_role_that_is_no_superuser_saves_and_restores_its_database() {
    let source = server(15);
    source.psql("postgres", "CREATE ROLE app LOGIN CREATEDB PASSWORD 'canary-app'");
    source.psql("postgres", "CREATE DATABASE cards OWNER app");
    source.psql(
        "cards",
        "SET ROLE app; CREATE SCHEMA mine; CREATE TABLE mine.t AS SELECT generate_series(1, 100) AS n; \
         CREATE VIEW mine.v AS SELECT count(*) FROM mine.t",
    );
    let url = format!("postgres://app:canary-app@127.0.0.1:{}/cards", source.port());
    let as_app = component(PostgresOptions {
        bin_dir: Some(source.bin_dir().to_owned()),
        exact_counts: true,
        ..PostgresOptions::from_url(&url).unwrap()
    });
    let part = capture(&as_app).unwrap();
    assert_ne!(part.details().globals, GlobalsRecord::WithPasswords, "only a superuser reads the passwords");
    let (report, findings) =
        restore_and_check(&as_app, &part, &request(Target::New(Some("again".to_owned())))).unwrap();
    assert!(findings.iter().all(|finding| finding.level != Level::Bad), "{findings:?} {report:?}");
    assert_eq!(source.psql("again", "SELECT count FROM mine.v"), "100");
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'again'";
    assert_eq!(source.psql("postgres", owner), "app");
    source.psql("cards", "DELETE FROM mine.t");
    restore_and_check(&as_app, &part, &request(Target::InPlace { discard_old: true })).unwrap();
    assert_eq!(source.psql("cards", "SELECT count FROM mine.v"), "100");
    // One that may not make databases is told what to do.
    source.psql("postgres", "ALTER ROLE app NOCREATEDB");
    let fault = restore_and_check(&as_app, &part, &request(Target::New(Some("third".to_owned())))).unwrap_err();
    assert!(fault.hint_text().is_some_and(|hint| hint.contains("CREATEDB")), "{fault:?}");
}
