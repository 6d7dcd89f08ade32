//! What a worker does with one blob: hash, look up, compress, encrypt, hand to a pack.

use rekindle_core::{Fault, Result, codes};
use zstd::bulk::Compressor;

use super::Shared;
use super::job::{ComponentRun, Effort};
use crate::format::Id;
use crate::format::pack::BlobKind;

/// Blobs below this are compressed without looking first.
const PROBE_FROM_BYTES: usize = 64 << 10;
/// Pieces looked at, and their length.
const PROBE_PIECES: usize = 16;
const PROBE_PIECE_BYTES: usize = 256;
/// Bits per byte above which the sample is taken for noise; 4 KiB of true noise have about 7.95.
const NOISE_BITS: f64 = 7.87;
/// A compressed blob must be shorter than this share of its content, in percent.
const WORTH_PERCENT: usize = 99;

/// What a worker keeps between blobs.
pub(super) struct Sealer {
    compressors: Option<Compressors>,
    compressed: Vec<u8>,
    sealed: Vec<u8>,
}

/// Compression contexts; each takes memory with its first use only.
struct Compressors {
    files: Compressor<'static>,
    streams: Compressor<'static>,
}

impl Sealer {
    /// With its own compression contexts, reused for every blob.
    pub(super) fn new(shared: &Shared) -> Result<Self> {
        let options = shared.repo.options();
        let start = |level| {
            Compressor::new(level).map_err(|error| Fault::new(codes::RUN_BUG, "start the compressor").because(error))
        };
        let both =
            || Ok(Compressors { files: start(options.compression_level)?, streams: start(options.stream_level)? });
        let compressors = shared.repo.config().compression().then(both).transpose()?;
        Ok(Self { compressors, compressed: Vec::new(), sealed: Vec::new() })
    }

    /// Hashes a blob and stores it if nobody has; gives its id.
    pub(super) fn store(
        &mut self,
        shared: &Shared,
        run: &ComponentRun,
        kind: BlobKind,
        effort: Effort,
        content: &[u8],
    ) -> Result<Id> {
        let id = shared.id_of(content);
        self.store_as(shared, run, kind, effort, id, content)?;
        Ok(id)
    }

    /// The same for a blob whose id is known.
    pub(super) fn store_as(
        &mut self,
        shared: &Shared,
        run: &ComponentRun,
        kind: BlobKind,
        effort: Effort,
        id: Id,
        content: &[u8],
    ) -> Result<()> {
        if !shared.known.claim(kind, id) {
            return Ok(());
        }
        let uncompressed = self.compress(kind, effort, content)?;
        let stored = match uncompressed {
            None => content,
            Some(_) => self.compressed.as_slice(),
        };
        self.sealed.clear();
        shared
            .repo
            .key()
            .seal_into(stored, &mut self.sealed)
            .map_err(|error| Fault::new(codes::RUN_BUG, "encrypt a blob").because(error))?;
        run.count_stored(kind, content.len(), self.sealed.len());
        shared.packs.add(kind, id, &self.sealed, uncompressed)
    }

    /// Fills `compressed` and gives the original length, or `None` when it is not worth it.
    fn compress(&mut self, kind: BlobKind, effort: Effort, content: &[u8]) -> Result<Option<u32>> {
        let Some(compressors) = &mut self.compressors else {
            return Ok(None);
        };
        let compressor = match effort {
            Effort::Files => &mut compressors.files,
            Effort::Streams => &mut compressors.streams,
        };
        if kind == BlobKind::Data && looks_like_noise(content) {
            return Ok(None);
        }
        let bug = |error: std::io::Error| Fault::new(codes::RUN_BUG, "compress a blob").because(error);
        self.compressed.clear();
        let bound = zstd::zstd_safe::compress_bound(content.len());
        self.compressed.reserve(bound);
        compressor.compress_to_buffer(content, &mut self.compressed).map_err(bug)?;
        let worth = self.compressed.len() * 100 < content.len() * WORTH_PERCENT;
        Ok(u32::try_from(content.len()).ok().filter(|_| worth))
    }
}

/// Whether samples across the content have the entropy of random bytes: media files, archives and
/// encrypted data, which would only cost time to compress.
fn looks_like_noise(content: &[u8]) -> bool {
    if content.len() < PROBE_FROM_BYTES {
        return false;
    }
    let mut counts = [0_u32; 256];
    let step = (content.len() - PROBE_PIECE_BYTES) / (PROBE_PIECES - 1);
    for piece in 0..PROBE_PIECES {
        for byte in &content[piece * step..][..PROBE_PIECE_BYTES] {
            counts[usize::from(*byte)] += 1;
        }
    }
    // One byte in sixteen alone brings the entropy below the limit; that is most content, and cheap to see.
    if counts.iter().any(|count| *count as usize > PROBE_PIECES * PROBE_PIECE_BYTES / 16) {
        return false;
    }
    let total = f64::from(u32::try_from(PROBE_PIECES * PROBE_PIECE_BYTES).unwrap_or(u32::MAX));
    let bits: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum();
    bits > NOISE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_text() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56).to_le_bytes()[0]
        })
        .take(1 << 20)
        .collect();
        assert!(looks_like_noise(&noise));
        let text = b"The quick brown fox jumps over the lazy dog. ".repeat(10_000);
        assert!(!looks_like_noise(&text));
        let base64ish: Vec<u8> = noise.iter().map(|b| b'A' + b % 64).collect();
        assert!(!looks_like_noise(&base64ish));
        assert!(!looks_like_noise(&noise[..1000]));
    }
}
