//! What a copy knows about its points when it is all that is left: who holds them, and where they were proved.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::stack::{Stack, noise};
use crate::run::Place;

const COPY_PASSWORD: &str = "canary-password-of-the-copy";

/// A stack of files with a copy `offsite`, and its points, oldest first.
fn with_points(count: u64) -> (Stack, Vec<String>) {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    stack.place.write("copy-key", COPY_PASSWORD);
    let url = format!("file://{}", stack.path("copy").display());
    stack.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n"));
    let mut points = Vec::new();
    for n in 0..count {
        fs::write(data.join("a"), noise(n, 50_000)).unwrap();
        points.push(stack.complete()["point"].as_str().unwrap().to_owned());
    }
    (stack, points)
}

fn mirrored(copied: &Value) -> (u64, u64) {
    let told = &copied["result"]["copies"][0]["mirrored"];
    (told["marks"].as_u64().unwrap(), told["proofs"].as_u64().unwrap())
}

/// A machine that has nothing but the copy, its password and a configuration that names it.
fn bare_machine(copy: &Path) -> (Place, PathBuf) {
    let place = Place::new();
    let moved = place.path().join("only-copy");
    fs::rename(copy, &moved).unwrap();
    place.write("copy-key", COPY_PASSWORD);
    place.write(
        "rekindle.toml",
        &format!(
            "[stack]\nname = \"shop\"\nhost = \"test-host\"\n[repository]\nurl = \"file://{}\"\npassword = \"file:copy-key\"\n\
             [component.files]\nkind = \"files\"\npaths = [\"/nowhere\"]\n[retention]\nkeep-last = 1\nmin-keep = 1\n",
            moved.display()
        ),
    );
    (place, moved)
}

/// Points of a repository, oldest first: held, trust, whether its source proved it.
fn shown(place: &Place, more: &[&str]) -> Vec<(bool, String, bool)> {
    let arguments: Vec<&str> = ["list"].iter().chain(more).copied().collect();
    let list = place.json(0, &arguments);
    let points = list["result"]["points"].as_array().unwrap();
    let one = |point: &Value| {
        let trust = point["trust"].as_str().unwrap().to_owned();
        (point["held"].as_bool().unwrap(), trust, point["proved_in_source"].is_object())
    };
    points.iter().map(one).collect()
}

#[test]
fn a_copy_that_is_all_that_is_left_knows_what_is_held_and_where_it_was_proved() {
    let (stack, points) = with_points(5);
    stack.place.json(0, &["point", "hold", &points[0], "--reason", "audit of May"]);
    stack.place.json(0, &["drill", "--point", &points[2]]);
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["kit", "confirm", "--note", "safe"]);
    assert_eq!(mirrored(&stack.place.json(0, &["copy", "--init"])), (1, 1));
    assert_eq!(mirrored(&stack.place.json(0, &["copy"])), (0, 0), "each once");
    // What is said later is told later.
    stack.place.json(0, &["point", "hold", &points[1]]);
    assert_eq!(mirrored(&stack.place.json(0, &["copy"])), (1, 0));

    let (bare, copy) = bare_machine(&stack.path("copy"));
    drop(stack);
    let url = format!("file://{}", copy.display());
    let by_hand = ["--repo", &url, "--password-file", "copy-key"];
    let unproved = |held, there| (held, "unverified".to_owned(), there);
    let expected = [
        unproved(true, false),
        unproved(true, false),
        unproved(false, true),
        unproved(false, false),
        unproved(false, false),
    ];
    assert_eq!(shown(&bare, &by_hand), expected);
    let text = bare.ends(0, &[&["show", &points[2][..10]], &by_hand[..]].concat()).out;
    assert!(text.contains("unverified") && text.contains("proved on") && text.contains("only a drill here"), "{text}");
    let text = bare.ends(0, &[&["show", &points[0][..10]], &by_hand[..]].concat()).out;
    assert!(text.contains("in the repository it is a copy of: audit of May"), "{text}");
    // Nobody has said that they hold what opens the copy.
    assert_eq!(bare.json(0, &["status"])["result"]["kit"]["state"], "never");

    // A hold protects here as it does there, and so does the proof; the newest is kept by the rule.
    let ids: Vec<String> = bare.json(0, &["list"])["result"]["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point["id"].as_str().unwrap().to_owned())
        .collect();
    bare.ends(21, &["forget", &ids[0]]).says("RK-EN-010", &["holds it", "audit of May"]);
    let forgotten = bare.json(0, &["forget"]);
    assert_eq!(forgotten["result"]["removed"].as_array().unwrap(), &[Value::from(ids[3].clone())], "{forgotten}");
    let reasons = forgotten["result"]["decisions"][2]["reasons"].to_string();
    assert!(reasons.contains("proved in the repository it is a copy of"), "{forgotten}");
    // Proved here is what was drilled here.
    bare.json(0, &["drill", "--point", "latest"]);
    assert_eq!(shown(&bare, &[]).last(), Some(&(false, "proved".to_owned(), false)));
    bare.json(0, &["verify", "--read-data"]);

    let record = copy.join("rekindle/source-proofs/000000000001");
    let mut bytes = fs::read(&record).unwrap();
    bytes[30] ^= 1;
    fs::remove_file(&record).unwrap();
    fs::write(&record, &bytes).unwrap();
    assert_eq!(bare.json(13, &["list"])["error"]["code"], "RK-RP-020");
    bare.json(13, &["verify"]);
}

