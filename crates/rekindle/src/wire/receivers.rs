//! Receivers of messages, from the configuration.

use std::sync::Arc;

use rekindle_config::{Channel, EmailTls, Receiver, SecretRef, Value};
use rekindle_core::Secret;
use rekindle_serve::notice::EventKind;
use rekindle_serve::notify::{self, Lookup, Mail, MailTls, Web};

/// PagerDuty's own endpoint.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";

/// One receiver as the service wants it. Its secrets are read each time they are needed.
pub(crate) fn of_config(receiver: &Receiver) -> notify::Receiver {
    let chosen =
        |kind: &EventKind| receiver.events.is_empty() || receiver.events.iter().any(|one| one == kind.as_str());
    notify::Receiver {
        name: receiver.name.clone(),
        channel: channel(&receiver.channel, receiver),
        events: EventKind::CHOICES.into_iter().filter(chosen).collect(),
        tasks: receiver.tasks.clone(),
        web: Web {
            timeout: receiver.timeout,
            allow_private: receiver.allow_private,
            ca_file: receiver.ca_file.clone(),
        },
    }
}

fn channel(channel: &Channel, receiver: &Receiver) -> notify::Channel {
    match channel {
        Channel::Slack { url } => notify::Channel::Slack { url: secret(url) },
        Channel::Discord { url } => notify::Channel::Discord { url: secret(url) },
        Channel::Teams { url } => notify::Channel::Teams { url: secret(url) },
        Channel::Webhook { url, template, secret: key } => {
            notify::Channel::Webhook { url: value(url), template: template.clone(), secret: key.as_ref().map(secret) }
        }
        Channel::Ntfy { url, token } => notify::Channel::Ntfy { url: value(url), token: token.as_ref().map(secret) },
        Channel::Ping { url } => notify::Channel::Ping { url: value(url) },
        Channel::PagerDuty { url, routing_key } => notify::Channel::PagerDuty {
            url: url.clone().unwrap_or_else(|| PAGERDUTY.to_owned()),
            routing_key: secret(routing_key),
        },
        Channel::Email(email) => {
            let (tls, usual) = match email.tls {
                EmailTls::StartTls => (MailTls::StartTls, 587),
                EmailTls::Wrapped => (MailTls::Wrapped, 465),
                EmailTls::None => (MailTls::None, 25),
            };
            notify::Channel::Email(Box::new(Mail {
                host: email.host.clone(),
                port: email.port.unwrap_or(usual),
                tls,
                login: email.login.as_ref().map(|(user, password)| (user.clone(), secret(password))),
                from: email.from.clone(),
                to: email.to.clone(),
                ca_file: receiver.ca_file.clone(),
            }))
        }
    }
}

fn secret(reference: &SecretRef) -> Lookup {
    let reference = reference.clone();
    Arc::new(move || reference.resolve())
}

fn value(value: &Value) -> Lookup {
    match value {
        Value::Literal(text) => {
            let text = text.clone();
            Arc::new(move || Ok(Secret::new(text.clone())))
        }
        Value::Reference(reference) => secret(reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_knows_every_event() {
        for kind in EventKind::CHOICES {
            let text = format!(
                "[stack]\nname='s'\n[repository]\nurl='file:///r'\npassword='file:k'\n[component.f]\nkind='files'\n\
                 paths=['/x']\n[notify.n]\nkind='slack'\nurl='file:h'\nevents=['{}']\n",
                kind.as_str()
            );
            let config = rekindle_config::parse(std::path::Path::new("/x/rekindle.toml"), &text).unwrap();
            assert_eq!(of_config(&config.receivers[0]).events.into_iter().collect::<Vec<_>>(), [kind]);
        }
    }
}
