//! A cluster under load, base backups in the repository, its log beside them: brought back to
//! moments by the built program; and everything that must be refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::Secret;
use rekindle_core::port::Clock;
use rekindle_core::wal::{Cluster, SegmentSize, SystemId, WalArchive, WalFile, WalLog};
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::StoreOptions;
use rekindle_testkit::{Postgres, PostgresOptions};
use serde_json::Value;

use super::stack::wait_until;
use crate::run::Place;

const PASSWORD: &str = "canary-repository-password";
const MARKERS: &str = "SELECT string_agg(id::text, ',' ORDER BY id) FROM marker";

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

struct World {
    place: Place,
    server: Postgres,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let archive = place.path().join("archive").display().to_string();
        let settings = [
            ("archive_mode", "on".to_owned()),
            (
                "archive_command",
                format!("mkdir -p {archive} && cp %p {archive}/part && mv {archive}/part {archive}/%f"),
            ),
            ("track_commit_timestamp", "on".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() });
        server.psql("postgres", "CREATE ROLE rekindle_backup LOGIN REPLICATION PASSWORD 'canary-base'");
        server.psql("postgres", "CREATE TABLE marker (id serial PRIMARY KEY)");
        place.write("key", PASSWORD);
        place.write("postgres-password", "canary-base");
        let root = place.path().display();
        let repo = format!("file://{root}/repo");
        place.write("some", "");
        let init = ["init", "--config", "other.toml", "--repo", &repo, "--password-file", "key", "--files", "some"];
        place.ends(0, &init);
        let config = format!(
            "[stack]\nname = \"shop\"\n[repository]\nurl = \"{repo}\"\npassword = \"file:key\"\n\
             [component.database]\nkind = \"postgres\"\nmethod = \"physical\"\nbin-dir = \"{}\"\n\
             url = \"postgres://rekindle_backup@127.0.0.1:{}/postgres\"\npassword = \"file:postgres-password\"\n",
            server.bin_dir().display(),
            server.port()
        );
        place.write("rekindle.toml", &config);
        Self { place, server }
    }

    fn mark(&self, count: u32) -> jiff::Timestamp {
        let sql = format!("INSERT INTO marker SELECT FROM generate_series(1, {count})");
        self.server.psql("postgres", &sql);
        let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        self.server.psql("postgres", now).parse().unwrap()
    }

    fn switch(&self) {
        self.mark(1);
        let file = self.server.psql("postgres", "SELECT pg_walfile_name(pg_switch_wal())");
        let archived = self.place.path().join("archive").join(file);
        wait_until("the segment is archived", || archived.exists());
    }

    /// Puts everything that was archived into the log of the repository.
    fn feed(&self) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let url = format!("file://{}", self.place.path().join("repo").display());
        let store = rekindle_store::open(&StoreOptions::new(&url).unwrap()).unwrap();
        let password = Secret::new(PASSWORD.to_owned());
        let repo = Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap();
        let system = self.server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
        let cluster = Cluster { system: SystemId(system.parse().unwrap()), segment_size: SegmentSize::DEFAULT };
        let log: Arc<dyn WalLog> = Archive::new(&repo, Arc::new(Now)).log(cluster).unwrap();
        for entry in std::fs::read_dir(self.place.path().join("archive")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if let Ok(WalFile::Segment(segment)) = WalFile::parse(name.to_str().unwrap(), SegmentSize::DEFAULT) {
                log.put_segment(segment, &std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }

    /// The object of a segment, counted from the newest.
    fn object(&self, back: usize) -> PathBuf {
        let mut found = Vec::new();
        files(&self.place.path().join("repo/rekindle/wal"), &mut found);
        found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("0000000"));
        found.sort();
        found[found.len() - 1 - back].clone()
    }

    fn restored(&self, name: &str) -> String {
        let data_dir = Some(self.place.path().join(name));
        let copy = Postgres::start(PostgresOptions { data_dir, ..PostgresOptions::default() });
        copy.psql("postgres", MARKERS)
    }

    fn to(&self, code: i32, name: &str, more: &[&str]) -> Value {
        let to = self.place.path().join(name).display().to_string();
        let arguments: Vec<&str> = ["restore", "database", "--to", &to].iter().chain(more).copied().collect();
        self.place.json(code, &arguments)
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn numbers(upto: u32) -> String {
    (1..=upto).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_cluster_comes_back_to_a_moment_and_refusals_name_what_can_be_had() {
    let world = World::new();
    let before = world.mark(1);
    world.place.json(0, &["backup"]);
    let wanted = world.mark(3);
    world.server.psql("postgres", "DROP TABLE IF EXISTS none; DELETE FROM marker WHERE id = 2");
    world.switch();
    world.mark(2);
    world.switch();
    world.feed();

    let listed = world.place.json(0, &["restore-points", "list"]);
    let window = &listed["result"]["components"][0]["windows"][0];
    assert_eq!((window["timeline"].as_u64(), window["end"].as_str()), (Some(1), Some("head")), "{window}");
    let newest: jiff::Timestamp = window["to"].as_str().unwrap().parse().unwrap();
    assert!(newest > wanted);

    let at = wanted.to_string();
    let plan = world.to(0, "nothing", &["--at", &at, "--dry-run"]);
    assert!(plan["result"]["segments"].as_u64().unwrap() >= 2, "{plan}");
    assert!(!world.place.path().join("nothing").exists());
    let done = world.to(0, "moment", &["--at", &at]);
    let item = &done["result"]["items"][0];
    assert_eq!(item["state"], "restored", "{item}");
    let proof = &item["report"]["details"]["proof"];
    assert!(proof["stopped"].as_str().unwrap().contains("recovery stopping before commit"), "{proof}");
    let steps: Vec<&str> =
        item["report"]["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["fetch", "replay", "prove and stop"]);
    assert_eq!(world.restored("moment"), numbers(4));
    from_a_copy(&world, &at);

    refusals(&world, before, newest);
    damage(&world, &at);
}

/// The copy holds the base backup and the log: the same moment comes back from it.
fn from_a_copy(world: &World, at: &str) {
    let place = &world.place;
    place.write("copy-key", "canary-password-of-the-copy");
    let config = place.read("rekindle.toml");
    let url = format!("file://{}", place.path().join("copy").display());
    place.write("rekindle.toml", &format!("{config}\n[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n"));
    let copied = place.json(0, &["copy", "--init"]);
    let logs = &copied["result"]["copies"][0]["wal"];
    assert!(logs["objects"].as_u64().unwrap() >= 3, "{logs}");
    let again = place.json(0, &["copy"]);
    assert_eq!(again["result"]["copies"][0]["wal"]["objects"], 0, "{again}");
    place.json(0, &["wal", "verify", "--copy", "offsite"]);
    let done = world.to(0, "from-copy", &["--at", at, "--copy", "offsite"]);
    assert_eq!(done["result"]["items"][0]["state"], "restored", "{done}");
    assert_eq!(world.restored("from-copy"), numbers(4));
}

fn refusals(world: &World, before: jiff::Timestamp, newest: jiff::Timestamp) {
    let refused = |code: &str, more: &[&str]| {
        let value = world.to(21, "refused", more);
        assert_eq!(value["error"]["code"], code, "{value}");
        let hint = value["error"]["hint"].as_str().unwrap().to_owned();
        assert!(!world.place.path().join("refused").exists(), "nothing was written");
        hint
    };
    let hint = refused("RK-PT-003", &["--at", &before.to_string()]);
    assert!(hint.contains("reachable: "), "{hint}");
    let hint = refused("RK-PT-004", &["--at", "2100-01-01 00:00:00Z"]);
    assert!(hint.contains(&newest.to_string()) && hint.contains("--latest"), "{hint}");
    refused("RK-PT-004", &["--lsn", "FF/0"]);
    refused("RK-PT-010", &["--name", "never"]);
    refused("RK-PT-010", &["--xid", "4000000"]);
    refused("RK-PT-008", &["--latest", "--timeline", "9"]);
    let full = world.place.path().join("moment").display().to_string();
    let value = world.place.json(21, &["restore", "database", "--to", &full, "--latest"]);
    assert_eq!(value["result"]["items"][0]["problem"]["code"], "RK-PT-011", "{value}");
}

fn damage(world: &World, at: &str) {
    // A flipped bit behind the target does no harm; on the way it is found, named, and not passed.
    let object = world.object(0);
    let whole = std::fs::read(&object).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    let value = world.to(13, "damaged", &["--latest"]);
    assert!(value["error"]["message"].as_str().unwrap().contains("0000000100000000"), "{value}");
    assert!(!world.place.path().join("damaged/pg_wal/00000002.history").exists());
    std::fs::write(&object, &whole).unwrap();
    // A middle segment that is gone: refused before anything is copied, with its name.
    let hidden = world.object(1);
    let kept = std::fs::read(&hidden).unwrap();
    std::fs::remove_file(&hidden).unwrap();
    let value = world.to(21, "hole", &["--latest"]);
    assert_eq!(value["error"]["code"], "RK-PT-005", "{value}");
    let name = hidden.file_name().unwrap().to_str().unwrap()[..24].to_owned();
    assert!(value["error"]["message"].as_str().unwrap().contains(&name), "{value}");
    assert!(!world.place.path().join("hole").exists());
    std::fs::write(&hidden, &kept).unwrap();
    // The base backup by itself, as any component of a point.
    let to = world.place.path().join("base").display().to_string();
    let done = world.place.json(0, &["restore", "latest", "database", "--to", &to]);
    assert_eq!(done["result"]["items"][0]["state"], "restored", "{done}");
    assert_eq!(world.restored("base"), "1");
    // Everything is as it was.
    world.to(0, "again", &["--at", at]);
}
