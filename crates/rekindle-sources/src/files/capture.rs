//! A running capture of file trees.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rekindle_core::entry::{Entries, Entry};
use rekindle_core::port::{Capture, RunContext};
use rekindle_core::proof::CaptureProof;
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use rustix::fs::{CWD, FileType};
use serde::{Deserialize, Serialize};

use super::exclude::Excludes;
use super::journal::{Counts, Journal};
use super::layout::{entry_path, show};
use super::sys::{Links, open_directory, open_file, status_at, status_of};
use super::walk::{Rules, Walk};
use super::{FilesComponent, bug, root_fault};
use crate::document::document;

/// What the manifest says about a capture of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Details {
    /// The configured paths, escaped for reading.
    pub(super) roots: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) one_file_system: bool,
    pub(super) exclude_caches: bool,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// A running capture.
pub(super) struct FilesCapture {
    id: ComponentId,
    walk: Option<Walk>,
    documents: Vec<Entry>,
    witness: Witness,
    journal: Arc<Journal>,
    captured_at: jiff::Timestamp,
    details: Details,
}

impl FilesCapture {
    /// Looks at every configured path; nothing is begun when one cannot be read.
    pub(super) fn begin(component: &FilesComponent, context: &RunContext) -> Result<Self> {
        let own = OwnPlaces::find(component.options.own_places.iter().chain([&context.scratch]));
        for path in &component.layout.paths {
            look_at_root(component, path)?;
            own.refuse(path)?;
        }
        let options = &component.options;
        let rules = Arc::new(Rules {
            excludes: Excludes::clone(&component.excludes),
            one_file_system: options.one_file_system,
            exclude_caches: options.exclude_caches,
            read_all: options.read_all,
            never: own.identities,
            effective_uid: rustix::process::geteuid().as_raw(),
        });
        let journal = Arc::new(Journal::new(options.policy.clone()));
        let top = Arc::clone(&component.layout.top);
        let walk = Walk::new(top, rules, Arc::clone(&journal), context.cancel.clone())?;
        context.monitor.phase(component.id.as_str(), "read the files");
        let now = context.clock.now();
        let documents = options.documents.iter().map(|(name, bytes)| document(name, bytes.clone(), now));
        Ok(Self {
            id: component.id.clone(),
            documents: documents.collect::<Result<_>>()?,
            walk: Some(walk),
            witness: Witness::new(),
            journal,
            captured_at: context.clock.now(),
            details: Details {
                roots: component.layout.paths.iter().map(|p| show(p)).collect(),
                exclude: component.excludes.patterns().to_vec(),
                one_file_system: options.one_file_system,
                exclude_caches: options.exclude_caches,
                counts: Counts::default(),
            },
        })
    }
}

#[async_trait]
impl Capture for FilesCapture {
    fn entries(&mut self) -> Entries {
        match self.walk.take() {
            Some(walk) => {
                let documents = std::mem::take(&mut self.documents);
                self.witness.watch(Box::new(merged(walk, documents)))
            }
            None => Box::new(std::iter::empty()),
        }
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        let mut details = self.details;
        details.counts = self.journal.counts();
        let details = serde_json::to_value(details)
            .map_err(|error| bug("the record of a capture cannot be written").because(error))?;
        CaptureProof::new(self.id, ComponentKind::Files, &self.witness, self.journal.notes(), self.captured_at, details)
            .map_err(|error| bug("finish the capture of files").because(error))
    }

    async fn abort(self: Box<Self>) {}
}

/// The entries of a walk with some more at the top, in their order.
fn merged(walk: Walk, mut documents: Vec<Entry>) -> impl Iterator<Item = Result<Entry>> + Send {
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    let (mut walk, mut documents) = (walk.peekable(), documents.into_iter().peekable());
    std::iter::from_fn(move || {
        let first = match (walk.peek(), documents.peek()) {
            (Some(Ok(entry)), Some(document)) => document.path < entry.path,
            (None, document) => document.is_some(),
            (Some(_), _) => false,
        };
        if first { documents.next().map(Ok) } else { walk.next() }
    })
}

/// Whether a configured path can be read at all, and is where the walk will find it.
pub(super) fn look_at_root(component: &FilesComponent, path: &Path) -> Result<()> {
    let Some(entry) = entry_path(path) else {
        // `/` is always there.
        return Ok(());
    };
    let name = path.as_os_str().as_encoded_bytes();
    let opened = status_at(CWD, name).and_then(|status| match status.kind {
        FileType::Directory => open_directory(CWD, name, Links::Refuse).map(|_| ()),
        FileType::RegularFile => open_file(CWD, name, false).map(|_| ()),
        _ => Ok(()),
    });
    opened.map_err(|errno| root_fault(&entry, errno))?;
    let Some(outer) = component.layout.outer(path) else {
        return Ok(());
    };
    let between = path.ancestors().skip(1).take_while(|above| *above != outer);
    for above in between {
        let is_link =
            status_at(CWD, above.as_os_str().as_encoded_bytes()).is_ok_and(|status| status.kind == FileType::Symlink);
        if is_link {
            let what = format!("save `{}` together with `{}`", show(path), show(outer));
            return Err(Fault::new(codes::FILES_LAYOUT, what)
                .because(format!("`{}` is a symbolic link", show(above)))
                .hint("name the target of the link in `paths` instead"));
        }
    }
    Ok(())
}

/// Places that belong to rekindle itself.
pub(super) struct OwnPlaces {
    identities: BTreeSet<(u64, u64)>,
    real_paths: Vec<PathBuf>,
}

impl OwnPlaces {
    /// Those of them that exist.
    pub(super) fn find<'a>(places: impl Iterator<Item = &'a PathBuf>) -> Self {
        let mut found = Self { identities: BTreeSet::new(), real_paths: Vec::new() };
        for place in places.filter(|place| place.is_absolute()) {
            let name = place.as_os_str().as_encoded_bytes();
            let status = open_directory(CWD, name, Links::Follow).and_then(|open| status_of(open.as_fd()));
            if let (Ok(status), Ok(real)) = (status, place.canonicalize()) {
                found.identities.insert(status.identity());
                found.real_paths.push(real);
            }
        }
        found
    }

    /// The own place in which a path stands.
    pub(super) fn around(&self, path: &Path) -> Option<&Path> {
        let real = path.canonicalize().ok()?;
        let mut places = self.real_paths.iter();
        places.find(|place| real.starts_with(place)).map(PathBuf::as_path)
    }

    /// The own places inside a path.
    pub(super) fn inside(&self, path: &Path) -> Vec<&Path> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let places = self.real_paths.iter().map(PathBuf::as_path);
        places.filter(|place| place.starts_with(&real)).collect()
    }

    fn refuse(&self, path: &Path) -> Result<()> {
        match self.around(path) {
            None => Ok(()),
            Some(place) => {
                let what = format!("save `{}`", show(path));
                Err(Fault::new(codes::FILES_PATH, what)
                    .because(format!("it is inside `{}`, which belongs to rekindle itself", show(place)))
                    .hint("take it out of `paths`, or keep the repository somewhere else"))
            }
        }
    }
}
