//! Streams and big files: cut on the pulling thread, their chunks stored by all workers.

use rekindle_core::entry::{Closing, ContentRead, ContentSource, Meta, ReadFault};
use rekindle_core::tally::Pieces;
use rekindle_core::{Fault, Result, codes};
use xxhash_rust::xxh3::Xxh3Default;

use super::component::{BATCH_BYTES, Puller, Settled, State};
use super::feed::Feed;
use super::job::{Effort, Stored};
use super::worker::{READS_MAX, too_many_reads};
use crate::chunker::Cutter;
use crate::format::Id;

/// Content that is being cut.
#[derive(Default)]
pub(super) struct Cut {
    /// One place per chunk.
    blobs: Vec<Option<Id>>,
    missing: usize,
    end: Option<End>,
}

/// What is known at the end of the content.
pub(super) enum End {
    Skipped,
    Kept { bytes: u64, hash: u128, meta: Box<Meta> },
    Patched { bytes: u64, pieces: Box<Pieces>, meta: Box<Meta> },
}

/// What one reading came to.
enum Reading {
    Done(End),
    Again,
}

impl Cut {
    /// A part that the repository has.
    pub(super) fn take_over(&mut self, id: Id) {
        self.blobs.push(Some(id));
    }

    pub(super) fn next_part(&mut self) -> usize {
        self.blobs.push(None);
        self.missing += 1;
        self.blobs.len() - 1
    }

    /// A worker has stored this part.
    pub(super) fn stored(&mut self, part: usize, id: Id) -> Result<()> {
        match self.blobs.get_mut(part) {
            Some(place @ None) => {
                *place = Some(id);
                self.missing -= 1;
                Ok(())
            }
            _ => Err(Fault::new(codes::RUN_BUG, "store: a chunk was reported twice")),
        }
    }

    /// Whether everything is there.
    pub(super) fn is_settled(&self) -> bool {
        self.end.is_some() && self.missing == 0
    }

    /// The content, when everything is there.
    pub(super) fn into_settled(self) -> Option<Settled> {
        match self.end? {
            End::Skipped => Some(Settled::Skipped),
            End::Patched { bytes, pieces, meta } => {
                let blobs = self.blobs.into_iter().collect::<Option<Vec<Id>>>()?;
                Some(Settled::Patched(blobs, bytes, pieces, meta))
            }
            End::Kept { bytes, hash, meta } => {
                let blobs = self.blobs.into_iter().collect::<Option<Vec<Id>>>()?;
                let stored = Stored { blobs, bytes, hash };
                Some(Settled::Read(stored, meta))
            }
        }
    }
}

impl Puller<'_> {
    /// A stream: read once.
    pub(super) fn cut_stream(&mut self, entry: u64, read: Box<dyn ContentRead>) -> Result<()> {
        match self.read_through(entry, Effort::Streams, read)? {
            Reading::Done(end) => self.end_cut(entry, end),
            Reading::Again => {
                let what = format!("store `{}`: a stream cannot be read twice", self.run.id);
                Err(Fault::new(codes::RUN_BUG, what))
            }
        }
    }

    /// A big file: may be read again when it changed.
    pub(super) fn cut_file(&mut self, entry: u64, mut source: Box<dyn ContentSource>) -> Result<()> {
        for _ in 0..READS_MAX {
            let read = match source.open() {
                Ok(read) => read,
                Err(ReadFault::Skip) => return self.end_cut(entry, End::Skipped),
                Err(ReadFault::Abort(fault)) => return Err(fault),
            };
            match self.read_through(entry, Effort::Files, read)? {
                Reading::Done(end) => return self.end_cut(entry, end),
                Reading::Again => self.forget_parts(entry)?,
            }
        }
        Err(too_many_reads(&self.run))
    }

    pub(super) fn cut_state(&mut self, entry: u64) -> Result<&mut Cut> {
        match &mut self.waiting(entry)?.state {
            State::Cut(cut) => Ok(cut),
            _ => Err(Fault::new(codes::RUN_BUG, "store: no content is being cut")),
        }
    }

    pub(super) fn end_cut(&mut self, entry: u64, end: End) -> Result<()> {
        self.cut_state(entry)?.end = Some(end);
        Ok(())
    }

    /// Waits for the parts that are out and forgets them; their blobs stay, unused.
    fn forget_parts(&mut self, entry: u64) -> Result<()> {
        while self.cut_state(entry)?.missing > 0 {
            self.receive()?;
        }
        self.cut_state(entry)?.blobs.clear();
        Ok(())
    }

    fn read_through(&mut self, entry: u64, effort: Effort, mut read: Box<dyn ContentRead>) -> Result<Reading> {
        let mut account = Account::default();
        let ended = match self.run.cutter {
            Cutter::Fixed(bytes) if bytes <= BATCH_BYTES => {
                self.read_fixed(entry, effort, &mut *read, bytes, &mut account)
            }
            _ => {
                let mut feed = std::mem::take(&mut self.feed);
                feed.reset();
                let ended = self.feed_through(&mut feed, entry, effort, &mut *read, &mut account);
                self.feed = feed;
                ended
            }
        };
        match ended {
            Ok(()) => {}
            Err(ReadFault::Skip) => return Ok(Reading::Done(End::Skipped)),
            Err(ReadFault::Abort(fault)) => return Err(fault),
        }
        Ok(match read.close()? {
            Closing::Retry => Reading::Again,
            Closing::Skip => Reading::Done(End::Skipped),
            Closing::Keep(meta) => {
                Reading::Done(End::Kept { bytes: account.bytes, hash: account.hash.digest128(), meta })
            }
        })
    }

    /// Chunks of one length are read straight to where the worker takes them.
    fn read_fixed(
        &mut self,
        entry: u64,
        effort: Effort,
        read: &mut dyn ContentRead,
        bytes: usize,
        account: &mut Account,
    ) -> Result<(), ReadFault> {
        let mut ended = false;
        while !ended {
            self.shared.check()?;
            let room = self.batch.room(bytes);
            let mut filled = 0;
            while filled < bytes {
                match read.read(&mut room[filled..])? {
                    0 => {
                        ended = true;
                        break;
                    }
                    given => filled += given,
                }
            }
            if filled > 0 {
                account.add(&room[..filled]);
                let part = self.cut_state(entry)?.next_part();
                self.batch.push(entry, part, effort, filled);
                self.send_full_batch()?;
                self.drain()?;
            }
        }
        Ok(())
    }

    fn feed_through(
        &mut self,
        feed: &mut Feed,
        entry: u64,
        effort: Effort,
        read: &mut dyn ContentRead,
        account: &mut Account,
    ) -> Result<(), ReadFault> {
        loop {
            self.shared.check()?;
            let Some(chunk) = feed.next(read, &self.run.cutter)? else { return Ok(()) };
            account.add(chunk);
            self.batch.room(chunk.len()).copy_from_slice(chunk);
            let part = self.cut_state(entry)?.next_part();
            self.batch.push(entry, part, effort, chunk.len());
            self.send_full_batch()?;
            self.drain()?;
        }
    }
}

/// What the repository counts of one content, over the chunks as they were cut.
#[derive(Default)]
struct Account {
    bytes: u64,
    hash: Xxh3Default,
}

impl Account {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.hash.update(chunk);
    }
}
