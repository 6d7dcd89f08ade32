//! Times as Go's JSON has them (RFC 3339 with up to nine digits), years 0 to 9999.

use std::fmt::Write as _;

use rekindle_core::entry::FileTime;

use super::BadFormat;

const DAY_SECONDS: i64 = 86_400;
/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z; what lies outside is moved to the border, as
/// Go's encoder knows no other years.
const SECONDS_MIN: i64 = -62_167_219_200;
const SECONDS_MAX: i64 = 253_402_300_799;

/// Appends the time in UTC, with as many digits after the point as it needs.
pub fn push(time: FileTime, out: &mut String) {
    let seconds = time.seconds.clamp(SECONDS_MIN, SECONDS_MAX);
    let (year, month, day) = civil(seconds.div_euclid(DAY_SECONDS));
    let of_day = seconds.rem_euclid(DAY_SECONDS);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let nanoseconds = time.nanoseconds.min(999_999_999);
    if nanoseconds != 0 {
        let digits = format!("{nanoseconds:09}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
    out.push('Z');
}

/// The time as text.
pub fn format(time: FileTime) -> String {
    let mut text = String::with_capacity(30);
    push(time, &mut text);
    text
}

/// Reads a time with any offset.
pub fn parse(text: &str) -> Result<FileTime, BadFormat> {
    parse_bytes(text.as_bytes()).ok_or_else(|| BadFormat::new("a time is not in RFC 3339"))
}

fn parse_bytes(text: &[u8]) -> Option<FileTime> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| decimal(&date_time[range]);
    let marks = [4, 7, 10, 13, 16].map(|at| date_time[at]);
    if !matches!(marks, [b'-', b'-', b'T' | b't' | b' ', b':', b':']) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = fraction(rest)?;
    let local = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some(FileTime { seconds: local - offset(zone)?, nanoseconds })
}

fn decimal(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
}

fn fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let count = after.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let digits = after[..count].iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((nanoseconds, &after[count..]))
}

fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
            let seconds = decimal(&rest[..2])? * 3600 + decimal(&rest[3..])? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last of the year; 146,097 days make 400 years.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(seconds: i64, nanoseconds: u32) -> FileTime {
        FileTime { seconds, nanoseconds }
    }

    #[test]
    fn known_times() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (951_782_400, 120_000_000, "2000-02-29T00:00:00.12Z"),
            (SECONDS_MIN, 0, "0000-01-01T00:00:00Z"),
            (SECONDS_MAX, 1, "9999-12-31T23:59:59.000000001Z"),
        ] {
            assert_eq!(format(time(seconds, nanoseconds)), text);
            assert_eq!(parse(text), Ok(time(seconds, nanoseconds)));
        }
        assert_eq!(format(time(i64::MAX, 0)), "9999-12-31T23:59:59Z");
        assert_eq!(format(time(i64::MIN, 0)), "0000-01-01T00:00:00Z");
        assert_eq!(parse("1970-01-01T02:00:00.5+02:00"), Ok(time(0, 500_000_000)));
        assert_eq!(parse("1969-12-31T23:30:00-00:30"), Ok(time(0, 0)));
        for bad in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+2:00",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_comes_back(seconds in SECONDS_MIN..=SECONDS_MAX, nanoseconds in 0..1_000_000_000_u32) {
            let time = time(seconds, nanoseconds);
            prop_assert_eq!(parse(&format(time)), Ok(time));
            let jiff = jiff::Timestamp::from_second(seconds);
            if let Ok(stamp) = jiff {
                prop_assert_eq!(parse(&stamp.to_string()).map(|t| t.seconds), Ok(seconds));
            }
        }

        #[test]
        fn hostile_text_does_not_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
