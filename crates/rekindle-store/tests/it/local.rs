use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rekindle_core::codes;
use rekindle_store::{Local, PutMode, PutOutcome, Store, StoreOptions, contract, open};
use rekindle_testkit::s3::Mount;
use tempfile::TempDir;

use crate::support::{bytes, key, short_limits};

fn local() -> (TempDir, Local) {
    let directory = tempfile::tempdir().unwrap();
    let store = Local::new(directory.path());
    (directory, store)
}

fn temporaries(root: &Path) -> usize {
    fs::read_dir(root)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp-"))
        .count()
}

#[tokio::test]
async fn keeps_the_contract() {
    let (directory, store) = local();
    contract::run(&store).await;
    let mut options = StoreOptions::new(&format!("file://{}", directory.path().display())).unwrap();
    options.limits = short_limits();
    contract::run(&*open(&options).unwrap()).await;
    assert_eq!(temporaries(directory.path()), 0);
}

#[tokio::test]
async fn files_and_directories_are_private() {
    let (directory, store) = local();
    store.put(&key("a/b/c"), bytes("x"), PutMode::IfAbsent).await.unwrap();
    let mode = |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/c")), (0o700, 0o700, 0o600));
}

/// A disk that is not mounted must look like an error everywhere, and never be filled.
#[tokio::test]
async fn a_vanished_root_is_an_error_everywhere() {
    let (directory, store) = local();
    let root = directory.path().to_owned();
    drop(directory);
    assert!(store.put(&key("a/b"), bytes("x"), PutMode::Overwrite).await.unwrap_err().is(codes::STORE_ROOT));
    assert!(store.put(&key("a"), bytes("x"), PutMode::IfAbsent).await.unwrap_err().is(codes::STORE_ROOT));
    assert!(store.get(&key("a")).await.unwrap_err().is(codes::STORE_ROOT));
    assert!(store.get_range(&key("a"), 0..1).await.unwrap_err().is(codes::STORE_ROOT));
    assert!(store.head(&key("a")).await.unwrap_err().is(codes::STORE_ROOT));
    assert!(store.delete(&key("a")).await.unwrap_err().is(codes::STORE_ROOT));
    let fault = store.list("data/").await.unwrap_err();
    assert!(fault.is(codes::STORE_ROOT), "{fault:?}");
    assert!(fault.hint_text().unwrap().contains("mounted"));
    assert!(!root.exists(), "nothing may be made by itself");
}

#[tokio::test]
async fn the_root_is_made_only_on_request() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(directory.path().join("new/root").to_str().unwrap()).unwrap();
    options.limits = short_limits();
    assert!(open(&options).unwrap().list("").await.unwrap_err().is(codes::STORE_ROOT));
    options.create_root = true;
    contract::run(&*open(&options).unwrap()).await;
    open(&options).expect("an existing root is fine");
}

#[tokio::test]
async fn listings_leave_out_what_is_not_an_object() {
    let (directory, store) = local();
    store.put(&key("data/a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    fs::write(directory.path().join("data/.tmp-0123"), "half").unwrap();
    fs::write(directory.path().join("data/foreign file"), "x").unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    fs::write(directory.path().join("lost+found/x"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("data/dangling")).unwrap();
    let names: Vec<String> = store.list("").await.unwrap().iter().map(|meta| meta.key.to_string()).collect();
    assert_eq!(names, ["data/a"]);
}

#[tokio::test]
async fn a_loop_of_links_is_an_error_and_no_endless_walk() {
    let (directory, store) = local();
    fs::create_dir(directory.path().join("data")).unwrap();
    std::os::unix::fs::symlink("..", directory.path().join("data/up")).unwrap();
    assert!(store.list("").await.unwrap_err().is(codes::STORE_LIST));
}

#[tokio::test]
async fn only_old_unfinished_files_are_swept() {
    let (directory, store) = local();
    store.put(&key("data/a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    fs::write(directory.path().join("data/.tmp-young"), "x").unwrap();
    let old = fs::File::create(directory.path().join("data/.tmp-old")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_hours(48)).unwrap();
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert!(directory.path().join("data/.tmp-young").exists());
    assert!(!directory.path().join("data/.tmp-old").exists());
    assert_eq!(store.get(&key("data/a")).await.unwrap(), "x");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing_half() {
    let directory = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(directory.path(), 2);
    let store = Local::new(mount.path());
    store.put(&key("small"), bytes("x"), PutMode::Overwrite).await.unwrap();
    let fault = store.put(&key("big"), Bytes::from(vec![1; 4 << 20]), PutMode::IfAbsent).await.unwrap_err();
    assert!(fault.is(codes::STORE_FULL), "{fault:?}");
    let said = fault.chain();
    assert!(said.contains("4194304 bytes") && said.contains(&*directory.path().to_string_lossy()), "{said}");
    assert_eq!(temporaries(directory.path()), 0, "the space is given back");
    assert_eq!(store.list("").await.unwrap().len(), 1);
    let outcome = store.put(&key("fits"), Bytes::from(vec![1; 1 << 20]), PutMode::IfAbsent).await.unwrap();
    assert_eq!(outcome, PutOutcome::Written);
    drop(mount);
}

#[tokio::test]
async fn a_read_only_disk_is_denied_and_still_readable() {
    let directory = tempfile::tempdir().unwrap();
    let mount = Mount::tmpfs(directory.path(), 2);
    let store = Local::new(mount.path());
    store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    let remounted = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(mount.path()).status().unwrap();
    assert!(remounted.success());
    let fault = store.put(&key("b"), bytes("x"), PutMode::Overwrite).await.unwrap_err();
    assert!(fault.is(codes::STORE_DENIED), "{fault:?}");
    assert!(fault.hint_text().unwrap().contains("read-only"));
    assert!(store.delete(&key("a")).await.unwrap_err().is(codes::STORE_DENIED));
    assert_eq!(store.get(&key("a")).await.unwrap(), "x");
}

#[tokio::test]
async fn a_file_in_place_of_a_directory_is_an_error() {
    let (_directory, store) = local();
    store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    assert!(store.put(&key("a/b"), bytes("x"), PutMode::Overwrite).await.is_err());
    assert!(store.list("a/").await.is_err());
    assert!(store.get(&key("a/b")).await.is_err());
    assert!(store.head(&key("a/b")).await.is_err());
}
