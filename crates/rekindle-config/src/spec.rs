//! Every key a configuration may hold. Reader, suggestions and JSON Schema come from here.

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Text,
    /// Text in the form of a path; relative ones start from the file's directory.
    Path,
    /// A reference to a secret.
    Secret,
    /// A literal or a reference.
    TextOrSecret,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Duration,
    Schedule,
    Choice(&'static [&'static str]),
    TextList,
    /// `"all"` or a list of names.
    AllOrTextList,
    /// A list of commands, each a text (for `sh -c`) or a list (program and arguments).
    Commands,
    Table(&'static [Key]),
    /// Tables with names of the user's, told apart by `kind`.
    Components,
    /// Names of the user's, each a list of components.
    Groups,
    /// Tables with names of the user's, all with the same keys.
    Named(&'static [Key]),
    /// Tables with names of the user's, told apart by `kind`: who is told.
    Receivers,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: false, about }
}

const fn must(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: true, about }
}

/// The top of a file.
pub(crate) const ROOT: &[Key] = &[
    must("stack", Shape::Table(STACK), "What is backed up together."),
    must("repository", Shape::Table(REPOSITORY), "Where recovery points are kept."),
    key("copy", Shape::Named(COPY), "Further repositories that hold the same points, one table each."),
    must("component", Shape::Components, "The things that are saved, one table each."),
    key("group", Shape::Groups, "Words for several components at once, as `app = [\"uploads\", \"settings\"]`."),
    key("hooks", Shape::Table(HOOKS), "Programs run around every run."),
    key("drill", Shape::Table(DRILL), "How `drill` and `peek` restore into sandboxes on this host."),
    key("retention", Shape::Table(RETENTION), "Which points `forget` keeps. Without it nothing is removed."),
    key("serve", Shape::Table(SERVE), "What `rekindle serve` does besides the schedules of components."),
    key("pause", Shape::Named(PAUSE), "Times in which `rekindle serve` starts nothing, one table each."),
    key("notify", Shape::Receivers, "Who is told when something is wrong, one table each."),
    key(
        "tripwire",
        Shape::Table(TRIPWIRE),
        "When a point is suspicious, because it differs sharply from earlier ones.",
    ),
    key("recover", Shape::Table(RECOVER), "What `recover` runs for the application: `stop` first, `start` last."),
];

/// The file of `rekindle fleet`.
pub(crate) const FLEET: &[Key] = &[
    key("max-age", Shape::Duration, "Greatest acceptable age of a stack's newest complete point (default 26h)."),
    must("member", Shape::Named(MEMBER), "The repositories that are looked at, one table each."),
];

pub(crate) const MEMBER: &[Key] = &[
    key("max-age", Shape::Duration, "The same for the stacks of this repository."),
    key("ignore", Shape::TextList, "Components that are no longer saved, though older points hold them."),
    must("repository", Shape::Table(REPOSITORY), "Where it is and how it is opened; a key that may only read will do."),
    key("copy", Shape::Named(FLEET_COPY), "Copies of this repository, one table each."),
];

pub(crate) const FLEET_COPY: &[Key] = &both::<19, 1, 20>(
    REPOSITORY_KEYS,
    [key(
        "max-lag",
        Shape::Duration,
        "How long something may be missing from the copy (default: the member's `max-age`).",
    )],
);

pub(crate) const SERVE: &[Key] = &[
    key("time-zone", Shape::Text, "Zone in which schedules are read, as `Europe/Berlin` (default: the host's)."),
    key("jitter", Shape::Duration, "Runs are put off by a part of this, always the same one (default 0)."),
    key("verify", Shape::Schedule, "When the repository is verified."),
    key("verify-data", Shape::Text, "How much data each verification reads back: `5%`, `500M`, `1/7` or `all`."),
    key("drill", Shape::Schedule, "When every component is restored into a sandbox and checked."),
    key("prune", Shape::Schedule, "When [retention] is applied and data that no point needs is removed."),
    key("daily", Shape::Schedule, "When `maintenance daily` runs."),
    key("weekly", Shape::Schedule, "When `maintenance weekly` runs."),
    key("monthly", Shape::Schedule, "When `maintenance monthly` runs."),
    key("listen", Shape::Text, "Address for `/metrics` and `/healthz`: `127.0.0.1:9464` (default), or `off`."),
    key("textfile", Shape::Path, "File for the node exporter's textfile collector; its name ends in `.prom`."),
    key("grace", Shape::Duration, "How long runs may go on when the service is stopped (default 30s)."),
    key(
        "min-free-percent",
        Shape::Integer { min: 1, max: 90 },
        "Share of a local repository's file system that should be free (default 10).",
    ),
];

