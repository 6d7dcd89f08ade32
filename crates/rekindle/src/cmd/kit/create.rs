//! `kit create`: what stands in the kit, and the files it is.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use rand::TryRngCore;
use rand::rngs::OsRng;
use rekindle_core::shamir::{Share, split};
use rekindle_core::{Fault, Result, codes};
use rekindle_repo::{Repo, admin, points};
use rekindle_store::StoreUrl;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::page::{BEGIN, Block, END, Page, Section};
use crate::output::Answer;
use crate::session::{Faults, Session};
use crate::{human, wire};

const PROGRAM_READ_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Directory to make for the kit [default: ./recovery-kit-DATE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Share the key among so many people instead of writing it into the kit
    #[arg(long, value_name = "N", requires = "threshold", value_parser = clap::value_parser!(u8).range(2..))]
    shares: Option<u8>,
    /// So many of the shares give the key back
    #[arg(long, value_name = "K", requires = "shares", value_parser = clap::value_parser!(u8).range(2..))]
    threshold: Option<u8>,
}

/// Everything that the pages say.
struct Facts {
    url: StoreUrl,
    repository: String,
    keys: Vec<String>,
    stack: String,
    components: String,
    created: String,
    program_sha256: String,
    /// How the storage is logged in to, by reference.
    logins: Vec<String>,
}

impl Create {
    pub(super) fn run(&self, session: &Session) -> Result<Answer, Faults> {
        let place = wire::place(session)?;
        let repo = wire::open(session, &place)?;
        let shares = self.split(&place.password)?;
        let facts = facts(session, &repo, place.options.url.clone())?;
        let directory = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("recovery-kit-{}", session.now().strftime("%Y%m%dT%H%M%SZ"))));
        make(&directory)?;
        let mut files = Vec::new();
        let mut page = |name: &str, page: &Page| -> Result<()> {
            for (ending, content) in [("txt", page.to_text()), ("html", page.to_html())] {
                let file = directory.join(format!("{name}.{ending}"));
                write_private(&file, content.as_bytes())?;
                files.push(file);
            }
            Ok(())
        };
        match &shares {
            None => page("recovery-kit", &facts.kit(&whole_key(place.password.expose())))?,
            Some(shares) => {
                page("recovery-kit", &facts.kit(&shared_key(shares)))?;
                for share in shares {
                    page(&format!("share-{}-of-{}", share.number, shares.len()), &facts.share(share, shares.len()))?;
                }
            }
        }
        let away = if shares.is_some() { "hand out the shares" } else { "take it away from this host" };
        let text = format!(
            "The recovery kit is in {}. Print it, {away}, remove these files, then run: rekindle kit confirm\n",
            directory.display()
        );
        Ok(Answer::words(
            json!({"directory": directory, "files": files, "shares": self.shares, "threshold": self.threshold}),
            text,
        ))
    }

    fn split(&self, password: &rekindle_core::Secret<String>) -> Result<Option<Vec<Share>>> {
        let (Some(count), Some(threshold)) = (self.shares, self.threshold) else { return Ok(None) };
        let mut random = |buffer: &mut [u8]| OsRng.try_fill_bytes(buffer);
        let made = split(password, count, threshold, &mut random)
            .map_err(|error| Fault::new(codes::RUN_BUG, "get random bytes").because(error))?;
        made.map(Some).map_err(|bad| {
            Fault::new(codes::CLI_USAGE, "share the key").because(bad).hint("for example --shares 5 --threshold 3")
        })
    }
}

fn whole_key(password: &str) -> Vec<Block> {
    vec![
        Block::Text("Who reads this line can read every backup. Keep it where you keep deeds.".to_owned()),
        Block::Secret(password.to_owned()),
        Block::Step(
            "On the new host, type it into a file that only you can read, as one line:".to_owned(),
            vec!["(umask 077; cat > repository-key)    # paste or type the key, Enter, Ctrl-D".to_owned()],
        ),
    ]
}

fn shared_key(shares: &[Share]) -> Vec<Block> {
    let needed = shares.first().map_or(0, |share| share.threshold);
    vec![
        Block::Text(format!(
            "The key is not in this kit. It is shared among {} people; any {needed} of them together have it.",
            shares.len()
        )),
        Block::Blank("Holders of the shares".to_owned()),
        Block::Step(
            format!("Type or copy {needed} shares into one file each on the new host, then join them:"),
            vec!["rekindle kit combine share-a share-b … --out repository-key".to_owned()],
        ),
    ]
}

impl Facts {
    fn kit(&self, key: &[Block]) -> Page {
        let mut sections = vec![self.what(), Section { title: "The key", blocks: key.to_vec() }];
        sections.extend([self.recover(), self.without(), after()]);
        Page { title: format!("Recovery kit of `{}`", self.stack), sections }
    }

