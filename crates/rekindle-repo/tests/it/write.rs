//! What a session stores, read back with the format code alone.

use std::sync::atomic::Ordering;

use rekindle_core::entry::{Content, EntryKind};
use rekindle_core::port::{Reuse, WriteSession};
use rekindle_core::{Class, Secret, cancel, codes};
use rekindle_repo::format::Id;
use rekindle_repo::lock::{Lock, LockKind};
use rekindle_repo::{Chunking, Repo, RepoOptions, Session};

use crate::write_support::*;

fn sample() -> Vec<rekindle_core::entry::Entry> {
    let mut linked = made(b"two names".to_vec(), Act::Good);
    (linked.meta.inode, linked.meta.device, linked.meta.links) = (5, 1, 2);
    vec![
        file("a", made(noise(100_000, 1), Act::Good)),
        plain("d", EntryKind::Directory),
        plain("d/empty", EntryKind::Directory),
        file("d/nothing", made(Vec::new(), Act::Good)),
        file("d/one", linked.clone()),
        file("d/two", linked),
        plain("d!", EntryKind::Symlink { target: b"d/\xff".to_vec() }),
        file("big", made(noise(20 << 20, 2), Act::Good)),
        stream("dump", noise(11 << 20, 3), Act::Good),
        plain("pipe", EntryKind::Fifo),
    ]
}

fn ordered(mut entries: Vec<rekindle_core::entry::Entry>) -> Vec<rekindle_core::entry::Entry> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn round_trip(bench: &Bench) {
    let (point, part) = save(&bench.open(), ordered(sample()), Reuse::Nothing).unwrap();
    let decoded = Decoded::read(bench);
    let [snapshot] = decoded.snapshots.as_slice() else {
        panic!("one snapshot");
    };
    assert_eq!(decoded.unindexed, 0);
    assert_eq!(snapshot.paths, ["/files"]);
    assert!(snapshot.has_tag("rekindle"));
    assert_eq!(snapshot.tag("stack"), Some("test-stack"));
    assert_eq!(snapshot.tag("state"), Some("complete"));
    let all = decoded.all(&snapshot.tree);
    let content = |name: &str| &all[name.as_bytes()].1;
    assert_eq!(*content("files/a"), noise(100_000, 1));
    assert_eq!(*content("files/big"), noise(20 << 20, 2));
    assert_eq!(*content("files/dump"), noise(11 << 20, 3));
    assert_eq!(all[b"files/dump".as_slice()].0.meta.size, 11 << 20, "streams have their true size");
    assert_eq!(*content("files/d/one"), b"two names");
    assert_eq!(*content("files/d/two"), b"two names");
    assert!(content("files/d/nothing").is_empty());
    assert_eq!(all[b"files/pipe".as_slice()].0.meta.kind, EntryKind::Fifo);
    let target = b"d/\xff".to_vec();
    assert_eq!(all[b"files/d!".as_slice()].0.meta.kind, EntryKind::Symlink { target });
    let manifest = rekindle_core::manifest::Manifest::decode(content("rekindle/manifest.json")).unwrap();
    assert_eq!(&manifest, point.manifest());
    assert_eq!(part.tally.entries, 10);
    assert!(bench.keys("locks/").is_empty(), "the lock is gone");
}

#[test]
fn memory_gives_back_what_was_stored() {
    round_trip(&Bench::memory());
}

#[test]
fn disk_gives_back_what_was_stored() {
    round_trip(&Bench::local());
}

#[test]
fn the_same_content_is_stored_once() {
    let bench = Bench::memory();
    let repo = bench.open();
    let entries = || ordered(sample());
    let (_, first) = save(&repo, entries(), Reuse::Nothing).unwrap();
    let (_, second) = save(&repo, entries(), Reuse::Nothing).unwrap();
    assert!(first.added_bytes > 30 << 20 && first.stored_bytes > 30 << 20);
    assert_eq!((second.added_bytes, second.stored_bytes), (0, 0));
    assert_eq!(first.tree, second.tree);
}

