//! Excludes: patterns in the style of `.gitignore`, relative to each configured path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rekindle_core::{Fault, Result, codes};

/// The user's patterns, compiled. The last pattern that matches decides; `!` takes back in.
#[derive(Debug, Clone)]
pub(super) struct Excludes {
    patterns: Vec<String>,
    matcher: Gitignore,
}

impl Excludes {
    /// Compiles the patterns (syntax: gitignore(5)).
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            check(pattern).map_err(|why| bad(pattern, why))?;
            builder.add_line(None, pattern).map_err(|error| bad(pattern, error))?;
        }
        let matcher = builder.build().map_err(|error| bad(&patterns.join("`, `"), error))?;
        Ok(Self { patterns: patterns.to_vec(), matcher })
    }

    /// The patterns as given.
    pub(super) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether an entry is left out. `relative` is its path below the configured path; the
    /// directories above it are known to be not excluded.
    pub(super) fn hold(&self, relative: &[u8], is_directory: bool) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let path = Path::new(OsStr::from_bytes(relative));
        matches!(self.matcher.matched(path, is_directory), Match::Ignore(_))
    }
}

fn check(pattern: &str) -> Result<(), &'static str> {
    let bare = pattern.trim();
    if bare.is_empty() {
        Err("it is empty")
    } else if bare.starts_with('#') {
        Err("it is a comment; write `\\#` for a name that begins with `#`")
    } else if matches!(bare, "!" | "/" | "!/") {
        Err("it matches nothing")
    } else if pattern.contains('\n') {
        Err("it holds a line break; give each pattern as its own item")
    } else {
        Ok(())
    }
}

fn bad(pattern: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::FILES_PATTERN, format!("read the exclude pattern `{}`", pattern.escape_debug()))
        .because(why)
        .hint("correct it under `exclude`; the syntax is that of `.gitignore`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(patterns: &[&str]) -> Result<Excludes> {
        let owned: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Excludes::new(&owned)
    }

    #[test]
    fn patterns_mean_what_gitignore_says() {
        let table: &[(&[&str], &str, bool, bool)] = &[
            (&["node_modules"], "a/node_modules", true, true),
            (&["node_modules"], "node_modules", false, true),
            (&["node_modules/"], "node_modules", false, false),
            (&["node_modules/"], "x/node_modules", true, true),
            (&["*.log"], "a/b.log", false, true),
            (&["*.log"], "a/b.logs", false, false),
            (&["/tmp"], "tmp", true, true),
            (&["/tmp"], "a/tmp", true, false),
            (&["a/*.txt"], "a/x.txt", false, true),
            (&["a/*.txt"], "b/a/x.txt", false, false),
            (&["**/cache/*"], "x/y/cache/z", false, true),
            (&["a/**/z"], "a/z", false, true),
            (&["a/**/z"], "a/b/c/z", false, true),
            (&["*.log", "!keep.log"], "keep.log", false, false),
            (&["!keep.log", "*.log"], "keep.log", false, true),
            (&["\\#x"], "#x", false, true),
            (&["\\!x"], "!x", false, true),
            (&["[ab].c"], "b.c", false, true),
            (&["[!ab].c"], "b.c", false, false),
            (&["*"], ".hidden", false, true),
            (&["?"], "ab", false, false),
        ];
        for (patterns, path, is_directory, expected) in table {
            let held = excludes(patterns).unwrap().hold(path.as_bytes(), *is_directory);
            assert_eq!(held, *expected, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        assert!(excludes(&["*.log"]).unwrap().hold(b"\xff\xfe.log", false));
        assert!(!excludes(&["*.log"]).unwrap().hold(b"\xff\xfe.txt", false));
    }

    #[test]
    fn bad_patterns_are_named() {
        for pattern in ["", "  ", "#x", "!", "/", "a{b", "[z-a]", "a\nb"] {
            let fault = excludes(&["fine", pattern]).unwrap_err();
            assert!(fault.is(codes::FILES_PATTERN), "{pattern:?}");
            assert!(fault.chain().contains(&*pattern.escape_debug().to_string()));
        }
    }
}