pub(crate) const PAUSE: &[Key] = &[
    must("start", Shape::Schedule, "When it begins, as cron says it."),
    must("length", Shape::Duration, "How long it lasts."),
];

/// What every receiver may have.
const NOTIFY_KIND: Key = must("kind", Shape::Choice(NOTIFY_WORDS), "What kind of receiver it is.");
const NOTIFY_WORDS: &[&str] = &["slack", "discord", "teams", "webhook", "ntfy", "ping", "pagerduty", "email"];
const EVENTS: Key = key(
    "events",
    Shape::TextList,
    "What it is told: `failed`, `partial`, `overdue`, `recovered`, `objective-missed`, `proof-old`, `capacity`, `suspicious`, `kit` (default: all).",
);
const TASKS: Key = key(
    "tasks",
    Shape::TextList,
    "Tasks it hears of: `backup`, `verify`, `drill`, `prune`, `copy`, `maintenance` (default: all).",
);
const DIGEST: Key = key("digest", Shape::Schedule, "When it gets a summary of all runs, as `0 8 * * 1`.");
const SECRET_URL: Key = must("url", Shape::Secret, "Reference to its URL, which is a secret.");
const TIMEOUT: Key = key("timeout", Shape::Duration, "Longest time of one attempt (default 15s).");
const PRIVATE: Key =
    key("allow-private", Shape::Bool, "Whether it may be a host of a private network (default false).");
const NOTIFY_CA: Key = key("ca-file", Shape::Path, "PEM file with its certificate authority.");

pub(crate) const NOTIFY_CHAT: &[Key] = &[NOTIFY_KIND, SECRET_URL, EVENTS, TASKS, DIGEST, TIMEOUT, PRIVATE, NOTIFY_CA];
pub(crate) const NOTIFY_WEBHOOK: &[Key] = &[
    NOTIFY_KIND,
    must("url", Shape::TextOrSecret, "Its URL, or a reference to it."),
    key(
        "template",
        Shape::Text,
        "Body; `{title}`, `{text}`, `{event}`, `{stack}`, `{host}`, `{subject}`, `{time}`, `{key}`, `{run}`, `{point}` and `{code}` are replaced (default: all of them as JSON).",
    ),
    key("secret", Shape::Secret, "Key of the signature in `X-Rekindle-Signature`."),
    EVENTS,
    TASKS,
    DIGEST,
    TIMEOUT,
    PRIVATE,
    NOTIFY_CA,
];
pub(crate) const NOTIFY_NTFY: &[Key] = &[
    NOTIFY_KIND,
    must("url", Shape::TextOrSecret, "URL of the topic, or a reference to it."),
    key("token", Shape::Secret, "Access token."),
    EVENTS,
    TASKS,
    DIGEST,
    TIMEOUT,
    PRIVATE,
    NOTIFY_CA,
];
pub(crate) const NOTIFY_PING: &[Key] = &[
    NOTIFY_KIND,
    must("url", Shape::TextOrSecret, "URL of the check, or a reference to it; `/start` and `/fail` are added."),
    TASKS,
    TIMEOUT,
    PRIVATE,
    NOTIFY_CA,
];
pub(crate) const NOTIFY_PAGERDUTY: &[Key] = &[
    NOTIFY_KIND,
    must("routing-key", Shape::Secret, "Integration key of the service (Events API v2)."),
    key("url", Shape::Text, "Events endpoint, when it is not `https://events.pagerduty.com/v2/enqueue`."),
    EVENTS,
    TASKS,
    TIMEOUT,
    PRIVATE,
    NOTIFY_CA,
];
pub(crate) const NOTIFY_EMAIL: &[Key] = &[
    NOTIFY_KIND,
    must("host", Shape::Text, "Mail server."),
    key("port", Shape::Integer { min: 1, max: 65535 }, "Its port (default 587, with `tls` 465, without TLS 25)."),
    key(
        "tls",
        Shape::Choice(&["starttls", "tls", "none"]),
        "`starttls` (default), `tls` from the first byte, or `none`.",
    ),
    key("username", Shape::Text, "User."),
    key("password", Shape::Secret, "That user's password."),
    must("from", Shape::Text, "Sender."),
    must("to", Shape::TextList, "Who is written to."),
    EVENTS,
    TASKS,
    DIGEST,
    TIMEOUT,
    NOTIFY_CA,
];

