//! The ledger: a signed hash chain of what was committed and forgotten (invariant I12).
//!
//! A restic repository does not notice a snapshot file that is gone. Every commit therefore
//! leaves a record under `rekindle/ledger/`, sealed with the repository's key, linked to the one
//! before by its hash and signed with a key that is made with the repository; every later
//! manifest holds the number and hash of the newest record it knew. So a removed point, an edited,
//! swapped or removed record, and a chain that was cut at its end are all seen by `verify`.
//!
//! Limit: whoever holds the repository key can sign, and whoever can remove the newest point,
//! its record and every later point leaves no trace in the repository itself. The head is
//! therefore worth keeping elsewhere (metrics, notifications, copies).

mod adopt;
mod chain;
mod record;

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use rekindle_core::manifest::LedgerHead;
use rekindle_core::{Fault, PointId, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};
use serde::{Deserialize, Serialize};

use crate::format::crypto::random;
use crate::read::parallel;
use crate::repo::Repo;

pub use chain::{contradiction, live};
pub(crate) use record::bytes_of_hex;
pub use record::{Action, Entry, RECORD_VERSION, Record};

/// Folder of the records, with its slash.
const FOLDER: &str = "rekindle/ledger/";
/// The signing key, sealed.
const SIGNING_KEY: &str = "rekindle/signing-key";
/// Writers that may get in between before an append gives up.
const APPEND_TRIES_MAX: usize = 32;
/// Records read at the same time.
const READERS: usize = 8;

#[derive(Serialize, Deserialize)]
struct SigningKeyFile {
    version: u32,
    algorithm: String,
    /// Hex of the seed.
    secret: String,
}

/// Something to record.
#[derive(Debug, Clone)]
pub struct Event {
    pub action: Action,
    pub point: PointId,
    /// Id of the snapshot's tree, 64 hex digits.
    pub tree: String,
    pub time: jiff::Timestamp,
    pub host: String,
    pub run: Option<String>,
}

/// Every record that could be read, and everything that is wrong.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// In the order of their numbers.
    pub entries: Vec<Entry>,
    pub problems: Vec<String>,
}

/// The ledger of a repository.
pub struct Ledger<'a> {
    repo: &'a Repo,
    signer: SigningKey,
}

impl std::fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl<'a> Ledger<'a> {
    /// Opens the ledger; `None` when the repository has none (it was made by another program).
    pub fn open(repo: &'a Repo) -> Result<Option<Self>> {
        let key = ObjectKey::new(SIGNING_KEY)?;
        if repo.store().head(&key)?.is_none() {
            return Ok(None);
        }
        let sealed = repo.store().get(&key)?;
        let damaged = |why: String| Fault::new(codes::REPO_LEDGER, format!("read `{SIGNING_KEY}`")).because(why);
        let plain = repo.key().open(&sealed).map_err(|bad| damaged(bad.to_string()))?;
        let file: SigningKeyFile = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
        let secret = record::bytes_of_hex::<32>(&file.secret)
            .filter(|_| file.algorithm == "ed25519" && file.version == 1)
            .ok_or_else(|| damaged("it is of a kind this program does not know".to_owned()))?;
        Ok(Some(Self { repo, signer: SigningKey::from_bytes(&secret) }))
    }

