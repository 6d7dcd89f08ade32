//! A signed hash chain of records of any kind, beside the snapshots.
//!
//! As the ledger: each record is sealed with the repository's key, signed with the ledger's key,
//! numbered without a gap and linked to the one before by its hash. A manifest keeps the head it
//! has seen, so a chain that was cut at its end is noticed as well.

use std::marker::PhantomData;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey};
use rekindle_core::manifest::LedgerHead;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::format::{BadFormat, Id};
use crate::ledger::{Ledger, bytes_of_hex};
use crate::read::parallel;
use crate::repo::Repo;

/// The version this program writes, and the newest one it reads.
const VERSION: u32 = 1;
/// Writers that may get in between before an append gives up.
const APPEND_TRIES_MAX: usize = 32;
/// Records read at the same time.
const READERS: usize = 8;
/// Digits of a record's name.
const DIGITS: usize = 12;

/// One record of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link<T> {
    pub version: u32,
    /// Name of the chain, so that a record cannot be moved into another one.
    pub chain: String,
    /// 1, 2, 3, … without a gap; also the object's name.
    pub sequence: u64,
    /// Hash of the record before it; `None` only in the first.
    pub previous: Option<String>,
    pub body: T,
}

/// A record with the hash of the exact text that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked<T> {
    pub link: Link<T>,
    pub hash: String,
}

impl<T> Linked<T> {
    /// The head of a chain that ends here.
    pub fn head(&self) -> LedgerHead {
        LedgerHead { sequence: self.link.sequence, hash: self.hash.clone() }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The record as text, so that the signed bytes survive any JSON library.
    record: String,
    /// Ed25519 over the record's text, hex.
    signature: String,
}

/// The chain `rekindle/<name>/` of a repository.
pub struct SignedLog<'a, T> {
    repo: &'a Repo,
    signer: SigningKey,
    name: &'static str,
    body: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for SignedLog<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedLog").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a, T: Serialize + DeserializeOwned + Clone + Send> SignedLog<'a, T> {
    /// Opens a chain, signed by the key of the ledger.
    pub(crate) fn new(repo: &'a Repo, ledger: &Ledger<'_>, name: &'static str) -> Self {
        Self { repo, signer: ledger.signer(), name, body: PhantomData }
    }

    /// Number and hash of the newest record; `None` when there is none yet.
    pub fn head(&self) -> Result<Option<LedgerHead>> {
        match self.numbers()?.last() {
            None => Ok(None),
            Some(last) => Ok(Some(self.read(*last)?.head())),
        }
    }

    /// Appends a record. Safe against other writers of the same chain.
    pub fn append(&self, body: &T) -> Result<LedgerHead> {
        for _ in 0..APPEND_TRIES_MAX {
            let head = self.head()?;
            if let Some(head) = self.put_next(head, body)? {
                return Ok(head);
            }
        }
        Err(Fault::new(codes::REPO_LOCKED, format!("write a record of `rekindle/{}`", self.name))
            .because("other writers were faster every time")
            .hint("run the command again"))
    }

    /// `None` when somebody else took the number.
    fn put_next(&self, head: Option<LedgerHead>, body: &T) -> Result<Option<LedgerHead>> {
        let link = Link {
            version: VERSION,
            chain: self.name.to_owned(),
            sequence: head.as_ref().map_or(1, |head| head.sequence + 1),
            previous: head.map(|head| head.hash),
            body: body.clone(),
        };
        let what = || format!("write record {} of `rekindle/{}`", link.sequence, self.name);
        let (head, sealed) = self.encode(&link).map_err(|bad| Fault::new(codes::RUN_BUG, what()).because(bad))?;
        let key = self.object(link.sequence)?;
        let store = self.repo.store();
        // Stores without a conditional put overwrite; looking first makes that rare, and reading
        // back below notices it.
        if store.head(&key)?.is_some() {
            return Ok(None);
        }
        let sealed = Bytes::from(sealed);
        match store.put(&key, sealed.clone(), PutMode::IfAbsent) {
            Ok(_) => {}
            Err(fault) if fault.is(codes::STORE_EXISTS) => return Ok(None),
            Err(fault) => return Err(fault.during(what())),
        }
        Ok((store.get(&key)? == sealed).then_some(head))
    }

