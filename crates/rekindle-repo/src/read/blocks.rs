//! Trees stand close together in their packs: a large piece around one is read at once and kept, so
//! that a walk of many directories costs few requests.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rekindle_core::Result;
use rekindle_store::Key as ObjectKey;
use rekindle_store::blocking::BlockingStore;

use crate::format::{Id, names};

/// What is read at once.
const BLOCK_BYTES: u64 = 1 << 20;
/// Pieces kept, the most recently used ones.
const BLOCKS_MAX: usize = 16;

/// Recently read pieces of packs with trees: pack, number of the piece, its bytes.
#[derive(Debug, Default)]
pub(crate) struct TreeBlocks(Mutex<VecDeque<(Id, u64, Bytes)>>);

impl TreeBlocks {
    /// Bytes of a pack whose blobs end at `pack_end`.
    pub(crate) fn range(&self, store: &BlockingStore, pack: &Id, pack_end: u64, range: Range<u64>) -> Result<Bytes> {
        let object = ObjectKey::new(&names::pack(pack))?;
        let number = range.start / BLOCK_BYTES;
        let start = number * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(pack_end);
        if range.end > end {
            return store.get_range(&object, range);
        }
        let cut = |bytes: &Bytes| {
            let from = usize::try_from(range.start - start).ok()?;
            let to = usize::try_from(range.end - start).ok()?;
            (to <= bytes.len()).then(|| bytes.slice(from..to))
        };
        if let Some(bytes) = self.kept(pack, number).as_ref().and_then(cut) {
            return Ok(bytes);
        }
        // A pack that was cut is read as far as it goes: what is needed may stand before the cut.
        let Ok(bytes) = store.get_range(&object, start..end) else {
            return store.get_range(&object, range);
        };
        let wanted = cut(&bytes);
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= BLOCKS_MAX {
            blocks.pop_front();
        }
        blocks.push_back((*pack, number, bytes));
        drop(blocks);
        match wanted {
            Some(bytes) => Ok(bytes),
            None => store.get_range(&object, range),
        }
    }

    fn kept(&self, pack: &Id, number: u64) -> Option<Bytes> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = blocks.iter().position(|(p, n, _)| (p, *n) == (pack, number))?;
        let hit = blocks.remove(at)?;
        let bytes = hit.2.clone();
        blocks.push_back(hit);
        Some(bytes)
    }
}
