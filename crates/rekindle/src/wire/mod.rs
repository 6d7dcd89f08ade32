//! Adapters are built from the configuration here, and nowhere else.

pub(crate) mod alone;
pub(crate) mod attached;
pub(crate) mod components;
pub(crate) mod containers;
mod monitoring;
pub(crate) mod receivers;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod state;
pub(crate) mod turn;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rekindle_config::{Access, Config, CopyTo, Hooks, Repository, SecretRef, Value, default_places, load};
use rekindle_core::point::RecoveryPoint;
use rekindle_core::port::Hook;
use rekindle_core::wal::WalArchive;
use rekindle_core::{Fault, Result, Secret, codes};
use rekindle_engine::HookSet;
use rekindle_repo::admin::Actor;
use rekindle_repo::wal::Archive;
use rekindle_repo::{Repo, RepoOptions, points};
use rekindle_store::{LockMode, StoreOptions, StoreUrl};

use crate::session::{Faults, Session, SystemClock};

/// Longest time of a hook when the configuration does not say.
const HOOK_MAX: Duration = Duration::from_mins(5);

/// A repository: where it is and how it is opened.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) options: StoreOptions,
    pub(crate) password: Secret<String>,
    pub(crate) repo: RepoOptions,
}

/// The configuration file: the named one, else the first default that exists.
pub(crate) fn config_file(session: &Session) -> Option<PathBuf> {
    let named = session.global.config.clone();
    named.or_else(|| default_places().into_iter().find(|place| place.exists()))
}

/// Reads the configuration.
pub(crate) fn config(session: &Session) -> Result<Config, Faults> {
    match config_file(session) {
        Some(file) => Ok(load(&file)?),
        None => {
            Err(no_config("find the configuration: neither ./rekindle.toml nor /etc/rekindle/rekindle.toml exists")
                .into())
        }
    }
}

/// Reads the configuration, when there is one. A repository given by hand may stand for a stack that is
/// not configured here.
pub(crate) fn optional_config(session: &Session) -> Result<Option<Config>, Faults> {
    match config(session) {
        Ok(config) => Ok(Some(config)),
        Err(faults) if session.global.repo.is_some() && faults.0.iter().all(|fault| fault.is(codes::CONFIG_ABSENT)) => {
            Ok(None)
        }
        Err(faults) => Err(faults),
    }
}

fn no_config(what: &str) -> Fault {
    Fault::new(codes::CONFIG_ABSENT, what)
        .hint("rekindle init --repo URL (a new stack), or give --config FILE, or --repo URL with --password-file FILE")
}

/// The repository of `--repo`, else the configured one.
pub(crate) fn place(session: &Session) -> Result<Place, Faults> {
    let given = password_given(session)?;
    if let Some(url) = &session.global.repo {
        return bare_place(url, given.as_ref()).map_err(Faults::from);
    }
    let Some(file) = config_file(session) else {
        return Err(no_config("find the repository: no configuration and no --repo").into());
    };
    of_config(session, &load(&file)?, given.as_ref()).map_err(Faults::from)
}

/// A repository with nothing but its URL and a password of the command line.
pub(crate) fn bare_place(url: &str, given: Option<&SecretRef>) -> Result<Place> {
    let Some(password) = given else {
        return Err(Fault::new(codes::CLI_USAGE, "open the repository: no password is given")
            .hint("give --password-file FILE or --password-command COMMAND, or set REKINDLE_PASSWORD_FILE"));
    };
    let repo = RepoOptions { key_cache: state::key_cache(None, password), ..RepoOptions::default() };
    Ok(Place { options: StoreOptions::new(url)?, password: password.resolve()?, repo })
}

/// The configured repository, or the copy of `--copy`; `given` wins over the configured password.
pub(crate) fn of_config(session: &Session, config: &Config, given: Option<&SecretRef>) -> Result<Place> {
    let repository = match &session.global.copy {
        None => &config.repository,
        Some(name) => &copy(config, name)?.repository,
    };
    of_repository(session, config, repository, given)
}

/// The copy of that name.
pub(crate) fn copy<'a>(config: &'a Config, name: &str) -> Result<&'a CopyTo> {
    config.copies.iter().find(|one| one.name == name).ok_or_else(|| {
        let known: Vec<&str> = config.copies.iter().map(|one| one.name.as_str()).collect();
        Fault::new(codes::COPY_UNKNOWN, format!("find the copy `{}`", name.escape_debug())).hint(match known[..] {
            [] => "add one to the configuration: `[copy.offsite]` with `url` and `password`".to_owned(),
            _ => format!("configured are: {}", known.join(", ")),
        })
    })
}

/// A repository of the configuration: the main one or a copy.
pub(crate) fn of_repository(
    session: &Session,
    config: &Config,
    repository: &Repository,
    given: Option<&SecretRef>,
) -> Result<Place> {
    let reference = given.unwrap_or(&repository.password);
    let mut repo = RepoOptions { key_cache: state::key_cache(Some(config), reference), ..RepoOptions::default() };
    let options = if let Some(url) = &session.global.repo {
        // A configuration and `--repo` together: the other repository with the same components.
        StoreOptions::new(url)?
    } else {
        if let Some(level) = repository.compression {
            (repo.compression_level, repo.stream_level) = (level, level);
        }
        store_options(&repository.url, &repository.access)?
    };
    Ok(Place { options, password: reference.resolve()?, repo })
}

/// A repository of another stack, as a fleet names it.
pub(crate) fn place_of(repository: &rekindle_config::Repository) -> Result<Place> {
    let repo = RepoOptions { key_cache: state::key_cache(None, &repository.password), ..RepoOptions::default() };
    let options = store_options(&repository.url, &repository.access)?;
    Ok(Place { options, password: repository.password.resolve()?, repo })
}

