//! Signed hash chains of records in the repository: what was committed and forgotten (the ledger),
//! and what was proved.
//!
//! A record is a small text, linked to the one before by its hash, signed with the key of the
//! repository (Ed25519), sealed with the repository's master key, and stored under its number. So an
//! edited, swapped or removed record is seen. What is cut off at the end is seen as soon as a point
//! knows a later head: every manifest holds the heads of its time.

mod link;
mod rules;
mod signer;

use std::marker::PhantomData;

use bytes::Bytes;
use rekindle_core::manifest::{LedgerHead, Manifest};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};

use crate::points::PointsView;
use crate::read::parallel;
use crate::repo::Repo;

pub use link::{Entry, Link};
pub(crate) use link::{chained, signed_by};
pub use rules::contradiction;
pub(crate) use signer::SIGNING_KEY;
pub use signer::Signer;

/// Writers that may get in between before an append gives up.
const APPEND_TRIES_MAX: usize = 32;
/// Records read at the same time.
pub(crate) const READERS: usize = 8;
/// Digits of a record's number in its name.
const DIGITS: usize = 12;

/// Every record that could be read, and everything that is wrong.
#[derive(Debug, Clone)]
pub struct Audit<R> {
    /// In the order of their numbers.
    pub entries: Vec<Entry<R>>,
    pub problems: Vec<String>,
}

/// One chain of a repository.
pub struct Chain<'a, R> {
    repo: &'a Repo,
    signer: Signer,
    records: PhantomData<fn() -> R>,
}

impl<R> std::fmt::Debug for Chain<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").finish_non_exhaustive()
    }
}

impl<'a, R: Link> Chain<'a, R> {
    /// Opens the chain; `None` when the repository has no signing key (it was made by another
    /// program).
    pub fn open(repo: &'a Repo) -> Result<Option<Self>> {
        Ok(Signer::open(repo)?.map(|signer| Self { repo, signer, records: PhantomData }))
    }

    /// Opens the chain, with a new signing key when there is none.
    pub fn open_or_create(repo: &'a Repo) -> Result<Self> {
        Ok(Self { repo, signer: Signer::open_or_create(repo)?, records: PhantomData })
    }

    /// Opens the chain, with a new signing key when there is none, whatever the points say.
    pub(crate) fn begin(repo: &'a Repo) -> Result<Self> {
        let signer = match Signer::open(repo)? {
            Some(signer) => signer,
            None => Signer::create(repo)?,
        };
        Ok(Self { repo, signer, records: PhantomData })
    }

    /// The public half of the signing key, hex.
    pub fn public_key(&self) -> String {
        self.signer.public_key()
    }

    /// Number and hash of the newest record; `None` when there is none yet.
    pub fn head(&self) -> Result<Option<LedgerHead>> {
        match self.numbers()?.last() {
            None => Ok(None),
            Some(last) => Ok(Some(self.read(*last)?.head())),
        }
    }

    /// Appends what `make` gives for a number and the hash before it. Safe against other writers of the
    /// same chain.
    pub fn append(&self, what: &str, make: impl Fn(u64, Option<String>) -> R) -> Result<Entry<R>> {
        for _ in 0..APPEND_TRIES_MAX {
            let head = self.head()?;
            let sequence = head.as_ref().map_or(1, |head| head.sequence + 1);
            let record = make(sequence, head.map(|head| head.hash));
            if let Some(entry) = self.put(&record, what)? {
                return Ok(entry);
            }
        }
        Err(Fault::new(codes::REPO_LOCKED, what.to_owned())
            .because("other writers were faster every time")
            .hint("run the command again"))
    }

    /// `None` when somebody else took the number.
    fn put(&self, record: &R, what: &str) -> Result<Option<Entry<R>>> {
        let (entry, sealed) = link::encode(record, &self.signer, self.repo.key())
            .map_err(|bad| Fault::new(codes::RUN_BUG, what.to_owned()).because(bad))?;
        let key = object::<R>(record.sequence())?;
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

    /// Every record. An unreadable, missing or misplaced one is an error with the chain's code.
    pub fn read_all(&self) -> Result<Vec<Entry<R>>> {
        let audit = self.audit()?;
        match audit.problems.first() {
            None => Ok(audit.entries),
            Some(problem) => Err(Fault::new(R::CODE, format!("read the {}", R::CHAIN))
                .because(problem.clone())
                .hint("run `rekindle verify` to see everything that is wrong")),
        }
    }

    /// Every record that can be read, and everything that is wrong. Only a failed LIST is an
    /// error of the call.
    pub fn audit(&self) -> Result<Audit<R>> {
        let numbers = self.numbers()?;
        let read = parallel::map(&numbers, READERS, |number| self.read(*number));
        let mut problems = Vec::new();
        let mut found = Vec::with_capacity(numbers.len());
        for (number, result) in numbers.into_iter().zip(read) {
            match result {
                Ok(entry) => found.push((number, Some(entry))),
                Err(fault) => {
                    problems.push(fault.chain());
                    found.push((number, None));
                }
            }
        }
        problems.extend(rules::problems(&found));
        let entries = found.into_iter().filter_map(|(_, entry)| entry).collect();
        Ok(Audit { entries, problems })
    }

    /// Number of records, and everything that is wrong with the chain: its records, and the heads that
    /// points have seen (`seen` takes one out of a manifest).
    pub(crate) fn problems(
        &self,
        view: &PointsView,
        seen: impl Fn(&Manifest) -> Option<&LedgerHead>,
    ) -> Result<(u64, Vec<String>)> {
        let audit = self.audit()?;
        let mut problems = audit.problems;
        let key = self.public_key();
        for point in &view.points {
            let manifest = point.manifest();
            // A point copied from elsewhere has seen the chain of that repository.
            if manifest.signing_key.as_ref() != Some(&key) {
                continue;
            }
            if let Some(why) = seen(manifest).and_then(|head| contradiction(&audit.entries, head)) {
                problems.push(format!("point {}: {why}", point.id().short()));
            }
        }
        Ok((audit.entries.len() as u64, problems))
    }

    /// The numbers of the records there are, ascending. Other names in the folder are left alone.
    pub(crate) fn numbers(&self) -> Result<Vec<u64>> {
        let listed = self.repo.store().list(R::FOLDER)?;
        let mut numbers: Vec<u64> = listed.iter().filter_map(|meta| number::<R>(meta.key.as_str())).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// One record, checked.
    pub(crate) fn read(&self, sequence: u64) -> Result<Entry<R>> {
        let sealed = self.repo.store().get(&object::<R>(sequence)?)?;
        link::decode(&sealed, sequence, &self.signer.verifying(), self.repo.key())
            .map_err(|bad| Fault::new(R::CODE, format!("read {} {sequence}", R::RECORD)).because(bad))
    }
}

fn object<R: Link>(sequence: u64) -> Result<ObjectKey> {
    ObjectKey::new(&format!("{}{sequence:0DIGITS$}", R::FOLDER))
}

fn number<R: Link>(path: &str) -> Option<u64> {
    let name = path.strip_prefix(R::FOLDER)?;
    (name.len() == DIGITS && name.bytes().all(|b| b.is_ascii_digit()))
        .then(|| name.parse().ok())
        .flatten()
        .filter(|number| *number > 0)
}
