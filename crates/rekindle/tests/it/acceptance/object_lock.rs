//! Object Lock: what the agent's key wrote, the agent's key cannot destroy; and `doctor` says what is true.

use std::fs;
use std::path::PathBuf;

use jiff::{Timestamp, ToSpan};
use rekindle_core::{Cancel, Secret};
use rekindle_repo::{Repo, RepoOptions, immutable};
use rekindle_store::{Credentials, LockMode, ObjectLock, StoreOptions};
use rekindle_testkit::{S3, S3Door, S3Key, S3Options};

use super::stack::{Stack, assert_same_trees, below, noise};
use crate::run::Place;

const BUCKET: &str = "locked";

/// A stack with its repository in a bucket, written with this key.
pub(super) fn stack_in(door: &S3Door, key: &S3Key, bucket: &str, lock: &str) -> Stack {
    let mut place = Place::new();
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    let url = format!("s3://{bucket}/shop?endpoint={}&region={}", door.endpoint(), door.region);
    let lines = format!(
        "url = \"s3://{bucket}/shop\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
         secret-access-key = \"env:AWS_SECRET_ACCESS_KEY\"\n{lock}",
        door.endpoint(),
        door.region,
        key.access
    );
    Stack::at(place, &lines, &url)
}

/// A bucket with a repository in it, everything of which is kept.
pub(super) struct Locked<'a> {
    pub(super) door: &'a S3Door,
    /// The key that the stack has, and whoever stole it.
    pub(super) agent: &'a S3Key,
    pub(super) bucket: &'a str,
    /// `COMPLIANCE` or `GOVERNANCE`.
    pub(super) mode: &'a str,
    pub(super) stack: Stack,
    pub(super) data: PathBuf,
}

impl<'a> Locked<'a> {
    /// Makes the stack and its first point.
    pub(super) fn new((door, agent, bucket): (&'a S3Door, &'a S3Key, &'a str), mode: &'a str, more: &str) -> Self {
        let lock = format!("object-lock = \"{}\"\nobject-lock-days = 1\n{more}", mode.to_lowercase());
        let mut stack = stack_in(door, agent, bucket, &lock);
        let data = stack.files("data");
        fs::write(data.join("a"), noise(1, 2 << 20)).unwrap();
        // `init` with --repo knew nothing of the lock: the first backup makes up for it.
        let saved = stack.complete();
        assert_eq!(saved["object_lock"]["due"], true, "{saved}");
        Self { door, agent, bucket, mode, stack, data }
    }

    /// Every version of an object that has to be kept.
    pub(super) fn kept(&self) -> Vec<(String, String)> {
        let names: Vec<_> = self.door.versions(self.bucket).into_iter().filter(|(name, _)| !is_passing(name)).collect();
        for folder in ["config", "keys/", "data/", "index/", "snapshots/", "rekindle/ledger/", "rekindle/signing-key"] {
            assert!(names.iter().any(|(name, _)| name.starts_with(&format!("shop/{folder}"))), "{folder}: {names:?}");
        }
        names
    }

    /// The status of a delete; the agent's.
    pub(super) fn delete(&self, name: &str, query: &str, headers: &[(&str, &str)]) -> u16 {
        let what = ("DELETE", &*format!("/{}/{name}", self.bucket), query);
        self.door.request(self.agent, what, headers, b"").0
    }

    fn until(&self, name: &str) -> String {
        let what = ("GET", &*format!("/{}/{name}", self.bucket), "retention=");
        let (status, page) = self.door.request(self.agent, what, &[], b"");
        assert_eq!(status, 200, "{name}: {page}");
        assert!(page.contains(self.mode), "{name}: {page}");
        page.split("<RetainUntilDate>").nth(1).unwrap().split('<').next().unwrap().to_owned()
    }

    /// Everything is kept, and longer when the configuration says so.
    pub(super) fn is_extended(&self) {
        let names = self.kept();
        let before: Vec<String> = names.iter().map(|(name, _)| self.until(name)).collect();
        let config = self.stack.place.read("rekindle.toml");
        assert!(config.contains("object-lock-days = 1"));
        self.stack.place.write("rekindle.toml", &config.replace("object-lock-days = 1", "object-lock-days = 2"));
        self.stack.place.json(0, &["prune"]);
        for ((name, _), before) in names.iter().zip(&before) {
            assert!(self.until(name) > *before, "{name}");
        }
    }

    /// Whoever has the key tries everything on every object, and every point comes back.
    pub(super) fn survives_an_attack(&self) {
        let names = self.kept();
        for (name, version) in &names {
            for headers in [&[][..], &[("x-amz-bypass-governance-retention", "true")]] {
                let status = self.delete(name, &format!("versionId={version}"), headers);
                assert!(status >= 400, "{name} was deleted");
            }
            self.door.request(self.agent, ("PUT", &format!("/{}/{name}", self.bucket), ""), &[], b"ransom");
            self.delete(name, "", &[]);
        }
        assert_ne!(self.stack.place.run(&["list"]).code, 0, "what is hidden must not look like an empty repository");
        // Whoever owns the bucket takes away what hides them.
        for (name, version) in self.door.versions(self.bucket) {
            if !is_passing(&name) && !names.contains(&(name.clone(), version.clone())) {
                let what = ("DELETE", &*format!("/{}/{name}", self.bucket), &*format!("versionId={version}"));
                self.door.request(&self.door.owner, what, &[], b"");
            }
        }
        self.stack.place.json(0, &["verify", "--read-data"]);
        self.stack.place.json(0, &["restore", "latest", "--to", "back"]);
        assert_same_trees(&self.data, &below(&self.stack.path("back"), &self.data));
    }
}

fn is_passing(name: &str) -> bool {
    ["shop/locks/", "shop/rekindle/leases/", "shop/rekindle/probe/"].iter().any(|folder| name.starts_with(folder))
}

/// `doctor` says that a locked object holds against this key.
pub(super) fn doctor_is_content(locked: &Locked<'_>) {
    let doctor = locked.stack.place.ends(0, &["doctor"]);
    let held = format!("can neither delete nor overwrite a locked object ({}", locked.mode);
    assert!(doctor.out.contains(&held), "{doctor:#?}");
}

/// A bucket without a lock: `doctor` warns, and a configured lock is no success.
pub(super) fn doctor_warns_without_a_lock(door: &S3Door, bucket: &str) {
    let mut open = stack_in(door, &door.owner, bucket, "");
    open.files("data");
    let doctor = open.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("whoever takes this host can destroy every point"), "{doctor:#?}");
    let config = open.place.read("rekindle.toml");
    let locked = "object-lock = \"compliance\"\nobject-lock-days = 1\npassword = \"file:key\"";
    open.place.write("rekindle.toml", &config.replace("password = \"file:key\"", locked));
    let doctor = open.place.run(&["doctor"]);
    assert!(doctor.code != 0 && doctor.out.contains("BAD"), "{doctor:#?}");
    let backup = open.place.run(&["backup"]);
    assert_ne!(backup.code, 0, "a lock that cannot be set is no success: {backup:#?}");
}

