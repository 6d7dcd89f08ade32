//! `BASE_BACKUP`: the whole cluster as tar archives, in the two forms that servers send it.
//!
//! 13 and 14 send one copy per archive and one for the manifest; 15 and newer send a single copy
//! whose messages begin with a letter that says what they are.

use std::fmt::Write as _;

use rekindle_core::Result;
use rekindle_core::wal::{Lsn, Timeline};

use super::Replication;
use super::answer::{Body, DATA_CORRUPTED, Rows, ServerError, columns, parsed, row, text, unexpected};
use super::wire::{garbled, tag};

/// How the server begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// At once, with as much writing as it takes.
    Fast,
    /// As gently as `checkpoint_completion_target` says; may take minutes.
    Spread,
}

/// What is asked for. The manifest always is, with CRC-32C of every file. Tablespaces are links
/// (no `tablespace_map`): with that file, a copy that starts would take over the live ones.
#[derive(Debug, Clone)]
pub struct BaseCommand {
    /// Written into `backup_label`.
    pub label: String,
    pub checkpoint: Checkpoint,
    /// Whether the WAL that the backup needs is in it.
    pub wal: bool,
    /// Only what changed since the backup whose manifest was uploaded (17 and newer).
    pub incremental: bool,
    /// Greatest rate, in KiB per second.
    pub max_rate: Option<u32>,
}

impl BaseCommand {
    fn text(&self, major: u32) -> String {
        let label = self.label.replace('\'', "''");
        let mut text = String::from("BASE_BACKUP ");
        // Writing into a `String` cannot fail.
        if major < 15 {
            let _ = write!(text, "LABEL '{label}' ");
            if self.checkpoint == Checkpoint::Fast {
                text.push_str("FAST ");
            }
            if self.wal {
                // The server need not wait until its archiver has everything: it is in the backup.
                text.push_str("WAL NOWAIT ");
            }
            if let Some(rate) = self.max_rate {
                let _ = write!(text, "MAX_RATE {rate} ");
            }
            text.push_str("PROGRESS MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'");
            return text;
        }
        let checkpoint = if self.checkpoint == Checkpoint::Fast { "fast" } else { "spread" };
        let _ = write!(text, "(LABEL '{label}', PROGRESS, CHECKPOINT '{checkpoint}', WAL {}, ", self.wal);
        if let Some(rate) = self.max_rate {
            let _ = write!(text, "MAX_RATE {rate}, ");
        }
        if self.incremental {
            text.push_str("INCREMENTAL, ");
        }
        if self.wal {
            text.push_str("WAIT false, ");
        }
        text.push_str("MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')");
        text
    }
}

/// A directory that the backup has an archive of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceOfServer {
    /// Its number; `None` for the data directory itself.
    pub oid: Option<u32>,
    /// Where it is on the server; empty for the data directory.
    pub path: String,
    /// As far as the server has counted.
    pub size_bytes: Option<u64>,
}

/// What the server says before the archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseStart {
    pub start: Lsn,
    pub timeline: Timeline,
    /// In the order of the archives.
    pub tablespaces: Vec<TablespaceOfServer>,
}

/// A piece of the backup.
#[derive(Debug, PartialEq, Eq)]
pub enum BaseItem<'a> {
    /// The archive of this tablespace (index into [`BaseStart::tablespaces`]) begins.
    Archive(usize),
    /// `backup_manifest` begins.
    Manifest,
    /// Bytes of what began last.
    Data(&'a [u8]),
}

/// What the server says after everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseEnd {
    pub stop: Lsn,
    pub timeline: Timeline,
    /// Pages with wrong checksums were found; the backup is there all the same.
    pub damage: Option<ServerError>,
    /// What the server warned of meanwhile; with damage, which files and pages.
    pub warnings: Vec<ServerError>,
}

/// How archives are told apart.
enum Shape {
    /// One copy each; how many have begun, and whether one is open.
    Copies { begun: usize, open: bool },
    /// One copy for all; whether it is open.
    Marked { open: bool, named: bool },
}

