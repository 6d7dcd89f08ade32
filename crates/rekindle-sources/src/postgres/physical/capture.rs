//! A capture: the server is asked, the backup starts, its bytes are pulled, the proof at the end.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::entry::Entries;
use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::port::{Capture, Previous, RunContext, StoreShape};
use rekindle_core::proof::{CaptureProof, hex};
use rekindle_core::wal::{BaseBackup, Hold, Owner, SlotName, Tablespace, WalLog};
use rekindle_core::witness::Witness;
use rekindle_core::{Cancel, ComponentId, ComponentKind, Fault, PointId, Result, codes};

use super::details::{PHYSICAL_DETAILS_VERSION, PhysicalDetails, Taken};
use super::entries::{BaseEntries, Before, DATA, Ended, EndedSlot, Expected};
use super::manifest::{BackupManifest, MANIFEST_NAME};
use super::preflight::{self, Facts, INCREMENTAL_MAJOR, SlotFound};
use super::{PhysicalOptions, chunk_bytes, cover};
use crate::postgres::blocking;
use crate::postgres::replication::{
    BaseCommand, BaseEnd, BaseStart, BaseStream, Checkpoint, Replication, ReplicationOptions, ServerError, server_error,
};

/// WAL that the backup needs is kept so long by a hold, from its begin, and from its end on: by then it
/// is a point, which retention knows by itself.
const HOLD: Duration = Duration::from_hours(48);
const HOLD_AFTER: Duration = Duration::from_hours(1);
/// Longest manifest of an earlier point that is read back.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// A backup that has begun.
struct Begun {
    facts: Facts,
    stream: BaseStream,
    before: Option<Before>,
    taken: Taken,
    /// By the server's clock, before the backup began.
    started: jiff::Timestamp,
    slot: SlotFound,
    log: Option<HeldLog>,
}

/// The log of the cluster, with the hold that keeps retention away from what the backup needs.
#[derive(Clone)]
struct HeldLog {
    log: Arc<dyn WalLog>,
    hold: Hold,
}

/// Starts a base backup.
pub(in crate::postgres) async fn begin(
    id: &ComponentId,
    server: ReplicationOptions,
    options: &PhysicalOptions,
    previous: Option<Previous>,
    context: &RunContext,
) -> Result<Box<dyn Capture>> {
    context.monitor.phase(id.as_str(), "checkpoint");
    let (options, cancel) = (options.clone(), context.cancel.clone());
    let (owner, run_options, server_options) =
        (Owner { stack: options.stack.clone(), component: id.clone() }, options.clone(), server.clone());
    let meanwhile = SlotName::derived("base", &format!("{}_{id}", context.run));
    let begun =
        blocking(move || start(&owner, &server_options, &run_options, &meanwhile, previous.as_ref(), &cancel)).await?;
    Ok(Box::new(PhysicalCapture::new(id.clone(), server, options, begun, context)))
}

fn start(
    owner: &Owner,
    server: &ReplicationOptions,
    options: &PhysicalOptions,
    meanwhile: &SlotName,
    previous: Option<&Previous>,
    cancel: &Cancel,
) -> Result<Begun> {
    let mut session = Replication::connect(server, cancel)?;
    let facts = preflight::facts(&mut session)?;
    preflight::check(&facts, options, &server.url.to_string())?;
    let log = match &options.archive {
        Some(open) if options.wal.keeps_log() => {
            let log = open()?.bind(owner, facts.cluster)?;
            let why = format!("a base backup of `{}` runs", owner.component);
            let hold = log.hold(facts.identity.timeline, facts.identity.position, &why, HOLD)?;
            Some(HeldLog { log, hold })
        }
        _ => None,
    };
    let slot = preflight::slot(&mut session, options)?;
    let (started, mut session) = session.clock()?;
    keep_wal(&mut session, meanwhile)?;
    let full = BaseCommand {
        label: format!("rekindle {}", owner.component),
        checkpoint: Checkpoint::Fast,
        wal: true,
        incremental: false,
        max_rate: None,
    };
    let begun = |stream, before, taken| Begun { facts: facts.clone(), stream, before, taken, started, slot, log };
    let why = match base_of(previous, &facts) {
        Err(why) => why,
        Ok((point, before, text)) => {
            let command = BaseCommand { incremental: true, ..full.clone() };
            match upload_and_start(session, &text, &command) {
                Ok(stream) => return Ok(begun(stream, Some(before), Taken::Incremental { since: point })),
                // Whatever the server has against it: a full backup is always right. What is
                // wrong with the server or the network will show again.
                Err(fault) => {
                    cancel.check()?;
                    let mut session = Replication::connect(server, cancel)?;
                    keep_wal(&mut session, meanwhile)?;
                    let stream = session.base_backup(&full)?;
                    return Ok(begun(stream, None, Taken::Full { why: fault.chain() }));
                }
            }
        }
    };
    let stream = session.base_backup(&full)?;
    Ok(begun(stream, None, Taken::Full { why }))
}

