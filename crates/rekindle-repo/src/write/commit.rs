//! From stored components to a point: manifest, top directory, packs, index, and the snapshot as
//! the very last object.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use rekindle_core::entry::{EntryKind, Meta};
use rekindle_core::id::RESERVED_DIRECTORY;
use rekindle_core::manifest::{LedgerHead, Manifest};
use rekindle_core::point::{Chains, CommitReceipt, Draft, RecoveryPoint};
use rekindle_core::{Class, ComponentId, Fault, PointId, Result, codes};
use rekindle_store::{Key as ObjectKey, PutMode};

use super::Session;
use super::job::{ComponentRun, Effort};
use super::seal::Sealer;
use crate::audit;
use crate::chunker::{Chunking, Cutter};
use crate::format::node::{Node, NodeContent};
use crate::format::pack::BlobKind;
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeBuilder;
use crate::format::{BadFormat, Id, names, time, unpacked};
use crate::ledger::{Action, Event, Ledger};
use crate::marks;
use crate::points::POINT_TAG;
use crate::proofs;
use crate::repo::Repo;

/// Name of the manifest in its directory.
pub(crate) const MANIFEST_NAME: &str = "manifest.json";

fn bug(bad: BadFormat) -> Fault {
    Fault::new(codes::RUN_BUG, "encode the recovery point").because(bad)
}

impl Session {
    /// Everything but ending the threads.
    pub(super) fn write_point(&self, draft: Draft) -> Result<RecoveryPoint> {
        let shared = &self.shared;
        shared.check()?;
        self.context.monitor.phase("repository", "commit");
        let repo = &shared.repo;
        let ledger = Ledger::open(repo)?;
        let head = match &ledger {
            None => None,
            Some(ledger) => {
                // An earlier run may have died between its snapshot and its record.
                let adopted = ledger.adopt_recent(draft.host(), self.context.clock.now());
                if let Err(fault) = adopted {
                    self.context.monitor.problem("repository", &fault);
                }
                self.head_of_chain(ledger.head())?
            }
        };
        let finished = self.context.clock.now();
        let chains = Chains {
            ledger_head: head,
            proof_head: self.head_of_chain(proofs::head(repo))?,
            marks_head: self.head_of_chain(marks::head(repo))?,
            audit_head: self.head_of_chain(audit::head(repo))?,
            signing_key: ledger.as_ref().map(Ledger::public_key),
        };
        let manifest = draft.manifest(finished, chains);
        let top = self.store_top(&draft, &manifest)?;

        // No blob comes after this: packs and index become durable, each after the other.
        self.workers.stop();
        shared.packs.finish()?;
        shared.check()?;
        self.check_lock()?;

        let snapshot = self.snapshot(&draft, &manifest, top);
        let receipt = self.write_snapshot(&snapshot, finished)?;
        // The point stands. What fails from here on is told and does not undo it; a later run
        // enters it into the ledger.
        if let Some(ledger) = &ledger {
            let recorded = ledger.append(&Event {
                action: Action::Committed,
                point: receipt.point.clone(),
                tree: top.hex(),
                time: finished,
                host: draft.host().to_owned(),
                run: Some(manifest.run.as_str().to_owned()),
                original: None,
            });
            if let Err(fault) = recorded {
                self.context.monitor.problem("repository", &fault);
            }
        }
        Ok(draft.seal(manifest, receipt))
    }

    /// The head of a chain of proofs or marks. A damaged chain is for `verify` to judge and does not
    /// keep data from being saved; a storage that does not answer is an error.
    fn head_of_chain(&self, head: Result<Option<LedgerHead>>) -> Result<Option<LedgerHead>> {
        head.or_else(|fault| {
            if fault.class() != Class::Damaged {
                return Err(fault);
            }
            self.context.monitor.problem("repository", &fault);
            Ok(None)
        })
    }

