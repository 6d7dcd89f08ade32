//! `[repository]`.

use std::ops::Range;

use crate::model::{Access, ObjectLock, Repository};
use crate::section::Section;
use crate::url;

/// Which keys belong to which scheme.
const OF_SCHEME: &[(&str, &[&str])] = &[
    (
        "s3",
        &[
            "region",
            "path-style",
            "profile",
            "access-key-id",
            "secret-access-key",
            "session-token",
            "object-lock",
            "object-lock-days",
            "storage-class",
        ],
    ),
    ("gs", &["service-account"]),
    ("az", &["account", "account-key", "sas-token"]),
];

pub(super) fn read(section: &Section<'_>) -> Option<Repository> {
    let url = section.text("url");
    let good_url = url.as_ref().and_then(|at| match url::check(at.value, &url::REPOSITORY) {
        Ok(()) => Some(at.value.to_owned()),
        Err((why, hint)) => {
            section.bad("url", &at.span, &why, hint);
            None
        }
    });
    let access = access(section);
    if let Some(scheme) = good_url.as_ref().map(|url| url.split_once("://").map_or("file", |(scheme, _)| scheme)) {
        fits(section, scheme);
    }
    let password = section.secret("password");
    let compression = section.integer("compression");
    let key_cache = section.flag("key-cache").unwrap_or(true);
    Some(Repository { url: good_url?, password: password?, compression, key_cache, access })
}

fn access(section: &Section<'_>) -> Access {
    let endpoint = section.text("endpoint").and_then(|at| match url::check(at.value, &url::ENDPOINT) {
        Ok(()) => Some(at.value.to_owned()),
        Err((why, hint)) => {
            section.bad("endpoint", &at.span, &why, hint);
            None
        }
    });
    let text = |key| section.text(key).map(|at| at.value.to_owned());
    Access {
        endpoint,
        region: text("region"),
        path_style: section.flag("path-style"),
        ca_file: section.path("ca-file"),
        profile: text("profile"),
        object_lock: lock(section),
        storage_class: section.choice("storage-class").map(|at| at.value.to_owned()),
        access_key_id: section.text_or_secret("access-key-id"),
        secret_access_key: section.secret("secret-access-key"),
        session_token: section.secret("session-token"),
        service_account: section.path("service-account"),
        account: text("account"),
        account_key: section.secret("account-key"),
        sas_token: section.secret("sas-token"),
    }
}

fn lock(section: &Section<'_>) -> Option<ObjectLock> {
    let mode = section.choice("object-lock")?;
    let days = section.integer("object-lock-days")?;
    Some(ObjectLock { compliance: mode.value == "compliance", days })
}

/// Keys that say something about another kind of storage, or against each other.
fn fits(section: &Section<'_>, scheme: &str) {
    for (other, keys) in OF_SCHEME.iter().filter(|(other, _)| *other != scheme) {
        for key in *keys {
            if let Some(span) = section.span_of(key) {
                let why = format!("it says something about `{other}://`, but the URL is `{scheme}://`");
                section.bad(key, &span, &why, "remove the key or change the URL");
            }
        }
    }
    if scheme == "file" {
        for key in ["endpoint", "ca-file"] {
            if let Some(span) = section.span_of(key) {
                section.bad(key, &span, "a local repository has none", "remove the key");
            }
        }
    }
    let both =
        |a: &str, b: &str| -> Option<Range<usize>> { section.span_of(a).filter(|_| section.span_of(b).is_some()) };
    let lone =
        |a: &str, b: &str| -> Option<Range<usize>> { section.span_of(a).filter(|_| section.span_of(b).is_none()) };
    for (a, b) in [("profile", "access-key-id"), ("account-key", "sas-token")] {
        if let Some(span) = both(a, b) {
            section.bad(a, &span, &format!("it contradicts `{b}`"), "keep one of the two");
        }
    }
    for (a, b) in [
        ("access-key-id", "secret-access-key"),
        ("secret-access-key", "access-key-id"),
        ("session-token", "access-key-id"),
        ("account-key", "account"),
        ("object-lock", "object-lock-days"),
        ("object-lock-days", "object-lock"),
    ] {
        if let Some(span) = lone(a, b) {
            section.bad(a, &span, &format!("it needs `{b}` too"), format!("add `{b}`"));
        }
    }
}
