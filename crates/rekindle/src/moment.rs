//! Moments on the command line, and which point holds a component at one.

use std::str::FromStr;

use jiff::tz::TimeZone;
use rekindle_core::ComponentId;
use rekindle_core::point::RecoveryPoint;

/// A moment, as somebody writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Moment {
    At(jiff::Timestamp),
    /// So long ago.
    Ago(jiff::SignedDuration),
}

impl FromStr for Moment {
    type Err = String;

    /// `2026-01-31T12:00:00Z`, `2026-01-31 12:00` (this host's time), `2h ago`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(length) = text.strip_suffix(" ago") {
            let length: jiff::SignedDuration = length.trim().parse().map_err(|error: jiff::Error| error.to_string())?;
            return if length.is_negative() { Err("it is negative".to_owned()) } else { Ok(Self::Ago(length)) };
        }
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(at));
        }
        let local: jiff::civil::DateTime = text.parse().map_err(|_| {
            format!("`{}` is not like `2026-01-31T12:00:00Z`, `2026-01-31 12:00` or `2h ago`", text.escape_debug())
        })?;
        let zoned = local.to_zoned(TimeZone::system()).map_err(|error| error.to_string())?;
        Ok(Self::At(zoned.timestamp()))
    }
}

impl Moment {
    /// The moment, counted from now.
    pub(crate) fn of(self, now: jiff::Timestamp) -> jiff::Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(length) => now.checked_sub(length).unwrap_or(jiff::Timestamp::MIN),
        }
    }
}

/// The newest of these points (oldest first) whose capture of the component is whole and not later than
/// `at`.
pub(crate) fn held_at<'a>(
    points: &[&'a RecoveryPoint],
    component: &ComponentId,
    at: Option<jiff::Timestamp>,
) -> Option<&'a RecoveryPoint> {
    let held = |point: &&&RecoveryPoint| {
        let record = point.manifest().component(component);
        record.is_some_and(|record| !record.notes.make_partial() && at.is_none_or(|at| record.captured_at <= at))
    };
    let captured = |point: &&&RecoveryPoint| point.manifest().component(component).map(|record| record.captured_at);
    points.iter().filter(held).max_by_key(captured).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let at: Moment = "2026-01-31T12:00:00Z".parse().unwrap();
        let now = jiff::Timestamp::from_second(10_000).unwrap();
        assert_eq!(at.of(now), "2026-01-31T12:00:00Z".parse().unwrap());
        assert_eq!("2h ago".parse::<Moment>().unwrap().of(now).as_second(), 2_800);
        assert!("2026-01-31 12:00".parse::<Moment>().is_ok());
        for bad in ["", "yesterday", "ago", "-2h ago", "12:00"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
