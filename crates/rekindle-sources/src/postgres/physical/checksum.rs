//! Checksums of `backup_manifest`. CRC-32C is what we ask for, as `pg_basebackup` does: the server computes it
//! five times as fast as SHA-256, and it can be carried over a change without the bytes around it. What is
//! stored has SHA-256 all the same: the ids of its blobs.

use crc_fast::{CrcAlgorithm, Digest, checksum, checksum_combine};
use rekindle_core::proof::hex;
use sha2::{Digest as _, Sha256};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// The checksum of a file, as manifests have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksum {
    Crc32c(u32),
    /// In manifests of points that were made before.
    Sha256([u8; 32]),
}

impl Checksum {
    /// From the two texts of a manifest.
    pub(super) fn parse(algorithm: &str, text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        match algorithm {
            // In the byte order of the server, of which WAL and incremental files know one only.
            "CRC32C" => Some(Self::Crc32c(u32::from_le_bytes(bytes.try_into().ok()?))),
            "SHA256" => Some(Self::Sha256(bytes.try_into().ok()?)),
            _ => None,
        }
    }

    /// As manifests name it.
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::Crc32c(_) => "CRC32C",
            Self::Sha256(_) => "SHA256",
        }
    }

    /// Its digits, as manifests have them.
    pub(super) fn digits(self) -> String {
        match self {
            Self::Crc32c(value) => hex(&value.to_le_bytes()),
            Self::Sha256(bytes) => hex(&bytes),
        }
    }
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// CRC-32C of bytes as they come.
pub(super) struct Crc32c(Digest);

impl Crc32c {
    pub(super) fn new() -> Self {
        Self(Digest::new(ALGORITHM))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> Checksum {
        Checksum::Crc32c(narrow(self.0.finalize()))
    }

    /// Of bytes that are there.
    pub(super) fn of(bytes: &[u8]) -> u32 {
        narrow(checksum(ALGORITHM, bytes))
    }
}

/// The CRC-32C of a content that is changed in places, without the bytes around them: the checksum is linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    crc: u32,
    bytes: u64,
}

impl Carried {
    /// Of a content of this many bytes with this checksum.
    pub(super) fn new(crc: u32, bytes: u64) -> Self {
        Self { crc, bytes }
    }

    /// What stands from `at` on becomes `now`. `before` is the CRC-32C of what stood there: as many bytes,
    /// or fewer at the end of the content, which grows then. `None`: that does not fit the content.
    pub(super) fn put(&mut self, at: u64, before: u32, now: &[u8]) -> Option<()> {
        let there = self.bytes.checked_sub(at)?;
        let (over, more) = now.split_at(usize::try_from(there).unwrap_or(usize::MAX).min(now.len()));
        let behind = there - over.len() as u64;
        self.crc ^= joined(before ^ Crc32c::of(over), 0, behind);
        self.crc = joined(self.crc, Crc32c::of(more), more.len() as u64);
        self.bytes += more.len() as u64;
        Some(())
    }

    /// When the content has this many bytes.
    pub(super) fn finish(self, bytes: u64) -> Option<Checksum> {
        (self.bytes == bytes).then_some(Checksum::Crc32c(self.crc))
    }
}

/// The checksum of two contents in a row, the second of so many bytes.
fn joined(first: u32, second: u32, bytes: u64) -> u32 {
    if bytes == 0 { first } else { narrow(checksum_combine(ALGORITHM, first.into(), second.into(), bytes)) }
}

/// The library gives every width as 64 bits.
fn narrow(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

/// What a file is compared with, in whichever way that was made.
pub(super) enum Summing {
    Crc32c(Crc32c),
    Sha256(Sha256),
}

impl Summing {
    pub(super) fn like(checksum: Checksum) -> Self {
        match checksum {
            Checksum::Crc32c(_) => Self::Crc32c(Crc32c::new()),
            Checksum::Sha256(_) => Self::Sha256(Sha256::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(crc) => crc.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Checksum {
        match self {
            Self::Crc32c(crc) => crc.finish(),
            Self::Sha256(sha256) => Checksum::Sha256(sha256.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_checksum_is_carried_over_changes(
            before in proptest::collection::vec(any::<u8>(), 0..3000),
            after in proptest::collection::vec(any::<u8>(), 0..3000),
            chunk in 1..700_usize,
            changed in any::<u64>(),
        ) {
            // Every other chunk stays, but for what lies behind the old end.
            let mut wanted = after;
            wanted.resize(wanted.len().max(before.len()), 0);
            let mut carried = Carried::new(Crc32c::of(&before), before.len() as u64);
            for (number, at) in (0..wanted.len()).step_by(chunk).enumerate() {
                let end = wanted.len().min(at + chunk);
                if end <= before.len() && (changed >> (number % 64)) & 1 == 0 {
                    wanted[at..end].copy_from_slice(&before[at..end]);
                    continue;
                }
                let old = &before[at.min(before.len())..end.min(before.len())];
                carried.put(at as u64, Crc32c::of(old), &wanted[at..end]).unwrap();
            }
            prop_assert_eq!(carried.finish(wanted.len() as u64), Some(Checksum::Crc32c(Crc32c::of(&wanted))));
            prop_assert_eq!(carried.finish(wanted.len() as u64 + 1), None);
        }
    }

    #[test]
    fn as_postgresql_writes_it() {
        let mut crc = Crc32c::new();
        crc.update(b"1234");
        crc.update(b"56789");
        // The check value of CRC-32C (RFC 3720, appendix B.4, has more); the digits as the server has them.
        assert_eq!(crc.finish(), Checksum::Crc32c(0xE306_9283));
        assert_eq!(crc.finish().digits(), "839206e3");
        for checksum in [crc.finish(), Checksum::Sha256([7; 32])] {
            assert_eq!(Checksum::parse(checksum.algorithm(), &checksum.digits()), Some(checksum));
            assert_eq!(Checksum::parse(checksum.algorithm(), "00"), None);
        }
        assert_eq!(Checksum::parse("NONE", ""), None);
    }
}
