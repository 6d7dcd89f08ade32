//! `wal`

mod bases;
mod bind;
mod fetch;
mod heartbeat;
mod push;
mod server;
mod spool;
mod status;
mod stream;
pub(crate) mod sweep;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use rekindle_config::{Config, Kind};
use rekindle_core::wal::{Cluster, Owner, WalArchive, cluster_of_control};
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_repo::Repo;
use rekindle_repo::wal::Archive;

use crate::exit::Reader;
use crate::output::{self, Answer};
use crate::session::{Faults, Session, SystemClock};
use crate::wire;

/// Keep PostgreSQL's write-ahead log, so that any moment can be recovered
#[derive(Debug, Args)]
pub(crate) struct Wal {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Push(push::Push),
    Fetch(fetch::Fetch),
    #[command(hide = true)]
    Prefetch(fetch::Fetch),
    Stream(stream::Stream),
    Heartbeat(heartbeat::Heartbeat),
    Status(status::Status),
    Verify(verify::Verify),
    Bind(bind::Bind),
}

impl Wal {
    /// Whether `--copy NAME` says which repository it works on.
    pub(crate) fn takes_copy(&self) -> bool {
        matches!(self.verb, Verb::Fetch(_) | Verb::Prefetch(_) | Verb::Status(_) | Verb::Verify(_))
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        match &self.verb {
            Verb::Push(command) => command.run(session),
            Verb::Fetch(command) => command.run(session),
            Verb::Prefetch(command) => command.prefetch(session),
            Verb::Stream(command) => command.run(session),
            Verb::Heartbeat(command) => command.run(session),
            Verb::Status(command) => command.run(session),
            Verb::Verify(command) => command.run(session),
            Verb::Bind(command) => command.run(session),
        }
    }
}

/// The component that WAL is of: the named one, else the only PostgreSQL server of the
/// configuration.
fn component(config: &Config, wanted: Option<&ComponentId>) -> Result<ComponentId> {
    let servers: Vec<_> =
        config.components.iter().filter(|one| matches!(one.kind, Kind::Postgres(_))).map(|one| &one.id).collect();
    let names = || servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (wanted, &servers[..]) {
        (Some(wanted), _) if servers.contains(&wanted) => Ok(wanted.clone()),
        (Some(wanted), _) => {
            Err(Fault::new(codes::ENGINE_NO_COMPONENT, format!("find the postgres component `{wanted}`"))
                .hint(format!("configured are: {}", names())))
        }
        (None, [only]) => Ok((*only).clone()),
        (None, []) => Err(Fault::new(codes::ENGINE_NO_COMPONENT, "find a postgres component in the configuration")
            .hint("add one: rekindle init")),
        (None, _) => Err(Fault::new(codes::CLI_USAGE, "choose the postgres component: there are several")
            .hint(format!("give --component with one of: {}", names()))),
    }
}

fn owner(config: &Config, wanted: Option<&ComponentId>) -> Result<Owner> {
    Ok(Owner { stack: config.stack.name.clone(), component: component(config, wanted)? })
}

fn archive(repo: &Repo) -> Archive {
    Archive::new(repo, Arc::new(SystemClock))
}

/// What the control file of a data directory says; `None` when there is none to be read.
fn control(data: &Path) -> Option<Cluster> {
    cluster_of_control(&std::fs::read(data.join("global/pg_control")).ok()?)
}

/// The cluster of a component's log.
fn bound(archive: &Archive, owner: &Owner) -> Result<Cluster> {
    archive.bound(owner)?.ok_or_else(|| {
        Fault::new(
            codes::WAL_UNBOUND,
            format!("find the WAL log of `{}` of the stack `{}`", owner.component, owner.stack),
        )
        .hint("`rekindle wal status` shows the logs of the repository; give --system to name one")
    })
}

/// Ends the process when the time is over: a server waits for the answer. What was not finished is
/// not visible in the repository.
fn no_longer_than(session: &Session, longest: Duration, reader: Reader, what: &'static str) {
    session.runtime.spawn(async move {
        tokio::time::sleep(longest).await;
        let fault = Fault::new(codes::STORE_TIMEOUT, what)
            .because(format!("not done after {} s", longest.as_secs()))
            .hint("check the storage: rekindle doctor");
        output::print_fault(&fault);
        fetch::give_up();
        leave(reader.failed(fault.exit_code()));
    });
}

#[expect(clippy::exit, reason = "whatever hangs must not keep the server waiting")]
fn leave(code: u8) {
    std::process::exit(i32::from(code))
}

/// The repository, with limits that fit a server that waits.
fn open(session: &Session, mut place: wire::Place, budget: Duration) -> Result<Repo> {
    let limits = &mut place.options.limits;
    limits.connect = limits.connect.min(budget / 4);
    limits.idle = limits.idle.min(budget / 2);
    limits.attempt = limits.attempt.min(budget);
    limits.retry_budget = limits.retry_budget.min(budget / 2);
    wire::open(session, &place)
}
