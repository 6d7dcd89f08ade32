//! Copies: the same points in further repositories, each with its own key; stopped, damaged, mended.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use jiff::{Timestamp, ToSpan};
use rekindle_testkit::{Proxy, S3, S3Options};
use serde_json::Value;

use super::serve_clock::at;
use super::stack::{Stack, assert_same_trees, below, end, noise, wait_until};

const COPY_PASSWORD: &str = "canary-password-of-the-copy";

/// A stack of files with a copy `offsite` in a directory beside the repository.
fn with_copy(more: &str) -> (Stack, PathBuf) {
    let mut stack = Stack::new();
    let data = stack.files("data");
    stack.place.write("copy-key", COPY_PASSWORD);
    let url = format!("file://{}", stack.path("copy").display());
    stack.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n{more}"));
    (stack, data)
}

fn report(value: &Value) -> &Value {
    &value["result"]["copies"][0]
}

fn count(value: &Value, key: &str) -> usize {
    report(value)[key].as_array().unwrap().len()
}

fn packs(stack: &Stack, repository: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(folders) = fs::read_dir(stack.path(repository).join("data")) else { return found };
    for folder in folders {
        let files = fs::read_dir(folder.unwrap().path()).unwrap().map(|entry| entry.unwrap().path());
        // Others are on their way.
        found.extend(files.filter(|path| path.file_name().is_some_and(|name| name.len() == 64)));
    }
    found
}

fn comes_back(stack: &Stack, data: &Path, point: &str, name: &str) {
    stack.place.json(0, &["restore", point, "--to", name, "--copy", "offsite"]);
    assert_same_trees(data, &below(&stack.path(name), data));
}

#[test]
fn every_point_is_in_a_copy_that_has_a_key_of_its_own() {
    let (stack, data) = with_copy("[copy.offsite.retention]\nkeep-last = 1\nmin-keep = 1\n");
    fs::write(data.join("a"), noise(1, 3 << 20)).unwrap();
    fs::write(data.join("b"), "one\n").unwrap();
    stack.complete();
    fs::write(data.join("b"), "two\n").unwrap();
    let newest = stack.complete()["point"].as_str().unwrap().to_owned();

    // A place that is not there is not made unasked: it may be a disk that is not mounted.
    stack.place.ends(10, &["copy"]).says("RK-ST-014", &["--init", "offsite"]);
    let status = stack.place.json(10, &["status"]);
    assert_eq!(status["result"]["copies"][0]["reachable"], false);
    stack.place.ends(2, &["copy", "nowhere"]).says("RK-CP-003", &["offsite"]);

    let copied = stack.place.json(0, &["copy", "--init"]);
    assert_eq!((count(&copied, "copied"), report(&copied)["state"].as_str()), (2, Some("complete")), "{copied}");
    assert_eq!(report(&copied)["lag_seconds"], 0);
    let again = stack.place.json(0, &["copy", "offsite"]);
    assert_eq!(
        (count(&again, "copied"), report(&again)["there"].as_u64(), report(&again)["bytes"].as_u64()),
        (0, Some(2), Some(0))
    );

    let verified = stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    assert_eq!(
        (verified["result"]["points"].as_u64(), verified["result"]["ledger_records"].as_u64()),
        (Some(2), Some(2))
    );
    comes_back(&stack, &data, "latest", "back");
    // The id of the original finds the copy of it.
    comes_back(&stack, &data, &newest[..10], "again");
    // Neither key opens the other repository, and no master key is shared.
    let copy = format!("file://{}", stack.path("copy").display());
    stack.place.ends(12, &["list", "--repo", &copy, "--password-file", "key"]);
    stack.place.ends(0, &["list", "--repo", &copy, "--password-file", "copy-key"]);
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "-r"]).arg(stack.path("copy")).args(arguments);
        let output = command.env("RESTIC_PASSWORD", COPY_PASSWORD).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    restic(&["check", "--read-data"]);
    assert!(restic(&["snapshots", "--json"]).contains(&newest), "restic knows the original");

    // Retention of its own; what it removed does not come back.
    let forgotten = stack.place.json(0, &["forget", "--copy", "offsite"]);
    assert_eq!(forgotten["result"]["removed"].as_array().unwrap().len(), 1);
    let after = stack.place.json(0, &["copy"]);
    assert_eq!((count(&after, "copied"), report(&after)["forgotten"].as_u64()), (0, Some(1)));
    assert_eq!(stack.points().len(), 2);
    let status = stack.place.json(0, &["status"]);
    let told = &status["result"]["copies"][0];
    assert_eq!(
        (told["points"].as_u64(), told["points_missing"].as_u64(), told["lag_seconds"].as_u64()),
        (Some(1), Some(0), Some(0)),
        "{told}"
    );
    stack.place.ends(2, &["backup", "--copy", "offsite"]).says("RK-CL-001", &[]);
    stack.place.ends(0, &["prune", "--copy", "offsite"]);
    comes_back(&stack, &data, "latest", "last");
}

