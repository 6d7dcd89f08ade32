//! Sharing a secret among people (A. Shamir, "How to Share a Secret", 1979) over GF(2^8): any
//! `threshold` of the shares give it back, fewer tell nothing about it.
//!
//! Each byte of the secret is the value at 0 of a polynomial of degree `threshold - 1` whose other
//! coefficients are random; a share holds the values at its own number. A digest beside the secret
//! tells a wrong combination, a checksum in each share tells a mistyped one.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// Version of the format of a share.
const VERSION: u8 = 1;
/// Bytes of a share before its values: version, kit, threshold, number.
const HEAD_BYTES: usize = 7;
const CHECKSUM_BYTES: usize = 4;
const DIGEST_BYTES: usize = 8;
/// Longest secret: a password, not a file.
const SECRET_BYTES_MAX: usize = 1024;
/// Crockford's base 32: no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUP: usize = 5;
const GROUPS_PER_LINE: usize = 8;

/// One share of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    /// Shares of different sharings cannot be mixed.
    pub kit: [u8; 4],
    /// How many shares are needed.
    pub threshold: u8,
    /// 1 to 255.
    pub number: u8,
    values: Vec<u8>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share {} [secret]", self.number)
    }
}

/// Why shares cannot be made, read or joined. Never holds a piece of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadShares {
    /// Fewer than two are needed, or more than there are.
    Numbers,
    /// The secret is empty or too long.
    Length,
    /// A text is no share, or was mistyped. Counted from 1 in the order they were given.
    Mistyped {
        given: usize,
    },
    /// A newer program made it.
    TooNew {
        given: usize,
    },
    /// It belongs to another sharing.
    OtherKit {
        given: usize,
    },
    /// The same share stands twice.
    Twice {
        number: u8,
    },
    TooFew {
        given: usize,
        needed: u8,
    },
    /// They fit together and do not give a secret.
    Wrong,
}

impl fmt::Display for BadShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers => f.write_str("at least two shares must be needed, and at most as many as there are (255)"),
            Self::Length => write!(f, "a secret has 1 to {SECRET_BYTES_MAX} bytes"),
            Self::Mistyped { given } => write!(f, "share {given} of those given is not as it was printed"),
            Self::TooNew { given } => write!(f, "share {given} of those given is of a newer rekindle"),
            Self::OtherKit { given } => write!(f, "share {given} of those given is of another kit"),
            Self::Twice { number } => write!(f, "share number {number} was given twice"),
            Self::TooFew { given, needed } => write!(f, "{given} shares were given, {needed} are needed"),
            Self::Wrong => f.write_str("the shares do not give the key that was shared"),
        }
    }
}

impl std::error::Error for BadShares {}

