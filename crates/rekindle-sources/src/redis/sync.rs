//! The full synchronisation a replica asks for, and its RDB as a stream that is walked while it
//! is read (`replication.c` of Redis: SYNC, `$<length>` and `$EOF:<mark>` framing).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rekindle_core::entry::{Closing, ContentRead, Meta, ReadFault};
use rekindle_core::{Cancel, Fault, Result, codes};

use super::client::{Client, Reply, clip};
use super::rdb::record::Keep;
use super::rdb::summary::{Counter, RdbSummary, truncated};
use super::rdb::walk::Walker;

/// Length of the mark that ends a stream whose length is not known beforehand.
const MARK_BYTES: usize = 40;
/// Longest wait for the stream to begin; with `repl-diskless-sync no` the server writes a whole
/// file first and only sends newlines meanwhile.
const PREPARE_MAX: Duration = Duration::from_hours(6);

/// How the end of the stream is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes follow.
    Length(u64),
    /// This mark stands behind the last byte.
    Mark(Vec<u8>),
}

impl Framing {
    /// The word in the manifest.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Length(_) => "length",
            Self::Mark(_) => "eof-mark",
        }
    }
}

/// Valkey writes for a replica of unknown version what old ones read, and fails when the data does
/// not fit into that. Each part of a version is at most 255.
const NEWEST_VERSION: &str = "255.255.255";

/// Asks for a synchronisation and waits until its stream begins. `version` is the server's own,
/// so that it writes what itself would read.
pub(crate) fn start(client: &mut Client, version: Option<&str>, cancel: &Cancel) -> Result<Framing> {
    // Known from 7.0 on: no command stream behind the RDB, no buffers for it on the server.
    option(client, &[b"REPLCONF", b"rdb-only", b"1"])?;
    option(client, &[b"REPLCONF", b"capa", b"eof"])?;
    let version = version.unwrap_or(NEWEST_VERSION).as_bytes();
    option(client, &[b"REPLCONF", b"version", version])?;
    client.send(&[b"SYNC"])?;
    client.flush()?;
    let started = Instant::now();
    let what = format!("start a synchronisation with Redis at {}", client.endpoint());
    loop {
        cancel.check()?;
        if started.elapsed() > PREPARE_MAX {
            let hours = PREPARE_MAX.as_secs() / 3600;
            return Err(Fault::new(codes::REDIS_SYNC, what).because(format!("no data came within {hours} hours")));
        }
        let line = client.line().map_err(|fault| {
            if fault.is(codes::REDIS_CONNECT) { not_begun(what.clone()).because(fault.chain()) } else { fault }
        })?;
        match line.split_first() {
            // The server is busy writing its file and says that it lives.
            None => {}
            Some((b'$', rest)) => return framing(rest, what),
            Some((b'-', rest)) => return Err(refused(client, &String::from_utf8_lossy(rest), what)),
            Some(_) => {
                return Err(
                    Fault::new(codes::REDIS_SYNC, what).because("the server answered with something else than data")
                );
            }
        }
    }
}

fn option(client: &mut Client, command: &[&[u8]]) -> Result<()> {
    match client.command(command)? {
        Reply::Error(text) if text.starts_with("NO") => client.good("REPLCONF", Reply::Error(text)).map(|_| ()),
        // An older server that does not know the option.
        _ => Ok(()),
    }
}

fn framing(head: &[u8], what: String) -> Result<Framing> {
    if let Some(mark) = head.strip_prefix(b"EOF:") {
        if mark.len() == MARK_BYTES {
            return Ok(Framing::Mark(mark.to_vec()));
        }
    } else if let Some(length) = std::str::from_utf8(head).ok().and_then(|t| t.parse().ok()) {
        return Ok(Framing::Length(length));
    }
    Err(Fault::new(codes::REDIS_SYNC, what).because("the head of the data cannot be read"))
}

