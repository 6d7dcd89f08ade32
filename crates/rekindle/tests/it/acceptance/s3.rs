//! A stack on S3: refused, cut off, frozen, gone and back.

use std::fs;
use std::time::Duration;

use rekindle_testkit::{Direction, Fault, HttpProxy, InstanceRole, Proxy, S3, S3Door, S3Key, S3Options, Seen};

use super::object_lock::stack_in;
use super::stack::{Stack, assert_same_trees, below, end, noise, wait_until};
use crate::run::Place;

/// The `[repository]` lines for a key, which stands in two files.
fn lines(place: &Place, s3: &S3, port: u16, key: &S3Key) -> String {
    place.write("s3-access", &key.access);
    place.write("s3-secret", &key.secret);
    format!(
        "url = \"s3://{}/shop\"\nendpoint = \"http://127.0.0.1:{port}\"\nregion = \"{}\"\npath-style = true\n\
         access-key-id = \"file:s3-access\"\nsecret-access-key = \"file:s3-secret\"",
        s3.bucket(),
        s3.region()
    )
}

/// A stack with its repository on S3, behind a port.
pub(super) fn stack_on(s3: &S3, port: u16) -> Stack {
    let mut place = Place::new();
    let key = s3.admin_key();
    place.set("AWS_ACCESS_KEY_ID", &key.access);
    place.set("AWS_SECRET_ACCESS_KEY", &key.secret);
    let url = format!("s3://{}/shop?endpoint=http://127.0.0.1:{port}&region={}", s3.bucket(), s3.region());
    let lines = lines(&place, s3, port, &key);
    let mut stack = Stack::at(place, &lines, &url);
    let data = stack.files("data");
    fs::write(data.join("first"), noise(1, 2 << 20)).unwrap();
    stack
}

fn use_key(stack: &Stack, key: &S3Key) {
    stack.place.write("s3-access", &key.access);
    stack.place.write("s3-secret", &key.secret);
}

pub(super) fn comes_back(stack: &Stack, name: &str) {
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", name]);
    assert_same_trees(&stack.path("data"), &below(&stack.path(name), &stack.path("data")));
}

#[test]
fn keys_without_a_right_are_refused_and_nothing_looks_empty() {
    let s3 = S3::start(S3Options::default());
    let stack = stack_on(&s3, s3.port());
    stack.complete();
    comes_back(&stack, "back");
    // May read and list only: looking works, writing does not.
    use_key(&stack, &s3.reader_key());
    assert_eq!(stack.points().len(), 1);
    stack.place.ends(20, &["backup"]).says("RK-ST-003", &[]);
    // May not list: an error, never an empty repository.
    use_key(&stack, &s3.writer_key());
    for arguments in [&["backup"][..], &["list"], &["verify"], &["prune"], &["restore", "latest", "--to", "x"]] {
        let ended = stack.place.ends(20, arguments);
        ended.says("RK-ST-003", &[]);
        assert!(ended.out.is_empty(), "{ended:#?}");
    }
    // Unknown to the server.
    let wrong = S3Key { secret: "canary-wrong-secret".to_owned(), ..s3.admin_key() };
    use_key(&stack, &wrong);
    let ended = stack.place.ends(20, &["backup"]);
    ended.says("RK-ST-003", &[]);
    assert!(!format!("{ended:?}").contains("canary"), "{ended:#?}");
    use_key(&stack, &s3.admin_key());
    assert_eq!(stack.points().len(), 1);
    stack.complete();
}

#[test]
fn cut_connections_are_survived() {
    let s3 = S3::start(S3Options::default());
    let proxy = Proxy::start(s3.port());
    let stack = stack_on(&s3, proxy.port());
    let data = stack.path("data");
    fs::write(data.join("large"), noise(2, 24 << 20)).unwrap();
    // The first uploads break at different places; so does one of the answers.
    proxy.script([
        Fault::ResetAfter(Direction::ToServer, 100_000),
        Fault::CutAfter(Direction::ToServer, 1_000_000),
        Fault::CutAfter(Direction::ToClient, 200),
        Fault::ResetAfter(Direction::ToServer, 3_000_000),
    ]);
    stack.complete();
    comes_back(&stack, "back");
    // In the middle of an upload everything is cut.
    fs::write(data.join("large"), noise(3, 24 << 20)).unwrap();
    let start = proxy.bytes();
    proxy.set(Fault::Delay(Duration::from_millis(2)));
    let child = stack.start(&["backup"]);
    wait_until("an upload", || proxy.bytes() > start + (6 << 20));
    proxy.set(Fault::None);
    proxy.cut_all();
    let ended = end(child);
    assert_eq!(ended.code, 0, "{ended:#?}");
    comes_back(&stack, "again");
}

