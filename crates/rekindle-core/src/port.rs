//! The ports between the use cases and the adapters.
//!
//! Control plane (begin, finish, probe) is async with deadlines; data plane (entries, content,
//! store, materialize) is blocking and pulled on its own threads, with bounded memory.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::entry::{ContentRead, Entries, EntryPath, Meta};
use crate::fault::{Fault, Result};
use crate::id::{ComponentId, ComponentKind, PointId, RunId};
use crate::point::{Draft, RecoveryPoint};
use crate::proof::{CaptureProof, StoredPart};
use crate::timeline::RecoveryPlan;
use crate::wal::WalLog;

/// Where time comes from, so that tests can say what time it is.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> jiff::Timestamp;
}

/// Who is told how the work goes. Implementations must be cheap: they are called per entry.
pub trait Monitor: Send + Sync {
    /// `scope` (a component, or `repository`) has begun a named phase (`dump app`, `upload`).
    fn phase(&self, scope: &str, phase: &str);
    /// How much there is to do in this scope, as far as it is known; a later call replaces it.
    fn expect(&self, scope: &str, entries: Option<u64>, bytes: Option<u64>);
    /// That much more is done.
    fn advance(&self, scope: &str, entries: u64, bytes: u64);
    /// Something failed that does not end the run by itself.
    fn problem(&self, scope: &str, fault: &Fault);
}

/// A monitor that tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Monitor for Quiet {
    fn phase(&self, _: &str, _: &str) {}
    fn expect(&self, _: &str, _: Option<u64>, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64, _: u64) {}
    fn problem(&self, _: &str, _: &Fault) {}
}

/// What every step of one run shares.
#[derive(Clone)]
pub struct RunContext {
    pub run: RunId,
    pub cancel: Cancel,
    pub monitor: Arc<dyn Monitor>,
    pub clock: Arc<dyn Clock>,
    /// A private directory (0700) for small files such as password files; never for data.
    pub scratch: PathBuf,
}

impl fmt::Debug for RunContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunContext").field("run", &self.run).finish_non_exhaustive()
    }
}

/// How a finding is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Checked, and as it should be.
    Good,
    /// Works, but somebody should know.
    Warning,
    /// Could not be looked at: neither right nor wrong.
    Unproved,
    /// Does not work or is not what it should be.
    Bad,
}

/// One result of looking at something: a probe before a capture, a check after a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    /// What was looked at, and what was seen.
    pub text: String,
    /// What to do about it, when there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Checked, and as it should be.
    pub fn good(text: impl Into<String>) -> Self {
        Self { level: Level::Good, text: text.into(), remedy: None }
    }

    /// Works, but somebody should know.
    pub fn warning(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// Could not be looked at.
    pub fn unproved(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Unproved, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// Not as it should be.
    pub fn bad(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Bad, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// One adapter per kind of thing that is saved.
#[async_trait]
pub trait Component: Send + Sync {
    /// Its name in the configuration.
    fn id(&self) -> &ComponentId;
    /// What kind it is.
    fn kind(&self) -> ComponentKind;
    /// Looks without changing anything: reachable, right versions, privileges, space.
    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>>;
    /// Starts a capture: connects, fixes the moment the data stands for.
    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>>;
    /// The same, when there is an earlier capture that this one may build on. What is stored is
    /// whole in any case.
    async fn begin_after(&self, previous: Option<Previous>, context: &RunContext) -> Result<Box<dyn Capture>> {
        let _ = previous;
        self.begin(context).await
    }
    /// Brings the component's data to the target. Errors that lose single entries are listed in
    /// the report; an `Err` means the target is not usable.
    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport>;
    /// Whether what stands at the place of `report` is what the part holds.
    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>>;
    /// Where the component lives: what `recover` restores to.
    fn home(&self) -> Target {
        Target::InPlace { discard_old: false }
    }
    /// What stands at [`Component::home`], for a person; `None`: nothing that could be lost. An
    /// adapter that cannot tell says so.
    async fn occupied(&self, _part: Arc<dyn PartReader>, _context: &RunContext) -> Result<Option<String>> {
        Ok(Some("it is not known what stands there".to_owned()))
    }
    /// Takes a restore in place back: what was kept stands at its place again, and what was restored
    /// beside it. An `Err` leaves both where they can be found by name.
    async fn roll_back(&self, report: &RestoreReport, _context: &RunContext) -> Result<()> {
        let kept = report.kept_old.as_deref().unwrap_or("nothing");
        Err(Fault::new(crate::codes::ENGINE_ROLL_BACK, format!("bring the old state of `{}` back", self.id()))
            .because(format!("it cannot be done without you for the kind `{}`; kept is: {kept}", self.kind()))
            .hint("put the old state back by hand, or restore the safety point"))
    }
}

/// Stops and starts what runs around components that are restored in place.
#[async_trait]
pub trait Services: Send + Sync {
    /// Stops what must not run meanwhile, dependants first; gives the names in that order. After an
    /// error, whatever was stopped runs again.
    async fn stop(&self, context: &RunContext) -> Result<Vec<String>>;
    /// Starts what was stopped, dependants last, and waits until each is healthy; gives the names in
    /// that order. An error means that not all of it is healthy.
    async fn start(&self, context: &RunContext) -> Result<Vec<String>>;
}

/// A running capture. `entries` is taken once and pulled to its end on a blocking thread; then
/// `finish` gives the proof, or `abort` lets everything go.
#[async_trait]
pub trait Capture: Send {
    /// The entries; a second call gives none.
    fn entries(&mut self) -> Entries;
    /// How the entries want to be stored.
    fn shape(&self) -> StoreShape {
        StoreShape::default()
    }
    /// Until this is `Ok`, the bytes are no backup.
    async fn finish(self: Box<Self>) -> Result<CaptureProof>;
    /// Ends producers, removes what the capture made on the source.
    async fn abort(self: Box<Self>);
}

/// The newest capture of a component without loss that the repository holds.
#[derive(Clone)]
pub struct Previous {
    pub point: PointId,
    pub record: crate::manifest::ComponentRecord,
    pub repository: Arc<dyn Repository>,
}

impl Previous {
    /// Its entries, for reading. Blocking.
    pub fn open(&self) -> Result<Arc<dyn PartReader>> {
        self.repository.open(&self.point, &self.record.id)
    }
}

impl fmt::Debug for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous").field("point", &self.point).finish_non_exhaustive()
    }
}

/// How the entries of a capture want to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreShape {
    /// Entries come in any order, as the source's own stream has them.
    pub any_order: bool,
    /// Content is cut every so many bytes, instead of as the repository does by itself.
    pub chunk_bytes: Option<usize>,
}

