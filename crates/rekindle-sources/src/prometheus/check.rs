//! Whether the restored blocks are those of the point, and whether a real Prometheus finds the same
//! data in them. Without the program the second half is *unproved*, never passed.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Finding, PartReader, RestoreReport, RunContext};
use rekindle_core::{Fault, Result, codes};
use tokio::io::AsyncReadExt;

use super::blocking;
use super::blocks::{self, TOP};
use super::details::{BlockFacts, PrometheusDetails};
use super::engine::{Engine, Links, program};
use super::options::PrometheusOptions;
use super::restore::Placed;
use crate::files::{compare, may_set_owners, show};

/// Longest time for counting the samples.
const COUNT_MAX: Duration = Duration::from_mins(10);
/// Up to so many samples are dumped one by one when a count needs it.
const DUMP_SAMPLES_MAX: u64 = 50_000_000;
/// Differences that are named one by one.
const NAMED_MAX: usize = 10;

const TAKE_AGAIN: &str = "restore again; if this repeats, run `rekindle verify --read-data`";

pub(super) async fn check(
    options: &PrometheusOptions,
    part: Arc<dyn PartReader>,
    report: &RestoreReport,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let details = PrometheusDetails::decode(&part.record().details)?;
    let placed: Placed = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the report of a restore").because(error))?;
    let (data, again) = (placed.data.clone(), context.clone());
    let expected = details.clone();
    let mut findings = blocking(move || on_disk(&*part, &data, &expected, &again)).await?;
    if findings.iter().any(|finding| finding.level == rekindle_core::port::Level::Bad) {
        return Ok(findings);
    }
    findings.extend(by_engine(options, &placed.data, &details, context).await?);
    Ok(findings)
}

fn on_disk(
    part: &dyn PartReader,
    data: &Path,
    details: &PrometheusDetails,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let within = EntryPath::new(TOP).map_err(|why| Fault::new(codes::RUN_BUG, "name the blocks").because(why))?;
    let found = compare(part, Some(&within), data, &[], may_set_owners(), context)?;
    let mut findings: Vec<Finding> = found
        .wrong
        .iter()
        .take(NAMED_MAX)
        .map(|wrong| Finding::bad(format!("`{}` {}", wrong.path, wrong.why), TAKE_AGAIN))
        .collect();
    let blocks: Vec<BlockFacts> = blocks::all(data)?.into_iter().map(|block| block.facts).collect();
    let same = blocks.iter().map(identity).eq(details.blocks.iter().map(identity));
    findings.push(if same {
        Finding::good(format!(
            "`{}` holds the {} blocks of the point: {} samples",
            show(data),
            blocks.len(),
            details.samples
        ))
    } else {
        Finding::bad(
            format!(
                "`{}` holds {} blocks, the point {}, and they differ",
                show(data),
                blocks.len(),
                details.blocks.len()
            ),
            TAKE_AGAIN,
        )
    });
    for stale in ["wal", "chunks_head", "wbl"].iter().filter(|name| data.join(name).exists()) {
        findings.push(Finding::bad(
            format!("`{}` holds an old `{stale}`", show(data)),
            "move it away before the server starts: it belongs to other blocks",
        ));
    }
    Ok(findings)
}

fn identity(block: &BlockFacts) -> (&str, i64, i64, u64, u64) {
    (&block.ulid, block.min_time, block.max_time, block.samples, block.series)
}

fn unproved(why: impl std::fmt::Display, remedy: &str) -> Vec<Finding> {
    vec![Finding::unproved(format!("no Prometheus was started on the restored blocks: {why}"), remedy)]
}

async fn by_engine(
    options: &PrometheusOptions,
    data: &Path,
    details: &PrometheusDetails,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let Some(prometheus) = program(options, "prometheus") else {
        return Ok(unproved("the program is not on this host", "install Prometheus here, or set `bin-dir`"));
    };
    let (at, run) = (data.to_owned(), context.run.to_string());
    let links = match blocking(move || Ok(Links::make(&at, &run))).await? {
        Ok(links) => links,
        Err(error) => {
            return Ok(unproved(
                format!("its blocks cannot be hard-linked: {error}"),
                "restore to a file system with hard links",
            ));
        }
    };
    let dumped = links.data();
    let engine = match Engine::start(&prometheus, links, context).await {
        Ok(engine) => engine,
        Err(fault) if fault.is(codes::PROM_BLOCK) => {
            return Ok(vec![Finding::bad(fault.chain(), TAKE_AGAIN)]);
        }
        Err(fault) => return Err(fault),
    };
    let mut findings = vec![loaded(&engine, details).await?];
    match count(&engine, details, context).await? {
        Counted::All(text) => findings.push(Finding::good(text)),
        Counted::Wrong(text) => findings.push(Finding::bad(text, TAKE_AGAIN)),
        Counted::Unknown(why) => findings.push(Finding::unproved(
            format!("the samples were not counted: {why}"),
            "query the restored server yourself",
        )),
        Counted::Fewer { counted, of } => {
            findings.push(by_dump(options, &dumped, counted, of, details).await);
        }
    }
    engine.stop().await;
    Ok(findings)
}

