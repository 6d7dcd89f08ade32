//! Counts what an RDB stream holds.

use std::collections::BTreeMap;
use std::io::Read;

use rekindle_core::{Cancel, Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::format::{self, Dialect};
use super::record::{Keep, Record, Visitor};
use super::walk::Walker;

/// Bytes read at a time from files and parts.
const PIECE_BYTES: usize = 256 << 10;
/// Auxiliary fields that are kept; servers write about ten.
const AUX_FIELDS_MAX: usize = 64;

/// Keys of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DatabaseCount {
    /// All keys, those included that had expired and were not removed yet.
    pub keys: u64,
    /// Of these, keys with an expiry.
    pub expires: u64,
    /// Of these, keys whose expiry lay before the reference moment.
    pub expired: u64,
}

/// What a whole RDB stream holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RdbSummary {
    /// `REDIS` or `VALKEY`.
    pub magic: String,
    pub version: u16,
    pub bytes: u64,
    /// CRC64 at the end, hexadecimal; `None` when the server writes none (`rdbchecksum no`).
    pub checksum: Option<String>,
    pub databases: BTreeMap<u64, DatabaseCount>,
    /// Keys per type.
    pub types: BTreeMap<String, u64>,
    /// Libraries of functions.
    pub functions: u64,
    /// Modules that own values or auxiliary data: without them the data cannot be loaded.
    pub modules: Vec<String>,
    /// Auxiliary fields: `redis-ver`, `ctime`, `used-mem`, `repl-id`, `repl-offset`, `aof-base`, …
    pub aux: BTreeMap<String, String>,
}

impl RdbSummary {
    /// Keys of all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|count| count.keys).sum()
    }
}

/// Counts records; `reference` is the moment (milliseconds since 1970) that decides what has
/// expired.
#[derive(Debug)]
pub(crate) struct Counter {
    summary: RdbSummary,
    reference: i64,
    dialect: Dialect,
}

impl Counter {
    pub(crate) fn new(reference: i64) -> Self {
        Self { summary: RdbSummary::default(), reference, dialect: Dialect::Redis }
    }

    fn module(&mut self, id: u64) {
        let name = format::module_name(id);
        if !self.summary.modules.contains(&name) {
            self.summary.modules.push(name);
        }
    }

    /// What was counted, once the walker has reached the end.
    pub(crate) fn finish(mut self, walker: &Walker) -> Result<RdbSummary> {
        if !walker.is_done() {
            return Err(truncated(walker.offset()));
        }
        self.summary.bytes = walker.offset();
        self.summary.modules.sort();
        Ok(self.summary)
    }
}

/// The stream ended before its end opcode and checksum.
pub(crate) fn truncated(offset: u64) -> Fault {
    Fault::new(
        codes::REDIS_TRUNCATED,
        format!("read the RDB stream: it ended after {offset} bytes, before its end mark"),
    )
    .hint("look into the server's log for a failed background save or a lost replica connection")
}

impl Visitor for Counter {
    fn record(&mut self, record: Record<'_>) -> Result<()> {
        match record {
            Record::Header { dialect, version } => {
                self.dialect = dialect;
                dialect.magic().clone_into(&mut self.summary.magic);
                self.summary.version = version;
            }
            Record::Aux { name, value } => {
                if self.summary.aux.len() < AUX_FIELDS_MAX {
                    self.summary.aux.insert(
                        String::from_utf8_lossy(name).into_owned(),
                        String::from_utf8_lossy(value).into_owned(),
                    );
                }
            }
            Record::Database(number) => {
                self.summary.databases.entry(number).or_default();
            }
            Record::Function(_) => self.summary.functions += 1,
            Record::ModuleAux(id) => self.module(id),
            Record::Key(key) => {
                let count = self.summary.databases.entry(key.database).or_default();
                count.keys += 1;
                if let Some(at) = key.expires {
                    count.expires += 1;
                    count.expired += u64::from(at <= self.reference);
                }
                let name = format::type_name(key.kind, self.dialect);
                if let Some(of_type) = self.summary.types.get_mut(name) {
                    *of_type += 1;
                } else {
                    self.summary.types.insert(name.to_owned(), 1);
                }
                if key.kind == 7 {
                    self.module(key.module);
                }
            }
            Record::End { checksum } => {
                self.summary.checksum = checksum.map(|value| format!("{value:016x}"));
            }
        }
        Ok(())
    }
}

/// Walks a reader to its very end: the RDB stream must be whole and nothing may follow it.
/// Gives the number of bytes.
pub(crate) fn walk(from: &mut dyn Read, keep: Keep, visitor: &mut dyn Visitor, cancel: &Cancel) -> Result<Walker> {
    let mut walker = Walker::new(keep);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        cancel.check()?;
        let given = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(given) => given,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_fault(error)),
        };
        let taken = walker.feed(&piece[..given], visitor)?;
        if taken < given {
            return Err(Fault::new(
                codes::REDIS_RDB,
                format!("read the RDB stream: bytes follow its end at {}", walker.offset()),
            ));
        }
    }
    if walker.is_done() { Ok(walker) } else { Err(truncated(walker.offset())) }
}

/// An error of a reader that may carry a fault of ours.
pub(crate) fn read_fault(error: std::io::Error) -> Fault {
    match error.downcast::<FaultError>() {
        Ok(FaultError(fault)) => fault,
        Err(error) => Fault::new(codes::REDIS_RDB, "read the RDB file").because(error),
    }
}

/// Carries a fault through `std::io::Read`.
#[derive(Debug)]
pub(crate) struct FaultError(pub(crate) Fault);

impl std::fmt::Display for FaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for FaultError {}

/// Counts a whole reader.
pub(crate) fn summarize(from: &mut dyn Read, reference: i64, cancel: &Cancel) -> Result<RdbSummary> {
    let mut counter = Counter::new(reference);
    let walker = walk(from, Keep::Counts, &mut counter, cancel)?;
    counter.finish(&walker)
}
