//! Whether what stands at the target is what the point holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rekindle_core::port::{Finding, PartReader, RestoreReport, RunContext};
use rekindle_core::proof::hex;
use rekindle_core::{Fault, Result, codes};
use sha2::{Digest, Sha256};

use super::capture::DUMP;
use super::client::{Client, Reply};
use super::details::{Placed, RedisDetails};
use super::facts::Facts;
use super::options::RedisOptions;
use super::rdb::format::Dialect;
use super::rdb::record::{Keep, Key, Record, Visitor};
use super::rdb::summary::{RdbSummary, summarize, walk};
use super::rdb::{digest, payload, text};
use super::restore::source;

/// Keys whose content is compared in a running server.
const SAMPLE_KEYS: u64 = 1000;
/// Keys that expire sooner than this are not sampled: they may be gone any moment.
const SAMPLE_MARGIN_MILLISECONDS: i64 = 60_000;

const TAKE_AGAIN: &str = "restore again; if this repeats, run `rekindle verify --read-data`";

/// Looks at the place of a restore. Blocking.
pub(crate) fn check(
    options: &RedisOptions,
    server: Option<&str>,
    part: &dyn PartReader,
    report: &RestoreReport,
    context: &RunContext,
) -> Result<Vec<Finding>> {
    let details = RedisDetails::decode(&part.record().details)?;
    let placed: Placed = serde_json::from_value(report.details.clone())
        .map_err(|error| Fault::new(codes::RUN_BUG, "read the report of a Redis restore").because(error))?;
    match placed {
        Placed::Directory { rdb, aof_base, .. } => {
            let expected = Expected::of(part, details);
            let mut findings = vec![expected.compare(&rdb, context)];
            if let Some(base) = aof_base
                && !same_file(&rdb, &base)
            {
                findings.push(expected.compare(&base, context));
            }
            Ok(findings)
        }
        Placed::Server { url, overwrite, restored, .. } => {
            let endpoint = options.endpoint(Some(server.unwrap_or(&url)))?;
            let mut client = Client::connect(&endpoint, options, &context.cancel)?;
            let facts = Facts::ask(&mut client)?;
            let mut sample = Sample::new(client, details.rdb.keys(), context);
            walk(&mut source::open(part)?, Keep::Everything, &mut sample, &context.cancel)?;
            let mut findings = sample.counts(&facts.keyspace(), &restored, overwrite);
            findings.push(sample.finding());
            Ok(findings)
        }
    }
}

/// What a file has to be.
struct Expected {
    sha256: Option<String>,
    rdb: RdbSummary,
}

impl Expected {
    fn of(part: &dyn PartReader, details: RedisDetails) -> Self {
        let streams = &part.record().streams;
        let sha256 = streams.iter().find(|stream| stream.path == DUMP);
        Self { sha256: sha256.map(|stream| stream.sha256.clone()), rdb: details.rdb }
    }

    fn compare(&self, path: &Path, context: &RunContext) -> Finding {
        let name = path.display();
        match self.look(path, context) {
            Ok(keys) => Finding::good(format!("`{name}` holds the {keys} keys of the point; checksum and SHA-256 fit")),
            Err(fault) => Finding::bad(format!("`{name}`: {}", fault.chain()), TAKE_AGAIN),
        }
    }

    fn look(&self, path: &Path, context: &RunContext) -> Result<u64> {
        let file = File::open(path)
            .map_err(|error| Fault::new(codes::REDIS_TARGET, "open the restored file").because(error))?;
        let mut hashing = Hashing { from: file, hash: Sha256::new() };
        let now = context.clock.now().as_millisecond();
        let found = summarize(&mut hashing, now, &context.cancel)?;
        let sha256 = hex(&hashing.hash.finalize());
        let differ = |what: &str| {
            Err(Fault::new(codes::REDIS_COUNTS, format!("compare the restored file: {what} differ from the manifest")))
        };
        if counts(&found) != counts(&self.rdb) {
            return differ("keys or expiries");
        }
        if (found.functions, &found.types) != (self.rdb.functions, &self.rdb.types) {
            return differ("functions or types");
        }
        if self.sha256.as_ref().is_some_and(|expected| *expected != sha256) {
            return differ("bytes");
        }
        Ok(found.keys())
    }
}

fn counts(summary: &RdbSummary) -> Vec<(u64, u64, u64)> {
    let all = summary.databases.iter();
    all.map(|(number, count)| (*number, count.keys, count.expires)).collect()
}

