//! `wal status`

use std::fmt::Write as _;

use clap::Args;
use rekindle_config::{Config, Kind};
use rekindle_core::wal::lineage::runs;
use rekindle_core::wal::{Cluster, Gap, Hold, Inventory, Lsn, Owner, SystemId, Timeline, WalArchive};
use rekindle_core::{ComponentId, Fault, Result, codes};
use rekindle_repo::wal::Archive;
use rekindle_sources::postgres::receiver::{ServerFacts, left_timeline, server_facts, warnings};
use serde::Serialize;
use serde_json::json;

use super::server;
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

/// A receiver speaks every ten seconds; longer than this is not a busy moment.
const SILENT_MS_MAX: i64 = 30_000;

/// Show what the WAL logs hold, and how far they are behind their servers
///
/// Asks the servers of the configuration. Ends with 4 when a server cannot be asked, its archiver fails, its slot is
/// lost or missing, or its WAL is not arriving.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Look at the repository only
    #[arg(long)]
    no_server: bool,
}

#[derive(Debug, Serialize)]
struct Stretch {
    timeline: Timeline,
    first: String,
    last: String,
    from: Lsn,
    upto: Lsn,
}

#[derive(Debug, Serialize)]
struct LogState {
    system: SystemId,
    segment_bytes: u32,
    segments: usize,
    stored_bytes: u64,
    head: Option<Lsn>,
    runs: Vec<Stretch>,
    /// Open segments and the bytes that are there of them.
    tails: Vec<(String, u32)>,
    histories: Vec<Timeline>,
    gaps: Vec<Gap>,
    holds: Vec<Hold>,
}

#[derive(Debug, Serialize)]
struct ServerState {
    component: ComponentId,
    system: Option<SystemId>,
    server: Option<ServerFacts>,
    behind_bytes: Option<u64>,
    behind_seconds: Option<i64>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Status {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let config = match (&session.global.repo, self.no_server) {
            (None, _) => Some(wire::config(session)?),
            (Some(_), _) if session.global.config.is_some() => Some(wire::config(session)?),
            _ => None,
        };
        let place = match &config {
            Some(config) => wire::of_config(session, config, wire::password_given(session)?.as_ref())?,
            None => wire::place(session)?,
        };
        let archive = super::archive(&wire::open(session, &place)?);
        let mut logs = Vec::new();
        let mut inventories = Vec::new();
        for cluster in archive.clusters()? {
            let inventory = archive.log(cluster)?.inventory()?;
            logs.push(state(&inventory));
            inventories.push(inventory);
        }
        let mut servers = Vec::new();
        if let Some(config) = config.as_ref().filter(|_| !self.no_server) {
            for component in followed(config) {
                servers.push(ask(session, config, &archive, &component, &inventories)?);
            }
        }
        let problem = servers.iter().find_map(|one| Some((&one.component, one.problems.first()?)));
        let fault = problem.map(|(component, problem)| {
            Fault::new(codes::WAL_GAP, format!("keep the WAL of `{component}`"))
                .because(problem.clone())
                .hint("look at the server's log, and at the receiver or `archive_command`")
        });
        let answer = Answer::data(json!({"logs": logs, "servers": servers}), text(&logs, &servers));
        Ok(match fault {
            Some(fault) => {
                let code = fault.exit_code();
                answer.exit(code).with_fault(fault)
            }
            None => answer,
        })
    }
}

/// Components whose WAL is kept.
fn followed(config: &Config) -> Vec<ComponentId> {
    let kept = |kind: &Kind| match kind {
        Kind::Postgres(postgres) => matches!(
            &postgres.method,
            rekindle_config::PostgresMethod::Physical(physical) if physical.wal.keeps_log()
        ),
        _ => false,
    };
    config.components.iter().filter(|one| kept(&one.kind)).map(|one| one.id.clone()).collect()
}

fn state(inventory: &Inventory) -> LogState {
    let size = inventory.cluster.segment_size;
    let stretch = |run: rekindle_core::wal::lineage::Run| {
        let name = |number| rekindle_core::wal::SegmentName { timeline: run.timeline, number }.file(size);
        Stretch {
            timeline: run.timeline,
            first: name(run.first),
            last: name(run.last),
            from: run.first.start(size),
            upto: run.last.end(size),
        }
    };
    LogState {
        system: inventory.cluster.system,
        segment_bytes: size.bytes(),
        segments: inventory.segments.len(),
        stored_bytes: inventory.segments.values().map(|sealed| sealed.stored_bytes).sum(),
        head: head(inventory),
        runs: runs(inventory).into_iter().map(stretch).collect(),
        tails: inventory.tails.iter().map(|(segment, bytes)| (segment.file(size), *bytes)).collect(),
        histories: inventory.histories.iter().copied().collect(),
        gaps: inventory.gaps.clone(),
        holds: inventory.holds.clone(),
    }
}