#[test]
fn what_the_source_has_lost_is_no_success_and_names_the_file() {
    let (stack, data) = with_copy("");
    fs::write(data.join("good"), noise(1, 100_000)).unwrap();
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    let before = packs(&stack, "repo");
    fs::write(data.join("hit by a flipped bit"), noise(2, 3 << 20)).unwrap();
    let second = stack.complete()["point"].as_str().unwrap().to_owned();
    let fresh: Vec<_> = packs(&stack, "repo").difference(&before).cloned().collect();
    let pack = fresh.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let mut bytes = fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(pack, &bytes).unwrap();

    let copied = stack.place.json(13, &["copy", "--init"]);
    let one = report(&copied);
    assert_eq!((one["state"].as_str(), count(&copied, "copied"), count(&copied, "failed")), (Some("incomplete"), 1, 1));
    assert_eq!(one["copied"][0]["original"], first);
    assert_eq!(
        (one["failed"][0]["point"].as_str(), one["failed"][0]["code"].as_str()),
        (Some(&*second), Some("RK-CP-001"))
    );
    let paths = one["failed"][0]["paths"].as_array().unwrap();
    assert!(paths.len() == 1 && paths[0].as_str().unwrap().ends_with("hit by a flipped bit"), "{paths:?}");
    assert!(copied["error"]["message"].as_str().unwrap().contains("hit by a flipped bit"), "{copied}");
    // The copy holds one point, and that one is whole.
    let listed = stack.place.json(0, &["list", "--copy", "offsite"]);
    assert_eq!(listed["result"]["points"].as_array().unwrap().len(), 1);
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    assert!(stack.place.json(0, &["status"])["result"]["copies"][0]["points_missing"] == 1);
}

#[test]
fn what_a_copy_has_lost_is_found_and_mended() {
    let (stack, data) = with_copy("");
    fs::write(data.join("a"), noise(1, 5 << 20)).unwrap();
    stack.complete();
    fs::write(data.join("b"), noise(2, 2 << 20)).unwrap();
    stack.complete();
    stack.place.json(0, &["copy", "--init"]);
    let largest = packs(&stack, "copy").into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    fs::remove_file(&largest).unwrap();

    let found = stack.place.json(13, &["verify", "--copy", "offsite"]);
    let name = largest.file_name().unwrap().to_str().unwrap();
    assert!(found["result"]["damage"].to_string().contains(name), "{found}");
    assert!(!found["result"]["affected"].as_array().unwrap().is_empty());
    stack.place.json(0, &["verify", "--read-data"]);

    let mended = stack.place.json(0, &["copy"]);
    assert_eq!(report(&mended)["packs_lost"], 1);
    assert!(count(&mended, "mended") >= 1, "{mended}");
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    comes_back(&stack, &data, "latest", "back");
}

#[test]
fn a_copy_that_was_killed_goes_on_where_it_was() {
    let (mut stack, data) = with_copy("bandwidth-kib = 32768\n");
    for n in 0..5 {
        fs::write(data.join(format!("part-{n}")), noise(n, 20 << 20)).unwrap();
    }
    stack.complete();
    let mut child = stack.start(&["copy", "--init"]);
    wait_until("two packs are there", || packs(&stack, "copy").len() >= 2 || child.try_wait().unwrap().is_some());
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it had ended before it was killed");
    let kept = packs(&stack, "copy").len();
    let listed = stack.place.json(0, &["list", "--copy", "offsite"]);
    assert_eq!(listed["result"]["points"].as_array().unwrap().len(), 0, "half a point is no point");

    let url = format!("file://{}", stack.path("copy").display());
    stack.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n"));
    let copied = stack.place.json(0, &["copy"]);
    assert_eq!(count(&copied, "copied"), 1);
    assert!(report(&copied)["packs_taken_in"].as_u64().unwrap() >= 2, "{copied} of {kept}");
    let sent = report(&copied)["bytes"].as_u64().unwrap();
    assert!(sent < 75 << 20, "only what was missing is sent: {sent}");
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    comes_back(&stack, &data, "latest", "back");
}

/// A copy `offsite` in a bucket, behind a port.
fn to_bucket(stack: &mut Stack, s3: &S3, port: u16, more: &str) {
    stack.place.write("copy-key", COPY_PASSWORD);
    stack.place.write("secret", &s3.secret_key());
    stack.set(&format!(
        "[copy.offsite]\nurl = \"s3://{}/copy\"\nendpoint = \"http://127.0.0.1:{port}\"\nregion = \"{}\"\n\
         access-key-id = \"{}\"\nsecret-access-key = \"file:secret\"\npassword = \"file:copy-key\"\n{more}\n",
        s3.bucket(),
        s3.region(),
        s3.access_key()
    ));
}

