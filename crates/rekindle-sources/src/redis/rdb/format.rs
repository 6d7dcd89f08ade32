//! The RDB format as data: what follows each opcode and each value type.
//!
//! Sources of the layouts: `rdb.h`/`rdb.c` of Redis 6.2 to 8.x (RDB 9 to 14) and of Valkey 8 and 9
//! (RDB 11 and 80). A type that is not listed here is refused by name and offset, never guessed.

/// One step of reading. The walker carries the steps out; nothing else knows the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A string object: length and bytes, or one of the integer and LZF encodings.
    Str,
    /// A length; its value is not needed.
    Len,
    /// A length that is remembered as a number of the record.
    Number,
    /// So many bytes.
    Fixed(u64),
    /// A little-endian integer of so many bytes, remembered as a number of the record.
    Integer(u8),
    /// A score in the old text form: one length byte, 253 to 255 stand for NaN and infinities.
    OldDouble,
    /// A length, then that often these steps.
    Each(&'static [Op]),
    /// Values of a module, each with its own opcode, up to the end opcode.
    ModuleValues,
    /// From here on the bytes belong to this field.
    Field(Field),
}

/// The parts of a record that somebody may want to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Metadata of a module that stands before the type (Redis 8.4 on).
    Meta,
    /// The first string of a record: the key, the name of an auxiliary field.
    Name,
    /// The rest: the value.
    Value,
}

/// Which of the two diverged lines of the format it is; they give some numbers other meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Magic `REDIS`.
    Redis,
    /// Magic `VALKEY` (RDB 80 on).
    Valkey,
}

impl Dialect {
    /// The word that stands at the start of the file.
    pub(crate) fn magic(self) -> &'static str {
        match self {
            Self::Redis => "REDIS",
            Self::Valkey => "VALKEY",
        }
    }
}

pub(crate) const EOF: u8 = 0xff;
pub(crate) const SELECT_DATABASE: u8 = 0xfe;
pub(crate) const EXPIRE_SECONDS: u8 = 0xfd;
pub(crate) const EXPIRE_MILLISECONDS: u8 = 0xfc;
pub(crate) const RESIZE_DATABASE: u8 = 0xfb;
pub(crate) const AUX: u8 = 0xfa;
pub(crate) const FREQUENCY: u8 = 0xf9;
pub(crate) const IDLE: u8 = 0xf8;
pub(crate) const MODULE_AUX: u8 = 0xf7;
pub(crate) const FUNCTION: u8 = 0xf5;
pub(crate) const SLOT_INFO: u8 = 0xf4;
/// Key metadata of modules in Redis (8.4 on), slots being imported in Valkey (9 on).
pub(crate) const META_OR_SLOT_IMPORT: u8 = 0xf3;

/// What follows an opcode; `None` when the byte is no opcode of this dialect.
pub(crate) fn opcode(code: u8, dialect: Dialect) -> Option<&'static [Op]> {
    Some(match (code, dialect) {
        (SELECT_DATABASE | IDLE, _) => &[Op::Number],
        (EXPIRE_SECONDS, _) => &[Op::Integer(4)],
        (EXPIRE_MILLISECONDS, _) => &[Op::Integer(8)],
        (RESIZE_DATABASE, _) => &[Op::Number, Op::Number],
        (AUX, _) => &[Op::Field(Field::Name), Op::Str, Op::Field(Field::Value), Op::Str],
        (FREQUENCY, _) => &[Op::Integer(1)],
        (MODULE_AUX, _) => &[Op::Number, Op::ModuleValues],
        (FUNCTION, _) => &[Op::Field(Field::Value), Op::Str],
        (SLOT_INFO, _) => &[Op::Len, Op::Len, Op::Len],
        (META_OR_SLOT_IMPORT, Dialect::Redis) => &[Op::Field(Field::Meta), Op::Each(&[Op::Fixed(4), Op::ModuleValues])],
        (META_OR_SLOT_IMPORT, Dialect::Valkey) => &[Op::Str, Op::Each(&[Op::Len, Op::Len])],
        _ => return None,
    })
}

/// What stands before every value.
pub(crate) const KEY: &[Op] = &[Op::Field(Field::Name), Op::Str, Op::Field(Field::Value)];

pub(crate) const STRING: u8 = 0;
pub(crate) const SET: u8 = 2;
pub(crate) const ZSET: u8 = 3;
pub(crate) const HASH: u8 = 4;
pub(crate) const ZSET_2: u8 = 5;
pub(crate) const VALKEY_HASH_2: u8 = 22;
pub(crate) const HASH_METADATA: u8 = 24;

