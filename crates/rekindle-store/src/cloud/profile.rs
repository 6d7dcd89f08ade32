//! The AWS credentials and config files.
//!
//! Format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>. Read are static
//! keys, session token, region and endpoint; a profile that asks for anything else to get its keys
//! (roles, SSO, a process) is an error rather than a fall-back to other credentials.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, Secret, codes};

use super::build::Environment;

const DEFAULT_PROFILE: &str = "default";
/// Ways to get keys that are not read here.
const OTHER_WAYS: [&str; 5] = ["role_arn", "sso_session", "sso_start_url", "credential_process", "login_session"];

/// What a profile says.
#[derive(Debug, Default)]
pub(super) struct Profile {
    pub(super) keys: Option<Keys>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

/// A key pair, and the token of temporary ones.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) id: Secret<String>,
    pub(super) secret: Secret<String>,
    pub(super) token: Option<Secret<String>>,
}

/// The profile `wanted`, or the one of `AWS_PROFILE`, or `default`. A profile that was named has
/// to exist and give keys.
pub(super) fn read(wanted: Option<&str>, environment: Environment<'_>) -> Result<Profile> {
    let from_environment = environment("AWS_PROFILE");
    let named = wanted.or(from_environment.as_deref());
    let name = named.unwrap_or(DEFAULT_PROFILE);
    let credentials_file = place("AWS_SHARED_CREDENTIALS_FILE", "credentials", environment);
    let config_file = place("AWS_CONFIG_FILE", "config", environment);

    let heading = if name == DEFAULT_PROFILE { name.to_owned() } else { format!("profile {name}") };
    let mut values = section(config_file.as_deref(), &heading)?;
    values.extend(section(credentials_file.as_deref(), name)?);

    let profile = from_values(name, &values)?;
    if named.is_some() && profile.keys.is_none() {
        return Err(Fault::new(codes::STORE_CREDENTIALS, format!("find keys in the AWS profile `{name}`"))
            .hint("add `aws_access_key_id` and `aws_secret_access_key` to that section of ~/.aws/credentials"));
    }
    Ok(profile)
}

fn from_values(name: &str, values: &BTreeMap<String, String>) -> Result<Profile> {
    let secret = |key: &str| values.get(key).cloned().map(Secret::new);
    let keys = match (secret("aws_access_key_id"), secret("aws_secret_access_key")) {
        (Some(id), Some(secret_key)) => Some(Keys { id, secret: secret_key, token: secret("aws_session_token") }),
        (None, None) => None,
        _ => {
            return Err(Fault::new(
                codes::STORE_CREDENTIALS,
                format!("read the AWS profile `{name}`: one half of the key pair is missing"),
            ));
        }
    };
    if keys.is_none()
        && let Some(way) = OTHER_WAYS.iter().find(|way| values.contains_key(**way))
    {
        return Err(Fault::new(
            codes::STORE_CREDENTIALS,
            format!("read the AWS profile `{name}`: `{way}` is not supported"),
        )
        .hint(format!(
            "export temporary keys instead: eval \"$(aws configure export-credentials --profile {name} --format env)\""
        )));
    }
    Ok(Profile { keys, region: values.get("region").cloned(), endpoint: values.get("endpoint_url").cloned() })
}

fn place(variable: &str, file: &str, environment: Environment<'_>) -> Option<PathBuf> {
    match environment(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => environment("HOME").map(|home| Path::new(&home).join(".aws").join(file)),
    }
}

/// The values under `[heading]`; an absent file or section has none.
fn section(file: Option<&Path>, heading: &str) -> Result<BTreeMap<String, String>> {
    let Some(file) = file else { return Ok(BTreeMap::new()) };
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(parse(&text, heading)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(e) => Err(Fault::new(codes::STORE_CREDENTIALS, format!("read `{}`", file.display())).because(e)),
    }
}

fn parse(text: &str, heading: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        // Indented lines belong to nested settings, which hold nothing of interest here.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name.split_whitespace().eq(heading.split_whitespace());
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(credentials: &str, config: &str) -> (tempfile::TempDir, impl Fn(&str) -> Option<String>) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let path = home.path().to_str().unwrap().to_owned();
        (home, move |name: &str| (name == "HOME").then(|| path.clone()))
    }

    #[test]
    fn keys_and_region_come_from_their_two_files() {
        let (_home, environment) = files(
            "[default]\naws_access_key_id = A\naws_secret_access_key=a=\n# [x]\n[ other ]\naws_access_key_id=B\naws_secret_access_key=b\naws_session_token=t\n",
            "[default]\nregion = one\n[profile other]\nregion=two\nservices = x\n  region = nested\n",
        );
        let profile = read(None, &environment).unwrap();
        assert_eq!(profile.region.as_deref(), Some("one"));
        let keys = profile.keys.unwrap();
        assert_eq!((keys.id.expose().as_str(), keys.secret.expose().as_str(), keys.token.is_none()), ("A", "a=", true));
        let other = read(Some("other"), &environment).unwrap();
        assert_eq!(other.region.as_deref(), Some("two"));
        assert_eq!(other.keys.unwrap().token.unwrap().expose(), "t");
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_an_error() {
        let (_home, environment) = files("[half]\naws_access_key_id=canary\n", "[profile role]\nrole_arn=arn:x\n");
        for name in ["half", "role", "absent"] {
            let fault = read(Some(name), &environment).unwrap_err();
            assert!(fault.is(codes::STORE_CREDENTIALS), "{name}");
            assert!(!format!("{fault:?}").contains("canary"), "{name}");
        }
        assert!(read(None, &environment).unwrap().keys.is_none());
        assert!(read(None, &|_| None).unwrap().keys.is_none());
    }
}
