//! A program inside a container, with its streams, watched to its end.
//!
//! The exec API of Docker says how a program ended, but neither that the stream we read was whole,
//! nor does it let us end the program. So a small shell script runs between the two:
//!
//! - it names its process, so that a second exec can end it;
//! - a secret comes as the first line of its input and goes into the environment of the program
//!   alone: what an exec is created with (arguments, environment) can be read by everybody who may
//!   inspect containers;
//! - after the program's last byte it writes a mark with the exit code. A stream without the mark was
//!   cut, whatever the engine says about the exit code.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use rekindle_core::{Fault, Result, Secret, codes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::engine::Engine;

/// Pieces of output that wait for their reader: at most some hundred KiB.
const PIECES_MAX: usize = 16;
/// Bytes of diagnostics that are kept, from the end.
const STDERR_TAIL_MAX: usize = 32 * 1024;
/// How long the engine may take to know that an exec has ended, after its stream did.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_POLL: Duration = Duration::from_millis(50);
/// `\nrekindle:` token, blank, three digits, `\n`.
const MARK_BYTES: usize = 10 + TOKEN_BYTES + 5;
const TOKEN_BYTES: usize = 32;

/// `$1` token, `$2` name of the secret's variable or empty, then the program.
const SCRIPT: &str = r#"exec 3<&0
c=
trap 'trap - TERM; [ -z "$c" ] || kill "$c" 2>/dev/null; exit 143' TERM INT HUP
printf 'rekindle:%s %d\n' "$1" "$$" >&2
if [ -n "$2" ]; then IFS= read -r s <&3; export "$2=$s"; s=; fi
t=$1; shift 2
"$@" <&3 3<&- & c=$!
exec 3<&-
wait "$c"; e=$?
printf '\nrekindle:%s %03d\n' "$t" "$e"
exit "$e""#;

/// A container as the place where programs run.
#[derive(Debug, Clone)]
pub struct Inside {
    engine: Engine,
    /// For reading.
    pub(crate) name: String,
    id: String,
    handle: Handle,
    secret: Option<(String, Secret<String>)>,
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Program and arguments; seen by everybody who may inspect containers.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Whether standard input is ours; else it is empty.
    pub(crate) input: bool,
    /// Whether standard output is read; else it is thrown away.
    pub(crate) output: bool,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i64,
    pub(crate) stderr: String,
}

impl Inside {
    pub(super) fn new(engine: Engine, name: String, id: String) -> Self {
        Self { engine, name, id, handle: Handle::current(), secret: None }
    }

    /// The same, with a secret (of one line) for an environment variable of the programs.
    #[must_use]
    pub(crate) fn with_secret(&self, variable: &str, secret: Secret<String>) -> Self {
        Self { secret: Some((variable.to_owned(), secret)), ..self.clone() }
    }

