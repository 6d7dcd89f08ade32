//! Our repository, opened as `rustic_core` wants it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::blocking::BlockingStore;
use rustic_core::repofile::MasterKey;
use rustic_core::{Credentials, OpenStatus, Repository, RepositoryBackends, RepositoryOptions, WriteBackend};

use super::backend::{Adapter, Operation};
use super::run::fault;
use crate::format::crypto::Key;
use crate::repo::Repo;

/// An unopened engine over a store; no cache, no hot part.
pub(super) fn over(store: &BlockingStore, operation: &Arc<Operation>) -> Result<Repository<()>> {
    let adapter: Arc<dyn WriteBackend> = Arc::new(Adapter::new(store.clone(), Arc::clone(operation)));
    let mut options = RepositoryOptions::default();
    options.no_cache = true;
    Repository::new(&options, &RepositoryBackends::new(adapter, None))
        .map_err(|error| fault("start the repository engine", error))
}

/// The engine opened with the master key: no password is handed over.
pub(super) fn open(repo: &Repo, operation: &Arc<Operation>) -> Result<Repository<OpenStatus>> {
    over(repo.store(), operation)?
        .open(&Credentials::Masterkey(master_key(repo.key())?))
        .map_err(|error| fault("open the repository in the engine", error))
}

/// Our key in its form. It is made from JSON, which is what key files hold.
pub(super) fn master_key(key: &Key) -> Result<MasterKey> {
    serde_json::from_value(serde_json::json!({
        "mac": {
            "k": STANDARD.encode(key.expose_mac_k()),
            "r": STANDARD.encode(key.expose_mac_r()),
        },
        "encrypt": STANDARD.encode(key.expose_encrypt()),
    }))
    .map_err(|_| {
        Fault::new(codes::RUN_BUG, "hand the key to the repository engine").because("it does not take the key")
    })
}
