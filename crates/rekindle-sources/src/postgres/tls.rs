//! TLS towards the server with rustls, in the grades that libpq has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::{Fault, Result, codes};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{ServerUrl, SslMode};

/// Where systems keep the certificates they trust: Debian, Red Hat, Alpine and the BSDs.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How far a certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Anything,
    Signature,
    SignatureAndName,
}

fn trust(url: &ServerUrl) -> Trust {
    match url.ssl_mode {
        SslMode::Disable | SslMode::Prefer => Trust::Anything,
        // libpq: with a root certificate, `require` behaves like `verify-ca`.
        SslMode::Require if url.root_certificate.is_none() => Trust::Anything,
        SslMode::Require | SslMode::VerifyCa => Trust::Signature,
        SslMode::VerifyFull => Trust::SignatureAndName,
    }
}

/// The file with the certificates to trust, for us and for the client programs alike.
pub(super) fn bundle(url: &ServerUrl) -> Option<PathBuf> {
    if trust(url) == Trust::Anything {
        return None;
    }
    url.root_certificate.clone().or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The connector for a server.
pub(super) fn connector(url: &ServerUrl) -> Result<MakeRustlsConnect> {
    client_config(url).map(MakeRustlsConnect::new)
}

/// How TLS with a server is done.
pub(super) fn client_config(url: &ServerUrl) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let fault = |what: &str| Fault::new(codes::PG_CONNECT, what.to_owned());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| fault("prepare TLS").because(error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust(url) {
        Trust::Anything => Arc::new(Unverified(provider)),
        grade => {
            let Some(bundle) = bundle(url) else {
                return Err(fault("find the certificates to trust")
                    .hint("name the file with the server's root certificate: `sslrootcert=FILE`"));
            };
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&bundle)?), Arc::clone(&provider))
                .build()
                .map_err(|error| fault("prepare TLS").because(error))?;
            Arc::new(Verified { inner, name: grade == Trust::SignatureAndName })
        }
    };
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore> {
    let what = || format!("read the certificates in {}", path.display());
    let fault = || Fault::new(codes::PG_CONNECT, what()).hint("name a readable PEM file in `sslrootcert` of the URL");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault().because(error.to_string()))? {
        let certificate = certificate.map_err(|error| fault().because(error.to_string()))?;
        // A system bundle may hold certificates of forms that are not understood; what counts is
        // that the one that signed the server's is.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(fault().because("there is no usable certificate in it"));
    }
    Ok(roots)
}

/// Encrypts without knowing to whom: `prefer`, and `require` without a root certificate.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies the chain, and the name when asked.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    name: bool,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            // webpki looks at the name last, so here everything else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
