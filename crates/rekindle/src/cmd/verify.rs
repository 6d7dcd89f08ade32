//! `verify`

use std::fmt::Write as _;

use clap::Args;
use rekindle_core::{Fault, codes};
use rekindle_repo::verify::{Subset, VerifyOptions, VerifyReport, verify};

use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// Lines of the text for each list; `--json` has all.
const SHOWN_MAX: usize = 20;

/// Check every object of the repository, and with --read-data the saved data itself
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Read data back and compare it with its hashes: `all`, `2/7` (a part), `5%` or `500M` (random) [default: all]
    #[arg(long, value_name = "SUBSET", num_args = 0..=1, default_missing_value = "all", require_equals = true)]
    read_data: Option<Subset>,
}

impl Verify {
    pub(crate) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let repository = wire::open(session, &wire::place(session)?)?;
        let report = verify(&repository, &VerifyOptions { read_data: self.read_data }, &session.cancel)?;
        let text = text(&report, self.read_data.is_some());
        let answer = Answer::data(&report, text);
        if report.is_good() {
            return Ok(answer);
        }
        let what = format!("verify the repository: {} things are wrong", report.damage.len());
        let fault = Fault::new(codes::ENGINE_VERIFY, what)
            .hint("`rekindle restore` still gives back what is whole and names the rest; put damaged objects back from a copy of the repository");
        Ok(answer.exit(fault.exit_code()).with_fault(fault))
    }
}

fn text(report: &VerifyReport, read_data: bool) -> String {
    let mut text = format!(
        "points {}, snapshots {}, packs {}, trees {}, ledger records {}\n",
        report.points, report.snapshots, report.packs, report.trees, report.ledger_records
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
