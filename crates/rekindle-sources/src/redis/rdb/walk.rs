//! Walks an RDB stream as it arrives, in pieces of any size, in bounded memory.
//!
//! Every length is followed to the end opcode and the checksum is compared there, so a stream that
//! was cut, changed or mixed up cannot pass for a whole one.

use rekindle_core::{Fault, Result, codes};

use super::crc64::Crc64;
use super::format::{self, Dialect, Op};
use super::record::{Fields, Keep, Key, Pending, Record, VALUE_BYTES_MAX, Visitor};
use super::text::{self, Length};

/// Longest field that is kept of records other than keys (auxiliary fields are short).
const SMALL_FIELD_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of the format (streams: groups, consumers, entries) with room to spare.
const DEPTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Magic,
    Code,
    Skip(u64),
    Length(Use),
    Integer(u8),
    OldDouble,
    Trailer,
    Nothing,
}

/// What a length is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Ignore,
    Remember,
    Count(&'static [Op]),
    Text,
    PackedSize,
    UnpackedSize(u64),
    ModuleCode,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    steps: &'static [Op],
    next: usize,
    again: u64,
}

/// The state between two pieces of the stream.
#[derive(Debug)]
pub(crate) struct Walker {
    keep: Keep,
    need: Need,
    head: [u8; 9],
    have: usize,
    offset: u64,
    crc: Crc64,
    dialect: Dialect,
    version: u16,
    stack: Vec<Frame>,
    code: u8,
    is_key: bool,
    numbers: [u64; 2],
    numbered: usize,
    fields: Fields,
    pending: Pending,
    database: u64,
}

impl Walker {
    /// Before the first byte.
    pub(crate) fn new(keep: Keep) -> Self {
        Self {
            keep,
            need: Need::Magic,
            head: [0; 9],
            have: 0,
            offset: 0,
            crc: Crc64::default(),
            dialect: Dialect::Redis,
            version: 0,
            stack: Vec::with_capacity(DEPTH),
            code: 0,
            is_key: false,
            numbers: [0; 2],
            numbered: 0,
            fields: Fields::default(),
            pending: Pending::default(),
            database: 0,
        }
    }

    /// Whether the end was reached and everything fits.
    pub(crate) fn is_done(&self) -> bool {
        self.need == Need::Nothing
    }

    /// Bytes taken so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next piece and says how much of it belongs to the RDB stream: all, unless the
    /// stream ended within.
    pub(crate) fn feed(&mut self, bytes: &[u8], visitor: &mut dyn Visitor) -> Result<usize> {
        let mut at = 0;
        let mut summed = 0;
        while at < bytes.len() && self.need != Need::Nothing {
            if let Need::Skip(left) = self.need {
                let there = (bytes.len() - at) as u64;
                let taken = usize::try_from(left.min(there)).unwrap_or(usize::MAX);
                self.retain(&bytes[at..at + taken]);
                at += taken;
                self.offset += taken as u64;
                let left = left - taken as u64;
                self.need = Need::Skip(left);
                if left == 0 {
                    self.advance(visitor)?;
                }
                continue;
            }
            self.head[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            self.offset += 1;
            if self.have < self.wanted()? {
                continue;
            }
            if self.need == Need::Trailer {
                self.have = 0;
                self.end(u64::from_le_bytes(self.eight()), visitor)?;
                continue;
            }
            let head = self.head;
            let gathered = &head[..std::mem::take(&mut self.have)];
            self.retain(gathered);
            self.act(gathered, visitor)?;
            if self.need == Need::Trailer || self.need == Need::Nothing {
                self.crc.update(&bytes[summed..at]);
                summed = bytes.len();
            }
        }
        if !matches!(self.need, Need::Trailer | Need::Nothing) {
            self.crc.update(&bytes[summed..at]);
        }
        Ok(at)
    }

    /// Number of bytes the item at hand takes, as far as it is known.
    fn wanted(&self) -> Result<usize> {
        Ok(match self.need {
            Need::Magic => 9,
            Need::Trailer => 8,
            Need::Integer(width) => usize::from(width),
            Need::Length(_) => {
                text::length_width(self.head[0]).ok_or_else(|| self.bad("no length starts with this byte"))?
            }
            Need::Code | Need::OldDouble | Need::Skip(_) | Need::Nothing => 1,
        })
    }

    fn eight(&self) -> [u8; 8] {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.head[..8]);
        eight
    }

