//! `point`

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{Args, Subcommand};
use rekindle_core::mark::{Mark, MarkKind};
use rekindle_core::port::Clock;
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::lock::{Lock, LockKind};
use rekindle_repo::marks;
use serde_json::json;

use crate::output::Answer;
use crate::session::{Faults, Session, SystemClock};
use crate::wire;

/// Longest reason: it is a sentence, not a file.
const REASON_CHARS_MAX: usize = 1000;

/// Accept a suspicious point, or hold one so that it is never forgotten
#[derive(Debug, Args)]
pub(crate) struct Point {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say that a suspicious point is as it should be: what changed is the new normal
    Accept {
        /// Beginning of the point's id, or `latest`
        point: String,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Keep a point whatever [retention] says
    Hold {
        /// Beginning of the point's id, or `latest`
        point: String,
        /// Why, for whoever asks later
        #[arg(long, value_name = "TEXT", conflicts_with = "release")]
        reason: Option<String>,
        /// Let it go again
        #[arg(long)]
        release: bool,
    },
}

impl Point {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repo = wire::open(session, &wire::place(session)?)?;
        let (word, kind, reason) = match &self.what {
            What::Accept { point, reason } => (point, MarkKind::Accept, reason),
            What::Hold { point, reason, release: false } => (point, MarkKind::Hold, reason),
            What::Hold { point, reason, release: true } => (point, MarkKind::Release, reason),
        };
        if reason.as_ref().is_some_and(|text| text.chars().count() > REASON_CHARS_MAX) {
            return Err(Fault::new(codes::CLI_USAGE, "write the reason: it is longer than 1000 characters")
                .hint("say it in a sentence")
                .into());
        }
        let point = wire::point(&repo, word)?;
        let known = marks::read(&repo)?;
        let short = point.id().short();
        let needless = match kind {
            MarkKind::Accept if !known.suspicious(&point) => Some("is not suspicious"),
            MarkKind::Release if known.held(point.id()).is_none() => Some("is not held"),
            _ => None,
        };
        if let Some(why) = needless {
            return Ok(Answer::words(
                json!({"point": point.id(), "written": false}),
                format!("point {short} {why}.\n"),
            ));
        }
        let mark = Mark {
            kind,
            time: session.now(),
            point: Some(point.id().clone()),
            reason: reason.clone(),
            user: wire::user_name(),
            host: wire::host_name(),
            keys: BTreeSet::new(),
            origin: None,
        };
        // Nobody removes points between the reading of the marks and this one.
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let lock = Lock::acquire(&repo, &clock, LockKind::Shared)?;
        let added = wire::point(&repo, point.id().as_str()).and_then(|_| marks::add(&repo, &mark));
        let released = lock.release();
        added?;
        released?;
        let text = match kind {
            MarkKind::Accept => "is accepted: it is compared with from now on, and retention goes on",
            MarkKind::Hold => "is held: it is not forgotten until `rekindle point hold --release`",
            _ => "is held no more",
        };
        Ok(Answer::words(
            json!({"point": point.id(), "written": true, "mark": mark}),
            format!("point {short} {text}.\n"),
        ))
    }
}
