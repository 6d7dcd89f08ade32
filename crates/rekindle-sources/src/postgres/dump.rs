//! The stream of one `pg_dump`, checked while it passes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use rekindle_core::entry::{Closing, ContentRead, EntryKind, Meta, ReadFault};
use rekindle_core::{Fault, Result, codes};
use tokio::sync::oneshot;

use super::access::Access;
use super::archive::{Archive, BadArchive, Contents};
use super::catalog::Moment;
use super::details::Table;
use super::options::PostgresOptions;
use super::privilege;
use super::programs::Programs;
use super::quote::conninfo;
use crate::child::{ChildRead, Ended, Stop};

/// One database to be dumped.
#[derive(Debug, Clone)]
pub(super) struct DumpPlan {
    pub(super) database: String,
    pub(super) moment: Moment,
    /// What the catalogue says is there.
    pub(super) tables: Vec<Table>,
    /// Whether names in the dump are in UTF-8, as ours are.
    pub(super) utf8: bool,
    /// On a standby the rows of unlogged tables do not exist.
    pub(super) standby: bool,
}

/// Where the contents of a finished dump are left for `finish`.
pub(super) type ContentsSlot = Arc<Mutex<Option<Contents>>>;

/// A running dump.
pub(super) struct DumpRead {
    child: Box<ChildRead>,
    archive: Option<Archive>,
    plan: DumpPlan,
    filtered: bool,
    early: Option<oneshot::Sender<Contents>>,
    slot: ContentsSlot,
}

/// The arguments of `pg_dump`; none of them is secret.
fn arguments(plan: &DumpPlan, options: &PostgresOptions) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        "--format=custom".into(),
        // The repository compresses; compressed dumps would not deduplicate.
        "--compress=0".into(),
        "--no-password".into(),
        format!("--snapshot={}", plan.moment.snapshot).into(),
        format!("--lock-wait-timeout={}", options.lock_timeout.as_millis()).into(),
        format!("--dbname={}", conninfo(&plan.database)).into(),
    ];
    if options.schema_only {
        args.push("--schema-only".into());
    }
    if plan.standby {
        args.push("--no-unlogged-table-data".into());
    }
    if !options.tables.is_empty() {
        args.push("--strict-names".into());
    }
    let patterns = |flag: &str, patterns: &[String]| -> Vec<OsString> {
        let arg = |pattern: &String| format!("{flag}={pattern}").into();
        patterns.iter().map(arg).collect()
    };
    args.extend(patterns("--table", &options.tables));
    args.extend(patterns("--exclude-table", &options.exclude_tables));
    args
}

/// Starts `pg_dump`. `early` gets the table of contents as soon as it has passed.
pub(super) fn start(
    plan: DumpPlan,
    options: &PostgresOptions,
    programs: &Programs,
    access: &Access,
    stop: Stop,
    early: oneshot::Sender<Contents>,
    slot: ContentsSlot,
) -> Result<DumpRead> {
    let spec = access.child(
        programs,
        "pg_dump",
        arguments(&plan, options),
        options.idle_timeout,
        format!("dump the database `{}`", plan.database),
        codes::PG_DUMP,
    );
    let meta = Meta::synthetic(EntryKind::File, plan.moment.at);
    let database = plan.database.clone();
    let role = options.url.user.clone();
    let judge = Box::new(move |ended: &Ended| judge(ended, &format!("dump the database `{database}`"), &role));
    Ok(DumpRead {
        child: Box::new(ChildRead::start(spec, stop, meta, judge)?),
        archive: Some(Archive::new()),
        filtered: options.is_filtered(),
        plan,
        early: Some(early),
        slot,
    })
}

