//! Captures of trees that hold still.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rekindle_core::codes;
use rekindle_core::entry::{Content, EntryKind, EntryPath};
use rekindle_core::note::NoteClass;
use rekindle_core::port::{Component, Level};
use rekindle_core::tally::{Counted, Tally};
use rekindle_sources::files::{FilesComponent, FilesOptions, Policy};

use crate::files_support::{
    CHILD_PLACE, begin, capture, collect, component, context, odd_tree, options, run_child, wait,
};

#[test]
fn an_odd_tree_is_taken_whole() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    odd_tree(top);
    let (collected, proof) = capture(options(&[top])).unwrap();
    let mut seen = 0;
    for taken in &collected.taken {
        let live = Path::new("/").join(std::ffi::OsStr::from_bytes(taken.path.as_bytes()));
        let is = live.symlink_metadata().unwrap();
        let meta = &taken.meta;
        assert_eq!((meta.uid, meta.gid), (is.uid(), is.gid()), "{live:?}");
        assert_eq!(meta.mode, is.mode() & 0o7777, "{live:?}");
        assert_eq!((meta.inode, meta.device, meta.links), (is.ino(), is.dev(), is.nlink()));
        assert_eq!(meta.user.as_deref(), Some("root").filter(|_| is.uid() == 0));
        if live.starts_with(top) {
            seen += 1;
            let times = (meta.modified.seconds, i64::from(meta.modified.nanoseconds));
            assert_eq!(times, (is.mtime(), is.mtime_nsec()), "{live:?}");
        }
        match &meta.kind {
            EntryKind::File => {
                assert!(is.is_file());
                assert_eq!(taken.content.as_ref().unwrap(), &fs::read(&live).unwrap());
            }
            EntryKind::Directory => assert!(is.is_dir()),
            EntryKind::Symlink { target } => {
                assert_eq!(fs::read_link(&live).unwrap().as_os_str().as_bytes(), target);
            }
            kind => assert!(matches!(kind, EntryKind::Fifo | EntryKind::Socket)),
        }
    }
    // Three directories with one inside, ten files, a link, three symbolic links, two special, top.
    assert_eq!(seen, 4 + 11 + 1 + 3 + 2 + 1);
    let plain = &collected.get(&top.join("plain")).unwrap().meta;
    assert_eq!(plain.xattrs, [(b"user.note".to_vec(), b"\x00value".to_vec())]);
    assert_eq!(plain.inode, collected.get(&top.join("sub/linked")).unwrap().meta.inode);
    assert_eq!(proof.notes().count(NoteClass::Special), 2);
    assert!(!proof.notes().make_partial());
    let mut tally = Tally::default();
    for taken in &collected.taken {
        let counted = match &taken.content {
            Some(content) if taken.meta.kind == EntryKind::File => {
                Counted::Read { bytes: content.len() as u64, hash: xxhash_rust::xxh3::xxh3_128(content) }
            }
            _ => Counted::Nothing,
        };
        tally.add(&taken.path, &taken.meta.kind, counted);
    }
    assert_eq!(proof.tally(), tally);
}

#[test]
fn order_holds_in_a_directory_of_a_hundred_thousand() {
    // In memory: making and removing that many files on a disk takes longer than the test.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    for n in 0..100_000_u32 {
        // Scattered names, so that creation order is not byte order.
        File::create(place.path().join(format!("{:08x}", n.wrapping_mul(2_654_435_761)))).unwrap();
    }
    let mut capture = begin(&component(options(&[place.path()]))).unwrap();
    let paths: Vec<EntryPath> = capture.entries().map(|entry| entry.unwrap().path).collect();
    assert!(paths.is_sorted_by(|a, b| a < b));
    let parents = place.path().components().count() - 1;
    assert_eq!(paths.len(), 100_000 + parents);
}

