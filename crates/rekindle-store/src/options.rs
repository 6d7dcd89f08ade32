//! Where the objects are and how to get there.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use rekindle_core::{Fault, Result, Secret, codes};
use url::Url;

use crate::limits::Limits;
use crate::lock::ObjectLock;

/// The place of a store. Never holds a secret: URLs with a user or password in them are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `memory:`: ends with the process.
    Memory,
    /// `file:///abs` or `/abs`.
    Local(PathBuf),
    /// `s3://bucket/prefix?endpoint=…&region=…&path-style=true&profile=…`
    S3 {
        bucket: String,
        /// Empty, or without slashes at the ends.
        prefix: String,
        /// Another server than AWS.
        endpoint: Option<String>,
        /// Default: that of the environment or profile, else `us-east-1`.
        region: Option<String>,
        /// The bucket in the path instead of the host name. Default: yes when there is an endpoint.
        path_style: Option<bool>,
        /// Section of the AWS credentials and config files.
        profile: Option<String>,
    },
    /// `gs://bucket/prefix?endpoint=…&anonymous=true`
    Gcs {
        bucket: String,
        prefix: String,
        endpoint: Option<String>,
        /// Sends no credentials.
        anonymous: bool,
    },
    /// `az://container/prefix?account=…&endpoint=…`
    Azure { container: String, prefix: String, account: Option<String>, endpoint: Option<String> },
}

/// Credentials given by the configuration. What is absent is looked for in the environment, the
/// AWS profile files, and the instance's own role, in this order.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// S3 access key id.
    pub access_key_id: Option<Secret<String>>,
    /// S3 secret access key.
    pub secret_access_key: Option<Secret<String>>,
    /// S3 token of temporary credentials.
    pub session_token: Option<Secret<String>>,
    /// GCS service account key file (JSON).
    pub service_account_file: Option<PathBuf>,
    /// Azure storage account; wins over the URL's.
    pub azure_account: Option<String>,
    /// Azure account key (base64).
    pub azure_key: Option<Secret<String>>,
    /// Azure shared access signature (query string).
    pub azure_sas: Option<Secret<String>>,
}

/// Everything [`open`](crate::open) needs.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The place.
    pub url: StoreUrl,
    /// Credentials given by the configuration.
    pub credentials: Credentials,
    /// PEM file of the only certificate authorities to trust, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Deadlines and retries.
    pub limits: Limits,
    /// Retention of every object (S3 only).
    pub lock: Option<ObjectLock>,
    /// Storage class of packs (S3 only).
    pub storage_class: Option<String>,
    /// Make the directory of a local store. Only for the first set-up: a missing directory later
    /// on is most likely a disk that is not mounted.
    pub create_root: bool,
}

impl StoreOptions {
    /// Options for the place in `url`, everything else at its default.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            url: url.parse()?,
            credentials: Credentials::default(),
            ca_file: None,
            limits: Limits::default(),
            lock: None,
            storage_class: None,
            create_root: false,
        })
    }
}

impl FromStr for StoreUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if text.starts_with('/') {
            return Ok(Self::Local(PathBuf::from(text)));
        }
        // The text is not repeated in errors before it is known to hold no password.
        let url = Url::parse(text).map_err(|e| bad("<unreadable>", "it is not a URL").because(e).hint(FORMS))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad(url.scheme(), "it holds a user or password")
                .hint("give credentials as secret references in the configuration or in the environment"));
        }
        if url.fragment().is_some() {
            return Err(bad(text, "it holds a `#`").hint("write `%23` for `#`"));
        }
        let query = Query::read(&url)?;
        match url.scheme() {
            "file" => local(&url, &query),
            "s3" => s3(&url, query),
            "gs" => gcs(&url, query),
            "az" => azure(&url, query),
            scheme => Err(bad(scheme, "the scheme is not known").hint(FORMS)),
        }
    }
}

const FORMS: &str =
    "use `/path`, `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`";

fn bad(url: &str, rule: &str) -> Fault {
    Fault::new(codes::STORE_URL, format!("read the repository URL `{url}`: {rule}"))
}

fn local(url: &Url, query: &Query) -> Result<StoreUrl> {
    query.end()?;
    url.to_file_path()
        .map(StoreUrl::Local)
        .map_err(|()| bad(url.as_str(), "it does not name an absolute path on this machine").hint(FORMS))
}

fn s3(url: &Url, mut query: Query) -> Result<StoreUrl> {
    let found = StoreUrl::S3 {
        bucket: container(url)?,
        prefix: prefix(url)?,
        endpoint: query.endpoint()?,
        region: query.take("region"),
        path_style: query.flag("path-style")?,
        profile: query.take("profile"),
    };
    query.end().map(|()| found)
}

fn gcs(url: &Url, mut query: Query) -> Result<StoreUrl> {
    let found = StoreUrl::Gcs {
        bucket: container(url)?,
        prefix: prefix(url)?,
        endpoint: query.endpoint()?,
        anonymous: query.flag("anonymous")?.unwrap_or(false),
    };
    query.end().map(|()| found)
}

