//! What each kind of component has of its own.

use std::path::{Component as PathPart, Path, PathBuf};

use rekindle_core::wal::{SlotName, WalMode};

use crate::model::{Databases, Files, OnChange, Physical, Postgres, PostgresMethod, Redis};
use crate::section::{At, Section};
use crate::spec;
use crate::url::{self, Rules};

/// The components' `url`, checked.
pub(super) fn checked_url(section: &Section<'_>, rules: &Rules) -> Option<String> {
    let at = section.text("url")?;
    match url::check(at.value, rules) {
        Ok(()) => Some(at.value.to_owned()),
        Err((why, hint)) => {
            section.bad("url", &at.span, &why, hint);
            None
        }
    }
}

fn owned(list: Option<At<Vec<At<&str>>>>) -> Vec<String> {
    list.map(|at| at.value.into_iter().map(|one| one.value.to_owned()).collect()).unwrap_or_default()
}

pub(super) fn postgres(section: &Section<'_>) -> Option<Postgres> {
    let url = checked_url(section, &url::POSTGRES);
    let method = method(section);
    let databases = section.all_or_texts("databases");
    // A base backup is of the whole cluster; its facts can be asked in any database.
    if method == PostgresMethod::Logical
        && section.span_of("databases").is_none()
        && let Some(url) = url.as_deref().filter(|url| url::database(url).is_none())
        && let Some(span) = section.span_of("url")
    {
        let hint = format!("write `{}/DATABASE`, or add `databases = \"all\"`", url.trim_end_matches('/'));
        section.bad("url", &span, "it names no database", hint);
    }
    if let Some(url) = url.as_deref().filter(|url| !url::has_user(url))
        && let Some(span) = section.span_of("url")
    {
        let hint = format!("write for example `{}`", url.replacen("://", "://backup@", 1));
        section.bad("url", &span, "it names no user", hint);
    }
    against(section, "tables", "exclude-tables");
    against(section, "schema-only", "exact-counts");
    let several = !matches!(&databases, None | Some(At { value: Some(_), .. }))
        || databases.as_ref().is_some_and(|at| at.value.as_ref().is_some_and(|list| list.len() > 1));
    if several && let Some(span) = section.span_of("tables") {
        let why = "chosen tables need exactly one database";
        section.bad("tables", &span, why, "name one database, and add further components for others");
    }
    let sslmode = section.choice("sslmode");
    if let (Some(At { value: "disable", .. }), Some(span)) = (&sslmode, section.span_of("ca-file")) {
        section.bad("ca-file", &span, "it contradicts `sslmode = \"disable\"`", "remove one of the two");
    }
    let rest = Postgres {
        url: String::new(),
        password: section.secret("password"),
        method,
        databases: match databases {
            None => Databases::OfUrl,
            Some(At { value: None, .. }) => Databases::All,
            Some(At { value: Some(names), .. }) => Databases::Named(names),
        },
        schema_only: section.flag("schema-only").unwrap_or(false),
        tables: owned(section.texts("tables")),
        exclude_tables: owned(section.texts("exclude-tables")),
        exact_counts: section.flag("exact-counts").unwrap_or(false),
        globals: section.flag("globals").unwrap_or(true),
        data_dir: section.path("data-dir"),
        bin_dir: section.path("bin-dir"),
        sslmode: sslmode.map(|at| at.value.to_owned()),
        ca_file: section.path("ca-file"),
        lock_timeout: section.duration("lock-timeout").map(|at| at.value),
        spool_dir: section.path("spool-dir"),
    };
    Some(Postgres { url: url?, ..rest })
}

/// Keys that only `pg_dump` understands, and those that only base backups do.
const LOGICAL_ONLY: [&str; 8] =
    ["databases", "schema-only", "tables", "exclude-tables", "exact-counts", "globals", "lock-timeout", "spool-dir"];
const PHYSICAL_ONLY: [&str; 3] = ["wal", "slot", "data-dir"];