/// The error of a `pg_dump` that ended badly.
pub(super) fn judge(ended: &Ended, what: &str, role: &str) -> Fault {
    let said = ended.stderr.as_str();
    let fault = |code| Fault::new(code, what).because(ended.describe());
    if let Some(remedy) = privilege::remedy(said, role) {
        return fault(codes::PG_PRIVILEGE).hint(remedy);
    }
    // `pg_dump` makes `--lock-wait-timeout` a statement timeout around its `LOCK TABLE`.
    let locked = said.contains("statement timeout") && said.contains("LOCK TABLE");
    if locked || said.contains("lock timeout") || said.contains("could not obtain lock") {
        return fault(codes::PG_LOCKED).hint(privilege::LOCK_HINT);
    }
    if said.contains("server closed the connection")
        || said.contains("terminating connection")
        || said.contains("connection to server was lost")
    {
        return fault(codes::PG_RESTARTED).hint("see the server's log for why it ended the connection; then run again");
    }
    if said.contains("no matching tables were found") {
        return fault(codes::PG_EMPTY).hint("correct the patterns in `tables` of the component");
    }
    fault(codes::PG_DUMP).hint("run `rekindle doctor` to see what the backup role can reach")
}

impl DumpRead {
    fn broken(&self, bad: BadArchive) -> Fault {
        let code = match bad {
            BadArchive::Empty => codes::PG_EMPTY,
            BadArchive::Cut { .. } | BadArchive::Missing { .. } => codes::PG_TRUNCATED,
            BadArchive::Magic | BadArchive::Version(..) | BadArchive::Malformed { .. } => codes::PG_DUMP,
        };
        Fault::new(code, format!("check the dump of the database `{}`", self.plan.database))
            .because(bad)
            .hint("see that `pg_dump` is the real one (`bin-dir`), then run again")
    }

    /// Once the table of contents has passed: is it of the database that was asked for?
    fn look_at_contents(&mut self, archive: &Archive) -> Result<()> {
        if self.early.is_none() || !archive.has_contents() {
            return Ok(());
        }
        if let (Some(contents), Some(early)) = (archive.contents(), self.early.take()) {
            if contents.head.database != self.plan.database {
                return Err(Fault::new(
                    codes::PG_DUMP,
                    format!("check the dump of the database `{}`", self.plan.database),
                )
                .because(format!("it is a dump of the database `{}`", contents.head.database)));
            }
            // Nobody waits for it when rows are not counted.
            let _ = early.send(contents);
        }
        Ok(())
    }

    /// Tables the catalogue has in this snapshot and the dump does not.
    fn lacking(&self, contents: &Contents) -> Option<String> {
        let dumped: BTreeSet<(&str, &str)> = contents
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind.as_str(), "TABLE" | "MATERIALIZED VIEW"))
            .map(|entry| (entry.schema.as_str(), entry.name.as_str()))
            .collect();
        if self.filtered {
            // Which tables a pattern means is for `pg_dump` to say; none at all is a mistake.
            return (dumped.is_empty() && !self.plan.tables.is_empty()).then(|| "not one table is in it".to_owned());
        }
        let lacking: Vec<String> = self
            .plan
            .tables
            .iter()
            .filter(|table| self.plan.utf8 || (table.schema.is_ascii() && table.name.is_ascii()))
            .filter(|table| !dumped.contains(&(table.schema.as_str(), table.name.as_str())))
            .map(|table| format!("`{}.{}`", table.schema, table.name))
            .collect();
        let first = lacking.first()?;
        Some(format!("{} of {} tables are not in it, first {first}", lacking.len(), self.plan.tables.len()))
    }
}

impl ContentRead for DumpRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        let given = self.child.read_some(buffer)?;
        if let Some(mut archive) = self.archive.take() {
            archive.feed(&buffer[..given]).map_err(|bad| self.broken(bad))?;
            self.look_at_contents(&archive)?;
            self.archive = Some(archive);
        }
        Ok(given)
    }

    fn close(mut self: Box<Self>) -> Result<Closing> {
        self.child.end()?;
        let archive = self.archive.take().unwrap_or_default();
        let contents = archive.finish().map_err(|bad| self.broken(bad))?;
        if let Some(why) = self.lacking(&contents) {
            return Err(Fault::new(
                codes::PG_EMPTY,
                format!("check the dump of the database `{}`", self.plan.database),
            )
            .because(why)
            .hint("see that `pg_dump` is the real one (`bin-dir`), then run again"));
        }
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(contents);
        let meta = Meta::synthetic(EntryKind::File, self.plan.moment.at);
        Ok(Closing::Keep(Box::new(meta)))
    }
}
