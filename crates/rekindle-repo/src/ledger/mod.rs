//! The ledger: a signed hash chain of what was committed and forgotten (invariant I12).
//!
//! A restic repository does not notice a snapshot file that is gone. Every commit therefore
//! leaves a record under `rekindle/ledger/` (see [`crate::chain`]), and every later manifest holds the
//! number and hash of the newest record it knew. So a removed point, an edited, swapped or removed
//! record, and a chain that was cut at its end are all seen by `verify`.
//!
//! Limit: whoever holds the repository key can sign, and whoever can remove the newest point,
//! its record and every later point leaves no trace in the repository itself. The head is
//! therefore worth keeping elsewhere (metrics, notifications, copies).

mod adopt;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use rekindle_core::manifest::LedgerHead;
use rekindle_core::{PointId, Result};

use crate::chain::{self, Chain, READERS};
use crate::points::PointsView;
use crate::repo::Repo;

pub use crate::chain::contradiction;
pub use record::{Action, RECORD_VERSION, Record};

/// A record of the ledger, as it was signed.
pub type Entry = chain::Entry<Record>;
/// Every record that could be read, and everything that is wrong.
pub type Audit = chain::Audit<Record>;

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
    /// Of a copied point: the point it is a copy of.
    pub original: Option<PointId>,
}

/// A point that is in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub point: PointId,
    /// Id of the snapshot's tree, 64 hex digits.
    pub tree: String,
    /// Of a copied point: the point it is a copy of.
    pub original: Option<PointId>,
}

/// The ledger of a repository.
#[derive(Debug)]
pub struct Ledger<'a> {
    repo: &'a Repo,
    chain: Chain<'a, Record>,
}

impl<'a> Ledger<'a> {
    /// Opens the ledger; `None` when the repository has none (it was made by another program).
    pub fn open(repo: &'a Repo) -> Result<Option<Self>> {
        Ok(Chain::open(repo)?.map(|chain| Self { repo, chain }))
    }

    /// Opens the ledger, or begins one with a new signing key.
    pub fn open_or_create(repo: &'a Repo) -> Result<Self> {
        Ok(Self { repo, chain: Chain::open_or_create(repo)? })
    }

    /// The public half of the signing key, hex, for manifests.
    pub fn public_key(&self) -> String {
        self.chain.public_key()
    }

    /// Number of records, and everything that is wrong: with them, or with the heads that points have seen.
    pub(crate) fn problems(&self, view: &PointsView) -> Result<(u64, Vec<String>)> {
        self.chain.problems(view, |manifest| manifest.ledger_head.as_ref())
    }

    /// Number and hash of the newest record; `None` when there is none yet.
    pub fn head(&self) -> Result<Option<LedgerHead>> {
        self.chain.head()
    }

    /// Appends a record and gives the new head. Safe against other writers of the same ledger.
    pub fn append(&self, event: &Event) -> Result<LedgerHead> {
        let what = format!("record point {} in the ledger", event.point.short());
        let entry = self.chain.append(&what, |sequence, previous| Record {
            version: RECORD_VERSION,
            sequence,
            previous,
            time: event.time,
            action: event.action,
            point: event.point.clone(),
            tree: event.tree.clone(),
            host: event.host.clone(),
            run: event.run.clone(),
            original: event.original.clone(),
        })?;
        Ok(entry.head())
    }

    /// Every record. An unreadable, missing or misplaced one is `REPO_LEDGER`.
    pub fn read_all(&self) -> Result<Vec<Entry>> {
        self.chain.read_all()
    }

    /// Every record that can be read, and everything that is wrong. Only a failed LIST is an
    /// error of the call.
    pub fn audit(&self) -> Result<Audit> {
        self.chain.audit()
    }

    /// Adds points that are in the repository and not in the ledger: a run died between the two
    /// writes. Gives the ids that were added. Points once forgotten are not taken back.
    pub fn reconcile(&self, present: &[Present], host: &str, time: jiff::Timestamp) -> Result<Vec<PointId>> {
        let entries = self.read_all()?;
        let mut adopted = Vec::new();
        for one in present {
            if entries.iter().any(|e| e.record.point == one.point) {
                continue;
            }
            self.append(&Event {
                action: Action::Adopted,
                point: one.point.clone(),
                tree: one.tree.clone(),
                time,
                host: host.to_owned(),
                run: None,
                original: one.original.clone(),
            })?;
            adopted.push(one.point.clone());
        }
        Ok(adopted)
    }
}

/// The originals whose copies were removed on purpose: they are not copied again.
pub fn forgotten_originals(entries: &[Entry]) -> BTreeSet<PointId> {
    let mut copies: BTreeMap<&PointId, &PointId> = BTreeMap::new();
    let mut forgotten = BTreeSet::new();
    for Entry { record, .. } in entries {
        match (record.action, &record.original) {
            (Action::Committed | Action::Adopted, Some(original)) => {
                copies.insert(&record.point, original);
                forgotten.remove(original);
            }
            (Action::Forgotten, _) => forgotten.extend(copies.remove(&record.point).cloned()),
            (Action::Committed | Action::Adopted, None) => {}
        }
    }
    forgotten
}

/// The points that should be in the repository, with the ids of their trees.
pub fn live(entries: &[Entry]) -> BTreeMap<PointId, String> {
    let mut live = BTreeMap::new();
    for Entry { record, .. } in entries {
        match record.action {
            Action::Committed | Action::Adopted => {
                live.insert(record.point.clone(), record.tree.clone());
            }
            Action::Forgotten => {
                live.remove(&record.point);
            }
        }
    }
    live
}
