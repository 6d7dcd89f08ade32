//! Checks of addresses: enough to find typos, without resolving or connecting anything.

/// Rules for one kind of URL.
pub(crate) struct Rules {
    /// Allowed schemes.
    pub(crate) schemes: &'static [&'static str],
    /// Schemes whose rest is an absolute path instead of a host.
    pub(crate) path_schemes: &'static [&'static str],
    /// Whether an absolute path without a scheme will do.
    pub(crate) plain_path: bool,
    /// A right one.
    pub(crate) example: &'static str,
    /// Where a password found in the URL belongs.
    pub(crate) password_key: &'static str,
}

pub(crate) const REPOSITORY: Rules = Rules {
    schemes: &["file", "s3", "gs", "az"],
    path_schemes: &["file"],
    plain_path: true,
    example: "file:///backups/repo or s3://bucket/prefix",
    password_key: "access-key-id and secret-access-key",
};
pub(crate) const POSTGRES: Rules = Rules {
    schemes: &["postgres", "postgresql"],
    path_schemes: &[],
    plain_path: false,
    example: "postgres://backup@127.0.0.1:5432/app",
    password_key: "password",
};
pub(crate) const REDIS: Rules = Rules {
    schemes: &["redis", "rediss", "unix"],
    path_schemes: &["unix"],
    plain_path: false,
    example: "redis://127.0.0.1:6379 or unix:///run/redis/redis.sock",
    password_key: "password",
};
pub(crate) const PROMETHEUS: Rules = Rules {
    schemes: &["http", "https"],
    path_schemes: &[],
    plain_path: false,
    example: "http://127.0.0.1:9090",
    password_key: "username and password",
};
pub(crate) const GRAFANA: Rules = Rules {
    schemes: &["http", "https"],
    path_schemes: &[],
    plain_path: false,
    example: "http://127.0.0.1:3000",
    password_key: "username and password",
};
pub(crate) const RECEIVER: Rules = Rules {
    schemes: &["http", "https"],
    path_schemes: &[],
    plain_path: false,
    example: "https://hooks.example.com/path",
    password_key: "a reference such as url = \"file:/etc/rekindle/hook\"",
};
pub(crate) const ENDPOINT: Rules = Rules {
    schemes: &["http", "https"],
    path_schemes: &[],
    plain_path: false,
    example: "https://s3.example.com",
    password_key: "access-key-id and secret-access-key",
};

/// What is wrong with a URL, and what to write instead. Never repeats a password.
pub(crate) fn check(url: &str, rules: &Rules) -> Result<(), (String, String)> {
    let example = || format!("write for example `{}`", rules.example);
    let bad = |text: &str| Err((text.to_owned(), example()));
    if url.is_empty() {
        return bad("it is empty");
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return bad("it holds a blank or a control character");
    }
    if url.starts_with('/') && rules.plain_path {
        return if url.split('/').any(|part| part == "..") { bad("it holds `..`") } else { Ok(()) };
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return bad("it has no scheme");
    };
    if !rules.schemes.contains(&scheme) {
        let known = rules.schemes.join("`, `");
        let text = format!("the scheme `{scheme}` is not one of `{known}`");
        let hint = crate::value::nearest(scheme, rules.schemes.iter().copied())
            .map_or_else(example, |word| format!("did you mean `{word}`?"));
        return Err((text, hint));
    }
    if password_span(rest).is_some() {
        return Err((
            "it holds a password, which would be readable by everybody who may read this file".to_owned(),
            format!(
                "take it out of the URL and set `{}` to a reference such as `file:/etc/rekindle/secret`",
                rules.password_key
            ),
        ));
    }
    if rules.path_schemes.contains(&scheme) {
        return match rest.strip_prefix('/') {
            Some(path) if path.split('/').any(|part| part == "..") => bad("it holds `..`"),
            Some(_) => Ok(()),
            None => bad("the path after the scheme must be absolute (three slashes)"),
        };
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // libpq takes a socket directory as `?host=/run/postgresql` and leaves the host out.
    let host_in_query = rest.contains("?host=") || rest.contains("&host=");
    if host.is_empty() && !host_in_query {
        return bad("it names no host or bucket");
    }
    port(host).map_err(|text| (text, example()))
}

fn port(host: &str) -> Result<(), String> {
    let after = host.rsplit(']').next().unwrap_or_default();
    match after.rsplit_once(':') {
        None => Ok(()),
        Some((_, port)) => match port.parse::<u16>() {
            Ok(number) if number > 0 => Ok(()),
            _ => Err(format!("`{port}` is not a port")),
        },
    }
}

/// The database a PostgreSQL URL names, in its path or as `dbname=`.
pub(crate) fn database(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = before.split_once('/').map(|(_, path)| path);
    let named = query.split('&').find_map(|pair| pair.strip_prefix("dbname="));
    path.or(named).filter(|name| !name.is_empty())
}

/// Whether a PostgreSQL URL names a user.
pub(crate) fn has_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    authority.find('@').is_some_and(|at| at > 0) || rest.contains("?user=") || rest.contains("&user=")
}

/// Where the password stands in the part after `://`.
fn password_span(rest: &str) -> Option<std::ops::Range<usize>> {
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    if let Some(at) = rest.find("?password=").or_else(|| rest.find("&password=")) {
        let start = at + "?password=".len();
        let end = rest[start..].find('&').map_or(rest.len(), |length| start + length);
        return Some(start..end);
    }
    // The last `@` separates: an unescaped one inside a password is a common mistake.
    let at = rest[..authority_end].rfind('@').or_else(|| rest.rfind('@'))?;
    let colon = rest[..at].find(':')?;
    Some(colon + 1..at)
}

/// A URL as it may be shown.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match password_span(rest) {
        Some(span) => format!("{scheme}://{}[secret]{}", &rest[..span.start], &rest[span.end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_pass() {
        for (url, rules) in [
            ("file:///backups/repo", &REPOSITORY),
            ("s3://bucket/prefix", &REPOSITORY),
            ("postgres://backup@postgres:5432/app", &POSTGRES),
            ("postgresql://u@h1:1/app?sslmode=require", &POSTGRES),
            ("/backups/repo", &REPOSITORY),
            ("postgres://backup@[::1]:5432/app", &POSTGRES),
            ("postgres:///app?host=/run/postgresql", &POSTGRES),
            ("redis://127.0.0.1:6379/0", &REDIS),
            ("unix:///run/redis.sock", &REDIS),
        ] {
            assert_eq!(check(url, rules), Ok(()), "{url}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for url in [
            "postgres://u:canary@h/db",
            "redis://:canary@h",
            "postgres://u:can/ary@h/db",
            "postgres://h/db?password=canary",
        ] {
            let (text, hint) = check(url, if url.starts_with('r') { &REDIS } else { &POSTGRES }).unwrap_err();
            let shown = format!("{text}{hint}{}", without_password(url));
            assert!(!shown.contains("canary") && !shown.contains("can/ary"), "{shown}");
            assert!(text.contains("password"), "{text}");
        }
        assert_eq!(without_password("postgres://u@h:5432/db"), "postgres://u@h:5432/db");
    }
}
