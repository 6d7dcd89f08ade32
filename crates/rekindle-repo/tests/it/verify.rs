//! Verification finds a flipped bit in every kind of object.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rekindle_core::Cancel;
use rekindle_repo::verify::{Subset, VerifyOptions, verify};

use crate::support::{PASSWORD, Place, files, secret};

#[test]
fn a_flipped_bit_in_any_object_is_found() {
    let place = Place::new();
    place.init();
    let source = place.fresh("source");
    for number in 0..10_u8 {
        fs::write(source.join(format!("f{number}")), vec![number; 3000]).unwrap();
    }
    place.restic(&["backup", source.to_str().unwrap()]);
    rekindle_repo::admin::key_add(
        &place.open(),
        &secret("another horse entirely"),
        &rekindle_repo::admin::KeyLabel::default(),
    )
    .unwrap();
    let repo = place.open();
    let options = VerifyOptions { read_data: Some(Subset::All) };
    assert!(verify(&repo, &options, &Cancel::new()).unwrap().is_good());
    let mut tried = 0;
    for path in files(&place.repo_path()) {
        let name = path.strip_prefix(place.repo_path()).unwrap().to_string_lossy().into_owned();
        if name == "config" || name.starts_with("locks") || name.contains("probe") {
            continue;
        }
        let good = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bit in [0, good.len() * 4, good.len() * 8 - 1] {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let repo = rekindle_repo::Repo::open_with_key(
                place.store(),
                place.runtime.handle().clone(),
                repo.key().clone(),
                rekindle_repo::RepoOptions::default(),
            )
            .unwrap();
            let report = verify(&repo, &options, &Cancel::new()).unwrap();
            assert!(!report.is_good(), "bit {bit} of {name}");
            tried += 1;
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(tried >= 18, "{tried}");
    assert!(place.open_with(PASSWORD).is_ok());
}
