//! `status`

use std::sync::Arc;

use clap::Args;
use rekindle_config::Config;
use rekindle_core::objective::{Verdict, age_seconds};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::Repository;
use rekindle_core::proof_record::Outcome;
use rekindle_core::schedule::{Rules, Task};
use rekindle_core::{Class, ComponentId, Fault, codes};
use rekindle_engine::pitr::Recoverable;
use rekindle_engine::status::{ComponentStatus, Expectation, status};
use rekindle_repo::Repo;
use rekindle_repo::wal::Archive;
use serde_json::{Value, json};

use super::{agenda, copies, messages, watch};
use crate::evidence::Evidence;
use crate::output::Answer;
use crate::session::{Faults, Session, SystemClock};
use crate::wire::components;
use crate::{human, wire};

/// Judge every component against its objectives
#[derive(Debug, Args)]
pub(crate) struct Status;

impl Status {
    #[expect(clippy::unused_self, reason = "every command is run by a method")]
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config, given.as_ref())?;
        let repository = wire::open(session, &place)?;
        let points = repository.points()?;
        let evidence = Evidence::read(&repository)?;
        let logs = logs(session, &config, &repository, &points)?;
        let expected: Vec<Expectation> = config
            .components
            .iter()
            .map(|one| Expectation {
                component: one.id.clone(),
                kind: one.kind(),
                objective: one.objective,
                recoverable_until: logs.iter().find(|log| log.component == one.id).and_then(|log| log.to),
            })
            .collect();
        let host = wire::host(&config);
        let judged = status(&config.stack.name, &host, &expected, &points, &evidence.records, session.now());
        let rules = wire::service::rules(&config);
        let overdue: Vec<Option<jiff::Timestamp>> =
            judged.components.iter().map(|one| overdue(&config, &rules, one, session.now())).collect();
        let rows: Vec<Vec<String>> =
            judged.components.iter().zip(&overdue).map(|(one, late)| row(one, *late)).collect();
        let newest = match (&judged.newest, judged.newest_state) {
            (Some(point), Some(state)) => format!("newest point {}, {}", point.short(), state.as_str()),
            _ => "no point yet".to_owned(),
        };
        let read = judged.data_read_at.map_or_else(
            || "never: `rekindle verify --next 1/30` reads a part at each run".to_owned(),
            |at| format!("{} ago", human::seconds(age_seconds(session.now(), at))),
        );
        let head = ["COMPONENT", "KIND", "CAPTURED", "AGE", "TRUST", "PROVED", "RESTORE", "VERDICT", "SCHEDULE"];
        let text = format!(
            "stack `{}` on {host}: {} points, {newest}\nall stored data was last read back {read}\n\n{}",
            judged.stack,
            judged.points,
            human::table(&head, &rows)
        );
        let text = logs.iter().fold(text, |text, log| format!("{text}\n{}\n", log.text(session.now())));
        let exit = if overdue.iter().any(Option::is_some) { Class::Negative.exit_code() } else { judged.exit_code() };
        let mut result = serde_json::to_value(&judged).unwrap_or(Value::Null);
        for (n, late) in overdue.iter().enumerate() {
            if let Some(one) = result.pointer_mut(&format!("/components/{n}")) {
                one["overdue_since"] = json!(late);
                let log = logs.iter().find(|log| log.component == judged.components[n].component);
                one["recoverable_to"] = json!(log.and_then(|log| log.to));
            }
        }
        let answer = Answer::data(result, text).exit(exit);
        let answer = if exit == 0 { answer } else { answer.with_fault(missed(&judged.components, &overdue)) };
        let answer =
            evidence.fault.into_iter().fold(answer, |answer, fault| answer.exit(fault.exit_code()).with_fault(fault));
        let answer = copies::add(answer, session, &config, &rules, (&repository, &points));
        // Another repository says nothing about the work of this host.
        let own = session.global.copy.is_none() && wire::is_configured(session, &config);
        let seen = if own { judged.components.as_slice() } else { &[] };
        let answer = agenda::add(answer, &config, &rules, seen, session.now());
        let answer = messages::add(answer, &config, session.now());
        watch::add(answer, &repository, &points, &config.stack.name, &host)
    }
}

