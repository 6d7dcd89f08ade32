//! A Redis or Valkey of its own for one point: restored into a directory, started on it, reached over a
//! Unix socket.

mod programs;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rekindle_core::manifest::ComponentRecord;
use rekindle_core::port::{Component, Finding, PartReader, RestoreReport, RunContext, Target};
use rekindle_core::sandbox::{Opened, Proved, Sandbox};
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};
use rustix::process::Signal;

use super::client::Client;
use super::details::{Placed, RedisDetails};
use super::facts::Facts;
use super::options::RedisOptions;
use super::{RedisComponent, check};
use crate::sandbox::engine::{Engine, Spec, environment, give};
use crate::sandbox::{Checks, Site};
use programs::Program;

/// Longest load of the data.
const LOAD_MAX: Duration = Duration::from_hours(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const SOCKET: &str = "redis.sock";
/// Memory per byte of RDB, roughly: the file is compact.
const ROOM_FACTOR: u64 = 2;

/// A sandbox for a `redis` component.
pub struct RedisSandbox {
    site: Arc<Site>,
    id: ComponentId,
    appendonly: Option<bool>,
    checks: Checks,
    state: Mutex<Option<State>>,
}

struct State {
    place: PathBuf,
    socket: PathBuf,
    program: Program,
    engine: Option<Arc<Engine>>,
}

impl std::fmt::Debug for RedisSandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSandbox").field("id", &self.id).finish_non_exhaustive()
    }
}

impl RedisSandbox {
    /// A sandbox; nothing is made yet. `appendonly` as the restored server will run.
    pub fn new(site: Arc<Site>, id: ComponentId, appendonly: Option<bool>, checks: Checks) -> Self {
        Self { site, id, appendonly, checks, state: Mutex::default() }
    }

    fn options(&self, socket: &Path) -> RedisOptions {
        RedisOptions { appendonly: self.appendonly, ..RedisOptions::new(format!("unix://{}", socket.display())) }
    }

    fn opened(&self) -> Result<(PathBuf, PathBuf, Program)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.as_ref().ok_or_else(|| Fault::new(codes::RUN_BUG, "use a sandbox that is not open"))?;
        Ok((state.place.clone(), state.socket.clone(), state.program.clone()))
    }

    /// Starts the server on the restored directory.
    async fn launch(&self, details: &RedisDetails) -> Result<Arc<Engine>> {
        let (place, socket, program) = self.opened()?;
        let appendonly = self.appendonly.or(details.appendonly).unwrap_or(false);
        let args = arguments(details, &place, &socket, appendonly);
        let site = Arc::clone(&self.site);
        let engine = blocking(move || {
            let user = site.confinement.user("redis");
            give(&place, user.as_ref())?;
            let log = place.join("log");
            let spec = Spec { program: program.path, args, env: environment(), place, log, user, end: Signal::TERM };
            Engine::start(&site, spec)
        });
        let engine = Arc::new(engine.await?);
        if let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            state.engine = Some(Arc::clone(&engine));
        }
        Ok(engine)
    }

    /// Waits until it has loaded everything and serves.
    async fn ready(&self, engine: Arc<Engine>, context: &RunContext) -> Result<Facts> {
        let (_, socket, _) = self.opened()?;
        let (options, cancel, id) = (self.options(&socket), context.cancel.clone(), self.id.clone());
        blocking(move || {
            let since = Instant::now();
            let failed = || Fault::new(codes::DRILL_ENGINE, format!("start a server on the restored data of `{id}`"));
            loop {
                cancel.check()?;
                if let Some(status) = engine.ended() {
                    return Err(not_loaded(failed(), &format!("it ended with {status}"), &engine.log_tail()));
                }
                match facts(&options, &cancel) {
                    Ok(facts) if facts.says("loading", "0") => return Ok(facts),
                    _ if since.elapsed() > LOAD_MAX => {
                        let why = format!("it has not loaded the data after {} s", LOAD_MAX.as_secs());
                        return Err(failed().because(format!("{why}: {}", engine.log_tail())));
                    }
                    _ => std::thread::sleep(LOOK_EVERY),
                }
            }
        })
        .await
    }
}

fn facts(options: &RedisOptions, cancel: &Cancel) -> Result<Facts> {
    Facts::ask(&mut Client::connect(&options.endpoint(None)?, options, cancel)?)
}

/// A server that is too old, or out of memory here, says nothing about the data.
fn not_loaded(fault: Fault, how: &str, log: &str) -> Fault {
    let code = if log.contains("Can't handle RDB format version") || log.contains("setpriv: failed to execute") {
        codes::DRILL_NO_ENGINE
    } else if log.contains("Out Of Memory") || log.contains("Cannot allocate memory") {
        codes::DRILL_SPACE
    } else {
        return fault.because(format!("{how}: {log}"));
    };
    Fault::new(code, fault.what().to_owned())
        .because(format!("{how}: {log}"))
        .hint("install a server of the captured version, or raise `memory` in [drill]")
}

