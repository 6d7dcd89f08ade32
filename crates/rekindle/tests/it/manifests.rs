//! What is shipped for Kubernetes: fits the schemas, and fits this program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rekindle_testkit::tools;

use crate::run::Place;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/kubernetes")
}

fn validate(file: &Path) -> Result<(), String> {
    let output = Command::new(tools::find("validate-manifest")).arg(file).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Files that the kustomization names; the secret is the user's copy of its example.
fn resources() -> BTreeSet<String> {
    let text = fs::read_to_string(directory().join("kustomization.yaml")).unwrap();
    let list = text.split("resources:\n").nth(1).unwrap();
    let names = list.lines().map_while(|line| line.trim().strip_prefix("- ")).map(str::to_owned);
    names.map(|name| name.replace("secret.yaml", "secret.example.yaml")).collect()
}

#[test]
fn seed_kubernetes_manifests_fit_their_schemas() {
    let named = resources();
    let there: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "yaml") && name != "kustomization.yaml")
        .collect();
    assert_eq!(named, there);
    for name in &named {
        validate(&directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // A validator that finds nothing wrong with anything proves nothing.
    let place = Place::new();
    for (name, good, bad) in
        [("deployment.yaml", "replicas: 1", "replicaz: 1"), ("podmonitor.yaml", "interval: 30s", "interval: [30]")]
    {
        let text = fs::read_to_string(directory().join(name)).unwrap();
        assert!(text.contains(good));
        assert!(validate(&place.write(name, &text.replace(good, bad))).is_err(), "{name}");
    }
}

#[test]
fn the_configuration_for_kubernetes_is_one() {
    let place = Place::new();
    let text = fs::read_to_string(directory().join("rekindle.toml")).unwrap();
    // The files of the secret are where the pod mounts them.
    let deployment = fs::read_to_string(directory().join("deployment.yaml")).unwrap();
    let secret = fs::read_to_string(directory().join("secret.example.yaml")).unwrap();
    let mount = "/run/secrets/rekindle";
    assert!(deployment.contains(&format!("mountPath: {mount}\n")));
    for name in text.lines().filter_map(|line| line.split(&format!("file:{mount}/")).nth(1)) {
        let name = name.trim_end_matches('"');
        assert!(secret.contains(&format!("  {name}: ")), "the secret has no `{name}`");
        place.write(&format!("secrets/{name}"), "x");
    }
    let state = place.path().join("state");
    let text = text
        .replace(mount, place.path().join("secrets").to_str().unwrap())
        .replace("/var/lib/rekindle", state.to_str().unwrap());
    place.write("rekindle.toml", &text);
    place.ends(0, &["check-config"]);
}
