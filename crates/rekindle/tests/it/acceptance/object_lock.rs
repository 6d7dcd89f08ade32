//! Object Lock: what the agent's key wrote, the agent's key cannot destroy; and `doctor` says what is true.

use std::fs;

use rekindle_testkit::{S3, S3Options};

use super::stack::{Stack, assert_same_trees, below, noise};
use crate::run::Place;

const BUCKET: &str = "locked";

fn stack_in(s3: &S3, bucket: &str, lock: &str) -> Stack {
    let mut place = Place::new();
    let key = s3.admin_key();
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    let url = format!("s3://{bucket}/shop?endpoint={}&region={}", s3.endpoint(), s3.region());
    let lines = format!(
        "url = \"s3://{bucket}/shop\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
         secret-access-key = \"env:AWS_SECRET_ACCESS_KEY\"\n{lock}",
        s3.endpoint(),
        s3.region(),
        key.access
    );
    Stack::at(place, &lines, &url)
}

/// Every version and delete marker of a bucket: its name and its id.
fn versions(s3: &S3, bucket: &str) -> Vec<(String, String)> {
    let (status, page) = s3.request(&s3.admin_key(), ("GET", &format!("/{bucket}"), "versions="), &[], b"");
    assert_eq!(status, 200, "{page}");
    let text = |part: &str, name: &str| {
        let start = part.find(&format!("<{name}>"))? + name.len() + 2;
        Some(part[start..start + part[start..].find('<')?].to_owned())
    };
    assert!(page.contains("<IsTruncated>false"), "{page}");
    let page = page.replace("<DeleteMarker>", "<Version>");
    let parts = page.split("<Version>").skip(1);
    parts.filter_map(|part| Some((text(part, "Key")?, text(part, "VersionId")?))).collect()
}

fn passing(name: &str) -> bool {
    ["shop/locks/", "shop/rekindle/leases/", "shop/rekindle/probe/"].iter().any(|folder| name.starts_with(folder))
}

fn delete(s3: &S3, name: &str, query: &str) -> u16 {
    s3.request(&s3.admin_key(), ("DELETE", &format!("/{BUCKET}/{name}"), query), &[], b"").0
}

fn until(s3: &S3, name: &str) -> String {
    let (status, page) = s3.request(&s3.admin_key(), ("GET", &format!("/{BUCKET}/{name}"), "retention="), &[], b"");
    assert_eq!(status, 200, "{name}: {page}");
    assert!(page.contains("COMPLIANCE"), "{name}: {page}");
    page.split("<RetainUntilDate>").nth(1).unwrap().split('<').next().unwrap().to_owned()
}

#[test]
fn a_stolen_key_can_neither_delete_nor_overwrite_and_points_survive() {
    let s3 = S3::start(S3Options::default());
    s3.make_locked_bucket(BUCKET);
    let lock = "object-lock = \"compliance\"\nobject-lock-days = 1\nstorage-class = \"STANDARD_IA\"";
    let mut stack = stack_in(&s3, BUCKET, lock);
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 2 << 20)).unwrap();
    // `init` with --repo knew nothing of the lock: the first backup makes up for it.
    let saved = stack.complete();
    assert_eq!(saved["object_lock"]["due"], true, "{saved}");
    let doctor = stack.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("can neither delete nor overwrite a locked object (COMPLIANCE"), "{doctor:#?}");

    let names: Vec<(String, String)> = versions(&s3, BUCKET).into_iter().filter(|(name, _)| !passing(name)).collect();
    for folder in ["config", "keys/", "data/", "index/", "snapshots/", "rekindle/ledger/", "rekindle/signing-key"] {
        assert!(names.iter().any(|(name, _)| name.starts_with(&format!("shop/{folder}"))), "{folder}: {names:?}");
    }
    // Everything is kept, and longer when the configuration says so.
    let before: Vec<String> = names.iter().map(|(name, _)| until(&s3, name)).collect();
    let url = format!("s3://{BUCKET}/shop");
    let config = stack.place.read("rekindle.toml");
    assert!(config.contains(&url));
    stack.place.write("rekindle.toml", &config.replace("object-lock-days = 1", "object-lock-days = 2"));
    stack.place.json(0, &["prune"]);
    for ((name, _), before) in names.iter().zip(&before) {
        assert!(until(&s3, name) > *before, "{name}");
    }

    // The attacker has the key, and tries everything on every object.
    for (name, version) in &names {
        assert!(delete(&s3, name, &format!("versionId={version}")) >= 400, "{name} was deleted");
        s3.request(&s3.admin_key(), ("PUT", &format!("/{BUCKET}/{name}"), ""), &[], b"ransom");
        delete(&s3, name, "");
    }
    assert_ne!(stack.place.run(&["list"]).code, 0, "what is hidden must not look like an empty repository");
    // Whoever owns the bucket takes away what hides them.
    for (name, version) in versions(&s3, BUCKET) {
        if !passing(&name) && !names.contains(&(name.clone(), version.clone())) {
            delete(&s3, &name, &format!("versionId={version}"));
        }
    }
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_same_trees(&data, &below(&stack.path("back"), &data));
}

#[test]
fn doctor_says_when_the_key_can_destroy_what_it_wrote() {
    let s3 = S3::start(S3Options::default());
    let mut open = stack_in(&s3, s3.bucket(), "");
    open.files("data");
    let doctor = open.place.ends(0, &["doctor"]);
    assert!(doctor.out.contains("whoever takes this host can destroy every point"), "{doctor:#?}");
    // The lock is configured, and the bucket has none.
    let config = open.place.read("rekindle.toml");
    let locked = "object-lock = \"compliance\"\nobject-lock-days = 1\npassword = \"file:key\"";
    open.place.write("rekindle.toml", &config.replace("password = \"file:key\"", locked));
    assert_ne!(open.place.run(&["doctor"]).code, 0);
    assert_ne!(open.place.run(&["backup"]).code, 0, "a lock that cannot be set is no success");
}
