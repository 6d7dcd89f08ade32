//! A look at configuration, database and API that changes nothing.

use rekindle_core::port::Finding;
use rekindle_core::{Fault, Result};

use super::blocking;
use super::database;
use super::export;
use super::options::GrafanaOptions;
use super::settings::Settings;
use crate::files::show;

pub(super) async fn probe(options: &GrafanaOptions) -> Result<Vec<Finding>> {
    let of = options.clone();
    let mut findings = blocking(move || on_disk(&of)).await?;
    if let Some(http) = &options.http {
        findings.push(match export::health(http).await {
            Ok(health) => Finding::good(format!(
                "Grafana {} answers at {}",
                health.version.as_deref().unwrap_or("of an unknown version"),
                http.url
            )),
            Err(fault) => as_finding(&fault),
        });
    }
    Ok(findings)
}

fn as_finding(fault: &Fault) -> Finding {
    let remedy = fault.hint_text().unwrap_or("see docs/errors").to_owned();
    Finding::bad(format!("[{}] {}", fault.code().id, fault.chain()), remedy)
}

fn on_disk(options: &GrafanaOptions) -> Result<Vec<Finding>> {
    let settings = Settings::find(options)?;
    let mut findings = vec![match database::glance(&settings.database) {
        Ok(text) => Finding::good(format!("`{}`: {text}", show(&settings.database))),
        Err(fault) => as_finding(&fault),
    }];
    findings.push(Finding::good(format!("{} further files and directories are saved with it", settings.files.len())));
    findings.push(match settings.key_state.warning() {
        None => Finding::good("its secret_key is its own and is saved with it"),
        Some((what, remedy)) => Finding::warning(what, remedy),
    });
    findings.extend(settings.missing.iter().map(|path| {
        let text = format!("its configuration names `{}`, which is not on this host", show(path));
        Finding::warning(text, "name its place here in `config-paths`")
    }));
    match settings.version {
        Some(version) => findings.push(Finding::good(format!("version {version} is installed"))),
        None if options.http.is_none() => findings.push(Finding::warning(
            "the version of Grafana is not known",
            "set `home` to the directory with its `VERSION`, or `url`: a database belongs to exactly one version",
        )),
        None => {}
    }
    Ok(findings)
}
