//! A whole stack with a physical PostgreSQL and its log: destroyed, and recovered to a chosen moment.

use std::fs;
use std::time::{Duration, Instant};

use rekindle_testkit::fixtures::{compare_redis, redis_data, redis_fingerprint};
use rekindle_testkit::{Redis, RedisOptions};
use serde_json::Value;

use super::logged::{Logged, MARKERS};
use super::stack::end;
use crate::run::Place;

fn states(answer: &Value) -> Vec<String> {
    let all = answer["result"]["components"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().map(|one| format!("{} {}", one["component"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
}

struct World {
    one: Logged,
    redis: Redis,
}

impl World {
    fn start() -> Self {
        let mut one = Logged::start();
        one.stack.files("data");
        let dir = one.stack.path("redis");
        let redis = Redis::start(RedisOptions { appendonly: true, dir: Some(dir.clone()), ..RedisOptions::default() });
        one.stack.redis(&redis, redis.port(), &format!("data-dir = \"{}\"", dir.display()));
        one.configure("objective = { rto = \"10m\" }");
        Self { one, redis }
    }

    fn write(&self, text: &str) {
        fs::write(self.one.stack.path("data/a"), text).unwrap();
        self.redis.command(&[b"SET", b"state", text.as_bytes()]);
    }

    /// Everything but the repository is gone.
    fn destroy(&mut self) {
        self.one.lose();
        self.redis.stop();
        let _ = fs::remove_dir_all(self.one.stack.path("redis"));
        let _ = fs::remove_dir_all(self.one.stack.path("data"));
    }

    /// Starts what was recovered, and says what is in it.
    fn look(&mut self) -> (String, String, String) {
        self.one.server.restart();
        self.redis.restart();
        let rows = self.one.server.psql("postgres", MARKERS);
        let state = self.redis.command(&[b"GET", b"state"]);
        let state = String::from_utf8_lossy(state.bytes()).into_owned();
        (rows, state, fs::read_to_string(self.one.stack.path("data/a")).unwrap())
    }
}

fn found(markers: u32, cache: &str, files: &str) -> (String, String, String) {
    (Logged::numbers(markers), cache.to_owned(), files.to_owned())
}

#[test]
fn a_destroyed_stack_with_a_log_comes_back_to_a_chosen_moment() {
    let mut world = World::start();
    redis_data(&world.redis, 20);
    world.one.mark();
    world.write("first");
    world.one.stack.complete();
    let keys = redis_fingerprint(&world.redis);
    world.one.mark();
    let wanted = world.one.mark();
    world.one.mark();
    world.write("second");
    world.one.stack.place.json(0, &["backup", "cache"]);
    let aligned = jiff::Timestamp::now();
    world.one.mark();
    world.one.switch();
    world.one.mark();
    world.one.received();
    let at = wanted.to_string();
    world.one.stack.place.json(0, &["drill"]);

    // Nothing is lost yet: nothing is touched.
    let refused = world.one.stack.place.json(21, &["recover", "--at", &at]);
    assert!(refused["error"]["message"].as_str().unwrap().contains("`database`"), "{refused}");
    world.destroy();
    let plan = world.one.stack.place.ends(0, &["recover", "--at", &at, "--dry-run"]);
    for part in [format!("is brought to exactly {at}"), "forecast, from earlier recoveries and drills, one".to_owned()]
    {
        assert!(plan.out.contains(&part), "{part}: {}", plan.out);
    }
    interrupted(&world, &at);
    let answer = world.one.stack.place.json(0, &["recover", "--resume"]);
    assert_eq!(states(&answer), ["database recovered", "cache recovered", "files recovered"], "{answer:#}");
    let database = &answer["result"]["components"][0];
    assert_eq!((&database["rto_met"], &database["captured_at"]), (&true.into(), &at.as_str().into()), "{database:#}");
    assert!(answer["result"]["skew_ms"].as_u64().unwrap() > 0, "{answer:#}");
    assert_eq!(world.look(), found(3, "first", "first"));
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&world.redis), 120_000), Vec::<String>::new());

    // PostgreSQL as it was when Redis was captured: the two fit each other.
    world.destroy();
    let answer = world.one.stack.place.json(0, &["recover", "--align"]);
    assert_eq!(states(&answer), ["database recovered", "cache recovered", "files recovered"], "{answer:#}");
    let moments: Vec<&Value> =
        answer["result"]["components"].as_array().unwrap().iter().map(|one| &one["captured_at"]).collect();
    assert_eq!(moments[0], moments[1], "{answer:#}");
    assert!(moments[0].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() < aligned);
    assert_eq!(world.look(), found(4, "second", "first"));
    let refused = world.one.stack.place.ends(2, &["recover", "--align=nothing", "--dry-run"]);
    refused.says("RK-CL-001", &["no such Redis"]);

    on_a_bare_machine(&mut world);
}

/// Killed while the log is replayed or the base backup fetched.
fn interrupted(world: &World, at: &str) {
    let mut child = world.one.stack.start(&["recover", "--at", at]);
    let parent = world.one.server.data_dir().parent().unwrap();
    let staged = || {
        let names = fs::read_dir(parent).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.to_string_lossy().contains(".rekindle-restore-"))
    };
    let until = Instant::now() + Duration::from_mins(1);
    while !staged() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "it was to be killed in the middle");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(150));
    child.kill().unwrap();
    assert_ne!(end(child).code, 0);
}

