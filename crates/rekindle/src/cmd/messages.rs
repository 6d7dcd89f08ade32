//! What `status` says about messages that never arrived.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use rekindle_config::Config;
use rekindle_core::Result;
use rekindle_serve::journal::Lost;
use serde_json::{Value, json};

use crate::output::Answer;
use crate::wire;

/// So long a message that was given up is shown.
const SHOWN: Duration = Duration::from_hours(7 * 24);

/// Adds the newest message that each receiver never got. The verdict is not theirs: it is about the points.
pub(super) fn add(answer: Answer, config: &Config, now: Timestamp) -> Answer {
    match lost(config, now) {
        Ok(list) => {
            let mut text = String::new();
            for Lost { receiver, given_up, title, why } in &list {
                // Writing into a `String` cannot fail.
                let _ = writeln!(
                    text,
                    "\nMESSAGE LOST: `{receiver}` never got \"{title}\"; given up {given_up}: {why}. \
                     Try `rekindle notify test {receiver}`"
                );
            }
            answer.adding("messages_lost", json!(list), &text)
        }
        Err(fault) => {
            let text = format!("\nmessages: not known whether all arrived: {}\n", fault.chain());
            answer.adding("messages_lost", Value::Null, &text)
        }
    }
}

fn lost(config: &Config, now: Timestamp) -> Result<Vec<Lost>> {
    if config.receivers.is_empty() {
        return Ok(Vec::new());
    }
    match wire::service::journal(config)? {
        Some(journal) => journal.lost_since(now - SHOWN),
        None => Ok(Vec::new()),
    }
}
