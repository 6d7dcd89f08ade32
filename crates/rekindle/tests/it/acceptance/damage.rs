//! Damage of the repository is found, named, and costs no more than what it hit.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::stack::{Random, Stack, below, noise};

/// Every file below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn stack_of_many_files() -> (Stack, PathBuf) {
    let mut stack = Stack::new();
    let data = stack.files("data");
    for n in 0..40 {
        fs::write(data.join(format!("file-{n}")), noise(n, 400_000)).unwrap();
    }
    stack.complete();
    (stack, data)
}

const PACKED_BYTES: usize = 1_000_000;

/// As above, in several packs.
fn stack_of_packs() -> (Stack, PathBuf) {
    let mut stack = Stack::new();
    let data = stack.files("data");
    for n in 0..40 {
        fs::write(data.join(format!("file-{n}")), noise(n, PACKED_BYTES)).unwrap();
    }
    stack.complete();
    (stack, data)
}

#[test]
fn one_flipped_bit_is_found_and_costs_only_what_it_hits() {
    let (stack, data) = stack_of_many_files();
    stack.place.json(0, &["verify", "--read-data"]);
    let packs = files_below(&stack.path("repo/data"));
    let pack = packs.iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap();
    let whole = fs::read(pack).unwrap();
    let mut random = Random::new(7);
    for trial in 0..6 {
        // Not in the header at the end, which all of the pack needs.
        let place = usize::try_from(random.next()).unwrap_or(0) % (whole.len() * 9 / 10);
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (random.next() % 8);
        fs::write(pack, &bytes).unwrap();
        let found = stack.place.json(13, &["verify", "--read-data"]);
        assert!(found["result"]["damage"].to_string().contains(&name_of(pack)[..8]), "byte {place}: {found}");
        assert!(found["error"]["hint"].is_string(), "{found}");
        let affected = found["result"]["affected"][0]["paths"].as_array().unwrap().clone();
        let to = format!("back-{trial}");
        let restored = stack.place.json(13, &["restore", "latest", "--to", &to]);
        let lost = restored["result"]["items"][0]["report"]["lost"].as_array().unwrap();
        assert_eq!((affected.len(), lost.len()), (1, 1), "byte {place}: {restored}");
        let lost = Path::new(lost[0]["path"].as_str().unwrap()).file_name().unwrap().to_owned();
        assert!(affected[0].as_str().unwrap().ends_with(lost.to_str().unwrap()), "{affected:?} {lost:?}");
        for n in 0..40 {
            let name = format!("file-{n}");
            let came = below(&stack.path(&to), &data).join(&name);
            if lost.to_str() == Some(&name) {
                // Not there, or not under its name as if it was whole.
                assert!(fs::read(&came).is_err() || fs::read(&came).unwrap() != noise(n, 400_000));
            } else {
                assert_eq!(fs::read(&came).unwrap(), noise(n, 400_000), "{name}");
            }
        }
        let name = format!("files{}/{}", data.display(), lost.display());
        assert_eq!(stack.place.command(&["cat", "latest", &name]).output().unwrap().status.code(), Some(13));
    }
    fs::write(pack, whole).unwrap();
    stack.place.json(0, &["verify", "--read-data"]);
}

#[test]
fn a_lost_object_of_any_kind_is_found() {
    let (stack, data) = stack_of_many_files();
    fs::write(data.join("more"), noise(100, 400_000)).unwrap();
    stack.complete();
    // A run killed right after its snapshot leaves the same: a point whose record is still to come.
    let newest_record = files_below(&stack.path("repo/rekindle/ledger")).pop().unwrap();
    for kind in ["snapshots", "data", "index", "keys", "rekindle"] {
        let files = files_below(&stack.path("repo").join(kind));
        for file in files.into_iter().filter(|file| *file != newest_record) {
            let bytes = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let ended = stack.place.run(&["verify"]);
            // Without its only key nothing can be opened.
            let expected: &[i32] = if kind == "keys" { &[10, 12, 13] } else { &[13] };
            assert!(expected.contains(&ended.code), "{}: {ended:#?}", file.display());
            assert!(ended.err.contains("\nhint: "), "{ended:#?}");
            fs::write(&file, bytes).unwrap();
        }
    }
    stack.place.json(0, &["verify", "--read-data"]);
}

#[test]
fn a_flipped_bit_in_any_small_object_is_found() {
    let (stack, _data) = stack_of_many_files();
    let mut random = Random::new(11);
    for kind in ["config", "snapshots", "index", "keys", "rekindle"] {
        let path = stack.path("repo").join(kind);
        let files = if path.is_dir() { files_below(&path) } else { vec![path] };
        for file in files {
            let whole = fs::read(&file).unwrap();
            for _ in 0..2 {
                let mut bytes = whole.clone();
                let place = usize::try_from(random.next()).unwrap_or(0) % bytes.len();
                bytes[place] ^= 1 << (random.next() % 8);
                fs::write(&file, &bytes).unwrap();
                let ended = stack.place.run(&["verify"]);
                let expected: &[i32] = if kind == "keys" || kind == "config" { &[10, 12, 13] } else { &[13] };
                assert!(expected.contains(&ended.code), "{} byte {place}: {ended:#?}", file.display());
            }
            fs::write(&file, whole).unwrap();
        }
    }
    stack.place.json(0, &["verify", "--read-data"]);
}

