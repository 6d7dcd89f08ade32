//! Restore into a data directory, laid out so that the server loads it: with an append-only file
//! it looks only there and ignores `dump.rdb`; without, the other way round.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rekindle_core::entry::check_name;
use rekindle_core::port::{PartReader, RestoreReport, RestoreRequest, RunContext, Target};
use rekindle_core::{Cancel, ComponentId, Fault, Result, codes};

use super::NOT_APPLIED;
use super::install::{self, FILE_MODE, Owner, fault};
use super::source::{self, Tee};
use crate::redis::client::Client;
use crate::redis::details::{FileNames, Placed, RedisDetails};
use crate::redis::options::RedisOptions;
use crate::redis::rdb::record::Keep;
use crate::redis::rdb::summary::{Counter, RdbSummary, walk};
use crate::steps::Steps;

/// Write buffer for the RDB file.
const BUFFER_BYTES: usize = 1 << 20;

/// Restores into a new directory or in place. Blocking.
pub(crate) fn restore(
    id: &ComponentId,
    options: &RedisOptions,
    part: &dyn PartReader,
    request: &RestoreRequest,
    context: &RunContext,
) -> Result<RestoreReport> {
    let details = RedisDetails::decode(&part.record().details)?;
    let mut steps = Steps::new();
    let target = Place::find(id, options, request)?;
    target.refuse_running_server(options, &context.cancel)?;
    let names = usable_names(&details.files)?;
    target.refuse_data(request, &names)?;
    let owner = target.prepare(options)?;
    let short = request.point.short();
    let staged = target.directory.join(format!(".rekindle-restore-{short}"));
    remove(&staged)?;
    context.monitor.phase(id.as_str(), "write the data directory");
    let outcome = install::make_directory(&staged).and_then(|()| {
        let summary = stage(part, &details, options.appendonly, &names, &staged, context)?;
        install::give(&staged, owner)?;
        steps.done("write");
        // Somebody may have started the server in the meantime.
        target.refuse_running_server(options, &context.cancel)?;
        let kept = install::install(&target.directory, &staged, &old_names(&names), &format!("pre-restore-{short}"))?;
        Ok((summary, kept))
    });
    let cleaned = remove(&staged);
    let (summary, kept) = outcome?;
    cleaned?;
    steps.done("install");
    let kept = match (&request.target, kept) {
        (Target::InPlace { discard_old: true }, Some(old)) => {
            remove(&old)?;
            steps.done("discard the old state");
            None
        }
        (_, kept) => kept,
    };
    Ok(report(&target, &details, options, &names, &summary, kept, steps))
}

/// What a server could load from the configured data directory.
pub(crate) fn occupied(id: &ComponentId, options: &RedisOptions, part: &dyn PartReader) -> Result<Option<String>> {
    let details = RedisDetails::decode(&part.record().details)?;
    let place = Place::find(id, options, &crate::home::request()?)?;
    let names = old_names(&usable_names(&details.files)?);
    let there = |path: &PathBuf| match fs::symlink_metadata(path) {
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        Ok(_) => true,
    };
    let found = names.into_iter().map(|name| place.directory.join(name)).find(there);
    Ok(found.map(|path| format!("`{}` is there", path.display())))
}

/// The directory to write to.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    in_place: bool,
}

impl Place {
    fn find(id: &ComponentId, options: &RedisOptions, request: &RestoreRequest) -> Result<Self> {
        let configured = options.data_dir.as_deref();
        match &request.target {
            Target::New(Some(directory)) => Ok(Self { directory: PathBuf::from(directory), in_place: false }),
            Target::New(None) => {
                let name = format!("{id}-{}", request.point.short());
                let beside = configured.and_then(Path::parent).unwrap_or(Path::new("."));
                Ok(Self { directory: beside.join(name), in_place: false })
            }
            Target::InPlace { .. } => {
                let directory = configured.ok_or_else(|| {
                    Fault::new(codes::ENGINE_TARGET, format!("restore `{id}` in place"))
                        .because("its data directory is not configured")
                        .hint("set `data-dir` to the server's `dir`, or restore with `--live`")
                })?;
                Ok(Self { directory: directory.to_owned(), in_place: true })
            }
            Target::Live => {
                Err(Fault::new(codes::RUN_BUG, "restore into a directory").because("the target is a running server"))
            }
        }
    }

