//! The `postgres` component. Method `logical`: `pg_dump` streams with everything around them that
//! a restore needs. Method `physical`: base backups ([`physical`]).
//!
//! One logical capture holds one exported snapshot per database, so that dump, row counts and catalogue
//! facts are of one moment; PostgreSQL has no snapshot across databases, so several databases are
//! frozen one right after the other and each record says when.

mod access;
pub mod archive;
mod capture;
mod catalog;
mod check;
mod connect;
pub mod details;
mod dump;
mod globals;
mod moments;
mod options;
pub mod physical;
mod preload;
mod privilege;
mod probe;
mod programs;
mod quote;
pub mod receiver;
mod recovery;
pub mod replication;
mod restore;
mod sandbox;
mod setup;
mod tls;
mod url;
mod users_checks;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekindle_core::note::{NoteClass, Notebook};
use rekindle_core::port::{
    Capture, Component, Finding, PartReader, Previous, RestoreReport, RestoreRequest, RunContext,
};
use rekindle_core::{ComponentId, ComponentKind, Fault, Result, codes};

use access::Access;
use capture::{Frozen, LogicalCapture, Prepared};
use connect::{Server, Session};
use details::{DETAILS_VERSION, DatabaseRecord, Details, GlobalsRecord, ServerRecord};
use dump::DumpPlan;
pub use moments::{Heartbeat, Written, beat, create_restore_point, prepare_heartbeat};
pub use options::{Databases, PostgresOptions};
pub use programs::Home;
use programs::Programs;
pub use recovery::{Proof, Recovered};
use restore::create_statement;
pub use restore::{Restored, RestoredDatabase};
pub use sandbox::PostgresSandbox;
pub use setup::look_at_log;
pub use url::{BadUrl, Host, ServerUrl, SslMode};

use crate::child::Stop;

/// A PostgreSQL server whose databases are saved by `pg_dump`.
#[derive(Debug, Clone)]
pub struct PostgresComponent {
    id: ComponentId,
    options: PostgresOptions,
    /// Servers that restores of this process went to, with their passwords, for the checks after.
    targets: Arc<Mutex<Vec<Server>>>,
}

impl PostgresComponent {
    /// A component with its options; nothing is looked at yet.
    pub fn new(id: ComponentId, options: PostgresOptions) -> Self {
        Self { id, options, targets: Arc::default() }
    }

    fn server(&self) -> Server {
        Server {
            url: self.options.url.clone(),
            password: self.options.password.clone(),
            connect_timeout: self.options.connect_timeout,
        }
    }

    /// The same server, for replication.
    fn replication(&self) -> replication::ReplicationOptions {
        replication::ReplicationOptions {
            connect_timeout: self.options.connect_timeout,
            idle_timeout: self.options.idle_timeout,
            ..replication::ReplicationOptions::new(self.options.url.clone(), self.options.password.clone())
        }
    }

    fn setup(&self) -> recovery::Setup {
        recovery::Setup { id: self.id.clone(), options: self.options.clone() }
    }

    fn name(&self, doing: &str) -> String {
        format!("{doing} of postgres `{}`", self.id)
    }

    async fn prepare(&self, context: &RunContext) -> Result<Prepared> {
        let server = self.server();
        context.monitor.phase(self.id.as_str(), "snapshot");
        let session = server.connect(&self.options.url.database).await?;
        let facts = catalog::server(&session, self.options.url.to_string()).await?;
        let names = chosen(&session, &self.options).await?;
        drop(session);
        let programs = find_programs(&self.options, facts.major(), facts.major(), "pg_dump").await?;
        let access = Access::new(&server, &context.scratch)?;
        let notes = Notebook::default();
        let mut details = Details {
            version: DETAILS_VERSION,
            method: "logical".to_owned(),
            dumped_with: programs.version.clone(),
            dump_major: programs.major,
            schema_only: self.options.schema_only,
            tables: self.options.tables.clone(),
            exclude_tables: self.options.exclude_tables.clone(),
            globals: GlobalsRecord::None,
            databases: Vec::new(),
            server: facts,
        };
        let globals = self.globals(&programs, &access, context, &notes).await?;
        let globals = globals.map(|(sql, record)| {
            details.globals = record;
            sql
        });
        let mut frozen = Vec::new();
        for (record, held) in freeze(&server, &names, &details.server, &notes).await? {
            details.databases.push(record);
            frozen.push(held);
        }
        Ok(Prepared {
            id: self.id.clone(),
            options: self.options.clone(),
            server,
            programs,
            access,
            details,
            frozen,
            globals,
            notes,
        })
    }

    async fn globals(
        &self,
        programs: &Programs,
        access: &Access,
        context: &RunContext,
        notes: &Notebook,
    ) -> Result<Option<(Vec<u8>, GlobalsRecord)>> {
        if !self.options.globals {
            return Ok(None);
        }
        let (options, programs) = (self.options.clone(), programs.clone());
        let (access, stop) = (access.clone(), Stop::new(context.cancel.clone()));
        let captured = blocking(move || globals::capture(&options, &programs, &access, &stop)).await?;
        if captured.1 == GlobalsRecord::WithoutPasswords {
            let role = &self.options.url.user;
            notes.add(
                NoteClass::Incomplete,
                "globals.sql",
                format!(
                    "roles are saved without their passwords, because `{role}` may not read \
                     pg_authid; run as superuser: {}",
                    privilege::read_all(role)
                ),
            );
        }
        Ok(Some(captured))
    }
}

#[async_trait]
impl Component for PostgresComponent {
    fn id(&self) -> &ComponentId {
        &self.id
    }

    fn kind(&self) -> ComponentKind {
        ComponentKind::Postgres
    }

