//! What differs between two points.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rekindle_testkit::{Postgres, PostgresOptions, Redis, RedisOptions};
use serde_json::{Value, json};

use super::stack::Stack;

fn component<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let all = answer["result"]["components"].as_array().unwrap();
    all.iter().find(|one| one["component"] == name).unwrap_or_else(|| panic!("{name}: {answer}"))
}

#[test]
fn files_are_told_with_sizes_and_equal_trees_are_not_read() {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    for (path, text) in
        [("same/deep/x", "x"), ("changed", "one"), ("removed/y", "gone"), ("mode", "m"), ("kind", "file")]
    {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    stack.complete();
    fs::write(data.join("changed"), "one and more").unwrap();
    fs::remove_dir_all(data.join("removed")).unwrap();
    fs::set_permissions(data.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(data.join("kind")).unwrap();
    symlink("changed", data.join("kind")).unwrap();
    fs::write(data.join("new"), "fresh").unwrap();
    stack.complete();
    let points = stack.points();
    let ids: Vec<&str> = points.iter().map(|point| point["id"].as_str().unwrap()).collect();
    let answer = stack.place.json(0, &["diff", ids[0]]);
    let files = component(&answer, "files");
    let listed: Vec<String> = files["listed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let name = one["path"].as_str().unwrap().rsplit("data/").next().unwrap();
            format!("{} {name} {} {}", one["change"].as_str().unwrap(), one["before"], one["after"])
        })
        .collect();
    assert_eq!(
        listed,
        [
            "changed changed 3 12",
            "removed kind 4 null",
            "added kind null null",
            "attributes mode 1 1",
            "added new null 5",
            "removed removed/ null null",
            "removed removed/y 4 null",
        ]
    );
    let sums = json!({"added": 2, "removed": 3, "changed": 1, "attributes": 1, "added_bytes": 14, "removed_bytes": 8});
    assert_eq!(files["entries"], sums);
    let human = stack.place.ends(0, &["diff", ids[0], ids[1]]);
    for part in ["files (files): changed", "+ ", "3 B → 12 B", "2 added, 3 removed, 1 changed"] {
        assert!(human.out.contains(part), "{part}: {}", human.out);
    }
    let few = stack.place.json(0, &["diff", ids[0], "--limit", "2"]);
    let files = component(&few, "files");
    assert_eq!((files["listed"].as_array().unwrap().len(), &files["unlisted"]), (2, &json!(5)));
    assert_eq!(files["entries"], sums);
    // A point and itself; then the other way round.
    assert_eq!(component(&stack.place.json(0, &["diff", ids[1], ids[1]]), "files")["state"], "same");
    assert_eq!(component(&stack.place.json(0, &["diff", ids[1], ids[0]]), "files")["entries"]["added"], 3);
    stack.place.ends(2, &["diff", ids[0], "--only", "nothing"]).says("RK-EN-008", &["nothing"]);
}

#[test]
fn rows_schema_and_keys_are_told() {
    let mut stack = Stack::new();
    stack.quicken();
    let postgres = Postgres::start(PostgresOptions::default());
    postgres.psql("postgres", "CREATE DATABASE app");
    postgres.psql("app", "CREATE TABLE orders AS SELECT n FROM generate_series(1, 10) n; CREATE TABLE old ()");
    stack.postgres(&postgres, postgres.port(), &["app".to_owned()], "");
    let redis = Redis::start(RedisOptions::default());
    redis.command(&[b"SET", b"a", b"1"]);
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    postgres.psql("app", "INSERT INTO orders SELECT 1 FROM generate_series(1, 5); DROP TABLE old; CREATE SEQUENCE s");
    redis.command(&[b"SET", b"b", b"1"]);
    redis.command(&[b"SELECT", b"3"]);
    stack.complete();
    // One component alone: the other is not in the second point.
    stack.place.json(0, &["backup", "cache"]);
    let points = stack.points();
    let ids: Vec<&str> = points.iter().map(|point| point["id"].as_str().unwrap()).collect();
    let answer = stack.place.json(0, &["diff", ids[0], ids[1]]);
    let database = component(&answer, "database");
    assert_eq!(database["schema_added"], json!(["sequence app.public.s"]));
    assert_eq!(database["schema_removed"], json!(["table app.public.old"]));
    let orders = &database["counts"][1];
    assert_eq!(
        (&orders["name"], &orders["before"], &orders["after"]),
        (&json!("app.public.orders"), &json!(10), &json!(15))
    );
    let cache = component(&answer, "cache");
    assert_eq!((&cache["counts"][0]["before"], &cache["counts"][0]["after"]), (&json!(1), &json!(2)), "{cache}");
    let answer = stack.place.json(0, &["diff", ids[1], ids[2]]);
    assert_eq!(component(&answer, "database")["state"], "removed");
    assert_eq!(component(&answer, "cache")["counts"], json!([]));
    let human = stack.place.ends(0, &["diff", ids[0], ids[1]]).out;
    for part in ["rows     10 → 15  app.public.orders", "schema + sequence app.public.s", "keys     1 → 2  database 0"]
    {
        assert!(human.contains(part), "{part}: {human}");
    }
}
