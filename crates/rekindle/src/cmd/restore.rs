//! `restore`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rekindle_config::{Config, SecretRef};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Component, Level, Monitor, RestoreRequest, Target};
use rekindle_core::proof_record::{Forecast, forecast};
use rekindle_core::timeline::{RecoveryTarget, Stop};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};
use rekindle_engine::around::ServicesReport;
use rekindle_engine::report::Problem;
use rekindle_engine::restore::{ItemReport, RestoreItem, RestorePlan, RestoreSummary, restore};
use rekindle_engine::{BackupPlan, HookSet};
use rekindle_repo::{Repo, proofs};

use super::foreign;
use super::recovery::{self, RecoveryArgs};
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::components::{self, Logs, Server, Wishes};
use crate::{group, human, wire};

/// Workers of pg_restore when nothing is said: one per core of a small host.
const JOBS: usize = 2;

/// Bring components of a recovery point back and check them
///
/// Without --in-place or --live everything goes to a new place: a new directory, a new database. In place, a safety
/// point is taken first and the old state is kept. Needs no configuration with --repo and a password.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Restore {
    /// Beginning of the point's id, or `latest`; left out when a moment is given
    point: String,
    /// Components or groups to restore; `full` or none: all of the point
    #[arg(value_name = "full|COMPONENT|GROUP")]
    components: Vec<String>,
    /// New place: a directory, or a database name; with several components, a directory for files and Redis
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["in_place", "live"])]
    to: Option<PathBuf>,
    /// Restore to the configured place; the old state is kept beside it
    #[arg(long, conflicts_with = "live")]
    in_place: bool,
    /// Remove the old state once the new one is checked
    #[arg(long, requires = "in_place")]
    discard_old: bool,
    /// Take no safety point before a restore in place
    #[arg(long, requires = "in_place")]
    no_safety_point: bool,
    /// Restore key by key into a running server (Redis)
    #[arg(long)]
    live: bool,
    /// Only this path, or this database; may be given several times
    #[arg(long, value_name = "NAME")]
    select: Vec<String>,
    /// Go on although the target holds data
    #[arg(long)]
    overwrite: bool,
    /// Parallel workers of pg_restore
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=64))]
    jobs: usize,
    /// Other server than the configured one, for the components of its kind; without a password
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the password for --server
    #[arg(long, value_name = "FILE", requires = "server")]
    server_password_file: Option<PathBuf>,
    /// Show the plan, restore nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    recovery: RecoveryArgs,
}