    /// The runtime that serves the connection.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn fault(&self, what: &str) -> Fault {
        Fault::new(codes::CT_EXEC, format!("{what} in the container `{}`", self.name))
    }

    /// Starts a program.
    pub(crate) async fn start(&self, order: Order) -> Result<Exec> {
        let token = token();
        let program = order.command.first().cloned().unwrap_or_default();
        let variable = self.secret.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        let head = ["/bin/sh", "-c", SCRIPT, "rekindle", &token, &variable].map(str::to_owned);
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(order.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: Some(head.into_iter().chain(order.command).collect()),
            ..ExecConfig::default()
        };
        let what = format!("run `{program}` in the container `{}`", self.name);
        let docker = self.engine.docker().await?;
        let created = match docker.create_exec(&self.id, config).await {
            Ok(created) => created.id,
            Err(error) => return Err(self.why_not(self.engine.fault(&what, error)).await),
        };
        let started = docker.start_exec(&created, None).await;
        let (output, mut input) = match started {
            Ok(StartExecResults::Attached { output, input }) => (output, input),
            Ok(StartExecResults::Detached) => return Err(self.fault("attach to a program")),
            Err(error) => return Err(self.why_not(self.engine.fault(&what, error)).await),
        };
        let heard = Arc::default();
        let (pieces, received) = mpsc::channel(PIECES_MAX);
        tokio::spawn(pump(output, token, order.output.then_some(pieces), Arc::clone(&heard)));
        if let Some((_, secret)) = &self.secret {
            let line = Secret::new(format!("{}\n", secret.expose()));
            input
                .write_all(line.expose().as_bytes())
                .await
                .map_err(|error| self.fault("write to a program").because(error))?;
            input.flush().await.map_err(|error| self.fault("write to a program").because(error))?;
        }
        let mut exec = Exec {
            inside: self.clone(),
            id: created,
            program,
            received,
            input: Mutex::new(Some(input)),
            heard,
            over: false,
        };
        if !order.input {
            exec.close_input().await;
        }
        Ok(exec)
    }

    /// The error of a container that does not run, when that is the reason.
    async fn why_not(&self, fault: Fault) -> Fault {
        match self.engine.container(&self.name).await.and_then(|found| found.running()) {
            Err(stopped) if stopped.is(codes::CT_STOPPED) || stopped.is(codes::CT_ABSENT) => stopped,
            _ => fault,
        }
    }

    /// Runs a program to its end, without input; its output is thrown away unless `into` is given.
    pub(crate) async fn run(&self, command: Vec<String>, environment: Vec<(String, String)>) -> Result<Exit> {
        let order = Order { command, environment, input: false, output: false };
        let mut exec = self.start(order).await?;
        exec.closed().await?;
        exec.exit().await
    }
}

type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A running program. Dropping it ends the program, as well as that can be done.
pub(crate) struct Exec {
    inside: Inside,
    id: String,
    program: String,
    received: mpsc::Receiver<Bytes>,
    /// Behind a lock only so that the whole can be shared between threads.
    input: Mutex<Option<Input>>,
    heard: Arc<Mutex<Heard>>,
    over: bool,
}

/// What the pump has seen.
#[derive(Debug, Default)]
struct Heard {
    stderr: Vec<u8>,
    process: Option<u64>,
    /// How the stream ended, once it has: with the mark, or cut.
    end: Option<std::result::Result<i64, String>>,
}

impl Exec {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece of output; `None` at its end, which [`Exec::exit`] has to confirm.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.received.recv().await
    }

    /// Whether the stream has ended: the program takes no more input.
    pub(crate) fn is_over(&self) -> bool {
        self.heard().end.is_some()
    }

    /// Writes some bytes; gives how many were taken.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.input.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Some(input) => input.write(bytes).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The program's input ends here.
    pub(crate) async fn close_input(&mut self) {
        if let Some(mut input) = self.input.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // A program that is gone already has no use for it.
            let _ = input.flush().await;
            let _ = input.shutdown().await;
        }
    }

    /// Waits until the stream has ended.
    pub(crate) async fn closed(&mut self) -> Result<()> {
        while self.received.recv().await.is_some() {}
        while !self.is_over() {
            tokio::time::sleep(SETTLE_POLL).await;
        }
        Ok(())
    }

    /// How the program ended. Only a stream with its mark and an engine that says the same count.
    pub(crate) async fn exit(&mut self) -> Result<Exit> {
        let end = self.heard().end.clone();
        let code = match end.unwrap_or_else(|| Err("it was not read to its end".to_owned())) {
            Ok(code) => code,
            Err(why) => {
                // Its stream is gone, the program may go on.
                self.kill().await;
                return Err(self.cut(why).await);
            }
        };
        self.over = true;
        let told = self.settled().await?;
        if told != code {
            let why = format!("the engine says exit code {told}, the program's own mark says {code}");
            return Err(self.inside.fault(&format!("run `{}`", self.program)).because(why));
        }
        Ok(Exit { code, stderr: self.stderr() })
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.heard().stderr).trim().to_owned()
    }

    async fn settled(&self) -> Result<i64> {
        let docker = self.inside.engine.docker().await?;
        let asked = tokio::time::Instant::now();
        loop {
            let found = docker.inspect_exec(&self.id).await;
            let found = found.map_err(|error| self.inside.engine.fault("ask how a program ended", error))?;
            if let (Some(false), Some(code)) = (found.running, found.exit_code) {
                return Ok(code);
            }
            if asked.elapsed() > SETTLE_MAX {
                return Err(self
                    .inside
                    .fault(&format!("run `{}`", self.program))
                    .because(format!("the engine does not know its exit code after {} s", SETTLE_MAX.as_secs())));
            }
            tokio::time::sleep(SETTLE_POLL).await;
        }
    }

    /// The error of a stream that was cut: most often because the container was stopped.
    async fn cut(&self, why: String) -> Fault {
        let said = self.stderr();
        let said = if said.is_empty() { String::new() } else { format!("; it said: {said}") };
        let fault = self
            .inside
            .fault(&format!("run `{}`", self.program))
            .because(format!("its output was cut: {why}{said}"))
            .hint("see whether the container or the engine was restarted (`docker ps -a`), then run again");
        let fault = self.inside.why_not(fault).await;
        if fault.is(codes::CT_STOPPED) {
            fault.during(format!("run `{}` (cut in the middle)", self.program))
        } else {
            fault
        }
    }

    /// Ends the program.
    pub(crate) async fn kill(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            let process = self.heard().process;
            kill(self.inside.clone(), process).await;
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if !self.over {
            let process = self.heard().process;
            self.inside.handle.spawn(kill(self.inside.clone(), process));
        }
    }
}