/// A base backup that is being sent. Dropping it closes the connection, and the server gives up.
pub struct BaseStream {
    session: Replication,
    start: BaseStart,
    shape: Shape,
    manifest_seen: bool,
    end: Option<(Lsn, Timeline)>,
    /// Where the data begins in the message given last.
    skip: usize,
}

impl std::fmt::Debug for BaseStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseStream").field("start", &self.start).finish_non_exhaustive()
    }
}

const WHAT: &str = "take a base backup";

impl Replication {
    /// Starts a base backup; returns when the server's checkpoint is done.
    pub fn base_backup(mut self, command: &BaseCommand) -> Result<BaseStream> {
        let major = self.major();
        self.wire.query(&command.text(major))?;
        let position = self.result()?;
        let places = self.result()?;
        let start = BaseStart {
            start: parsed(position.required(0)?)?,
            timeline: Timeline(parsed(position.required(1)?)?),
            tablespaces: places.rows.iter().map(|row| tablespace(row)).collect::<Result<_>>()?,
        };
        let shape = if major < 15 {
            Shape::Copies { begun: 0, open: false }
        } else {
            Shape::Marked { open: false, named: false }
        };
        Ok(BaseStream { session: self, start, shape, manifest_seen: false, end: None, skip: 0 })
    }

    /// The next result set of the running command.
    fn result(&mut self) -> Result<Rows> {
        let mut result: Option<Rows> = None;
        loop {
            let frame = self.wire.frame()?;
            match (frame.tag, &mut result) {
                (tag::ROW_DESCRIPTION, None) => {
                    result = Some(Rows { columns: columns(frame.body)?, rows: Vec::new() });
                }
                (tag::DATA_ROW, Some(result)) => result.rows.push(row(frame.body)?),
                (tag::COMMAND_COMPLETE, Some(_)) => return Ok(result.unwrap_or_default()),
                (tag::ERROR, _) => {
                    let error = ServerError::parse(frame.body)?;
                    return Err(error.into_fault(WHAT));
                }
                (other, _) => return Err(unexpected(other)),
            }
        }
    }
}

fn tablespace(row: &[Option<Vec<u8>>]) -> Result<TablespaceOfServer> {
    let kibibytes: Option<u64> = text(row, 2)?.map(parsed).transpose()?;
    Ok(TablespaceOfServer {
        oid: text(row, 0)?.map(parsed).transpose()?,
        path: text(row, 1)?.unwrap_or_default().to_owned(),
        size_bytes: kibibytes.map(|kibibytes| kibibytes.saturating_mul(1024)),
    })
}

impl BaseStream {
    /// What the server said first.
    pub fn start(&self) -> &BaseStart {
        &self.start
    }

    /// The bytes of the piece given last, if it was [`BaseItem::Data`].
    pub fn last(&self) -> &[u8] {
        self.session.wire.last().get(self.skip..).unwrap_or_default()
    }

    /// The server's major version.
    pub fn major(&self) -> u32 {
        self.session.major()
    }

