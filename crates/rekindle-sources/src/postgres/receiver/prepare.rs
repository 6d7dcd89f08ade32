//! What comes before a stream: who the server is, its histories, the slot, and where to go on.

use rekindle_core::wal::lineage::survey;
use rekindle_core::wal::{Cluster, Gap, History, Lsn, SegmentNumber, Timeline, WalLog};
use rekindle_core::{Cancel, Fault, Result, codes};

use super::resume::{Start, resume};
use super::{Ended, Memory, Receiver, left_timeline, slot_fault, stream};
use crate::postgres::replication::{Replication, ServerError, Slot, server_error};

/// One session with the server, from connecting to its end.
pub(super) fn session(receiver: &Receiver, cancel: &Cancel, memory: &mut Memory) -> Result<Ended> {
    if cancel.is_cancelled() {
        return Ok(Ended::Stopped);
    }
    // Not the flag of the run: a session that is asked to stop still has to say how far it came.
    let mut server = Replication::connect(&receiver.impatient(), &Cancel::new())?;
    let identity = server.identify()?;
    let cluster = Cluster { system: identity.system, segment_size: server.segment_size()? };
    let log = receiver.archive.bind(&receiver.owner, cluster)?;
    histories(receiver, &mut server, &*log, identity.timeline)?;
    let slot = slot(receiver, &mut server)?;
    let (inventory, lineage) = survey(&*log)?;
    for segment in &inventory.left_tails {
        log.drop_tail(*segment)?;
    }
    let left = left_timeline(&inventory, identity.timeline);
    if let Some(text) = left.as_ref().filter(|_| memory.warned != left) {
        receiver.listener.warning(text);
    }
    memory.warned = left;
    let start = resume(&inventory, &lineage, identity.timeline, slot);
    match stream::run(receiver, server, &*log, start, cancel, memory) {
        Err(fault) if server_error(&fault).is_some_and(ServerError::is_wal_removed) => {
            removed(receiver, &*log, start, slot, &fault)
        }
        Err(fault) => Err(slot_fault(fault, &receiver.options.slot)),
        ended => ended,
    }
}

/// Every history up the chain that the log does not have yet, the server's own timeline first:
/// without them nothing can be recovered past a promotion.
fn histories(receiver: &Receiver, server: &mut Replication, log: &dyn WalLog, timeline: Timeline) -> Result<()> {
    if timeline.0 <= 1 {
        return Ok(());
    }
    let bytes = if let Some(bytes) = log.history(timeline)? {
        bytes
    } else {
        let file = server.timeline_history(timeline)?;
        log.put_history(timeline, &file.content)?;
        file.content
    };
    let history = History::parse(timeline, &bytes).map_err(|bad| {
        Fault::new(codes::WAL_HISTORY, format!("read the history of timeline {timeline}")).because(bad)
    })?;
    for ancestor in history.0.iter().map(|switch| switch.parent).filter(|ancestor| ancestor.0 > 1) {
        if log.history(ancestor)?.is_some() {
            continue;
        }
        match server.timeline_history(ancestor) {
            Ok(file) => {
                log.put_history(ancestor, &file.content)?;
            }
            // A server that was restored has only its own.
            Err(fault) => {
                receiver
                    .listener
                    .warning(&format!("the history of timeline {ancestor} is not on the server: {fault:#}"));
            }
        }
    }
    Ok(())
}

/// Makes sure that the server keeps WAL for us; gives the position from which on it does.
fn slot(receiver: &Receiver, server: &mut Replication) -> Result<Lsn> {
    let name = &receiver.options.slot;
    let known = server.read_slot(name)?;
    if let Some(Slot { restart: Some(restart), .. }) = known {
        return Ok(restart);
    }
    if known.is_some() {
        receiver
            .listener
            .warning(&format!("the replication slot `{name}` was invalidated by the server; a new one is made"));
        server.drop_slot(name).map_err(|fault| slot_fault(fault, name))?;
    }
    match server.create_slot(name) {
        Err(fault) if server_error(&fault).is_some_and(ServerError::is_duplicate) => {}
        other => other?,
    }
    let made = server.read_slot(name)?.and_then(|slot| slot.restart);
    made.ok_or_else(|| {
        Fault::new(codes::WAL_STREAM, format!("make the replication slot `{name}`"))
            .because("the server reserves no WAL for it")
    })
}

/// The server does not have what comes next. When the slot is a good one, what lies before it is
/// lost for good: that is recorded, and the log goes on where the slot begins.
fn removed(receiver: &Receiver, log: &dyn WalLog, start: Start, slot: Lsn, fault: &Fault) -> Result<Ended> {
    let size = log.cluster().segment_size;
    let to = SegmentNumber::of(slot, size).start(size);
    if start.from >= to {
        // The slot itself is lost; the next session makes a new one.
        receiver.listener.problem(fault);
        return Ok(Ended::Again);
    }
    let why = format!("the server removed the WAL before it was received ({})", fault.chain());
    let gap = Gap { timeline: start.timeline, from: start.head, to, noticed: receiver.clock.now(), why };
    log.put_gap(&gap)?;
    receiver.listener.gap(&gap);
    Ok(Ended::Again)
}