#[test]
fn what_is_held_in_a_copy_is_not_released_by_its_repository() {
    let (stack, points) = with_points(1);
    stack.place.json(0, &["copy", "--init"]);
    let held = || shown(&stack.place, &["--copy", "offsite"])[0].0;
    let there = ["--copy", "offsite"];
    stack.place.json(0, &[&["point", "hold", &points[0]], &there[..]].concat());
    stack.place.json(0, &["point", "hold", &points[0]]);
    stack.place.json(0, &["point", "hold", "--release", &points[0]]);
    assert_eq!(mirrored(&stack.place.json(0, &["copy"])), (2, 0));
    assert!(held(), "somebody holds it here");
    stack.place.json(0, &[&["point", "hold", "--release", &points[0]], &there[..]].concat());
    assert!(!held());

    // Held there only, released there only.
    stack.place.json(0, &["point", "hold", &points[0]]);
    stack.place.json(0, &["copy"]);
    assert!(held());
    stack.place.json(0, &["point", "hold", "--release", &points[0]]);
    stack.place.json(0, &["copy"]);
    assert!(!held());
    // Released by hand here: telling the same again does not bring it back.
    stack.place.json(0, &["point", "hold", &points[0]]);
    stack.place.json(0, &["copy"]);
    stack.place.json(0, &[&["point", "hold", "--release", &points[0]], &there[..]].concat());
    assert_eq!(mirrored(&stack.place.json(0, &["copy"])), (0, 0));
    assert!(!held());
}

#[test]
fn a_change_in_the_marks_of_the_repository_is_told_and_the_points_are_copied() {
    let (stack, points) = with_points(2);
    stack.place.json(0, &["point", "hold", &points[0]]);
    let record = stack.path("repo/rekindle/marks/000000000001");
    let mut bytes = fs::read(&record).unwrap();
    bytes[30] ^= 1;
    fs::remove_file(&record).unwrap();
    fs::write(&record, &bytes).unwrap();
    let copied = stack.place.json(13, &["copy", "--init"]);
    let one = &copied["result"]["copies"][0];
    assert_eq!((one["copied"].as_array().unwrap().len(), one["state"].as_str()), (2, Some("incomplete")), "{copied}");
    assert!(copied["error"]["message"].as_str().unwrap().contains("which points are held"), "{copied}");
}
