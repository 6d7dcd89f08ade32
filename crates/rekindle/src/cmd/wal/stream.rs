//! `wal stream`

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::wal::{Gap, Lsn, SlotName, Timeline};
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};
use rekindle_sources::postgres::receiver::{Listener, Receiver, ReceiverOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::heartbeat::Beat;
use super::server;
use crate::output::{self, Answer};
use crate::session::{Faults, Session, SystemClock};
use crate::wire;

/// Receive WAL through a replication slot as it is written, until stopped
///
/// What a transaction has written is in the repository about a second after its commit. The server keeps what is not
/// there yet, so a receiver may be stopped and started at any time; set max_slot_wal_keep_size on the server, so that
/// one that stays away cannot fill its disk. SIGTERM or Ctrl-C: what was received is shipped, then it ends with 0.
#[derive(Debug, Args)]
pub(crate) struct Stream {
    /// The postgres component [default: the only one]
    component: Option<ComponentId>,
    /// Replication slot, instead of the configured one; made when it is not there
    #[arg(long, value_name = "NAME")]
    slot: Option<SlotName>,
    /// Longest time that new WAL waits before it is shipped, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// Connect anew when nothing whole came from the server for so many seconds, although it was asked to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    timeout: u64,
    /// After a gap, only say that a new base backup is needed
    #[arg(long)]
    no_backup: bool,
    /// Write a small commit every so many seconds, so that an idle database can be recovered to now
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    heartbeat: Option<u64>,
}

impl Stream {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let owner = super::owner(&config, self.component.as_ref())?;
        let (server, configured) = server::options(&config, &owner.component)?;
        let slot = self.slot.clone().unwrap_or(configured);
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let archive = super::archive(&wire::open(session, &place)?);
        let tells = Arc::new(Tells {
            backup: (!self.no_backup).then(|| BaseBackup::new(session, &config, &owner.component)),
            durable: Mutex::default(),
        });
        let mut options = ReceiverOptions::new(server, slot);
        options.tail_every = Duration::from_secs(self.every);
        options.silence_max = Duration::from_secs(self.timeout);
        let receiver = Receiver {
            options,
            archive: Arc::new(archive),
            owner: owner.clone(),
            listener: Arc::<Tells>::clone(&tells) as _,
            clock: Arc::new(SystemClock),
        };
        let beat = self.heartbeat.map(|every| Beating::new(session, &config, &owner.component, every)).transpose()?;
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            if let Some(beat) = &beat {
                scope.spawn(|| beat.run(&|| over.load(Ordering::Relaxed) || session.cancel.is_cancelled()));
            }
            let result = receiver.run(&session.cancel);
            over.store(true, Ordering::Relaxed);
            result
        });
        if let Some(backup) = &tells.backup {
            backup.stop();
        }
        result?;
        let durable = *tells.durable.lock().unwrap_or_else(PoisonError::into_inner);
        let text = durable.map_or_else(
            || "stopped; nothing was received\n".to_owned(),
            |upto| format!("stopped; durable up to {upto}\n"),
        );
        Ok(Answer::words(json!({"component": owner.component, "durable": durable}), text))
    }
}

/// Heartbeats beside the stream.
struct Beating {
    beat: Beat,
    every: Duration,
    runtime: tokio::runtime::Handle,
}

impl Beating {
    fn new(session: &Session, config: &Config, component: &ComponentId, every: u64) -> Result<Self> {
        let options = wire::components::postgres_of(config, Some(component.as_str()))?;
        let (beat, runtime) = (Beat { options, message: false }, session.runtime.handle().clone());
        Ok(Self { beat, every: Duration::from_secs(every), runtime })
    }

    /// Beats until it is over. A role that may not make the table writes messages, which serve as well.
    fn run(&self, over: &(dyn Fn() -> bool + Sync)) {
        let mut beat = Beat { options: self.beat.options.clone(), message: false };
        if let Err(fault) = self.runtime.block_on(beat.prepare()) {
            say(&format!("warning: heartbeats are messages in the log, not rows: {fault:#}"));
            beat.message = true;
        }
        beat.until(&self.runtime, self.every, over, |_| {});
    }
}

/// Tells people, and starts a base backup after a gap.
struct Tells {
    backup: Option<BaseBackup>,
    durable: Mutex<Option<Lsn>>,
}

fn say(text: &str) {
    use std::io::Write;
    // There is no other place left to complain to.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

impl Listener for Tells {
    fn streaming(&self, timeline: Timeline, from: Lsn) {
        say(&format!("streaming timeline {timeline} from {from}"));
    }

    fn durable(&self, upto: Lsn) {
        *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = Some(upto);
    }

    fn gap(&self, gap: &Gap) {
        let fault = Fault::new(codes::WAL_SLOT_LOST, format!("receive WAL from {} to {}", gap.from, gap.to))
            .because(gap.why.clone())
            .hint("recovery across it is refused; moments behind it need a new base backup");
        output::print_fault(&fault);
        match &self.backup {
            Some(backup) => backup.start(),
            None => say("a new base backup is needed: rekindle backup"),
        }
    }

    fn problem(&self, fault: &Fault) {
        output::print_fault(fault);
    }

    fn warning(&self, text: &str) {
        say(&format!("warning: {text}"));
    }
}

/// Runs `rekindle backup COMPONENT` beside the receiver: a base backup needs the stream to go on.
struct BaseBackup {
    program: Option<PathBuf>,
    arguments: Vec<std::ffi::OsString>,
    running: Arc<Mutex<Option<Child>>>,
    over: Cancel,
}

/// How often the end of a base backup is looked for.
const LOOK: Duration = Duration::from_millis(200);

impl BaseBackup {
    fn new(session: &Session, config: &Config, component: &ComponentId) -> Self {
        let global = &session.global;
        let mut arguments: Vec<std::ffi::OsString> = vec!["--config".into(), config.file.clone().into()];
        if let Some(url) = &global.repo {
            arguments.extend(["--repo".into(), url.into()]);
        }
        if let Some(file) = &global.password_file {
            arguments.extend(["--password-file".into(), file.into()]);
        }
        if let Some(command) = &global.password_command {
            arguments.extend(["--password-command".into(), command.into()]);
        }
        arguments.extend(["--no-progress".into(), "backup".into(), component.as_str().into()]);
        Self { program: std::env::current_exe().ok(), arguments, running: Arc::default(), over: session.cancel.clone() }
    }

    fn start(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(program) = self.program.as_ref().filter(|_| running.is_none()) else {
            return;
        };
        let started = Command::new(program).args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        match started {
            Ok(child) => {
                say("a new base backup was started");
                *running = Some(child);
                let (running, over) = (Arc::clone(&self.running), self.over.clone());
                thread::spawn(move || wait(&running, &over));
            }
            Err(error) => say(&format!("a new base backup could not be started: {error}; run `rekindle backup`")),
        }
    }

    /// Asks a running base backup to stop, and waits until it has.
    fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = running.take() {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // One that has ended meanwhile needs no signal.
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

fn wait(running: &Mutex<Option<Child>>, over: &Cancel) {
    while !over.is_cancelled() {
        thread::sleep(LOOK);
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ended) = running.as_mut().map(Child::try_wait) else {
            return;
        };
        match ended {
            Ok(None) => {}
            Ok(Some(status)) => {
                say(&format!("the new base backup ended: {status}"));
                *running = None;
                return;
            }
            Err(error) => {
                say(&format!("the new base backup is out of sight: {error}"));
                *running = None;
                return;
            }
        }
    }
}
