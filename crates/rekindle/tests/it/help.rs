//! Help, completions, manual pages: what can be had without any set-up.

use crate::run::Place;

const VERBS: [&str; 29] = [
    "init",
    "check-config",
    "backup",
    "list",
    "show",
    "ls",
    "cat",
    "verify",
    "copy",
    "restore",
    "restore-points",
    "drill",
    "proof",
    "peek",
    "status",
    "doctor",
    "key",
    "forget",
    "prune",
    "audit",
    "maintenance",
    "wal",
    "serve",
    "run",
    "install",
    "notify",
    "completions",
    "man",
    "version",
];

#[test]
fn the_help_is_as_agreed() {
    let place = Place::new();
    let mut all = place.ends(0, &["--help"]).out;
    for verb in VERBS {
        let help = place.ends(0, &[verb, "--help"]).out;
        // The global options are the same everywhere.
        all += &["\n=== ", verb, "\n", help.split("Global options:").next().unwrap()].concat();
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let place = Place::new();
    for arguments in [&["bakcup"][..], &["backup", "--nope"], &[], &["list", "--last", "x"], &["key"], &["restore"]] {
        let ended = place.ends(2, arguments);
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{ended:#?}");
    }
    let value = place.json(2, &["bakcup"]);
    assert_eq!(value["error"]["code"], "RK-CL-001");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.ends(0, &["completions", shell]).out.contains("check-config"), "{shell}");
    }
    assert!(place.ends(0, &["man"]).out.starts_with(".ie"));
    place.ends(0, &["man", "--out", "pages"]);
    for verb in VERBS {
        assert!(place.path().join(format!("pages/rekindle-{verb}.1")).exists(), "{verb}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = place
        .command(&["check-config", "--schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn the_schema_and_the_version_are_data() {
    let place = Place::new();
    assert_eq!(place.json(0, &["check-config", "--schema"])["result"]["type"], "object");
    assert_eq!(place.json(0, &["version"])["result"]["version"], env!("CARGO_PKG_VERSION"));
}
