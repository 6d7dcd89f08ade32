//! `key`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rekindle_config::SecretRef;
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_repo::admin::{KeyInfo, KeyLabel, key_add, key_list, key_passwd, key_remove};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Digits of an id that are shown.
const ID_DIGITS: usize = 8;

/// Manage the passwords of the repository
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a password; every password opens the whole repository
    Add(NewPassword),
    /// List the keys; `*` marks the one of the password in use
    List,
    /// Remove a key; not the one in use, and never the last
    Remove {
        /// Beginning of the key's id
        id: String,
    },
    /// Replace the password in use by a new one
    Passwd(NewPassword),
}

#[derive(Debug, Args)]
struct NewPassword {
    /// File with the new password
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "new_password_command",
        conflicts_with = "new_password_command"
    )]
    new_password_file: Option<PathBuf>,
    /// Program that prints the new password, with its arguments
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
}

impl NewPassword {
    fn resolve(&self) -> Result<Secret<String>> {
        match (&self.new_password_file, &self.new_password_command) {
            (Some(file), _) => SecretRef::file(Path::new(file)).resolve(),
            (None, Some(line)) => SecretRef::command(line)?.resolve(),
            // clap demands one of the two.
            (None, None) => Err(Fault::new(codes::CLI_USAGE, "read the new password: none is given")
                .hint("give --new-password-file FILE")),
        }
    }
}

impl Key {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let place = wire::place(session)?;
        let label = || KeyLabel { host: wire::host_name(), user: wire::user_name(), created: session.now() };
        let repo = wire::open(session, &place)?;
        match &self.what {
            What::List => {
                let keys = key_list(&repo, Some(&place.password))?;
                let text = table(&keys);
                Ok(Answer::data(json!({"keys": keys}), text))
            }
            What::Add(new) => {
                let id = key_add(&repo, &new.resolve()?, &label())?.to_string();
                Ok(done(&id, "is added: its password opens the whole repository"))
            }
            What::Remove { id } => {
                let id = key_remove(&repo, id, &place.password)?.to_string();
                Ok(done(&id, "is removed: its password opens the repository no more"))
            }
            What::Passwd(new) => {
                let id = key_passwd(&repo, &place.password, &new.resolve()?, &label())?.to_string();
                Ok(done(
                    &id,
                    "replaces the one in use. Change `repository.password` in the configuration, and keep a copy of the password off this host",
                ))
            }
        }
    }
}

fn done(id: &str, what: &str) -> Answer {
    Answer::words(json!({"key": id}), format!("key {} {what}.\n", short(id)))
}

fn short(id: &str) -> &str {
    id.get(..ID_DIGITS).unwrap_or(id)
}

fn table(keys: &[KeyInfo]) -> String {
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let created = key.created.parse().map_or_else(|_| key.created.clone(), human::time);
            let mark = if key.current { "*" } else { "" };
            vec![
                format!("{}{mark}", short(&key.id)),
                key.user.clone(),
                key.host.clone(),
                created,
                key.damaged.clone().map_or_else(|| "usable".to_owned(), |why| format!("damaged: {why}")),
            ]
        })
        .collect();
    human::table(&["KEY", "USER", "HOST", "CREATED", "STATE"], &rows)
}
