//! Records that were taken away whole: what an intact rest of a chain cannot show, the points can.

use std::fs;

use super::stack::Stack;

/// The newest record of a chain.
fn newest(stack: &Stack, folder: &str) -> String {
    let names = fs::read_dir(stack.path(&format!("repo/rekindle/{folder}"))).unwrap();
    let newest = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).max().unwrap();
    format!("repo/rekindle/{folder}/{newest}")
}

#[test]
fn nothing_is_removed_when_the_signing_key_or_the_end_of_a_chain_was_taken_away() {
    let mut stack = Stack::new();
    stack.quicken();
    stack.files("data");
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    let second = stack.complete()["point"].as_str().unwrap().to_owned();
    stack.place.json(0, &["point", "hold", &first]);
    // These have seen the hold.
    stack.complete();
    stack.complete();
    stack.place.json(0, &["audit", "verify"]);
    let marks = newest(&stack, "marks");
    let key = "repo/rekindle/signing-key".to_owned();
    for (object, why) in [(marks, "mark 1 is missing"), (key, "signing-key")] {
        let path = stack.path(&object);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let verbs: [(i32, &[&str]); 3] = [
            (13, &["forget", "--dry-run", &first]),
            (13, &["forget", "--dry-run", &second]),
            (21, &["prune", "--dry-run"]),
        ];
        for (exit, verb) in verbs {
            let told = stack.place.json(exit, verb);
            let error = told["error"].to_string();
            assert!(error.contains(why) && error.contains("nothing was removed"), "{object} {verb:?}: {told}");
        }
        let told = stack.place.json(13, &["audit", "verify"]);
        assert!(told["result"]["problems"].to_string().contains(why), "{object}: {told}");
        fs::write(&path, &bytes).unwrap();
    }
    stack.place.json(0, &["audit", "verify"]);
    stack.place.json(0, &["forget", &second]);
    stack.place.json(0, &["prune"]);
}
