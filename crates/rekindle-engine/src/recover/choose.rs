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

/// How far the log is replayed onto a base backup of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replay {
    /// Only to the end of the base backup.
    Itself,
    /// Exactly to this moment.
    Moment(jiff::Timestamp),
    /// To the end of the log; to the end of the base backup where there is none.
    End,
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
    /// Of a base backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Whether what was passed over is suspicious: the log behind this capture leads there.
    #[serde(default)]
    pub before_suspicious: bool,
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

/// Why a point that holds a component is not used for it.
struct Refused {
    why: &'static str,
    passed_over: String,
    suspicious: bool,
}

fn refused(
    wish: &Wish,
    point: &RecoveryPoint,
    record: &rekindle_core::manifest::ComponentRecord,
    marks: &Marks,
) -> Option<Refused> {
    if wish.point.is_some() {
        return None;
    }
    let short = point.id().short();
    if record.notes.make_partial() {
        let passed_over = format!("{short}: some of it could not be read");
        return Some(Refused { why: "it was never captured whole", passed_over, suspicious: false });
    }
    let odd = point.manifest().suspicions.iter().find(|one| one.component == record.id);
    let odd = odd.filter(|_| !wish.allow_suspicious && marks.suspicious(point))?;
    Some(Refused {
        why: "only suspicious points hold it; --allow-suspicious takes them",
        passed_over: format!("{short} is suspicious: {}", odd.text),
        suspicious: true,
    })
}

/// The points whose capture of a component may be used, whatever moment it is of, oldest first.
pub fn usable<'a>(
    wish: &Wish,
    points: &[&'a RecoveryPoint],
    component: &ComponentId,
    marks: &Marks,
) -> Vec<&'a RecoveryPoint> {
    let fits = |point: &&&RecoveryPoint| {
        let named = wish.point.as_ref().is_none_or(|wanted| wanted == point.id());
        let record = point.manifest().component(component).filter(|_| named);
        record.is_some_and(|record| refused(wish, point, record, marks).is_none())
    };
    points.iter().filter(fits).copied().collect()
}

fn choose_one(
    wish: &Wish,
    points: &[&RecoveryPoint],
    component: &ComponentId,
    marks: &Marks,
) -> Result<Choice, &'static str> {
    let (mut passed_over, mut before_suspicious) = (None, false);
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
        if let Some(refused) = refused(wish, point, record, marks) {
            why = refused.why;
            before_suspicious |= refused.suspicious;
            passed_over.get_or_insert(refused.passed_over);
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
            replay: None,
            before_suspicious,
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
