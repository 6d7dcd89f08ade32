//! Content-defined cutting with a gear hash and normalized chunk sizes, as FastCDC (Xia et al.,
//! USENIX ATC 2016; two bytes per step as in IEEE TPDS 2020), with a table made from a secret so
//! that chunk lengths tell nobody what was stored.

use sha2::{Digest, Sha256};

use super::{CONTENT_BYTES_AVERAGE, CONTENT_BYTES_MAX, CONTENT_BYTES_MIN};

/// Bits that must be zero before the average is reached, and after it. log2 of the average is 20;
/// two more and two fewer pull chunk sizes towards it.
const BITS_BEFORE: u32 = 22;
const BITS_AFTER: u32 = 18;

/// A cutter of one repository.
#[derive(Clone)]
pub struct Gear {
    table: [u64; 256],
    shifted: [u64; 256],
}

impl std::fmt::Debug for Gear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gear([secret])")
    }
}

/// The highest bits depend on the last 64 bytes, the low ones on fewer; masks take the high ones.
const fn mask(bits: u32) -> u64 {
    ((1 << bits) - 1) << (63 - bits)
}

const MASK_BEFORE: u64 = mask(BITS_BEFORE);
const MASK_AFTER: u64 = mask(BITS_AFTER);

impl Gear {
    /// Derives the table from a secret; `salt` tells repositories with the same key apart.
    pub fn new(secret: &[u8], salt: &[u8]) -> Self {
        let mut table = [0; 256];
        for (byte, entry) in table.iter_mut().enumerate() {
            let digest = Sha256::new()
                .chain_update(b"rekindle gear table 1")
                .chain_update((secret.len() as u64).to_le_bytes())
                .chain_update(secret)
                .chain_update(salt)
                .chain_update((byte as u64).to_le_bytes())
                .finalize();
            *entry = digest[..8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        Self { table, shifted: table.map(|entry| entry << 1) }
    }

    /// Length of the first chunk; see [`super::Cutter::cut`].
    pub fn cut(&self, data: &[u8]) -> usize {
        let end = data.len().min(CONTENT_BYTES_MAX);
        if end <= CONTENT_BYTES_MIN {
            return end;
        }
        let middle = end.min(CONTENT_BYTES_AVERAGE);
        let mut hash = 0;
        if let Some(cut) = self.scan(data, CONTENT_BYTES_MIN, middle, MASK_BEFORE, &mut hash) {
            return cut;
        }
        self.scan(data, middle, end, MASK_AFTER, &mut hash).unwrap_or(end)
    }

    /// Two bytes per step: the first one's hash is looked at one bit higher, which saves a shift.
    /// `from` is even, so that steps fall on the same places whatever comes after.
    fn scan(&self, data: &[u8], from: usize, to: usize, mask: u64, hash: &mut u64) -> Option<usize> {
        let high = mask << 1;
        for (step, pair) in data[from..to].chunks_exact(2).enumerate() {
            *hash = (*hash << 2).wrapping_add(self.shifted[usize::from(pair[0])]);
            if *hash & high == 0 {
                return Some(from + step * 2 + 1);
            }
            *hash = hash.wrapping_add(self.table[usize::from(pair[1])]);
            if *hash & mask == 0 {
                return Some(from + step * 2 + 2);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random, the same every time.
    pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32).to_le_bytes()[0]
            })
            .collect()
    }

    fn cuts(gear: &Gear, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let window = &data[..data.len().min(CONTENT_BYTES_MAX)];
            lengths.push(gear.cut(window));
            data = &data[lengths[lengths.len() - 1]..];
        }
        lengths
    }

    #[test]
    fn sizes_are_between_the_limits_and_near_the_average() {
        let data = noise(64 << 20, 7);
        let lengths = cuts(&Gear::new(b"secret", b"salt"), &data);
        assert_eq!(lengths.iter().sum::<usize>(), data.len());
        let (_, all_but_last) = lengths.split_last().unwrap();
        assert!(all_but_last.iter().all(|l| (CONTENT_BYTES_MIN..=CONTENT_BYTES_MAX).contains(l)));
        let average = data.len() / lengths.len();
        assert!((700 << 10..1500 << 10).contains(&average), "{average}");
    }

    #[test]
    fn cuts_come_back_after_an_insertion_and_the_table_is_secret() {
        let data = noise(24 << 20, 3);
        let moved = [b"inserted", data.as_slice()].concat();
        let gear = Gear::new(b"secret", b"salt");
        let ends = |data: &[u8]| {
            let mut at = 0;
            cuts(&gear, data)
                .into_iter()
                .map(|l| {
                    at += l;
                    data.len() - at
                })
                .collect::<Vec<_>>()
        };
        let (a, b) = (ends(&data), ends(&moved));
        assert!(a.iter().filter(|end| b.contains(end)).count() > a.len() / 2);
        assert_ne!(cuts(&gear, &data), cuts(&Gear::new(b"other", b"salt"), &data));
        assert_eq!(cuts(&gear, &vec![0; 20 << 20]).len(), 3, "zeros give longest chunks");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn more_bytes_after_the_window_change_nothing(seed: u64, length in 0..12_usize << 20) {
            let data = noise(length, seed);
            let gear = Gear::new(b"s", b"");
            let window = &data[..length.min(CONTENT_BYTES_MAX)];
            prop_assert_eq!(gear.cut(&data), gear.cut(window));
        }
    }
}
