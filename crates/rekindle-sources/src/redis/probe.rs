//! Looking at a server before a backup, without changing anything.

use rekindle_core::port::{Finding, RunContext};
use rekindle_core::{Fault, Result};

use super::client::{Client, EXTENDED_RULES, Reply, clip};
use super::facts::Facts;
use super::options::{Endpoint, RedisOptions, Transport};

/// Everything worth knowing about the server. Blocking.
pub(crate) fn probe(options: &RedisOptions, context: &RunContext) -> Result<Vec<Finding>> {
    let endpoint = options.endpoint(None)?;
    let mut findings = Vec::new();
    let mut client = match Client::connect(&endpoint, options, &context.cancel) {
        Ok(client) => client,
        Err(fault) => {
            context.cancel.check()?;
            findings.push(bad(&fault));
            return Ok(findings);
        }
    };
    let facts = match Facts::ask(&mut client) {
        Ok(facts) => facts,
        Err(fault) => {
            findings.push(bad(&fault));
            return Ok(findings);
        }
    };
    let (server, version) = facts.server();
    findings.push(match facts.version() {
        Some((..6, _) | (6, ..2)) => Finding::warning(
            format!("{server} {version} at {endpoint} is older than 6.2"),
            "update the server: rekindle is tested from 6.2 on",
        ),
        _ => Finding::good(format!("{server} {version} answers at {endpoint}")),
    });
    state(&facts, &mut findings);
    memory(&facts, &endpoint, &mut findings);
    permissions(&mut client, &mut findings)?;
    Ok(findings)
}

fn bad(fault: &Fault) -> Finding {
    let remedy = fault.hint_text().unwrap_or("look into the server's log");
    Finding::bad(fault.chain(), remedy)
}

fn state(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut warn = |text: &str, remedy: &str| findings.push(Finding::warning(text, remedy));
    if facts.says("loading", "1") {
        warn("the server still loads its data", "wait until it is done");
    }
    if facts.says("rdb_last_bgsave_status", "err") {
        warn(
            "the last background save failed: the server's own dump file is old",
            "free disk space in its data directory and run `BGSAVE`",
        );
    }
    if facts.says("aof_enabled", "1") && facts.says("aof_last_write_status", "err") {
        warn("the last write to the append-only file failed", "free disk space in the server's data directory");
    }
    if facts.says("cluster_enabled", "1") {
        warn(
            "the server is a node of a cluster: only the slots it serves are captured",
            "configure one component per primary",
        );
    }
    if facts.says("master_link_status", "down") {
        warn(
            "the replica has lost its primary and gives no synchronisation",
            "back up the primary, or repair the replication",
        );
    } else if facts.says("role", "slave") {
        warn("the server is a replica: its data may be behind its primary", "back up the primary if that matters");
    }
}

fn memory(facts: &Facts, endpoint: &Endpoint, findings: &mut Vec<Finding>) {
    let number = |name: &str| facts.get(name).and_then(|text| text.parse::<u64>().ok());
    if let (Some(used), Some(total)) = (number("used_memory_rss"), number("total_system_memory"))
        && used > total / 2
    {
        findings.push(Finding::warning(
            format!("the server uses {used} of {total} bytes of memory; its fork may need as much again"),
            "take backups when few keys change, or add memory",
        ));
    }
    let local = match &endpoint.transport {
        Transport::Unix(_) => true,
        Transport::Tcp { host, .. } => matches!(host.as_str(), "127.0.0.1" | "::1" | "localhost"),
    };
    let overcommit = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    if local && overcommit.is_ok_and(|text| text.trim() != "1") {
        findings.push(Finding::warning(
            "`vm.overcommit_memory` is not 1: the fork of a backup can fail when memory is short",
            "run `sysctl vm.overcommit_memory=1` and put it into /etc/sysctl.conf",
        ));
    }
}

fn permissions(client: &mut Client, findings: &mut Vec<Finding>) -> Result<()> {
    if let Reply::Error(text) = client.command(&[b"REPLCONF", b"capa", b"eof"])? {
        let why = format!("REPLCONF is refused: {}", clip(&text));
        findings.push(Finding::bad(why, client.acl_hint()));
        return Ok(());
    }
    // From 7.0 on the server tells whether a command would be allowed, if one may ask.
    if let Some(user) = client.command(&[b"ACL", b"WHOAMI"])?.text() {
        let reply = client.command(&[b"ACL", b"DRYRUN", user.as_bytes(), b"SYNC"])?;
        if let Reply::Bulk(text) = reply {
            let why = format!("SYNC is refused: {}", clip(&String::from_utf8_lossy(&text)));
            findings.push(Finding::bad(why, client.acl_hint()));
            return Ok(());
        }
    }
    findings.push(match client.command(&[b"CONFIG", b"GET", b"dir"])? {
        Reply::Error(text) => Finding::warning(
            format!("the configuration will not be captured: {}", clip(&text)),
            format!("grant {EXTENDED_RULES} if it should be"),
        ),
        _ => Finding::good("synchronisation and configuration are readable"),
    });
    Ok(())
}
