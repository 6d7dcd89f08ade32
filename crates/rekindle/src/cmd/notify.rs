//! `notify`

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use rekindle_core::{Fault, codes};
use rekindle_serve::notice::{Event, EventKind};
use rekindle_serve::notify::{Failure, Receiver};
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::{self, receivers};

/// Messages about the stack
#[derive(Debug, Args)]
pub(crate) struct Notify {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send a test message to every receiver, or to one
    Test {
        /// Name of a receiver, as in `[notify.NAME]`
        name: Option<String>,
    },
}

impl Notify {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let What::Test { name } = &self.what;
        let config = wire::config(session)?;
        let wanted = |one: &&rekindle_config::Receiver| name.as_ref().is_none_or(|name| *name == one.name);
        let chosen: Vec<_> = config.receivers.iter().filter(wanted).map(receivers::of_config).collect();
        if chosen.is_empty() {
            let known: Vec<&str> = config.receivers.iter().map(|one| one.name.as_str()).collect();
            let hint = if known.is_empty() {
                "add a table such as [notify.ops] with `kind = \"slack\"`; see docs/notifications.md".to_owned()
            } else {
                format!("choose from: {}", known.join(", "))
            };
            return Err(Fault::new(codes::CLI_USAGE, "find a receiver").hint(hint).into());
        }
        let event = Event {
            kind: EventKind::Test,
            stack: config.stack.name.clone(),
            host: wire::host(&config),
            subject: "test".to_owned(),
            title: format!("test message of `{}`", config.stack.name),
            text: "Somebody ran `rekindle notify test`. Nothing is wrong.".to_owned(),
            at: session.now(),
            key: "test".to_owned(),
            run: None,
            point: None,
            code: None,
        };
        let mut text = String::new();
        let (mut list, mut lost) = (Vec::new(), Vec::new());
        for receiver in &chosen {
            let failure = session.runtime.block_on(Box::pin(tried(receiver, &event))).err();
            let said = failure.as_ref().map_or_else(|| "it arrived".to_owned(), ToString::to_string);
            // Writing into a `String` cannot fail.
            let _ = writeln!(text, "{}: {said}", receiver.name);
            list.push(
                json!({"receiver": receiver.name, "arrived": failure.is_none(), "why": failure.map(|one| one.why)}),
            );
            if said != "it arrived" {
                lost.push(format!("`{}`", receiver.name));
            }
        }
        let answer = Answer::data(json!({"receivers": list}), text);
        if lost.is_empty() {
            return Ok(answer);
        }
        let fault = Fault::new(codes::SERVE_NOTIFY, format!("tell {}", lost.join(", ")))
            .hint("mend what is said beside its name, then run `rekindle notify test` again");
        Ok(answer.exit(fault.exit_code()).with_fault(fault))
    }
}

/// One message, and its end where it opens an incident.
async fn tried(receiver: &Receiver, event: &Event) -> std::result::Result<(), Failure> {
    receiver.send(event).await?;
    if receiver.keeps_incidents() {
        receiver.send(&Event { kind: EventKind::Recovered, ..event.clone() }).await?;
    }
    Ok(())
}
