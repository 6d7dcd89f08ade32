//! What a walk over an RDB stream tells, and what it remembers until then.

use rekindle_core::Result;

use super::format::{Dialect, Field};

/// Largest serialized value that is kept whole: what a server takes in one argument
/// (`proto-max-bulk-len`, 512 MiB). It bounds the memory of a restore key by key.
pub(crate) const VALUE_BYTES_MAX: usize = 512 << 20;

/// How much of the keys is to be handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Only what counting needs.
    Counts,
    /// Names and values, as they are encoded.
    Everything,
}

/// Something that ended in the stream.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    Header {
        dialect: Dialect,
        version: u16,
    },
    Aux {
        name: &'a [u8],
        value: &'a [u8],
    },
    Database(u64),
    /// A library of functions: the encoded string of its code (empty with [`Keep::Counts`]).
    Function(&'a [u8]),
    ModuleAux(u64),
    Key(Key<'a>),
    /// The end opcode and a fitting checksum; `None` when the server writes none.
    End {
        checksum: Option<u64>,
    },
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key<'a> {
    pub(crate) database: u64,
    pub(crate) kind: u8,
    /// Milliseconds since 1970 at which it expires.
    pub(crate) expires: Option<i64>,
    /// Seconds without access, where the server's eviction policy records them.
    pub(crate) idle: Option<u64>,
    pub(crate) frequency: Option<u64>,
    /// Id of the module, for module types.
    pub(crate) module: u64,
    /// Encoded, as all three; empty with [`Keep::Counts`].
    pub(crate) name: &'a [u8],
    pub(crate) meta: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The value is larger than [`VALUE_BYTES_MAX`] and therefore not here.
    pub(crate) too_large: bool,
}

/// Who is told about records.
pub(crate) trait Visitor {
    fn record(&mut self, record: Record<'_>) -> Result<()>;
}

#[derive(Debug, Default)]
/// The bytes of the record at hand that somebody may want.
pub(crate) struct Fields {
    pub(crate) current: Option<Field>,
    pub(crate) meta: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) too_large: bool,
}

#[derive(Debug, Default)]
/// What stood before a key and belongs to it.
pub(crate) struct Pending {
    pub(crate) expires: Option<i64>,
    pub(crate) idle: Option<u64>,
    pub(crate) frequency: Option<u64>,
}

impl Fields {
    /// Forgets a field, because it begins.
    pub(crate) fn clear(&mut self, field: Field) {
        match field {
            Field::Meta => self.meta.clear(),
            Field::Name => self.name.clear(),
            Field::Value => self.value.clear(),
        }
    }

    /// Keeps more bytes of the field at hand.
    pub(crate) fn retain(&mut self, bytes: &[u8], max: usize) {
        let kept = match self.current {
            None => return,
            Some(Field::Meta) => &mut self.meta,
            Some(Field::Name) => &mut self.name,
            Some(Field::Value) => &mut self.value,
        };
        if self.too_large || kept.len() + bytes.len() > max {
            self.too_large = true;
            kept.clear();
            return;
        }
        kept.extend_from_slice(bytes);
    }
}
