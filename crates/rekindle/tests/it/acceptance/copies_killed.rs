//! A copy to a bucket that is killed (`kill -9`) again and again.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rekindle_testkit::{S3, S3Options};

use super::stack::{Random, Stack, assert_same_trees, below, noise, wait_until};

const COPY_PASSWORD: &str = "canary-password-of-the-copy";
/// Kills before the copy may end.
const KILLS: u32 = 8;
/// Half of the time that the copy takes at its bandwidth.
const LATEST: Duration = Duration::from_secs(2);

/// Packs of the copy with their sizes, as the bucket lists them.
fn packs(s3: &S3) -> BTreeMap<String, u64> {
    let path = format!("/{}", s3.bucket());
    let (status, text) =
        s3.door().request(&s3.admin_key(), ("GET", &path, "list-type=2&prefix=copy%2Fdata%2F"), &[], &[]);
    assert_eq!(status, 200, "{text}");
    assert!(!text.contains("<IsTruncated>true"), "more than one page");
    let between = |text: &str, tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let objects = text.split("<Contents>").skip(1);
    objects.map(|object| (between(object, "Key"), between(object, "Size").parse().unwrap())).collect()
}

fn total(packs: &BTreeMap<String, u64>) -> u64 {
    packs.values().sum()
}

#[test]
fn a_copy_to_a_bucket_that_is_killed_at_any_moment_sends_nothing_twice() {
    let s3 = S3::start(S3Options::default());
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    for n in 0..6 {
        fs::write(data.join(format!("part-{n}")), noise(n, 12 << 20)).unwrap();
    }
    stack.complete();
    stack.place.write("copy-key", COPY_PASSWORD);
    stack.place.write("secret", &s3.secret_key());
    let copy = |limit: &str| {
        format!(
            "[copy.offsite]\nurl = \"s3://{}/copy\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
             secret-access-key = \"file:secret\"\npassword = \"file:copy-key\"\n{limit}",
            s3.bucket(),
            s3.endpoint(),
            s3.region(),
            s3.access_key()
        )
    };
    stack.set(&copy("bandwidth-kib = 32768\n"));
    let mut random = Random::new(0x5eed_0009);
    let mut before = packs(&s3);
    for kill in 0..KILLS {
        let mut child = stack.start(&["copy", "--init"]);
        if kill == 0 {
            // Later ones may be killed before they send anything; this one has sent something.
            wait_until("a pack", || !packs(&s3).is_empty() || child.try_wait().unwrap().is_some());
        } else {
            std::thread::sleep(random.before(LATEST));
        }
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(!ended.status.success(), "it had ended before it was killed: {ended:?}");
        // What was there is there, as it was.
        let after = packs(&s3);
        assert!(before.iter().all(|(name, size)| after.get(name) == Some(size)), "kill {kill}: a pack is gone");
        before = after;
        let listed = stack.place.json(0, &["list", "--copy", "offsite"]);
        assert_eq!(listed["result"]["points"].as_array().unwrap().len(), 0, "kill {kill}: half a point is no point");
    }
    stack.set(&copy(""));
    let copied = stack.place.json(0, &["copy"])["result"]["copies"][0].take();
    assert_eq!(copied["copied"].as_array().unwrap().len(), 1, "{copied}");
    let whole = total(&packs(&s3));
    // Sealed bytes are as many here as there: a blob that stands in two packs would show.
    let near: u64 = stack_packs(&stack).iter().sum();
    assert!(whole.abs_diff(near) < 64 << 10, "{whole} bytes are in the bucket, {near} in the repository");
    let (had, sent) = (total(&before), copied["bytes"].as_u64().unwrap());
    // A pack that the server had received when its sender was killed may be listed only later.
    assert!(had + sent < whole + (64 << 10), "{had} bytes were there, {sent} were sent, {whole} are there");
    assert!(had > 0 && copied["packs_taken_in"].as_u64().unwrap() <= before.len() as u64, "{copied}");
    stack.place.json(0, &["verify", "--read-data", "--copy", "offsite"]);
    fs::remove_dir_all(stack.path("repo")).unwrap();
    stack.place.json(0, &["restore", "latest", "--to", "back", "--copy", "offsite"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
}

fn stack_packs(stack: &Stack) -> Vec<u64> {
    let folders = fs::read_dir(stack.path("repo/data")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().len()).collect()
}