#[test]
fn two_components_with_the_same_content_store_it_once() {
    let bench = Bench::memory();
    let context = context();
    let session = Session::begin(&bench.open(), &context).unwrap();
    let many = || (0..40).map(|n| file(&format!("f{n:02}"), made(noise(300_000, n % 20), Act::Good)));
    let parts = std::thread::scope(|scope| {
        let session = &session;
        ["one", "two", "three"]
            .map(|name| scope.spawn(move || store(session, name, many(), Reuse::Nothing).unwrap()))
            .map(|thread| thread.join().unwrap())
    });
    let added: u64 = parts.iter().map(|(_, holds)| holds.added_bytes).sum();
    session.commit(draft(&context, parts.map(|(part, _)| part))).unwrap();
    let decoded = Decoded::read(&bench);
    // 20 contents, one tree of the three equal components, manifest, its tree, the top tree.
    assert_eq!(decoded.blobs_in_packs, 24);
    assert!((20 * 300_000..20 * 300_000 + 20_000).contains(&added), "{added}");
}

#[test]
fn entries_out_of_order_are_refused() {
    for names in [&["b", "a"][..], &["a", "a"], &["x/y"]] {
        let entries = names.iter().map(|name| file(name, made(vec![1], Act::Good))).collect();
        let fault = save(&Bench::memory().open(), entries, Reuse::Nothing).unwrap_err();
        assert!(fault.is(codes::REPO_ORDER), "{fault:?}");
    }
    let mut odd = file("a", made(vec![1], Act::Good));
    odd.meta.kind = EntryKind::Directory;
    let fault = save(&Bench::memory().open(), vec![odd], Reuse::Nothing).unwrap_err();
    assert!(fault.is(codes::REPO_ORDER));
}

#[test]
fn skipped_and_retried_content() {
    let big = 17 << 20;
    for size in [1000, big] {
        let mut retried = made(noise(size, 9), Act::Good);
        retried.acts = vec![Act::Retry, Act::Retry, Act::Good];
        let entries = vec![
            file("a", retried.clone()),
            file("b", made(noise(size, 8), Act::SkipOpen)),
            file("c", made(noise(size, 8), Act::SkipRead)),
            file("d", made(noise(size, 8), Act::SkipEnd)),
            stream("e", noise(size, 7), Act::SkipEnd),
            file("f", made(noise(size, 6), Act::Good)),
        ];
        let bench = Bench::memory();
        let (_, part) = save(&bench.open(), entries, Reuse::Nothing).unwrap();
        assert_eq!(part.tally.entries, 2);
        assert_eq!(retried.opened.load(Ordering::SeqCst), 3);
        let decoded = Decoded::read(&bench);
        let all = decoded.all(&part.tree.parse().unwrap());
        assert_eq!(all.keys().collect::<Vec<_>>(), [b"a", b"f"]);
        assert!(all[b"a".as_slice()].1 == noise(size, 9));
    }
}

#[test]
fn one_failing_component_does_not_harm_another() {
    for (size, act) in
        [(1000, Act::AbortRead), (1000, Act::AbortEnd), (18 << 20, Act::AbortRead), (18 << 20, Act::AbortEnd)]
    {
        let bench = Bench::memory();
        let context = context();
        let session = Session::begin(&bench.open(), &context).unwrap();
        let bad = vec![file("a", made(noise(size, 1), act)), file("b", made(noise(10, 1), Act::Good))];
        let fault = store(&session, "bad", bad, Reuse::Nothing).unwrap_err();
        assert!(fault.is(codes::RUN_SIBLING), "{fault:?}");
        let stream_fault = store(&session, "bad2", vec![stream("s", noise(size, 1), act)], Reuse::Nothing).unwrap_err();
        assert!(stream_fault.is(codes::RUN_SIBLING));
        let (part, _) =
            store(&session, "good", vec![file("a", made(noise(10, 1), Act::Good))], Reuse::Nothing).unwrap();
        session.commit(draft(&context, [part])).unwrap();
        assert_eq!(Decoded::read(&bench).snapshots.len(), 1);
    }
}

#[test]
fn a_source_that_never_settles_or_panics_is_an_error_and_no_hang() {
    for (size, act) in [(1000, Act::Retry), (17 << 20, Act::Retry), (1000, Act::Panic)] {
        let bench = Bench::memory();
        let entries = vec![file("a", made(noise(size, 1), act)), file("b", made(noise(10, 1), Act::Good))];
        let fault = save(&bench.open(), entries, Reuse::Nothing).unwrap_err();
        assert!(fault.is(codes::RUN_BUG), "{fault:?}");
        assert!(bench.keys("snapshots/").is_empty());
        assert!(bench.keys("locks/").is_empty());
    }
}

