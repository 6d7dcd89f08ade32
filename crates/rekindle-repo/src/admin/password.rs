//! What is good enough to protect a repository.

use std::collections::BTreeSet;

use rekindle_core::{Fault, Result, Secret, codes};

/// Shortest password that is taken, in characters. scrypt makes each guess cost a good part of a
/// second; with this length even a lower-case phrase withstands guessing.
const LENGTH_MIN: usize = 12;
/// Different characters it must have, so that `aaaaaaaaaaaa` is not one.
const DIFFERENT_MIN: usize = 5;

/// Refuses an empty or weak password.
pub fn check_password(password: &Secret<String>) -> Result<()> {
    let text = password.expose();
    let different: BTreeSet<char> = text.chars().collect();
    let why = if text.is_empty() {
        "it is empty"
    } else if text.trim() != text {
        "it begins or ends with white space, which a file or a shell would lose"
    } else if text.chars().count() < LENGTH_MIN {
        "it has less than 12 characters"
    } else if different.len() < DIFFERENT_MIN {
        "it has less than 5 different characters"
    } else {
        return Ok(());
    };
    Err(Fault::new(codes::REPO_WEAK_PASSWORD, "take the repository password")
        .because(why)
        .hint("make one with `head -c 24 /dev/urandom | base64` and keep a copy away from this host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_refused_and_never_shown() {
        for bad in ["", "short", "aaaaaaaaaaaaaaaa", "abababababab", "long enough it is\n"] {
            let fault = check_password(&Secret::new(bad.to_owned())).unwrap_err();
            assert!(bad.is_empty() || !fault.chain().contains(bad), "{fault:?}");
        }
        assert!(check_password(&Secret::new("correct horse battery".to_owned())).is_ok());
    }
}
