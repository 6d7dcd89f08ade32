//! `START_REPLICATION PHYSICAL`: WAL as it is written, and our answers about how far it is safe.

use std::time::Duration;

use postgres_protocol::message::frontend::{self, CopyData};
use rekindle_core::wal::{Lsn, SlotName, Timeline};
use rekindle_core::{Fault, Result, codes};

use super::Replication;
use super::answer::{Body, ServerError, columns, parsed, row, text, unexpected};
use super::wire::{garbled, tag};

/// Seconds from 1970 to 2000, where PostgreSQL's clock begins.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// Longest wait for the answer that tells the server's clock.
const CLOCK_MAX: Duration = Duration::from_secs(30);

/// What the server sends.
#[derive(Debug, PartialEq, Eq)]
pub enum WalMessage<'a> {
    /// A piece of WAL: at most 128 KiB, never across the end of a segment's page run. Pieces of one
    /// stream follow each other without a hole; check it all the same.
    Data {
        start: Lsn,
        /// Where the server's WAL ended when it sent this.
        server_end: Lsn,
        /// By the server's clock.
        sent: jiff::Timestamp,
        bytes: &'a [u8],
    },
    /// Nothing new. With `reply`, answer with [`WalStream::status`] at once, or the server closes
    /// the connection after `wal_sender_timeout`.
    KeepAlive { server_end: Lsn, sent: jiff::Timestamp, reply: bool },
    /// The timeline ends here: all of its WAL was sent. The stream is over.
    TimelineEnd(TimelineEnd),
}

/// Where a timeline was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineEnd {
    pub next: Timeline,
    /// The next timeline goes on here.
    pub at: Lsn,
}

enum State {
    Streaming,
    /// The server said everything; the session can be used for commands again.
    Ended,
}

/// A running stream. Dropping it closes the connection.
pub struct WalStream {
    session: Replication,
    state: State,
}

impl std::fmt::Debug for WalStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalStream").field("session", &self.session).finish_non_exhaustive()
    }
}

/// What starting a stream came to.
#[derive(Debug)]
pub enum Started {
    Stream(WalStream),
    /// The timeline ends exactly at the position: there is nothing to send.
    AtEnd(Replication, TimelineEnd),
}

impl Replication {
    /// Starts to stream a timeline from a position, which should be the start of a segment.
    ///
    /// An error that says the WAL is gone may come here or with the first message; see
    /// [`ServerError::is_wal_removed`].
    pub fn start_physical(mut self, slot: Option<&SlotName>, from: Lsn, timeline: Timeline) -> Result<Started> {
        let what = format!("stream WAL of timeline {timeline} from {from}");
        let slot = slot.map_or_else(String::new, |slot| format!("SLOT {slot} "));
        self.wire.query(&format!("START_REPLICATION {slot}PHYSICAL {from} TIMELINE {timeline}"))?;
        let frame = self.wire.frame()?;
        match frame.tag {
            tag::COPY_BOTH => Ok(Started::Stream(WalStream { session: self, state: State::Streaming })),
            tag::ROW_DESCRIPTION => {
                let body = frame.body.to_vec();
                let end = self.timeline_end(&body)?;
                Ok(Started::AtEnd(self, end))
            }
            tag::ERROR => {
                let error = ServerError::parse(frame.body)?;
                Err(error.into_fault(what))
            }
            other => Err(unexpected(other)),
        }
    }

    /// After the row description: the row that says where the timeline ended, to the very end.
    fn timeline_end(&mut self, description: &[u8]) -> Result<TimelineEnd> {
        columns(description)?;
        let frame = self.wire.frame()?;
        if frame.tag != tag::DATA_ROW {
            return Err(unexpected(frame.tag));
        }
        let row = row(frame.body)?;
        let value = |column| text(&row, column)?.ok_or_else(|| garbled("a timeline's end without its place"));
        let end = TimelineEnd { next: Timeline(parsed(value(0)?)?), at: parsed(value(1)?)? };
        match self.wire.until_ready()? {
            None => Ok(end),
            Some(error) => Err(error.into_fault("end the stream of a timeline")),
        }
    }
}

/// A moment of PostgreSQL's clock: microseconds since 2000.
fn moment(micros: i64) -> Result<jiff::Timestamp> {
    let since_1970 = micros.checked_add(POSTGRES_EPOCH_SECONDS * 1_000_000);
    since_1970
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| garbled("a moment that is none"))
}

