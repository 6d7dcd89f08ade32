//! `cat`

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use rekindle_core::entry::{ContentRead, ReadFault};
use rekindle_core::port::Repository;
use rekindle_core::{Fault, Result, codes};

use crate::output;
use crate::session::{Faults, Session};
use crate::wire;

const BUFFER_BYTES: usize = 1 << 20;

/// Write one stored file to standard output, checked against its hashes
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// Beginning of the point's id, or `latest`
    point: String,
    /// COMPONENT/PATH of a file
    path: OsString,
}

impl Cat {
    pub(crate) fn run(&self, session: &Session) -> Result<(), Faults> {
        if session.global.json {
            let what = "print a file as JSON: `cat` writes the file itself";
            return Err(Fault::new(codes::CLI_USAGE, what).hint("leave out --json").into());
        }
        let repository = wire::open(session, &wire::place(session)?)?;
        let point = wire::point(&repository, &self.point)?;
        let (component, path) = super::ls::split(self.path.as_bytes())?;
        let Some(path) = path else {
            let what = format!("write `{component}`: this is a component, not a file");
            return Err(Fault::new(codes::CLI_USAGE, what).hint("rekindle ls POINT COMPONENT").into());
        };
        let part = repository.open(point.id(), &component)?;
        copy(part.open(&path)?, session).map_err(Faults::from)
    }
}

fn copy(mut content: Box<dyn ContentRead>, session: &Session) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        session.cancel.check()?;
        let count = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(ReadFault::Abort(fault)) => return Err(fault),
            Err(ReadFault::Skip) => {
                return Err(Fault::new(codes::RUN_BUG, "read a stored file: it asks to be skipped"));
            }
        };
        match stdout.write_all(&buffer[..count]) {
            // The reader has gone away: it has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => output::closed_is_fine(written)?,
        }
    }
    content.close()?;
    output::closed_is_fine(stdout.flush())
}
