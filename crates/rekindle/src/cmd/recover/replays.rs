//! Base backups of a recovery: how far their log is replayed.

use std::collections::BTreeMap;

use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Recovery, RunContext};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use rekindle_engine::pitr::moment;
use rekindle_engine::recover::{Choice, RecoveryPlan, Replay, Wish, usable};
use rekindle_repo::{Repo, points};

use crate::replay::{self, Until};
use crate::wire::components::is_base;

/// What is known when base backups are planned.
pub(super) struct World<'a> {
    pub(super) repo: &'a Repo,
    /// Points of the stack and host, oldest first.
    pub(super) points: &'a [&'a RecoveryPoint],
    pub(super) wish: &'a Wish,
    pub(super) marks: &'a Marks,
    pub(super) context: &'a RunContext,
}

impl World<'_> {
    fn is_base(&self, choice: &Choice) -> bool {
        let point = self.points.iter().find(|point| *point.id() == choice.point);
        point.and_then(|point| point.manifest().component(&choice.component)).is_some_and(is_base)
    }

    /// Brings every base backup among the choices as far as is wished: to `align` when it is given. Changes the
    /// choices to the point and the moment that this leads to.
    pub(super) fn plan(
        &self,
        choices: &mut [Choice],
        align: Option<jiff::Timestamp>,
    ) -> Result<BTreeMap<ComponentId, Recovery>> {
        let mut recoveries = BTreeMap::new();
        for choice in choices {
            if !self.is_base(choice) {
                continue;
            }
            let until = match align.or(self.wish.at) {
                _ if self.wish.point.is_some() => Replay::Itself,
                Some(at) => Replay::Moment(at),
                // Nobody knows where between the two it became odd.
                None if choice.before_suspicious => Replay::Itself,
                None => Replay::End,
            };
            let recovery = self.way(choice, until)?;
            self.note(choice, until, &recovery);
            recoveries.insert(choice.component.clone(), recovery);
        }
        if align.is_some() && recoveries.is_empty() {
            return Err(Fault::new(codes::CLI_USAGE, "align PostgreSQL: no component comes from a base backup")
                .hint("a dump stands for its own moment only; leave --align out"));
        }
        Ok(recoveries)
    }

    fn way(&self, choice: &Choice, until: Replay) -> Result<Recovery> {
        let id = &choice.component;
        let usable = usable(self.wish, self.points, id, self.marks);
        let own: Vec<&RecoveryPoint> = usable.iter().copied().filter(|point| *point.id() == choice.point).collect();
        let found = match until {
            Replay::Itself => replay::way(self.repo, &own, id, Until::Itself, self.context),
            Replay::End => replay::way(self.repo, &own, id, Until::Newest, self.context),
            Replay::Moment(at) => replay::way(self.repo, &usable, id, Until::Moment(at), self.context),
        };
        found.map_err(|fault| {
            let known = fault.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
            let hint = format!(
                "{known}for the stack: another moment with --at, without it everything that is newest; or --only the \
                 other components, and `rekindle restore {id}` for this one"
            );
            fault.during(format!("recover `{id}`")).hint(hint)
        })
    }

    fn note(&self, choice: &mut Choice, until: Replay, recovery: &Recovery) {
        choice.replay = Some(until);
        choice.point = recovery.plan.point.clone();
        if until != Replay::Itself {
            choice.captured_at = moment(&recovery.plan);
        }
        let point = self.points.iter().find(|point| *point.id() == choice.point);
        if let Some(record) = point.and_then(|point| point.manifest().component(&choice.component)) {
            choice.entries = record.tally.entries;
            choice.bytes = record.tally.bytes;
        }
    }
}

/// The moment to which PostgreSQL is aligned: that of the capture of the named Redis, or of the only one.
pub(super) fn aligned(choices: &[Choice], word: &str) -> Result<jiff::Timestamp> {
    let caches: Vec<&Choice> = choices.iter().filter(|choice| choice.kind == ComponentKind::Redis).collect();
    let named: Vec<&&Choice> =
        caches.iter().filter(|choice| word.is_empty() || choice.component.as_str() == word).collect();
    let names: Vec<&str> = caches.iter().map(|choice| choice.component.as_str()).collect();
    match named[..] {
        [one] => Ok(one.captured_at),
        [] => Err(Fault::new(codes::CLI_USAGE, "align PostgreSQL: there is no such Redis in this recovery").hint(
            format!(
                "components of kind redis: {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
        )),
        _ => Err(Fault::new(codes::CLI_USAGE, "align PostgreSQL: there are several Redis components")
            .hint(format!("name one: --align={}", names.join(" or --align=")))),
    }
}

/// The ways of a plan that was written down.
pub(super) fn again(plan: &RecoveryPlan, repo: &Repo, context: &RunContext) -> Result<BTreeMap<ComponentId, Recovery>> {
    let mut recoveries = BTreeMap::new();
    if plan.choices.iter().all(|choice| choice.replay.is_none()) {
        return Ok(recoveries);
    }
    let view = points::view(repo)?;
    for choice in &plan.choices {
        let until = match choice.replay {
            None => continue,
            Some(Replay::Itself) => Until::Itself,
            Some(Replay::Moment(at)) => Until::Moment(at),
            Some(Replay::End) => Until::Newest,
        };
        let own: Vec<&RecoveryPoint> = view.points.iter().filter(|point| *point.id() == choice.point).collect();
        recoveries.insert(choice.component.clone(), replay::way(repo, &own, &choice.component, until, context)?);
    }
    Ok(recoveries)
}
