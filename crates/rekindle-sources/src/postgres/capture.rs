//! A capture: snapshots held open, dumps streamed one after the other, the proof at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::entry::{Closing, Content, ContentRead, Entries, Entry, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::note::{NoteClass, Notebook};
use rekindle_core::port::{Capture, RunContext};
use rekindle_core::proof::CaptureProof;
use rekindle_core::witness::Witness;
use rekindle_core::{Cancel, ComponentId, ComponentKind, Fault, Result, codes};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::access::Access;
use super::archive::{Contents, TocEntry};
use super::catalog;
use super::connect::{Server, Session};
use super::details::{DatabaseRecord, Details, ServerRecord, Table};
use super::dump::{self, ContentsSlot, DumpPlan};
use super::options::PostgresOptions;
use super::programs::Programs;
use crate::child::Stop;

/// How often a waiting `finish` looks at the cancel flag.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// Everything that `begin` made ready.
pub(super) struct Prepared {
    pub(super) id: ComponentId,
    pub(super) options: PostgresOptions,
    pub(super) server: Server,
    pub(super) programs: Programs,
    pub(super) access: Access,
    pub(super) details: Details,
    /// In the order of `details.databases`.
    pub(super) frozen: Vec<Frozen>,
    pub(super) globals: Option<Vec<u8>>,
    pub(super) notes: Notebook,
}

/// A database whose snapshot is held open.
pub(super) struct Frozen {
    pub(super) session: Session,
    pub(super) plan: DumpPlan,
}

type Counts = BTreeMap<(String, String), Rows>;

/// What is known of a table's rows.
#[derive(Debug, Clone, Copy)]
enum Rows {
    Counted(i64),
    /// Whether there are any.
    There(bool),
}

/// The contents of a database's dump, as soon as they are known.
type Early = oneshot::Receiver<Contents>;

/// The running capture.
pub(super) struct LogicalCapture {
    id: ComponentId,
    server: Server,
    details: Details,
    notes: Notebook,
    witness: Witness,
    stop: Stop,
    cancel: Cancel,
    entries: Option<Entries>,
    slots: Vec<ContentsSlot>,
    /// Holds the snapshots, counts rows, ends when every dump is done.
    counting: JoinHandle<Vec<Counts>>,
    cancellers: Vec<super::connect::Canceller>,
    /// Dropped to let the snapshots go.
    release: oneshot::Sender<()>,
}

impl LogicalCapture {
    pub(super) fn new(prepared: Prepared, context: &RunContext) -> Result<Self> {
        let Prepared { id, options, server, programs, access, details, frozen, globals, notes } = prepared;
        let stop = Stop::new(context.cancel.clone());
        let options = Arc::new(options);
        let mut items = Vec::new();
        let mut slots = Vec::new();
        let mut sessions = Vec::new();
        let mut cancellers = Vec::new();
        for (record, frozen) in details.databases.iter().zip(frozen) {
            let (early, receiver) = oneshot::channel();
            let slot = ContentsSlot::default();
            slots.push(Arc::clone(&slot));
            cancellers.push(frozen.session.canceller());
            sessions.push((frozen.session, receiver));
            items.extend(database_items(record, frozen.plan, early, slot)?);
        }
        if let Some(sql) = globals {
            items.push((path("globals.sql")?, Item::Bytes(sql)));
        }
        items.push((path("databases")?, Item::Directory));
        items.sort_by(|a, b| a.0.cmp(&b.0));
        let feed = Feed {
            id: id.clone(),
            context: context.clone(),
            options: Arc::clone(&options),
            programs,
            access,
            stop: stop.clone(),
            items: items.into_iter(),
        };
        let (release, released) = oneshot::channel();
        let counting = tokio::spawn(Box::pin(hold(sessions, options, notes.clone(), released)));
        let witness = Witness::new();
        let entries = Some(witness.watch(Box::new(feed)));
        Ok(Self {
            id,
            server,
            details,
            notes,
            witness,
            stop,
            cancel: context.cancel.clone(),
            entries,
            slots,
            counting,
            cancellers,
            release,
        })
    }

