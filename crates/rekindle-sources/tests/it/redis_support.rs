//! A capture pulled to its end into memory, and read back from there: the two ports between
//! which a repository stands.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::{Closing, Content, ContentRead, Entries, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::Draft;
use rekindle_core::port::{
    Clock, Component, Finding, Level, Materialize, Materialized, PartReader, Quiet, RestoreRequest, RunContext,
    StoredEntry, Target,
};
use rekindle_core::proof::{Part, StoredPart};
use rekindle_core::witness::Witness;
use rekindle_core::{Cancel, Fault, PointId, Result, RunId, codes};
use rekindle_sources::redis::{RedisComponent, RedisDetails, RedisOptions};
use rekindle_testkit::{Redis, RedisOptions as ServerOptions, RedisProgram};

/// A clock that may go ahead.
pub(crate) struct Ahead(pub(crate) jiff::SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now() + self.0
    }
}

pub(crate) fn context_ahead(hours: i64) -> RunContext {
    RunContext {
        run: RunId::new(jiff::Timestamp::now(), 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(Ahead(jiff::SignedDuration::from_hours(hours))),
        scratch: std::env::temp_dir(),
    }
}

pub(crate) fn context() -> RunContext {
    context_ahead(0)
}

pub(crate) fn component(options: RedisOptions) -> RedisComponent {
    RedisComponent::new("cache".parse().unwrap(), options)
}

/// The component of a server of the test kit, over TCP.
pub(crate) fn component_of(server: &Redis) -> RedisComponent {
    component(options_of(server))
}

pub(crate) fn options_of(server: &Redis) -> RedisOptions {
    RedisOptions { ca_file: server.ca().map(Path::to_owned), ..RedisOptions::new(server.url()) }
}

/// A server that starts a synchronisation at once.
pub(crate) fn server(program: RedisProgram) -> Redis {
    Redis::start(server_options(program))
}

pub(crate) fn server_options(program: RedisProgram) -> ServerOptions {
    ServerOptions { program, lines: vec!["repl-diskless-sync-delay 0".to_owned()], ..ServerOptions::default() }
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

/// What a repository would hold of a component.
#[derive(Clone)]
pub(crate) struct MemoryPart {
    pub(crate) record: ComponentRecord,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl MemoryPart {
    pub(crate) fn details(&self) -> RedisDetails {
        serde_json::from_value(self.record.details.clone()).unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.files[name].clone()).unwrap()
    }

    pub(crate) fn dump(&self) -> &[u8] {
        &self.files["dump.rdb"]
    }

    /// The same part with other bytes in it, as a repository without checks would give.
    pub(crate) fn with_dump(&self, bytes: Vec<u8>) -> Self {
        let mut changed = self.clone();
        changed.files.insert("dump.rdb".to_owned(), bytes);
        changed
    }
}

/// Captures a component, pulling its entries to the end or to the first error.
pub(crate) fn capture(component: &RedisComponent) -> Result<MemoryPart> {
    block_on(async {
        let mut capture = component.begin(&context()).await?;
        let entries = capture.entries();
        let (files, witness) = tokio::task::spawn_blocking(move || pull(entries)).await.unwrap()?;
        let proof = capture.finish().await?;
        let account = witness.account();
        let holds = StoredPart {
            component: component.id().clone(),
            tree: String::new(),
            tally: account.tally,
            streams: account.streams,
            added_bytes: 0,
            stored_bytes: 0,
        };
        let now = jiff::Timestamp::now();
        let mut draft = Draft::new("s".to_owned(), "h".to_owned(), RunId::new(now, 1), now);
        draft.add(Part::join(proof, holds).unwrap());
        let record = draft.manifest(now, None, None).components.remove(0);
        Ok(MemoryPart { record, files })
    })
}

/// Reads everything, as a repository does: in order, each content to its end and closed.
pub(crate) fn pull(entries: Entries) -> Result<(BTreeMap<String, Vec<u8>>, Witness)> {
    let witness = Witness::new();
    let mut files = BTreeMap::new();
    let mut last: Option<EntryPath> = None;
    for entry in witness.watch(entries) {
        let entry = entry?;
        assert!(last.as_ref() < Some(&entry.path), "{:?} is out of order", entry.path);
        last = Some(entry.path.clone());
        let Content::Stream(mut content) = entry.content else { panic!("{:?} is no stream", entry.path) };
        let bytes = drain(&mut *content)?;
        content.close()?;
        files.insert(entry.path.to_string(), bytes);
    }
    Ok((files, witness))
}

pub(crate) fn drain(content: &mut dyn ContentRead) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 50_000];
    loop {
        match content.read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(given) => bytes.extend_from_slice(&piece[..given]),
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => panic!("a Redis entry cannot be skipped"),
        }
    }
}

struct Memory(Cursor<Vec<u8>>);

impl ContentRead for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        Ok(self.0.read(buffer).unwrap())
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        let meta = Meta::synthetic(EntryKind::File, jiff::Timestamp::now());
        Ok(Closing::Keep(Box::new(meta)))
    }
}

impl PartReader for MemoryPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, _: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        Err(Fault::new(codes::RUN_BUG, "list: Redis does not ask for it"))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        Ok(Box::new(Memory(Cursor::new(self.files[&path.to_string()].clone()))))
    }

    fn materialize(&self, _: &Materialize, _: &RunContext) -> Result<Materialized> {
        Err(Fault::new(codes::RUN_BUG, "materialize: Redis does not ask for it"))
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
    }
}

pub(crate) fn new_directory(path: &Path) -> RestoreRequest {
    request(Target::New(Some(path.to_str().unwrap().to_owned())))
}

/// Restores and checks; every finding has to be good.
pub(crate) fn restore(
    component: &RedisComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
) -> Result<rekindle_core::port::RestoreReport> {
    let (report, findings) = restore_and_check(component, part, request, &context())?;
    for finding in findings {
        assert_eq!(finding.level, Level::Good, "{finding:?}");
    }
    assert_eq!(report.lost, []);
    Ok(report)
}

pub(crate) fn restore_and_check(
    component: &RedisComponent,
    part: &MemoryPart,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<(rekindle_core::port::RestoreReport, Vec<Finding>)> {
    let part: Arc<dyn PartReader> = Arc::new(part.clone());
    block_on(async {
        let report = component.restore(Arc::clone(&part), request, context).await?;
        let findings = component.check(part, &report, context).await?;
        Ok((report, findings))
    })
}

/// An empty private directory that goes away.
pub(crate) fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("restored");
    (directory, path)
}