/// How far the log of a component goes.
struct LogEnd {
    component: ComponentId,
    /// The newest commit that comes back; none when there is no base backup with a log.
    to: Option<jiff::Timestamp>,
    /// Whether there is a base backup, which comes back by itself.
    has_base: bool,
    why: String,
}

impl LogEnd {
    fn text(&self, now: jiff::Timestamp) -> String {
        match self.to {
            Some(to) => {
                let age = u64::try_from(now.duration_since(to).as_secs()).unwrap_or(0);
                let (at, age) = (human::time(to), human::seconds(age));
                format!("{}: can be recovered to {at}, {age} ago; then {}", self.component, self.why)
            }
            None if self.has_base => format!(
                "{}: its newest base backup comes back to its own end; no later commit is in the log yet",
                self.component
            ),
            None => format!("{}: no moment can be recovered: {}", self.component, self.why),
        }
    }
}

/// The end of every log that is kept. The newest commit in it is the true recovery point.
fn logs(
    session: &Session,
    config: &Config,
    repository: &Repo,
    points: &[RecoveryPoint],
) -> Result<Vec<LogEnd>, Faults> {
    let archive = Archive::new(repository, Arc::new(SystemClock));
    let (context, _scratch) = session.context()?;
    let ours = |point: &&RecoveryPoint| point.manifest().stack == config.stack.name;
    let points: Vec<RecoveryPoint> = points.iter().filter(ours).cloned().collect();
    let mut ends = Vec::new();
    for one in &config.components {
        let Some((_, wal, _)) = components::log_of(config, one)? else { continue };
        if !wal.keeps_log() {
            continue;
        }
        let reachable = Recoverable::gather(&points, &one.id, &archive)?.reachable(&context)?;
        let newest = reachable.into_iter().last();
        let to = newest.as_ref().and_then(|window| window.to);
        let has_base = newest.is_some();
        let why = newest.map_or_else(|| "there is no base backup yet".to_owned(), |window| window.end_text);
        ends.push(LogEnd { component: one.id.clone(), to, has_base, why });
    }
    Ok(ends)
}

/// Since when the next capture should be there, if it is late.
fn overdue(config: &Config, rules: &Rules, one: &ComponentStatus, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let configured = config.components.iter().find(|other| other.id == one.component)?;
    rules.overdue_since(Task::Backup, configured.schedule.as_ref()?, one.captured_at?, now)
}

fn row(one: &ComponentStatus, late: Option<jiff::Timestamp>) -> Vec<String> {
    let verdict = match &one.verdict {
        Verdict::Met => "met".to_owned(),
        Verdict::AtRisk(why) => format!("at risk: {why}"),
        Verdict::Missed(why) => format!("missed: {why}"),
    };
    vec![
        one.component.to_string(),
        one.kind.to_string(),
        one.captured_at.map_or_else(|| "never".to_owned(), human::time),
        one.age_seconds.map_or_else(|| "-".to_owned(), human::seconds),
        one.trust.as_str().to_owned(),
        match (one.proof_age_seconds, one.newest_drill) {
            (None, None) => "never drilled".to_owned(),
            (age, drill) => {
                let proved = age.map_or_else(|| "never".to_owned(), |age| format!("{} ago", human::seconds(age)));
                let newest = drill.filter(|drill| *drill != Outcome::Passed);
                newest.map_or(proved.clone(), |drill| format!("{proved}, newest drill {}", drill.as_str()))
            }
        },
        one.forecast.map_or_else(|| "-".to_owned(), |expected| human::seconds(expected.seconds)),
        verdict,
        late.map_or_else(|| "-".to_owned(), |since| format!("overdue since {}", human::time(since))),
    ]
}

fn missed(components: &[ComponentStatus], overdue: &[Option<jiff::Timestamp>]) -> Fault {
    let named: Vec<String> = components
        .iter()
        .zip(overdue)
        .filter(|(one, late)| late.is_some() || matches!(one.verdict, Verdict::Missed(_)))
        .map(|(one, _)| format!("`{}`", one.component))
        .collect();
    Fault::new(codes::ENGINE_OBJECTIVE, format!("meet the objectives of {}", named.join(", ")))
        .hint("rekindle backup; then look at the schedule and at `rekindle show latest`")
}
