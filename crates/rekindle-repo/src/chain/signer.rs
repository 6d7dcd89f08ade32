//! The key that signs the chains of a repository: made with the first of them, sealed in the store.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};
use serde::{Deserialize, Serialize};

use super::link::bytes_of_hex;
use crate::format::crypto::random;
use crate::repo::Repo;
use crate::{points, trust};

/// The signing key, sealed.
pub(crate) const SIGNING_KEY: &str = "rekindle/signing-key";

#[derive(Serialize, Deserialize)]
struct SigningKeyFile {
    version: u32,
    algorithm: String,
    /// Hex of the seed.
    secret: String,
}

/// Signs for one repository.
pub struct Signer(SigningKey);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// The key of a repository; `None` when it has none.
    pub(super) fn open(repo: &Repo) -> Result<Option<Self>> {
        let key = ObjectKey::new(SIGNING_KEY)?;
        if repo.store().head(&key)?.is_none() {
            return Ok(None);
        }
        let sealed = repo.store().get(&key)?;
        let damaged = |why: String| Fault::new(codes::REPO_LEDGER, format!("read `{SIGNING_KEY}`")).because(why);
        let plain = repo.key().open(&sealed).map_err(|bad| damaged(bad.to_string()))?;
        let file: SigningKeyFile = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
        let secret = bytes_of_hex::<32>(&file.secret)
            .filter(|_| file.algorithm == "ed25519" && file.version == 1)
            .ok_or_else(|| damaged("it is of a kind this program does not know".to_owned()))?;
        Ok(Some(Self(SigningKey::from_bytes(&secret))))
    }

    /// The key of a repository, made when there never was one.
    ///
    /// # Errors
    /// `REPO_LEDGER` when points were written with one: with a new key nobody would see that holds, proofs and
    /// everything else that was signed are gone.
    pub(super) fn open_or_create(repo: &Repo) -> Result<Self> {
        if let Some(signer) = Self::open(repo)? {
            return Ok(signer);
        }
        if trust::knows_a_key(&points::view(repo)?) {
            return Err(Fault::new(codes::REPO_LEDGER, format!("sign a record with `{SIGNING_KEY}`"))
                .because("it was removed: the points of this repository were written with one")
                .hint("find out who can delete in the storage; `rekindle audit anew` begins new records"));
        }
        Self::create(repo)
    }

    /// Makes the key of a repository that has none.
    pub(super) fn create(repo: &Repo) -> Result<Self> {
        let what = "make the signing key of the ledger";
        let bug = |why: String| Fault::new(codes::RUN_BUG, what).because(why);
        let seed = random::<32>().map_err(|e| bug(e.to_string()))?;
        let file =
            SigningKeyFile { version: 1, algorithm: "ed25519".to_owned(), secret: rekindle_core::proof::hex(&seed) };
        let plain = serde_json::to_vec(&file).map_err(|e| bug(e.to_string()))?;
        let sealed = repo.key().seal(&plain).map_err(|e| bug(e.to_string()))?;
        let key = ObjectKey::new(SIGNING_KEY)?;
        match repo.store().put(&key, Bytes::from(sealed), PutMode::IfAbsent) {
            Ok(_) => {}
            Err(fault) if fault.is(codes::STORE_EXISTS) => {}
            Err(fault) => return Err(fault.during(what)),
        }
        // Read back: the key that counts is the one in the store, also when two hosts began one
        // at the same moment.
        Self::open(repo)?.ok_or_else(|| Fault::new(codes::STORE_NOT_FOUND, format!("read back `{SIGNING_KEY}`")))
    }

    #[cfg(test)]
    pub(super) fn of_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The public half, hex, for manifests.
    pub fn public_key(&self) -> String {
        rekindle_core::proof::hex(self.verifying().as_bytes())
    }

    pub(super) fn verifying(&self) -> VerifyingKey {
        self.0.verifying_key()
    }

    pub(super) fn sign(&self, text: &[u8]) -> Signature {
        self.0.sign(text)
    }
}
