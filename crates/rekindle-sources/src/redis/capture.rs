//! A running capture: the documents around the keys, and the RDB stream among them.

use std::io::{Cursor, Read};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use rekindle_core::entry::{Closing, Content, ContentRead, Entries, Entry, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::port::{Capture, RunContext};
use rekindle_core::proof::CaptureProof;
use rekindle_core::witness::Witness;
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

use super::client::Client;
use super::details::{DETAILS_VERSION, RedisDetails};
use super::options::RedisOptions;
use super::rdb::summary::{RdbSummary, truncated};
use super::surroundings::Surroundings;
use super::sync::{self, Finished, Framing, RdbRead};

/// Name of the entry that holds the keys.
pub(crate) const DUMP: &str = "dump.rdb";
/// Newest RDB versions the format table was run against, per line.
const TESTED_REDIS: u16 = 12;
const TESTED_VALKEY: u16 = 80;
/// A file the server had begun longer ago than this before it answered is not believed.
const OLDEST_FORK_SECONDS: i64 = 24 * 3600;

pub(crate) struct RedisCapture {
    id: ComponentId,
    witness: Witness,
    notes: Notes,
    surroundings: Surroundings,
    framing: Framing,
    /// When the stream began.
    answered_at: jiff::Timestamp,
    finished: Finished,
    entries: Option<Entries>,
}

impl RedisCapture {
    /// Collects the documents, then starts the synchronisation. Blocking.
    pub(crate) fn begin(id: &ComponentId, options: &RedisOptions, context: &RunContext) -> Result<Self> {
        let endpoint = options.endpoint(None)?;
        context.monitor.phase(id.as_str(), "connect");
        let mut client = Client::connect(&endpoint, options, &context.cancel)?;
        let mut notes = Notes::default();
        let surroundings = Surroundings::collect(&mut client, &mut notes)?;
        surroundings_notes(&surroundings, &mut notes);
        context.monitor.phase(id.as_str(), "synchronise");
        let framing = sync::start(&mut client, surroundings.facts.get("valkey_version"), &context.cancel)?;
        let answered_at = context.clock.now();
        if let Framing::Length(length) = framing {
            context.monitor.expect(id.as_str(), None, Some(length));
        }
        let witness = Witness::new();
        let finished = Finished::default();
        let meta = Meta::synthetic(EntryKind::File, answered_at);
        let dump = RdbRead::new(client, framing.clone(), answered_at.as_millisecond(), meta, Arc::clone(&finished));
        let entries = entries(&surroundings, Box::new(dump), answered_at)?;
        Ok(Self {
            id: id.clone(),
            entries: Some(witness.watch(entries)),
            witness,
            notes,
            surroundings,
            framing,
            answered_at,
            finished,
        })
    }

    fn details(&self, rdb: RdbSummary) -> RedisDetails {
        let facts = &self.surroundings.facts;
        let (server, server_version) =
            match (facts.sections.is_empty(), rdb.aux.get("redis-ver").or_else(|| rdb.aux.get("valkey-ver"))) {
                (true, Some(version)) => (rdb.magic.to_lowercase(), version.clone()),
                _ => facts.server(),
            };
        let said = |name: &str| facts.get(name).map(ToOwned::to_owned);
        RedisDetails {
            version: DETAILS_VERSION,
            server,
            server_version,
            mode: said("redis_mode").or_else(|| said("server_mode")).unwrap_or_else(|| "unknown".to_owned()),
            role: said("role").unwrap_or_else(|| "unknown".to_owned()),
            replication_id: said("master_replid"),
            replication_offset: said("master_repl_offset").and_then(|text| text.parse().ok()),
            appendonly: self.surroundings.appendonly(),
            files: self.surroundings.file_names(),
            modules: self.surroundings.modules.clone(),
            last_bgsave: said("rdb_last_bgsave_status"),
            last_aof_write: said("aof_last_write_status"),
            forked_at: fork_moment(&self.framing, self.answered_at, &rdb),
            framing: self.framing.as_str().to_owned(),
            rdb,
        }
    }
}

/// Without a file in between the server forks right before it answers; with one, it had forked
/// before it wrote, and the file says when (`ctime`, by the server's clock).
fn fork_moment(framing: &Framing, answered_at: jiff::Timestamp, rdb: &RdbSummary) -> jiff::Timestamp {
    if matches!(framing, Framing::Mark(_)) {
        return answered_at;
    }
    let written = rdb.aux.get("ctime").and_then(|text| text.parse().ok());
    let written = written.and_then(|second| jiff::Timestamp::from_second(second).ok());
    match written {
        Some(at) if at <= answered_at && answered_at.as_second() - at.as_second() <= OLDEST_FORK_SECONDS => at,
        _ => answered_at,
    }
}

fn surroundings_notes(found: &Surroundings, notes: &mut Notes) {
    let facts = &found.facts;
    let mut tell = |text: &str| notes.add(NoteClass::Information, "", text);
    if facts.says("cluster_enabled", "1") {
        tell("the server is a node of a cluster: only the slots it serves are captured");
    }
    if facts.says("role", "slave") {
        tell("the server is a replica: its data may be behind its primary");
    }
    if facts.says("master_link_status", "down") {
        tell("the replica has no link to its primary: its data may be old");
    }
    if facts.says("rdb_last_bgsave_status", "err") {
        tell("the server's own last background save failed; this capture does not depend on it");
    }
    if facts.says("aof_last_write_status", "err") {
        tell("the server's last write to its append-only file failed");
    }
}

fn entries(found: &Surroundings, dump: Box<dyn ContentRead>, at: jiff::Timestamp) -> Result<Entries> {
    let (before, after) = found.documents()?;
    let document = |(name, bytes): (&str, Vec<u8>)| {
        let meta = Meta { size: bytes.len() as u64, ..Meta::synthetic(EntryKind::File, at) };
        let content = Box::new(Document { bytes: Cursor::new(bytes), meta: meta.clone() });
        entry(name, meta, content)
    };
    let mut all = Vec::new();
    for given in before {
        all.push(document(given)?);
    }
    all.push(entry(DUMP, Meta::synthetic(EntryKind::File, at), dump)?);
    for given in after {
        all.push(document(given)?);
    }
    Ok(Box::new(all.into_iter().map(Ok)))
}

fn entry(name: &str, meta: Meta, content: Box<dyn ContentRead>) -> Result<Entry> {
    let path = EntryPath::new(name).map_err(|error| Fault::new(codes::RUN_BUG, "name an entry").because(error))?;
    Ok(Entry { path, meta, content: Content::Stream(content) })
}

/// A small entry that is in memory.
struct Document {
    bytes: Cursor<Vec<u8>>,
    meta: Meta,
}

impl ContentRead for Document {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        self.bytes
            .read(buffer)
            .map_err(|error| ReadFault::Abort(Fault::new(codes::RUN_BUG, "read a document").because(error)))
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}

#[async_trait]
impl Capture for RedisCapture {
    fn entries(&mut self) -> Entries {
        self.entries.take().unwrap_or_else(|| Box::new(std::iter::empty()))
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        let mut this = *self;
        let counted = this.finished.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rdb = counted.ok_or_else(|| truncated(0))?;
        let tested = if rdb.magic == "VALKEY" { TESTED_VALKEY } else { TESTED_REDIS };
        if rdb.version > tested {
            this.notes.add(
                NoteClass::Information,
                DUMP,
                format!("RDB version {} is newer than rekindle was tested with", rdb.version),
            );
        }
        let details = this.details(rdb);
        let encoded = serde_json::to_value(&details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the details").because(error))?;
        CaptureProof::new(this.id.clone(), ComponentKind::Redis, &this.witness, this.notes, details.forked_at, encoded)
            .map_err(|error| Fault::new(codes::REDIS_TRUNCATED, "finish the capture").because(error))
    }

    async fn abort(self: Box<Self>) {
        // Dropping the connection ends the child of the server that writes to it.
    }
}