fn azure(url: &Url, mut query: Query) -> Result<StoreUrl> {
    let found = StoreUrl::Azure {
        container: container(url)?,
        prefix: prefix(url)?,
        account: query.take("account"),
        endpoint: query.endpoint()?,
    };
    query.end().map(|()| found)
}

fn container(url: &Url) -> Result<String> {
    if url.port().is_some() {
        return Err(
            bad(url.as_str(), "a port does not belong here").hint("name the server with `?endpoint=https://host:port`")
        );
    }
    match url.host_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(bad(url.as_str(), "the bucket or container is missing").hint(FORMS)),
    }
}

fn prefix(url: &Url) -> Result<String> {
    let prefix = url.path().trim_matches('/');
    if !prefix.is_empty() {
        crate::key::Key::new(prefix).map_err(|e| bad(url.as_str(), "its prefix is not usable").because(e))?;
    }
    Ok(prefix.to_owned())
}

/// The parameters behind `?`; each has to be used.
struct Query {
    url: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    fn read(url: &Url) -> Result<Self> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url.query_pairs() {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(bad(url.as_str(), &format!("`{name}` stands twice")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { url: url.to_string(), pairs })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(bad(&self.url, &format!("`{name}` is not `true` or `false`"))),
        }
    }

    fn endpoint(&mut self) -> Result<Option<String>> {
        let Some(text) = self.take("endpoint") else { return Ok(None) };
        let parsed = Url::parse(&text).map_err(|e| bad(&self.url, "the endpoint is not a URL").because(e))?;
        let plain = matches!(parsed.scheme(), "http" | "https") && parsed.has_host() && parsed.query().is_none();
        if !plain || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(bad(parsed.scheme(), "the endpoint is not of the form `https://host:port`"));
        }
        Ok(Some(text.trim_end_matches('/').to_owned()))
    }

    fn end(&self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            // The value may be a secret somebody put there; the name says enough.
            Some((name, _)) => Err(Fault::new(
                codes::STORE_URL,
                format!("read the repository URL: the parameter `{name}` is not known"),
            )
            .hint("see `docs/errors/RK-ST-001.md` for the parameters of each kind of storage")),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// The place as people write it, without the parameters (except the server's address).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, container, prefix, endpoint) = match self {
            Self::Memory => return f.write_str("memory:"),
            Self::Local(path) => return write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix, endpoint, .. } => ("s3", bucket, prefix, endpoint),
            Self::Gcs { bucket, prefix, endpoint, .. } => ("gs", bucket, prefix, endpoint),
            Self::Azure { container, prefix, endpoint, .. } => ("az", container, prefix, endpoint),
        };
        write!(f, "{scheme}://{container}")?;
        if !prefix.is_empty() {
            write!(f, "/{prefix}")?;
        }
        match endpoint {
            Some(endpoint) => write!(f, "?endpoint={endpoint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let read = |text: &str| text.parse::<StoreUrl>().unwrap();
        assert_eq!(read("memory:"), StoreUrl::Memory);
        assert_eq!(read("/srv/backup"), StoreUrl::Local("/srv/backup".into()));
        assert_eq!(read("file:///srv/a%20b"), StoreUrl::Local("/srv/a b".into()));
        assert_eq!(
            read("s3://bucket/a/b/?endpoint=http://127.0.0.1:1/&region=r&path-style=false&profile=p"),
            StoreUrl::S3 {
                bucket: "bucket".into(),
                prefix: "a/b".into(),
                endpoint: Some("http://127.0.0.1:1".into()),
                region: Some("r".into()),
                path_style: Some(false),
                profile: Some("p".into()),
            }
        );
        assert_eq!(
            read("gs://bucket"),
            StoreUrl::Gcs { bucket: "bucket".into(), prefix: String::new(), endpoint: None, anonymous: false }
        );
        assert_eq!(
            read("az://box/p?account=me"),
            StoreUrl::Azure { container: "box".into(), prefix: "p".into(), account: Some("me".into()), endpoint: None }
        );
    }

    #[test]
    fn bad_urls_are_refused_without_repeating_secrets() {
        for text in [
            "",
            "relative/path",
            "ftp://host/x",
            "s3://",
            "s3://key:canary@bucket/x",
            "s3://bucket/x?secret-access-key=canary",
            "s3://bucket/x?path-style=maybe",
            "s3://bucket/x?region=a&region=b",
            "s3://bucket:99/x",
            "s3://bucket/a%2Fb",
            "s3://bucket/x?endpoint=http://user:canary@host",
            "s3://bucket/x?endpoint=host:80",
            "file://otherhost/x",
            "memory:x",
        ] {
            let fault = text.parse::<StoreUrl>().unwrap_err();
            assert!(fault.is(codes::STORE_URL), "{text}: {fault:?}");
            assert!(!format!("{fault:?}").contains("canary"), "{text}: {fault:?}");
        }
    }

    #[test]
    fn the_display_form_names_the_place_only() {
        let url: StoreUrl = "s3://bucket/a?endpoint=http://127.0.0.1:1&profile=p".parse().unwrap();
        assert_eq!(url.to_string(), "s3://bucket/a?endpoint=http://127.0.0.1:1");
    }
}
