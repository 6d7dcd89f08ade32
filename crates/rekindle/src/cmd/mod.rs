//! The commands, one file each.

mod backup;
mod cat;
mod check_config;
mod completions;
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
mod ls;
mod man;
mod notify;
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

use crate::output::{Answer, Outcome};
use crate::session::{Faults, Session};

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

    /// Does it.
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let answer: Result<Answer, Faults> = match self {
            Self::Init(command) => command.run(session),
            Self::CheckConfig(command) => command.run(session),
            Self::Backup(command) => command.run(session),
            Self::List(command) => command.run(session),
            Self::Show(command) => command.run(session),
            Self::Ls(command) => command.run(session),
            Self::Cat(command) => {
                return match command.run(session) {
                    Ok(()) => Outcome::Streamed,
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
            Self::Wal(command) => command.run(session),
            Self::Forget(command) => command.run(session),
            Self::Verify(command) => command.run(session),
            Self::Serve(command) => command.run(session),
            Self::Run(command) => command.run(session),
            Self::Install(command) => command.run(session),
            Self::Notify(command) => command.run(session),
            Self::Completions(command) => command.run().map_err(Faults::from),
            Self::Man(command) => command.run().map_err(Faults::from),
            Self::Version(command) => Ok(command.run()),
        };
        match answer {
            Ok(answer) => Outcome::Answered(answer),
            Err(Faults(faults)) => Outcome::Failed(faults),
        }
    }
}
