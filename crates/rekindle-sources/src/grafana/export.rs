//! A readable export over Grafana's HTTP API, beside the database and not in its place: passwords are
//! never in it, and a restore does not use it.
//!
//! Each object is asked for when its turn comes to be stored. What the server does not give is noted
//! and left out.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use rekindle_core::entry::{Closing, Content, ContentRead, Entry, EntryKind, EntryPath, Meta, ReadFault, check_name};
use rekindle_core::note::{NoteClass, Notebook};
use rekindle_core::{Fault, Result, codes};
use reqwest::Method;
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::http::{ANSWER_MAX, HttpClient, HttpOptions, Names};

/// Objects asked for at a time.
const PAGE: usize = 1000;
/// Pages of one listing: the end of a server that never stops giving.
const PAGES_MAX: usize = 1000;
const TOP: &str = "api";
/// Listings that one answer holds: name of the entry, path of the API.
const LISTS: [(&str, &str); 6] = [
    ("alert-rules", "/api/v1/provisioning/alert-rules"),
    ("contact-points", "/api/v1/provisioning/contact-points"),
    ("datasources", "/api/datasources"),
    ("mute-timings", "/api/v1/provisioning/mute-timings"),
    ("policies", "/api/v1/provisioning/policies"),
    ("templates", "/api/v1/provisioning/templates"),
];

const NAMES: Names = Names {
    server: "Grafana",
    connect: codes::GRAFANA_CONNECT,
    login: codes::GRAFANA_AUTH,
    tls: codes::GRAFANA_TLS,
    answer: codes::GRAFANA_ANSWER,
};

/// Everything there is to ask for.
pub(super) struct Export {
    http: HttpClient,
    version: Option<String>,
    /// By path in the part.
    objects: BTreeMap<EntryPath, Object>,
}

/// One object and how it is asked for.
#[derive(Debug, Clone)]
struct Object {
    organisation: u64,
    target: String,
}

#[derive(Deserialize)]
struct Organisation {
    id: u64,
}

#[derive(Deserialize)]
struct Found {
    uid: String,
}

/// What the server says about its health; needs no login.
#[derive(Deserialize)]
pub(super) struct Health {
    pub(super) version: Option<String>,
}

/// Version of the server that answers, if it tells.
pub(super) async fn health(options: &HttpOptions) -> Result<Health> {
    HttpClient::new(options, &NAMES)?.get_json("/api/health", &[], &[]).await
}

impl Export {
    /// Lists organisations, dashboards and folders. A server that does not answer costs the export, not
    /// the backup: that is noted, and `None` comes back.
    pub(super) async fn plan(options: &HttpOptions, notebook: &Notebook) -> Result<Option<Self>> {
        let http = HttpClient::new(options, &NAMES)?;
        match Self::list(http).await {
            Ok(export) => Ok(Some(export)),
            Err(fault) => {
                let text = format!("no readable export: {}", fault.chain());
                tracing::warn!("{text}");
                notebook.add(NoteClass::Incomplete, TOP, text);
                Ok(None)
            }
        }
    }

    async fn list(http: HttpClient) -> Result<Self> {
        let health: Health = http.get_json("/api/health", &[], &[]).await?;
        let mut export = Self { http, version: health.version, objects: BTreeMap::new() };
        for organisation in export.organisations().await? {
            export.list_organisation(organisation).await?;
        }
        Ok(export)
    }

    pub(super) fn version(&self) -> Option<String> {
        self.version.clone()
    }

    /// All of them for an administrator of the server, else the one of the login.
    async fn organisations(&self) -> Result<Vec<u64>> {
        match self.pages::<Organisation>("/api/orgs", &[], "perpage", 0, None).await {
            Ok(all) => Ok(all.into_iter().map(|one| one.id).collect()),
            Err(fault) if fault.is(codes::GRAFANA_AUTH) => {
                let one: Organisation = self.http.get_json("/api/org", &[], &[]).await?;
                Ok(vec![one.id])
            }
            Err(fault) => Err(fault),
        }
    }

