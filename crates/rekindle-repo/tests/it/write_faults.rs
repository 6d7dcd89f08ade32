//! A store that fails: at every single call, and with a lost answer.

use std::sync::Arc;

use rekindle_core::codes;
use rekindle_core::entry::{Entry, EntryKind};
use rekindle_core::port::Reuse;
use rekindle_repo::RepoOptions;
use rekindle_store::faulty::{Action, Call, Faulty, Op};
use rekindle_store::{Memory, Store};

use crate::write_support::*;

fn faulty() -> (Bench, Arc<Faulty<Memory>>) {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    let store = Arc::clone(&faulty);
    (Bench::on(move |_| store as Arc<dyn Store>), faulty)
}

/// Enough for several packs of each kind at the size used here.
fn entries() -> Vec<Entry> {
    let mut entries = vec![plain("d", EntryKind::Directory)];
    for n in 0..12 {
        entries.push(plain(&format!("d/{n:02}"), EntryKind::Directory));
        entries.push(file(&format!("d/{n:02}/f"), made(noise(60_000, n), Act::Good)));
    }
    // As long as the others: how many packs there are must not depend on who comes first.
    entries.push(stream("s", noise(60_000, 99), Act::Good));
    entries
}

fn options() -> RepoOptions {
    RepoOptions { workers: 2, uploads: 2, pack_bytes: 100_000, ..RepoOptions::default() }
}

fn run(bench: &Bench) -> rekindle_core::Result<()> {
    save(&bench.open_as(options())?, entries(), Reuse::Nothing).map(drop)
}

fn puts(calls: &[Call]) -> Vec<&str> {
    calls.iter().filter(|call| call.op == Op::Put).map(|call| call.key.as_str()).collect()
}

#[test]
fn the_snapshot_is_the_last_object_and_indexes_follow_their_packs() {
    let (bench, faulty) = faulty();
    let before = faulty.calls().len();
    run(&bench).unwrap();
    let calls = faulty.calls();
    let keys = puts(&calls[before..]);
    let positions =
        |prefix: &str| -> Vec<usize> { (0..keys.len()).filter(|at| keys[*at].starts_with(prefix)).collect() };
    assert!(positions("data/").len() > 3, "{keys:?}");
    assert_eq!(positions("snapshots/"), [keys.len() - 1]);
    assert_eq!(positions("index/"), [keys.len() - 2]);
    assert!(keys[0].starts_with("locks/"));
}

#[test]
fn a_failure_of_any_call_leaves_no_point_and_the_next_run_works() {
    let (bench, probe) = faulty();
    let before = probe.calls().len();
    run(&bench).unwrap();
    let mut positions: Vec<(Op, String, usize)> = Vec::new();
    for call in &probe.calls()[before..] {
        let folder = call.key.split('/').next().unwrap_or_default().to_owned();
        let nth = positions.iter().filter(|(op, f, _)| (*op, f) == (call.op, &folder)).count();
        positions.push((call.op, folder, nth));
    }
    // Most of the time of a run is the pause after taking the lock: several at a time.
    let lanes = 8;
    std::thread::scope(|scope| {
        for lane in 0..lanes {
            let positions = &positions;
            scope.spawn(move || {
                for (op, folder, nth) in positions.iter().skip(lane).step_by(lanes) {
                    fail_at(*op, folder, *nth);
                }
            });
        }
    });
}

fn fail_at(op: Op, folder: &str, nth: usize) {
    let (bench, faulty) = faulty_after(op, folder, nth);
    let place = format!("{op:?} {folder} number {nth}");
    let result = run(&bench);
    assert_eq!(faulty.unused(), 0, "{place}: the fault was hit");
    let snapshots = bench.keys("snapshots/").len();
    match result {
        // Only letting the lock go, after the snapshot, may fail quietly.
        Ok(()) => {
            assert_eq!(snapshots, 1, "{place}");
            assert!(op == Op::Delete && folder == "locks", "{place} was overlooked");
        }
        Err(fault) => {
            assert!(fault.chain().contains("scripted"), "{place}: {fault:?}");
            assert!(!fault.is(codes::RUN_BUG), "{place}: {fault:?}");
            let lost_read_back = op == Op::Get && folder == "snapshots";
            assert_eq!(snapshots, usize::from(lost_read_back), "{place}");
        }
    }
    run(&bench).unwrap_or_else(|fault| panic!("{place}, then again: {fault:?}"));
    assert_eq!(bench.keys("snapshots/").len(), snapshots + 1, "{place}");
    every_point_is_whole(&bench);
}

