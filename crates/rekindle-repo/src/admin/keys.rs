//! The key files of a repository: each opens the same master key with another password.

use std::collections::BTreeSet;

use bytes::Bytes;
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_store::PutMode;
use serde::Serialize;

use super::init::key_object;
use super::password::check_password;
use crate::format::crypto::Key;
use crate::format::key::{KeyFault, KeyFile};
use crate::format::{Id, names};
use crate::repo::Repo;

/// scrypt's cost as a power of two; with `r` = 8 one guess takes 128 MiB of memory.
const SCRYPT_LOG_N: u8 = 17;

/// What a key file says about where it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyLabel {
    pub host: String,
    pub user: String,
    pub created: jiff::Timestamp,
}

/// A key file as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Name of its object, 64 hex digits.
    pub id: String,
    pub host: String,
    pub user: String,
    /// As written, RFC 3339.
    pub created: String,
    /// Whether the password that was given opens this one.
    pub current: bool,
    /// Why it opens nothing any more, when it is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// A new key file: its name and its bytes.
pub(super) fn new_key_file(key: &Key, password: &Secret<String>, label: &KeyLabel) -> Result<(Id, Vec<u8>)> {
    let bug = |why: String| Fault::new(codes::RUN_BUG, "make a key file").because(why);
    let created = label.created.to_string();
    let mut file =
        KeyFile::create(key, password.expose(), SCRYPT_LOG_N, created).map_err(|_| bug("scrypt failed".to_owned()))?;
    file.hostname.clone_from(&label.host);
    file.username.clone_from(&label.user);
    let bytes = file.encode().map_err(|bad| bug(bad.to_string()))?;
    Ok((Id::of(&bytes), bytes))
}

/// Names of all key files.
pub fn key_ids(repo: &Repo) -> Result<BTreeSet<String>> {
    Ok(ids(repo)?.iter().map(Id::hex).collect())
}

/// Every key file. With a password, the one it opens is marked.
pub fn key_list(repo: &Repo, password: Option<&Secret<String>>) -> Result<Vec<KeyInfo>> {
    let mut keys = Vec::new();
    for id in ids(repo)? {
        keys.push(info(repo, &id, password)?);
    }
    keys.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok(keys)
}

/// Adds a password. Its key file is read back and opened before this is `Ok`.
pub fn key_add(repo: &Repo, password: &Secret<String>, label: &KeyLabel) -> Result<Id> {
    check_password(password)?;
    let (id, bytes) = new_key_file(repo.key(), password, label)?;
    let object = key_object(&id)?;
    repo.store().put(&object, Bytes::from(bytes), PutMode::IfAbsent)?;
    if opens(repo, &id, password)? {
        return Ok(id);
    }
    repo.store().delete(&object)?;
    Err(Fault::new(codes::REPO_DAMAGED, format!("read back the new key {id}"))
        .because("it does not open the repository")
        .hint("nothing was changed; check the storage with `rekindle doctor`"))
}

/// Removes a key file by the beginning of its id. Neither the one `in_use` opens nor the last
/// usable one is removed.
pub fn key_remove(repo: &Repo, id: &str, in_use: &Secret<String>) -> Result<Id> {
    let id = resolve(repo, id)?;
    let what = format!("remove key {}", short(&id));
    if opens(repo, &id, in_use)? {
        return Err(Fault::new(codes::REPO_KEY_IN_USE, what)
            .because("it is the key of the password in use")
            .hint("run `rekindle key passwd` to replace it, or use another password"));
    }
    let mut other = false;
    for candidate in ids(repo)? {
        other |= candidate != id && opens(repo, &candidate, in_use)?;
    }
    if !other {
        return Err(Fault::new(codes::REPO_KEY_IN_USE, what)
            .because("no other key is known to open the repository")
            .hint("add another password first with `rekindle key add`"));
    }
    repo.store().delete(&key_object(&id)?)?;
    Ok(id)
}

/// Replaces a password: the new key file is written and opened first, only then the old one goes.
/// A crash in between leaves both.
pub fn key_passwd(repo: &Repo, old: &Secret<String>, new: &Secret<String>, label: &KeyLabel) -> Result<Id> {
    check_password(new)?;
    let mut replaced = Vec::new();
    for id in ids(repo)? {
        if opens(repo, &id, old)? {
            replaced.push(id);
        }
    }
    if replaced.is_empty() {
        return Err(Fault::new(codes::REPO_WRONG_KEY, "change the repository password")
            .because("no key file takes the old password"));
    }
    let id = key_add(repo, new, label)?;
    for old in replaced {
        repo.store().delete(&key_object(&old)?)?;
    }
    Ok(id)
}

fn ids(repo: &Repo) -> Result<Vec<Id>> {
    Ok(repo.store().list("keys/")?.iter().filter_map(|meta| names::id_of(meta.key.as_str())).collect())
}

fn read(repo: &Repo, id: &Id) -> Result<Result<KeyFile, String>> {
    let bytes = repo.store().get(&key_object(id)?)?;
    if Id::of(&bytes) != *id {
        return Ok(Err("its SHA-256 is not its name".to_owned()));
    }
    Ok(KeyFile::decode(&bytes).map_err(|bad| bad.to_string()))
}

/// Whether this key file gives the master key of the opened repository for this password.
fn opens(repo: &Repo, id: &Id, password: &Secret<String>) -> Result<bool> {
    let Ok(file) = read(repo, id)? else {
        return Ok(false);
    };
    match file.open(password.expose()) {
        Ok(key) => Ok(same(&key, repo.key())),
        Err(KeyFault::WrongPassword | KeyFault::Bad(_)) => Ok(false),
    }
}

fn same(a: &Key, b: &Key) -> bool {
    a.expose_encrypt() == b.expose_encrypt()
        && a.expose_mac_k() == b.expose_mac_k()
        && a.expose_mac_r() == b.expose_mac_r()
}

fn info(repo: &Repo, id: &Id, password: Option<&Secret<String>>) -> Result<KeyInfo> {
    let current = match password {
        Some(password) => opens(repo, id, password)?,
        None => false,
    };
    let (host, user, created, damaged) = match read(repo, id)? {
        Ok(file) => (file.hostname, file.username, file.created, None),
        Err(why) => (String::new(), String::new(), String::new(), Some(why)),
    };
    Ok(KeyInfo { id: id.hex(), host, user, created, current, damaged })
}

fn resolve(repo: &Repo, prefix: &str) -> Result<Id> {
    let matching: Vec<Id> =
        ids(repo)?.into_iter().filter(|id| !prefix.is_empty() && id.hex().starts_with(prefix)).collect();
    let why = match matching.as_slice() {
        [id] => return Ok(*id),
        [] => "there is no such key",
        _ => "several keys begin like this",
    };
    Err(Fault::new(codes::REPO_NO_KEY, format!("find key `{}`", prefix.escape_debug()))
        .because(why)
        .hint("run `rekindle key list`"))
}

fn short(id: &Id) -> String {
    id.hex()[..8].to_owned()
}
