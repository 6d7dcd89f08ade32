//! Cron's five fields, judged without running anything.
//!
//! On the days of a clock change each occurrence comes once: one inside of the skipped hour right
//! after it, one inside of the doubled hour at its first. Only a schedule of every hour follows the
//! clock through both. (croner by itself does so for single hours, but not for lists and steps.)

use std::fmt;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Direction};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

/// Occurrences looked at for the longest gap: more than a week of every minute.
const OCCURRENCES_MAX: usize = 12_000;
/// A capture is late when it is missing for this share of the longest gap: a run takes time.
pub(super) const LATE_SHARE: u32 = 5;
/// No clock is put back further.
const CLOCK_CHANGE_HOURS_MAX: i64 = 3;
/// Days looked at: two leap years, so that "29 February" has two occurrences.
const DAYS_MAX: i64 = 9 * 366;

/// A checked cron expression (minute, hour, day of month, month, day of week).
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    longest_gap: Duration,
    /// Whether every hour of the day is meant.
    hourly: bool,
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
        let longest_gap = longest_gap(&cron).ok_or("it comes less than twice in nine years")?;
        let hour = text.split_whitespace().nth(1).unwrap_or("");
        let hourly = matches!(hour, "*" | "*/1" | "0-23") || text.trim().eq_ignore_ascii_case("@hourly");
        Ok(Self { text: text.to_owned(), cron, longest_gap, hourly })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The longest time between two neighbouring occurrences, on a clock without daylight saving.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    /// The first occurrence after `moment`, in the given time zone.
    pub fn next_after(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zoned = moment.to_zoned(zone.clone());
        if self.hourly {
            return self.cron.find_next_occurrence(&zoned, false).ok().map(|next| next.timestamp());
        }
        let mut civil = zoned.datetime();
        // In the second pass of a doubled hour, its occurrences are over.
        for _ in 0..OCCURRENCES_MAX {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            let at = instant(civil, zone)?;
            if at > moment {
                return Some(at);
            }
        }
        None
    }

    /// The newest occurrence at or before `moment`, in the given time zone.
    pub fn newest_until(&self, moment: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zoned = moment.to_zoned(zone.clone());
        if self.hourly {
            return self.cron.find_previous_occurrence(&zoned, true).ok().map(|found| found.timestamp());
        }
        // In the second pass of a doubled hour, later times of the first pass are over as well.
        let start = zoned.datetime().checked_add(CLOCK_CHANGE_HOURS_MAX.hours()).ok()?;
        let mut occurrences = self.cron.iter_from(start, Direction::Backward).take(OCCURRENCES_MAX);
        occurrences.find_map(|civil| instant(civil, zone).filter(|at| *at <= moment))
    }
}

/// The moment of a time on the wall: the first of two, or the end of the skipped hour it lies in.
fn instant(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            Some(zone.following(before).next()?.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}

fn longest_gap(cron: &Cron) -> Option<Duration> {
    let start = DateTime::constant(2024, 1, 1, 0, 0, 0, 0);
    let end = start.checked_add(jiff::Span::new().days(DAYS_MAX)).ok()?;
    let (mut longest, mut before) = (None, None);
    let occurrences = cron.iter_from(start, Direction::Forward);
    for at in occurrences.take(OCCURRENCES_MAX).take_while(|at| *at <= end) {
        if let Some(before) = before.replace(at) {
            longest = longest.max(Some(at.duration_since(before).unsigned_abs()));
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(text: &str) -> u64 {
        Schedule::parse(text).unwrap().longest_gap().as_secs()
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
        for bad in ["", "*", "* * * *", "60 * * * *", "* * * * * *", "daily", "0 0 30 2 *", "a b c d e"] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_occurrence_is_in_local_time() {
        let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
        let moment: jiff::Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        let next = Schedule::parse("0 3 * * *").unwrap().next_after(moment, &zone);
        assert_eq!(next.unwrap().to_string(), "2026-07-02T01:00:00Z");
    }
}
