//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser};
use rekindle_core::{Fault, RunId, codes};

use crate::cmd::Command;
use crate::{exit, output};

/// Backs up a whole application stack into one recovery point, and brings it back
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, after_help = exit::TABLE, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: ./rekindle.toml, then /etc/rekindle/rekindle.toml]
    #[arg(long, global = true, value_name = "FILE", env = "REKINDLE_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Repository, instead of the configured one; with a password, no configuration is needed
    #[arg(long, global = true, value_name = "URL", env = "REKINDLE_REPO", hide_env_values = true)]
    pub(crate) repo: Option<String>,
    /// Copy of that name in the configuration, instead of the repository itself
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "repo")]
    pub(crate) copy: Option<String>,
    /// File with the repository password [env: REKINDLE_PASSWORD_FILE, or REKINDLE_PASSWORD
    /// with the password itself]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub(crate) password_file: Option<PathBuf>,
    /// Program that prints the repository password, with its arguments
    #[arg(long, global = true, value_name = "COMMAND")]
    pub(crate) password_command: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors and asked-for data only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more to standard error; twice for details
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Run of a service: the id of the run; it stops at the end of its standard input
    #[arg(long, global = true, value_name = "RUN", hide = true)]
    pub(crate) supervised: Option<RunId>,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// Reads the command line. `Err` is the exit code when there is nothing more to do: help was
/// printed, or the command line is wrong.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, u8> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    Cli::try_parse_from(&arguments).map_err(|error| {
        // Failing to print help to a closed pipe is nobody's problem.
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
            _ => {
                if arguments.iter().any(|argument| argument == "--json") {
                    output::print_usage_fault(&usage_fault(&error));
                }
                2
            }
        }
    })
}

fn usage_fault(error: &clap::Error) -> Fault {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let said = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    Fault::new(codes::CLI_USAGE, "read the command line").because(said).hint("rekindle help")
}

/// The whole command line, for completions and manual pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}