#[test]
fn a_tree_deeper_than_the_limit_of_open_directories_is_walked() {
    let place = tempfile::tempdir().unwrap();
    let mut deep = place.path().to_owned();
    for level in 0..300 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
        if level % 50 == 0 {
            // Sorted after `d`: reached only on the way back up.
            fs::write(deep.join("z"), level.to_string()).unwrap();
        }
    }
    let mut capture = begin(&component(options(&[place.path()]))).unwrap();
    let before = fs::read_dir("/proc/self/fd").unwrap().count();
    let (mut files, mut entries, mut open_most) = (0, 0, 0);
    for entry in capture.entries() {
        let entry = entry.unwrap();
        entries += 1;
        open_most = open_most.max(fs::read_dir("/proc/self/fd").unwrap().count());
        if let Content::File(mut source) = entry.content {
            files += 1;
            source.open().unwrap();
        }
    }
    assert_eq!(files, 6);
    assert!(entries >= 306);
    // Other tests of this process hold some as well.
    assert!(open_most < before + 200, "{open_most} open, {before} before");
}

#[test]
fn overlapping_paths_single_files_and_links_are_one_tree() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::create_dir_all(top.join("other")).unwrap();
    for file in ["a/b/x", "a/y", "other/one", "other/two"] {
        fs::write(top.join(file), file).unwrap();
    }
    std::os::unix::fs::symlink("a", top.join("link")).unwrap();
    let paths = ["a", "a/b", "other/two", "link"].map(|path| top.join(path));
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let (collected, proof) = capture(options(&paths)).unwrap();
    let below = collected.below(top);
    assert_eq!(below, ["a", "a/b", "a/b/x", "a/y", "link", "other", "other/two"]);
    assert!(collected.taken.is_sorted_by(|a, b| a.path < b.path));
    assert_eq!(proof.notes().count(NoteClass::Information), 1, "the link");
}

#[test]
fn a_path_through_a_link_is_followed_above_and_refused_inside() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    fs::create_dir_all(top.join("real/data")).unwrap();
    fs::write(top.join("real/data/x"), "x").unwrap();
    std::os::unix::fs::symlink("real", top.join("link")).unwrap();
    let through = top.join("link/data");
    let (collected, _) = capture(options(&[&through])).unwrap();
    assert_eq!(collected.below(top), ["link", "link/data", "link/data/x"]);
    let fault = capture(options(&[top, &through])).err().unwrap();
    assert!(fault.is(codes::FILES_LAYOUT), "{fault:?}");
}

#[test]
fn a_path_that_is_not_there_is_no_empty_backup() {
    let place = tempfile::tempdir().unwrap();
    let fault = capture(options(&[place.path(), &place.path().join("no")])).err().unwrap();
    assert!(fault.is(codes::FILES_ROOT), "{fault:?}");
    assert!(fault.hint_text().unwrap().contains("/no"));
    let gone = place.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let mut capture = begin(&component(options(&[&gone]))).unwrap();
    fs::remove_dir(&gone).unwrap();
    let fault = collect(capture.entries()).err().unwrap();
    assert!(fault.is(codes::FILES_ROOT), "{fault:?}");
    assert!(wait(capture.finish()).is_err(), "no proof without the end");
}

#[test]
fn excluded_directories_are_not_entered_but_configured_ones_in_them_are() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    for directory in ["node_modules/p/keep", "src", "logs"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    for file in ["node_modules/p/q", "node_modules/p/keep/k", "src/a.log", "logs/a.log", "logs/b"] {
        fs::write(top.join(file), "x").unwrap();
    }
    let keep = top.join("node_modules/p/keep");
    let paths = [top, keep.as_path()];
    let asked = FilesOptions {
        exclude: ["node_modules/", "*.log", "!/logs/a.log"].map(str::to_owned).to_vec(),
        ..options(&paths)
    };
    let (collected, _) = capture(asked).unwrap();
    let expected = [
        "logs",
        "logs/a.log",
        "logs/b",
        "node_modules",
        "node_modules/p",
        "node_modules/p/keep",
        "node_modules/p/keep/k",
        "src",
    ];
    assert_eq!(collected.below(top), expected);
    let bad = FilesOptions { exclude: vec!["[z-a]".to_owned()], ..options(&paths) };
    let fault = FilesComponent::new("x".parse().unwrap(), bad).unwrap_err();
    assert!(fault.is(codes::FILES_PATTERN));
}

