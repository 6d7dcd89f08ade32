//! The WAL log of a copy: the same objects under the same names, sealed with the key of the far side.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::{Clock, RunContext};
use rekindle_core::wal::lineage::survey;
use rekindle_core::wal::retention::{GRACE_SECONDS, covers, plan_wal};
use rekindle_core::wal::{Cluster, Inventory, SegmentName, SystemId, WalArchive, WalFile};
use rekindle_core::{Fault, Result, codes};
use rekindle_store::Key as ObjectKey;
use serde::Serialize;

use super::log::Log;
use super::name::{self, Name};
use super::{Archive, Shelf, Stored, bases, folder, vanished};
use crate::read::parallel;
use crate::repo::Repo;

/// What was copied of the logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WalCopied {
    /// Objects that are new in the copy, and the bytes of their content.
    pub objects: u64,
    pub bytes: u64,
    /// Objects that were there already.
    pub there: u64,
}

/// The logs of all clusters, here and at the far side.
pub(crate) struct LogsThere {
    near: BTreeMap<SystemId, Inventory>,
    far: BTreeMap<SystemId, Inventory>,
    copied: WalCopied,
}

/// The far side holds the log that the base backups of a point need, as far as the source does. Only
/// [`LogsThere::cover`] makes one.
pub(crate) struct Covered(());

impl LogsThere {
    /// What was copied.
    pub(crate) fn copied(&self) -> WalCopied {
        self.copied
    }

    /// Whether a point can be recovered from the far side as from here.
    pub(crate) fn cover(&self, point: &RecoveryPoint) -> Result<Covered> {
        for (_, base) in bases::of_point(point)? {
            let there = |logs: &BTreeMap<SystemId, Inventory>| {
                logs.get(&base.cluster.system).is_some_and(|inventory| covers(inventory, &base))
            };
            if there(&self.near) && !there(&self.far) {
                let what = format!("find the log of point {} in the copy", point.id().short());
                return Err(Fault::new(codes::COPY_FAR, what)
                    .because("segments that its base backup needs are not there")
                    .hint("run `rekindle copy` again; `rekindle wal verify --copy NAME` shows what is missing"));
            }
        }
        Ok(Covered(()))
    }
}

/// An object of the source's log that the copy should have.
struct Wanted {
    name: Name,
    modified: Option<jiff::Timestamp>,
}

/// Copies every object of the logs that these points can need and the far side does not have.
pub(crate) fn copy_logs(
    source: &Repo,
    far: &Repo,
    points: &[&RecoveryPoint],
    scope: &str,
    context: &RunContext,
) -> Result<LogsThere> {
    let mut logs = LogsThere { near: BTreeMap::new(), far: BTreeMap::new(), copied: WalCopied::default() };
    let archive = Archive::new(source, Arc::clone(&context.clock));
    let clusters = archive.clusters()?;
    if clusters.is_empty() {
        return Ok(logs);
    }
    context.monitor.phase(scope, "copy the write-ahead log");
    for cluster in clusters {
        let log = Log::new(far.clone(), Arc::clone(&context.clock), cluster);
        let sound = log.place()?.put_if_absent;
        let (wanted, near) = wanted(source, cluster, points, &context.clock)?;
        let there = present(far, &folder(cluster.system))?;
        send(source, far, &wanted, &there, sound, scope, context, &mut logs.copied)?;
        clear_tails(far, cluster, scope, context)?;
        let inventory = super::inventory::take(&Shelf { repo: far }, cluster)?;
        logs.near.insert(cluster.system, near);
        logs.far.insert(cluster.system, inventory);
    }
    let owners = owners(source)?;
    let there = present(far, name::OWNERS)?;
    send(source, far, &owners, &there, true, scope, context, &mut logs.copied)?;
    Ok(logs)
}

/// Names of objects that the copy should have and does not, with the times they were stored here.
pub(crate) fn missing_logs(
    source: &Repo,
    far: &Repo,
    points: &[&RecoveryPoint],
    clock: &Arc<dyn Clock>,
) -> Result<Vec<(String, Option<jiff::Timestamp>)>> {
    let mut missing = Vec::new();
    for cluster in Archive::new(source, Arc::clone(clock)).clusters()? {
        let (wanted, _) = wanted(source, cluster, points, clock)?;
        let there = present(far, &folder(cluster.system))?;
        // A piece of a segment that is sealed at the far side is of no use there.
        let needless = |name: &Name| match name {
            Name::Tail { system, segment, size, .. } => {
                there.contains(&Name::File(*system, WalFile::Segment(*segment), *size).to_string())
            }
            _ => false,
        };
        missing.extend(
            wanted
                .into_iter()
                .filter(|one| !there.contains(&one.name.to_string()) && !needless(&one.name))
                .map(|one| (one.name.to_string(), one.modified)),
        );
    }
    Ok(missing)
}

