//! `version`

use clap::Args;
use serde_json::json;

use crate::output::Answer;

/// Print the version and what it can read and write
#[derive(Debug, Args)]
pub(crate) struct Version;

impl Version {
    #[expect(clippy::unused_self, reason = "every command is run by a method")]
    pub(crate) fn run(&self) -> Answer {
        let version = env!("CARGO_PKG_VERSION");
        let manifest = rekindle_core::manifest::MANIFEST_VERSION;
        let result = json!({
            "version": version,
            "repository_format": "restic 2",
            "manifest_version": manifest,
            "kinds": ["postgres", "redis", "files"],
        });
        let text = format!(
            "rekindle {version}\nrepository format: restic 2\nmanifest version: {manifest}\nkinds: postgres (logical), redis, files\n"
        );
        Answer::data(result, text)
    }
}
