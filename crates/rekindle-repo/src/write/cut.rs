//! Streams and big files: cut on the pulling thread, their chunks stored by all workers.

use rekindle_core::entry::{Closing, ContentRead, ContentSource, Meta, ReadFault};
use rekindle_core::{Fault, Result, codes};
use xxhash_rust::xxh3::Xxh3Default;

use super::component::{Puller, Settled, State};
use super::feed::Feed;
use super::job::{Job, Stored};
use super::worker::{READS_MAX, too_many_reads};
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
enum End {
    Skipped,
    Kept { bytes: u64, hash: u128, meta: Box<Meta> },
}

/// What one reading came to.
enum Reading {
    Done(End),
    Again,
}

impl Cut {
    fn next_part(&mut self) -> usize {
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
        match self.read_through(entry, read)? {
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
            match self.read_through(entry, read)? {
                Reading::Done(end) => return self.end_cut(entry, end),
                Reading::Again => self.forget_parts(entry)?,
            }
        }
        Err(too_many_reads(&self.run))
    }

    fn cut_state(&mut self, entry: u64) -> Result<&mut Cut> {
        match &mut self.waiting(entry)?.state {
            State::Cut(cut) => Ok(cut),
            _ => Err(Fault::new(codes::RUN_BUG, "store: no content is being cut")),
        }
    }

    fn end_cut(&mut self, entry: u64, end: End) -> Result<()> {
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

    fn read_through(&mut self, entry: u64, read: Box<dyn ContentRead>) -> Result<Reading> {
        let mut feed = std::mem::take(&mut self.feed);
        feed.reset();
        let result = self.feed_through(&mut feed, entry, read);
        self.feed = feed;
        result
    }

    fn feed_through(&mut self, feed: &mut Feed, entry: u64, mut read: Box<dyn ContentRead>) -> Result<Reading> {
        let mut hash = Xxh3Default::new();
        let mut bytes = 0;
        loop {
            self.shared.check()?;
            let chunk = match feed.next(&mut *read, &self.run.cutter) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(ReadFault::Skip) => return Ok(Reading::Done(End::Skipped)),
                Err(ReadFault::Abort(fault)) => return Err(fault),
            };
            hash.update(chunk);
            bytes += chunk.len() as u64;
            let content = chunk.to_vec();
            let part = self.cut_state(entry)?.next_part();
            self.send(Job::Chunk { entry, part, content })?;
            self.drain()?;
        }
        Ok(match read.close()? {
            Closing::Retry => Reading::Again,
            Closing::Skip => Reading::Done(End::Skipped),
            Closing::Keep(meta) => Reading::Done(End::Kept { bytes, hash: hash.digest128(), meta }),
        })
    }
}
