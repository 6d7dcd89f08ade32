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
use rekindle_core::port::Level;
use rekindle_core::proof_record::{ComponentProof, DrillResult, Outcome, PROOF_VERSION, ProofRecord, Work, forecast};
use rekindle_core::{ComponentId, Fault, PointId, Result, codes};
use rekindle_engine::drill::{DrillItem, DrillPlan, drill, exit_code, faults};
use rekindle_engine::plan::stage;
use rekindle_repo::{Repo, points, proofs};
use rekindle_sources::hook::ProcessHooks;
use rekindle_sources::sandbox::{Cleaned, clean, lower_priority};
use serde_json::json;

use crate::evidence::Evidence;
use crate::moment::{Moment, held_at};
use crate::output::Answer;
use crate::proof_report;
use crate::session::{Faults, Session};
use crate::wire::sandbox;
use crate::{group, human, wire};

/// Workers of pg_restore.
const JOBS: usize = 2;

/// Prove a recovery point: restore it into sandboxes, start the real engines, check, measure, record
///
/// Nothing of the live stack is touched. The result is recorded in the repository, signed; a passed drill makes the
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
    /// The newest state that is not later than this moment, as `2026-01-31T12:00:00Z` or `2h ago`
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
    components: Vec<ComponentId>,
}

impl Drill {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::optional_config(session)?;
        let cleaned = clean(&sandbox::base(config.as_ref()))?;
        if self.clean {
            return Ok(Answer::words(json!({"cleaned": cleaned}), cleaned_text(&cleaned)));
        }
        let repository = Arc::new(wire::open(session, &wire::place(session)?)?);
        let groups = self.groups(&repository, config.as_ref())?;
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
        let Group { point, components } = group;
        let same = config.filter(|config| config.stack.name == point.manifest().stack);
        let mut items = Vec::new();
        for record in in_order(&point, &components) {
            let configured = same.and_then(|config| config.components.iter().find(|one| one.id == record.id));
            items.push(DrillItem {
                sandbox: sandbox::of_record(record, configured, &site, &programs)?,
                objective: configured.map(|one| one.objective).unwrap_or_default(),
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
    fn groups(&self, repository: &Repo, config: Option<&Config>) -> Result<Vec<Group>> {
        let view = points::view(repository)?;
        if let Some(word) = &self.point {
            let point = points::resolve(&view, word)?.clone();
            let known: Vec<_> = point.manifest().components.iter().map(|one| (one.id.clone(), one.kind)).collect();
            let wanted = group::wanted(&self.components, &known, config)?;
            let components = if wanted.is_empty() { known.into_iter().map(|(id, _)| id).collect() } else { wanted };
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
        for id in ids {
            let found = held_at(&mine, &id, self.at.map(|at| at.of(jiff::Timestamp::now())));
            let Some(point) = found else {
                let what = format!("find a point of `{stack}` that holds `{id}`");
                return Err(Fault::new(codes::REPO_NO_POINT, what)
                    .hint("rekindle backup; or name the components that there are points of"));
            };
            let key = (point.time(), point.id().clone());
            let group = groups.entry(key).or_insert_with(|| Group { point: point.clone(), components: Vec::new() });
            group.components.push(id);
        }
        Ok(groups.into_values().collect())
    }
}

/// The records of the chosen components, in the order of a restore.
fn in_order<'a>(point: &'a RecoveryPoint, components: &[ComponentId]) -> Vec<&'a ComponentRecord> {
    let all = point.manifest().components.iter();
    let mut chosen: Vec<&ComponentRecord> = all.filter(|record| components.contains(&record.id)).collect();
    chosen.sort_by_key(|record| stage(record.kind));
    chosen
}

fn announce(session: &Session, group: &Group, evidence: &Evidence) {
    let manifest = group.point.manifest();
    for record in in_order(&group.point, &group.components) {
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
