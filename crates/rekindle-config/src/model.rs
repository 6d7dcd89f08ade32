//! The checked configuration: plain types, nothing of TOML left in them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use rekindle_core::objective::Objective;
use rekindle_core::retention::Policy;
use rekindle_core::tripwire::Thresholds;
use rekindle_core::wal::{SlotName, WalMode};
use rekindle_core::{ComponentId, ComponentKind};

use crate::secret_ref::SecretRef;
use rekindle_core::schedule::{Pause, Schedule};

/// Everything one file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    pub stack: Stack,
    pub repository: Repository,
    /// Further repositories with the same points, in the order of the file.
    pub copies: Vec<CopyTo>,
    /// In the order of the file.
    pub components: Vec<Component>,
    /// Words for several components; each names at least one that is configured.
    pub groups: BTreeMap<String, Vec<ComponentId>>,
    /// Around the whole run.
    pub hooks: Hooks,
    /// `None`: nothing is ever removed.
    pub retention: Option<Retention>,
    pub drill: Drill,
    pub serve: Serve,
    /// When nothing is started.
    pub pauses: Vec<Pause>,
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// For components without one of their own.
    pub tripwire: Thresholds,
    /// Around the recovery of the whole stack.
    pub recover: Recover,
}

impl Config {
    /// Whether there are rules by which points are removed: of the repository or of a component.
    pub fn removes_points(&self) -> bool {
        self.retention.is_some() || self.components.iter().any(|one| one.retention.is_some())
    }
}

/// Which points are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    pub policy: Policy,
    /// Points with one of these words.
    pub keep_tags: Vec<String>,
}

/// How sandboxes are made on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drill {
    pub dir: Option<PathBuf>,
    /// Hard limit of one drill.
    pub timeout: Option<Duration>,
    /// Address space of one engine process.
    pub memory_mib: Option<u64>,
    /// Of all sandboxes of one drill.
    pub disk_mib: Option<u64>,
    /// Directories with engines; absolute.
    pub programs: Vec<PathBuf>,
}

/// The user's own checks of restored data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// For PostgreSQL.
    pub sql: Vec<String>,
    /// For everything else.
    pub commands: Vec<Command>,
}

/// What the service does besides the schedules of components.
#[derive(Debug, Clone)]
pub struct Serve {
    /// `None`: the host's.
    pub zone: Option<TimeZone>,
    pub jitter: Duration,
    pub verify: Option<Schedule>,
    /// As `verify --read-data=` takes it.
    pub verify_data: Option<String>,
    pub drill: Option<Schedule>,
    pub prune: Option<Schedule>,
    /// Maintenance.
    pub daily: Option<Schedule>,
    pub weekly: Option<Schedule>,
    pub monthly: Option<Schedule>,
    /// `None`: no listener.
    pub listen: Option<SocketAddr>,
    pub textfile: Option<PathBuf>,
    pub grace: Duration,
    pub min_free_percent: u8,
}

/// Somebody who is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub name: String,
    pub channel: Channel,
    /// Words of events; empty: all.
    pub events: Vec<String>,
    /// Words of tasks; empty: all.
    pub tasks: Vec<String>,
    pub digest: Option<Schedule>,
    pub timeout: Duration,
    pub allow_private: bool,
    pub ca_file: Option<PathBuf>,
}

/// How somebody is told.
#[derive(Debug, Clone)]
pub enum Channel {
    Slack { url: SecretRef },
    Discord { url: SecretRef },
    Teams { url: SecretRef },
    Webhook { url: Value, template: Option<String>, secret: Option<SecretRef> },
    Ntfy { url: Value, token: Option<SecretRef> },
    Ping { url: Value },
    PagerDuty { url: Option<String>, routing_key: SecretRef },
    Email(Email),
}

/// A mail server and who is written to.
#[derive(Debug, Clone)]
pub struct Email {
    pub host: String,
    /// `None`: the usual one of `tls`.
    pub port: Option<u16>,
    pub tls: EmailTls,
    /// User and password.
    pub login: Option<(String, SecretRef)>,
    pub from: String,
    pub to: Vec<String>,
}

/// How the line to a mail server is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailTls {
    StartTls,
    Wrapped,
    None,
}