    async fn list_organisation(&mut self, organisation: u64) -> Result<()> {
        let searches = [("dashboards", "dash-db", "/api/dashboards/uid/"), ("folders", "dash-folder", "/api/folders/")];
        for (directory, kind, prefix) in searches {
            let found: Vec<Found> =
                self.pages("/api/search", &[("type", kind)], "limit", 1, Some(organisation)).await?;
            for Found { uid } in found {
                self.add(organisation, &format!("{directory}/{uid}"), format!("{prefix}{uid}"))?;
            }
        }
        for (name, target) in LISTS {
            self.add(organisation, name, target.to_owned())?;
        }
        Ok(())
    }

    fn add(&mut self, organisation: u64, name: &str, target: String) -> Result<()> {
        let path = EntryPath::new(format!("{TOP}/org-{organisation}/{name}.json"));
        let path = path.map_err(|why| self.http.unexpected("/api/search", why.0))?;
        self.objects.insert(path, Object { organisation, target });
        Ok(())
    }

    /// Pages until one is not full.
    async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: &str,
        first: usize,
        organisation: Option<u64>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let most = PAGE.to_string();
        for number in first..first + PAGES_MAX {
            let number = number.to_string();
            let mut query = query.to_vec();
            query.extend([(limit, most.as_str()), ("page", number.as_str())]);
            let organisation = organisation.map(|id| id.to_string());
            let headers: Vec<(&str, &str)> = organisation.iter().map(|id| ("X-Grafana-Org-Id", id.as_str())).collect();
            let page: Vec<T> = self.http.get_json(path, &query, &headers).await?;
            let full = page.len() >= PAGE;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
        Err(self.http.unexpected(path, &format!("it gives more than {PAGES_MAX} pages")))
    }

    /// The entries, with the directories around them.
    pub(super) fn entries(self, notebook: &Notebook, at: jiff::Timestamp) -> Result<Vec<Entry>> {
        let mut entries: BTreeMap<EntryPath, Entry> = BTreeMap::new();
        let asking = Arc::new(Asking { http: self.http, notebook: notebook.clone(), runtime: Handle::current() });
        for (path, object) in self.objects {
            let mut above = path.parent();
            while let Some(directory) = above {
                check_name(directory.name())
                    .map_err(|why| Fault::new(codes::RUN_BUG, "name a directory").because(why))?;
                above = directory.parent();
                let meta = Meta::synthetic(EntryKind::Directory, at);
                entries.entry(directory.clone()).or_insert(Entry { path: directory, meta, content: Content::None });
            }
            let meta = Meta::synthetic(EntryKind::File, at);
            let subject = path.to_string();
            let read = ObjectRead { asking: Arc::clone(&asking), object, subject, meta: meta.clone(), bytes: None };
            entries.insert(path.clone(), Entry { path, meta, content: Content::Stream(Box::new(read)) });
        }
        Ok(entries.into_values().collect())
    }
}

/// What all objects of one export share.
struct Asking {
    http: HttpClient,
    notebook: Notebook,
    /// Entries are read on threads of their own, never on those of the runtime.
    runtime: Handle,
}

struct ObjectRead {
    asking: Arc<Asking>,
    object: Object,
    subject: String,
    meta: Meta,
    bytes: Option<Cursor<Vec<u8>>>,
}

impl ObjectRead {
    fn ask(&self) -> Result<Vec<u8>, String> {
        let organisation = self.object.organisation.to_string();
        let headers = [("X-Grafana-Org-Id", organisation.as_str())];
        let asked = self.asking.http.ask(Method::GET, &self.object.target, &[], &headers, ANSWER_MAX);
        match self.asking.runtime.block_on(asked) {
            Ok(answer) if answer.status == 200 => Ok(answer.body),
            Ok(answer) => Err(format!("status {}: {}", answer.status, answer.shown())),
            Err(fault) => Err(fault.chain()),
        }
    }
}

impl ContentRead for ObjectRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFault> {
        if self.bytes.is_none() {
            match self.ask() {
                Ok(bytes) => self.bytes = Some(Cursor::new(bytes)),
                Err(why) => {
                    self.asking.notebook.add(NoteClass::Incomplete, self.subject.clone(), why);
                    return Err(ReadFault::Skip);
                }
            }
        }
        let given = self.bytes.as_mut().map_or(Ok(0), |bytes| bytes.read(buffer));
        given.map_err(|error| ReadFault::Abort(Fault::new(codes::RUN_BUG, "read an answer").because(error)))
    }

    fn close(self: Box<Self>) -> Result<Closing> {
        Ok(Closing::Keep(Box::new(self.meta)))
    }
}
