//! What is refused, locked or damaged.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::run::Place;
use crate::set_up::{self, backup};

#[test]
fn a_restore_into_a_full_directory_is_21() {
    let place = set_up::place();
    backup(&place);
    place.write("full/keep.txt", "mine\n");
    place.ends(21, &["restore", "latest", "--to", "full"]).says("RK-FS-004", &["not empty"]);
    assert_eq!(place.read("full/keep.txt"), "mine\n");
}

#[test]
fn a_locked_repository_is_11() {
    let place = set_up::place();
    backup(&place);
    let config = place.read("rekindle.toml");
    // The component's hook runs while the repository is locked; it waits for its file to go.
    let hold = place.write("hold", "");
    let hook = format!("while test -e {}; do sleep 0.1; done", hold.display());
    place.write("rekindle.toml", &format!("{config}hooks = {{ before = [\"{hook}\"] }}\n"));
    let mut running = place.command(&["backup"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let locks = place.path().join("repo/locks");
    let until = Instant::now() + Duration::from_mins(1);
    while std::fs::read_dir(&locks).map_or(0, Iterator::count) == 0 {
        assert!(Instant::now() < until, "the backup did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    place.ends(11, &["prune"]).says("RK-RP-004", &["lock"]);
    std::fs::remove_file(hold).unwrap();
    assert!(running.wait().unwrap().success());
    place.ends(0, &["prune"]);
}

#[test]
fn two_runs_of_a_stack_exclude_each_other_and_a_restore_in_place_is_one() {
    let place = set_up::place();
    backup(&place);
    // As a running backup holds it.
    let held = std::fs::File::open(place.path().join("rekindle.toml")).unwrap();
    held.try_lock().unwrap();
    for arguments in [&["backup"][..], &["restore", "latest", "--in-place"]] {
        place.ends(11, arguments).says("RK-EN-006", &["another run"]);
    }
    place.ends(0, &["restore", "latest", "--to", "new"]);
    drop(held);
    place.ends(0, &["restore", "latest", "--in-place"]);
}

#[test]
fn a_removed_newest_record_of_the_ledger_is_told() {
    let place = set_up::place();
    let point = backup(&place);
    let records = std::fs::read_dir(place.path().join("repo/rekindle/ledger")).unwrap();
    std::fs::remove_file(records.map(|record| record.unwrap().path()).max().unwrap()).unwrap();
    // A run that dies right after its point leaves the same: it is told, and it is no damage.
    let told = place.ends(0, &["verify"]).out;
    assert!(told.contains(&format!("the ledger has no record of point {}", &point[..8])), "{told}");
    assert_eq!(place.json(0, &["verify"])["result"]["unrecorded"], json!([point]));
    backup(&place);
    assert_eq!(place.json(0, &["verify"])["result"]["unrecorded"], json!([]));
}

#[test]
fn a_damaged_repository_is_13() {
    let place = set_up::place();
    let noise: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(place.path().join("data/noise"), &noise).unwrap();
    backup(&place);
    let pack = largest_pack(&place);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let found = place.json(13, &["verify", "--read-data"]);
    let paths = found["result"]["affected"][0]["paths"].to_string();
    assert!(paths.contains("noise") && !paths.contains("a.txt"), "{paths}");
    let restored = place.json(13, &["restore", "latest", "--to", "back"]);
    let lost = &restored["result"]["items"][0]["report"]["lost"];
    assert_eq!(lost.as_array().unwrap().len(), 1, "{restored}");
    let whole = place.path().join("data/sub/b.txt");
    let back = place.path().join("back").join(whole.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(back).unwrap(), "two\n", "the undamaged files are there");
}

fn largest_pack(place: &Place) -> PathBuf {
    let folders = std::fs::read_dir(place.path().join("repo/data")).unwrap();
    let packs =
        folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()).map(|pack| pack.unwrap().path());
    packs.max_by_key(|pack| std::fs::metadata(pack).unwrap().len()).unwrap()
}

#[test]
fn the_last_complete_point_is_not_forgotten() {
    let place = set_up::place();
    let point = backup(&place);
    place.ends(21, &["forget", &point[..8]]).says("RK-EN-010", &["without a complete point"]);
    place.ends(5, &["forget"]).says("RK-CF-004", &["retention"]);
    backup(&place);
    let config = place.read("rekindle.toml");
    place.write("rekindle.toml", &format!("{config}[retention]\nkeep-last = 1\nmin-keep = 1\n"));
    let planned = place.json(0, &["forget", "--dry-run"]);
    assert_eq!(planned["result"]["removed"], json!([point]));
    assert_eq!(place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 2);
    place.ends(0, &["forget"]);
    assert_eq!(place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 1);
}

#[test]
fn a_component_that_is_not_there_is_2() {
    let place = set_up::place();
    backup(&place);
    place.ends(2, &["backup", "nope"]).says("RK-EN-008", &["files"]);
    place.ends(2, &["restore", "latest", "nope", "--to", "x"]).says("RK-EN-008", &["files"]);
    place.ends(2, &["cat", "latest", "files/no/such"]);
    place.ends(2, &["restore", "latest", "--live", "--in-place"]);
    place
        .ends(2, &["restore", "latest", "--to", "x", "--server", "redis://127.0.0.1"])
        .says("RK-CL-001", &["no chosen"]);
}
