//! The way of a stack of files: saved, looked at, lost, brought back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::run::{Ended, Place};
use crate::set_up::{self, backup};

#[test]
fn a_stack_is_saved_shown_and_brought_back() {
    let place = set_up::place();
    let saved = place.json(0, &["backup"]);
    assert_eq!(saved["result"]["state"], "complete");
    assert_eq!(saved["result"]["trust"], "unverified");
    let point = saved["result"]["point"].as_str().unwrap().to_owned();

    let listed = place.json(0, &["list"]);
    let first = &listed["result"]["points"][0];
    assert_eq!((first["id"].as_str(), &first["components"]), (Some(point.as_str()), &json!(["files"])));
    let shown = place.json(0, &["show", &point[..8]]);
    assert_eq!(shown["result"]["manifest"]["state"], "complete");
    let text = place.ends(0, &["show"]).out;
    assert!(text.contains("complete, unverified"), "{text}");

    let data = place.path().join("data");
    let inside = format!("files{}", data.display());
    let names = place.ends(0, &["ls", "latest", "files", "--recursive"]).out;
    assert!(names.contains("a.txt") && names.contains("sub/b.txt"), "{names}");
    assert_eq!(place.ends(0, &["cat", "latest", &format!("{inside}/a.txt")]).out, "one\n");

    assert_eq!(place.json(0, &["verify", "--read-data"])["result"]["damage"], json!([]));
    std::fs::remove_dir_all(&data).unwrap();
    place.json(0, &["restore", "latest", "--to", "back"]);
    let back = place.path().join("back").join(data.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(back.join("a.txt")).unwrap(), "one\n");
    assert_eq!(std::fs::read_to_string(back.join("sub/b.txt")).unwrap(), "two\n");
    place.ends(0, &["restore", "latest", "--in-place", "--no-safety-point"]);
    assert_eq!(std::fs::read_to_string(data.join("sub/b.txt")).unwrap(), "two\n");
}

#[test]
fn a_repository_and_its_password_are_enough() {
    let place = set_up::place();
    backup(&place);
    // Another host: nothing but the repository and the password.
    let other = Place::new();
    other.write("key", "canary-password\n");
    let repo = place.path().join("repo").display().to_string();
    let with = |arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--repo", &repo, "--password-file", "key"]).collect();
        other.ends(0, &all)
    };
    assert!(with(&["list"]).out.contains("complete"));
    with(&["show"]);
    with(&["ls", "latest", "files"]);
    with(&["verify"]);
    with(&["restore", "latest", "--to", "back"]);
    let name = place.path().join("data/a.txt");
    let back = other.path().join("back").join(name.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(back).unwrap(), "one\n");
    let mut from_variable = other.command(&["list", "--repo", &repo]);
    let output = from_variable.env("REKINDLE_PASSWORD", "canary-password").output().unwrap();
    assert!(output.status.success());
}

#[test]
fn dry_runs_show_the_plan_and_change_nothing() {
    let place = set_up::place();
    assert!(place.ends(0, &["backup", "--dry-run"]).out.contains("Nothing was captured"));
    assert_eq!(place.json(0, &["list"])["result"]["points"], json!([]));
    backup(&place);
    assert!(place.ends(0, &["restore", "latest", "--to", "x", "--dry-run"]).out.contains("Nothing was restored"));
    assert!(!place.path().join("x").exists());
    place.ends(0, &["prune", "--dry-run"]);
}

#[test]
fn status_judges_by_the_objectives() {
    let mut place = set_up::place();
    let config = place.read("rekindle.toml");
    place.write("rekindle.toml", &format!("{config}objective = {{ rpo = \"1h\" }}\n"));
    let missed = place.json(4, &["status"]);
    assert_eq!(missed["error"]["code"], "RK-EN-009");
    backup(&place);
    let met = place.json(0, &["status"]);
    assert_eq!(met["result"]["components"][0]["verdict"], "met");
    assert_eq!(met["result"]["components"][0]["trust"], "unverified");
    // Seen from another host, there is nothing.
    place.set("REKINDLE_CONFIG", "other.toml");
    place.write(
        "other.toml",
        &format!("{config}objective = {{ rpo = \"1h\" }}\n").replace("\"test\"", "\"test\"\nhost = \"other\""),
    );
    place.ends(4, &["status"]);
}

