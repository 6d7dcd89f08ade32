//! `wal verify`

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use rekindle_core::point::RecoveryPoint;
use rekindle_core::wal::lineage::{Reach, reach, survey, timelines};
use rekindle_core::wal::retention::covers;
use rekindle_core::wal::{Cluster, Inventory, Lineage, Lsn, SystemId, Timeline, WalArchive, WalLog, check_pages};
use rekindle_core::{Cancel, Class, Fault, Result, codes};
use rekindle_repo::points;
use serde::Serialize;
use serde_json::json;

use super::bases::{self, Base};
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::wire;

/// Prove that the WAL of every base backup is there without a hole
///
/// Ends with 4 when something is missing or damaged. Gaps that are recorded and have a base backup behind them are
/// told and do not count.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Read every segment back: decrypt it, compare its hash, check the header of every page
    #[arg(long)]
    deep: bool,
    /// Only the log of this cluster
    #[arg(long, value_name = "ID")]
    system: Option<SystemId>,
}

/// How far one base backup can be recovered.
#[derive(Debug, Serialize)]
struct Way {
    point: String,
    timeline: Timeline,
    from: Lsn,
    upto: Lsn,
    /// The WAL that the base backup itself needs is there.
    consistent: bool,
    hole: Option<String>,
}

/// What was found about one log.
#[derive(Debug, Serialize)]
struct Verdict {
    system: SystemId,
    segments: usize,
    segments_read: usize,
    ways: Vec<Way>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Verify {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let archive = super::archive(&repository);
        let view = points::view(&repository)?;
        let points: Vec<&RecoveryPoint> = view.points.iter().collect();
        let mut verdicts = Vec::new();
        for cluster in archive.clusters()? {
            if self.system.is_none_or(|wanted| wanted == cluster.system) {
                let log = archive.log(cluster)?;
                verdicts.push(self.one(&*log, &bases::of(&points, cluster)?, &session.cancel)?);
            }
        }
        if let (Some(wanted), true) = (self.system, verdicts.is_empty()) {
            return Err(Fault::new(codes::WAL_UNBOUND, format!("find the WAL log of the cluster {wanted}"))
                .hint("rekindle wal status")
                .into());
        }
        let problems: Vec<&String> = verdicts.iter().flat_map(|verdict| &verdict.problems).collect();
        let answer = Answer::data(json!({"logs": verdicts, "good": problems.is_empty()}), text(&verdicts));
        Ok(match problems.first() {
            None => answer,
            Some(first) => {
                let fault = Fault::new(codes::WAL_GAP, "verify the WAL log").because((*first).clone());
                let fault = fault.hint("recover to a moment before it, or take a new base backup now");
                let code = fault.exit_code();
                answer.exit(code).with_fault(fault)
            }
        })
    }

    fn one(&self, log: &dyn WalLog, bases: &[Base], cancel: &Cancel) -> Result<Verdict> {
        let cluster = log.cluster();
        let inventory = log.inventory()?;
        let mut verdict = Verdict {
            system: cluster.system,
            segments: inventory.segments.len(),
            segments_read: 0,
            ways: Vec::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        let lineage = match survey(log) {
            Ok((_, lineage)) => lineage,
            Err(fault) if fault.class() == Class::Damaged => {
                verdict.problems.push(fault.chain());
                Lineage::default()
            }
            Err(fault) => return Err(fault),
        };
        for timeline in timelines(&inventory).into_iter().filter(|timeline| !lineage.knows(*timeline)) {
            verdict.problems.push(format!("the history of timeline {timeline} is missing"));
        }
        ways(&inventory, &lineage, bases, &mut verdict);
        if bases.is_empty() {
            verdict.notes.push("no base backup: nothing can be recovered from this log yet".to_owned());
        }
        for gap in &inventory.gaps {
            verdict
                .notes
                .push(format!("known gap on timeline {}: {} to {} ({})", gap.timeline, gap.from, gap.to, gap.why));
        }
        if self.deep {
            deep(log, &inventory, cancel, &mut verdict)?;
        }
        Ok(verdict)
    }
}

fn ways(inventory: &Inventory, lineage: &Lineage, bases: &[Base], verdict: &mut Verdict) {
    let size = inventory.cluster.segment_size;
    for (point, base) in bases {
        let consistent = covers(inventory, base);
        if !consistent {
            verdict.problems.push(format!("base backup {point}: WAL that it needs itself is missing"));
        }
        for target in timelines(inventory).into_iter().filter(|one| lineage.leads(base.timeline, base.stop, *one)) {
            let Reach { upto, missing, hole } = reach(inventory, lineage, target, base.start);
            let hole = hole.then(|| missing.file(size));
            if let Some(file) = &hole {
                let known = inventory.gaps.iter().any(|gap| {
                    gap.timeline == missing.timeline
                        && gap.from < missing.number.end(size)
                        && gap.to > missing.number.start(size)
                });
                let newer = bases.iter().any(|(_, other)| other.start > upto);
                let what = format!("base backup {point}, timeline {target}: `{file}` is missing, later WAL is there");
                if known && newer { verdict.notes.push(what) } else { verdict.problems.push(what) }
            }
            verdict.ways.push(Way { point: point.clone(), timeline: target, from: base.stop, upto, consistent, hole });
        }
    }
}

/// Reads everything back.
fn deep(log: &dyn WalLog, inventory: &Inventory, cancel: &Cancel, verdict: &mut Verdict) -> Result<()> {
    let names: Vec<_> = inventory.segments.keys().copied().collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(segment) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if cancel.is_cancelled() {
                        return;
                    }
                    if let Err(fault) = read_back(log, *segment, inventory.cluster) {
                        found.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
                    }
                }
            });
        }
    });
    cancel.check()?;
    verdict.segments_read = names.len();
    for segment in inventory.tails.keys() {
        if let Err(fault) = log.tail(*segment) {
            found.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        }
    }
    for fault in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        if fault.class() == Class::Unreachable {
            return Err(fault);
        }
        verdict.problems.push(fault.chain());
    }
    verdict.problems.sort();
    Ok(())
}

fn read_back(log: &dyn WalLog, segment: rekindle_core::wal::SegmentName, cluster: Cluster) -> Result<()> {
    let file = segment.file(cluster.segment_size);
    let bytes = log.segment(segment)?.ok_or_else(|| {
        Fault::new(codes::WAL_GAP, format!("read `{file}`")).because("it was listed and is not there")
    })?;
    check_pages(&bytes, segment, cluster)
        .map(drop)
        .map_err(|bad| Fault::new(codes::WAL_DAMAGED, format!("check the pages of `{file}`")).because(bad))
}

fn text(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    if verdicts.is_empty() {
        text.push_str("There is no WAL log in this repository.\n");
    }
    for verdict in verdicts {
        let _ = writeln!(
            text,
            "cluster {}: {} segments, {} read back",
            verdict.system, verdict.segments, verdict.segments_read
        );
        for way in &verdict.ways {
            let end = way.hole.as_ref().map(|file| format!(", then `{file}` is missing")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  base {} on timeline {}: recoverable from {} to {}{end}",
                way.point, way.timeline, way.from, way.upto
            );
        }
        for note in &verdict.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        for problem in &verdict.problems {
            let _ = writeln!(text, "  PROBLEM: {problem}");
        }
    }
    text
}
