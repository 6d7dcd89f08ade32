//! Messages of the frontend/backend protocol, framed: a type byte, a length, a body (PostgreSQL
//! manual, 53.7). Notices and parameter changes may come at any time and are taken out here.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::backend::Header;
use postgres_protocol::message::frontend;
use rekindle_core::{Fault, Result, codes};

use super::answer::ServerError;
use super::transport::Transport;

/// Type bytes of messages from the server.
pub(super) mod tag {
    pub(crate) const AUTHENTICATION: u8 = b'R';
    pub(crate) const COMMAND_COMPLETE: u8 = b'C';
    pub(crate) const COPY_BOTH: u8 = b'W';
    pub(crate) const COPY_DATA: u8 = b'd';
    pub(crate) const COPY_DONE: u8 = b'c';
    pub(crate) const COPY_IN: u8 = b'G';
    pub(crate) const COPY_OUT: u8 = b'H';
    pub(crate) const DATA_ROW: u8 = b'D';
    pub(crate) const EMPTY_QUERY: u8 = b'I';
    pub(crate) const ERROR: u8 = b'E';
    pub(crate) const KEY_DATA: u8 = b'K';
    pub(crate) const NEGOTIATE: u8 = b'v';
    pub(crate) const NOTICE: u8 = b'N';
    pub(crate) const NOTIFICATION: u8 = b'A';
    pub(crate) const PARAMETER: u8 = b'S';
    pub(crate) const READY: u8 = b'Z';
    pub(crate) const ROW_DESCRIPTION: u8 = b'T';
}

/// Longest body that is taken; the server's largest are pieces of WAL with 128 KiB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest body before the login is done.
const LOGIN_BODY_BYTES_MAX: usize = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;
/// Warnings that are kept; more tell nothing new.
const WARNINGS_MAX: usize = 1000;
/// Type and length.
const HEADER_BYTES: usize = 5;

/// A message.
pub(super) struct Frame<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// Frames out of the bytes that have arrived; knows nothing of where they come from.
#[derive(Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the frame given last, which are let go with the next call.
    given: usize,
}

impl Framer {
    /// The next whole frame as type and place of its body; `None` when more bytes are needed.
    pub(super) fn next(&mut self, longest: usize) -> Result<Option<(u8, Range<usize>)>> {
        self.start += std::mem::take(&mut self.given);
        let there = &self.buffer[self.start..self.end];
        let Some(header) = Header::parse(there).map_err(|error| garbled(error.to_string()))? else {
            return Ok(None);
        };
        // `len` counts itself and is at least 4.
        let body = usize::try_from(header.len()).unwrap_or(usize::MAX) - 4;
        if body > longest {
            return Err(garbled(format!("a message of {body} bytes")));
        }
        if there.len() < HEADER_BYTES + body {
            return Ok(None);
        }
        self.given = HEADER_BYTES + body;
        Ok(Some((header.tag(), self.start + HEADER_BYTES..self.start + HEADER_BYTES + body)))
    }

    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < BUFFER_BYTES / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < BUFFER_BYTES / 4 {
                let grown = (self.buffer.len() * 2).max(BUFFER_BYTES);
                self.buffer.resize(grown, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put there.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The body of the frame given last.
    pub(super) fn last(&self) -> &[u8] {
        let end = self.start + self.given;
        &self.buffer[(self.start + HEADER_BYTES).min(end)..end]
    }

    pub(super) fn body(&self, place: Range<usize>) -> &[u8] {
        &self.buffer[place]
    }
}

/// What the server sent makes no sense.
pub(super) fn garbled(why: impl Into<String>) -> Fault {
    Fault::new(codes::PG_PROTOCOL, "understand the server")
        .because(why.into())
        .hint("check that nothing but PostgreSQL (no pooler such as PgBouncer) answers at `url`")
}

/// A connection as a stream of messages.
pub(super) struct Wire {
    pub(super) transport: Transport,
    framer: Framer,
    /// Longest silence while something is expected.
    pub(super) idle_max: Duration,
    pub(super) logged_in: bool,
    /// As the server told it: `15.18 (Debian …)`.
    pub(super) server_version: String,
    /// Warnings of the server since they were last taken, at most [`WARNINGS_MAX`].
    pub(super) warnings: Vec<ServerError>,
    out: BytesMut,
}

impl Wire {
    pub(super) fn new(transport: Transport, idle_max: Duration) -> Self {
        Self {
            transport,
            framer: Framer::default(),
            idle_max,
            logged_in: false,
            server_version: String::new(),
            warnings: Vec::new(),
            out: BytesMut::new(),
        }
    }

    /// The next message; an error after too long a silence.
    pub(super) fn frame(&mut self) -> Result<Frame<'_>> {
        let wait = self.idle_max;
        // The borrow checker does not let a conditional return of a borrow be followed by an
        // error that needs `self` again; the place is free of it.
        match self.place(wait)? {
            Some((tag, place)) => Ok(Frame { tag, body: self.framer.body(place) }),
            None => Err(Fault::new(codes::PG_PROTOCOL, "wait for the server")
                .because(format!("no whole answer came within {} s", wait.as_secs()))
                .hint("look at what it is doing: `SELECT * FROM pg_stat_activity`")),
        }
    }

    /// The type of the next message, if one comes within this time; its body is [`Wire::last`].
    pub(super) fn tag_within(&mut self, wait: Duration) -> Result<Option<u8>> {
        Ok(self.place(wait)?.map(|(tag, _)| tag))
    }

    fn place(&mut self, wait: Duration) -> Result<Option<(u8, Range<usize>)>> {
        let longest = if self.logged_in { BODY_BYTES_MAX } else { LOGIN_BODY_BYTES_MAX };
        // For the whole message: a link over which a byte trickles now and then is as good as none.
        let deadline = Instant::now() + wait;
        let mut late = false;
        loop {
            match self.framer.next(longest)? {
                Some((tag::NOTIFICATION, _)) => {}
                Some((tag::NOTICE, place)) => {
                    let notice = ServerError::parse(self.framer.body(place))?;
                    tracing::debug!(notice = %notice, "the server says something");
                    if notice.severity == "WARNING" && self.warnings.len() < WARNINGS_MAX {
                        self.warnings.push(notice);
                    }
                }
                Some((tag::PARAMETER, place)) => {
                    let mut parts = self.framer.body(place).split(|b| *b == 0);
                    if parts.next() == Some(b"server_version") {
                        let value = parts.next().unwrap_or_default();
                        self.server_version = String::from_utf8_lossy(value).into_owned();
                    }
                }
                Some(frame) => return Ok(Some(frame)),
                None if late => return Ok(None),
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    match self.transport.read(self.framer.room(), left)? {
                        Some(read) => self.framer.filled(read),
                        None => return Ok(None),
                    }
                    late = Instant::now() >= deadline;
                }
            }
        }
    }

    /// The body of the message that was given last.
    pub(super) fn last(&self) -> &[u8] {
        self.framer.last()
    }

    /// Sends what `write` puts together.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        self.out.clear();
        write(&mut self.out)
            .map_err(|error| Fault::new(codes::RUN_BUG, "put a message for the server together").because(error))?;
        let Self { transport, out, .. } = self;
        transport.write(out)
    }

    /// Sends a command.
    pub(super) fn query(&mut self, text: &str) -> Result<()> {
        self.send(|out| frontend::query(text, out))
    }

    /// Says goodbye; whether it is heard does not matter.
    pub(super) fn terminate(&mut self) {
        let _ = self.send(|out| {
            frontend::terminate(out);
            Ok(())
        });
    }
}