#[test]
fn caches_own_places_and_other_file_systems_are_not_entered() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    for directory in ["cache/deep", "repository/data", "tagless"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    let signature = "Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n";
    fs::write(top.join("cache/CACHEDIR.TAG"), signature).unwrap();
    fs::write(top.join("cache/deep/x"), "x").unwrap();
    fs::write(top.join("tagless/CACHEDIR.TAG"), "no signature").unwrap();
    fs::write(top.join("tagless/x"), "x").unwrap();
    let asked = FilesOptions { exclude_caches: true, own_places: vec![top.join("repository")], ..options(&[top]) };
    let (collected, proof) = capture(asked.clone()).unwrap();
    let expected = ["cache", "cache/CACHEDIR.TAG", "repository", "tagless", "tagless/CACHEDIR.TAG", "tagless/x"];
    assert_eq!(collected.below(top), expected);
    assert_eq!(proof.notes().count(NoteClass::NotEntered), 1);
    let inside = FilesOptions { paths: vec![top.join("repository/data")], ..asked };
    assert!(capture(inside).err().unwrap().is(codes::FILES_PATH));
    // Devices and file systems of a running machine, none of which may be opened or entered.
    let devices = FilesOptions { one_file_system: true, ..options(&[Path::new("/dev")]) };
    let (collected, proof) = capture(devices).unwrap();
    let null = &collected.get(Path::new("/dev/null")).unwrap().meta;
    assert_eq!(null.kind, EntryKind::CharDevice { device: rustix::fs::makedev(1, 3) });
    assert!(collected.get(Path::new("/dev/pts")).is_some());
    assert!(collected.below(Path::new("/dev/pts")).is_empty());
    assert!(proof.notes().count(NoteClass::NotEntered) > 0);
}

#[test]
fn holes_are_zeros_and_cost_no_reading() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(5 << 30).unwrap();
    file.write_at(b"in the middle", 3 << 30).unwrap();
    file.write_at(&[9], (5 << 30) - 1).unwrap();
    assert!(file.metadata().unwrap().blocks() < 1000, "this file system knows holes");
    let (collected, proof) = capture(options(&[place.path()])).unwrap();
    let taken = collected.get(&path).unwrap();
    let middle: u64 = b"in the middle".iter().map(|b| u64::from(*b)).sum();
    assert_eq!((taken.bytes, taken.sum), (5 << 30, middle + 9));
    assert_eq!(proof.tally().bytes, 5 << 30);
}

#[test]
fn a_file_that_cannot_be_read_follows_the_policy() {
    // Reading the memory of a process at address 0 is an I/O error for everybody.
    let asked = |policy: Option<Policy>| FilesOptions {
        exclude: ["*", "!mem"].map(str::to_owned).to_vec(),
        policy: policy.map(|p| (NoteClass::Unreadable, p)).into_iter().collect(),
        ..options(&[Path::new(&format!("/proc/{}", std::process::id()))])
    };
    for (policy, partial) in [(None, true), (Some(Policy::Partial), true), (Some(Policy::Note), false)] {
        let (collected, proof) = capture(asked(policy)).unwrap();
        assert_eq!(collected.skipped.len(), 1);
        assert_eq!(proof.notes().count(NoteClass::Unreadable), 1);
        assert_eq!(proof.notes().make_partial(), partial, "{policy:?}");
    }
    let fault = capture(asked(Some(Policy::Fail))).err().unwrap();
    assert!(fault.is(codes::FILES_READ), "{fault:?}");
}

