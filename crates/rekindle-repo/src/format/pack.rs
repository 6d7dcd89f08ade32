//! Packs: sealed blobs one after another, a sealed header that lists them, the header's length.

use super::crypto::{Key, OVERHEAD};
use super::id::ID_BYTES;
use super::unpacked::decompress;
use super::{BadFormat, Id};

/// restic reads no header beyond this.
pub const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bytes of the little-endian header length at the end of a pack.
pub const LENGTH_BYTES: usize = 4;
/// Longest blob that is read, before and after decompression. A directory of some million
/// entries stays below it.
pub const BLOB_BYTES_MAX: u32 = 1 << 30;
const ENTRY_BYTES_MAX: usize = 41;

/// What a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlobKind {
    /// Bytes of a file.
    Data,
    /// A directory.
    Tree,
}

impl BlobKind {
    /// The word index files use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}

/// One blob of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    pub kind: BlobKind,
    pub id: Id,
    /// Where its sealed bytes begin.
    pub offset: u32,
    /// Length of the sealed bytes.
    pub length: u32,
    /// Length before compression; `None` for a blob that is stored raw.
    pub uncompressed: Option<u32>,
}

impl PackedBlob {
    /// Length of its content.
    pub fn content_length(&self) -> u64 {
        let raw = u64::from(self.length).saturating_sub(OVERHEAD as u64);
        self.uncompressed.map_or(raw, u64::from)
    }

    /// Opens the sealed bytes of this blob and compares the content with its id.
    pub fn open(&self, key: &Key, sealed: &[u8]) -> Result<Vec<u8>, BadFormat> {
        let plain = key.open(sealed)?;
        let content = match self.uncompressed {
            None => plain,
            Some(length) if length > BLOB_BYTES_MAX => {
                return Err(BadFormat::new("a blob is longer than it may be"));
            }
            Some(length) => decompress(&plain, u64::from(length))?,
        };
        if Id::of(&content) != self.id {
            return Err(BadFormat::new("the content of a blob does not fit its id"));
        }
        Ok(content)
    }
}

