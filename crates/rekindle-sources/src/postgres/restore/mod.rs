//! Restore: into new databases, verified, and then – only when asked – in place of the old ones.

mod create;
pub(super) mod home;
mod load;
mod partitioned;
mod roles;
mod roll_back;
mod swap;
mod target;

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rekindle_core::port::{PartReader, RestoreReport, RestoreRequest, RunContext, Step};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::catalog;
use super::check::compare;
use super::connect::{Server, Session};
use super::details::{DatabaseRecord, Details, ServerRecord};
use super::programs::Programs;
use super::url::ServerUrl;
use super::{PostgresComponent, find_programs};
pub(super) use create::statement as create_statement;
pub(super) use roll_back::roll_back;
use target::Plan;

/// Where a restore put things: the `details` of its report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    pub version: u32,
    /// The server, without the password.
    pub server: String,
    pub databases: Vec<RestoredDatabase>,
}

/// One database and where it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredDatabase {
    /// Its name in the point.
    pub name: String,
    /// Its name on the server.
    pub restored_as: String,
    /// The name under which the database that stood there is kept.
    pub kept_old: Option<String>,
}

/// What the steps of one restore share.
pub(super) struct Job<'a> {
    component: &'a PostgresComponent,
    context: &'a RunContext,
    request: &'a RestoreRequest,
    details: &'a Details,
    server: Server,
    /// On a database that the restore does not touch.
    admin: Session,
    facts: ServerRecord,
    programs: Programs,
    report: RestoreReport,
}

impl Job<'_> {
    /// Starts a step; give the clock back to [`Job::done`].
    fn step(&self, name: &str) -> Result<Instant> {
        self.context.cancel.check()?;
        self.context.monitor.phase(self.component.id.as_str(), name);
        Ok(Instant::now())
    }

    fn done(&mut self, name: &str, since: Instant) {
        self.report.steps.push(Step {
            name: name.to_owned(),
            elapsed_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.report.warnings.push(text.into());
    }
}

/// The whole restore.
pub(super) async fn restore(
    component: &PostgresComponent,
    part: Arc<dyn PartReader>,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    let details = Details::decode(&part.record().details)?;
    let chosen = target::select(&details, &request.select)?;
    let server = target::server(component, request)?;
    let names: Vec<&str> = chosen.iter().map(|record| record.name.as_str()).collect();
    let admin = admin(&server, &names).await?;
    let facts = catalog::server(&admin, server.url.to_string()).await?;
    preflight(&admin, &facts, &details, &chosen).await?;
    let least = details.dump_major;
    let programs = find_programs(&component.options, facts.major(), least, "pg_restore").await?;
    let plans = target::plan(&admin, &chosen, request).await?;
    let mut job = Job {
        component,
        context,
        request,
        details: &details,
        server,
        admin,
        facts,
        programs,
        report: RestoreReport::default(),
    };
    if job.programs.major > job.facts.major() {
        let (ours, theirs) = (job.programs.version.clone(), job.facts.version.clone());
        job.warn(format!(
            "pg_restore {ours} is newer than the server ({theirs}); it may send settings the \
             server does not know"
        ));
    }
    let since = job.step("roles")?;
    roles::restore(&mut job, &part, &chosen).await?;
    job.done("roles", since);
    let built = build_all(&mut job, &part, &plans).await;
    if let Err(fault) = built {
        return Err(clean_up(&job, &plans, fault).await);
    }
    let since = Instant::now();
    let kept = match swap::swap(&mut job, &plans).await {
        Ok(kept) => kept,
        Err(fault) => return Err(swap_failed(&plans, fault)),
    };
    job.done("swap", since);
    Ok(finish(job, &plans, kept))
}

/// A connection to a database that is not among those to be replaced.
async fn admin(server: &Server, touched: &[&str]) -> Result<Session> {
    let mut last = None;
    for name in ["postgres", "template1", server.url.database.as_str()] {
        if touched.contains(&name) {
            continue;
        }
        match server.connect(name).await {
            Ok(session) => {
                session.run(create::WRITABLE).await?;
                return Ok(session);
            }
            Err(fault) if fault.is(codes::PG_NO_DATABASE) => last = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    Err(last.unwrap_or_else(|| {
        Fault::new(codes::PG_CONNECT, format!("connect to {}", server.url))
            .because("every database of the server is to be replaced")
    }))
}

async fn preflight(admin: &Session, facts: &ServerRecord, details: &Details, chosen: &[&DatabaseRecord]) -> Result<()> {
    if facts.major() < details.server.major() {
        return Err(Fault::new(
            codes::PG_VERSION,
            format!("restore a dump of PostgreSQL {} into PostgreSQL {}", details.server.version, facts.version),
        )
        .because("the server is older than the dump")
        .hint("name a server of the same or a newer major version with `--server URL`"));
    }
    if facts.standby {
        return Err(Fault::new(codes::PG_TARGET, format!("restore into {}", facts.address))
            .because("the server is a standby and takes no changes")
            .hint("name the primary with `--server URL`"));
    }
    create::may_create(admin).await?;
    let sql = "SELECT name::text FROM pg_available_extensions";
    let available = catalog::names(admin, "list the available extensions", sql).await?;
    for record in chosen {
        let mut wanted = record.extensions.iter();
        if let Some(lacking) = wanted.find(|extension| !available.contains(&extension.name)) {
            return Err(Fault::new(codes::PG_EXTENSION, format!("restore the database `{}`", record.name))
                .because(format!(
                    "it uses the extension `{}` {}, which the server does not have",
                    lacking.name, lacking.version
                ))
                .hint("install the extension's package on the server, or restore elsewhere"));
        }
    }
    Ok(())
}

async fn build_all(job: &mut Job<'_>, part: &Arc<dyn PartReader>, plans: &[Plan<'_>]) -> Result<()> {
    for plan in plans {
        let name = format!("create {}", plan.build_as);
        let since = job.step(&name)?;
        create::create(job, plan).await?;
        job.done(&name, since);
        let name = format!("load {}", plan.build_as);
        let since = job.step(&name)?;
        load::load(job, part, plan).await?;
        job.done(&name, since);
        let name = format!("analyze {}", plan.build_as);
        let since = job.step(&name)?;
        create::analyze(job, plan).await?;
        job.done(&name, since);
        let name = format!("verify {}", plan.build_as);
        let since = job.step(&name)?;
        verify(job, plan).await?;
        job.done(&name, since);
        create::properties(job, plan).await?;
    }
    Ok(())
}

async fn verify(job: &mut Job<'_>, plan: &Plan<'_>) -> Result<()> {
    let session = job.server.connect(&plan.build_as).await?;
    // The data is there: whatever goes wrong here is told and undoes nothing.
    match partitioned::look_again(&session).await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => job.warn(format!("not marked valid although all their parts are there: {}", left.join(", "))),
        Err(fault) => job.warn(fault.chain()),
    }
    let compared = compare(&session, plan.record, job.details).await?;
    for warning in compared.warnings {
        job.warn(warning);
    }
    if compared.differences.is_empty() {
        return Ok(());
    }
    Err(Fault::new(codes::PG_COUNTS, format!("verify the restored database `{}`", plan.build_as))
        .because(compared.differences.join("; "))
        .hint(format!(
            "nothing was replaced; look at `{}` on {}, and drop it when you are done",
            plan.build_as, job.server.url
        )))
}

/// Removes what a failed restore made; what only differs is kept to be looked at.
async fn clean_up(job: &Job<'_>, plans: &[Plan<'_>], fault: Fault) -> Fault {
    if fault.is(codes::PG_COUNTS) || fault.is(codes::PG_TARGET_EXISTS) {
        return fault;
    }
    let mut left = Vec::new();
    for plan in plans {
        if create::drop_database(&job.admin, &job.facts, &plan.build_as).await.is_err() {
            left.push(format!("`{}`", plan.build_as));
        }
    }
    if left.is_empty() {
        return fault;
    }
    fault.during(format!("restore (half restored databases are left: {})", left.join(", ")))
}

