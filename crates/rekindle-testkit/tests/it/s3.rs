use std::path::PathBuf;
use std::process::{Command, Output};

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
    let path: PathBuf = noise.path().into();
    let program = tools::find("restic");
    let mut child = Command::new("timeout")
        .arg("20")
        .arg(program)
        .args(["--no-cache", "-r"])
        .arg(format!("s3:{}/{}/repo", s3.endpoint(), s3.bucket()))
        .arg("backup")
        .arg(path)
        .env("AWS_ACCESS_KEY_ID", s3.access_key())
        .env("AWS_SECRET_ACCESS_KEY", s3.secret_key())
        .env("RESTIC_PASSWORD", "x")
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
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