    /// A server that runs on the directory would overwrite the restored files when it stops.
    fn refuse_running_server(&self, options: &RedisOptions, cancel: &Cancel) -> Result<()> {
        let running = |seen: String| {
            Err(Fault::new(codes::REDIS_TARGET_RUNNING, format!("restore into `{}`", self.directory.display()))
                .because(seen)
                .hint("stop it first, for example `systemctl stop redis-server`"))
        };
        let Ok(directory) = self.directory.canonicalize() else {
            return Ok(());
        };
        if let Some(pid) = process_in(&directory) {
            return running(format!("a server runs there as process {pid}"));
        }
        let endpoint = options.endpoint(None)?;
        let client = match Client::connect(&endpoint, options, cancel) {
            Ok(client) => Some(client),
            // Somebody answers there, but does not let us ask for its directory.
            Err(fault) if !fault.is(codes::REDIS_CONNECT) => None,
            Err(_) => return Ok(()),
        };
        match client.and_then(directory_of) {
            Some(theirs) if theirs.canonicalize().is_ok_and(|path| path == directory) => {
                running(format!("the server at {endpoint} uses it"))
            }
            None if self.in_place => {
                running(format!("a server answers at {endpoint} and does not say which directory it uses"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A directory with data is taken only in place, or when told to.
    fn refuse_data(&self, request: &RestoreRequest, names: &FileNames) -> Result<()> {
        if self.in_place || request.overwrite {
            return Ok(());
        }
        match fs::read_dir(&self.directory) {
            Ok(mut children) => match children.next() {
                None => Ok(()),
                Some(_) => Err(Fault::new(
                    codes::REDIS_TARGET_NOT_EMPTY,
                    format!("restore into `{}`", self.directory.display()),
                )
                .because("the directory is not empty")
                .hint(format!(
                    "choose another one, or pass `--overwrite` (`{}` is moved aside then)",
                    names.dbfilename
                ))),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fault("list", &self.directory, error)),
        }
    }

    /// Makes the directory when it is not there, and says who is to own the files.
    fn prepare(&self, options: &RedisOptions) -> Result<Option<Owner>> {
        if let Some(owner) = Owner::of(&self.directory) {
            return Ok(Some(owner));
        }
        let parent = self.directory.parent().filter(|path| !path.as_os_str().is_empty());
        if let Some(parent) = parent {
            fs::create_dir_all(parent).map_err(|error| fault("make", parent, error))?;
        }
        install::make_directory(&self.directory)?;
        let configured = options.data_dir.as_deref().and_then(Owner::of);
        let owner = configured.or_else(Owner::service);
        install::give(&self.directory, owner)?;
        install::sync_directory(parent.unwrap_or(Path::new(".")))?;
        Ok(owner)
    }
}

/// The process of a server whose working directory it is: Redis and Valkey change into `dir`.
pub(super) fn process_in(directory: &Path) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let place = fs::read_link(entry.path().join("cwd")).ok()?;
        if place != directory {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.contains("redis-server") || name.contains("valkey-server")).then_some(pid)
    })
}

/// The data directory a server says it uses.
fn directory_of(mut client: Client) -> Option<PathBuf> {
    let reply = client.call(&[b"CONFIG", b"GET", b"dir"]).ok()?;
    let found = crate::redis::surroundings::pairs(&reply).remove("dir")?;
    Some(PathBuf::from(found))
}

/// The names of the files come from a captured configuration: they must stay in the directory.
fn usable_names(names: &FileNames) -> Result<FileNames> {
    for name in [&names.dbfilename, &names.appendfilename, &names.appenddirname] {
        check_name(name.as_bytes()).map_err(|error| {
            Fault::new(codes::REPO_UNSAFE_NAME, format!("use the captured file name `{}`", name.escape_debug()))
                .because(error)
        })?;
    }
    Ok(names.clone())
}

/// Everything a server could load instead of what is restored.
fn old_names(names: &FileNames) -> Vec<String> {
    let usual = FileNames::default();
    let mut all = vec![
        names.dbfilename.clone(),
        names.appenddirname.clone(),
        names.appendfilename.clone(),
        usual.dbfilename,
        usual.appenddirname,
        usual.appendfilename,
    ];
    all.sort();
    all.dedup();
    all
}

/// Whether to lay out an append-only file, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AofLayout {
    None,
    /// One file that begins with the RDB (before 7.0); the server appends to it.
    Single,
    /// A directory with base file and manifest (from 7.0 on).
    Parts,
}

impl AofLayout {
    fn of(details: &RedisDetails, wanted: Option<bool>) -> Self {
        let major = details.server_version.split('.').next();
        let major = major.and_then(|number| number.parse::<u32>().ok());
        match wanted.or(details.appendonly) {
            Some(false) => Self::None,
            _ if major.is_some_and(|major| major < 7) => Self::Single,
            // Not known: a base file is needed with an append-only file, and not read without.
            Some(true) | None => Self::Parts,
        }
    }
}

/// Writes the files into the staging directory; the RDB is walked while it is written.
fn stage(
    part: &dyn PartReader,
    details: &RedisDetails,
    appendonly: Option<bool>,
    names: &FileNames,
    staged: &Path,
    context: &RunContext,
) -> Result<RdbSummary> {
    let rdb = staged.join(&names.dbfilename);
    let summary = write_rdb(part, &rdb, context)?;
    match AofLayout::of(details, appendonly) {
        AofLayout::None => {}
        AofLayout::Single => copy(&rdb, &staged.join(&names.appendfilename))?,
        AofLayout::Parts => {
            let directory = staged.join(&names.appenddirname);
            install::make_directory(&directory)?;
            let base = base_name(names);
            // The server never changes a base file: it may share its bytes with `dump.rdb`.
            let place = directory.join(&base);
            if fs::hard_link(&rdb, &place).is_err() {
                copy(&rdb, &place)?;
            }
            let manifest = directory.join(format!("{}.manifest", names.appendfilename));
            let mut file = create(&manifest)?;
            file.write_all(format!("file {} seq 1 type b\n", quoted(&base)).as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(|error| fault("write", &manifest, error))?;
            install::sync_directory(&directory)?;
        }
    }
    install::sync_directory(staged)?;
    Ok(summary)
}

fn base_name(names: &FileNames) -> String {
    format!("{}.1.base.rdb", names.appendfilename)
}

/// The manifest of the server wants names with special characters in quotes.
fn quoted(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\');
    if name.bytes().all(plain) {
        return name.to_owned();
    }
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    let mut text = String::from("\"");
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.extend(['\\', 'x', digit(byte >> 4), digit(byte & 15)]),
        }
    }
    text.push('"');
    text
}

