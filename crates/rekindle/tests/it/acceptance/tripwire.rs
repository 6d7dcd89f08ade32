//! A capture that differs sharply: told, kept apart from retention, accepted.

use std::fs;

use rekindle_testkit::{Postgres, PostgresOptions};
use serde_json::{Value, json};

use super::stack::{Stack, noise};

/// Some texts, of which the first few change with every call.
fn fill(directory: &std::path::Path, round: usize) {
    for n in 0..60 {
        let text = format!("file {n} ").repeat(4000);
        let text = if n < 2 { format!("{text}{round}") } else { text };
        fs::write(directory.join(format!("{n:02}.txt")), text).unwrap();
    }
}

fn suspicions(report: &Value) -> Vec<&str> {
    let list = report["suspicions"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|one| one["measure"].as_str()).collect()
}

#[test]
fn an_encrypted_tree_is_suspicious_until_it_is_accepted() {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    stack.add("[retention]\nkeep-last = 1\nmin-keep = 1");
    for round in 0..4 {
        fill(&data, round);
        assert_eq!(suspicions(&stack.complete()), [""; 0], "round {round}");
    }
    let place = &stack.place;
    assert_eq!(place.json(0, &["status"])["result"]["suspicious"], json!([]));

    for n in 0..60 {
        fs::write(data.join(format!("{n:02}.txt")), noise(n, 32_000)).unwrap();
    }
    // The point is complete: the run is a success, loudly.
    let report = stack.complete();
    assert_eq!(suspicions(&report), ["changed", "incompressible"], "{report}");
    let newest = stack.newest();
    assert_eq!((&newest["suspicious"], &newest["state"]), (&json!(true), &json!("complete")));
    let human = place.ends(0, &["list"]);
    assert!(human.out.contains("complete, SUSPICIOUS"), "{human:#?}");
    assert!(place.ends(0, &["show"]).out.contains("odd: files: new bytes do not compress"));
    let status = place.json(4, &["status"]);
    assert_eq!(status["error"]["code"], "RK-RC-001");
    assert_eq!(status["result"]["suspicious"], json!([report["point"]]));
    // Nothing older goes, by policy or by name.
    assert_eq!(place.json(0, &["forget"])["result"]["removed"], json!([]));
    // The next capture is as odd: one odd point is not the new normal.
    assert_eq!(suspicions(&stack.complete()), [""; 0], "the same bytes again are not new");
    fs::write(data.join("00.txt"), noise(99, 2_000_000)).unwrap();

    let accepted = place.json(0, &["point", "accept", report["point"].as_str().unwrap(), "--reason", "we encrypt now"]);
    assert_eq!(accepted["result"]["written"], true);
    let shown = place.json(0, &["show", report["point"].as_str().unwrap()])["result"].take();
    assert_eq!((&shown["suspicious"], &shown["accepted"]["reason"]), (&json!(false), &json!("we encrypt now")));
    place.json(0, &["status"]);
    let again = place.json(0, &["point", "accept", report["point"].as_str().unwrap()]);
    assert_eq!(again["result"]["written"], false);

    // Held points stay; then retention goes on.
    let oldest = stack.points()[0]["id"].as_str().unwrap().to_owned();
    place.json(0, &["point", "hold", &oldest, "--reason", "audit"]);
    let kept = place.json(0, &["forget"]);
    assert_eq!(kept["result"]["removed"].as_array().unwrap().len(), 4, "{kept}");
    place.ends(21, &["forget", &oldest]).says("RK-EN-010", &["audit"]);
    place.json(0, &["point", "hold", &oldest, "--release"]);
    assert_eq!(place.json(0, &["forget"])["result"]["removed"], json!([oldest]));
    place.json(0, &["verify"]);
}

#[test]
fn an_emptied_table_and_a_changed_mark_are_seen() {
    let mut stack = Stack::new();
    stack.quicken();
    let postgres = Postgres::start(PostgresOptions::default());
    postgres.psql("postgres", "CREATE DATABASE app");
    postgres.psql("app", "CREATE TABLE big AS SELECT n, repeat('x', 100) AS t FROM generate_series(1, 5000) n");
    postgres.psql("app", "CREATE TABLE users AS SELECT n FROM generate_series(1, 40) n");
    stack.postgres(&postgres, postgres.port(), &["app".to_owned()], "");
    assert_eq!(suspicions(&stack.complete()), [""; 0]);
    postgres.psql("app", "TRUNCATE users");
    let report = stack.complete();
    assert_eq!(suspicions(&report), ["rows"], "{report}");
    assert!(report["suspicions"][0]["text"].as_str().unwrap().contains("app.public.users has no rows"), "{report}");
    let differ = stack.place.json(0, &["diff", stack.points()[0]["id"].as_str().unwrap()])["result"].take();
    let counts = differ["components"][0]["counts"].as_array().unwrap();
    assert_eq!(counts.len(), 1, "{differ}");
    assert_eq!((&counts[0]["before"], &counts[0]["after"]), (&json!(40), &json!(0)));

    // A mark that somebody changed or removed is an alarm, and no held point is guessed.
    stack.place.json(0, &["point", "accept", "latest"]);
    stack.complete();
    stack.place.json(0, &["verify"]);
    let mark = stack.path("repo/rekindle/marks/000000000001");
    let bytes = fs::read(&mark).unwrap();
    let mut changed = bytes.clone();
    changed[40] ^= 1;
    fs::write(&mark, &changed).unwrap();
    stack.place.ends(13, &["verify"]).says("RK-EN-007", &[]);
    stack.place.ends(13, &["list"]).says("RK-RP-015", &["marks"]);
    fs::remove_file(&mark).unwrap();
    let gone = stack.place.ends(13, &["verify"]);
    assert!(format!("{gone:?}").contains("mark 1 is missing, and a point has seen it"), "{gone:#?}");
    fs::write(&mark, &bytes).unwrap();
    stack.place.json(0, &["verify"]);
}

#[test]
fn the_tripwire_can_be_turned_off_for_a_component() {
    let mut stack = Stack::new();
    stack.quicken();
    let data = stack.files("data");
    fill(&data, 0);
    stack.complete();
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    assert_eq!(suspicions(&stack.complete()), ["entries"]);
    let section = format!("[component.files]\nkind = \"files\"\npaths = [\"{}\"]", data.display());
    stack.set(&format!("{section}\ntripwire = {{ enabled = false }}"));
    assert_eq!(suspicions(&stack.complete()), [""; 0]);
    stack.set(&format!("{section}\ntripwire = {{ drop-percent = 500 }}"));
    stack.place.ends(5, &["backup"]).says("RK-CF-004", &["drop-percent"]);
}
