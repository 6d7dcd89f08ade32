//! `list`

use std::fmt::Write as _;

use clap::Args;
use rekindle_core::point::RecoveryPoint;
use rekindle_repo::points;
use serde_json::json;

use crate::describe;
use crate::evidence::Evidence;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::{self, attached};

/// List recovery points, newest last
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only points of this stack
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,
    /// Only points of this host
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only the newest N points
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl List {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let view = points::view(&repository)?;
        let evidence = Evidence::read(&repository)?;
        let (marks, doubt) = attached::marks_shown(&repository);
        let foreign = points::foreign_snapshots(&repository)?.len();
        let all = &view.points;
        let wanted = |wish: &Option<String>, is: &str| wish.as_deref().is_none_or(|wish| wish == is);
        let mut chosen: Vec<&RecoveryPoint> = all
            .iter()
            .filter(|point| wanted(&self.stack, &point.manifest().stack))
            .filter(|point| wanted(&self.host, &point.manifest().host))
            .collect();
        let surplus = self.last.map_or(0, |last| chosen.len().saturating_sub(last));
        chosen.drain(..surplus);
        let there = evidence.proved_there(all);
        let summary = |point: &&RecoveryPoint| {
            let mut summary = describe::summary(point, evidence.trust(point), &marks);
            summary["proved_in_source"] = json!(there.get(point.id()));
            summary
        };
        let list: Vec<_> = chosen.iter().map(summary).collect();
        let mut text = if chosen.is_empty() {
            "There is no recovery point.\n".to_owned()
        } else {
            describe::table(&chosen, &evidence, &there, &marks)
        };
        if foreign > 0 {
            let _ =
                writeln!(text, "\nsnapshots of other programs (no points, but `restore` takes their ids): {foreign}");
        }
        let lost: Vec<_> = view.unreadable.iter().map(describe::unreadable).collect();
        let result = json!({"points": list, "unreadable": lost, "foreign_snapshots": foreign});
        let answer = Answer::data(result, text);
        let faults = describe::unreadable_fault(&view.unreadable).into_iter().chain(evidence.fault).chain(doubt);
        Ok(faults.fold(answer, |answer, fault| answer.exit(fault.exit_code()).with_fault(fault)))
    }
}