/// How much of the previous point a write may take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reuse {
    /// Read everything.
    Nothing,
    /// Take over files whose size, times and inode did not change since this tree was written.
    Tree(String),
}

/// A place for recovery points.
pub trait Repository: Send + Sync {
    /// Starts to write one point: takes the lock, loads the index, starts the workers.
    fn begin(&self, context: &RunContext) -> Result<Arc<dyn WriteSession>>;
    /// Every point, oldest first. A snapshot that is not a point of ours is left out; one that
    /// should be and cannot be read is an error.
    fn points(&self) -> Result<Vec<RecoveryPoint>>;
    /// A component of a point, for reading.
    fn open(&self, point: &PointId, component: &ComponentId) -> Result<Arc<dyn PartReader>>;
    /// Whether hosts may write at the same time: the storage keeps a second writer from writing over what
    /// the first one wrote. Asked only where points of other hosts are.
    fn may_be_shared(&self) -> Result<bool>;
}

/// One point being written. Components may be stored from several threads at a time.
pub trait WriteSession: Send + Sync {
    /// Stores a component: pulls its entries to the end. Blocking.
    fn store(&self, component: &ComponentId, entries: Entries, reuse: Reuse) -> Result<StoredPart>;
    /// The same for entries that want to be stored in a special way. A repository that cannot do
    /// so says it, and never stores them otherwise.
    fn store_shaped(
        &self,
        component: &ComponentId,
        entries: Entries,
        reuse: Reuse,
        shape: StoreShape,
    ) -> Result<StoredPart> {
        if shape == StoreShape::default() {
            return self.store(component, entries, reuse);
        }
        let what = format!("store `{component}`: this repository takes entries in order only");
        Err(Fault::new(crate::fault::codes::RUN_BUG, what))
    }
    /// Writes everything that is still in memory, then the manifest, then the snapshot as the very
    /// last object; reads the snapshot back. Blocking.
    fn commit(&self, draft: Draft) -> Result<RecoveryPoint>;
    /// Gives up: nothing becomes a point, the lock is released. Blocking.
    fn abandon(&self);
}

/// An entry of a stored part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    pub path: EntryPath,
    pub meta: Meta,
}

/// Reads one component of a point.
pub trait PartReader: Send + Sync {
    /// What the manifest says about it.
    fn record(&self) -> &crate::manifest::ComponentRecord;
    /// Every entry, in [`EntryPath`] order, below `within` (itself included) or all. Blocking.
    fn list(&self, within: Option<&EntryPath>) -> Result<Box<dyn Iterator<Item = Result<StoredEntry>> + Send>>;
    /// The content of a file as a stream that is checked against its hashes while it is read:
    /// damage is an `Err`, never short or wrong bytes. `close` gives `Keep`. Blocking.
    fn open(&self, path: &EntryPath) -> Result<Box<dyn ContentRead>>;
    /// The same for parts of a file that lie on borders of its chunks, one after the other; a part may reach beyond
    /// the end. A reader that only knows whole files says so. Blocking.
    fn open_parts(&self, path: &EntryPath, parts: &[Range<u64>]) -> Result<Box<dyn ContentRead>> {
        let what = format!("read {} parts of `{path}`", parts.len());
        Err(Fault::new(crate::codes::RUN_BUG, what).because("whole files only can be read here"))
    }
    /// Writes the entries below `request.within` into a directory, in parallel, checked against
    /// hashes, with attributes, fsynced. Goes on past damage and lists it. Blocking.
    fn materialize(&self, request: &Materialize, context: &RunContext) -> Result<Materialized>;
}

