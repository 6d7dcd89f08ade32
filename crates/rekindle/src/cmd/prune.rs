//! `prune`

use std::fmt::Write as _;

use clap::Args;
use rekindle_repo::admin::{self, PruneOptions};
use serde_json::json;

use super::forget::complete_view;
use super::locked;
use super::wal::sweep;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Remove data that no recovery point needs
///
/// In two phases: data is marked first and removed by a later run, so that a backup that is running somewhere cannot
/// lose what it takes over. WAL that no base backup and no running recovery needs goes too, once it is a day old.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Unused data that may stay, in percent of what is used
    #[arg(long, value_name = "PERCENT", default_value_t = PruneOptions::default().max_unused_percent, value_parser = clap::value_parser!(u8).range(0..=100))]
    max_unused: u8,
    /// Most data that one run may take away, in percent of all
    #[arg(long, value_name = "PERCENT", default_value_t = PruneOptions::default().max_delete_percent, value_parser = clap::value_parser!(u8).range(1..=100))]
    max_delete: u8,
    /// Hours that marked data is kept before it is removed; longer than any backup takes
    #[arg(long, value_name = "HOURS", default_value_t = PruneOptions::default().keep_marked_hours)]
    keep_marked: u16,
    /// Show what would be removed, remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    /// Whether it removes anything.
    pub(crate) fn changes(&self) -> bool {
        !self.dry_run
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let options = PruneOptions {
            max_unused_percent: self.max_unused,
            max_delete_percent: self.max_delete,
            keep_marked_hours: self.keep_marked,
            dry_run: self.dry_run,
        };
        let report = admin::prune(&repository, &options, &wire::actor(wire::host_name()), &session.cancel)?;
        let rows = [
            ("used", report.used_bytes),
            ("unused", report.unused_bytes),
            ("marked for a later run", report.marked_bytes),
            ("written again", report.repacked_bytes),
            ("removed", report.removed_bytes),
        ];
        let mut text = if self.dry_run { "Nothing was removed.\n".to_owned() } else { String::new() };
        for (what, bytes) in rows {
            let _ = writeln!(text, "{what:<24}{:>12}", human::bytes(bytes));
        }
        // The packs are done with; the log is judged by the points that are left.
        let view = complete_view(&repository)?;
        let points: Vec<_> = view.points.iter().collect();
        let wal = sweep::sweep(&repository, &points, session.now(), self.dry_run)?;
        text.push_str(&sweep::text(&wal, self.dry_run));
        let answer = Answer::words(json!({"dry_run": self.dry_run, "report": report, "wal": wal}), text);
        Ok(if self.dry_run { answer } else { locked::extend(answer, session, &repository) })
    }
}
