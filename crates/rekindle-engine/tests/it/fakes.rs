//! Ports that record what is done with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekindle_core::cancel::Cancel;
use rekindle_core::entry::{Closing, Content, ContentRead, Entries, Entry, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::point::{CommitReceipt, Draft, RecoveryPoint};
use rekindle_core::port::{
    Capture, Clock, Component, Finding, Hook, HookOutcome, HookRunner, LostEntry, Materialize, Materialized,
    PartReader, Quiet, Repository, RestoreReport, RestoreRequest, Reuse, RunContext, Services, StoredEntry,
    WriteSession,
};
use rekindle_core::proof::{CaptureProof, StoredPart};
use rekindle_core::tally::{Counted, Tally};
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, Result, RunId, codes};

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn position(&self, line: &str) -> usize {
        let lines = self.lines();
        lines.iter().position(|seen| seen == line).unwrap_or_else(|| panic!("`{line}` not in {lines:?}"))
    }
}

/// Services of which some starts fail: one `true` per start.
pub(crate) struct FakeServices {
    pub(crate) log: Log,
    pub(crate) stops_fail: bool,
    pub(crate) starts: Mutex<Vec<bool>>,
}

#[async_trait]
impl Services for FakeServices {
    async fn stop(&self, _: &RunContext) -> Result<Vec<String>> {
        self.log.add("stop services");
        if self.stops_fail {
            Err(Fault::new(codes::CT_SERVICE, "stop the service `app`"))
        } else {
            Ok(vec!["app".into()])
        }
    }

    async fn start(&self, context: &RunContext) -> Result<Vec<String>> {
        context.cancel.check()?;
        self.log.add("start services");
        let fails = self.starts.lock().unwrap().pop().unwrap_or(false);
        if fails {
            Err(Fault::new(codes::CT_UNHEALTHY, "wait until the service `app` is healthy"))
        } else {
            Ok(vec!["app".into()])
        }
    }
}

/// Where a fake component fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fail {
    Never,
    Begin,
    Stream,
    Close,
    Finish,
    /// Its restore gives something wrong, and its check sees it.
    Wrong,
    Panic,
    /// It notes a file that it could not read.
    Unreadable,
}

pub(crate) struct FakeComponent {
    pub(crate) id: ComponentId,
    pub(crate) kind: ComponentKind,
    pub(crate) fail: Fail,
    pub(crate) log: Log,
}

impl FakeComponent {
    fn lost(&self) -> Vec<LostEntry> {
        let entry = LostEntry { path: "a.dump".to_owned(), why: "damaged".to_owned() };
        if self.fail == Fail::Stream { vec![entry] } else { Vec::new() }
    }
}

pub(crate) fn fault(what: &str) -> Fault {
    Fault::new(codes::PG_DUMP, what)
}

struct Bytes(Vec<u8>, Fail);

impl ContentRead for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        if self.1 == Fail::Stream {
            return Err(fault("read the stream").into());
        }
        let given = self.0.len().min(buffer.len());
        buffer[..given].copy_from_slice(&self.0[..given]);
        self.0.drain(..given);
        Ok(given)
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        if self.1 == Fail::Close {
            return Err(fault("the producer failed at its end"));
        }
        Ok(Closing::Keep(Box::new(Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH))))
    }
}

struct FakeCapture {
    id: ComponentId,
    kind: ComponentKind,
    fail: Fail,
    log: Log,
    witness: Witness,
    context: RunContext,
}

#[async_trait]
impl Capture for FakeCapture {
    fn entries(&mut self) -> Entries {
        assert_ne!(self.fail, Fail::Panic, "asked to panic");
        let entry = |name: &str| {
            let meta = Meta::synthetic(EntryKind::File, jiff::Timestamp::UNIX_EPOCH);
            let content = Content::Stream(Box::new(Bytes(name.as_bytes().to_vec(), self.fail)));
            Ok(Entry { path: EntryPath::new(name).unwrap(), meta, content })
        };
        self.witness.watch(Box::new(vec![entry("a.dump"), entry("b.dump")].into_iter()))
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        self.log.add(format!("finish {}", self.id));
        if self.fail == Fail::Finish {
            return Err(fault("the server restarted"));
        }
        let mut notes = Notes::default();
        if self.fail == Fail::Unreadable {
            notes.add(NoteClass::Unreadable, "secret.txt", "permission denied");
        }
        let now = jiff::Timestamp::UNIX_EPOCH;
        CaptureProof::new(self.id, self.kind, &self.witness, notes, now, serde_json::Value::Null)
            .map_err(|error| fault("prove").because(error))
    }

    async fn abort(self: Box<Self>) {
        self.log.add(format!("abort {}", self.id));
        self.context.monitor.problem(self.id.as_str(), &fault("leave nothing behind"));
    }
}

#[async_trait]
impl Component for FakeComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        self.kind
    }

    async fn probe(&self, _: &RunContext) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        // Lets whoever should come later overtake, if the order is not kept.
        if self.kind == ComponentKind::Postgres {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.log.add(format!("begin {}", self.id));
        if self.fail == Fail::Begin {
            return Err(fault("connect"));
        }
        Ok(Box::new(FakeCapture {
            id: self.id.clone(),
            kind: self.kind,
            fail: self.fail,
            log: self.log.clone(),
            witness: Witness::new(),
            context: context.clone(),
        }))
    }

    async fn restore(&self, _: Arc<dyn PartReader>, request: &RestoreRequest, _: &RunContext) -> Result<RestoreReport> {
        self.log.add(format!("restore {} {:?}", self.id, request.target));
        match self.fail {
            Fail::Begin => Err(fault("restore")),
            _ => Ok(RestoreReport { place: "somewhere".to_owned(), lost: self.lost(), ..RestoreReport::default() }),
        }
    }

    async fn check(&self, _: Arc<dyn PartReader>, _: &RestoreReport, _: &RunContext) -> Result<Vec<Finding>> {
        self.log.add(format!("check {}", self.id));
        Ok(match self.fail {
            Fail::Wrong => vec![Finding::bad("3 rows instead of 4", "restore again")],
            _ => vec![Finding::good("all there")],
        })
    }

    async fn roll_back(&self, _: &RestoreReport, _: &RunContext) -> Result<()> {
        self.log.add(format!("roll back {}", self.id));
        if self.fail == Fail::Unreadable { Err(fault("a rename is refused")) } else { Ok(()) }
    }
}

