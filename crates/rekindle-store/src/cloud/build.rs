//! From a URL and credentials to a client of the right kind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider};
use rekindle_core::{Fault, Result, codes};

use super::lock::S3Lock;
use super::wire::{Connector, Writes};
use super::{Cloud, profile};
use crate::options::{Credentials, StoreOptions, StoreUrl};

/// Looks up one environment variable.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables with which orchestrators lend a role to a process.
const AWS_ROLE_VARIABLES: [(&str, AmazonS3ConfigKey); 7] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];
const AZURE_VARIABLES: [(&str, AzureConfigKey); 4] = [
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
];
const AWS_NO_KEYS: &str = "no S3 keys were given, so the role of this machine was asked for: set `access-key-id` and `secret-access-key`, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile";
const GCS_NO_KEYS: &str = "no service account file was given, so the role of this machine was asked for: set it, or GOOGLE_APPLICATION_CREDENTIALS";
const AZURE_NO_KEYS: &str =
    "no Azure key or SAS was given, so the role of this machine was asked for: set one, or AZURE_STORAGE_KEY";

/// A client and what to say when the credentials it looks for are nowhere.
type Built = (Box<dyn ObjectStore>, Option<&'static str>);
/// The same of S3, with what Object Lock needs.
type BuiltS3 = (AmazonS3, Option<&'static str>, AmazonS3Builder, ClientOptions);

/// Opens a cloud store.
pub(crate) fn open(options: &StoreOptions, environment: Environment<'_>) -> Result<Cloud> {
    let writes = match &options.url {
        StoreUrl::Gcs { .. } => Writes::Json,
        StoreUrl::Azure { .. } => Writes::Answered,
        // The upload itself carries its SHA-256.
        StoreUrl::S3 { .. } | StoreUrl::Memory | StoreUrl::Local(_) => Writes::Plain,
    };
    let connector = Connector { limits: options.limits.clone(), authorities: authorities(options)?, writes };
    let credentials = &options.credentials;
    let mut lock = None;
    let (built, prefix) = match &options.url {
        StoreUrl::Memory | StoreUrl::Local(_) => {
            return Err(Fault::new(codes::RUN_BUG, format!("open `{}` as cloud storage", options.url)));
        }
        StoreUrl::S3 { prefix, .. } => {
            let (plain, hint, builder, client) = s3(&options.url, credentials, connector.clone(), environment)?;
            lock = Some(S3Lock {
                http: connector.connect(&client).map_err(|error| unusable(&options.url, error))?,
                plain: plain.clone(),
                builder,
                options: client,
                lock: options.lock,
                prefix: prefix.clone(),
                place: options.url.to_string(),
                writer: Mutex::default(),
            });
            (Ok((Box::new(plain) as Box<dyn ObjectStore>, hint)), prefix)
        }
        StoreUrl::Gcs { prefix, .. } => (gcs(&options.url, credentials, connector, environment), prefix),
        StoreUrl::Azure { prefix, .. } => (azure(&options.url, credentials, connector, environment), prefix),
    };
    let (remote, credentials_hint) = built?;
    Ok(Cloud {
        remote,
        prefix: prefix.clone(),
        place: options.url.to_string(),
        idle: options.limits.idle,
        credentials_hint,
        lock,
        storage_class: options.storage_class.clone(),
    })
}

fn s3(url: &StoreUrl, given: &Credentials, connector: Connector, environment: Environment<'_>) -> Result<BuiltS3> {
    let StoreUrl::S3 { bucket, endpoint, region, path_style, profile, .. } = url else {
        return Err(Fault::new(codes::RUN_BUG, "open an S3 store for another kind of URL"));
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_disable_bulk_delete(true)
        // The server compares it with what arrived; it is also the hash of the signature.
        .with_checksum_algorithm(Checksum::SHA256)
        .with_http_connector(connector);

    let mut settings = profile::Profile::default();
    let mut hint = None;
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let (Some(id), Some(secret)) = (&given.access_key_id, &given.secret_access_key) {
        builder = builder.with_access_key_id(id.expose()).with_secret_access_key(secret.expose());
        if let Some(token) = &given.session_token {
            builder = builder.with_token(token.expose());
        }
    } else if given.access_key_id.is_some() || given.secret_access_key.is_some() {
        return Err(half_a_pair("access-key-id", "secret-access-key"));
    } else if let (None, Some(id)) = (profile, set("AWS_ACCESS_KEY_ID")) {
        let secret =
            set("AWS_SECRET_ACCESS_KEY").ok_or_else(|| half_a_pair("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))?;
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = set("AWS_SESSION_TOKEN") {
            builder = builder.with_token(token);
        }
    } else {
        settings = profile::read(profile.as_deref(), environment)?;
        if let Some(keys) = &settings.keys {
            builder = builder.with_access_key_id(keys.id.expose()).with_secret_access_key(keys.secret.expose());
            if let Some(token) = &keys.token {
                builder = builder.with_token(token.expose());
            }
        } else {
            hint = Some(AWS_NO_KEYS);
            for (name, key) in AWS_ROLE_VARIABLES {
                if let Some(value) = set(name) {
                    builder = builder.with_config(key, value);
                }
            }
        }
    }
    if let Some(region) =
        region.clone().or_else(|| set("AWS_REGION")).or_else(|| set("AWS_DEFAULT_REGION")).or(settings.region)
    {
        builder = builder.with_region(region);
    }
    let endpoint = endpoint.clone().or(settings.endpoint);
    let path_style = path_style.unwrap_or(endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    let mut client = ClientOptions::new();
    if let Some(endpoint) = endpoint {
        client = client_options(&endpoint);
        // With the bucket in the host name, the library wants the whole host name.
        let host = if path_style { endpoint.clone() } else { endpoint.replacen("://", &format!("://{bucket}."), 1) };
        builder = builder.with_client_options(client.clone()).with_endpoint(host);
    }
    let built = builder.clone().build().map_err(|e| unusable(url, e))?;
    Ok((built, hint, builder, client))
}

fn gcs(url: &StoreUrl, given: &Credentials, connector: Connector, environment: Environment<'_>) -> Result<Built> {
    let StoreUrl::Gcs { bucket, endpoint, anonymous, .. } = url else {
        return Err(Fault::new(codes::RUN_BUG, "open a GCS store for another kind of URL"));
    };
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_http_connector(connector);
    let mut hint = None;
    if *anonymous {
        // Uploads ask for a credential all the same.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(nobody));
    } else if let Some(file) = &given.service_account_file {
        builder = builder.with_service_account_path(file.to_string_lossy());
    } else if let Some(file) = environment("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(file);
    } else {
        hint = Some(GCS_NO_KEYS);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_client_options(client_options(endpoint)).with_base_url(endpoint);
    }
    Ok((Box::new(builder.build().map_err(|e| unusable(url, e))?), hint))
}

fn azure(url: &StoreUrl, given: &Credentials, connector: Connector, environment: Environment<'_>) -> Result<Built> {
    let StoreUrl::Azure { container, account, endpoint, .. } = url else {
        return Err(Fault::new(codes::RUN_BUG, "open an Azure store for another kind of URL"));
    };
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let account = given.azure_account.clone().or_else(|| account.clone());
    let account = account
        .or_else(|| set("AZURE_STORAGE_ACCOUNT_NAME"))
        .or_else(|| set("AZURE_STORAGE_ACCOUNT"))
        .ok_or_else(|| {
            Fault::new(codes::STORE_CREDENTIALS, format!("open `{url}`: the storage account is not known"))
                .hint("add `?account=NAME` to the URL, or set AZURE_STORAGE_ACCOUNT")
        })?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(account)
        .with_retry(no_retries())
        .with_http_connector(connector);
    let key = given.azure_key.as_ref().map(|key| key.expose().clone());
    let sas = given.azure_sas.as_ref().map(|sas| sas.expose().clone());
    let mut hint = None;
    if let Some(key) = key {
        builder = builder.with_access_key(key);
    } else if let Some(sas) = sas {
        builder = builder.with_config(AzureConfigKey::SasKey, sas);
    } else if let Some(key) = set("AZURE_STORAGE_KEY").or_else(|| set("AZURE_STORAGE_ACCOUNT_KEY")) {
        builder = builder.with_access_key(key);
    } else if let Some(sas) = set("AZURE_STORAGE_SAS_TOKEN") {
        builder = builder.with_config(AzureConfigKey::SasKey, sas);
    } else {
        hint = Some(AZURE_NO_KEYS);
        for (name, key) in AZURE_VARIABLES {
            if let Some(value) = set(name) {
                builder = builder.with_config(key, value);
            }
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_client_options(client_options(endpoint)).with_endpoint(endpoint.clone());
    }
    Ok((Box::new(builder.build().map_err(|e| unusable(url, e))?), hint))
}

fn client_options(endpoint: &str) -> ClientOptions {
    ClientOptions::new().with_allow_http(endpoint.starts_with("http://"))
}

/// Every failure comes back at once; `Retrying` decides.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

fn authorities(options: &StoreOptions) -> Result<Option<Vec<reqwest::Certificate>>> {
    let Some(file) = &options.ca_file else { return Ok(None) };
    let what = || format!("read the certificate authorities in `{}`", file.display());
    let pem = std::fs::read(file).map_err(|e| Fault::new(codes::STORE_TLS, what()).because(e))?;
    let found =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| Fault::new(codes::STORE_TLS, what()).because(e))?;
    if found.is_empty() {
        return Err(Fault::new(codes::STORE_TLS, what())
            .because("it holds no certificate")
            .hint("give a file in PEM form"));
    }
    Ok(Some(found))
}

fn half_a_pair(one: &str, other: &str) -> Fault {
    Fault::new(codes::STORE_CREDENTIALS, format!("use S3 keys: `{one}` and `{other}` belong together, one is missing"))
}

/// Errors of the builders name the setting, never its value, with one exception that cannot
/// happen: a key file is given by its path.
fn unusable(url: &StoreUrl, error: object_store::Error) -> Fault {
    Fault::new(codes::STORE_CREDENTIALS, format!("open `{url}`")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_core::Secret;

    fn try_open(url: &str, credentials: Credentials, variables: &[(&str, &str)]) -> Result<Cloud> {
        let mut options = StoreOptions::new(url)?;
        options.credentials = credentials;
        open(&options, &|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn credentials_are_found_in_their_order() {
        let given = Credentials {
            access_key_id: Some(Secret::new("a".to_owned())),
            secret_access_key: Some(Secret::new("b".to_owned())),
            ..Credentials::default()
        };
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "c")];
        let hint = |opened: Result<Cloud>| opened.unwrap().credentials_hint;
        assert_eq!(hint(try_open("s3://bucket", given, &[])), None);
        assert_eq!(hint(try_open("s3://bucket", Credentials::default(), &keys)), None);
        assert_eq!(hint(try_open("s3://bucket", Credentials::default(), &[])), Some(AWS_NO_KEYS));
        assert_eq!(hint(try_open("gs://bucket?anonymous=true", Credentials::default(), &[])), None);
        let azure = [("AZURE_STORAGE_ACCOUNT", "me"), ("AZURE_STORAGE_KEY", "YQ==")];
        assert_eq!(hint(try_open("az://box", Credentials::default(), &azure)), None);
        assert_eq!(hint(try_open("az://box?account=me", Credentials::default(), &[])), Some(AZURE_NO_KEYS));
    }

    #[test]
    fn half_a_key_pair_is_refused_without_showing_it() {
        let half = Credentials { secret_access_key: Some(Secret::new("canary".to_owned())), ..Credentials::default() };
        let cases = [
            try_open("s3://bucket", half, &[]),
            try_open("s3://bucket", Credentials::default(), &[("AWS_ACCESS_KEY_ID", "canary")]),
            try_open("s3://bucket?profile=absent", Credentials::default(), &[("AWS_ACCESS_KEY_ID", "canary")]),
            try_open("az://box", Credentials::default(), &[("AZURE_STORAGE_KEY", "canary")]),
        ];
        for case in cases {
            let fault = case.unwrap_err();
            assert!(fault.is(codes::STORE_CREDENTIALS), "{fault:?}");
            assert!(!format!("{fault:?}").contains("canary"), "{fault:?}");
        }
    }
}
