//! Components as adapters.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rekindle_config::{
    Component as Configured, Config, Databases, Files, Kind, OnChange, Postgres, PostgresMethod, Redis, SecretRef,
};
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::note::NoteClass;
use rekindle_core::port::Component;
use rekindle_core::wal::{BaseBackup, WalMode};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, Secret, codes};
use rekindle_engine::Planned;
use rekindle_sources::container::Container;
use rekindle_sources::files::{FilesComponent, FilesOptions, Policy};
use rekindle_sources::grafana::{GrafanaComponent, GrafanaOptions};
use rekindle_sources::postgres::physical::{OpenArchive, PhysicalOptions};
use rekindle_sources::postgres::replication::ReplicationOptions;
use rekindle_sources::postgres::{self, Home, PostgresComponent, PostgresOptions, ServerUrl, SslMode};
use rekindle_sources::prometheus::{PrometheusComponent, PrometheusOptions};
use rekindle_sources::redis::{RedisComponent, RedisOptions};

use super::{containers, monitoring};

/// What a command says about all components it builds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Read every file, also unchanged ones.
    pub(crate) read_all: bool,
    /// Another server than the configured one, for a restore.
    pub(crate) server: Option<Server>,
    /// The WAL logs of the repository, for base backups.
    pub(crate) wal: Logs,
    /// Whether the user's SQL is asked of what was restored.
    pub(crate) checks: bool,
}

/// How the WAL logs of the repository are opened, where a command needs them.
#[derive(Clone, Default)]
pub(crate) struct Logs(pub(crate) Option<OpenArchive>);

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Logs").field(&self.0.is_some()).finish()
    }
}

/// A server named on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) password: Option<SecretRef>,
}

impl Server {
    /// Whether its URL is one of this kind of component.
    pub(crate) fn fits(&self, kind: ComponentKind) -> bool {
        let schemes: &[&str] = match kind {
            ComponentKind::Postgres => &["postgres://", "postgresql://"],
            ComponentKind::Redis => &["redis://", "rediss://", "unix://"],
            ComponentKind::Files | ComponentKind::Prometheus | ComponentKind::Grafana => &[],
        };
        schemes.iter().any(|scheme| self.url.starts_with(scheme))
    }
}

impl Wishes {
    /// The named server, when it is one for this kind.
    fn server_for(&self, kind: ComponentKind) -> Option<&Server> {
        self.server.as_ref().filter(|server| server.fits(kind))
    }
}

/// Every configured component with its hooks.
pub(crate) fn all(config: &Config, wishes: &Wishes) -> Result<Vec<Planned>> {
    let own_places = own_places(config);
    let one = |configured: &Configured| {
        Ok(Planned {
            component: of_config(configured, &config.stack.name, &own_places, wishes)?,
            hooks: super::hooks(&configured.hooks),
        })
    };
    config.components.iter().map(one).collect()
}

/// Directories of rekindle itself: a component that holds them does not save them.
fn own_places(config: &Config) -> Vec<PathBuf> {
    let url = &config.repository.url;
    let local = url.strip_prefix("file://").unwrap_or(url);
    let repository = local.starts_with('/').then(|| PathBuf::from(local));
    repository.into_iter().chain(super::state::directory(Some(config))).collect()
}

/// One configured component.
pub(crate) fn of_config(
    configured: &Configured,
    stack: &str,
    own_places: &[PathBuf],
    wishes: &Wishes,
) -> Result<Arc<dyn Component>> {
    match &configured.container {
        Some(place) => containers::contained(configured, place, stack, own_places, wishes),
        None => plain(configured, stack, own_places, wishes, None),
    }
}

/// The adapter itself. `found`: the container of its server, whose paths are those of this host already.
pub(crate) fn plain(
    configured: &Configured,
    stack: &str,
    own_places: &[PathBuf],
    wishes: &Wishes,
    found: Option<&Container>,
) -> Result<Arc<dyn Component>> {
    let id = configured.id.clone();
    let what = || format!("set up the component `{id}`");
    match &configured.kind {
        Kind::Files(files) => {
            let options = files_options(files, own_places, wishes.read_all);
            if let Some(place) = &files.compose {
                return Ok(containers::compose(id.clone(), place, options));
            }
            let component = FilesComponent::new(id.clone(), options).map_err(|fault| fault.during(what()))?;
            Ok(Arc::new(component))
        }
        Kind::Postgres(postgres) => {
            let server = wishes.server_for(ComponentKind::Postgres);
            let mut options = postgres_options(postgres, server).map_err(|fault| fault.during(what()))?;
            options.physical = physical_options(postgres, stack, &id, wishes);
            if wishes.checks {
                options.checks.clone_from(&configured.checks.sql);
            }
            // A server named on the command line is not the one in the container.
            options.home = found.filter(|_| server.is_none()).map(Home::new);
            Ok(Arc::new(PostgresComponent::new(id.clone(), options)))
        }
        Kind::Grafana(grafana) => {
            let mut options = monitoring::grafana(grafana).map_err(|fault| fault.during(what()))?;
            options.secret_key = options.secret_key.or_else(|| containers::grafana_key(found?));
            Ok(Arc::new(GrafanaComponent::new(id.clone(), options)))
        }
        Kind::Prometheus(prometheus) => {
            let options = monitoring::prometheus(prometheus).map_err(|fault| fault.during(what()))?;
            Ok(Arc::new(PrometheusComponent::new(id.clone(), options)))
        }
        Kind::Redis(redis) => {
            let options =
                redis_options(redis, wishes.server_for(ComponentKind::Redis)).map_err(|fault| fault.during(what()))?;
            Ok(Arc::new(RedisComponent::new(id.clone(), options)))
        }
    }
}