/// Keeps the server from removing WAL that the backup is going to send at its end. Without a free
/// slot the backup is tried all the same: when WAL is gone by then, the server says so.
fn keep_wal(session: &mut Replication, meanwhile: &SlotName) -> Result<()> {
    match session.keep_wal(meanwhile) {
        // A session that failed before may still be ending on the server.
        Err(fault) if server_error(&fault).is_some_and(|error| error.is_duplicate() || error.is_no_slot_free()) => {
            Ok(())
        }
        other => other,
    }
}

fn upload_and_start(mut session: Replication, manifest: &[u8], command: &BaseCommand) -> Result<BaseStream> {
    session.upload_manifest(manifest)?;
    session.base_backup(command)
}

/// The earlier point to build on, with the text of its manifest; or why there is none.
fn base_of(previous: Option<&Previous>, facts: &Facts) -> Result<(PointId, Before, Vec<u8>), String> {
    if facts.version / 10_000 < INCREMENTAL_MAJOR {
        return Err(format!("PostgreSQL {INCREMENTAL_MAJOR} or newer is needed to send changes only"));
    }
    if !facts.summaries {
        return Err("`summarize_wal` of the server is off".to_owned());
    }
    let previous = previous.ok_or("there is no earlier point without loss")?;
    let unreadable = |what: &str, error: String| format!("{what} of the earlier point cannot be read: {error}");
    let details = match PhysicalDetails::of(&previous.record.details) {
        None => return Err("the earlier point is no base backup".to_owned()),
        Some(Err(error)) => return Err(unreadable("the record", error.to_string())),
        Some(Ok(details)) => details,
    };
    if details.base.cluster.system != facts.cluster.system {
        return Err("the earlier point is of another cluster".to_owned());
    }
    if details.base.timeline != facts.identity.timeline {
        return Err("the earlier point is of another timeline".to_owned());
    }
    if details.block_bytes != facts.block || details.base.server_version / 10_000 != facts.version / 10_000 {
        return Err("the earlier point is of another version of the server".to_owned());
    }
    let part = previous.open().map_err(|fault| unreadable("the content", fault.chain()))?;
    let text = read_manifest(&*part).map_err(|fault| unreadable("the manifest", fault.chain()))?;
    let manifest = BackupManifest::parse(&text).map_err(|fault| unreadable("the manifest", fault.chain()))?;
    Ok((previous.point.clone(), Before { part, manifest, block: facts.block }, text))
}

fn read_manifest(part: &dyn rekindle_core::port::PartReader) -> Result<Vec<u8>> {
    let what = || format!("read `{DATA}/{MANIFEST_NAME}`");
    let path = rekindle_core::entry::EntryPath::new(format!("{DATA}/{MANIFEST_NAME}"))
        .map_err(|bad| Fault::new(codes::RUN_BUG, what()).because(bad))?;
    let mut content = part.open(&path)?;
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(text),
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(rekindle_core::entry::ReadFault::Abort(fault)) => return Err(fault),
            Err(rekindle_core::entry::ReadFault::Skip) => return Err(Fault::new(codes::REPO_DAMAGED, what())),
        }
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Fault::new(codes::PG_BASE, what()).because("it is too long"));
        }
    }
}

