//! From pieces of a stream to tails and sealed segments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver as Pieces, RecvTimeoutError};
use std::time::{Duration, Instant};

use rekindle_core::wal::{Lsn, SegmentName, TailPart, WalLog};
use rekindle_core::{Fault, Result, codes};

use super::{Listener, ReceiverOptions};

/// After so many pieces one takes the place of all of them, so that a recovery does not have to
/// fetch thousands.
const PIECES_MAX: u32 = 32;
/// Longest wait for the next piece; nothing depends on it.
const IDLE: Duration = Duration::from_mins(10);

/// A part of the stream, and where the server's WAL ended when it sent it.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) server_end: Lsn,
}

/// Bytes of the open segment that are not durable yet.
struct Fresh {
    /// When the first of them was taken.
    taken: Instant,
    /// Since when they may have waited for that.
    waits: Instant,
}

/// The segment that is being written.
struct Open {
    name: SegmentName,
    bytes: Vec<u8>,
    /// So many of them are durable in tails.
    shipped: usize,
    pieces: u32,
    /// What an earlier session shipped: must come again.
    known: Vec<u8>,
    fresh: Option<Fresh>,
}

impl Open {
    fn new(name: SegmentName, known: Vec<u8>) -> Self {
        Self { name, bytes: Vec::new(), shipped: 0, pieces: 0, known, fresh: None }
    }
}

/// Ships one stream.
pub(super) struct Writer<'a> {
    log: &'a dyn WalLog,
    options: &'a ReceiverOptions,
    listener: &'a dyn Listener,
    /// Everything before it is in the repository.
    durable: &'a AtomicU64,
    open: Open,
    /// Where the server's WAL ends, as far as it said.
    server_end: Lsn,
    /// Since when the storage was being written to while pieces came that wait in the queue: their time runs
    /// from there, not from the moment when somebody looks at them.
    busy: Option<Instant>,
}

impl<'a> Writer<'a> {
    /// Begins with a segment, of which the log may hold a tail.
    pub(super) fn new(
        log: &'a dyn WalLog,
        options: &'a ReceiverOptions,
        listener: &'a dyn Listener,
        durable: &'a AtomicU64,
        first: SegmentName,
    ) -> Result<Self> {
        let known = log.tail(first)?.map(|tail| tail.bytes).unwrap_or_default();
        Ok(Self { log, options, listener, durable, open: Open::new(first, known), server_end: Lsn(0), busy: None })
    }

    /// Takes pieces until the sender is gone, then ships what is left.
    pub(super) fn run(mut self, pieces: &Pieces<Piece>) -> Result<()> {
        loop {
            // First everything that waits, so that one part takes all of it: storage may be slow. Who catches up
            // fills the segment that way, and never ships what is about to be sealed.
            if let Ok(piece) = pieces.try_recv() {
                self.take(&piece)?;
                if self.open.fresh.as_ref().is_some_and(|fresh| fresh.taken.elapsed() >= self.options.tail_every) {
                    self.ship()?;
                }
                continue;
            }
            self.busy = None;
            let fresh = self.open.fresh.as_ref();
            let wait = fresh.map_or(IDLE, |fresh| self.options.tail_every.saturating_sub(fresh.waits.elapsed()));
            if wait.is_zero() || (self.is_large() && !self.more_is_there()) {
                self.ship()?;
                continue;
            }
            match pieces.recv_timeout(wait) {
                Ok(piece) => self.take(&piece)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.ship(),
            }
        }
    }

    fn is_large(&self) -> bool {
        self.open.bytes.len() - self.open.shipped >= self.options.tail_bytes as usize
    }

    /// Whether the server has WAL behind what was taken: it comes without anybody writing anything.
    fn more_is_there(&self) -> bool {
        let start = self.open.name.number.start(self.log.cluster().segment_size);
        self.server_end.0 > start.0 + self.open.bytes.len() as u64
    }

    /// Whether the server has the whole of the open segment: it is sealed as fast as the rest of it comes.
    fn fills_soon(&self) -> bool {
        self.server_end >= self.open.name.number.end(self.log.cluster().segment_size)
    }

    fn take(&mut self, piece: &Piece) -> Result<()> {
        self.server_end = self.server_end.max(piece.server_end);
        let mut bytes = &piece.bytes[..];
        let size = self.log.cluster().segment_size.bytes() as usize;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(size - self.open.bytes.len()));
            self.compare(now)?;
            self.open.bytes.extend_from_slice(now);
            bytes = rest;
            if self.open.bytes.len() <= self.open.known.len() {
                self.open.shipped = self.open.bytes.len();
            } else {
                self.open.shipped = self.open.shipped.max(self.open.known.len());
                if self.open.fresh.is_none() {
                    let taken = Instant::now();
                    // A piece of a segment that fills soon has the usual time, however long the last seal took.
                    let waits = self.busy.filter(|_| !self.fills_soon()).unwrap_or(taken);
                    self.open.fresh = Some(Fresh { taken, waits });
                }
            }
            if self.open.bytes.len() == size {
                self.seal()?;
            }
        }
        self.tell();
        Ok(())
    }

    /// What was shipped earlier must be what the server sends now.
    fn compare(&self, now: &[u8]) -> Result<()> {
        let at = self.open.bytes.len();
        let known = self.open.known.get(at..).unwrap_or_default();
        let both = known.len().min(now.len());
        if known[..both] == now[..both] {
            return Ok(());
        }
        let size = self.log.cluster().segment_size;
        let what = format!("go on with `{}` of the WAL log", self.open.name.file(size));
        tracing::error!(segment = %self.open.name.file(size), "CONFLICT: the server sends other WAL than before");
        Err(Fault::new(codes::WAL_CONFLICT, what)
            .because("the server sends other bytes than those that are in the log; nothing was overwritten")
            .hint("the server lost WAL that was confirmed, or is another one: find out which before anything else"))
    }

    /// Makes what was received of the open segment durable. Nothing new: nothing is done.
    fn ship(&mut self) -> Result<()> {
        self.open.fresh = None;
        if self.open.bytes.len() <= self.open.shipped {
            return Ok(());
        }
        let begun = Instant::now();
        let from = if self.open.pieces >= PIECES_MAX { 0 } else { self.open.shipped };
        let part = TailPart {
            segment: self.open.name,
            from: u32::try_from(from).unwrap_or(u32::MAX),
            bytes: self.open.bytes[from..].to_vec(),
        };
        self.log.put_tail(&part)?;
        self.busy = Some(begun);
        self.open.pieces = if from == 0 { 1 } else { self.open.pieces + 1 };
        self.open.shipped = self.open.bytes.len();
        self.tell();
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.log.put_segment(self.open.name, &self.open.bytes)?;
        self.open.shipped = self.open.bytes.len();
        self.tell();
        if self.open.pieces > 0 || !self.open.known.is_empty() {
            self.log.drop_tail(self.open.name)?;
        }
        // The allocation is used again.
        let mut bytes = std::mem::take(&mut self.open.bytes);
        bytes.clear();
        self.busy = Some(begun);
        self.open = Open { bytes, ..Open::new(self.open.name.next(), Vec::new()) };
        Ok(())
    }

    fn tell(&self) {
        let start = self.open.name.number.start(self.log.cluster().segment_size);
        let upto = start.0 + self.open.shipped as u64;
        if self.durable.fetch_max(upto, Ordering::Release) < upto {
            self.listener.durable(Lsn(upto));
        }
    }
}

#[cfg(test)]
mod tests;