/// Makes shares. `random` fills a buffer with random bytes.
pub fn split<E>(
    secret: &Secret<String>,
    shares: u8,
    threshold: u8,
    random: &mut dyn FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Result<Vec<Share>, BadShares>, E> {
    let bytes = secret.expose().as_bytes();
    if threshold < 2 || threshold > shares {
        return Ok(Err(BadShares::Numbers));
    }
    if bytes.is_empty() || bytes.len() > SECRET_BYTES_MAX {
        return Ok(Err(BadShares::Length));
    }
    let mut kit = [0; 4];
    random(&mut kit)?;
    let payload = payload(bytes);
    let share = |number| Share { kit, threshold, number, values: Vec::with_capacity(payload.len()) };
    let mut all: Vec<Share> = (1..=shares).map(share).collect();
    let mut coefficients = vec![0; usize::from(threshold) - 1];
    for byte in payload {
        random(&mut coefficients)?;
        for share in &mut all {
            // Horner, from the highest coefficient down to the secret itself.
            let at = |sum, coefficient: &u8| multiply(sum, share.number) ^ coefficient;
            let high = coefficients.iter().fold(0, at);
            share.values.push(multiply(high, share.number) ^ byte);
        }
    }
    coefficients.fill(0);
    Ok(Ok(all))
}

/// Joins shares; more than needed may be given.
pub fn combine(shares: &[Share]) -> Result<Secret<String>, BadShares> {
    let Some(first) = shares.first() else { return Err(BadShares::TooFew { given: 0, needed: 2 }) };
    for (index, share) in shares.iter().enumerate() {
        let same = (share.kit, share.threshold, share.values.len()) == (first.kit, first.threshold, first.values.len());
        if !same {
            return Err(BadShares::OtherKit { given: index + 1 });
        }
        if shares[..index].iter().any(|before| before.number == share.number) {
            return Err(BadShares::Twice { number: share.number });
        }
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(BadShares::TooFew { given: shares.len(), needed: first.threshold });
    }
    // All that are given are used: a wrong one among too many is noticed as well.
    let weights: Vec<u8> = shares.iter().map(|share| weight(share.number, shares)).collect();
    let value = |at: usize| {
        shares.iter().zip(&weights).fold(0, |sum, (share, weight)| sum ^ multiply(share.values[at], *weight))
    };
    let joined: Vec<u8> = (0..first.values.len()).map(value).collect();
    let (digest, secret) = joined.split_at_checked(DIGEST_BYTES).ok_or(BadShares::Wrong)?;
    if payload(secret)[..DIGEST_BYTES] != *digest {
        return Err(BadShares::Wrong);
    }
    String::from_utf8(secret.to_vec()).map(Secret::new).map_err(|_| BadShares::Wrong)
}

/// The beginning of its digest, then the secret.
fn payload(secret: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(secret);
    digest[..DIGEST_BYTES].iter().chain(secret).copied().collect()
}

/// Lagrange's weight of a share for the value at 0: the product of x / (x - own) over the others.
/// Subtraction is addition is XOR here.
fn weight(own: u8, shares: &[Share]) -> u8 {
    let others = shares.iter().map(|share| share.number).filter(|number| *number != own);
    others.fold(1, |product, other| multiply(product, multiply(other, inverse(other ^ own))))
}

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (0x11B, the field of AES), without branches
/// or tables that depend on the secret.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    for _ in 0..8 {
        product ^= a & (b & 1).wrapping_neg();
        let carry = (a >> 7).wrapping_neg();
        a = (a << 1) ^ (carry & 0x1B);
        b >>= 1;
    }
    product
}

/// `a` to the power of 254, which is 1 / `a` for every `a` but 0.
fn inverse(a: u8) -> u8 {
    let (mut power, mut result) = (a, 1);
    for _ in 0..7 {
        power = multiply(power, power);
        result = multiply(result, power);
    }
    result
}

impl Share {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.kit);
        bytes.extend([self.threshold, self.number]);
        bytes.extend(&self.values);
        let checksum = Sha256::digest(&bytes);
        bytes.extend(&checksum[..CHECKSUM_BYTES]);
        bytes
    }

    /// The share as it is printed: groups of five characters, eight to a line.
    pub fn to_text(&self) -> String {
        let encoded = encode(&self.bytes());
        let groups: Vec<&str> =
            (0..encoded.len()).step_by(GROUP).map(|at| &encoded[at..encoded.len().min(at + GROUP)]).collect();
        groups.chunks(GROUPS_PER_LINE).map(|line| line.join("-")).collect::<Vec<_>>().join("\n")
    }

    /// Reads what was printed; blanks, line breaks and dashes do not matter, nor do small letters,
    /// nor O for 0 and I or L for 1. `given` is its place among those given, for errors.
    pub fn parse(text: &str, given: usize) -> Result<Self, BadShares> {
        let mistyped = BadShares::Mistyped { given };
        let bytes = decode(text).ok_or(mistyped.clone())?;
        let body = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|body| *body > HEAD_BYTES);
        let (body, checksum) = bytes.split_at(body.ok_or(mistyped.clone())?);
        if Sha256::digest(body)[..CHECKSUM_BYTES] != *checksum {
            return Err(mistyped);
        }
        if body[0] != VERSION {
            return Err(BadShares::TooNew { given });
        }
        let kit = [body[1], body[2], body[3], body[4]];
        let (threshold, number) = (body[5], body[6]);
        if threshold < 2 || number == 0 {
            return Err(mistyped);
        }
        Ok(Self { kit, threshold, number, values: body[HEAD_BYTES..].to_vec() })
    }
}

