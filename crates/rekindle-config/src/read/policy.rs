//! Hooks, objectives and retention.

use rekindle_core::objective::Objective;
use rekindle_core::retention::Policy;

use crate::model::{Checks, Drill, Hooks};
use crate::section::Section;

/// Fewest complete points kept when the configuration does not say.
const MIN_KEEP: u32 = 3;

pub(super) fn hooks(section: &Section<'_>) -> Hooks {
    Hooks {
        before: section.commands("before"),
        after: section.commands("after"),
        on_error: section.commands("on-error"),
        timeout: section.duration("timeout").map(|at| at.value),
        container: section.container("container"),
    }
}

pub(super) fn objective(section: &Section<'_>) -> Objective {
    let seconds = |key| section.duration(key).map(|at| at.value.as_secs());
    Objective { rpo_seconds: seconds("rpo"), rto_seconds: seconds("rto"), proof_seconds: seconds("proof") }
}

/// `None` when a directory is not usable.
pub(super) fn drill(section: &Section<'_>) -> Option<Drill> {
    let programs = match section.span_of("programs") {
        Some(_) => super::kinds::paths(section, "programs")?,
        None => Vec::new(),
    };
    Some(Drill {
        dir: section.path("dir"),
        timeout: section.duration("timeout").map(|at| at.value),
        memory_mib: section.integer("memory-mib"),
        disk_mib: section.integer("disk-mib"),
        programs,
    })
}

/// SQL for PostgreSQL, commands for the others.
pub(super) fn checks(section: &Section<'_>, kind: &str) -> Checks {
    if kind == "postgres" {
        let sql = section.texts("checks").map(|at| at.value.into_iter().map(|one| one.value.to_owned()).collect());
        return Checks { sql: sql.unwrap_or_default(), commands: Vec::new() };
    }
    Checks { sql: Vec::new(), commands: section.commands("checks") }
}

/// `None` when it names no rule: an empty policy would keep everything and look like one.
pub(super) fn retention(section: &Section<'_>) -> Option<Policy> {
    let rules = ["keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-within"];
    if rules.iter().all(|rule| section.span_of(rule).is_none()) {
        section.bad_self(
            "it names no rule, so nothing would ever be removed",
            "add a rule such as `keep-daily = 30`, or remove the table",
        );
        return None;
    }
    let count = |key| section.integer::<u32>(key);
    Some(Policy {
        last: count("keep-last").unwrap_or(0),
        hourly: count("keep-hourly").unwrap_or(0),
        daily: count("keep-daily").unwrap_or(0),
        weekly: count("keep-weekly").unwrap_or(0),
        monthly: count("keep-monthly").unwrap_or(0),
        yearly: count("keep-yearly").unwrap_or(0),
        within_seconds: section.duration("keep-within").map(|at| at.value.as_secs()),
        min_keep: count("min-keep").unwrap_or(MIN_KEEP),
    })
}
