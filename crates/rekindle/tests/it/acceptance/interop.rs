//! Stock restic reads our repositories, and we read its.

use std::fs;
use std::path::Path;

use rekindle_testkit::fixtures::{CompareOptions, OddTreeOptions, compare_trees_with, odd_tree_with};
use rekindle_testkit::{Redis, RedisOptions};

use super::stack::{Stack, below};

/// Debian's 0.14 and the newest one.
const PROGRAMS: [&str; 2] = ["restic", "restic-new"];
// restic 0.14 writes holes as zeros.
const ODD: OddTreeOptions = OddTreeOptions { small_files: 120, medium_files: 3, sparse: false, depth: 20 };

/// The trees are the same, but for what restic itself does not keep: names of one symbolic link as
/// one file, and (before 0.17) the target of a link that is no UTF-8.
fn same_but_for_restic(program: &str, before: &Path, after: &Path) {
    let options = CompareOptions { sockets: false, ..CompareOptions::default() };
    let mut found = compare_trees_with(before, after, &options);
    found.retain(|line| {
        let hard_linked_link = line.starts_with("\"links/dangling-again\": first name");
        let odd_target = program == "restic" && line.starts_with("\"links/odd-target\": link target");
        !(hard_linked_link || odd_target)
    });
    assert_eq!(found, Vec::<String>::new(), "{program}");
}

#[test]
fn stock_restic_reads_every_byte() {
    let redis = Redis::start(RedisOptions::default());
    rekindle_testkit::fixtures::redis_data(&redis, 20);
    let mut stack = Stack::new();
    let data = stack.files("data");
    odd_tree_with(&data, &ODD);
    stack.redis(&redis, redis.port(), "");
    stack.complete();
    fs::write(data.join("second"), "point").unwrap();
    stack.complete();
    for program in PROGRAMS {
        stack.restic_check(program, &["--read-data"]);
        let to = stack.path(program);
        let ended = stack.restic(program, &["restore", "latest", "--verify", "--target", to.to_str().unwrap()]);
        assert_eq!(ended.code, 0, "{program}: {ended:#?}");
        same_but_for_restic(program, &data, &below(&to.join("files"), &data));
        // One file of another component, the same through both programs.
        let listed = stack.place.json(0, &["ls", "latest", "cache", "--recursive"]);
        let entries = listed["result"]["entries"].as_array().unwrap();
        for entry in entries.iter().filter(|entry| entry["kind"] == "file") {
            let name = format!("cache/{}", entry["path"].as_str().unwrap());
            let ours = stack.place.command(&["cat", "latest", &name]).output().unwrap();
            assert_eq!(fs::read(to.join(&name)).unwrap(), ours.stdout, "{program} {name}");
        }
    }
}

#[test]
fn what_restic_wrote_is_listed_nowhere_as_ours_and_comes_back_equal() {
    for program in PROGRAMS {
        let stack = Stack::new();
        let data = stack.path("data");
        fs::create_dir(&data).unwrap();
        odd_tree_with(&data, &ODD);
        let theirs = stack.path("theirs");
        for arguments in [&["init"][..], &["backup", data.to_str().unwrap()]] {
            let ended = stack.restic_at(&theirs, program, arguments);
            assert_eq!(ended.code, 0, "{program}: {ended:#?}");
        }
        let listed = stack.restic_at(&theirs, program, &["snapshots", "--json"]);
        let snapshots: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
        let id = snapshots[0]["short_id"].as_str().unwrap();
        let url = theirs.to_str().unwrap();
        let with = ["--repo", url, "--password-file", "key"];
        let arguments = |own: &[&'static str]| own.iter().copied().chain(with).collect::<Vec<_>>();
        let points = stack.place.json(0, &arguments(&["list"]));
        assert_eq!(points["result"]["points"], serde_json::json!([]));
        let restore = ["restore", id, "--to", "back", "--repo", url, "--password-file", "key"];
        stack.place.json(0, &restore);
        same_but_for_restic(program, &data, &below(&stack.path("back"), &data));
        // Not into what is there.
        stack.place.ends(21, &restore);
    }
}
