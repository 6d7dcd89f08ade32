//! A small stack of files with its repository, made by `init`.

use std::os::unix::fs::MetadataExt;

use crate::run::Place;

/// A right configuration of one files component.
pub(crate) const CONFIG: &str = "\
[stack]
name = \"test\"

[repository]
url = \"file:///nowhere/repo\"
password = \"file:key\"

[component.files]
kind = \"files\"
paths = [\"/nowhere/data\"]
";

/// A directory with `data/`, `rekindle.toml` and an empty repository in `repo/`.
pub(crate) fn place() -> Place {
    let place = Place::new();
    place.write("data/a.txt", "one\n");
    place.write("data/sub/b.txt", "two\n");
    place.write("key", "canary-password\n");
    let data = place.path().join("data").display().to_string();
    let repo = format!("file://{}", place.path().join("repo").display());
    place.write("rekindle.toml", &CONFIG.replace("file:///nowhere/repo", &repo).replace("/nowhere/data", &data));
    place.ends(0, &["init", "--config", "made.toml", "--repo", &repo, "--password-file", "key", "--files", "data"]);
    place
}

/// Saves the stack; the id of the point.
pub(crate) fn backup(place: &Place) -> String {
    place.json(0, &["backup"])["result"]["point"].as_str().unwrap().to_owned()
}

#[test]
fn init_makes_a_repository_and_a_configuration_that_is_accepted() {
    let place = Place::new();
    place.write("data/a.txt", "one\n");
    let repo = format!("file://{}", place.path().join("repo").display());
    let ended = place.ends(0, &["init", "--repo", &repo, "--files", "data", "--stack", "shop"]);
    assert!(ended.out.contains("Keep a copy of it off this host"), "{ended:#?}");
    for file in ["rekindle.toml", "repository-key"] {
        let mode = std::fs::metadata(place.path().join(file)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600, "{file}");
    }
    let key = std::fs::read_to_string(place.path().join("repository-key")).unwrap();
    assert_eq!(key.trim().len(), 64);
    assert!(!format!("{ended:?}").contains(key.trim()), "the password is shown");
    let value = place.json(0, &["check-config"]);
    assert_eq!(value["result"]["stack"], "shop");
    assert_eq!(place.json(0, &["list"])["result"]["points"], serde_json::json!([]));
}

#[test]
fn an_interrupted_init_can_be_repeated() {
    let place = Place::new();
    place.write("data/a.txt", "one\n");
    let repo = format!("file://{}", place.path().join("repo").display());
    let arguments = ["init", "--repo", &repo, "--files", "data"];
    place.ends(0, &arguments);
    // As if it had stopped before its last step.
    std::fs::remove_file(place.path().join("rekindle.toml")).unwrap();
    let ended = place.ends(0, &arguments);
    assert!(ended.out.contains("was there already"), "{ended:#?}");
}