/// Kinds of receivers with their keys.
pub(crate) const NOTIFY_KINDS: &[(&str, &[Key])] = &[
    ("slack", NOTIFY_CHAT),
    ("discord", NOTIFY_CHAT),
    ("teams", NOTIFY_CHAT),
    ("webhook", NOTIFY_WEBHOOK),
    ("ntfy", NOTIFY_NTFY),
    ("ping", NOTIFY_PING),
    ("pagerduty", NOTIFY_PAGERDUTY),
    ("email", NOTIFY_EMAIL),
];

pub(crate) const TRIPWIRE: &[Key] = &[
    key("enabled", Shape::Bool, "Whether captures are compared with earlier ones (default true)."),
    key("history", COUNT, "Earlier captures to compare with (default 14)."),
    key("history-min", COUNT, "With fewer, only what is gone altogether is suspicious (default 3)."),
    key("drop-percent", PERCENT, "Sizes and counts that fall by more than this (default 50)."),
    key(
        "growth-percent",
        Shape::Integer { min: 101, max: 100_000 },
        "Sizes and counts that grow to more than this (default 300).",
    ),
    key("change-percent", PERCENT, "New bytes as a share of all bytes (default 60)."),
    key("incompressible-percent", PERCENT, "What new bytes take after compression (default 85)."),
    key("deviations", COUNT, "How far a share must be from its usual value, in its usual spread (default 6)."),
    key("count-min", COUNT, "Fewer rows, keys and entries are not judged (default 20)."),
    key("bytes-min", Shape::Integer { min: 1, max: 1 << 50 }, "Fewer bytes are not judged (default 1048576)."),
];

const PERCENT: Shape = Shape::Integer { min: 1, max: 100 };

pub(crate) const RECOVER: &[Key] = &[
    key("stop", Shape::Commands, "Run before anything is restored; a failure of one is told and does not end it."),
    key("start", Shape::Commands, "Run once the data is in place and checked."),
    key("timeout", Shape::Duration, "Longest time of one command (default 5m)."),
    key("ready", Shape::Duration, "Longest wait until what was started answers (default 1m)."),
];

pub(crate) const STACK: &[Key] = &[
    must("name", Shape::Text, "Name of the stack: letters, digits, `.`, `-`, `_`."),
    key("host", Shape::Text, "Name written into points instead of this host's own."),
    key(
        "state-dir",
        Shape::Path,
        "Directory for the run journal and caches; else $STATE_DIRECTORY, $XDG_STATE_HOME/rekindle, /var/lib/rekindle (root) or ~/.local/state/rekindle.",
    ),
    key("max-skew", Shape::Duration, "Greatest acceptable time between the captures of one point."),
    key(
        "docker-host",
        Shape::Text,
        "`unix:///path` or `tcp://host:port` of Docker, Podman or a socket proxy (default: DOCKER_HOST, else the usual sockets).",
    ),
    key(
        "compose",
        Shape::Path,
        "The stack's compose file: saved with images, volumes and networks as the component `compose`.",
    ),
    key(
        "app-services",
        Shape::TextList,
        "Services of the compose file that are stopped first and started last around a restore in place.",
    ),
    key("start-timeout", Shape::Duration, "Longest wait until started services are healthy (default 2m)."),
];