fn arguments(details: &RedisDetails, place: &Path, socket: &Path, appendonly: bool) -> Vec<OsString> {
    let files = &details.files;
    let on = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let databases = details.rdb.databases.keys().max().map_or(16, |last| (last + 1).max(16));
    let mut settings = vec![
        ("port", "0".to_owned()),
        ("unixsocket", socket.display().to_string()),
        ("unixsocketperm", "700".to_owned()),
        ("dir", place.join("data").display().to_string()),
        ("dbfilename", files.dbfilename.clone()),
        ("appendonly", on(appendonly)),
        ("appendfilename", files.appendfilename.clone()),
        ("databases", databases.to_string()),
        // It writes nothing back, and follows nobody.
        ("save", String::new()),
        ("daemonize", "no".to_owned()),
        ("maxmemory", "0".to_owned()),
    ];
    let major = details.server_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major >= 7) {
        settings.push(("appenddirname", files.appenddirname.clone()));
    }
    settings.into_iter().flat_map(|(name, value)| [format!("--{name}").into(), value.into()]).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::new(codes::RUN_BUG, "work with Redis in a sandbox").because(error))?
}

/// Keys that the point does not hold come from somewhere else, such as an old append-only file.
fn too_many(facts: &Facts, details: &RedisDetails) -> Vec<Finding> {
    let held = facts.keyspace();
    let of = |number: &u64| details.rdb.databases.get(number).map_or(0, |count| count.keys);
    held.iter()
        .filter(|(number, keys)| **keys > of(number))
        .map(|(number, keys)| {
            let text = format!("database {number} holds {keys} keys, the point only {}", of(number));
            Finding::bad(text, "the server loaded something else: look for an old append-only file in its directory")
        })
        .collect()
}

#[async_trait]
impl Sandbox for RedisSandbox {
    fn component(&self) -> &ComponentId {
        &self.id
    }

    async fn open(&self, record: &ComponentRecord, _context: &RunContext) -> Result<Opened> {
        let details = RedisDetails::decode(&record.details)?;
        if let Some(module) = details.rdb.modules.first() {
            let what = format!("find the module `{module}` for `{}`", self.id);
            return Err(Fault::new(codes::DRILL_NO_ENGINE, what)
                .because("sandboxes load no modules")
                .hint("restore with `rekindle restore --to DIR` and start a server with the module on it"));
        }
        let (site, bytes) = (Arc::clone(&self.site), record.tally.bytes);
        let opened = blocking(move || {
            site.ensure_room(bytes.saturating_mul(ROOM_FACTOR))?;
            let program = programs::find(&site.options.programs, &details)?;
            let place = site.place()?;
            let socket = Site::sockets(&place, SOCKET)?.join(SOCKET);
            Ok((place, socket, program))
        });
        let (place, socket, program) = opened.await?;
        // The adapter asks the configured server whether it uses the directory: here it asks nobody.
        let component: Arc<dyn Component> = Arc::new(RedisComponent::new(self.id.clone(), self.options(&socket)));
        let target = Target::New(Some(place.join("data").to_string_lossy().into_owned()));
        let state = State { place, socket, program, engine: None };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        Ok(Opened { component, target, engine: None })
    }

    async fn start(&self, record: &ComponentRecord, _: &RestoreReport, context: &RunContext) -> Result<Proved> {
        let details = RedisDetails::decode(&record.details)?;
        let since = Instant::now();
        let engine = self.launch(&details).await?;
        let facts = self.ready(engine, context).await?;
        let ready_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (server, version) = facts.server();
        let name = if server == "valkey" { "Valkey" } else { "Redis" };
        Ok(Proved { engine: Some(format!("{name} {version}")), ready_ms, findings: too_many(&facts, &details) })
    }

    async fn look(
        &self,
        part: Arc<dyn PartReader>,
        _report: &RestoreReport,
        context: &RunContext,
    ) -> Result<Vec<Finding>> {
        let details = RedisDetails::decode(&part.record().details)?;
        let (place, socket, _) = self.opened()?;
        let (options, site, checks) = (self.options(&socket), Arc::clone(&self.site), self.checks.clone());
        let context = context.clone();
        blocking(move || {
            // The ordinary check of a running server, key by key.
            let placed = Placed::Server {
                url: format!("unix://{}", socket.display()),
                overwrite: false,
                restored: details.rdb.databases.iter().map(|(number, count)| (*number, count.keys)).collect(),
                expired: 0,
                functions: details.rdb.functions,
            };
            let report =
                RestoreReport { details: serde_json::to_value(placed).unwrap_or_default(), ..RestoreReport::default() };
            let mut findings = check::check(&options, None, &*part, &report, &context)?;
            let variables =
                [("REKINDLE_SOCKET", OsString::from(&socket)), ("REKINDLE_PLACE", place.join("data").into())];
            findings.extend(checks.run(&site, &place, &variables, &context.cancel)?);
            Ok(findings)
        })
        .await
    }

    async fn way_in(&self, _report: &RestoreReport, context: &RunContext) -> Result<Option<String>> {
        let (_, socket, _) = self.opened()?;
        let (options, cancel) = (self.options(&socket), context.cancel.clone());
        blocking(move || {
            let mut client = Client::connect(&options.endpoint(None)?, &options, &cancel)?;
            // From here on nobody, we included, may change anything.
            client.call(&[
                b"ACL",
                b"SETUSER",
                b"default",
                b"-@all",
                b"+@read",
                b"+@connection",
                b"+info",
                b"+dbsize",
            ])?;
            Ok(())
        })
        .await?;
        let (_, socket, _) = self.opened()?;
        Ok(Some(format!("unix://{}", socket.display())))
    }

    fn within_limits(&self) -> Result<()> {
        self.site.within_limits()
    }

    fn close(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(state) = state else { return Ok(()) };
        if let Some(engine) = &state.engine {
            engine.stop();
        }
        self.site.clear(&state.place)
    }
}
