//! `serve`

use clap::Args;
use rekindle_core::{Fault, codes};
use rekindle_serve::{Journal, Service};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::{self, service, turn};

/// Run everything that is scheduled, until stopped
///
/// Each run is a process of its own. What ran stands in a journal in the state directory; after a crash the service
/// finds out what became of its runs and catches up once. SIGTERM starts nothing new and gives running work `grace`.
#[derive(Debug, Args)]
pub(crate) struct Serve;

impl Serve {
    #[expect(clippy::unused_self, reason = "every command is run by a method")]
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let setup = service::setup(session, &config)?;
        if setup.jobs.is_empty() && setup.streams.is_empty() {
            return Err(Fault::new(codes::SERVE_NO_JOB, format!("serve the stack `{}`", config.stack.name))
                .hint("add `schedule = \"*/30 * * * *\"` to a component, then `rekindle check-config`")
                .into());
        }
        let directory = service::state_directory(&config)?;
        let _alone = turn::service(&directory)?;
        let journal = Journal::open(&directory, session.now())?;
        let served = Service::new(setup, journal)?;
        session.runtime.block_on(Box::pin(served.run(service::stop(session))))?;
        Ok(Answer::words(json!({"stopped": true}), "stopped\n"))
    }
}
