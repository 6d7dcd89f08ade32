//! Looks at the server before a base backup: what it is, and whether it is set up for one.

use rekindle_core::port::Finding;
use rekindle_core::wal::{Cluster, SlotName};
use rekindle_core::{Cancel, Fault, Result, codes};

use super::PhysicalOptions;
use crate::postgres::replication::{Identity, Replication, ReplicationOptions, ServerError, server_error};

/// The first major version that backups are taken of; older ones are only restored.
const OLDEST_MAJOR: u32 = 14;
/// The first major version with incremental backups.
pub(super) const INCREMENTAL_MAJOR: u32 = 17;

/// What the server is.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) version: u32,
    pub(super) version_text: String,
    pub(super) identity: Identity,
    pub(super) cluster: Cluster,
    pub(super) block: usize,
    pub(super) checksums: bool,
    pub(super) standby: bool,
    /// Whether it keeps track of which blocks change (17 and newer).
    pub(super) summaries: bool,
    wal_level: String,
}

/// What became of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotFound {
    /// The mode uses none.
    Unused,
    There,
    Created,
}

/// Asks the server.
pub(super) fn facts(session: &mut Replication) -> Result<Facts> {
    let identity = session.identify()?;
    let cluster = Cluster { system: identity.system, segment_size: session.segment_size()? };
    let on = |text: String| text == "on";
    let block = session.show("block_size")?;
    Ok(Facts {
        version: session.version(),
        version_text: session.version_text().to_owned(),
        identity,
        cluster,
        block: block.parse().map_err(|_| {
            Fault::new(codes::PG_PROTOCOL, "ask for the server's block size").because(format!("it says `{block}`"))
        })?,
        checksums: on(session.show("data_checksums")?),
        standby: session.major() >= OLDEST_MAJOR && on(session.show("in_hot_standby")?),
        summaries: session.major() >= INCREMENTAL_MAJOR && on(session.show("summarize_wal")?),
        wal_level: session.show("wal_level")?,
    })
}

/// Refuses what cannot work.
pub(super) fn check(facts: &Facts, options: &PhysicalOptions, address: &str) -> Result<()> {
    let what = || format!("take a base backup of {address}");
    if facts.version / 10_000 < OLDEST_MAJOR {
        return Err(Fault::new(codes::PG_VERSION, what())
            .because(format!("it is PostgreSQL {}; {OLDEST_MAJOR} is the oldest that is supported", facts.version_text))
            .hint("write `method = \"logical\"`, or upgrade the server"));
    }
    if facts.wal_level == "minimal" {
        return Err(Fault::new(codes::PG_REPLICATION, what())
            .because("`wal_level` is `minimal`")
            .hint("ALTER SYSTEM SET wal_level = 'replica', then restart the server"));
    }
    if options.wal.keeps_log() && options.archive.is_none() {
        return Err(Fault::new(codes::RUN_BUG, what()).because("no WAL log is given"));
    }
    Ok(())
}

/// The slot is there before the first base backup, so that no WAL is lost between the two.
pub(super) fn slot(session: &mut Replication, options: &PhysicalOptions) -> Result<SlotFound> {
    if !options.wal.uses_slot() {
        return Ok(SlotFound::Unused);
    }
    match session.read_slot(&options.slot)? {
        Some(slot) if slot.restart.is_some() => Ok(SlotFound::There),
        Some(_) => Err(lost(&options.slot)),
        None => match session.create_slot(&options.slot) {
            Ok(()) => Ok(SlotFound::Created),
            // The receiver was quicker.
            Err(fault) if server_error(&fault).is_some_and(ServerError::is_duplicate) => Ok(SlotFound::There),
            Err(fault) => Err(fault),
        },
    }
}

fn lost(slot: &SlotName) -> Fault {
    Fault::new(codes::WAL_SLOT_LOST, format!("use the replication slot `{slot}`"))
        .because("the server keeps no WAL for it any more")
        .hint("start `rekindle wal stream`: it records the gap and makes the slot anew")
}

/// Findings about the server, for `doctor`. Blocking.
pub(in crate::postgres) fn probe(
    server: &ReplicationOptions,
    options: &PhysicalOptions,
    cancel: &Cancel,
) -> Result<Vec<Finding>> {
    let bad = |fault: &Fault| Finding::bad(fault.chain(), fault.hint_text().unwrap_or("see the error").to_owned());
    let mut session = match Replication::connect(server, cancel) {
        Ok(session) => session,
        Err(fault) => return Ok(vec![bad(&fault)]),
    };
    let facts = facts(&mut session)?;
    let standby = if facts.standby { " (a standby)" } else { "" };
    let mut findings = vec![Finding::good(format!(
        "PostgreSQL {} answers at {} for replication{standby}",
        facts.version_text, server.url
    ))];
    if let Err(fault) = check(&facts, options, &server.url.to_string()) {
        findings.push(bad(&fault));
    }
    if !facts.checksums {
        findings.push(Finding::warning(
            "the cluster has no page checksums: damaged pages are backed up unseen",
            "stop the server and run `pg_checksums --enable`",
        ));
    }
    if facts.version / 10_000 >= INCREMENTAL_MAJOR && !facts.summaries {
        findings.push(Finding::warning(
            "`summarize_wal` is off: every base backup transfers the whole cluster",
            "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf()",
        ));
    }
    if options.wal.uses_slot() {
        findings.push(match session.read_slot(&options.slot)? {
            Some(slot) if slot.restart.is_some() => Finding::good(format!("the slot `{}` keeps WAL", options.slot)),
            Some(_) => bad(&lost(&options.slot)),
            None => Finding::warning(
                format!("there is no slot `{}` yet", options.slot),
                "start `rekindle wal stream`; it makes one",
            ),
        });
    }
    session.close();
    Ok(findings)
}
