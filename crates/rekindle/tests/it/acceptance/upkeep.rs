//! What keeps a repository in order by itself: the audit log, new passwords, the maintenance of a day, a week
//! and a month.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::stack::{Stack, noise};
use crate::run::Ended;

fn acts(stack: &Stack) -> Vec<(String, u64)> {
    let listed = stack.place.json(0, &["audit", "list"]);
    let acts = listed["result"]["acts"].as_array().unwrap();
    acts.iter().map(|act| (act["operation"].as_str().unwrap().to_owned(), act["exit_code"].as_u64().unwrap())).collect()
}

fn record(stack: &Stack, number: u32) -> PathBuf {
    stack.path(&format!("repo/rekindle/audit/{number:012}"))
}

fn stack_of_files() -> Stack {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 200_000)).unwrap();
    fs::write(data.join("b"), "text\n").unwrap();
    stack
}

#[test]
fn every_operation_is_recorded_and_every_change_of_the_records_is_seen() {
    let stack = stack_of_files();
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    stack.complete();
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    stack.place.json(0, &["restore", "latest", "--to", "nothing", "--dry-run"]);
    stack.place.json(0, &["point", "hold", "latest"]);
    stack.place.json(0, &["forget", &first]);
    stack.place.ends(0, &["cat", "latest", &format!("files{}", stack.path("data/b").display())]);
    stack.place.write("second", "canary-second-password");
    stack.place.json(0, &["key", "add", "--new-password-file", "second"]);
    stack.place.ends(0, &["key", "list"]);
    // It changed nothing, and it was tried.
    let failed = stack.place.run(&["restore", "latest", "nothing-of-this-name", "--to", "x"]);
    assert_ne!(failed.code, 0);
    let seen = acts(&stack);
    let words: Vec<&str> = seen.iter().map(|(word, _)| word.as_str()).collect();
    assert_eq!(words[..5], ["restore", "point", "forget", "cat", "key"], "{seen:?}");
    assert!(!format!("{:?}", stack.place.run(&["audit", "list", "--json"])).contains("canary"), "a secret is shown");
    let listed = stack.place.json(0, &["audit", "list", "--last", "3"]);
    assert_eq!(listed["result"]["acts"].as_array().unwrap().len(), 3);
    assert_eq!(
        listed["result"]["acts"][0]["subjects"].as_array().unwrap().contains(&Value::from(first)),
        seen.len() == 5
    );
    stack.place.json(0, &["audit", "verify"]);
    // The next point knows the newest record.
    stack.complete();

    let changed = |what: &str| {
        let said = stack.place.json(13, &["audit", "verify"]);
        assert_eq!(said["error"]["code"], "RK-RP-021", "{what}: {said}");
        assert_eq!(stack.place.run(&["verify"]).code, 13, "{what}");
    };
    let kept: Vec<Vec<u8>> = (1..=5).map(|number| fs::read(record(&stack, number)).unwrap()).collect();
    let mut flipped = kept[1].clone();
    flipped[20] ^= 1;
    fs::write(record(&stack, 2), &flipped).unwrap();
    changed("a flipped bit");
    fs::write(record(&stack, 2), &kept[2]).unwrap();
    changed("another record in its place");
    fs::remove_file(record(&stack, 2)).unwrap();
    changed("a record that is gone");
    fs::write(record(&stack, 2), &kept[1]).unwrap();
    stack.place.json(0, &["audit", "verify"]);
    let last = u32::try_from(seen.len()).unwrap();
    fs::remove_file(record(&stack, last)).unwrap();
    changed("the end cut off, which a point has seen");
}

