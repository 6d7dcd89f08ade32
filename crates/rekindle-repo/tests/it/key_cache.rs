//! The key cache spares the scrypt and nothing else.

use std::fs;
use std::sync::Arc;

use rekindle_core::codes;
use rekindle_repo::admin::{self, KeyLabel};
use rekindle_repo::{KeyCache, Repo, RepoOptions};
use rekindle_store::Store;
use rekindle_store::faulty::{Action, Faulty, Op};

use crate::support::{PASSWORD, Place, files, secret};

const OTHER: &str = "another horse entirely";

fn open(place: &Place, store: Arc<dyn Store>, password: &str) -> rekindle_core::Result<Repo> {
    let key_cache = Some(KeyCache::at(place.path("state/keys")));
    let options = RepoOptions { key_cache, ..RepoOptions::default() };
    Repo::open(store, place.runtime.handle().clone(), &secret(password), options)
}

/// Opens without reading any key file: only the cache can have given the key.
fn opens_from_cache(place: &Place, password: &str) -> bool {
    let faulty = Arc::new(Faulty::new(place.store()));
    faulty.script_times(100, Op::Get, "keys/", &Action::Reject(codes::STORE_DENIED));
    match open(place, faulty, password) {
        Ok(_) => true,
        Err(fault) => {
            assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
            false
        }
    }
}

#[test]
fn a_second_opening_needs_no_key_file_and_wrong_passwords_stay_wrong() {
    let place = Place::new();
    place.init();
    assert!(!opens_from_cache(&place, PASSWORD));
    open(&place, place.store(), PASSWORD).unwrap();
    assert!(opens_from_cache(&place, PASSWORD));
    assert!(!opens_from_cache(&place, OTHER));
    assert!(open(&place, place.store(), OTHER).unwrap_err().is(codes::REPO_WRONG_KEY));
    assert!(opens_from_cache(&place, PASSWORD), "a wrong password leaves the cache as it is");
    // A damaged one is replaced by the next opening.
    let file = files(&place.path("state/keys")).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(!opens_from_cache(&place, PASSWORD));
    open(&place, place.store(), PASSWORD).unwrap();
    assert!(opens_from_cache(&place, PASSWORD));
}

#[test]
fn a_removed_key_is_of_no_use_in_the_cache() {
    let place = Place::new();
    let repo = place.init();
    let added = admin::key_add(&repo, &secret(OTHER), &KeyLabel::default()).unwrap();
    open(&place, place.store(), OTHER).unwrap();
    assert!(opens_from_cache(&place, OTHER));
    admin::key_remove(&repo, &added.hex(), &secret(PASSWORD)).unwrap();
    assert!(open(&place, place.store(), OTHER).unwrap_err().is(codes::REPO_WRONG_KEY));
    assert_eq!(files(&place.path("state/keys")).len(), 0, "what is of no use is removed");

    open(&place, place.store(), PASSWORD).unwrap();
    admin::key_passwd(&repo, &secret(PASSWORD), &secret(OTHER), &KeyLabel::default()).unwrap();
    assert!(open(&place, place.store(), PASSWORD).unwrap_err().is(codes::REPO_WRONG_KEY));
    open(&place, place.store(), OTHER).unwrap();
    assert!(opens_from_cache(&place, OTHER));
}

#[test]
fn another_repository_in_the_same_place_is_not_opened_with_the_old_key() {
    let place = Place::new();
    place.init();
    open(&place, place.store(), PASSWORD).unwrap();
    fs::remove_dir_all(place.repo_path()).unwrap();
    place.init();
    assert!(!opens_from_cache(&place, PASSWORD));
    let repo = open(&place, place.store(), PASSWORD).unwrap();
    admin::key_list(&repo, Some(&secret(PASSWORD))).unwrap();
}
