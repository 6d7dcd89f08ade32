//! Libraries that a server loads when it starts (`shared_preload_libraries`), in a sandbox.

use std::fs;
use std::path::Path;

use rekindle_core::{Fault, codes};

const SETTING: &str = "shared_preload_libraries";
/// Both are read by the server, the later one wins.
const FILES: [&str; 2] = ["postgresql.conf", "postgresql.auto.conf"];

/// The value that stands in a restored data directory; empty when none does (distributions keep the configuration
/// elsewhere).
pub(super) fn in_directory(data: &Path) -> String {
    let texts = FILES.iter().filter_map(|name| fs::read_to_string(data.join(name)).ok());
    texts.filter_map(|text| text.lines().rev().find_map(value)).next_back().unwrap_or_default()
}

/// The value, when a line of a configuration file sets it.
fn value(line: &str) -> Option<String> {
    let (name, rest) = line.trim_start().split_at_checked(SETTING.len())?;
    if !name.eq_ignore_ascii_case(SETTING) {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let text = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => rest.split(['#', ' ', '\t']).next(),
    };
    text.map(|text| text.trim().to_owned())
}

/// Settings that load them and let none of them work on its own: jobs of the original must not run in a copy.
pub(super) fn settings(libraries: &str) -> Vec<(&'static str, String)> {
    let mut settings = vec![(SETTING, libraries.to_owned())];
    if !libraries.is_empty() {
        settings.push(("max_worker_processes", "0".to_owned()));
    }
    settings
}

/// A server that does not start because a library is not here says nothing about the data.
pub(super) fn lacking(fault: Fault, libraries: &str) -> Fault {
    let said = fault.chain();
    let lacks = ["could not access file", "could not load library"].iter().any(|words| said.contains(words));
    if libraries.is_empty() || !fault.is(codes::DRILL_ENGINE) || !lacks {
        return fault;
    }
    Fault::new(codes::DRILL_NO_ENGINE, format!("load `{libraries}` when PostgreSQL starts"))
        .because(said)
        .hint("install the packages of these extensions for this major version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_later_file_counts() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(in_directory(data.path()), "");
        let main = "#shared_preload_libraries = 'x'\nshared_preload_libraries = 'a, b' # c\nshared_buffers = 1MB\n";
        fs::write(data.path().join(FILES[0]), main).unwrap();
        assert_eq!(in_directory(data.path()), "a, b");
        fs::write(data.path().join(FILES[1]), "Shared_Preload_Libraries pg_cron\n").unwrap();
        assert_eq!(in_directory(data.path()), "pg_cron");
        fs::write(data.path().join(FILES[1]), "shared_preload_libraries = ''\n").unwrap();
        assert_eq!(in_directory(data.path()), "");
    }
}
