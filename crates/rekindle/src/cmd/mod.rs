//! The commands, one file each.

mod agenda;
mod audit;
mod backup;
mod cat;
mod check_config;
mod completions;
mod copies;
mod copy;
mod diff;
mod doctor;
mod drill;
mod fleet;
mod foreign;
mod forget;
mod init;
mod install;
mod key;
mod kit;
mod list;
mod locked;
mod ls;
mod maintenance;
mod man;
mod messages;
mod notify;
mod password_file;
mod peek;
mod point;
mod proof;
mod prune;
mod recover;
mod recovery;
mod restore;
mod restore_points;
mod run;
mod serve;
mod show;
mod status;
mod verify;
mod version;
mod wal;
mod watch;

use clap::Subcommand;
use rekindle_config::Config;
use rekindle_core::schedule::{JobName, Task};
use rekindle_core::{Fault, codes};

use crate::output::{Answer, Outcome};
use crate::session::{Faults, Session};
use crate::wire;

/// How a command stands in the audit log.
struct Recorded {
    /// It only takes data out.
    reads: bool,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    CheckConfig(check_config::CheckConfig),
    Backup(backup::Backup),
    List(list::List),
    Show(show::Show),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Verify(verify::Verify),
    Copy(copy::Copy),
    Restore(restore::Restore),
    RestorePoints(restore_points::RestorePoints),
    Drill(drill::Drill),
    Proof(proof::Proof),
    Peek(peek::Peek),
    Recover(recover::Recover),
    Diff(diff::Diff),
    Status(status::Status),
    Fleet(fleet::Fleet),
    Doctor(doctor::Doctor),
    Key(key::Key),
    Kit(kit::Kit),
    Forget(forget::Forget),
    Point(point::Point),
    Prune(prune::Prune),
    Audit(audit::Audit),
    Maintenance(maintenance::Maintenance),
    Wal(wal::Wal),
    Serve(serve::Serve),
    Run(run::Run),
    Install(install::Install),
    Notify(notify::Notify),
    Completions(completions::Completions),
    Man(man::Man),
    Version(version::Version),
}

