//! Numbers, times and tables for people.

use jiff::tz::TimeZone;

/// Bytes with a binary unit: `0 B`, `1.5 KiB`, `12 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut whole, mut tenths, mut unit) = (count, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenths} {}", UNITS[unit])
    }
}

/// The two largest units of a duration: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
pub(crate) fn seconds(count: u64) -> String {
    let (d, h, m, s) = (count / 86_400, count / 3600 % 24, count / 60 % 60, count % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// Milliseconds, exact below ten seconds.
pub(crate) fn millis(count: u64) -> String {
    if count < 10_000 { format!("{}.{:02} s", count / 1000, count % 1000 / 10) } else { seconds(count / 1000) }
}

/// A moment on the clock of this host.
pub(crate) fn time(moment: jiff::Timestamp) -> String {
    let zoned = moment.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Rows under a head, columns as wide as their widest cell. Cells must be free of line breaks.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            let blanks = width - cell.chars().count() + 2;
            text.extend(std::iter::repeat_n(' ', blanks));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let sizes = [0, 1023, 1024, 1536, 150 * 1024, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "150 KiB", "5.0 GiB", "16383 PiB"]);
        let times = [0, 59, 60, 3725, 90_000].map(seconds);
        assert_eq!(times, ["0 s", "59 s", "1 min 0 s", "1 h 2 min", "1 d 1 h"]);
        assert_eq!(millis(1234), "1.23 s");
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [vec!["a".to_owned(), "bcd".to_owned()], vec!["äöü".to_owned(), String::new()]];
        assert_eq!(table(&["X", "Y"], &rows), "X    Y\na    bcd\näöü\n");
    }
}
