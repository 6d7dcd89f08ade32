//! What `status` says about copies: whether they can be reached, and how far they are behind.

use std::fmt::Write as _;

use rekindle_config::{Config, CopyTo};
use rekindle_core::objective::age_seconds;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::schedule::{Rules, Task};
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::Repo;
use rekindle_repo::copy::Lag;
use serde_json::{Value, json};

use super::copy::lag;
use crate::output::{Answer, fault_object};
use crate::session::Session;
use crate::{human, wire};

/// Adds every copy to the answer. `points` are all of the repository.
pub(super) fn add(
    answer: Answer,
    session: &Session,
    config: &Config,
    rules: &Rules,
    (repo, points): (&Repo, &[RecoveryPoint]),
) -> Answer {
    if session.global.copy.is_some() {
        return answer;
    }
    let (mut list, mut text, mut faults): (Vec<Value>, String, Vec<Fault>) = Default::default();
    for copy in &config.copies {
        match look(session, config, copy, repo, points) {
            Ok(lag) => {
                let late = overdue(copy, rules, &lag, session.now());
                // Writing into a `String` cannot fail.
                let _ = writeln!(text, "\ncopy `{}`: {}", copy.name, told(&lag, late, session.now()));
                faults.extend(late.map(|since| behind(copy, since)));
                let mut one = serde_json::to_value(&lag).unwrap_or_default();
                one["copy"] = json!(copy.name);
                one["reachable"] = json!(true);
                one["lag_seconds"] = json!(lag.seconds(session.now()));
                one["overdue_since"] = json!(late);
                list.push(one);
            }
            Err(fault) => {
                let fault = fault.during(format!("look at the copy `{}`", copy.name));
                let _ = writeln!(text, "\ncopy `{}`: cannot be looked at: {}", copy.name, fault.chain());
                list.push(json!({"copy": copy.name, "reachable": false, "error": fault_object(&fault)}));
                faults.push(fault);
            }
        }
    }
    let answer = answer.adding("copies", Value::Array(list), &text);
    faults.into_iter().fold(answer, Answer::worse)
}

fn look(session: &Session, config: &Config, copy: &CopyTo, repo: &Repo, points: &[RecoveryPoint]) -> Result<Lag> {
    let place = wire::of_repository(session, config, &copy.repository, None)?;
    lag(repo, points, &wire::open(session, &place)?)
}

/// Since when what is missing should be there, by the schedule of the copy.
fn overdue(copy: &CopyTo, rules: &Rules, lag: &Lag, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    rules.overdue_since(Task::Copy, copy.schedule.as_ref()?, lag.behind_since?, now)
}

fn behind(copy: &CopyTo, since: jiff::Timestamp) -> Fault {
    Fault::new(codes::COPY_BEHIND, format!("keep the copy `{}` up to date: overdue since {since}", copy.name))
        .hint(format!("rekindle copy {}", copy.name))
}

fn told(lag: &Lag, late: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    let newest = lag.newest.map_or_else(
        || "no point of this repository".to_owned(),
        |at| format!("newest point is {} old", human::seconds(age_seconds(now, at))),
    );
    let missing = match (lag.points_missing, lag.wal_missing) {
        (0, 0) => "nothing is missing".to_owned(),
        (points, 0) => format!("{points} points are missing"),
        (0, wal) => format!("{wal} objects of the log are missing"),
        (points, wal) => format!("{points} points and {wal} objects of the log are missing"),
    };
    let behind = match lag.seconds(now) {
        0 => String::new(),
        seconds => format!(", {} behind", human::seconds(seconds)),
    };
    let late = late.map_or_else(String::new, |since| format!(", OVERDUE since {}", human::time(since)));
    format!("{newest}, {missing}{behind}{late}")
}
