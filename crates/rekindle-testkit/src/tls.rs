//! A certificate authority for one test, made with the `openssl` program.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process::run;
use crate::tools;

/// A server certificate for `localhost` and 127.0.0.1, with the authority that signed it.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The authority's certificate (PEM): what a client must trust.
    pub ca: PathBuf,
    /// The server's certificate (PEM).
    pub cert: PathBuf,
    /// The server's private key (PEM, PKCS #8), mode 0600.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes a fresh authority and a server certificate in `dir`.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn make(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name);
        let request = |args: &[&str], key: &Path, out: &Path| {
            let mut command = tools::command(tools::find("openssl"));
            command
                .args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
                .args(args)
                .arg("-keyout")
                .arg(key)
                .arg("-out")
                .arg(out);
            run(command);
        };
        let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
        // Exactly one set of extensions: the machine's openssl.cnf would add its own.
        fs::write(path("ca.cnf"), "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n")
            .expect("write the authority's extensions");
        let config = path("ca.cnf").display().to_string();
        request(&["-x509", "-config", &config, "-days", "30", "-subj", "/CN=rekindle test authority"], &ca_key, &ca);
        let (cert, key, csr) = (path("server.pem"), path("server.key"), path("server.csr"));
        request(&["-config", &config, "-subj", "/CN=localhost"], &key, &csr);
        fs::write(path("server.ext"), "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
            .expect("write the server's extensions");
        let mut sign = tools::command(tools::find("openssl"));
        sign.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-in"])
            .arg(&csr)
            .arg("-CA")
            .arg(&ca)
            .arg("-CAkey")
            .arg(&ca_key)
            .arg("-extfile")
            .arg(path("server.ext"))
            .arg("-out")
            .arg(&cert);
        run(sign);
        Self { ca, cert, key }
    }
}