async fn loaded(engine: &Engine, details: &PrometheusDetails) -> Result<Finding> {
    let page = engine.server.page("/metrics").await?.unwrap_or_default();
    let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    let wanted = details.blocks.len();
    let text = |loaded: usize| format!("a Prometheus {}.x opened {loaded} of {wanted} blocks", engine.major);
    Ok(match value("prometheus_tsdb_blocks_loaded ") {
        Some(loaded) if loaded == wanted => Finding::good(text(loaded)),
        Some(loaded) => Finding::bad(format!("{}: {}", text(loaded), engine.log_tail()), TAKE_AGAIN),
        None => {
            Finding::unproved("the started Prometheus does not say how many blocks it opened", "look at its `/metrics`")
        }
    })
}

enum Counted {
    All(String),
    Wrong(String),
    /// Queries leave out staleness markers, which the blocks count as samples.
    Fewer {
        counted: u64,
        of: u64,
    },
    Unknown(String),
}

/// Counts the samples metric by metric: without their names, series would fall together.
async fn count(engine: &Engine, details: &PrometheusDetails, context: &RunContext) -> Result<Counted> {
    let (Some(min), Some(max)) = (details.min_time, details.max_time) else {
        return Ok(Counted::All("it holds no samples, as the point says".to_owned()));
    };
    let of = details.samples;
    // A range holds both of its ends up to 2.x and not its start from 3.0 on; nothing lies outside.
    let length = max - min;
    let started = Instant::now();
    let names = match engine.server.metric_names(min, max).await {
        Ok(names) => names,
        Err(fault) => return Ok(Counted::Unknown(fault.chain())),
    };
    let mut counted = 0;
    for name in names {
        context.cancel.check()?;
        let Some(left) = COUNT_MAX.checked_sub(started.elapsed()) else {
            return Ok(Counted::Unknown(format!("it took longer than {} s", COUNT_MAX.as_secs())));
        };
        let name = name.replace('\\', "\\\\").replace('"', "\\\"");
        let query = format!("sum(count_over_time({{__name__=\"{name}\"}}[{length}ms]))");
        match engine.server.number(&query, max - 1, left.max(Duration::from_secs(1))).await {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of samples")]
            Ok(Some(number)) => counted += number as u64,
            Ok(None) => {}
            Err(fault) => return Ok(Counted::Unknown(fault.chain())),
        }
    }
    Ok(match counted {
        _ if counted == of => Counted::All(format!("it counts {of} samples in them, as many as the point says")),
        0 => Counted::Wrong(format!("it finds no sample; the point says {of}")),
        _ if counted > of => Counted::Wrong(format!("it counts {counted} samples, more than the {of} of the point")),
        _ => Counted::Fewer { counted, of },
    })
}

/// Decides a smaller count with `promtool`, which gives every sample, staleness markers too.
async fn by_dump(
    options: &PrometheusOptions,
    data: &Path,
    counted: u64,
    of: u64,
    details: &PrometheusDetails,
) -> Finding {
    let open = |why: &str| {
        Finding::unproved(
            format!("it counts {counted} of {of} samples; queries leave out staleness markers, and {why}"),
            "compare with `promtool tsdb dump` yourself",
        )
    };
    if details.blocks.iter().any(|block| block.tombstones > 0) {
        return open("some blocks hold deleted ranges");
    }
    let mut ranges: Vec<(i64, i64)> = details.blocks.iter().map(|block| (block.min_time, block.max_time)).collect();
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return open("some blocks overlap");
    }
    if of > DUMP_SAMPLES_MAX {
        return open("there are too many to dump them one by one");
    }
    let Some(promtool) = program(options, "promtool") else {
        return open("there is no `promtool` here");
    };
    match lines(&promtool, data).await {
        Ok(dumped) if dumped == of => Finding::good(format!(
            "it counts {counted} samples and `promtool` {of}, staleness markers included: as many as the point says"
        )),
        Ok(dumped) => Finding::bad(format!("`promtool` finds {dumped} samples; the point says {of}"), TAKE_AGAIN),
        Err(error) => open(&format!("`promtool` failed: {error}")),
    }
}

async fn lines(promtool: &Path, data: &Path) -> std::io::Result<u64> {
    let mut child = tokio::process::Command::new(promtool)
        .args(["tsdb", "dump"])
        .arg(data)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut out = child.stdout.take().ok_or_else(|| std::io::Error::other("it has no output"))?;
    let mut buffer = vec![0; 1 << 16];
    let mut lines = 0;
    loop {
        match out.read(&mut buffer).await? {
            0 => break,
            given => lines += buffer[..given].split(|byte| *byte == b'\n').count() as u64 - 1,
        }
    }
    let status = child.wait().await?;
    if status.success() { Ok(lines) } else { Err(std::io::Error::other(format!("it ended with {status}"))) }
}
