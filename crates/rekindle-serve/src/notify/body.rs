//! What each kind of receiver wants to read. Texts come from errors and file names: they are
//! escaped for every format.

use serde_json::{Value, json};

use crate::notice::{Event, EventKind};

/// Discord refuses more.
const DISCORD_CHARACTERS_MAX: usize = 1900;

pub(super) fn slack(event: &Event) -> Value {
    // These three are all that Slack reads as markup of its own.
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mark = if event.kind.is_bad() { ":red_circle:" } else { ":large_green_circle:" };
    json!({"text": format!("{mark} *{}*\n{}", escaped(&event.title), escaped(&event.text))})
}

pub(super) fn discord(event: &Event) -> Value {
    let text: String = format!("**{}**\n{}", event.title, event.text).chars().take(DISCORD_CHARACTERS_MAX).collect();
    // Nobody is called by what an error says.
    json!({"content": text, "allowed_mentions": {"parse": []}})
}

/// An adaptive card, as workflows of Teams take it.
pub(super) fn teams(event: &Event) -> Value {
    let color = if event.kind.is_bad() { "Attention" } else { "Good" };
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    {"type": "TextBlock", "text": event.title, "weight": "Bolder", "color": color, "wrap": true},
                    {"type": "TextBlock", "text": event.text, "wrap": true},
                ],
            },
        }],
    })
}

/// PagerDuty's Events API v2. A condition that is over resolves what it had triggered.
pub(super) fn pagerduty(event: &Event, routing_key: &str) -> Value {
    let action = if event.kind == EventKind::Recovered { "resolve" } else { "trigger" };
    let severity = match event.kind {
        EventKind::Failed | EventKind::Overdue | EventKind::ObjectiveMissed => "critical",
        kind if kind.is_bad() => "warning",
        _ => "info",
    };
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": format!("rekindle/{}/{}/{}", event.stack, event.host, event.key),
        "payload": {
            "summary": event.title,
            "source": event.host,
            "component": event.subject,
            "group": event.stack,
            "class": event.kind.as_str(),
            "severity": severity,
            "timestamp": event.at.to_string(),
            "custom_details": {"text": event.text, "run": event.run, "point": event.point, "code": event.code},
        },
    })
}

/// The event's words put into the user's template; every value is written as the inside of a JSON
/// string, so that none can break out of its place.
pub(super) fn template(text: &str, event: &Event) -> String {
    let inside = |value: &str| {
        let quoted = Value::String(value.to_owned()).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let at = event.at.to_string();
    let words: [(&str, &str); 11] = [
        ("event", event.kind.as_str()),
        ("stack", &event.stack),
        ("host", &event.host),
        ("subject", &event.subject),
        ("title", &event.title),
        ("text", &event.text),
        ("time", &at),
        ("key", &event.key),
        ("run", event.run.as_deref().unwrap_or_default()),
        ("point", event.point.as_deref().unwrap_or_default()),
        ("code", event.code.as_deref().unwrap_or_default()),
    ];
    let mut out = String::new();
    let mut rest = text;
    // One pass: a value that looks like a word is not replaced again.
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        let tail = &rest[start + 1..];
        let known = tail.find('}').and_then(|end| words.iter().find(|(name, _)| *name == &tail[..end]));
        if let Some((name, value)) = known {
            out.push_str(&inside(value));
            rest = &tail[name.len() + 1..];
        } else {
            out.push('{');
            rest = tail;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            kind: EventKind::Failed,
            stack: "shop".to_owned(),
            host: "web-1".to_owned(),
            subject: "backup database".to_owned(),
            title: "<!channel> \"failed\"".to_owned(),
            text: "line\n{title} & more".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            key: "run backup database".to_owned(),
            run: None,
            point: None,
            code: Some("RK-PG-001".to_owned()),
        }
    }

    #[test]
    fn what_an_error_says_cannot_become_markup() {
        let text = slack(&event())["text"].as_str().unwrap().to_owned();
        assert!(text.contains("&lt;!channel&gt;") && text.contains("&amp; more") && !text.contains('<'), "{text}");
        assert_eq!(discord(&event())["allowed_mentions"]["parse"], json!([]));
    }

    #[test]
    fn a_template_stays_json_whatever_the_values_are() {
        let made = template(r#"{"a": "{title}", "b": ["{text}", "{code}{run}"], "c": {"d": "{unknown}"}}"#, &event());
        let value: Value = serde_json::from_str(&made).unwrap();
        assert_eq!(value["a"], "<!channel> \"failed\"");
        assert_eq!(value["b"], json!(["line\n{title} & more", "RK-PG-001"]));
        assert_eq!(value["c"]["d"], "{unknown}");
    }

    #[test]
    fn a_recovery_resolves_the_incident_it_had_opened() {
        let open = pagerduty(&event(), "key");
        let over = pagerduty(&Event { kind: EventKind::Recovered, ..event() }, "key");
        assert_eq!((&open["event_action"], &over["event_action"]), (&json!("trigger"), &json!("resolve")));
        assert_eq!(open["dedup_key"], over["dedup_key"]);
    }
}
