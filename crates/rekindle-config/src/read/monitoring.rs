//! The kinds that watch a stack: Prometheus and Grafana.

use super::kinds::{checked_url, paths};
use crate::model::{Grafana, HttpLogin, Prometheus, PrometheusMethod};
use crate::section::Section;
use crate::url;

/// `username` with `password`, or `token`, or neither.
fn login(section: &Section<'_>) -> Option<HttpLogin> {
    for (a, b) in [("username", "password"), ("password", "username")] {
        if section.span_of(b).is_none()
            && let Some(span) = section.span_of(a)
        {
            section.bad(a, &span, &format!("it needs `{b}` too"), format!("add `{b}`"));
        }
    }
    if section.span_of("username").is_some()
        && let Some(span) = section.span_of("token")
    {
        section.bad("token", &span, "it contradicts `username`", "remove one of the two");
    }
    let username = section.text("username").map(|at| at.value.to_owned());
    match (username, section.secret("password"), section.secret("token")) {
        (Some(username), Some(password), _) => Some(HttpLogin::Basic { username, password }),
        (_, _, Some(token)) => Some(HttpLogin::Token(token)),
        _ => None,
    }
}

/// A certificate authority is of use with TLS only.
fn tls_only(section: &Section<'_>, url: Option<&str>) {
    if url.is_some_and(|url| !url.starts_with("https://"))
        && let Some(span) = section.span_of("ca-file")
    {
        section.bad("ca-file", &span, "the URL does not use TLS", "write `https://` to use TLS, or remove the key");
    }
}

pub(super) fn prometheus(section: &Section<'_>) -> Option<Prometheus> {
    let url = checked_url(section, &url::PROMETHEUS);
    tls_only(section, url.as_deref());
    let config_paths = section.span_of("config-paths").is_some().then(|| paths(section, "config-paths"));
    let rest = Prometheus {
        url: String::new(),
        login: login(section),
        ca_file: section.path("ca-file"),
        data_dir: section.path("data-dir"),
        config_paths: config_paths.flatten(),
        method: section.choice("method").map(|at| match at.value {
            "snapshot" => PrometheusMethod::Snapshot,
            _ => PrometheusMethod::Blocks,
        }),
        bin_dir: section.path("bin-dir"),
    };
    Some(Prometheus { url: url?, ..rest })
}

pub(super) fn grafana(section: &Section<'_>) -> Option<Grafana> {
    let wants_url = section.span_of("url").is_some();
    let url = wants_url.then(|| checked_url(section, &url::GRAFANA));
    tls_only(section, url.as_ref().and_then(|url| url.as_deref()));
    let login = login(section);
    for key in ["username", "token", "ca-file"] {
        if !wants_url && let Some(span) = section.span_of(key) {
            section.bad(key, &span, "it is for the API, which has no `url`", "add `url`, or remove the key");
        }
    }
    if let (Some(Some(_)), None, Some(span)) = (&url, &login, section.span_of("url")) {
        let hint = "add `username` and `password`, or `token`; or remove `url`";
        section.bad("url", &span, "the export needs a login", hint);
    }
    let config_paths = section.span_of("config-paths").is_some().then(|| paths(section, "config-paths"));
    let rest = Grafana {
        data_dir: section.path("data-dir"),
        database: section.path("database"),
        config: section.path("config"),
        environment_file: section.path("environment-file"),
        secret_key: section.secret("secret-key"),
        config_paths: config_paths.flatten().unwrap_or_default(),
        home: section.path("home"),
        stage_dir: section.path("stage-dir"),
        url: None,
        login,
        ca_file: section.path("ca-file"),
    };
    Some(Grafana { url: url.map_or(Some(None), |url| url.map(Some))?, ..rest })
}
