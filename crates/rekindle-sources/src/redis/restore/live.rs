//! Restore into a running server, key by key: each value becomes a DUMP payload and goes in with
//! RESTORE. One key's payload is in memory at a time, besides a batch of small ones.

use std::collections::{BTreeMap, VecDeque};

use rekindle_core::port::{LostEntry, PartReader, RestoreReport, RestoreRequest, RunContext};
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};

use super::NOT_APPLIED;
use super::source;
use crate::redis::capture::DUMP;
use crate::redis::client::{Client, Reply, clip};
use crate::redis::details::{Placed, RedisDetails};
use crate::redis::facts::Facts;
use crate::redis::options::RedisOptions;
use crate::redis::rdb::record::{Keep, Key, Record, Visitor};
use crate::redis::rdb::{payload, summary, text};
use crate::steps::Steps;

/// Commands and bytes that are sent before their answers are read. The answers of one batch fit
/// into the socket buffers, so neither side waits for the other.
const BATCH_COMMANDS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// Keys that may fail one by one before the whole restore counts as failed.
const LOST_MAX: usize = 1000;
/// Errors that every further key would meet too.
const HOPELESS: [&str; 9] =
    ["OOM", "READONLY", "NOPERM", "NOAUTH", "LOADING", "MISCONF", "MOVED", "CLUSTERDOWN", "NOREPLICAS"];

/// Restores every key and function. Blocking.
pub(crate) fn restore(
    id: &ComponentId,
    options: &RedisOptions,
    part: &dyn PartReader,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    let details = RedisDetails::decode(&part.record().details)?;
    let endpoint = options.endpoint(request.server.as_deref())?;
    let mut steps = Steps::new();
    let mut client = Client::connect(&endpoint, options, &context.cancel)?;
    let facts = Facts::ask(&mut client)?;
    preflight(&mut client, &facts, &details, request.overwrite)?;
    steps.done("check the target");
    context.monitor.phase(id.as_str(), "restore keys");
    let mut from = source::open(part)?;
    let mut restorer = Restorer {
        client,
        overwrite: request.overwrite,
        now: context.clock.now().as_millisecond(),
        version: details.rdb.version,
        database: None,
        waiting: VecDeque::new(),
        unflushed: 0,
        libraries: Vec::new(),
        restored: BTreeMap::new(),
        expired: 0,
        lost: Vec::new(),
    };
    summary::walk(&mut from, Keep::Everything, &mut restorer, &context.cancel)?;
    from.close()?;
    steps.done("restore keys");
    let mut warnings = warnings(&facts, &details);
    if restorer.expired > 0 {
        warnings.push(format!("{} keys had expired and were left out", restorer.expired));
    }
    warnings.push(NOT_APPLIED.to_owned());
    let placed = Placed::Server {
        url: endpoint.url(),
        overwrite: request.overwrite,
        restored: restorer.restored.clone(),
        expired: restorer.expired,
        functions: restorer.libraries.len() as u64,
    };
    Ok(RestoreReport {
        place: format!("server {endpoint}"),
        entries: restorer.restored.values().sum(),
        bytes: details.rdb.bytes,
        kept_old: None,
        lost: restorer.lost,
        warnings,
        steps: steps.into_vec(),
        details: serde_json::to_value(placed).unwrap_or_default(),
    })
}

/// Keys of the configured server.
pub(crate) fn occupied(options: &RedisOptions, cancel: &Cancel) -> Result<Option<String>> {
    let endpoint = options.endpoint(None)?;
    let mut client = Client::connect(&endpoint, options, cancel)?;
    let keys: u64 = Facts::ask(&mut client)?.keyspace().values().sum();
    Ok((keys > 0).then(|| format!("the server at {endpoint} holds {keys} keys")))
}

