//! Tidy checks. Each gives the list of what breaks its rule; empty means tidy.

pub mod arrows;
pub mod codes;
pub mod sizes;

use std::path::{Path, PathBuf};

/// Every check, by name.
pub fn tidy(root: &Path) -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("sizes", sizes::check(root)),
        ("arrows", arrows::check(root)),
        ("error codes", codes::check(root)),
        ("words", words(root)),
    ]
}

/// The checkout's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Rust files of the project, sorted.
pub fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.join("crates"), root.join("xtask")];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Left-overs that must not be landed.
fn words(root: &Path) -> Vec<String> {
    // Spelled apart so that this file does not find itself.
    let banned = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("dbg", "!(")];
    let mut found = Vec::new();
    for path in sources(root) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{}: `{word}`", path.display(), number + 1));
            }
        }
    }
    found
}
