//! Stock restic reads what we write, byte for byte, and honours our lock.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rekindle_core::port::{Reuse, WriteSession as _};
use rekindle_repo::Session;
use rekindle_repo::lock::{Lock, LockKind};

use crate::write_support::*;

/// Every restic there is: the distribution's, and the newest one of the set-up.
fn restics() -> Vec<PathBuf> {
    let newest = rekindle_testkit::tools::try_find("restic-new");
    [Some(rekindle_testkit::tools::find("restic")), newest].into_iter().flatten().collect()
}

fn try_restic(program: &Path, bench: &Bench, arguments: &[&str]) -> Output {
    Command::new(program)
        .env("RESTIC_PASSWORD", PASSWORD)
        .arg("--no-cache")
        .arg("--repo")
        .arg(bench.repo_path())
        .args(arguments)
        .output()
        .unwrap()
}

fn restic(program: &Path, bench: &Bench, arguments: &[&str]) -> Vec<u8> {
    let output = try_restic(program, bench, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {said}", program.display());
    output.stdout
}

/// Names and kinds that break careless programs.
fn tree(root: &Path) {
    let at = |name: &[u8]| root.join(std::ffi::OsStr::from_bytes(name));
    for name in [
        &b"plain"[..],
        b"with \"quotes\" & <tags>",
        b"new\nline",
        b"bad \xff utf8",
        b"back\\slash",
        "\u{301}Ünïcode\u{2028}".as_bytes(),
    ] {
        std::fs::write(at(name), name).unwrap();
    }
    std::fs::create_dir_all(root.join("empty directory/inner")).unwrap();
    std::fs::write(root.join("nothing"), b"").unwrap();
    std::fs::write(root.join("large"), noise(9 << 20, 4)).unwrap();
    std::fs::hard_link(root.join("large"), root.join("large again")).unwrap();
    std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(b"to \"nowhere\""), root.join("link")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    let noted = root.join("plain");
    // Not every file system of a test machine keeps user attributes.
    let _ = rustix::fs::setxattr(&noted, "user.note", b"a \"value\"\n", rustix::fs::XattrFlags::empty());
}

/// Relative path, kind and content of everything below a directory.
fn picture(root: &Path) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    fn visit(root: &Path, directory: &Path, found: &mut Vec<(Vec<u8>, String, Vec<u8>)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let time = stat.modified().unwrap();
            let content = match () {
                () if stat.is_symlink() => std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                () if stat.is_file() => std::fs::read(&path).unwrap(),
                () => Vec::new(),
            };
            let mut note = vec![0; 100];
            let note = rustix::fs::lgetxattr(&path, "user.note", &mut note).map(|length| note[..length].to_vec());
            let kind = if stat.is_symlink() { String::new() } else { format!("{time:?} {note:?}") };
            found.push((name, format!("{:?} {kind}", stat.file_type()), content));
            if stat.is_dir() {
                visit(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    visit(root, root, &mut found);
    found.sort();
    found
}

#[test]
fn restic_checks_restores_and_dumps_the_same_bytes() {
    let bench = Bench::local();
    let source = bench.directory.path().join("source");
    std::fs::create_dir(&source).unwrap();
    tree(&source);
    let context = context();
    let session = Session::begin(&bench.open(), &context).unwrap();
    let (files, _) = store(&session, "files", disk(&source), Reuse::Nothing).unwrap();
    let dump = noise(25 << 20, 5);
    let entries = vec![stream("app.sql", dump.clone(), Act::Good), stream("empty.sql", Vec::new(), Act::Good)];
    let (streams, _) = store(&session, "database", entries, Reuse::Nothing).unwrap();
    let point = session.commit(draft(&context, [files, streams])).unwrap();

    for program in restics() {
        restic(&program, &bench, &["check", "--read-data"]);
        let target = tempfile::tempdir().unwrap();
        let into = target.path().to_str().unwrap();
        restic(&program, &bench, &["restore", point.id().as_str(), "--verify", "--target", into]);
        let (want, got) = (picture(&source), picture(&target.path().join("files")));
        let names = |picture: &[(Vec<u8>, String, Vec<u8>)]| -> Vec<String> {
            picture
                .iter()
                .map(|(name, kind, content)| format!("{:?} {kind} {}", String::from_utf8_lossy(name), content.len()))
                .collect()
        };
        assert_eq!(names(&want), names(&got));
        assert!(want == got, "the same bytes");
        assert!(std::fs::read(target.path().join("database/app.sql")).unwrap() == dump);
        assert!(restic(&program, &bench, &["dump", "latest", "/database/app.sql"]) == dump);
        let listed = restic(&program, &bench, &["snapshots", "--json", "--tag", "rekindle"]);
        assert!(String::from_utf8_lossy(&listed).contains(point.id().as_str()));
    }
}

#[test]
fn restic_honours_our_lock_and_we_honour_its_format() {
    let bench = Bench::local();
    let repo = bench.open();
    save(&repo, vec![stream("s", vec![1], Act::Good)], Reuse::Nothing).unwrap();
    for program in restics() {
        let lock =
            Lock::acquire(&repo, &(Arc::new(Now) as Arc<dyn rekindle_core::port::Clock>), LockKind::Shared).unwrap();
        restic(&program, &bench, &["snapshots"]);
        let refused = try_restic(&program, &bench, &["prune"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("locked"), "{said}");
        lock.release().unwrap();
        restic(&program, &bench, &["prune"]);
    }
    assert_eq!(Decoded::read(&bench).snapshots.len(), 1);
}

#[test]
fn we_add_to_a_repository_that_restic_made() {
    for program in restics() {
        let bench = Bench::local();
        std::fs::remove_dir_all(bench.repo_path()).unwrap();
        restic(&program, &bench, &["init"]);
        let source = bench.directory.path().join("source");
        std::fs::create_dir(&source).unwrap();
        tree(&source);
        restic(&program, &bench, &["backup", source.to_str().unwrap()]);
        save(&bench.open(), disk(&source), Reuse::Nothing).unwrap();
        restic(&program, &bench, &["check", "--read-data"]);
        restic(&program, &bench, &["prune"]);
        restic(&program, &bench, &["check", "--read-data"]);
        assert_eq!(Decoded::read(&bench).snapshots.len(), 2);
    }
}
