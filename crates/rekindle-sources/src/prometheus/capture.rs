//! A running capture.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rekindle_core::entry::{Entries, Entry};
use rekindle_core::note::{NoteClass, Notes, Severity};
use rekindle_core::port::{Capture, RunContext};
use rekindle_core::proof::CaptureProof;
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use serde_json::json;

use super::blocking;
use super::blocks::{self, Block};
use super::config_files;
use super::details::{DETAILS_VERSION, PrometheusDetails};
use super::options::{Method, PrometheusOptions};
use super::server::{Head, Server, ServerFacts, SnapshotAnswer};
use super::snapshot::{self, Held, LeftOver};
use crate::document::document;
use crate::files::companions::Companions;
use crate::files::show;

pub(super) struct PrometheusCapture {
    id: ComponentId,
    witness: Witness,
    notes: Notes,
    companions: Companions,
    held: Option<Held>,
    captured_at: jiff::Timestamp,
    details: PrometheusDetails,
    entries: Option<Entries>,
}

/// The blocks of a capture and how they were got.
struct Taken {
    blocks: Vec<Block>,
    held: Option<Held>,
    captured_at: jiff::Timestamp,
    method: &'static str,
    head_left_out: u64,
}

impl PrometheusCapture {
    pub(super) async fn begin(id: &ComponentId, options: &PrometheusOptions, context: &RunContext) -> Result<Self> {
        let server = Server::new(options)?;
        context.monitor.phase(id.as_str(), "connect");
        let facts = server.facts().await?;
        let rendered = server.config().await?;
        let mut notes = Notes::default();
        let data_dir = data_dir(options, &facts);
        let (place, data_meta, left_over) = {
            let data_dir = data_dir.clone();
            blocking(move || {
                let meta = look_at(&data_dir)?;
                let left_over = snapshot::sweep(&data_dir);
                Ok((data_dir, meta, left_over))
            })
            .await?
        };
        tell_left_overs(&left_over, &mut notes);
        let taken = take(id, options, &server, &facts, &place, &mut notes, context).await?;
        let files = {
            let (options, facts, rendered) = (options.clone(), facts.clone(), rendered.clone());
            let (files, found) = blocking(move || {
                let mut notes = Notes::default();
                let files = config_files::find(&options, &facts, &rendered, &mut notes)?;
                Ok((files, notes))
            })
            .await?;
            notes.merge(found);
            files
        };
        let mut companions = Companions::begin(&files, context)?;
        let details = details(&facts, &data_dir, &taken, files);
        let bytes: u64 = details.blocks.iter().map(|block| block.bytes).sum();
        context.monitor.expect(id.as_str(), None, Some(bytes));
        let witness = Witness::new();
        let blocks = blocks::entries(taken.blocks, &data_meta)?;
        let documents = documents(&facts, rendered, context.clock.now())?;
        let all = blocks.into_iter().map(Ok).chain(companions.entries()).chain(documents.into_iter().map(Ok));
        Ok(Self {
            id: id.clone(),
            entries: Some(witness.watch(Box::new(all))),
            witness,
            notes,
            companions,
            held: taken.held,
            captured_at: taken.captured_at,
            details,
        })
    }
}

/// The data directory as this host sees it.
pub(super) fn data_dir(options: &PrometheusOptions, facts: &ServerFacts) -> PathBuf {
    options.data_dir.clone().unwrap_or_else(|| facts.data_dir())
}

/// Whether it is a data directory at all; asked before the server writes anything.
pub(super) fn look_at(data_dir: &Path) -> Result<fs::Metadata> {
    let fault = || {
        Fault::new(codes::PROM_DATA_DIR, format!("use the data directory `{}`", show(data_dir)))
            .hint("set `data-dir` to where the server's `--storage.tsdb.path` is on this host (for a container: the path of its volume)")
    };
    let meta = fs::metadata(data_dir).map_err(|error| fault().because(error))?;
    let known = ["wal", "chunks_head"].iter().any(|name| data_dir.join(name).is_dir());
    if !meta.is_dir() || !(known || blocks::names(data_dir).is_ok_and(|names| !names.is_empty())) {
        return Err(fault().because("it holds neither `wal` nor blocks"));
    }
    Ok(meta)
}

