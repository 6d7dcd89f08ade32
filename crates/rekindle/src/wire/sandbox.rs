//! Sandboxes for the components of a point.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rekindle_config::{Component as Configured, Config, Kind};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::Component;
use rekindle_core::sandbox::Sandbox;
use rekindle_core::{ComponentKind, Result};
use rekindle_sources::files::{FilesComponent, FilesOptions};
use rekindle_sources::grafana::{GrafanaComponent, GrafanaOptions};
use rekindle_sources::postgres::{PostgresSandbox, ServerUrl};
use rekindle_sources::prometheus::{PrometheusComponent, PrometheusOptions};
use rekindle_sources::redis::RedisSandbox;
use rekindle_sources::sandbox::{Checks, DirectorySandbox, Site, SiteOptions};

/// Where sandboxes are made when nothing is said: survives reboots, and is no memory disk.
const BASE: &str = "/var/tmp";
/// Memory of one engine process when nothing is said, in MiB.
const MEMORY_MIB: u64 = 4096;
/// Hard limit of one drill when nothing is said.
const DRILL_MAX: Duration = Duration::from_hours(6);

/// The directory that holds sandboxes.
pub(crate) fn base(config: Option<&Config>) -> PathBuf {
    config.and_then(|config| config.drill.dir.clone()).unwrap_or_else(|| PathBuf::from(BASE))
}

/// The hard limit of one drill.
pub(crate) fn timeout(config: Option<&Config>) -> Duration {
    config.and_then(|config| config.drill.timeout).unwrap_or(DRILL_MAX)
}

/// Makes the directory of one run.
pub(crate) fn site(config: Option<&Config>) -> Result<Arc<Site>> {
    let drill = config.map(|config| config.drill.clone()).unwrap_or_default();
    let options = SiteOptions {
        base: base(config),
        memory_bytes: Some(drill.memory_mib.unwrap_or(MEMORY_MIB) << 20),
        disk_bytes: drill.disk_mib.map(|mib| mib << 20),
        programs: drill.programs,
    };
    Ok(Arc::new(Site::make(options)?))
}

/// A sandbox for one component of a point. The configuration adds checks and places of programs; it
/// never leads to the live server.
pub(crate) fn of_record(
    record: &ComponentRecord,
    configured: Option<&Configured>,
    site: &Arc<Site>,
    programs: &[PathBuf],
) -> Result<Arc<dyn Sandbox>> {
    let (site, id) = (Arc::clone(site), record.id.clone());
    let configured = configured.filter(|one| one.kind() == record.kind);
    let checks = configured.map(|one| one.checks.clone()).unwrap_or_default();
    let commands = Checks(checks.commands.into_iter().map(|command| command.argv).collect());
    let kind = configured.map(|one| &one.kind);
    let directory = |component: Arc<dyn Component>| -> Arc<dyn Sandbox> {
        Arc::new(DirectorySandbox::new(Arc::clone(&site), component, commands.clone()))
    };
    Ok(match record.kind {
        ComponentKind::Postgres => {
            let (mut bin_dir, mut database) = (None, None);
            if let Some(Kind::Postgres(postgres)) = kind {
                bin_dir.clone_from(&postgres.bin_dir);
                database = ServerUrl::parse(&postgres.url).ok().map(|(url, _)| url.database);
            }
            Arc::new(PostgresSandbox::new(site, id, bin_dir).with_checks(database, checks.sql))
        }
        ComponentKind::Redis => {
            let appendonly = match kind {
                Some(Kind::Redis(redis)) => redis.appendonly,
                _ => None,
            };
            Arc::new(RedisSandbox::new(site, id, appendonly, commands))
        }
        ComponentKind::Files => {
            // A new place does not depend on the configured paths; `/` stands for "unknown".
            let options = FilesOptions { paths: vec![PathBuf::from("/")], ..FilesOptions::default() };
            directory(Arc::new(FilesComponent::new(id, options)?))
        }
        ComponentKind::Prometheus => {
            let mut options = PrometheusOptions::new("http://127.0.0.1:9090");
            if let Some(Kind::Prometheus(prometheus)) = kind {
                options.bin_dir.clone_from(&prometheus.bin_dir);
            }
            let named = programs.iter().find(|dir| dir.join("prometheus").is_file());
            options.bin_dir = options.bin_dir.or_else(|| named.cloned());
            directory(Arc::new(PrometheusComponent::new(id, options)))
        }
        ComponentKind::Grafana => directory(Arc::new(GrafanaComponent::new(id, GrafanaOptions::default()))),
    })
}
