//! A capture pulled to its end into memory, and read back from there: the two ports between
//! which a repository stands, for components that give streams.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use rekindle_core::entry::{Closing, Content, ContentRead, Entries, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::Draft;
use rekindle_core::port::{
    Capture, Component, Materialize, Materialized, PartReader, RestoreRequest, RunContext, StoredEntry, Target,
};
use rekindle_core::proof::{Part, StoredPart};
use rekindle_core::witness::Witness;
use rekindle_core::{Fault, PointId, Result, RunId, codes};

/// What a repository would hold of a component.
#[derive(Clone)]
pub(crate) struct MemoryPart {
    pub(crate) record: ComponentRecord,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

/// Captures a component, pulling its entries to the end or to the first error.
pub(crate) async fn capture_in(component: &dyn Component, context: &RunContext) -> Result<MemoryPart> {
    let mut capture = component.begin(context).await?;
    let entries = capture.entries();
    match tokio::task::spawn_blocking(move || pull(entries, |_| ())).await.unwrap() {
        Ok((files, witness)) => joined(capture, files, &witness).await,
        Err(fault) => {
            capture.abort().await;
            Err(fault)
        }
    }
}

async fn joined(capture: Box<dyn Capture>, files: BTreeMap<String, Vec<u8>>, witness: &Witness) -> Result<MemoryPart> {
    let proof = capture.finish().await?;
    let account = witness.account();
    let now = jiff::Timestamp::now();
    let mut draft = Draft::new("s".to_owned(), "h".to_owned(), RunId::new(now, 1), now);
    let holds = StoredPart {
        component: proof.component().clone(),
        tree: String::new(),
        tally: account.tally,
        added_bytes: 0,
        stored_bytes: 0,
    };
    draft.add(Part::join(proof, holds).unwrap());
    let record = draft.manifest(now, rekindle_core::point::Chains::default()).components.remove(0);
    Ok(MemoryPart { record, files })
}

/// Reads everything, as a repository does: in order, each content to its end and closed.
/// `begun` is called with the name after the first bytes of each stream.
pub(crate) fn pull(entries: Entries, mut begun: impl FnMut(&str)) -> Result<(BTreeMap<String, Vec<u8>>, Witness)> {
    let witness = Witness::new();
    let mut files = BTreeMap::new();
    let mut last: Option<EntryPath> = None;
    for entry in witness.watch(entries) {
        let entry = entry?;
        assert!(last.as_ref() < Some(&entry.path), "{:?} is out of order", entry.path);
        last = Some(entry.path.clone());
        let name = entry.path.to_string();
        let Content::Stream(mut content) = entry.content else {
            assert_eq!(entry.meta.kind, EntryKind::Directory);
            continue;
        };
        let bytes = drain_while(&mut *content, || begun(&name))?;
        content.close()?;
        files.insert(name, bytes);
    }
    Ok((files, witness))
}

/// Reads to the end.
pub(crate) fn drain(content: &mut dyn ContentRead) -> Result<Vec<u8>> {
    drain_while(content, || ())
}

fn drain_while(content: &mut dyn ContentRead, mut begun: impl FnMut()) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 50_000];
    loop {
        let given = match content.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(given) => given,
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => panic!("an entry cannot be skipped"),
        };
        if bytes.is_empty() {
            begun();
        }
        bytes.extend_from_slice(&piece[..given]);
    }
}

struct Memory(Cursor<Vec<u8>>);

impl ContentRead for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        Ok(self.0.read(buffer).unwrap())
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(Meta::synthetic(EntryKind::File, jiff::Timestamp::now()))))
    }
}

impl PartReader for MemoryPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, _: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        Err(Fault::new(codes::RUN_BUG, "list: these components do not ask for it"))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        Ok(Box::new(Memory(Cursor::new(self.files[&path.to_string()].clone()))))
    }

    fn materialize(&self, _: &Materialize, _: &RunContext) -> Result<Materialized> {
        Err(Fault::new(codes::RUN_BUG, "materialize: these components do not ask for it"))
    }
}

pub(crate) fn request(target: Target) -> RestoreRequest {
    RestoreRequest {
        point: "0123456789abcdef".repeat(4).parse::<PointId>().unwrap(),
        target,
        select: Vec::new(),
        overwrite: false,
        jobs: 1,
        server: None,
        recovery: None,
    }
}
