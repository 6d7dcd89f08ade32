//! One stream: reads, hands over, answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rekindle_core::wal::{Lsn, SegmentName, WalLog};
use rekindle_core::{Cancel, Fault, Result, codes};

use super::resume::Start;
use super::writer::{Piece, Writer};
use super::{Ended, Memory, Receiver};
use crate::postgres::replication::{Replication, Started, WalMessage, WalStream};

/// Pieces between the reader and the writer; each has at most 128 KiB.
const QUEUE_PIECES: usize = 128;
/// Longest wait for the server before we look around.
const LOOK: Duration = Duration::from_millis(50);
/// Pause when the queue is full.
const FULL: Duration = Duration::from_millis(5);

/// Why a stream is over.
enum Over {
    Stopped,
    TimelineEnd,
    /// The writer has ended, which it does only with an error.
    Writer,
}

/// Streams from `start` until somebody stops it, the timeline ends, or something fails.
pub(super) fn run(
    receiver: &Receiver,
    server: Replication,
    log: &dyn WalLog,
    start: Start,
    cancel: &Cancel,
    memory: &mut Memory,
) -> Result<Ended> {
    let mut stream = match server.start_physical(Some(&receiver.options.slot), start.from, start.timeline)? {
        Started::Stream(stream) => stream,
        Started::AtEnd(..) => return Ok(Ended::Again),
    };
    receiver.listener.streaming(start.timeline, start.from);
    let durable = AtomicU64::new(start.from.0);
    let first = SegmentName::holding(start.timeline, start.from, log.cluster().segment_size);
    let writer = Writer::new(log, &receiver.options, &*receiver.listener, &durable, first)?;
    let (sender, pieces) = sync_channel(QUEUE_PIECES);
    let (read, written) = thread::scope(|scope| {
        let writer = scope.spawn(move || writer.run(&pieces));
        let mut reader = Reader {
            receiver,
            stream: &mut stream,
            sender,
            durable: &durable,
            received: start.from,
            told: Lsn(0),
            told_at: Instant::now(),
            heard: Instant::now(),
            memory,
        };
        let read = reader.run(cancel, || writer.is_finished());
        let received = reader.received;
        // The writer ships what is left and ends.
        drop(reader);
        let written = writer.join().unwrap_or_else(|_| Err(Fault::new(codes::RUN_BUG, "ship WAL")));
        (read.map(|over| (over, received)), written)
    });
    if durable.load(Ordering::Acquire) > start.head.0 {
        memory.moved = true;
    }
    written?;
    match read? {
        (Over::Stopped, received) => {
            let flush = Lsn(durable.load(Ordering::Acquire));
            stream.status(received, flush, Lsn(0), receiver.clock.now())?;
            stream.stop()?.close();
            Ok(Ended::Stopped)
        }
        (Over::TimelineEnd, _) => {
            memory.moved = true;
            Ok(Ended::Again)
        }
        (Over::Writer, _) => Err(Fault::new(codes::RUN_BUG, "ship WAL").because("the writer ended without an error")),
    }
}

struct Reader<'a> {
    receiver: &'a Receiver,
    stream: &'a mut WalStream,
    sender: SyncSender<Piece>,
    durable: &'a AtomicU64,
    received: Lsn,
    /// The durable position the server knows, and when it heard of us last.
    told: Lsn,
    told_at: Instant,
    /// When the last whole message came.
    heard: Instant,
    memory: &'a mut Memory,
}

impl Reader<'_> {
    fn run(&mut self, cancel: &Cancel, writer_ended: impl Fn() -> bool) -> Result<Over> {
        loop {
            if cancel.is_cancelled() {
                return Ok(Over::Stopped);
            }
            if writer_ended() {
                return Ok(Over::Writer);
            }
            let mut asked = false;
            let piece = match self.stream.next(LOOK)? {
                None => {
                    still_there(self.heard, self.receiver.options.silence_max)?;
                    None
                }
                Some(WalMessage::KeepAlive { reply, .. }) => {
                    (asked, self.heard) = (reply, Instant::now());
                    None
                }
                Some(WalMessage::Data { start, server_end, bytes, .. }) => {
                    contiguous(self.received, start)?;
                    Some(Piece { bytes: bytes.to_vec(), server_end })
                }
                Some(WalMessage::TimelineEnd(_)) => return Ok(Over::TimelineEnd),
            };
            // The server takes the slot as ours from here on.
            self.memory.served = true;
            if let Some(piece) = piece {
                self.received = Lsn(self.received.0 + piece.bytes.len() as u64);
                if !self.hand_over(piece, cancel, &writer_ended)? {
                    continue;
                }
                self.heard = Instant::now();
            }
            self.answer(asked)?;
        }
    }

    /// Hands a piece to the writer; while it is busy, the server still hears of us. `false`: it
    /// could not be handed over because everything ends.
    fn hand_over(&mut self, mut piece: Piece, cancel: &Cancel, writer_ended: &impl Fn() -> bool) -> Result<bool> {
        loop {
            match self.sender.try_send(piece) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Disconnected(_)) => return Ok(false),
                Err(TrySendError::Full(back)) => piece = back,
            }
            if cancel.is_cancelled() || writer_ended() {
                return Ok(false);
            }
            thread::sleep(FULL);
            self.answer(false)?;
        }
    }

    fn answer(&mut self, asked: bool) -> Result<()> {
        let durable = Lsn(self.durable.load(Ordering::Acquire));
        let options = &self.receiver.options;
        let now = self.receiver.clock.now();
        if self.told_at.elapsed() >= options.status_every.min(options.silence_max / 4) {
            self.stream.status_and_ask(self.received, durable, Lsn(0), now)?;
        } else if asked || durable > self.told {
            self.stream.status(self.received, durable, Lsn(0), now)?;
        } else {
            return Ok(());
        }
        self.told = durable;
        self.told_at = Instant::now();
        Ok(())
    }
}

/// An idle server answers when it is asked: one that does not is out of reach, however the connection looks.
fn still_there(heard: Instant, longest: Duration) -> Result<()> {
    if heard.elapsed() < longest {
        return Ok(());
    }
    Err(Fault::new(codes::WAL_STREAM, "receive WAL")
        .because(format!("no whole message came from the server for {} s", longest.as_secs()))
        .hint("look at the network between this host and the server; the receiver connects again by itself"))
}

fn contiguous(wanted: Lsn, got: Lsn) -> Result<()> {
    if wanted == got {
        return Ok(());
    }
    Err(Fault::new(codes::WAL_STREAM, "receive WAL")
        .because(format!("the server sent {got}, and {wanted} comes next"))
        .hint("the receiver connects again by itself; look at the server's log when this comes back"))
}
