//! A recovery for reading: plan, progress, report.

use std::fmt::Write as _;
use std::io::Write as _;

use rekindle_config::Config;
use rekindle_core::port::Recovery;
use rekindle_core::proof_record::{self, Outcome, ProofRecord};
use rekindle_core::timeline::Stop;
use rekindle_core::{Fault, codes};
use rekindle_engine::recover::{Choice, Do, Entry, RecoveredComponent, RecoveryPlan, RecoveryReport, Replay, Step};

use super::Prepared;
use super::needs::Need;
use super::state::Read;
use crate::human;
use crate::output::Answer;
use crate::session::Session;

/// Words before a long run go to standard error: standard output has one answer, at the end.
pub(super) fn tell(session: &Session, text: &str) {
    if !session.global.quiet {
        // Nobody may be reading; the recovery goes on.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

// Writing into a `String` cannot fail.
pub(super) fn plan(prepared: &Prepared, needs: &[Need]) -> String {
    let Prepared { plan, source, .. } = prepared;
    let moment =
        plan.at.map_or_else(|| "the newest state".to_owned(), |at| format!("the state of {}", human::time(at)));
    let mut text = format!("recover `{}` of {} to {moment}\nconfiguration: {}\n", plan.stack, plan.host, source.origin);
    if let Some(differences) = &prepared.differences {
        let _ = write!(text, "\nIt differs from the configuration of this host (-), which is not used:\n{differences}");
    }
    let rows: Vec<Vec<String>> = plan
        .choices
        .iter()
        .map(|one| {
            vec![
                one.component.to_string(),
                one.kind.to_string(),
                one.point.short().to_owned(),
                human::time(one.captured_at),
                one.entries.to_string(),
                human::bytes(one.bytes),
            ]
        })
        .collect();
    let _ = write!(
        text,
        "\n{}\nskew between the components: {}\n",
        human::table(&["COMPONENT", "KIND", "POINT", "STATE OF", "ENTRIES", "SIZE"], &rows),
        human::millis(plan.skew_ms)
    );
    for one in &plan.choices {
        if let Some(why) = &one.passed_over {
            let _ = writeln!(text, "ATTENTION: {}: a newer point is not used: {why}", one.component);
        }
        if let Some(recovery) = prepared.recoveries.get(&one.component) {
            replayed(one, recovery, &mut text);
        }
    }
    text.push_str("\nsteps:\n");
    for (number, step) in plan.steps.iter().enumerate() {
        let of = step.component.as_ref().map_or("the applications", |id| id.as_str());
        let forecast = step.forecast_ms.map_or_else(String::new, |ms| format!("  (about {})", human::millis(ms)));
        let _ = writeln!(text, "  {:>2}. {} {of}{forecast}", number + 1, step.act.as_str());
    }
    forecasts(plan, &prepared.config, &mut text);
    for need in needs {
        let word = if need.required { "MISSING" } else { "note" };
        let _ = writeln!(text, "\n{word}: {}\n  {}", need.what, need.remedy);
    }
    text
}

/// How far a base backup is brought.
fn replayed(one: &Choice, recovery: &Recovery, text: &mut String) {
    let (plan, id) = (&recovery.plan, &one.component);
    let target = match one.replay {
        Some(Replay::Moment(at)) => format!("exactly {at}"),
        Some(Replay::End) if plan.target.stop == Stop::Latest => match plan.ends.newest_commit {
            Some(commit) => format!("the end of the log; its newest commit is of {}", commit.at),
            None => "the end of the log".to_owned(),
        },
        _ => "its own end, and not further".to_owned(),
    };
    let _ = writeln!(
        text,
        "{id}: the base backup of {} is brought to {target}; {} segments are replayed",
        human::time(plan.base.stopped),
        plan.chain.segments.len()
    );
    if one.before_suspicious && one.replay == Some(Replay::Itself) {
        let _ = writeln!(
            text,
            "ATTENTION: {id}: the log leads on to what is suspicious and is not replayed: --at TIME stops in between, \
             --allow-suspicious goes to its end"
        );
    }
}

/// The sum, and components that will probably miss their objective.
fn forecasts(plan: &RecoveryPlan, config: &Config, text: &mut String) {
    let measured = |step: &&Step| matches!(step.act, Do::Restore | Do::Check);
    let total: Option<u64> = plan.steps.iter().filter(measured).map(|step| step.forecast_ms).sum();
    let bytes: u64 = plan.choices.iter().map(|one| one.bytes).sum();
    match total {
        Some(ms) => {
            let rate = u128::from(bytes) * 1000 / u128::from(ms.max(1));
            let rate = human::bytes(u64::try_from(rate).unwrap_or(u64::MAX));
            let _ = writeln!(
                text,
                "forecast, from earlier recoveries and drills, one component after the other: {} for {} ({rate} a second)",
                human::millis(ms),
                human::bytes(bytes)
            );
        }
        None => text.push_str("forecast: none, no recovery or drill of all of it was measured\n"),
    }
    for one in &config.components {
        let of_it = |step: &&Step| step.component.as_ref() == Some(&one.id) && measured(step);
        let expected: Option<u64> = plan.steps.iter().filter(of_it).map(|step| step.forecast_ms).sum();
        if let (Some(rto), Some(ms)) = (one.objective.rto_seconds, expected)
            && ms > rto.saturating_mul(1000)
        {
            let (id, rto, ms) = (&one.id, human::seconds(rto), human::millis(ms));
            let _ = writeln!(text, "ATTENTION: {id}: about {ms} are expected, its objective `rto` is {rto}");
        }
    }
}

/// What is done already.
pub(super) fn resumed(plan: &RecoveryPlan, entries: &[Entry]) -> String {
    let done = entries.iter().filter(|entry| matches!(entry, Entry::Done { .. })).count();
    format!(
        "goes on with the recovery of `{}` that was begun at {}: {done} of {} steps were done\n",
        plan.stack,
        human::time(plan.made),
        plan.steps.len()
    )
}

/// How long the step took when this component was last recovered here, for its size now.
pub(super) fn forecast(journals: &[Read], choice: &Choice, act: Do) -> Option<u64> {
    if !matches!(act, Do::Restore | Do::Check) {
        return None;
    }
    journals.iter().rev().filter(|read| read.is_finished()).find_map(|read| {
        let then = read.plan.choices.iter().find(|one| one.component == choice.component)?;
        let step = read
            .plan
            .steps
            .iter()
            .position(|step| step.act == act && step.component.as_ref() == Some(&then.component))?;
        let took = read.entries.iter().rev().find_map(|entry| match entry {
            Entry::Done { step: done, elapsed_ms, .. } if *done == step => Some(*elapsed_ms),
            _ => None,
        })?;
        let scaled = u128::from(took) * u128::from(choice.bytes.max(1)) / u128::from(then.bytes.max(1));
        // A smaller one still takes its fixed time.
        u64::try_from(scaled.max(u128::from(took / 2))).ok()
    })
}

/// The same from drills, wherever they ran.
pub(super) fn forecast_of_drills(proofs: &[ProofRecord], stack: &str, choice: &Choice, act: Do) -> Option<u64> {
    match act {
        Do::Restore => {
            let expected = proof_record::forecast(proofs, stack, &choice.component, choice.bytes)?;
            Some(expected.seconds.saturating_mul(1000))
        }
        Do::Check => {
            let mut passed = proof_record::drills(proofs, stack, &choice.component)
                .rev()
                .filter(|(_, found)| found.outcome == Outcome::Passed);
            let (_, newest) = passed.next()?;
            newest.steps.iter().find(|step| step.name == "check").map(|step| step.elapsed_ms)
        }
        _ => None,
    }
}

pub(super) fn answer(report: &RecoveryReport, note: &str) -> Answer {
    let whole = report.is_whole();
    let mut text = format!(
        "`{}` is {} after {}\n\n",
        report.stack,
        if whole { "back" } else { "NOT all back" },
        human::millis(report.elapsed_ms)
    );
    let rows: Vec<Vec<String>> = report.components.iter().map(row).collect();
    text.push_str(&human::table(&["COMPONENT", "STATE", "STATE OF", "TIME", "RTO", "PLACE"], &rows));
    for one in &report.components {
        details(one, &mut text);
    }
    text.push_str(match report.started {
        None => "",
        Some(true) => "\nThe applications are started.\n",
        Some(false) => "\nThe applications are NOT started: something is not back.\n",
    });
    text.push_str(note);
    let late: Vec<String> = report
        .components
        .iter()
        .filter(|one| one.rto_met == Some(false))
        .map(|one| format!("`{}`", one.component))
        .collect();
    let answer = Answer::words(report, text).exit(report.exit_code());
    let answer = report.faults.iter().map(copy).fold(answer, Answer::with_fault);
    if late.is_empty() || !whole {
        return answer;
    }
    let what = format!("recover {} within the objective", late.join(", "));
    answer.with_fault(
        Fault::new(codes::ENGINE_OBJECTIVE, what)
            .hint("everything is back; look at what took so long, or allow a longer `rto`"),
    )
}

/// Faults belong to the report; an answer has its own.
fn copy(fault: &Fault) -> Fault {
    let same = Fault::new(fault.code(), fault.chain());
    match fault.hint_text() {
        Some(hint) => same.hint(hint),
        None => same,
    }
}

fn row(one: &RecoveredComponent) -> Vec<String> {
    let rto = match (one.rto_seconds, one.rto_met) {
        (Some(rto), Some(true)) => format!("met ({})", human::seconds(rto)),
        (Some(rto), Some(false)) => format!("MISSED ({})", human::seconds(rto)),
        (Some(rto), None) => human::seconds(rto),
        (None, _) => "-".to_owned(),
    };
    vec![
        one.component.to_string(),
        one.state.to_owned(),
        human::time(one.captured_at),
        human::millis(one.elapsed_ms),
        rto,
        one.place.clone().unwrap_or_default(),
    ]
}

fn details(one: &RecoveredComponent, text: &mut String) {
    if let Some(kept) = &one.kept {
        let _ = writeln!(text, "{}: the old state is kept at {kept}", one.component);
    }
    for warning in &one.warnings {
        let _ = writeln!(text, "{}: {warning}", one.component);
    }
    for finding in one.findings.iter().filter(|finding| !finding.starts_with("ok:")) {
        let _ = writeln!(text, "{}: {finding}", one.component);
    }
}
