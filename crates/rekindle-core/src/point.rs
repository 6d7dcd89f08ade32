//! From joined parts to a recovery point. The only way to a new [`RecoveryPoint`] is
//! `Draft::seal`, which wants the receipt of the snapshot file that was written last.

use crate::fault::Fault;
use crate::id::{ComponentId, ComponentKind, PointId, RunId};
use crate::manifest::{Completeness, ComponentRecord, LedgerHead, MANIFEST_VERSION, Manifest, MissingRecord};
use crate::proof::Part;
use crate::tripwire::Suspicion;

/// Where the signed chains of a repository stand when a point is written, and their key.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    pub ledger_head: Option<LedgerHead>,
    pub proof_head: Option<LedgerHead>,
    pub marks_head: Option<LedgerHead>,
    pub audit_head: Option<LedgerHead>,
    /// Ed25519 public key, hex.
    pub signing_key: Option<String>,
}

/// A recovery point being put together.
#[derive(Debug)]
pub struct Draft {
    stack: String,
    host: String,
    run: RunId,
    started: jiff::Timestamp,
    parts: Vec<Part>,
    missing: Vec<MissingRecord>,
    suspicions: Vec<Suspicion>,
    attachments: Vec<Attachment>,
    tags: Vec<String>,
}

/// A small file that is stored beside the manifest, such as the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name in `/rekindle`.
    pub name: &'static str,
    pub content: Vec<u8>,
}

impl Draft {
    /// An empty draft of one run.
    pub fn new(stack: String, host: String, run: RunId, started: jiff::Timestamp) -> Self {
        Self {
            stack,
            host,
            run,
            started,
            parts: Vec::new(),
            missing: Vec::new(),
            suspicions: Vec::new(),
            attachments: Vec::new(),
            tags: Vec::new(),
        }
    }

    /// Takes a component of which source and repository say the same.
    pub fn add(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Records that a component is missing, and why.
    pub fn missing(&mut self, id: ComponentId, kind: ComponentKind, fault: &Fault) {
        self.missing.push(MissingRecord {
            id,
            kind,
            code: fault.code().id.to_owned(),
            error: fault.chain(),
            hint: fault.hint_text().map(str::to_owned),
        });
    }

    /// Records what the tripwire found odd.
    pub fn suspect(&mut self, suspicions: Vec<Suspicion>) {
        self.suspicions.extend(suspicions);
    }

    /// Gives it words, for retention.
    pub fn tag(&mut self, tags: &[String]) {
        self.tags.extend_from_slice(tags);
    }

    /// Adds a file that is stored beside the manifest.
    pub fn attach(&mut self, attachment: Attachment) {
        self.attachments.push(attachment);
    }

    /// Files to store beside the manifest.
    pub fn attachments(&self) -> &[Attachment] {
        &self.attachments
    }

    /// What the manifest will say about the parts so far.
    pub fn records(&self) -> Vec<ComponentRecord> {
        self.parts.iter().map(record).collect()
    }

    /// Whether there is anything to commit.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The parts so far.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The stack's name.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// When the run began.
    pub fn started(&self) -> jiff::Timestamp {
        self.started
    }

    /// The manifest to store with the parts.
    pub fn manifest(&self, finished: jiff::Timestamp, chains: Chains) -> Manifest {
        let partial = !self.missing.is_empty() || self.parts.iter().any(|part| part.notes().make_partial());
        let times = self.parts.iter().map(|part| part.gave.captured_at);
        let skew = match (times.clone().min(), times.max()) {
            (Some(first), Some(last)) => last.duration_since(first).as_millis(),
            _ => 0,
        };
        Manifest {
            version: MANIFEST_VERSION,
            tool: concat!("rekindle ", env!("CARGO_PKG_VERSION")).to_owned(),
            stack: self.stack.clone(),
            host: self.host.clone(),
            run: self.run.clone(),
            started: self.started,
            finished,
            state: if partial { Completeness::Partial } else { Completeness::Complete },
            components: self.records(),
            missing: self.missing.clone(),
            skew_ms: u64::try_from(skew).unwrap_or(0),
            ledger_head: chains.ledger_head,
            proof_head: chains.proof_head,
            signing_key: chains.signing_key,
            marks_head: chains.marks_head,
            audit_head: chains.audit_head,
            tags: self.tags.clone(),
            suspicions: self.suspicions.clone(),
        }
    }

    /// Turns the draft into a point. `receipt` is what the repository gives after the snapshot
    /// file was durably written and read back; `manifest` is the one stored with it.
    pub fn seal(self, manifest: Manifest, receipt: CommitReceipt) -> RecoveryPoint {
        RecoveryPoint { id: receipt.point, time: receipt.time, manifest, original: None }
    }
}

fn record(part: &Part) -> ComponentRecord {
    ComponentRecord {
        id: part.gave.component.clone(),
        kind: part.gave.kind,
        tree: part.holds.tree.clone(),
        captured_at: part.gave.captured_at,
        tally: part.holds.tally,
        streams: part.gave.streams.clone(),
        added_bytes: part.holds.added_bytes,
        stored_bytes: part.holds.stored_bytes,
        notes: part.gave.notes.clone(),
        details: part.gave.details.clone(),
    }
}

/// Proof that the snapshot file is in the repository. Only `rekindle-repo` makes one.
#[derive(Debug)]
pub struct CommitReceipt {
    pub point: PointId,
    /// The snapshot's time.
    pub time: jiff::Timestamp,
}

/// A recovery point: exactly one snapshot of the repository, with its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct RecoveryPoint {
    id: PointId,
    time: jiff::Timestamp,
    manifest: Manifest,
    original: Option<PointId>,
}

impl RecoveryPoint {
    /// A point as read back from the repository: its manifest was decoded and checked.
    pub fn stored(id: PointId, time: jiff::Timestamp, manifest: Manifest) -> Self {
        Self { id, time, manifest, original: None }
    }

    /// As a copy of a point of another repository.
    #[must_use]
    pub fn copy_of(self, original: Option<PointId>) -> Self {
        Self { original, ..self }
    }

    /// The point it is a copy of: every copy of a point names the first one.
    pub fn original(&self) -> Option<&PointId> {
        self.original.as_ref()
    }

    /// Its id.
    pub fn id(&self) -> &PointId {
        &self.id
    }

    /// When it was written.
    pub fn time(&self) -> jiff::Timestamp {
        self.time
    }

    /// What it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether everything that was asked for is in it.
    pub fn state(&self) -> Completeness {
        self.manifest.state
    }
}