/// The file that the password in use is read from.
pub(crate) fn password_file(session: &Session) -> Result<PathBuf, Faults> {
    let reference = match (password_given(session)?, &session.global.copy) {
        (Some(given), _) => given,
        (None, None) => config(session)?.repository.password,
        (None, Some(name)) => copy(&config(session)?, name)?.repository.password.clone(),
    };
    reference.in_file().map(Path::to_owned).ok_or_else(|| {
        Fault::new(codes::CLI_USAGE, "replace the password: the one in use is not read from a file")
            .hint("write the new one into a new file with --out FILE, and change the reference to it")
            .into()
    })
}

/// The password named by options or environment.
pub(crate) fn password_given(session: &Session) -> Result<Option<SecretRef>> {
    let variable = |name| std::env::var_os(name).is_some();
    Ok(match (&session.global.password_file, &session.global.password_command) {
        (Some(file), _) => Some(SecretRef::file(&absolute(file))),
        (None, Some(line)) => Some(SecretRef::command(line)?),
        (None, None) => match std::env::var_os("REKINDLE_PASSWORD_FILE") {
            Some(file) => Some(SecretRef::file(&absolute(Path::new(&file)))),
            None if variable("REKINDLE_PASSWORD") => Some(SecretRef::variable("REKINDLE_PASSWORD")),
            None => None,
        },
    })
}

/// `init` writes it into the configuration, where a relative one would mean something else.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn store_options(url: &str, access: &Access) -> Result<StoreOptions> {
    let mut options = StoreOptions::new(url)?;
    options.ca_file.clone_from(&access.ca_file);
    options.storage_class.clone_from(&access.storage_class);
    options.lock = access.object_lock.map(|lock| rekindle_store::ObjectLock {
        mode: if lock.compliance { LockMode::Compliance } else { LockMode::Governance },
        days: lock.days,
    });
    let secret = |reference: &Option<SecretRef>| reference.as_ref().map(SecretRef::resolve).transpose();
    let credentials = &mut options.credentials;
    credentials.access_key_id = match &access.access_key_id {
        None => None,
        Some(Value::Literal(text)) => Some(Secret::new(text.clone())),
        Some(Value::Reference(reference)) => Some(reference.resolve()?),
    };
    credentials.secret_access_key = secret(&access.secret_access_key)?;
    credentials.session_token = secret(&access.session_token)?;
    credentials.service_account_file.clone_from(&access.service_account);
    credentials.azure_account.clone_from(&access.account);
    credentials.azure_key = secret(&access.account_key)?;
    credentials.azure_sas = secret(&access.sas_token)?;
    let named = |own: &mut Option<String>, key: &Option<String>| {
        if key.is_some() {
            own.clone_from(key);
        }
    };
    match &mut options.url {
        StoreUrl::S3 { endpoint, region, path_style, profile, .. } => {
            named(endpoint, &access.endpoint);
            named(region, &access.region);
            named(profile, &access.profile);
            *path_style = access.path_style.or(*path_style);
        }
        StoreUrl::Gcs { endpoint, .. } | StoreUrl::Azure { endpoint, .. } => {
            named(endpoint, &access.endpoint);
        }
        StoreUrl::Memory | StoreUrl::Local(_) => {}
    }
    Ok(options)
}

/// Opens the repository. Not to be called from async code.
pub(crate) fn open(session: &Session, place: &Place) -> Result<Repo> {
    let store = rekindle_store::open(&place.options)?;
    let handle = session.runtime.handle().clone();
    let repo = Repo::open(store, handle, &place.password, place.repo.clone())?;
    session.opened.store(true, Ordering::Relaxed);
    Ok(repo)
}

/// Whether a command works on the repository of the configuration, not on one that was named.
pub(crate) fn is_configured(session: &Session, config: &Config) -> bool {
    session.global.repo.as_ref().is_none_or(|url| *url == config.repository.url)
}

/// The WAL logs of an opened repository, for components that need them.
pub(crate) fn logs(repo: &Repo) -> components::Logs {
    let archive: Arc<dyn WalArchive> = Arc::new(Archive::new(repo, Arc::new(SystemClock)));
    components::Logs(Some(Arc::new(move || Ok(Arc::clone(&archive)))))
}

/// The point that `latest`, `latest:complete` or the beginning of an id means. Other points may be
/// damaged.
pub(crate) fn point(repo: &Repo, word: &str) -> Result<RecoveryPoint> {
    points::resolve(&points::view(repo)?, word).cloned()
}

/// Who acts, for locks and the ledger.
pub(crate) fn actor(host: String) -> Actor {
    Actor { host, run: None, clock: Arc::new(SystemClock) }
}

/// The name of this host in points.
pub(crate) fn host(config: &Config) -> String {
    config.stack.host.clone().unwrap_or_else(host_name)
}

/// The host's own name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Who runs this, for the label of a key.
pub(crate) fn user_name() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
}

/// Hooks as the engine wants them.
pub(crate) fn hooks(hooks: &Hooks) -> HookSet {
    let timeout = hooks.timeout.unwrap_or(HOOK_MAX);
    let all = |commands: &[rekindle_config::Command]| {
        let one = |command: &rekindle_config::Command| Hook {
            command: command.argv.clone(),
            timeout,
            container: hooks.container.clone(),
        };
        commands.iter().map(one).collect()
    };
    HookSet { before: all(&hooks.before), after: all(&hooks.after), on_error: all(&hooks.on_error) }
}
