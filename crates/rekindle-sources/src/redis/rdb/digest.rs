//! A digest of a value that does not depend on how a server happens to write it down: strings are
//! decoded, and the order of unordered collections does not count.

use xxhash_rust::xxh3::xxh3_128;

use super::format::{self, Dialect, Op};
use super::text::Items;

/// Digest of a type and the value that follows it. Equal digests of two values of the same
/// encoding mean the same content; `None` when the bytes are not such a value.
pub(crate) fn of(kind: u8, value: &[u8], dialect: Dialect) -> Option<u128> {
    let mut reader = Reader {
        items: Items(value),
        unordered: matches!(
            (kind, dialect),
            (format::SET | format::HASH | format::ZSET | format::ZSET_2, _)
                | (format::VALKEY_HASH_2, Dialect::Valkey)
                | (format::HASH_METADATA, Dialect::Redis)
        ),
    };
    let mut said = vec![kind];
    reader.steps(format::value(kind, dialect)?, &mut said)?;
    reader.items.0.is_empty().then(|| xxh3_128(&said))
}

struct Reader<'a> {
    items: Items<'a>,
    unordered: bool,
}

impl Reader<'_> {
    fn steps(&mut self, steps: &[Op], said: &mut Vec<u8>) -> Option<()> {
        for step in steps {
            match *step {
                Op::Str => {
                    let text = self.items.text()?;
                    said.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    said.extend_from_slice(&text);
                }
                Op::Len | Op::Number => {
                    said.extend_from_slice(&self.items.number()?.to_le_bytes());
                }
                Op::Fixed(count) => said.extend_from_slice(self.items.take(count)?),
                Op::Integer(width) => {
                    said.extend_from_slice(self.items.take(u64::from(width))?);
                }
                Op::OldDouble => {
                    let count = self.items.take(1)?[0];
                    said.push(count);
                    if count < 253 {
                        said.extend_from_slice(self.items.take(u64::from(count))?);
                    }
                }
                Op::Each(inner) => self.each(inner, said)?,
                Op::ModuleValues => self.module_values(said)?,
                Op::Field(_) => {}
            }
        }
        Some(())
    }

    fn each(&mut self, steps: &[Op], said: &mut Vec<u8>) -> Option<()> {
        let count = self.items.number()?;
        said.extend_from_slice(&count.to_le_bytes());
        if !self.unordered {
            return (0..count).try_for_each(|_| self.steps(steps, said));
        }
        let mut sum = 0u128;
        let mut one = Vec::new();
        for _ in 0..count {
            one.clear();
            self.steps(steps, &mut one)?;
            sum = sum.wrapping_add(xxh3_128(&one));
        }
        said.extend_from_slice(&sum.to_le_bytes());
        Some(())
    }

    fn module_values(&mut self, said: &mut Vec<u8>) -> Option<()> {
        loop {
            let code = self.items.number()?;
            said.extend_from_slice(&code.to_le_bytes());
            match code {
                0 => return Some(()),
                1 | 2 => self.steps(&[Op::Len], said)?,
                3 => self.steps(&[Op::Fixed(4)], said)?,
                4 => self.steps(&[Op::Fixed(8)], said)?,
                5 => self.steps(&[Op::Str], said)?,
                _ => return None,
            }
        }
    }
}