impl Restore {
    /// Whether it does more than to plan.
    pub(crate) fn takes_data(&self) -> bool {
        !self.dry_run
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let target = self.recovery.target()?;
        let config = wire::optional_config(session)?;
        let repository = Arc::new(wire::open(session, &wire::place(session)?)?);
        if let Some(target) = target {
            return self.recover(session, &repository, config.as_ref(), &target);
        }
        let point = match wire::point(&repository, &self.point) {
            Err(fault) if fault.is(codes::REPO_NO_POINT) && !self.dry_run => {
                let Some(snapshot) = foreign::find(&repository, &self.point)? else { return Err(fault.into()) };
                let (context, _scratch) = session.context()?;
                return foreign::restore(&repository, &snapshot, self.to.as_ref(), &context).map_err(Faults::from);
            }
            Err(fault) if fault.is(codes::REPO_MANIFEST) && !self.dry_run => {
                let Some(snapshot) = foreign::damaged(&repository, &self.point)? else { return Err(fault.into()) };
                let (context, _scratch) = session.context()?;
                return foreign::restore(&repository, &snapshot, self.to.as_ref(), &context).map_err(Faults::from);
            }
            found => found?,
        };
        let plan = self.plan(session, &repository, &point, config.as_ref())?;
        if self.dry_run {
            let view = plan.view(&*repository)?;
            let forecasts = forecasts(&repository, &point);
            let rows: Vec<Vec<String>> = view.items.iter().map(|item| plan_row(item, &forecasts)).collect();
            let safety = if view.safety_point { "A safety point is taken first. " } else { "" };
            let text = format!(
                "would restore point {}:\n\n{}\n{safety}Nothing was restored.\n",
                view.point.short(),
                human::table(&["COMPONENT", "KIND", "TARGET", "ENTRIES", "SIZE", "CAPTURED", "EXPECTED"], &rows)
            );
            let mut result = serde_json::to_value(&view).unwrap_or(serde_json::Value::Null);
            for (n, item) in view.items.iter().enumerate() {
                if let Some(one) = result.pointer_mut(&format!("/items/{n}")) {
                    one["forecast"] = serde_json::json!(forecasts.get(&item.component));
                }
            }
            return Ok(Answer::data(result, text));
        }
        for (id, expected) in forecasts(&repository, &point) {
            if plan.items.iter().any(|item| *item.component.id() == id) {
                let text = format!("expected to take {}", human::seconds(expected.seconds));
                session.progress.phase(id.as_str(), &text);
            }
        }
        // What is replaced must not be saved half at the same time; the safety point is a run as well.
        let _alone = match config.as_ref().filter(|_| self.in_place) {
            Some(config) => wire::alone::alone(config)?,
            None => None,
        };
        let (context, _scratch) = session.context()?;
        let work = restore(plan, repository, wire::containers::hook_runner(config.as_ref()), &context);
        let summary = session.runtime.block_on(work)?;
        let answer = answer(&summary);
        let absent = self.absent(&point, config.as_ref())?;
        if absent.is_empty() {
            return Ok(answer);
        }
        let exit = if summary.exit_code() == 0 { codes::ENGINE_PARTIAL.class.exit_code() } else { summary.exit_code() };
        let what = format!("restore the whole stack: point {} does not hold {}", point.id().short(), absent.join(", "));
        let fault = Fault::new(codes::ENGINE_PARTIAL, what)
            .hint("`rekindle list` shows the points; restore these components from the newest one that holds them");
        Ok(answer.exit(exit).with_fault(fault))
    }

    /// What a restore of everything does not bring back: components that the point's run missed, and
    /// configured ones that it was not asked for. Nothing when components are named.
    fn absent(&self, point: &RecoveryPoint, config: Option<&Config>) -> Result<Vec<String>> {
        if !self.wanted(point, config)?.is_empty() {
            return Ok(Vec::new());
        }
        let manifest = point.manifest();
        let mut ids: Vec<&ComponentId> = manifest.missing.iter().map(|missing| &missing.id).collect();
        let same = config.filter(|config| config.stack.name == manifest.stack);
        ids.extend(same.into_iter().flat_map(|config| &config.components).map(|component| &component.id));
        ids.retain(|id| manifest.component(id).is_none());
        ids.sort();
        ids.dedup();
        Ok(ids.into_iter().map(|id| format!("`{id}`")).collect())
    }

    /// `restore [POINT] DATABASE --at …`
    fn recover(
        &self,
        session: &Session,
        repository: &Arc<Repo>,
        config: Option<&Config>,
        target: &RecoveryTarget,
    ) -> Result<Answer, Faults> {
        let words: Vec<&str> =
            std::iter::once(self.point.as_str()).chain(self.components.iter().map(String::as_str)).collect();
        let found = recovery::Found::words(&words, repository, config)?;
        let resolved = self.recovery.resolve(session, repository, &found, target)?;
        if self.dry_run {
            return Ok(recovery::answer(&resolved));
        }
        let id = &found.component;
        let from = found.points.iter().find(|point| *point.id() == resolved.plan.point);
        let Some((point, record)) = from.and_then(|point| Some((point, point.manifest().component(id)?))) else {
            return Err(Fault::new(codes::RUN_BUG, "find the point of the plan").into());
        };
        if let Some(expected) = forecasts(repository, point).get(id) {
            let text = format!("expected to take {}", human::seconds(expected.seconds));
            session.progress.phase(id.as_str(), &text);
        }
        let component = self.component(record, config, &Wishes::default())?;
        let request = RestoreRequest {
            point: point.id().clone(),
            target: self.target(record, 1)?,
            select: self.select.clone(),
            overwrite: self.overwrite,
            jobs: self.jobs,
            server: None,
            recovery: Some(resolved),
        };
        let plan = RestorePlan::new(point.id().clone(), vec![RestoreItem { component, request }], None)?;
        // What is replaced must not be saved half at the same time; the safety point is a run as well.
        let _alone = match config.as_ref().filter(|_| self.in_place) {
            Some(config) => wire::alone::alone(config)?,
            None => None,
        };
        let (context, _scratch) = session.context()?;
        let work = restore(plan, Arc::clone(repository) as _, wire::containers::hook_runner(config), &context);
        Ok(answer(&session.runtime.block_on(work)?))
    }