fn every_point_is_whole(bench: &Bench) {
    let decoded = Decoded::read(bench);
    for snapshot in &decoded.snapshots {
        let all = decoded.all(&snapshot.tree);
        assert!(all[b"files/s".as_slice()].1 == noise(60_000, 99));
        for n in 0..12 {
            assert!(all[format!("files/d/{n:02}/f").as_bytes()].1 == noise(60_000, n));
        }
    }
}

/// The n-th call of a kind is rejected; calls before it go through a slowed-down pass.
fn faulty_after(op: Op, folder: &str, nth: usize) -> (Bench, Arc<Faulty<Memory>>) {
    let (bench, faulty) = faulty();
    faulty.script_times(nth, op, folder, &Action::Slow(std::time::Duration::ZERO));
    faulty.script(op, folder, Action::Reject(codes::STORE_DENIED));
    (bench, faulty)
}

#[test]
fn a_lost_answer_to_the_snapshot_is_no_failure() {
    let (bench, faulty) = faulty();
    faulty.script(Op::Put, "snapshots/", Action::FailAfterWrite(codes::STORE_UNREACHABLE));
    run(&bench).unwrap();
    assert_eq!(faulty.unused(), 0);
    assert_eq!(Decoded::read(&bench).snapshots.len(), 1);
}

#[test]
fn a_snapshot_stored_wrong_is_noticed() {
    let (bench, faulty) = faulty();
    faulty.script(Op::Put, "snapshots/", Action::FlipBit(77));
    let fault = run(&bench).unwrap_err();
    assert!(fault.is(codes::REPO_DAMAGED), "{fault:?}");
}

#[test]
fn a_full_store_ends_the_run_at_once() {
    let (bench, faulty) = faulty();
    faulty.script_times(1000, Op::Put, "data/", &Action::NoSpace);
    let repo = bench.open_as(options()).unwrap();
    let opened = made(noise(60_000, 0), Act::Good);
    let count = Arc::clone(&opened.opened);
    let endless = (0..100_000_u64).map(move |n| {
        let mut next = opened.clone();
        next.bytes = Arc::new(noise(60_000, n));
        file(&format!("{n:09}"), next)
    });
    let context = context();
    let session = rekindle_repo::Session::begin(&repo, &context).unwrap();
    let fault = store(&session, "files", endless, Reuse::Nothing).unwrap_err();
    rekindle_core::port::WriteSession::abandon(&session);
    assert!(fault.is(codes::STORE_FULL), "{fault:?}");
    let read = count.load(std::sync::atomic::Ordering::SeqCst);
    assert!(read < 2000, "{read} files were read after the store was full");
}

#[test]
fn an_index_that_is_listed_and_not_there_is_told_and_costs_only_space() {
    let (bench, faulty) = faulty();
    run(&bench).unwrap();
    faulty.script_times(100, Op::Get, "index/", &Action::Reject(codes::STORE_NOT_FOUND));
    let before = faulty.calls().len();
    run(&bench).unwrap();
    assert!(puts(&faulty.calls()[before..]).iter().filter(|key| key.starts_with("data/")).count() > 3, "stored again");
    faulty.clear();
    // An index that cannot be reached may name everything: that ends the run.
    faulty.script_times(100, Op::Get, "index/", &Action::Reject(codes::STORE_DENIED));
    let fault = run(&bench).unwrap_err();
    assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
}