#[test]
fn doctor_finds_a_sound_stack_sound() {
    let place = set_up::place();
    let ended = place.ends(0, &["doctor"]);
    assert!(ended.out.contains("good     repository: opens"), "{ended:#?}");
    std::fs::remove_dir_all(place.path().join("data")).unwrap();
    place.ends(4, &["doctor"]).says("RK-CL-003", &["BAD"]);
}

#[test]
fn a_missing_component_makes_the_point_partial() {
    let place = set_up::place();
    let config = place.read("rekindle.toml");
    // Port 9 (discard) has no server on a test host.
    let database = "\n[component.db]\nkind = \"postgres\"\nurl = \"postgres://u@127.0.0.1:9/app\"\n";
    place.write("rekindle.toml", &format!("{config}{database}"));
    let partial = place.json(3, &["backup"]);
    assert_eq!(partial["result"]["state"], "partial");
    assert_eq!(partial["error"]["code"], "RK-EN-003");
    let shown = place.ends(0, &["show"]).out;
    assert!(shown.contains("partial") && shown.contains("missing: db"), "{shown}");
    assert!(place.ends(0, &["list"]).out.contains("(missing: db)"));
    // Without any component there is no point.
    place.json(20, &["backup", "db"]);
    assert_eq!(place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 1);
}

#[test]
fn an_interrupted_backup_ends_with_130_and_leaves_no_point() {
    let place = set_up::place();
    let big = std::fs::File::create(place.path().join("data/big")).unwrap();
    big.set_len(64 << 30).unwrap();
    let mut command = place.command(&["backup"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The lock is there once the run writes.
    let locks = place.path().join("repo/locks");
    let until = Instant::now() + Duration::from_mins(1);
    while std::fs::read_dir(&locks).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "the backup did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{ended:#?}");
    assert!(ended.err.contains("error[RK-RUN-001]"), "{ended:#?}");
    assert_eq!(place.json(0, &["list"])["result"]["points"], json!([]));
    assert_eq!(std::fs::read_dir(&locks).unwrap().count(), 0, "the lock is released");
}

#[test]
fn no_secret_is_shown() {
    let place = set_up::place();
    let config = place.read("rekindle.toml");
    place.write("redis-password", "canary-redis\n");
    let cache =
        "\n[component.cache]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:9\"\npassword = \"file:redis-password\"\n";
    place.write("rekindle.toml", &format!("{config}{cache}"));
    for arguments in [
        &["backup", "-vv"][..],
        &["doctor", "-vv"],
        &["check-config"],
        &["list", "--json"],
        &["show", "--json"],
        &["key", "list"],
    ] {
        let ended = place.run(arguments);
        assert!(!format!("{ended:?}").contains("canary"), "{arguments:?}: {ended:#?}");
    }
}

#[test]
fn a_snapshot_that_restic_made_can_be_restored() {
    let place = set_up::place();
    let restic = |arguments: &[&str]| {
        let output = std::process::Command::new(rekindle_testkit::tools::find("restic"))
            .args(arguments)
            .args(["--repo", "repo", "--password-file", "key", "--no-cache", "--json"])
            .current_dir(place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = restic(&["backup", "data"]);
    let summary: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let id = summary["snapshot_id"].as_str().unwrap();
    let listed = place.json(0, &["list"]);
    assert_eq!(listed["result"]["foreign_snapshots"], 1);
    place.ends(2, &["restore", id]).says("RK-CL-001", &["--to DIRECTORY"]);
    place.ends(0, &["restore", id, "--to", "back"]);
    assert_eq!(place.read("back/data/sub/b.txt"), "two\n");
    place.ends(21, &["restore", id, "--to", "back"]);
}