pub(crate) const REPOSITORY: &[Key] = &REPOSITORY_KEYS;

const REPOSITORY_KEYS: [Key; 19] = [
    must("url", Shape::Text, "`file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`."),
    must(
        "password",
        Shape::Secret,
        "The repository's password. Without it nothing can be restored: keep a copy elsewhere.",
    ),
    key("compression", Shape::Integer { min: 1, max: 22 }, "zstd level (default 3, for dumps and base backups 1)."),
    key(
        "key-cache",
        Shape::Bool,
        "Whether the opened key of a password from `file:` or `credential:` is kept in `state-dir`; true when left out.",
    ),
    key("endpoint", Shape::Text, "URL of the storage service, when it is not the provider's own."),
    key("region", Shape::Text, "Region (s3)."),
    key("path-style", Shape::Bool, "Whether the bucket stands in the path instead of the host name (s3)."),
    key("profile", Shape::Text, "Profile of the shared credentials file (s3)."),
    key("access-key-id", Shape::TextOrSecret, "Access key (s3)."),
    key("secret-access-key", Shape::Secret, "Secret key (s3)."),
    key("session-token", Shape::Secret, "Session token (s3)."),
    key("service-account", Shape::Path, "JSON key file of a service account (gs)."),
    key("account", Shape::Text, "Storage account (az)."),
    key("account-key", Shape::Secret, "Key of the storage account (az)."),
    key("sas-token", Shape::Secret, "Shared access signature (az)."),
    key("ca-file", Shape::Path, "PEM file with the certificate authority of the storage service."),
    key(
        "object-lock",
        Shape::Choice(&["governance", "compliance"]),
        "Retention of every object: `compliance` nobody can shorten (s3, a bucket with Object Lock).",
    ),
    key(
        "object-lock-days",
        Shape::Integer { min: 1, max: 36_500 },
        "How long objects are kept; extended while they are needed (s3).",
    ),
    key(
        "storage-class",
        Shape::Choice(&[
            "STANDARD",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "GLACIER_IR",
            "REDUCED_REDUNDANCY",
        ]),
        "Storage class of packs (s3).",
    ),
];

/// A copy is a repository, and says when it is brought up to date.
pub(crate) const COPY: &[Key] = &both::<19, 3, 22>(
    REPOSITORY_KEYS,
    [
        key("schedule", Shape::Schedule, "When `rekindle serve` copies what is missing."),
        key(
            "bandwidth-kib",
            Shape::Integer { min: 1, max: 1 << 32 },
            "Most KiB per second to and from it (default: no limit).",
        ),
        key(
            "retention",
            Shape::Table(RETENTION),
            "Which of its points `forget --copy` keeps. Without it nothing is removed from it.",
        ),
    ],
);

/// The keys of two tables in one.
const fn both<const A: usize, const B: usize, const C: usize>(first: [Key; A], second: [Key; B]) -> [Key; C] {
    let mut all = [first[0]; C];
    let mut at = 0;
    while at < C {
        all[at] = if at < A { first[at] } else { second[at - A] };
        at += 1;
    }
    all
}

pub(crate) const OBJECTIVE: &[Key] = &[
    key("rpo", Shape::Duration, "Greatest acceptable age of the newest capture."),
    key("rto", Shape::Duration, "Greatest acceptable duration of a restore."),
    key("proof", Shape::Duration, "Greatest acceptable age of the newest proof."),
];

pub(crate) const HOOKS: &[Key] = &[
    key("before", Shape::Commands, "Run first; exit 75 skips the run, any other failure ends it."),
    key("after", Shape::Commands, "Run last, also after a failure."),
    key("on-error", Shape::Commands, "Run after a failure."),
    key("timeout", Shape::Duration, "Longest time of one command."),
    key("container", Shape::Text, "Container the commands run in, instead of this host."),
];

