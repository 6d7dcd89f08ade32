//! `peek`

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Level, Recovery, RestoreRequest, RunContext};
use rekindle_core::sandbox::Sandbox;
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_engine::pitr::moment;
use rekindle_engine::restore::{RestoreItem, RestorePlan, restore};
use rekindle_repo::{Repo, points};
use rekindle_sources::hook::ProcessHooks;
use rekindle_sources::sandbox::clean;
use serde_json::json;

use crate::moment::{Moment, held_at};
use crate::output::Answer;
use crate::replay::{self, Until};
use crate::session::{Faults, Session};
use crate::wire::{components, sandbox};
use crate::{human, wire};

/// Workers of pg_restore.
const JOBS: usize = 2;
/// Between two looks at the clock and at Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Open a read-only sandbox of the past and keep it until Ctrl-C
///
/// Restores one component into a sandbox, starts its engine, prints how to connect, and removes everything at the end.
/// A base backup of PostgreSQL is brought to the end of its log, with --at to exactly that moment, with --point to its
/// own end.
#[derive(Debug, Args)]
pub(crate) struct Peek {
    /// Component to look at
    component: String,
    /// Beginning of the point's id, or `latest` [default: the newest that holds the component]
    #[arg(long, value_name = "POINT", conflicts_with = "at")]
    point: Option<String>,
    /// The state of this moment, as `2026-01-31T12:00:00Z` or `2h ago`: a base backup exactly, others the newest that is
    /// not later
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// End by itself after this time, as `1h` or `90s`
    #[arg(long = "for", value_name = "DURATION")]
    for_: Option<jiff::SignedDuration>,
}

impl Peek {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::optional_config(session)?;
        clean(&sandbox::base(config.as_ref()))?;
        let repository = Arc::new(wire::open(session, &wire::place(session)?)?);
        let stack = config.as_ref().map(|config| config.stack.name.clone());
        let (context, _scratch) = session.context()?;
        let (point, recovery) = self.find(&repository, stack.as_deref(), &context)?;
        let record = self.record(&point)?;
        let state_of = recovery.as_ref().map_or(record.captured_at, |recovery| moment(&recovery.plan));
        let site = sandbox::site(config.as_ref())?;
        let programs = config.as_ref().map(|config| config.drill.programs.clone()).unwrap_or_default();
        let configured = config.as_ref().and_then(|config| config.components.iter().find(|one| one.id == record.id));
        let sandbox = sandbox::of_record(record, configured, &site, &programs)?;
        let open = self.open(&*sandbox, &point, record, recovery, &repository, &context);
        let shown = session.runtime.block_on(Box::pin(open));
        let seen = shown.and_then(|way_in| self.keep(session, &point, state_of, &way_in).map(|()| way_in));
        let closed = sandbox.close();
        let way_in = seen?;
        closed?;
        let result = json!({"point": point.id(), "component": record.id, "captured_at": state_of, "connect": way_in});
        Ok(Answer::words(result, "the sandbox is gone\n"))
    }

    /// The point, and how far a base backup of it is brought.
    fn find(
        &self,
        repository: &Repo,
        stack: Option<&str>,
        context: &RunContext,
    ) -> Result<(RecoveryPoint, Option<Recovery>)> {
        let view = points::view(repository)?;
        let is_base = |point: &RecoveryPoint| self.record(point).map(components::is_base);
        let id: ComponentId = self.component.parse().map_err(|bad| no_component(&self.component).because(bad))?;
        if let Some(word) = &self.point {
            let point = points::resolve(&view, word)?;
            let itself = || replay::way(repository, &[point], &id, Until::Itself, context);
            let recovery = if is_base(point)? { Some(itself()?) } else { None };
            return Ok((point.clone(), recovery));
        }
        let mine: Vec<&RecoveryPoint> =
            view.points.iter().filter(|point| stack.is_none_or(|stack| point.manifest().stack == stack)).collect();
        let at = self.at.map(|at| at.of(jiff::Timestamp::now()));
        let point = held_at(&mine, &id, at).ok_or_else(|| {
            Fault::new(codes::REPO_NO_POINT, format!("find a point that holds `{id}`"))
                .hint("`rekindle list` shows the points and their components")
        })?;
        if !is_base(point)? {
            return Ok((point.clone(), None));
        }
        let recovery = match at {
            Some(at) => replay::way(repository, &mine, &id, Until::Moment(at), context)?,
            None => replay::way(repository, &[point], &id, Until::Newest, context)?,
        };
        let from = mine.iter().find(|one| *one.id() == recovery.plan.point);
        Ok((from.copied().unwrap_or(point).clone(), Some(recovery)))
    }

    fn record<'a>(&self, point: &'a RecoveryPoint) -> Result<&'a ComponentRecord> {
        let found = point.manifest().components.iter().find(|record| record.id.as_str() == self.component);
        found.ok_or_else(|| no_component(&self.component))
    }

    /// Restores and starts; gives the way in.
    async fn open(
        &self,
        sandbox: &dyn Sandbox,
        point: &RecoveryPoint,
        record: &ComponentRecord,
        recovery: Option<Recovery>,
        repository: &Arc<Repo>,
        context: &RunContext,
    ) -> Result<String> {
        let opened = sandbox.open(record, context).await?;
        let request = RestoreRequest {
            point: point.id().clone(),
            target: opened.target,
            select: Vec::new(),
            overwrite: false,
            jobs: JOBS,
            server: None,
            recovery,
        };
        let item = RestoreItem { component: opened.component, request };
        let plan = RestorePlan::new(point.id().clone(), vec![item], None)?;
        let summary = restore(plan, Arc::clone(repository) as _, Arc::new(ProcessHooks), context).await?;
        context.cancel.check()?;
        let failed = |why: String| {
            Fault::new(codes::DRILL_FAILED, format!("restore `{}` into the sandbox", record.id))
                .because(why)
                .hint("rekindle drill says more; try an older point")
        };
        let Some(item) = summary.items.into_iter().next() else { return Err(failed("there is no report".to_owned())) };
        if let Some(problem) = item.problem {
            return Err(failed(problem.message));
        }
        if let Some(bad) = item.findings.iter().find(|finding| finding.level == Level::Bad) {
            return Err(failed(bad.text.clone()));
        }
        let report = item.report.ok_or_else(|| failed("there is no report".to_owned()))?;
        sandbox.start(record, &report, context).await?;
        let way_in = sandbox.way_in(&report, context).await?;
        way_in.ok_or_else(|| failed("there is no way into it".to_owned()))
    }

    /// Prints the way in, and waits for the end.
    fn keep(&self, session: &Session, point: &RecoveryPoint, of: jiff::Timestamp, way_in: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let said = if session.global.json {
            // The one object of the answer comes at the end; the way in is needed now.
            writeln!(std::io::stderr().lock(), "{way_in}")
        } else {
            writeln!(
                out,
                "`{}` as of {} (point {}), read-only:\n{way_in}\nCtrl-C ends it.",
                self.component,
                human::time(of),
                point.id().short()
            )
            .and_then(|()| out.flush())
        };
        crate::output::closed_is_fine(said)?;
        drop(out);
        let longest = self.for_.and_then(|length| Duration::try_from(length).ok());
        let since = Instant::now();
        while !session.cancel.is_cancelled() && longest.is_none_or(|longest| since.elapsed() < longest) {
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

fn no_component(name: &str) -> Fault {
    Fault::new(codes::ENGINE_NO_COMPONENT, format!("find the component `{}`", name.escape_debug()))
        .hint("`rekindle show POINT` lists them")
}
