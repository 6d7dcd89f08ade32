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

#[test]
fn records_that_were_removed_altogether_are_begun_anew_only_by_somebody_who_says_so() {
    let mut stack = Stack::new();
    stack.quicken();
    stack.files("data");
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    stack.complete();
    // Nothing is lost: there is nothing to begin.
    stack.place.json(21, &["audit", "anew"]);
    let records = stack.path("repo/rekindle");
    fs::remove_dir_all(&records).unwrap();
    // The data is saved, and no command makes a new key by the way.
    stack.complete();
    stack.place.ends(13, &["point", "hold", &first]).says("RK-RP-015", &["signing-key", "audit anew"]);
    stack.place.json(13, &["forget", &first]);
    assert!(!records.join("signing-key").exists());

    // A new key that came in while no point was there to contradict it.
    let (snapshots, away) = (stack.path("repo/snapshots"), stack.path("away"));
    fs::rename(&snapshots, &away).unwrap();
    fs::create_dir(&snapshots).unwrap();
    stack.place.json(0, &["kit", "create", "--out", "kit"]);
    assert!(records.join("signing-key").exists());
    fs::remove_dir(&snapshots).unwrap();
    fs::rename(&away, &snapshots).unwrap();
    for verb in [&["forget", &first][..], &["audit", "verify"], &["verify"]] {
        let told = stack.place.json(13, verb).to_string();
        assert!(told.contains("another one than the points were written with"), "{verb:?}: {told}");
    }
    stack.place.json(0, &["audit", "anew"]);
    let acts = stack.place.json(0, &["audit", "verify"]);
    assert_eq!(acts["result"]["problems"].as_array().unwrap().len(), 0, "{acts}");
    assert!(stack.place.ends(0, &["audit", "list"]).out.contains("audit-anew"));
    stack.place.json(0, &["forget", &first]);
    stack.place.json(21, &["audit", "anew"]);
}

#[test]
fn when_only_the_signing_key_is_lost_the_old_records_are_put_aside() {
    let mut stack = Stack::new();
    stack.quicken();
    stack.files("data");
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    stack.place.json(0, &["point", "hold", &first]);
    stack.complete();
    let key = stack.path("repo/rekindle/signing-key");
    let damaged = fs::read(&key).unwrap().split_off(8);
    // Gone, and there but not to be read.
    for bytes in [None, Some(damaged)] {
        fs::remove_file(&key).unwrap();
        if let Some(bytes) = bytes {
            fs::write(&key, bytes).unwrap();
        }
        stack.place.json(13, &["audit", "verify"]);
        stack.place.json(13, &["forget", "--dry-run", &first]);
        let begun = stack.place.json(0, &["audit", "anew"]);
        assert!(begun["result"]["put_aside"].as_u64().unwrap() >= 2, "{begun}");
        stack.place.json(0, &["audit", "verify"]);
        stack.place.json(0, &["verify"]);
        stack.complete();
        stack.place.json(0, &["point", "hold", &first]);
    }
    stack.place.json(21, &["forget", &first]);
    assert!(fs::read_dir(stack.path("repo/rekindle/aside")).unwrap().count() >= 1, "nothing is thrown away");
}

#[test]
fn a_point_whose_manifest_cannot_be_read_stops_everything_that_removes_and_is_no_good_news() {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    let first = stack.complete()["point"].as_str().unwrap().to_owned();
    stack.complete();
    // A snapshot with our tag and no manifest.
    let made = stack.restic("restic", &["backup", "--tag", "rekindle", &data.display().to_string()]);
    assert_eq!(made.code, 0, "{made:#?}");
    stack.place.ends(21, &["prune"]).says("RK-RP-016", &["cannot be read", "nothing was removed"]);
    stack.place.ends(21, &["forget", &first]).says("RK-EN-010", &["cannot be read"]);
    let fleet = format!(
        "[member.shop]\n[member.shop.repository]\nurl = \"file://{}\"\npassword = \"file:key\"\n",
        stack.path("repo").display()
    );
    stack.place.write("fleet.toml", &fleet);
    let told = stack.place.run(&["fleet", "status"]);
    assert!(![0, 4].contains(&told.code), "{told:#?}");
    assert_eq!(fs::read_dir(stack.path("repo/snapshots")).unwrap().count(), 3, "nothing was removed");
}

#[test]
fn holds_of_records_that_were_begun_anew_reach_a_copy_as_well() {
    let mut stack = Stack::new();
    stack.quicken();
    stack.files("data");
    stack.place.write("copy-key", "canary-password-of-the-copy");
    let url = format!("file://{}", stack.path("copy").display());
    stack.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\""));
    let [first, second] = [(); 2].map(|()| stack.complete()["point"].as_str().unwrap().to_owned());
    stack.place.json(0, &["point", "hold", &first]);
    stack.place.json(0, &["drill"]);
    stack.place.json(0, &["copy", "--init"]);
    fs::remove_file(stack.path("repo/rekindle/signing-key")).unwrap();
    stack.place.json(0, &["audit", "anew"]);
    // The first of the new chain, as the other one was of the old.
    stack.place.json(0, &["point", "hold", &second]);
    stack.place.json(0, &["drill", "--point", &second]);
    let told = stack.place.json(0, &["copy"]);
    assert_eq!(told["result"]["copies"][0]["state"], "complete", "{told}");
    let listed = stack.place.json(0, &["list", "--copy", "offsite"]);
    let points = listed["result"]["points"].as_array().unwrap();
    assert!(points.iter().all(|point| point["held"] == true), "{listed}");
    let mirrored = fs::read_dir(stack.path("copy/rekindle/source-proofs")).unwrap().count();
    assert_eq!(mirrored, 2, "both drills are known there");
}
