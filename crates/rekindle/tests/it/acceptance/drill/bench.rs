//! A drill beside the program: on points that are not what their manifest says, and in sandboxes that are meddled with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::entry::{Closing, ContentRead, EntryPath, ReadFault};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::objective::Objective;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{
    Clock, Finding, Materialize, Materialized, PartReader, Quiet, Repository, RestoreReport, RunContext, StoredEntry,
    WriteSession,
};
use rekindle_core::proof_record::{ComponentProof, Outcome};
use rekindle_core::sandbox::{Opened, Proved, Sandbox};
use rekindle_core::{Cancel, ComponentId, PointId, Result, RunId, Secret};
use rekindle_engine::drill::{DrillItem, DrillPlan, Way, drill, exit_code};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_sources::hook::ProcessHooks;
use rekindle_sources::sandbox::{Site, SiteOptions};
use rekindle_store::StoreOptions;

use super::super::stack::{REPOSITORY_PASSWORD, Stack};
use super::sandboxes;

/// Changes what a part gives for one path, and what its manifest says.
#[derive(Clone, Default)]
pub(super) struct Lie {
    pub(super) record: Option<fn(&mut ComponentRecord)>,
    /// The content of this path is cut by so many bytes.
    pub(super) cut: Option<(&'static str, usize)>,
    /// This path gives the content of the same path in another point.
    pub(super) other: Option<(&'static str, PointId)>,
}

/// A repository that lies about one thing.
struct Liar {
    repo: Repo,
    lie: Lie,
}

impl Repository for Liar {
    fn begin(&self, context: &RunContext) -> Result<Arc<dyn WriteSession>> {
        self.repo.begin(context)
    }

    fn points(&self) -> Result<Vec<RecoveryPoint>> {
        self.repo.points()
    }

    fn open(&self, point: &PointId, component: &ComponentId) -> Result<Arc<dyn PartReader>> {
        let part = self.repo.open(point, component)?;
        let mut record = part.record().clone();
        if let Some(change) = self.lie.record {
            change(&mut record);
        }
        let other = match &self.lie.other {
            Some((path, point)) => Some((*path, self.repo.open(point, component)?)),
            None => None,
        };
        Ok(Arc::new(LyingPart { part, record, cut: self.lie.cut, other }))
    }

    fn may_be_shared(&self) -> Result<bool> {
        self.repo.may_be_shared()
    }
}

struct LyingPart {
    part: Arc<dyn PartReader>,
    record: ComponentRecord,
    cut: Option<(&'static str, usize)>,
    other: Option<(&'static str, Arc<dyn PartReader>)>,
}

impl PartReader for LyingPart {
    fn record(&self) -> &ComponentRecord {
        &self.record
    }

    fn list(&self, within: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>> {
        self.part.list(within)
    }

    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>> {
        if let Some((_, other)) = self.other.as_ref().filter(|(name, _)| path.to_string() == *name) {
            return other.open(path);
        }
        let content = self.part.open(path)?;
        match self.cut.filter(|(name, _)| path.to_string() == *name) {
            None => Ok(content),
            Some((_, bytes)) => Ok(Box::new(Cut::new(content, bytes))),
        }
    }

    fn materialize(&self, request: &Materialize, context: &RunContext) -> Result<Materialized> {
        self.part.materialize(request, context)
    }
}

/// A stream without its last bytes, that says nothing about it.
struct Cut {
    bytes: Vec<u8>,
    at: usize,
    from: Box<dyn ContentRead>,
}

impl Cut {
    fn new(mut from: Box<dyn ContentRead>, cut: usize) -> Self {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(given @ 1..) = from.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..given]);
        }
        bytes.truncate(bytes.len() - cut);
        Self { bytes, at: 0, from }
    }
}

impl ContentRead for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, ReadFault> {
        let given = buffer.len().min(self.bytes.len() - self.at);
        buffer[..given].copy_from_slice(&self.bytes[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        self.from.close()
    }
}

/// A sandbox that nobody can look after.
pub(super) struct Panicking {
    pub(super) inner: Arc<dyn Sandbox>,
}

#[async_trait]
impl Sandbox for Panicking {
    fn component(&self) -> &ComponentId {
        self.inner.component()
    }

    async fn open(&self, record: &ComponentRecord, context: &RunContext) -> Result<Opened> {
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.inner.open(record, context).await
    }

    async fn start(&self, record: &ComponentRecord, report: &RestoreReport, context: &RunContext) -> Result<Proved> {
        self.inner.start(record, report, context).await
    }

    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.inner.look(part, report, context).await
    }

    async fn way_in(&self, report: &RestoreReport, context: &RunContext) -> Result<Option<String>> {
        self.inner.way_in(report, context).await
    }

    fn within_limits(&self) -> Result<()> {
        panic!("the look at the limits")
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

/// A sandbox in which something happens between the restore and the start of the engine.
pub(super) struct Meddled {
    pub(super) inner: Arc<dyn Sandbox>,
    pub(super) meddle: fn(&RestoreReport),
}

#[async_trait]
impl Sandbox for Meddled {
    fn component(&self) -> &ComponentId {
        self.inner.component()
    }

    async fn open(&self, record: &ComponentRecord, context: &RunContext) -> Result<Opened> {
        self.inner.open(record, context).await
    }

    async fn start(&self, record: &ComponentRecord, report: &RestoreReport, context: &RunContext) -> Result<Proved> {
        (self.meddle)(report);
        self.inner.start(record, report, context).await
    }

    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        self.inner.look(part, report, context).await
    }

    async fn way_in(&self, report: &RestoreReport, context: &RunContext) -> Result<Option<String>> {
        self.inner.way_in(report, context).await
    }

    fn within_limits(&self) -> Result<()> {
        self.inner.within_limits()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// What a drill needs beside the program.
pub(super) struct Bench {
    runtime: tokio::runtime::Runtime,
    repo: Repo,
    scratch: tempfile::TempDir,
    base: PathBuf,
}

impl Bench {
    pub(super) fn of(stack: &Stack) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let url = format!("file://{}", stack.path("repo").display());
        let store = rekindle_store::open(&StoreOptions::new(&url).unwrap()).unwrap();
        let password = Secret::new(REPOSITORY_PASSWORD.to_owned());
        let repo = Repo::open(store, runtime.handle().clone(), &password, RepoOptions::default()).unwrap();
        Self { runtime, repo, scratch: tempfile::tempdir().unwrap(), base: sandboxes(stack) }
    }

    fn site(&self) -> Arc<Site> {
        let options =
            SiteOptions { base: self.base.clone(), memory_bytes: None, disk_bytes: None, programs: Vec::new() };
        Arc::new(Site::make(options).unwrap())
    }

    pub(super) fn newest(&self) -> RecoveryPoint {
        self.repo.points().unwrap().pop().unwrap()
    }

    /// Drills one component of the newest point, as it is with the lie.
    pub(super) fn drill(&self, sandbox: impl FnOnce(Arc<Site>) -> Arc<dyn Sandbox>, lie: &Lie) -> ComponentProof {
        self.drill_with(sandbox, lie, Objective::default()).0
    }

    pub(super) fn drill_with(
        &self,
        sandbox: impl FnOnce(Arc<Site>) -> Arc<dyn Sandbox>,
        lie: &Lie,
        objective: Objective,
    ) -> (ComponentProof, u8) {
        let point = self.newest();
        let mut manifest = point.manifest().clone();
        for record in &mut manifest.components {
            if let Some(change) = lie.record {
                change(record);
            }
        }
        let point = RecoveryPoint::stored(point.id().clone(), point.time(), manifest);
        let plan = DrillPlan {
            point,
            items: vec![DrillItem { sandbox: sandbox(self.site()), objective, way: Way::Captured }],
            timeout: Duration::from_mins(5),
            jobs: 1,
            guarantees: Vec::new(),
        };
        let context = RunContext {
            run: RunId::new(jiff::Timestamp::now(), 1),
            cancel: Cancel::new(),
            monitor: Arc::new(Quiet),
            clock: Arc::new(Now),
            scratch: self.scratch.path().to_owned(),
        };
        let liar: Arc<dyn Repository> = Arc::new(Liar { repo: self.repo.clone(), lie: lie.clone() });
        let work = drill(plan, liar, Arc::new(ProcessHooks), &context);
        let mut result = self.runtime.block_on(Box::pin(work)).unwrap();
        let exit = exit_code(&result);
        (result.components.remove(0), exit)
    }
}

pub(super) fn id(name: &str) -> ComponentId {
    name.parse().unwrap()
}

/// Failed, and says this somewhere.
pub(super) fn failed(what: &str, proof: &ComponentProof, says: &str) {
    assert_eq!(proof.outcome, Outcome::Failed, "{what}: {proof:#?}");
    let said = format!("{:?} {:?}", proof.problem, proof.findings);
    assert!(said.contains(says), "{what}: `{says}` is not in {said}");
}
