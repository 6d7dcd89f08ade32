//! The RDB of a part as a plain reader, and a writer that passes bytes on while they are walked.

use std::io::{self, Read, Write};

use rekindle_core::entry::{ContentRead, EntryPath, ReadFault};
use rekindle_core::port::PartReader;
use rekindle_core::{Fault, Result, codes};

use crate::redis::capture::DUMP;
use crate::redis::rdb::summary::FaultError;

/// Opens the keys of a part.
pub(crate) fn open(part: &dyn PartReader) -> Result<PartRead> {
    let path = EntryPath::new(DUMP).map_err(|error| Fault::new(codes::RUN_BUG, "name an entry").because(error))?;
    Ok(PartRead(part.open(&path)?))
}

/// Reads content of the repository; its faults come out of `read_fault` as they were.
pub(crate) struct PartRead(Box<dyn ContentRead>);

impl PartRead {
    /// After the end: whether the bytes hold.
    pub(crate) fn close(self) -> Result<()> {
        self.0.close().map(|_| ())
    }
}

impl Read for PartRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|fault| match fault {
            ReadFault::Abort(fault) => io::Error::other(FaultError(fault)),
            ReadFault::Skip => io::Error::other("the entry is not in the recovery point"),
        })
    }
}

/// Writes everything that is read.
pub(crate) struct Tee<'a> {
    pub(crate) from: &'a mut dyn Read,
    pub(crate) to: &'a mut dyn Write,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let given = self.from.read(buffer)?;
        let written = self.to.write_all(&buffer[..given]);
        written.map_err(|error| {
            let fault = Fault::new(codes::REDIS_TARGET, "write the RDB file").because(error);
            io::Error::other(FaultError(fault))
        })?;
        Ok(given)
    }
}