/// Everything that can be known to fail, before anything is written.
fn preflight(client: &mut Client, facts: &Facts, details: &RedisDetails, overwrite: bool) -> Result<()> {
    let refuse =
        |code, why: String| Fault::new(code, format!("restore into Redis at {}", client.endpoint())).because(why);
    if facts.says("loading", "1") {
        return Err(refuse(codes::REDIS_LOADING, "it still loads its data".to_owned()));
    }
    if facts.says("role", "slave") {
        return Err(refuse(codes::REDIS_RESTORE, "it is a replica".to_owned()).hint("restore into its primary"));
    }
    if facts.says("cluster_enabled", "1") {
        return Err(refuse(codes::REDIS_RESTORE, "it is a node of a cluster".to_owned())
            .hint("restore into a data directory, one per primary"));
    }
    let held: u64 = facts.keyspace().values().sum();
    if held > 0 && !overwrite {
        return Err(refuse(codes::REDIS_TARGET_NOT_EMPTY, format!("it holds {held} keys")).hint(
            "restore into an empty server, or pass `--overwrite`: keys of the point replace \
                 those of the same name, others stay",
        ));
    }
    if let Some(own) = accepted_version(client, facts)?
        && !payload::accepts(own, details.rdb.version)
    {
        let reads = if own < details.rdb.version {
            format!("it reads RDB versions up to {own}")
        } else {
            "it does not read the RDB versions 12 to 79, which are Redis' own".to_owned()
        };
        let why = format!(
            "{reads}; the point was written by {} {} in version {}",
            details.server, details.server_version, details.rdb.version
        );
        return Err(Fault::new(codes::REDIS_VERSION, format!("restore into Redis at {}", client.endpoint()))
            .because(why)
            .hint(format!("restore into {} {} or newer", details.server, details.server_version)));
    }
    for (number, count) in details.rdb.databases.iter().rev() {
        if count.keys == 0 {
            continue;
        }
        if let Reply::Error(text) = client.command(&[b"SELECT", number.to_string().as_bytes()])? {
            return Err(Fault::new(
                codes::REDIS_RESTORE,
                format!("select database {number} of Redis at {}", client.endpoint()),
            )
            .because(clip(&text))
            .hint(format!("set `databases {}` or more on the server", number + 1)));
        }
    }
    Ok(())
}

/// The RDB version the server reads: from an empty function dump, which ends with it (7.0 on),
/// else from the server's version.
fn accepted_version(client: &mut Client, facts: &Facts) -> Result<Option<u16>> {
    if let Reply::Bulk(dump) = client.command(&[b"FUNCTION", b"DUMP"])?
        && let Some((_, version)) = payload::open(&dump)
    {
        return Ok(Some(version));
    }
    Ok(facts.rdb_version())
}

fn warnings(facts: &Facts, details: &RedisDetails) -> Vec<String> {
    let mut warnings = Vec::new();
    let limit: u64 = facts.get("maxmemory").and_then(|t| t.parse().ok()).unwrap_or(0);
    let used: Option<u64> = details.rdb.aux.get("used-mem").and_then(|t| t.parse().ok());
    if let Some(used) = used
        && limit > 0
        && used > limit
    {
        warnings.push(format!(
            "the captured server used {used} bytes of memory, `maxmemory` here is {limit}: keys \
             may be evicted"
        ));
    }
    warnings
}

/// What an answer is waited for.
#[derive(Debug)]
enum Waiting {
    Select(u64),
    Key { database: u64, name: Vec<u8> },
    Functions,
}

struct Restorer {
    client: Client,
    overwrite: bool,
    now: i64,
    version: u16,
    database: Option<u64>,
    waiting: VecDeque<Waiting>,
    unflushed: usize,
    /// Encoded code of each library.
    libraries: Vec<Vec<u8>>,
    restored: BTreeMap<u64, u64>,
    expired: u64,
    lost: Vec<LostEntry>,
}

impl Visitor for Restorer {
    fn record(&mut self, record: Record<'_>) -> Result<()> {
        match record {
            Record::Header { version, .. } => self.version = version,
            Record::Function(code) => self.libraries.push(code.to_vec()),
            Record::Key(key) => return self.key(&key),
            Record::End { .. } => return self.end(),
            Record::Aux { .. } | Record::Database(_) | Record::ModuleAux(_) => {}
        }
        Ok(())
    }
}

