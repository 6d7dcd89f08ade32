//! From a connection to a session: startup message and authentication (PostgreSQL manual, 53.2.1
//! and 53.3). A password is only given in a form that the other side cannot use elsewhere, or
//! where nobody can read along.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912;

use super::ReplicationOptions;
use super::answer::{Body, ServerError, unexpected};
use super::wire::{Wire, garbled, tag};
use crate::postgres::connect::APPLICATION;

/// Kinds of `Authentication` messages.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Logs in; `parameters` are those of the startup message beside user and application.
pub(super) fn log_in(wire: &mut Wire, options: &ReplicationOptions, parameters: &[(&str, &str)]) -> Result<()> {
    let user = options.url.user.as_str();
    let fixed = [("user", user), ("application_name", APPLICATION), ("client_encoding", "UTF8")];
    let all = fixed.into_iter().chain(parameters.iter().copied());
    wire.send(|out| frontend::startup_message(all, out))?;
    let mut login = Login { options, scram: None, proved: false };
    loop {
        let frame = wire.frame()?;
        match frame.tag {
            tag::AUTHENTICATION => {
                let body = frame.body.to_vec();
                if login.step(wire, &body)? {
                    break;
                }
            }
            tag::ERROR => return Err(refused(options, ServerError::parse(frame.body)?)),
            tag::NEGOTIATE => {}
            other => return Err(unexpected(other)),
        }
    }
    loop {
        let frame = wire.frame()?;
        match frame.tag {
            tag::READY => break,
            tag::KEY_DATA => {}
            tag::ERROR => return Err(refused(options, ServerError::parse(frame.body)?)),
            other => return Err(unexpected(other)),
        }
    }
    wire.logged_in = true;
    Ok(())
}

fn what(options: &ReplicationOptions) -> String {
    format!("connect to {} as `{}` for replication", options.url, options.url.user)
}

fn refused(options: &ReplicationOptions, error: ServerError) -> Fault {
    error.into_fault(what(options))
}

struct Login<'a> {
    options: &'a ReplicationOptions,
    scram: Option<ScramSha256>,
    /// SCRAM: the server has proved that it knows the password too.
    proved: bool,
}

impl Login<'_> {
    /// Answers one message; `true` when the login is done.
    fn step(&mut self, wire: &mut Wire, body: &[u8]) -> Result<bool> {
        let mut body = Body(body);
        match body.i32()? {
            OK if self.scram.is_some() && !self.proved => {
                // A server that skips its proof may not be the one that knows the password.
                return Err(self.failed("the server ended the login without proving that it knows the password"));
            }
            OK => return Ok(true),
            CLEARTEXT if !wire.transport.is_private() => {
                return Err(self
                    .failed("the server asks for the password in clear over a connection without TLS")
                    .hint("use scram-sha-256 in pg_hba.conf, or set `sslmode = \"require\"`"));
            }
            CLEARTEXT => {
                let password = self.password()?;
                wire.send(|out| frontend::password_message(password, out))?;
            }
            MD5 => {
                let mut salt = [0; 4];
                salt.copy_from_slice(body.take(4)?);
                let hash = md5_hash(self.options.url.user.as_bytes(), self.password()?, salt);
                wire.send(|out| frontend::password_message(hash.as_bytes(), out))?;
            }
            SASL => self.start_scram(wire, body)?,
            SASL_CONTINUE => {
                let bad = |error: std::io::Error| Fault::new(codes::PG_AUTH, what(self.options)).because(error);
                let scram = self.scram.as_mut().ok_or_else(|| garbled("SCRAM goes on before it began"))?;
                scram.update(body.0).map_err(bad)?;
                let message = scram.message().to_vec();
                wire.send(|out| frontend::sasl_response(&message, out))?;
            }
            SASL_FINAL => {
                let bad = |error: std::io::Error| {
                    Fault::new(codes::PG_AUTH, what(self.options))
                        .because(error)
                        .hint("the server does not know the password it should: check what answers at `url`")
                };
                let scram = self.scram.as_mut().ok_or_else(|| garbled("SCRAM ends before it began"))?;
                scram.finish(body.0).map_err(bad)?;
                self.proved = true;
            }
            other => {
                return Err(self
                    .failed(format!("the server asks for a way to log in that is not known (number {other})"))
                    .hint("use scram-sha-256 in pg_hba.conf"));
            }
        }
        Ok(false)
    }

    fn failed(&self, why: impl Into<String>) -> Fault {
        Fault::new(codes::PG_AUTH, what(self.options)).because(why.into())
    }

    fn password(&self) -> Result<&[u8]> {
        match &self.options.password {
            Some(password) => Ok(password.expose().as_bytes()),
            None => Err(self
                .failed("the server asks for a password, and none is configured")
                .hint("set `password` of the component, as `env:NAME` or `file:PATH`")),
        }
    }

    fn start_scram(&mut self, wire: &mut Wire, mut body: Body<'_>) -> Result<()> {
        let mut offered = Vec::new();
        loop {
            match body.text()? {
                b"" => break,
                name => offered.push(name),
            }
        }
        let offers = |name: &str| offered.contains(&name.as_bytes());
        let endpoint = wire.transport.certificate().and_then(end_point);
        let (mechanism, binding) = match endpoint {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))
            }
            _ if !offers(SCRAM_SHA_256) => {
                return Err(self.failed("the server offers no way to log in that is known"));
            }
            // The server hears that we could have bound the channel: one that did offer it, with
            // the offer taken out on the way, ends the login.
            Some(_) if wire.transport.is_tls() => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            _ => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        let scram = ScramSha256::new(self.password()?, binding);
        let message = scram.message().to_vec();
        self.scram = Some(scram);
        wire.send(|out| frontend::sasl_initial_response(mechanism, &message, out))
    }
}

/// The hash that binds a login to the server's certificate (`tls-server-end-point`, RFC 5929,
/// 4.1); `None` when its signature names no hash of its own.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = parsed.signature_algorithm.oid;
    Some(match algorithm {
        // MD5 and SHA-1 count as SHA-256 there.
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Sha256::digest(certificate).to_vec(),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => Sha384::digest(certificate).to_vec(),
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}
