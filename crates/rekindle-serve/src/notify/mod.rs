//! Receivers of messages: who they are, what they want to hear, and one attempt to tell them.

mod body;
mod email;
mod guard;
mod web;

pub use email::{Mail, MailTls};
pub use guard::is_forbidden;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rekindle_core::schedule::Task;
use rekindle_core::{Result, Secret};

use crate::notice::{Event, EventKind};

/// Gets a secret at the moment it is needed; may block.
pub type Lookup = Arc<dyn Fn() -> Result<Secret<String>> + Send + Sync>;

/// Somebody who is told.
#[derive(Clone)]
pub struct Receiver {
    pub name: String,
    pub channel: Channel,
    pub events: BTreeSet<EventKind>,
    /// Tasks it hears about, by their word; empty: all.
    pub tasks: Vec<String>,
    pub web: Web,
}

/// How messages go over HTTP.
#[derive(Debug, Clone)]
pub struct Web {
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Whether it may be a host of this network.
    pub allow_private: bool,
    pub ca_file: Option<PathBuf>,
}

/// What kind of receiver it is.
#[derive(Clone)]
pub enum Channel {
    Slack {
        url: Lookup,
    },
    Discord {
        url: Lookup,
    },
    Teams {
        url: Lookup,
    },
    /// Any HTTP endpoint. The template's `{words}` are replaced; without one the event itself is sent.
    Webhook {
        url: Lookup,
        template: Option<String>,
        secret: Option<Lookup>,
    },
    Ntfy {
        url: Lookup,
        token: Option<Lookup>,
    },
    /// `URL/start`, `URL`, `URL/fail` as healthchecks.io and others understand them.
    Ping {
        url: Lookup,
    },
    PagerDuty {
        url: String,
        routing_key: Lookup,
    },
    Email(Box<Mail>),
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("name", &self.name).field("events", &self.events).finish_non_exhaustive()
    }
}

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Without the URL, which may be a secret.
    pub why: String,
    /// Whether another attempt can help.
    pub again: bool,
}

impl Failure {
    fn never(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: false }
    }

    fn later(why: impl Into<String>) -> Self {
        Self { why: why.into(), again: true }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Receiver {
    /// Whether it counts runs instead of reading messages.
    pub fn is_ping(&self) -> bool {
        matches!(self.channel, Channel::Ping { .. })
    }

    /// Whether it keeps one incident for each key, which only a message with that key can end.
    pub fn keeps_incidents(&self) -> bool {
        matches!(self.channel, Channel::PagerDuty { .. })
    }

    /// Whether it is told about this.
    pub fn wants(&self, event: &Event) -> bool {
        let of_run = matches!(event.kind, EventKind::Start | EventKind::Success);
        let task = event.subject.split(' ').next().unwrap_or_default();
        // What is about the repository as a whole is no matter of one task.
        let whole = task.parse::<Task>().is_err();
        let hears = self.tasks.is_empty() || whole || self.tasks.iter().any(|wanted| wanted == task);
        match event.kind {
            EventKind::Test => true,
            // A ping is the sign of life of runs; conditions between runs are not its matter.
            _ if self.is_ping() => hears && (of_run || matches!(event.kind, EventKind::Failed | EventKind::Partial)),
            _ => hears && self.events.contains(&event.kind),
        }
    }

    /// Tries once.
    pub async fn send(&self, event: &Event) -> Result<(), Failure> {
        match &self.channel {
            Channel::Email(mail) => mail.send(event, self.web.timeout).await,
            channel => web::post(channel, &self.web, event).await,
        }
    }
}

/// Looks a secret up where blocking is allowed.
async fn look_up(lookup: &Lookup) -> Result<Secret<String>, Failure> {
    let lookup = Arc::clone(lookup);
    match tokio::task::spawn_blocking(move || lookup()).await {
        Ok(Ok(secret)) => Ok(secret),
        Ok(Err(fault)) => Err(Failure::later(fault.chain())),
        Err(_) => Err(Failure::later("looking the secret up did not end")),
    }
}
