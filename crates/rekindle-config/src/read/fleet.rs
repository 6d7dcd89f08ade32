//! `fleet.toml`: repositories that are watched together.

use std::path::Path;
use std::time::Duration;

use rekindle_core::codes;
use toml::de::DeTable;

use super::{repository, serve};
use crate::model::{Fleet, Member, MemberCopy};
use crate::problem::{Problems, Sink};
use crate::section::Section;
use crate::spec;

/// What is late when nothing else is said: one day and a bit, for daily backups.
const MAX_AGE_USUAL: Duration = Duration::from_hours(26);

/// Reads a whole file.
pub(crate) fn fleet(file: &Path, text: &str) -> Result<Fleet, Problems> {
    let sink = Sink::new(file, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            let hint = super::syntax_hint(error.message());
            sink.add(codes::CONFIG_SYNTAX, span, error.message().replace('\n', ", "), Some(hint));
        }
        return sink.finish(None);
    }
    let top = Section::new(String::new(), root.get_ref(), 0..0, spec::FLEET, &sink);
    let usual = top.duration("max-age").map_or(MAX_AGE_USUAL, |at| at.value);
    let members = members(&top, usual);
    sink.finish(members.map(|members| Fleet { members }))
}

fn members(top: &Section<'_>, usual: Duration) -> Option<Vec<Member>> {
    let mut members = Some(Vec::new());
    for (name, value, span) in serve::named(top, "member")? {
        let one = value.and_then(|table| {
            let section = Section::new(format!("member.{}", name.escape_debug()), table, span, spec::MEMBER, top.sink);
            let max_age = section.duration("max-age").map_or(usual, |at| at.value);
            let ignore = section.texts("ignore").map(|at| at.value.iter().map(|one| one.value.to_owned()).collect());
            let repository = section.table("repository", spec::REPOSITORY);
            let repository = repository.and_then(|section| repository::read(&section));
            let copies = copies(&section, max_age);
            let (repository, copies, ignore) = (repository?, copies?, ignore.unwrap_or_default());
            Some(Member { name: name.clone(), max_age, ignore, repository, copies })
        });
        match (one, &mut members) {
            (Some(one), Some(list)) => list.push(one),
            _ => members = None,
        }
    }
    members
}

/// Every copy of a member. `None` when one of them is not usable.
fn copies(member: &Section<'_>, usual: Duration) -> Option<Vec<MemberCopy>> {
    let mut copies = Some(Vec::new());
    for (name, value, span) in serve::named(member, "copy")? {
        let one = value.and_then(|table| {
            let path = member.key(&format!("copy.{name}"));
            let section = Section::new(path, table, span, spec::FLEET_COPY, member.sink);
            let max_lag = section.duration("max-lag").map_or(usual, |at| at.value);
            Some(MemberCopy { name: name.clone(), max_lag, repository: repository::read(&section)? })
        });
        match (one, &mut copies) {
            (Some(one), Some(list)) => list.push(one),
            _ => copies = None,
        }
    }
    copies
}