/// What to write to disk, and how.
#[derive(Debug, Clone)]
pub struct Materialize {
    /// The directory of the part whose content goes into `into`; `None` for the part's top.
    pub within: Option<EntryPath>,
    /// An existing directory. What is there and has the same content is not written again.
    pub into: PathBuf,
    /// Only these paths and what is below them; empty means all.
    pub select: Vec<EntryPath>,
    /// Whether owners are set (needs the privilege; failing to is a problem of that entry).
    pub owners: bool,
    /// Everything belongs to this user and group, whatever `owners` says (needs the privilege).
    pub given_to: Option<(u32, u32)>,
    /// Whether everything is on the disk when this returns. Whoever goes on writing there may sync once at the end.
    pub sync: bool,
    /// Whether files of `into` that the part does not have are removed.
    pub delete_extra: bool,
}

impl Materialize {
    /// Everything of a part into a directory.
    pub fn all(into: &Path) -> Self {
        Self {
            within: None,
            into: into.to_owned(),
            select: Vec::new(),
            owners: true,
            given_to: None,
            sync: true,
            delete_extra: false,
        }
    }
}

/// An entry that could not be given back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEntry {
    /// Path below the component, escaped for reading.
    pub path: String,
    pub why: String,
}

/// What was written to disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Materialized {
    pub entries: u64,
    pub bytes: u64,
    /// Of these, bytes that were there already and were only read.
    pub kept_bytes: u64,
    /// Entries that are not there, or not whole.
    pub lost: Vec<LostEntry>,
    /// Attributes that could not be set; the content is right.
    pub attribute_problems: Vec<LostEntry>,
}

/// Where restored data goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A new place beside the live one. `None`: a name derived from component and point. For
    /// files and Redis a directory; for PostgreSQL a database name (or its prefix, for several).
    New(Option<String>),
    /// The configured place; the old state is kept beside it unless `discard_old`.
    InPlace { discard_old: bool },
    /// A running server (Redis): key by key, without stopping it.
    Live,
}

/// What a restore is asked to do.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The point the part comes from; part of derived names.
    pub point: PointId,
    pub target: Target,
    /// Only these parts of the component (paths below it; database names for PostgreSQL).
    pub select: Vec<String>,
    /// Go on although the target holds data.
    pub overwrite: bool,
    /// Parallel workers of the restore program, where it has some.
    pub jobs: usize,
    /// Another server than the configured one (URL), where there is one.
    pub server: Option<String>,
    /// How a physical base backup is brought to a moment; without it, to its own end.
    pub recovery: Option<Recovery>,
}

/// A physical base backup and the log that is replayed onto it.
#[derive(Clone)]
pub struct Recovery {
    pub plan: RecoveryPlan,
    /// The log of the cluster; `None` when the plan needs none.
    pub log: Option<Arc<dyn WalLog>>,
    /// Leave a directory that recovers when it is started, instead of recovering now.
    pub no_start: bool,
    /// The user who is to own the files and run the server, when this process is root.
    pub owner: Option<String>,
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery").field("plan", &self.plan).field("no_start", &self.no_start).finish_non_exhaustive()
    }
}

/// A step of a restore and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub elapsed_ms: u64,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Where the data stands now: a directory, `database app_restored on host:port`, …
    pub place: String,
    pub entries: u64,
    pub bytes: u64,
    /// Where the old state is kept, when there was one.
    pub kept_old: Option<String>,
    /// Entries that are not there, or not whole. Not empty: the restore is not complete.
    pub lost: Vec<LostEntry>,
    /// Works, but somebody should know.
    pub warnings: Vec<String>,
    pub steps: Vec<Step>,
    /// The kind's own record of where things went (databases with their new names, …).
    pub details: serde_json::Value,
}

/// A user's command at a fixed moment of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Program and arguments; nothing is interpolated into them.
    pub command: Vec<String>,
    /// It is killed after this time.
    pub timeout: std::time::Duration,
    /// The container it runs in; none: this host.
    pub container: Option<String>,
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOutcome {
    /// Exit code 0.
    Done,
    /// Exit code 75 (`EX_TEMPFAIL` of sysexits.h): skip this run without calling it a failure.
    SoftSkip,
}

/// Runs hooks.
#[async_trait]
pub trait HookRunner: Send + Sync {
    /// Runs one hook with these variables added to its environment. Any other end than exit code
    /// 0 or 75 within the timeout is an `Err`.
    async fn run(&self, hook: &Hook, variables: &[(&'static str, String)]) -> Result<HookOutcome>;
}
