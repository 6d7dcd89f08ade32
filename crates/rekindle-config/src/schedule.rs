//! When a component should be captured: cron's five fields, judged without running anything.

use std::fmt;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;

/// Occurrences looked at for the longest gap: more than a week of every minute.
const OCCURRENCES_MAX: usize = 12_000;
/// Days looked at: two leap years, so that "29 February" has two occurrences.
const DAYS_MAX: i64 = 9 * 366;

/// A checked cron expression (minute, hour, day of month, month, day of week).
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.text).finish()
    }
}

impl Schedule {
    /// Reads cron's five fields or a nickname such as `@daily`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|error| error.to_string())?;
        let schedule = Self {
            text: text.to_owned(),
            cron,
        };
        if schedule.longest_gap().is_none() {
            return Err("it comes less than twice in nine years".to_owned());
        }
        Ok(schedule)
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The longest time between two neighbouring occurrences, on a clock without daylight saving.
    pub fn longest_gap(&self) -> Option<Duration> {
        let start = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);
        let end = start.checked_add(jiff::Span::new().days(DAYS_MAX)).ok()?;
        let mut longest: Option<jiff::SignedDuration> = None;
        let mut before: Option<DateTime> = None;
        for at in self
            .cron
            .iter_from(start, croner::Direction::Forward)
            .take(OCCURRENCES_MAX)
        {
            if at > end {
                break;
            }
            if let Some(before) = before {
                longest = longest.max(Some(at.duration_since(before)));
            }
            before = Some(at);
        }
        longest.map(jiff::SignedDuration::unsigned_abs)
    }

    /// The first occurrence after `moment`, in the given time zone.
    pub fn next_after(
        &self,
        moment: jiff::Timestamp,
        zone: &jiff::tz::TimeZone,
    ) -> Option<jiff::Timestamp> {
        self.cron
            .find_next_occurrence(&moment.to_zoned(zone.clone()), false)
            .ok()
            .map(|next| next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(text: &str) -> u64 {
        Schedule::parse(text)
            .unwrap()
            .longest_gap()
            .unwrap()
            .as_secs()
    }

    #[test]
    fn the_longest_gap_counts() {
        assert_eq!(gap("* * * * *"), 60);
        assert_eq!(gap("*/30 * * * *"), 1800);
        assert_eq!(gap("0 3 * * *"), 86_400);
        assert_eq!(gap("@daily"), 86_400);
        assert_eq!(gap("0 */5 * * *"), 5 * 3600, "20:00 to 00:00 is shorter");
        assert_eq!(gap("0 8-18 * * *"), 14 * 3600, "the night");
        assert_eq!(gap("0 3 * * 1-5"), 3 * 86_400, "the weekend");
        assert_eq!(gap("0 0 1 * *"), 31 * 86_400);
        assert_eq!(gap("0 0 29 2 *"), (4 * 365 + 1) * 86_400);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "*",
            "* * * *",
            "60 * * * *",
            "* * * * * *",
            "daily",
            "0 0 30 2 *",
            "a b c d e",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_occurrence_is_in_local_time() {
        let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let moment: jiff::Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let next = Schedule::parse("0 3 * * *")
            .unwrap()
            .next_after(moment, &zone);
        assert_eq!(next.unwrap().to_string(), "2026-07-02T01:00:00Z");
    }
}
