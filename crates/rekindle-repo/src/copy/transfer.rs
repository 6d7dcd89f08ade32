//! Blobs on their way: read from the source, compared with their ids, sealed for the far side.

use std::ops::Range;
use std::sync::Arc;

use rekindle_core::port::RunContext;
use rekindle_core::{Class, Fault, Result, codes};

use crate::format::Id;
use crate::format::pack::BlobKind;
use crate::read::blobs::{Opener, SharedReader};
use crate::read::index::Location;
use crate::read::parallel;
use crate::repo::Repo;
use crate::verify::BadBlobs;
use crate::write::failure::Failure;
use crate::write::packs::Packs;

/// What is read from the source at once.
const SPAN_BYTES_MAX: u64 = 16 << 20;
/// Bytes between two wanted blobs that are read along with them.
const GAP_BYTES_MAX: u64 = 256 << 10;
/// Spans in memory at the same time.
const READERS_MAX: usize = 4;
/// After so many spans the wish to stop is looked at.
const PORTION: usize = 64;

/// What was sent.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) blobs: u64,
    /// Sealed bytes.
    pub(super) bytes: u64,
    /// Blobs that the source cannot give, and why the first one cannot be had.
    pub(super) bad: BadBlobs,
    pub(super) first: Option<Fault>,
}

/// Wanted blobs that stand close together in a pack.
struct Span {
    pack: u32,
    bytes: Range<u64>,
    blobs: Vec<Location>,
}

/// Sends these blobs. When it is `Ok`, everything that was sent is durable and named by the far
/// side's index. `Err` when the far side fails, or the source does not answer.
pub(super) fn transfer(
    reader: &SharedReader,
    far: &Repo,
    wanted: &[(BlobKind, Id)],
    scope: &str,
    context: &RunContext,
) -> Result<Sent> {
    let mut sent = Sent::default();
    let spans = spans(reader, wanted, &mut sent);
    let failure = Arc::new(Failure::default());
    let packs = Packs::start(far, &failure, None)?;
    let result = send_all(reader, far, &packs, &spans, scope, context, &mut sent);
    match result {
        // What is sealed so far is kept: the next copy finds it.
        Ok(()) => packs.finish()?,
        Err(fault) => {
            failure.raise(Fault::new(codes::RUN_SIBLING, "upload packs: the copy was given up"));
            packs.stop();
            return Err(fault);
        }
    }
    Ok(sent)
}

fn send_all(
    reader: &SharedReader,
    far: &Repo,
    packs: &Packs,
    spans: &[Span],
    scope: &str,
    context: &RunContext,
    sent: &mut Sent,
) -> Result<()> {
    for portion in spans.chunks(PORTION) {
        let done = parallel::map(portion, parallel::cores().clamp(2, READERS_MAX), |span| {
            context.cancel.check()?;
            let one = send(reader, far, packs, span)?;
            context.monitor.advance(scope, one.blobs, one.bytes);
            Ok(one)
        });
        for one in done {
            let one: Sent = one?;
            sent.blobs += one.blobs;
            sent.bytes += one.bytes;
            sent.bad.extend(one.bad);
            sent.first = sent.first.take().or(one.first);
        }
    }
    Ok(())
}

/// Groups blobs by where they stand. Those that stand nowhere are bad.
fn spans(reader: &SharedReader, wanted: &[(BlobKind, Id)], sent: &mut Sent) -> Vec<Span> {
    let mut locations: Vec<Location> = Vec::with_capacity(wanted.len());
    for (kind, id) in wanted {
        if let Some(location) = reader.index.find(*kind, id).next() {
            locations.push(location);
        } else {
            sent.bad.insert((*kind, *id));
            sent.first = sent.first.take().or_else(|| Some(reader.index.absent(*kind, id)));
        }
    }
    locations.sort_unstable_by_key(|location| (location.pack, location.blob.offset));
    let mut spans: Vec<Span> = Vec::new();
    for location in locations {
        let start = u64::from(location.blob.offset);
        let end = start + u64::from(location.blob.length);
        match spans.last_mut() {
            Some(span)
                if span.pack == location.pack
                    && start <= span.bytes.end + GAP_BYTES_MAX
                    && end.saturating_sub(span.bytes.start) <= SPAN_BYTES_MAX =>
            {
                span.bytes.end = span.bytes.end.max(end);
                span.blobs.push(location);
            }
            _ => spans.push(Span { pack: location.pack, bytes: start..end, blobs: vec![location] }),
        }
    }
    spans
}

fn send(reader: &SharedReader, far: &Repo, packs: &Packs, span: &Span) -> Result<Sent> {
    let mut sent = Sent::default();
    let (mut opener, mut sealed) = (Opener::new(), Vec::new());
    // One piece that cannot be read is tried blob by blob.
    let bytes = reader.range(span.pack, span.bytes.clone()).ok();
    for location in &span.blobs {
        let blob = &location.blob;
        let within = bytes.as_ref().and_then(|bytes| {
            let start = usize::try_from(u64::from(blob.offset) - span.bytes.start).ok()?;
            bytes.get(start..start + blob.length as usize)
        });
        let here = within.is_some_and(|within| reader.open_here(location, within, &mut opener).is_ok());
        sealed.clear();
        let compressed = here && blob.uncompressed.is_some() && far.config().compression();
        let uncompressed = if here {
            let content = if compressed || blob.uncompressed.is_none() { opener.stored() } else { opener.content() };
            seal(far, content, &mut sealed)?;
            blob.uncompressed.filter(|_| compressed)
        } else {
            match reader.blob(blob.kind, &blob.id, &mut opener) {
                Ok(content) => seal(far, &content, &mut sealed)?,
                Err(fault) if fault.class() == Class::Damaged => {
                    sent.bad.insert((blob.kind, blob.id));
                    sent.first = sent.first.take().or(Some(fault));
                    continue;
                }
                Err(fault) => return Err(fault.during("read a blob of the source")),
            }
            None
        };
        packs.add(blob.kind, blob.id, &sealed, uncompressed)?;
        sent.blobs += 1;
        sent.bytes += sealed.len() as u64;
    }
    Ok(sent)
}

fn seal(far: &Repo, content: &[u8], sealed: &mut Vec<u8>) -> Result<()> {
    far.key().seal_into(content, sealed).map_err(|error| Fault::new(codes::RUN_BUG, "encrypt a blob").because(error))
}
