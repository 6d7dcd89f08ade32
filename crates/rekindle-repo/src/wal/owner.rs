//! Which cluster a component is bound to.

use rekindle_core::wal::{Cluster, Owner};
use rekindle_core::{Fault, Result, codes};
use serde::{Deserialize, Serialize};

use super::name::{self, Name};
use super::{RECORD_VERSION, Shelf, Stored, json, vanished};
use crate::format::Id;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Binding {
    version: u32,
    owner: Owner,
    cluster: Cluster,
    since: jiff::Timestamp,
}

fn hash(owner: &Owner) -> String {
    let text = format!("{}\0{}", owner.stack, owner.component);
    Id::of(text.as_bytes()).hex()[..32].to_owned()
}

/// The newest binding and its number.
fn newest(shelf: &Shelf<'_>, owner: &Owner) -> Result<Option<(u32, Cluster)>> {
    let hash = hash(owner);
    let listed = shelf.repo.store().list(&format!("{}{hash}/", name::OWNERS))?;
    let numbers = listed.iter().filter_map(|meta| match Name::parse(meta.key.as_str()) {
        Some(Name::Owner(_, number)) => Some(number),
        _ => None,
    });
    let Some(number) = numbers.max() else {
        return Ok(None);
    };
    let name = Name::Owner(hash, number);
    let binding = shelf.record::<Binding>(&name)?.ok_or_else(|| vanished(&name))?;
    Ok(Some((number, binding.cluster)))
}

pub(super) fn bound(shelf: &Shelf<'_>, owner: &Owner) -> Result<Option<Cluster>> {
    Ok(newest(shelf, owner)?.map(|(_, cluster)| cluster))
}

pub(super) fn bind(shelf: &Shelf<'_>, owner: &Owner, cluster: Cluster, now: jiff::Timestamp) -> Result<()> {
    if let Some((_, known)) = newest(shelf, owner)? {
        return same(owner, known, cluster);
    }
    let raced = write(shelf, owner, cluster, 1, now)?;
    if raced { same(owner, bound(shelf, owner)?.unwrap_or(cluster), cluster) } else { Ok(()) }
}

pub(super) fn rebind(shelf: &Shelf<'_>, owner: &Owner, cluster: Cluster, now: jiff::Timestamp) -> Result<()> {
    let number = match newest(shelf, owner)? {
        Some((_, known)) if known == cluster => return Ok(()),
        Some((number, _)) => number + 1,
        None => 1,
    };
    if write(shelf, owner, cluster, number, now)? {
        return Err(Fault::new(codes::REPO_LOCKED, format!("bind `{}` to another cluster", owner.component))
            .because("somebody else did the same at this moment")
            .hint("look at `rekindle wal status`, then run it again"));
    }
    Ok(())
}

/// Whether somebody else was faster.
fn write(shelf: &Shelf<'_>, owner: &Owner, cluster: Cluster, number: u32, now: jiff::Timestamp) -> Result<bool> {
    let binding = Binding { version: RECORD_VERSION, owner: owner.clone(), cluster, since: now };
    match shelf.put_once(&Name::Owner(hash(owner), number), &json(&binding)?, true) {
        Ok(Stored::New | Stored::Same) => Ok(false),
        Err(fault) if fault.is(codes::WAL_CONFLICT) => Ok(true),
        Err(fault) => Err(fault),
    }
}

fn same(owner: &Owner, known: Cluster, cluster: Cluster) -> Result<()> {
    if known == cluster {
        return Ok(());
    }
    let what = format!("take WAL of the cluster {} for `{}`", cluster.system, owner.component);
    Err(Fault::new(codes::WAL_OTHER_CLUSTER, what)
        .because(format!(
            "`{}` of the stack `{}` is bound to the cluster {}",
            owner.component, owner.stack, known.system
        ))
        .hint(format!(
            "if the server was made anew on purpose: rekindle wal bind {} --system {}",
            owner.component, cluster.system
        )))
}
