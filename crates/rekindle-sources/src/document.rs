//! Small entries that are in memory.

use std::io::{Cursor, Read};

use rekindle_core::entry::{Closing, Content, ContentRead, Entry, EntryKind, EntryPath, Meta, ReadFault};
use rekindle_core::{Fault, Result, codes};

/// A file with this name and these bytes.
pub(crate) fn document(name: &str, bytes: Vec<u8>, at: jiff::Timestamp) -> Result<Entry> {
    let path = EntryPath::new(name).map_err(|error| Fault::new(codes::RUN_BUG, "name an entry").because(error))?;
    let meta = Meta { size: bytes.len() as u64, ..Meta::synthetic(EntryKind::File, at) };
    let content = Box::new(Document { bytes: Cursor::new(bytes), meta: meta.clone() });
    Ok(Entry { path, meta, content: Content::Stream(content) })
}

struct Document {
    bytes: Cursor<Vec<u8>>,
    meta: Meta,
}

impl ContentRead for Document {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        self.bytes
            .read(buffer)
            .map_err(|error| ReadFault::Abort(Fault::new(codes::RUN_BUG, "read a document").because(error)))
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}