    fn what(&self) -> Section {
        let mut blocks = vec![
            Block::Text(
                "With this kit and nothing else the stack comes back on an empty host: from the repository below, \
                 with the key, by the program below."
                    .to_owned(),
            ),
            Block::Value("Made", self.created.clone()),
            Block::Value("Stack", self.stack.clone()),
            Block::Value("Holds", self.components.clone()),
            Block::Value("Repository", self.url.to_string()),
            Block::Value("Its id", self.repository.clone()),
            Block::Value("Its keys", self.keys.join(", ")),
            Block::Value("Program", format!("rekindle {}", env!("CARGO_PKG_VERSION"))),
            Block::Value("SHA-256", self.program_sha256.clone()),
        ];
        if matches!(self.url, StoreUrl::Local(_)) {
            blocks.push(Block::Text(
                "ATTENTION: this repository is a directory of the host that it protects, or a disk mounted there. When \
                 that disk is lost, this kit helps nobody. Keep a copy of the repository elsewhere."
                    .to_owned(),
            ));
            blocks.push(Block::Blank("Where the disk or its copy is".to_owned()));
        } else {
            blocks.push(Block::Text(
                "The storage has a login of its own, which is not in this kit. Write down who can give a new one."
                    .to_owned(),
            ));
            blocks.extend(self.logins.iter().map(|login| Block::Text(format!("Used until now: {login}"))));
            blocks.push(Block::Blank("Account, and who owns it".to_owned()));
        }
        Section { title: "What this is", blocks }
    }

    fn recover(&self) -> Section {
        let url = self.url.to_string();
        let blocks = vec![
            Block::Step(
                "Get the program onto the new host and compare its checksum with the one above.".to_owned(),
                vec!["sha256sum rekindle".to_owned(), "chmod 755 rekindle".to_owned()],
            ),
            Block::Step(
                "See what there is. Storage credentials are taken from the usual environment variables.".to_owned(),
                vec![format!("./rekindle list --repo '{url}' --password-file repository-key")],
            ),
            Block::Step(
                "Let it plan. It reads the configuration out of the repository and names every program, server and \
                 secret that this host lacks, with the command to install it. Nothing is changed yet."
                    .to_owned(),
                vec![format!("./rekindle recover --from '{url}' --password-file repository-key --dry-run")],
            ),
            Block::Step(
                "Recover. For a moment in the past add --at '2026-01-31 14:30:00'. When it is interrupted, the second \
                 command goes on."
                    .to_owned(),
                vec![
                    format!("./rekindle recover --from '{url}' --password-file repository-key"),
                    format!("./rekindle recover --resume --from '{url}' --password-file repository-key"),
                ],
            ),
        ];
        Section { title: "Step by step", blocks }
    }

    fn without(&self) -> Section {
        let restic = restic_url(&self.url);
        let run = |rest: &str| format!("restic -r '{restic}' --password-file repository-key {rest}");
        let blocks = vec![
            Block::Text(
                "The repository is in the format of restic (https://restic.net, version 0.14 or newer). Without \
                 rekindle, restic gives every file back; each component is a directory at the top."
                    .to_owned(),
            ),
            Block::Step(
                "List the points and take the files of one:".to_owned(),
                vec![run("snapshots"), run("restore latest --target ./back")],
            ),
            Block::Step(
                "PostgreSQL: `globals.sql` holds the roles, each `.dump` is for pg_restore.".to_owned(),
                vec!["pg_restore --create --dbname postgres back/COMPONENT/DATABASE.dump".to_owned()],
            ),
            Block::Step(
                "Redis: with the server stopped, put the `.rdb` file into its data directory as dump.rdb. With \
                 `appendonly yes`, start it once with `--appendonly no` first."
                    .to_owned(),
                Vec::new(),
            ),
            Block::Step(
                "Files, Prometheus blocks and Grafana's database are files: copy them to their places while the \
                 server is stopped. /rekindle/configuration.toml says where they were."
                    .to_owned(),
                Vec::new(),
            ),
        ];
        Section { title: "Without rekindle", blocks }
    }

    fn share(&self, share: &Share, count: usize) -> Page {
        let blocks = vec![
            Block::Text(format!(
                "This is share {} of {count} of the key to the backups of `{}`. Any {} of them together give the key. \
                 Alone it tells nothing. Keep it safe, and apart from the others.",
                share.number, self.stack, share.threshold
            )),
            Block::Value("Made", self.created.clone()),
            Block::Value("Repository", self.url.to_string()),
            Block::Blank("Holder".to_owned()),
            Block::Secret(format!("{BEGIN}\n{}\n{END}", share.to_text())),
            Block::Text(
                "There are no letters I, L, O and U in it; small letters, blanks and dashes do not matter. A mistyped \
                 share is noticed."
                    .to_owned(),
            ),
            Block::Step(
                "To use it, type the lines between the marks into a file and join it with others:".to_owned(),
                vec!["rekindle kit combine share-a share-b … --out repository-key".to_owned()],
            ),
        ];
        let title = format!("Share {} of {count}: recovery of `{}`", share.number, self.stack);
        Page { title, sections: vec![Section { title: "Your share", blocks }] }
    }
}

