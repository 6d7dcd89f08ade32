//! Every error code has its page, and every page its code.

use std::collections::BTreeSet;
use std::path::Path;

const HEADINGS: [&str; 3] = ["## Meaning", "## Causes", "## What to do"];

/// Codes without a page, pages without a code, pages that do not say what they must.
pub fn check(root: &Path) -> Vec<String> {
    let directory = root.join("docs/errors");
    let mut found = Vec::new();
    let mut expected = BTreeSet::new();
    for code in rekindle_core::codes::all() {
        let name = format!("{}.md", code.id);
        let text = std::fs::read_to_string(directory.join(&name)).unwrap_or_default();
        if text.is_empty() {
            found.push(format!("docs/errors/{name} is missing"));
        } else if !text.starts_with(&format!("# {}: {}\n", code.id, code.title)) {
            found.push(format!("docs/errors/{name} must start with `# {}: {}`", code.id, code.title));
        } else if let Some(heading) = HEADINGS.iter().find(|heading| !text.contains(**heading)) {
            found.push(format!("docs/errors/{name} lacks `{heading}`"));
        }
        expected.insert(name);
    }
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !expected.contains(&name) && name != "README.md" {
            found.push(format!("docs/errors/{name} describes no code"));
        }
    }
    found
}
