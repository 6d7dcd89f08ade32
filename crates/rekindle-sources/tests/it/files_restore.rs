//! Restores of a part that stands in memory, and the checks after them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekindle_core::entry::EntryPath;
use rekindle_core::port::{Component, Finding, Level, PartReader, RestoreReport, RestoreRequest, Target};
use rekindle_core::{Fault, PointId, Result, codes};
use rekindle_sources::files::FilesOptions;

use crate::files_support::{
    CHILD_PLACE, MemoryPart, capture, component, context, odd_tree, options, run_child, set_mode, set_time, wait,
};

const SHORT: &str = "01234567";

fn request(target: Target) -> RestoreRequest {
    RestoreRequest {
        point: "0123456789abcdef".repeat(4).parse::<PointId>().unwrap(),
        target,
        select: Vec::new(),
        overwrite: false,
        jobs: 1,
        server: None,
        recovery: None,
    }
}

fn new_at(place: &Path) -> RestoreRequest {
    request(Target::New(Some(place.to_str().unwrap().to_owned())))
}

fn in_place(discard_old: bool) -> RestoreRequest {
    request(Target::InPlace { discard_old })
}

/// A place with a tree, what is saved of it, and the part.
struct World {
    place: tempfile::TempDir,
    options: FilesOptions,
    part: Arc<MemoryPart>,
}

impl World {
    fn new(options: FilesOptions, place: tempfile::TempDir) -> Self {
        Self { part: Arc::new(MemoryPart::of(options.clone())), place, options }
    }

    /// The odd tree at `<place>/live`.
    fn odd() -> Self {
        let place = tempfile::tempdir().unwrap();
        let live = place.path().join("live");
        fs::create_dir(&live).unwrap();
        odd_tree(&live);
        set_mode(&live, 0o2750);
        set_time(&live, 1_234_567, 89);
        Self::new(options(&[&live]), place)
    }

    fn live(&self) -> PathBuf {
        self.place.path().join("live")
    }

    fn entry(&self, name: &str) -> EntryPath {
        let path = self.place.path().join(name);
        EntryPath::new(path.to_str().unwrap().trim_start_matches('/')).unwrap()
    }

    fn restore(&self, request: &RestoreRequest) -> Result<RestoreReport> {
        let part: Arc<dyn PartReader> = Arc::clone(&self.part) as _;
        let scratch = tempfile::tempdir().unwrap();
        let component = component(self.options.clone());
        wait(component.restore(part, request, &context(scratch.path())))
    }

    fn check(&self, report: &RestoreReport) -> Vec<Finding> {
        let part: Arc<dyn PartReader> = Arc::clone(&self.part) as _;
        let scratch = tempfile::tempdir().unwrap();
        let component = component(self.options.clone());
        wait(component.check(part, report, &context(scratch.path()))).unwrap()
    }

    fn refused(&self, request: &RestoreRequest) -> Fault {
        self.restore(request).unwrap_err()
    }

    /// Names in the place itself.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn all_good(findings: &[Finding]) {
    assert!(findings.iter().all(|f| f.level == Level::Good), "{findings:?}");
    assert!(findings.iter().any(|f| f.text.contains("byte for byte")));
}

/// What two trees look like, without where they stand and when they were made.
fn picture(top: &Path) -> Vec<String> {
    let (collected, _) = capture(options(&[top])).unwrap();
    let prefix = top.as_os_str().len() - 1;
    let taken = collected.taken.into_iter().filter(|taken| taken.path.as_bytes().len() >= prefix);
    taken
        .map(|taken| {
            let meta = taken.meta;
            format!(
                "{:?} {:?} {:o} {}:{} {:?} {} {:?} {:?}",
                &taken.path.as_bytes()[prefix..],
                meta.kind,
                meta.mode,
                meta.uid,
                meta.gid,
                meta.modified,
                meta.links,
                meta.xattrs,
                taken.content
            )
        })
        .collect()
}

