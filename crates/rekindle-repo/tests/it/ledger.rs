//! The ledger: what is edited, removed or swapped is seen.

use std::fs;

use rekindle_core::PointId;
use rekindle_core::codes;
use rekindle_core::entry::EntryKind;
use rekindle_repo::ledger::{Action, Event, Ledger, Present, contradiction, live};

use crate::support::{Now, Place};
use crate::write_support::{plain, save};
use rekindle_core::port::{Clock, Reuse};

fn point(number: u8) -> PointId {
    format!("{number:02x}").repeat(32).parse().unwrap()
}

fn present(number: u8, tree: &str) -> Present {
    Present { point: point(number), tree: tree.to_owned(), original: None }
}

fn event(action: Action, number: u8) -> Event {
    Event {
        action,
        point: point(number),
        tree: "cd".repeat(32),
        time: Now.now(),
        host: "here".to_owned(),
        run: None,
        original: None,
    }
}

#[test]
fn a_chain_grows_and_every_tampering_is_seen() {
    let place = Place::new();
    let repo = place.init();
    let ledger = Ledger::open(&repo).unwrap().unwrap();
    assert_eq!(ledger.head().unwrap(), None);
    for number in 1..=4 {
        ledger.append(&event(Action::Committed, number)).unwrap();
    }
    let head = ledger.append(&event(Action::Forgotten, 2)).unwrap();
    assert_eq!(head.sequence, 5);
    let entries = ledger.read_all().unwrap();
    assert_eq!(live(&entries).into_keys().collect::<Vec<_>>(), [point(1), point(3), point(4)]);
    let adopted = ledger.reconcile(&[present(2, ""), present(9, &"ab".repeat(32))], "here", Now.now()).unwrap();
    assert_eq!(adopted, [point(9)]);

    let object = |number: u64| place.repo_path().join(format!("rekindle/ledger/{number:012}"));
    let good: Vec<Vec<u8>> = (1..=6).map(|n| fs::read(object(n)).unwrap()).collect();
    let put = |number: u64, bytes: &[u8]| {
        let _ = fs::remove_file(object(number));
        fs::write(object(number), bytes).unwrap();
    };
    let tampered = |what: &str| {
        let fault = ledger.read_all().expect_err(what);
        assert!(fault.is(codes::REPO_LEDGER), "{what}: {fault:?}");
        for (number, bytes) in (1..).zip(&good) {
            put(number, bytes);
        }
        ledger.read_all().unwrap();
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

    // The last one: the chain alone looks whole, but whoever has seen the head knows.
    let head = ledger.head().unwrap().unwrap();
    fs::remove_file(object(6)).unwrap();
    let cut = ledger.read_all().unwrap();
    assert!(contradiction(&cut, &head).unwrap().contains("missing"));
}

#[test]
fn several_writers_get_different_numbers() {
    let place = Place::new();
    let repo = place.init();
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let repo = &repo;
            scope.spawn(move || {
                let ledger = Ledger::open_or_create(repo).unwrap();
                for number in 0..5 {
                    ledger.append(&event(Action::Committed, writer * 16 + number)).unwrap();
                }
            });
        }
    });
    let entries = Ledger::open(&repo).unwrap().unwrap().read_all().unwrap();
    assert_eq!(entries.len(), 20);
}

#[test]
fn a_point_whose_record_was_never_written_is_adopted_by_the_next_run() {
    let place = Place::new();
    let repo = place.init();
    let save =
        |name: &str| save(&repo, vec![plain(name, EntryKind::Directory)], Reuse::Nothing).unwrap().0.id().clone();
    let first = save("a");
    let died = save("b");
    fs::remove_file(place.repo_path().join("rekindle/ledger/000000000002")).unwrap();
    let last = save("c");
    let entries = Ledger::open(&repo).unwrap().unwrap().read_all().unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (entry.record.action, entry.record.point.clone())).collect();
    assert_eq!(told, [(Action::Committed, first), (Action::Adopted, died), (Action::Committed, last)]);
}
