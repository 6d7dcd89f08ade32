//! The output of a child as content.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use rekindle_core::entry::{Closing, ContentRead, Meta, ReadFault};
use rekindle_core::{ErrorCode, Fault, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::inside::Held;
use super::{Child, ChildSpec, EXIT_MAX, Ended, POLL_MILLIS, Pipe, Stop};

/// The largest pipe an unprivileged Linux process may ask for.
const PIPE_BYTES: usize = 1024 * 1024;
/// Reads into less than this are wanted at once.
const BULK_BYTES: usize = 128 * 1024;
/// Less than this in the pipe of a bulk read is worth a short wait for more: programs such as `pg_dump`
/// write a page at a time, and taking each page at once makes both processes wake each other up.
const WORTH_BYTES: u64 = 256 * 1024;
/// That wait. The pipe has room for what comes meanwhile at 2 GB/s.
const GATHER: Duration = Duration::from_micros(500);

/// Makes an error of a bad end.
pub type Judge = Box<dyn Fn(&Ended) -> Fault + Send>;

/// A child's standard output, read as it comes. The exit status is looked at in `close`, so a
/// program that fails after its last byte never makes a stream that ended well.
pub struct ChildRead {
    from: From,
    what: String,
    code: &'static ErrorCode,
    meta: Meta,
    judge: Judge,
    ended: bool,
}

enum From {
    Here(Box<Output>),
    Inside(Box<Held>),
}

/// A process of this host and its pipe.
struct Output {
    child: Child,
    stdout: ChildStdout,
}

impl ChildRead {
    /// Starts the program. `meta` is what the entry gets when the program ends well.
    pub fn start(spec: ChildSpec, stop: Stop, meta: Meta, judge: Judge) -> Result<Self> {
        let (what, code) = (spec.what.clone(), spec.code);
        let from = match spec.inside.clone() {
            Some(inside) => From::Inside(Box::new(Held::start(inside, spec, stop, false)?)),
            None => From::Here(Box::new(Output::start(spec, stop)?)),
        };
        Ok(Self { from, what, code, meta, judge, ended: false })
    }

    /// Some bytes; 0 at the end of the output.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.ended {
            return Ok(0);
        }
        let given = match &mut self.from {
            From::Here(output) => output.read_some(buffer)?,
            From::Inside(held) => held.read_some(buffer)?,
        };
        self.ended = given == 0;
        Ok(given)
    }

    /// After the last byte: whether the program ended well.
    pub fn end(&mut self) -> Result<()> {
        if !self.ended {
            match &mut self.from {
                From::Here(output) => output.child.kill(),
                From::Inside(held) => held.kill(),
            }
            return Err(Fault::new(self.code, self.what.clone()).because("its output was not read to the end"));
        }
        let ended = match &mut self.from {
            From::Here(output) => output.child.wait(EXIT_MAX)?,
            From::Inside(held) => held.wait(EXIT_MAX)?,
        };
        if ended.success { Ok(()) } else { Err((self.judge)(&ended)) }
    }
}

impl Output {
    fn start(spec: ChildSpec, stop: Stop) -> Result<Self> {
        let mut child = Child::start(spec, stop, Pipe::Stdout)?;
        let Some(stdout) = child.process.stdout.take() else {
            return Err(child.fault("read the program's output: there is no pipe"));
        };
        // Fewer switches between the two processes; where it is refused, the usual size does.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
        Ok(Self { child, stdout })
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let since = Instant::now();
        loop {
            if let Err(fault) = self.child.stop.check() {
                self.child.kill();
                return Err(fault);
            }
            if ready(&self.stdout, PollFlags::IN)
                .map_err(|error| self.child.fault("wait for the program").because(error))?
            {
                if buffer.len() >= BULK_BYTES
                    && rustix::io::ioctl_fionread(&self.stdout).is_ok_and(|n| (1..WORTH_BYTES).contains(&n))
                {
                    std::thread::sleep(GATHER);
                }
                return self
                    .stdout
                    .read(buffer)
                    .map_err(|error| self.child.fault("read from the program").because(error));
            }
            if since.elapsed() > self.child.spec.idle_max {
                return Err(self.child.idle());
            }
        }
    }
}

impl ContentRead for ChildRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        Ok(self.read_some(buffer)?)
    }

    fn close(mut self: Box<Self>) -> Result<Closing> {
        self.end()?;
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}

/// Runs a program to its end and gives what it wrote, at most `bytes_max`.
pub fn output(spec: ChildSpec, stop: Stop, bytes_max: usize, judge: Judge) -> Result<Vec<u8>> {
    let code = spec.code;
    let what = spec.what.clone();
    let meta = Meta::synthetic(rekindle_core::entry::EntryKind::File, jiff::Timestamp::UNIX_EPOCH);
    let mut read = ChildRead::start(spec, stop, meta, judge)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let given = read.read_some(&mut buffer)?;
        if given == 0 {
            break;
        }
        if bytes.len() + given > bytes_max {
            return Err(Fault::new(code, what)
                .because(format!("the program wrote more than {bytes_max} bytes (limit of this step)")));
        }
        bytes.extend_from_slice(&buffer[..given]);
    }
    read.end()?;
    Ok(bytes)
}

/// Waits a moment for the descriptor; `false` when nothing happened.
pub(super) fn ready(fd: &impl AsFd, wanted: PollFlags) -> std::io::Result<bool> {
    let mut polled = [PollFd::new(fd, wanted)];
    let pause = Duration::from_millis(POLL_MILLIS);
    let pause = Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut polled, Some(&pause)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
