//! Redis that fails or dies is never a complete point, and the next run works.

use std::time::Duration;

use rekindle_testkit::fixtures::{compare_redis, redis_data, redis_fingerprint};
use rekindle_testkit::{Direction, Fault, Proxy, Redis, RedisOptions};

use super::stack::{Stack, end, noise, wait_until};

fn stack_of(redis: &Redis, port: u16) -> Stack {
    let mut stack = Stack::new();
    let data = stack.files("data");
    std::fs::write(data.join("a"), "one").unwrap();
    redis_data(redis, 50);
    stack.redis(redis, port, "");
    stack
}

#[test]
fn a_wrong_password_is_20_and_not_shown() {
    let options = RedisOptions { password: Some("canary-redis".to_owned()), ..RedisOptions::default() };
    let redis = Redis::start(options);
    let stack = stack_of(&redis, redis.port());
    stack.place.write("redis-password", "canary-wrong-password\n");
    stack.partial("cache", &["RK-RD-002"]);
    let ended = stack.fails_alone("cache", 20);
    assert!(!format!("{ended:?}").contains("canary"), "{ended:#?}");
    stack.place.write("redis-password", "canary-redis\n");
    stack.complete();
}

#[test]
fn a_stream_that_is_cut_is_no_success() {
    let redis = Redis::start(RedisOptions::default());
    let proxy = Proxy::start(redis.port());
    let stack = stack_of(&redis, proxy.port());
    stack.complete();
    for fault in [Fault::CutAfter(Direction::ToClient, 1_000_000), Fault::ResetAfter(Direction::ToClient, 500_000)] {
        proxy.set(fault);
        stack.partial("cache", &["RK-RD-005", "RK-RD-001", "RK-RD-004"]);
        assert_ne!(stack.place.run(&["backup", "cache"]).code, 0);
        assert_eq!(stack.newest()["state"], "partial");
    }
    proxy.set(Fault::None);
    stack.complete();
}

#[test]
fn a_server_that_dies_in_the_middle_is_no_success() {
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Redis::start(RedisOptions {
        dir: Some(directory.path().to_owned()),
        appendonly: true,
        ..RedisOptions::default()
    });
    let proxy = Proxy::start(redis.port());
    let stack = stack_of(&redis, proxy.port());
    // More than all buffers on the way take.
    for n in 0..32_u64 {
        let name = format!("large-{n}");
        redis.command(&[b"SET", name.as_bytes(), &noise(n, 1 << 20)]);
    }
    let keys = redis_fingerprint(&redis);
    let start = proxy.bytes();
    proxy.set(Fault::Delay(Duration::from_millis(20)));
    let child = stack.start(&["backup", "--json"]);
    wait_until("the stream flows", || proxy.bytes() > start + 1_000_000);
    redis.kill9();
    proxy.set(Fault::None);
    let ended = end(child);
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.err.contains("cache"), "{ended:#?}");
    assert_eq!(stack.complete_points(), Vec::<String>::new());
    stack.partial("cache", &["RK-RD-001"]);
    stack.fails_alone("cache", 20);
    redis.restart();
    stack.complete();
    stack.place.json(0, &["restore", "latest", "cache", "--to", "back"]);
    let back =
        Redis::start(RedisOptions { dir: Some(stack.path("back")), appendonly: true, ..RedisOptions::default() });
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&back), 0), Vec::<String>::new());
}