pub(crate) const RETENTION: &[Key] = &[
    key("keep-last", COUNT, "Newest points to keep."),
    key("keep-hourly", COUNT, "Hours of which the last point is kept."),
    key("keep-daily", COUNT, "Days of which the last point is kept."),
    key("keep-weekly", COUNT, "Weeks of which the last point is kept."),
    key("keep-monthly", COUNT, "Months of which the last point is kept."),
    key("keep-yearly", COUNT, "Years of which the last point is kept."),
    key("keep-within", Shape::Duration, "Everything younger than this, counted from the newest point, is kept."),
    key("min-keep", COUNT, "Never fewer complete points than this."),
    key("keep-tags", Shape::TextList, "Points with one of these words (`backup --tag WORD`) are kept."),
];

pub(crate) const DRILL: &[Key] = &[
    key("dir", Shape::Path, "Directory for sandboxes, with room for what is restored (default: /var/tmp)."),
    key("timeout", Shape::Duration, "Hard limit of one drill (default 6h)."),
    key("memory-mib", Shape::Integer { min: 64, max: 1 << 32 }, "Memory of one engine process (default 4096)."),
    key("disk-mib", Shape::Integer { min: 1, max: 1 << 32 }, "Size of all sandboxes of one drill (default: no limit)."),
    key(
        "programs",
        Shape::TextList,
        "Directories with engines (`postgres`, `redis-server`, …), before the usual ones.",
    ),
];

const COUNT: Shape = Shape::Integer { min: 1, max: 100_000 };

const KIND: Key =
    must("kind", Shape::Choice(&["postgres", "redis", "files", "prometheus", "grafana"]), "What kind of thing it is.");
const CONTAINER: Key = key(
    "container",
    Shape::Text,
    "Container it runs in: its programs and volumes are used, and paths of its data are paths inside of it.",
);
const SCHEDULE: Key =
    key("schedule", Shape::Schedule, "When it is captured, as cron says it; `status` and the RPO check use it.");
const OBJECTIVES: Key = key("objective", Shape::Table(OBJECTIVE), "Targets that every run is judged by.");
const RETAIN: Key = key(
    "retention",
    Shape::Table(RETENTION),
    "Which points that hold it are kept for its sake, instead of [retention].",
);
const SQL_CHECKS: Key = key(
    "checks",
    Shape::TextList,
    "SQL that a drill runs on the restored database: each gives one row whose first column is true.",
);
const COMMAND_CHECKS: Key = key(
    "checks",
    Shape::Commands,
    "Commands that a drill runs on what was restored (REKINDLE_PLACE, REKINDLE_SOCKET); exit 0 is good.",
);
const COMPONENT_HOOKS: Key = key("hooks", Shape::Table(HOOKS), "Programs run around this component.");
const COMPONENT_TRIPWIRE: Key =
    key("tripwire", Shape::Table(TRIPWIRE), "Differs from `[tripwire]` for this component.");
const COMPONENT_RECOVER: Key = key("recover", Shape::Table(RECOVER), "How `recover` stops and starts its server.");