impl Replication {
    /// The server's clock, by the stamp of an answer to a message of ours on a stream of WAL: it
    /// needs no SQL, so no right to connect to a database.
    pub fn clock(mut self) -> Result<(jiff::Timestamp, Self)> {
        let identity = self.identify()?;
        let mut stream = match self.start_physical(None, identity.position, identity.timeline)? {
            Started::Stream(stream) => stream,
            Started::AtEnd(..) => return Err(garbled("a current timeline that has ended")),
        };
        // A position of zero says nothing about how far we are.
        stream.send_status([Lsn(0); 3], jiff::Timestamp::UNIX_EPOCH, true)?;
        let wait = stream.session.wire.idle_max.min(CLOCK_MAX);
        let now = match stream.next(wait)? {
            Some(WalMessage::Data { sent, .. } | WalMessage::KeepAlive { sent, .. }) => sent,
            Some(WalMessage::TimelineEnd(_)) | None => return Err(garbled("no word about the server's clock")),
        };
        Ok((now, stream.stop()?))
    }
}

impl WalStream {
    /// The next message; `None` when none came within this time. After
    /// [`WalMessage::TimelineEnd`] nothing comes any more.
    pub fn next(&mut self, wait: Duration) -> Result<Option<WalMessage<'_>>> {
        const WHAT: &str = "receive WAL";
        if let State::Ended = self.state {
            return Err(Fault::new(codes::RUN_BUG, WHAT).because("the stream is over"));
        }
        match self.session.wire.tag_within(wait)? {
            None => return Ok(None),
            Some(tag::COPY_DATA) => {}
            Some(tag::COPY_DONE) => {
                return self.end().map(|end| Some(WalMessage::TimelineEnd(end)));
            }
            Some(tag::ERROR) => return Err(ServerError::parse(self.session.wire.last())?.into_fault(WHAT)),
            Some(other) => return Err(unexpected(other)),
        }
        let mut body = Body(self.session.wire.last());
        match body.u8()? {
            b'w' => {
                let (start, server_end) = (Lsn(body.u64()?), Lsn(body.u64()?));
                let sent = moment(body.i64()?)?;
                Ok(Some(WalMessage::Data { start, server_end, sent, bytes: body.0 }))
            }
            b'k' => {
                let server_end = Lsn(body.u64()?);
                let sent = moment(body.i64()?)?;
                Ok(Some(WalMessage::KeepAlive { server_end, sent, reply: body.u8()? != 0 }))
            }
            other => Err(garbled(format!("a message of replication `{}`", char::from(other).escape_debug()))),
        }
    }

    /// The server has ended the copy: we end it too, and read on to the end of its answer.
    fn end(&mut self) -> Result<TimelineEnd> {
        let wire = &mut self.session.wire;
        wire.send(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        loop {
            let frame = wire.frame()?;
            match frame.tag {
                tag::ROW_DESCRIPTION => {
                    let body = frame.body.to_vec();
                    let end = self.session.timeline_end(&body)?;
                    self.state = State::Ended;
                    return Ok(end);
                }
                tag::COPY_DATA => {}
                tag::ERROR => return Err(ServerError::parse(frame.body)?.into_fault("end the stream of a timeline")),
                tag::COMMAND_COMPLETE | tag::READY => {
                    // A server that shuts down ends the copy without naming a timeline.
                    return Err(Fault::new(codes::PG_RESTARTED, "receive WAL").because("the server ended the stream"));
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Tells the server how far the WAL is received, durable in the repository, and replayed (we
    /// never do). The server may drop what is durable; it must be so.
    pub fn status(&mut self, write: Lsn, flush: Lsn, apply: Lsn, now: jiff::Timestamp) -> Result<()> {
        self.send_status([write, flush, apply], now, false)
    }

    /// As [`WalStream::status`]; the server answers at once, so that its silence means something.
    pub fn status_and_ask(&mut self, write: Lsn, flush: Lsn, apply: Lsn, now: jiff::Timestamp) -> Result<()> {
        self.send_status([write, flush, apply], now, true)
    }

    /// With `reply`, the server answers at once with a message that says where it is.
    fn send_status(&mut self, positions: [Lsn; 3], now: jiff::Timestamp, reply: bool) -> Result<()> {
        let micros = now.as_microsecond() - POSTGRES_EPOCH_SECONDS * 1_000_000;
        let mut body = Vec::with_capacity(34);
        body.push(b'r');
        for lsn in positions {
            body.extend_from_slice(&lsn.0.to_be_bytes());
        }
        body.extend_from_slice(&micros.to_be_bytes());
        body.push(u8::from(reply));
        self.session.wire.send(|out| {
            CopyData::new(body.as_slice())?.write(out);
            Ok(())
        })
    }

    /// Ends the stream in order; what the server still sends is thrown away. The session can be
    /// used for commands again.
    pub fn stop(mut self) -> Result<Replication> {
        if let State::Streaming = self.state {
            self.session.wire.send(|out| {
                frontend::copy_done(out);
                Ok(())
            })?;
            if let Some(error) = self.session.wire.until_ready()? {
                return Err(error.into_fault("end the stream of WAL"));
            }
        }
        Ok(self.session)
    }
}
