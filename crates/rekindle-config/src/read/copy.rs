//! `[copy.<name>]`: further repositories.

use rekindle_core::ComponentId;

use super::{policy, repository, serve};
use crate::model::CopyTo;
use crate::section::Section;
use crate::spec;

/// Every copy, in the order of the file. `None` when one of them is not usable.
pub(super) fn all(top: &Section<'_>) -> Option<Vec<CopyTo>> {
    let mut copies = Some(Vec::new());
    for (name, value, span) in serve::named(top, "copy")? {
        let one = value.and_then(|table| {
            if name.parse::<ComponentId>().is_err() {
                let hint = "use lower-case letters, digits, `-` and `_`";
                top.bad(&format!("copy.{}", name.escape_debug()), &span, "it is not a usable name", hint);
                return None;
            }
            let section =
                Section::new(format!("copy.{}", name.escape_debug()), table, span.clone(), spec::COPY, top.sink);
            let retention = section.table("retention", spec::RETENTION).map(|table| policy::retention(&table));
            Some(CopyTo {
                schedule: section.schedule("schedule").map(|at| at.value),
                bandwidth_kib: section.integer("bandwidth-kib"),
                repository: repository::read(&section)?,
                retention: match retention {
                    Some(policy) => Some(policy?),
                    None => None,
                },
                name: name.clone(),
            })
        });
        match (one, &mut copies) {
            (Some(one), Some(list)) => list.push(one),
            _ => copies = None,
        }
    }
    copies
}

/// A copy at the place of the repository, or of another copy, would be none.
pub(super) fn apart(top: &Section<'_>, repository: &str, copies: &[CopyTo]) {
    let mut taken: Vec<(String, &str)> = vec![("the repository".to_owned(), place(repository))];
    for copy in copies {
        let own = place(&copy.repository.url);
        if let Some((other, _)) = taken.iter().find(|(_, known)| *known == own) {
            let span = top.span_of("copy").unwrap_or(0..0);
            let why = format!("it is at the same place as {other}");
            top.bad(&format!("copy.{}.url", copy.name), &span, &why, "give each copy a place of its own");
        }
        taken.push((format!("the copy `{}`", copy.name), own));
    }
}

/// The same place is written in several ways.
fn place(url: &str) -> &str {
    let url = url.split_once('?').map_or(url, |(place, _)| place);
    url.strip_prefix("file://").unwrap_or(url).trim_end_matches('/')
}
