//! The configuration of a recovery: the one of this host, or the one in the point.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rekindle_config::{Config, parse, references, set};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::Repo;
use serde::{Deserialize, Serialize};

use crate::session::{Faults, Session};
use crate::wire::{self, attached};

/// A configuration with where it comes from. It is written into the journal; it holds references to
/// secrets and no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) text: String,
    /// Relative paths start from here.
    pub(super) file: PathBuf,
    /// For reading.
    pub(super) origin: String,
    /// The repository, when it was opened by URL.
    pub(super) from: Option<String>,
}

impl Source {
    /// The configuration file of this host.
    pub(super) fn local(session: &Session) -> Result<Self, Faults> {
        let file = wire::config(session)?.file;
        let file = std::path::absolute(&file).unwrap_or(file);
        let text = rekindle_config::read_text(&file)?;
        Ok(Self { text, origin: file.display().to_string(), file, from: None })
    }

    /// The newest configuration in these points (oldest first).
    pub(super) fn in_points(repo: &Repo, points: &[&RecoveryPoint], from: &str) -> Result<Self> {
        for point in points.iter().rev() {
            if let Some(stored) = attached::stored(repo, point)? {
                let origin = format!("point {}", point.id().short());
                let file = stored.surroundings.file;
                return Ok(Self { text: stored.text, file, origin, from: Some(from.to_owned()) });
            }
        }
        Err(Fault::new(codes::RECOVER_CONFIG, "find a configuration in the points")
            .because("an older rekindle wrote them")
            .hint("write a configuration and give it with --config FILE"))
    }

    /// Replaces a value: `KEY=VALUE`. Paths of references start from the current directory.
    pub(super) fn set(&mut self, assignment: &str) -> Result<()> {
        let wrong = |why: String, hint: String| Fault::new(codes::RECOVER_CONFIG, "use --set").because(why).hint(hint);
        let Some((key, value)) = assignment.split_once('=') else {
            let hint = "for example --set component.database.password=file:/root/pg-password";
            return Err(wrong("it is not KEY=VALUE".to_owned(), hint.to_owned()));
        };
        let secrets = references(&self.text);
        let value = absolute(value);
        let is_reference = ["file:", "env:", "command:", "credential:"].iter().any(|form| value.starts_with(form));
        if secrets.iter().any(|one| one.key == key) && !is_reference {
            // The value may be the secret itself: it is not repeated.
            let hint = format!("--set {key}=file:/path, with the secret in a file of mode 0600");
            return Err(wrong(format!("`{key}` is a secret and takes a reference"), hint));
        }
        self.text = set(&self.text, key, &value).ok_or_else(|| {
            let known: Vec<String> = secrets.into_iter().map(|one| one.key).collect();
            wrong(
                format!("the configuration has no text at `{}`", key.escape_debug()),
                format!("its secrets are: {}", known.join(", ")),
            )
        })?;
        Ok(())
    }

    /// Lets the configuration name the repository and the password that were given, as far as it can.
    pub(super) fn point_to(&mut self, session: &Session, url: &str) -> Result<()> {
        if let Some(text) = set(&self.text, "repository.url", url) {
            self.text = text;
        }
        if let Some(password) = wire::password_given(session)?
            && let Some(text) = set(&self.text, "repository.password", &password.to_config())
        {
            self.text = text;
        }
        Ok(())
    }

    /// Checks it.
    pub(super) fn config(&self) -> Result<Config, Faults> {
        Ok(parse(&self.file, &self.text)?)
    }

    /// Lines that differ from a configuration of this host, as `diff` shows them; `None`: none do.
    pub(super) fn differences(&self, other: &str) -> Option<String> {
        let (old, new): (Vec<&str>, Vec<&str>) = (other.lines().collect(), self.text.lines().collect());
        if old == new {
            return None;
        }
        let mut text = String::new();
        // Writing into a `String` cannot fail.
        for (mark, line) in changed_lines(&old, &new) {
            let _ = writeln!(text, "  {mark} {line}");
        }
        Some(text)
    }

    /// Puts it where it was, when nothing stands there. `Ok(false)`: something does.
    pub(super) fn put_back(&self) -> Result<bool> {
        let fail = |error: std::io::Error| {
            Fault::new(codes::RECOVER_CONFIG, format!("write the configuration to {}", self.file.display()))
                .because(error)
        };
        if let Some(directory) = self.file.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(fail)?;
        }
        let mut open = std::fs::OpenOptions::new();
        match open.write(true).create_new(true).mode(0o600).open(&self.file) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            opened => {
                let mut file = opened.map_err(fail)?;
                file.write_all(self.text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
                Ok(true)
            }
        }
    }
}

fn absolute(value: &str) -> String {
    match value.strip_prefix("file:") {
        Some(path) => {
            let path = std::path::absolute(Path::new(path)).unwrap_or_else(|_| PathBuf::from(path));
            format!("file:{}", path.display())
        }
        None => value.to_owned(),
    }
}

/// The longest common subsequence, line by line: a configuration is short.
fn changed_lines<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let mut longest = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i][j] =
                if old[i] == new[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut changed) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            changed.push(('-', old[i]));
            i += 1;
        } else {
            changed.push(('+', new[j]));
            j += 1;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { text: text.to_owned(), file: PathBuf::from("/x"), origin: String::new(), from: None }
    }

    #[test]
    fn only_lines_that_differ_are_shown() {
        let new = source("a\nb2\nc\nd\n");
        assert_eq!(new.differences("a\nb2\nc\nd\n"), None);
        assert_eq!(new.differences("a\nb\nc\n").unwrap(), "  - b\n  + b2\n  + d\n");
    }

    #[test]
    fn values_are_replaced_and_secrets_stay_references() {
        let text = "[repository]\nurl = '/r'\npassword = 'file:key'\n";
        let mut one = source(text);
        one.set("repository.password=file:/k").unwrap();
        one.set("repository.url=s3://b/p").unwrap();
        assert_eq!(one.text, "[repository]\nurl = \"s3://b/p\"\npassword = \"file:/k\"\n");
        for bad in ["repository.password=canary", "repository.nothing=x", "canary"] {
            let fault = source(text).set(bad).unwrap_err();
            assert!(fault.is(codes::RECOVER_CONFIG) && !format!("{fault:?}").contains("canary"), "{fault:?}");
        }
    }
}
