//! `wal heartbeat`

use std::time::Duration;

use clap::Args;
use rekindle_core::{ComponentId, Fault, Result};
use rekindle_sources::postgres::{self, PostgresOptions, Written};
use serde_json::json;

use crate::output::{self, Answer};
use crate::session::{Faults, Session};
use crate::wire;
use crate::wire::components;

/// How often the end of the run is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Write small commits, so that an idle database can be recovered to now
///
/// Recovery to a time stops at the first transaction that ended after it; a database in which nothing happens has none.
/// It also tells how far behind the log is: `rekindle status` shows the newest commit that comes back.
#[derive(Debug, Args)]
pub(crate) struct Heartbeat {
    /// The postgres component [default: the only one]
    component: Option<ComponentId>,
    /// Seconds between two heartbeats
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Write a message into the log, instead of a row of the table rekindle.heartbeat: needs no right to write
    #[arg(long)]
    message: bool,
    /// Write one and end
    #[arg(long)]
    once: bool,
}

impl Heartbeat {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let component = super::component(&config, self.component.as_ref())?;
        let options = components::postgres_of(&config, Some(component.as_str()))?;
        let beat = Beat { options, message: self.message };
        session.runtime.block_on(beat.prepare())?;
        let first = session.runtime.block_on(beat.once())?;
        let mut written = (1_u64, first);
        if !self.once {
            let every = Duration::from_secs(self.every);
            beat.until(session.runtime.handle(), every, &|| session.cancel.is_cancelled(), |one| {
                written = (written.0 + 1, one);
            });
        }
        let (count, last) = written;
        let text = format!("{count} heartbeats; the last at {} ({})\n", last.at, last.lsn);
        Ok(Answer::words(json!({ "component": component, "count": count, "at": last.at, "lsn": last.lsn }), text))
    }
}

/// What writes heartbeats into one server.
pub(super) struct Beat {
    pub(super) options: PostgresOptions,
    pub(super) message: bool,
}

impl Beat {
    /// Makes the table, where one is used.
    pub(super) async fn prepare(&self) -> Result<()> {
        if self.message { Ok(()) } else { postgres::prepare_heartbeat(&self.options).await }
    }

    async fn once(&self) -> Result<Written> {
        let how = if self.message { postgres::Heartbeat::Message } else { postgres::Heartbeat::Table };
        postgres::beat(&self.options, how).await
    }

    /// Goes on until it is over. A server that is away for a while is told of once.
    pub(super) fn until(
        &self,
        runtime: &tokio::runtime::Handle,
        every: Duration,
        over: &(dyn Fn() -> bool + Sync),
        mut each: impl FnMut(Written),
    ) {
        let mut failing = false;
        loop {
            let due = std::time::Instant::now() + every;
            while std::time::Instant::now() < due {
                if over() {
                    return;
                }
                std::thread::sleep(LOOK);
            }
            match runtime.block_on(self.once()) {
                Ok(one) => {
                    failing = false;
                    each(one);
                }
                Err(fault) if !failing => {
                    failing = true;
                    tell(&fault);
                }
                Err(_) => {}
            }
        }
    }
}

fn tell(fault: &Fault) {
    output::print_fault(fault);
}
