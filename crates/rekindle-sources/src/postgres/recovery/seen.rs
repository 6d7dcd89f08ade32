//! What the recovering server said in its log, and whether it proves that recovery stopped where
//! it was told to.

use rekindle_core::timeline::{RecoveryPlan, Stop, parse_moment};
use rekindle_core::wal::{Lsn, Timeline};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

/// Lines of the server that are kept for an error.
const WORDS_MAX: usize = 12;

/// Where the server says that it stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Before or after the end of a transaction.
    Transaction {
        xid: u32,
        at: jiff::Timestamp,
        after: bool,
    },
    RestorePoint {
        name: String,
    },
    Position {
        lsn: Lsn,
    },
    Consistent,
}

/// What the log said so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stopped: Option<Stopped>,
    pub(super) stop_line: Option<String>,
    pub(super) last_transaction: Option<jiff::Timestamp>,
    pub(super) consistent: Option<Lsn>,
    pub(super) redo_from: Option<Lsn>,
    pub(super) redo_done: Option<Lsn>,
    pub(super) timeline: Option<Timeline>,
    pub(super) ready: bool,
    /// The last lines that tell of a failure.
    pub(super) words: Vec<String>,
}

/// What was proved of a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The server's line about where it stopped; none at the end of the log.
    pub stopped: Option<String>,
    /// When the last transaction that was replayed ended.
    pub last_transaction: Option<jiff::Timestamp>,
    pub consistent_at: Option<Lsn>,
    /// Start of the last record that was replayed.
    pub replayed_to: Option<Lsn>,
    /// The timeline that began with the promotion.
    pub timeline: Timeline,
}

fn moment(text: &str) -> Option<jiff::Timestamp> {
    parse_moment(text.trim(), |_| None).ok()
}

fn position(text: &str) -> Option<Lsn> {
    let word = text.trim_start().trim_start_matches('"');
    let end = word.find(|c: char| !(c.is_ascii_hexdigit() || c == '/')).unwrap_or(word.len());
    word[..end].parse().ok()
}

fn stop(text: &str) -> Option<Stopped> {
    if let Some(rest) = text.strip_prefix("at restore point \"") {
        let name = rest.rsplit_once("\", time ")?.0;
        return Some(Stopped::RestorePoint { name: name.to_owned() });
    }
    if text.starts_with("after reaching consistency") {
        return Some(Stopped::Consistent);
    }
    let (after, rest) = match (text.strip_prefix("after "), text.strip_prefix("before ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    if let Some(rest) = rest.strip_prefix("WAL location (LSN) ") {
        return Some(Stopped::Position { lsn: position(rest)? });
    }
    let rest = rest.strip_prefix("commit of transaction ").or_else(|| rest.strip_prefix("abort of transaction "))?;
    let (xid, at) = rest.split_once(", time ")?;
    Some(Stopped::Transaction { xid: xid.parse().ok()?, at: moment(at)?, after })
}

impl Seen {
    /// Takes one line of the log (`log_line_prefix = '%m [%p] '`).
    pub(super) fn line(&mut self, line: &str) {
        let Some((_, said)) = line.split_once("] ") else { return self.word(line) };
        let Some(text) = said.strip_prefix("LOG:  ") else {
            return if ["FATAL:", "PANIC:", "ERROR:", "DETAIL:", "HINT:", "WARNING:"].iter().any(|w| said.starts_with(w))
            {
                self.word(said);
            };
        };
        let after = |prefix: &str| text.strip_prefix(prefix);
        if let Some(rest) = after("recovery stopping ") {
            self.stopped = stop(rest);
            self.stop_line = Some(text.to_owned());
        } else if let Some(rest) = after("consistent recovery state reached at ") {
            self.consistent = position(rest);
        } else if let Some(rest) = after("redo starts at ") {
            self.redo_from = position(rest);
        } else if let Some(rest) = after("redo done at ") {
            self.redo_done = position(rest);
        } else if let Some(rest) = after("last completed transaction was at log time ") {
            self.last_transaction = moment(rest);
        } else if let Some(rest) = after("selected new timeline ID: ") {
            self.timeline = rest.trim().parse().ok().map(Timeline);
        } else if text.starts_with("database system is ready to accept connections") {
            self.ready = true;
        } else if text.contains("invalid") || text.contains("incorrect") || text.contains("could not") {
            self.word(said);
        }
    }

    fn word(&mut self, text: &str) {
        if !text.trim().is_empty() {
            self.words.push(text.trim().to_owned());
            let excess = self.words.len().saturating_sub(WORDS_MAX);
            self.words.drain(..excess);
        }
    }

    /// Whether this log proves the plan's target.
    pub(super) fn prove(&self, plan: &RecoveryPlan) -> Result<Proof> {
        let no = |why: String| {
            Err(Fault::new(codes::PITR_UNPROVED, format!("prove the recovery to {}", plan.target.stop))
                .because(why)
                .hint("do not use the restored directory; restore again from an older base backup"))
        };
        let shown = || self.stop_line.clone().unwrap_or_else(|| "it came to the end of the log".to_owned());
        if let Err(why) = self.reached(plan) {
            return no(format!("{why}; the server said: {}", shown()));
        }
        let Some(timeline) = self.timeline.filter(|new| *new > plan.chain.timeline) else {
            return no(format!("it did not begin a timeline behind {}", plan.chain.timeline));
        };
        if self.consistent.is_none() {
            return no("it never became consistent".to_owned());
        }
        Ok(Proof {
            stopped: self.stop_line.clone(),
            last_transaction: self.last_transaction,
            consistent_at: self.consistent,
            replayed_to: self.redo_done,
            timeline,
        })
    }

    fn reached(&self, plan: &RecoveryPlan) -> std::result::Result<(), String> {
        let inclusive = plan.target.inclusive;
        match (&plan.target.stop, &self.stopped) {
            (Stop::Time(target), Some(Stopped::Transaction { at, after: false, .. })) => {
                let beyond = if inclusive { at > target } else { at >= target };
                let behind = |last: jiff::Timestamp| if inclusive { last > *target } else { last >= *target };
                match self.last_transaction.filter(|last| behind(*last)) {
                    Some(last) => Err(format!("a transaction of {last} was replayed")),
                    None if !beyond => Err(format!("it stopped at a transaction of {at}, before the target")),
                    None => Ok(()),
                }
            }
            (Stop::Xid(wanted), Some(Stopped::Transaction { xid, after, .. }))
                if xid == wanted && *after == inclusive =>
            {
                Ok(())
            }
            (Stop::Lsn(wanted), Some(Stopped::Position { lsn })) if lsn >= wanted => Ok(()),
            (Stop::Name(wanted), Some(Stopped::RestorePoint { name })) if name == wanted => Ok(()),
            (Stop::Immediate, Some(Stopped::Consistent)) => Ok(()),
            (Stop::Latest, None) => match (self.redo_done, plan.ends.last_record) {
                (Some(done), Some(last)) if done < last => {
                    Err(format!("the log holds whole records up to {last}, it replayed them only to {done}"))
                }
                (None, Some(last)) => Err(format!("the log holds whole records up to {last}, it replayed none")),
                _ => Ok(()),
            },
            _ => Err("it did not stop at the target".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
