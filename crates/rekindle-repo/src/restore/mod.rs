//! Our restorer: parallel, checked against hashes, resumable, going on past damage, unable to
//! leave its target.
//!
//! Order: directories (0700) and everything without content while the stored trees are walked,
//! files in batches sorted by pack so that each piece of a pack is read once, hard links, then
//! the directories' attributes from the bottom up, then one `syncfs` per file system. Further ones
//! begin the write-back while files are still being written.
//!
//! `syncfs` instead of `fsync` per file: a restored tree counts only as a whole, and one journal
//! commit per file makes 50,000 files take minutes. Since Linux 5.8 it reports write errors of
//! the file system since the target was opened, and such an error fails the restore.

mod ahead;
mod attributes;
mod batch;
mod file;
mod flush;
mod place;
mod plan;
mod report;
mod site;
mod space;
mod special;
mod walk;

use std::os::fd::AsFd;

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Materialize, Materialized, RunContext};
use rekindle_core::{Fault, Result, codes};

use self::attributes::set_open;
use self::place::{Directories, DirectoryCache, open_target};
use self::report::Report;
use self::site::Site;
use self::space::TargetError;
use self::walk::{HardLink, Walker};
use crate::format::Id;
use crate::format::node::NodeContent;
use crate::read::blobs::SharedReader;
use crate::read::part::{RepoPart, Tallied};
use crate::read::tree::find;

/// Writes a part into a directory; see [`rekindle_core::port::PartReader::materialize`].
pub(crate) fn materialize(part: &RepoPart, request: &Materialize, context: &RunContext) -> Result<Materialized> {
    let target = open_target(&request.into).map_err(|error| {
        Fault::new(codes::REPO_TARGET_IO, format!("open the restore target `{}`", request.into.display()))
            .because(std::io::Error::from(error))
            .hint("make the directory, or choose another target")
    })?;
    let tree = start(part, request)?;
    let whole = request.within.is_none() && request.select.is_empty();
    let tallied = whole && part.tallied == Tallied::Yes;
    let mut site = Site {
        request,
        context,
        scope: part.record.id.to_string(),
        reader: SharedReader::clone(&part.reader),
        target,
        directories: Directories::new(),
        mounts: Vec::new(),
        report: Report::default(),
    };
    context.monitor.phase(&site.scope, "restore");
    if tallied {
        let tally = &part.record.tally;
        context.monitor.expect(&site.scope, Some(tally.entries), Some(tally.bytes));
    }
    let links = Walker::new(&mut site).run(tree, request.within.clone())?;
    make_links(&site, links)?;
    finish_directories(&site)?;
    if request.sync {
        sync(&site)?;
    }
    let mut result = site.report.finish();
    if tallied {
        compare(part, &mut result);
    }
    Ok(result)
}

/// The tree whose content goes into the target. Every selected path must exist.
fn start(part: &RepoPart, request: &Materialize) -> Result<Id> {
    for path in &request.select {
        find(&part.reader, &part.tree, path)?;
    }
    let Some(path) = &request.within else {
        return Ok(part.tree);
    };
    match find(&part.reader, &part.tree, path)?.content {
        NodeContent::Subtree(tree) => Ok(tree),
        NodeContent::Blobs(_) | NodeContent::Nothing => Err(not_a_directory(path)),
    }
}

fn not_a_directory(path: &EntryPath) -> Fault {
    Fault::new(codes::REPO_NO_ENTRY, format!("restore what is in `{path}`"))
        .because("it is not a directory")
        .hint("restore the directory that holds it, and select this path")
}

fn make_links(site: &Site<'_>, links: Vec<HardLink>) -> Result<()> {
    // Two caches: the directories of both names must be open at the same time.
    let mut first_cache = DirectoryCache::new(site.target.as_fd());
    let mut cache = DirectoryCache::new(site.target.as_fd());
    for link in links {
        site.check_cancelled()?;
        let (directory, name) = &link.first;
        let made = first_cache
            .with(&site.directories, *directory, |from| {
                cache.with(&site.directories, link.directory, |to| special::link(from, name, to, &link.name))
            })
            .and_then(|result| result)
            .and_then(|result| result);
        match made.map_err(|error| space::judge("make the hard link", error)) {
            Ok(()) => {
                site.done(link.size, 0);
                site.context.monitor.advance(&site.scope, 0, link.size);
            }
            Err(TargetError::Fatal(fault)) => return Err(fault),
            Err(TargetError::Entry(why)) => site.lose(link.directory, &link.name, &why),
        }
    }
    Ok(())
}

/// Last and from the bottom up: everything written into a directory changes its times, and a mode
/// without `w` or `x` closes it.
fn finish_directories(site: &Site<'_>) -> Result<()> {
    let mut cache = DirectoryCache::new(site.target.as_fd());
    for number in site.directories.bottom_up() {
        site.check_cancelled()?;
        let record = site.directories.get(number);
        let Some(meta) = &record.meta else {
            continue;
        };
        let set = cache.with(&site.directories, number, |fd| set_open(fd, meta, site.owners()));
        let text = match set {
            Ok(problems) => problems.text(),
            Err(error) => Some(format!("open the directory: {}", std::io::Error::from(error))),
        };
        if let Some(text) = text {
            let path = site.path(record.parent, &record.name);
            site.report.attribute_problem(&path, text);
        }
    }
    Ok(())
}

/// Makes everything durable: on the target's file system, and on others mounted below it.
fn sync(site: &Site<'_>) -> Result<()> {
    site.context.monitor.phase(&site.scope, "sync");
    site.file_systems().try_for_each(flush::flush)
}

/// The manifest's own count is the last word: what is neither there nor listed as lost is told.
fn compare(part: &RepoPart, result: &mut Materialized) {
    let tally = &part.record.tally;
    if !result.lost.is_empty() {
        return;
    }
    if (result.entries, result.bytes) != (tally.entries, tally.bytes) {
        result.lost.push(rekindle_core::port::LostEntry {
            path: String::new(),
            why: format!(
                "the manifest counts {} entries with {} bytes, {} entries with {} bytes were restored",
                tally.entries, tally.bytes, result.entries, result.bytes
            ),
        });
    }
}