/// What is backed up together.
#[derive(Debug, Clone)]
pub struct Stack {
    pub name: String,
    /// The name written into points instead of the host's own.
    pub host: Option<String>,
    /// Where the run journal and caches are kept.
    pub state_dir: Option<PathBuf>,
    /// Greatest acceptable time between the captures of one point.
    pub max_skew: Option<Duration>,
    /// Address of the container engine; `None`: as the environment says, else the usual sockets.
    pub docker_host: Option<String>,
    /// The compose file of the stack.
    pub compose: Option<PathBuf>,
    /// Services of it that must not run during a restore in place.
    pub app_services: Vec<String>,
    /// Longest wait until started services are healthy.
    pub start_timeout: Option<Duration>,
}

/// Where points are kept.
#[derive(Debug, Clone)]
pub struct Repository {
    /// `file:///…`, `s3://…`, `gs://…` or `az://…`; holds no credentials.
    pub url: String,
    pub password: SecretRef,
    /// zstd level, 1 ..= 22. By default 3, and 1 for streams.
    pub compression: Option<i32>,
    /// Whether the opened key may be kept on this host; only asked for passwords that lie here anyway.
    pub key_cache: bool,
    pub access: Access,
}

/// A further repository that holds the same points.
#[derive(Debug, Clone)]
pub struct CopyTo {
    pub name: String,
    pub repository: Repository,
    pub schedule: Option<Schedule>,
    /// Most KiB per second to and from it; `None`: no limit.
    pub bandwidth_kib: Option<u64>,
    /// `None`: nothing is ever removed from it.
    pub retention: Option<Retention>,
}

/// The retention of every object that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Nobody can shorten it, not even the owner of the account.
    pub compliance: bool,
    pub days: u16,
}

/// How the storage is reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub profile: Option<String>,
    pub object_lock: Option<ObjectLock>,
    pub storage_class: Option<String>,
    pub access_key_id: Option<Value>,
    pub secret_access_key: Option<SecretRef>,
    pub session_token: Option<SecretRef>,
    /// JSON key of a Google service account.
    pub service_account: Option<PathBuf>,
    /// Azure storage account.
    pub account: Option<String>,
    pub account_key: Option<SecretRef>,
    pub sas_token: Option<SecretRef>,
}

/// A value that is no secret by itself, but may be kept where secrets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Literal(String),
    Reference(SecretRef),
}

/// One thing that is saved.
#[derive(Debug, Clone)]
pub struct Component {
    pub id: ComponentId,
    pub kind: Kind,
    /// The container it runs in.
    pub container: Option<InContainer>,
    pub schedule: Option<Schedule>,
    pub objective: Objective,
    /// Instead of that of the repository.
    pub retention: Option<Retention>,
    pub hooks: Hooks,
    pub checks: Checks,
    pub tripwire: Thresholds,
    pub recover: Recover,
}

/// How a server or an application is stopped and started by `recover`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recover {
    pub stop: Vec<Command>,
    pub start: Vec<Command>,
    /// For each command.
    pub timeout: Option<Duration>,
    /// Longest wait until what was started answers.
    pub ready: Option<Duration>,
}

impl Component {
    /// The word of its kind.
    pub fn kind(&self) -> ComponentKind {
        match self.kind {
            Kind::Postgres(_) => ComponentKind::Postgres,
            Kind::Redis(_) => ComponentKind::Redis,
            Kind::Files(_) => ComponentKind::Files,
            Kind::Grafana(_) => ComponentKind::Grafana,
            Kind::Prometheus(_) => ComponentKind::Prometheus,
        }
    }
}

/// A container, and the engine that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InContainer {
    pub name: String,
    /// As in [`Stack::docker_host`].
    pub docker_host: Option<String>,
}

/// A compose file, and the engine that runs its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compose {
    pub file: PathBuf,
    /// As in [`Stack::docker_host`].
    pub docker_host: Option<String>,
}

/// What is saved, and how.
#[derive(Debug, Clone)]
pub enum Kind {
    Postgres(Postgres),
    Redis(Redis),
    Files(Files),
    Prometheus(Prometheus),
    Grafana(Grafana),
}

/// Programs around a run or a component, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub before: Vec<Command>,
    /// Always run, also after a failure.
    pub after: Vec<Command>,
    pub on_error: Vec<Command>,
    /// For each command.
    pub timeout: Option<Duration>,
    /// The container they run in.
    pub container: Option<String>,
}

/// A program and its arguments; nothing is ever put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub argv: Vec<String>,
}

/// How a PostgreSQL server is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresMethod {
    /// Its databases with `pg_dump`.
    Logical,
    /// The whole cluster by base backups, and its write-ahead log.
    Physical(Physical),
}