    async fn probe(&self, context: &RunContext) -> Result<Vec<Finding>> {
        context.cancel.check()?;
        if let Some(physical) = self.options.physical.clone() {
            let (server, cancel) = (self.replication(), context.cancel.clone());
            return blocking(move || physical::probe(&server, &physical, &cancel)).await;
        }
        probe::probe(&self.options, &self.server(), &context.scratch).await
    }

    async fn begin(&self, context: &RunContext) -> Result<Box<dyn Capture>> {
        self.begin_after(None, context).await
    }

    async fn begin_after(&self, previous: Option<Previous>, context: &RunContext) -> Result<Box<dyn Capture>> {
        let frame = |fault: Fault| fault.during(self.name("begin backup"));
        if let Some(physical) = &self.options.physical {
            let begun = physical::begin(&self.id, self.replication(), physical, previous, context);
            return Box::pin(begun).await.map_err(frame);
        }
        let prepared = Box::pin(self.prepare(context)).await.map_err(frame)?;
        Ok(Box::new(LogicalCapture::new(prepared, context).map_err(frame)?))
    }

    async fn restore(
        &self,
        part: Arc<dyn PartReader>,
        request: &RestoreRequest,
        context: &RunContext,
    ) -> Result<RestoreReport> {
        let restored = if recovery::is_base(&*part) {
            Box::pin(recovery::restore(&self.setup(), part, request, context)).await
        } else {
            Box::pin(restore::restore(self, part, request, context)).await
        };
        restored.map_err(|fault| fault.during(self.name("restore")))
    }

    async fn check(
        &self,
        part: Arc<dyn PartReader>,
        report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let checked = if recovery::is_base(&*part) {
            Box::pin(recovery::check(&self.setup(), &*part, report, context)).await
        } else {
            Box::pin(check::check(self, part.as_ref(), report, context)).await
        };
        checked.map_err(|fault| fault.during(self.name("check")))
    }

    async fn occupied(&self, part: Arc<dyn PartReader>, _context: &RunContext) -> Result<Option<String>> {
        let found = if recovery::is_base(&*part) {
            recovery::occupied(&self.setup())
        } else {
            Box::pin(restore::home::occupied(self, &part.record().details)).await
        };
        found.map_err(|fault| fault.during(self.name("look at the place")))
    }

    async fn roll_back(&self, report: &RestoreReport, context: &RunContext) -> Result<()> {
        Box::pin(restore::roll_back(self, report, context)).await.map_err(|fault| fault.during(self.name("roll back")))
    }
}

/// Runs blocking work on the runtime's own threads for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Fault::new(codes::RUN_BUG, "run a blocking step").because(error)),
    }
}

/// The client programs for a server, and no older than `least`.
async fn find_programs(options: &PostgresOptions, server: u32, least: u32, name: &'static str) -> Result<Programs> {
    let (bin_dir, home): (Option<PathBuf>, _) = (options.bin_dir.clone(), options.home.clone());
    blocking(move || programs::find(bin_dir.as_deref(), home.as_ref(), server, least, name)).await
}

/// The databases to save, checked against those that exist.
async fn chosen(session: &Session, options: &PostgresOptions) -> Result<Vec<String>> {
    let known = catalog::databases(session).await?;
    let wanted = match &options.databases {
        Databases::All => return Ok(known),
        Databases::One => vec![options.url.database.clone()],
        Databases::List(names) => names.clone(),
    };
    let exist = catalog::names(session, "list the databases", "SELECT datname::text FROM pg_database").await?;
    match wanted.iter().find(|name| !exist.contains(name)) {
        None => Ok(wanted),
        Some(absent) => {
            Err(Fault::new(codes::PG_NO_DATABASE, format!("find the database `{absent}` on {}", options.url))
                .because(format!("the server has `{}`", known.join("`, `")))
                .hint("correct `databases` of the component in the configuration"))
        }
    }
}

/// Connects to every database first, then takes the snapshots one right after the other.
async fn freeze(
    server: &Server,
    names: &[String],
    facts: &ServerRecord,
    notes: &Notebook,
) -> Result<Vec<(DatabaseRecord, Frozen)>> {
    let mut sessions = Vec::new();
    for name in names {
        sessions.push((name, server.connect(name).await?));
    }
    let mut moments = Vec::new();
    for (name, session) in sessions {
        moments.push((name, catalog::freeze(&session).await?, session));
    }
    let mut frozen = Vec::new();
    for (name, moment, session) in moments {
        frozen.push(describe(name, moment, session, facts, notes).await?);
    }
    Ok(frozen)
}

async fn describe(
    name: &str,
    moment: catalog::Moment,
    session: Session,
    facts: &ServerRecord,
    notes: &Notebook,
) -> Result<(DatabaseRecord, Frozen)> {
    let properties = catalog::properties(&session, facts).await?;
    let (tables, unlogged) = catalog::tables(&session).await?;
    if facts.standby && unlogged > 0 {
        notes.add(
            NoteClass::Incomplete,
            name,
            format!("a standby has no rows of unlogged tables; there are {unlogged} such tables"),
        );
    }
    let record = DatabaseRecord {
        name: name.to_owned(),
        file: format!("databases/{}.dump", quote::file_name(name)),
        snapshot_at: moment.at,
        lsn: moment.lsn.clone(),
        size: moment.size,
        extensions: catalog::extensions(&session).await?,
        tables: tables.clone(),
        sequences: catalog::sequences(&session).await?,
        large_objects: catalog::large_objects(&session).await?,
        owners: Vec::new(),
        tablespaces: Vec::new(),
        archive_version: String::new(),
        properties,
    };
    let plan = DumpPlan {
        database: name.to_owned(),
        moment,
        tables,
        utf8: record.properties.encoding == "UTF8",
        standby: facts.standby,
    };
    Ok((record, Frozen { session, plan }))
}
