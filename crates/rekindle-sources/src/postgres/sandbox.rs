//! A PostgreSQL of its own for one point: the recorded major version, reached over a Unix socket.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::{Component, Finding, PartReader, RestoreReport, RunContext, Target};
use rekindle_core::sandbox::{Opened, Proved, Sandbox};
use rekindle_core::wal::BaseBackup;
use rekindle_core::{ComponentId, Fault, Result, codes};
use rustix::process::Signal;

use super::catalog;
use super::connect::Server;
use super::create_statement;
use super::details::Details;
use super::programs::{self, Programs};
use super::quote::ident;
use super::restore::{Restored, RestoredDatabase};
use super::url::{Host, ServerUrl, SslMode, encode};
use super::{PostgresComponent, PostgresOptions, blocking, preload, users_checks};
use crate::sandbox::engine::{Engine, Spec, environment, give};
use crate::sandbox::{Site, fault};

/// Longest start of a server.
const START_MAX: Duration = Duration::from_mins(10);
const INITDB_MAX: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";
const SOCKET: &str = ".s.PGSQL.5432";
/// Longest run of pg_amcheck on one database.
const AMCHECK_MAX: Duration = Duration::from_hours(2);

/// A sandbox for a `postgres` component.
pub struct PostgresSandbox {
    site: Arc<Site>,
    id: ComponentId,
    /// Where client programs are, as configured.
    bin_dir: Option<PathBuf>,
    /// The database that the user's checks are about.
    database: Option<String>,
    /// SQL, each with one row whose first column is true.
    checks: Vec<String>,
    state: Mutex<Option<State>>,
}

/// An open sandbox.
struct State {
    place: PathBuf,
    server: Server,
    programs: Programs,
    engine: Option<Arc<Engine>>,
}