/// A repository in memory that keeps committed points.
#[derive(Clone, Default)]
pub(crate) struct FakeRepository {
    pub(crate) log: Log,
    pub(crate) points: Arc<Mutex<Vec<RecoveryPoint>>>,
    pub(crate) lies_about: Option<String>,
    pub(crate) unfit_to_share: bool,
    pub(crate) reused: Arc<Mutex<BTreeMap<ComponentId, Reuse>>>,
}

impl Repository for FakeRepository {
    fn begin(&self, _: &RunContext) -> Result<Arc<dyn WriteSession>> {
        self.log.add("open session");
        Ok(Arc::new(self.clone()))
    }

    fn points(&self) -> Result<Vec<RecoveryPoint>> {
        Ok(self.points.lock().unwrap().clone())
    }

    fn open(&self, point: &PointId, component: &ComponentId) -> Result<Arc<dyn PartReader>> {
        let points = self.points.lock().unwrap();
        let record =
            points.iter().find(|stored| stored.id() == point).and_then(|stored| stored.manifest().component(component));
        if let Some(record) = record {
            return Ok(Arc::new(FakePart(record.clone())));
        }
        Err(Fault::new(codes::REPO_NO_ENTRY, format!("open {component}")))
    }

    fn may_be_shared(&self) -> Result<bool> {
        Ok(!self.unfit_to_share)
    }
}

impl WriteSession for FakeRepository {
    fn store(&self, component: &ComponentId, entries: Entries, reuse: Reuse) -> Result<StoredPart> {
        self.reused.lock().unwrap().insert(component.clone(), reuse);
        let mut tally = Tally::default();
        for entry in entries {
            let entry = entry?;
            let Content::Stream(mut read) = entry.content else { panic!("only streams here") };
            let mut bytes = Vec::new();
            let mut buffer = [0; 3];
            loop {
                match read.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(given) => bytes.extend_from_slice(&buffer[..given]),
                    Err(ReadFault::Abort(fault)) => return Err(fault),
                    Err(ReadFault::Skip) => panic!("not here"),
                }
            }
            read.close()?;
            let hash = xxhash_rust::xxh3::xxh3_128(&bytes);
            tally.add(&entry.path, &EntryKind::File, Counted::Read { bytes: bytes.len() as u64, hash });
        }
        if self.lies_about.as_deref() == Some(component.as_str()) {
            tally.entries -= 1;
        }
        let component = component.clone();
        Ok(StoredPart { component, tree: "0".repeat(64), tally, added_bytes: 1, stored_bytes: 1 })
    }

    fn commit(&self, draft: Draft) -> Result<RecoveryPoint> {
        self.log.add("commit");
        let manifest = draft.manifest(jiff::Timestamp::UNIX_EPOCH, rekindle_core::point::Chains::default());
        let id = format!("{:064x}", self.points.lock().unwrap().len() + 1).parse().unwrap();
        let point = draft.seal(manifest, CommitReceipt { point: id, time: jiff::Timestamp::UNIX_EPOCH });
        self.points.lock().unwrap().push(point.clone());
        Ok(point)
    }

    fn abandon(&self) {
        self.log.add("abandon");
    }
}

struct FakePart(ComponentRecord);

impl PartReader for FakePart {
    fn record(&self) -> &ComponentRecord {
        &self.0
    }

    fn list(&self, _: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        Err(fault(&format!("open {path}")))
    }

    fn materialize(&self, _: &Materialize, _: &RunContext) -> Result<Materialized> {
        Ok(Materialized::default())
    }
}

/// Hooks whose command's second word says how they end.
pub(crate) struct FakeHooks(pub(crate) Log);

#[async_trait]
impl HookRunner for FakeHooks {
    async fn run(&self, hook: &Hook, variables: &[(&'static str, String)]) -> Result<HookOutcome> {
        let status = variables.iter().find(|(key, _)| *key == "REKINDLE_STATUS").map(|(_, value)| value.as_str());
        self.0.add(format!("hook {} {}", hook.command[0], status.unwrap_or("?")));
        match hook.command.get(1).map(String::as_str) {
            Some("fail") => Err(Fault::new(codes::ENGINE_HOOK, "run the hook")),
            Some("skip") => Ok(HookOutcome::SoftSkip),
            _ => Ok(HookOutcome::Done),
        }
    }
}

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

pub(crate) fn context() -> RunContext {
    RunContext {
        run: RunId::new(jiff::Timestamp::UNIX_EPOCH, 7),
        cancel: Cancel::new(),
        monitor: Arc::new(Quiet),
        clock: Arc::new(Now),
        scratch: std::path::PathBuf::new(),
    }
}

pub(crate) fn hook(words: &[&str]) -> Hook {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    Hook { command, timeout: std::time::Duration::from_secs(1), container: None }
}