fn encode(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let c = match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            c => c,
        };
        let digit = ALPHABET.iter().position(|known| char::from(*known) == c)?;
        held = (held << 5) | u32::try_from(digit).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((held >> bits) & 0xFF).ok()?);
        }
        held &= (1 << bits) - 1;
    }
    // What is left over is padding, which is zero.
    (held == 0 && bits < 5).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(secret: &str, count: u8, threshold: u8) -> Vec<Share> {
        let mut seed = 1_u64;
        let mut random = |buffer: &mut [u8]| {
            for byte in buffer {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = seed.to_be_bytes()[2];
            }
            Ok::<_, ()>(())
        };
        split(&Secret::new(secret.to_owned()), count, threshold, &mut random).unwrap().unwrap()
    }

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, 4.2 and 4.2.1.
        assert_eq!(multiply(0x57, 0x83), 0xC1);
        assert_eq!(multiply(0x57, 0x13), 0xFE);
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
            assert_eq!(multiply(a, 1), a);
            assert_eq!(multiply(a, 0), 0);
        }
        // It is a field: multiplication by anything but 0 is a permutation.
        for a in 1..=255_u8 {
            let mut seen = [false; 256];
            (0..=255).for_each(|b| seen[usize::from(multiply(a, b))] = true);
            assert!(seen.iter().all(|seen| *seen), "{a}");
        }
    }

    #[test]
    fn every_choice_of_enough_shares_gives_the_secret_and_fewer_do_not() {
        let all = shares("correct horse battery staple", 5, 3);
        for mask in 0..32_u32 {
            let some: Vec<Share> =
                all.iter().enumerate().filter(|(n, _)| mask & (1 << n) != 0).map(|(_, share)| share.clone()).collect();
            let joined = combine(&some);
            if some.len() >= 3 {
                assert_eq!(joined.unwrap().expose(), "correct horse battery staple");
            } else {
                assert_eq!(
                    joined.unwrap_err(),
                    BadShares::TooFew { given: some.len(), needed: if some.is_empty() { 2 } else { 3 } }
                );
            }
        }
        // Two shares claiming that two are enough: every secret is as likely, so the digest says no.
        let forged: Vec<Share> = all[..2].iter().map(|share| Share { threshold: 2, ..share.clone() }).collect();
        assert_eq!(combine(&forged).unwrap_err(), BadShares::Wrong);
    }

    #[test]
    fn two_shares_of_three_fit_every_secret() {
        // For every value of a byte there is a third share with which it is the secret: the two tell nothing.
        let all = shares("x", 3, 3);
        let mut possible = [false; 256];
        for third in 0..=255 {
            let forged =
                [all[0].clone(), all[1].clone(), Share { values: vec![third; all[2].values.len()], ..all[2].clone() }];
            let weights: Vec<u8> = forged.iter().map(|share| weight(share.number, &forged)).collect();
            let byte = forged.iter().zip(&weights).fold(0, |sum, (share, w)| sum ^ multiply(share.values[8], *w));
            possible[usize::from(byte)] = true;
        }
        assert!(possible.iter().all(|possible| *possible));
    }

    #[test]
    fn mistakes_are_named() {
        let (all, other) = (shares("secret one", 3, 2), shares("secret two", 3, 3));
        assert_eq!(combine(&[all[0].clone(), all[0].clone()]).unwrap_err(), BadShares::Twice { number: 1 });
        assert_eq!(combine(&[all[0].clone(), other[1].clone()]).unwrap_err(), BadShares::OtherKit { given: 2 });
        let text = all[0].to_text();
        for (at, c) in text.char_indices().filter(|(_, c)| c.is_alphanumeric()) {
            let wrong = if c == 'A' { 'B' } else { 'A' };
            let mut typed = text.clone();
            typed.replace_range(at..=at, &wrong.to_string());
            assert!(Share::parse(&typed, 2).is_err(), "{at}");
        }
        assert_eq!(Share::parse("hello", 2).unwrap_err(), BadShares::Mistyped { given: 2 });
        assert_eq!(Share::parse("", 1).unwrap_err(), BadShares::Mistyped { given: 1 });
        let never = &mut |_: &mut [u8]| Ok::<_, ()>(());
        for (count, threshold) in [(5, 1), (2, 3), (0, 0)] {
            let made = split(&Secret::new("s".to_owned()), count, threshold, never).unwrap();
            assert_eq!(made.unwrap_err(), BadShares::Numbers);
        }
    }

    proptest! {
        #[test]
        fn any_secret_survives_paper(secret in "\\PC{1,80}", count in 2_u8..9, less in 0_u8..7) {
            let threshold = count.saturating_sub(less).max(2);
            let all = shares(&secret, count, threshold);
            let typed: Vec<Share> = all.iter().rev().take(usize::from(threshold)).enumerate()
                .map(|(n, share)| Share::parse(&share.to_text().to_lowercase().replace('-', " "), n + 1).unwrap()).collect();
            prop_assert_eq!(combine(&typed).unwrap().into_inner(), secret);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,100}|[0-9A-Z-]{0,200}") {
            let _ = Share::parse(&text, 1);
        }
    }
}
