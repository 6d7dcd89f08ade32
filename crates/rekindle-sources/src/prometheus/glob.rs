//! File name patterns as Prometheus knows them: `*`, `?` and `[…]` within one name
//! (<https://pkg.go.dev/path/filepath#Match>).

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Files and directories that fit a pattern, sorted. A path without a pattern in it is given as it
/// is, whether it exists or not.
pub(super) fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let Component::Normal(name) = part else {
            for path in &mut found {
                path.push(part);
            }
            continue;
        };
        if !name.as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?' | b'[')) {
            for path in &mut found {
                path.push(name);
            }
            continue;
        }
        found = found.iter().flat_map(|directory| fitting(directory, name)).collect();
    }
    found.sort();
    found
}

fn fitting(directory: &Path, pattern: &OsStr) -> Vec<PathBuf> {
    let Ok(names) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = names.flatten().map(|entry| entry.file_name());
    let fits = |name: &OsStr| fits(pattern.as_encoded_bytes(), name.as_encoded_bytes());
    names.filter(|name| fits(name)).map(|name| directory.join(name)).collect()
}

/// Whether a name fits. A pattern that is not valid fits nothing.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return name.is_empty();
    };
    match first {
        b'*' => (0..=name.len()).any(|taken| fits(rest, &name[taken..])),
        b'?' => name.split_first().is_some_and(|(_, after)| fits(rest, after)),
        b'[' => {
            let (Some(end), Some((byte, after))) = (rest.iter().skip(1).position(|b| *b == b']'), name.split_first())
            else {
                return false;
            };
            let (class, rest) = (&rest[..=end], &rest[end + 2..]);
            in_class(class, *byte) && fits(rest, after)
        }
        b'\\' => match (rest.split_first(), name.split_first()) {
            (Some((want, rest)), Some((have, after))) => want == have && fits(rest, after),
            _ => false,
        },
        want => name.split_first().is_some_and(|(have, after)| have == want && fits(rest, after)),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negated, mut class) = match class.split_first() {
        Some((b'^', rest)) => (true, rest),
        _ => (false, class),
    };
    let mut inside = false;
    while let Some((low, rest)) = class.split_first() {
        class = rest;
        let mut high = *low;
        if let [b'-', last, rest @ ..] = class {
            high = *last;
            class = rest;
        }
        inside |= (*low..=high).contains(&byte);
    }
    inside != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_patterns() {
        for (pattern, name, expected) in [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.yaml", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]*", "bx", true),
            ("[^a-c]*", "bx", false),
            ("[a", "a", false),
            ("*", "", true),
            ("\\*", "*", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_looked_for_on_disk() {
        let place = tempfile::tempdir().unwrap();
        for name in ["a.yml", "b.yml", "c.txt"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let found = expand(&place.path().join("*.yml"));
        assert_eq!(found, [place.path().join("a.yml"), place.path().join("b.yml")]);
        assert_eq!(expand(Path::new("/not/there")), [PathBuf::from("/not/there")]);
        assert!(expand(Path::new("/not/th*re")).is_empty());
    }
}