fn present(repo: &Repo, prefix: &str) -> Result<HashSet<String>> {
    Ok(repo.store().list(prefix)?.into_iter().map(|meta| meta.key.to_string()).collect())
}

/// Every object of a cluster's log, without segments that no base backup of these points needs: else
/// a copy that keeps fewer points would get back what its own prune removed.
fn wanted(
    source: &Repo,
    cluster: Cluster,
    points: &[&RecoveryPoint],
    clock: &Arc<dyn Clock>,
) -> Result<(Vec<Wanted>, Inventory)> {
    let log = Log::new(source.clone(), Arc::clone(clock), cluster);
    let (inventory, lineage) = survey(&log)?;
    let bases = bases::bases(points, cluster)?;
    let needless: BTreeSet<SegmentName> = match plan_wal(&inventory, &lineage, &bases, clock.now(), GRACE_SECONDS) {
        Ok(plan) => plan.remove.into_iter().map(|removal| removal.segment).collect(),
        // Nothing may be removed, so everything is copied.
        Err(_) => BTreeSet::new(),
    };
    let listed = source.store().list(&folder(cluster.system))?;
    let wanted = listed.into_iter().filter_map(|meta| {
        let name = Name::parse_sized(meta.key.as_str(), cluster.segment_size)?;
        let unneeded = match &name {
            Name::File(_, WalFile::Segment(segment), _) => needless.contains(segment),
            _ => false,
        };
        (!unneeded).then_some(Wanted { name, modified: meta.modified })
    });
    Ok((wanted.collect(), inventory))
}

fn owners(source: &Repo) -> Result<Vec<Wanted>> {
    let listed = source.store().list(name::OWNERS)?;
    let name = |meta: rekindle_store::ObjectMeta| match Name::parse(meta.key.as_str()) {
        Some(name @ Name::Owner(..)) => Some(Wanted { name, modified: meta.modified }),
        _ => None,
    };
    Ok(listed.into_iter().filter_map(name).collect())
}

#[expect(clippy::too_many_arguments, reason = "all of one copy")]
fn send(
    source: &Repo,
    far: &Repo,
    wanted: &[Wanted],
    there: &HashSet<String>,
    sound: bool,
    scope: &str,
    context: &RunContext,
    copied: &mut WalCopied,
) -> Result<()> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|one| !there.contains(&one.name.to_string())).collect();
    copied.there += (wanted.len() - missing.len()) as u64;
    // As many as fit into a bounded memory: a segment may have a gigabyte.
    for portion in missing.chunks(parallel::cores()) {
        context.cancel.check()?;
        for sent in parallel::map(portion, parallel::cores(), |one| one_object(source, far, &one.name, sound)) {
            if let Some(bytes) = sent? {
                copied.objects += 1;
                copied.bytes += bytes;
                context.monitor.advance(scope, 1, bytes);
            }
        }
    }
    Ok(())
}

/// `None`: it was sealed or removed in the source meanwhile.
fn one_object(source: &Repo, far: &Repo, name: &Name, sound: bool) -> Result<Option<u64>> {
    let (near, shelf) = (Shelf { repo: source }, Shelf { repo: far });
    let Some(content) = near.read(name)? else {
        return Ok(None);
    };
    match shelf.put_once(name, &content, sound) {
        Ok(Stored::New | Stored::Same) => {}
        // The hole is known; what was written first stays.
        Err(fault) if fault.is(codes::WAL_CONFLICT) && matches!(name, Name::Gap { .. }) => {}
        Err(fault) => return Err(fault.during(format!("copy `{name}`"))),
    }
    // Read back with the key of the far side: that is what a restore will do.
    match shelf.read(name)? {
        Some(stored) if stored == content => Ok(Some(content.len() as u64)),
        Some(_) if matches!(name, Name::Gap { .. }) => Ok(Some(0)),
        Some(_) => Err(Fault::new(codes::COPY_FAR, format!("read `{name}` back from the copy"))
            .because("it holds something else")
            .hint("rekindle wal verify --copy NAME")),
        None => Err(vanished(name)),
    }
}

