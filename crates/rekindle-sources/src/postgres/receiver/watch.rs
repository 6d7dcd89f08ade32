//! Looks at the server beside the stream: its slot, its disk, its archiver.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use rekindle_core::wal::lineage::timelines;
use rekindle_core::wal::{Inventory, Lsn, SlotName, SystemId, Timeline};
use rekindle_core::{Cancel, Result};
use serde::Serialize;

use super::{Receiver, pause};
use crate::postgres::replication::{ReplicationOptions, Rows, Sql};

/// A slot is in danger when fewer than so many bytes may still be written: two usual segments.
const SAFE_BYTES_MIN: i64 = 32 << 20;

/// What a server says about its WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerFacts {
    pub system: Option<SystemId>,
    pub timeline: Option<Timeline>,
    /// Behind the last byte that is safe on the server's disk.
    pub position: Lsn,
    pub in_recovery: bool,
    pub archive_mode: String,
    pub archiver: ArchiverFacts,
    pub slot: Option<SlotFacts>,
    /// Bytes; `None`: the server keeps WAL for a slot without a limit.
    pub keep_bytes_max: Option<i64>,
    /// Seconds after which the server drops a slot that nobody uses; 0: never.
    pub idle_slot_seconds: i64,
}

/// What `pg_stat_archiver` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiverFacts {
    pub archived: i64,
    pub failed: i64,
    pub last_archived: Option<String>,
    pub last_failed: Option<String>,
    /// The last thing it did was to fail.
    pub failing: bool,
}

/// A slot, as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotFacts {
    pub name: String,
    pub active: bool,
    pub restart: Option<Lsn>,
    pub wal_status: Option<String>,
    /// Bytes that may be written before WAL is dropped that the slot needs.
    pub safe_bytes: Option<i64>,
    /// How long the last WAL took to be confirmed, in milliseconds, as the server measured.
    pub lag_ms: Option<i64>,
    /// How long ago the server heard of the receiver, in milliseconds.
    pub silent_ms: Option<i64>,
}

const QUERY: &str = "\
SELECT (SELECT system_identifier FROM pg_control_system()), \
CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint()) \
ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END, \
CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END, \
pg_is_in_recovery(), current_setting('archive_mode'), a.archived_count, a.failed_count, a.last_archived_wal, \
a.last_failed_wal, coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false), \
(SELECT setting::bigint * 1048576 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), \
coalesce((SELECT setting::bigint * CASE unit WHEN 'min' THEN 60 ELSE 1 END FROM pg_settings \
WHERE name = 'idle_replication_slot_timeout'), 0) FROM pg_stat_archiver a";

/// Asks a server. Over a connection of its own.
pub fn server_facts(options: &ReplicationOptions, slot: Option<&SlotName>, cancel: &Cancel) -> Result<ServerFacts> {
    let what = format!("ask {} about its WAL", options.url);
    let mut sql = Sql::connect(options, cancel)?;
    let answer = sql.rows(&what, QUERY)?;
    let text = |column: usize| value(&answer, column);
    let number = |column: usize| text(column).and_then(|value| value.parse::<i64>().ok());
    let keep = number(10);
    let slot = match slot {
        Some(name) => slot_facts(&mut sql, name)?,
        None => None,
    };
    Ok(ServerFacts {
        // The catalogue shows it as a signed number.
        system: number(0).map(|system| SystemId(system.cast_unsigned())),
        timeline: number(1).and_then(|timeline| u32::try_from(timeline).ok()).map(Timeline),
        position: text(2).and_then(|position| position.parse().ok()).unwrap_or_default(),
        in_recovery: text(3).as_deref() == Some("t"),
        archive_mode: text(4).unwrap_or_default(),
        archiver: ArchiverFacts {
            archived: number(5).unwrap_or(0),
            failed: number(6).unwrap_or(0),
            last_archived: text(7),
            last_failed: text(8),
            failing: text(9).as_deref() == Some("t"),
        },
        slot,
        keep_bytes_max: keep.filter(|bytes| *bytes >= 0),
        idle_slot_seconds: number(11).unwrap_or(0),
    })
}

