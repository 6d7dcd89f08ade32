//! One run of the program: what all commands share.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::MultiProgress;
use rekindle_config::Problems;
use rekindle_core::port::{Clock, RunContext};
use rekindle_core::{Cancel, Fault, Result, RunId, codes};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::args::{Cli, Global};
use crate::exit::Reader;
use crate::output::{self, Outcome};
use crate::progress::{Progress, Style};
use crate::{logs, signals};

/// One error, or all problems of a configuration.
#[derive(Debug)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl From<Problems> for Faults {
    fn from(problems: Problems) -> Self {
        Self(problems.faults())
    }
}

/// What all commands share.
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) runtime: Runtime,
    pub(crate) cancel: Cancel,
    pub(crate) progress: Arc<Progress>,
    /// Whether a repository was opened.
    pub(crate) opened: AtomicBool,
}

/// The clock of this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

impl Session {
    fn new(global: Global) -> Result<Self> {
        let bars = MultiProgress::new();
        logs::start(global.quiet, global.verbose, &bars);
        let style = match (global.quiet || global.no_progress, std::io::stderr().is_terminal()) {
            (true, _) => Style::Nothing,
            (false, true) => Style::Bars,
            (false, false) => Style::Lines,
        };
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Fault::new(codes::RUN_BUG, "start the threads of the program").because(error))?;
        let cancel = Cancel::new();
        signals::watch(runtime.handle(), &cancel);
        if global.supervised.is_some() {
            signals::stop_at_end_of_input(&cancel);
        }
        Ok(Self {
            global,
            runtime,
            cancel,
            progress: Arc::new(Progress::new(style, &bars)),
            opened: AtomicBool::new(false),
        })
    }

    /// Now.
    #[expect(clippy::unused_self, reason = "commands ask the session, not the host")]
    pub(crate) fn now(&self) -> jiff::Timestamp {
        SystemClock.now()
    }

    /// The context of a run, and its private directory, which is removed when dropped.
    pub(crate) fn context(&self) -> Result<(RunContext, TempDir)> {
        let scratch = tempfile::Builder::new().prefix("rekindle-").tempdir().map_err(|error| {
            Fault::new(codes::CLI_OUTPUT, "make a private directory")
                .because(error)
                .hint("set TMPDIR to a directory that may be written")
        })?;
        let context = RunContext {
            run: self.global.supervised.clone().unwrap_or_else(|| RunId::new(self.now(), rand::random())),
            cancel: self.cancel.clone(),
            monitor: Arc::clone(&self.progress) as _,
            clock: Arc::new(SystemClock),
            scratch: scratch.path().to_owned(),
        };
        Ok((context, scratch))
    }
}

/// Runs a command and gives the exit code, also after a panic.
pub(crate) fn guarded(cli: Cli, reader: Reader) -> u8 {
    // The panic has been printed; its usual code, 101, would tell a server the wrong thing.
    catch_unwind(AssertUnwindSafe(|| run(cli, reader)))
        .unwrap_or_else(|_| reader.failed(codes::RUN_BUG.class.exit_code()))
}

fn run(cli: Cli, reader: Reader) -> u8 {
    let (as_json, quiet) = (cli.global.json, cli.global.quiet);
    let name = cli.command.name();
    let session = match Session::new(cli.global) {
        Ok(session) => session,
        Err(fault) => return output::print(Outcome::Failed(vec![fault]), name, as_json, quiet, reader),
    };
    let outcome = cli.command.run(&session);
    session.progress.end();
    let code = output::print(outcome, name, as_json, quiet, reader);
    // Work that does not end by itself (a stuck connection) must not keep the process alive.
    session.runtime.shutdown_background();
    code
}