/// Appends sealed header and header length to the sealed blobs; now the pack is whole.
pub fn finish(key: &Key, blobs: &[PackedBlob], pack: &mut Vec<u8>) -> Result<(), BadFormat> {
    let mut header = Vec::with_capacity(blobs.len() * ENTRY_BYTES_MAX);
    for blob in blobs {
        let kind = match (blob.kind, blob.uncompressed) {
            (BlobKind::Data, None) => 0,
            (BlobKind::Tree, None) => 1,
            (BlobKind::Data, Some(_)) => 2,
            (BlobKind::Tree, Some(_)) => 3,
        };
        header.push(kind);
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed {
            header.extend_from_slice(&length.to_le_bytes());
        }
        header.extend_from_slice(&blob.id.0);
    }
    let start = pack.len();
    key.seal_into(&header, pack).map_err(|e| BadFormat::new(e.to_string()))?;
    let length = pack.len() - start;
    if length > HEADER_BYTES_MAX {
        return Err(BadFormat::new("the header of a pack is too long"));
    }
    let length = u32::try_from(length).map_err(|_| BadFormat::new("the header of a pack is too long"))?;
    pack.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Length of the sealed header, from the last four bytes of a pack of `pack_bytes`.
pub fn header_length(tail: [u8; LENGTH_BYTES], pack_bytes: u64) -> Result<usize, BadFormat> {
    let length = u32::from_le_bytes(tail) as usize;
    if !(OVERHEAD..=HEADER_BYTES_MAX).contains(&length) || (length + LENGTH_BYTES) as u64 > pack_bytes {
        return Err(BadFormat::new("the header length of a pack is not possible"));
    }
    Ok(length)
}

/// Reads a sealed header; the blobs it lists must fill the rest of a pack of `pack_bytes`.
pub fn decode_header(key: &Key, sealed: &[u8], pack_bytes: u64) -> Result<Vec<PackedBlob>, BadFormat> {
    let plain = key.open(sealed)?;
    let mut blobs = Vec::with_capacity(plain.len() / ENTRY_BYTES_MAX);
    let mut rest = plain.as_slice();
    let mut offset = 0_u32;
    while !rest.is_empty() {
        let blob = decode_entry(&mut rest, offset)?;
        offset = offset.checked_add(blob.length).ok_or_else(|| BadFormat::new("a pack is longer than it may be"))?;
        blobs.push(blob);
    }
    if u64::from(offset) + (sealed.len() + LENGTH_BYTES) as u64 != pack_bytes {
        return Err(BadFormat::new("the blobs of a pack do not fill the pack"));
    }
    Ok(blobs)
}

fn decode_entry(rest: &mut &[u8], offset: u32) -> Result<PackedBlob, BadFormat> {
    let short = || BadFormat::new("the header of a pack ends in the middle");
    let (kind, compressed) = match take::<1>(rest).ok_or_else(short)?[0] {
        0 => (BlobKind::Data, false),
        1 => (BlobKind::Tree, false),
        2 => (BlobKind::Data, true),
        3 => (BlobKind::Tree, true),
        other => return Err(BadFormat::new(format!("unknown kind of blob {other}"))),
    };
    let length = u32::from_le_bytes(take(rest).ok_or_else(short)?);
    let uncompressed = if compressed { Some(u32::from_le_bytes(take(rest).ok_or_else(short)?)) } else { None };
    let id = Id(take::<ID_BYTES>(rest).ok_or_else(short)?);
    if (length as usize) < OVERHEAD {
        return Err(BadFormat::new("a blob is shorter than its envelope"));
    }
    Ok(PackedBlob { kind, id, offset, length, uncompressed })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// Reads the header of a whole pack in memory.
pub fn decode_pack(key: &Key, pack: &[u8]) -> Result<Vec<PackedBlob>, BadFormat> {
    let short = || BadFormat::new("a pack is too short");
    let (body, tail) = pack.split_last_chunk::<LENGTH_BYTES>().ok_or_else(short)?;
    let length = header_length(*tail, pack.len() as u64)?;
    decode_header(key, &body[body.len() - length..], pack.len() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(key: &Key, contents: &[(BlobKind, Vec<u8>, bool)]) -> (Vec<u8>, Vec<PackedBlob>) {
        let (mut pack, mut blobs) = (Vec::new(), Vec::new());
        for (kind, content, compress) in contents {
            let offset = u32::try_from(pack.len()).unwrap();
            let stored = match compress {
                true => zstd::bulk::compress(content, 3).unwrap(),
                false => content.clone(),
            };
            key.seal_into(&stored, &mut pack).unwrap();
            blobs.push(PackedBlob {
                kind: *kind,
                id: Id::of(content),
                offset,
                length: u32::try_from(pack.len()).unwrap() - offset,
                uncompressed: compress.then(|| u32::try_from(content.len()).unwrap()),
            });
        }
        finish(key, &blobs, &mut pack).unwrap();
        (pack, blobs)
    }

    #[test]
    fn a_pack_comes_back() {
        let key = Key::generate().unwrap();
        let contents = [
            (BlobKind::Data, b"raw".to_vec(), false),
            (BlobKind::Data, vec![7; 1000], true),
            (BlobKind::Tree, b"{\"nodes\":[]}\n".to_vec(), true),
            (BlobKind::Tree, Vec::new(), false),
        ];
        let (pack, blobs) = pack(&key, &contents);
        assert_eq!(decode_pack(&key, &pack), Ok(blobs.clone()));
        for (blob, (_, content, _)) in blobs.iter().zip(&contents) {
            let sealed = &pack[blob.offset as usize..][..blob.length as usize];
            assert_eq!(blob.open(&key, sealed).as_ref(), Ok(content));
            assert_eq!(blob.content_length(), content.len() as u64);
            let other = PackedBlob { id: Id::of(b"other"), ..*blob };
            assert!(other.open(&key, sealed).is_err());
        }
        for cut in 0..pack.len() {
            assert!(decode_pack(&key, &pack[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_do_not_panic(plain in proptest::collection::vec(any::<u8>(), 0..200), size: u64) {
            let key = Key::new([1; 32], [2; 16], [3; 16]);
            let sealed = key.seal(&plain).unwrap();
            let _ = decode_header(&key, &sealed, size);
            let _ = decode_pack(&key, &plain);
        }
    }
}
