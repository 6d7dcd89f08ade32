//! `[notify.<name>]`: who is told.

use std::time::Duration;

use rekindle_core::schedule::Task;
use toml::de::DeValue;

use super::serve::named;
use crate::model::{Channel, Email, EmailTls, Receiver, Value};
use crate::section::Section;
use crate::{spec, url, value};

/// Longest time of one attempt when the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Words of events; the service's own list is compared with it by a test.
const EVENTS: &[&str] =
    &["failed", "partial", "overdue", "recovered", "objective-missed", "proof-old", "capacity", "suspicious", "kit"];

/// Every receiver, in the order of the file. `None` when one of them is not usable.
pub(super) fn all(top: &Section<'_>) -> Option<Vec<Receiver>> {
    let mut receivers = Some(Vec::new());
    for (name, table, span) in named(top, "notify")? {
        let one = table.and_then(|table| {
            let dotted = format!("notify.{}", name.escape_debug());
            let known = || spec::NOTIFY_KINDS.iter().map(|(kind, _)| *kind);
            let all = || format!("write `kind = \"{}\"`", known().collect::<Vec<_>>().join("\"`, `\""));
            let word = table.get("kind").and_then(|kind| match kind.get_ref() {
                DeValue::String(word) => Some((word.as_ref(), kind.span())),
                _ => None,
            });
            let Some((word, place)) = word else {
                top.bad(&format!("{dotted}.kind"), &span, "it is missing, or no text", all());
                return None;
            };
            let Some((kind, keys)) = spec::NOTIFY_KINDS.iter().find(|(kind, _)| *kind == word) else {
                let hint = value::nearest(word, known()).map_or_else(all, |near| format!("did you mean `{near}`?"));
                let why = format!("`{}` is no kind of receiver", word.escape_debug());
                top.bad(&format!("{dotted}.kind"), &place, &why, hint);
                return None;
            };
            receiver(&name, kind, &Section::new(dotted, table, span, keys, top.sink))
        });
        match (one, &mut receivers) {
            (Some(one), Some(list)) => list.push(one),
            _ => receivers = None,
        }
    }
    receivers
}

fn receiver(name: &str, kind: &str, section: &Section<'_>) -> Option<Receiver> {
    let pings = kind == "ping";
    let tasks: Vec<&str> = Task::ALL.iter().map(|task| task.as_str()).collect();
    let channel = channel(kind, section);
    Some(Receiver {
        name: name.to_owned(),
        channel: channel?,
        events: if pings { Vec::new() } else { words(section, "events", EVENTS)? },
        tasks: words(section, "tasks", &tasks)?,
        // An incident that nothing ends is no summary.
        digest: if pings || kind == "pagerduty" { None } else { section.schedule("digest").map(|at| at.value) },
        timeout: section.duration("timeout").map_or(TIMEOUT, |at| at.value),
        allow_private: kind != "email" && section.flag("allow-private").unwrap_or(false),
        ca_file: section.path("ca-file"),
    })
}

/// A list of known words; empty when the key is not there.
fn words(section: &Section<'_>, key: &str, known: &[&str]) -> Option<Vec<String>> {
    if section.span_of(key).is_none() {
        return Some(Vec::new());
    }
    let list = section.texts(key)?;
    let mut good = Some(Vec::new());
    if list.value.is_empty() {
        section.bad(key, &list.span, "the list is empty", "name at least one, or remove the key");
        good = None;
    }
    for word in list.value {
        if known.contains(&word.value) {
            if let Some(good) = &mut good {
                good.push(word.value.to_owned());
            }
            continue;
        }
        let hint = value::nearest(word.value, known.iter().copied())
            .map_or_else(|| format!("choose from: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        section.bad(key, &word.span, &format!("`{}` is not known", word.value.escape_debug()), hint);
        good = None;
    }
    good
}

fn channel(kind: &str, section: &Section<'_>) -> Option<Channel> {
    Some(match kind {
        "slack" => Channel::Slack { url: section.secret("url")? },
        "discord" => Channel::Discord { url: section.secret("url")? },
        "teams" => Channel::Teams { url: section.secret("url")? },
        "webhook" => {
            let (template, secret) = (section.text("template"), section.secret("secret"));
            Channel::Webhook { url: web_url(section)?, template: template.map(|at| at.value.to_owned()), secret }
        }
        "ntfy" => {
            let token = section.secret("token");
            Channel::Ntfy { url: web_url(section)?, token }
        }
        "ping" => Channel::Ping { url: web_url(section)? },
        "pagerduty" => {
            let key = section.secret("routing-key");
            let url = match section.span_of("url") {
                Some(_) => Some(plain_url(section)?),
                None => None,
            };
            Channel::PagerDuty { url, routing_key: key? }
        }
        _ => Channel::Email(email(section)?),
    })
}

fn web_url(section: &Section<'_>) -> Option<Value> {
    match section.text_or_secret("url")? {
        Value::Literal(_) => plain_url(section).map(Value::Literal),
        reference @ Value::Reference(_) => Some(reference),
    }
}

fn plain_url(section: &Section<'_>) -> Option<String> {
    let text = section.text("url")?;
    match url::check(text.value, &url::RECEIVER) {
        Ok(()) => Some(text.value.to_owned()),
        Err((why, hint)) => {
            section.bad("url", &text.span, &why, hint);
            None
        }
    }
}

fn email(section: &Section<'_>) -> Option<Email> {
    let tls = match section.choice("tls").map(|at| at.value) {
        Some("tls") => EmailTls::Wrapped,
        Some("none") => EmailTls::None,
        _ => EmailTls::StartTls,
    };
    let (user, password) = (section.text("username"), section.secret("password"));
    let mut login = None;
    match (user, password) {
        (Some(user), Some(password)) => login = Some((user.value.to_owned(), password)),
        (Some(user), None) if section.span_of("password").is_none() => {
            section.bad("username", &user.span, "there is no `password` for it", "add one, or remove the user");
        }
        (None, Some(_)) => section.bad_self("there is a `password` without `username`", "add `username`"),
        _ => {}
    }
    if let Some(span) = section.span_of("tls")
        && tls == EmailTls::None
        && section.span_of("password").is_some()
    {
        section.bad("tls", &span, "the password would go over the line in clear", "use `starttls` or `tls`");
    }
    let address = |key: &str, text: &str, span: &std::ops::Range<usize>| {
        let good = text.contains('@') && !text.contains(['\r', '\n']);
        if !good {
            section.bad(key, span, "it is not a mail address", "write for example `ops@example.com`");
        }
        good.then(|| text.to_owned())
    };
    let from = section.text("from").and_then(|at| address("from", at.value, &at.span));
    let to = section.texts("to")?;
    if to.value.is_empty() {
        section.bad("to", &to.span, "the list is empty", "name at least one address");
    }
    let to: Option<Vec<String>> = to.value.iter().map(|at| address("to", at.value, &at.span)).collect();
    let host = section.text("host");
    Some(Email { host: host?.value.to_owned(), port: section.integer("port"), tls, login, from: from?, to: to? })
}