    /// Opens the ledger, or begins one with a new signing key.
    pub fn open_or_create(repo: &'a Repo) -> Result<Self> {
        if let Some(ledger) = Self::open(repo)? {
            return Ok(ledger);
        }
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

    /// The public half of the signing key, hex, for manifests.
    pub fn public_key(&self) -> String {
        rekindle_core::proof::hex(self.verifying().as_bytes())
    }

    /// The key that signs, for further chains.
    pub(crate) fn signer(&self) -> SigningKey {
        self.signer.clone()
    }

    fn verifying(&self) -> VerifyingKey {
        self.signer.verifying_key()
    }

    /// Number and hash of the newest record; `None` when there is none yet.
    pub fn head(&self) -> Result<Option<LedgerHead>> {
        match self.numbers()?.last() {
            None => Ok(None),
            Some(last) => Ok(Some(self.read(*last)?.head())),
        }
    }

    /// Appends a record and gives the new head. Safe against other writers of the same ledger.
    pub fn append(&self, event: &Event) -> Result<LedgerHead> {
        let what = format!("record point {} in the ledger", event.point.short());
        for _ in 0..APPEND_TRIES_MAX {
            let head = self.head()?;
            if let Some(entry) = self.put_next(head, event, &what)? {
                return Ok(entry.head());
            }
        }
        Err(Fault::new(codes::REPO_LOCKED, what)
            .because("other writers were faster every time")
            .hint("run the command again"))
    }

    /// `None` when somebody else took the number.
    fn put_next(&self, head: Option<LedgerHead>, event: &Event, what: &str) -> Result<Option<Entry>> {
        let record = Record {
            version: RECORD_VERSION,
            sequence: head.as_ref().map_or(1, |h| h.sequence + 1),
            previous: head.map(|h| h.hash),
            time: event.time,
            action: event.action,
            point: event.point.clone(),
            tree: event.tree.clone(),
            host: event.host.clone(),
            run: event.run.clone(),
        };
        let (entry, sealed) = record::encode(&record, &self.signer, self.repo.key())
            .map_err(|bad| Fault::new(codes::RUN_BUG, what.to_owned()).because(bad))?;
        let key = object(record.sequence)?;
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
            Err(fault) => return Err(fault.during(what.to_owned())),
        }
        let stored = store.get(&key)?;
        Ok((stored == sealed).then_some(entry))
    }

    /// Every record. An unreadable, missing or misplaced one is `REPO_LEDGER`.
    pub fn read_all(&self) -> Result<Vec<Entry>> {
        let audit = self.audit()?;
        match audit.problems.first() {
            None => Ok(audit.entries),
            Some(problem) => Err(Fault::new(codes::REPO_LEDGER, "read the ledger")
                .because(problem.clone())
                .hint("run `rekindle verify` to see everything that is wrong")),
        }
    }

    /// Every record that can be read, and everything that is wrong. Only a failed LIST is an
    /// error of the call.
    pub fn audit(&self) -> Result<Audit> {
        let numbers = self.numbers()?;
        let read = parallel::map(&numbers, READERS, |number| self.read(*number));
        let mut audit = Audit::default();
        let mut found = Vec::with_capacity(numbers.len());
        for (number, result) in numbers.into_iter().zip(read) {
            match result {
                Ok(entry) => found.push((number, Some(entry))),
                Err(fault) => {
                    audit.problems.push(fault.chain());
                    found.push((number, None));
                }
            }
        }
        audit.problems.extend(chain::problems(&found));
        audit.entries = found.into_iter().filter_map(|(_, entry)| entry).collect();
        Ok(audit)
    }

    /// Adds points that are in the repository and not in the ledger: a run died between the two
    /// writes. Gives the ids that were added. Points once forgotten are not taken back.
    pub fn reconcile(&self, present: &[(PointId, String)], host: &str, time: jiff::Timestamp) -> Result<Vec<PointId>> {
        let entries = self.read_all()?;
        let mut adopted = Vec::new();
        for (point, tree) in present {
            if entries.iter().any(|e| e.record.point == *point) {
                continue;
            }
            self.append(&Event {
                action: Action::Adopted,
                point: point.clone(),
                tree: tree.clone(),
                time,
                host: host.to_owned(),
                run: None,
            })?;
            adopted.push(point.clone());
        }
        Ok(adopted)
    }

    /// The numbers of the records there are, ascending. Other names in the folder are left alone.
    fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> =
            self.repo.store().list(FOLDER)?.iter().filter_map(|meta| number(meta.key.as_str())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, sequence: u64) -> Result<Entry> {
        let key = object(sequence)?;
        let sealed = self.repo.store().get(&key)?;
        record::decode(&sealed, sequence, &self.verifying(), self.repo.key())
            .map_err(|bad| Fault::new(codes::REPO_LEDGER, format!("read ledger record {sequence}")).because(bad))
    }
}

fn object(sequence: u64) -> Result<ObjectKey> {
    ObjectKey::new(&format!("{FOLDER}{sequence:012}"))
}

fn number(path: &str) -> Option<u64> {
    let name = path.strip_prefix(FOLDER)?;
    (name.len() == 12 && name.bytes().all(|b| b.is_ascii_digit()))
        .then(|| name.parse().ok())
        .flatten()
        .filter(|number| *number > 0)
}