    /// The next piece; `None` after the last one, then [`BaseStream::finish`].
    pub fn item(&mut self) -> Result<Option<BaseItem<'_>>> {
        loop {
            // See `Wire::frame`: what is decided about a frame must not hold its borrow.
            let step = match &mut self.shape {
                Shape::Copies { .. } => self.step_copies()?,
                Shape::Marked { .. } => self.step_marked()?,
            };
            match step {
                Step::Again => {}
                Step::Archive(index) => return Ok(Some(BaseItem::Archive(index))),
                Step::Manifest => return Ok(Some(BaseItem::Manifest)),
                Step::Data(skip) => {
                    self.skip = skip;
                    return Ok(Some(BaseItem::Data(self.last())));
                }
                Step::Over => return Ok(None),
            }
        }
    }

    fn step_copies(&mut self) -> Result<Step> {
        let Shape::Copies { begun, open } = &mut self.shape else { return Err(garbled("another shape")) };
        let archives = self.start.tablespaces.len();
        let frame = self.session.wire.frame()?;
        match (frame.tag, *open) {
            (tag::COPY_OUT, false) if *begun <= archives => {
                *open = true;
                *begun += 1;
                if *begun > archives {
                    self.manifest_seen = true;
                    return Ok(Step::Manifest);
                }
                Ok(Step::Archive(*begun - 1))
            }
            (tag::COPY_DATA, true) => Ok(Step::Data(0)),
            (tag::COPY_DONE, true) => {
                *open = false;
                Ok(Step::Again)
            }
            (tag::ROW_DESCRIPTION, false) => self.read_end(),
            (tag::ERROR, _) => Err(ServerError::parse(frame.body)?.into_fault(WHAT)),
            (other, _) => Err(unexpected(other)),
        }
    }

    fn step_marked(&mut self) -> Result<Step> {
        let Shape::Marked { open, named } = &mut self.shape else { return Err(garbled("another shape")) };
        let frame = self.session.wire.frame()?;
        match (frame.tag, *open) {
            (tag::COPY_OUT, false) => {
                *open = true;
                Ok(Step::Again)
            }
            (tag::COPY_DATA, true) => {
                let mut body = Body(frame.body);
                match body.u8()? {
                    b'd' if *named => Ok(Step::Data(1)),
                    b'p' => Ok(Step::Again),
                    b'm' => {
                        (*named, self.manifest_seen) = (true, true);
                        Ok(Step::Manifest)
                    }
                    b'n' => {
                        *named = true;
                        let (name, _path) = (body.text()?, body.text()?);
                        archive(&self.start, name).map(Step::Archive)
                    }
                    other => Err(garbled(format!("a piece of a backup `{}`", char::from(other).escape_debug()))),
                }
            }
            (tag::COPY_DONE, true) => {
                *open = false;
                Ok(Step::Again)
            }
            // Before the copy there may be an end of command of its own.
            (tag::COMMAND_COMPLETE, false) => Ok(Step::Again),
            (tag::ROW_DESCRIPTION, false) => self.read_end(),
            (tag::ERROR, _) => Err(ServerError::parse(frame.body)?.into_fault(WHAT)),
            (other, _) => Err(unexpected(other)),
        }
    }

    fn read_end(&mut self) -> Result<Step> {
        let frame = self.session.wire.frame()?;
        if frame.tag != tag::DATA_ROW {
            return Err(unexpected(frame.tag));
        }
        let row = row(frame.body)?;
        let value = |column| text(&row, column)?.ok_or_else(|| garbled("an end of a backup without its place"));
        self.end = Some((parsed(value(0)?)?, Timeline(parsed(value(1)?)?)));
        Ok(Step::Over)
    }

    /// Reads to the very end: an error about damaged pages comes after everything else.
    pub fn finish(mut self) -> Result<(BaseEnd, Replication)> {
        let (Some((stop, timeline)), true) = (self.end, self.manifest_seen) else {
            return Err(garbled("a backup that ends without its manifest or its last position"));
        };
        let damage = match self.session.wire.until_ready()? {
            None => None,
            Some(error) if error.code == DATA_CORRUPTED => Some(error),
            Some(error) => return Err(error.into_fault(WHAT)),
        };
        let warnings = std::mem::take(&mut self.session.wire.warnings);
        Ok((BaseEnd { stop, timeline, damage, warnings }, self.session))
    }
}

enum Step {
    Again,
    Archive(usize),
    Manifest,
    /// The body of the frame read last, without so many bytes at its start.
    Data(usize),
    Over,
}

/// Which tablespace an archive is of: `base.tar`, or its number with `.tar`.
fn archive(start: &BaseStart, name: &[u8]) -> Result<usize> {
    let shown = String::from_utf8_lossy(name).into_owned();
    let oid = match shown.strip_suffix(".tar") {
        Some("base") => None,
        Some(number) => Some(parsed::<u32>(number)?),
        None => return Err(garbled(format!("an archive named `{}`", shown.escape_debug()))),
    };
    let index = start.tablespaces.iter().position(|tablespace| tablespace.oid == oid);
    index.ok_or_else(|| garbled(format!("an archive `{}` of no tablespace", shown.escape_debug())))
}
