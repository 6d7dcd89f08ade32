//! `[serve]` and `[pause.<name>]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::tz::TimeZone;
use rekindle_core::schedule::Pause;
use toml::de::DeValue;

use crate::model::Serve;
use crate::section::Section;
use crate::spec;

/// Where metrics are asked for when the configuration does not say.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const GRACE: Duration = Duration::from_secs(30);
const MIN_FREE_PERCENT: u8 = 10;

/// `None` when a value of it is not usable.
pub(super) fn read(top: &Section<'_>) -> Option<Serve> {
    let usual = Serve {
        zone: None,
        jitter: Duration::ZERO,
        verify: None,
        verify_data: None,
        drill: None,
        prune: None,
        daily: None,
        weekly: None,
        monthly: None,
        listen: Some(LISTEN),
        textfile: None,
        grace: GRACE,
        min_free_percent: MIN_FREE_PERCENT,
    };
    if top.span_of("serve").is_none() {
        return Some(usual);
    }
    let section = top.table("serve", spec::SERVE)?;
    let zone = zone(&section);
    let listen = listen(&section);
    let verify = section.schedule("verify").map(|at| at.value);
    if let Some(span) = section.span_of("verify-data")
        && section.span_of("verify").is_none()
    {
        section.bad("verify-data", &span, "nothing is verified", "add `verify = \"0 4 * * *\"`, or remove the key");
    }
    if let Some(span) = section.span_of("textfile")
        && section.path("textfile").is_some_and(|path| path.extension().is_none_or(|extension| extension != "prom"))
    {
        section.bad(
            "textfile",
            &span,
            "the node exporter reads files that end in `.prom`",
            "let its name end in `.prom`",
        );
    }
    Some(Serve {
        zone: zone?,
        jitter: section.duration("jitter").map_or(Duration::ZERO, |at| at.value),
        verify,
        verify_data: section.text("verify-data").map(|at| at.value.to_owned()),
        drill: section.schedule("drill").map(|at| at.value),
        prune: section.schedule("prune").map(|at| at.value),
        daily: section.schedule("daily").map(|at| at.value),
        weekly: section.schedule("weekly").map(|at| at.value),
        monthly: section.schedule("monthly").map(|at| at.value),
        listen: listen?,
        textfile: section.path("textfile"),
        grace: section.duration("grace").map_or(GRACE, |at| at.value),
        min_free_percent: section.integer("min-free-percent").unwrap_or(MIN_FREE_PERCENT),
    })
}

/// The outer `None`: not usable.
#[expect(clippy::option_option, reason = "not usable, not given, given")]
fn zone(section: &Section<'_>) -> Option<Option<TimeZone>> {
    let Some(name) = section.text("time-zone") else {
        return Some(None);
    };
    if let Ok(zone) = TimeZone::get(name.value) {
        return Some(Some(zone));
    }
    section.bad("time-zone", &name.span, "this host knows no such zone", "write for example `Europe/Berlin` or `UTC`");
    None
}

#[expect(clippy::option_option, reason = "not usable, switched off, an address")]
fn listen(section: &Section<'_>) -> Option<Option<SocketAddr>> {
    let Some(text) = section.text("listen") else {
        return Some(Some(LISTEN));
    };
    if text.value == "off" {
        return Some(None);
    }
    if let Ok(address) = text.value.parse::<SocketAddr>() {
        return Some(Some(address));
    }
    let hint = "write an address with its port, as `127.0.0.1:9464`, or `off`";
    section.bad("listen", &text.span, "it is not an address", hint);
    None
}

/// Every pause, in the order of the file. `None` when one of them is not usable.
pub(super) fn pauses(top: &Section<'_>) -> Option<Vec<Pause>> {
    let mut pauses = Some(Vec::new());
    for (name, value, span) in named(top, "pause")? {
        let one = value.and_then(|table| {
            let section = Section::new(format!("pause.{}", name.escape_debug()), table, span, spec::PAUSE, top.sink);
            let (start, length) = (section.schedule("start"), section.duration("length"));
            let (start, length) = (start?, length?);
            if length.value >= start.value.longest_gap() {
                let hint = "make it shorter, or let it begin more rarely";
                section.bad("length", &length.span, "it never ends before it begins again", hint);
                return None;
            }
            Some(Pause { name: name.clone(), start: start.value, length: length.value })
        });
        match (one, &mut pauses) {
            (Some(one), Some(list)) => list.push(one),
            _ => pauses = None,
        }
    }
    pauses
}

type Named<'a> = (String, Option<&'a toml::de::DeTable<'a>>, std::ops::Range<usize>);

/// Tables with names of the user's below a key, in the order of the file; what is no table is
/// reported and has none.
pub(super) fn named<'a>(top: &Section<'a>, key: &str) -> Option<Vec<Named<'a>>> {
    if top.span_of(key).is_none() {
        return Some(Vec::new());
    }
    let (table, _) = top.raw_table(key)?;
    let mut names: Vec<_> = table.iter().collect();
    names.sort_by_key(|(name, _)| name.span().start);
    let one = |(name, value): (&'a toml::Spanned<std::borrow::Cow<'a, str>>, &'a toml::Spanned<DeValue<'a>>)| {
        let dotted = format!("{key}.{}", name.get_ref().escape_debug());
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let usable = name.get_ref().len() <= 63 && !name.get_ref().is_empty() && name.get_ref().chars().all(good);
        let table = match value.get_ref() {
            DeValue::Table(table) if usable => Some(table),
            DeValue::Table(_) => {
                top.bad(&dotted, &name.span(), "it is not a usable name", "use letters, digits, `-` and `_`");
                None
            }
            _ => {
                top.bad(&dotted, &value.span(), "it must be a table", format!("write for example `[{key}.name]`"));
                None
            }
        };
        (name.get_ref().to_string(), table, name.span())
    };
    Some(names.into_iter().map(one).collect())
}
