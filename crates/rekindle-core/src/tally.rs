//! Counting what was given and what is held, in a way that two sides can compare.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::entry::{EntryKind, EntryPath};

/// Entries, bytes and a fingerprint of one component.
///
/// The fingerprint is the wrapping sum of one 128-bit hash per entry, so the order of counting
/// does not matter. It protects against our own mistakes (a lost, doubled, swapped or cut entry),
/// not against an attacker: that is what the repository's SHA-256 ids and its AEAD are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Entries of every kind.
    pub entries: u64,
    /// Bytes of content, unchanged files included.
    pub bytes: u64,
    /// Of these, bytes taken over from an earlier point without reading them.
    pub unchanged_bytes: u64,
    /// Sum of the entries' hashes.
    #[serde(with = "hex128")]
    pub fingerprint: u128,
}

/// The content side of an entry, for its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// No content.
    Nothing,
    /// This many bytes with this XXH3-128 were read.
    Read { bytes: u64, hash: u128 },
    /// This many bytes were taken over unread.
    Unchanged { bytes: u64 },
    /// Of this many bytes, `given` were read in pieces that [`Pieces`] hashed, the others taken over unread.
    Patched { bytes: u64, given: u64, hash: u128 },
}

/// The pieces that were read of a content that was taken over otherwise.
#[derive(Clone, Default)]
pub struct Pieces {
    given: u64,
    hash: Xxh3Default,
}

impl Pieces {
    /// Counts a piece that stands at this place.
    pub fn add(&mut self, at: u64, piece: &[u8]) {
        self.given += piece.len() as u64;
        self.hash.update(&at.to_le_bytes());
        self.hash.update(&(piece.len() as u64).to_le_bytes());
        self.hash.update(piece);
    }

    /// For a content of this many bytes.
    pub fn of(&self, bytes: u64) -> Counted {
        Counted::Patched { bytes, given: self.given, hash: self.hash.digest128() }
    }
}

impl Tally {
    /// Counts one entry.
    pub fn add(&mut self, path: &EntryPath, kind: &EntryKind, counted: Counted) {
        let (mark, bytes, hash) = match counted {
            Counted::Nothing => (b'-', 0, 0),
            Counted::Read { bytes, hash } => (b'r', bytes, hash),
            Counted::Unchanged { bytes } => (b'u', bytes, 0),
            Counted::Patched { bytes, hash, .. } => (b'p', bytes, hash),
        };
        let mut record = Vec::with_capacity(path.as_bytes().len() + 26);
        record.extend_from_slice(&[kind.tag(), mark]);
        record.extend_from_slice(&bytes.to_le_bytes());
        record.extend_from_slice(&hash.to_le_bytes());
        record.extend_from_slice(path.as_bytes());
        self.entries += 1;
        self.bytes += bytes;
        self.unchanged_bytes += match counted {
            Counted::Nothing | Counted::Read { .. } => 0,
            Counted::Unchanged { bytes } => bytes,
            Counted::Patched { bytes, given, .. } => bytes.saturating_sub(given),
        };
        self.fingerprint = self.fingerprint.wrapping_add(xxh3_128(&record));
    }
}

mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(entries: &[(&str, Counted)]) -> Tally {
        let mut tally = Tally::default();
        for (path, counted) in entries {
            tally.add(&EntryPath::new(*path).unwrap(), &EntryKind::File, *counted);
        }
        tally
    }

    #[test]
    fn order_does_not_matter_but_content_does() {
        let a = ("a", Counted::Read { bytes: 3, hash: 7 });
        let b = ("b", Counted::Read { bytes: 3, hash: 8 });
        assert_eq!(tally(&[a, b]), tally(&[b, a]));
        assert_ne!(tally(&[a, b]), tally(&[("a", b.1), ("b", a.1)]), "swapped content");
        assert_ne!(tally(&[a]), tally(&[("a", Counted::Unchanged { bytes: 3 })]));
        let pieces = |pieces: &[(u64, &[u8])]| {
            let mut counted = Pieces::default();
            for (at, piece) in pieces {
                counted.add(*at, piece);
            }
            tally(&[("a", counted.of(9))])
        };
        let (two, moved, joined) =
            (pieces(&[(0, b"x"), (4, b"y")]), pieces(&[(0, b"x"), (5, b"y")]), pieces(&[(0, b"xy")]));
        assert_eq!((two.bytes, two.unchanged_bytes), (9, 7));
        assert!(two != moved && two != joined, "the place of a piece counts");
        assert_ne!(tally(&[a, a]).fingerprint, tally(&[a]).fingerprint);
    }

    #[test]
    fn json_keeps_every_bit() {
        let tally = Tally { entries: 1, bytes: u64::MAX, unchanged_bytes: 2, fingerprint: u128::MAX - 5 };
        let text = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}