/// The running capture.
struct PhysicalCapture {
    id: ComponentId,
    server: ReplicationOptions,
    options: PhysicalOptions,
    facts: Facts,
    start: BaseStart,
    taken: Taken,
    started: jiff::Timestamp,
    slot: SlotFound,
    log: Option<HeldLog>,
    chunk_bytes: usize,
    entries: Option<Entries>,
    ended: EndedSlot,
    witness: Witness,
    context: RunContext,
}

impl PhysicalCapture {
    fn new(
        id: ComponentId,
        server: ReplicationOptions,
        options: PhysicalOptions,
        begun: Begun,
        context: &RunContext,
    ) -> Self {
        let Begun { facts, stream, before, taken, started, slot, log } = begun;
        let start = stream.start().clone();
        let size: u64 = start.tablespaces.iter().filter_map(|tablespace| tablespace.size_bytes).sum();
        context.monitor.expect(id.as_str(), None, Some(size));
        let ended = EndedSlot::default();
        let expected = Expected { system: facts.cluster.system, segment_size: facts.cluster.segment_size };
        let witness = Witness::new();
        let entries = witness.watch(Box::new(BaseEntries::new(stream, before, expected, Arc::clone(&ended))));
        Self {
            chunk_bytes: options.chunk_bytes.unwrap_or_else(|| chunk_bytes(size)),
            entries: Some(entries),
            context: context.clone(),
            id,
            server,
            options,
            facts,
            start,
            taken,
            started,
            slot,
            log,
            ended,
            witness,
        }
    }

    fn notes(&self, ended: &Ended) -> Notes {
        let mut notes = Notes::default();
        if let Some(damage) = &ended.end.damage {
            for warning in &ended.end.warnings {
                notes.add(NoteClass::Damaged, "", warning.message.clone());
            }
            if ended.end.warnings.is_empty() {
                notes.add(NoteClass::Damaged, "", damage.to_string());
            }
        } else {
            for warning in &ended.end.warnings {
                notes.add(NoteClass::Information, "", warning.to_string());
            }
        }
        if !self.options.wal.keeps_log() {
            notes.add(
                NoteClass::Information,
                "",
                "no WAL log is kept (`wal = \"none\"`): this point stands for itself, nothing after it can be recovered",
            );
        }
        if self.slot == SlotFound::Created {
            notes.add(NoteClass::Information, "", format!("the replication slot `{}` was made", self.options.slot));
        }
        notes
    }

    fn details(&self, ended: &Ended) -> PhysicalDetails {
        let external = self.start.tablespaces.iter().filter_map(|tablespace| {
            let path = tablespace.path.clone();
            Some(Tablespace { oid: tablespace.oid?, path })
        });
        PhysicalDetails {
            version: PHYSICAL_DETAILS_VERSION,
            method: "physical".to_owned(),
            server_version: self.facts.version_text.clone(),
            address: self.server.url.to_string(),
            standby: self.facts.standby,
            wal: self.options.wal,
            slot: self.options.wal.uses_slot().then(|| self.options.slot.clone()),
            taken: self.taken.clone(),
            transferred_bytes: ended.transferred,
            block_bytes: self.facts.block,
            chunk_bytes: self.chunk_bytes,
            manifest_sha256: hex(&ended.manifest_sha256),
            base: BaseBackup {
                cluster: self.facts.cluster,
                server_version: self.facts.version,
                timeline: ended.end.timeline,
                start: self.start.start,
                stop: ended.end.stop,
                started: self.started,
                stopped: ended.stopped,
                wal_ranges: ended.manifest.wal_ranges.clone(),
                tablespaces: external.collect(),
                checksums: self.facts.checksums,
                checksum_failures: failures(&ended.end),
            },
        }
    }