/// Whether a stored component is a base backup, whatever the configuration says of it now.
pub(crate) fn is_base(record: &ComponentRecord) -> bool {
    BaseBackup::of(&record.details).is_some()
}

/// A base backup of a point: it comes back as a cluster of its own and needs no server.
pub(crate) fn of_base(record: &ComponentRecord, configured: Option<&Configured>) -> Result<Arc<dyn Component>> {
    let options = match configured.map(|one| &one.kind) {
        Some(Kind::Postgres(postgres)) => postgres_options(postgres, None)?,
        _ => PostgresOptions::new(server_url("postgres://postgres@localhost/postgres")?, None),
    };
    Ok(Arc::new(PostgresComponent::new(record.id.clone(), options)))
}

/// The server, the log and the slot of a component that is saved by base backups.
pub(crate) fn log_of(config: &Config, one: &Configured) -> Result<Option<(PostgresOptions, WalMode, String)>> {
    let Kind::Postgres(postgres) = &one.kind else { return Ok(None) };
    let PostgresMethod::Physical(physical) = &postgres.method else { return Ok(None) };
    let slot = physical.slot_for(&config.stack.name, &one.id);
    Ok(Some((postgres_options(postgres, None)?, physical.wal, slot.as_str().to_owned())))
}

/// The configured PostgreSQL server: the named one, else the only one.
pub(crate) fn postgres_of(config: &Config, word: Option<&str>) -> Result<PostgresOptions> {
    let named = |one: &&Configured| word.is_none_or(|word| one.id.as_str() == word);
    let servers: Vec<&Postgres> = config
        .components
        .iter()
        .filter(named)
        .filter_map(|one| match &one.kind {
            Kind::Postgres(postgres) => Some(postgres),
            _ => None,
        })
        .collect();
    match servers[..] {
        [one] => postgres_options(one, None),
        [] => Err(Fault::new(codes::ENGINE_NO_COMPONENT, "find the PostgreSQL component in the configuration")
            .hint("rekindle check-config lists them; name one with --component")),
        _ => Err(Fault::new(codes::CLI_USAGE, "choose a PostgreSQL component: there are several")
            .hint("name one with --component")),
    }
}

/// A component of a point that is not configured here: good for a restore into a new place.
pub(crate) fn of_record(record: &ComponentRecord, wishes: &Wishes) -> Result<Arc<dyn Component>> {
    let id: ComponentId = record.id.clone();
    let server = wishes.server_for(record.kind);
    let password = server.and_then(|server| server.password.as_ref()).map(SecretRef::resolve).transpose()?;
    match record.kind {
        ComponentKind::Files => {
            // A new place does not depend on the configured paths; `/` stands for "unknown".
            let options = FilesOptions { paths: vec![PathBuf::from("/")], ..FilesOptions::default() };
            Ok(Arc::new(FilesComponent::new(id, options)?))
        }
        ComponentKind::Postgres => {
            let Some(server) = server else {
                return Err(Fault::new(codes::CLI_USAGE, format!("restore the postgres component `{id}`"))
                    .because("it is not configured here, so its server is not known")
                    .hint("give --server postgres://USER@HOST/postgres, and --server-password-file FILE"));
            };
            Ok(Arc::new(PostgresComponent::new(id, PostgresOptions::new(server_url(&server.url)?, password))))
        }
        ComponentKind::Redis => {
            let url = server.map_or("redis://127.0.0.1:6379", |server| server.url.as_str());
            Ok(Arc::new(RedisComponent::new(id, RedisOptions { password, ..RedisOptions::new(url) })))
        }
        ComponentKind::Prometheus => {
            // A new place does not need the server.
            Ok(Arc::new(PrometheusComponent::new(id, PrometheusOptions::new("http://127.0.0.1:9090"))))
        }
        ComponentKind::Grafana => Ok(Arc::new(GrafanaComponent::new(id, GrafanaOptions::default()))),
    }
}

