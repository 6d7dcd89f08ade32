//! Strings as RDB files hold them: plain, as an integer, or compressed with LZF.

/// Longest string that is decoded; Redis' own limit (`proto-max-bulk-len`) is 512 MiB by default.
const DECODED_BYTES_MAX: u64 = 4 << 30;

/// Reads from a slice that must hold whole items.
#[derive(Debug)]
pub(crate) struct Items<'a>(pub(crate) &'a [u8]);

/// A length, or one of the special encodings of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Plain(u64),
    Special(u8),
}

/// Number of bytes a length takes, judged by its first byte; `None` when no length starts so.
pub(crate) fn length_width(first: u8) -> Option<usize> {
    match first >> 6 {
        0 | 3 => Some(1),
        1 => Some(2),
        _ => match first {
            0x80 => Some(5),
            0x81 => Some(9),
            _ => None,
        },
    }
}

/// Decodes a length from exactly the bytes [`length_width`] asked for.
pub(crate) fn length(bytes: &[u8]) -> Option<Length> {
    Some(match *bytes {
        [first] if first >> 6 == 3 => Length::Special(first & 0x3f),
        [first] if first >> 6 == 0 => Length::Plain(u64::from(first)),
        [first, low] => Length::Plain((u64::from(first & 0x3f) << 8) | u64::from(low)),
        [0x80, a, b, c, d] => Length::Plain(u64::from(u32::from_be_bytes([a, b, c, d]))),
        [0x81, ref rest @ ..] => Length::Plain(u64::from_be_bytes(rest.try_into().ok()?)),
        _ => return None,
    })
}

impl<'a> Items<'a> {
    /// The next bytes, or `None` when there are fewer.
    pub(crate) fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let count = usize::try_from(count).ok()?;
        let (given, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(given)
    }

    /// The next length.
    pub(crate) fn length(&mut self) -> Option<Length> {
        let width = length_width(*self.0.first()?)?;
        length(self.take(width as u64)?)
    }

    /// The next length, which must be a plain one.
    pub(crate) fn number(&mut self) -> Option<u64> {
        match self.length()? {
            Length::Plain(number) => Some(number),
            Length::Special(_) => None,
        }
    }

    /// The next string, decoded.
    pub(crate) fn text(&mut self) -> Option<Vec<u8>> {
        let little = |bytes: &[u8]| -> Option<i64> {
            Some(match *bytes {
                [a] => i64::from(i8::from_le_bytes([a])),
                [a, b] => i64::from(i16::from_le_bytes([a, b])),
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                _ => return None,
            })
        };
        match self.length()? {
            Length::Plain(count) => Some(self.take(count)?.to_vec()),
            Length::Special(code @ 0..=2) => Some(little(self.take(1 << code)?)?.to_string().into_bytes()),
            Length::Special(3) => {
                let packed = self.number()?;
                let unpacked = self.number()?;
                decompress(self.take(packed)?, unpacked)
            }
            Length::Special(_) => None,
        }
    }
}

/// Decodes one whole encoded string; `None` when the bytes are no such thing.
pub(crate) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut items = Items(encoded);
    let text = items.text()?;
    items.0.is_empty().then_some(text)
}

/// LZF (the format of `lzf_d.c`): literal runs, and copies of what was written before.
fn decompress(packed: &[u8], size: u64) -> Option<Vec<u8>> {
    if size > DECODED_BYTES_MAX {
        return None;
    }
    let size = usize::try_from(size).ok()?;
    // A copy makes at most 264 bytes of 3: a larger claim is not worth reserving memory for.
    let mut out = Vec::with_capacity(size.min(packed.len().saturating_mul(88)));
    let mut items = Items(packed);
    while let Some(&[control]) = items.take(1) {
        if control < 32 {
            out.extend_from_slice(items.take(u64::from(control) + 1)?);
            continue;
        }
        let mut count = usize::from(control >> 5);
        if count == 7 {
            count += usize::from(items.take(1)?[0]);
        }
        let back = (usize::from(control & 0x1f) << 8) + usize::from(items.take(1)?[0]) + 1;
        let start = out.len().checked_sub(back)?;
        // The copy may overlap what it writes.
        for index in start..start + count + 2 {
            out.push(*out.get(index)?);
        }
        if out.len() > size {
            return None;
        }
    }
    (out.len() == size).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_string_is_decoded() {
        assert_eq!(decode(b"\x03abc").unwrap(), b"abc");
        assert_eq!(decode(b"\x40\x03abc").unwrap(), b"abc");
        assert_eq!(decode(b"\x80\0\0\0\x03abc").unwrap(), b"abc");
        assert_eq!(decode(b"\x81\0\0\0\0\0\0\0\x03abc").unwrap(), b"abc");
        assert_eq!(decode(b"\xc0\xff").unwrap(), b"-1");
        assert_eq!(decode(b"\xc1\x39\x30").unwrap(), b"12345");
        assert_eq!(decode(b"\xc2\0\0\0\x80").unwrap(), b"-2147483648");
        // One literal `a`, then a copy of 30 bytes from one byte back.
        assert_eq!(decode(b"\xc3\x05\x1f\x00a\xe0\x15\x00").unwrap(), "a".repeat(31).into_bytes());
    }

    #[test]
    fn what_is_cut_or_wrong_is_not_decoded() {
        for bad in [
            &b""[..],
            b"\x03ab",
            b"\x03abcd",
            b"\xc4",
            b"\x82abc",
            b"\xc3\x05\x1e\x00a\xe0\x15\x00",
            b"\xc3\x05\x1f\x00a\xe0\x15\x01",
        ] {
            assert_eq!(decode(bad), None, "{bad:02x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