    /// Every record that can be read, oldest first, and everything that is wrong. Only a failed
    /// LIST is an error of the call.
    pub fn audit(&self) -> Result<(Vec<Linked<T>>, Vec<String>)> {
        let numbers = self.numbers()?;
        let read = parallel::map(&numbers, READERS, |number| self.read(*number));
        let (mut found, mut problems) = (Vec::with_capacity(numbers.len()), Vec::new());
        let (mut expected, mut before): (u64, Option<String>) = (1, None);
        for (number, result) in numbers.into_iter().zip(read) {
            if number != expected {
                problems.push(format!("records {expected} to {} of `rekindle/{}` are missing", number - 1, self.name));
            }
            let follows = number == expected;
            match result {
                Ok(linked) => {
                    let previous = linked.link.previous.as_ref();
                    if follows && (before.is_some() || number == 1) && previous != before.as_ref() {
                        let name = self.name;
                        problems.push(format!("record {number} of `rekindle/{name}` does not follow the one before"));
                    }
                    before = Some(linked.hash.clone());
                    found.push(linked);
                }
                Err(fault) => {
                    before = None;
                    problems.push(fault.chain());
                }
            }
            expected = number + 1;
        }
        Ok((found, problems))
    }

    /// Every record, oldest first. A missing, changed or misplaced one is `REPO_LEDGER`.
    pub fn read_all(&self) -> Result<Vec<Linked<T>>> {
        let (found, problems) = self.audit()?;
        match problems.into_iter().next() {
            None => Ok(found),
            Some(problem) => Err(Fault::new(codes::REPO_LEDGER, format!("read `rekindle/{}`", self.name))
                .because(problem)
                .hint("run `rekindle verify` to see everything that is wrong")),
        }
    }

    fn folder(&self) -> String {
        format!("rekindle/{}/", self.name)
    }

    fn object(&self, sequence: u64) -> Result<ObjectKey> {
        ObjectKey::new(&format!("{}{sequence:0width$}", self.folder(), width = DIGITS))
    }

    /// The numbers of the records there are, ascending. Other names in the folder are left alone.
    fn numbers(&self) -> Result<Vec<u64>> {
        let folder = self.folder();
        let number = |path: &str| {
            let name = path.strip_prefix(&folder)?;
            let good = name.len() == DIGITS && name.bytes().all(|b| b.is_ascii_digit());
            name.parse::<u64>().ok().filter(|_| good)
        };
        let listed = self.repo.store().list(&folder)?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|meta| number(meta.key.as_str())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, sequence: u64) -> Result<Linked<T>> {
        let sealed = self.repo.store().get(&self.object(sequence)?)?;
        self.decode(&sealed, sequence).map_err(|bad| {
            Fault::new(codes::REPO_LEDGER, format!("read record {sequence} of `rekindle/{}`", self.name)).because(bad)
        })
    }

    fn encode(&self, link: &Link<T>) -> Result<(LedgerHead, Vec<u8>), BadFormat> {
        let record = serde_json::to_string(link)?;
        let signature = rekindle_core::proof::hex(&self.signer.sign(record.as_bytes()).to_bytes());
        let head = LedgerHead { sequence: link.sequence, hash: Id::of(record.as_bytes()).hex() };
        let sealed = self.repo.key().seal(&serde_json::to_vec(&Envelope { record, signature })?);
        Ok((head, sealed.map_err(|error| BadFormat::new(error.to_string()))?))
    }

    fn decode(&self, sealed: &[u8], sequence: u64) -> Result<Linked<T>, BadFormat> {
        let envelope: Envelope = serde_json::from_slice(&self.repo.key().open(sealed)?)?;
        let signature = bytes_of_hex::<64>(&envelope.signature)
            .ok_or_else(|| BadFormat::new("its signature is not 128 hex digits"))?;
        self.signer
            .verifying_key()
            .verify_strict(envelope.record.as_bytes(), &Signature::from_bytes(&signature))
            .map_err(|_| BadFormat::new("its signature is not by the key of this repository"))?;
        let link: Link<serde_json::Value> = serde_json::from_str(&envelope.record)?;
        if link.version > VERSION {
            let why = format!("its version {} is newer than this program knows ({VERSION})", link.version);
            return Err(BadFormat::new(why));
        }
        if (link.sequence, link.chain.as_str()) != (sequence, self.name) {
            return Err(BadFormat::new(format!(
                "it is number {} of `{}` and stands in the place of number {sequence} of `{}`",
                link.sequence,
                link.chain.escape_debug(),
                self.name
            )));
        }
        Ok(Linked { hash: Id::of(envelope.record.as_bytes()).hex(), link: serde_json::from_str(&envelope.record)? })
    }
}