    /// What waits for the log. Blocking.
    fn wait_for_log(&self, ended: &Ended) -> Option<impl FnOnce() -> Result<()> + Send + 'static> {
        let held = self.log.clone()?;
        self.context.monitor.phase(self.id.as_str(), "wait for WAL");
        let (ranges, longest) = (ended.manifest.wal_ranges.clone(), self.options.cover_timeout);
        let (cancel, give_up) = (self.context.cancel.clone(), self.give_up());
        Some(move || match cover::wait(&held.log, &ranges, longest, &cancel) {
            Ok(()) => held.log.extend(&held.hold, HOLD_AFTER).map(drop),
            Err(fault) => {
                give_up();
                Err(fault)
            }
        })
    }

    /// What lets go of everything a backup that failed holds. Blocking. A slot of this run that
    /// nobody reads by now would fill the server's disk; dropping one that is in use fails, as it
    /// should.
    fn give_up(&self) -> impl FnOnce() + Send + 'static {
        let (held, server) = (self.log.clone(), self.server.clone());
        let (monitor, id) = (Arc::clone(&self.context.monitor), self.id.clone());
        let slot = (self.slot == SlotFound::Created).then(|| self.options.slot.clone());
        move || {
            if let Some(held) = held {
                // It expires by itself otherwise.
                let _ = held.log.release(&held.hold);
            }
            if let Some(slot) = slot {
                let dropped =
                    Replication::connect(&server, &Cancel::new()).and_then(|mut session| session.drop_idle_slot(&slot));
                if let Err(fault) = dropped.or_else(used_or_gone) {
                    monitor.problem(id.as_str(), &left_behind(&slot, &fault));
                }
            }
        }
    }
}

/// A receiver that took the slot over meanwhile keeps it, and one that is gone needs no dropping.
fn used_or_gone(fault: Fault) -> Result<()> {
    let fine = server_error(&fault).is_some_and(|error| error.is_in_use() || error.is_absent());
    if fine { Ok(()) } else { Err(fault) }
}

/// A slot that this run made and could not take back: somebody has to know.
fn left_behind(slot: &SlotName, fault: &Fault) -> Fault {
    Fault::new(codes::PG_REPLICATION, format!("drop the replication slot `{slot}` that this backup made"))
        .because(format!("{}; the server keeps WAL for it without end", fault.chain()))
        .hint(format!(
            "a slot that nobody reads fills the server's disk: start `rekindle wal stream`, or SELECT \
             pg_drop_replication_slot('{slot}')"
        ))
}

/// Pages that the server found damaged. It says the sum only when there are several, as a text
/// that begins with it, in whatever language it speaks.
fn failures(end: &BaseEnd) -> u64 {
    let number = |warning: &ServerError| {
        let digits: String = warning.message.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    match &end.damage {
        None => 0,
        Some(_) => end.warnings.iter().filter_map(number).max().unwrap_or(1).max(1),
    }
}

#[async_trait]
impl Capture for PhysicalCapture {
    fn entries(&mut self) -> Entries {
        self.entries.take().unwrap_or_else(|| Box::new(std::iter::empty()))
    }

    fn shape(&self) -> StoreShape {
        StoreShape { any_order: true, chunk_bytes: Some(self.chunk_bytes) }
    }

    async fn finish(self: Box<Self>) -> Result<CaptureProof> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended = ended
            .ok_or_else(|| Fault::new(codes::PG_BASE, "end the base backup").because("it was not read to its end"))?;
        if let Some(wait) = self.wait_for_log(&ended) {
            blocking(wait).await?;
        }
        let bug =
            |error: serde_json::Error| Fault::new(codes::RUN_BUG, "write the record of a base backup").because(error);
        let details = serde_json::to_value(self.details(&ended)).map_err(bug)?;
        let notes = self.notes(&ended);
        CaptureProof::new(self.id, ComponentKind::Postgres, &self.witness, notes, ended.stopped, details)
            .map_err(|bad| Fault::new(codes::RUN_BUG, "prove the base backup").because(bad))
    }

    async fn abort(self: Box<Self>) {
        // The connection ended with the entries, and the server gives up by itself.
        let give_up = self.give_up();
        let _ = blocking(move || {
            give_up();
            Ok(())
        })
        .await;
    }
}