/// Ends a program by the process of its script, through a second exec.
async fn kill(inside: Inside, process: Option<u64>) {
    let Some(process) = process else { return };
    let command = ["/bin/sh", "-c", "kill -TERM \"$1\"", "sh", &process.to_string()].map(str::to_owned);
    let config = ExecConfig { cmd: Some(command.to_vec()), attach_stdout: Some(true), ..ExecConfig::default() };
    let work = async {
        let docker = inside.engine.docker().await.ok()?;
        let created = docker.create_exec(&inside.id, config).await.ok()?;
        docker.start_exec(&created.id, None).await.ok()
    };
    // The container may be gone, and the program with it.
    let _ = tokio::time::timeout(SETTLE_MAX, work).await;
}

/// Distinguishes the marks of this process from data; not a secret.
fn token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed =
        format!("{:?} {} {}", std::time::Instant::now(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(seed.as_bytes()))
}

type Output = Pin<Box<dyn Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send>>;

/// Takes the stream apart until it ends.
async fn pump(mut output: Output, token: String, pieces: Option<mpsc::Sender<Bytes>>, heard: Arc<Mutex<Heard>>) {
    let lock = || heard.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held = BytesMut::new();
    let mut errors = Errors { token: token.clone(), head: Some(Vec::new()) };
    let end = loop {
        match output.next().await {
            Some(Ok(LogOutput::StdOut { message })) => {
                held.extend_from_slice(&message);
                // The mark is not data, so the last bytes are held back.
                let ready = held.split_to(held.len().saturating_sub(MARK_BYTES)).freeze();
                if let (Some(pieces), false) = (&pieces, ready.is_empty())
                    && pieces.send(ready).await.is_err()
                {
                    break Err("nobody reads it any more".to_owned());
                }
            }
            Some(Ok(LogOutput::StdErr { message })) => errors.take(&message, &mut lock()),
            Some(Ok(LogOutput::StdIn { .. } | LogOutput::Console { .. })) => {
                break Err("it ends inside of a frame, or has none".to_owned());
            }
            Some(Err(error)) => break Err(error.to_string()),
            None => break mark(&held, &token).ok_or_else(|| "the mark of its end is missing".to_owned()),
        }
    };
    lock().end = Some(end);
}

/// The exit code in the mark.
fn mark(held: &[u8], token: &str) -> Option<i64> {
    let text = std::str::from_utf8(held).ok()?;
    text.strip_prefix("\nrekindle:")?.strip_prefix(token)?.strip_prefix(' ')?.strip_suffix('\n')?.parse().ok()
}

/// Standard error: first the line of the script, then what the program says.
struct Errors {
    token: String,
    /// `None` once the first line has passed.
    head: Option<Vec<u8>>,
}