impl std::fmt::Debug for PostgresSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSandbox").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PostgresSandbox {
    /// A sandbox; nothing is made yet.
    pub fn new(site: Arc<Site>, id: ComponentId, bin_dir: Option<PathBuf>) -> Self {
        Self { site, id, bin_dir, database: None, checks: Vec::new(), state: Mutex::default() }
    }

    /// With the user's checks, which are about one database.
    #[must_use]
    pub fn with_checks(self, database: Option<String>, checks: Vec<String>) -> Self {
        Self { database, checks, ..self }
    }

    fn server(&self) -> Result<(Server, Programs, PathBuf)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_ref().ok_or_else(|| Fault::new(codes::RUN_BUG, "use a sandbox that is not open"))?;
        Ok((state.server.clone(), state.programs.clone(), state.place.clone()))
    }

    /// Makes an empty cluster and starts it.
    async fn make(&self, details: &Details, context: &RunContext) -> Result<Engine> {
        let (_, programs, place) = self.server()?;
        let (site, cancel) = (Arc::clone(&self.site), context.cancel.clone());
        let major = details.server.major();
        let preload = details.server.preload.clone().unwrap_or_default();
        let initialised = blocking(move || {
            let user = site.confinement.user(SUPERUSER);
            give(&place, user.as_ref())?;
            let spec = Spec {
                program: programs.path("initdb"),
                args: ["-D", "data", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
                    .map(OsString::from)
                    .to_vec(),
                env: environment(),
                log: place.join("initdb.log"),
                place: place.clone(),
                user,
                end: Signal::TERM,
            };
            let engine = Engine::start(&site, spec)?;
            let status = engine.wait(INITDB_MAX, &cancel)?;
            if !status.success() {
                let why = format!("initdb ended with {status}: {}", engine.log_tail());
                return Err(Fault::new(codes::DRILL_NO_ENGINE, format!("make a cluster of PostgreSQL {major}"))
                    .because(why)
                    .hint("the programs must be readable by the user `postgres` when rekindle runs as root"));
            }
            launch(&site, &place, &programs, Origin::Empty, &preload)
        });
        initialised.await
    }

    /// Waits until the server answers.
    async fn ready(&self, engine: &Engine, server: &Server, context: &RunContext) -> Result<()> {
        let since = Instant::now();
        let failed = || Fault::new(codes::DRILL_ENGINE, format!("start PostgreSQL for `{}` in the sandbox", self.id));
        loop {
            context.cancel.check()?;
            if let Some(status) = engine.ended() {
                return Err(failed().because(format!("it ended with {status}: {}", engine.log_tail())));
            }
            if server.connect(SUPERUSER).await.is_ok() {
                return Ok(());
            }
            if since.elapsed() > START_MAX {
                let why = format!("it does not answer after {} s: {}", START_MAX.as_secs(), engine.log_tail());
                return Err(failed().because(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Locales of the point that this host does not have say nothing about the point.
    async fn ensure_locales(&self, server: &Server, details: &Details) -> Result<()> {
        let session = server.connect(SUPERUSER).await?;
        let mut seen = BTreeSet::new();
        for record in &details.databases {
            let properties = &record.properties;
            let key = (&properties.encoding, &properties.collate, &properties.ctype, &properties.locale);
            if !seen.insert(key) {
                continue;
            }
            let mut empty = properties.clone();
            SUPERUSER.clone_into(&mut empty.owner);
            let sql = create_statement("rekindle_locale", &empty, details.server.major(), None);
            if let Err(error) = session.try_command(&sql).await {
                let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
                let what = format!("make a database as `{}` was in the sandbox", record.name);
                return Err(Fault::new(codes::DRILL_NO_ENGINE, what)
                    .because(why)
                    .hint(format!("install the locale `{}` on this host", properties.collate)));
            }
            session.command("drop the empty database", "DROP DATABASE rekindle_locale").await?;
        }
        Ok(())
    }

    fn options(&self, server: &Server, programs: &Programs, place: &Path, dump_major: u32) -> PostgresOptions {
        // An archive of a newer pg_dump needs a newer pg_restore than the server's.
        let own = (dump_major <= programs.major).then(|| programs.directory.clone());
        let mut options = PostgresOptions::new(server.url.clone(), None);
        options.bin_dir = own.or_else(|| self.bin_dir.clone());
        options.spool_dir = Some(place.to_owned());
        options
    }

    async fn amcheck(&self, name: &str, context: &RunContext) -> Result<Finding> {
        let (_, programs, place) = self.server()?;
        let program = programs.path("pg_amcheck");
        if !program.is_file() {
            let text =
                format!("database `{name}`: pages were not checked, there is no `pg_amcheck` {}", programs.major);
            return Ok(Finding::warning(text, "install PostgreSQL's contributed programs of this version"));
        }
        // The pattern language of psql: quoted, a name is itself.
        let pattern = format!("\"{}\"", name.replace('"', "\"\""));
        let mut env = environment();
        env.push(("PGHOST".to_owned(), place.join("s").into()));
        env.push(("PGUSER".to_owned(), SUPERUSER.into()));
        let log = place.join("amcheck.log");
        let (site, cancel, at) = (Arc::clone(&self.site), context.cancel.clone(), log.clone());
        let status = blocking(move || {
            let _ = fs::remove_file(&at);
            let spec = Spec {
                program,
                args: vec![format!("--database={pattern}").into(), "--install-missing".into()],
                env,
                user: site.confinement.user(SUPERUSER),
                place,
                log: at,
                end: Signal::TERM,
            };
            Engine::start(&site, spec)?.wait(AMCHECK_MAX, &cancel)
        });
        let status = status.await?;
        let said = crate::sandbox::engine::tail(&log);
        Ok(match status.code() {
            Some(0) => {
                Finding::good(format!("database `{name}`: pg_amcheck finds nothing wrong in tables and indexes"))
            }
            // 2: it looked and found something (PostgreSQL manual, pg_amcheck).
            Some(2) => Finding::bad(
                format!("database `{name}`: pg_amcheck: {said}"),
                "the data is damaged: drill an older point, and check the live server with pg_amcheck",
            ),
            _ => Finding::warning(
                format!("database `{name}`: pg_amcheck could not look: {status}: {said}"),
                "install the extension `amcheck` of this PostgreSQL",
            ),
        })
    }

    async fn users_checks(&self, databases: &[RestoredDatabase]) -> Result<Vec<Finding>> {
        if self.checks.is_empty() {
            return Ok(Vec::new());
        }
        let named = databases.iter().find(|one| Some(&one.name) == self.database.as_ref());
        let Some(database) = named.or_else(|| databases.first().filter(|_| databases.len() == 1)) else {
            let text = "the checks are about a database that the point does not hold".to_owned();
            return Ok(vec![Finding::bad(text, "correct the database in the component's `url`")]);
        };
        let (server, ..) = self.server()?;
        users_checks::ask(&server.connect(&database.restored_as).await?, &self.checks).await
    }
}

/// Where a cluster comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Made here.
    Empty,
    Restored,
}

/// Starts the server on the cluster of a place. Blocking.
fn launch(site: &Site, place: &Path, programs: &Programs, origin: Origin, preload: &str) -> Result<Engine> {
    let user = site.confinement.user(SUPERUSER);
    let write = |name: &str, text: String| {
        let path = place.join(name);
        fs::write(&path, text).map_err(|error| fault("write", &path, error))?;
        give(&path, user.as_ref())
    };
    let (rule, map) = access(user.as_ref().map(|user| user.name.as_str()));
    write("hba.conf", rule)?;
    write("ident.conf", map)?;
    let sockets = place.join("s");
    let text = |path: &Path| path.display().to_string();
    let settings = [
        ("port", PORT.to_string()),
        ("listen_addresses", String::new()),
        ("unix_socket_directories", text(&sockets)),
        ("unix_socket_permissions", "0700".to_owned()),
        ("hba_file", text(&place.join("hba.conf"))),
        ("ident_file", text(&place.join("ident.conf"))),
        // What is here is thrown away: nothing has to survive a crash.
        ("fsync", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
        ("synchronous_commit", "off".to_owned()),
        ("max_connections", "20".to_owned()),
        ("shared_buffers", "64MB".to_owned()),
        ("maintenance_work_mem", "128MB".to_owned()),
        ("max_wal_size", "2GB".to_owned()),
        // Files in the cluster instead of /dev/shm, where a killed server would leave them.
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        // Nothing goes out, and nothing of the old host is run.
        ("archive_mode", "off".to_owned()),
        ("ssl", "off".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("cluster_name", "rekindle sandbox".to_owned()),
    ];
    let mut settings = settings.to_vec();
    settings.extend(preload::settings(preload));
    if origin == Origin::Restored {
        // Nothing of the old host's configuration counts: its commands would be run here.
        write("postgresql.conf", String::new())?;
        settings.push(("config_file", text(&place.join("postgresql.conf"))));
        settings.push(("restore_command", String::new()));
        settings.push(("primary_conninfo", String::new()));
    }
    let mut args: Vec<OsString> = vec!["-D".into(), "data".into()];
    for (name, value) in settings {
        args.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    let spec = Spec {
        program: programs.path("postgres"),
        args,
        env: environment(),
        place: place.to_owned(),
        log: place.join("log"),
        user,
        end: Signal::QUIT,
    };
    Engine::start(site, spec)
}

/// Only the engine's user and ours come in, as the superuser.
fn access(engine: Option<&str>) -> (String, String) {
    let own = uzers::get_current_username().map(|name| name.to_string_lossy().into_owned());
    let Some(own) = own else {
        // A user without a name cannot be mapped; the closed directory of the socket remains.
        return ("local all all trust\n".to_owned(), String::new());
    };
    let lines: Vec<String> =
        engine.into_iter().chain([own.as_str()]).map(|name| format!("sandbox {name} {SUPERUSER}\n")).collect();
    ("local all all peer map=sandbox\n".to_owned(), lines.concat())
}

#[async_trait]
impl Sandbox for PostgresSandbox {
    fn component(&self) -> &ComponentId {
        &self.id
    }

    async fn open(&self, record: &ComponentRecord, context: &RunContext) -> Result<Opened> {
        if let Some(base) = BaseBackup::of(&record.details) {
            let base = base
                .map_err(|error| Fault::new(codes::PG_DETAILS, "read the record of the base backup").because(error))?;
            return self.open_base(record, &base).await;
        }
        let details = Details::decode(&record.details)?;
        let bytes: i64 = details.databases.iter().map(|database| database.size).sum();
        let server = self.prepare(details.server.major(), u64::try_from(bytes).unwrap_or(0)).await?;
        let (_, programs, place) = self.server()?;
        let version = programs.version.clone();
        let options = self.options(&server, &programs, &place, details.dump_major);
        let engine = Arc::new(self.make(&details, context).await?);
        self.runs(&engine);
        self.ready(&engine, &server, context).await.map_err(|fault| {
            // An empty cluster that does not start says nothing about the point.
            if fault.is(codes::DRILL_ENGINE) {
                Fault::new(codes::DRILL_NO_ENGINE, fault.what().to_owned()).because(fault.chain())
            } else {
                fault
            }
        })?;
        self.ensure_locales(&server, &details).await?;
        let component: Arc<dyn Component> = Arc::new(PostgresComponent::new(self.id.clone(), options));
        // The server is empty: in place means under the databases' own names.
        let target = Target::InPlace { discard_old: true };
        Ok(Opened { component, target, engine: Some(format!("PostgreSQL {version}")) })
    }

    async fn start(&self, record: &ComponentRecord, _: &RestoreReport, context: &RunContext) -> Result<Proved> {
        if BaseBackup::of(&record.details).is_none() {
            // It has been running since before the restore of the dump.
            return Ok(Proved::default());
        }
        let since = Instant::now();
        let (server, programs, place) = self.server()?;
        let (site, version) = (Arc::clone(&self.site), programs.version.clone());
        let launched = blocking(move || {
            give(&place, site.confinement.user(SUPERUSER).as_ref())?;
            let libraries = preload::in_directory(&place.join("data"));
            Ok((launch(&site, &place, &programs, Origin::Restored, &libraries)?, libraries))
        });
        let (engine, libraries) = launched.await?;
        let engine = Arc::new(engine);
        self.runs(&engine);
        self.ready(&engine, &server, context).await.map_err(|fault| preload::lacking(fault, &libraries))?;
        Ok(Proved {
            engine: Some(format!("PostgreSQL {version}")),
            ready_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            findings: vec![Finding::good("PostgreSQL starts on the recovered cluster and answers")],
        })
    }

    async fn look(
        &self,
        _part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let databases = self.databases(report).await?;
        let mut findings = Vec::new();
        for database in &databases {
            findings.push(self.amcheck(&database.restored_as, context).await?);
        }
        findings.extend(self.users_checks(&databases).await?);
        Ok(findings)
    }

    async fn way_in(&self, report: &RestoreReport, _context: &RunContext) -> Result<Option<String>> {
        let (server, ..) = self.server()?;
        let databases = self.databases(report).await?;
        let session = server.connect(SUPERUSER).await?;
        for database in &databases {
            // Stronger than the configuration file: a setting of the database itself wins over that.
            let sql = format!("ALTER DATABASE {} SET default_transaction_read_only = on", ident(&database.restored_as));
            session.command("make the past read-only", &sql).await?;
        }
        session.command("make the past read-only", "ALTER SYSTEM SET default_transaction_read_only = on").await?;
        session.command("make the past read-only", "SELECT pg_reload_conf()").await?;
        let Host::Socket(sockets) = &server.url.host else { return Ok(None) };
        let one = |database: &RestoredDatabase| {
            // `psql` and most drivers take the directory of the socket as a parameter. The port is part of
            // the socket's name: it stands there for those whose environment names another.
            format!(
                "postgresql:///{}?host={}&port={PORT}&user={SUPERUSER}",
                encode(&database.restored_as),
                sockets.display()
            )
        };
        Ok(Some(databases.iter().map(one).collect::<Vec<_>>().join("\n")))
    }

    fn within_limits(&self) -> Result<()> {
        self.site.within_limits()
    }

    fn close(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(state) = state else { return Ok(()) };
        if let Some(engine) = &state.engine {
            engine.stop();
        }
        self.site.clear(&state.place)
    }
}

impl PostgresSandbox {
    /// Makes the place for a server of this version.
    async fn prepare(&self, major: u32, bytes: u64) -> Result<Server> {
        let (site, dirs) = (Arc::clone(&self.site), self.dirs());
        let (place, sockets, programs) = blocking(move || {
            site.ensure_room(bytes)?;
            let programs = programs::exact(&dirs, major, "postgres")?;
            let place = site.place()?;
            let sockets = Site::sockets(&place, SOCKET)?;
            Ok((place, sockets, programs))
        })
        .await?;
        let server = Server {
            url: ServerUrl {
                host: Host::Socket(sockets),
                port: PORT,
                user: SUPERUSER.to_owned(),
                database: SUPERUSER.to_owned(),
                ssl_mode: SslMode::Disable,
                root_certificate: None,
            },
            password: None,
            connect_timeout: Duration::from_secs(15),
        };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(State { place, server: server.clone(), programs, engine: None });
        Ok(server)
    }

    /// A base backup is restored into a directory first; its server is started afterwards.
    async fn open_base(&self, record: &ComponentRecord, base: &BaseBackup) -> Result<Opened> {
        let server = self.prepare(base.server_version / 10_000, record.tally.bytes).await?;
        let (_, programs, place) = self.server()?;
        let (site, at) = (Arc::clone(&self.site), place.clone());
        blocking(move || give(&at, site.confinement.user(SUPERUSER).as_ref())).await?;
        let mut options = PostgresOptions::new(server.url, None);
        options.bin_dir = Some(programs.directory.clone());
        // The janitor finds there what a killed drill leaves.
        options.private_dir = Some(place.clone());
        let target = Target::New(Some(place.join("data").to_string_lossy().into_owned()));
        let component: Arc<dyn Component> = Arc::new(PostgresComponent::new(self.id.clone(), options));
        Ok(Opened { component, target, engine: Some(format!("PostgreSQL {}", programs.version)) })
    }

    fn runs(&self, engine: &Arc<Engine>) {
        if let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            state.engine = Some(Arc::clone(engine));
        }
    }

    /// The restored databases: those of the report, or of a whole cluster all that can be opened.
    async fn databases(&self, report: &RestoreReport) -> Result<Vec<RestoredDatabase>> {
        if let Ok(restored) = serde_json::from_value::<Restored>(report.details.clone()) {
            return Ok(restored.databases);
        }
        let (server, ..) = self.server()?;
        let session = server.connect(SUPERUSER).await?;
        let sql = "SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";
        let names = catalog::names(&session, "list the databases", sql).await?;
        let one = |name: String| RestoredDatabase { restored_as: name.clone(), name, kept_old: None };
        Ok(names.into_iter().map(one).collect())
    }

    /// Where engines are looked for first.
    fn dirs(&self) -> Vec<PathBuf> {
        self.site.options.programs.iter().cloned().chain(self.bin_dir.clone()).collect()
    }
}