struct Hashing {
    from: File,
    hash: Sha256,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let given = self.from.read(buffer)?;
        self.hash.update(&buffer[..given]);
        Ok(given)
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Walks the point beside the server and compares a share of the keys.
struct Sample {
    client: Client,
    now: i64,
    dialect: Dialect,
    stride: u64,
    seen: u64,
    selected: Option<u64>,
    /// Keys per database that have not expired now.
    alive: BTreeMap<u64, u64>,
    equal: u64,
    other_encoding: u64,
    differing: u64,
    missing: u64,
    first_bad: Option<String>,
}

impl Sample {
    fn new(client: Client, keys: u64, context: &RunContext) -> Self {
        Self {
            client,
            now: context.clock.now().as_millisecond(),
            dialect: Dialect::Redis,
            stride: keys.div_ceil(SAMPLE_KEYS).max(1),
            seen: 0,
            selected: None,
            alive: BTreeMap::new(),
            equal: 0,
            other_encoding: 0,
            differing: 0,
            missing: 0,
            first_bad: None,
        }
    }

    /// Never plain equality: keys expire while one looks, and other clients may write.
    fn counts(&self, keyspace: &BTreeMap<u64, u64>, restored: &BTreeMap<u64, u64>, overwrite: bool) -> Vec<Finding> {
        let numbers = restored.keys().chain(self.alive.keys());
        let numbers: std::collections::BTreeSet<_> = numbers.collect();
        let mut findings = Vec::new();
        for number in numbers {
            let held = keyspace.get(number).copied().unwrap_or(0);
            let alive = self.alive.get(number).copied().unwrap_or(0);
            let restored = restored.get(number).copied().unwrap_or(0);
            let text = format!("database {number} holds {held} keys, {alive} of the point are due");
            findings.push(if held < alive {
                Finding::bad(text, "look for evictions (`maxmemory`) and clients that delete, then restore again")
            } else if held > restored.max(alive) && !overwrite {
                Finding::warning(text, "other clients write to this server already")
            } else {
                Finding::good(text)
            });
        }
        findings
    }

    fn finding(&self) -> Finding {
        let looked = self.equal + self.other_encoding + self.differing + self.missing;
        let text = format!(
            "{looked} keys compared: {} equal, {} encoded otherwise by this server",
            self.equal, self.other_encoding
        );
        match &self.first_bad {
            None => Finding::good(text),
            Some(first) => Finding::bad(
                format!("{text}, {} differ, {} are missing, first {first}", self.differing, self.missing),
                "look for clients that write to this server, then restore again",
            ),
        }
    }

    fn compare(&mut self, key: &Key<'_>) -> Result<()> {
        let Some(name) = text::decode(key.name) else {
            return Ok(());
        };
        if self.selected != Some(key.database) {
            let number = key.database.to_string();
            self.client.call(&[b"SELECT", number.as_bytes()])?;
            self.selected = Some(key.database);
        }
        let reply = self.client.call(&[b"DUMP", &name])?;
        let shown = || {
            let name = String::from_utf8_lossy(&name).escape_debug().to_string();
            Some(format!("`{name}` in database {}", key.database))
        };
        let Reply::Bulk(dump) = reply else {
            self.missing += 1;
            self.first_bad = self.first_bad.take().or_else(shown);
            return Ok(());
        };
        let Some((body, version)) = payload::open(&dump) else {
            return Ok(());
        };
        let dialect = if version >= 80 { Dialect::Valkey } else { Dialect::Redis };
        let theirs = match body.split_first() {
            Some((kind, value)) if *kind == key.kind => digest::of(*kind, value, dialect),
            _ => None,
        };
        let ours = digest::of(key.kind, key.value, self.dialect);
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if theirs == ours => self.equal += 1,
            (Some(_), Some(_)) => {
                self.differing += 1;
                self.first_bad = self.first_bad.take().or_else(shown);
            }
            _ => self.other_encoding += 1,
        }
        Ok(())
    }
}

impl Visitor for Sample {
    fn record(&mut self, record: Record<'_>) -> Result<()> {
        match record {
            Record::Header { dialect, .. } => self.dialect = dialect,
            Record::Key(key) => {
                if key.expires.is_none_or(|at| at > self.now) {
                    *self.alive.entry(key.database).or_default() += 1;
                }
                let lasting = key.expires.is_none_or(|at| at > self.now + SAMPLE_MARGIN_MILLISECONDS);
                self.seen += 1;
                if lasting && !key.too_large && self.seen.is_multiple_of(self.stride) {
                    return self.compare(&key);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