#[test]
fn a_copy_in_a_bucket_comes_back_without_the_repository() {
    let s3 = S3::start(S3Options::default());
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 3 << 20)).unwrap();
    stack.complete();
    to_bucket(&mut stack, &s3, s3.port(), "schedule = \"@daily\"");
    stack.place.json(0, &["copy", "--init"]);
    fs::remove_dir_all(stack.path("repo")).unwrap();
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    comes_back(&stack, &data, "latest", "back");
    let recovered = stack.place.run(&["recover", "--dry-run", "--replace", "--copy", "offsite"]);
    assert_eq!(recovered.code, 0, "{recovered:#?}");
    // Unreachable is told, and is never good.
    drop(s3);
    let gone = stack.place.run(&["copy"]);
    assert!(gone.code != 0, "{gone:#?}");
}

#[test]
fn a_copy_keeps_to_its_bandwidth_on_the_wire() {
    const LIMIT: u64 = 4 << 20;
    const DATA: usize = 12 << 20;
    let s3 = S3::start(S3Options::default());
    let proxy = Proxy::start(s3.port());
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, DATA)).unwrap();
    stack.complete();
    to_bucket(&mut stack, &s3, proxy.port(), &format!("bandwidth-kib = {}", LIMIT >> 10));
    let mut child = stack.start(&["copy", "--init"]);
    // Stretching passwords takes time and sends nothing: it must not make the line look slower.
    wait_until("the first pack", || proxy.bytes() > 1 << 20 || child.try_wait().unwrap().is_some());
    let begun = Instant::now();
    let ended = end(child);
    let (seconds, bytes) = (begun.elapsed().as_secs_f64(), proxy.bytes());
    assert_eq!(ended.code, 0, "{ended:#?}");
    // Sent, and read back.
    assert!(bytes >= 2 * DATA as u64, "{bytes} bytes went over the wire");
    #[expect(clippy::cast_precision_loss, reason = "some MiB")]
    let (bytes, limit) = (bytes as f64, LIMIT as f64);
    let rate = bytes / seconds;
    println!("{bytes} bytes in {seconds:.2} s: {:.0} of {:.0} KiB/s", rate / 1024.0, limit / 1024.0);
    assert!(rate <= limit * 1.2, "{bytes} bytes in {seconds:.2} s");
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
}

#[test]
fn a_copy_that_its_schedule_forgot_is_behind_and_said_to_be() {
    let (stack, _) = with_copy("schedule = \"0 * * * *\"\n");
    stack.complete();
    stack.place.json(0, &["copy", "--init"]);
    stack.place.json(0, &["status"]);
    let old = at(&stack, Timestamp::now() - 3.hours(), &["backup"]);
    assert_eq!(old.code, 0, "{old:#?}");
    let said = stack.place.json(4, &["status"]);
    assert_eq!(said["error"]["code"], "RK-CP-005", "{said}");
    let copy = &said["result"]["copies"][0];
    assert!(copy["overdue_since"].is_string() && copy["lag_seconds"].as_u64().unwrap() >= 3 * 3600, "{copy}");
    stack.place.json(0, &["copy"]);
    assert!(stack.place.json(0, &["status"])["result"]["copies"][0]["overdue_since"].is_null());
}

#[test]
fn a_new_master_key_is_had_by_copying_and_changing_places() {
    let (stack, data) = with_copy("");
    fs::write(data.join("a"), noise(1, 300_000)).unwrap();
    stack.complete();
    stack.place.json(0, &["copy", "--init"]);
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    let config = stack.place.read("rekindle.toml");
    let (old, new) = (stack.path("repo").display().to_string(), stack.path("copy").display().to_string());
    let exchanged = config
        .replace(&format!("{old}\""), "(new)\"")
        .replace(&format!("{new}\""), &format!("{old}\""))
        .replace("(new)\"", &format!("{new}\""))
        .replace("file:key\"", "(copy)\"")
        .replace("file:copy-key\"", "file:key\"")
        .replace("(copy)\"", "file:copy-key\"");
    assert_ne!(exchanged, config);
    stack.place.write("rekindle.toml", &exchanged);
    // The new place goes on where the old one ended, and the old one is its copy.
    fs::write(data.join("b"), "after the change").unwrap();
    let after = stack.complete()["point"].as_str().unwrap().to_owned();
    assert_eq!(stack.points().len(), 2);
    let told = stack.place.json(0, &["copy"]);
    assert_eq!(count(&told, "copied"), 1, "only what is new goes back: {told}");
    stack.place.json(0, &["audit", "verify"]);
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    stack.place.json(0, &["restore", &after, "--to", "back"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
    comes_back(&stack, &data, &after, "back-from-old");
}
