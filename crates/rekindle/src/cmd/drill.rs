//! `drill`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::objective::Verdict;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Level, RunContext};
use rekindle_core::proof_record::{ComponentProof, DrillResult, Outcome, PROOF_VERSION, ProofRecord, Work, forecast};
use rekindle_core::{ComponentId, Fault, PointId, Result, codes};
use rekindle_engine::drill::{DrillItem, DrillPlan, Way, drill, exit_code, faults};
use rekindle_engine::plan::stage;
use rekindle_repo::{Repo, points, proofs};
use rekindle_sources::hook::ProcessHooks;
use rekindle_sources::sandbox::{Cleaned, clean, lower_priority};
use serde_json::json;

use crate::evidence::Evidence;
use crate::moment::{Moment, held_at};
use crate::output::Answer;
use crate::proof_report;
use crate::replay::{self, Until};
use crate::session::{Faults, Session};
use crate::wire::{components, sandbox};
use crate::{group, human, wire};

/// Workers of pg_restore.
const JOBS: usize = 2;

/// Prove a recovery point: restore it into sandboxes, start the real engines, check, measure, record
///
/// Nothing of the live stack is touched. A base backup of PostgreSQL is brought to the end of its log, with --at to
/// exactly that moment. The result is recorded in the repository, signed; a passed drill makes the
/// point `proved`. What cannot be looked at here is `unproved`, never `passed`.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// Components or groups; `full` or none: all of the newest point of each
    #[arg(value_name = "full|COMPONENT|GROUP", conflicts_with = "all")]
    components: Vec<String>,
    /// All components (the default)
    #[arg(long)]
    all: bool,
    /// Beginning of the point's id, or `latest` [default: for each component the newest point that holds it]
    #[arg(long, value_name = "POINT", conflicts_with = "at")]
    point: Option<String>,
    /// The state of this moment, as `2026-01-31T12:00:00Z` or `2h ago`: base backups exactly, others the newest that is
    /// not later
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// Hard limit, instead of the configured one
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Also write the report as a page for people and auditors
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only clear away what killed drills left behind
    #[arg(long, conflicts_with_all = ["components", "all", "point", "at", "html"])]
    clean: bool,
}

/// One point with the components of it that are drilled.
struct Group {
    point: RecoveryPoint,
    components: Vec<(ComponentId, Way)>,
}

impl Group {
    /// The records of its components, in the order of a restore.
    fn records(&self) -> Vec<&ComponentRecord> {
        let wanted = |record: &&ComponentRecord| self.components.iter().any(|(id, _)| *id == record.id);
        let mut chosen: Vec<&ComponentRecord> = self.point.manifest().components.iter().filter(wanted).collect();
        chosen.sort_by_key(|record| stage(record.kind));
        chosen
    }
}

