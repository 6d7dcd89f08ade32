//! Small languages inside values: durations, argument lists; and the nearest known word.

use std::fmt::Write as _;
use std::time::Duration;

/// No duration of a configuration is longer (100 years).
const DURATION_SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// `90s`, `30m`, `1h30m`, `8d`, `2w`: whole numbers with units, largest first or not.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| format!("`{text}` does not start with a whole number"))?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let factor = match &rest[..letters] {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            "" => return Err(format!("`{text}` has no unit")),
            other => return Err(format!("`{other}` is not a unit of time")),
        };
        rest = rest[letters..].trim_start();
        seconds = number
            .checked_mul(factor)
            .and_then(|part| seconds.checked_add(part))
            .filter(|sum| *sum <= DURATION_SECONDS_MAX)
            .ok_or_else(|| format!("`{text}` is longer than 100 years"))?;
    }
    if seconds == 0 {
        return Err(format!("`{text}` is no time at all"));
    }
    Ok(Duration::from_secs(seconds))
}

/// A duration as a configuration would say it.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, size) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= size {
            // Writing into a `String` cannot fail.
            let _ = write!(text, "{}{unit}", rest / size);
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Splits a command line at blanks. Single and double quotes keep blanks together, a backslash
/// outside single quotes takes the next character as it is; nothing is expanded.
pub(crate) fn words(line: &str) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => list.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".to_owned());
    }
    list.extend(word);
    Ok(list)
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = given.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&plain, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).clamp(1, 3))
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        assert_eq!(seconds("8d"), Ok(691_200));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        for bad in ["", "5", "h", "1 hour", "-1h", "0s", "1.5h", "99999999w", "1h5", "18446744073709551616s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_text(Duration::from_secs(93_784)), "1d2h3m4s");
    }

    #[test]
    fn command_lines_are_split_and_never_expanded() {
        let split = |text| words(text).unwrap();
        assert_eq!(split("pass show  a"), ["pass", "show", "a"]);
        assert_eq!(split("x 'a b' \"c d\" e\\ f ''"), ["x", "a b", "c d", "e f", ""]);
        assert_eq!(split("echo $HOME *"), ["echo", "$HOME", "*"]);
        assert_eq!(split("'a\\b'"), ["a\\b"]);
        assert!(words("'a").is_err());
        assert!(words("a\\").is_err());
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["url", "password", "databases", "keep-daily"];
        assert_eq!(nearest("ulr", known), Some("url"));
        assert_eq!(nearest("pasword", known), Some("password"));
        assert_eq!(nearest("keep_daily", known), Some("keep-daily"));
        assert_eq!(nearest("Database", known), Some("databases"));
        assert_eq!(nearest("frequency", known), None);
    }
}
