//! `key`: passwords come and go, the data stays.

use crate::set_up;

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
