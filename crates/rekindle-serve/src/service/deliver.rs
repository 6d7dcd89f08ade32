//! Sending what waits, and digests.

use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::Result;

use super::{Message, Service};
use crate::journal::{Lost, News, Parcel};
use crate::notice::{Event, EventKind};
use crate::notify::Failure;

/// Messages on their way at once.
const SENDING_MAX: usize = 4;
/// Waits between the attempts to deliver one message; after the last it is given up.
const WAITS: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_mins(2), Duration::from_mins(15), Duration::from_hours(1)];
/// Runs of a digest that are read; more are only counted up to here.
const DIGEST_RUNS_MAX: u32 = 10_000;
/// Failed runs that a digest names.
const DIGEST_SHOWN_MAX: usize = 10;

impl Service {
    /// Sends what is due, a few at a time.
    pub(super) fn deliver(&mut self, now: Timestamp) -> Result<()> {
        let room = SENDING_MAX.saturating_sub(self.on_the_way.len());
        if room == 0 {
            return Ok(());
        }
        let due = self.journal.parcels_due(now, u32::try_from(room + self.on_the_way.len()).unwrap_or(8))?;
        for parcel in due.into_iter().filter(|one| !self.on_the_way.contains(&one.id)).take(room).collect::<Vec<_>>() {
            let Some((receiver, event)) = self.address(&parcel, now)? else { continue };
            self.on_the_way.insert(parcel.id);
            let to_loop = self.to_loop.clone();
            tokio::spawn(async move {
                let result = receiver.send(&event).await;
                let _ = to_loop.send(Message::Delivered { parcel, result }).await;
            });
        }
        Ok(())
    }

    /// Sends everything that is due, one after the other: before a single run ends.
    pub(super) async fn deliver_now(&mut self) -> Result<()> {
        for parcel in self.journal.parcels_due(self.setup.clock.now(), 100)? {
            if let Some((receiver, event)) = self.address(&parcel, self.setup.clock.now())? {
                let result = receiver.send(&event).await;
                self.delivered(&parcel, result, self.setup.clock.now())?;
            }
        }
        Ok(())
    }

    /// `None`: the receiver was taken out of the configuration, or the message cannot be read, which is said.
    fn address(&mut self, parcel: &Parcel, now: Timestamp) -> Result<Option<(crate::notify::Receiver, Event)>> {
        let Some(receiver) = self.setup.receivers.iter().find(|one| one.name == parcel.target).cloned() else {
            self.journal.parcel_done(parcel.id)?;
            return Ok(None);
        };
        match serde_json::from_str(&parcel.event) {
            Ok(event) => Ok(Some((receiver, event))),
            Err(error) => {
                let why = format!("it cannot be read in the journal any more: {error}");
                self.delivered(parcel, Err(Failure { why, again: false }), now)?;
                Ok(None)
            }
        }
    }

    pub(super) fn delivered(&mut self, parcel: &Parcel, result: Result<(), Failure>, now: Timestamp) -> Result<()> {
        self.on_the_way.remove(&parcel.id);
        let lost = match result {
            Ok(()) => None,
            Err(failure) => {
                let wait = WAITS.get(usize::try_from(parcel.attempts).unwrap_or(usize::MAX)).filter(|_| failure.again);
                tracing::warn!(receiver = %parcel.target, error = %failure, again = wait.is_some(), "a message did not arrive");
                if let Some(wait) = wait {
                    self.journal.count("notifications", &format!("{} retried", parcel.target))?;
                    return self.journal.parcel_later(parcel.id, now + *wait);
                }
                let event = serde_json::from_str::<Event>(&parcel.event);
                let title = event.map_or_else(|_| "(not readable)".to_owned(), |event| event.title);
                Some(Lost { receiver: parcel.target.clone(), given_up: now, title, why: failure.why })
            }
        };
        let word = if lost.is_some() { "lost" } else { "sent" };
        self.journal.count("notifications", &format!("{} {word}", parcel.target))?;
        match lost {
            Some(lost) => self.journal.parcel_lost(parcel.id, &lost),
            None => self.journal.parcel_done(parcel.id),
        }
    }

    /// Digests whose time has come.
    pub(super) fn digests(&mut self, now: Timestamp) -> Result<()> {
        for (receiver, schedule) in self.setup.digests.clone() {
            let fact = format!("digest {receiver}");
            let last = self.journal.fact(&fact)?.and_then(|text| text.parse::<Timestamp>().ok());
            let due = match last {
                // The clock was put back, or it is the first time.
                None => None,
                Some(last) if last > now => None,
                Some(last) => schedule.next_after(last, &self.setup.rules.zone).filter(|at| *at <= now).map(|_| last),
            };
            if let Some(since) = due {
                let text = self.digest(since, now)?.as_json()?;
                // In one step: a crash between the two would send it twice.
                let fact = Some((fact, now.to_string()));
                self.journal.tell(&News { parcels: vec![(receiver, text)], fact, ..News::default() }, now)?;
            } else if last.is_none_or(|last| last > now) {
                self.journal.set_fact(&fact, &now.to_string())?;
            }
        }
        Ok(())
    }

    fn digest(&self, since: Timestamp, now: Timestamp) -> Result<Event> {
        let mut runs = self.journal.runs_since(since, DIGEST_RUNS_MAX)?;
        // What a hook left out is neither good nor bad.
        runs.retain(|run| run.how.as_deref() != Some("skipped"));
        let good = runs.iter().filter(|run| run.how.as_deref() == Some("good")).count();
        let mut event = self.event(EventKind::Digest, "digest", now);
        event.title = format!("`{}`: {good} of {} runs were good since {since}", self.setup.stack, runs.len());
        let mut lines = Vec::new();
        for run in runs.iter().filter(|run| run.how.as_deref() != Some("good")).take(DIGEST_SHOWN_MAX) {
            let why = run.message.as_deref().unwrap_or("no reason was given");
            lines.push(format!("{} {} at {}: {why}", run.task, run.components.join(" "), run.started));
        }
        for lost in self.journal.lost_since(since)? {
            lines.push(format!("a message to {} never arrived ({}): {}", lost.receiver, lost.why, lost.title));
        }
        for one in &self.view.components {
            let captured = one.captured_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            let proved = one.proved_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            lines.push(format!(
                "{}: captured {captured}, proved {proved}, {} MiB, {}",
                one.id,
                one.bytes >> 20,
                one.verdict
            ));
        }
        event.text = lines.join("\n");
        Ok(event)
    }
}
