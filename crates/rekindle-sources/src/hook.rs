//! Runs the user's hooks as child processes.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rekindle_core::port::{Hook, HookOutcome, HookRunner};
use rekindle_core::{Fault, Result, codes};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Exit code with which a hook asks to skip the run (`EX_TEMPFAIL` of sysexits.h).
pub(crate) const SOFT_SKIP: i32 = 75;
/// So much of the end of a failed hook's output goes into the error.
pub(crate) const OUTPUT_TAIL_BYTES_MAX: usize = 2048;
/// How long the output is waited for after the hook itself ended: a background process that a
/// hook leaves behind keeps the pipe open.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);

/// Runs hooks in process groups of their own, so that a timeout ends everything they started.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessHooks;

#[async_trait]
impl HookRunner for ProcessHooks {
    async fn run(&self, hook: &Hook, variables: &[(&'static str, String)]) -> Result<HookOutcome> {
        let name = hook.command.first().map_or("", String::as_str);
        let failed = || Fault::new(codes::ENGINE_HOOK, format!("run `{name}`"));
        // Run on this host, it would do something else than it was written for.
        if let Some(container) = &hook.container {
            return Err(failed().because(format!("it belongs into the container `{container}`")));
        }
        let mut command = Command::new(name);
        command
            .args(hook.command.get(1..).unwrap_or_default())
            .envs(variables.iter().map(|(key, value)| (*key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| failed().because(error).hint(format!("check that `{name}` exists and may be executed")))?;
        let mut group = Group(group_of(&child));
        let out = tokio::spawn(tail(child.stdout.take()));
        let err = tokio::spawn(tail(child.stderr.take()));
        let Ok(waited) = tokio::time::timeout(hook.timeout, child.wait()).await else {
            drop(group);
            let _ = child.wait().await;
            let why = format!("it did not end within {} s and was killed", hook.timeout.as_secs());
            return Err(failed().because(why).hint("raise the hook's `timeout` or make it faster"));
        };
        // What it left behind on purpose may go on.
        group.0 = None;
        let status = waited.map_err(|error| failed().because(error))?;
        match status.code() {
            Some(0) => Ok(HookOutcome::Done),
            Some(SOFT_SKIP) => Ok(HookOutcome::SoftSkip),
            _ => Err(failed()
                .because(format!("{status}{}", said(out, err).await))
                .hint("run the hook's command by hand and mend it; exit code 75 skips without an error")),
        }
    }
}

/// The processes of a hook. They are ended with it: by its timeout, or when nobody waits any more because the
/// run was asked to stop.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that the group is gone already, which is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// Reads to the end, keeping the last bytes.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else {
        return Vec::new();
    };
    let (mut kept, mut buffer) = (Vec::new(), [0_u8; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
        kept.drain(..surplus);
    }
    kept
}

type Reading = tokio::task::JoinHandle<Vec<u8>>;

async fn said(out: Reading, err: Reading) -> String {
    let mut text = String::new();
    for reading in [err, out] {
        if let Ok(Ok(bytes)) = tokio::time::timeout(OUTPUT_WAIT, reading).await {
            let line = String::from_utf8_lossy(&bytes);
            if !line.trim().is_empty() {
                text.push_str(", it said: ");
                text.push_str(line.trim());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout_ms: u64) -> Hook {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { command, timeout: Duration::from_millis(timeout_ms), container: None }
    }

    #[tokio::test]
    async fn exit_codes_decide() {
        let run = |script: &'static str| async move { ProcessHooks.run(&hook(script, 10_000), &[]).await };
        assert_eq!(run("exit 0").await.unwrap(), HookOutcome::Done);
        assert_eq!(run("exit 75").await.unwrap(), HookOutcome::SoftSkip);
        let fault = run("echo no space on /data >&2; exit 3").await.unwrap_err();
        assert!(fault.chain().contains("exit status: 3, it said: no space on /data"), "{fault:?}");
        assert!(run("kill -9 $$").await.unwrap_err().chain().contains("signal: 9"));
    }

    #[tokio::test]
    async fn values_reach_the_hook_and_are_not_interpolated() {
        let variables = [("REKINDLE_ERROR", "$(exit 9); `exit 9`".to_owned())];
        let check = r#"test "$REKINDLE_ERROR" = '$(exit 9); `exit 9`'"#;
        assert_eq!(ProcessHooks.run(&hook(check, 10_000), &variables).await.unwrap(), HookOutcome::Done);
    }

    #[tokio::test]
    async fn a_timeout_ends_the_children_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let fault = ProcessHooks.run(&hook(&script, 1_000), &[]).await.unwrap_err();
        assert!(fault.chain().contains("did not end within"), "{fault:?}");
        let child = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        // Killed: gone, or a zombie until its new parent reaps it. Dying takes a moment.
        let ended = || {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            state.is_empty() || state.contains(") Z ") || state.contains(") X ")
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !ended() {
            assert!(std::time::Instant::now() < deadline, "the hook's child still runs");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let hook =
            Hook { command: vec!["/no/such/program".to_owned()], timeout: Duration::from_secs(1), container: None };
        let fault = ProcessHooks.run(&hook, &[]).await.unwrap_err();
        assert!(fault.chain().contains("/no/such/program"));
        assert!(fault.hint_text().is_some());
    }
}