fn largest_pack(stack: &Stack) -> PathBuf {
    let packs = files_below(&stack.path("repo/data"));
    packs.into_iter().max_by_key(|pack| fs::metadata(pack).unwrap().len()).unwrap()
}

/// Names of files that a restore lost.
fn lost(restored: &serde_json::Value) -> BTreeSet<String> {
    let lost = restored["result"]["items"][0]["report"]["lost"].as_array().unwrap();
    lost.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pack_that_is_cut_short_or_gone_is_found_and_costs_only_what_it_held() {
    let (stack, data) = stack_of_packs();
    // Later points have their own manifest in a pack of its own.
    let pack = largest_pack(&stack);
    fs::write(data.join("small"), "small").unwrap();
    stack.complete();
    let newest = stack.newest()["id"].clone();
    let whole = fs::read(&pack).unwrap();
    let cuts = [("gone", None), ("empty", Some(0)), ("half", Some(whole.len() / 2)), ("nearly", Some(whole.len() - 1))];
    for (case, left) in cuts {
        match left {
            None => fs::remove_file(&pack).unwrap(),
            Some(bytes) => fs::write(&pack, &whole[..bytes]).unwrap(),
        }
        for arguments in [&["verify"][..], &["verify", "--read-data"]] {
            let found = stack.place.json(13, arguments);
            assert!(found["result"]["damage"].to_string().contains(&name_of(&pack)), "{case}: {found}");
            assert!(found["error"]["hint"].is_string(), "{case}: {found}");
        }
        let affected = stack.place.json(13, &["verify", "--read-data"])["result"]["affected"].take();
        let of_newest = affected.as_array().unwrap().iter().find(|one| one["point"] == newest);
        let affected: BTreeSet<String> = of_newest
            .map_or(&serde_json::Value::Null, |one| &one["paths"])
            .as_array()
            .into_iter()
            .flatten()
            .map(|path| path.as_str().unwrap().trim_start_matches('/').trim_start_matches("files/").to_owned())
            .collect();
        // Only the end of the pack's own list of contents is missing: every file is there.
        let nearly = case == "nearly";
        assert_eq!(affected.is_empty(), nearly, "{case}");
        let restored = stack.place.json(if nearly { 0 } else { 13 }, &["restore", "latest", "--to", case]);
        let lost = lost(&restored);
        assert_eq!(lost, affected, "{case}");
        for n in 0..40 {
            let came = below(&stack.path(case), &data).join(format!("file-{n}"));
            let named = lost.iter().any(|path| path.ends_with(&format!("/file-{n}")));
            let right = fs::read(&came).is_ok_and(|bytes| bytes == noise(n, PACKED_BYTES));
            assert_ne!(right, named, "{case}: file-{n}");
        }
        fs::write(&pack, &whole).unwrap();
    }
    stack.place.json(0, &["verify", "--read-data"]);
}

/// The manifest of the only point stands in the pack that is lost.
#[test]
fn a_point_without_its_manifest_is_not_passed_over_and_gives_back_what_is_left() {
    let (stack, data) = stack_of_packs();
    let first = stack.newest()["id"].as_str().unwrap().to_owned();
    let old = files_below(&stack.path("repo/data"));
    fs::write(data.join("small"), "small").unwrap();
    stack.complete();
    let second = stack.newest()["id"].as_str().unwrap().to_owned();
    // Data of the second run: its manifest, and the new file.
    let new: Vec<PathBuf> =
        files_below(&stack.path("repo/data")).into_iter().filter(|pack| !old.contains(pack)).collect();
    for pack in &new {
        let whole = fs::read(pack).unwrap();
        fs::remove_file(pack).unwrap();
        let ended = stack.place.run(&["restore", "latest", "--to", "never"]);
        assert!(!stack.path("never").exists(), "an older point is not the latest");
        assert_eq!(ended.code, 13, "{ended:#?}");
        for word in ["latest", "latest:complete"] {
            let ended = stack.place.ends(13, &["show", word]);
            assert!(ended.err.contains(&second[..8]) && ended.err.contains("\nhint: "), "{ended:#?}");
        }
        // The other point is as good as before.
        stack.place.ends(0, &["show", &first]);
        fs::write(pack, whole).unwrap();
    }
    // The first point loses its manifest, and with it the files that stand in the same pack.
    let mut with_manifest = 0;
    for (number, pack) in old.iter().enumerate() {
        let whole = fs::read(pack).unwrap();
        fs::remove_file(pack).unwrap();
        let to = format!("left-{number}");
        let ended = stack.place.ends(13, &["restore", &first[..8], "--to", &to]);
        fs::write(pack, whole).unwrap();
        if !ended.out.contains("LOST rekindle/manifest.json") {
            continue;
        }
        with_manifest += 1;
        let came = below(&stack.path(&to).join("files"), &data);
        let mut right = 0;
        for n in 0..40 {
            let name = format!("file-{n}");
            let whole = fs::read(came.join(&name)).is_ok_and(|bytes| bytes == noise(n, PACKED_BYTES));
            assert_ne!(whole, ended.out.contains(&format!("/{name}:")), "{name}: {ended:#?}");
            right += u32::from(whole);
        }
        assert!(right > 0, "{ended:#?}");
    }
    assert_eq!(with_manifest, 1);
    stack.place.json(0, &["verify", "--read-data"]);
}