pub(crate) const POSTGRES: &[Key] = &[
    KIND,
    must("url", Shape::Text, "`postgres://user@host:5432/database`, without the password."),
    key("password", Shape::Secret, "The role's password."),
    key("databases", Shape::AllOrTextList, "Databases to save, or \"all\"; the one of the URL when left out."),
    key(
        "method",
        Shape::Choice(&["logical", "physical"]),
        "How it is saved: `logical` (default) is pg_dump, `physical` is base backups of the whole cluster.",
    ),
    key(
        "wal",
        Shape::Choice(&["stream", "archive", "both", "none"]),
        "How the write-ahead log is kept, so that any moment can be recovered (physical): `stream` is `rekindle wal stream` with a replication slot, `archive` is `archive_command` with `rekindle wal push`; `none` (default): only the points themselves.",
    ),
    key("slot", Shape::Text, "Replication slot of `wal = \"stream\"`; `rekindle_STACK_COMPONENT` when left out."),
    key("schema-only", Shape::Bool, "Save definitions without rows."),
    key("tables", Shape::TextList, "Only these tables (patterns of pg_dump --table)."),
    key("exclude-tables", Shape::TextList, "All but these tables (patterns of pg_dump --exclude-table)."),
    key("exact-counts", Shape::Bool, "Count every row instead of estimating (reads every table once more)."),
    key("globals", Shape::Bool, "Save roles and tablespaces (default true)."),
    key("data-dir", Shape::Path, "The server's data directory on this host, for a restore of a base backup in place."),
    key("bin-dir", Shape::Path, "Directory with pg_dump and pg_restore; for a recovery also with postgres."),
    key("sslmode", Shape::Choice(&["disable", "prefer", "require", "verify-ca", "verify-full"]), "TLS as in libpq."),
    key("ca-file", Shape::Path, "PEM file with the server's certificate authority."),
    key("lock-timeout", Shape::Duration, "Longest wait for a table lock."),
    key("spool-dir", Shape::Path, "Where a dump is put during a restore with several workers."),
    CONTAINER,
    SQL_CHECKS,
    SCHEDULE,
    OBJECTIVES,
    RETAIN,
    COMPONENT_HOOKS,
    COMPONENT_TRIPWIRE,
    COMPONENT_RECOVER,
];

pub(crate) const REDIS: &[Key] = &[
    KIND,
    must("url", Shape::Text, "`redis://host:6379`, `rediss://…` for TLS, or `unix:///path`."),
    key("username", Shape::Text, "ACL user."),
    key("password", Shape::Secret, "Password of the user or the server."),
    key("data-dir", Shape::Path, "The server's data directory on this host, for a restore in place."),
    key("appendonly", Shape::Bool, "Whether a restored server will run with `appendonly yes` (default: as captured)."),
    key("ca-file", Shape::Path, "PEM file with the server's certificate authority."),
    key("cert-file", Shape::Path, "PEM file with the client's certificate."),
    key("key-file", Shape::Path, "PEM file with the client's private key."),
    CONTAINER,
    COMMAND_CHECKS,
    SCHEDULE,
    OBJECTIVES,
    RETAIN,
    COMPONENT_HOOKS,
    COMPONENT_TRIPWIRE,
    COMPONENT_RECOVER,
];

pub(crate) const FILES: &[Key] = &[
    KIND,
    must("paths", Shape::TextList, "Absolute paths of files and directories."),
    key("exclude", Shape::TextList, "Patterns as in .gitignore."),
    key("one-file-system", Shape::Bool, "Do not enter other file systems."),
    key("exclude-caches", Shape::Bool, "Leave out directories marked by CACHEDIR.TAG."),
    key("policy", Shape::Table(POLICY), "What a file that could not be taken as it was does to the point."),
    CONTAINER,
    COMMAND_CHECKS,
    SCHEDULE,
    OBJECTIVES,
    RETAIN,
    COMPONENT_HOOKS,
    COMPONENT_TRIPWIRE,
    COMPONENT_RECOVER,
];

pub(crate) const PROMETHEUS: &[Key] = &[
    KIND,
    must("url", Shape::Text, "`http://host:9090` or `https://…`, with the server's path prefix."),
    key("username", Shape::Text, "User of the web configuration (basic authentication)."),
    key("password", Shape::Secret, "That user's password."),
    key("token", Shape::Secret, "Bearer token, when a proxy in front of the server wants one."),
    key("ca-file", Shape::Path, "PEM file with the server's certificate authority."),
    key("data-dir", Shape::Path, "The server's `--storage.tsdb.path` on this host (default: as the server says)."),
    key(
        "config-paths",
        Shape::TextList,
        "Files and directories saved with it (default: what its configuration names).",
    ),
    key(
        "method",
        Shape::Choice(&["snapshot", "blocks"]),
        "`snapshot` fails without the admin API, `blocks` leaves out up to three hours; without it, the first that works.",
    ),
    key("bin-dir", Shape::Path, "Directory with prometheus and promtool, for the check after a restore."),
    CONTAINER,
    COMMAND_CHECKS,
    SCHEDULE,
    OBJECTIVES,
    RETAIN,
    COMPONENT_HOOKS,
    COMPONENT_TRIPWIRE,
    COMPONENT_RECOVER,
];

