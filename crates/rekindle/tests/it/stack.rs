//! The whole stack on real servers: PostgreSQL, Redis and files into one point, and back.

use std::collections::BTreeMap;

use rekindle_testkit::fixtures::{
    RedisPrint, compare_maps, compare_redis, postgres_fingerprint, postgres_stack, redis_data, redis_fingerprint,
};
use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::{Value, json};

use crate::run::Place;

/// Rows per table and keys per database: small, every kind is there.
const SIZE: usize = 50;
/// Expiry times are compared with this tolerance, in milliseconds.
const EXPIRY_MS: u64 = 120_000;

struct Stack {
    place: Place,
    postgres: Postgres,
    redis: Redis,
    databases: Vec<String>,
}

impl Stack {
    fn start() -> Self {
        let postgres = Postgres::start(PostgresOptions::default());
        let databases = postgres_stack(&postgres, SIZE as u64).databases.to_vec();
        let redis = Redis::start(RedisOptions { password: Some("canary-redis".to_owned()), ..RedisOptions::default() });
        redis_data(&redis, SIZE);
        let place = Place::new();
        place.write("uploads/a.txt", "one\n");
        place.write("key", "canary-repository\n");
        place.write("postgres-password", postgres.password());
        place.write("redis-password", "canary-redis\n");
        let config = format!(
            "[stack]\nname = \"shop\"\n\
             [repository]\nurl = \"file://{root}/repo\"\npassword = \"file:key\"\n\
             [component.database]\nkind = \"postgres\"\nurl = \"postgres://postgres@127.0.0.1:{pg}/postgres\"\n\
             password = \"file:postgres-password\"\ndatabases = \"all\"\nbin-dir = \"{bin}\"\n\
             [component.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:{redis}\"\n\
             password = \"file:redis-password\"\ndata-dir = \"{data}\"\n\
             [component.uploads]\nkind = \"files\"\npaths = [\"{root}/uploads\"]\n",
            root = place.path().display(),
            pg = postgres.port(),
            bin = postgres.bin_dir().display(),
            redis = redis.port(),
            data = redis.data_dir().display(),
        );
        place.write("rekindle.toml", &config);
        let repo = format!("file://{}/repo", place.path().display());
        place.ends(
            0,
            &["init", "--config", "other.toml", "--repo", &repo, "--password-file", "key", "--files", "uploads"],
        );
        Self { place, postgres, redis, databases }
    }

    fn rows(&self, database: &str) -> BTreeMap<String, String> {
        postgres_fingerprint(&self.postgres, database)
    }
}

fn states(restored: &Value) -> Vec<&str> {
    let items = restored["result"]["items"].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(|item| item["state"].as_str()).collect()
}

#[test]
fn the_whole_stack_comes_back() {
    let stack = Stack::start();
    let place = &stack.place;
    place.ends(0, &["doctor"]);
    let saved = place.json(0, &["backup"]);
    assert_eq!(saved["result"]["state"], "complete");
    assert_eq!(saved["result"]["components"].as_array().unwrap().len(), 3);
    let rows: Vec<_> = stack.databases.iter().map(|name| stack.rows(name)).collect();
    let keys: RedisPrint = redis_fingerprint(&stack.redis);

    // Lost: the databases' rows, every key, the files.
    let main = &stack.databases[0];
    stack.postgres.psql("postgres", &format!("DROP DATABASE \"{main}\""));
    stack.redis.command(&[b"FLUSHALL"]);
    stack.redis.command(&[b"FUNCTION", b"FLUSH"]);
    std::fs::remove_dir_all(place.path().join("uploads")).unwrap();

    let database = ["restore", "latest", "database", "--in-place", "--no-safety-point"];
    assert_eq!(states(&place.json(0, &database)), ["restored"]);
    for (name, before) in stack.databases.iter().zip(&rows) {
        assert_eq!(compare_maps(before, &stack.rows(name)), Vec::<String>::new(), "{name}");
    }
    assert_eq!(states(&place.json(0, &["restore", "latest", "cache", "--live"])), ["restored"]);
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&stack.redis), EXPIRY_MS), Vec::<String>::new());
    place.ends(0, &["restore", "latest", "uploads", "--in-place", "--no-safety-point"]);
    assert_eq!(place.read("uploads/a.txt"), "one\n");
    for file in ["postgres-password", "redis-password", "key"] {
        let secret = place.read(file);
        let shown = [place.run(&["show", "--json"]), place.run(&["doctor", "-vv"]), place.run(&["check-config"])];
        assert!(!format!("{shown:?}").contains(secret.trim()), "{file}");
    }
}

#[test]
fn a_safety_point_is_taken_before_anything_is_written_over() {
    let stack = Stack::start();
    let place = &stack.place;
    place.ends(0, &["backup"]);
    place.write("uploads/a.txt", "changed\n");
    let restored = place.json(0, &["restore", "latest", "uploads", "--in-place"]);
    assert_eq!(place.read("uploads/a.txt"), "one\n");
    let safety = restored["result"]["safety_point"].as_str().unwrap().to_owned();
    let path = format!("uploads{}/uploads/a.txt", place.path().display());
    assert_eq!(place.ends(0, &["cat", &safety, &path]).out, "changed\n");
    assert_eq!(place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stack_comes_back_on_a_host_without_its_configuration() {
    let stack = Stack::start();
    let place = &stack.place;
    place.ends(0, &["backup"]);
    let rows = stack.rows(&stack.databases[0]);
    let other = Place::new();
    other.write("key", "canary-repository\n");
    let fresh = Postgres::start(PostgresOptions::default());
    other.write("pg", fresh.password());
    let repo = place.path().join("repo").display().to_string();
    let server = format!("postgres://postgres@127.0.0.1:{}/postgres", fresh.port());
    let restored = other.json(
        0,
        &[
            "restore",
            "latest",
            "--to",
            "back",
            "--repo",
            &repo,
            "--password-file",
            "key",
            "--server",
            &server,
            "--server-password-file",
            "pg",
        ],
    );
    assert_eq!(states(&restored), ["restored", "restored", "restored"]);
    let path = place.path().join("uploads/a.txt");
    let back = other.path().join("back/uploads").join(path.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(back).unwrap(), "one\n");
    assert!(other.path().join("back/cache").is_dir());
    let names = fresh.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'prompt_card_db%'");
    let name = names.trim();
    let mut after = postgres_fingerprint(&fresh, name);
    // The fresh server's own superuser, with its own password, is left as it is.
    let superuser = "role:postgres".to_owned();
    after.insert(superuser.clone(), rows[&superuser].clone());
    assert_eq!(compare_maps(&rows, &after), Vec::<String>::new());
    assert_ne!(restored["result"]["items"], json!([]));
}
