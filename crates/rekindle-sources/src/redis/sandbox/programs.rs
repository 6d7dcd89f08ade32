//! Finds a server that can read a captured RDB file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekindle_core::{Cancel, Fault, Result, codes};

use crate::child::{ChildSpec, Ended, Stop, output};
use crate::redis::details::RedisDetails;
use crate::sandbox::engine::environment;

const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
const SYSTEM_PATHS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];
const VERSION_MAX: Duration = Duration::from_secs(10);
const VERSION_BYTES_MAX: usize = 4096;

/// A server's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// `redis` or `valkey`.
    pub(super) server: &'static str,
    pub(super) version: String,
}

impl Program {
    fn number(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// The newest RDB version it reads (`RDB_VERSION` of its sources); newer servers than are known
    /// here are tried.
    fn reads(&self, version: u16) -> bool {
        let number = self.number();
        let newest = match self.server {
            "redis" if number < (7, 0) => 9,
            "redis" if number < (7, 2) => 10,
            "redis" if number < (7, 4) => 11,
            "redis" if number < (8, 0) => 12,
            // Valkey 9 has a numbering of its own from 80 on, and reads what Redis 7.2 wrote.
            "redis" => 79,
            _ if number < (9, 0) || (12..80).contains(&version) => 11,
            _ => u16::MAX,
        };
        version <= newest
    }
}

/// The program that fits best: the same server in the same or a later version, else the other one.
/// Blocking.
pub(super) fn find(dirs: &[PathBuf], details: &RedisDetails) -> Result<Program> {
    let found = candidates(dirs);
    if let Some(program) = choose(&found, details) {
        return Ok(program.clone());
    }
    let seen: Vec<String> = found.iter().map(|program| format!("{} {}", program.server, program.version)).collect();
    let why = if seen.is_empty() {
        "there is none on this host".to_owned()
    } else {
        format!("found only {}", seen.join(", "))
    };
    let what = format!("find a server that reads RDB version {}", details.rdb.version);
    Err(Fault::new(codes::DRILL_NO_ENGINE, what).because(why).hint(format!(
        "install {} {} or newer, or name its folder in `programs` of [drill]",
        details.server, details.server_version
    )))
}

fn choose<'a>(found: &'a [Program], details: &RedisDetails) -> Option<&'a Program> {
    let captured = Program { path: PathBuf::new(), server: "", version: details.server_version.clone() }.number();
    let able = || found.iter().filter(|program| program.reads(details.rdb.version));
    let same = able().filter(|program| program.server == details.server && program.number() >= captured);
    same.min_by_key(|program| program.number()).or_else(|| able().find(|program| program.server != details.server))
}

fn candidates(dirs: &[PathBuf]) -> Vec<Program> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = dirs.iter().cloned().chain(std::env::split_paths(&path)).chain(SYSTEM_PATHS.map(PathBuf::from));
    let mut found: Vec<Program> = Vec::new();
    for folder in folders {
        for name in NAMES {
            let file = folder.join(name);
            if file.is_file() && !found.iter().any(|known| known.path == file) {
                found.extend(ask(&file));
            }
        }
    }
    found
}

fn ask(file: &Path) -> Option<Program> {
    let spec = ChildSpec {
        program: file.to_owned(),
        args: vec!["--version".into()],
        env: environment(),
        idle_max: VERSION_MAX,
        what: "ask for the version".to_owned(),
        code: codes::DRILL_NO_ENGINE,
        secrets: Vec::new(),
        inside: None,
    };
    let judge =
        Box::new(|ended: &Ended| Fault::new(codes::DRILL_NO_ENGINE, "ask for the version").because(ended.describe()));
    let said = output(spec, Stop::new(Cancel::new()), VERSION_BYTES_MAX, judge).ok()?;
    parse(file, &String::from_utf8_lossy(&said))
}

/// `Redis server v=7.0.15 sha=…`, `Valkey server v=8.0.1 …`.
fn parse(file: &Path, said: &str) -> Option<Program> {
    let version = said.split(" v=").nth(1)?.split_whitespace().next()?.to_owned();
    // Valkey installs itself under the old name too: what it says counts, not what it is called.
    let named = file.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("valkey"));
    let server = if named || said.to_ascii_lowercase().starts_with("valkey") { "valkey" } else { "redis" };
    Some(Program { path: file.to_owned(), server, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(server: &'static str, version: &str) -> Program {
        Program { path: format!("/{server}/{version}").into(), server, version: version.to_owned() }
    }

    fn captured(server: &str, version: &str, rdb: u16) -> RedisDetails {
        serde_json::from_value(serde_json::json!({
            "version": 1, "server": server, "server_version": version, "mode": "standalone", "role": "master",
            "replication_id": null, "replication_offset": null, "appendonly": null,
            "files": {"dbfilename": "d", "appendfilename": "a", "appenddirname": "b"}, "modules": {},
            "last_bgsave": null, "last_aof_write": null, "forked_at": "2026-01-01T00:00:00Z", "framing": "length",
            "rdb": {"magic": "REDIS", "version": rdb, "bytes": 0, "checksum": null, "databases": {}, "types": {},
                    "functions": 0, "modules": [], "aux": {}},
        }))
        .unwrap()
    }

    #[test]
    fn a_server_is_chosen_that_reads_the_file() {
        let found = [program("redis", "7.0.15"), program("redis", "7.4.1"), program("valkey", "8.0.1")];
        let best = |server, version, rdb| {
            choose(&found, &captured(server, version, rdb)).map(|one| format!("{} {}", one.server, one.version))
        };
        assert_eq!(best("redis", "7.0.11", 10).as_deref(), Some("redis 7.0.15"));
        assert_eq!(best("redis", "7.2.0", 11).as_deref(), Some("redis 7.4.1"));
        assert_eq!(best("valkey", "8.0.0", 11).as_deref(), Some("valkey 8.0.1"));
        assert_eq!(best("valkey", "9.0.0", 80), None);
        assert_eq!(best("redis", "8.0.0", 12), None, "no later Redis, and Valkey 8 does not read it");
    }

    #[test]
    fn what_a_program_says_counts() {
        let said = |name: &str, text: &str| parse(Path::new(name), text).map(|one| (one.server, one.version));
        assert_eq!(said("/x/redis-server", "Redis server v=7.0.15 sha=0"), Some(("redis", "7.0.15".to_owned())));
        assert_eq!(said("/x/redis-server", "Valkey server v=8.0.1 sha=0"), Some(("valkey", "8.0.1".to_owned())));
        assert_eq!(said("/x/redis-server", "no"), None);
    }
}
