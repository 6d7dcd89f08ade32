//! Hooks, objectives and retention.

use rekindle_core::objective::Objective;
use rekindle_core::retention::Policy;
use rekindle_core::tripwire::Thresholds;

use crate::model::{Checks, Drill, Hooks, Recover, Retention};
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

/// What the table does not say is as in `usual`.
pub(super) fn tripwire(section: &Section<'_>, usual: &Thresholds) -> Thresholds {
    let size = |key, usual| section.integer::<usize>(key).unwrap_or(usual);
    let number = |key, usual| section.integer::<u64>(key).unwrap_or(usual);
    Thresholds {
        enabled: section.flag("enabled").unwrap_or(usual.enabled),
        history: size("history", usual.history),
        history_min: size("history-min", usual.history_min),
        drop_percent: number("drop-percent", usual.drop_percent),
        growth_percent: number("growth-percent", usual.growth_percent),
        change_percent: number("change-percent", usual.change_percent),
        incompressible_percent: number("incompressible-percent", usual.incompressible_percent),
        deviations: number("deviations", usual.deviations),
        count_min: number("count-min", usual.count_min),
        bytes_min: number("bytes-min", usual.bytes_min),
    }
}

pub(super) fn recover(section: &Section<'_>) -> Recover {
    Recover {
        stop: section.commands("stop"),
        start: section.commands("start"),
        timeout: section.duration("timeout").map(|at| at.value),
        ready: section.duration("ready").map(|at| at.value),
    }
}

/// `None` when it names no rule: an empty policy would keep everything and look like one.
pub(super) fn retention(section: &Section<'_>) -> Option<Retention> {
    let rules = ["keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-within"];
    if rules.iter().all(|rule| section.span_of(rule).is_none()) {
        section.bad_self(
            "it names no rule, so nothing would ever be removed",
            "add a rule such as `keep-daily = 30`, or remove the table",
        );
        return None;
    }
    let count = |key| section.integer::<u32>(key);
    let tags = section.texts("keep-tags").map(|at| at.value.into_iter().map(|one| one.value.to_owned()).collect());
    let policy = Policy {
        last: count("keep-last").unwrap_or(0),
        hourly: count("keep-hourly").unwrap_or(0),
        daily: count("keep-daily").unwrap_or(0),
        weekly: count("keep-weekly").unwrap_or(0),
        monthly: count("keep-monthly").unwrap_or(0),
        yearly: count("keep-yearly").unwrap_or(0),
        within_seconds: section.duration("keep-within").map(|at| at.value.as_secs()),
        min_keep: count("min-keep").unwrap_or(MIN_KEEP),
    };
    Some(Retention { policy, keep_tags: tags.unwrap_or_default() })
}
