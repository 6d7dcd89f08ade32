//! Who may read what is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::stack::{Stack, noise};

/// Everything at and below a path that group or others may do anything with.
fn open_to_others(top: &Path) -> Vec<PathBuf> {
    let mut open = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.permissions().mode() & 0o077 != 0 && !meta.is_symlink() {
            open.push(path.clone());
        }
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    open
}

/// The umask of the tests is the usual one, which lets everybody read what is made carelessly.
#[test]
fn seed_access_control_only_the_owner_reads_repository_state_keys_and_configuration() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), noise(1, 200_000)).unwrap();
    let probe = stack.path("probe");
    fs::write(&probe, "x").unwrap();
    assert_ne!(fs::metadata(&probe).unwrap().permissions().mode() & 0o077, 0, "the umask hides what this looks for");
    stack.place.ends(0, &["backup"]);
    stack.place.ends(0, &["verify", "--read-data"]);
    stack.place.ends(0, &["drill", "--all"]);
    for name in ["repo", "state/rekindle", "made.toml"] {
        assert_eq!(open_to_others(&stack.path(name)), [] as [PathBuf; 0], "{name}");
    }
    // A configuration names programs to run: nobody else may write it.
    fs::set_permissions(stack.path("rekindle.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    let refused = stack.place.run(&["backup"]);
    assert!(refused.code != 0 && refused.err.contains("chmod 600"), "{refused:#?}");
    fs::set_permissions(stack.path("rekindle.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    // A restore gives files the rights they had, and lets nobody in while it works.
    fs::set_permissions(data.join("a"), fs::Permissions::from_mode(0o604)).unwrap();
    stack.place.ends(0, &["backup"]);
    stack.place.ends(0, &["restore", "latest", "files", "--to", "back"]);
    let restored = super::stack::below(&stack.path("back"), &data.join("a"));
    assert_eq!(fs::metadata(restored).unwrap().permissions().mode() & 0o777, 0o604);
}
