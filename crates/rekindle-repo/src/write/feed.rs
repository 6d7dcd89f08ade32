//! Reading content and cutting it: the same chunks however the bytes arrive.

use rekindle_core::entry::{ContentRead, ReadFault};

use crate::chunker::Cutter;

/// Bytes read ahead at first; grows up to the cutter's window when a chunk needs it.
const BUFFER_BYTES: usize = 4 << 20;

/// A reusable read buffer that gives content chunk by chunk.
#[derive(Default)]
pub(super) struct Feed {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl Feed {
    /// Ready for other content.
    pub(super) fn reset(&mut self) {
        (self.start, self.end, self.ended) = (0, 0, false);
    }

    /// The next chunk; `None` after the last one.
    pub(super) fn next(&mut self, read: &mut dyn ContentRead, cutter: &Cutter) -> Result<Option<&[u8]>, ReadFault> {
        loop {
            let there = self.end - self.start;
            if there == 0 && self.ended {
                return Ok(None);
            }
            if there > 0 {
                let cut = cutter.cut(&self.buffer[self.start..self.end]);
                // A cut before the end of what is there does not depend on what follows.
                if cut < there || self.ended || there >= cutter.window() {
                    let chunk = self.start..self.start + cut;
                    self.start += cut;
                    return Ok(Some(&self.buffer[chunk]));
                }
            }
            self.fill(read)?;
        }
    }

    fn fill(&mut self, read: &mut dyn ContentRead) -> Result<(), ReadFault> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            let grown = (self.buffer.len() * 2).max(BUFFER_BYTES);
            self.buffer.resize(grown, 0);
        }
        while self.end < self.buffer.len() {
            match read.read(&mut self.buffer[self.end..])? {
                0 => {
                    self.ended = true;
                    break;
                }
                given => self.end += given,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rekindle_core::Fault;
    use rekindle_core::entry::Closing;

    use super::*;
    use crate::chunker::Chunking;

    /// Gives its bytes in pieces of changing length.
    struct Pieces {
        bytes: Vec<u8>,
        at: usize,
        lengths: Vec<usize>,
        turn: usize,
    }

    impl ContentRead for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
            let wish = self.lengths[self.turn % self.lengths.len()];
            self.turn += 1;
            let given = wish.min(buffer.len()).min(self.bytes.len() - self.at);
            buffer[..given].copy_from_slice(&self.bytes[self.at..self.at + given]);
            self.at += given;
            Ok(given)
        }
        fn close(self: Box<Self>) -> Result<Closing, Fault> {
            Ok(Closing::Skip)
        }
    }

    fn chunks(bytes: &[u8], lengths: Vec<usize>, cutter: &Cutter) -> Vec<Vec<u8>> {
        let mut read = Pieces { bytes: bytes.to_vec(), at: 0, lengths, turn: 0 };
        let mut feed = Feed::default();
        let mut chunks = Vec::new();
        while let Ok(Some(chunk)) = feed.next(&mut read, cutter) {
            chunks.push(chunk.to_vec());
        }
        chunks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn chunks_do_not_depend_on_how_bytes_arrive(
            seed: u64,
            length in 0..12_usize << 20,
            zeros in 0..14_usize << 20,
            lengths in proptest::collection::vec(1..3_usize << 20, 1..6),
        ) {
            let mut state = seed | 1;
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56).to_le_bytes()[0]
            }).take(length).collect();
            bytes.resize(length + zeros, 0);
            for chunking in [Chunking::Content, Chunking::PAGES, Chunking::Whole] {
                let cutter = Cutter::new(chunking, b"secret", b"");
                let at_once = chunks(&bytes, vec![usize::MAX], &cutter);
                prop_assert_eq!(at_once.concat(), bytes.clone());
                prop_assert!(at_once == chunks(&bytes, lengths.clone(), &cutter));
            }
        }
    }
}
