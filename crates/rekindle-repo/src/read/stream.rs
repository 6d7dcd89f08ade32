//! The content of one file as a stream, blobs fetched ahead by a few threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rekindle_core::entry::{Closing, ContentRead, Meta, ReadFault};
use rekindle_core::proof::{StreamDigest, hex};
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256};

use super::blobs::{Opener, SharedReader};
use crate::format::Id;
use crate::format::pack::BlobKind;

/// Threads that fetch ahead. Each holds one blob it is working on and one that is ready.
const PREFETCHERS: usize = 4;
/// Files with fewer blobs are read without threads.
const BLOBS_FOR_THREADS_MIN: usize = 3;

/// A file being read back. Every blob is checked against its id before a byte of it is given.
pub(crate) struct Stream {
    meta: Meta,
    blobs: Blobs,
    current: Vec<u8>,
    position: usize,
    given: u64,
    failed: bool,
    promised: Option<Promised>,
}

/// What the manifest says about a stream, and the hash of what was given of it so far. Blobs are
/// checked one by one; this checks that they are the right ones, in the right order.
struct Promised {
    digest: StreamDigest,
    sha256: Sha256,
}

enum Blobs {
    Direct { reader: SharedReader, ids: std::vec::IntoIter<Id>, opener: Opener },
    Ahead { lanes: Vec<Receiver<Result<Vec<u8>>>>, next: usize, left: usize, threads: Vec<JoinHandle<()>> },
}

impl Stream {
    /// The file of these attributes and blobs.
    pub(crate) fn new(reader: SharedReader, meta: Meta, ids: Vec<Id>) -> Result<Self> {
        let blobs = if ids.len() < BLOBS_FOR_THREADS_MIN {
            Blobs::Direct { reader, ids: ids.into_iter(), opener: Opener::new() }
        } else {
            ahead(&reader, ids)?
        };
        Ok(Self { meta, blobs, current: Vec::new(), position: 0, given: 0, failed: false, promised: None })
    }

    /// The end is an error unless all that was given fits this.
    pub(crate) fn promising(mut self, digest: StreamDigest) -> Self {
        self.promised = Some(Promised { digest, sha256: Sha256::new() });
        self
    }

    fn fetch(&mut self) -> Result<Option<Vec<u8>>> {
        match &mut self.blobs {
            Blobs::Direct { reader, ids, opener } => match ids.next() {
                None => Ok(None),
                Some(id) => reader.blob(BlobKind::Data, &id, opener).map(Some),
            },
            Blobs::Ahead { lanes, next, left, .. } => {
                if *left == 0 {
                    return Ok(None);
                }
                let lane = *next % lanes.len();
                *next += 1;
                *left -= 1;
                match lanes[lane].recv() {
                    Ok(blob) => blob.map(Some),
                    Err(_) => {
                        Err(Fault::new(codes::RUN_BUG, "read a stored file").because("a reader thread ended early"))
                    }
                }
            }
        }
    }

    /// The recorded size is checked at the end. Streams written by rustic record 0.
    fn check_end(&self) -> Result<()> {
        if self.meta.size != self.given && self.meta.size != 0 {
            return Err(Fault::new(codes::REPO_DAMAGED, "read a stored file")
                .because(format!("its blobs hold {} bytes and its record says {}", self.given, self.meta.size)));
        }
        let Some(Promised { digest, sha256 }) = &self.promised else { return Ok(()) };
        let sha256 = hex(&sha256.clone().finalize());
        if (digest.bytes, &digest.sha256) == (self.given, &sha256) {
            return Ok(());
        }
        Err(Fault::new(codes::REPO_DAMAGED, format!("read the stream `{}`", digest.path))
            .because(format!(
                "it came back with {} bytes and SHA-256 {sha256}; the source gave {} bytes with {}",
                self.given, digest.bytes, digest.sha256
            ))
            .hint("restore the component from another point; `rekindle list` shows them"))
    }
}

impl ContentRead for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        if self.failed {
            return Err(ReadFault::Abort(
                Fault::new(codes::REPO_DAMAGED, "go on reading a stored file").because("it failed before"),
            ));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.position == self.current.len() {
            let next = self.fetch().and_then(|next| match next {
                None => self.check_end().map(|()| None),
                Some(blob) => Ok(Some(blob)),
            });
            match next {
                Ok(None) => return Ok(0),
                Ok(Some(blob)) => {
                    self.current = blob;
                    self.position = 0;
                }
                Err(fault) => {
                    self.failed = true;
                    return Err(ReadFault::Abort(fault));
                }
            }
        }
        let count = buffer.len().min(self.current.len() - self.position);
        buffer[..count].copy_from_slice(&self.current[self.position..self.position + count]);
        self.position += count;
        self.given += count as u64;
        if let Some(promised) = &mut self.promised {
            promised.sha256.update(&buffer[..count]);
        }
        Ok(count)
    }

    fn close(self: Box<Self>) -> Result<Closing, Fault> {
        Ok(Closing::Keep(Box::new(self.meta.clone())))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Blobs::Ahead { lanes, threads, .. } = &mut self.blobs {
            // Without receivers the threads end at their next blob.
            lanes.clear();
            for thread in threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

fn ahead(reader: &SharedReader, ids: Vec<Id>) -> Result<Blobs> {
    let left = ids.len();
    let width = PREFETCHERS.min(left);
    let mut shares: Vec<Vec<Id>> = vec![Vec::with_capacity(left / width + 1); width];
    for (number, id) in ids.into_iter().enumerate() {
        shares[number % width].push(id);
    }
    let (mut lanes, mut threads) = (Vec::new(), Vec::new());
    for share in shares {
        let (sender, receiver) = sync_channel(1);
        let reader = SharedReader::clone(reader);
        let thread = thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || fetch_all(&reader, &share, &sender))
            .map_err(|e| Fault::new(codes::RUN_BUG, "start a reader thread").because(e))?;
        lanes.push(receiver);
        threads.push(thread);
    }
    Ok(Blobs::Ahead { lanes, next: 0, left, threads })
}

fn fetch_all(reader: &SharedReader, ids: &[Id], sender: &SyncSender<Result<Vec<u8>>>) {
    let mut opener = Opener::new();
    for id in ids {
        let blob = reader.blob(BlobKind::Data, id, &mut opener);
        let failed = blob.is_err();
        if sender.send(blob).is_err() || failed {
            break;
        }
    }
}
