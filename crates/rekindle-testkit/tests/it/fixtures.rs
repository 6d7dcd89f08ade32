use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rekindle_testkit::fixtures::{
    compare_maps, compare_redis, postgres_fingerprint, postgres_stack, redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions, RedisProgram};

/// `pg_dumpall --globals-only` and `pg_dump | pg_restore`: the road every restore takes.
fn copy(from: &Postgres, to: &Postgres, database: &str, dir: &Path) {
    let file = dir.join("dump");
    let dump = from.client("pg_dump").args(["-Fc", "--create", "-f"]).arg(&file).arg(database).output();
    assert!(dump.as_ref().unwrap().status.success(), "{dump:?}");
    let load = to.client("pg_restore").args(["--create", "-d", "postgres"]).arg(&file).output();
    assert!(load.as_ref().unwrap().status.success(), "{load:?}");
}

fn copy_roles(from: &Postgres, to: &Postgres) {
    let dump = from.client("pg_dumpall").arg("--globals-only").stderr(Stdio::inherit()).output().unwrap();
    assert!(dump.status.success());
    let sql = String::from_utf8(dump.stdout).unwrap();
    to.psql("postgres", &sql.replace("CREATE ROLE postgres;", ""));
}

#[test]
fn a_restored_database_has_the_same_facts_and_a_changed_one_has_not() {
    let from = Postgres::start(PostgresOptions::default());
    let stack = postgres_stack(&from, 2000);
    let dir = tempfile::tempdir().unwrap();
    for major in [15, 17] {
        let to = Postgres::start(PostgresOptions { major, ..PostgresOptions::default() });
        copy_roles(&from, &to);
        for database in &stack.databases {
            let mut before = postgres_fingerprint(&from, database);
            copy(&from, &to, database, dir.path());
            let mut after = postgres_fingerprint(&to, database);
            for print in [&mut before, &mut after] {
                // Each major prints views in its own way.
                print.retain(|key, _| major == 15 || !key.starts_with("view:"));
            }
            assert_eq!(compare_maps(&before, &after), Vec::<String>::new(), "{major} {database}");
        }
    }
    let database = &stack.databases[0];
    let before = postgres_fingerprint(&from, database);
    for kind in [
        "rows",
        "unlogged",
        "large-object",
        "sequence",
        "policy",
        "trigger",
        "comment",
        "extension",
        "default-privileges",
        "member",
    ] {
        assert!(before.keys().any(|key| key.starts_with(&format!("{kind}:"))), "{kind}");
    }
    for (change, kind) in [
        ("UPDATE cards.users SET name = name || ' ' WHERE id = 2", "rows:cards.users"),
        ("DELETE FROM cards.cache WHERE key = 'k1'", "unlogged:cards.cache"),
        ("SELECT nextval('cards.invoice_number')", "sequence:cards.invoice_number"),
        ("SELECT lo_put(min(oid), 3, 'x') FROM pg_largeobject_metadata", "large-object:"),
        ("REVOKE SELECT ON cards.users FROM card_reader", "relation:cards.users"),
        ("ALTER TABLE cards.notes OWNER TO card_app", "relation:cards.notes"),
        ("DROP POLICY own_notes ON cards.notes", "policy:"),
        ("ALTER TABLE cards.users ALTER name DROP NOT NULL", "column:cards.users.name"),
        ("COMMENT ON TABLE cards.prompt_cards IS 'other'", "comment:table:cards.prompt_cards"),
        ("REVOKE card_reader FROM card_writer", "member:"),
        ("ALTER ROLE card_app PASSWORD 'other'", "role:card_app"),
        ("DROP INDEX cards.events_card", "index:"),
    ] {
        let before = postgres_fingerprint(&from, database);
        from.psql(database, change);
        let found = compare_maps(&before, &postgres_fingerprint(&from, database));
        assert!(found.iter().any(|line| line.starts_with(kind)), "{change}: {found:?}");
    }
}

#[test]
fn the_postgres_stack_fits_every_major() {
    for major in [16, 17] {
        let postgres = Postgres::start(PostgresOptions { major, ..PostgresOptions::default() });
        let stack = postgres_stack(&postgres, 100);
        for database in &stack.databases {
            assert!(postgres_fingerprint(&postgres, database).len() > 20);
        }
    }
}

#[test]
fn a_reloaded_redis_has_the_same_keys_and_a_changed_one_has_not() {
    for program in [RedisProgram::Redis, RedisProgram::Valkey] {
        let mut redis = Redis::start(RedisOptions { program, ..RedisOptions::default() });
        redis_data(&redis, 60);
        let before = redis_fingerprint(&redis);
        assert_eq!(before.functions.len(), 1);
        assert!(before.keys.len() > 3 * 5 * 60);
        redis.command(&[b"SAVE"]);
        redis.restart();
        assert_eq!(compare_redis(&before, &redis_fingerprint(&redis), 0), Vec::<String>::new());
        for (change, name) in [
            ("SET string:1 other", "string:1"),
            ("RPUSH list:quick more", "list:quick"),
            ("SREM set:table element-5", "set:table"),
            ("ZINCRBY zset:skiplist 1 element-5", "zset:skiplist"),
            ("HDEL hash:table field-9", "hash:table"),
            ("XADD stream * a b", "stream"),
            ("XACK stream readers 5-1", "stream"),
            ("PERSIST string:0", "string:0"),
            ("DEL geo", "geo"),
            ("PFADD hll:dense something-else-entirely-1 x y z", "hll:dense"),
            ("FUNCTION FLUSH", "functions"),
        ] {
            let before = redis_fingerprint(&redis);
            let args: Vec<&[u8]> = change.split(' ').map(str::as_bytes).collect();
            redis.command(&args);
            let found = compare_redis(&before, &redis_fingerprint(&redis), 0);
            assert!(found.len() == 1 && found[0].contains(name), "{change}: {found:?}");
        }
    }
}

#[test]
fn a_killed_test_process_leaves_no_server() {
    // The test binary itself, told to start a server and then to be killed.
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("note");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["fixtures::start_and_wait", "--exact", "--ignored", "--nocapture"])
        .env("REKINDLE_TEST_NOTE", &note)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let wait_until = |what: &str, done: &mut dyn FnMut() -> bool| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while !done() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let mut text = String::new();
    wait_until("the servers start", &mut || {
        text = std::fs::read_to_string(&note).unwrap_or_default();
        text.ends_with('\n')
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for word in text.split_whitespace() {
        let path = Path::new(word);
        assert!(path.is_absolute(), "{text}");
        wait_until(&format!("{word} is gone"), &mut || !path.exists());
    }
}

/// Not a test: what the test above starts and kills.
#[test]
#[ignore = "started by another test, which kills it"]
fn start_and_wait() {
    let note = std::env::var("REKINDLE_TEST_NOTE").unwrap();
    let postgres = Postgres::start(PostgresOptions::default());
    let redis = Redis::start(RedisOptions::default());
    let text = format!(
        "/proc/{} {} /proc/{} {}\n",
        postgres.pid().unwrap(),
        postgres.host_socket_dir().display(),
        redis.pid().unwrap(),
        redis.socket().parent().unwrap().display()
    );
    std::fs::write(note, text).unwrap();
    std::thread::sleep(std::time::Duration::from_mins(2));
}
