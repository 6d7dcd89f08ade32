//! The steps of a recovery, in order: a value that is printed first and written down.

use rekindle_core::ComponentId;
use serde::{Deserialize, Serialize};

use super::choose::Choice;

/// The version this program writes, and the newest one it goes on with.
pub const PLAN_VERSION: u32 = 2;

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Do {
    /// Runs `stop` of the stack, or of the component.
    Stop,
    Restore,
    /// Compares what was restored with the point.
    Check,
    /// Runs `start` of the stack, or of the component.
    Start,
    /// Waits until the component answers.
    Ready,
}

impl Do {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Restore => "restore",
            Self::Check => "check",
            Self::Start => "start",
            Self::Ready => "wait until ready",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub act: Do,
    /// `None`: the applications around the components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<ComponentId>,
    /// Measured earlier, scaled to the size now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast_ms: Option<u64>,
}

/// A whole recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    pub version: u32,
    pub stack: String,
    /// The host that the points are of.
    pub host: String,
    /// Id of the repository.
    pub repository: String,
    pub made: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<jiff::Timestamp>,
    /// Whether data that stands in the way is set aside.
    pub replace: bool,
    /// In the order of their restore.
    pub choices: Vec<Choice>,
    pub skew_ms: u64,
    pub steps: Vec<Step>,
    /// What the caller needs to go on on its own: the configuration, …
    pub surroundings: serde_json::Value,
}

/// Which of the optional steps there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Services {
    pub stop: bool,
    pub start: bool,
}

/// Puts the steps in order: applications stop first and start last; each component is stopped,
/// restored, checked, started and waited for before the next one.
pub fn steps(
    choices: &[Choice],
    stack: Services,
    of: &dyn Fn(&ComponentId) -> Services,
    forecast: &dyn Fn(&Choice, Do) -> Option<u64>,
) -> Vec<Step> {
    let alone = |act| Step { act, component: None, forecast_ms: None };
    let mut steps = Vec::new();
    if stack.stop {
        steps.push(alone(Do::Stop));
    }
    for choice in choices {
        let services = of(&choice.component);
        let acts = [
            (Do::Stop, services.stop),
            (Do::Restore, true),
            (Do::Check, true),
            (Do::Start, services.start),
            (Do::Ready, services.start),
        ];
        for (act, _) in acts.into_iter().filter(|(_, wanted)| *wanted) {
            let forecast_ms = forecast(choice, act);
            steps.push(Step { act, component: Some(choice.component.clone()), forecast_ms });
        }
    }
    if stack.start {
        steps.push(alone(Do::Start));
    }
    steps
}
