//! One object: what it is, and its content, compressed and sealed.
//!
//! The cipher of the format has no associated data, so the meaning is sealed together with the
//! content: the object's whole name, the length and the SHA-256 of the content. Whoever can write
//! to the storage can therefore not pass one object off as another.
//!
//! Sealed layout: magic (8) ‖ length of the name (2) ‖ name ‖ length of the content (8) ‖
//! SHA-256 of the content (32) ‖ method (1) ‖ body. Numbers are little-endian.

use sha2::{Digest, Sha256};

use super::frames;
use super::name::Name;
use crate::format::BadFormat;
use crate::format::crypto::Key;
use crate::format::unpacked::decompress;
use crate::read::parallel;

const MAGIC: &[u8; 8] = b"rkwal\0\0\x01";
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Speed counts here: the server waits for `archive_command`. Higher levels save little on WAL.
const LEVEL: i32 = 1;
/// Longer content is compressed in pieces of so many bytes at the same time.
const PIECE_BYTES: usize = 4 << 20;

/// The sealed bytes of an object.
pub(super) fn seal(key: &Key, name: &Name, content: &[u8]) -> Result<Vec<u8>, BadFormat> {
    let name = name.to_string();
    let name_bytes = u16::try_from(name.len()).map_err(|_| BadFormat::new("its name is too long"))?;
    let (sum, frames) = std::thread::scope(|scope| {
        // The hash takes as long as compressing: the server waits for neither twice.
        let sum = (content.len() > PIECE_BYTES).then(|| scope.spawn(|| Sha256::digest(content)));
        let frames = compress(content);
        let sum = sum.and_then(|sum| sum.join().ok()).unwrap_or_else(|| Sha256::digest(content));
        (sum, frames)
    });
    let frame = frames?;
    let (method, body) = if frame.len() < content.len() { (ZSTD, &frame[..]) } else { (RAW, content) };
    let mut plain = Vec::with_capacity(64 + name.len() + body.len());
    plain.extend_from_slice(MAGIC);
    plain.extend_from_slice(&name_bytes.to_le_bytes());
    plain.extend_from_slice(name.as_bytes());
    plain.extend_from_slice(&(content.len() as u64).to_le_bytes());
    plain.extend_from_slice(&sum);
    plain.push(method);
    plain.extend_from_slice(body);
    key.seal(&plain).map_err(|error| BadFormat::new(error.to_string()))
}

/// One zstd frame for each piece, made at the same time; frames in a row are one stream.
fn compress(content: &[u8]) -> Result<Vec<u8>, BadFormat> {
    let pieces: Vec<&[u8]> = if content.is_empty() { vec![content] } else { content.chunks(PIECE_BYTES).collect() };
    let frames = parallel::map(&pieces, parallel::cores(), |piece| zstd::bulk::compress(piece, LEVEL));
    let mut all = Vec::with_capacity(content.len() / 4);
    for frame in frames {
        all.extend_from_slice(&frame.map_err(|error| BadFormat::new(format!("compress: {error}")))?);
    }
    Ok(all)
}

/// The content of an object that stands under `name`.
pub(super) fn open(key: &Key, name: &Name, sealed: &[u8]) -> Result<Vec<u8>, BadFormat> {
    let plain = key.open(sealed)?;
    let short = || BadFormat::new("it is too short");
    let rest = plain.strip_prefix(MAGIC).ok_or_else(|| BadFormat::new("it is no object of a WAL log"))?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (own, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(short)?;
    if own != name.to_string().as_bytes() {
        return Err(BadFormat::new(format!("it was stored as `{}`", String::from_utf8_lossy(own).escape_debug())));
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (sum, rest) = rest.split_first_chunk::<32>().ok_or_else(short)?;
    let (method, body) = rest.split_first().ok_or_else(short)?;
    let length = u64::from_le_bytes(*length);
    if length > name.content_bytes_max() {
        return Err(BadFormat::new(format!("it holds {length} bytes, more than an object of its name can")));
    }
    let fits = usize::try_from(length).map_err(|_| short())?;
    let (content, found) = match *method {
        RAW => (body.to_vec(), None),
        ZSTD => match frames::open(body, fits) {
            Some(opened) => opened.map(|(content, found)| (content, Some(found)))?,
            None => (decompress(body, length)?, None),
        },
        other => return Err(BadFormat::new(format!("it is compressed in a way ({other}) that is not known"))),
    };
    let found = found.unwrap_or_else(|| Sha256::digest(&content).into());
    if content.len() as u64 != length || found != *sum {
        return Err(BadFormat::new("its content is not what was stored"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use rekindle_core::wal::{SegmentName, SegmentNumber, SegmentSize, SystemId, Timeline, WalFile};

    use super::*;

    fn name(number: u64) -> Name {
        let segment = SegmentName { timeline: Timeline(1), number: SegmentNumber(number) };
        Name::File(SystemId(5), WalFile::Segment(segment), SegmentSize::try_from(1 << 20).unwrap())
    }

    #[test]
    fn an_object_opens_only_whole_and_under_its_own_name() {
        let key = Key::generate().unwrap();
        for content in [Vec::new(), b"x".to_vec(), vec![7; 70_000]] {
            let sealed = seal(&key, &name(1), &content).unwrap();
            assert_eq!(open(&key, &name(1), &sealed).unwrap(), content);
            let moved = open(&key, &name(2), &sealed).unwrap_err();
            assert!(moved.0.contains("000000010000000000000001"), "{moved}");
            assert!(open(&Key::generate().unwrap(), &name(1), &sealed).is_err());
            for byte in (0..sealed.len()).step_by(sealed.len() / 90 + 1) {
                let mut bad = sealed.clone();
                bad[byte] ^= 4;
                assert!(open(&key, &name(1), &bad).is_err(), "byte {byte}");
                assert!(open(&key, &name(1), &sealed[..byte]).is_err(), "cut at {byte}");
            }
        }
    }

    #[test]
    fn long_content_is_several_frames_and_one_stream() {
        let key = Key::generate().unwrap();
        let segment = SegmentName { timeline: Timeline(1), number: SegmentNumber(3) };
        let name = Name::File(SystemId(5), WalFile::Segment(segment), SegmentSize::DEFAULT);
        let content: Vec<u8> = (0..(9_u32 << 18) + 7).flat_map(u32::to_le_bytes).collect();
        let sealed = seal(&key, &name, &content).unwrap();
        assert!(sealed.len() < content.len());
        assert!(open(&key, &name, &sealed).unwrap() == content);
    }

    #[test]
    fn other_sealed_things_of_the_repository_are_no_wal() {
        let key = Key::generate().unwrap();
        for other in [&b"{\"version\":1}"[..], b"", b"rkwal", b"rkwal\0\0\x01\xff\xff"] {
            assert!(open(&key, &name(1), &key.seal(other).unwrap()).is_err());
        }
    }

    #[test]
    fn an_object_cannot_ask_for_more_memory_than_its_name_allows() {
        let key = Key::generate().unwrap();
        let sealed = seal(&key, &name(1), &vec![0; (1 << 20) + 1]).unwrap();
        assert!(open(&key, &name(1), &sealed).is_err());
    }
}