/// Pieces of segments that are sealed at the far side now.
fn clear_tails(far: &Repo, cluster: Cluster, scope: &str, context: &RunContext) -> Result<()> {
    let names: Vec<Name> = present(far, &folder(cluster.system))?
        .iter()
        .filter_map(|path| Name::parse_sized(path, cluster.segment_size))
        .collect();
    let sealed: HashSet<SegmentName> = names
        .iter()
        .filter_map(|name| match name {
            Name::File(_, WalFile::Segment(segment), _) => Some(*segment),
            _ => None,
        })
        .collect();
    for name in names {
        let Name::Tail { segment, .. } = &name else { continue };
        if !sealed.contains(segment) {
            continue;
        }
        // It is in nobody's way when it stays.
        if let Err(fault) = far.store().delete(&ObjectKey::new(&name.to_string())?) {
            context.monitor.problem(scope, &fault);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_core::manifest::{Completeness, ComponentRecord, MANIFEST_VERSION, Manifest};
    use rekindle_core::note::Notes;
    use rekindle_core::tally::Tally;
    use rekindle_core::wal::{BaseBackup, Lsn, Sealed, SegmentNumber, SegmentSize, Timeline, WalRange};
    use rekindle_core::{ComponentKind, RunId};

    const NOW: jiff::Timestamp = jiff::Timestamp::UNIX_EPOCH;
    const SEGMENT: u64 = 16 << 20;

    fn cluster() -> Cluster {
        Cluster { system: SystemId(7), segment_size: SegmentSize::DEFAULT }
    }

    fn name(number: u64) -> SegmentName {
        SegmentName { timeline: Timeline(1), number: SegmentNumber(number) }
    }

    fn log(segments: impl IntoIterator<Item = u64>) -> BTreeMap<SystemId, Inventory> {
        let sealed = |number| (name(number), Sealed { stored_bytes: 1, stored_at: None });
        let inventory = Inventory {
            cluster: cluster(),
            segments: segments.into_iter().map(sealed).collect(),
            tails: BTreeMap::new(),
            tails_at: BTreeMap::new(),
            left_tails: BTreeSet::new(),
            histories: BTreeSet::new(),
            gaps: Vec::new(),
            holds: Vec::new(),
        };
        BTreeMap::from([(cluster().system, inventory)])
    }

    /// A point with a base backup that needs segments 4 to 6.
    fn point() -> RecoveryPoint {
        let (start, stop) = (Lsn(4 * SEGMENT + 40), Lsn(6 * SEGMENT + 900));
        let base = BaseBackup {
            cluster: cluster(),
            server_version: 170_000,
            timeline: Timeline(1),
            start,
            stop,
            started: NOW,
            stopped: NOW,
            wal_ranges: vec![WalRange { timeline: Timeline(1), start, end: stop }],
            tablespaces: Vec::new(),
            checksums: true,
            checksum_failures: 0,
        };
        let record = ComponentRecord {
            id: "database".parse().unwrap(),
            kind: ComponentKind::Postgres,
            tree: String::new(),
            captured_at: NOW,
            tally: Tally::default(),
            streams: Vec::new(),
            added_bytes: 0,
            stored_bytes: 0,
            notes: Notes::default(),
            details: serde_json::json!({BaseBackup::KEY: base}),
        };
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            tool: String::new(),
            stack: "shop".to_owned(),
            host: "here".to_owned(),
            run: RunId::new(NOW, 0),
            started: NOW,
            finished: NOW,
            state: Completeness::Complete,
            components: vec![record],
            missing: Vec::new(),
            skew_ms: 0,
            ledger_head: None,
            proof_head: None,
            signing_key: None,
            marks_head: None,
            audit_head: None,
            tags: Vec::new(),
            suspicions: Vec::new(),
        };
        RecoveryPoint::stored("ab".repeat(32).parse().unwrap(), NOW, manifest)
    }

    #[test]
    fn a_point_is_covered_only_when_every_segment_it_needs_is_at_the_far_side() {
        let cover = |near, far| LogsThere { near, far, copied: WalCopied::default() }.cover(&point());
        assert!(cover(log(1..=9), log(4..=6)).is_ok());
        for lost in 4..=6 {
            let fault = cover(log(1..=9), log((1..=9).filter(|number| *number != lost))).err().unwrap();
            assert!(fault.is(codes::COPY_FAR), "{lost}: {fault:?}");
        }
        assert!(cover(log(1..=9), BTreeMap::new()).is_err(), "no log at all");
        // What the source has lost as well is no fault of the copy; its verification tells.
        assert!(cover(log(1..=5), log(4..=5)).is_ok());
    }
}
