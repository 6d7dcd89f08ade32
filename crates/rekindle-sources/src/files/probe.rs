//! A look at the configured paths that changes nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rekindle_core::Result;
use rekindle_core::cancel::Cancel;
use rekindle_core::port::Finding;
use rustix::fs::{CWD, FileType};

use super::FilesComponent;
use super::capture::{OwnPlaces, look_at_root};
use super::layout::show;
use super::sys::{Links, names_in, open_directory, open_file, status_at};

/// Entries a probe looks at per path; a bigger tree is reported as `more than`.
const LOOK_ENTRIES_MAX: u64 = 20_000;

pub(super) fn probe(component: &FilesComponent, cancel: &Cancel) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let own = OwnPlaces::find(component.options.own_places.iter());
    for path in &component.layout.paths {
        cancel.check()?;
        findings.extend(look(component, path, &own, cancel)?);
    }
    findings.extend(component.options.exclude.iter().filter_map(|pattern| {
        let bare = pattern.trim_start_matches('!');
        let path = (component.layout.paths.iter())
            .find(|path| path.parent().is_some() && Path::new(bare).starts_with(path))?;
        Some(Finding::warning(
            format!("the pattern `{pattern}` begins with the path `{}`", show(path)),
            "patterns are relative to each configured path: leave that beginning out",
        ))
    }));
    Ok(findings)
}

fn look(component: &FilesComponent, path: &Path, own: &OwnPlaces, cancel: &Cancel) -> Result<Vec<Finding>> {
    let shown = show(path);
    if let Err(fault) = look_at_root(component, path) {
        let remedy = fault.hint_text().unwrap_or("correct `paths`").to_owned();
        return Ok(vec![Finding::bad(fault.chain(), remedy)]);
    }
    if let Some(place) = own.around(path) {
        let text = format!("`{shown}` is inside `{}`, which belongs to rekindle", show(place));
        let remedy = "take it out of `paths`, or keep the repository somewhere else";
        return Ok(vec![Finding::bad(text, remedy)]);
    }
    let mut findings = Vec::new();
    if let Some(outer) = component.layout.outer(path) {
        findings.push(Finding::good(format!("`{shown}` is inside `{}` and saved once", show(outer))));
    }
    for place in own.inside(path) {
        findings
            .push(Finding::good(format!("`{}` inside `{shown}` belongs to rekindle and is not entered", show(place))));
    }
    let name = path.as_os_str().as_encoded_bytes();
    let Ok(status) = status_at(CWD, name) else {
        let remedy = "see what removes it";
        findings.push(Finding::bad(format!("`{shown}` has gone just now"), remedy));
        return Ok(findings);
    };
    findings.push(match status.kind {
        FileType::Directory => {
            let seen = count(path, cancel)?;
            directory(&shown, &seen, status.mount_root)
        }
        FileType::RegularFile => Finding::good(format!("`{shown}` is a file of {} bytes", status.size)),
        FileType::Symlink => Finding::warning(
            format!("`{shown}` is a symbolic link: only the link is saved"),
            "name its target in `paths`",
        ),
        _ => Finding::warning(
            format!("`{shown}` is a special file: it is recorded, there is nothing to read"),
            "take it out of `paths` if that is not meant",
        ),
    });
    Ok(findings)
}

fn directory(shown: &str, seen: &Count, mount_root: bool) -> Finding {
    let Count { entries, bytes, more, unreadable } = *seen;
    if unreadable > 0 {
        // A warning only: the entries may be excluded, which this look does not apply.
        return Finding::warning(
            format!("`{shown}`: {unreadable} entries cannot be read by this user"),
            "run as a user who may read them (root, or CAP_DAC_READ_SEARCH), or exclude them",
        );
    }
    if entries == 0 && mount_root {
        return Finding::warning(
            format!("`{shown}` is a mount point and empty"),
            "check that the right volume is mounted",
        );
    }
    if entries == 0 {
        return Finding::warning(
            format!("`{shown}` is empty"),
            "check that this is the right path and that its volume is mounted",
        );
    }
    let more = if more { "more than " } else { "" };
    Finding::good(format!("`{shown}`: {more}{entries} entries, {bytes} bytes"))
}

#[derive(Debug, Default)]
struct Count {
    entries: u64,
    bytes: u64,
    more: bool,
    unreadable: u64,
}

/// A quick, bounded look; excludes are not applied.
fn count(root: &Path, cancel: &Cancel) -> Result<Count> {
    let mut count = Count::default();
    let open = open_directory(CWD, root.as_os_str().as_encoded_bytes(), Links::Refuse);
    let mut waiting: Vec<OwnedFd> = open.into_iter().collect();
    while let Some(directory) = waiting.pop() {
        cancel.check()?;
        let (mut names, error) = names_in(&directory);
        count.unreadable += u64::from(error.is_some());
        while let Some(name) = names.take_next() {
            if count.entries >= LOOK_ENTRIES_MAX || waiting.len() > 128 {
                count.more = true;
                return Ok(count);
            }
            count.entries += 1;
            let Ok(status) = status_at(directory.as_fd(), &name) else {
                continue;
            };
            match status.kind {
                FileType::Directory => match open_directory(directory.as_fd(), &name, Links::Refuse) {
                    Ok(open) => waiting.push(open),
                    Err(_) => count.unreadable += 1,
                },
                FileType::RegularFile => {
                    count.bytes += status.size;
                    let refused = open_file(directory.as_fd(), &name, false).is_err();
                    count.unreadable += u64::from(refused);
                }
                _ => {}
            }
        }
    }
    Ok(count)
}
