//! Names of objects.

use std::fmt;

use rekindle_core::{Fault, Result, codes};

/// Longest key; S3 and Azure take 1,024 bytes, and the store's own prefix comes before it.
const KEY_LENGTH_MAX_BYTES: usize = 800;
/// Longest part between slashes (`NAME_MAX` of the usual file systems).
const SEGMENT_LENGTH_MAX_BYTES: usize = 255;
/// Files of the local adapter that are not finished; never a part of a key.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

/// The relative name of an object, `/`-separated.
///
/// A key cannot climb out of its store and means the same on every back end: each part is made of
/// ASCII letters, digits, `.`, `_`, `-` and `=`, is not `.` or `..`, and does not start with the
/// mark of unfinished local files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks `text`; `STORE_KEY` when it is not usable.
    pub fn new(text: &str) -> Result<Self> {
        match broken_rule(text) {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(Fault::new(
                codes::STORE_KEY,
                format!("use `{}` as the name of an object: {rule}", text.escape_debug()),
            )),
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This key, a slash, and `rest`.
    pub fn join(&self, rest: &str) -> Result<Self> {
        Self::new(&format!("{}/{rest}", self.0))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Checks the prefix of a listing: empty, or a key followed by one slash.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() {
        return Ok(());
    }
    match prefix.strip_suffix('/') {
        Some(directory) => Key::new(directory).map(drop),
        None => Err(Fault::new(codes::STORE_KEY, format!("list `{}`: a prefix ends with `/`", prefix.escape_debug()))),
    }
}

/// Whether one part between slashes may stand in a key.
pub(crate) fn segment_is_usable(segment: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'=');
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && segment.len() <= SEGMENT_LENGTH_MAX_BYTES
        && !segment.starts_with(TEMPORARY_PREFIX)
        && segment.bytes().all(good)
}

fn broken_rule(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.len() > KEY_LENGTH_MAX_BYTES {
        Some("it is longer than 800 bytes")
    } else if !text.split('/').all(segment_is_usable) {
        Some("each part must be made of A-Z a-z 0-9 . _ - =, and not be empty, `.` or `..`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_plain_relative_names_are_keys() {
        for good in ["config", "data/ab/abcdef", "rekindle/wal/1/00000001.history", "a=b", "..."] {
            assert_eq!(Key::new(good).map(|key| key.as_str().to_owned()).ok().as_deref(), Some(good));
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb", "a b", "ä", "a\\b", "%2e",
            "a?b", "a#b", ".tmp-1", "a/.tmp-x",
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_is_empty_or_a_directory() {
        for good in ["", "data/", "rekindle/probe/"] {
            assert!(check_prefix(good).is_ok(), "{good}");
        }
        for bad in ["data", "/", "../", "a//", "data/../"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_key_never_leaves_its_root(text in "[a./\\\\%\\x00 -]{0,12}|\\PC{0,20}") {
            if let Ok(key) = Key::new(&text) {
                let path = std::path::Path::new("/root").join(key.as_str());
                prop_assert!(path.starts_with("/root"));
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))));
                prop_assert_eq!(path.strip_prefix("/root").unwrap().to_str(), Some(key.as_str()));
            }
        }
    }
}
