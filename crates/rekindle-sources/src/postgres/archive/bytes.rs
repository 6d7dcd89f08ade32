//! The basic types of the archive format over a slice that may be too short.

use super::BadArchive;

/// Why a thing could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Short {
    /// More bytes are needed.
    More,
    /// These bytes are not of this format.
    Bad(&'static str),
    Archive(BadArchive),
}

/// Sizes that the head gives for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) version: (u8, u8),
    pub(super) int_size: usize,
    pub(super) offset_size: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self { version: (0, 0), int_size: 4, offset_size: 8 }
    }
}

/// A reading position in a slice.
#[derive(Debug)]
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    used: usize,
    pub(super) layout: Layout,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(all: &'a [u8], layout: Layout) -> Self {
        Self { all, used: 0, layout }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let end = self.used.checked_add(count).ok_or(Short::Bad("a length overflows"))?;
        let bytes = self.all.get(self.used..end).ok_or(Short::More)?;
        self.used = end;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    /// A sign byte, then the magnitude, least byte first.
    pub(super) fn int(&mut self) -> Result<i64, Short> {
        let bytes = self.take(1 + self.layout.int_size)?;
        let magnitude = bytes[1..].iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        let magnitude = i64::try_from(magnitude).map_err(|_| Short::Bad("a number overflows"))?;
        match bytes[0] {
            0 => Ok(magnitude),
            1 => Ok(-magnitude),
            _ => Err(Short::Bad("a number has no sign")),
        }
    }

    /// A number that cannot be negative.
    pub(super) fn length(&mut self) -> Result<u64, Short> {
        u64::try_from(self.int()?).map_err(|_| Short::Bad("a length is negative"))
    }

    /// A length and bytes; -1 means that there is no text.
    pub(super) fn text(&mut self) -> Result<Option<&'a [u8]>, Short> {
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= super::TOC_ENTRY_MAX)
                    .ok_or(Short::Bad("the length of a text is impossible"))?;
                self.take(length).map(Some)
            }
        }
    }

    /// As readable text; empty when there is none.
    pub(super) fn string(&mut self) -> Result<String, Short> {
        Ok(String::from_utf8_lossy(self.text()?.unwrap_or_default()).into_owned())
    }
}