impl Drill {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::optional_config(session)?;
        let cleaned = clean(&sandbox::base(config.as_ref()))?;
        if self.clean {
            return Ok(Answer::words(json!({"cleaned": cleaned}), cleaned_text(&cleaned)));
        }
        let repository = Arc::new(wire::open(session, &wire::place(session)?)?);
        let groups = self.groups(session, &repository, config.as_ref())?;
        lower_priority();
        let evidence = Evidence::read(&repository)?;
        let mut text = if cleaned.is_empty() { String::new() } else { cleaned_text(&cleaned) };
        let (mut records, mut problems, mut exit) = (Vec::new(), Vec::new(), 0);
        for group in groups {
            announce(session, &group, &evidence);
            let record = self.one(session, config.as_ref(), &repository, group)?;
            if let Work::Drill(result) = &record.work {
                text.push_str(&result_text(result, record.sequence));
                exit = exit.max(exit_code(result));
                problems.extend(faults(result));
            }
            records.push(record);
        }
        if let Some(file) = &self.html {
            proof_report::write(file, &proof_report::page(&records))?;
        }
        let answer = Answer::data(json!({"cleaned": cleaned, "drills": records}), text).exit(exit);
        Ok(problems.into_iter().fold(answer, Answer::with_fault))
    }

    /// Drills one point and records the result.
    fn one(
        &self,
        session: &Session,
        config: Option<&Config>,
        repository: &Arc<Repo>,
        group: Group,
    ) -> Result<ProofRecord> {
        let (context, _scratch) = session.context()?;
        let started = session.now();
        let site = sandbox::site(config)?;
        let programs = config.map(|config| config.drill.programs.clone()).unwrap_or_default();
        let same = config.filter(|config| config.stack.name == group.point.manifest().stack);
        let records: Vec<ComponentRecord> = group.records().into_iter().cloned().collect();
        let Group { point, mut components } = group;
        let mut items = Vec::new();
        for record in &records {
            let way = components.iter().position(|(id, _)| *id == record.id);
            let way = way.map_or(Way::Captured, |at| components.swap_remove(at).1);
            let configured = same.and_then(|config| config.components.iter().find(|one| one.id == record.id));
            items.push(DrillItem {
                sandbox: sandbox::of_record(record, configured, &site, &programs)?,
                objective: configured.map(|one| one.objective).unwrap_or_default(),
                way,
            });
        }
        let limit = self.timeout.map(std::time::Duration::from_secs);
        let plan = DrillPlan {
            point,
            items,
            timeout: limit.unwrap_or_else(|| sandbox::timeout(config)),
            jobs: JOBS,
            guarantees: site.guarantees(),
        };
        let work = drill(plan, Arc::clone(repository) as _, Arc::new(ProcessHooks), &context);
        let result = session.runtime.block_on(Box::pin(work))?;
        drop(site);
        let record = ProofRecord {
            version: PROOF_VERSION,
            sequence: 0,
            previous: None,
            started,
            finished: session.now(),
            outcome: Outcome::worst(result.components.iter().map(|one| one.outcome)),
            user: wire::user_name(),
            host: config.map_or_else(wire::host_name, wire::host),
            run: context.run.as_str().to_owned(),
            tool: concat!("rekindle ", env!("CARGO_PKG_VERSION")).to_owned(),
            work: Work::Drill(result),
        };
        // A result that is not recorded proves nothing: this is an error of the drill.
        Ok(proofs::append(repository, &record)?.record)
    }

    /// Which components of which points.
    fn groups(&self, session: &Session, repository: &Repo, config: Option<&Config>) -> Result<Vec<Group>> {
        let view = points::view(repository)?;
        let (context, _scratch) = session.context()?;
        if let Some(word) = &self.point {
            let point = points::resolve(&view, word)?.clone();
            let known: Vec<_> = point.manifest().components.iter().map(|one| (one.id.clone(), one.kind)).collect();
            let wanted = group::wanted(&self.components, &known, config)?;
            let ids = if wanted.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { wanted };
            let one = |id: ComponentId| {
                let (_, way) = way(repository, &[&point], &point, &id, None, &context)?;
                Ok((id, way))
            };
            let components = ids.into_iter().map(one).collect::<Result<_>>()?;
            return Ok(vec![Group { point, components }]);
        }
        let stack = match config {
            Some(config) => config.stack.name.clone(),
            None => points::resolve(&view, "latest")?.manifest().stack.clone(),
        };
        let mine: Vec<&RecoveryPoint> = view.points.iter().filter(|point| point.manifest().stack == stack).collect();
        let mut known = Vec::new();
        let configured =
            config.into_iter().flat_map(|config| &config.components).map(|one| (one.id.clone(), one.kind()));
        let stored = mine.iter().flat_map(|point| &point.manifest().components).map(|one| (one.id.clone(), one.kind));
        // Configured ones come first; without a configuration the points say what there is.
        for one in configured.chain(stored.filter(|_| config.is_none())) {
            if !known.iter().any(|(id, _)| *id == one.0) {
                known.push(one);
            }
        }
        let wanted = group::wanted(&self.components, &known, config)?;
        let ids = if wanted.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { wanted };
        let mut groups: BTreeMap<(jiff::Timestamp, PointId), Group> = BTreeMap::new();
        let at = self.at.map(|at| at.of(session.now()));
        for id in ids {
            let found = held_at(&mine, &id, at);
            let Some(newest) = found else {
                let what = format!("find a point of `{stack}` that holds `{id}`");
                return Err(Fault::new(codes::REPO_NO_POINT, what)
                    .hint("rekindle backup; or name the components that there are points of"));
            };
            let (point, way) = way(repository, &mine, newest, &id, at, &context)?;
            let key = (point.time(), point.id().clone());
            let group = groups.entry(key).or_insert_with(|| Group { point: point.clone(), components: Vec::new() });
            group.components.push((id, way));
        }
        Ok(groups.into_values().collect())
    }
}