impl Errors {
    fn take(&mut self, bytes: &[u8], heard: &mut Heard) {
        let rest = match self.head.take() {
            None => bytes.to_vec(),
            Some(mut head) => {
                head.extend_from_slice(bytes);
                let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
                    self.head = Some(head);
                    return;
                };
                let line = String::from_utf8_lossy(&head[..end]).into_owned();
                let number = line.strip_prefix("rekindle:").and_then(|rest| rest.strip_prefix(&self.token));
                heard.process = number.and_then(|number| number.trim().parse().ok());
                // Something else stands first: it is a message, and must be told.
                let from = if heard.process.is_some() { end + 1 } else { 0 };
                head.split_off(from)
            }
        };
        heard.stderr.extend_from_slice(&rest);
        let excess = heard.stderr.len().saturating_sub(STDERR_TAIL_MAX);
        heard.stderr.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    async fn pumped(frames: Vec<LogOutput>) -> (Vec<u8>, Heard) {
        let (pieces, mut received) = mpsc::channel(PIECES_MAX);
        let heard = Arc::default();
        let frames: Output = Box::pin(futures_util::stream::iter(frames.into_iter().map(Ok)));
        let pumping = tokio::spawn(pump(frames, TOKEN.to_owned(), Some(pieces), Arc::clone(&heard)));
        let mut bytes = Vec::new();
        while let Some(piece) = received.recv().await {
            bytes.extend_from_slice(&piece);
        }
        pumping.await.unwrap();
        (bytes, Arc::try_unwrap(heard).unwrap().into_inner().unwrap())
    }

    fn out(text: &str) -> LogOutput {
        LogOutput::StdOut { message: Bytes::copy_from_slice(text.as_bytes()) }
    }

    fn err(text: &str) -> LogOutput {
        LogOutput::StdErr { message: Bytes::copy_from_slice(text.as_bytes()) }
    }

    #[tokio::test]
    async fn only_a_stream_with_its_mark_has_ended() {
        let whole = format!("data\n\nrekindle:{TOKEN} 003\n");
        for cut in 0..=whole.len() {
            let (one, two) = whole.split_at(cut);
            let (bytes, heard) = pumped(vec![out(one), out(two)]).await;
            assert_eq!((bytes.as_slice(), heard.end), (b"data\n".as_slice(), Some(Ok(3))), "cut at {cut}");
            if cut < whole.len() {
                let (bytes, heard) = pumped(vec![out(one)]).await;
                assert!(heard.end.unwrap().is_err(), "cut at {cut}");
                assert!(b"data\n".starts_with(&bytes));
            }
        }
    }

    #[tokio::test]
    async fn half_a_frame_is_an_error_also_with_a_mark() {
        let torn = LogOutput::Console { message: Bytes::from_static(b"\x01\0\0") };
        let (_, heard) = pumped(vec![out(&format!("\nrekindle:{TOKEN} 000\n")), torn]).await;
        assert!(heard.end.unwrap().is_err());
    }

    #[tokio::test]
    async fn the_first_line_names_the_process_and_the_rest_is_said() {
        let (_, heard) = pumped(vec![err("rekindle:"), err(&format!("{TOKEN} 42\nwoe")), err(" is me")]).await;
        assert_eq!((heard.process, heard.stderr.as_slice()), (Some(42), b"woe is me".as_slice()));
        let (_, heard) = pumped(vec![err("sh: not found\n")]).await;
        assert_eq!((heard.process, heard.stderr.as_slice()), (None, b"sh: not found\n".as_slice()));
    }

    /// The script, run by the shell of this machine.
    #[test]
    fn the_script_hands_over_streams_secret_and_exit_code() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let program = r#"read -r line; printf '%s %s' "$line" "$CANARY"; exit 7"#;
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "rekindle", TOKEN, "CANARY", "/bin/sh", "-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b" se\\cret \nfirst line\nmore\n").unwrap();
        let process = child.id();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(7));
        assert_eq!(
            String::from_utf8(ended.stdout).unwrap(),
            format!("first line  se\\cret \nrekindle:{TOKEN} 007\n").replace(" se\\cret \n", " se\\cret \n")
        );
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), format!("rekindle:{TOKEN} {process}\n"));
    }
}