impl Restorer {
    fn key(&mut self, key: &Key<'_>) -> Result<()> {
        if key.expires.is_some_and(|at| at <= self.now) {
            self.expired += 1;
            return Ok(());
        }
        let name = text::decode(key.name)
            .ok_or_else(|| Fault::new(codes::REDIS_RDB, "read the name of a key: it is not whole"))?;
        if key.too_large {
            return self.lose(key.database, &name, "its value is larger than 512 MiB");
        }
        if self.database != Some(key.database) {
            self.database = Some(key.database);
            let number = key.database.to_string();
            self.client.send(&[b"SELECT", number.as_bytes()])?;
            self.waiting.push_back(Waiting::Select(key.database));
        }
        let expires = key.expires.unwrap_or(0).to_string();
        let idle = key.idle.map(|seconds| seconds.to_string());
        let frequency = key.frequency.map(|count| count.to_string());
        let payload = payload::of_key(key, self.version);
        let mut command: Vec<&[u8]> = vec![b"RESTORE", &name, expires.as_bytes(), &payload, b"ABSTTL"];
        if self.overwrite {
            command.push(b"REPLACE");
        }
        if let Some(seconds) = &idle {
            command.extend([&b"IDLETIME"[..], seconds.as_bytes()]);
        } else if let Some(count) = &frequency {
            command.extend([&b"FREQ"[..], count.as_bytes()]);
        }
        self.client.send(&command)?;
        self.unflushed += payload.len() + name.len();
        self.waiting.push_back(Waiting::Key { database: key.database, name });
        if self.waiting.len() >= BATCH_COMMANDS || self.unflushed >= BATCH_BYTES {
            self.answers()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if !self.libraries.is_empty() {
            let payload = payload::of_functions(&self.libraries, self.version);
            let policy: &[u8] = if self.overwrite { b"REPLACE" } else { b"APPEND" };
            self.client.send(&[b"FUNCTION", b"RESTORE", &payload, policy])?;
            self.waiting.push_back(Waiting::Functions);
        }
        self.answers()
    }

    fn answers(&mut self) -> Result<()> {
        self.client.flush()?;
        self.unflushed = 0;
        while let Some(waiting) = self.waiting.pop_front() {
            let reply = self.client.reply()?;
            match (waiting, reply) {
                (waiting, Reply::Error(text)) => self.failed(&waiting, &text)?,
                (Waiting::Key { database, .. }, _) => {
                    *self.restored.entry(database).or_default() += 1;
                }
                (Waiting::Select(_) | Waiting::Functions, _) => {}
            }
        }
        Ok(())
    }

    fn failed(&mut self, waiting: &Waiting, text: &str) -> Result<()> {
        let word = text.split_whitespace().next().unwrap_or_default();
        let fault = |what: String| {
            let place = self.client.endpoint();
            Fault::new(codes::REDIS_RESTORE, format!("{what} into Redis at {place}")).because(clip(text))
        };
        match waiting {
            Waiting::Select(number) => Err(fault(format!("go to database {number}"))),
            Waiting::Functions => {
                self.lost.push(LostEntry { path: format!("{DUMP}: functions"), why: clip(text) });
                Ok(())
            }
            Waiting::Key { .. } if word == "NOPERM" || word == "NOAUTH" => {
                Err(self.client.good("RESTORE", Reply::Error(text.to_owned())).err().map_or_else(
                    || fault("restore keys".to_owned()),
                    |fault| {
                        fault.hint(
                            "run `ACL SETUSER USER +ping +info +select +restore +dump +function ~*` for the restore",
                        )
                    },
                ))
            }
            Waiting::Key { .. } if HOPELESS.contains(&word) => Err(fault("restore keys".to_owned())),
            Waiting::Key { database, name } => self.lose(*database, name, text),
        }
    }

    fn lose(&mut self, database: u64, name: &[u8], why: &str) -> Result<()> {
        let name = clip(&String::from_utf8_lossy(name).escape_debug().to_string());
        let entry = LostEntry { path: format!("{DUMP}: database {database}, key `{name}`"), why: clip(why) };
        if self.lost.len() == LOST_MAX {
            return Err(Fault::new(
                codes::REDIS_RESTORE,
                format!("restore keys: more than {LOST_MAX} could not be restored"),
            )
            .because(format!("{}: {}", entry.path, entry.why)));
        }
        self.lost.push(entry);
        Ok(())
    }
}
