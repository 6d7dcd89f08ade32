//! Partial points: which point `latest` means, and what a restore of everything says about them.

use rekindle_testkit::port::Port;
use rekindle_testkit::{Redis, RedisOptions};

use super::stack::{Stack, assert_same_trees, below};

#[test]
fn a_restore_of_everything_from_a_partial_point_names_what_it_lacks() {
    let redis = Redis::start(RedisOptions::default());
    let mut stack = Stack::new();
    let data = stack.files("data");
    std::fs::write(data.join("a"), "one").unwrap();
    let nobody = Port::take();
    stack.redis(&redis, nobody.number(), "");
    stack.partial("cache", &["RK-RD-001"]);
    // No complete point yet: an error, not the newest one.
    for command in ["show", "restore"] {
        let ended = stack.place.run(&[command, "latest:complete"]);
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.err.contains("complete") && ended.err.contains("\nhint: "), "{ended:#?}");
    }
    stack.redis(&redis, redis.port(), "");
    let complete = stack.complete();
    stack.redis(&redis, nobody.number(), "");
    stack.partial("cache", &["RK-RD-001"]);
    let partial = stack.newest();
    assert_ne!(partial["id"], complete["point"]);

    let shown = |word: &str| stack.place.json(0, &["show", word])["result"]["id"].clone();
    assert_eq!(shown("latest"), partial["id"]);
    assert_eq!(shown("latest:complete"), complete["point"]);

    let value = stack.place.json(3, &["restore", "latest", "--to", "part"]);
    assert_eq!(value["error"]["code"], "RK-EN-003", "{value}");
    assert!(value["error"]["message"].as_str().unwrap().contains("`cache`"), "{value}");
    assert!(value["error"]["hint"].is_string(), "{value}");
    assert_same_trees(&data, &below(&stack.path("part"), &data));
    let ended = stack.place.ends(3, &["restore", "latest", "--to", "again"]);
    ended.says("RK-EN-003", &["`cache`"]);
    // What was asked for is there.
    stack.place.json(0, &["restore", "latest", "files", "--to", "files"]);
    let value = stack.place.json(0, &["restore", "latest:complete", "--to", "whole"]);
    assert_eq!(value["result"]["point"], complete["point"]);
    assert_same_trees(&data, &below(&stack.path("whole/files"), &data));
    assert!(stack.path("whole/cache").is_dir());
}

#[test]
fn a_point_of_one_component_is_not_the_whole_stack() {
    let redis = Redis::start(RedisOptions::default());
    let mut stack = Stack::new();
    std::fs::write(stack.files("data").join("a"), "one").unwrap();
    stack.redis(&redis, redis.port(), "");
    stack.place.ends(0, &["backup", "files"]);
    let ended = stack.place.ends(3, &["restore", "latest", "--to", "back"]);
    ended.says("RK-EN-003", &["`cache`"]);
    stack.place.ends(0, &["restore", "latest", "files", "--to", "files"]);
}
