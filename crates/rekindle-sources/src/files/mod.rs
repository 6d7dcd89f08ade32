//! File trees: capture, restore and check of directories and files by path.
//!
//! In a part every configured path stands under its full path without the leading slash
//! (`/app/uploads` is `app/uploads`), with the directories above it as entries, so that a restore
//! in place knows where things belong.

mod attributes;
mod capture;
mod check;
pub(crate) mod companions;
mod content;
mod exclude;
mod journal;
mod layout;
mod probe;
mod restore;
mod sys;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::entry::EntryPath;
use rekindle_core::note::NoteClass;
use rekindle_core::port::{Capture, Component, Finding, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

pub(crate) use check::{compare, every_byte};
pub use journal::{Counts, Policy};
pub(crate) use layout::show;
pub(crate) use restore::{OWNERS_NOT_SET, holds_something, may_set_owners, take_back, tree, warn_of_attributes};

use exclude::Excludes;
use layout::Layout;

/// A file system that does not answer a look at the configured paths within this time is taken
/// for unreachable (a network mount whose server is away blocks every call for ever).
const LOOK_MAX: Duration = Duration::from_secs(30);

/// What to save.
#[derive(Debug, Clone, Default)]
pub struct FilesOptions {
    /// Absolute paths of directories, files or links. Overlapping ones are merged.
    pub paths: Vec<PathBuf>,
    /// Patterns in the style of `.gitignore`, relative to each configured path.
    pub exclude: Vec<String>,
    /// Do not enter file systems that are mounted below a configured path.
    pub one_file_system: bool,
    /// Take only the tag of directories that hold a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// What a note of a class does to the point; the usual severity for the others.
    pub policy: BTreeMap<NoteClass, Policy>,
    /// Read every file, also those that did not change since the last point.
    pub read_all: bool,
    /// Places of rekindle itself (a repository on this machine, state): never entered, noted.
    pub own_places: Vec<PathBuf>,
    /// Small files that are in no path: name at the top of the part, and content.
    pub documents: Vec<(String, Vec<u8>)>,
}

/// The component.
#[derive(Debug, Clone)]
pub struct FilesComponent {
    id: ComponentId,
    options: Arc<FilesOptions>,
    layout: Layout,
    excludes: Excludes,
}

impl FilesComponent {
    /// Checks paths and patterns; touches nothing.
    pub fn new(id: ComponentId, options: FilesOptions) -> Result<Self> {
        Ok(Self {
            layout: Layout::new(&options.paths)?,
            excludes: Excludes::new(&options.exclude)?,
            options: Arc::new(options),
            id,
        })
    }

    /// Runs something that waits for the file system away from the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this))
            .await
            .map_err(|error| bug("a file task ended badly").because(error))?
    }

    /// The same with a deadline, for calls that must not hang with a dead mount.
    async fn looking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let slow = |_| {
            Fault::new(codes::FILES_ROOT, format!("look at the paths of `{}`", self.id))
                .because(format!("no answer within {} s", LOOK_MAX.as_secs()))
                .hint("check that network file systems below these paths are reachable")
        };
        tokio::time::timeout(LOOK_MAX, self.blocking(work)).await.map_err(slow)?
    }
}

#[async_trait]
impl Component for FilesComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Files
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        let cancel = context.cancel.clone();
        self.looking(move |this| probe::probe(this, &cancel)).await
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        let context = context.clone();
        let capture = self.looking(move |this| capture::FilesCapture::begin(this, &context)).await?;
        Ok(Box::new(capture))
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let (request, context) = (request.clone(), context.clone());
        self.blocking(move |this| restore::restore(this, part.as_ref(), &request, &context)).await
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let (report, context) = (report.clone(), context.clone());
        self.blocking(move |_| check::check(part.as_ref(), &report, &context)).await
    }

    async fn occupied(&self, _part: Arc<dyn PartReader>, _context: &RunContext) -> Result<Option<String>> {
        self.looking(|this| {
            for path in &this.layout.paths {
                let look = restore::holds_something(path).map_err(|error| {
                    Fault::new(codes::FILES_TARGET, format!("look whether `{}` is empty", show(path))).because(error)
                })?;
                if look {
                    return Ok(Some(format!("`{}` is not empty", show(path))));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn roll_back(&self, report: &RestoreReport, _context: &RunContext) -> Result<()> {
        let report = report.clone();
        self.blocking(move |_| restore::roll_back(&report)).await
    }
}

/// A configured path that cannot be saved: the component is missing.
fn root_fault(path: &EntryPath, why: impl Into<std::io::Error>) -> Fault {
    let uid = rustix::process::geteuid().as_raw();
    Fault::new(codes::FILES_ROOT, format!("read the configured path `/{path}`"))
        .because(why.into())
        .hint(format!("check that `/{path}` exists and that user {uid} may read it, or take it out of `paths`"))
}

/// Something about a single entry that ends the component.
fn read_fault(path: &EntryPath, why: impl Into<std::io::Error>) -> Fault {
    Fault::new(codes::FILES_READ, format!("read `/{path}`"))
        .because(why.into())
        .hint("mend the cause (see it with `dmesg` or `ulimit -n`) and run the backup again")
}

fn bug(what: &str) -> Fault {
    Fault::new(codes::RUN_BUG, what)
}