#[test]
fn a_server_that_freezes_or_restarts_is_waited_for() {
    let mut s3 = S3::start(S3Options::default());
    let proxy = Proxy::start(s3.port());
    let stack = stack_on(&s3, proxy.port());
    let data = stack.path("data");
    for restart in [false, true] {
        fs::write(data.join("large"), noise(u64::from(restart) + 2, 24 << 20)).unwrap();
        let start = proxy.bytes();
        proxy.set(Fault::Delay(Duration::from_millis(2)));
        let child = stack.start(&["backup"]);
        wait_until("an upload", || proxy.bytes() > start + (6 << 20));
        proxy.set(Fault::None);
        if restart {
            s3.kill9();
            s3.restart();
        } else {
            s3.sigstop();
            std::thread::sleep(Duration::from_secs(2));
            s3.sigcont();
        }
        let ended = end(child);
        assert_eq!(ended.code, 0, "{ended:#?}");
        comes_back(&stack, &format!("back-{restart}"));
    }
}

#[test]
fn a_server_that_stays_away_is_20() {
    let mut s3 = S3::start(S3Options::default());
    let proxy = Proxy::start(s3.port());
    let stack = stack_on(&s3, proxy.port());
    stack.complete();
    fs::write(stack.path("data/large"), noise(2, 24 << 20)).unwrap();
    let start = proxy.bytes();
    proxy.set(Fault::Delay(Duration::from_millis(2)));
    let child = stack.start(&["backup"]);
    wait_until("an upload", || proxy.bytes() > start + (6 << 20));
    s3.kill9();
    let ended = end(child);
    assert_eq!(ended.code, 20, "{ended:#?}");
    assert!(
        ended.err.contains("error[RK-ST-002]") && ended.err.contains(s3.bucket()) && ended.err.contains("\nhint: "),
        "{ended:#?}"
    );
    proxy.set(Fault::None);
    s3.restart();
    assert_eq!(stack.points().len(), 1, "no new point");
    stack.complete();
    comes_back(&stack, "back");
}

/// No key anywhere: the machine's role is asked for, and again before it expires.
#[test]
fn the_role_of_the_machine_is_enough() {
    let s3 = S3::start(S3Options::default());
    // A key that is about to expire is not used for long.
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(2)).to_string();
    for (expires, renewed) in [("2099-01-01T00:00:00Z", false), (soon.as_str(), true)] {
        let role = InstanceRole::start(s3.admin_key(), expires);
        let mut place = Place::new();
        place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &role.endpoint());
        let (bucket, port, region) = (s3.bucket(), s3.port(), s3.region());
        let url = format!("s3://{bucket}/role-{renewed}?endpoint=http://127.0.0.1:{port}&region={region}");
        let lines = format!(
            "url = \"s3://{bucket}/role-{renewed}\"\nendpoint = \"http://127.0.0.1:{port}\"\nregion = \"{region}\""
        );
        let mut stack = Stack::at(place, &lines, &url);
        fs::write(stack.files("data").join("a"), noise(1, 1 << 20)).unwrap();
        let before = role.asked();
        stack.complete();
        assert!(role.asked() > before);
        // `complete` starts the program three times; each needs the key once.
        assert_eq!(role.asked() - before > 3, renewed, "{} times", role.asked() - before);
        comes_back(&stack, "back");
        if !renewed {
            role.revoke();
            let ended = stack.place.ends(20, &["backup"]);
            assert!(ended.err.contains("access-key-id") && ended.err.contains("\nhint: "), "{ended:#?}");
        }
    }
}

/// Whole objects that were written, and the storage class that was asked for; a header that is not signed could be
/// taken away on its way.
fn written(seen: &[Seen]) -> Vec<(&str, Option<&str>)> {
    let whole = seen.iter().filter(|one| one.method == "PUT" && !one.target.contains('?'));
    whole
        .map(|one| {
            let class = one.header("x-amz-storage-class");
            let signed = one.header("authorization").unwrap().contains("x-amz-storage-class");
            assert_eq!(class.is_some(), signed, "{one:?}");
            (&*one.target, class)
        })
        .collect()
}