pub(crate) const GRAFANA: &[Key] = &[
    KIND,
    key("data-dir", Shape::Path, "Its data directory on this host (default: as its configuration says)."),
    key("database", Shape::Path, "Its SQLite file on this host (default: grafana.db in the data directory)."),
    key("config", Shape::Path, "Its grafana.ini (default: /etc/grafana/grafana.ini)."),
    key("environment-file", Shape::Path, "File with GF_ variables (default: /etc/default/grafana-server)."),
    key("secret-key", Shape::Secret, "Its secret_key, when none of these files holds it."),
    key("config-paths", Shape::TextList, "Further files and directories saved with it."),
    key("home", Shape::Path, "Directory with its VERSION file (default: /usr/share/grafana)."),
    key("stage-dir", Shape::Path, "Where the copy of the database is put for a moment (default: TMPDIR)."),
    key("url", Shape::Text, "`http://host:3000`: adds a readable export of dashboards, alerts and so on."),
    key("username", Shape::Text, "User for the export; an administrator of the server sees every organisation."),
    key("password", Shape::Secret, "That user's password."),
    key("token", Shape::Secret, "Token of a service account for the export (one organisation)."),
    key("ca-file", Shape::Path, "PEM file with the server's certificate authority."),
    CONTAINER,
    COMMAND_CHECKS,
    SCHEDULE,
    OBJECTIVES,
    RETAIN,
    COMPONENT_HOOKS,
    COMPONENT_TRIPWIRE,
    COMPONENT_RECOVER,
];

pub(crate) const POLICY: &[Key] = &[
    key("vanished", ON_CHANGE, "It was listed, but gone when it was to be read."),
    key("changed", ON_CHANGE, "It changed while it was read, also at the last try."),
    key("unreadable", ON_CHANGE, "It could not be read."),
];

const ON_CHANGE: Shape = Shape::Choice(&["note", "partial", "fail"]);

/// The keys of a kind of component.
pub(crate) fn of_kind(kind: &str) -> Option<&'static [Key]> {
    match kind {
        "postgres" => Some(POSTGRES),
        "redis" => Some(REDIS),
        "files" => Some(FILES),
        "prometheus" => Some(PROMETHEUS),
        "grafana" => Some(GRAFANA),
        _ => None,
    }
}

/// Kinds with their keys.
pub(crate) const KINDS: &[(&str, &[Key])] =
    &[("postgres", POSTGRES), ("redis", REDIS), ("files", FILES), ("prometheus", PROMETHEUS), ("grafana", GRAFANA)];

/// In which other tables a key of this name stands, for somebody who put it into the wrong one.
pub(crate) fn elsewhere(name: &str) -> Option<&'static str> {
    let tables: &[(&str, &[Key])] = &[
        ("[stack]", STACK),
        ("[repository]", REPOSITORY),
        ("[retention]", RETENTION),
        ("[drill]", DRILL),
        ("[tripwire]", TRIPWIRE),
        ("[recover]", RECOVER),
        ("[hooks]", HOOKS),
        ("[serve]", SERVE),
        ("a component's `objective`", OBJECTIVE),
        ("a files component's `policy`", POLICY),
        ("a postgres component", POSTGRES),
        ("a redis component", REDIS),
        ("a files component", FILES),
        ("a prometheus component", PROMETHEUS),
        ("a grafana component", GRAFANA),
    ];
    let mut found = tables.iter().filter(|(_, keys)| keys.iter().any(|key| key.name == name));
    match (found.next(), found.next()) {
        (Some((table, _)), None) => Some(table),
        _ => None,
    }
}