const STREAM_ENTRY_ID: Op = Op::Fixed(16);
const MILLISECONDS: Op = Op::Fixed(8);
const LISTPACKS: Op = Op::Each(&[Op::Str, Op::Str]);
/// Entries delivered to a group and not acknowledged: id, time, how often.
const PENDING: Op = Op::Each(&[STREAM_ENTRY_ID, MILLISECONDS, Op::Len]);
const CONSUMERS_1: Op = Op::Each(&[Op::Str, MILLISECONDS, Op::Each(&[STREAM_ENTRY_ID])]);
/// With the time a consumer was last active (RDB 11).
const CONSUMERS_3: Op = Op::Each(&[Op::Str, MILLISECONDS, MILLISECONDS, Op::Each(&[STREAM_ENTRY_ID])]);
const GROUPS_3: Op = Op::Each(&[Op::Str, Op::Len, Op::Len, Op::Len, PENDING, CONSUMERS_3]);
const STREAM_4_TAIL: [Op; 5] =
    [Op::Len, Op::Len, Op::Each(&[Op::Str, Op::Each(&[Op::Str, Op::Len, Op::Len])]), Op::Len, Op::Len];

/// What follows the key of a value of this type; `None` when the type is not known.
pub(crate) fn value(kind: u8, dialect: Dialect) -> Option<&'static [Op]> {
    use Op::{Each, Fixed, Len, ModuleValues, Number, OldDouble, Str};
    Some(match kind {
        0 | 9..=13 | 16 | 17 | 20 => &[Str],
        1 | 2 | 14 => &[Each(&[Str])],
        3 => &[Each(&[Str, OldDouble])],
        4 => &[Each(&[Str, Str])],
        5 => &[Each(&[Str, Fixed(8)])],
        7 => &[Number, ModuleValues],
        18 => &[Each(&[Len, Str])],
        15 => &[LISTPACKS, Len, Len, Len, Each(&[Str, Len, Len, PENDING, CONSUMERS_1])],
        19 => &[LISTPACKS, Len, Len, Len, Len, Len, Len, Len, Len, Each(&[Str, Len, Len, Len, PENDING, CONSUMERS_1])],
        21 => &[LISTPACKS, Len, Len, Len, Len, Len, Len, Len, Len, GROUPS_3],
        _ => return newer_value(kind, dialect),
    })
}

/// Types that came after the two lines parted: the same number may mean two things.
fn newer_value(kind: u8, dialect: Dialect) -> Option<&'static [Op]> {
    use Op::{Each, Fixed, Len, Str};
    Some(match (kind, dialect) {
        // Fields with values and the moment each expires, -1 for never (RDB 80).
        (VALKEY_HASH_2, Dialect::Valkey) => &[Each(&[Str, Str, Fixed(8)])],
        // The earliest expiry, then distance to it, field and value (RDB 12).
        (HASH_METADATA, Dialect::Redis) => &[Fixed(8), Each(&[Len, Str, Str])],
        (25, Dialect::Redis) => &[Fixed(8), Str],
        // Producers that make adding idempotent (RDB 13).
        (26, Dialect::Redis) => &[
            LISTPACKS,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            GROUPS_3,
            STREAM_4_TAIL[0],
            STREAM_4_TAIL[1],
            STREAM_4_TAIL[2],
            STREAM_4_TAIL[3],
            STREAM_4_TAIL[4],
        ],
        // Entries that consumers gave back (RDB 14).
        (27, Dialect::Redis) => &[
            LISTPACKS,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Len,
            Each(&[Str, Len, Len, Len, PENDING, CONSUMERS_3, Each(&[STREAM_ENTRY_ID])]),
            STREAM_4_TAIL[0],
            STREAM_4_TAIL[1],
            STREAM_4_TAIL[2],
            STREAM_4_TAIL[3],
            STREAM_4_TAIL[4],
        ],
        _ => return None,
    })
}

/// The type of the data as `TYPE` would name it, for counts and messages.
pub(crate) fn type_name(kind: u8, dialect: Dialect) -> &'static str {
    match (kind, dialect) {
        (STRING, _) => "string",
        (1 | 10 | 14 | 18, _) => "list",
        (SET | 11 | 20, _) => "set",
        (ZSET | ZSET_2 | 12 | 17, _) => "zset",
        (HASH | 9 | 13 | 16, _) | (VALKEY_HASH_2, Dialect::Valkey) | (HASH_METADATA | 25, Dialect::Redis) => "hash",
        (15 | 19 | 21, _) | (26 | 27, Dialect::Redis) => "stream",
        (7, _) => "module",
        _ => "unknown",
    }
}

/// Name of a module from the 64 bits of its type id: nine characters of six bits, then ten bits
/// of version (`moduleTypeNameByID`).
pub(crate) fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9)
        .map(|place| {
            let index = (id >> (10 + 6 * (8 - place))) & 63;
            char::from(LETTERS[usize::try_from(index).unwrap_or(0)])
        })
        .collect()
}
