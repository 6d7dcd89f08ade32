//! Every kind of bad input: the right exit code, a cause and a remedy.

use crate::run::Place;
use crate::set_up::{self, CONFIG};

#[test]
fn no_configuration_is_5() {
    let place = Place::new();
    for verb in ["check-config", "backup", "list", "status", "doctor"] {
        place.ends(5, &[verb]).says("RK-CF-001", &["rekindle init"]);
    }
    place.ends(5, &["list", "--config", "none.toml"]).says("RK-CF-001", &["none.toml"]);
    assert_eq!(place.json(5, &["list"])["error"]["code"], "RK-CF-001");
}

#[test]
fn an_unknown_key_is_5_with_line_and_suggestion() {
    let place = Place::new();
    place.write("rekindle.toml", &CONFIG.replace("paths", "pahts"));
    let ended = place.ends(5, &["check-config"]);
    ended.says("RK-CF-003", &["rekindle.toml:10:1", "component.files.pahts", "did you mean `paths`?"]);
    let value = place.json(5, &["backup"]);
    assert_eq!(value["errors"].as_array().unwrap().len(), 2, "every problem: {value}");
}

#[test]
fn a_bad_url_is_5() {
    let place = Place::new();
    place.write("rekindle.toml", &CONFIG.replace("file:///", "flie:///"));
    place.ends(5, &["list"]).says("RK-CF-004", &["did you mean `file`?"]);
    place.write("key", "secret\n");
    place.ends(5, &["list", "--repo", "ftp://x", "--password-file", "key"]).says("RK-ST-001", &["ftp"]);
}

#[test]
fn a_repository_without_a_password_is_2() {
    let place = Place::new();
    place.ends(2, &["list", "--repo", "/nowhere"]).says("RK-CL-001", &["--password-file"]);
}

#[test]
fn a_password_that_all_may_read_is_5() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let key = place.write("key", "secret\n");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.ends(5, &["list", "--repo", "/nowhere", "--password-file", "key"]).says("RK-CF-005", &["chmod 600"]);
}

#[test]
fn no_repository_is_10() {
    let place = Place::new();
    place.write("key", "secret\n");
    std::fs::create_dir(place.path().join("empty")).unwrap();
    let url = place.path().join("empty").display().to_string();
    place.ends(10, &["list", "--repo", &url, "--password-file", "key"]).says("RK-RP-001", &["rekindle init"]);
}

#[test]
fn a_wrong_key_is_12() {
    let place = set_up::place();
    place.write("other", "canary-wrong\n");
    let ended = place.ends(12, &["list", "--password-file", "other"]);
    ended.says("RK-RP-003", &["no key file takes this password"]);
    assert!(!ended.err.contains("canary"), "{ended:#?}");
}

#[test]
fn an_unreachable_host_is_20() {
    let mut place = Place::new();
    place.write("key", "secret\n");
    place.set("AWS_ACCESS_KEY_ID", "a");
    place.set("AWS_SECRET_ACCESS_KEY", "b");
    // Port 9 (discard) has no server on a test host: refused at once.
    let url = "s3://bucket/x?endpoint=http://127.0.0.1:9&region=x";
    place.ends(20, &["list", "--repo", url, "--password-file", "key"]).says("RK-ST-002", &["127.0.0.1:9"]);
}

#[test]
fn a_point_that_is_not_there_is_2() {
    let place = set_up::place();
    place.ends(2, &["show", "latest"]).says("RK-RP-008", &["there is no point yet"]);
    place.ends(2, &["show", "zz"]).says("RK-RP-008", &["latest"]);
}

#[test]
fn init_writes_over_nothing() {
    let place = set_up::place();
    let before = std::fs::read(place.path().join("rekindle.toml")).unwrap();
    let url = place.path().join("second").display().to_string();
    place.ends(21, &["init", "--repo", &url, "--files", "data"]).says("RK-CF-007", &["--config FILE"]);
    assert_eq!(std::fs::read(place.path().join("rekindle.toml")).unwrap(), before);
    assert!(!place.path().join("second").exists());
}

#[test]
fn init_needs_to_know_where_and_what() {
    let place = Place::new();
    place.ends(2, &["init"]).says("RK-CL-001", &["--repo"]);
    let ended = place.ends(2, &["init", "--repo", "/x", "--files", "none"]);
    ended.says("RK-CL-001", &["find none"]);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