    fn plan(
        &self,
        session: &Session,
        repository: &Repo,
        point: &RecoveryPoint,
        config: Option<&Config>,
    ) -> Result<RestorePlan> {
        let records = self.records(point, config)?;
        let server = self
            .server
            .clone()
            .map(|url| Server { url, password: self.server_password_file.as_deref().map(SecretRef::file) });
        if let Some(server) = server.as_ref().filter(|server| !records.iter().any(|one| server.fits(one.kind))) {
            let scheme = server.url.split("://").next().unwrap_or_default();
            let what = format!("restore to a `{}` server: no chosen component fits it", scheme.escape_debug());
            return Err(Fault::new(codes::CLI_USAGE, what)
                .hint("give a URL such as postgres://… or redis://…, and choose the component"));
        }
        let wishes = Wishes { server, wal: wire::logs(repository), ..Wishes::default() };
        let mut items = Vec::new();
        for record in &records {
            let component = self.component(record, config, &wishes)?;
            let recovery = if components::is_base(record) {
                // The log is needed where the base backup itself does not hold all that it takes.
                let found = recovery::Found { component: record.id.clone(), points: vec![point.clone()], only: None };
                let target = RecoveryTarget::new(Stop::Immediate);
                Some(self.recovery.resolve(session, repository, &found, &target)?)
            } else {
                None
            };
            let request = RestoreRequest {
                point: point.id().clone(),
                target: self.target(record, records.len())?,
                select: self.select.clone(),
                overwrite: self.overwrite,
                jobs: self.jobs,
                server: None,
                recovery,
            };
            items.push(RestoreItem { component, request });
        }
        let plan = RestorePlan::new(point.id().clone(), items, self.safety(config, &records, wishes.wal)?)?;
        let Some(config) = config.filter(|_| self.in_place) else { return Ok(plan) };
        let ids: Vec<ComponentId> = records.iter().map(|record| record.id.clone()).collect();
        match wire::containers::services(config, &ids, false)? {
            Some(services) => plan.with_services(services),
            None => Ok(plan),
        }
    }

    /// The named components. Groups hold what the point has, what it missed, and what is configured, so
    /// that a member that the point lacks is an error and not left out.
    fn wanted(&self, point: &RecoveryPoint, config: Option<&Config>) -> Result<Vec<ComponentId>> {
        let manifest = point.manifest();
        let mut known: Vec<_> = manifest.components.iter().map(|one| (one.id.clone(), one.kind)).collect();
        known.extend(manifest.missing.iter().map(|one| (one.id.clone(), one.kind)));
        let same = config.filter(|config| config.stack.name == manifest.stack);
        let configured = same.into_iter().flat_map(|config| &config.components).map(|one| (one.id.clone(), one.kind()));
        for one in configured {
            if !known.iter().any(|(id, _)| *id == one.0) {
                known.push(one);
            }
        }
        group::wanted(&self.components, &known, config)
    }

