//! The recovery kit: written, shared, joined, confirmed, asked for.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use super::stack::{REPOSITORY_PASSWORD, Stack};
use crate::run::Ended;

fn names(stack: &Stack, directory: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(stack.path(directory))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
            entry.file_name().into_string().unwrap()
        })
        .collect();
    names.sort();
    names
}

fn kit_state(stack: &Stack) -> Value {
    stack.place.json(0, &["status"])["result"]["kit"]["state"].take()
}

#[test]
fn a_kit_with_the_whole_key_opens_the_repository() {
    let mut stack = Stack::new();
    let data = stack.files("data");
    fs::write(data.join("a"), "saved").unwrap();
    stack.complete();
    assert_eq!(kit_state(&stack), "never");
    assert!(stack.place.ends(0, &["status"]).out.contains("rekindle kit create"));

    let made = stack.place.ends(0, &["kit", "create", "--out", "kit"]);
    assert!(!format!("{made:?}").contains(REPOSITORY_PASSWORD), "never on standard output");
    assert_eq!(names(&stack, "kit"), ["recovery-kit.html", "recovery-kit.txt"]);
    assert_eq!(fs::metadata(stack.path("kit")).unwrap().permissions().mode() & 0o7777, 0o700);
    let text = stack.place.read("kit/recovery-kit.txt");
    let html = stack.place.read("kit/recovery-kit.html");
    let url = format!("file://{}", stack.path("repo").display());
    let program =
        Ended::of(std::process::Command::new("sha256sum").arg(env!("CARGO_BIN_EXE_rekindle")).output().unwrap());
    let checksum = program.out.split(' ').next().unwrap().to_owned();
    let restic = format!("restic -r '{}'", stack.path("repo").display());
    for (page, quote) in [(&text, "'"), (&html, "'")] {
        for part in [REPOSITORY_PASSWORD, &url, &checksum, &format!("recover --from {quote}{url}{quote}"), &restic] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
    stack.place.ends(21, &["kit", "create", "--out", "kit"]).says("RK-KT-003", &["not empty"]);

    // The first command of the kit, as it is printed, with what a person would type.
    let line = text.lines().map(str::trim).find(|line| line.starts_with("./rekindle list")).unwrap();
    stack.place.write("typed/repository-key", &format!("{REPOSITORY_PASSWORD}\n"));
    let binary = format!("'{}'", env!("CARGO_BIN_EXE_rekindle"));
    let shell = std::process::Command::new("sh")
        .args(["-c", &line.replacen("./rekindle", &binary, 1)])
        .current_dir(stack.path("typed"))
        .output()
        .unwrap();
    let listed = Ended::of(shell);
    assert_eq!(listed.code, 0, "{listed:#?}");
    assert!(listed.out.contains("shop"), "{listed:#?}");

    stack.place.write("wrong", "another-password\n");
    stack.place.ends(12, &["kit", "confirm", "wrong"]).says("RK-RP-003", &["does not open"]);
    assert_eq!(kit_state(&stack), "never");
    stack.place.json(0, &["kit", "confirm", "typed/repository-key", "--note", "safe in the office"]);
    assert_eq!(kit_state(&stack), "confirmed");
    // Another key does not make the kit worthless; a replaced one does.
    stack.place.write("second", "another-good-password-of-length\n");
    stack.place.ends(0, &["key", "add", "--new-password-file", "second"]);
    assert_eq!(kit_state(&stack), "confirmed");
    stack.place.write("third", "a-third-good-password-of-length\n");
    stack.place.ends(0, &["key", "passwd", "--new-password-file", "third"]);
    stack.place.write("key", "a-third-good-password-of-length\n");
    assert_eq!(kit_state(&stack), "outdated");
}

#[test]
fn shares_give_the_key_back_and_mistakes_are_named() {
    let mut stack = Stack::new();
    stack.quicken();
    stack.files("data");
    stack.complete();
    stack.place.ends(2, &["kit", "create", "--out", "kit", "--shares", "3"]);
    stack.place.ends(2, &["kit", "create", "--out", "kit", "--shares", "2", "--threshold", "3"]);
    assert!(!stack.path("kit").exists());
    let made = stack.place.json(0, &["kit", "create", "--out", "kit", "--shares", "5", "--threshold", "3"]);
    assert_eq!(made["result"]["files"].as_array().unwrap().len(), 12);
    for name in names(&stack, "kit") {
        assert!(!stack.place.read(&format!("kit/{name}")).contains(REPOSITORY_PASSWORD), "{name}");
    }
    let share = |n: usize, ending: &str| format!("kit/share-{n}-of-5.{ending}");
    // Any three, from text or page.
    let joined = ["kit", "combine", &share(5, "txt"), &share(1, "html"), &share(3, "txt"), "--out", "joined"];
    let ended = stack.place.ends(0, &joined);
    assert!(!format!("{ended:?}").contains(REPOSITORY_PASSWORD));
    assert_eq!(stack.place.read("joined"), format!("{REPOSITORY_PASSWORD}\n"));
    assert_eq!(fs::metadata(stack.path("joined")).unwrap().permissions().mode() & 0o7777, 0o600);
    stack.place.ends(21, &joined).says("RK-KT-003", &["joined"]);
    let combine = |shares: &[&str]| {
        let mut arguments = vec!["kit", "combine"];
        arguments.extend(shares);
        arguments.extend(["--out", "never"]);
        stack.place.ends(2, &arguments)
    };
    combine(&[&share(1, "txt"), &share(2, "txt")]).says("RK-KT-001", &["2 shares were given, 3 are needed"]);
    combine(&[&share(1, "txt"), &share(1, "txt"), &share(2, "txt")]).says("RK-KT-001", &["number 1 was given twice"]);
    // Typed by hand, one of them wrongly.
    let printed = stack.place.read(&share(2, "txt"));
    let lines: Vec<&str> = printed.lines().map(str::trim).collect();
    let begin = lines.iter().position(|line| line.contains("BEGIN")).unwrap();
    let end = lines.iter().position(|line| line.contains("END")).unwrap();
    let typed = lines[begin + 1..end].join(" ").to_lowercase().replace('-', "");
    stack.place.write("typed", &typed);
    let last = if typed.ends_with('q') { "r" } else { "q" };
    stack.place.write("mistyped", &format!("{}{last}", &typed[..typed.len() - 1]));
    combine(&[&share(1, "txt"), "mistyped", &share(3, "txt")]).says("RK-KT-001", &["share 2 of those given"]);
    assert!(!stack.path("never").exists());
    // From standard input, never from the command line.
    let mut child = stack
        .place
        .command(&["kit", "combine", "-", "typed", "--out", "from-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let two = stack.place.read(&share(4, "txt")) + &stack.place.read(&share(1, "html"));
    child.stdin.take().unwrap().write_all(two.as_bytes()).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert_eq!(stack.place.read("from-stdin"), format!("{REPOSITORY_PASSWORD}\n"));
    let confirmed = stack.place.json(0, &["kit", "confirm", &share(1, "txt"), &share(2, "txt"), &share(3, "txt")]);
    assert_eq!(confirmed["result"]["tried"], json!(true));
}