    /// Puts what the dumps and counts said into the record.
    fn complete(&mut self, counts: Vec<Counts>) -> Result<()> {
        let counts = counts.into_iter().chain(std::iter::repeat_with(Counts::new));
        for ((record, slot), counts) in self.details.databases.iter_mut().zip(&self.slots).zip(counts) {
            let contents = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(contents) = contents else {
                return Err(Fault::new(
                    codes::PG_TRUNCATED,
                    format!("end the capture of the database `{}`", record.name),
                )
                .because("its dump was not read to its end"));
            };
            let (major, minor) = contents.head.version;
            record.archive_version = format!("{major}.{minor}");
            record.owners = distinct(&contents, |entry| &entry.owner);
            record.tablespaces = distinct(&contents, |entry| &entry.tablespace);
            mark(&mut record.tables, &contents, &counts);
        }
        Ok(())
    }
}

/// The same server as at the start: a restart in between may have lost what was held.
async fn same_server(server: Server, before: ServerRecord) -> Result<()> {
    let session = server.connect(&server.url.database).await?;
    let after = catalog::server(&session, before.address.clone()).await?;
    let why = if after.system_identifier != before.system_identifier {
        format!(
            "another server answers at {}: system identifier {} instead of {}",
            before.address, after.system_identifier, before.system_identifier
        )
    } else if after.started != before.started {
        format!("the server was started again at {}", after.started)
    } else {
        return Ok(());
    };
    Err(Fault::new(codes::PG_RESTARTED, "end the capture")
        .because(why)
        .hint("see the server's log for why it restarted; then run again"))
}

/// What the entries say in one field, each once.
fn distinct(contents: &Contents, field: fn(&TocEntry) -> &String) -> Vec<String> {
    let values: BTreeSet<&String> = contents.entries.iter().map(field).collect();
    let values = values.into_iter().filter(|value| !value.is_empty());
    values.cloned().collect()
}

fn mark(tables: &mut [Table], contents: &Contents, counts: &Counts) {
    let dumped = dumped(contents);
    for table in tables {
        let name = (table.schema.clone(), table.name.clone());
        table.dumped = dumped.contains(&name);
        match counts.get(&name) {
            Some(Rows::Counted(count)) => (table.exact_rows, table.has_rows) = (Some(*count), Some(*count > 0)),
            Some(Rows::There(there)) => table.has_rows = Some(*there),
            None => {}
        }
    }
}

fn dumped(contents: &Contents) -> BTreeSet<(String, String)> {
    contents
        .entries
        .iter()
        .filter(|entry| entry.kind == "TABLE DATA")
        .map(|entry| (entry.schema.clone(), entry.name.clone()))
        .collect()
}

#[async_trait]
impl Capture for LogicalCapture {
    fn entries(&mut self) -> Entries {
        self.entries.take().unwrap_or_else(|| Box::new(std::iter::empty()))
    }

    async fn finish(mut self: Box<Self>) -> Result<CaptureProof> {
        drop(self.entries.take());
        let counts = loop {
            tokio::select! {
                counts = &mut self.counting => break counts,
                () = tokio::time::sleep(CANCEL_POLL) => if let Err(fault) = self.cancel.check() {
                    self.abort().await;
                    return Err(fault);
                }
            }
        };
        let counts =
            counts.map_err(|error| Fault::new(codes::RUN_BUG, "count the rows of the dumped tables").because(error))?;
        self.complete(counts)?;
        same_server(self.server.clone(), self.details.server.clone()).await?;
        let moments = self.details.databases.iter().map(|d| d.snapshot_at);
        let captured_at = moments.min().unwrap_or(self.details.server.started);
        let details = serde_json::to_value(&self.details)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write the record").because(error))?;
        CaptureProof::new(
            self.id.clone(),
            ComponentKind::Postgres,
            &self.witness,
            self.notes.notes(),
            captured_at,
            details,
        )
        .map_err(|error| Fault::new(codes::PG_TRUNCATED, "end the capture").because(error))
    }

    async fn abort(mut self: Box<Self>) {
        self.stop.give_up();
        self.entries = None;
        drop(self.release);
        for canceller in self.cancellers {
            if self.counting.is_finished() {
                break;
            }
            canceller.cancel().await;
        }
        self.counting.abort();
        // The sessions are closed when the task is gone; a panic in it changes nothing here.
        let _ = self.counting.await;
    }
}

/// Keeps every snapshot until its dump has passed its table of contents, counting rows when asked.
async fn hold(
    sessions: Vec<(Session, Early)>,
    options: Arc<PostgresOptions>,
    notes: Notebook,
    mut released: oneshot::Receiver<()>,
) -> Vec<Counts> {
    let mut all = Vec::new();
    for (session, early) in sessions {
        let contents = tokio::select! {
            contents = early => contents.ok(),
            _ = &mut released => return all,
        };
        let counts = match contents {
            Some(contents) => rows_of(&session, &contents, &options, &notes).await,
            None => Counts::new(),
        };
        all.push(counts);
    }
    all
}

