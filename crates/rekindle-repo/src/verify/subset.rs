//! Which packs are read back.

use std::str::FromStr;

use rand::seq::SliceRandom;

use crate::format::Id;

/// A part of the packs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subset {
    All,
    /// Part `part` (from 1) of `of` equal parts; all parts together are everything.
    Part {
        part: u32,
        of: u32,
    },
    /// Random packs with about so many percent of all bytes.
    Percent(f64),
    /// Random packs with about so many bytes.
    Bytes(u64),
}

impl FromStr for Subset {
    type Err = String;

    /// `all`, `2/7`, `5%`, `500M`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is not `all`, `n/m`, `x%` or a size such as `500M`", text.escape_debug());
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some((part, of)) = text.split_once('/') {
            let (part, of) = (part.parse().map_err(|_| bad())?, of.parse().map_err(|_| bad())?);
            let fits = part >= 1 && part <= of;
            return if fits { Ok(Self::Part { part, of }) } else { Err(bad()) };
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| bad())?;
            let fits = percent > 0.0 && percent <= 100.0;
            return if fits { Ok(Self::Percent(percent)) } else { Err(bad()) };
        }
        let shift = match text.bytes().last() {
            Some(b'K' | b'k') => 10,
            Some(b'M' | b'm') => 20,
            Some(b'G' | b'g') => 30,
            Some(b'T' | b't') => 40,
            _ => 0,
        };
        let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        number.checked_shl(shift).filter(|n| n >> shift == number && *n > 0).map(Self::Bytes).ok_or_else(bad)
    }
}

impl Subset {
    /// The chosen ones of these packs.
    pub(crate) fn choose(self, mut packs: Vec<(Id, u64)>) -> Vec<(Id, u64)> {
        let total: u64 = packs.iter().map(|(_, size)| size).sum();
        let budget = match self {
            Self::All => return packs,
            Self::Part { part, of } => {
                packs.retain(|(id, _)| u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]) % of == part - 1);
                return packs;
            }
            Self::Percent(percent) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    reason = "a rough share of a size, between 0 and the size"
                )]
                let share = (total as f64 * percent / 100.0) as u64;
                share
            }
            Self::Bytes(bytes) => bytes,
        };
        packs.shuffle(&mut rand::rng());
        let mut taken = 0;
        packs.retain(|(_, size)| {
            let take = taken < budget;
            taken += if take { *size } else { 0 };
            take
        });
        packs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_what_they_say() {
        for (text, subset) in [
            ("all", Subset::All),
            ("2/7", Subset::Part { part: 2, of: 7 }),
            ("5%", Subset::Percent(5.0)),
            ("500M", Subset::Bytes(500 << 20)),
            ("7", Subset::Bytes(7)),
        ] {
            assert_eq!(text.parse(), Ok(subset));
        }
        for bad in ["", "0/3", "4/3", "0%", "101%", "-1", "x", "M", "99999999999T", "NaN%"] {
            assert!(bad.parse::<Subset>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_together_are_everything_and_a_size_is_a_limit() {
        let packs: Vec<(Id, u64)> = (0..100_u8).map(|n| (Id::of(&[n]), 10)).collect();
        let parts: usize = (1..=7).map(|part| Subset::Part { part, of: 7 }.choose(packs.clone()).len()).sum();
        assert_eq!(parts, 100);
        assert_eq!(Subset::Bytes(95).choose(packs.clone()).len(), 10);
        assert_eq!(Subset::Percent(50.0).choose(packs).len(), 50);
    }
}