    /// The chosen components of the point.
    fn records<'a>(&self, point: &'a RecoveryPoint, config: Option<&Config>) -> Result<Vec<&'a ComponentRecord>> {
        let manifest = point.manifest();
        let ids = self.wanted(point, config)?;
        if ids.is_empty() {
            return Ok(manifest.components.iter().collect());
        }
        let find = |id: &ComponentId| {
            manifest.component(id).ok_or_else(|| {
                let names: Vec<&str> = manifest.components.iter().map(|one| one.id.as_str()).collect();
                let what = format!("find `{id}` in point {}", point.id().short());
                Fault::new(codes::ENGINE_NO_COMPONENT, what).hint(format!("it holds: {}", names.join(", ")))
            })
        };
        ids.iter().map(find).collect()
    }

    fn component(
        &self,
        record: &ComponentRecord,
        config: Option<&Config>,
        wishes: &Wishes,
    ) -> Result<Arc<dyn Component>> {
        let configured = config.and_then(|config| config.components.iter().find(|one| one.id == record.id));
        match configured {
            one if components::is_base(record) => components::of_base(record, one),
            Some(one) if one.kind() == record.kind => {
                let stack = config.map_or("", |config| config.stack.name.as_str());
                components::of_config(one, stack, &[], wishes)
            }
            Some(one) => {
                let what = format!(
                    "restore `{}`: the point holds {}, the configuration says {}",
                    record.id,
                    record.kind,
                    one.kind()
                );
                Err(Fault::new(codes::ENGINE_TARGET, what).hint("use another configuration with --config FILE"))
            }
            None if self.in_place => {
                let what = format!("restore `{}` in place: it is not configured here", record.id);
                Err(Fault::new(codes::ENGINE_TARGET, what)
                    .hint("restore to a new place with --to PLACE, or add the component to the configuration"))
            }
            // A server that merely runs here is not the one that was meant.
            None if self.live && !wishes.server.as_ref().is_some_and(|server| server.fits(record.kind)) => {
                let what = format!("restore `{}` into a running server: it is not configured here", record.id);
                Err(Fault::new(codes::ENGINE_TARGET, what).hint("give --server redis://HOST:6379"))
            }
            None => components::of_record(record, wishes),
        }
    }

    fn target(&self, record: &ComponentRecord, count: usize) -> Result<Target> {
        if self.in_place {
            return Ok(Target::InPlace { discard_old: self.discard_old });
        }
        if self.live {
            return Ok(Target::Live);
        }
        let Some(place) = &self.to else { return Ok(Target::New(None)) };
        let named = match (count, record.kind) {
            (1, _) => place.clone(),
            // A directory says nothing about the name of a database: the usual new name.
            (_, ComponentKind::Postgres) => return Ok(Target::New(None)),
            _ => place.join(record.id.as_str()),
        };
        match named.to_str() {
            Some(text) => Ok(Target::New(Some(text.to_owned()))),
            None => Err(Fault::new(codes::CLI_USAGE, format!("restore to {}: the name is not UTF-8", named.display()))
                .hint("choose another name")),
        }
    }

    /// The backup that is taken before anything is written over.
    fn safety(&self, config: Option<&Config>, records: &[&ComponentRecord], wal: Logs) -> Result<Option<BackupPlan>> {
        let Some(config) = config.filter(|_| self.in_place && !self.no_safety_point) else {
            return Ok(None);
        };
        // The server of a base backup is stopped before a restore in place: its directory is kept instead.
        let ids: Vec<ComponentId> =
            records.iter().filter(|record| !components::is_base(record)).map(|record| record.id.clone()).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        BackupPlan::new(
            config.stack.name.clone(),
            wire::host(config),
            HookSet::default(),
            components::all(config, &Wishes { wal, ..Wishes::default() })?,
            &ids,
        )
        .map(Some)
    }
}

/// What each component of a point will probably take. Without readable proofs nothing is promised, and
/// a restore goes on without them.
fn forecasts(repository: &Repo, point: &RecoveryPoint) -> BTreeMap<ComponentId, Forecast> {
    let records = proofs::read_all(repository).unwrap_or_default();
    let manifest = point.manifest();
    let one = |record: &ComponentRecord| {
        Some((record.id.clone(), forecast(&records, &manifest.stack, &record.id, record.tally.bytes)?))
    };
    manifest.components.iter().filter_map(one).collect()
}