fn after() -> Section {
    let blocks = vec![
        Block::Step("Check what came back, in the application itself.".to_owned(), vec!["rekindle status".to_owned()]),
        Block::Step(
            "If a kit or a share may have been seen by others: replace the key, and make a new kit.".to_owned(),
            vec!["rekindle key passwd --new-password-file FILE".to_owned(), "rekindle kit create".to_owned()],
        ),
    ];
    Section { title: "Afterwards", blocks }
}

/// The same place as restic writes it.
fn restic_url(url: &StoreUrl) -> String {
    let below = |prefix: &str| if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    match url {
        StoreUrl::Memory => "memory:".to_owned(),
        StoreUrl::Local(path) => path.display().to_string(),
        StoreUrl::S3 { bucket, prefix, endpoint, region, .. } => {
            let server = endpoint.clone().unwrap_or_else(|| match region {
                Some(region) => format!("https://s3.{region}.amazonaws.com"),
                None => "https://s3.amazonaws.com".to_owned(),
            });
            format!("s3:{}/{bucket}{}", server.trim_end_matches('/'), below(prefix))
        }
        StoreUrl::Gcs { bucket, prefix, .. } => format!("gs:{bucket}:/{prefix}"),
        StoreUrl::Azure { container, prefix, .. } => format!("azure:{container}:/{prefix}"),
    }
}

fn facts(session: &Session, repo: &Repo, url: StoreUrl) -> Result<Facts, Faults> {
    let view = points::view(repo)?;
    let newest = view.points.last().map(rekindle_core::point::RecoveryPoint::manifest);
    let config = wire::config(session).ok().filter(|_| session.global.repo.is_none());
    let stack = config.as_ref().map(|config| config.stack.name.clone());
    let components = newest.map(|manifest| {
        let names = manifest.components.iter().map(|one| format!("{} ({})", one.id, one.kind));
        names.collect::<Vec<_>>().join(", ")
    });
    let logins = config.iter().flat_map(|config| {
        let access = &config.repository.access;
        let secrets = [&access.secret_access_key, &access.session_token, &access.account_key, &access.sas_token];
        let named = secrets.into_iter().flatten().map(ToString::to_string);
        named.chain(access.service_account.iter().map(|path| path.display().to_string())).collect::<Vec<_>>()
    });
    Ok(Facts {
        repository: repo.config().id.clone(),
        keys: admin::key_ids(repo)?.iter().map(|id| id.chars().take(8).collect()).collect(),
        stack: stack.or_else(|| newest.map(|manifest| manifest.stack.clone())).unwrap_or_else(|| "stack".to_owned()),
        components: components.unwrap_or_else(|| "no point yet".to_owned()),
        created: format!("{} on {}", human::time(session.now()), wire::host_name()),
        program_sha256: program_sha256()?,
        logins: logins.collect(),
        url,
    })
}

/// SHA-256 of this program's file.
fn program_sha256() -> Result<String> {
    let failed = |error: std::io::Error| {
        Fault::new(codes::KIT_FILE, "read this program's own file")
            .because(error)
            .hint("run rekindle from a file that may be read")
    };
    let mut file = std::fs::File::open(std::env::current_exe().map_err(failed)?).map_err(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; PROGRAM_READ_BYTES]);
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(rekindle_core::proof::hex(&hash.finalize()))
}

fn make(directory: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Fault::new(codes::KIT_FILE, format!("make the directory {}", directory.display()))
            .because(error)
            .hint("choose another directory with --out DIR")
    };
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => return made.map_err(failed),
    }
    if std::fs::read_dir(directory).map_err(failed)?.next().is_some() {
        return Err(Fault::new(codes::KIT_EXISTS, format!("write a kit into {}", directory.display()))
            .because("it is not empty")
            .hint("choose another directory with --out DIR"));
    }
    Ok(())
}

/// Writes a new file that only its owner can read, durably.
pub(super) fn write_private(file: &Path, content: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::AlreadyExists { codes::KIT_EXISTS } else { codes::KIT_FILE };
        Fault::new(code, format!("write {}", file.display())).because(error).hint("choose another name with --out")
    };
    let mut open = std::fs::OpenOptions::new();
    let mut opened = open.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    opened.write_all(content).and_then(|()| opened.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restic_reads_the_same_place() {
        let url = |text: &str| restic_url(&text.parse().unwrap());
        assert_eq!(url("file:///backups/repo"), "/backups/repo");
        assert_eq!(url("s3://b/p/q?endpoint=https://s3.example.com"), "s3:https://s3.example.com/b/p/q");
        assert_eq!(url("s3://b?region=eu-central-1"), "s3:https://s3.eu-central-1.amazonaws.com/b");
        assert_eq!(url("gs://b/p"), "gs:b:/p");
        assert_eq!(url("az://c/p"), "azure:c:/p");
    }
}
