//! Metrics as text.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use rekindle_core::schedule::JobName;

use super::names::{self, Kind, Metric};
use super::{JobState, Snapshot};
use crate::view::CopyView;

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, for `/metrics`.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, for the node exporter's textfile collector.
    Prometheus,
}

struct Writer {
    text: String,
    format: Format,
    stack: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Writer {
    fn family(&mut self, metric: Metric, samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let family = match (self.format, metric.kind) {
            (Format::OpenMetrics, Kind::Counter) => metric.name.trim_end_matches("_total"),
            _ => metric.name,
        };
        let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing into a `String` cannot fail.
        let _ = writeln!(self.text, "# HELP {family} {}\n# TYPE {family} {kind}", metric.help);
        for (labels, value) in samples {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.sample(metric.name, &labels, value);
        }
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let _ = write!(self.text, "{name}{{stack=\"{}\"", escaped(&self.stack));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(moment: Timestamp) -> f64 {
    Duration::from_millis(u64::try_from(moment.as_millisecond()).unwrap_or(0)).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "samples are floating point numbers")]
fn count(number: i64) -> f64 {
    number as f64
}

fn size(number: u64) -> f64 {
    count(i64::try_from(number).unwrap_or(i64::MAX))
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn of_job(job: &JobName) -> Vec<(&'static str, String)> {
    let component = job.component.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![("task", job.task.to_string()), ("component", component)]
}

fn of_component(id: &impl ToString) -> Vec<(&'static str, String)> {
    vec![("component", id.to_string())]
}

/// The whole text.
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut writer = Writer { text: String::new(), format, stack: snapshot.stack.clone() };
    writer.family(names::UP, [(Vec::new(), 1.0)]);
    writer.family(names::BUILD, [(vec![("version", snapshot.version.clone())], 1.0)]);
    writer.family(names::WRITTEN, [(Vec::new(), seconds(snapshot.now))]);
    jobs(&mut writer, snapshot);
    counters(&mut writer, snapshot);
    components(&mut writer, snapshot);
    repository(&mut writer, snapshot);
    copies(&mut writer, snapshot);
    let up = snapshot.streams.iter().map(|stream| (of_component(&stream.component), flag(stream.up)));
    writer.family(names::WAL_UP, up);
    writer.family(names::NOTIFICATIONS_WAITING, [(Vec::new(), count(snapshot.parcels_waiting))]);
    if format == Format::OpenMetrics {
        writer.text.push_str("# EOF\n");
    }
    writer.text
}

fn jobs(writer: &mut Writer, snapshot: &Snapshot) {
    let jobs = || snapshot.jobs.iter();
    let each = |value: fn(&JobState) -> Option<f64>| {
        jobs().filter_map(move |state| Some((of_job(&state.job.name), value(state)?))).collect::<Vec<_>>()
    };
    writer.family(names::ATTEMPT_TIME, each(|state| Some(seconds(state.newest.as_ref()?.started))));
    writer.family(names::ATTEMPT_GOOD, each(|state| Some(flag(state.newest.as_ref()?.good))));
    writer.family(names::SUCCESS_TIME, each(|state| Some(seconds(state.newest_good?))));
    writer.family(
        names::DURATION,
        each(|state| {
            let run = state.newest.as_ref()?;
            Some(seconds(run.ended?) - seconds(run.started))
        }),
    );
    writer.family(names::INTERVAL, each(|state| Some(state.job.schedule.longest_gap().as_secs_f64())));
    let overdue = |name: &JobName| snapshot.agenda.overdue.iter().any(|one| one.job == *name);
    writer.family(names::OVERDUE, jobs().map(|one| (of_job(&one.job.name), flag(overdue(&one.job.name)))));
    writer.family(names::RUNNING, each(|state| Some(flag(state.running))));
    let queued = |name: &JobName| snapshot.agenda.queue.iter().any(|one| one.job == *name);
    writer.family(names::QUEUED, jobs().map(|one| (of_job(&one.job.name), flag(queued(&one.job.name)))));
    writer.family(
        names::STORED_BYTES,
        each(|state| {
            state.job.name.component.as_ref()?;
            Some(count(state.newest_run_good.as_ref()?.stored_bytes?))
        }),
    );
}

fn counters(writer: &mut Writer, snapshot: &Snapshot) {
    let mut totals = snapshot.totals.clone();
    // There from the first look on: a counter that appears with its first increase shows none.
    for receiver in &snapshot.receivers {
        for word in ["sent", "retried", "lost"] {
            totals.entry(("notifications".to_owned(), format!("{receiver} {word}"))).or_default();
        }
    }
    for stream in &snapshot.streams {
        totals.entry(("wal restarts".to_owned(), stream.component.to_string())).or_default();
    }
    let labelled = |wanted: &'static str, labels: [&'static str; 2]| {
        let mine = totals.iter().filter(move |((name, _), _)| name == wanted);
        mine.map(move |((_, label), number)| {
            let mut words = label.splitn(2, ' ');
            let named = labels.into_iter().filter(|label| !label.is_empty());
            let named = named.map(|label| (label, words.next().unwrap_or_default().to_owned())).collect();
            (named, count(*number))
        })
        .collect::<Vec<_>>()
    };
    writer.family(names::RUNS, labelled("runs", ["task", "result"]));
    writer.family(names::MISSED, labelled("missed", ["task", ""]));
    writer.family(names::NOTIFICATIONS, labelled("notifications", ["receiver", "result"]));
    writer.family(names::WAL_RESTARTS, labelled("wal restarts", ["component", ""]));
}

fn components(writer: &mut Writer, snapshot: &Snapshot) {
    let views = &snapshot.view.components;
    let each = |value: &dyn Fn(&crate::view::ComponentView) -> Option<f64>| {
        views.iter().filter_map(|one| Some((of_component(&one.id), value(one)?))).collect::<Vec<_>>()
    };
    writer.family(names::DATA_TIME, each(&|one| one.data_at.map(seconds)));
    writer.family(names::DATA_BYTES, each(&|one| one.captured_at.map(|_| size(one.bytes))));
    let verdict = |word: &str| match word {
        "met" => Some(0.0),
        "at-risk" => Some(1.0),
        "missed" => Some(2.0),
        _ => None,
    };
    writer.family(names::VERDICT, each(&|one| verdict(&one.verdict)));
    let now = seconds(snapshot.now);
    writer.family(names::RPO_CURRENT, each(&|one| one.data_at.map(|at| (now - seconds(at)).max(0.0))));
    writer.family(names::WAL_LAG, each(&|one| one.log_to.map(|at| (now - seconds(at)).max(0.0))));
    writer.family(names::RTO_MEASURED, each(&|one| one.restore_seconds.map(size)));
    writer.family(names::PROOF_TIME, each(&|one| one.proved_at.map(seconds)));
    let targets = [(names::RPO_TARGET, 0), (names::RTO_TARGET, 1), (names::PROOF_TARGET, 2)];
    for (metric, which) in targets {
        let of =
            |one: &rekindle_core::objective::Objective| [one.rpo_seconds, one.rto_seconds, one.proof_seconds][which];
        let list = snapshot.objectives.iter();
        writer.family(metric, list.filter_map(|(id, one)| Some((of_component(id), size(of(one)?)))));
    }
}

fn copies(writer: &mut Writer, snapshot: &Snapshot) {
    let each = |value: &dyn Fn(&CopyView) -> Option<f64>| {
        let copies = snapshot.view.copies.iter();
        copies.filter_map(|one| Some((vec![("copy", one.name.clone())], value(one)?))).collect::<Vec<_>>()
    };
    let now = seconds(snapshot.now);
    // Of a copy that was never looked at nothing is known; else it grows while it cannot be reached.
    let lag = |one: &CopyView| {
        one.read_at?;
        Some(one.behind_since.map_or(0.0, |since| (now - seconds(since)).max(0.0)))
    };
    writer.family(names::COPY_LAG, each(&lag));
    writer.family(names::COPY_DATA_TIME, each(&|one| one.newest.map(seconds)));
    writer.family(names::COPY_POINTS, each(&|one| one.read_at.map(|_| size(one.points))));
    writer.family(names::COPY_REACHABLE, each(&|one| Some(flag(one.reachable))));
    writer.family(names::COPY_OVERDUE, each(&|one| one.read_at.map(|_| flag(one.overdue))));
}

fn repository(writer: &mut Writer, snapshot: &Snapshot) {
    let view = &snapshot.view;
    let one = |value: Option<f64>| value.map(|value| (Vec::new(), value));
    writer.family(names::POINTS, one(view.read_at.map(|_| size(view.points))));
    writer.family(names::NEWEST_COMPLETE, one(view.newest_complete.map(flag)));
    writer.family(names::REPOSITORY_READ, one(view.read_at.map(seconds)));
    writer.family(names::REPOSITORY_REACHABLE, one(Some(flag(view.reachable))));
    writer.family(names::REPOSITORY_FREE, one(view.free_bytes.map(size)));
}
