//! Prometheus and Grafana as adapters.

use rekindle_config::{Grafana, HttpLogin, Prometheus, PrometheusMethod, SecretRef};
use rekindle_core::Result;
use rekindle_sources::grafana::GrafanaOptions;
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

pub(super) fn grafana(grafana: &Grafana) -> Result<GrafanaOptions> {
    let http = match &grafana.url {
        None => None,
        Some(url) => Some(HttpOptions {
            url: url.clone(),
            login: login(grafana.login.as_ref())?,
            ca_file: grafana.ca_file.clone(),
        }),
    };
    Ok(GrafanaOptions {
        config: grafana.config.clone(),
        environment_file: grafana.environment_file.clone(),
        data_dir: grafana.data_dir.clone(),
        database: grafana.database.clone(),
        config_paths: grafana.config_paths.clone(),
        secret_key: grafana.secret_key.as_ref().map(SecretRef::resolve).transpose()?,
        home: grafana.home.clone(),
        stage_dir: grafana.stage_dir.clone(),
        http,
    })
}
