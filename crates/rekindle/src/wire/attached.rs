//! What every backup stores beside the manifest, and how its captures are judged: together what a
//! host needs that has lost everything but the repository.

use rekindle_config::{Config, references};
use rekindle_core::mark::Marks;
use rekindle_core::point::{Attachment, RecoveryPoint};
use rekindle_core::{Fault, Result, codes};
use rekindle_engine::Tripwire;
use rekindle_repo::{Repo, marks, points};
use serde::{Deserialize, Serialize};

use crate::session::{Faults, Session};

/// Names in `/rekindle` of a point.
const CONFIGURATION: &str = "configuration.toml";
const SURROUNDINGS: &str = "recovery.json";
/// The version of [`Surroundings`] that is written, and the newest that is read.
const VERSION: u32 = 1;

/// What the configuration alone does not say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    pub(crate) version: u32,
    /// Where the file was: relative paths in it start from there.
    pub(crate) file: std::path::PathBuf,
    /// Where the point was written to; holds no credentials.
    pub(crate) repository: String,
    /// Secrets by their keys, each with its reference and never its value.
    pub(crate) secrets: Vec<(String, String)>,
}

/// A configuration that came out of a point.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) text: String,
    pub(crate) surroundings: Surroundings,
}

/// The files to store with a point of this configuration.
pub(crate) fn attachments(session: &Session, config: &Config) -> Result<Vec<Attachment>, Faults> {
    let text = rekindle_config::read_text(&config.file)?;
    let surroundings = Surroundings {
        version: VERSION,
        file: std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone()),
        repository: session.global.repo.clone().unwrap_or_else(|| config.repository.url.clone()),
        secrets: references(&text).into_iter().map(|one| (one.key, one.text)).collect(),
    };
    let json = serde_json::to_vec_pretty(&surroundings)
        .map_err(|error| Fault::new(codes::RUN_BUG, "write the surroundings of the configuration").because(error))?;
    Ok(vec![
        Attachment { name: CONFIGURATION, content: text.into_bytes() },
        Attachment { name: SURROUNDINGS, content: json },
    ])
}

/// The configuration in a point; `None` for points of programs that did not store it.
pub(crate) fn stored(repo: &Repo, point: &RecoveryPoint) -> Result<Option<Stored>> {
    let what = || format!("read the configuration in point {}", point.id().short());
    let unusable = |why: String| Fault::new(codes::REPO_MANIFEST, what()).because(why);
    let text = points::attachment(repo, point.id(), CONFIGURATION)?;
    let surroundings = points::attachment(repo, point.id(), SURROUNDINGS)?;
    let (Some(text), Some(surroundings)) = (text, surroundings) else { return Ok(None) };
    let text = String::from_utf8(text).map_err(|error| unusable(error.to_string()))?;
    let surroundings: Surroundings =
        serde_json::from_slice(&surroundings).map_err(|error| unusable(error.to_string()))?;
    if surroundings.version > VERSION {
        return Err(unusable("a newer rekindle wrote it".to_owned()).hint("use a newer rekindle"));
    }
    Ok(Some(Stored { text, surroundings }))
}

/// How captures of this configuration are compared with earlier ones.
pub(crate) fn tripwire(config: &Config, marks: Marks) -> Tripwire {
    Tripwire {
        usual: config.tripwire,
        components: config.components.iter().map(|one| (one.id.clone(), one.tripwire)).collect(),
        marks,
    }
}

/// The marks of people, for showing. Without them every odd point is suspicious and none is held:
/// an error is told and hides nothing.
pub(crate) fn marks_shown(repo: &Repo) -> (Marks, Option<Fault>) {
    match marks::read(repo) {
        Ok(marks) => (marks, None),
        Err(fault) => (Marks::default(), Some(fault.during("read what people said about the points"))),
    }
}
