//! `status`

use clap::Args;
use jiff::tz::TimeZone;
use rekindle_config::Config;
use rekindle_core::objective::Verdict;
use rekindle_core::port::Repository;
use rekindle_core::{Class, Fault, codes};
use rekindle_engine::status::{ComponentStatus, Expectation, status};
use serde_json::{Value, json};

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Judge every component against its objectives
#[derive(Debug, Args)]
pub(crate) struct Status;

impl Status {
    #[expect(clippy::unused_self, reason = "every command is run by a method")]
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = wire::config(session)?;
        let given = wire::password_given(session)?;
        let place = wire::of_config(session, &config.repository, given.as_ref())?;
        let points = wire::open(session, &place)?.points()?;
        let expected: Vec<Expectation> = config
            .components
            .iter()
            .map(|one| Expectation { component: one.id.clone(), kind: one.kind(), objective: one.objective })
            .collect();
        let host = wire::host(&config);
        let judged = status(&config.stack.name, &host, &expected, &points, session.now());
        let overdue: Vec<Option<jiff::Timestamp>> =
            judged.components.iter().map(|one| overdue(&config, one, session.now())).collect();
        let rows: Vec<Vec<String>> =
            judged.components.iter().zip(&overdue).map(|(one, late)| row(one, *late)).collect();
        let newest = match (&judged.newest, judged.newest_state) {
            (Some(point), Some(state)) => format!("newest point {}, {}", point.short(), state.as_str()),
            _ => "no point yet".to_owned(),
        };
        let text = format!(
            "stack `{}` on {host}: {} points, {newest}\n\n{}",
            judged.stack,
            judged.points,
            human::table(&["COMPONENT", "KIND", "CAPTURED", "AGE", "TRUST", "VERDICT", "SCHEDULE"], &rows)
        );
        let exit = if overdue.iter().any(Option::is_some) { Class::Negative.exit_code() } else { judged.exit_code() };
        let mut result = serde_json::to_value(&judged).unwrap_or(Value::Null);
        for (n, late) in overdue.iter().enumerate() {
            if let Some(one) = result.pointer_mut(&format!("/components/{n}")) {
                one["overdue_since"] = json!(late);
            }
        }
        let answer = Answer::data(result, text).exit(exit);
        Ok(if exit == 0 { answer } else { answer.with_fault(missed(&judged.components, &overdue)) })
    }
}

/// Since when the next capture should be there, if it is late.
fn overdue(config: &Config, one: &ComponentStatus, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let configured = config.components.iter().find(|other| other.id == one.component)?;
    configured.schedule.as_ref()?.overdue_since(one.captured_at?, now, &TimeZone::system())
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
        one.trust.to_owned(),
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
