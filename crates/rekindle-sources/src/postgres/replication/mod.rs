//! PostgreSQL's replication protocol (manual, 53.4): base backups and WAL, straight from the
//! server, without any of its programs.
//!
//! Everything here blocks and belongs to the data plane. Every wait looks at the cancel flag;
//! every answer is read to `ReadyForQuery`, so that an error which comes last is not lost.

mod answer;
mod base;
mod login;
mod slots;
mod transport;
mod upload;
mod wal;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use rekindle_core::wal::{Lsn, SegmentSize, SystemId, Timeline};
use rekindle_core::{Cancel, Fault, Result, Secret, codes};

use super::url::ServerUrl;
pub use answer::{Rows, ServerError, server_error};
pub use base::{BaseCommand, BaseEnd, BaseItem, BaseStart, BaseStream, Checkpoint, TablespaceOfServer};
pub use slots::{Slot, SlotState};
pub use wal::{Started, TimelineEnd, WalMessage, WalStream};

use answer::{parsed, text};
use transport::Transport;
use wire::Wire;

/// The first major version whose protocol is spoken.
pub const OLDEST_MAJOR: u32 = 13;

/// A server, and the way in.
#[derive(Debug, Clone)]
pub struct ReplicationOptions {
    pub url: ServerUrl,
    pub password: Option<Secret<String>>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence of the server while it owes us something (a checkpoint may take minutes).
    pub idle_timeout: Duration,
}

impl ReplicationOptions {
    /// The defaults for a server.
    pub fn new(url: ServerUrl, password: Option<Secret<String>>) -> Self {
        Self { url, password, connect_timeout: Duration::from_secs(15), idle_timeout: Duration::from_mins(30) }
    }
}

/// Who a server is, and where its WAL stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub system: SystemId,
    pub timeline: Timeline,
    /// Behind the last byte that is safely on the server's disk.
    pub position: Lsn,
}

/// The history file of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryFile {
    pub name: String,
    pub content: Vec<u8>,
}

/// A session for replication commands. Dropping it closes the connection.
pub struct Replication {
    wire: Wire,
    options: ReplicationOptions,
    cancel: Cancel,
    version: u32,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication").field("server", &self.options.url.to_string()).finish_non_exhaustive()
    }
}

impl Replication {
    /// Connects as a physical replication client. Blocking.
    pub fn connect(options: &ReplicationOptions, cancel: &Cancel) -> Result<Self> {
        let mut wire = open(options, cancel, &[("replication", "true")])?;
        let version = wire.answer("ask for the server's version", "SHOW server_version_num")?;
        let version: u32 = parsed(version.required(0)?)?;
        if version / 10_000 < OLDEST_MAJOR {
            return Err(Fault::new(codes::PG_VERSION, format!("use the server {}", options.url))
                .because(format!("it is PostgreSQL {}; base backups need {OLDEST_MAJOR} or newer", wire.server_version))
                .hint("write `method = \"logical\"`"));
        }
        Ok(Self { wire, options: options.clone(), cancel: cancel.clone(), version })
    }

    /// As `server_version_num`: 150018 is 15.18.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// As in `15` of `15.18`.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// As the server writes it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn version_text(&self) -> &str {
        &self.wire.server_version
    }

    /// How this server is reached.
    pub fn options(&self) -> &ReplicationOptions {
        &self.options
    }

    /// `IDENTIFY_SYSTEM`.
    pub fn identify(&mut self) -> Result<Identity> {
        let what = format!("identify the server {}", self.options.url);
        let answer = self.wire.answer(&what, "IDENTIFY_SYSTEM")?;
        Ok(Identity {
            system: parsed(answer.required(0)?)?,
            timeline: Timeline(parsed(answer.required(1)?)?),
            position: parsed(answer.required(2)?)?,
        })
    }

    /// `SHOW`: a setting as text.
    pub fn show(&mut self, setting: &str) -> Result<String> {
        let what = format!("ask for the setting `{setting}`");
        if setting.is_empty() || !setting.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b)) {
            return Err(Fault::new(codes::RUN_BUG, what).because("it is no name of a setting"));
        }
        let answer = self.wire.answer(&what, &format!("SHOW {setting}"))?;
        answer.required(0).map(str::to_owned)
    }

    /// Size of the server's WAL segments.
    pub fn segment_size(&mut self) -> Result<SegmentSize> {
        let text = self.show("wal_segment_size")?;
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit {
            "B" | "" => 1_u32,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => return Err(wire::garbled(format!("a segment size of `{text}`"))),
        };
        let bytes = parsed::<u32>(number)?.checked_mul(unit);
        bytes
            .and_then(|bytes| SegmentSize::try_from(bytes).ok())
            .ok_or_else(|| wire::garbled(format!("a segment size of `{text}`")))
    }

    /// `TIMELINE_HISTORY`: how a timeline came to be. Timeline 1 has none.
    pub fn timeline_history(&mut self, timeline: Timeline) -> Result<HistoryFile> {
        let what = format!("fetch the history of timeline {timeline}");
        let answer = self.wire.answer(&what, &format!("TIMELINE_HISTORY {timeline}"))?;
        let row = answer.rows.first().ok_or_else(|| wire::garbled("no history"))?;
        let content = row.get(1).cloned().flatten().ok_or_else(|| wire::garbled("a history without content"))?;
        Ok(HistoryFile { name: text(row, 0)?.unwrap_or_default().to_owned(), content })
    }

    /// Ends the session in order.
    pub fn close(mut self) {
        self.wire.terminate();
    }
}

/// A session for plain SQL over the same client, for what replication commands cannot ask.
pub(super) struct Sql {
    wire: Wire,
}

impl Sql {
    /// Connects to the database of the URL. Blocking.
    pub(super) fn connect(options: &ReplicationOptions, cancel: &Cancel) -> Result<Self> {
        let wire = open(options, cancel, &[("database", options.url.database.as_str())])?;
        Ok(Self { wire })
    }

    /// Runs one statement; the last result. Values are text.
    pub(super) fn rows(&mut self, what: &str, sql: &str) -> Result<Rows> {
        self.wire.answer(what, sql)
    }
}

fn open(options: &ReplicationOptions, cancel: &Cancel, parameters: &[(&str, &str)]) -> Result<Wire> {
    cancel.check()?;
    let transport = Transport::connect(options, cancel)?;
    let mut wire = Wire::new(transport, options.connect_timeout);
    login::log_in(&mut wire, options, parameters)?;
    wire.idle_max = options.idle_timeout;
    Ok(wire)
}
