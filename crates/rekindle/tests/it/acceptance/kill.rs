//! kill -9 at random moments: what was committed stays, what was not is no point, and the next
//! run needs no help.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rekindle_testkit::fixtures::{compare_redis, redis_data, redis_fingerprint};
use rekindle_testkit::s3::Mount;
use rekindle_testkit::{Redis, RedisOptions};
use serde_json::json;

use super::stack::{Random, Stack, assert_same_trees, below, noise, wait_until};
use crate::run::Place;

const TRIALS: u64 = 50;
const MEMORY_MIB: u32 = 600;
/// A change of the seed changes every moment; a failure names it.
const SEED: u64 = 0x5eed_0001;

#[expect(clippy::print_stdout, reason = "a failure has to name its seed")]
/// Seed of this run: `REKINDLE_TEST_SEED` repeats or varies it.
fn random() -> Random {
    let seed = std::env::var("REKINDLE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    println!("REKINDLE_TEST_SEED={seed}");
    Random::new(seed)
}

/// Something new to save in every trial, so that no run is done at once.
fn change(data: &Path, trial: u64) {
    for n in 0..6 {
        let size = usize::try_from(100_000 * (1 + (trial + n) % 4)).unwrap();
        fs::write(data.join(format!("part-{n}")), noise(trial * 10 + n, size)).unwrap();
    }
    fs::write(data.join(format!("trial-{trial}")), trial.to_string()).unwrap();
}

/// Runs it and kills it after this time. Whether it had ended before.
fn kill_after(stack: &Stack, arguments: &[&str], delay: Duration) -> bool {
    let mut child = stack.start(arguments);
    let until = Instant::now() + delay;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // An ended one is not harmed.
    child.kill().unwrap();
    child.wait().unwrap().success()
}

/// A stack whose directory is in memory: fifty repositories checked on a disk that has to fsync
/// take many minutes. What a kill leaves behind is the same. The mount goes first when dropped.
fn in_memory() -> (Stack, Mount) {
    let place = Place::new();
    let mount = Mount::tmpfs(place.path(), MEMORY_MIB);
    let url = format!("file://{}", place.path().join("repo").display());
    let stack = Stack::at(place, &format!("url = \"{url}\""), &url);
    stack.quicken();
    (stack, mount)
}

/// What the newest point holds, to compare with.
fn keep(stack: &Stack, data: &Path) {
    let kept = stack.path("kept");
    let _ = fs::remove_dir_all(&kept);
    assert!(Command::new("cp").arg("-a").arg(data).arg(&kept).status().unwrap().success());
}

/// The repository is whole for us and for restic, and its newest complete point comes back.
fn is_clean(stack: &Stack, data: &Path, trial: u64) {
    let verify: &[&str] = if trial % 10 == 9 { &["verify", "--read-data"] } else { &["verify"] };
    let verified = stack.place.json(0, verify);
    assert_eq!(verified["result"]["damage"], json!([]), "trial {trial}: {verified}");
    // restic itself stops at the lock of a killed process; ours does not.
    stack.restic_check("restic", &["--no-lock"]);
    stack.place.json(0, &["restore", "latest:complete", "files", "--to", "back"]);
    assert_same_trees(&stack.path("kept"), &below(&stack.path("back"), data));
    fs::remove_dir_all(stack.path("back")).unwrap();
}

#[test]
fn a_backup_killed_at_any_moment_leaves_a_point_or_none() {
    let redis = Redis::start(RedisOptions::default());
    redis_data(&redis, 20);
    let keys = redis_fingerprint(&redis);
    let (mut stack, _mount) = in_memory();
    let data = stack.files("data");
    stack.redis(&redis, redis.port(), "");
    change(&data, 1000);
    let begun = Instant::now();
    stack.place.ends(0, &["backup"]);
    let usual = begun.elapsed();
    keep(&stack, &data);
    let mut random = random();
    let mut points = stack.complete_points();
    let mut killed = 0;
    for trial in 0..TRIALS {
        change(&data, trial);
        let done = kill_after(&stack, &["backup"], random.before(usual + usual / 5));
        killed += u64::from(!done);
        let listed = stack.points();
        assert!(listed.iter().all(|point| point["state"] == "complete"), "trial {trial}: {listed:?}");
        let now: Vec<String> = listed.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(now[..points.len()], points[..], "trial {trial}: nothing that was committed is lost");
        let new = now.len() - points.len();
        assert!(new == usize::from(done) || (new == 1 && !done), "trial {trial}: {new} new points, done: {done}");
        if new == 1 {
            keep(&stack, &data);
        }
        is_clean(&stack, &data, trial);
        points = now;
    }
    assert!(killed >= TRIALS / 3, "most runs are to be killed: {killed}");
    // The next run needs no help.
    stack.complete();
    stack.place.json(0, &["verify", "--read-data"]);
    stack.restic("restic", &["unlock"]);
    stack.restic_check("restic", &["--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_same_trees(&data, &below(&stack.path("back/files"), &data));
    let back = Redis::start(RedisOptions { dir: Some(stack.path("back/cache")), ..RedisOptions::default() });
    assert_eq!(compare_redis(&keys, &redis_fingerprint(&back), 0), Vec::<String>::new());
}

#[test]
fn a_restore_killed_at_any_moment_is_finished_by_the_next_one() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    for n in 0..60 {
        let sub = data.join(format!("sub-{}", n % 7));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("file-{n}")), noise(n, 100_000)).unwrap();
    }
    stack.complete();
    let copy = stack.path("copy");
    fs::rename(&data, &copy).unwrap();
    let mut random = random();
    let begun = Instant::now();
    stack.place.json(0, &["restore", "latest", "--to", "whole"]);
    let usual = begun.elapsed();
    for trial in 0..10 {
        let to = format!("new-{trial}");
        let arguments = ["restore", "latest", "--to", &to, "--overwrite"];
        kill_after(&stack, &arguments, random.before(usual));
        stack.place.json(0, &arguments);
        assert_same_trees(&copy, &below(&stack.path(&to), &data));
        fs::remove_dir_all(stack.path(&to)).unwrap();
    }
    for trial in 0..10 {
        // Old data stands there: it is either still whole, or the new one is.
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("old"), "old").unwrap();
        let arguments = ["restore", "latest", "--in-place", "--no-safety-point"];
        kill_after(&stack, &arguments, random.before(usual));
        if data.join("old").exists() {
            assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "trial {trial}: a mixture");
        } else {
            assert_same_trees(&copy, &data);
        }
        stack.place.json(0, &arguments);
        assert_same_trees(&copy, &data);
    }
}

