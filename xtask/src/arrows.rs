//! Crates depend on each other only as the architecture draws it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// crate → what it may depend on (dev-dependencies: also `rekindle-testkit` and what tests need).
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("rekindle-core", &[] as &[&str]),
        ("rekindle-config", &["rekindle-core"]),
        ("rekindle-store", &["rekindle-core"]),
        ("rekindle-repo", &["rekindle-core", "rekindle-store"]),
        ("rekindle-sources", &["rekindle-core"]),
        ("rekindle-engine", &["rekindle-core"]),
        ("rekindle-serve", &["rekindle-core", "rekindle-engine"]),
        ("rekindle-testkit", &["rekindle-core"]),
        (
            "rekindle",
            &[
                "rekindle-core",
                "rekindle-config",
                "rekindle-store",
                "rekindle-repo",
                "rekindle-sources",
                "rekindle-engine",
                "rekindle-serve",
            ],
        ),
        ("xtask", &["rekindle-core"]),
    ])
}

/// Arrows that are not drawn.
pub fn check(root: &Path) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .output();
    let metadata: Value = match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).unwrap_or_default(),
        Ok(output) => {
            return vec![format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr))];
        }
        Err(error) => return vec![format!("cargo metadata: {error}")],
    };
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    if packages.is_empty() {
        return vec!["cargo metadata named no package".to_owned()];
    }
    packages.iter().flat_map(strange_arrows).collect()
}

fn strange_arrows(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(allowed) = allowed().get(name).copied() else {
        return vec![format!("`{name}` is not in the list of crates")];
    };
    let dependencies = package["dependencies"].as_array().cloned().unwrap_or_default();
    let ours = dependencies.iter().filter(|dependency| dependency["path"].is_string());
    ours.filter_map(|dependency| {
        let to = dependency["name"].as_str().unwrap_or_default();
        let for_tests = dependency["kind"] == "dev" && name != "rekindle-core";
        let drawn = allowed.contains(&to) || (for_tests && to == "rekindle-testkit");
        (!drawn).then(|| format!("{name} -> {to} is not drawn"))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_strange_arrow_is_found() {
        let dependency = |name, kind| json!({"name": name, "kind": kind, "path": "/x"});
        let package = json!({"name": "rekindle-core", "dependencies": [dependency("rekindle-store", Value::Null)]});
        assert_eq!(strange_arrows(&package), ["rekindle-core -> rekindle-store is not drawn"]);
        let package = json!({"name": "rekindle-store", "dependencies": [
            dependency("rekindle-core", Value::Null),
            dependency("rekindle-testkit", json!("dev")),
        ]});
        assert!(strange_arrows(&package).is_empty());
    }
}
