//! Init, keys, forget, prune, check, copy: against stock restic where it can look too.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::port::Clock;
use rekindle_core::{Cancel, codes};
use rekindle_repo::admin::{self, Actor, KeyLabel, PruneOptions};
use rekindle_repo::lock::{Lock, LockKind};
use rekindle_repo::points::foreign_snapshots;
use rekindle_repo::verify::{Subset, VerifyOptions, verify};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::faulty::{Action, Faulty, Op};

use crate::support::{Now, PASSWORD, Place, files, secret};

const OTHER: &str = "another horse entirely";

fn actor() -> Actor {
    Actor { host: "here".to_owned(), run: None, clock: Arc::new(Now) }
}

#[test]
fn a_new_repository_is_what_stock_restic_takes_and_is_made_only_once() {
    let place = Place::new();
    place.init();
    place.restic(&["check", "--read-data"]);
    let again = admin::init(
        place.store(),
        place.runtime.handle().clone(),
        &secret(OTHER),
        &KeyLabel::default(),
        RepoOptions::default(),
    );
    assert!(again.unwrap_err().is(codes::REPO_EXISTS));
    assert!(place.open_with(OTHER).unwrap_err().is(codes::REPO_WRONG_KEY));
    let report = verify(&place.open(), &VerifyOptions { read_data: Some(Subset::All) }, &Cancel::new()).unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn what_is_forgotten_is_decided_while_nobody_else_can_write() {
    let place = Place::new();
    place.init();
    let repo = place.open();
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let decided = admin::forget_by(&repo, &actor(), || {
        let other = Lock::acquire(&repo, &clock, LockKind::Shared).unwrap_err();
        assert!(other.is(codes::REPO_LOCKED), "{other:?}");
        Ok(("what was decided", Vec::new()))
    });
    assert_eq!(decided.unwrap(), "what was decided");
    Lock::acquire(&repo, &clock, LockKind::Shared).unwrap().release().unwrap();
}

#[test]
fn passwords_are_added_changed_and_removed_but_never_the_last() {
    let place = Place::new();
    let repo = place.init();
    let first = admin::key_list(&repo, Some(&secret(PASSWORD))).unwrap();
    assert!(first.len() == 1 && first[0].current);
    let refused = admin::key_remove(&repo, &first[0].id, &secret(PASSWORD)).unwrap_err();
    assert!(refused.is(codes::REPO_KEY_IN_USE));
    assert!(admin::key_add(&repo, &secret("short"), &KeyLabel::default()).unwrap_err().is(codes::REPO_WEAK_PASSWORD));

    let added = admin::key_add(&repo, &secret(OTHER), &KeyLabel::default()).unwrap();
    assert!(place.try_restic(OTHER, &["snapshots"]).status.success());
    admin::key_remove(&repo, &added.hex()[..10], &secret(PASSWORD)).unwrap();
    assert!(place.open_with(OTHER).unwrap_err().is(codes::REPO_WRONG_KEY));

    admin::key_passwd(&repo, &secret(PASSWORD), &secret(OTHER), &KeyLabel::default()).unwrap();
    assert!(place.try_restic(OTHER, &["snapshots"]).status.success());
    assert!(place.open_with(PASSWORD).unwrap_err().is(codes::REPO_WRONG_KEY));
    assert_eq!(admin::key_list(&repo, None).unwrap().len(), 1);
}

#[test]
fn forgotten_data_is_marked_then_removed_and_restic_agrees() {
    let place = Place::new();
    let repo = place.init();
    let source = place.fresh("source");
    fs::write(source.join("kept"), vec![1; 200_000]).unwrap();
    place.restic(&["backup", source.to_str().unwrap()]);
    fs::write(source.join("gone"), (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    place.restic(&["backup", source.to_str().unwrap()]);
    let last = foreign_snapshots(&repo).unwrap().pop().unwrap();
    let before = files(&place.repo_path().join("data")).len();

    admin::forget(&repo, &[last.id.hex().parse().unwrap()], &actor()).unwrap();
    let options = PruneOptions { max_delete_percent: 100, keep_marked_hours: 0, ..PruneOptions::default() };
    let careful = PruneOptions { max_delete_percent: 1, ..options.clone() };
    assert!(admin::prune(&repo, &careful, &actor(), &Cancel::new()).unwrap_err().is(codes::REPO_PRUNE_REFUSED));
    let marked = admin::prune(&repo, &options, &actor(), &Cancel::new()).unwrap();
    assert!(marked.marked_bytes > 0 && marked.removed_packs == 0, "{marked:?}");
    place.restic(&["check", "--read-data"]);
    let removed = admin::prune(&repo, &options, &actor(), &Cancel::new()).unwrap();
    assert!(removed.removed_packs > 0, "{removed:?}");
    assert!(files(&place.repo_path().join("data")).len() < before);
    place.restic(&["check", "--read-data"]);
    let report = verify(&repo, &VerifyOptions { read_data: Some(Subset::All) }, &Cancel::new()).unwrap();
    assert!(report.is_good(), "{report:?}");
}

/// A repository with data that no snapshot needs, in several packs.
fn with_garbage(place: &Place) -> Repo {
    let repo = place.init();
    let source = place.fresh("source");
    fs::write(source.join("kept"), vec![1; 200_000]).unwrap();
    place.restic(&["backup", source.to_str().unwrap()]);
    more_garbage(place, &repo);
    repo
}

fn more_garbage(place: &Place, repo: &Repo) {
    let source = place.fresh("garbage");
    let numbers = (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31));
    fs::write(source.join("gone"), numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    place.restic(&["backup", "--pack-size", "4", "--compression", "off", source.to_str().unwrap()]);
    let last = foreign_snapshots(repo).unwrap().pop().unwrap();
    admin::forget(repo, &[last.id.hex().parse().unwrap()], &actor()).unwrap();
}

#[test]
fn marked_data_outlives_any_backup_that_may_take_it_over() {
    let place = Place::new();
    let repo = with_garbage(&place);
    let packs = || files(&place.repo_path().join("data")).len();
    let before = packs();
    let usual = PruneOptions { max_delete_percent: 100, ..PruneOptions::default() };
    assert!(usual.keep_marked_hours >= 23, "longer than a day's backup");
    let marked = admin::prune(&repo, &usual, &actor(), &Cancel::new()).unwrap();
    assert!(marked.marked_bytes > 0, "{marked:?}");
    let again = admin::prune(&repo, &usual, &actor(), &Cancel::new()).unwrap();
    assert_eq!((marked.removed_packs, again.removed_packs), (0, 0));
    assert!(packs() >= before);
    let later = PruneOptions { keep_marked_hours: 0, ..usual };
    assert!(admin::prune(&repo, &later, &actor(), &Cancel::new()).unwrap().removed_packs > 1);
}

#[test]
fn a_prune_that_lost_its_lock_removes_nothing_more() {
    let place = Place::new();
    with_garbage(&place);
    let faulty = Arc::new(Faulty::new(place.store()));
    let store = Arc::clone(&faulty);
    let options = RepoOptions { lock_refresh: Duration::from_millis(50), ..RepoOptions::default() };
    let repo = Repo::open(store, place.runtime.handle().clone(), &secret(PASSWORD), options).unwrap();
    let prune = PruneOptions { max_delete_percent: 100, keep_marked_hours: 0, ..PruneOptions::default() };
    admin::prune(&repo, &prune, &actor(), &Cancel::new()).unwrap();
    let packs = || files(&place.repo_path().join("data"));
    let before = packs();
    // Between the new index and the removal of packs.
    faulty.script_times(100, Op::Delete, "index/", &Action::Hold);
    let (other, options) = (repo.clone(), prune.clone());
    let running = std::thread::spawn(move || admin::prune(&other, &options, &actor(), &Cancel::new()));
    place.runtime.block_on(faulty.wait_held(1));
    let mut quiet = 0;
    while quiet < 10 {
        let locks = files(&place.repo_path().join("locks"));
        quiet = if locks.is_empty() { quiet + 1 } else { 0 };
        for lock in &locks {
            fs::remove_file(lock).unwrap_or_default();
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    faulty.clear();
    for _ in 0..100 {
        faulty.release();
    }
    assert!(running.join().unwrap().is_err());
    assert_eq!(packs(), before, "no pack is gone");
    // The new index is written already, so these packs stand in none: they go with the next ones that have to.
    let repo = place.open();
    more_garbage(&place, &repo);
    let prune_once = || admin::prune(&repo, &prune, &actor(), &Cancel::new()).unwrap();
    let mut done = vec![prune_once()];
    // They are marked now, by name and size only: that is no damage.
    let report = verify(&repo, &VerifyOptions { read_data: Some(Subset::All) }, &Cancel::new()).unwrap();
    assert!(report.is_good(), "{report:#?}");
    done.push(prune_once());
    assert!(done[1].removed_packs > 1, "the next ones can: {done:#?}");
    assert!(before.iter().any(|pack| !pack.exists()));
    place.restic(&["check", "--read-data"]);
}

#[test]
fn prune_refuses_when_a_listing_fails() {
    let place = Place::new();
    place.init();
    let faulty = Arc::new(Faulty::new(place.store()));
    let store = Arc::clone(&faulty);
    let repo = Repo::open(store, place.runtime.handle().clone(), &secret(PASSWORD), RepoOptions::default()).unwrap();
    for prefix in ["snapshots/", "index/", "data/"] {
        faulty.script_times(20, Op::List, prefix, &Action::Reject(codes::STORE_DENIED));
        let before = files(&place.repo_path());
        let fault = admin::prune(&repo, &PruneOptions::default(), &actor(), &Cancel::new()).unwrap_err();
        assert!(fault.is(codes::REPO_PRUNE_REFUSED), "{prefix}: {fault:?}");
        faulty.clear();
        assert_eq!(files(&place.repo_path()), before);
    }
}
