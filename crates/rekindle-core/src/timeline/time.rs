//! Reads the moment to recover to. A time without a zone is refused: it would mean one thing to
//! whoever wrote it, another to the server.

use std::fmt::Write as _;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::target::BadTarget;

/// Reads `2026-11-22 14:30:00Z`, `2026-11-22T14:30:00.5+02:00` or `2026-11-22 14:30 Europe/Berlin`.
/// `zone` knows the named zones. A local time that a change of the clock makes double or skips is
/// refused.
pub fn parse_moment(text: &str, zone: impl Fn(&str) -> Option<TimeZone>) -> Result<jiff::Timestamp, BadTarget> {
    let bad = |why: &str| BadTarget { given: text.to_owned(), why: why.to_owned() };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(bad("a time is not empty; write it as 2026-11-22 14:30:00Z"));
    }
    let (clock, suffix) = split(trimmed);
    let local: DateTime = match clock.parse() {
        Ok(local) if clock.contains(':') => local,
        _ => return Err(bad("this is no date with a time; write it as 2026-11-22 14:30:00Z")),
    };
    if suffix.is_empty() {
        return Err(bad("the time has no zone; add Z for UTC, an offset as +02:00, or a name as Europe/Berlin"));
    }
    if let Some(offset) = offset(suffix) {
        return offset.to_timestamp(local).map_err(|_| bad("this time is out of range"));
    }
    let name = suffix.trim_start_matches('[').trim_end_matches(']');
    let zone = zone(name).ok_or_else(|| bad("the zone is not known; use Z, an offset as +02:00, or a name"))?;
    let moment = zone.to_ambiguous_timestamp(local);
    moment.unambiguous().map_err(|_| {
        let mut why = "the clocks were changed there, so that this time came twice or never".to_owned();
        if let (Ok(first), Ok(second)) = (moment.earlier(), moment.later()) {
            let _ = write!(why, "; say which one: {first} or {second}");
        }
        bad(&why)
    })
}

/// Divides into date with clock and zone.
fn split(text: &str) -> (&str, &str) {
    // Behind the date, whose `-` is none of an offset.
    let behind = text.find([' ', 'T', 't']).map_or(text.len(), |at| at + 1);
    let clock_end = text[behind..].find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'));
    let at = clock_end.map_or(text.len(), |at| behind + at);
    (text[..at].trim(), text[at..].trim())
}

/// `Z`, `UTC`, `+02`, `+0200`, `-03:30`.
fn offset(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
        return Some(Offset::UTC);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let digits: String = match digits.split_once(':') {
        Some((hours, minutes)) if hours.len() == 2 && minutes.len() == 2 => format!("{hours}{minutes}"),
        Some(_) => return None,
        None => digits.to_owned(),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = match digits.len() {
        2 => (digits.parse().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse().ok()?),
        _ => return None,
    };
    if minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let zone = |name: &str| TimeZone::get(name).ok();
        parse_moment(text, zone).map(|at| at.to_string()).map_err(|bad| bad.why)
    }

    #[test]
    fn times_with_a_zone_are_read() {
        let same = Ok("2026-11-22T14:30:00Z".to_owned());
        for text in [
            "2026-11-22 14:30:00Z",
            "2026-11-22T14:30:00z",
            "2026-11-22 14:30 UTC",
            "2026-11-22 16:30:00+02",
            "2026-11-22 16:30:00 +02:00",
            "2026-11-22T11:00:00-0330",
            "2026-11-22 15:30:00 Europe/Berlin",
            " 2026-11-22 15:30:00[Europe/Berlin] ",
        ] {
            assert_eq!(read(text), same, "{text}");
        }
        assert_eq!(read("2026-11-22 14:30:00.25Z"), Ok("2026-11-22T14:30:00.25Z".to_owned()));
    }

    #[test]
    fn times_without_a_zone_are_refused() {
        for text in ["2026-11-22 14:30:00", "2026-11-22T14:30", "2026-11-22 14:30:00.5"] {
            assert!(read(text).unwrap_err().contains("no zone"), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_time_is_refused() {
        for text in ["", " ", "now", "2026-11-22", "2026-11-22Z", "14:30Z", "2026-13-01 10:00Z", "2026-11-22 25:00Z"] {
            assert!(read(text).is_err(), "{text}");
        }
        for zone in ["+2", "+02:0", "+02:60", "+", "+99", "Europe/Nowhere", "+ab"] {
            assert!(read(&format!("2026-11-22 14:30:00{zone}")).is_err(), "{zone}");
        }
    }

    #[test]
    fn an_hour_that_came_twice_or_never_is_refused() {
        let why = read("2026-10-25 02:30:00 Europe/Berlin").unwrap_err();
        assert!(why.contains("2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z"), "{why}");
        assert!(read("2026-03-29 02:30:00 Europe/Berlin").is_err());
        assert!(read("2026-10-25 02:30:00+01:00").is_ok());
    }
}