/// Names and storage classes of all objects below a prefix, as the server lists them.
fn stored(door: &S3Door, bucket: &str, prefix: &str) -> Vec<(String, String)> {
    let query = format!("list-type=2&prefix={prefix}%2F");
    let (status, page) = door.request(&door.owner, ("GET", &format!("/{bucket}"), &query), &[], b"");
    assert!(status == 200 && !page.contains("<IsTruncated>true"), "{page}");
    let text = |part: &str, tag: &str| {
        let (_, rest) = part.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag}: {part}"));
        rest.split_once('<').unwrap().0.to_owned()
    };
    page.split("<Contents>").skip(1).map(|part| (text(part, "Key"), text(part, "StorageClass"))).collect()
}

#[test]
fn the_storage_class_arrives_with_every_pack_and_with_nothing_else() {
    let s3 = S3::start(S3Options::default());
    let door = s3.door();
    door.make_locked_bucket("locked");
    for (bucket, lock) in [(s3.bucket(), ""), ("locked", "object-lock = \"compliance\"\nobject-lock-days = 1\n")] {
        let proxy = HttpProxy::start(door.port);
        let through = S3Door { port: proxy.port(), ..door.clone() };
        let mut stack = stack_in(&through, &door.owner, bucket, &format!("{lock}storage-class = \"STANDARD_IA\""));
        let data = stack.files("data");
        stack.place.write("copy-key", "canary-password-of-the-copy");
        stack.set("[retention]\nkeep-last = 1\nmin-keep = 1");
        stack.set(&format!(
            "[copy.offsite]\nurl = \"s3://{bucket}/copy\"\nendpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\n\
             secret-access-key = \"env:AWS_SECRET_ACCESS_KEY\"\npassword = \"file:copy-key\"\nstorage-class = \"GLACIER_IR\"",
            through.endpoint(),
            door.region,
            door.owner.access
        ));
        // A third of what the first point has is gone with it: packs that hold both are written again.
        for n in 0..20 {
            fs::write(data.join(format!("part-{n}")), noise(n, 2 << 20)).unwrap();
        }
        stack.complete();
        for n in (0..20).step_by(3) {
            fs::remove_file(data.join(format!("part-{n}"))).unwrap();
        }
        stack.complete();
        stack.place.json(0, &["copy", "--init"]);
        stack.place.json(0, &["forget"]);
        let before = written(&proxy.seen()).len();
        let pruned = stack.place.json(0, &["prune"]);
        assert!(pruned["result"]["report"]["repacked_bytes"].as_u64().unwrap() > 1 << 20, "{pruned}");

        let seen = proxy.seen();
        let puts = written(&seen);
        let packs_since = |from: usize| puts[from..].iter().filter(|(name, _)| name.contains("/data/")).count();
        assert!(packs_since(0) >= 4 && packs_since(before) >= 1, "{puts:?}");
        for (name, class) in &puts {
            let expected = match name {
                name if name.starts_with(&format!("/{bucket}/shop/data/")) => Some("STANDARD_IA"),
                name if name.starts_with(&format!("/{bucket}/copy/data/")) => Some("GLACIER_IR"),
                _ => None,
            };
            assert_eq!(*class, expected, "{name}");
        }
        // Another way to write an object would have to carry it too.
        let posts: Vec<_> = seen.iter().filter(|one| one.method == "POST").collect();
        assert!(posts.is_empty(), "{posts:?}");
        assert!(seen.iter().all(|one| one.header("x-amz-copy-source").is_none()));
        for (place, class) in [("shop", "STANDARD_IA"), ("copy", "GLACIER_IR")] {
            let all = stored(&door, bucket, place);
            assert!(all.iter().any(|(name, _)| name.starts_with(&format!("{place}/data/"))), "{all:?}");
            for (name, kept) in &all {
                let expected = if name.starts_with(&format!("{place}/data/")) { class } else { "STANDARD" };
                assert_eq!(kept, expected, "{name}");
            }
        }
        stack.place.json(0, &["verify", "--read-data"]);
    }
}
