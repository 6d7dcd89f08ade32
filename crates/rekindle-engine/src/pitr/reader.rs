//! Looks into the log: what its end holds, where a transaction or a restore point is.

use std::collections::HashMap;

use rekindle_core::port::RunContext;
use rekindle_core::timeline::{Chain, Ends, Found, LogEyes, Moment, Stop};
use rekindle_core::wal::{BaseBackup, Lsn, Record, RecordKind, RecordScan, SegmentName, WalLog};
use rekindle_core::{Fault, Result, codes};

use super::Recoverable;

/// How many segments back from the end the newest commit is looked for.
const LOOK_BACK_MAX: usize = 256;
/// Names of restore points that are told when the wanted one is absent.
const NAMES_MAX: usize = 50;

pub(super) struct LogReader<'a> {
    world: &'a Recoverable,
    context: &'a RunContext,
    /// Chains that end in the same place have the same end.
    known: HashMap<(u64, SegmentName, Lsn), Ends>,
}

impl<'a> LogReader<'a> {
    pub(super) fn new(world: &'a Recoverable, context: &'a RunContext) -> Self {
        Self { world, context, known: HashMap::new() }
    }
}

/// The segments of a chain that are in the log, in order.
fn held(chain: &Chain) -> Vec<SegmentName> {
    let sealed = chain.segments.iter().filter(|name| !chain.own.contains(name)).copied();
    sealed.chain(chain.tail.map(|(name, _)| name)).collect()
}

/// The bytes of a segment as far as the chain goes.
fn bytes(log: &dyn WalLog, chain: &Chain, name: SegmentName) -> Result<Vec<u8>> {
    let size = log.cluster().segment_size;
    let is_tail = chain.tail.is_some_and(|(tail, _)| tail == name);
    let tail = || Ok::<_, Fault>(log.tail(name)?.map(|tail| tail.bytes));
    let sealed = || log.segment(name);
    // A tail may have been sealed since the listing; a whole tail counts as sealed.
    let found = if is_tail {
        tail()?.map_or_else(sealed, |b| Ok(Some(b)))?
    } else {
        sealed()?.map_or_else(tail, |b| Ok(Some(b)))?
    };
    let mut bytes = found.ok_or_else(|| {
        Fault::new(codes::PITR_WAL, format!("read the segment {}: it vanished from the log", name.file(size)))
    })?;
    let within = chain.reach.0.saturating_sub(name.number.start(size).0);
    bytes.truncate(usize::try_from(within).unwrap_or(usize::MAX));
    Ok(bytes)
}

/// What a scan over a few segments saw.
fn look(log: &dyn WalLog, chain: &Chain, names: &[SegmentName], base: &BaseBackup) -> Result<Ends> {
    let size = base.cluster.segment_size;
    let (mut scan, mut ends) = (RecordScan::new(size), Ends::default());
    for name in names {
        if let Some(end) = scan.end() {
            // PostgreSQL would take this for the end, and silently lose what comes after.
            return Err(Fault::new(codes::PITR_WAL, format!("read the log: it is broken at {end}"))
                .because(format!("there is no valid record, and {} follows", name.file(size)))
                .hint(format!("recover to what is before it: --lsn {}", scan.last().unwrap_or(end))));
        }
        scan.push(*name, &bytes(log, chain, *name)?, |record| note(&mut ends, &record));
    }
    ends.last_record = scan.last();
    Ok(ends)
}

fn note(ends: &mut Ends, record: &Record) {
    let RecordKind::Ended { committed, at, .. } = record.kind else { return };
    let moment = Moment { lsn: record.start, at };
    let newer = |old: Option<Moment>| old.is_none_or(|old| at >= old.at);
    if newer(ends.newest) {
        ends.newest = Some(moment);
    }
    if committed && newer(ends.newest_commit) {
        ends.newest_commit = Some(moment);
    }
}

impl LogEyes for LogReader<'_> {
    fn ends(&mut self, base: &BaseBackup, chain: &Chain) -> Result<Ends> {
        let (Some(log), Some(last)) = (self.world.log(base.cluster), chain.last()) else { return Ok(Ends::default()) };
        let key = (base.cluster.system.0, last, chain.reach);
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let names = held(chain);
        let mut back = 2;
        let ends = loop {
            self.context.cancel.check()?;
            let from = names.len().saturating_sub(back);
            let ends = look(&*log, chain, &names[from..], base)?;
            let enough = ends.newest_commit.is_some() && ends.last_record.is_some();
            if enough || from == 0 || back >= LOOK_BACK_MAX {
                break ends;
            }
            back *= 4;
        };
        self.known.insert(key, ends);
        Ok(ends)
    }

    fn find(&mut self, base: &BaseBackup, chain: &Chain, until: Option<Lsn>, stop: &Stop) -> Result<Found> {
        let Some(log) = self.world.log(base.cluster) else { return Ok(Found::Absent { names: Vec::new() }) };
        let (mut scan, mut names, mut found, mut prepared) =
            (RecordScan::new(base.cluster.segment_size), Vec::new(), None, false);
        let size = base.cluster.segment_size;
        for name in held(chain) {
            self.context.cancel.check()?;
            if found.is_some() || until.is_some_and(|until| name.number.start(size) >= until) {
                break;
            }
            scan.push(name, &bytes(&*log, chain, name)?, |record| {
                let hit = match (&record.kind, stop) {
                    (RecordKind::Ended { prepared: true, .. }, Stop::Xid(_)) => {
                        prepared = true;
                        false
                    }
                    (RecordKind::Ended { .. }, Stop::Xid(wanted)) => record.xid == *wanted,
                    (RecordKind::RestorePoint { name, .. }, Stop::Name(wanted)) => {
                        names.push(name.clone());
                        name == wanted
                    }
                    _ => false,
                };
                if hit && found.is_none() {
                    found = Some(record.start);
                }
            });
        }
        names.drain(..names.len().saturating_sub(NAMES_MAX));
        Ok(match found {
            Some(lsn) => Found::At(lsn),
            None if prepared => Found::Unknown,
            None => Found::Absent { names },
        })
    }
}
