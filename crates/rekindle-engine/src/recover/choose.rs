//! Which point each component comes from: a pure decision.

use rekindle_core::mark::Marks;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::{ComponentId, ComponentKind, Fault, PointId, Result, codes};
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The state of this moment, or the nearest one before it. `None`: the newest.
    pub at: Option<jiff::Timestamp>,
    /// Everything from this point.
    pub point: Option<PointId>,
    /// Use points that the tripwire found odd and nobody accepted.
    pub allow_suspicious: bool,
}

/// Where one component comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub component: ComponentId,
    pub kind: ComponentKind,
    pub point: PointId,
    /// The moment the data will stand for.
    pub captured_at: jiff::Timestamp,
    pub entries: u64,
    pub bytes: u64,
    /// A newer capture in time that is not used, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_over: Option<String>,
}

/// Chooses for every wanted component. `points` are those of one stack and host, oldest first.
/// A component that no point covers is an error that names all of them.
pub fn choose(wish: &Wish, points: &[&RecoveryPoint], wanted: &[ComponentId], marks: &Marks) -> Result<Vec<Choice>> {
    let mut choices = Vec::with_capacity(wanted.len());
    let mut absent = Vec::new();
    for component in wanted {
        match choose_one(wish, points, component, marks) {
            Ok(choice) => choices.push(choice),
            Err(why) => absent.push(format!("`{component}` ({why})")),
        }
    }
    if absent.is_empty() && !choices.is_empty() {
        choices.sort_by_key(|choice| crate::plan::stage(choice.kind));
        return Ok(choices);
    }
    let of = match (&wish.point, wish.at) {
        (Some(point), _) => format!("from point {}", point.short()),
        (None, Some(at)) => format!("to {at}"),
        (None, None) => "to the newest state".to_owned(),
    };
    let what = if absent.is_empty() { "anything".to_owned() } else { absent.join(", ") };
    Err(Fault::new(codes::RECOVER_NOTHING, format!("recover {what} {of}"))
        .hint("`rekindle list` shows the points; choose another moment, or components with --only"))
}

fn choose_one(
    wish: &Wish,
    points: &[&RecoveryPoint],
    component: &ComponentId,
    marks: &Marks,
) -> Result<Choice, &'static str> {
    let mut passed_over = None;
    let mut why = "no point holds it";
    for point in points.iter().rev() {
        if wish.point.as_ref().is_some_and(|wanted| wanted != point.id()) {
            continue;
        }
        let Some(record) = point.manifest().component(component) else { continue };
        // The moment of the data decides, not the one at which the point was written.
        if wish.at.is_some_and(|at| record.captured_at > at) {
            why = "its first capture is later";
            continue;
        }
        let short = point.id().short();
        if record.notes.make_partial() && wish.point.is_none() {
            why = "it was never captured whole";
            passed_over.get_or_insert_with(|| format!("{short}: some of it could not be read"));
            continue;
        }
        let odd = point.manifest().suspicions.iter().find(|one| one.component == *component);
        let odd = odd.filter(|_| marks.suspicious(point));
        if let Some(odd) = odd.filter(|_| wish.point.is_none() && !wish.allow_suspicious) {
            why = "only suspicious points hold it; --allow-suspicious takes them";
            passed_over.get_or_insert_with(|| format!("{short} is suspicious: {}", odd.text));
            continue;
        }
        return Ok(Choice {
            component: component.clone(),
            kind: record.kind,
            point: point.id().clone(),
            captured_at: record.captured_at,
            entries: record.tally.entries,
            bytes: record.tally.bytes,
            passed_over,
        });
    }
    Err(why)
}

/// Milliseconds between the earliest and the latest moment of the choices.
pub fn skew_ms(choices: &[Choice]) -> u64 {
    let times = choices.iter().map(|choice| choice.captured_at);
    match (times.clone().min(), times.max()) {
        (Some(first), Some(last)) => u64::try_from(last.duration_since(first).as_millis()).unwrap_or(0),
        _ => 0,
    }
}