fn refused(client: &Client, text: &str, what: String) -> Fault {
    let reply = Reply::Error(text.to_owned());
    match client.good("SYNC", reply) {
        Err(fault) if !fault.is(codes::REDIS_PROTOCOL) => fault.during(what),
        _ => not_begun(what).because(clip(text)),
    }
}

const LOOK: &str = "look into the server's log for a failed fork or background save, or a replica \
                    that lost its primary";

fn not_begun(what: String) -> Fault {
    Fault::new(codes::REDIS_SYNC, what).hint(LOOK)
}

/// Where the counts of a finished stream are left for the capture.
pub(crate) type Finished = Arc<Mutex<Option<RdbSummary>>>;

/// The RDB of a running synchronisation.
pub(crate) struct RdbRead {
    client: Client,
    framing: Framing,
    taken: u64,
    walker: Walker,
    counter: Option<Counter>,
    meta: Meta,
    finished: Finished,
}

impl RdbRead {
    /// `reference` decides which keys count as expired (milliseconds since 1970).
    pub(crate) fn new(client: Client, framing: Framing, reference: i64, meta: Meta, finished: Finished) -> Self {
        Self {
            client,
            framing,
            taken: 0,
            walker: Walker::new(Keep::Counts),
            counter: Some(Counter::new(reference)),
            meta,
            finished,
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.walker.is_done() || buffer.is_empty() {
            return Ok(0);
        }
        let most = match self.framing {
            Framing::Mark(_) => buffer.len() as u64,
            Framing::Length(length) => (length - self.taken).min(buffer.len() as u64),
        };
        let most = usize::try_from(most).unwrap_or(buffer.len());
        if most == 0 {
            return Err(truncated(self.taken).because("the server announced fewer bytes than its data needs"));
        }
        let given = match self.client.read_raw(&mut buffer[..most]) {
            Ok(0) => return Err(truncated(self.taken).because("the server closed the connection")),
            Ok(given) => given,
            Err(fault) if fault.is(codes::REDIS_CONNECT) => {
                return Err(truncated(self.taken).because(fault.chain()));
            }
            Err(fault) => return Err(fault),
        };
        let Some(counter) = &mut self.counter else {
            return Ok(0);
        };
        let used = self.walker.feed(&buffer[..given], counter)?;
        self.taken += used as u64;
        if self.walker.is_done() {
            self.end(&buffer[used..given])?;
        }
        Ok(used)
    }

    /// The RDB is at its end; the framing has to say the same.
    fn end(&mut self, rest: &[u8]) -> Result<()> {
        match &self.framing {
            Framing::Length(length) if *length == self.taken => {}
            Framing::Length(length) => {
                return Err(Fault::new(
                    codes::REDIS_RDB,
                    format!("read the RDB stream: it ends after {} of {length} announced bytes", self.taken),
                ));
            }
            Framing::Mark(mark) => {
                let mut seen = rest.to_vec();
                while seen.len() < MARK_BYTES {
                    let mut more = [0; MARK_BYTES];
                    let missing = MARK_BYTES - seen.len();
                    match self.client.read_raw(&mut more[..missing]) {
                        Ok(0) => return Err(truncated(self.taken).because("its end mark is cut")),
                        Ok(given) => seen.extend_from_slice(&more[..given]),
                        Err(fault) => return Err(truncated(self.taken).because(fault.chain())),
                    }
                }
                // A server older than 7.0 goes on with the commands of its clients.
                if !seen.starts_with(mark) {
                    return Err(Fault::new(
                        codes::REDIS_RDB,
                        "read the RDB stream: another mark than the announced one stands behind it",
                    ));
                }
            }
        }
        if let Some(counter) = self.counter.take() {
            let summary = counter.finish(&self.walker)?;
            *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(summary);
        }
        Ok(())
    }
}

impl ContentRead for RdbRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        self.next(buffer).map_err(ReadFault::Abort)
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        if self.counter.is_some() {
            return Err(truncated(self.taken));
        }
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}
