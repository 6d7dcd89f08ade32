//! Base backups by the built program, brought back by stock restic: what lands on disk must be a
//! cluster that PostgreSQL's own programs accept.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rekindle_testkit::{Postgres, PostgresOptions};
use serde_json::Value;

use crate::run::Place;

/// Every version that backups are taken of; one that is not installed fails.
const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];
const ROWS: u32 = 20_000;

struct Stack {
    place: Place,
    postgres: Postgres,
}

/// How to make the cluster.
fn options(major: u32, initdb: &[&str]) -> PostgresOptions {
    let mut options = PostgresOptions {
        major,
        initdb: initdb.iter().map(ToString::to_string).collect(),
        ..PostgresOptions::default()
    };
    if major >= 17 {
        options.settings.push(("summarize_wal".to_owned(), "on".to_owned()));
    }
    options
}

impl Stack {
    fn start(options: PostgresOptions) -> Self {
        let postgres = Postgres::start(options);
        // As little as a base backup needs: no superuser.
        postgres.psql("postgres", "CREATE ROLE rekindle_backup LOGIN REPLICATION PASSWORD 'canary-base'");
        let place = Place::new();
        // PostgreSQL reads what is restored below it.
        std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        place.write("uploads/unused", "");
        place.write("key", "canary-repository\n");
        place.write("postgres-password", "canary-base");
        let root = place.path().display();
        place.write(
            "rekindle.toml",
            &format!(
                "[stack]\nname = \"shop\"\n\
                 [repository]\nurl = \"file://{root}/repo\"\npassword = \"file:key\"\n\
                 [component.ledger]\nkind = \"postgres\"\nmethod = \"physical\"\n\
                 url = \"postgres://rekindle_backup@127.0.0.1:{}/postgres\"\npassword = \"file:postgres-password\"\n",
                postgres.port()
            ),
        );
        let repo = format!("file://{root}/repo");
        place.ends(
            0,
            &["init", "--config", "other.toml", "--repo", &repo, "--password-file", "key", "--files", "uploads"],
        );
        Self { place, postgres }
    }

    /// Backs up; gives the component's record.
    fn backup(&self, code: i32) -> Value {
        self.place.json(code, &["backup"]);
        let shown = self.place.json(0, &["show", "latest"]);
        record_of(&shown)
    }

