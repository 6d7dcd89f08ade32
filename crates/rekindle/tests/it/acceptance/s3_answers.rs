//! A stack on S3 whose server answers with errors, not at all, or does what it was asked to and
//! never says so.

use std::fs;
use std::time::Duration;

use rekindle_testkit::{Answer, HttpProxy, S3, S3Options};

use super::s3::{comes_back, stack_on};
use super::stack::{Stack, end, noise, wait_until};

struct Behind {
    _s3: S3,
    proxy: HttpProxy,
    stack: Stack,
}

impl Behind {
    fn new() -> Self {
        let s3 = S3::start(S3Options::default());
        let proxy = HttpProxy::start(s3.port());
        let stack = stack_on(&s3, proxy.port());
        stack.complete();
        Self { _s3: s3, proxy, stack }
    }

    /// Something new to upload, of several packs.
    fn change(&self, seed: u64) {
        fs::write(self.stack.path("data/large"), noise(seed, 24 << 20)).unwrap();
    }

    /// A run that these answers must not keep from its end; each of them is given.
    fn survives(&self, name: &str, rules: &[(&'static str, &str, u32, Answer)]) {
        let before = self.stack.points().len();
        for (method, part, times, answer) in rules {
            self.proxy.rule(method, part, Some(*times), answer.clone());
        }
        self.stack.complete();
        let expected: u32 = rules.iter().map(|(_, _, times, _)| times).sum();
        assert_eq!(self.proxy.clear(), expected, "{name}: every fault was met");
        assert_eq!(self.stack.points().len(), before + 1, "{name}");
        comes_back(&self.stack, name);
    }

    /// A run that this answer, given for ever, makes fail with exit 20 and this error; then one
    /// without it.
    fn fails(&self, method: &'static str, part: &str, answer: Answer, error: &str) {
        let before = self.stack.points();
        self.proxy.rule(method, part, None, answer);
        let ended = self.stack.place.ends(20, &["backup"]);
        ended.says(error, &["s3://", "shop"]);
        assert!(self.proxy.clear() > 0);
        assert_eq!(self.stack.points(), before, "no point");
        self.stack.complete();
        comes_back(&self.stack, &format!("after-{}", self.stack.points().len()));
    }
}

fn status(status: u16) -> Answer {
    Answer::Instead(status, Vec::new())
}

#[test]
fn errors_of_the_server_for_a_while_are_survived() {
    let behind = Behind::new();
    behind.change(2);
    behind.survives(
        "errors",
        &[
            ("GET", "list-type", 2, status(503)),
            ("PUT", "/locks/", 1, status(500)),
            ("PUT", "/data/", 3, status(500)),
            ("PUT", "/index/", 1, status(502)),
            ("PUT", "/snapshots/", 2, status(500)),
            ("PUT", "/ledger/", 1, status(500)),
        ],
    );
}

#[test]
fn answers_that_are_lost_are_asked_for_again() {
    let behind = Behind::new();
    behind.change(2);
    let everywhere = |answer: &Answer| {
        ["/locks/", "/data/", "/index/", "/snapshots/", "/ledger/"].map(|part| ("PUT", part, 1, answer.clone()))
    };
    behind.survives("cut", &everywhere(&Answer::Lost));
    behind.change(3);
    behind.survives("changed", &everywhere(&Answer::Changed(500)));
}

#[test]
fn uploads_cut_in_their_middle_are_repeated() {
    let behind = Behind::new();
    behind.change(2);
    behind.survives(
        "cut",
        &[("PUT", "/data/", 3, Answer::CutBody(300_000)), ("PUT", "/snapshots/", 1, Answer::CutBody(10))],
    );
}

#[test]
fn a_server_that_does_not_answer_for_a_while_is_waited_for() {
    let behind = Behind::new();
    behind.change(2);
    behind.proxy.rule("PUT", "/data/", None, Answer::Held);
    let child = behind.stack.start(&["backup"]);
    wait_until("an upload", || behind.proxy.hits() > 0);
    std::thread::sleep(Duration::from_secs(2));
    behind.proxy.clear();
    let ended = end(child);
    assert_eq!(ended.code, 0, "{ended:#?}");
    comes_back(&behind.stack, "back");
}

#[test]
fn errors_for_ever_to_data_are_20() {
    let behind = Behind::new();
    behind.change(2);
    behind.fails("PUT", "/data/", status(500), "RK-ST-011");
}

#[test]
fn errors_for_ever_to_the_last_object_are_20() {
    let behind = Behind::new();
    behind.change(2);
    behind.fails("PUT", "/snapshots/", status(503), "RK-ST-011");
}

#[test]
fn uploads_that_are_always_cut_are_20() {
    let behind = Behind::new();
    behind.change(2);
    behind.fails("PUT", "/data/", Answer::CutBody(200_000), "RK-ST-002");
}

#[test]
fn an_upload_that_may_not_be_made_is_20_at_once() {
    let behind = Behind::new();
    for (seed, part) in [(2, "/data/"), (3, "/index/"), (4, "/snapshots/")] {
        behind.change(seed);
        behind.fails("PUT", part, status(403), "RK-ST-003");
    }
}

/// The last object is there and nobody ever says so: it is read back, and so the run is a success.
#[test]
fn a_point_whose_answer_is_always_lost_is_found_by_reading_it_back() {
    let behind = Behind::new();
    behind.change(2);
    let before = behind.stack.points();
    behind.proxy.rule("PUT", "/snapshots/", None, Answer::Lost);
    behind.stack.complete();
    assert!(behind.proxy.clear() > 1);
    assert_eq!(behind.stack.points().len(), before.len() + 1);
    comes_back(&behind.stack, "back");
    behind.stack.complete();
    comes_back(&behind.stack, "after");
}

#[test]
fn a_listing_that_is_refused_never_looks_empty() {
    let behind = Behind::new();
    let before = behind.stack.points();
    for folder in ["snapshots", "index", "keys", "locks"] {
        behind.proxy.rule("GET", &format!("prefix=shop%2F{folder}"), None, status(403));
        let commands = [&["backup"][..], &["list"], &["verify"], &["prune"], &["restore", "latest", "--to", "x"]];
        for arguments in commands {
            if folder == "locks" && !matches!(arguments[0], "backup" | "prune") {
                continue;
            }
            if folder == "keys" {
                // With the opened key at hand, the folder of keys is not listed at all.
                let _ = fs::remove_dir_all(behind.stack.place.path().join("state"));
            }
            let ended = behind.stack.place.run(arguments);
            // Prune says that it refuses, and why.
            let refused = arguments[0] == "prune" && ended.code == 21;
            if !refused {
                assert_eq!(ended.code, 20, "{folder}: {arguments:?}: {ended:#?}");
                ended.says("RK-ST-003", &["s3://", "shop"]);
            }
            assert!(ended.out.is_empty() && ended.err.contains("403"), "{folder}: {arguments:?}: {ended:#?}");
        }
        assert!(behind.proxy.clear() > 0, "{folder}");
    }
    assert_eq!(behind.stack.points(), before);
    behind.stack.complete();
}

#[test]
fn a_restore_that_lost_the_storage_in_its_middle_is_in_the_audit_log() {
    let behind = Behind::new();
    behind.proxy.rule("GET", "/data/", None, status(503));
    let ended = behind.stack.place.run(&["restore", "latest", "--to", "back"]);
    assert!(behind.proxy.clear() > 0);
    assert_ne!(ended.code, 0, "{ended:#?}");
    let said = behind.stack.place.json(0, &["audit", "list", "--last", "1"]);
    let act = &said["result"]["acts"][0];
    assert_eq!((&act["operation"], &act["exit_code"]), (&"restore".into(), &ended.code.into()), "{said}");
    // What never reached the storage did nothing.
    behind.proxy.rule("GET", "", None, status(503));
    behind.stack.place.ends(20, &["restore", "latest", "--to", "again"]);
    behind.proxy.clear();
    let acts = behind.stack.place.json(0, &["audit", "list"])["result"]["acts"].as_array().unwrap().len();
    assert_eq!(acts, said["result"]["acts"].as_array().unwrap().len());
}