fn swap_failed(plans: &[Plan<'_>], fault: Fault) -> Fault {
    let built: Vec<String> = plans.iter().map(|p| format!("`{}`", p.build_as)).collect();
    fault.hint(format!("nothing was replaced; the restored and verified data stands in {}", built.join(", ")))
}

fn finish(mut job: Job<'_>, plans: &[Plan<'_>], kept: Vec<Option<String>>) -> RestoreReport {
    let databases: Vec<RestoredDatabase> = plans
        .iter()
        .zip(kept)
        .map(|(plan, kept_old)| RestoredDatabase {
            name: plan.record.name.clone(),
            restored_as: plan.ends_as().to_owned(),
            kept_old,
        })
        .collect();
    let names: Vec<String> = databases.iter().map(|d| format!("`{}`", d.restored_as)).collect();
    let word = if names.len() == 1 { "database" } else { "databases" };
    job.report.place = format!("{word} {} on {}", names.join(", "), job.server.url);
    let kept: Vec<&str> = databases.iter().filter_map(|d| d.kept_old.as_deref()).collect();
    if !kept.is_empty() {
        job.report.kept_old = Some(format!("`{}` on {}", kept.join("`, `"), job.server.url));
    }
    job.report.details = serde_json::json!(Restored { version: 1, server: job.server.url.to_url(), databases });
    let targets = &job.component.targets;
    targets.lock().unwrap_or_else(PoisonError::into_inner).push(job.server);
    job.report
}

/// The server a report speaks of, with the password that is known for it.
pub(super) fn server_of(component: &PostgresComponent, restored: &Restored) -> Result<Server> {
    let targets = component.targets.lock();
    let targets = targets.unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = targets.iter().find(|s| s.url.to_url() == restored.server) {
        return Ok(server.clone());
    }
    let (url, _) = ServerUrl::parse(&restored.server)
        .map_err(|error| Fault::new(codes::PG_DETAILS, "read the report of the restore").because(error))?;
    Ok(Server { url, ..component.server() })
}
