//! Full disks: no point, no silence, and no damage to what is there.

use std::fs;
use std::path::Path;
use std::process::Command;

use rekindle_testkit::s3::Mount;

use super::stack::{Stack, assert_same_trees, below, noise};
use crate::run::Place;

/// Makes a memory file system larger.
pub(super) fn enlarge(directory: &Path, mib: u32) {
    let size = format!("remount,size={mib}m");
    assert!(Command::new("mount").args(["-o", &size]).arg(directory).status().unwrap().success());
}

#[test]
fn a_full_repository_disk_is_no_success() {
    let place = Place::new();
    let disk = place.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let _mount = Mount::tmpfs(&disk, 12);
    let url = format!("file://{}/repo", disk.display());
    let mut stack = Stack::at(place, &format!("url = \"{url}\""), &url);
    let data = stack.files("data");
    fs::write(data.join("first"), noise(1, 3 << 20)).unwrap();
    stack.complete();
    let before = stack.points();
    for seed in 2..=4 {
        fs::write(data.join("large"), noise(seed, 40 << 20)).unwrap();
        let ended = stack.place.ends(1, &["backup"]);
        ended.says("RK-ST-006", &["files"]);
        // Reading works on a full disk.
        assert_eq!(stack.points(), before);
    }
    stack.place.json(0, &["restore", "latest", "--to", "back"]);
    assert_eq!(fs::read(below(&stack.path("back"), &data.join("first"))).unwrap(), noise(1, 3 << 20));
    enlarge(&disk, 200);
    stack.complete();
    stack.place.json(0, &["verify", "--read-data"]);
    stack.place.json(0, &["restore", "latest", "--to", "whole"]);
    assert_same_trees(&data, &below(&stack.path("whole"), &data));
    let ended = stack.restic_at(&disk.join("repo"), "restic", &["check", "--read-data"]);
    assert_eq!(ended.code, 0, "{ended:#?}");
}

#[test]
fn a_full_restore_target_is_no_success() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("large"), noise(1, 20 << 20)).unwrap();
    fs::write(data.join("small"), "small").unwrap();
    stack.complete();
    let target = stack.path("target");
    fs::create_dir(&target).unwrap();
    let _mount = Mount::tmpfs(&target, 8);
    // It is known before anything is written.
    stack.place.ends(21, &["restore", "latest", "--to", "target/new"]).says("RK-FS-011", &["files"]);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    // Unless the target holds something, which may be what is to be written.
    fs::create_dir(target.join("used")).unwrap();
    fs::write(target.join("used/mine"), "mine").unwrap();
    let ended = stack.place.run(&["restore", "latest", "--to", "target/used", "--overwrite"]);
    assert!(matches!(ended.code, 1 | 13), "{ended:#?}");
    assert!(ended.err.contains("files") && ended.err.contains("\nhint: "), "{ended:#?}");
    enlarge(&target, 60);
    stack.place.json(0, &["restore", "latest", "--to", "target/used", "--overwrite"]);
    let came = below(&target.join("used"), &data);
    assert_same_trees(&data, &came);
}
