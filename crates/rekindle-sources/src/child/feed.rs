//! Content into the input of a child.

use std::io::Write;
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use rekindle_core::Result;
use rekindle_core::entry::{ContentRead, ReadFault};
use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::read::ready;
use super::{Child, ChildSpec, Judge, Pipe, Stop};

const FEED_BUFFER: usize = 256 * 1024;

/// Runs a program with `content` as its input (none: an empty input), to its end. Gives the bytes
/// it took. The program is killed when the content turns out to be damaged, so that half of it is
/// never taken for the whole. `patience` bounds the work after the last byte.
pub fn feed(
    spec: ChildSpec,
    stop: Stop,
    content: Option<Box<dyn ContentRead>>,
    patience: Duration,
    judge: &Judge,
) -> Result<u64> {
    if let Some(inside) = spec.inside.clone() {
        return super::inside::feed(inside, spec, stop, content, patience, judge);
    }
    let mut child = Child::start(spec, stop, Pipe::Stdin)?;
    let stdin = child.process.stdin.take();
    let mut bytes = 0;
    if let (Some(mut content), Some(stdin)) = (content, stdin) {
        bytes = pour(&mut child, stdin, content.as_mut())?;
        let ended = child.wait(patience)?;
        if !ended.success {
            return Err(judge(&ended));
        }
        content.close()?;
        return Ok(bytes);
    }
    let ended = child.wait(patience)?;
    if ended.success { Ok(bytes) } else { Err(judge(&ended)) }
}

/// Writes the content to the program, as long as it takes it.
fn pour(child: &mut Child, mut stdin: ChildStdin, content: &mut dyn ContentRead) -> Result<u64> {
    let flags = fcntl_getfl(&stdin).map_err(|e| child.fault("prepare the pipe").because(e))?;
    fcntl_setfl(&stdin, flags | OFlags::NONBLOCK).map_err(|e| child.fault("prepare the pipe").because(e))?;
    let mut buffer = vec![0; FEED_BUFFER];
    let mut bytes = 0;
    // A program may know enough before the end; the rest is read all the same, because the content
    // is checked against its hashes only when its end is reached.
    let mut takes = true;
    loop {
        let given = match content.read(&mut buffer) {
            Ok(given) => given,
            Err(ReadFault::Abort(fault)) => {
                child.kill();
                return Err(fault);
            }
            Err(ReadFault::Skip) => {
                child.kill();
                return Err(child.fault("read the stored content: it is not there"));
            }
        };
        if given == 0 {
            return Ok(bytes);
        }
        takes = takes && push(child, &mut stdin, &buffer[..given])?;
        bytes += given as u64;
    }
}

/// `false` when the program closed its input.
fn push(child: &mut Child, stdin: &mut ChildStdin, mut bytes: &[u8]) -> Result<bool> {
    let mut since = Instant::now();
    while !bytes.is_empty() {
        if let Err(fault) = child.stop.check() {
            child.kill();
            return Err(fault);
        }
        match stdin.write(bytes) {
            Ok(taken) => {
                bytes = &bytes[taken..];
                since = Instant::now();
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ready(stdin, PollFlags::OUT).map_err(|error| child.fault("wait for the program").because(error))?;
                if since.elapsed() > child.spec.idle_max {
                    return Err(child.idle());
                }
            }
            Err(error) => return Err(child.fault("write to the program").because(error)),
        }
    }
    Ok(true)
}
