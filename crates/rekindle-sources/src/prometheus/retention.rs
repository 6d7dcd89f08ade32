//! Retention of a server, as it says it: `15d`, `10GiB`, `15d or 10GiB`.

use std::time::Duration;

/// How long and how much a server keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Retention {
    pub(super) time: Option<Duration>,
    pub(super) bytes: Option<u64>,
}

impl Retention {
    /// What is not understood counts as not limited.
    pub(super) fn parse(text: &str) -> Self {
        let mut retention = Self::default();
        for part in text.split(" or ") {
            match (duration(part.trim()), bytes(part.trim())) {
                (Some(time), _) => retention.time = Some(time),
                (None, Some(size)) => retention.bytes = Some(size),
                (None, None) => {}
            }
        }
        retention
    }
}

/// `1w2d3h`, with the units of Prometheus (`y w d h m s ms`).
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let one = match &rest[..unit] {
            "y" => Duration::from_hours(365 * 24),
            "w" => Duration::from_hours(7 * 24),
            "d" => Duration::from_hours(24),
            "h" => Duration::from_hours(1),
            "m" => Duration::from_mins(1),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return None,
        };
        total += one * number;
        rest = &rest[unit..];
    }
    (!total.is_zero()).then_some(total)
}

/// `10GiB`, `512MB`: powers of 1024 both ways, as Prometheus reads them.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let power = match text[digits..].trim_end_matches('B').trim_end_matches('i') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        "P" => 5,
        _ => return None,
    };
    let whole: u64 = text[..digits].split('.').next()?.parse().ok()?;
    (text.ends_with('B') && whole > 0).then(|| whole.saturating_mul(1024_u64.pow(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_read_as_the_server_writes_them() {
        let days = |days: u64| Some(Duration::from_hours(24 * days));
        assert_eq!(Retention::parse("15d"), Retention { time: days(15), bytes: None });
        assert_eq!(Retention::parse("2w1d or 10GiB"), Retention { time: days(15), bytes: Some(10 << 30) });
        assert_eq!(Retention::parse("512MB"), Retention { time: None, bytes: Some(512 << 20) });
        for unlimited in ["", "0s", "forever", "12x"] {
            assert_eq!(Retention::parse(unlimited), Retention::default(), "{unlimited}");
        }
    }
}
