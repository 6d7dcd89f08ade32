//! Indexes, snapshots and locks: JSON, compressed in version 2, sealed, named by the SHA-256 of
//! the sealed bytes.

use std::io::Read;

use super::crypto::Key;
use super::{BadFormat, Id};

/// First byte of a compressed file.
const COMPRESSED: u8 = 2;
/// Longest JSON that is decompressed; an index of 50,000 blobs has about 8 MiB.
pub const UNPACKED_BYTES_MAX: u64 = 512 << 20;
const LEVEL: i32 = 3;

/// Seals a file; gives its name and its bytes.
pub fn encode(key: &Key, json: &[u8], compress: bool) -> Result<(Id, Vec<u8>), BadFormat> {
    let plain = if compress {
        let mut plain = vec![COMPRESSED];
        let frame = zstd::bulk::compress(json, LEVEL).map_err(|e| BadFormat::new(format!("compress: {e}")))?;
        plain.extend_from_slice(&frame);
        plain
    } else {
        json.to_vec()
    };
    let sealed = key.seal(&plain).map_err(|e| BadFormat::new(e.to_string()))?;
    Ok((Id::of(&sealed), sealed))
}

/// Checks the name, opens and decompresses; gives the JSON.
pub fn decode(key: &Key, name: &Id, sealed: &[u8]) -> Result<Vec<u8>, BadFormat> {
    if Id::of(sealed) != *name {
        return Err(BadFormat::new("its SHA-256 is not its name"));
    }
    let plain = key.open(sealed)?;
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain),
        Some(&COMPRESSED) => decompress(&plain[1..], UNPACKED_BYTES_MAX),
        _ => Err(BadFormat::new("it has an unknown encoding")),
    }
}

/// Decompresses at most `limit` bytes; more is an error.
pub fn decompress(frame: &[u8], limit: u64) -> Result<Vec<u8>, BadFormat> {
    let bad = |e: std::io::Error| BadFormat::new(format!("decompress: {e}"));
    let mut plain = Vec::new();
    zstd::stream::read::Decoder::with_buffer(frame)
        .map_err(bad)?
        .take(limit + 1)
        .read_to_end(&mut plain)
        .map_err(bad)?;
    if plain.len() as u64 > limit {
        return Err(BadFormat::new("it is longer than it may be"));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_come_back_and_the_name_is_checked() {
        let key = Key::generate().unwrap();
        for compress in [false, true] {
            let (name, sealed) = encode(&key, b"{\"a\":1}", compress).unwrap();
            assert_eq!(decode(&key, &name, &sealed), Ok(b"{\"a\":1}".to_vec()));
            assert!(decode(&key, &Id::of(b"other"), &sealed).is_err());
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit() {
        let bomb = zstd::bulk::compress(&vec![0; 10 << 20], 1).unwrap();
        assert!(decompress(&bomb, 1 << 20).is_err());
        assert_eq!(decompress(&bomb, 10 << 20).unwrap().len(), 10 << 20);
        assert!(decompress(b"not zstd", 10).is_err());
    }
}