fn plan_row(
    item: &rekindle_engine::restore::RestoreItemView,
    forecasts: &BTreeMap<ComponentId, Forecast>,
) -> Vec<String> {
    let target = match &item.target {
        Target::New(Some(name)) => format!("new: {name}"),
        Target::New(None) => "new".to_owned(),
        Target::InPlace { discard_old: false } => "in place, old state kept".to_owned(),
        Target::InPlace { discard_old: true } => "in place, old state discarded".to_owned(),
        Target::Live => "running server".to_owned(),
    };
    vec![
        item.component.to_string(),
        item.kind.to_string(),
        target,
        item.entries.to_string(),
        human::bytes(item.bytes),
        human::time(item.captured_at),
        forecasts
            .get(&item.component)
            .map_or_else(|| "not measured yet".to_owned(), |expected| human::seconds(expected.seconds)),
    ]
}

fn answer(summary: &RestoreSummary) -> Answer {
    let mut text = format!("point {}, {}\n", summary.point.short(), human::millis(summary.elapsed_ms));
    if let Some(point) = &summary.safety_point {
        let _ = writeln!(text, "safety point {} holds the state before", point.short());
    }
    for item in &summary.items {
        text.push_str(&item_text(item));
    }
    text.push_str(&summary.services.as_ref().map(services_text).unwrap_or_default());
    let exit = summary.exit_code();
    let answer = Answer::words(summary, text).exit(exit);
    let services = summary.services.iter().flat_map(|services| services.rolled_back.iter().chain(&services.problem));
    // The engine's exit code is that of the first of them.
    services.map(of_problem).chain(summary.items.iter().filter_map(fault)).fold(answer, Answer::with_fault)
}

fn services_text(services: &ServicesReport) -> String {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut text = format!("\nservices stopped: {}\n", list(&services.stopped));
    if services.rolled_back.is_some() {
        text.push_str("ROLLED BACK: what was restored did not become healthy; the state before stands there again\n");
    }
    let _ = writeln!(text, "services started and healthy: {}", list(&services.started));
    text
}

fn of_problem(problem: &Problem) -> Fault {
    let code = codes::all().find(|code| code.id == problem.code).unwrap_or(codes::RUN_BUG);
    let fault = Fault::new(code, problem.message.clone());
    match &problem.hint {
        Some(hint) => fault.hint(hint.clone()),
        None => fault,
    }
}

/// The error of an item that is not whole; its text is the engine's.
fn fault(item: &ItemReport) -> Option<Fault> {
    let what = format!("restore `{}`", item.component);
    if let Some(problem) = &item.problem {
        // The message begins with what was being done to this component.
        return Some(of_problem(problem));
    }
    let lost = item.report.as_ref().map_or(0, |report| report.lost.len());
    match item.state {
        "incomplete" => {
            Some(Fault::new(codes::REPO_RESTORE_INCOMPLETE, what).because(format!("{lost} entries are lost")))
        }
        "wrong" => {
            Some(Fault::new(codes::ENGINE_CHECK, what).because("the findings above marked BAD say how it differs"))
        }
        _ => None,
    }
}

fn item_text(item: &ItemReport) -> String {
    let mut text =
        format!("\n{} ({}): {}, {}\n", item.component, item.kind, item.state, human::millis(item.elapsed_ms));
    if let Some(report) = &item.report {
        let _ = writeln!(text, "  {}: {} entries, {}", report.place, report.entries, human::bytes(report.bytes));
        if let Some(old) = &report.kept_old {
            let _ = writeln!(text, "  the old state is kept: {old}");
        }
        for lost in &report.lost {
            let _ = writeln!(text, "  LOST {}: {}", lost.path, lost.why);
        }
        for warning in &report.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
    }
    for finding in &item.findings {
        let mark = match finding.level {
            Level::Good => "checked",
            Level::Warning => "warning",
            Level::Unproved => "unproved",
            Level::Bad => "BAD",
        };
        let _ = writeln!(text, "  {mark}: {}", finding.text);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "    {remedy}");
        }
    }
    text
}