#[test]
fn a_new_place_gets_everything_under_its_full_path() {
    let world = World::odd();
    let before = picture(&world.live());
    let into = world.place.path().join("a/new/place");
    let report = world.restore(&new_at(&into)).unwrap();
    assert_eq!(report.place, into.to_str().unwrap());
    assert_eq!((report.lost.len(), report.warnings.len()), (0, 0), "{report:?}");
    assert_eq!(report.entries, world.part.entries.len() as u64);
    let restored = into.join(world.live().strip_prefix("/").unwrap());
    assert_eq!(picture(&restored), before);
    all_good(&world.check(&report));
    // A second time it is not empty.
    let fault = world.refused(&new_at(&into));
    assert!(fault.is(codes::FILES_TARGET_NOT_EMPTY), "{fault:?}");
    assert_eq!(fault.exit_code(), 21);
}

#[test]
fn only_selected_paths_are_restored() {
    let world = World::odd();
    let into = world.place.path().join("new");
    let sub = format!("/{}/", world.entry("live/sub"));
    let wanted = RestoreRequest { select: vec![sub, world.entry("live/plain").to_string()], ..new_at(&into) };
    let report = world.restore(&wanted).unwrap();
    let restored = into.join(world.live().strip_prefix("/").unwrap());
    let mut names: Vec<_> = fs::read_dir(&restored).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["plain", "sub"]);
    all_good(&world.check(&report));
    let wrong = RestoreRequest { select: vec!["no/such".to_owned()], ..new_at(&world.place.path().join("other")) };
    let fault = world.refused(&wrong);
    assert!(fault.is(codes::FILES_SELECT), "{fault:?}");
}

#[test]
fn in_place_swaps_whole_trees_and_keeps_the_old_one() {
    let world = World::odd();
    let before = picture(&world.live());
    let parent = world.place.path().metadata().unwrap();
    fs::remove_dir_all(world.live().join("sub")).unwrap();
    fs::write(world.live().join("plain"), "spoiled").unwrap();
    fs::write(world.live().join("later"), "made after the point").unwrap();
    let report = world.restore(&in_place(false)).unwrap();
    assert_eq!(report.place, world.live().to_str().unwrap());
    assert_eq!(picture(&world.live()), before);
    let kept = world.place.path().join(format!("live.pre-restore-{SHORT}"));
    assert_eq!(report.kept_old.as_deref(), kept.to_str());
    assert_eq!(fs::read(kept.join("later")).unwrap(), b"made after the point");
    assert_eq!(fs::read(kept.join("plain")).unwrap(), b"spoiled");
    let after = world.place.path().metadata().unwrap();
    assert_eq!((parent.mode(), parent.uid()), (after.mode(), after.uid()));
    all_good(&world.check(&report));
    // Again: the first old state is not touched, no stage is left.
    let report = world.restore(&in_place(false)).unwrap();
    assert!(report.kept_old.unwrap().ends_with(&format!("{SHORT}-2")));
    assert_eq!(
        world.names(),
        ["live".to_owned(), format!("live.pre-restore-{SHORT}"), format!("live.pre-restore-{SHORT}-2")]
    );
    world.restore(&in_place(true)).unwrap();
    assert_eq!(world.names().len(), 3, "the newest old state was discarded");
}

#[test]
fn a_lost_tree_comes_back_with_the_directories_above_it() {
    let place = tempfile::tempdir().unwrap();
    let live = place.path().join("srv/app/uploads");
    fs::create_dir_all(&live).unwrap();
    odd_tree(&live);
    set_mode(&place.path().join("srv"), 0o711);
    set_time(&place.path().join("srv/app"), 77, 7);
    let world = World::new(options(&[&live]), place);
    let before = picture(&live);
    fs::remove_dir_all(world.place.path().join("srv")).unwrap();
    let report = world.restore(&in_place(false)).unwrap();
    assert_eq!(report.kept_old, None);
    assert_eq!(picture(&live), before);
    let mode = world.place.path().join("srv").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o711);
}

