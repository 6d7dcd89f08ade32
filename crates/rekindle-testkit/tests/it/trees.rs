use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rekindle_testkit::fixtures::{
    CompareOptions, OddTreeOptions, compare_trees, compare_trees_with, odd_tree, odd_tree_with,
};

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--sparse=always", "-T"]).arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_faithful_copy_has_no_difference_and_the_tree_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, again) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&again).unwrap();
    let made = odd_tree(&a);
    assert!(made.xattrs, "the temporary directory takes extended attributes");
    copy(&a, &b);
    let strict = CompareOptions { allocated_slack_bytes: Some(1 << 20), root: true, ..CompareOptions::default() };
    assert_eq!(compare_trees_with(&a, &b, &strict), Vec::<String>::new());
    assert_eq!(odd_tree(&again), made);
    assert_eq!(compare_trees(&a, &again), Vec::<String>::new());
}

/// What to change, how the difference must begin, and the change.
type Change = (&'static str, &'static str, fn(&Path));

#[test]
fn every_kind_of_difference_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    let options = OddTreeOptions { small_files: 5, medium_files: 1, ..OddTreeOptions::default() };
    let made = odd_tree_with(&a, &options);
    let mut changes = changes();
    if made.xattrs {
        changes.push(("attributes/file", "xattrs", |p| {
            rustix::fs::lremovexattr(p, "user.empty").unwrap();
        }));
    }
    if made.acls {
        changes.push(("access-lists", "xattrs", |p| {
            rustix::fs::lremovexattr(p, "system.posix_acl_default").unwrap();
        }));
    }
    if made.owners {
        changes.push(("owners/link-of-another", "owner", |p| {
            lchown(p, Some(1), None).unwrap();
        }));
    }
    for (path, expected, change) in changes {
        copy(&a, &b);
        change(&b.join(path));
        let found = compare_trees(&a, &b);
        let line = |line: &String| line.starts_with(&format!("{path:?}: {expected}"));
        assert!(found.iter().any(line), "{path} {expected}: {found:#?}");
        fs::remove_dir_all(&b).unwrap();
    }
}

/// Changes that every file system shows.
fn changes() -> Vec<Change> {
    vec![
        ("names/plain.txt", "missing in the second", |p| {
            fs::remove_file(p).unwrap();
        }),
        ("names/new", "missing in the first", |p| {
            fs::write(p, "").unwrap();
        }),
        ("special/empty-dir", "missing in the second", |p| {
            fs::remove_dir(p).unwrap();
        }),
        ("special/fifo", "type", |p| {
            fs::remove_file(p).unwrap();
            fs::write(p, "").unwrap();
        }),
        ("modes/file-4755", "mode", |p| {
            fs::set_permissions(p, Permissions::from_mode(0o755)).unwrap();
        }),
        ("modes/dir-1777", "mode", |p| {
            fs::set_permissions(p, Permissions::from_mode(0o777)).unwrap();
        }),
        ("names/zero-bytes", "size", |p| fs::write(p, "x").unwrap()),
        ("medium/log-0", "content differs from byte 1000001", |p| {
            let file = File::options().write(true).open(p).unwrap();
            file.write_all_at(b"\0", 1_000_001).unwrap();
        }),
        ("sparse-5gib", "content differs from byte 3221225472", |p| {
            File::options().write(true).open(p).unwrap().write_all_at(b"x", 3 << 30).unwrap();
        }),
        ("links/to-dir", "link target", |p| {
            fs::remove_file(p).unwrap();
            symlink("Real", p).unwrap();
        }),
        ("links/hard-2", "first name", |p| {
            fs::remove_file(p).unwrap();
            fs::copy(p.with_file_name("hard-1"), p).unwrap();
        }),
        ("links/equal-but-not-linked", "first name", |p| {
            fs::remove_file(p).unwrap();
            fs::hard_link(p.with_file_name("hard-1"), p).unwrap();
        }),
        ("deep", "mtime", |p| set_mtime(p)),
        ("names/case", "mtime", |p| set_mtime(p)),
    ]
}

fn set_mtime(path: &Path) {
    // One nanosecond off.
    let file = File::open(path).unwrap();
    let old = fs::metadata(path).unwrap().modified().unwrap();
    let new: SystemTime = old + Duration::from_nanos(1);
    file.set_modified(new).unwrap();
}

#[test]
fn filled_holes_are_found_on_request_only() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    File::create(a.join("file")).unwrap().set_len(64 << 20).unwrap();
    copy(&a, &b);
    fs::write(b.join("file"), vec![0; 64 << 20]).unwrap();
    let lenient = CompareOptions { times: false, ..CompareOptions::default() };
    assert_eq!(compare_trees_with(&a, &b, &lenient), Vec::<String>::new());
    let strict = CompareOptions { allocated_slack_bytes: Some(1 << 20), ..lenient };
    let found = compare_trees_with(&a, &b, &strict);
    assert!(found.len() == 1 && found[0].contains("holes were filled"), "{found:?}");
}