fn tell_left_overs(found: &[LeftOver], notes: &mut Notes) {
    for one in found {
        tracing::warn!("{}", one.text());
        notes.add(NoteClass::Information, "", one.text());
    }
}

async fn take(
    id: &ComponentId,
    options: &PrometheusOptions,
    server: &Server,
    facts: &ServerFacts,
    data_dir: &Path,
    notes: &mut Notes,
    context: &RunContext,
) -> Result<Taken> {
    let head = server.head().await?;
    if options.method != Method::Blocks {
        if facts.has_admin_api()
            && let Some(taken) = by_snapshot(id, server, facts, data_dir, head, context).await?
        {
            return Ok(taken);
        }
        if options.method == Method::Snapshot {
            return Err(Fault::new(
                codes::PROM_ADMIN_API,
                format!("make a snapshot of the Prometheus at {}", server.address()),
            )
            .because("it runs without its admin API")
            .hint("start it with `--web.enable-admin-api`, or leave `method` out to save the immutable blocks only"));
        }
    }
    context.monitor.phase(id.as_str(), "open the blocks");
    let directory = data_dir.to_owned();
    let blocks = blocking(move || blocks::all_live(&directory)).await?;
    let newest = blocks.iter().map(|block| block.facts.max_time).max();
    let why = if options.method == Method::Blocks { "`method` is `blocks`" } else { "the admin API is off" };
    note_head(&blocks, head, why, notes);
    let now = context.clock.now();
    // The data stands for the end of the newest block, not for the moment of the backup.
    let stands_for = newest.and_then(|time| jiff::Timestamp::from_millisecond(time).ok()).filter(|time| *time < now);
    Ok(Taken {
        blocks,
        held: None,
        captured_at: stands_for.unwrap_or(now),
        method: "blocks",
        head_left_out: head.series,
    })
}

/// Says what of the data is not in blocks yet.
fn note_head(blocks: &[Block], head: Head, why: &str, notes: &mut Notes) {
    if head.series == 0 {
        return;
    }
    let since = head.min_time.and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
    let since = since.map_or_else(|| "the newest block on".to_owned(), |time| format!("{time:.0} on"));
    let text = format!(
        "{why}: only finished blocks were saved; the samples of {} series from {since} are still in the server's head and are not in this point (up to about three hours). Start the server with `--web.enable-admin-api` to have them",
        head.series
    );
    // Without a single block nothing at all is saved: that is no complete point.
    let severity = if blocks.is_empty() { Severity::Partial } else { Severity::Note };
    notes.add_as(severity, NoteClass::Incomplete, "", text);
}

/// `None` when the server says that its admin API is off.
async fn by_snapshot(
    id: &ComponentId,
    server: &Server,
    facts: &ServerFacts,
    data_dir: &Path,
    head: Head,
    context: &RunContext,
) -> Result<Option<Taken>> {
    context.monitor.phase(id.as_str(), "snapshot");
    let (directory, run) = (data_dir.to_owned(), context.run.clone());
    let mut held = blocking(move || Held::prepare(&directory, &run)).await?;
    let captured_at = context.clock.now();
    held.asking();
    let name = match server.snapshot().await {
        Ok(SnapshotAnswer::Made(name)) => name,
        Ok(SnapshotAnswer::AdminApiOff) => {
            held.refused();
            return Ok(None);
        }
        Err(fault) => {
            // An answer that says no, against none at all.
            if fault.is(codes::PROM_SNAPSHOT) || fault.is(codes::PROM_AUTH) {
                held.refused();
            }
            return Err(fault);
        }
    };
    let (own, theirs) = (data_dir.to_owned(), facts.data_dir());
    let (held, blocks) = blocking(move || {
        held.made(&name)?;
        let found = held.directory().filter(|directory| directory.is_dir());
        let Some(directory) = found else {
            return Err(elsewhere(&own, &theirs, &name));
        };
        let blocks = blocks::all(&directory)?;
        Ok((held, blocks))
    })
    .await?;
    let samples: u64 = blocks.iter().map(|block| block.facts.samples).sum();
    if samples == 0 && head.chunks > 0 {
        return Err(Fault::new(
            codes::PROM_SNAPSHOT,
            format!("use the snapshot of the Prometheus at {}", server.address()),
        )
        .because(format!("it is empty, but the server holds {} series", head.series))
        .hint("run the backup again; look at the server's log"));
    }
    Ok(Some(Taken { blocks, held: Some(held), captured_at, method: "snapshot", head_left_out: 0 }))
}

