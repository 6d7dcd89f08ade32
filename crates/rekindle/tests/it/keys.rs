//! `key`: passwords come and go, the data stays.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::run::Place;
use crate::set_up;

/// The files of the key cache, by the state directory of the tests.
fn cached(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.path().join("state/rekindle/keys"));
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn passwords_are_added_replaced_and_removed() {
    let place = set_up::place();
    place.write("second", "canary-second\n");
    place.write("third", "canary-third\n");
    let added = place.json(0, &["key", "add", "--new-password-file", "second"]);
    place.ends(0, &["list", "--password-file", "second"]);
    assert_eq!(place.json(0, &["key", "list"])["result"]["keys"].as_array().unwrap().len(), 2);
    place.ends(0, &["key", "passwd", "--new-password-file", "third"]);
    place.ends(12, &["list"]);
    let id = added["result"]["key"].as_str().unwrap();
    // The key in use stays.
    place.ends(21, &["key", "remove", id, "--password-file", "second"]);
    place.ends(0, &["key", "remove", &id[..8], "--password-file", "third"]);
    place.ends(12, &["list", "--password-file", "second"]);
    place.ends(0, &["list", "--password-file", "third"]);
    place.ends(2, &["key", "add"]);
}

#[test]
fn the_opened_key_is_kept_privately_and_only_for_a_password_that_lies_here() {
    let place = set_up::place();
    let url = format!("file://{}", place.path().join("repo").display());
    place.ends(0, &["list", "--repo", &url, "--password-command", "cat key"]);
    assert_eq!(cached(&place), Vec::<PathBuf>::new(), "a command's password is not cached");
    let mut with_variable = place.command(&["list", "--repo", &url]);
    assert!(with_variable.env("REKINDLE_PASSWORD", "canary-password").output().unwrap().status.success());
    assert_eq!(cached(&place), Vec::<PathBuf>::new(), "nor is one of the environment");
    let config = place.read("rekindle.toml");
    place.write("rekindle.toml", &config.replace("password =", "key-cache = false\npassword ="));
    place.ends(0, &["list"]);
    assert_eq!(cached(&place), Vec::<PathBuf>::new(), "nor is one whose cache was declined");

    place.write("rekindle.toml", &config);
    place.ends(0, &["list"]);
    let files = cached(&place);
    assert_eq!(files.len(), 1);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&files[0]), mode(files[0].parent().unwrap())), (0o600, 0o700));
    // Neither a wrong password nor damage changes an answer.
    place.write("wrong", "canary-wrong\n");
    place.ends(12, &["list", "--password-file", "wrong"]);
    std::fs::write(&files[0], b"odd").unwrap();
    place.ends(0, &["list"]);
    std::fs::remove_dir_all(place.path().join("state")).unwrap();
    std::fs::write(place.path().join("state"), b"no directory").unwrap();
    place.ends(0, &["list"]);
}
