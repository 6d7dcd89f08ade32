//! Every wait and every repetition has a limit.

use std::time::Duration;

/// Longest wait for a TCP and TLS connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest time without a single byte moving in either direction.
const IDLE_MAX: Duration = Duration::from_mins(1);
/// Longest single attempt, however much it moves: a 128 MiB pack at 300 kbit/s.
const ATTEMPT_MAX: Duration = Duration::from_hours(1);
/// No new attempt starts later than this after the first one failed.
const RETRY_BUDGET: Duration = Duration::from_mins(5);
/// Attempts of one call, the first included.
const ATTEMPTS_MAX: u32 = 8;
/// Pause before the second attempt; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Limits of one store. The defaults are for production; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest time in which no byte moves.
    pub idle: Duration,
    /// Longest single attempt.
    pub attempt: Duration,
    /// No new attempt starts later than this after the first failure.
    pub retry_budget: Duration,
    /// Attempts of one call, the first included; at least one is made.
    pub attempts_max: u32,
    /// Pause before the second attempt, doubled for each further one, with jitter.
    pub backoff_first: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: CONNECT_MAX,
            idle: IDLE_MAX,
            attempt: ATTEMPT_MAX,
            retry_budget: RETRY_BUDGET,
            attempts_max: ATTEMPTS_MAX,
            backoff_first: BACKOFF_FIRST,
            backoff_max: BACKOFF_MAX,
        }
    }
}

impl Limits {
    /// The pause after failed attempt number `attempt` (from 1): exponential, capped, and drawn by
    /// `random` (0 to 1) from its upper half so that many clients do not come back in step.
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.backoff_first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        doubled.min(self.backoff_max).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// As [`Limits::pause`], and at least as long as the server asked for, but no longer than the
    /// longest pause: a server that asks for hours is not let keep a run waiting.
    pub fn pause_asked_for(&self, attempt: u32, random: f64, asked: Option<Duration>) -> Duration {
        self.pause(attempt, random).max(asked.unwrap_or_default().min(self.backoff_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_keep_half() {
        let limits = Limits::default();
        assert_eq!(limits.pause(1, 1.0), Duration::from_millis(250));
        assert_eq!(limits.pause(3, 1.0), Duration::from_secs(1));
        assert_eq!(limits.pause(3, 0.0), Duration::from_millis(500));
        assert_eq!(limits.pause(u32::MAX, 1.0), BACKOFF_MAX);
    }

    #[test]
    fn a_server_may_ask_for_a_longer_pause_up_to_the_cap() {
        let limits = Limits::default();
        assert_eq!(limits.pause_asked_for(1, 1.0, None), Duration::from_millis(250));
        assert_eq!(limits.pause_asked_for(1, 1.0, Some(Duration::ZERO)), Duration::from_millis(250));
        assert_eq!(limits.pause_asked_for(1, 1.0, Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(limits.pause_asked_for(1, 1.0, Some(Duration::from_hours(9))), BACKOFF_MAX);
    }
}