#[test]
fn cancel_ends_a_session_without_a_point() {
    let bench = Bench::memory();
    let context = context();
    let session = Session::begin(&bench.open(), &context).unwrap();
    let cancel = context.cancel.clone();
    let entries = (0..).map(move |n| {
        if n == 100 {
            cancel.cancel(cancel::Reason::Interrupted);
        }
        file(&format!("{n:09}"), made(noise(10_000, n), Act::Good))
    });
    let fault = store(&session, "files", entries, Reuse::Nothing).unwrap_err();
    assert_eq!(fault.class(), Class::Interrupted);
    session.abandon();
    assert!(bench.keys("snapshots/").is_empty() && bench.keys("locks/").is_empty());
}

#[test]
fn unchanged_files_are_taken_over_and_only_those() {
    let bench = Bench::memory();
    let repo = bench.open();
    let build = |size_of_b: usize| {
        let mut entries = vec![plain("d", EntryKind::Directory)];
        let mut opened = Vec::new();
        for (name, size, inode) in [("d/a", 40_000, 1), ("d/b", size_of_b, 2), ("e", 3 << 20, 3), ("n", 100, 0)] {
            let mut made = made(noise(size, inode), Act::Good);
            made.meta.inode = inode;
            opened.push(std::sync::Arc::clone(&made.opened));
            entries.push(file(name, made));
        }
        (entries, opened)
    };
    let (entries, _) = build(500);
    let (_, first) = save(&repo, entries, Reuse::Nothing).unwrap();
    let (entries, opened) = build(501);
    let (_, second) = save(&repo, entries, Reuse::Tree(first.tree.clone())).unwrap();
    let reads: Vec<usize> = opened.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    assert_eq!(reads, [0, 1, 0, 1], "inode 0 tells nothing, so `n` is read");
    assert_eq!(second.tally.unchanged_bytes, 40_000 + (3 << 20));
    let all = Decoded::read(&bench).all(&second.tree.parse().unwrap());
    assert_eq!(all[b"d/a".as_slice()].1, noise(40_000, 1));
    assert_eq!(all[b"d/b".as_slice()].1, noise(501, 2));

    // A pack is lost: nothing is taken over from it, and the next run heals.
    for pack in bench.keys("data/") {
        bench.blocking().delete(&rekindle_store::Key::new(&pack).unwrap()).unwrap();
    }
    let (entries, opened) = build(501);
    let (_, third) = save(&repo, entries, Reuse::Tree(second.tree)).unwrap();
    assert!(opened.iter().all(|count| count.load(Ordering::SeqCst) == 1));
    let all = Decoded::read(&bench).all(&third.tree.parse().unwrap());
    assert_eq!(all[b"e".as_slice()].1, noise(3 << 20, 3));
}

#[test]
fn a_second_name_of_a_file_is_not_read() {
    let bench = Bench::memory();
    let mut linked = made(noise(5000, 1), Act::Good);
    (linked.meta.inode, linked.meta.device, linked.meta.links) = (5, 1, 3);
    let mut skipped = made(noise(5000, 2), Act::Good);
    (skipped.meta.inode, skipped.meta.device, skipped.meta.links) = (6, 1, 2);
    let mut first_skipped = skipped.clone();
    first_skipped.acts = vec![Act::SkipRead];
    let entries = vec![
        file("a", linked.clone()),
        file("b", linked.clone()),
        file("c", linked.clone()),
        file("x", first_skipped),
        file("y", skipped),
    ];
    let (_, part) = save(&bench.open(), entries, Reuse::Nothing).unwrap();
    assert_eq!(linked.opened.load(Ordering::SeqCst), 1);
    assert_eq!(part.tally.unchanged_bytes, 10_000);
    let all = Decoded::read(&bench).all(&part.tree.parse().unwrap());
    assert_eq!(all.keys().map(|k| k[0]).collect::<Vec<_>>(), b"abcy");
    assert_eq!(all[b"y".as_slice()].1, noise(5000, 2));
}