#[test]
fn files_and_links_are_swapped_like_directories() {
    let place = tempfile::tempdir().unwrap();
    let (file, link) = (place.path().join("app.conf"), place.path().join("current"));
    fs::write(&file, "good").unwrap();
    set_mode(&file, 0o640);
    std::os::unix::fs::symlink("releases/1", &link).unwrap();
    let world = World::new(options(&[&file, &link]), place);
    fs::write(&file, "bad").unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("releases/2", &link).unwrap();
    let report = world.restore(&in_place(false)).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"good");
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("releases/1"));
    let kept = |name: &str| world.place.path().join(format!("{name}.pre-restore-{SHORT}"));
    assert_eq!(fs::read(kept("app.conf")).unwrap(), b"bad");
    assert_eq!(fs::read_link(kept("current")).unwrap(), Path::new("releases/2"));
    assert_eq!(world.names().len(), 4, "no stage is left: {:?}", world.names());
    all_good(&world.check(&report));
}

#[test]
fn one_file_of_a_tree_is_restored_in_place_alone() {
    let world = World::odd();
    fs::write(world.live().join("plain"), "spoiled").unwrap();
    fs::write(world.live().join("a b"), "wanted as it is now").unwrap();
    let wanted = RestoreRequest { select: vec![world.entry("live/plain").to_string()], ..in_place(true) };
    world.restore(&wanted).unwrap();
    assert_eq!(fs::read(world.live().join("plain")).unwrap(), b"plain");
    assert_eq!(fs::read(world.live().join("a b")).unwrap(), b"wanted as it is now");
    let outside = RestoreRequest { select: vec![world.entry("live").parent().unwrap().to_string()], ..in_place(true) };
    assert!(world.refused(&outside).is(codes::FILES_LAYOUT));
}

#[test]
fn nothing_is_swapped_when_something_is_lost() {
    let mut world = World::odd();
    let damaged = world.entry("live/plain");
    let part = Arc::get_mut(&mut world.part).unwrap();
    part.damaged.push(damaged.clone());
    fs::write(world.live().join("zero"), "now").unwrap();
    let now = picture(&world.live());
    let fault = world.refused(&in_place(false));
    assert!(fault.is(codes::FILES_INCOMPLETE), "{fault:?}");
    assert!(fault.chain().contains("live/plain"), "{fault:?}");
    assert_eq!(picture(&world.live()), now);
    // Told to, it takes what there is, and says what is not.
    let anyway = RestoreRequest { overwrite: true, ..in_place(false) };
    let report = world.restore(&anyway).unwrap();
    assert_eq!(report.lost.len(), 1);
    assert_eq!(report.lost[0].path, damaged.to_string());
    assert!(!world.live().join("plain").exists());
    assert_eq!(fs::read(world.live().join("zero")).unwrap(), b"");
    assert_eq!(world.names().len(), 2, "the stage of the first try was used: {:?}", world.names());
}

#[test]
fn a_check_names_what_is_not_as_saved() {
    type Spoil = fn(&Path);
    let cases: &[(&str, Level, Spoil)] = &[
        ("is not there", Level::Bad, |live| fs::remove_file(live.join("a b")).unwrap()),
        ("instead of", Level::Bad, |live| fs::write(live.join("a b"), "longer").unwrap()),
        ("another kind", Level::Bad, |live| {
            fs::remove_file(live.join("a b")).unwrap();
            fs::create_dir(live.join("a b")).unwrap();
        }),
        ("points elsewhere", Level::Bad, |live| {
            fs::remove_file(live.join("loop")).unwrap();
            std::os::unix::fs::symlink("/etc", live.join("loop")).unwrap();
        }),
        ("mode is 600", Level::Warning, |live| set_mode(&live.join("a b"), 0o600)),
        ("time is another", Level::Warning, |live| set_time(&live.join("a b"), 1, 1)),
        ("user.note", Level::Warning, |live| {
            rustix::fs::removexattr(live.join("plain"), "user.note").unwrap();
        }),
        // Same size and time, other content: only the bytes tell.
        ("differs at byte 1", Level::Bad, |live| {
            let time = live.join("a b").metadata().unwrap();
            fs::write(live.join("a b"), "axb").unwrap();
            set_time(&live.join("a b"), time.mtime(), time.mtime_nsec());
        }),
    ];
    for (needle, level, spoil) in cases {
        let world = World::odd();
        let report = world.restore(&in_place(true)).unwrap();
        all_good(&world.check(&report));
        spoil(&world.live());
        let findings = world.check(&report);
        let found = findings.iter().find(|f| f.text.contains(needle));
        let found = found.unwrap_or_else(|| panic!("{needle}: {findings:?}"));
        assert_eq!(found.level, *level, "{found:?}");
    }
}

