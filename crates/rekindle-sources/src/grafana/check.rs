//! Whether the restored database is the one of the point: bytes, soundness, rows, migrations, and
//! whether its key opens its secrets. Grafana itself is not started.

use std::fs::File;
use std::io::Read;

use rekindle_core::port::{Finding, PartReader, RestoreReport};
use rekindle_core::proof::hex;
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256};

use super::capture::DATABASE;
use super::database;
use super::details::GrafanaDetails;
use super::restore::{BESIDE, Placed, beside};
use super::secrets;
use crate::files::show;

const TAKE_AGAIN: &str = "restore again; if this repeats, run `rekindle verify --read-data`";

pub(super) fn check(part: &dyn PartReader, report: &RestoreReport) -> Result<Vec<Finding>> {
    let details = GrafanaDetails::decode(&part.record().details)?;
    let Placed { database, .. } = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the report of a restore").because(error))?;
    let shown = show(&database);
    for end in BESIDE {
        if beside(&database, end).exists() {
            let text =
                format!("`{shown}{end}` stands beside the restored database: it would replace what was restored");
            return Ok(vec![Finding::bad(text, "stop Grafana, remove that file, restore again")]);
        }
    }
    let mut findings = vec![same_bytes(part, &database)?];
    match database::look(&database) {
        Err(fault) => findings.push(Finding::bad(fault.chain(), TAKE_AGAIN)),
        Ok(found) => {
            findings.push(Finding::good(format!("`{shown}` passes SQLite's integrity check")));
            let rows: u64 = found.tables.values().sum();
            findings.push(if found.tables == details.tables {
                Finding::good(format!("{rows} rows in {} tables, as many as the point says", found.tables.len()))
            } else {
                let differing = details.tables.iter().find(|(name, rows)| found.tables.get(*name) != Some(rows));
                let name = differing.map_or("a further table", |(name, _)| name.as_str());
                Finding::bad(format!("rows differ from the point, first in `{name}`"), TAKE_AGAIN)
            });
            findings.push(if found.migrations == details.migrations {
                let heads: Vec<&str> = found.migrations.values().map(String::as_str).collect();
                Finding::good(format!("newest migrations: {}", heads.join(", ")))
            } else {
                Finding::bad("the newest migrations differ from the point", TAKE_AGAIN)
            });
        }
    }
    findings.push(secrets::check(part, &details, &database)?);
    findings.push(Finding::warning(
        "Grafana itself was not started on it",
        "start it and look at `/api/health`, a dashboard, and the test of a data source",
    ));
    Ok(findings)
}

fn same_bytes(part: &dyn PartReader, database: &std::path::Path) -> Result<Finding> {
    let read = |error| Fault::new(codes::GRAFANA_TARGET, format!("read `{}`", show(database))).because(error);
    let mut file = File::open(database).map_err(read)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            given => hash.update(&buffer[..given]),
        }
    }
    let found = hex(&hash.finalize());
    let expected = part.record().streams.iter().find(|stream| stream.path == DATABASE);
    Ok(match expected {
        Some(stream) if stream.sha256 == found => {
            Finding::good(format!("`{}` has the SHA-256 of the point", show(database)))
        }
        _ => Finding::bad(format!("`{}` has other bytes than the point", show(database)), TAKE_AGAIN),
    })
}
