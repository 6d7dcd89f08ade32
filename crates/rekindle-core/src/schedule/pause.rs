//! Maintenance windows: times in which nothing is started.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::Schedule;

/// A repeated time in which nothing is started. What runs, goes on.
#[derive(Debug, Clone)]
pub struct Pause {
    pub name: String,
    pub start: Schedule,
    pub length: Duration,
}

impl Pause {
    /// When it ends, if `moment` lies in it.
    pub fn until(&self, moment: jiff::Timestamp, zone: &TimeZone) -> Option<jiff::Timestamp> {
        let begun = self.start.newest_until(moment, zone)?;
        let end = begun.checked_add(self.length).ok()?;
        (moment < end).then_some(end)
    }
}