fn write_rdb(part: &dyn PartReader, path: &Path, context: &RunContext) -> Result<RdbSummary> {
    let mut from = source::open(part)?;
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, create(path)?);
    let mut counter = Counter::new(context.clock.now().as_millisecond());
    let mut tee = Tee { from: &mut from, to: &mut to };
    let walker = walk(&mut tee, Keep::Counts, &mut counter, &context.cancel)?;
    let summary = counter.finish(&walker)?;
    from.close()?;
    to.into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .and_then(|file| file.sync_all())
        .map_err(|error| fault("write", path, error))?;
    Ok(summary)
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|error| fault("create", path, error))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(|error| fault("read", from, error))?;
    let mut target = create(to)?;
    std::io::copy(&mut source, &mut target).and_then(|_| target.sync_all()).map_err(|error| fault("write", to, error))
}

fn remove(tree: &Path) -> Result<()> {
    match fs::remove_dir_all(tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fault("remove", tree, error)),
        _ => Ok(()),
    }
}

fn report(
    target: &Place,
    details: &RedisDetails,
    options: &RedisOptions,
    names: &FileNames,
    summary: &RdbSummary,
    kept: Option<PathBuf>,
    steps: Steps,
) -> RestoreReport {
    let layout = AofLayout::of(details, options.appendonly);
    let aof_base = match layout {
        AofLayout::None => None,
        AofLayout::Single => Some(target.directory.join(&names.appendfilename)),
        AofLayout::Parts => Some(target.directory.join(&names.appenddirname).join(base_name(names))),
    };
    let mut warnings = vec![format!(
        "start {} {} or newer on it, with `dbfilename {}`{}",
        details.server,
        details.server_version,
        names.dbfilename,
        if layout == AofLayout::None { " and `appendonly no`" } else { "" },
    )];
    if !summary.modules.is_empty() {
        warnings.push(format!("the server needs the modules that own data: {}", summary.modules.join(", ")));
    }
    warnings.push(NOT_APPLIED.to_owned());
    let entries = 1 + u64::from(aof_base.is_some());
    let placed = Placed::Directory {
        directory: target.directory.clone(),
        rdb: target.directory.join(&names.dbfilename),
        aof_base,
        kept: kept.clone(),
    };
    RestoreReport {
        place: target.directory.display().to_string(),
        entries,
        bytes: summary.bytes,
        kept_old: kept.map(|path| path.display().to_string()),
        lost: Vec::new(),
        warnings,
        steps: steps.into_vec(),
        details: serde_json::to_value(placed).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_names_are_quoted_when_they_have_to_be() {
        assert_eq!(quoted("appendonly.aof.1.base.rdb"), "appendonly.aof.1.base.rdb");
        assert_eq!(quoted("a b\"c\n"), "\"a b\\\"c\\x0a\"");
    }

    #[test]
    fn captured_names_that_leave_the_directory_are_refused() {
        for bad in ["../dump.rdb", "/etc/passwd", "", ".."] {
            let names = FileNames { dbfilename: bad.to_owned(), ..FileNames::default() };
            assert!(usable_names(&names).is_err(), "{bad:?}");
        }
        assert!(usable_names(&FileNames::default()).is_ok());
    }
}
