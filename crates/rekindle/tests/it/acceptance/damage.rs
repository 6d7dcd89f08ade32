//! Damage of the repository is found, named, and costs no more than what it hit.

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
