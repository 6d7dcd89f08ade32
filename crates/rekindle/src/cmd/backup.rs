//! `backup`

use std::fmt::Write as _;
use std::fs::File;
use std::sync::Arc;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::mark::Marks;
use rekindle_core::port::Monitor;
use rekindle_core::{Class, Fault, Result, codes};
use rekindle_engine::report::{BackupReport, ComponentReport, Problem};
use rekindle_engine::{BackupOptions, BackupPlan, backup};
use rekindle_repo::{Repo, marks};

use super::locked;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire::attached;
use crate::wire::components::{self, Wishes};
use crate::{group, human, wire};

/// Save the stack into one recovery point
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// Components or groups to save (`database`, `redis`, `app`, `config`, `monitoring`, or of `[group]`); `full` or none: all
    #[arg(value_name = "full|COMPONENT|GROUP")]
    components: Vec<String>,
    /// Show the plan, capture nothing
    #[arg(long)]
    dry_run: bool,
    /// Read every file, also those that look unchanged
    #[arg(long)]
    force: bool,
    /// Word for this point; `keep-tags` in [retention] keeps points by it
    #[arg(long, value_name = "WORD", value_parser = tag)]
    tag: Vec<String>,
}

/// A word that can stand in a list.
fn tag(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > TAG_BYTES_MAX || !text.chars().all(good) {
        return Err(format!("use 1 to {TAG_BYTES_MAX} letters, digits, `.`, `-` and `_`"));
    }
    Ok(text.to_owned())
}

/// Longest word for a point.
const TAG_BYTES_MAX: usize = 63;

impl Backup {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let repository = if self.dry_run { None } else { Some(Opened::new(session, &config)?) };
        let wal = repository.as_ref().map(|opened| wire::logs(&opened.repository)).unwrap_or_default();
        let wishes = Wishes { read_all: self.force, wal, ..Wishes::default() };
        let known: Vec<_> = config.components.iter().map(|one| (one.id.clone(), one.kind())).collect();
        let plan = BackupPlan::new(
            config.stack.name.clone(),
            wire::host(&config),
            wire::hooks(&config.hooks),
            components::all(&config, &wishes)?,
            &group::wanted(&self.components, &known, Some(&config))?,
        )?;
        let Some(Opened { repository, alone: _alone }) = repository else {
            return Ok(plan_answer(&plan));
        };
        let options = BackupOptions {
            read_all: self.force,
            max_skew: config.stack.max_skew,
            tripwire: Some(attached::tripwire(&config, marks_or_none(session, &repository)?)),
            attachments: attached::attachments(session, &config)?,
            tags: self.tag.clone(),
        };
        let (context, _scratch) = session.context()?;
        let kept = Arc::clone(&repository);
        let work = backup(plan, repository, wire::containers::hook_runner(Some(&config)), &options, &context);
        let report = session.runtime.block_on(work)?;
        Ok(locked::extend(answer(&report), session, &kept))
    }
}

/// The marks of people. Damaged ones do not keep data from being saved: nothing counts as accepted.
fn marks_or_none(session: &Session, repository: &Repo) -> Result<Marks> {
    marks::read(repository).or_else(|fault| {
        if fault.class() != Class::Damaged {
            return Err(fault);
        }
        session.progress.problem("repository", &fault);
        Ok(Marks::default())
    })
}

/// The repository of a run that is the only one of its stack on this host.
struct Opened {
    repository: Arc<Repo>,
    alone: Option<File>,
}

impl Opened {
    fn new(session: &Session, config: &Config) -> Result<Self, Faults> {
        let alone = wire::alone::alone(config)?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, config, given.as_ref())?;
        Ok(Self { repository: Arc::new(wire::open(session, &place)?), alone })
    }
}

fn plan_answer(plan: &BackupPlan) -> Answer {
    let view = plan.view();
    let rows: Vec<Vec<String>> = view
        .steps
        .iter()
        .map(|step| {
            vec![step.stage.to_string(), step.component.to_string(), step.kind.to_string(), step.hooks.to_string()]
        })
        .collect();
    let text = format!(
        "would save the stack `{}` of {} into one point:\n\n{}\nComponents of one stage run at the same time. Nothing was captured.\n",
        view.stack,
        view.host,
        human::table(&["STAGE", "COMPONENT", "KIND", "HOOKS"], &rows)
    );
    Answer::data(view, text)
}

fn answer(report: &BackupReport) -> Answer {
    let rows: Vec<Vec<String>> = report.components.iter().map(row).collect();
    let table = human::table(&["COMPONENT", "KIND", "STATE", "ENTRIES", "SIZE", "UNCHANGED", "NEW", "TIME"], &rows);
    let elapsed = report.finished.duration_since(report.started).as_millis();
    let mut text = format!(
        "point {} of `{}`: {}, {} until a restore proves it; {}, skew {}\n\n{table}",
        report.point.short(),
        report.stack,
        report.state.as_str(),
        report.trust,
        human::millis(u64::try_from(elapsed).unwrap_or(0)),
        human::millis(report.skew_ms),
    );
    if report.skew_exceeded {
        text.push_str("\nThe skew is over the configured `max-skew`.\n");
    }
    if !report.suspicions.is_empty() {
        let short = report.point.short();
        text.push_str("\nSUSPICIOUS: this capture differs sharply from the ones before it:\n");
        for one in &report.suspicions {
            let _ = writeln!(text, "  {}: {}", one.component, one.text);
        }
        let _ =
            writeln!(text, "Nothing older is forgotten until `rekindle point accept {short}`. See `rekindle diff`.");
    }
    for component in &report.components {
        for (class, count) in &component.notes.counts {
            let _ = writeln!(text, "{}: {count} {}", component.component, class.as_str());
        }
    }
    let problems = report.components.iter().filter_map(|one| Some((one.component.as_str(), one.problem.as_ref()?)));
    let others = report.problems.iter().map(|problem| ("run", problem));
    for (scope, problem) in problems.chain(others) {
        text.push_str(&problem_text(scope, problem));
    }
    let exit = report.exit_code();
    let answer = Answer::words(report, text).exit(exit);
    match exit {
        3 => answer.with_fault(partial(report)),
        _ => answer,
    }
}

fn partial(report: &BackupReport) -> Fault {
    let missing: Vec<&str> =
        report.components.iter().filter(|one| one.state == "missing").map(|one| one.component.as_str()).collect();
    let why = if missing.is_empty() {
        "files could not be read".to_owned()
    } else {
        format!("missing: {}", missing.join(", "))
    };
    Fault::new(codes::ENGINE_PARTIAL, format!("save all of the stack in point {}", report.point.short()))
        .because(why)
        .hint(format!("rekindle show {}", report.point.short()))
}

/// An error inside a report, as text.
pub(super) fn problem_text(scope: &str, problem: &Problem) -> String {
    let hint = problem.hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
    format!("\n{scope}: error[{}]: {}\n{hint}", problem.code, problem.message)
}

fn row(one: &ComponentReport) -> Vec<String> {
    vec![
        one.component.to_string(),
        one.kind.to_string(),
        one.state.to_owned(),
        one.entries.to_string(),
        human::bytes(one.bytes),
        human::bytes(one.unchanged_bytes),
        human::bytes(one.stored_bytes),
        human::millis(one.elapsed_ms),
    ]
}
