use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rekindle_testkit::s3::S3Key;
use rekindle_testkit::{S3, S3Options, tools};

/// restic is an S3 client we did not write.
fn restic(s3: &S3, key: &S3Key, args: &[&str]) -> Output {
    let mut command = Command::new(tools::find("restic"));
    if let Some(ca) = s3.ca() {
        command.arg("--cacert").arg(ca);
    }
    command
        .args(["--no-cache", "-r"])
        .arg(format!("s3:{}/{}/repo", s3.endpoint(), s3.bucket()))
        .args(args)
        .env("AWS_ACCESS_KEY_ID", &key.access)
        .env("AWS_SECRET_ACCESS_KEY", &key.secret)
        .env("RESTIC_PASSWORD", "x")
        .output()
        .unwrap()
}

#[test]
fn the_bucket_takes_and_keeps_objects_over_a_crash() {
    let mut s3 = S3::start(S3Options::default());
    let init = restic(&s3, &s3.admin_key(), &["init"]);
    assert!(init.status.success(), "{init:?}");
    s3.kill9();
    s3.restart();
    let cat = restic(&s3, &s3.admin_key(), &["cat", "config"]);
    assert!(cat.status.success(), "{cat:?}");
    s3.sigstop();
    s3.sigcont();
    assert!(restic(&s3, &s3.admin_key(), &["cat", "config"]).status.success());
}

#[test]
fn tls_and_keys_are_checked() {
    let s3 = S3::start(S3Options { tls: true, read_only_key: true, ..S3Options::default() });
    assert!(s3.endpoint().starts_with("https://"));
    assert_eq!(s3.access_key(), s3.reader_key().access);
    assert!(!restic(&s3, &s3.reader_key(), &["init"]).status.success());
    let init = restic(&s3, &s3.admin_key(), &["init"]);
    assert!(init.status.success(), "{init:?}");
    assert!(restic(&s3, &s3.reader_key(), &["--no-lock", "cat", "config"]).status.success());
    let wrong = S3Key { secret: "wrong".to_owned(), ..s3.admin_key() };
    assert!(!restic(&s3, &wrong, &["--no-lock", "cat", "config"]).status.success());
}

#[test]
fn a_small_disk_runs_full_and_is_unmounted() {
    let s3 = S3::start(S3Options { data_dir_tmpfs_mb: Some(96), ..S3Options::default() });
    assert!(restic(&s3, &s3.admin_key(), &["init"]).status.success());
    let noise = tempfile::NamedTempFile::new().unwrap();
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut file = noise.as_file();
    std::io::copy(&mut std::io::Read::take(&mut random, 128 << 20), &mut file).unwrap();
    let said = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(tools::find("restic"))
        .args(["--no-cache", "-r"])
        .arg(format!("s3:{}/{}/repo", s3.endpoint(), s3.bucket()))
        .arg("backup")
        .arg(noise.path())
        .env("AWS_ACCESS_KEY_ID", s3.access_key())
        .env("AWS_SECRET_ACCESS_KEY", s3.secret_key())
        .env("RESTIC_PASSWORD", "x")
        .stderr(said.as_file().try_clone().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // restic would try again for many minutes: its first complaint is enough.
    let complained = || std::fs::read_to_string(said.path()).unwrap().contains("returned error");
    let deadline = Instant::now() + Duration::from_mins(1);
    while !complained() && child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(complained(), "a full disk refuses a write");
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = s3.pid().unwrap();
    let data = s3.data_dir();
    let mounted = || {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        mounts.contains(&format!(" {} ", data.display()))
    };
    assert!(mounted());
    drop(s3);
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    assert!(!mounted() && !data.exists());
}
