//! Making a new repository.

use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_store::blocking::BlockingStore;
use rekindle_store::{Key as ObjectKey, PutMode, Store};
use rustic_core::{ConfigOptions, Credentials, KeyOptions};
use tokio::runtime::Handle;

use super::backend::Operation;
use super::keys::{KeyLabel, new_key_file};
use super::password::check_password;
use super::{engine, run};
use crate::format::config::Config;
use crate::format::crypto::{Key, random};
use crate::format::{Id, names};
use crate::ledger::Ledger;
use crate::repo::{Repo, RepoOptions};

/// Makes a repository of format version 2 in an empty place and opens it. Blocking.
///
/// The order is key file, `config`, ledger key: a crash in between leaves a place that `init`
/// refuses with a hint, never one that looks like a repository and is none.
/// `REPO_EXISTS` when there is a `config`, a key or a pack already.
pub fn init(
    store: Arc<dyn Store>,
    handle: Handle,
    password: &Secret<String>,
    label: &KeyLabel,
    options: RepoOptions,
) -> Result<Repo> {
    make(store, handle, password, label, options, &write_config)
}

/// Makes the repository of a copy of `source`: a key of its own, and the chunker's polynomial of the
/// source, so that whoever goes on with restic in the copy finds the same chunks. As [`init`].
pub fn init_copy(
    source: &Repo,
    store: Arc<dyn Store>,
    handle: Handle,
    password: &Secret<String>,
    label: &KeyLabel,
    options: RepoOptions,
) -> Result<Repo> {
    make(store, handle, password, label, options, &|store, key| write_config_like(source, store, key))
}

type WriteConfig<'a> = &'a dyn Fn(&BlockingStore, &Key) -> Result<()>;

fn make(
    store: Arc<dyn Store>,
    handle: Handle,
    password: &Secret<String>,
    label: &KeyLabel,
    options: RepoOptions,
    write_config: WriteConfig<'_>,
) -> Result<Repo> {
    check_password(password)?;
    let blocking = BlockingStore::new(Arc::clone(&store), handle.clone());
    refuse_existing(&blocking)?;
    probe(&blocking)?;
    let key = Key::generate().map_err(|e| Fault::new(codes::RUN_BUG, "make the repository key").because(e))?;
    let (id, bytes) = new_key_file(&key, password, label)?;
    let key_object = ObjectKey::new(&names::file(names::KEYS, &id))?;
    blocking.put(&key_object, Bytes::from(bytes), PutMode::IfAbsent)?;
    if let Err(fault) = write_config(&blocking, &key) {
        // Without its `config` the key file opens nothing and would disturb whoever was faster.
        if let Err(second) = blocking.delete(&key_object) {
            tracing::warn!(key = %id, error = %second.chain(), "key file of a failed init not removed");
        }
        return Err(fault);
    }
    // Opened with the password, as every later run will: an init that cannot be read back fails
    // here and not at the first restore.
    let repo = Repo::open(store, handle, password, options)?;
    Ledger::open_or_create(&repo)?;
    Ok(repo)
}

fn refuse_existing(store: &BlockingStore) -> Result<()> {
    let what = || format!("make a repository in {}", store.describe());
    if store.head(&ObjectKey::new(names::CONFIG)?)?.is_some() {
        return Err(Fault::new(codes::REPO_EXISTS, what())
            .because("there is a `config` object")
            .hint("use the repository as it is, or choose another place"));
    }
    for folder in [names::KEYS, names::DATA, names::INDEX, names::SNAPSHOTS] {
        if !store.list(&format!("{folder}/"))?.is_empty() {
            return Err(Fault::new(codes::REPO_EXISTS, what())
                .because(format!("there is no `config`, but there are objects in `{folder}/`"))
                .hint(
                    "this may be a damaged repository: look at it, then choose another place or empty this one by hand",
                ));
        }
    }
    Ok(())
}

fn probe(store: &BlockingStore) -> Result<()> {
    let found = store.handle.block_on(rekindle_store::probe(store.store.as_ref()))?;
    if found.is_usable() {
        return Ok(());
    }
    Err(Fault::new(codes::REPO_UNFIT_STORE, format!("make a repository in {}", store.describe()))
        .because(format!(
            "read after write: {}, ranges: {}, listing: {}, deleting: {}",
            found.read_after_write, found.range, found.list_after_write, found.delete
        ))
        .hint("run `rekindle doctor` against this storage, and choose another one"))
}

fn write_config_like(source: &Repo, store: &BlockingStore, key: &Key) -> Result<()> {
    let bug = |why: String| Fault::new(codes::RUN_BUG, "make the `config` of a copy").because(why);
    let id = random::<32>().map_err(|error| bug(error.to_string()))?;
    let config = Config {
        version: source.config().version.max(2),
        id: rekindle_core::proof::hex(&id),
        chunker_polynomial: source.config().chunker_polynomial.clone(),
    };
    let plain = config.encode().map_err(|bad| bug(bad.to_string()))?;
    let sealed = key.seal(&plain).map_err(|error| bug(error.to_string()))?;
    match store.put(&ObjectKey::new(names::CONFIG)?, Bytes::from(sealed), PutMode::IfAbsent) {
        Ok(_) => Ok(()),
        Err(fault) if fault.is(codes::STORE_EXISTS) => Err(made_meanwhile(store)),
        Err(fault) => Err(fault.during("write the `config` of a copy")),
    }
}

fn made_meanwhile(store: &BlockingStore) -> Fault {
    Fault::new(codes::REPO_EXISTS, format!("make a repository in {}", store.describe()))
        .because("somebody else made one at the same moment")
        .hint("use that repository; its password is the other one's")
}

/// The engine draws the irreducible polynomial restic insists on and writes the object, through
/// our adapter with put-if-absent.
fn write_config(store: &BlockingStore, key: &Key) -> Result<()> {
    let what = "write the repository's `config`";
    let credentials = Credentials::Masterkey(engine::master_key(key)?);
    let made = run::run(what, || {
        engine::over(store, &Arc::new(Operation::default()))?
            .init(&credentials, &KeyOptions::default(), &ConfigOptions::default())
            .map_err(|error| run::fault(what, error))?;
        Ok(())
    });
    match made {
        Ok(_) => Ok(()),
        Err(fault) if fault.is(codes::STORE_EXISTS) => Err(made_meanwhile(store)),
        Err(fault) => Err(fault),
    }
}

/// Id of the object a key file is stored under.
pub(super) fn key_object(id: &Id) -> Result<ObjectKey> {
    ObjectKey::new(&names::file(names::KEYS, id))
}