/// Nothing but the program, URL and key: to the newest state.
fn on_a_bare_machine(world: &mut World) {
    world.destroy();
    let stack = &world.one.stack;
    for file in ["rekindle.toml", "made.toml", "key", "pg-password"] {
        fs::remove_file(stack.path(file)).unwrap();
    }
    let bare = Place::new();
    bare.write("the-key", &format!("{}\n", super::stack::REPOSITORY_PASSWORD));
    bare.write("pg", world.one.server.password());
    let url = format!("file://{}", stack.path("repo").display());
    let recover =
        ["recover", "--from", &url, "--password-file", "the-key", "--set", "component.database.password=file:pg"];
    let human = bare.ends(0, &recover);
    assert!(human.err.contains("is brought to the end of the log; its newest commit is of "), "{human:#?}");
    assert!(human.out.contains("met ("), "the objective is judged: {human:#?}");
    assert_eq!(world.look(), found(6, "second", "first"));
    assert!(world.one.stack.path("rekindle.toml").exists());
}

#[test]
fn missing_wal_refuses_a_recovery_before_anything_is_touched() {
    let mut world = World::start();
    world.one.mark();
    world.write("first");
    world.one.stack.complete();
    world.one.switch();
    let before = world.one.mark();
    world.one.mark();
    world.one.switch();
    world.one.mark();
    world.one.switch();
    world.one.mark();
    world.one.received();
    let sealed = world.one.segments();
    let lost = &sealed[sealed.len() - 1];
    let name = lost.file_name().unwrap().to_str().unwrap()[..24].to_owned();
    fs::remove_file(lost).unwrap();
    world.destroy();
    let refused = world.one.stack.place.json(21, &["recover"]);
    assert_eq!(refused["error"]["code"], "RK-PT-005", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains(&name), "{refused}");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("reachable: "), "{refused}");
    assert!(!world.one.stack.path("data").exists() && !world.one.server.data_dir().exists(), "nothing was touched");
    world.one.stack.place.json(0, &["recover", "--at", &before.to_string()]);
    assert_eq!(world.look(), found(2, "first", "first"));
}

/// The user's own checks are asked of what was recovered; what they refuse is taken back.
#[test]
fn a_users_check_that_says_no_brings_the_old_cluster_back() {
    let mut world = World::start();
    world.one.mark();
    world.write("first");
    world.one.stack.complete();
    world.one.mark();
    world.one.received();
    world.one.stop_receiver();
    world.one.server.stop();
    let recover = ["recover", "--replace", "--only", "database"];
    world.one.configure("checks = [\"SELECT count(*) = 77 FROM marker\"]");
    let answer = world.one.stack.place.json(4, &recover);
    assert_eq!(states(&answer), ["database rolled-back"], "{answer:#}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("says no"), "{answer:#}");
    world.one.server.restart();
    world.one.server.psql("postgres", "INSERT INTO marker VALUES (1000)");
    assert_eq!(world.one.server.psql("postgres", MARKERS), "1,2,1000", "the old cluster runs again");
    world.one.server.stop();
    world.one.configure("checks = [\"SELECT count(*) = 2 FROM marker\"]");
    let answer = world.one.stack.place.json(0, &["recover", "--replace", "--only", "database", "--restart"]);
    assert_eq!(states(&answer), ["database recovered"], "{answer:#}");
    assert!(answer["result"]["components"][0]["findings"].to_string().contains("says yes"), "{answer:#}");
    world.one.server.restart();
    assert_eq!(world.one.server.psql("postgres", MARKERS), "1,2");
}
