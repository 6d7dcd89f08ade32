//! What the tests of this binary share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rekindle_core::port::{Clock, Quiet, RunContext};
use rekindle_core::{Cancel, RunId, Secret};
use rekindle_repo::admin::{self, KeyLabel};
use rekindle_repo::{Repo, RepoOptions};
use rekindle_store::{Store, StoreOptions};
use tokio::runtime::Runtime;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// The clock of the machine.
pub(crate) struct Now;

impl Clock for Now {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A place on disk, a runtime and a scratch directory.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: Runtime,
}

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

impl Place {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { directory: tempfile::tempdir().unwrap(), runtime }
    }

    pub(crate) fn repo_path(&self) -> PathBuf {
        self.directory.path().join("repo")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        let mut options = StoreOptions::new(&format!("file://{}", self.repo_path().display())).unwrap();
        options.create_root = true;
        rekindle_store::open(&options).unwrap()
    }

    pub(crate) fn init(&self) -> Repo {
        let label = KeyLabel { host: "here".to_owned(), user: "me".to_owned(), created: Now.now() };
        admin::init(self.store(), self.runtime.handle().clone(), &secret(PASSWORD), &label, RepoOptions::default())
            .unwrap()
    }

    pub(crate) fn open(&self) -> Repo {
        self.open_with(PASSWORD).unwrap()
    }

    pub(crate) fn open_with(&self, password: &str) -> rekindle_core::Result<Repo> {
        Repo::open(self.store(), self.runtime.handle().clone(), &secret(password), RepoOptions::default())
    }

    pub(crate) fn context(&self) -> RunContext {
        RunContext {
            run: RunId::new(Now.now(), 7),
            cancel: Cancel::new(),
            monitor: Arc::new(Quiet),
            clock: Arc::new(Now),
            scratch: self.fresh("scratch"),
        }
    }

    /// Runs stock restic on the repository; its failure fails the test.
    pub(crate) fn restic(&self, arguments: &[&str]) -> String {
        let output = self.try_restic(PASSWORD, arguments);
        assert!(output.status.success(), "restic {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn try_restic(&self, password: &str, arguments: &[&str]) -> Output {
        Command::new("restic")
            .env("RESTIC_PASSWORD", password)
            .env("RESTIC_CACHE_DIR", self.path("restic-cache"))
            .arg("--repo")
            .arg(self.repo_path())
            .args(arguments)
            .output()
            .expect("restic is installed (apt-get install restic)")
    }
}

/// Every file below a directory, sorted.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
