//! Prometheus and Grafana as adapters.

use rekindle_config::{HttpLogin, Prometheus, PrometheusMethod};
use rekindle_core::Result;
use rekindle_sources::http::{HttpOptions, Login};
use rekindle_sources::prometheus::{Method, PrometheusOptions};

fn login(login: Option<&HttpLogin>) -> Result<Login> {
    Ok(match login {
        None => Login::None,
        Some(HttpLogin::Basic { username, password }) => {
            Login::Basic { username: username.clone(), password: password.resolve()? }
        }
        Some(HttpLogin::Token(token)) => Login::Token(token.resolve()?),
    })
}

pub(super) fn prometheus(prometheus: &Prometheus) -> Result<PrometheusOptions> {
    Ok(PrometheusOptions {
        http: HttpOptions {
            url: prometheus.url.clone(),
            login: login(prometheus.login.as_ref())?,
            ca_file: prometheus.ca_file.clone(),
        },
        data_dir: prometheus.data_dir.clone(),
        config_paths: prometheus.config_paths.clone(),
        method: match prometheus.method {
            None => Method::Auto,
            Some(PrometheusMethod::Snapshot) => Method::Snapshot,
            Some(PrometheusMethod::Blocks) => Method::Blocks,
        },
        bin_dir: prometheus.bin_dir.clone(),
    })
}
