//! Restoring what stock restic wrote, what was damaged, what was interrupted, what is hostile.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rekindle_core::Cancel;
use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Materialize, Materialized, PartReader};
use rekindle_repo::points::{foreign_snapshots, open_foreign};
use rekindle_repo::verify::{Subset, VerifyOptions, verify};
use rekindle_testkit::fixtures::{CompareOptions, OddTreeOptions, compare_trees_with, odd_tree_with};

use crate::support::{Place, files};

const SMALL: OddTreeOptions = OddTreeOptions { small_files: 40, medium_files: 2, sparse: false, depth: 12 };

/// A repository in which stock restic saved `source`, opened at that directory.
pub(crate) fn restic_part(place: &Place, source: &Path) -> Arc<dyn PartReader> {
    place.restic(&["backup", source.to_str().unwrap()]);
    foreign_part(place, source)
}

pub(crate) fn foreign_part(place: &Place, source: &Path) -> Arc<dyn PartReader> {
    let repo = place.open();
    let snapshots = foreign_snapshots(&repo).unwrap();
    let within = EntryPath::new(source.to_str().unwrap().trim_start_matches('/')).unwrap();
    open_foreign(&repo.reader().unwrap(), snapshots.last().unwrap(), Some(&within)).unwrap()
}

pub(crate) fn materialize(place: &Place, part: &Arc<dyn PartReader>, into: &Path) -> Materialized {
    part.materialize(&Materialize::all(into), &place.context()).unwrap()
}

/// restic 0.14 saves no sockets, and replaces bytes of link targets that are not UTF-8.
fn without_what_restic_loses(source: &Path) {
    fs::remove_file(source.join("links/odd-target")).unwrap();
    fs::remove_file(source.join("special/socket")).unwrap();
}

pub(crate) fn differences(a: &Path, b: &Path) -> Vec<String> {
    compare_trees_with(a, b, &CompareOptions::default())
}

#[test]
fn what_stock_restic_saved_comes_back_bit_for_bit() {
    let place = Place::new();
    place.init();
    let source = place.fresh("source");
    // With the sparse file of 5 GiB: its holes must stay holes.
    odd_tree_with(&source, &OddTreeOptions::default());
    without_what_restic_loses(&source);
    let part = restic_part(&place, &source);
    let into = place.fresh("into");
    let result = materialize(&place, &part, &into);
    assert_eq!(result.lost, [], "attributes: {:?}", result.attribute_problems);
    assert_eq!(result.attribute_problems, []);
    let options = CompareOptions { allocated_slack_bytes: Some(1 << 16), ..CompareOptions::default() };
    assert_eq!(compare_trees_with(&source, &into, &options), Vec::<String>::new());
    assert_eq!(result.kept_bytes, 0);
    let listed = part.list(None).unwrap().map(Result::unwrap).count() as u64;
    assert_eq!(result.entries, listed);
}

#[test]
fn a_second_restore_writes_nothing_and_mends_what_changed() {
    let place = Place::new();
    place.init();
    let source = place.fresh("source");
    odd_tree_with(&source, &SMALL);
    without_what_restic_loses(&source);
    fs::write(source.join("long"), vec![7; 5 << 20]).unwrap();
    let part = restic_part(&place, &source);
    let into = place.fresh("into");
    let first = materialize(&place, &part, &into);
    assert_eq!(first.lost, []);

    let again = materialize(&place, &part, &into);
    assert_eq!((again.entries, again.bytes), (first.entries, first.bytes));
    assert_eq!(differences(&source, &into), Vec::<String>::new());
    assert!(again.kept_bytes * 10 > again.bytes * 9, "{} of {} kept", again.kept_bytes, again.bytes);

    // As a restore that was killed leaves it: half a file, a file too long, another kind, one gone.
    let long = fs::OpenOptions::new().write(true).open(into.join("long")).unwrap();
    long.set_len(1 << 20).unwrap();
    long.set_len(5 << 20).unwrap();
    fs::write(into.join("extra"), "not part of it").unwrap();
    let resumed = materialize(&place, &part, &into);
    assert_eq!(resumed.lost, []);
    assert!(into.join("extra").exists(), "nothing is deleted unless asked");
    let request = Materialize { delete_extra: true, ..Materialize::all(&into) };
    part.materialize(&request, &place.context()).unwrap();
    assert_eq!(differences(&source, &into), Vec::<String>::new());
}

#[test]
fn a_flipped_bit_costs_the_files_that_need_it_and_no_others() {
    let place = Place::new();
    place.init();
    let source = place.fresh("source");
    for number in 0..60_u8 {
        fs::write(source.join(format!("f{number:02}")), vec![number ^ 0x5a; 70_000 + usize::from(number)]).unwrap();
    }
    place.restic(&["backup", source.to_str().unwrap()]);
    let pack = largest_pack(&place);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 4;
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();

    let report = verify(&place.open(), &VerifyOptions { read_data: Some(Subset::All) }, &Cancel::new()).unwrap();
    assert_eq!(report.affected.len(), 1, "{report:?}");
    let into = place.fresh("into");
    let part = foreign_part(&place, &source);
    let result = materialize(&place, &part, &into);
    let lost: Vec<String> = result.lost.iter().map(|l| l.path.clone()).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(!into.join(&lost[0]).exists(), "no wrong bytes under its name");
    let told: Vec<&str> = report.affected[0].paths.iter().map(|p| p.rsplit('/').next().unwrap()).collect();
    assert_eq!(told, [lost[0].as_str()], "verify and restore name the same file");
    fs::remove_file(source.join(&lost[0])).unwrap();
    // The directory that holds it has another time now; only what is in it counts.
    assert_eq!(differences(&source, &into), Vec::<String>::new());
}

#[test]
fn a_missing_pack_costs_its_files_and_the_restore_goes_on() {
    let place = Place::new();
    place.init();
    let source = place.fresh("source");
    fs::write(source.join("a"), noise(90_000, 1)).unwrap();
    place.restic(&["backup", source.to_str().unwrap()]);
    let first = largest_pack(&place);
    fs::write(source.join("b"), noise(90_000, 2)).unwrap();
    place.restic(&["backup", source.to_str().unwrap()]);
    fs::remove_file(first).unwrap();
    let part = foreign_part(&place, &source);
    let into = place.fresh("into");
    let result = materialize(&place, &part, &into);
    assert_eq!(result.lost.len(), 1);
    assert_eq!(result.lost[0].path, "a");
    assert_eq!(fs::read(into.join("b")).unwrap(), noise(90_000, 2));
    let report = verify(&place.open(), &VerifyOptions::default(), &Cancel::new()).unwrap();
    assert!(report.damage.iter().any(|d| d.why.contains("missing")), "{report:?}");
    assert_eq!(report.affected.len(), 2, "both snapshots need it");
}

/// Bytes that no program compresses.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

fn largest_pack(place: &Place) -> std::path::PathBuf {
    files(&place.repo_path().join("data")).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}
