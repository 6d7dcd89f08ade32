//! What is restored, to which server, under which names.

use rekindle_core::port::{RestoreRequest, Target};
use rekindle_core::{Fault, Result, codes};

use crate::postgres::PostgresComponent;
use crate::postgres::catalog;
use crate::postgres::connect::{Server, Session};
use crate::postgres::details::{DatabaseRecord, Details};
use crate::postgres::quote::with_suffix;
use crate::postgres::url::ServerUrl;

const IDENTIFIER_MAX: usize = 63;
/// Names that are tried when the first is taken.
const NAMES_MAX: u32 = 99;

/// One database on its way.
#[derive(Debug, Clone)]
pub(super) struct Plan<'a> {
    pub(super) record: &'a DatabaseRecord,
    /// The name it is built and verified under.
    pub(super) build_as: String,
    /// The name it takes at the end, and the one the database that stands there is given.
    pub(super) replace: Option<Replace>,
}

/// The last step of a restore in place.
#[derive(Debug, Clone)]
pub(super) struct Replace {
    pub(super) name: String,
    /// None: no database stands there.
    pub(super) keep_as: Option<String>,
}

impl Plan<'_> {
    /// The name it has after everything went well.
    pub(super) fn ends_as(&self) -> &str {
        self.replace.as_ref().map_or(&self.build_as, |r| &r.name)
    }
}

/// The databases that are asked for; no names: all of the point.
pub(super) fn select<'a>(details: &'a Details, names: &[String]) -> Result<Vec<&'a DatabaseRecord>> {
    if names.is_empty() {
        return Ok(details.databases.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            let mut records = details.databases.iter();
            records.find(|record| record.name == *name).ok_or_else(|| {
                let known: Vec<&str> = details.databases.iter().map(|r| r.name.as_str()).collect();
                Fault::new(codes::PG_NO_DATABASE, format!("find the database `{name}` in the recovery point"))
                    .because(format!("the point has `{}`", known.join("`, `")))
                    .hint("name one of these")
            })
        })
        .collect()
}

/// The configured server, or the one of the request. A URL without a password gets the configured
/// one.
pub(super) fn server(component: &PostgresComponent, request: &RestoreRequest) -> Result<Server> {
    let configured = component.server();
    let Some(text) = &request.server else {
        return Ok(configured);
    };
    let (url, password) = ServerUrl::parse(text).map_err(|error| {
        Fault::new(codes::PG_TARGET, "read the URL of the target server")
            .because(error)
            .hint("write it as `postgres://USER@HOST:PORT/postgres`")
    })?;
    Ok(Server { url, password: password.or(configured.password), connect_timeout: configured.connect_timeout })
}

/// Chooses every name before anything is made, and refuses what would hit existing data.
pub(super) async fn plan<'a>(
    admin: &Session,
    chosen: &[&'a DatabaseRecord],
    request: &RestoreRequest,
) -> Result<Vec<Plan<'a>>> {
    let sql = "SELECT datname::text FROM pg_database";
    let mut taken = catalog::names(admin, "list the databases", sql).await?;
    let mut plans = Vec::new();
    for record in chosen {
        let plan = plan_one(record, chosen.len() > 1, request, &mut taken)?;
        plans.push(plan);
    }
    Ok(plans)
}

fn plan_one<'a>(
    record: &'a DatabaseRecord,
    several: bool,
    request: &RestoreRequest,
    taken: &mut Vec<String>,
) -> Result<Plan<'a>> {
    let short = request.point.short();
    let restored = format!("_restored_{short}");
    let wanted = match &request.target {
        Target::New(None) => with_suffix(&record.name, &restored),
        Target::New(Some(name)) if several => format!("{name}_{}", record.name),
        Target::New(Some(name)) => name.clone(),
        Target::InPlace { .. } => record.name.clone(),
        Target::Live => {
            return Err(Fault::new(
                codes::PG_TARGET,
                format!("restore the database `{}` into a live one", record.name),
            )
            .because("PostgreSQL is restored as a whole database")
            .hint("restore into a new database (the default), or `--in-place`"));
        }
    };
    if wanted.is_empty() || wanted.len() > IDENTIFIER_MAX {
        return Err(Fault::new(codes::PG_TARGET, format!("use the name `{wanted}`"))
            .because("a database name has 1 to 63 bytes")
            .hint("choose a shorter name for the target"));
    }
    let stands = taken.contains(&wanted);
    let in_place = matches!(request.target, Target::InPlace { .. });
    if !in_place && !stands {
        taken.push(wanted.clone());
        return Ok(Plan { record, build_as: wanted, replace: None });
    }
    if !in_place && !request.overwrite {
        return Err(Fault::new(codes::PG_TARGET_EXISTS, format!("restore into the database `{wanted}`"))
            .because("it exists already")
            .hint("choose another name, or drop it first, or let it be replaced with `--overwrite`"));
    }
    let build_as = free(&wanted, &restored, taken)?;
    let keep_as = if stands { Some(free(&wanted, &format!("_pre_restore_{short}"), taken)?) } else { None };
    Ok(Plan { record, build_as, replace: Some(Replace { name: wanted, keep_as }) })
}

/// A name nobody has, from now on taken.
pub(super) fn free(base: &str, suffix: &str, taken: &mut Vec<String>) -> Result<String> {
    let number = |n| if n == 1 { String::new() } else { format!("_{n}") };
    let name = (1..=NAMES_MAX)
        .map(|n| with_suffix(base, &format!("{suffix}{}", number(n))))
        .find(|name| !taken.contains(name));
    let Some(name) = name else {
        return Err(Fault::new(codes::PG_TARGET_EXISTS, format!("find a free name like `{base}{suffix}`"))
            .because(format!("{NAMES_MAX} of them are taken"))
            .hint("drop databases of earlier restores"));
    };
    taken.push(name.clone());
    Ok(name)
}