#[test]
fn cutting_is_chosen_per_component() {
    let bench = Bench::memory();
    let mut options = RepoOptions { workers: 2, ..RepoOptions::default() };
    options.chunking.insert(id("pages"), Chunking::PAGES);
    options.chunking.insert(id("wal"), Chunking::Whole);
    let repo = bench.open_as(options).unwrap();
    let context = context();
    let session = Session::begin(&repo, &context).unwrap();
    let parts = ["pages", "wal", "files"].map(|name| {
        store(&session, name, vec![file("f", made(noise(16 << 20, 1), Act::Good))], Reuse::Nothing).unwrap()
    });
    let trees: Vec<Id> = parts.iter().map(|(_, holds)| holds.tree.parse().unwrap()).collect();
    session.commit(draft(&context, parts.map(|(part, _)| part))).unwrap();
    let decoded = Decoded::read(&bench);
    let blobs = trees.iter().map(|tree| match &decoded.tree(tree)[0].content {
        rekindle_repo::format::node::NodeContent::Blobs(blobs) => blobs.len(),
        _ => 0,
    });
    let counts: Vec<usize> = blobs.collect();
    assert_eq!(counts[..2], [256, 1]);
    assert!((2..=32).contains(&counts[2]), "{counts:?}");
}

#[test]
fn opening_says_what_is_wrong() {
    let bench = Bench::memory();
    let open = |password: &str| {
        let password = Secret::new(password.to_owned());
        Repo::open(bench.store.clone(), bench.runtime.handle().clone(), &password, RepoOptions::default())
    };
    assert!(open(PASSWORD).is_ok());
    let fault = open("not it").unwrap_err();
    assert!(fault.is(codes::REPO_WRONG_KEY) && !format!("{fault:?}").contains("not it"));
    bench.blocking().delete(&rekindle_store::Key::new("config").unwrap()).unwrap();
    let fault = open(PASSWORD).unwrap_err();
    assert!(fault.is(codes::REPO_ABSENT) && fault.exit_code() == 10);
    let fault = open("not it").unwrap_err();
    assert!(fault.is(codes::REPO_ABSENT), "no key is tried on nothing");
}

#[test]
fn locks_exclude_and_a_lost_one_prevents_the_point() {
    let bench = Bench::memory();
    let repo = bench.open();
    let clock = || -> std::sync::Arc<dyn rekindle_core::port::Clock> { std::sync::Arc::new(Now) };
    let shared = Lock::acquire(&repo, &clock(), LockKind::Shared).unwrap();
    let second = Lock::acquire(&repo, &clock(), LockKind::Shared).unwrap();
    let fault = Lock::acquire(&repo, &clock(), LockKind::Exclusive).unwrap_err();
    assert!(fault.is(codes::REPO_LOCKED) && fault.exit_code() == 11);
    shared.release().unwrap();
    second.release().unwrap();
    let exclusive = Lock::acquire(&repo, &clock(), LockKind::Exclusive).unwrap();
    let fault = Session::begin(&repo, &context()).unwrap_err();
    assert!(fault.is(codes::REPO_LOCKED), "{fault:?}");
    exclusive.release().unwrap();
    assert!(bench.keys("locks/").is_empty());

    let context = context();
    let session = Session::begin(&repo, &context).unwrap();
    let (part, _) = store(&session, "files", vec![stream("s", vec![1], Act::Good)], Reuse::Nothing).unwrap();
    for lock in bench.keys("locks/") {
        bench.blocking().delete(&rekindle_store::Key::new(&lock).unwrap()).unwrap();
    }
    let fault = session.commit(draft(&context, [part])).unwrap_err();
    assert!(fault.is(codes::REPO_LOST_LOCK), "{fault:?}");
    assert!(bench.keys("snapshots/").is_empty());
}

#[test]
fn content_none_of_a_file_is_an_empty_file() {
    let bench = Bench::memory();
    let entry = rekindle_core::entry::Entry { content: Content::None, ..plain("f", EntryKind::File) };
    let (_, part) = save(&bench.open(), vec![entry], Reuse::Nothing).unwrap();
    let all = Decoded::read(&bench).all(&part.tree.parse().unwrap());
    assert_eq!(all[b"f".as_slice()].0.meta.size, 0);
}
