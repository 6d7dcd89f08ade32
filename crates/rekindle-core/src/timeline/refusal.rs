//! Why a target cannot be reached, and what can.

use std::fmt;

use super::chain::End;
use super::plan::Ends;
use super::target::Stop;
use crate::fault::{ErrorCode, Fault, codes};
use crate::wal::{Cluster, Gap, Lsn, SegmentName, Timeline};

/// Why recovery was refused before anything was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no base backup.
    NoBase,
    /// The target is older than everything that can be recovered.
    BeforeFirst { target: Stop, earliest: String },
    /// The target is beyond what the log holds.
    AfterEnd { target: Stop, reach: Lsn, ends: Ends },
    /// A segment is missing before the target.
    Hole { target: Stop, missing: SegmentName, next: SegmentName, reach: Lsn, ends: Ends },
    /// The log was lost there.
    InGap { target: Stop, gap: Gap, ends: Ends },
    /// No base backup lies on the way to that timeline.
    OtherTimeline { timeline: Timeline, timelines: Vec<Timeline> },
    /// Nobody can say where that timeline came from.
    HistoryMissing { timeline: Timeline },
    /// The log and the base backup are of clusters with other segment sizes.
    OtherSegmentSize { cluster: Cluster },
    /// The transaction or restore point is not in the log.
    NotInLog { target: Stop, names: Vec<String>, broken: Option<End> },
}

impl Refusal {
    /// The documented kind.
    pub fn code(&self) -> &'static ErrorCode {
        match self {
            Self::NoBase => codes::PITR_NO_BASE,
            Self::BeforeFirst { .. } => codes::PITR_BEFORE,
            Self::AfterEnd { .. } => codes::PITR_AFTER,
            Self::Hole { .. } => codes::PITR_HOLE,
            Self::InGap { .. } => codes::PITR_GAP,
            Self::OtherTimeline { .. } => codes::PITR_TIMELINE,
            Self::HistoryMissing { .. } => codes::PITR_HISTORY,
            Self::OtherSegmentSize { .. } => codes::PITR_SYSTEM,
            Self::NotInLog { .. } => codes::PITR_NOT_FOUND,
        }
    }

    /// As the error of a command. `segment_file` names a segment as its file.
    pub fn fault(&self, segment_file: impl Fn(SegmentName) -> String) -> Fault {
        let fault = match self {
            Self::Hole { target, missing, next, .. } => Fault::new(
                self.code(),
                format!(
                    "recover to {target}: the log lacks the segment {}, and goes on with {}",
                    segment_file(*missing),
                    segment_file(*next)
                ),
            ),
            _ => Fault::new(self.code(), format!("recover: {self}")),
        };
        fault.hint(self.remedy())
    }

    fn remedy(&self) -> String {
        match self {
            Self::NoBase => "rekindle backup DATABASE takes the first one".to_owned(),
            Self::BeforeFirst { .. } => {
                "rekindle restore-points list shows what can be reached; the nearest is the earliest named here"
                    .to_owned()
            }
            Self::AfterEnd { ends, reach, .. } => nearest(ends, *reach, "--latest"),
            Self::Hole { ends, reach, .. } => {
                let nearest = nearest(ends, *reach, &format!("--lsn {}", ends.last_record.unwrap_or(*reach)));
                format!("{nearest}; or put the missing segment back: `rekindle wal push FILE` from the server's pg_wal")
            }
            Self::InGap { gap, ends, .. } => {
                nearest(ends, gap.from, &format!("--lsn {}", ends.last_record.unwrap_or(gap.from)))
            }
            Self::OtherTimeline { timelines, .. } => {
                let one = timelines.last().map_or(1, |timeline| timeline.0);
                format!("choose the timeline of a base backup, for example --timeline {one}")
            }
            Self::HistoryMissing { timeline } => format!(
                "copy {:08X}.history from the server's pg_wal: `rekindle wal push FILE`; or choose an older \
                 timeline with --timeline",
                timeline.0
            ),
            Self::OtherSegmentSize { .. } => "choose a point of the cluster whose log this is".to_owned(),
            Self::NotInLog { .. } => "rekindle restore-points list shows what can be reached".to_owned(),
        }
    }
}

fn nearest(ends: &Ends, reach: Lsn, option: &str) -> String {
    match ends.newest_commit {
        Some(commit) => {
            format!("the newest commit that can be reached is of {} ({}): restore with {option}", commit.at, commit.lsn)
        }
        None => format!("the log can be replayed to {reach}: restore with {option}"),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBase => f.write_str("there is no base backup"),
            Self::BeforeFirst { target, earliest } => {
                write!(f, "{target} is before the first base backup was complete; the earliest is {earliest}")
            }
            Self::AfterEnd { target, reach, ends } => match (target, ends.newest_commit) {
                (Stop::Time(_), Some(commit)) => write!(
                    f,
                    "nothing in the log is newer than {target}: its newest commit is of {}; so whether the log goes \
                     as far cannot be known",
                    commit.at
                ),
                _ => write!(f, "{target} is beyond the end of the log at {}", ends.last_record.unwrap_or(*reach)),
            },
            Self::Hole { target, missing, next, .. } => {
                let (missing, next) = (missing.number.0, next.number.0);
                write!(f, "{target} lies behind a hole in the log: segment {missing} is missing, {next} is there")
            }
            Self::InGap { target, gap, .. } => write!(
                f,
                "{target} lies behind WAL that was lost on timeline {} from {} to {} ({}, noticed {})",
                gap.timeline, gap.from, gap.to, gap.why, gap.noticed
            ),
            Self::OtherTimeline { timeline, timelines } => {
                let list: Vec<String> = timelines.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "no base backup lies on the way to timeline {timeline}; there are some on {}",
                    list.join(", ")
                )
            }
            Self::HistoryMissing { timeline } => {
                write!(f, "the log holds timeline {timeline}, but not its history")
            }
            Self::OtherSegmentSize { cluster } => {
                write!(f, "the log of the cluster {} has another segment size than the base backup", cluster.system)
            }
            Self::NotInLog { target, names, broken } => {
                write!(f, "{target} is not in the log")?;
                if !names.is_empty() {
                    let shown = &names[names.len().saturating_sub(10)..];
                    write!(f, "; it has the restore points `{}`", shown.join("`, `"))?;
                }
                match broken {
                    Some(End::Gap(gap)) => write!(f, "; WAL was lost from {} to {}", gap.from, gap.to),
                    Some(End::Hole { missing, .. }) => write!(f, "; its segment {} is missing", missing.number.0),
                    Some(End::Head) | None => Ok(()),
                }
            }
        }
    }
}
