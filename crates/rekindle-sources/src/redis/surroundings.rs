//! What belongs to a server besides its keys: configuration, ACLs, modules, state.

use std::collections::BTreeMap;

use rekindle_core::note::{NoteClass, Notes};
use rekindle_core::{Fault, Result, codes};
use serde_json::json;

use super::client::{Client, EXTENDED_RULES, Reply, clip};
use super::details::FileNames;
use super::facts::Facts;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) facts: Facts,
    pub(crate) config: Option<BTreeMap<String, String>>,
    pub(crate) acl: Option<String>,
    pub(crate) modules: BTreeMap<String, i64>,
}

impl Surroundings {
    /// Asks for everything; what is not allowed is noted and left out.
    pub(crate) fn collect(client: &mut Client, notes: &mut Notes) -> Result<Self> {
        let mut found = Self::default();
        if let Some(text) = ask(client, &[b"INFO"], "info.json", notes)?.and_then(|r| r.text()) {
            found.facts = Facts::parse(&text);
        }
        if let Some(reply) = ask(client, &[b"CONFIG", b"GET", b"*"], "config.json", notes)? {
            found.config = Some(pairs(&reply));
        }
        if let Some(Reply::Array(lines)) = ask(client, &[b"ACL", b"LIST"], "acl.txt", notes)? {
            let lines: Vec<String> = lines.iter().filter_map(Reply::text).collect();
            found.acl = Some(lines.join("\n") + "\n");
        }
        if let Some(Reply::Array(modules)) = ask(client, &[b"MODULE", b"LIST"], "modules", notes)? {
            found.modules = modules.iter().filter_map(module).collect();
        }
        Ok(found)
    }

    /// A setting, where CONFIG was allowed.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether the server keeps an append-only file.
    pub(crate) fn appendonly(&self) -> Option<bool> {
        match (self.setting("appendonly"), self.facts.get("aof_enabled")) {
            (Some(setting), _) => Some(setting == "yes"),
            (None, Some(state)) => Some(state == "1"),
            (None, None) => None,
        }
    }

    /// The names of the persistence files, the usual ones where they are not known.
    pub(crate) fn file_names(&self) -> FileNames {
        let usual = FileNames::default();
        let named = |name: &str, usual: String| {
            let setting = self.setting(name).filter(|text| !text.is_empty());
            setting.map_or(usual, ToOwned::to_owned)
        };
        FileNames {
            dbfilename: named("dbfilename", usual.dbfilename),
            appendfilename: named("appendfilename", usual.appendfilename),
            appenddirname: named("appenddirname", usual.appenddirname),
        }
    }

    /// The documents to store, in the order of their names.
    pub(crate) fn documents(&self) -> Result<(Vec<Document>, Vec<Document>)> {
        let mut before = Vec::new();
        if let Some(acl) = &self.acl {
            before.push(("acl.txt", acl.clone().into_bytes()));
        }
        if let Some(config) = &self.config {
            before.push(("config.json", encode(&json!(config))?));
        }
        let mut after = Vec::new();
        if !self.facts.sections.is_empty() {
            let info = json!({
                "version": 1,
                "info": self.facts.sections,
                "modules": self.modules,
            });
            after.push(("info.json", encode(&info)?));
        }
        Ok((before, after))
    }
}

/// Name and content of a small entry.
pub(crate) type Document = (&'static str, Vec<u8>);

fn encode(value: &serde_json::Value) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Fault::new(codes::RUN_BUG, "write a JSON document").because(error))
}

/// An answer, or a note why there is none. Only a broken connection is an error.
fn ask(client: &mut Client, command: &[&[u8]], subject: &str, notes: &mut Notes) -> Result<Option<Reply>> {
    match client.command(command)? {
        Reply::Error(text) if text.starts_with("LOADING") || text.starts_with("MASTERDOWN") => {
            client.good("INFO", Reply::Error(text)).map(Some)
        }
        Reply::Error(text) => {
            let words: Vec<_> = command.iter().map(|w| String::from_utf8_lossy(w)).collect();
            let why = format!(
                "`{}` is not allowed ({}); grant {EXTENDED_RULES} to have it in the backup",
                words.join(" "),
                clip(&text)
            );
            notes.add(NoteClass::Incomplete, subject, why);
            Ok(None)
        }
        reply => Ok(Some(reply)),
    }
}

/// Names and values in turn.
pub(crate) fn pairs(reply: &Reply) -> BTreeMap<String, String> {
    let Reply::Array(items) = reply else {
        return BTreeMap::new();
    };
    let (pairs, _) = items.as_chunks::<2>();
    pairs.iter().filter_map(|[name, value]| Some((name.text()?, value.text()?))).collect()
}

fn module(reply: &Reply) -> Option<(String, i64)> {
    let fields = pairs(reply);
    Some((fields.get("name")?.clone(), fields.get("ver")?.parse().ok()?))
}
