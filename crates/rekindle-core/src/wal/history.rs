//! Timeline history files: where each timeline left its parent (`timeline.c` of PostgreSQL).

use std::fmt;

use super::{Lsn, Timeline};

/// A timeline was left at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// The timeline that was left.
    pub parent: Timeline,
    /// Where: the child's own log begins here.
    pub at: Lsn,
}

/// The ancestors of a timeline, oldest first. Empty for the first timeline of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History(pub Vec<Switch>);

/// A history file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHistory {
    /// Counted from 1.
    pub line: usize,
    pub why: &'static str,
}

impl fmt::Display for BadHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadHistory {}

impl History {
    /// Reads the file `<timeline>.history`. Its lines are `parent<TAB>position<TAB>reason`;
    /// comments start with `#`. A file without any line is refused: only timeline 1 has no
    /// ancestors, and it has no file.
    pub fn parse(timeline: Timeline, text: &[u8]) -> Result<Self, BadHistory> {
        let mut switches: Vec<Switch> = Vec::new();
        let mut last_line = 0;
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            last_line = index + 1;
            let bad = |why| BadHistory { line: index + 1, why };
            // The reason is free text in any encoding; only the first two fields matter.
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fields = line.split_ascii_whitespace();
            let parent = fields.next().and_then(|field| field.parse().ok()).ok_or(bad("no timeline at its start"))?;
            let at = fields.next().and_then(|field| field.parse().ok()).ok_or(bad("no WAL position after it"))?;
            let switch = Switch { parent: Timeline(parent), at };
            if switches.last().is_some_and(|before| before.parent >= switch.parent || before.at > switch.at) {
                return Err(bad("timelines and positions must grow from line to line"));
            }
            if switch.parent >= timeline {
                return Err(bad("a timeline cannot descend from itself or a later one"));
            }
            switches.push(switch);
        }
        if switches.is_empty() {
            return Err(BadHistory { line: last_line, why: "it names no ancestor" });
        }
        Ok(Self(switches))
    }

    /// The timeline whose log holds the byte at `lsn`, seen from `timeline`.
    pub fn timeline_at(&self, timeline: Timeline, lsn: Lsn) -> Timeline {
        self.0.iter().find(|switch| lsn < switch.at).map_or(timeline, |switch| switch.parent)
    }

    /// Where `ancestor` was left; `None` when it is no ancestor.
    pub fn left(&self, ancestor: Timeline) -> Option<Lsn> {
        self.0.iter().find(|switch| switch.parent == ancestor).map(|switch| switch.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n";

    #[test]
    fn ancestors_and_switch_points() {
        let history = History::parse(Timeline(3), FILE).unwrap();
        assert_eq!(history.left(Timeline(1)), Some(Lsn(0x300_0148)));
        assert_eq!(history.left(Timeline(3)), None);
        let at = |lsn| history.timeline_at(Timeline(3), Lsn(lsn)).0;
        assert_eq!([at(0), at(0x300_0147), at(0x300_0148), at(0x500_0000)], [1, 1, 2, 3]);
    }

    #[test]
    fn broken_files_are_refused() {
        for bad in [&b""[..], b"# only\n", b"x\t0/1\n", b"1\n", b"2\t0/5\n1\t0/6\n", b"1\t0/5\n2\t0/4\n", b"3\t0/1\n"] {
            assert!(History::parse(Timeline(3), bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
