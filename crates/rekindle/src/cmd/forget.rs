//! `forget`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use rekindle_core::retention::Decision;
use rekindle_core::{Fault, PointId, Result, codes};
use rekindle_engine::retain::{Known, Policies, decide, guard_explicit};
use rekindle_repo::admin::Actor;
use rekindle_repo::points::{self, PointsView};
use rekindle_repo::{Repo, admin, marks, proofs, source_proofs, trust};
use serde_json::json;

use super::wal::sweep::{self, Swept};
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Remove recovery points that [retention] does not keep, or named ones
///
/// The newest complete point of a stack always stays. The data of removed points stays until `rekindle prune`.
#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Points to remove, by the beginnings of their ids; none: what [retention] does not keep
    points: Vec<String>,
    /// Show what would be removed and why, remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Forget {
    /// Whether it removes anything.
    pub(crate) fn changes(&self) -> bool {
        !self.dry_run
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        if self.points.is_empty() {
            return self.by_policy(session);
        }
        let repository = wire::open(session, &wire::place(session)?)?;
        let decide = || {
            let view = complete_view(&repository)?;
            trust::require(&repository, &view)?;
            let find = |word: &String| points::resolve(&view, word).map(|point| point.id().clone());
            let wanted = self.points.iter().map(find).collect::<Result<Vec<PointId>>>()?;
            guard_explicit(&view.points, &marks::read(&repository)?, &wanted)?;
            Ok(((view, wanted.clone()), wanted))
        };
        let (view, wanted) = self.removed(&repository, &wire::actor(wire::host_name()), decide)?;
        let verb = if self.dry_run { "would remove" } else { "removed" };
        let text = wanted.iter().fold(String::new(), |text, id| text + verb + " " + id.short() + "\n");
        let wal = wal_after(session, &repository, &view, &wanted)?;
        let result = json!({"dry_run": self.dry_run, "removed": wanted, "wal": wal});
        Ok(Answer::words(result, text + &sweep::text(&wal, true)))
    }

    fn by_policy(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let (policy, table) = match &session.global.copy {
            None => (&config.retention, "retention".to_owned()),
            Some(name) => (&wire::copy(&config, name)?.retention, format!("copy.{name}.retention")),
        };
        let own = config.components.iter().filter_map(|one| Some((one.id.clone(), one.retention.as_ref()?.policy)));
        // A copy keeps by its own rules only.
        let own: BTreeMap<_, _> = if session.global.copy.is_some() { BTreeMap::new() } else { own.collect() };
        if policy.is_none() && own.is_empty() {
            let what = format!("apply the retention: the configuration has no [{table}]");
            return Err(Fault::new(codes::CONFIG_VALUE, what)
                .hint(format!("add [{table}] with rules such as `keep-daily = 30`, or name the points to remove"))
                .into());
        }
        let tagged = policy.iter().chain(config.components.iter().filter_map(|one| one.retention.as_ref()));
        let policies = Policies {
            usual: policy.as_ref().map(|one| one.policy).unwrap_or_default(),
            of_component: own,
            keep_tags: tagged.flat_map(|one| one.keep_tags.iter().cloned()).collect(),
        };
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let repository = wire::open(session, &place)?;
        let host = wire::host(&config);
        let decide = || {
            let view = complete_view(&repository)?;
            trust::require(&repository, &view)?;
            let marks = marks::read(&repository)?;
            // A chain of proofs that was changed says nothing about which point was proved.
            let proofs = proofs::read_all(&repository)?;
            let there = source_proofs::proved_there(&view.points, &source_proofs::read_all(&repository)?)?;
            let there: BTreeSet<PointId> = there.into_keys().collect();
            let known = Known { marks: &marks, proofs: &proofs, proved_there: &there };
            let (stack, now, zone) = (&config.stack.name, session.now(), wire::service::zone(&config));
            let decisions = decide(policies.clone(), &view.points, &known, stack, &host, now, &zone)?;
            let removed: Vec<PointId> = decisions.iter().filter(|one| !one.keep).map(|one| one.point.clone()).collect();
            guard_explicit(&view.points, &marks, &removed)?;
            Ok(((view, decisions, removed.clone()), removed))
        };
        let (view, decisions, removed) = self.removed(&repository, &wire::actor(host.clone()), decide)?;
        let wal = wal_after(session, &repository, &view, &removed)?;
        Ok(answer(&decisions, &removed, self.dry_run, &wal))
    }

    /// Decides, and unless it is only to be shown, decides again where nobody else can write, and removes: a hold
    /// that somebody placed meanwhile counts. Nothing to remove needs no lock.
    fn removed<T>(
        &self,
        repository: &Repo,
        actor: &Actor,
        decide: impl Fn() -> Result<(T, Vec<PointId>)>,
    ) -> Result<T> {
        let (shown, wanted) = decide()?;
        if self.dry_run || wanted.is_empty() {
            return Ok(shown);
        }
        admin::forget_by(repository, actor, decide)
    }
}

/// What WAL `rekindle prune` would remove once these points are gone.
fn wal_after(session: &Session, repository: &Repo, view: &PointsView, gone: &[PointId]) -> Result<Vec<Swept>> {
    let left: Vec<_> = view.points.iter().filter(|point| !gone.contains(point.id())).collect();
    sweep::sweep(repository, &left, session.now(), true)
}

/// Every point; one that cannot be read stops retention, since nobody knows what it is worth.
pub(super) fn complete_view(repository: &Repo) -> Result<PointsView> {
    let view = points::view(repository)?;
    match view.unreadable.first() {
        None => Ok(view),
        Some(bad) => {
            Err(Fault::new(codes::ENGINE_KEEP, format!("remove points: point {} cannot be read", bad.id.short()))
                .because(bad.fault.chain())
                .hint("rekindle verify; nothing was removed"))
        }
    }
}

fn answer(decisions: &[Decision], removed: &[PointId], dry_run: bool, wal: &[Swept]) -> Answer {
    let rows: Vec<Vec<String>> = decisions
        .iter()
        .map(|one| {
            let word = match (one.keep, dry_run) {
                (true, _) => "keep",
                (false, true) => "would remove",
                (false, false) => "removed",
            };
            vec![one.point.short().to_owned(), human::time(one.time), word.to_owned(), one.reasons.join("; ")]
        })
        .collect();
    let mut text = human::table(&["POINT", "TIME", "DECISION", "WHY"], &rows);
    if !removed.is_empty() && !dry_run {
        text.push_str("\nTheir data stays until `rekindle prune`.\n");
    }
    text.push_str(&sweep::text(wal, true));
    Answer::words(json!({"dry_run": dry_run, "decisions": decisions, "removed": removed, "wal": wal}), text)
}
