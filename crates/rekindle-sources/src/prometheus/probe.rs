//! A look at the server and its data directory that changes nothing.

use rekindle_core::Result;
use rekindle_core::note::Notes;
use rekindle_core::port::{Finding, RunContext};

use super::blocking;
use super::capture::{data_dir, look_at};
use super::options::{Method, PrometheusOptions};
use super::server::{Server, ServerFacts};
use super::{blocks, config_files, engine, snapshot};
use crate::files::show;

pub(super) async fn probe(options: &PrometheusOptions, _context: &RunContext) -> Result<Vec<Finding>> {
    let server = Server::new(options)?;
    let facts = server.facts().await?;
    let head = server.head().await?;
    let rendered = server.config().await?;
    let mut findings = vec![Finding::good(format!(
        "Prometheus {} answers at {}; retention {}, {} series in its head",
        facts.version,
        server.address(),
        facts.retention,
        head.series
    ))];
    findings.push(method(options, &facts));
    let options = options.clone();
    findings.extend(blocking(move || Ok(on_disk(&options, &facts, &rendered))).await?);
    Ok(findings)
}

fn method(options: &PrometheusOptions, facts: &ServerFacts) -> Finding {
    let remedy = "start the server with `--web.enable-admin-api`";
    match (options.method, facts.has_admin_api()) {
        (Method::Auto | Method::Snapshot, true) => Finding::good("its snapshot API can be used"),
        (Method::Snapshot, false) => Finding::bad("its admin API is off: no snapshot can be made", remedy),
        (Method::Auto, false) => Finding::warning(
            "its admin API is off: only finished blocks are saved, up to about three hours are left out",
            remedy,
        ),
        (Method::Blocks, _) => Finding::warning(
            "`method` is `blocks`: only finished blocks are saved, up to about three hours are left out",
            "take `method` out of the configuration to use the snapshot API",
        ),
    }
}

fn on_disk(options: &PrometheusOptions, facts: &ServerFacts, rendered: &str) -> Vec<Finding> {
    let directory = data_dir(options, facts);
    let shown = show(&directory);
    let as_finding = |fault: rekindle_core::Fault| {
        let remedy = fault.hint_text().unwrap_or("see docs/errors").to_owned();
        Finding::bad(format!("[{}] {}", fault.code().id, fault.chain()), remedy)
    };
    let mut findings = match look_at(&directory).and_then(|_| blocks::names(&directory)) {
        Ok(blocks) => vec![Finding::good(format!("`{shown}` holds {} blocks", blocks.len()))],
        Err(fault) => return vec![as_finding(fault)],
    };
    let writable = rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK).is_ok();
    if options.method != Method::Blocks && facts.has_admin_api() && !writable {
        findings.push(Finding::bad(
            format!("`{shown}` cannot be written: snapshots could not be removed"),
            "run as root or as the server's user, or set `method = \"blocks\"`",
        ));
    }
    let (snapshots, ours) = (snapshot::snapshots(&directory).len(), snapshot::count_abandoned(&directory));
    if ours > 0 {
        findings.push(Finding::warning(
            format!("{ours} interrupted runs have left a snapshot in `{shown}`"),
            "the next backup removes it",
        ));
    } else if snapshots > 0 {
        findings.push(Finding::warning(
            format!("{snapshots} snapshots of others are in `{shown}/snapshots`: they pin disk space"),
            "remove those that nobody needs",
        ));
    }
    let mut notes = Notes::default();
    match config_files::find(options, facts, rendered, &mut notes) {
        Ok(files) => findings.push(Finding::good(format!("{} configuration files are saved with it", files.len()))),
        Err(fault) => findings.push(as_finding(fault)),
    }
    findings.extend(notes.listed.into_iter().map(|note| {
        Finding::warning(
            format!("`{}`: {}", note.subject, note.text),
            "set `config-paths`, or correct the server's configuration",
        )
    }));
    if engine::program(options, "prometheus").is_none() {
        findings.push(Finding::warning(
            "there is no `prometheus` program here: a restore cannot be proved by starting it",
            "install it on the host that runs restores, or set `bin-dir`",
        ));
    }
    findings
}
