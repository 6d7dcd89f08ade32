//! Marks of people: what is edited, removed, swapped or brought in from elsewhere is seen.

use std::collections::BTreeSet;
use std::fs;

use rekindle_core::codes;
use rekindle_core::mark::{Mark, MarkKind};
use rekindle_core::port::Clock;
use rekindle_repo::marks;

use crate::support::{Now, Place};

fn mark(kind: MarkKind, number: u8) -> Mark {
    Mark {
        kind,
        time: Now.now(),
        point: Some(format!("{number:02x}").repeat(32).parse().unwrap()),
        reason: None,
        user: "ada".to_owned(),
        host: "here".to_owned(),
        keys: BTreeSet::new(),
        origin: None,
    }
}

#[test]
fn marks_are_a_chain_and_every_tampering_is_seen() {
    let place = Place::new();
    let repo = place.init();
    assert_eq!(marks::read(&repo).unwrap(), rekindle_core::mark::Marks::default());
    for number in 1..=4 {
        marks::add(&repo, &mark(MarkKind::Hold, number)).unwrap();
    }
    let head = marks::add(&repo, &mark(MarkKind::Release, 2)).unwrap();
    assert_eq!(head.sequence, 5);
    let all = marks::read(&repo).unwrap();
    let held = |number: u8| all.held(mark(MarkKind::Hold, number).point.as_ref().unwrap()).is_some();
    assert_eq!([held(1), held(2), held(3), held(4), held(5)], [true, false, true, true, false]);

    let object = |number: u64| place.repo_path().join(format!("rekindle/marks/{number:012}"));
    let good: Vec<Vec<u8>> = (1..=5).map(|n| fs::read(object(n)).unwrap()).collect();
    let put = |number: u64, bytes: &[u8]| {
        let _ = fs::remove_file(object(number));
        fs::write(object(number), bytes).unwrap();
    };
    let tampered = |what: &str| {
        let fault = marks::read(&repo).expect_err(what);
        assert!(fault.is(codes::REPO_LEDGER), "{what}: {fault:?}");
        for (number, bytes) in (1..).zip(&good) {
            put(number, bytes);
        }
        marks::read(&repo).unwrap();
    };
    let mut edited = good[2].clone();
    edited[40] ^= 1;
    put(3, &edited);
    tampered("an edited record");
    put(2, &good[2]);
    put(3, &good[1]);
    tampered("two records swapped");
    fs::remove_file(object(3)).unwrap();
    tampered("a record in the middle removed");
    fs::remove_file(object(1)).unwrap();
    tampered("the first record removed");
    // A record of the ledger is signed by the same key, and is no mark.
    let ledger = rekindle_repo::ledger::Ledger::open(&repo).unwrap().unwrap();
    let event = rekindle_repo::ledger::Event {
        action: rekindle_repo::ledger::Action::Committed,
        point: mark(MarkKind::Hold, 1).point.unwrap(),
        tree: "cd".repeat(32),
        time: Now.now(),
        host: "here".to_owned(),
        run: None,
        original: None,
    };
    ledger.append(&event).unwrap();
    put(1, &fs::read(place.repo_path().join("rekindle/ledger/000000000001")).unwrap());
    tampered("a record of the ledger");
}

#[test]
fn several_writers_get_different_numbers() {
    let place = Place::new();
    let repo = place.init();
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let repo = &repo;
            scope.spawn(move || {
                for number in 1..=4 {
                    marks::add(repo, &mark(MarkKind::Hold, writer * 16 + number)).unwrap();
                }
            });
        }
    });
    let all = marks::read(&repo).unwrap();
    let held = (0..=255).filter(|number| all.held(mark(MarkKind::Hold, *number).point.as_ref().unwrap()).is_some());
    assert_eq!(held.count(), 16);
}
