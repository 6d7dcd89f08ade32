//! What `status` watches beside the objectives: suspicious points and the recovery kit.

use std::fmt::Write as _;

use rekindle_core::mark::{KitState, Marks};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::{Repo, admin};
use serde_json::{Value, json};

use crate::human;
use crate::output::Answer;
use crate::session::Faults;
use crate::wire::attached;

/// Adds both to the answer. `points` are all of the repository, oldest first.
pub(super) fn add(
    answer: Answer,
    repo: &Repo,
    points: &[RecoveryPoint],
    stack: &str,
    host: &str,
) -> Result<Answer, Faults> {
    let (marks, doubt) = attached::marks_shown(repo);
    let answer = suspicious(answer, points, &marks, stack, host);
    let answer = kit(answer, &marks, repo)?;
    Ok(match doubt {
        Some(fault) => answer.worse(fault),
        None => answer,
    })
}

fn suspicious(answer: Answer, points: &[RecoveryPoint], marks: &Marks, stack: &str, host: &str) -> Answer {
    let mine = |point: &&RecoveryPoint| point.manifest().stack == stack && point.manifest().host == host;
    let odd: Vec<&RecoveryPoint> = points.iter().filter(mine).filter(|point| marks.suspicious(point)).collect();
    let ids: Vec<_> = odd.iter().map(|point| point.id()).collect();
    let mut text = String::new();
    for point in &odd {
        for one in &point.manifest().suspicions {
            // Writing into a `String` cannot fail.
            let _ = writeln!(text, "\nSUSPICIOUS: point {}: {}: {}", point.id().short(), one.component, one.text);
        }
    }
    let answer = answer.adding("suspicious", json!(ids), &text);
    // One that was followed by usual ones is told and is no alarm any more.
    let newest = points.iter().rfind(mine).filter(|point| marks.suspicious(point));
    match newest {
        None => answer,
        Some(point) => {
            let short = point.id().short();
            let what = format!("trust the newest point {short}: it differs sharply from the ones before it");
            answer.worse(Fault::new(codes::RECOVER_SUSPICIOUS, what).hint(format!(
                "look with `rekindle show {short}` and `rekindle diff`; if it is as it should be: rekindle point accept {short}"
            )))
        }
    }
}

fn kit(answer: Answer, marks: &Marks, repo: &Repo) -> Result<Answer> {
    let keys = admin::key_ids(repo)?;
    let (state, since, text): (&str, Value, String) = match marks.kit(&keys) {
        KitState::Confirmed(mark) => ("confirmed", json!(mark.time), String::new()),
        KitState::Outdated(mark) => (
            "outdated",
            json!(mark.time),
            format!(
                "\nThe recovery kit of {} is outdated: the keys have changed. Make a new one: rekindle kit create\n",
                human::time(mark.time)
            ),
        ),
        KitState::Never => (
            "never",
            Value::Null,
            "\nNobody holds a recovery kit: without this host, the key is lost. rekindle kit create, \
             take it away from here, then rekindle kit confirm\n"
                .to_owned(),
        ),
    };
    Ok(answer.adding("kit", json!({"state": state, "confirmed": since}), &text))
}