    /// The newest point, restored by stock restic and given to PostgreSQL's user; its data directory.
    fn restic(&self, name: &str) -> PathBuf {
        let target = self.place.path().join(name);
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(self.place.path().join("repo"))
            .args(["restore", "latest", "--verify", "--target"])
            .arg(&target)
            .env("RESTIC_PASSWORD_FILE", self.place.path().join("key"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        give(&target);
        target.join("ledger/data")
    }

    /// `pg_verifybackup`, then a server on the restored directory.
    fn open(&self, data: &Path) -> Postgres {
        let verified = self.postgres.client("pg_verifybackup").arg(data).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let copy = Postgres::start(PostgresOptions {
            major: self.postgres.major(),
            data_dir: Some(data.to_owned()),
            password: self.postgres.password().to_owned(),
            ..PostgresOptions::default()
        });
        let checked = copy
            .client("pg_amcheck")
            .args(["--all", "--install-missing", "--heapallindexed", "--rootdescend"])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        copy
    }

    fn sum(&self, table: &str) -> String {
        sum(&self.postgres, table)
    }
}

fn record_of(shown: &Value) -> Value {
    shown["result"]["manifest"]["components"][0].clone()
}

fn sum(server: &Postgres, table: &str) -> String {
    server.psql("postgres", &format!("SELECT count(*), sum(hashtext(t::text)::bigint) FROM {table} t"))
}

fn give(path: &Path) {
    let Some((uid, gid)) = Postgres::os_user() else { return };
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn filled(postgres: &Postgres, rows: u32) {
    postgres.psql(
        "postgres",
        &format!(
            "CREATE TABLE cards AS SELECT n AS id, md5(n::text) AS face FROM generate_series(1, {rows}) n; \
             ALTER TABLE cards ADD PRIMARY KEY (id)"
        ),
    );
}

/// Everything odd at once: a tablespace, an unlogged table, a name that is not UTF-8, a `pg_wal`
/// that is a link.
fn oddities(stack: &Stack) {
    let postgres = &stack.postgres;
    let outside = stack.place.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    give(&outside);
    postgres.psql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", outside.display()));
    postgres.psql(
        "postgres",
        "CREATE TABLE there TABLESPACE elsewhere AS SELECT * FROM cards; \
         CREATE UNLOGGED TABLE fleeting AS SELECT * FROM cards",
    );
    let odd = postgres.data_dir().join(OsStr::from_bytes(b"odd-\xff\xfe name"));
    std::fs::write(&odd, "odd").unwrap();
    if let Some((uid, gid)) = Postgres::os_user() {
        chown(&odd, Some(uid), Some(gid)).unwrap();
    }
}

#[test]
fn every_version_comes_back_whole_with_stock_restic() {
    for major in MAJORS {
        let stack = Stack::start(options(major, &[]));
        filled(&stack.postgres, ROWS);
        oddities(&stack);
        let record = stack.backup(0);
        let details = &record["details"];
        assert_eq!((&details["method"], &details["wal"]), (&"physical".into(), &"none".into()), "{record:#}");
        assert_eq!(details["base"]["tablespaces"].as_array().unwrap().len(), 1);
        assert_eq!(details["taken"]["kind"], "full");
        stack.place.ends(0, &["verify"]);
        let listed = stack.place.ends(0, &["ls", "latest", "ledger/data"]).out;
        assert!(listed.contains("backup_manifest") && listed.contains("PG_VERSION"), "{listed:.500}");

        let data = stack.restic("restored");
        assert_eq!(std::fs::read(data.join(OsStr::from_bytes(b"odd-\xff\xfe name"))).unwrap(), b"odd");
        let copy = stack.open(&data);
        for table in ["cards", "there"] {
            assert_eq!(sum(&copy, table), stack.sum(table), "{major} {table}");
        }
        // Unlogged tables are empty after a recovery, by design.
        assert!(sum(&copy, "fleeting").starts_with("0|"));
        // The copy works on its own tablespace, not on the live one.
        copy.psql("postgres", "DELETE FROM there; CHECKPOINT");
        drop(copy);
        assert!(stack.sum("there").starts_with(&format!("{ROWS}|")));
    }
}

#[test]
fn other_segment_sizes_come_back() {
    for size in ["1", "64"] {
        let stack = Stack::start(options(15, &["--wal-segsize", size]));
        filled(&stack.postgres, 1000);
        let record = stack.backup(0);
        let bytes: u64 = size.parse::<u64>().unwrap() << 20;
        assert_eq!(record["details"]["base"]["cluster"]["segment_size"], bytes);
        let copy = stack.open(&stack.restic("restored"));
        assert_eq!(sum(&copy, "cards"), stack.sum("cards"));
    }
}

fn transferred(record: &Value) -> u64 {
    record["details"]["transferred_bytes"].as_u64().unwrap()
}

fn stored(record: &Value) -> u64 {
    record["added_bytes"].as_u64().unwrap_or_else(|| panic!("{record:#}"))
}

/// Bytes that were not taken over from the earlier point.
fn read(record: &Value) -> u64 {
    let tally = |name: &str| record["tally"][name].as_u64().unwrap_or_else(|| panic!("{record:#}"));
    tally("bytes") - tally("unchanged_bytes")
}

/// 1.2 million are about 120 MB, with their index; ten million about 1 GB.
fn rows_of_the_large_table() -> u32 {
    std::env::var("REKINDLE_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_200_000)
}

#[test]
fn the_second_backup_of_17_and_18_sends_and_stores_what_changed() {
    for major in [17, 18] {
        let stack = Stack::start(options(major, &["--wal-segsize", "1"]));
        let rows = rows_of_the_large_table();
        filled(&stack.postgres, rows);
        stack.postgres.psql("postgres", "VACUUM FREEZE cards; CREATE TABLE still AS SELECT * FROM cards LIMIT 100000");
        let first = stack.backup(0);
        assert_eq!(first["details"]["taken"]["kind"], "full");
        stack.postgres.psql(
            "postgres",
            &format!("UPDATE cards SET face = 'changed' WHERE id <= {}; CREATE TABLE more (n int)", rows / 100),
        );
        let second = stack.backup(0);
        assert_eq!(second["details"]["taken"]["kind"], "incremental", "{second:#}");
        for (what, value) in [("sent", transferred as fn(&Value) -> u64), ("stored", stored), ("read", read)] {
            let (before, after) = (value(&first), value(&second));
            eprintln!("PostgreSQL {major}, {rows} rows, 1 % of them changed: {what} {before} and then {after} bytes");
            assert!(after * 10 <= before, "{major}: {what} {after} of {before} bytes");
        }
        stack.place.ends(0, &["verify"]);
        let copy = stack.open(&stack.restic("second"));
        assert_eq!(sum(&copy, "cards"), stack.sum("cards"));
        assert_eq!(sum(&copy, "still"), stack.sum("still"));
        drop(copy);

        // A third one builds on the made manifest of the second: tables shrink, grow and go.
        stack.postgres.psql(
            "postgres",
            "DELETE FROM cards WHERE id > 600000; VACUUM cards; TRUNCATE more; DROP TABLE still; \
             INSERT INTO cards SELECT n, 'new' FROM generate_series(2000001, 2020000) n",
        );
        let third = stack.backup(0);
        assert_eq!(third["details"]["taken"]["kind"], "incremental", "{third:#}");
        let copy = stack.open(&stack.restic("third"));
        assert_eq!(sum(&copy, "cards"), stack.sum("cards"));
        drop(copy);

        // It falls back by itself, and says why.
        stack.postgres.psql("postgres", "ALTER SYSTEM SET summarize_wal = off; SELECT pg_reload_conf()");
        let restarted = stack.place.json(0, &["backup", "--force"]);
        assert_eq!(restarted["result"]["state"], "complete");
        let full =
            stack.place.json(0, &["show", "latest"])["result"]["manifest"]["components"][0]["details"]["taken"].clone();
        assert_eq!(full["kind"], "full", "{full}");
        assert!(full["why"].as_str().is_some_and(|why| !why.is_empty()), "{full}");
    }
}

#[test]
fn a_damaged_page_makes_the_point_partial_and_is_named() {
    let mut stack = Stack::start(options(15, &[]));
    filled(&stack.postgres, ROWS);
    let path = stack.postgres.psql("postgres", "CHECKPOINT; SELECT pg_relation_filepath('cards')");
    stack.postgres.stop();
    let file = std::fs::File::options().write(true).open(stack.postgres.data_dir().join(&path)).unwrap();
    file.write_all_at(b"damage", 3 * 8192 + 100).unwrap();
    stack.postgres.restart();
    let record = stack.backup(3);
    assert_eq!(record["details"]["base"]["checksum_failures"], 1, "{record:#}");
    assert!(record["notes"].to_string().contains(&path), "{record:#}");
    // What is there is kept, damage and all.
    let data = stack.restic("restored");
    assert!(data.join("PG_VERSION").exists() && data.join(&path).exists());
}

#[test]
fn a_killed_backup_leaves_no_point_and_the_next_one_works() {
    let stack = Stack::start(options(15, &[]));
    filled(&stack.postgres, 300_000);
    for after_ms in [150, 400, 900, 1600] {
        let mut child = stack.place.command(&["backup"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        let finished = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        if finished {
            break;
        }
        let points = stack.place.json(0, &["list"])["result"]["points"].as_array().unwrap().len();
        // A run may be past its last write when it dies; a point that is there is whole.
        if points > 0 {
            break;
        }
    }
    stack.backup(0);
    stack.place.ends(0, &["verify"]);
    let copy = stack.open(&stack.restic("restored"));
    assert_eq!(sum(&copy, "cards"), stack.sum("cards"));
}

#[test]
fn databases_come_and_go_and_two_backups_run_at_once() {
    let stack = Stack::start(options(16, &[]));
    filled(&stack.postgres, ROWS);
    // The same stack under another configuration file is another run.
    stack.place.write("second.toml", &stack.place.read("rekindle.toml"));
    std::thread::scope(|scope| {
        let backups = [&["backup"][..], &["--config", "second.toml", "backup"]]
            .map(|arguments| scope.spawn(|| stack.place.json(0, arguments)));
        for n in 0..6 {
            stack.postgres.psql("postgres", &format!("CREATE DATABASE come_{n}"));
            stack.postgres.psql("postgres", &format!("DROP DATABASE come_{n}"));
        }
        for backup in backups {
            assert_eq!(backup.join().unwrap()["result"]["state"], "complete");
        }
    });
    assert_eq!(stack.place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 2);
    let copy = stack.open(&stack.restic("restored"));
    assert_eq!(sum(&copy, "cards"), stack.sum("cards"));
}

#[test]
fn what_cannot_work_is_said_before_anything_is_written() {
    let stack = Stack::start(options(15, &[]));
    stack.postgres.psql("postgres", "ALTER ROLE rekindle_backup NOREPLICATION");
    let ended = stack.place.ends(20, &["backup"]);
    assert!(ended.err.contains("REPLICATION") && !ended.err.contains("canary"), "{ended:#?}");
    assert_eq!(stack.place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 0);
}