fn method(section: &Section<'_>) -> PostgresMethod {
    let physical = section.choice("method").is_some_and(|at| at.value == "physical");
    let (foreign, why, hint): (&[&str], _, _) = if physical {
        (&LOGICAL_ONLY, "it is for `method = \"logical\"`; a base backup holds the whole cluster", "remove it")
    } else {
        (&PHYSICAL_ONLY, "it needs `method = \"physical\"`", "add `method = \"physical\"`, or remove it")
    };
    for key in foreign {
        if let Some(span) = section.span_of(key) {
            section.bad(key, &span, why, hint);
        }
    }
    if !physical {
        return PostgresMethod::Logical;
    }
    let wal = match section.choice("wal").map(|at| at.value) {
        Some("stream") => WalMode::Stream,
        Some("archive") => WalMode::Archive,
        Some("both") => WalMode::Both,
        _ => WalMode::None,
    };
    let slot = section.text("slot").and_then(|at| match at.value.parse::<SlotName>() {
        Ok(name) => Some((name, at.span)),
        Err(bad) => {
            section.bad("slot", &at.span, &bad.to_string(), "write for example `slot = \"rekindle_shop_database\"`");
            None
        }
    });
    if let Some((_, span)) = &slot
        && !wal.uses_slot()
    {
        section.bad("slot", span, "only `wal = \"stream\"` and `\"both\"` use a slot", "add one of them, or remove it");
    }
    PostgresMethod::Physical(Physical { wal, slot: slot.map(|(name, _)| name) })
}

/// Two keys of which only one may stand (or be true).
fn against(section: &Section<'_>, a: &str, b: &str) {
    if section.is_set(a)
        && section.is_set(b)
        && let Some(span) = section.span_of(b)
    {
        section.bad(b, &span, &format!("it contradicts `{a}`"), "remove one of the two");
    }
}

pub(super) fn redis(section: &Section<'_>) -> Option<Redis> {
    let url = checked_url(section, &url::REDIS);
    if url.as_ref().is_some_and(|url| !url.starts_with("rediss://")) {
        for key in ["ca-file", "cert-file", "key-file"] {
            if let Some(span) = section.span_of(key) {
                let hint = "write `rediss://` to use TLS, or remove the key";
                section.bad(key, &span, "the URL does not use TLS", hint);
            }
        }
    }
    for (a, b) in [("username", "password"), ("cert-file", "key-file"), ("key-file", "cert-file")] {
        if section.span_of(b).is_none()
            && let Some(span) = section.span_of(a)
        {
            section.bad(a, &span, &format!("it needs `{b}` too"), format!("add `{b}`"));
        }
    }
    let username = section.text("username").map(|at| at.value.to_owned());
    let rest = Redis {
        url: String::new(),
        username,
        password: section.secret("password"),
        data_dir: section.path("data-dir"),
        appendonly: section.flag("appendonly"),
        ca_file: section.path("ca-file"),
        cert_file: section.path("cert-file"),
        key_file: section.path("key-file"),
    };
    Some(Redis { url: url?, ..rest })
}

pub(super) fn files(section: &Section<'_>) -> Option<Files> {
    let paths = paths(section, "paths");
    let exclude = owned(section.texts("exclude"));
    let policy = section.table("policy", spec::POLICY);
    let on = |key| {
        let word = policy.as_ref()?.choice(key)?;
        Some(match word.value {
            "note" => OnChange::Note,
            "partial" => OnChange::Partial,
            _ => OnChange::Fail,
        })
    };
    let (vanished, changed, unreadable) = (on("vanished"), on("changed"), on("unreadable"));
    let one_file_system = section.flag("one-file-system").unwrap_or(false);
    let exclude_caches = section.flag("exclude-caches").unwrap_or(false);
    Some(Files {
        paths: paths?,
        exclude,
        one_file_system,
        exclude_caches,
        vanished,
        changed,
        unreadable,
        compose: None,
    })
}

/// A list of absolute paths of which none lies inside another one.
pub(super) fn paths(section: &Section<'_>, key: &str) -> Option<Vec<PathBuf>> {
    let list = section.texts(key)?;
    if list.value.is_empty() {
        section.bad(key, &list.span, "the list is empty", "name at least one path");
        return None;
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for text in list.value {
        let path = Path::new(text.value);
        let shown = text.value.escape_debug().to_string();
        if !path.is_absolute() {
            let why = format!("`{shown}` is not an absolute path");
            let hint = if shown.starts_with('~') {
                "`~` is not expanded: write the whole path"
            } else {
                "write the whole path"
            };
            section.bad(key, &text.span, &why, hint);
        } else if path.components().any(|part| part == PathPart::ParentDir) {
            section.bad(key, &text.span, &format!("`{shown}` holds `..`"), "write the path without it");
        } else if let Some(outer) = paths.iter().find(|other| path.starts_with(other) || other.starts_with(path)) {
            let why = format!("`{shown}` overlaps with `{}`", outer.display());
            section.bad(key, &text.span, &why, "name each place once; the outer one holds the inner one");
        } else {
            // Built from parts, so that `/a/`, `/a/.` and `//a` are `/a`.
            paths.push(path.components().collect());
        }
    }
    Some(paths)
}
