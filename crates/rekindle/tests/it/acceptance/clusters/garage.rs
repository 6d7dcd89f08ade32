//! Garage: what it does not keep is told, and refused where it would cost data.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rekindle_testkit::{Garage, S3Door};
use serde_json::Value;

use super::super::object_lock::stack_in;
use super::super::stack::{Stack, assert_same_trees, below, noise};
use crate::run::Place;

/// Garage compares its nodes some seconds after a start, and every ten minutes.
const SETTLES_MAX: Duration = Duration::from_mins(3);

/// A stack with one point, whose repository is reached through a node.
pub(super) fn stack_on(garage: &Garage, node: usize) -> (Stack, PathBuf) {
    let door = garage.door(node);
    let mut stack = stack_in(&door, &door.owner, garage.bucket(), "");
    let data = stack.files("data");
    fs::write(data.join("first"), noise(1, 2 << 20)).unwrap();
    stack.complete();
    (stack, data)
}

/// From now on the repository is reached through another node.
pub(super) fn go_through(stack: &Stack, from: &S3Door, to: &S3Door) {
    let config = stack.place.read("rekindle.toml");
    assert!(config.contains(&from.endpoint()), "{config}");
    stack.place.write("rekindle.toml", &config.replace(&from.endpoint(), &to.endpoint()));
}

/// Names in a folder of the repository, as a node lists them.
pub(super) fn names(garage: &Garage, node: usize, folder: &str) -> BTreeSet<String> {
    let door = garage.door(node);
    let query = format!("list-type=2&prefix=shop%2F{folder}%2F");
    let (status, page) = door.request(&door.owner, ("GET", &format!("/{}", garage.bucket()), &query), &[], b"");
    assert!(status == 200 && page.contains("<IsTruncated>false"), "{status}: {page}");
    page.split("<Key>").skip(1).map(|part| part.split('<').next().unwrap().to_owned()).collect()
}

/// A node that was away while objects were deleted goes on listing them until it has caught up, though every node
/// says that they are not there. Then `verify` sees damage, and says of what; this waits for its end. How long
/// that took.
pub(super) fn settles(stack: &Stack) -> Duration {
    let begun = Instant::now();
    loop {
        let seen = stack.place.run(&["verify", "--json"]);
        if seen.code == 0 {
            return begun.elapsed();
        }
        let answer: Value = serde_json::from_str(&seen.out).unwrap();
        assert_eq!(seen.code, 13, "{answer:#}");
        for damage in answer["result"]["damage"].as_array().unwrap() {
            let stale = damage["code"] == "RK-ST-004" && damage["object"].as_str().unwrap().starts_with("index/");
            assert!(stale, "more than an object that is listed and not there: {answer:#}");
        }
        assert!(begun.elapsed() < SETTLES_MAX, "{answer:#}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Everything is whole, and the newest point comes back equal.
pub(super) fn comes_back(stack: &Stack, data: &std::path::Path) {
    stack.place.json(0, &["verify", "--read-data"]);
    assert!(stack.points().iter().all(|point| point["state"] == "complete"));
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_same_trees(data, &below(&stack.path("back"), data));
    fs::remove_dir_all(stack.path("back")).unwrap();
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_keeps_no_condition_and_no_lock_and_both_are_told() {
    let garage = Garage::start();
    let door = garage.door(0);
    let (stack, data) = stack_on(&garage, 0);
    // What one node wrote, another one gives.
    go_through(&stack, &door, &garage.door(1));
    comes_back(&stack, &data);
    let doctor = stack.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("a second writer could write over an object (no put-if-absent)"), "{doctor:#?}");
    assert!(doctor.out.contains("whoever takes this host can destroy every point"), "{doctor:#?}");

    // `init` says so at once.
    let url = format!("s3://{}/other?endpoint={}&region={}", garage.bucket(), door.endpoint(), door.region);
    let init = |config: &str, more: &[&str]| {
        let always = ["init", "--config", config, "--repo", &url, "--password-file", "key", "--files", "seed"];
        stack.place.ends(0, &[&always[..], more].concat())
    };
    let made = init("one.toml", &[]);
    assert!(made.out.contains("no put-if-absent") && made.out.contains("one host"), "{made:#?}");
    let again = init("two.toml", &["--json"]);
    assert!(again.out.contains("\"put_if_absent\": null"), "it was there already, nothing was tried: {again:#?}");

    // A lock that is accepted and not kept is BAD, and a backup that wants one fails.
    let config = stack.place.read("rekindle.toml");
    let locked = "object-lock = \"compliance\"\nobject-lock-days = 1\npassword = \"file:key\"";
    stack.place.write("rekindle.toml", &config.replace("password = \"file:key\"", locked));
    let doctor = stack.place.run(&["doctor"]);
    assert!(doctor.code == 4 && doctor.out.contains("BAD"), "{doctor:#?}");
    let backup = stack.place.run(&["backup"]);
    assert_ne!(backup.code, 0, "{backup:#?}");
    assert!(backup.err.contains("RK-ST-017") && backup.err.contains("\nhint: "), "{backup:#?}");
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_is_refused_for_a_repository_that_hosts_share() {
    let garage = Garage::start();
    let (stack, data) = stack_on(&garage, 0);
    let config = stack.place.read("rekindle.toml");
    let other = Place::new();
    other.write("key", &stack.place.read("key"));
    other.write("rekindle.toml", &config.replace("host = \"test-host\"", "host = \"other\""));
    let mut other = other;
    other.set("AWS_SECRET_ACCESS_KEY", &garage.door(0).owner.secret);
    for arguments in [&["backup"][..], &["backup", "--force"]] {
        let refused = other.run(arguments);
        assert_ne!(refused.code, 0, "{refused:#?}");
        refused.says("RK-RP-031", &["no put-if-absent", "test-host"]);
    }
    // The host whose repository it is goes on.
    assert_eq!(stack.points().len(), 1);
    stack.complete();
    comes_back(&stack, &data);
}
