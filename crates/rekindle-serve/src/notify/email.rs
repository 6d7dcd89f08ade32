//! Messages by mail (SMTP).

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};

use super::{Failure, Lookup, look_up};
use crate::notice::Event;

/// How the line to the mail server is kept private.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte (465).
    Wrapped,
    /// STARTTLS, and nothing without it (587).
    StartTls,
    /// None: for a server on this host.
    None,
}

/// A mail server, and who is written to.
#[derive(Clone)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    pub login: Option<(String, Lookup)>,
    pub from: String,
    pub to: Vec<String>,
    pub ca_file: Option<PathBuf>,
}

impl Mail {
    pub(super) async fn send(&self, event: &Event, timeout: Duration) -> Result<(), Failure> {
        let password = match &self.login {
            Some((_, lookup)) => Some(look_up(lookup).await?),
            None => None,
        };
        let message = self.message(event)?;
        let transport = self.transport(password.as_ref().map(|secret| secret.expose().as_str()), timeout)?;
        let sending = tokio::task::spawn_blocking(move || transport.send(&message));
        // Each step has its own deadline in the transport; this one bounds all of them. Not shorter: what cannot be
        // stopped may still arrive, and would be sent again.
        match tokio::time::timeout(timeout * 4, sending).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(error))) => Err(refused(&error)),
            Ok(Err(_)) => Err(Failure::later("sending the mail did not end")),
            Err(_) => Err(Failure::later(format!("the mail server took longer than {} s", (timeout * 4).as_secs()))),
        }
    }

    fn message(&self, event: &Event) -> Result<Message, Failure> {
        let address = |text: &str| {
            text.parse::<Mailbox>().map_err(|error| Failure::never(format!("`{text}` is no mail address: {error}")))
        };
        // A line break in a title would end the header.
        let subject = format!("[rekindle {}] {}", event.stack, event.title).replace(['\r', '\n'], " ");
        let mut builder =
            Message::builder().from(address(&self.from)?).subject(subject).header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(address(to)?);
        }
        let text =
            format!("{}\n\n{}\n\nstack {} on {}, {}\n", event.title, event.text, event.stack, event.host, event.at);
        builder.body(text).map_err(|error| Failure::never(format!("write the mail: {error}")))
    }

    fn transport(&self, password: Option<&str>, timeout: Duration) -> Result<SmtpTransport, Failure> {
        let wrong = |error: lettre::transport::smtp::Error| Failure::never(format!("prepare TLS: {error}"));
        let parameters = || -> Result<TlsParameters, Failure> {
            let mut builder = TlsParameters::builder(self.host.clone());
            if let Some(path) = &self.ca_file {
                let bytes =
                    std::fs::read(path).map_err(|error| Failure::never(format!("read {}: {error}", path.display())))?;
                builder = builder.add_root_certificate(Certificate::from_pem(&bytes).map_err(wrong)?);
            }
            builder.build_rustls().map_err(wrong)
        };
        let tls = match self.tls {
            MailTls::Wrapped => Tls::Wrapper(parameters()?),
            MailTls::StartTls => Tls::Required(parameters()?),
            MailTls::None => Tls::None,
        };
        let mut builder = SmtpTransport::builder_dangerous(&self.host).port(self.port).tls(tls).timeout(Some(timeout));
        if let (Some((user, _)), Some(password)) = (&self.login, password) {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        Ok(builder.build())
    }
}

fn refused(error: &lettre::transport::smtp::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    // 5xx: the server will say the same again.
    if error.is_permanent() { Failure::never(text) } else { Failure::later(text) }
}
