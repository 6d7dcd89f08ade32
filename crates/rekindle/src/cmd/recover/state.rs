//! The journal of a recovery: a file with one JSON object a line, each on disk before the step goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rekindle_core::{Fault, Result, codes};
use rekindle_engine::recover::{Entry, Journal, PLAN_VERSION, Progress, RecoveryPlan};

const FOLDER: &str = "recoveries";
const ENDING: &str = "jsonl";
/// No journal is longer: a line per step.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// A journal that was read.
pub(super) struct Read {
    pub(super) file: PathBuf,
    pub(super) plan: RecoveryPlan,
    pub(super) entries: Vec<Entry>,
}

impl Read {
    pub(super) fn is_finished(&self) -> bool {
        Progress::of(&self.plan, &self.entries).finished
    }
}

/// An open journal. Only one process has it: flock(2) ends with the process.
pub(super) struct FileJournal {
    file: File,
    path: PathBuf,
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Fault {
    Fault::new(codes::RECOVER_JOURNAL, format!("{doing} the journal {}", path.display()))
        .because(error)
        .hint("choose a directory that can be written with --state-dir DIR, or `state-dir` in [stack]")
}

/// Every journal of a state directory that can be read, oldest first. One whose plan was never
/// written did nothing.
pub(super) fn all(state: &Path) -> Result<Vec<Read>> {
    let folder = state.join(FOLDER);
    let names = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(|error| failed("list", &folder, error))?,
    };
    let mut files = Vec::new();
    for name in names {
        let path = name.map_err(|error| failed("list", &folder, error))?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort();
    let mut read = Vec::new();
    for file in files {
        read.extend(read_one(file)?);
    }
    Ok(read)
}

fn read_one(file: PathBuf) -> Result<Option<Read>> {
    let length = fs::metadata(&file).map_err(|error| failed("read", &file, error))?.len();
    if length > JOURNAL_BYTES_MAX {
        return Err(failed("read", &file, std::io::Error::other("it is longer than 64 MiB")));
    }
    let text = fs::read(&file).map_err(|error| failed("read", &file, error))?;
    // The last line may be torn: what it said was not done yet.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut entries = Vec::new();
    for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry = serde_json::from_slice(line).map_err(|error| {
            failed("read", &file, error.into()).hint("a newer rekindle goes on with it; or set it aside with --restart")
        })?;
        entries.push(entry);
    }
    if entries.is_empty() {
        return Ok(None);
    }
    match entries.remove(0) {
        Entry::Plan(plan) if plan.version <= PLAN_VERSION => Ok(Some(Read { file, plan: *plan, entries })),
        Entry::Plan(plan) => {
            let why = format!("its version {} is newer than this program knows", plan.version);
            Err(failed("read", &file, std::io::Error::other(why)).hint("use a newer rekindle"))
        }
        _ => Err(failed("read", &file, std::io::Error::other("it does not begin with a plan"))),
    }
}

/// Begins a journal with a plan.
pub(super) fn create(state: &Path, plan: &RecoveryPlan) -> Result<FileJournal> {
    let folder = state.join(FOLDER);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| failed("make the directory of", &folder, error))?;
    let name = format!("{}-{}.{ENDING}", plan.made.strftime("%Y%m%dT%H%M%S%.3fZ"), plan.stack);
    let path = folder.join(name);
    let mut open = OpenOptions::new();
    let file = open.append(true).create_new(true).mode(0o600).open(&path);
    let mut journal = lock(file.map_err(|error| failed("create", &path, error))?, path)?;
    journal.write(&Entry::Plan(Box::new(plan.clone())))?;
    let parent = File::open(&folder).and_then(|folder| folder.sync_all());
    parent.map_err(|error| failed("sync the directory of", &folder, error))?;
    Ok(journal)
}

/// Opens a journal to go on with it; a torn last line is cut off.
pub(super) fn open(read: &Read) -> Result<FileJournal> {
    let fail = |error| failed("open", &read.file, error);
    let file = OpenOptions::new().append(true).read(true).open(&read.file).map_err(fail)?;
    let journal = lock(file, read.file.clone())?;
    let text = fs::read(&read.file).map_err(fail)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        journal.file.set_len(whole as u64).and_then(|()| journal.file.sync_all()).map_err(fail)?;
    }
    Ok(journal)
}

/// Sets a journal aside, so that a new recovery may begin.
pub(super) fn set_aside(read: &Read) -> Result<()> {
    let to = read.file.with_extension("set-aside");
    fs::rename(&read.file, &to).map_err(|error| failed("set aside", &read.file, error))
}

fn lock(file: File, path: PathBuf) -> Result<FileJournal> {
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {
            Err(Fault::new(codes::ENGINE_RUNNING, format!("use the journal {}", path.display()))
                .because("another recovery works with it")
                .hint("wait until it has ended"))
        }
        // Some network file systems have no such locks.
        Ok(()) | Err(fs::TryLockError::Error(_)) => Ok(FileJournal { file, path }),
    }
}

impl Journal for FileJournal {
    fn write(&mut self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).map_err(|error| failed("write", &self.path, error.into()))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| failed("write", &self.path, error))
    }
}