#[test]
fn a_stolen_key_can_neither_delete_nor_overwrite_and_points_survive() {
    let s3 = S3::start(S3Options::default());
    let door = s3.door();
    door.make_locked_bucket(BUCKET);
    let locked = Locked::new((&door, &door.owner, BUCKET), "COMPLIANCE", "storage-class = \"STANDARD_IA\"");
    doctor_is_content(&locked);
    locked.is_extended();
    locked.survives_an_attack();
}

#[test]
fn doctor_says_when_the_key_can_destroy_what_it_wrote() {
    let s3 = S3::start(S3Options::default());
    doctor_warns_without_a_lock(&s3.door(), s3.bucket());
}

#[test]
fn a_lock_is_made_longer_when_a_third_of_its_time_has_passed() {
    let s3 = S3::start(S3Options::default());
    let door = s3.door();
    door.make_locked_bucket(BUCKET);
    let locked = Locked::new((&door, &door.owner, BUCKET), "GOVERNANCE", "");
    let kept = locked.kept();
    let until = |name: &str| locked.until(name).parse::<Timestamp>().unwrap();
    let before: Vec<_> = kept.iter().map(|(name, _)| until(name)).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let repo = opened(&door, &runtime, &locked.stack);
    let (start, cancel) = (Timestamp::now(), Cancel::new());
    // Of one day, a third is eight hours. The moment is given: the server goes by its own clock.
    for (hours, due) in [(7, false), (9, true), (12, false), (18, true)] {
        let done = immutable::extend(&repo, start + hours.hours(), false, &cancel).unwrap().unwrap();
        assert_eq!((done.due, done.objects > 0), (due, due), "{hours}: {done:?}");
    }
    for ((name, _), before) in kept.iter().zip(before) {
        assert!(until(name).duration_since(before).as_hours() >= 17, "{name}: {before} to {}", until(name));
    }
}

#[test]
fn a_copy_in_a_locked_bucket_cannot_be_destroyed_either() {
    let s3 = S3::start(S3Options::default());
    let door = s3.door();
    door.make_locked_bucket(BUCKET);
    let mut stack = Stack::new();
    stack.place.set("AWS_SECRET_ACCESS_KEY", &door.owner.secret);
    stack.place.write("copy-key", "canary-password-of-the-copy");
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 2 << 20)).unwrap();
    stack.set(&format!(
        "[copy.vault]\nurl = \"s3://{BUCKET}/shop\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
         secret-access-key = \"env:AWS_SECRET_ACCESS_KEY\"\nobject-lock = \"compliance\"\nobject-lock-days = 1\n\
         password = \"file:copy-key\"",
        door.endpoint(),
        door.region,
        door.owner.access
    ));
    stack.complete();
    stack.place.json(0, &["copy", "--init"]);
    let kept: Vec<_> = door.versions(BUCKET).into_iter().filter(|(name, _)| !is_passing(name)).collect();
    assert!(kept.len() > 5, "{kept:?}");
    for (name, version) in kept {
        let what = ("DELETE", &*format!("/{BUCKET}/{name}"), &*format!("versionId={version}"));
        assert!(door.request(&door.owner, what, &[], b"").0 >= 400, "{name} was deleted");
    }
    stack.place.json(0, &["verify", "--read-data", "--copy", "vault"]);
    stack.place.json(0, &["restore", "latest", "--to", "back", "--copy", "vault"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
}

fn opened(door: &S3Door, runtime: &tokio::runtime::Runtime, stack: &Stack) -> Repo {
    let url = format!("s3://{BUCKET}/shop?endpoint={}&region={}", door.endpoint(), door.region);
    let credentials = Credentials {
        access_key_id: Some(Secret::new(door.owner.access.clone())),
        secret_access_key: Some(Secret::new(door.owner.secret.clone())),
        ..Credentials::default()
    };
    let mut options = StoreOptions::new(&url).unwrap();
    options.credentials = credentials;
    options.lock = Some(ObjectLock { mode: LockMode::Governance, days: 1 });
    let password = Secret::new(stack.place.read("key").trim().to_owned());
    let store = rekindle_store::open(&options).unwrap();
    Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap()
}
