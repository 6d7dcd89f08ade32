//! The same for a program inside a container: blocking, cancellable, its end looked at.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use rekindle_core::entry::{ContentRead, ReadFault};
use rekindle_core::{Fault, Result};

use super::{ChildSpec, Ended, Judge, POLL_MILLIS, Stop};
use crate::container::{Exec, Inside, Order};

/// Longest wait for the engine to start a program.
const START_MAX: Duration = Duration::from_mins(1);
/// Longest wait for the engine's word on how a program ended.
const END_MAX: Duration = Duration::from_mins(2);
const FEED_BUFFER: usize = 256 * 1024;

/// A running program of a spec.
pub(super) struct Held {
    exec: Exec,
    inside: Inside,
    spec: ChildSpec,
    stop: Stop,
    current: Bytes,
}

impl Held {
    pub(super) fn start(inside: Inside, spec: ChildSpec, stop: Stop, input: bool) -> Result<Self> {
        stop.check()?;
        let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        let mut command = vec![text(spec.program.as_os_str())];
        command.extend(spec.args.iter().map(|word| text(word)));
        let environment = spec.env.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let order = Order { command, environment, input, output: !input };
        let exec = within(&inside, START_MAX, inside.start(order)).map_err(|fault| fault.during(spec.what.clone()))?;
        Ok(Self { exec, inside, spec, stop, current: Bytes::new() })
    }

    /// Runs a step on the runtime of the connection, for a moment; `None` when it takes longer.
    fn for_a_moment<T>(&mut self, step: impl AsyncFnOnce(&mut Exec) -> T) -> Option<T> {
        let pause = Duration::from_millis(POLL_MILLIS);
        let (handle, exec) = (self.inside.handle().clone(), &mut self.exec);
        handle.block_on(async { tokio::time::timeout(pause, step(exec)).await.ok() })
    }

    fn check(&mut self) -> Result<()> {
        let checked = self.stop.check();
        if checked.is_err() {
            self.kill();
        }
        checked
    }

    pub(super) fn kill(&mut self) {
        let (handle, exec) = (self.inside.handle().clone(), &mut self.exec);
        handle.block_on(exec.kill());
    }

    fn idle(&mut self) -> Fault {
        self.kill();
        let program = self.spec.program.display();
        let seconds = self.spec.idle_max.as_secs();
        Fault::new(self.spec.code, format!("wait for `{program}`: nothing passed for {seconds} s (idle limit)"))
            .during(self.spec.what.clone())
    }

    /// Some bytes of output; 0 at its end.
    pub(super) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let since = Instant::now();
        while self.current.is_empty() {
            self.check()?;
            match self.for_a_moment(async |exec| exec.next().await) {
                Some(Some(bytes)) => self.current = bytes,
                Some(None) => return Ok(0),
                None if since.elapsed() > self.spec.idle_max => return Err(self.idle()),
                None => {}
            }
        }
        let given = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..given]);
        Ok(given)
    }

    /// How it ended; it has `patience` after its last byte.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<Ended> {
        let since = Instant::now();
        while !self.exec.is_over() {
            self.check()?;
            // Output that nobody wants any more must not keep the program from ending.
            let _ = self.for_a_moment(async |exec| exec.next().await);
            if !self.exec.is_over() {
                std::thread::sleep(Duration::from_millis(POLL_MILLIS / 10));
            }
            if since.elapsed() > patience {
                self.kill();
                let program = self.spec.program.display();
                let what =
                    format!("end `{program}`: it did not end within {} s after its last byte", patience.as_secs());
                return Err(Fault::new(self.spec.code, what));
            }
        }
        let exec = &mut self.exec;
        let exit = within(&self.inside, END_MAX, exec.exit()).map_err(|fault| fault.during(self.spec.what.clone()))?;
        let mut stderr = exit.stderr;
        for secret in &self.spec.secrets {
            if !secret.expose().is_empty() {
                stderr = stderr.replace(secret.expose().as_str(), "[secret]");
            }
        }
        Ok(Ended { success: exit.code == 0, status: format!("exit status: {}", exit.code), stderr })
    }

    /// `false` when the program takes no more.
    fn push(&mut self, mut bytes: &[u8]) -> Result<bool> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            self.check()?;
            if self.exec.is_over() {
                return Ok(false);
            }
            match self.for_a_moment(async |exec| exec.write(bytes).await) {
                Some(Ok(0) | Err(_)) => return Ok(false),
                Some(Ok(taken)) => {
                    bytes = &bytes[taken..];
                    since = Instant::now();
                }
                None if since.elapsed() > self.spec.idle_max => return Err(self.idle()),
                None => {}
            }
        }
        Ok(true)
    }

    fn pour(&mut self, content: &mut dyn ContentRead) -> Result<u64> {
        let mut buffer = vec![0; FEED_BUFFER];
        let (mut bytes, mut takes) = (0, true);
        loop {
            let given = match content.read(&mut buffer) {
                Ok(0) => return Ok(bytes),
                Ok(given) => given,
                Err(ReadFault::Abort(fault)) => {
                    self.kill();
                    return Err(fault);
                }
                Err(ReadFault::Skip) => {
                    self.kill();
                    return Err(Fault::new(self.spec.code, "read the stored content: it is not there"));
                }
            };
            takes = takes && self.push(&buffer[..given])?;
            bytes += given as u64;
        }
    }
}

/// As `child::feed`, inside of a container.
pub(super) fn feed(
    inside: Inside,
    spec: ChildSpec,
    stop: Stop,
    content: Option<Box<dyn ContentRead>>,
    patience: Duration,
    judge: &Judge,
) -> Result<u64> {
    let mut held = Held::start(inside, spec, stop, true)?;
    let mut content = content;
    let bytes = match &mut content {
        Some(content) => held.pour(content.as_mut())?,
        None => 0,
    };
    let handle = held.inside.handle().clone();
    handle.block_on(held.exec.close_input());
    let ended = held.wait(patience)?;
    if !ended.success {
        return Err(judge(&ended));
    }
    if let Some(content) = content {
        content.close()?;
    }
    Ok(bytes)
}

fn within<T>(inside: &Inside, longest: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let timed = inside.handle().block_on(async { tokio::time::timeout(longest, work).await });
    timed.unwrap_or_else(|_| {
        Err(Fault::new(rekindle_core::codes::CT_ANSWER, format!("work with the container `{}`", inside.name))
            .because(format!("the engine gave no answer within {} s", longest.as_secs()))
            .hint("see whether the engine still works: `docker ps`"))
    })
}