/// The furthest position of the newest timeline.
fn head(inventory: &Inventory) -> Option<Lsn> {
    let size = inventory.cluster.segment_size;
    let sealed = inventory.segments.keys().map(|segment| (segment.timeline, segment.number.end(size)));
    let open = inventory
        .tails
        .iter()
        .map(|(segment, bytes)| (segment.timeline, Lsn(segment.number.start(size).0 + u64::from(*bytes))));
    sealed.chain(open).max().map(|(_, lsn)| lsn)
}

fn ask(
    session: &Session,
    config: &Config,
    archive: &Archive,
    component: &ComponentId,
    inventories: &[Inventory],
) -> Result<ServerState> {
    let owner = Owner { stack: config.stack.name.clone(), component: component.clone() };
    let bound: Option<Cluster> = archive.bound(&owner)?;
    let log = bound.and_then(|cluster| inventories.iter().find(|one| one.cluster == cluster));
    let mut state = ServerState {
        component: component.clone(),
        system: bound.map(|cluster| cluster.system),
        server: None,
        behind_bytes: None,
        behind_seconds: None,
        warnings: Vec::new(),
        problems: Vec::new(),
    };
    let (options, slot) = server::options(config, component)?;
    let streams = server::streams(config, component);
    let facts = match server_facts(&options, streams.then_some(&slot), &session.cancel) {
        Ok(facts) => facts,
        Err(fault) => {
            state.problems.push(fault.chain());
            return Ok(state);
        }
    };
    if let (Some(log), Some(timeline)) = (log, facts.timeline) {
        state.warnings.extend(left_timeline(log, timeline));
    }
    if let Some(log) = log {
        measure(&mut state, log, &facts, session.now());
    } else {
        state.problems.push("none of its WAL is in the repository yet".to_owned());
    }
    if streams {
        state.warnings.extend(warnings(&facts));
        match facts.slot.as_ref().map(|slot| slot.wal_status.as_deref()) {
            None => state.problems.push(format!("the replication slot `{slot}` is not there: no receiver runs")),
            Some(Some("lost")) => state.problems.push(format!("the replication slot `{slot}` is lost")),
            Some(_) if facts.slot.as_ref().is_some_and(|slot| !slot.active) => {
                state.problems.push(format!("no receiver uses the replication slot `{slot}`"));
            }
            Some(_) => {}
        }
    }
    if facts.archiver.failing {
        let file = facts.archiver.last_failed.clone().unwrap_or_default();
        state.problems.push(format!("`archive_command` fails, the last time for `{file}`"));
    }
    if facts.system.is_some() && state.system.is_some() && facts.system != state.system {
        state.problems.push("the server is another cluster than the one this component is bound to".to_owned());
    }
    state.server = Some(facts);
    Ok(state)
}

fn measure(state: &mut ServerState, log: &Inventory, facts: &ServerFacts, now: jiff::Timestamp) {
    let behind = head(log).map(|head| facts.position.0.saturating_sub(head.0));
    state.behind_bytes = behind;
    let slot = facts.slot.as_ref().filter(|slot| slot.active);
    // What was measured last says nothing any more once the receiver is not heard of.
    let silent = slot.and_then(|slot| slot.silent_ms).filter(|ms| *ms > SILENT_MS_MAX);
    let measured = facts.slot.as_ref().and_then(|slot| slot.lag_ms).max(silent).map(|ms| ms / 1000);
    let newest = log.segments.values().filter_map(|sealed| sealed.stored_at).max();
    state.behind_seconds = match (behind, measured) {
        (Some(0), _) => Some(0),
        (_, Some(seconds)) => Some(seconds),
        _ => newest.map(|at| now.duration_since(at).as_secs().max(0)),
    };
    if let (Some(ms), Some(1..)) = (silent, behind) {
        let text = format!("the server has not heard of the receiver for {} s: its WAL is not arriving", ms / 1000);
        state.problems.push(text);
    }
}

