//! Objectives, and the one function that judges them.

use serde::{Deserialize, Serialize};

/// Targets of a component. `None` means: no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Objective {
    /// Greatest acceptable age of the newest recoverable state, in seconds.
    pub rpo_seconds: Option<u64>,
    /// Greatest acceptable duration of a restore, in seconds.
    pub rto_seconds: Option<u64>,
    /// Greatest acceptable age of the newest proof, in seconds.
    pub proof_seconds: Option<u64>,
}

/// What is known about a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// The moment the newest complete capture stands for.
    pub newest_capture: Option<jiff::Timestamp>,
    /// Duration of the newest measured restore, in seconds.
    pub restore_seconds: Option<u64>,
    /// When a restore was last proved.
    pub newest_proof: Option<jiff::Timestamp>,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "why")]
pub enum Verdict {
    Met,
    AtRisk(String),
    Missed(String),
}

impl Verdict {
    /// The word used everywhere.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::AtRisk(_) => "at risk",
            Self::Missed(_) => "missed",
        }
    }

    fn worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Missed(_), _) | (Self::AtRisk(_), Self::Met | Self::AtRisk(_)) => self,
            _ => other,
        }
    }
}

/// Share of an objective after which it counts as being at risk, in percent.
const AT_RISK_PERCENT: u64 = 80;

/// Judges one component. The worst of its objectives decides; an objective without a
/// measurement is missed (RPO) or at risk (RTO, proof), never met. A component that was never
/// captured misses everything, whether it has objectives or not.
pub fn judge(objective: &Objective, now: jiff::Timestamp, history: &History) -> Verdict {
    let Some(newest) = history.newest_capture else {
        return Verdict::Missed("there is no complete capture".to_owned());
    };
    let mut verdict = Verdict::Met;
    if let Some(target) = objective.rpo_seconds {
        verdict = verdict.worse(measure("the newest capture is", age_seconds(now, newest), target, "old"));
    }
    if let Some(target) = objective.rto_seconds {
        verdict = verdict.worse(match history.restore_seconds {
            None => Verdict::AtRisk("no restore was measured yet".to_owned()),
            Some(took) => measure("the newest restore took", took, target, ""),
        });
    }
    if let Some(target) = objective.proof_seconds {
        verdict = verdict.worse(match history.newest_proof {
            None => Verdict::AtRisk("no restore was proved yet".to_owned()),
            Some(at) => measure("the newest proof is", age_seconds(now, at), target, "old"),
        });
    }
    verdict
}

/// Judges the duration of one restore, in milliseconds.
pub fn judge_restore(objective: &Objective, ms: u64) -> Verdict {
    let target = objective.rto_seconds;
    target.map_or(Verdict::Met, |target| measure("the restore took", ms.div_ceil(1000), target, ""))
}

/// Judges the age of data, in seconds.
pub fn judge_age(objective: &Objective, seconds: u64) -> Verdict {
    objective.rpo_seconds.map_or(Verdict::Met, |target| measure("the data is", seconds, target, "old"))
}

/// Seconds since a moment; 0 when it is in the future.
pub fn age_seconds(now: jiff::Timestamp, then: jiff::Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

fn measure(subject: &str, seconds: u64, target: u64, tail: &str) -> Verdict {
    let text = format!("{subject} {seconds} s {tail}").trim_end().to_owned() + &format!(", the target is {target} s");
    if seconds > target {
        Verdict::Missed(text)
    } else if u128::from(seconds) * 100 > u128::from(target) * u128::from(AT_RISK_PERCENT) {
        Verdict::AtRisk(text)
    } else {
        Verdict::Met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn without_objectives_a_capture_is_enough_and_its_absence_is_not() {
        let captured = History { newest_capture: Some(at(0)), ..History::default() };
        assert_eq!(judge(&Objective::default(), at(0), &captured), Verdict::Met);
        assert_eq!(judge(&Objective::default(), at(0), &History::default()).as_str(), "missed");
    }

    #[test]
    fn the_age_of_the_newest_capture_decides_the_rpo() {
        let objective = Objective { rpo_seconds: Some(100), ..Objective::default() };
        let judged = |age: i64| {
            let history = History { newest_capture: Some(at(1000 - age)), ..History::default() };
            judge(&objective, at(1000), &history).as_str()
        };
        assert_eq!(
            [judged(0), judged(80), judged(81), judged(100), judged(101)],
            ["met", "met", "at risk", "at risk", "missed"]
        );
        assert_eq!(judge(&objective, at(0), &History::default()).as_str(), "missed");
    }

    #[test]
    fn the_worst_objective_decides() {
        let objective = Objective { rpo_seconds: Some(100), rto_seconds: Some(10), proof_seconds: Some(50) };
        let history = History { newest_capture: Some(at(1000)), restore_seconds: Some(11), newest_proof: None };
        assert_eq!(judge(&objective, at(1000), &history).as_str(), "missed");
        let history = History { restore_seconds: Some(1), ..history };
        assert_eq!(judge(&objective, at(1000), &history).as_str(), "at risk");
    }
}
