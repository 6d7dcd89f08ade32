//! Blobs by their id: fetched, opened, decompressed and compared with the id.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::{Fault, Result, codes};
use rekindle_store::Key as ObjectKey;
use rekindle_store::blocking::BlockingStore;

use super::blocks::TreeBlocks;
use super::index::{BlobIndex, Location};
use crate::format::crypto::Key;
use crate::format::node::Node;
use crate::format::pack::{BLOB_BYTES_MAX, BlobKind};
use crate::format::{BadFormat, Id, names, tree};

/// Reads blobs of one repository, as its index was when the reader was made.
#[derive(Debug)]
pub(crate) struct BlobReader {
    store: BlockingStore,
    key: Key,
    pub(crate) index: BlobIndex,
    blocks: TreeBlocks,
}

impl BlobReader {
    /// Over a loaded index.
    pub(crate) fn new(store: BlockingStore, key: Key, index: BlobIndex) -> Self {
        Self { store, key, index, blocks: TreeBlocks::default() }
    }

    /// The content of a blob. When one copy of it is damaged, the others are tried.
    pub(crate) fn blob(&self, kind: BlobKind, id: &Id, opener: &mut Opener) -> Result<Vec<u8>> {
        let mut first = None;
        for location in self.index.find(kind, id) {
            match self.copy(&location, opener) {
                Ok(content) => return Ok(content),
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        Err(first.unwrap_or_else(|| self.index.absent(kind, id)))
    }

    /// Length of the content of a data blob.
    pub(crate) fn length(&self, id: &Id) -> Result<u64> {
        let location = self.index.find(BlobKind::Data, id).next();
        location.map(|there| there.blob.content_length()).ok_or_else(|| self.index.absent(BlobKind::Data, id))
    }

    /// A directory, as stored: names and order are not checked.
    pub(crate) fn tree(&self, id: &Id) -> Result<Vec<Node>> {
        let json = self.blob(BlobKind::Tree, id, &mut Opener::new())?;
        tree::decode(&json).map_err(|bad| Fault::new(codes::REPO_DAMAGED, format!("read tree {id}")).because(bad))
    }

    /// The bytes of one copy of a blob.
    fn copy(&self, location: &Location, opener: &mut Opener) -> Result<Vec<u8>> {
        let start = u64::from(location.blob.offset);
        let range = start..start + u64::from(location.blob.length);
        let sealed = match location.blob.kind {
            BlobKind::Data => self.range(location.pack, range)?,
            BlobKind::Tree => self.tree_range(location.pack, range)?,
        };
        self.open(location, &sealed, opener)
    }

    /// Opens the sealed bytes of one copy and compares them with the blob's id.
    pub(crate) fn open(&self, location: &Location, sealed: &[u8], opener: &mut Opener) -> Result<Vec<u8>> {
        opener.open(&self.key, location, sealed).map_err(|bad| self.damaged(location, bad))
    }

    /// As [`BlobReader::open`]; the content stays in the opener's buffer.
    pub(crate) fn open_here<'a>(
        &self,
        location: &Location,
        sealed: &[u8],
        opener: &'a mut Opener,
    ) -> Result<&'a [u8], BadFormat> {
        opener.open_here(&self.key, location, sealed)
    }

    fn damaged(&self, location: &Location, bad: BadFormat) -> Fault {
        let pack = names::pack(&self.index.pack(location.pack).id);
        let what = format!(
            "read {} blob {} at byte {} of `{pack}`",
            location.blob.kind.as_str(),
            location.blob.id,
            location.blob.offset
        );
        Fault::new(codes::REPO_DAMAGED, what).because(bad)
    }

    /// Bytes of a pack.
    pub(crate) fn range(&self, pack: u32, range: Range<u64>) -> Result<Bytes> {
        let path = names::pack(&self.index.pack(pack).id);
        self.store.get_range(&ObjectKey::new(&path)?, range)
    }

    fn tree_range(&self, pack: u32, range: Range<u64>) -> Result<Bytes> {
        let pack = self.index.pack(pack);
        self.blocks.range(&self.store, &pack.id, u64::from(pack.blobs_end), range)
    }
}

/// Shared ownership of a reader.
pub(crate) type SharedReader = Arc<BlobReader>;

/// Opens sealed blobs with a decompressor and buffers that are used again and again; one per thread.
#[derive(Default)]
pub(crate) struct Opener {
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
    /// What was sealed: the content itself, or its compressed form.
    plain: Vec<u8>,
    /// The content of the last compressed blob.
    content: Vec<u8>,
}

impl Opener {
    /// Makes its decompressor when it meets the first compressed blob.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Opens, decompresses and compares with the id.
    pub(crate) fn open(&mut self, key: &Key, location: &Location, sealed: &[u8]) -> Result<Vec<u8>, BadFormat> {
        self.open_here(key, location, sealed)?;
        let holder = if location.blob.uncompressed.is_some() { &mut self.content } else { &mut self.plain };
        Ok(std::mem::take(holder))
    }

    /// As [`Opener::open`]; the content stays in the buffer and is good until the next call.
    pub(crate) fn open_here(&mut self, key: &Key, location: &Location, sealed: &[u8]) -> Result<&[u8], BadFormat> {
        let blob = &location.blob;
        key.open_into(sealed, &mut self.plain)?;
        let content = match blob.uncompressed {
            None => &self.plain,
            Some(length) if length > BLOB_BYTES_MAX => {
                return Err(BadFormat::new("a blob is longer than it may be"));
            }
            Some(length) => {
                self.decompress(length as usize)?;
                &self.content
            }
        };
        if Id::of(content) != blob.id {
            return Err(BadFormat::new("its content does not fit its id"));
        }
        Ok(content)
    }

    /// What the last blob held inside its envelope: the content, or its compressed form.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.plain
    }

    /// The content of the last compressed blob.
    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    fn decompress(&mut self, length: usize) -> Result<(), BadFormat> {
        let bad = |e: std::io::Error| BadFormat::new(format!("decompress: {e}"));
        let decompressor = match &mut self.decompressor {
            Some(there) => there,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(bad)?),
        };
        self.content.clear();
        self.content.reserve(length);
        decompressor.decompress_to_buffer(&self.plain, &mut self.content).map_err(bad)?;
        if self.content.len() != length {
            return Err(BadFormat::new("it has another length than the index says"));
        }
        Ok(())
    }
}