#[test]
fn without_privileges_unreadable_things_are_named() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    crate::files_support::set_mode(top, 0o755);
    fs::create_dir_all(top.join("tree/closed")).unwrap();
    fs::create_dir(top.join("closed-root")).unwrap();
    fs::write(top.join("tree/closed/x"), "x").unwrap();
    fs::write(top.join("tree/secret"), "x").unwrap();
    fs::write(top.join("tree/open"), "open").unwrap();
    for closed in ["tree/closed", "tree/secret", "closed-root"] {
        crate::files_support::set_mode(&top.join(closed), 0o700);
    }
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    run_child("files_capture::child_without_privileges", &nobody, top);
}

#[test]
#[ignore = "run by `without_privileges_unreadable_things_are_named` as another user"]
fn child_without_privileges() {
    let top = PathBuf::from(std::env::var_os(CHILD_PLACE).unwrap());
    let tree = top.join("tree");
    let (collected, proof) = capture(options(&[&tree])).unwrap();
    // The closed directory itself is known; what is in it is not.
    assert_eq!(collected.below(&tree), ["closed", "open"]);
    assert_eq!(proof.notes().count(NoteClass::Unreadable), 2);
    assert!(proof.notes().make_partial());
    for root in ["closed-root", "tree/secret"] {
        let fault = capture(options(&[&top.join(root)])).err().unwrap();
        assert!(fault.is(codes::FILES_ROOT), "{fault:?}");
        assert!(fault.hint_text().unwrap().contains("65534"));
    }
}

#[test]
fn a_probe_tells_what_would_go_wrong() {
    let place = tempfile::tempdir().unwrap();
    let top = place.path();
    fs::create_dir_all(top.join("full")).unwrap();
    fs::create_dir_all(top.join("empty")).unwrap();
    fs::write(top.join("full/x"), "x").unwrap();
    std::os::unix::fs::symlink("full", top.join("link")).unwrap();
    let paths = ["full", "empty", "link", "no"].map(|name| top.join(name));
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let asked = FilesOptions { exclude: vec![format!("{}/x", top.join("full").display())], ..options(&paths) };
    let findings = wait(component(asked).probe(&context(top))).unwrap();
    let levels = |name: &str| -> Vec<Level> {
        let needle = format!("{}`", top.join(name).display());
        findings.iter().filter(|f| f.text.contains(&needle)).map(|f| f.level).collect()
    };
    assert_eq!(levels("full"), [Level::Good, Level::Warning]);
    assert_eq!(levels("empty"), [Level::Warning]);
    assert_eq!(levels("link"), [Level::Warning]);
    assert_eq!(levels("no"), [Level::Bad]);
}

fn relative_path() -> impl Strategy<Value = Vec<String>> {
    // Bytes around `/` (0x2f), where order by path and order by directory differ.
    prop::collection::vec("[ab!\\-.0]{1,3}", 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_walk_gives_every_entry_once_in_entry_order(files in prop::collection::vec(relative_path(), 0..20)) {
        let place = tempfile::tempdir().unwrap();
        let mut expected = BTreeSet::new();
        for names in &files {
            if names.iter().any(|name| name == "." || name == "..") { continue; }
            let path = place.path().join(names.join("/"));
            // A name may be wanted both as a file and as a directory; the first stays.
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
                fs::write(&path, "x").unwrap();
            }
        }
        let mut waiting = vec![place.path().to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path.clone()); }
                let relative = path.strip_prefix("/").unwrap().as_os_str().as_bytes().to_vec();
                expected.insert(EntryPath::new(relative).unwrap());
            }
        }
        let (collected, _) = capture(options(&[place.path()])).unwrap();
        let top = place.path().components().count() - 1;
        let got: Vec<EntryPath> = collected.taken.into_iter().skip(top).map(|t| t.path).collect();
        prop_assert_eq!(got, expected.into_iter().collect::<Vec<_>>());
    }
}