impl Command {
    /// The word on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::CheckConfig(_) => "check-config",
            Self::Backup(_) => "backup",
            Self::List(_) => "list",
            Self::Show(_) => "show",
            Self::Ls(_) => "ls",
            Self::Cat(_) => "cat",
            Self::Verify(_) => "verify",
            Self::Copy(_) => "copy",
            Self::Restore(_) => "restore",
            Self::RestorePoints(_) => "restore-points",
            Self::Drill(_) => "drill",
            Self::Proof(_) => "proof",
            Self::Peek(_) => "peek",
            Self::Recover(_) => "recover",
            Self::Diff(_) => "diff",
            Self::Status(_) => "status",
            Self::Fleet(_) => "fleet",
            Self::Doctor(_) => "doctor",
            Self::Key(_) => "key",
            Self::Kit(_) => "kit",
            Self::Forget(_) => "forget",
            Self::Point(_) => "point",
            Self::Prune(_) => "prune",
            Self::Audit(_) => "audit",
            Self::Maintenance(_) => "maintenance",
            Self::Wal(_) => "wal",
            Self::Serve(_) => "serve",
            Self::Run(_) => "run",
            Self::Install(_) => "install",
            Self::Notify(_) => "notify",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
            Self::Version(_) => "version",
        }
    }

    /// Whether `--copy NAME` says which repository it works on.
    fn takes_copy(&self) -> bool {
        match self {
            Self::List(_)
            | Self::Show(_)
            | Self::Ls(_)
            | Self::Cat(_)
            | Self::Verify(_)
            | Self::Restore(_)
            | Self::RestorePoints(_)
            | Self::Drill(_)
            | Self::Proof(_)
            | Self::Peek(_)
            | Self::Recover(_)
            | Self::Diff(_)
            | Self::Status(_)
            | Self::Key(_)
            | Self::Forget(_)
            | Self::Point(_)
            | Self::Prune(_)
            | Self::Audit(_) => true,
            Self::Wal(command) => command.takes_copy(),
            Self::Init(_)
            | Self::CheckConfig(_)
            | Self::Backup(_)
            | Self::Copy(_)
            | Self::Doctor(_)
            | Self::Kit(_)
            | Self::Fleet(_)
            | Self::Maintenance(_)
            | Self::Serve(_)
            | Self::Run(_)
            | Self::Install(_)
            | Self::Notify(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Version(_) => false,
        }
    }

    /// Whether it is entered into the audit log: it changes the repository, or takes data out of it.
    /// Backups stand in the ledger.
    fn recorded(&self) -> Option<Recorded> {
        let changes = match self {
            Self::Key(command) => command.changes(),
            Self::Forget(command) => command.changes(),
            Self::Prune(command) => command.changes(),
            Self::Point(_) | Self::Copy(_) => true,
            _ => false,
        };
        let reads = match self {
            Self::Peek(_) | Self::Drill(_) | Self::Kit(_) => true,
            Self::Restore(command) => command.takes_data(),
            Self::Recover(command) => command.takes_data(),
            _ => false,
        };
        (changes || reads).then_some(Recorded { reads })
    }

    /// The repository that a command names by itself.
    fn from(&self) -> Option<String> {
        match self {
            Self::Recover(command) => command.from(),
            _ => None,
        }
    }

    /// Does it.
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if let Some(fault) = self.refuses_copy(session) {
            return Outcome::Failed(vec![fault]);
        }
        let (name, recorded, from) = (self.name(), self.recorded(), self.from());
        let (scheduled, started) = (self.scheduled(session), session.now());
        // Afterwards the password in use may open nothing any more. What is wrong is said by the command.
        let opened = match &self {
            Self::Key(_) if recorded.is_some() => audit::open(session, None, false).ok(),
            _ => None,
        };
        let answer: Result<Answer, Faults> = match self {
            Self::Init(command) => command.run(session),
            Self::CheckConfig(command) => command.run(session),
            Self::Backup(command) => command.run(session),
            Self::List(command) => command.run(session),
            Self::Show(command) => command.run(session),
            Self::Ls(command) => command.run(session),
            Self::Cat(command) => {
                let written = command.run(session).map(|()| Answer::default());
                return match audit::record(session, "cat", true, (None, None), written) {
                    Ok(_) => Outcome::Streamed,
                    Err(Faults(faults)) => Outcome::Failed(faults),
                };
            }
            Self::Restore(command) => command.run(session),
            Self::RestorePoints(command) => command.run(session),
            Self::Drill(command) => command.run(session),
            Self::Proof(command) => command.run(session),
            Self::Peek(command) => command.run(session),
            Self::Recover(command) => command.run(session),
            Self::Diff(command) => command.run(session),
            Self::Status(command) => command.run(session),
            Self::Fleet(command) => command.run(session),
            Self::Doctor(command) => command.run(session),
            Self::Key(command) => command.run(session),
            Self::Kit(command) => command.run(session),
            Self::Point(command) => command.run(session),
            Self::Prune(command) => command.run(session),
            Self::Audit(command) => command.run(session),
            Self::Maintenance(command) => command.run(session),
            Self::Wal(command) => command.run(session),
            Self::Forget(command) => command.run(session),
            Self::Verify(command) => command.run(session),
            Self::Copy(command) => command.run(session),
            Self::Serve(command) => command.run(session),
            Self::Run(command) => command.run(session),
            Self::Install(command) => command.run(session),
            Self::Notify(command) => command.run(session),
            Self::Completions(command) => command.run().map_err(Faults::from),
            Self::Man(command) => command.run().map_err(Faults::from),
            Self::Version(command) => Ok(command.run()),
        };
        let answer = match recorded {
            Some(Recorded { reads }) => audit::record(session, name, reads, (opened, from.as_deref()), answer),
            None => answer,
        };
        match answer {
            Ok(answer) => {
                if let Some((config, jobs)) = scheduled.filter(|_| answer.exit_code() == 0) {
                    wire::service::done_by_hand(&config, &jobs, started);
                }
                Outcome::Answered(answer)
            }
            Err(Faults(faults)) => Outcome::Failed(faults),
        }
    }

    fn refuses_copy(&self, session: &Session) -> Option<Fault> {
        if session.global.copy.is_none() || self.takes_copy() {
            return None;
        }
        let what = format!("{}: it works on the repository itself, not on a copy", self.name());
        Some(Fault::new(codes::CLI_USAGE, what).hint("leave out --copy"))
    }

    /// The scheduled jobs that this does by hand. Backups and drills are found in the repository.
    fn scheduled(&self, session: &Session) -> Option<(Config, Vec<JobName>)> {
        if session.global.supervised.is_some() || session.global.copy.is_some() {
            return None;
        }
        let whole = |task| Some(vec![JobName { task, component: None }]);
        let named = |task, names: &[String]| {
            Some(names.iter().filter_map(|name| Some(JobName { task, component: Some(name.parse().ok()?) })).collect())
        };
        // Of another repository, it says nothing about this stack.
        let config = wire::config(session).ok().filter(|config| wire::is_configured(session, config))?;
        let jobs: Option<Vec<JobName>> = match self {
            // What does less than the schedule wants is not what was scheduled.
            Self::Verify(command) if command.reads_data() || config.serve.verify_data.is_none() => whole(Task::Verify),
            Self::Prune(command) if command.changes() && !wire::service::forgets(&config) => whole(Task::Prune),
            Self::Copy(command) => named(Task::Copy, &command.names(&config)),
            Self::Maintenance(command) => named(Task::Maintenance, &[command.period()]),
            _ => None,
        };
        Some((config, jobs?))
    }
}
