//! `[component.<id>]`: what all kinds have in common.

use std::ops::Range;
use std::time::Duration;

use rekindle_core::objective::Objective;
use rekindle_core::tripwire::Thresholds;
use rekindle_core::{ComponentId, codes};
use toml::de::{DeTable, DeValue};

use super::{kinds, monitoring, policy};
use crate::model::{Component, InContainer, Kind, Recover};
use crate::section::{At, Section};
use crate::spec;
use crate::value;
use rekindle_core::schedule::Schedule;

/// Every component with the place of its name, in the order of the file. `None` when the table is
/// not there or one of them is not usable.
pub(super) fn all(top: &Section<'_>, usual: &Thresholds) -> Option<Vec<(Component, Range<usize>)>> {
    let (table, span) = top.raw_table("component")?;
    let mut names: Vec<_> = table.iter().collect();
    names.sort_by_key(|(name, _)| name.span().start);
    if names.is_empty() {
        top.bad("component", &span, "there is no component", "add one, for example `[component.files]`");
    }
    let mut list = Some(Vec::new());
    for (name, value) in names {
        let id = name.get_ref().parse::<ComponentId>();
        if let Err(bad) = &id {
            let key = name.get_ref().escape_debug().to_string();
            top.bad(&format!("component.{key}"), &name.span(), bad.rule, "rename the component");
        }
        let one = if let DeValue::Table(table) = value.get_ref() {
            one(top, name.get_ref(), table, name.span(), usual)
        } else {
            let why = "a component is a table with a `kind`";
            let key = format!("component.{}", name.get_ref().escape_debug());
            top.bad(&key, &name.span(), why, "write for example `[component.files]`");
            None
        };
        match (id, one, &mut list) {
            (Ok(id), Some(parts), Some(list)) => list.push((parts.into_component(id), name.span())),
            _ => list = None,
        }
    }
    list
}

/// A component that has no checked name yet.
struct Nameless {
    kind: Kind,
    container: Option<InContainer>,
    schedule: Option<Schedule>,
    objective: Objective,
    retention: Option<crate::model::Retention>,
    hooks: crate::model::Hooks,
    checks: crate::model::Checks,
    tripwire: Thresholds,
    recover: Recover,
}

impl Nameless {
    fn into_component(self, id: ComponentId) -> Component {
        let Self { kind, container, schedule, objective, retention, hooks, checks, tripwire, recover } = self;
        Component { id, kind, container, schedule, objective, retention, hooks, checks, tripwire, recover }
    }
}

fn one<'a>(
    top: &Section<'a>,
    name: &str,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    usual: &Thresholds,
) -> Option<Nameless> {
    let dotted = format!("component.{}", name.escape_debug());
    let kind = kind_of(top, &dotted, table, &span)?;
    let keys = spec::of_kind(kind)?;
    let section = Section::new(dotted, table, span, keys, top.sink);
    let schedule = section.schedule("schedule");
    let objectives = section.table("objective", spec::OBJECTIVE);
    let objective = objectives.as_ref().map(policy::objective).unwrap_or_default();
    if let Some(schedule) = &schedule {
        in_time(&section, schedule, &objective);
    }
    let retention = match section.table("retention", spec::RETENTION) {
        Some(table) => Some(policy::retention(&table)?),
        None => None,
    };
    let hooks = section.table("hooks", spec::HOOKS);
    let hooks = hooks.as_ref().map(policy::hooks).unwrap_or_default();
    let container = section.container("container").map(|name| InContainer { name, docker_host: None });
    let checks = policy::checks(&section, kind);
    let tripwire = section.table("tripwire", spec::TRIPWIRE);
    let tripwire = tripwire.map_or(*usual, |section| policy::tripwire(&section, usual));
    let recover = section.table("recover", spec::RECOVER).as_ref().map(policy::recover).unwrap_or_default();
    let kind = match kind {
        "postgres" => kinds::postgres(&section).map(Kind::Postgres),
        "redis" => kinds::redis(&section).map(Kind::Redis),
        "grafana" => monitoring::grafana(&section).map(Kind::Grafana),
        "prometheus" => monitoring::prometheus(&section).map(Kind::Prometheus),
        _ => kinds::files(&section).map(Kind::Files),
    };
    let schedule = schedule.map(|at| at.value);
    Some(Nameless { kind: kind?, container, schedule, objective, retention, hooks, checks, tripwire, recover })
}

/// The kind decides which keys are known, so it is looked at before them.
fn kind_of(top: &Section<'_>, dotted: &str, table: &DeTable<'_>, span: &Range<usize>) -> Option<&'static str> {
    let known = || spec::KINDS.iter().map(|(name, _)| *name);
    let all = || format!("write `kind = \"{}\"`", known().collect::<Vec<_>>().join("\"`, `\""));
    let key = format!("{dotted}.kind");
    let Some(value) = table.get("kind") else {
        top.bad(&key, span, "it is missing", all());
        return None;
    };
    let DeValue::String(word) = value.get_ref() else {
        top.bad(&key, &value.span(), "it must be a text", all());
        return None;
    };
    if let Some(kind) = known().find(|kind| kind == word) {
        return Some(kind);
    }
    let hint = value::nearest(word, known()).map_or_else(all, |near| format!("did you mean `{near}`?"));
    top.bad(&key, &value.span(), &format!("`{}` is no kind of component", word.escape_debug()), hint);
    None
}

/// Just before a capture commits, the newest one is as old as the gap plus the time a run takes:
/// a schedule with a gap of the whole RPO misses it every time.
fn in_time(section: &Section<'_>, schedule: &At<Schedule>, objective: &Objective) {
    let Some(rpo) = objective.rpo_seconds else {
        return;
    };
    let gap = schedule.value.longest_gap();
    let rpo = Duration::from_secs(rpo);
    if gap >= rpo {
        let why = format!(
            "its longest gap is {}, so it cannot meet the RPO of {}",
            value::duration_text(gap),
            value::duration_text(rpo)
        );
        let hint = format!(
            "let it come more often than every {}, leaving time for the run itself; or allow a longer `rpo`",
            value::duration_text(rpo)
        );
        section.wrong(codes::CONFIG_OBJECTIVE, "schedule", &schedule.span, &why, hint);
    }
}