/// What is known of the rows of every dumped table: their number when it is wanted, else whether there are any.
async fn rows_of(session: &Session, contents: &Contents, options: &PostgresOptions, notes: &Notebook) -> Counts {
    let mut counts = Counts::new();
    // Policies would hide rows from us; pg_dump refuses then, and so do we.
    let limits = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {}; SET LOCAL row_security = off",
        options.lock_timeout.as_millis()
    );
    let mut problem = session.run(&limits).await.err();
    let tables: Vec<(String, String)> = dumped(contents).into_iter().collect();
    if problem.is_none() && !options.exact_counts {
        match catalog::with_rows(session, &tables).await {
            Ok(there) => {
                counts.extend(tables.iter().cloned().zip(there.into_iter().map(Rows::There)));
            }
            Err(fault) => problem = Some(fault),
        }
    }
    for (schema, name) in tables.into_iter().filter(|_| options.exact_counts) {
        if problem.is_some() {
            break;
        }
        match catalog::count(session, &schema, &name).await {
            Ok(count) => {
                counts.insert((schema, name), Rows::Counted(count));
            }
            Err(fault) => problem = Some(fault),
        }
    }
    if let Some(fault) = problem {
        notes.add(
            NoteClass::Incomplete,
            contents.head.database.clone(),
            format!("rows are not counted from here on: {}", fault.chain()),
        );
    }
    counts
}

enum Item {
    Directory,
    Bytes(Vec<u8>),
    Dump(Box<(DumpPlan, oneshot::Sender<Contents>, ContentsSlot)>),
}

fn database_items(
    record: &DatabaseRecord,
    plan: DumpPlan,
    early: oneshot::Sender<Contents>,
    slot: ContentsSlot,
) -> Result<[(EntryPath, Item); 2]> {
    let description = serde_json::to_vec_pretty(&serde_json::json!({
        "version": super::details::DETAILS_VERSION,
        "name": record.name,
        "snapshot_at": record.snapshot_at,
        "lsn": record.lsn,
        "properties": record.properties,
        "extensions": record.extensions,
    }))
    .map_err(|error| Fault::new(codes::RUN_BUG, "describe the database").because(error))?;
    let beside = record.file.trim_end_matches(".dump");
    Ok([
        (path(&record.file)?, Item::Dump(Box::new((plan, early, slot)))),
        (path(&format!("{beside}.json"))?, Item::Bytes(description)),
    ])
}

fn path(text: &str) -> Result<EntryPath> {
    EntryPath::new(text).map_err(|error| Fault::new(codes::RUN_BUG, format!("name the entry `{text}`")).because(error))
}

/// The entries, each started when it is pulled.
struct Feed {
    id: ComponentId,
    context: RunContext,
    options: Arc<PostgresOptions>,
    programs: Programs,
    access: Access,
    stop: Stop,
    items: std::vec::IntoIter<(EntryPath, Item)>,
}

impl Feed {
    fn entry(&self, path: EntryPath, item: Item) -> Result<Entry> {
        let now = self.context.clock.now();
        let (meta, content) = match item {
            Item::Directory => (Meta::synthetic(EntryKind::Directory, now), Content::None),
            Item::Bytes(bytes) => {
                let meta = Meta::synthetic(EntryKind::File, now);
                let read = Memory { bytes, given: 0, meta: meta.clone() };
                (meta, Content::Stream(Box::new(read)))
            }
            Item::Dump(dump) => {
                let (plan, early, slot) = *dump;
                let phase = format!("dump {}", plan.database);
                self.context.monitor.phase(self.id.as_str(), &phase);
                let meta = Meta::synthetic(EntryKind::File, plan.moment.at);
                let read =
                    dump::start(plan, &self.options, &self.programs, &self.access, self.stop.clone(), early, slot)?;
                (meta, Content::Stream(Box::new(read)))
            }
        };
        Ok(Entry { path, meta, content })
    }
}

impl Iterator for Feed {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let (path, item) = self.items.next()?;
        Some(self.entry(path, item))
    }
}

/// Something small that is in memory.
struct Memory {
    bytes: Vec<u8>,
    given: usize,
    meta: Meta,
}

impl ContentRead for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let rest = &self.bytes[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}
