//! Whether a recovered cluster serves: it is started again, and asked.

use std::time::{Duration, Instant};

use rekindle_core::port::{Finding, PartReader, RestoreReport, RunContext};
use rekindle_core::{Fault, Result, codes};

use super::owner::Owner;
use super::seen::Seen;
use super::server::{Launch, PORT, Running};
use super::{Recovered, Setup, base_of};
use crate::postgres::catalog::get;
use crate::postgres::connect::{Server, Session};
use crate::postgres::options::PostgresOptions;
use crate::postgres::programs::Programs;
use crate::postgres::url::{Host, ServerUrl, SslMode};
use crate::postgres::users_checks;

/// A clean start has nothing to replay.
const START_MAX: Duration = Duration::from_mins(10);
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Starts the cluster, asks it, stops it.
pub(in crate::postgres) async fn check(
    setup: &Setup,
    part: &dyn PartReader,
    report: &RestoreReport,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let recovered: Recovered = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the report of the restore").because(error))?;
    let Some(proof) = &recovered.proof else {
        return Ok(vec![Finding::warning(
            "the cluster was laid out and not started, so nothing is proved yet",
            "start it, and look at its log for where it stopped",
        )]);
    };
    let base = base_of(part)?;
    let mut findings = vec![match &proof.stopped {
        Some(line) => Finding::good(format!("the server's own words: {line}")),
        None => Finding::good("replayed to the end of the log"),
    }];
    if let Some(at) = proof.last_transaction {
        findings.push(Finding::good(format!("the last transaction that was replayed ended at {at}")));
    }
    if base.checksum_failures > 0 {
        findings.push(Finding::warning(
            format!("{} pages were damaged on the server when the base backup was taken", base.checksum_failures),
            "look at the tables with pg_amcheck; restore from an older base backup if they matter",
        ));
    }
    let (programs, owner) = (
        Programs {
            directory: recovered.bin_dir.clone(),
            major: base.server_version / 10_000,
            version: String::new(),
            home: None,
        },
        recovered.owner.map(|(uid, gid)| Owner { uid, gid }),
    );
    let (data, copy) = (recovered.directory.clone(), !recovered.in_place);
    let (cancel, private) = (context.cancel.clone(), setup.options.private_dir.clone());
    let running = crate::postgres::blocking(move || {
        let private = private.as_deref();
        let launch = Launch { programs: &programs, data: &data, owner, private, copy, more: Vec::new() };
        let mut running = launch.start()?;
        wait_ready(&mut running, &cancel)?;
        Ok(running)
    })
    .await?;
    let wanted = Wanted { system: base.cluster.system.to_string(), timeline: proof.timeline.0, until: recovered.until };
    let asked = ask(&setup.options, &running, &wanted, &mut findings).await;
    crate::postgres::blocking(move || running.stop()).await?;
    asked?;
    Ok(findings)
}

fn wait_ready(running: &mut Running, cancel: &rekindle_core::Cancel) -> Result<()> {
    let (mut seen, since) = (Seen::default(), Instant::now());
    while since.elapsed() < START_MAX {
        cancel.check()?;
        let ended = running.ended();
        for line in running.lines()? {
            seen.line(&line);
        }
        if seen.ready {
            return Ok(());
        }
        if let Some(status) = ended {
            return Err(Fault::new(codes::PITR_SERVER, "start the recovered cluster for its check")
                .because(format!("the server ended with {status}: {}", seen.words.join("; "))));
        }
        std::thread::sleep(super::POLL);
    }
    Err(Fault::new(codes::PITR_SERVER, "start the recovered cluster for its check")
        .because(format!("it was not ready within {} min", START_MAX.as_secs() / 60)))
}