/// What only base backups have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Physical {
    pub wal: WalMode,
    /// The configured replication slot; see [`Physical::slot_for`].
    pub slot: Option<SlotName>,
}

impl Physical {
    /// The replication slot of a component, for `wal = "stream"` and `"both"`: the configured one,
    /// else a name derived from those of stack and component.
    pub fn slot_for(&self, stack: &str, component: &ComponentId) -> SlotName {
        self.slot.clone().unwrap_or_else(|| SlotName::derived(stack, component.as_str()))
    }
}

/// A PostgreSQL server.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub url: String,
    pub password: Option<SecretRef>,
    pub method: PostgresMethod,
    pub databases: Databases,
    pub schema_only: bool,
    pub tables: Vec<String>,
    pub exclude_tables: Vec<String>,
    pub exact_counts: bool,
    pub globals: bool,
    /// Its data directory on this host; needed for a restore of a base backup in place.
    pub data_dir: Option<PathBuf>,
    pub bin_dir: Option<PathBuf>,
    pub sslmode: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub lock_timeout: Option<Duration>,
    /// Where a dump is put during a restore with several workers.
    pub spool_dir: Option<PathBuf>,
}

/// Which databases of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// The one in the URL.
    OfUrl,
    All,
    Named(Vec<String>),
}

/// A Redis or Valkey server.
#[derive(Debug, Clone)]
pub struct Redis {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<SecretRef>,
    /// Its data directory on this host; needed for a restore in place.
    pub data_dir: Option<PathBuf>,
    /// Whether a restored server will keep an append-only file; `None`: as captured.
    pub appendonly: Option<bool>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// Directories and files.
#[derive(Debug, Clone)]
pub struct Files {
    /// Absolute.
    pub paths: Vec<PathBuf>,
    /// Patterns as in `.gitignore`.
    pub exclude: Vec<String>,
    pub one_file_system: bool,
    pub exclude_caches: bool,
    pub vanished: Option<OnChange>,
    pub changed: Option<OnChange>,
    pub unreadable: Option<OnChange>,
    /// These are the files of a compose project: what the engine knows about it is saved with them.
    pub compose: Option<Compose>,
}

/// As whom an HTTP API is asked.
#[derive(Debug, Clone)]
pub enum HttpLogin {
    Basic { username: String, password: SecretRef },
    Token(SecretRef),
}

/// A Prometheus server.
#[derive(Debug, Clone)]
pub struct Prometheus {
    pub url: String,
    pub login: Option<HttpLogin>,
    pub ca_file: Option<PathBuf>,
    /// Its data directory on this host; `None`: as the server says.
    pub data_dir: Option<PathBuf>,
    /// Absolute; `None`: what its configuration names.
    pub config_paths: Option<Vec<PathBuf>>,
    pub method: Option<PrometheusMethod>,
    pub bin_dir: Option<PathBuf>,
}

/// A Grafana with its SQLite database.
#[derive(Debug, Clone)]
pub struct Grafana {
    pub data_dir: Option<PathBuf>,
    pub database: Option<PathBuf>,
    pub config: Option<PathBuf>,
    pub environment_file: Option<PathBuf>,
    pub secret_key: Option<SecretRef>,
    /// Absolute.
    pub config_paths: Vec<PathBuf>,
    pub home: Option<PathBuf>,
    pub stage_dir: Option<PathBuf>,
    /// Its API, for a readable export.
    pub url: Option<String>,
    pub login: Option<HttpLogin>,
    pub ca_file: Option<PathBuf>,
}

/// The only way to take the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrometheusMethod {
    Snapshot,
    Blocks,
}

/// What a file that could not be taken as it was does to the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// It is listed.
    Note,
    /// The point is partial.
    Partial,
    /// The component is missing.
    Fail,
}

/// Repositories that are looked at together.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// In the order of the file.
    pub members: Vec<Member>,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    /// Greatest acceptable age of the newest complete point of each stack in it.
    pub max_age: Duration,
    /// Components that are not expected any more.
    pub ignore: Vec<String>,
    pub repository: Repository,
    /// Copies of it.
    pub copies: Vec<MemberCopy>,
}

/// A copy of a repository of the fleet.
#[derive(Debug, Clone)]
pub struct MemberCopy {
    pub name: String,
    /// How long something of the repository may be missing there.
    pub max_lag: Duration,
    pub repository: Repository,
}