/// From which point a component comes, and how far it is brought. `newest` is the point that holds it in time; a base
/// backup is brought to `at` from whichever of the points leads there, or from `newest` to the end of the log.
fn way<'a>(
    repository: &Repo,
    points: &[&'a RecoveryPoint],
    newest: &'a RecoveryPoint,
    id: &ComponentId,
    at: Option<jiff::Timestamp>,
    context: &RunContext,
) -> Result<(&'a RecoveryPoint, Way)> {
    if !newest.manifest().component(id).is_some_and(components::is_base) {
        return Ok((newest, Way::Captured));
    }
    let found = match at {
        Some(at) => replay::way(repository, points, id, Until::Moment(at), context),
        None => replay::way(repository, &[newest], id, Until::Newest, context),
    };
    context.cancel.check()?;
    Ok(match found {
        Ok(recovery) => {
            let from = points.iter().find(|point| *point.id() == recovery.plan.point);
            (from.copied().unwrap_or(newest), Way::Replayed(Box::new(recovery)))
        }
        // WAL that is missing, or a log that cannot be read: this is what the drill is for.
        Err(fault) => (newest, Way::Blocked(fault)),
    })
}

fn announce(session: &Session, group: &Group, evidence: &Evidence) {
    let manifest = group.point.manifest();
    for record in group.records() {
        let expected = forecast(&evidence.records, &manifest.stack, &record.id, record.tally.bytes);
        let text = match expected {
            Some(expected) => {
                format!(
                    "restore expected to take {} ({} measured)",
                    human::seconds(expected.seconds),
                    expected.measured
                )
            }
            None => "no restore was measured yet".to_owned(),
        };
        let monitor: &dyn rekindle_core::port::Monitor = &*session.progress;
        monitor.phase(record.id.as_str(), &format!("drill of point {}: {text}", group.point.id().short()));
    }
}

fn cleaned_text(cleaned: &[Cleaned]) -> String {
    if cleaned.is_empty() {
        return "nothing was left behind\n".to_owned();
    }
    cleaned.iter().fold(String::new(), |mut text, one| {
        let _ = writeln!(text, "cleared away: {} ({} processes)", one.directory.display(), one.processes);
        text
    })
}

/// A drill for people.
pub(crate) fn result_text(result: &DrillResult, sequence: u64) -> String {
    let mut text = format!("proof {sequence}: drill of point {} of `{}`\n", result.point.short(), result.stack);
    for one in &result.components {
        component_text(one, &mut text);
    }
    text.push_str("\nguaranteed:\n");
    for guarantee in &result.guarantees {
        let _ = writeln!(text, "  {guarantee}");
    }
    text
}

// Writing into a `String` cannot fail.
fn component_text(one: &ComponentProof, text: &mut String) {
    let engine = one.engine.as_deref().map_or_else(String::new, |engine| format!(", {engine}"));
    let _ = writeln!(
        text,
        "\n{} ({}{engine}): {}, {}",
        one.component,
        one.kind,
        one.outcome.as_str().to_uppercase(),
        human::millis(one.elapsed_ms)
    );
    if let Some(to) = one.recovered_to {
        let _ = writeln!(text, "  brought to {} by replaying the log", human::time(to));
    }
    let restored =
        one.restore_ms.map_or_else(|| "not restored".to_owned(), |ms| format!("restored in {}", human::millis(ms)));
    let _ = writeln!(
        text,
        "  {restored} (RTO {}), {} entries, {}, data {} old at the start (RPO {})",
        verdict(&one.rto, one.objective.rto_seconds),
        one.entries,
        human::bytes(one.bytes),
        human::seconds(one.age_seconds),
        verdict(&one.rpo, one.objective.rpo_seconds),
    );
    let steps: Vec<String> =
        one.steps.iter().map(|step| format!("{} {}", step.name, human::millis(step.elapsed_ms))).collect();
    let _ = writeln!(text, "  steps: {}", steps.join(", "));
    for finding in &one.findings {
        let mark = match finding.level {
            Level::Good => "checked",
            Level::Warning => "warning",
            Level::Unproved => "UNPROVED",
            Level::Bad => "BAD",
        };
        let _ = writeln!(text, "  {mark}: {}", finding.text);
    }
    if let Some(problem) = &one.problem {
        let _ = writeln!(text, "  [{}] {}", problem.code, problem.message);
    }
}

fn verdict(verdict: &Verdict, target: Option<u64>) -> String {
    match target {
        None => "without objective".to_owned(),
        Some(target) => format!("{}, objective {}", verdict.as_str(), human::seconds(target)),
    }
}