    fn check_lock(&self) -> Result<()> {
        match &*self.lock.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(lock) => lock.check(),
            None => Err(Fault::new(codes::RUN_BUG, "commit: the session is over")),
        }
    }

    /// Stores the manifest and the directories above the components.
    fn store_top(&self, draft: &Draft, manifest: &Manifest) -> Result<Id> {
        let json = manifest.encode().map_err(|error| bug(BadFormat::from(error)))?;
        let own: ComponentId = "manifest".parse().map_err(|bad| Fault::new(codes::RUN_BUG, "commit").because(bad))?;
        let (run, _reports) = self.run_of(&own, None);
        let mut sealer = Sealer::new(&self.shared)?;
        let mut store = |run: &Arc<ComponentRun>, kind, content: &[u8]| {
            sealer.store(&self.shared, run, kind, Effort::Files, content)
        };
        let synthetic = |kind| Meta::synthetic(kind, manifest.finished);
        let mut files: Vec<(&str, &[u8])> = vec![(MANIFEST_NAME, &json)];
        files.extend(draft.attachments().iter().map(|one| (one.name, one.content.as_slice())));
        files.sort_by_key(|(name, _)| *name);
        let mut inner = TreeBuilder::default();
        for (name, content) in files {
            let cutter = Cutter::new(Chunking::Whole, &[], &[]);
            let mut blobs = Vec::new();
            let mut rest = content;
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cutter.cut(rest));
                blobs.push(store(&run, BlobKind::Data, chunk)?);
                rest = after;
            }
            let mut meta = synthetic(EntryKind::File);
            meta.size = content.len() as u64;
            inner.push(&Node { name: name.into(), meta, content: NodeContent::Blobs(blobs) }).map_err(bug)?;
        }
        let inner = store(&run, BlobKind::Tree, &inner.finish().1)?;

        let mut tops = vec![(RESERVED_DIRECTORY.to_owned(), inner)];
        for part in draft.parts() {
            let tree = part.stored().tree.parse().map_err(bug)?;
            tops.push((part.component().as_str().to_owned(), tree));
        }
        tops.sort();
        let mut top = TreeBuilder::default();
        for (name, tree) in tops {
            top.push(&Node {
                name: name.into_bytes(),
                meta: synthetic(EntryKind::Directory),
                content: NodeContent::Subtree(tree),
            })
            .map_err(bug)?;
        }
        store(&run, BlobKind::Tree, &top.finish().1)
    }

    fn snapshot(&self, draft: &Draft, manifest: &Manifest, tree: Id) -> Snapshot {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        summary.backup_start = time::format(manifest.started.into());
        summary.backup_end = time::format(manifest.finished.into());
        Snapshot {
            time: time::format(manifest.finished.into()),
            parent: None,
            tree,
            paths: draft.parts().iter().map(|part| format!("/{}", part.component())).collect(),
            hostname: draft.host().to_owned(),
            username: String::new(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            tags: Some(vec![
                POINT_TAG.to_owned(),
                format!("stack:{}", draft.stack()),
                format!("state:{}", manifest.state.as_str()),
                format!("run:{}", manifest.run),
            ]),
            original: None,
            program_version: manifest.tool.clone(),
            summary: Some(summary),
        }
    }

    fn write_snapshot(&self, snapshot: &Snapshot, at: jiff::Timestamp) -> Result<CommitReceipt> {
        let id = put_snapshot(&self.shared.repo, snapshot)?;
        let point: PointId = id.hex().parse().map_err(|bad| Fault::new(codes::RUN_BUG, "commit").because(bad))?;
        Ok(CommitReceipt { point, time: at })
    }
}

/// Writes a snapshot and reads it back; gives its name.
pub(crate) fn put_snapshot(repo: &Repo, snapshot: &Snapshot) -> Result<Id> {
    let (id, sealed) = snapshot
        .encode()
        .and_then(|json| unpacked::encode(repo.key(), &json, repo.config().compression()))
        .map_err(bug)?;
    let path = names::file(names::SNAPSHOTS, &id);
    let key = ObjectKey::new(&path)?;
    let sealed = Bytes::from(sealed);
    let put = repo.store().put(&key, sealed.clone(), PutMode::IfAbsent);
    let stored = repo.store().get(&key);
    match (put, stored) {
        // Also when the answer to the put was lost: what can be read back is there.
        (_, Ok(stored)) if stored == sealed => Ok(id),
        (Err(fault), _) => Err(fault
            .during(format!("write snapshot `{path}`"))
            .hint("look with `rekindle list` whether it is there, or run again")),
        (Ok(_), Err(fault)) => Err(fault.during(format!("read back snapshot `{path}`"))),
        (Ok(_), Ok(_)) => {
            let what = format!("read back snapshot `{path}`");
            Err(Fault::new(codes::REPO_DAMAGED, what).because("the storage gives other bytes than were written"))
        }
    }
}