/// A connection to the recovered server, as the first role that is there.
async fn connect(options: &PostgresOptions, running: &Running, database: &str) -> Result<Session> {
    let mut last = None;
    for user in ["postgres", options.url.user.as_str()] {
        let url = ServerUrl {
            host: Host::Socket(running.socket().to_owned()),
            port: PORT,
            user: user.to_owned(),
            database: database.to_owned(),
            ssl_mode: SslMode::Disable,
            root_certificate: None,
        };
        let server = Server { url, password: None, connect_timeout: CONNECT_MAX };
        match server.connect(database).await {
            Ok(session) => return Ok(session),
            Err(fault) => last = Some(fault),
        }
    }
    Err(last.unwrap_or_else(|| Fault::new(codes::RUN_BUG, "connect to the recovered server")))
}

/// What the cluster must say of itself.
struct Wanted {
    system: String,
    timeline: u32,
    /// Nothing in it may be newer.
    until: Option<jiff::Timestamp>,
}

async fn ask(options: &PostgresOptions, running: &Running, wanted: &Wanted, findings: &mut Vec<Finding>) -> Result<()> {
    let Wanted { system, timeline, until } = wanted;
    let session = match connect(options, running, "postgres").await {
        Ok(session) => session,
        Err(_) => connect(options, running, "template1").await?,
    };
    let sql = "SELECT pg_is_in_recovery(), (SELECT timeline_id FROM pg_control_checkpoint()), \
               (SELECT system_identifier::text FROM pg_control_system()), current_setting('data_checksums')";
    let row = session.row("ask the recovered server who it is", sql, &[]).await?;
    let (recovering, now, who): (bool, i32, String) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    let as_planned = !recovering && who == *system && u32::try_from(now) == Ok(*timeline);
    findings.push(if as_planned {
        Finding::good(format!("it serves as cluster {who} on timeline {now}"))
    } else {
        Finding::bad(
            format!("it says: cluster {who}, timeline {now}, in recovery: {recovering}"),
            format!("expected cluster {system} on timeline {timeline}; do not use this directory"),
        )
    });
    let sql = "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
    let names: Vec<String> =
        session.rows("list the databases", sql, &[]).await?.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    drop(session);
    for name in names {
        match database(options, running, &name, *until, findings).await {
            Ok(()) => {}
            Err(fault) => {
                findings.push(Finding::bad(fault.chain(), "the database cannot be read; do not use this directory"));
            }
        }
    }
    if !options.checks.is_empty() {
        match connect(options, running, &options.url.database).await {
            Ok(session) => findings.extend(users_checks::ask(&session, &options.checks).await?),
            Err(_) => findings.push(users_checks::no_database(&options.url.database)),
        }
    }
    Ok(())
}

/// Reads the catalogue of one database and looks at every relation; and at its heartbeat, if it has
/// one.
async fn database(
    options: &PostgresOptions,
    running: &Running,
    name: &str,
    until: Option<jiff::Timestamp>,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let session = connect(options, running, name).await?;
    let sql = "SELECT count(*), coalesce(sum(pg_relation_size(c.oid)), 0)::int8, \
               to_regclass('rekindle.heartbeat') IS NOT NULL \
               FROM pg_class c WHERE c.relkind IN ('r', 'm', 'i', 't', 'S')";
    let row = session.row("look at every relation", sql, &[]).await?;
    let (count, bytes, beats): (i64, i64, bool) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    findings.push(Finding::good(format!("database `{name}`: {count} relations, {bytes} bytes, all there")));
    if beats {
        let sql = "SELECT max(seq), (extract(epoch FROM max(at)) * 1000000)::int8 FROM rekindle.heartbeat";
        let row = session.row("read the heartbeat", sql, &[]).await?;
        if let (Some(seq), Some(micros)) = (get::<Option<i64>>(&row, 0)?, get::<Option<i64>>(&row, 1)?)
            && let Ok(at) = jiff::Timestamp::from_microsecond(micros)
        {
            findings.push(if until.is_some_and(|until| at > until) {
                Finding::bad(
                    format!("the heartbeat {seq} in `{name}` is of {at}, behind the target"),
                    "the recovery went too far; do not use this directory",
                )
            } else {
                Finding::good(format!("the newest heartbeat in `{name}` is number {seq}, of {at}"))
            });
        }
    }
    Ok(())
}
