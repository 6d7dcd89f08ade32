//! What is worth a message, told once: a condition opens, is repeated rarely, and closes.

use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use crate::journal::{Journal, News, Open};
use crate::notify::Receiver;

/// A condition that goes on is told again after this time.
pub const REPEAT_AFTER: Duration = Duration::from_hours(24);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Start,
    Success,
    Failed,
    Partial,
    Overdue,
    Recovered,
    ObjectiveMissed,
    ProofOld,
    Capacity,
    /// The newest capture differs sharply from those before.
    Suspicious,
    /// Nobody has confirmed to hold a kit that opens the repository.
    Kit,
    Digest,
    Test,
}

impl EventKind {
    /// The word used in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Overdue => "overdue",
            Self::Recovered => "recovered",
            Self::ObjectiveMissed => "objective-missed",
            Self::ProofOld => "proof-old",
            Self::Capacity => "capacity",
            Self::Suspicious => "suspicious",
            Self::Kit => "kit",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }

    /// Every event that a receiver may choose.
    pub const CHOICES: [Self; 9] = [
        Self::Failed,
        Self::Partial,
        Self::Overdue,
        Self::Recovered,
        Self::ObjectiveMissed,
        Self::ProofOld,
        Self::Capacity,
        Self::Suspicious,
        Self::Kit,
    ];

    /// Whether it says that something is wrong.
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Start | Self::Success | Self::Recovered | Self::Digest | Self::Test)
    }
}

/// One message. Holds no secret and no log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub kind: EventKind,
    pub stack: String,
    pub host: String,
    /// What it is about: `backup database`, `repository`.
    pub subject: String,
    /// One sentence.
    pub title: String,
    /// What to know and what to do.
    pub text: String,
    pub at: Timestamp,
    /// Same for all messages about one condition.
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl Event {
    /// As it is kept in the journal until it is sent.
    pub fn as_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Fault::new(codes::RUN_BUG, "write a message down").because(error.to_string()))
    }
}

/// Tells receivers, through the journal: nothing is sent here.
pub struct Teller<'a> {
    pub journal: &'a mut Journal,
    pub receivers: &'a [Receiver],
    pub now: Timestamp,
}

impl Teller<'_> {
    /// Conditions are there; `event` tells about all of them. Told when one of them is new, and
    /// again after [`REPEAT_AFTER`].
    pub fn open(&mut self, keys: &[String], event: &Event) -> Result<()> {
        let mut fresh = Vec::new();
        for key in keys {
            let known = self.journal.notice(key)?;
            // A partial point after a failed run is another matter.
            let same = known.filter(|open| open.event == event.kind.as_str());
            let since = match same {
                Some(open) if self.now.duration_since(open.told).unsigned_abs() < REPEAT_AFTER => continue,
                Some(open) => open.since,
                None => self.now,
            };
            let (event_word, text) = (event.kind.as_str().to_owned(), event.title.clone());
            fresh.push(Open { key: key.clone(), event: event_word, since, told: self.now, text });
        }
        let keys: Vec<String> = fresh.iter().map(|open| open.key.clone()).collect();
        let parcels = self.parcels(event, &keys)?;
        if fresh.is_empty() {
            return Ok(());
        }
        self.journal.tell(&News { open: fresh, parcels, ..News::default() }, self.now)
    }

    /// Conditions are over. Told when one of them was open.
    pub fn close(&mut self, keys: &[String], event: &Event) -> Result<()> {
        let mut over = Vec::new();
        for key in keys {
            over.extend(self.journal.notice(key)?.map(|open| open.key));
        }
        let parcels = self.parcels(event, &over)?;
        if over.is_empty() {
            return Ok(());
        }
        self.journal.tell(&News { close: over, parcels, ..News::default() }, self.now)
    }

    /// A sign of life of one run, for those who count them.
    pub fn ping(&mut self, event: &Event) -> Result<()> {
        let text = event.as_json()?;
        let mine = self.receivers.iter().filter(|receiver| receiver.is_ping() && receiver.wants(event));
        let parcels: Vec<_> = mine.map(|receiver| (receiver.name.clone(), text.clone())).collect();
        if parcels.is_empty() {
            return Ok(());
        }
        self.journal.tell(&News { parcels, ..News::default() }, self.now)
    }

    /// One message about all keys for who reads it; one for each key for who keeps incidents by them.
    fn parcels(&self, event: &Event, keys: &[String]) -> Result<Vec<(String, String)>> {
        let mut parcels = Vec::new();
        for receiver in self.receivers.iter().filter(|receiver| !receiver.is_ping() && receiver.wants(event)) {
            let told = if receiver.keeps_incidents() { keys.len() } else { 1 };
            for key in keys.iter().take(told) {
                parcels.push((receiver.name.clone(), Event { key: key.clone(), ..event.clone() }.as_json()?));
            }
        }
        Ok(parcels)
    }
}
