//! A run as a child process: started, watched, stopped cleanly, and read.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rekindle_core::schedule::Ended;
use rekindle_core::{ComponentId, Fault, Result, RunId, codes};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

/// Bytes of a run's answer that are read; no answer is longer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long a run may take to stop after it was asked to, before it is killed.
const STOP_MAX: Duration = Duration::from_mins(1);

/// How our own program is started.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub program: PathBuf,
    /// Before the verb: `--config` and so on.
    pub global: Vec<OsString>,
}

/// One thing to do: verbs with their arguments, one after the other.
#[derive(Debug, Clone)]
pub struct Order {
    pub run: RunId,
    pub steps: Vec<Vec<String>>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Report {
    pub how: Ended,
    /// `None`: ended by a signal, or never started.
    pub exit_code: Option<i32>,
    /// The answer of the last step that ran, as it printed it.
    pub answer: Option<Value>,
    /// Why it failed: code and message.
    pub problem: Option<(String, String)>,
}

impl Launcher {
    fn command(&self, run: &RunId, step: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.global).args(["--json", "--no-progress", "--supervised", run.as_str()]).args(step);
        // Held open: the run stops by itself when we are gone. A group of its own: Ctrl-C asks us,
        // and we ask it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        command.kill_on_drop(true);
        command
    }

    /// Starts one step.
    pub fn start(&self, run: &RunId, step: &[String]) -> Result<Child> {
        self.command(run, step).spawn().map_err(|error| {
            Fault::new(codes::SERVE_CHILD, format!("start `rekindle {}`", step.join(" ")))
                .because(error)
                .hint("check memory and the number of processes of this host")
        })
    }

    /// Runs an order to its end. `stop` asks it to end.
    pub async fn run(&self, order: &Order, mut stop: watch::Receiver<bool>) -> Report {
        let mut last = Report { how: Ended::Good, exit_code: Some(0), answer: None, problem: None };
        for step in &order.steps {
            if *stop.borrow() {
                return Report { how: Ended::Interrupted, exit_code: None, answer: None, problem: None };
            }
            let mut child = match self.start(&order.run, step) {
                Ok(child) => child,
                Err(fault) => return Report::never(&fault),
            };
            let answer = child.stdout.take().map(|pipe| tokio::spawn(read(pipe)));
            // Taken out: tokio's `wait` would close it, which asks the run to stop.
            let input = child.stdin.take();
            let status = wait(&mut child, input, &mut stop).await;
            let bytes = match answer {
                Some(reading) => reading.await.unwrap_or_default(),
                None => Vec::new(),
            };
            last = Report::of(status, &bytes);
            if last.how != Ended::Good {
                return last;
            }
        }
        last
    }
}

async fn read(pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pipe = pipe.take(ANSWER_BYTES_MAX);
    // What was read so far is judged as JSON, which half an answer is not.
    let _ = pipe.read_to_end(&mut bytes).await;
    // The rest is taken as well: a full pipe would keep the run from ending.
    let _ = tokio::io::copy(pipe.get_mut(), &mut tokio::io::sink()).await;
    bytes
}

/// Waits for the end. Asked to stop, the run sees the end of its input, and is killed when that
/// does not help.
async fn wait(
    child: &mut Child,
    input: Option<ChildStdin>,
    stop: &mut watch::Receiver<bool>,
) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = stopped(stop) => {}
    }
    drop(input);
    if let Ok(status) = tokio::time::timeout(STOP_MAX, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// Ends when somebody asks to stop; never when nobody can any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Report {
    /// Of a run that was never started.
    pub fn never(fault: &Fault) -> Self {
        let problem = Some((fault.code().id.to_owned(), fault.chain()));
        Self { how: Ended::Again, exit_code: None, answer: None, problem }
    }

    fn of(status: std::io::Result<ExitStatus>, answer: &[u8]) -> Self {
        let answer: Option<Value> = serde_json::from_slice(answer).ok();
        let code = status.ok().and_then(|status| status.code());
        let error = answer.as_ref().map(|answer| &answer["error"]);
        let text = |key: &str| error.and_then(|error| error[key].as_str()).map(str::to_owned);
        let said = text("code").zip(text("message"));
        let problem = match code {
            Some(0) => None,
            Some(code) => said.or_else(|| Some((String::new(), format!("it ended with {code}")))),
            None => Some((codes::SERVE_CHILD.id.to_owned(), "it was killed by a signal".to_owned())),
        };
        Self { how: judged(code), exit_code: code, answer, problem }
    }

    /// What the run says about one component; `how` of the whole when it says nothing.
    pub fn of_component(&self, component: &ComponentId) -> (Ended, Option<&Value>) {
        let list = self.answer.as_ref().and_then(|answer| answer.pointer("/result/components")?.as_array());
        let record = list.and_then(|list| list.iter().find(|one| one["component"] == component.as_str()));
        match record {
            Some(record) if record["state"] == "captured" && !noted_partial(record) => (Ended::Good, Some(record)),
            Some(record) if record["state"] == "missing" && self.how == Ended::Good => (Ended::Bad, Some(record)),
            Some(record) => (self.how, Some(record)),
            None => (self.how, None),
        }
    }
}

/// Whether notes of a component make its point partial: then it is no good result.
fn noted_partial(record: &Value) -> bool {
    record["notes"]["partial"].as_u64().unwrap_or(0) > 0
}

/// What an exit code means for the schedule (see the table in `--help`).
fn judged(code: Option<i32>) -> Ended {
    match code {
        Some(0) => Ended::Good,
        // Locked by another run, unreachable; killed (out of memory).
        Some(11 | 20) | None => Ended::Again,
        Some(75) => Ended::Skipped,
        Some(130 | 143) => Ended::Interrupted,
        Some(_) => Ended::Bad,
    }
}
