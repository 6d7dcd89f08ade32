//! Recovery to a moment, as far as it is refused before any server is needed.

use crate::run::Place;

fn set_up() -> Place {
    let place = Place::new();
    place.write("key", "canary-repository-password\n");
    place.write("seed/x", "x");
    let url = format!("file://{}", place.path().join("repo").display());
    place.ends(0, &["init", "--repo", &url, "--password-file", "key", "--files", "seed"]);
    place.ends(0, &["backup"]);
    place
}

#[test]
fn a_target_that_does_not_mean_one_moment_is_refused() {
    let place = set_up();
    let no_zone = place.ends(21, &["restore", "database", "--at", "2026-11-22 14:30:00"]);
    no_zone.says("RK-PT-001", &["has no zone", "restore-points list"]);
    let twice = place.ends(21, &["restore", "database", "--at", "2026-10-25 02:30:00 Europe/Berlin"]);
    twice.says("RK-PT-001", &["2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z"]);
    for (option, value) in [("--at", ""), ("--at", "yesterday"), ("--xid", "0"), ("--lsn", "x"), ("--name", "")] {
        place.ends(21, &["restore", "database", option, value]).says("RK-PT-001", &[option]);
    }
    let timeline = place.ends(21, &["restore", "database", "--latest", "--timeline", "0"]);
    timeline.says("RK-PT-001", &["--timeline"]);
}

#[test]
fn targets_exclude_each_other_and_options_need_one() {
    let place = set_up();
    place.ends(2, &["restore", "database", "--latest", "--xid", "700"]);
    place.ends(2, &["restore", "latest", "database", "--exclusive"]);
    place.ends(2, &["restore", "latest", "database", "--timeline", "1"]);
}

#[test]
fn without_a_database_or_a_base_backup_nothing_can_be_recovered() {
    let place = set_up();
    place.ends(2, &["restore", "database", "--latest"]).says("RK-EN-008", &["database"]);
    let listed = place.json(0, &["restore-points", "list"]);
    assert_eq!(listed["result"]["components"].as_array().unwrap().len(), 0);
    let text = place.ends(0, &["restore-points", "list"]);
    assert!(text.out.contains("no base backups"), "{text:#?}");
}