    fn act(&mut self, head: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
        match self.need {
            Need::Magic => self.magic(head, visitor),
            Need::Code => self.begin(head[0], visitor),
            Need::Integer(_) => {
                let mut wide = [0; 8];
                wide[..head.len()].copy_from_slice(head);
                self.remember(u64::from_le_bytes(wide));
                self.advance(visitor)
            }
            Need::OldDouble => {
                let count = if head[0] >= 253 { 0 } else { head[0] };
                self.skip(u64::from(count), visitor)
            }
            Need::Length(purpose) => {
                let length = text::length(head).ok_or_else(|| self.bad("not a length"))?;
                self.use_length(length, purpose, visitor)
            }
            Need::Skip(_) | Need::Trailer | Need::Nothing => Ok(()),
        }
    }

    fn magic(&mut self, head: &[u8], visitor: &mut dyn Visitor) -> Result<()> {
        let (dialect, digits) = if let Some(digits) = head.strip_prefix(b"REDIS") {
            (Dialect::Redis, digits)
        } else if let Some(digits) = head.strip_prefix(b"VALKEY") {
            (Dialect::Valkey, digits)
        } else {
            return Err(self.bad("it does not start with `REDIS` or `VALKEY`"));
        };
        let version = std::str::from_utf8(digits)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|version| *version > 0)
            .ok_or_else(|| self.bad("its version is not a number"))?;
        (self.dialect, self.version) = (dialect, version);
        self.need = Need::Code;
        visitor.record(Record::Header { dialect, version })
    }

    fn begin(&mut self, code: u8, visitor: &mut dyn Visitor) -> Result<()> {
        self.code = code;
        self.numbered = 0;
        self.numbers = [0; 2];
        self.fields.current = None;
        if self.fields.meta.is_empty() {
            self.fields.too_large = false;
        }
        if code == format::EOF {
            // Before version 5 nothing follows.
            if self.version < 5 {
                self.need = Need::Nothing;
                return visitor.record(Record::End { checksum: None });
            }
            self.need = Need::Trailer;
            return Ok(());
        }
        self.is_key = false;
        if let Some(steps) = format::opcode(code, self.dialect) {
            self.push(steps, 0)?;
        } else if let Some(steps) = format::value(code, self.dialect) {
            self.is_key = true;
            self.push(steps, 0)?;
            self.push(format::KEY, 0)?;
        } else {
            let magic = self.dialect.magic();
            return Err(self
                .bad(format!("type {code} of {magic} RDB version {} is not known", self.version))
                .hint("update rekindle: it does not know all the data types of this server"));
        }
        self.advance(visitor)
    }

    fn push(&mut self, steps: &'static [Op], again: u64) -> Result<()> {
        if self.stack.len() == DEPTH {
            return Err(self.bad("it is nested too deeply"));
        }
        self.stack.push(Frame { steps, next: 0, again });
        Ok(())
    }

    /// Goes on to the next thing that needs bytes.
    fn advance(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        loop {
            let Some(frame) = self.stack.last_mut() else {
                return self.finish_record(visitor);
            };
            let Some(step) = frame.steps.get(frame.next).copied() else {
                if frame.again == 0 {
                    self.stack.pop();
                } else {
                    frame.again -= 1;
                    frame.next = 0;
                }
                continue;
            };
            frame.next += 1;
            self.need = match step {
                Op::Field(field) => {
                    self.fields.current = Some(field);
                    self.fields.clear(field);
                    continue;
                }
                Op::Str => Need::Length(Use::Text),
                Op::Len => Need::Length(Use::Ignore),
                Op::Number => Need::Length(Use::Remember),
                Op::Each(steps) => Need::Length(Use::Count(steps)),
                Op::ModuleValues => Need::Length(Use::ModuleCode),
                Op::Integer(width) => Need::Integer(width),
                Op::OldDouble => Need::OldDouble,
                Op::Fixed(count) => Need::Skip(count),
            };
            return Ok(());
        }
    }

    fn skip(&mut self, count: u64, visitor: &mut dyn Visitor) -> Result<()> {
        self.need = Need::Skip(count);
        if count == 0 { self.advance(visitor) } else { Ok(()) }
    }

    fn use_length(&mut self, length: Length, purpose: Use, visitor: &mut dyn Visitor) -> Result<()> {
        let number = match (length, purpose) {
            (Length::Special(code @ 0..=2), Use::Text) => return self.skip(1 << code, visitor),
            (Length::Special(3), Use::Text) => {
                self.need = Need::Length(Use::PackedSize);
                return Ok(());
            }
            (Length::Special(code), Use::Text) => {
                return Err(self.bad(format!("string encoding {code} is not known")));
            }
            (Length::Special(_), _) => {
                return Err(self.bad("a string encoding stands where a length has to be"));
            }
            (Length::Plain(number), _) => number,
        };
        match purpose {
            Use::Ignore => self.advance(visitor),
            Use::Remember => {
                self.remember(number);
                self.advance(visitor)
            }
            Use::Text => self.skip(number, visitor),
            Use::PackedSize => {
                self.need = Need::Length(Use::UnpackedSize(number));
                Ok(())
            }
            Use::UnpackedSize(packed) => self.skip(packed, visitor),
            Use::Count(steps) => {
                if let Some(more) = number.checked_sub(1) {
                    self.push(steps, more)?;
                }
                self.advance(visitor)
            }
            Use::ModuleCode => self.module_value(number, visitor),
        }
    }

    /// One value of a module; the end opcode ends the list.
    fn module_value(&mut self, code: u64, visitor: &mut dyn Visitor) -> Result<()> {
        let steps: &'static [Op] = match code {
            0 => return self.advance(visitor),
            1 | 2 => &[Op::Len, Op::ModuleValues],
            3 => &[Op::Fixed(4), Op::ModuleValues],
            4 => &[Op::Fixed(8), Op::ModuleValues],
            5 => &[Op::Str, Op::ModuleValues],
            _ => return Err(self.bad(format!("module value opcode {code} is not known"))),
        };
        // A list of one million values must not nest a million deep: the frame of the value
        // before is at its end here and makes room.
        if let Some(frame) = self.stack.last()
            && frame.next == frame.steps.len()
            && frame.again == 0
        {
            self.stack.pop();
        }
        self.push(steps, 0)?;
        self.advance(visitor)
    }

    fn remember(&mut self, number: u64) {
        if let Some(slot) = self.numbers.get_mut(self.numbered) {
            *slot = number;
            self.numbered += 1;
        }
    }

    fn retain(&mut self, bytes: &[u8]) {
        if self.stack.is_empty() {
            return;
        }
        let small = !self.is_key && self.code != format::FUNCTION;
        let meta = !self.is_key && self.code == format::META_OR_SLOT_IMPORT;
        match self.keep {
            Keep::Everything => self.fields.retain(bytes, VALUE_BYTES_MAX),
            Keep::Counts if small && !meta => self.fields.retain(bytes, SMALL_FIELD_BYTES_MAX),
            Keep::Counts => {}
        }
    }

    fn finish_record(&mut self, visitor: &mut dyn Visitor) -> Result<()> {
        self.need = Need::Code;
        let [first, _] = self.numbers;
        if self.is_key {
            let pending = std::mem::take(&mut self.pending);
            let key = Key {
                database: self.database,
                kind: self.code,
                expires: pending.expires,
                idle: pending.idle,
                frequency: pending.frequency,
                module: first,
                name: &self.fields.name,
                meta: &self.fields.meta,
                value: &self.fields.value,
                too_large: self.fields.too_large,
            };
            visitor.record(Record::Key(key))?;
            self.fields = Fields::default();
            return Ok(());
        }
        match self.code {
            format::SELECT_DATABASE => {
                self.database = first;
                visitor.record(Record::Database(first))
            }
            format::EXPIRE_SECONDS => {
                let seconds = u32::try_from(first).unwrap_or(u32::MAX);
                self.pending.expires = Some(i64::from(seconds.cast_signed()) * 1000);
                Ok(())
            }
            format::EXPIRE_MILLISECONDS => {
                self.pending.expires = Some(first.cast_signed());
                Ok(())
            }
            format::IDLE => {
                self.pending.idle = Some(first);
                Ok(())
            }
            format::FREQUENCY => {
                self.pending.frequency = Some(first);
                Ok(())
            }
            format::AUX => visitor.record(Record::Aux {
                name: &text::decode(&self.fields.name).unwrap_or_default(),
                value: &text::decode(&self.fields.value).unwrap_or_default(),
            }),
            format::FUNCTION => visitor.record(Record::Function(&self.fields.value)),
            format::MODULE_AUX => visitor.record(Record::ModuleAux(first)),
            _ => Ok(()),
        }
    }

    fn end(&mut self, stored: u64, visitor: &mut dyn Visitor) -> Result<()> {
        let computed = self.crc.value();
        if stored != 0 && stored != computed {
            return Err(Fault::new(
                codes::REDIS_CHECKSUM,
                format!(
                    "check the RDB stream of {} bytes: its checksum is {stored:016x}, its content \
                     gives {computed:016x}",
                    self.offset
                ),
            )
            .hint("take the backup again; if this repeats, check the memory of both hosts"));
        }
        self.need = Need::Nothing;
        visitor.record(Record::End { checksum: (stored != 0).then_some(stored) })
    }

    fn bad(&self, why: impl std::fmt::Display) -> Fault {
        Fault::new(codes::REDIS_RDB, format!("read the RDB stream at byte {}: {why}", self.offset))
    }
}