/// The server made a snapshot, but not in this directory. Where its own directory can be reached, the
/// snapshot is removed there.
fn elsewhere(own: &Path, theirs: &Path, name: &str) -> Fault {
    let fault = Fault::new(codes::PROM_DATA_DIR, format!("find the snapshot `{name}` in `{}`", show(own)))
        .because("the server made it in another directory");
    let there = theirs.join("snapshots").join(name);
    if there.is_dir() && fs::remove_dir_all(&there).is_ok() {
        return fault.hint(format!("set `data-dir = \"{}\"`; the snapshot was removed there", show(theirs)));
    }
    fault.hint(format!(
        "set `data-dir` to where the server's `{}` is on this host, and remove the snapshot there: `rm -r {}`",
        show(theirs),
        show(&there)
    ))
}

fn details(facts: &ServerFacts, data_dir: &Path, taken: &Taken, files: Vec<PathBuf>) -> PrometheusDetails {
    let blocks: Vec<_> = taken.blocks.iter().map(|block| block.facts.clone()).collect();
    PrometheusDetails {
        version: DETAILS_VERSION,
        server_version: facts.version.clone(),
        method: taken.method.to_owned(),
        data_dir: data_dir.to_owned(),
        retention: facts.retention.clone(),
        min_time: blocks.iter().map(|block| block.min_time).min(),
        max_time: blocks.iter().map(|block| block.max_time).max(),
        samples: blocks.iter().map(|block| block.samples).sum(),
        series: blocks.iter().map(|block| block.series).sum(),
        blocks,
        head_series_left_out: taken.head_left_out,
        files,
    }
}

/// What the server said about itself, in the order of the names.
fn documents(facts: &ServerFacts, rendered: String, at: jiff::Timestamp) -> Result<Vec<Entry>> {
    let said =
        json!({ "version": 1, "server_version": facts.version, "flags": facts.flags, "retention": facts.retention });
    let said = serde_json::to_vec_pretty(&said)
        .map_err(|error| Fault::new(codes::RUN_BUG, "write a JSON document").because(error))?;
    Ok(vec![document("server-config.yml", rendered.into_bytes(), at)?, document("server.json", said, at)?])
}

#[async_trait]
impl Capture for PrometheusCapture {
    fn entries(&mut self) -> Entries {
        self.entries.take().unwrap_or_else(|| Box::new(std::iter::empty()))
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        let mut this = *self;
        this.notes.merge(this.companions.notes());
        if let Some(held) = this.held.take() {
            let removed = blocking(move || Ok(held.remove())).await?;
            if let Err(error) = removed {
                let text = format!("the snapshot could not be removed ({error}); the next run tries again");
                tracing::warn!("{text}");
                this.notes.add(NoteClass::Information, "snapshots", text);
            }
        }
        let details = serde_json::to_value(&this.details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the details").because(error))?;
        CaptureProof::new(this.id, ComponentKind::Prometheus, &this.witness, this.notes, this.captured_at, details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "finish the capture of Prometheus").because(error))
    }

    async fn abort(self: Box<Self>) {
        // Dropping it removes the snapshot.
        let _ = blocking(move || {
            drop(self);
            Ok(())
        })
        .await;
    }
}
