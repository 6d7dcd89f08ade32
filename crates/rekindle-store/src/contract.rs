//! What every store has to do, as one suite that each adapter runs.
//!
//! The suite panics at the first broken promise, so it can be called from any test. It works below
//! a prefix of its own and leaves nothing behind.

use bytes::Bytes;
use rekindle_core::codes;

use crate::key::Key;
use crate::probe::probe;
use crate::store::{PutMode, PutOutcome, Store};

/// Runs every check against a store that may be written to.
///
/// # Panics
/// When the store breaks a promise of [`Store`].
pub async fn run(store: &dyn Store) {
    let root = Key::new(&format!("contract-{:016x}", rand::random::<u64>())).expect("a good key");
    absent_objects(store, &root).await;
    writing_and_reading(store, &root).await;
    conditions(store, &root).await;
    ranges(store, &root).await;
    listings(store, &root).await;
    racing_writers(store, &root).await;
    let found = probe(store).await.expect("probe");
    assert!(found.is_usable(), "{}: {found:?}", store.describe());
    let left = store.list(&format!("{root}/")).await.expect("list at the end");
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn key(root: &Key, name: &str) -> Key {
    root.join(name).expect("a good key")
}

async fn absent_objects(store: &dyn Store, root: &Key) {
    let absent = key(root, "absent");
    assert_eq!(store.head(&absent).await.expect("head of an absent object"), None);
    let fault = store.get(&absent).await.expect_err("get of an absent object");
    assert!(fault.is(codes::STORE_NOT_FOUND), "{fault:?}");
    let fault = store.get_range(&absent, 0..1).await.expect_err("range of an absent object");
    assert!(fault.is(codes::STORE_NOT_FOUND), "{fault:?}");
    store.delete(&absent).await.expect("delete of an absent object");
    let listed = store.list(&format!("{absent}/")).await.expect("list of an absent prefix");
    assert!(listed.is_empty(), "{listed:?}");
}

async fn writing_and_reading(store: &dyn Store, root: &Key) {
    for size in [0, 1, 4_097, 3 << 20] {
        let object = key(root, &format!("deep/er/object-{size}"));
        let data = pattern(size);
        let put = store.put(&object, data.clone(), PutMode::Overwrite).await;
        assert_eq!(put.expect("put"), PutOutcome::Written, "{size} bytes");
        assert_eq!(store.get(&object).await.expect("get"), data, "{size} bytes");
        let meta = store.head(&object).await.expect("head").expect("the object is there");
        assert_eq!((meta.key, meta.size), (object.clone(), size as u64));
        assert!(meta.modified.is_some(), "{size} bytes: no time");
        // Replaced by something shorter, then gone.
        store.put(&object, Bytes::from_static(b"x"), PutMode::Overwrite).await.expect("replace");
        assert_eq!(store.get(&object).await.expect("get again"), "x");
        store.delete(&object).await.expect("delete");
        assert_eq!(store.head(&object).await.expect("head after delete"), None);
    }
}

async fn conditions(store: &dyn Store, root: &Key) {
    for (name, first, other) in [("only-once", "first", "other"), ("only-once-empty", "", "x")] {
        let object = key(root, name);
        let (first, other) = (Bytes::from(first), Bytes::from(other));
        let put = |data: &Bytes| store.put(&object, data.clone(), PutMode::IfAbsent);
        assert_eq!(put(&first).await.expect("first put"), PutOutcome::Written);
        assert_eq!(put(&first).await.expect("equal put"), PutOutcome::Existed);
        let fault = put(&other).await.expect_err("put of other bytes");
        assert!(fault.is(codes::STORE_EXISTS), "{fault:?}");
        assert_eq!(store.get(&object).await.expect("get"), first);
        store.delete(&object).await.expect("delete");
        assert_eq!(put(&other).await.expect("put after delete"), PutOutcome::Written);
        store.delete(&object).await.expect("delete");
    }
}

async fn ranges(store: &dyn Store, root: &Key) {
    let object = key(root, "ranges");
    let data = pattern(10_000);
    store.put(&object, data.clone(), PutMode::Overwrite).await.expect("put");
    for (start, end) in [(0, 10_000), (0, 1), (1, 2), (9_999, 10_000), (5_000, 5_000), (10_000, 10_000), (77, 7_777)] {
        let part = store.get_range(&object, start..end).await.unwrap_or_else(|e| panic!("{start}..{end}: {e:?}"));
        let (start, end) = (usize::try_from(start).expect("small"), usize::try_from(end).expect("small"));
        assert_eq!(part, data.slice(start..end), "{start}..{end}");
    }
    for (start, end) in [(0, 10_001), (9_999, 10_001), (10_000, 10_001), (20_000, 20_001), (10_001, 10_001)] {
        let fault = store.get_range(&object, start..end).await.expect_err("range past the end");
        assert!(fault.is(codes::STORE_SHORT), "{start}..{end}: {fault:?}");
    }
    store.delete(&object).await.expect("delete");
}

async fn listings(store: &dyn Store, root: &Key) {
    let names = ["list/b/2", "list/a/1", "list/b/1", "list/b-c", "list-not/x"];
    for name in names {
        store.put(&key(root, name), Bytes::from(name), PutMode::Overwrite).await.expect("put");
    }
    let listed = store.list(&format!("{root}/list/")).await.expect("list");
    let found: Vec<(&str, u64)> = listed.iter().map(|meta| (meta.key.as_str(), meta.size)).collect();
    let wanted: Vec<String> =
        ["list/a/1", "list/b-c", "list/b/1", "list/b/2"].iter().map(|n| format!("{root}/{n}")).collect();
    let wanted: Vec<(&str, u64)> = wanted.iter().map(|n| (n.as_str(), 8)).collect();
    assert_eq!(found, wanted);
    let everything = store.list("").await.expect("list everything");
    for name in names {
        assert!(everything.iter().any(|meta| meta.key == key(root, name)), "{name} is missing");
    }
    assert!(everything.is_sorted_by(|a, b| a.key < b.key), "sorted, each once");
    assert!(store.list("no-slash").await.is_err(), "a prefix without a slash");
    for name in names {
        store.delete(&key(root, name)).await.expect("delete");
    }
    assert!(store.list(&format!("{root}/list/")).await.expect("list").is_empty());
}

/// Of several writers with other bytes, exactly one wins, and its bytes stay.
async fn racing_writers(store: &dyn Store, root: &Key) {
    let object = key(root, "race");
    let put = |number: u8| store.put(&object, Bytes::from(vec![number; 1000]), PutMode::IfAbsent);
    let results = tokio::join!(put(0), put(1), put(2), put(3), put(4), put(5));
    let results = [results.0, results.1, results.2, results.3, results.4, results.5];
    let stored = store.get(&object).await.expect("get");
    for (number, result) in (0_u8..).zip(&results) {
        match result {
            Ok(PutOutcome::Written) => assert_eq!(stored[0], number, "the winner's bytes stay"),
            Ok(PutOutcome::Existed) => panic!("writer {number} put bytes of its own"),
            Err(fault) => assert!(fault.is(codes::STORE_EXISTS), "writer {number}: {fault:?}"),
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "exactly one wins");
    store.delete(&object).await.expect("delete");
}

/// Bytes in which every position looks different.
fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| u8::try_from((at * 31 + at / 251) % 256).expect("below 256")).collect::<Vec<u8>>().into()
}
