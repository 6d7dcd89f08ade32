//! `key`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rekindle_config::SecretRef;
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_repo::admin::{KeyInfo, KeyLabel, key_add, key_list, key_passwd, key_remove};
use rekindle_repo::{Repo, RepoOptions};
use serde_json::json;

use super::password_file::{alone, beside, replaced, sync_directory, unwritable, write_private};
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::Place;
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
    /// Make a new password, prove that it opens the repository, put it where the old one is read from, and remove the
    /// old one
    Rotate {
        /// Write the new password into this new file instead, and leave the configuration to you
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
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
    /// Whether it changes who can open the repository.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self.what, What::List)
    }

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
            What::Rotate { out } => rotate(session, &place, &repo, out.as_deref(), &label()),
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

/// The new password is in its place before the old one stops working: whatever ends this in the middle
/// leaves one that works.
fn rotate(
    session: &Session,
    place: &Place,
    repo: &Repo,
    out: Option<&Path>,
    label: &KeyLabel,
) -> Result<Answer, Faults> {
    let target = match out {
        Some(out) => out.to_owned(),
        None => replaced(&wire::password_file(session)?)?,
    };
    let _alone = if out.is_none() { Some(alone(&target, &place.password)?) } else { None };
    let old: Vec<String> =
        key_list(repo, Some(&place.password))?.into_iter().filter(|key| key.current).map(|key| key.id).collect();
    let new = Secret::new(rekindle_core::proof::hex(&rand::random::<[u8; 32]>()));
    let staged = if out.is_some() { target.clone() } else { beside(&target) };
    write_private(&staged, new.expose(), out.is_none().then_some(target.as_path()))?;
    let added = key_add(repo, &new, label).and_then(|id| prove(session, place, repo, &new).map(|()| id));
    let id = added.inspect_err(|_| {
        // It opens nothing that the old one does not.
        let _ = std::fs::remove_file(&staged);
    })?;
    if out.is_none() {
        std::fs::rename(&staged, &target).map_err(|error| unwritable(&target, error))?;
    }
    // The name has to be on the disk before the old password stops working.
    sync_directory(&target)?;
    for key in &old {
        key_remove(repo, key, &new)?;
    }
    let id = id.to_string();
    let text = format!(
        "key {} replaces {}: its password is in {}. The recovery kit is outdated: rekindle kit create\n",
        short(&id),
        old.iter().map(|key| short(key)).collect::<Vec<_>>().join(", "),
        target.display()
    );
    Ok(Answer::words(json!({"key": id, "removed": old, "password_file": target}), text))
}

/// Opens the repository with the new password as if for the first time.
fn prove(session: &Session, place: &Place, repo: &Repo, new: &Secret<String>) -> Result<()> {
    let fresh = Place {
        options: place.options.clone(),
        password: new.clone(),
        repo: RepoOptions { key_cache: None, ..place.repo.clone() },
    };
    let opened =
        wire::open(session, &fresh).map_err(|fault| fault.during("open the repository with the new password"))?;
    if opened.config().id == repo.config().id {
        return Ok(());
    }
    Err(Fault::new(codes::REPO_WRONG_KEY, "open the repository with the new password")
        .because("another repository was opened")
        .hint("nothing was removed; run it again"))
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