fn text(logs: &[LogState], servers: &[ServerState]) -> String {
    let mut text = String::new();
    if logs.is_empty() {
        text.push_str("There is no WAL log in this repository.\n");
    }
    for log in logs {
        let _ = writeln!(
            text,
            "cluster {}: {} segments of {}, {} stored, up to {}",
            log.system,
            log.segments,
            human::bytes(u64::from(log.segment_bytes)),
            human::bytes(log.stored_bytes),
            log.head.map_or_else(|| "-".to_owned(), |head| head.to_string()),
        );
        for run in &log.runs {
            let _ = writeln!(text, "  timeline {}: {} to {} without a hole", run.timeline, run.first, run.last);
        }
        for (segment, bytes) in &log.tails {
            let _ = writeln!(text, "  open: {segment}, {} of it", human::bytes(u64::from(*bytes)));
        }
        for gap in &log.gaps {
            let _ = writeln!(text, "  GAP on timeline {}: {} to {} ({})", gap.timeline, gap.from, gap.to, gap.why);
        }
        for hold in &log.holds {
            let _ = writeln!(text, "  held from {} until {}: {}", hold.from, human::time(hold.until), hold.why);
        }
    }
    for server in servers {
        let behind = match (server.behind_bytes, server.behind_seconds) {
            (Some(bytes), Some(seconds)) => {
                format!("behind by {} ({} s)", human::bytes(bytes), seconds)
            }
            (Some(bytes), None) => format!("behind by {}", human::bytes(bytes)),
            _ => "not measured".to_owned(),
        };
        let _ = writeln!(text, "{}: {behind}", server.component);
        if let Some(slot) = server.server.as_ref().and_then(|facts| facts.slot.as_ref()) {
            let active = if slot.active { "in use" } else { "NOT in use" };
            let _ = writeln!(text, "  slot {}: {active}, {}", slot.name, slot.wal_status.as_deref().unwrap_or("-"));
        }
        if let Some(facts) = &server.server {
            let _ = writeln!(text, "  archiver: {} stored, {} failed", facts.archiver.archived, facts.archiver.failed);
        }
        for warning in &server.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        for problem in &server.problems {
            let _ = writeln!(text, "  PROBLEM: {problem}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rekindle_core::wal::{SegmentName, SegmentNumber, SegmentSize};
    use rekindle_sources::postgres::receiver::{ArchiverFacts, SlotFacts};

    use super::*;

    const KEPT: u32 = 8192;

    fn log() -> Inventory {
        let name = SegmentName { timeline: Timeline(1), number: SegmentNumber(0) };
        Inventory {
            cluster: Cluster { system: SystemId(1), segment_size: SegmentSize::DEFAULT },
            segments: BTreeMap::new(),
            tails: BTreeMap::from([(name, KEPT)]),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: BTreeSet::new(),
            gaps: Vec::new(),
            holds: Vec::new(),
        }
    }

    /// A server so many bytes ahead of the log, whose slot is used by a receiver.
    fn measured(ahead: u64, lag_ms: Option<i64>, silent_ms: Option<i64>) -> ServerState {
        let slot = SlotFacts {
            name: "one".to_owned(),
            active: true,
            restart: None,
            wal_status: None,
            safe_bytes: None,
            lag_ms,
            silent_ms,
        };
        let archiver = ArchiverFacts { archived: 0, failed: 0, last_archived: None, last_failed: None, failing: false };
        let facts = ServerFacts {
            system: None,
            timeline: None,
            position: Lsn(u64::from(KEPT) + ahead),
            in_recovery: false,
            archive_mode: "off".to_owned(),
            archiver,
            slot: Some(slot),
            keep_bytes_max: None,
            idle_slot_seconds: 0,
        };
        let mut state = ServerState {
            component: "database".parse().unwrap(),
            system: None,
            server: None,
            behind_bytes: None,
            behind_seconds: None,
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        measure(&mut state, &log(), &facts, jiff::Timestamp::UNIX_EPOCH);
        state
    }

    #[test]
    fn a_receiver_that_is_not_heard_of_is_a_problem_and_its_last_lag_does_not_count() {
        let well = measured(1000, Some(200), Some(9000));
        assert_eq!((well.behind_bytes, well.behind_seconds), (Some(1000), Some(0)));
        assert!(well.problems.is_empty());
        let away = measured(1000, Some(200), Some(45_000));
        assert_eq!(away.behind_seconds, Some(45));
        assert!(away.problems.iter().any(|text| text.contains("45 s")), "{:?}", away.problems);
        // Nothing is missing: nothing is told.
        let done = measured(0, Some(200), Some(45_000));
        assert!(done.behind_seconds == Some(0) && done.problems.is_empty(), "{:?}", done.problems);
        // A role that may not see it.
        assert_eq!(measured(5, Some(2000), None).behind_seconds, Some(2));
    }
}