#[test]
fn a_password_is_rotated_in_its_file_and_the_old_one_opens_nothing() {
    let stack = stack_of_files();
    stack.complete();
    let old = stack.place.read("key");
    stack.place.ends(0, &["kit", "create", "--out", "kit"]);
    stack.place.json(0, &["kit", "confirm", "key"]);
    let rotated = stack.place.json(0, &["key", "rotate"]);
    let new = stack.place.read("key");
    assert!(new != old && new.trim().len() == 64);
    assert!(!rotated.to_string().contains(new.trim()), "the password is shown");
    assert_eq!(rotated["result"]["removed"].as_array().unwrap().len(), 1);
    stack.place.json(0, &["verify"]);
    stack.place.write("old", &old);
    stack.place.ends(12, &["list", "--password-file", "old"]);
    assert_eq!(stack.place.json(0, &["status"])["result"]["kit"]["state"], "outdated");
    // Whoever could read the old one can read the new one, also after a rotation that was interrupted.
    let (file, root) = (stack.path("key"), rustix::process::getuid().is_root());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    if root {
        std::os::unix::fs::chown(&file, Some(4321), Some(1234)).unwrap();
    }
    stack.place.write("key.new", "left behind");
    stack.place.json(0, &["key", "rotate"]);
    let kept = fs::metadata(&file).unwrap();
    assert_eq!(kept.mode() & 0o7777, 0o640);
    assert!(!root || (kept.uid(), kept.gid()) == (4321, 1234), "{kept:?}");
    assert!(!stack.path("key.new").exists());
    let new = stack.place.read("key");
    stack.place.json(0, &["verify"]);
    // One that is not read from a file goes into a new one.
    let mut variable = stack.place.command(&["key", "rotate", "--repo", &format!("{}", stack.path("repo").display())]);
    let refused = variable.env("REKINDLE_PASSWORD", new.trim()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    stack.place.json(0, &["key", "rotate", "--out", "third"]);
    stack.place.ends(12, &["list"]);
    stack.place.json(0, &["list", "--password-file", "third"]);
}

fn tasks(report: &Value) -> Vec<(&str, &str)> {
    let tasks = report["result"]["tasks"].as_array().unwrap();
    tasks.iter().map(|one| (one["task"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
}

#[test]
fn seed_maintenance_the_tasks_of_a_day_a_week_and_a_month_are_done_and_shown_with_evidence() {
    let mut stack = stack_of_files();
    stack.place.write("copy-key", "canary-password-of-the-copy");
    let url = format!("file://{}", stack.path("copy").display());
    stack.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n"));
    stack.set("[retention]\nkeep-daily = 7\n");
    stack
        .set("[serve]\nmin-free-percent = 1\ndaily = \"0 7 * * *\"\nweekly = \"0 8 * * 1\"\nmonthly = \"0 9 1 * *\"\n");
    // Nothing is there yet: nothing is good.
    let nothing = stack.place.json(4, &["maintenance", "daily"]);
    assert_eq!(tasks(&nothing)[0], ("verify backup completion", "bad"), "{nothing}");
    stack.place.json(0, &["run", "backup"]);

    // No copy is made yet, and nobody holds a kit. That one finds something is no failed backup for the next.
    let weekly = stack.place.json(4, &["run", "maintenance", "weekly"])["result"]["answer"].take();
    assert_eq!(
        tasks(&weekly),
        [
            ("test restore procedure", "good"),
            ("clean up old backup files", "good"),
            ("verify cloud backup synchronization", "bad"),
            ("update backup documentation", "bad"),
        ],
        "{weekly}"
    );
    stack.place.json(0, &["copy", "--init"]);
    stack.place.ends(0, &["kit", "create", "--out", "kit"]);
    stack.place.json(0, &["kit", "confirm", "key"]);
    let daily = stack.place.json(0, &["maintenance", "daily"]);
    let good = |task| (task, "good");
    assert_eq!(
        tasks(&daily),
        [
            "verify backup completion",
            "check backup file sizes",
            "monitor available disk space",
            "review backup logs for errors"
        ]
        .map(good),
        "{daily}"
    );
    let weekly = stack.place.json(0, &["maintenance", "weekly"]);
    assert!(tasks(&weekly).iter().all(|(_, state)| *state == "good"), "{weekly}");
    let monthly = stack.place.json(0, &["maintenance", "monthly"]);
    let names = [
        "full disaster recovery test",
        "review backup retention policies",
        "audit backup access logs",
        "update backup encryption keys",
    ];
    assert_eq!(tasks(&monthly), names.map(good), "{monthly}");
    let evidence = monthly["result"]["tasks"][0]["evidence"].as_str().unwrap();
    assert!(evidence.contains("the copy `offsite`") && evidence.contains("passed"), "{evidence}");
    // Scheduled like everything else.
    let lines = stack.place.ends(0, &["install", "cron", "--print"]).out;
    for line in ["0 7 * * * rekindle", "run maintenance daily", "run maintenance weekly", "run maintenance monthly"] {
        assert!(lines.contains(line), "{line}: {lines}");
    }
}

#[test]
fn points_are_kept_by_their_words_and_for_the_sake_of_a_component() {
    let mut stack = stack_of_files();
    let data = stack.path("data").display().to_string();
    stack.set(&format!("[component.other]\nkind = \"files\"\npaths = [\"{data}\"]\n[component.other.retention]\nkeep-last = 2\nmin-keep = 1\n"));
    stack.set("[retention]\nkeep-last = 1\nmin-keep = 1\nkeep-tags = [\"release\"]\n");
    let tagged = stack.place.json(0, &["backup", "--tag", "release"])["result"]["point"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        stack.complete();
    }
    stack.place.ends(2, &["backup", "--tag", "no blanks"]);
    let preview = stack.place.json(0, &["forget", "--dry-run"]);
    let reasons: Vec<String> =
        preview["result"]["decisions"].as_array().unwrap().iter().map(|one| one["reasons"].to_string()).collect();
    assert!(reasons[0].contains("last 1") && reasons[1].contains("other: last 2"), "{reasons:?}");
    assert!(reasons[2].contains("no rule keeps it") && reasons[3].contains("tag release"), "{reasons:?}");
    stack.place.json(0, &["forget"]);
    let left = stack.complete_points();
    assert!(left.len() == 3 && left.contains(&tagged), "{left:?}");
}

#[test]
fn the_retention_of_a_component_alone_is_applied_by_a_scheduled_prune() {
    let mut stack = stack_of_files();
    let data = stack.path("data").display().to_string();
    stack.set(&format!(
        "[component.files]\nkind = \"files\"\npaths = [\"{data}\"]\n[component.files.retention]\nkeep-last = 1\nmin-keep = 1\n"
    ));
    stack.complete();
    stack.complete();
    stack.place.json(0, &["run", "prune"]);
    assert_eq!(stack.points().len(), 1);
}

/// The program finds itself by asking Linux, which names a file that is gone `program (deleted)`: so a script
/// of that name is what it starts for each task.
#[test]
fn maintenance_believes_no_child_that_ends_well_without_an_answer() {
    let stack = stack_of_files();
    stack.complete();
    let copied = stack.path("program");
    fs::copy(env!("CARGO_BIN_EXE_rekindle"), &copied).unwrap();
    let program = fs::File::open(&copied).unwrap();
    fs::remove_file(&copied).unwrap();
    let script = stack.path("program (deleted)");
    fs::write(&script, "#!/bin/sh\necho 'all is well'\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let usual = stack.place.command(&["maintenance", "weekly", "--json"]);
    let mut command = Command::new(format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd()));
    command.args(usual.get_args()).current_dir(stack.place.path()).env_clear().stdin(Stdio::null());
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Ended::of(command.output().unwrap());
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    assert_eq!((ended.code, report["exit_code"].as_u64()), (4, Some(4)), "{ended:#?}");
    let cleaning = &report["result"]["tasks"][1];
    assert_eq!(
        (cleaning["task"].as_str(), cleaning["state"].as_str()),
        (Some("clean up old backup files"), Some("bad"))
    );
    assert!(cleaning["evidence"].as_str().unwrap().contains("said nothing"), "{cleaning}");
    assert!(tasks(&report).iter().all(|(_, state)| *state != "good"), "{report}");
}
