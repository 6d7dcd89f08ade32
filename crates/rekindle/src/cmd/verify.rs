//! `verify`

use std::fmt::Write as _;

use clap::Args;
use rekindle_core::port::{Monitor, RunContext};
use rekindle_core::proof_record::{Outcome, PROOF_VERSION, PartOf, ProofRecord, VerificationResult, Work, next_part};
use rekindle_core::{Fault, PointId, Result, codes};
use rekindle_repo::verify::{Subset, VerifyOptions, VerifyReport, verify};
use rekindle_repo::{Repo, points, proofs};

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Lines of the text for each list; `--json` has all.
const SHOWN_MAX: usize = 20;
/// Most runs of one cycle.
const RUNS_MAX: u32 = 1000;

/// Check every object of the repository, and with --read-data the saved data itself
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Read data back and compare it with its hashes: `all`, `2/7` (a part), `5%` or `500M` (random) [default: all]
    #[arg(long, value_name = "SUBSET", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    read_data: Option<Subset>,
    /// Read back the part that comes after the one read last, so that all is read once in so many runs; progress is
    /// kept in the repository
    #[arg(long, value_name = "1/RUNS", conflicts_with = "read_data", value_parser = share)]
    next: Option<u32>,
}

/// `1/30`.
fn share(text: &str) -> Result<u32, String> {
    let runs = text.strip_prefix("1/").and_then(|runs| runs.parse().ok()).filter(|runs| (1..=RUNS_MAX).contains(runs));
    runs.ok_or_else(|| format!("write `1/N`, such as `1/30`, with N from 1 to {RUNS_MAX}"))
}

impl Verify {
    /// Whether saved data itself is read.
    pub(crate) fn reads_data(&self) -> bool {
        self.read_data.is_some() || self.next.is_some()
    }

    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let (context, _scratch) = session.context()?;
        let started = session.now();
        let part = match self.next {
            None => None,
            Some(of) => Some(next_part(&proofs::read_all(&repository)?, of)),
        };
        let subset = part.map(|PartOf { part, of }| Subset::Part { part, of }).or(self.read_data);
        let report = verify(&repository, &VerifyOptions { read_data: subset }, &session.cancel)?;
        let mut text = text(&report, subset.is_some());
        if let Some(PartOf { part, of }) = part {
            // Writing into a `String` cannot fail.
            let _ = writeln!(text, "this was part {part} of {of}");
        }
        let recorded = part.is_some() || subset == Some(Subset::All);
        let written = if recorded { record(&repository, part, &report, started, session, &context) } else { Ok(()) };
        let mut result = serde_json::to_value(&report).unwrap_or_default();
        result["part"] = serde_json::json!(part);
        let answer = Answer::data(result, text);
        if !report.is_good() {
            let what = format!("verify the repository: {} things are wrong", report.damage.len());
            let fault = Fault::new(codes::ENGINE_VERIFY, what)
                .hint("`rekindle restore` still gives back what is whole and names the rest; put damaged objects back from a copy of the repository");
            return Ok(answer.exit(fault.exit_code()).with_fault(fault));
        }
        match written {
            Ok(()) => Ok(answer),
            // Without a record the next run would read the same part again.
            Err(fault) if part.is_some() => Ok(answer.exit(fault.exit_code()).with_fault(fault)),
            // A repository that may only be read can be verified; the points stay `unverified`.
            Err(fault) => {
                session.progress.problem("verify", &fault);
                Ok(answer)
            }
        }
    }
}

/// Enters the result into the chain of proofs.
fn record(
    repository: &Repo,
    part: Option<PartOf>,
    report: &VerifyReport,
    started: jiff::Timestamp,
    session: &Session,
    context: &RunContext,
) -> Result<()> {
    let damaged: Vec<PointId> = report.affected.iter().filter_map(|point| point.point.parse().ok()).collect();
    // Damage that belongs to no point (a key, an index) makes no point doubtful by itself.
    let view = points::view(repository)?;
    let whole = view.points.iter().filter(|point| point.time() < started).map(|point| point.id().clone());
    let found = VerificationResult {
        part,
        packs_read: report.packs_read,
        bytes_read: report.bytes_read,
        damage: report.damage.len() as u64,
        points: whole.filter(|id| !damaged.contains(id)).collect(),
        damaged,
    };
    let record = ProofRecord {
        version: PROOF_VERSION,
        sequence: 0,
        previous: None,
        started,
        finished: session.now(),
        outcome: if report.is_good() { Outcome::Passed } else { Outcome::Failed },
        user: wire::user_name(),
        host: wire::host_name(),
        run: context.run.as_str().to_owned(),
        tool: concat!("rekindle ", env!("CARGO_PKG_VERSION")).to_owned(),
        work: Work::Verification(found),
    };
    proofs::append(repository, &record).map(drop)
}

fn text(report: &VerifyReport, read_data: bool) -> String {
    let mut text = format!(
        "points {}, snapshots {}, packs {}, trees {}, ledger records {}, proofs {}\n",
        report.points, report.snapshots, report.packs, report.trees, report.ledger_records, report.proof_records
    );
    // Writing into a `String` cannot fail.
    let _ = if read_data {
        writeln!(text, "read back: {} packs, {}", report.packs_read, human::bytes(report.bytes_read))
    } else {
        writeln!(text, "data was not read back (--read-data does)")
    };
    if report.orphan_packs > 0 {
        let _ = writeln!(text, "{} packs belong to nothing: `rekindle prune` removes them", report.orphan_packs);
    }
    for damage in report.damage.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "DAMAGE {} [{}]: {}", damage.object, damage.code, damage.why);
    }
    more(&mut text, report.damage.len());
    for point in &report.affected {
        let _ = writeln!(
            text,
            "point {}: {} paths are not whole",
            &point.point[..8.min(point.point.len())],
            point.path_count
        );
        for path in point.paths.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "  {path}");
        }
        more(&mut text, usize::try_from(point.path_count).unwrap_or(usize::MAX));
    }
    for point in &report.unrecorded {
        let _ = writeln!(
            text,
            "warning: the ledger has no record of point {}: its run was stopped at its very end, or the newest record was removed; the next backup records it again",
            point.short()
        );
    }
    if report.is_good() {
        text.push_str("nothing is wrong\n");
    }
    text
}

fn more(text: &mut String, count: usize) {
    if let Some(more) = count.checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        let _ = writeln!(text, "  … {more} more (--json shows them)");
    }
}