/// A value of the first row; `None` for NULL.
fn value(answer: &Rows, column: usize) -> Option<String> {
    let bytes = answer.rows.first()?.get(column)?.as_ref()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn slot_facts(sql: &mut Sql, name: &SlotName) -> Result<Option<SlotFacts>> {
    // A slot's name has no character that would have to be quoted.
    let query = format!(
        "SELECT s.active, s.restart_lsn, s.wal_status, s.safe_wal_size, \
         (extract(epoch FROM r.flush_lag) * 1000)::bigint, \
         (extract(epoch FROM clock_timestamp() - r.reply_time) * 1000)::bigint \
         FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = '{name}'"
    );
    let answer = sql.rows(&format!("read the replication slot `{name}`"), &query)?;
    if answer.rows.is_empty() {
        return Ok(None);
    }
    let text = |column: usize| value(&answer, column);
    Ok(Some(SlotFacts {
        name: name.to_string(),
        active: text(0).as_deref() == Some("t"),
        restart: text(1).and_then(|at| at.parse().ok()),
        wal_status: text(2),
        safe_bytes: text(3).and_then(|bytes| bytes.parse().ok()),
        lag_ms: text(4).and_then(|ms| ms.parse().ok()),
        silent_ms: text(5).and_then(|ms| ms.parse().ok()),
    }))
}

/// What somebody should know about the slot and the server's disk.
pub fn warnings(facts: &ServerFacts) -> Vec<String> {
    let mut found = Vec::new();
    if facts.keep_bytes_max.is_none() {
        found.push(
            "`max_slot_wal_keep_size` is not set: while nobody receives, WAL can fill the server's disk. \
             Set it to about half of the free space of pg_wal, for example \
             ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()"
                .to_owned(),
        );
    }
    if facts.idle_slot_seconds > 0 {
        found.push(format!(
            "`idle_replication_slot_timeout` is {} s: a receiver that is away for longer loses its slot",
            facts.idle_slot_seconds
        ));
    }
    if let Some(slot) = &facts.slot {
        match slot.wal_status.as_deref() {
            Some("unreserved") => {
                found.push(format!(
                    "the slot `{}` is about to be lost: the server may drop its WAL any moment",
                    slot.name
                ));
            }
            Some("lost") => found.push(format!("the slot `{}` is lost: the server dropped its WAL", slot.name)),
            _ if slot.safe_bytes.is_some_and(|bytes| bytes < SAFE_BYTES_MIN) => {
                found.push(format!("the slot `{}` is close to `max_slot_wal_keep_size`", slot.name));
            }
            _ => {}
        }
    }
    found
}

/// What somebody should know when the log holds WAL of a newer timeline than the server's: another server
/// was promoted (a copy, or a standby while this one went on), and recovery follows the newest timeline.
pub fn left_timeline(inventory: &Inventory, server: Timeline) -> Option<String> {
    let newest = timelines(inventory).into_iter().max().filter(|newest| *newest > server)?;
    Some(format!(
        "the server is on timeline {server}, and the log goes on with timeline {newest}: another server was promoted. \
         Recovery follows timeline {newest}; what this server writes is reached with --timeline {server} only. If both \
         run, stop the wrong one"
    ))
}

/// Looks now and then until `over`; each warning is given once, until it has gone away.
pub(super) fn watch(receiver: &Receiver, over: &AtomicBool) {
    let mut given: BTreeSet<String> = BTreeSet::new();
    let mut wait = std::time::Duration::from_secs(2);
    loop {
        pause(wait.min(receiver.options.watch_every), || over.load(Ordering::Relaxed));
        if over.load(Ordering::Relaxed) {
            return;
        }
        wait = receiver.options.watch_every;
        // A server that does not answer is told by the stream.
        let Ok(facts) = server_facts(&receiver.options.server, Some(&receiver.options.slot), &Cancel::new()) else {
            continue;
        };
        let now: BTreeSet<String> = warnings(&facts).into_iter().collect();
        for text in now.difference(&given) {
            receiver.listener.warning(text);
        }
        given = now;
    }
}