#[test]
fn a_prune_killed_at_any_moment_loses_nothing() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    for trial in 0..6 {
        change(&data, trial);
        stack.place.ends(0, &["backup"]);
    }
    let mut random = random();
    for _ in 0..2 {
        let points = stack.complete_points();
        stack.place.ends(0, &["forget", &points[0], &points[1]]);
        let left = stack.complete_points();
        assert_eq!(left, points[2..]);
        for _ in 0..4 {
            let prune = ["prune", "--keep-marked", "0", "--max-unused", "0", "--max-delete", "100"];
            kill_after(&stack, &prune, random.before(Duration::from_millis(900)));
            assert_eq!(stack.complete_points(), left);
            stack.place.json(0, &["verify", "--read-data"]);
        }
        stack.place.ends(0, &["prune", "--keep-marked", "0", "--max-delete", "100"]);
        stack.place.json(0, &["verify", "--read-data"]);
    }
    stack.restic("restic", &["unlock"]);
    stack.restic_check("restic", &["--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
    stack.complete();
}

#[test]
fn a_stopped_backup_says_so_and_releases_its_lock() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::File::create(data.join("large")).unwrap().set_len(64 << 30).unwrap();
    let child = stack.start(&["backup"]);
    let locks = stack.path("repo/locks");
    wait_until("the lock", || fs::read_dir(&locks).is_ok_and(|mut entries| entries.next().is_some()));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = super::stack::end(child);
    assert_eq!(ended.code, 143, "{ended:#?}");
    assert_eq!(stack.points(), Vec::<serde_json::Value>::new());
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 0);
    fs::remove_file(data.join("large")).unwrap();
    stack.complete();
}
