//! A running capture.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use async_trait::async_trait;
use rekindle_core::entry::{Closing, Content, ContentRead, Entries, Entry, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::note::{NoteClass, Notebook};
use rekindle_core::port::{Capture, RunContext};
use rekindle_core::proof::CaptureProof;
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

use super::blocking;
use super::database::{self, Copy};
use super::details::{DETAILS_VERSION, GrafanaDetails};
use super::export::Export;
use super::options::GrafanaOptions;
use super::settings::Settings;
use crate::document::document;
use crate::files::companions::Companions;
use crate::files::show;

/// Names of the entries that hold the database, what was found out, and the key.
pub(super) const DATABASE: &str = "grafana.db";
const ABOUT: &str = "grafana.json";
pub(super) const KEY: &str = "secret-key";

pub(super) struct GrafanaCapture {
    id: ComponentId,
    witness: Witness,
    notebook: Notebook,
    companions: Companions,
    captured_at: jiff::Timestamp,
    details: GrafanaDetails,
    entries: Option<Entries>,
}

impl GrafanaCapture {
    pub(super) async fn begin(id: &ComponentId, options: &GrafanaOptions, context: &RunContext) -> Result<Self> {
        let settings = {
            let options = options.clone();
            blocking(move || Settings::find(&options)).await?
        };
        context.monitor.phase(id.as_str(), "copy the database");
        let captured_at = context.clock.now();
        let (copy, owner) = {
            let (path, cancel) = (settings.database.clone(), context.cancel.clone());
            let stage = options.stage_dir.clone().unwrap_or_else(std::env::temp_dir);
            blocking(move || {
                let copy = database::copy(&path, &stage, &cancel)?;
                Ok((copy, fs::metadata(&path).ok()))
            })
            .await?
        };
        let notebook = Notebook::default();
        if let Some((what, remedy)) = settings.key_state.warning() {
            tracing::warn!("{id}: {what}; {remedy}");
            notebook.add(NoteClass::Information, KEY, format!("{what}; {remedy}"));
        }
        for path in &settings.missing {
            let text = "Grafana's configuration names it, but it is not on this host: name its place in `config-paths`";
            notebook.add(NoteClass::Incomplete, show(path), text);
        }
        let export = match &options.http {
            None => None,
            Some(http) => Export::plan(http, &notebook).await?,
        };
        let server_version = export.as_ref().and_then(Export::version).or(settings.version.clone());
        if server_version.is_none() {
            let text = "the version of Grafana could not be found: set `home` or `url`; a database belongs to exactly one version";
            notebook.add(NoteClass::Incomplete, "VERSION", text);
        }
        let mut companions = Companions::begin(&settings.files, context)?;
        let details = details(&settings, &copy, server_version, export.is_some());
        let exported = export.map_or(Ok(Vec::new()), |export| export.entries(&notebook, captured_at))?;
        let own = own_entries(copy, owner.as_ref(), &settings, &details, captured_at)?;
        let witness = Witness::new();
        let all = exported.into_iter().map(Ok).chain(companions.entries()).chain(own.into_iter().map(Ok));
        Ok(Self {
            id: id.clone(),
            entries: Some(witness.watch(Box::new(all))),
            witness,
            notebook,
            companions,
            captured_at,
            details,
        })
    }
}

fn details(settings: &Settings, copy: &Copy, server_version: Option<String>, export: bool) -> GrafanaDetails {
    GrafanaDetails {
        version: DETAILS_VERSION,
        server_version,
        database: settings.database.clone(),
        journal_mode: copy.journal_mode.clone(),
        tables: copy.facts.tables.clone(),
        migrations: copy.facts.migrations.clone(),
        secret_key: settings.key_state,
        files: settings.files.clone(),
        export,
    }
}

/// The database, what is known about it, and a key that stands in no file of Grafana's.
fn own_entries(
    copy: Copy,
    owner: Option<&fs::Metadata>,
    settings: &Settings,
    details: &GrafanaDetails,
    at: jiff::Timestamp,
) -> Result<Vec<Entry>> {
    let bug = |what: &str| Fault::new(codes::RUN_BUG, what);
    let path = EntryPath::new(DATABASE).map_err(|why| bug("name the database").because(why))?;
    let mut meta = Meta { size: copy.bytes, ..Meta::synthetic(EntryKind::File, at) };
    if let Some(owner) = owner {
        (meta.uid, meta.gid, meta.mode) = (owner.uid(), owner.gid(), owner.mode() & 0o7777);
    }
    let content = Box::new(CopyRead { file: copy.file, left: copy.bytes, meta: meta.clone() });
    let mut entries = vec![Entry { path, meta, content: Content::Stream(content) }];
    let about = serde_json::to_vec_pretty(details).map_err(|error| bug("write a JSON document").because(error))?;
    entries.push(document(ABOUT, about, at)?);
    if let Some(key) = &settings.named_key {
        entries.push(document(KEY, key.expose().clone().into_bytes(), at)?);
    }
    Ok(entries)
}

/// The staged copy; it goes with its last reader.
struct CopyRead {
    file: File,
    left: u64,
    meta: Meta,
}

fn lost(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(codes::GRAFANA_STAGE, "read the staged copy of the database")
        .because(why)
        .hint("look at the disk of `stage-dir`, then run the backup again")
}

impl ContentRead for CopyRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let at = self.meta.size - self.left;
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..most], at) {
            Ok(0) => Err(lost(format!("it ended {} bytes too early", self.left)).into()),
            Ok(given) => {
                self.left -= given as u64;
                Ok(given)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.read(buffer),
            Err(error) => Err(lost(error).into()),
        }
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}

#[async_trait]
impl Capture for GrafanaCapture {
    fn entries(&mut self) -> Entries {
        self.entries.take().unwrap_or_else(|| Box::new(std::iter::empty()))
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        let mut notes = self.notebook.notes();
        notes.merge(self.companions.notes());
        let details = serde_json::to_value(&self.details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the details").because(error))?;
        CaptureProof::new(self.id, ComponentKind::Grafana, &self.witness, notes, self.captured_at, details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "finish the capture of Grafana").because(error))
    }

    async fn abort(self: Box<Self>) {
        // The staged copy has no name: dropping its last reader frees it.
    }
}
