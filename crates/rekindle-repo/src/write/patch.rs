//! Content of which only some pieces changed since an earlier point: the other chunks are taken over unread.

use rekindle_core::entry::{Closing, PatchSource, ReadFault};
use rekindle_core::tally::Pieces;
use rekindle_core::{Fault, Result, codes};

use super::component::Puller;
use super::cut::End;
use super::job::Effort;
use crate::chunker::Cutter;
use crate::format::Id;

/// The chunk length, if this is how the earlier content was cut: it is what it is cut in now.
fn grid(cutter: &Cutter, earlier: &[(Id, u64)]) -> Option<u64> {
    let Cutter::Fixed(bytes) = *cutter else { return None };
    let bytes = bytes as u64;
    let (last, others) = earlier.split_last()?;
    (last.1 <= bytes && others.iter().all(|(_, length)| *length == bytes)).then_some(bytes)
}

impl Puller<'_> {
    /// `earlier`: chunks of the earlier content with their lengths; none when it cannot be taken over.
    pub(super) fn cut_patched(
        &mut self,
        entry: u64,
        mut source: Box<dyn PatchSource>,
        earlier: &[(Id, u64)],
    ) -> Result<()> {
        let Some(bytes) = grid(&self.run.cutter, earlier).filter(|bytes| source.begin(*bytes)) else {
            return self.cut_stream(entry, source.whole()?);
        };
        let (size, mut pieces, mut held) = (source.size(), Box::<Pieces>::default(), 0);
        let mut earlier = earlier.iter();
        for at in (0..size).step_by(usize::try_from(bytes).unwrap_or(usize::MAX)) {
            self.shared.check()?;
            let end = size.min(at + bytes);
            let length = end - at;
            let same = earlier.next().filter(|(_, there)| *there == length && !source.changes(at..end));
            held += length;
            if let Some((id, _)) = same {
                self.cut_state(entry)?.take_over(*id);
                continue;
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let room = self.batch.room(length);
            match source.read(at, room) {
                Ok(()) => pieces.add(at, room),
                Err(ReadFault::Skip) => return self.end_cut(entry, End::Skipped),
                Err(ReadFault::Abort(fault)) => return Err(fault),
            }
            let part = self.cut_state(entry)?.next_part();
            self.batch.push(entry, part, Effort::Streams, length);
            self.send_full_batch()?;
            self.drain()?;
        }
        let end = match source.close()? {
            Closing::Keep(meta) => End::Patched { bytes: held, pieces, meta },
            Closing::Skip => End::Skipped,
            Closing::Retry => {
                let what = format!("store `{}`: a change cannot be read twice", self.run.id);
                return Err(Fault::new(codes::RUN_BUG, what));
            }
        };
        self.end_cut(entry, end)
    }
}