#[test]
fn a_target_without_room_is_refused_before_anything_is_written() {
    let mut world = World::odd();
    let huge = world.entry("live/plain");
    let part = Arc::get_mut(&mut world.part).unwrap();
    let entry = part.entries.iter_mut().find(|taken| taken.path == huge).unwrap();
    // Linked twice, counted once.
    entry.meta.size = 1 << 60;
    let into = world.place.path().join("new");
    for request in [new_at(&into), in_place(false)] {
        let fault = world.refused(&request);
        assert!(fault.is(codes::FILES_SPACE), "{fault:?}");
        assert_eq!(world.names(), ["live"]);
    }
}

#[test]
fn an_unusable_target_is_named() {
    let world = World::odd();
    let file = world.live().join("plain");
    for bad in [file.clone(), file.join("below")] {
        let fault = world.refused(&new_at(&bad));
        assert!(fault.is(codes::FILES_TARGET), "{fault:?}");
    }
    assert!(world.refused(&request(Target::Live)).is(codes::ENGINE_TARGET));
}

#[test]
fn a_mount_point_gets_its_content_swapped() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let place = tempfile::tempdir().unwrap();
    let under = ["unshare", "--mount", "--propagation", "private"];
    run_child("files_restore::child_with_a_mount", &under, place.path());
}

fn mount(at: &Path, options: &str) {
    let done =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status().unwrap();
    assert!(done.success());
}

#[test]
#[ignore = "run by `a_mount_point_gets_its_content_swapped` with its own mounts"]
fn child_with_a_mount() {
    let top = PathBuf::from(std::env::var_os(CHILD_PLACE).unwrap());
    let live = top.join("live");
    fs::create_dir(&live).unwrap();
    mount(&live, "size=64m,mode=711");
    odd_tree(&live);
    set_time(&live, 1_234_567, 89);
    let world = World::new(options(&[&live]), tempfile::tempdir_in(&top).unwrap());
    let before = picture(&live);
    fs::remove_dir_all(live.join("sub")).unwrap();
    fs::write(live.join("plain"), "spoiled").unwrap();
    fs::write(live.join("later"), "later").unwrap();
    set_mode(&live, 0o700);
    let report = world.restore(&in_place(false)).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("mount point")), "{report:?}");
    let kept = live.join(format!(".pre-restore-{SHORT}"));
    assert_eq!(report.kept_old.as_deref(), kept.to_str());
    assert_eq!(fs::read(kept.join("later")).unwrap(), b"later");
    assert_eq!(fs::read(kept.join("plain")).unwrap(), b"spoiled");
    all_good(&world.check(&report));
    fs::remove_dir_all(&kept).unwrap();
    set_time(&live, 1_234_567, 89);
    assert_eq!(picture(&live), before);
    // A real file system that is too small: nothing is written to it.
    let small = top.join("small");
    fs::create_dir(&small).unwrap();
    mount(&small, "size=256k");
    let fault = world.refused(&new_at(&small));
    assert!(fault.is(codes::FILES_SPACE), "{fault:?}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    // Other file systems inside a configured path are entered only when asked for.
    let around = FilesOptions { one_file_system: true, ..options(&[&top]) };
    let (collected, _) = capture(around).unwrap();
    assert!(collected.get(&live).is_some() && collected.below(&live).is_empty());
}