fn files_options(files: &Files, own_places: &[PathBuf], read_all: bool) -> FilesOptions {
    let word = |on: OnChange| match on {
        OnChange::Note => Policy::Note,
        OnChange::Partial => Policy::Partial,
        OnChange::Fail => Policy::Fail,
    };
    let policy: BTreeMap<NoteClass, Policy> = [
        (NoteClass::Vanished, files.vanished),
        (NoteClass::ChangedWhileRead, files.changed),
        (NoteClass::Unreadable, files.unreadable),
    ]
    .into_iter()
    .filter_map(|(class, on)| Some((class, word(on?))))
    .collect();
    FilesOptions {
        paths: files.paths.clone(),
        exclude: files.exclude.clone(),
        one_file_system: files.one_file_system,
        exclude_caches: files.exclude_caches,
        policy,
        read_all,
        own_places: own_places.to_vec(),
        documents: Vec::new(),
    }
}

fn server_url(url: &str) -> Result<ServerUrl> {
    let (url, password) = ServerUrl::parse(url).map_err(|bad| {
        Fault::new(codes::CONFIG_VALUE, "read the server's URL")
            .because(bad)
            .hint("write for example postgres://backup@127.0.0.1:5432/app")
    })?;
    if password.is_some() {
        return Err(Fault::new(codes::CLI_USAGE, "read the server's URL: it holds a password")
            .hint("a password in a command line is seen by every user: give --server-password-file FILE"));
    }
    Ok(url)
}

/// The password for the server of a restore: its own, or the configured one for the configured server.
fn password(own: Option<&SecretRef>, server: Option<&Server>) -> Result<Option<Secret<String>>> {
    let reference = match server {
        Some(server) => server.password.as_ref().or(own),
        None => own,
    };
    reference.map(SecretRef::resolve).transpose()
}

fn postgres_options(postgres: &Postgres, server: Option<&Server>) -> Result<PostgresOptions> {
    let mut url = server_url(server.map_or(&postgres.url, |server| &server.url))?;
    if let Some(mode) = &postgres.sslmode {
        url.ssl_mode = ssl_mode(mode);
    }
    if postgres.ca_file.is_some() {
        url.root_certificate.clone_from(&postgres.ca_file);
    }
    let mut options = PostgresOptions::new(url, password(postgres.password.as_ref(), server)?);
    options.databases = match &postgres.databases {
        Databases::OfUrl => postgres::Databases::One,
        Databases::All => postgres::Databases::All,
        Databases::Named(names) => postgres::Databases::List(names.clone()),
    };
    options.schema_only = postgres.schema_only;
    options.tables.clone_from(&postgres.tables);
    options.exclude_tables.clone_from(&postgres.exclude_tables);
    options.exact_counts = postgres.exact_counts;
    options.globals = postgres.globals;
    options.bin_dir.clone_from(&postgres.bin_dir);
    options.data_dir.clone_from(&postgres.data_dir);
    options.spool_dir.clone_from(&postgres.spool_dir);
    if let Some(longest) = postgres.lock_timeout {
        options.lock_timeout = longest;
    }
    Ok(options)
}

fn physical_options(postgres: &Postgres, stack: &str, id: &ComponentId, wishes: &Wishes) -> Option<PhysicalOptions> {
    let PostgresMethod::Physical(physical) = &postgres.method else {
        return None;
    };
    let mut options = PhysicalOptions::new(stack.to_owned(), physical.slot_for(stack, id));
    options.wal = physical.wal;
    options.archive.clone_from(&wishes.wal.0);
    Some(options)
}

/// A server for replication commands.
pub(crate) fn replication(postgres: &Postgres) -> Result<ReplicationOptions> {
    let options = postgres_options(postgres, None)?;
    Ok(ReplicationOptions::new(options.url, options.password))
}

/// The configuration allows these words only.
fn ssl_mode(word: &str) -> SslMode {
    match word {
        "disable" => SslMode::Disable,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => SslMode::Prefer,
    }
}

fn redis_options(redis: &Redis, server: Option<&Server>) -> Result<RedisOptions> {
    Ok(RedisOptions {
        username: redis.username.clone(),
        password: password(redis.password.as_ref(), server)?,
        ca_file: redis.ca_file.clone(),
        cert_file: redis.cert_file.clone(),
        key_file: redis.key_file.clone(),
        data_dir: redis.data_dir.clone(),
        appendonly: redis.appendonly,
        ..RedisOptions::new(server.map_or(&redis.url, |server| &server.url).clone())
    })
}
