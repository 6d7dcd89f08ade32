//! Many stacks seen from one place.

use rekindle_testkit::{S3, S3Options};
use serde_json::Value;

use super::stack::{Stack, noise};
use crate::run::Place;

/// A repository below the fleet's place, with a stack of its own.
fn member(place: &Place, name: &str) -> Stack {
    let url = format!("file://{}", place.path().join(name).display());
    let mut stack = Stack::at(Place::new(), &format!("url = \"{url}\""), &url);
    let data = stack.files("data");
    std::fs::write(data.join("a"), noise(1, 50_000)).unwrap();
    stack
}

fn names(place: &Place, members: &[(&str, &Stack)], more: &str) {
    let one = |(name, stack): &(&str, &Stack)| {
        format!(
            "[member.{name}]\n[member.{name}.repository]\nurl = \"file://{}\"\npassword = \"file:{}\"\n",
            place.path().join(name).display(),
            stack.path("key").display()
        )
    };
    let text: Vec<String> = members.iter().map(one).collect();
    place.write("fleet.toml", &format!("{more}\n{}", text.join("\n")));
}

fn standing(answer: &Value, repository: usize) -> &str {
    answer["result"]["repositories"][repository]["stacks"][0]["standing"].as_str().unwrap()
}

#[test]
fn fleet_status_reads_all_and_names_what_is_late_partial_or_unreachable() {
    let place = Place::new();
    let (good, late, partial) = (member(&place, "good"), member(&place, "late"), member(&place, "partial"));
    for stack in [&good, &late, &partial] {
        stack.place.ends(0, &["backup"]);
    }
    names(&place, &[("good", &good)], "");
    let answer = place.json(0, &["fleet", "status"]);
    assert_eq!(standing(&answer, 0), "good");
    assert_eq!(answer["result"]["repositories"][0]["stacks"][0]["points"], 1);

    // A second component that was never captured: frequent good points of the first do not hide it.
    let mut partial = partial;
    partial.add("[component.more]\nkind = \"files\"\npaths = [\"/nowhere/at/all\"]");
    partial.place.ends(3, &["backup"]);
    partial.place.ends(0, &["backup", "files"]);
    names(&place, &[("good", &good), ("late", &late), ("partial", &partial)], "");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let text = place.read("fleet.toml").replace("[member.late]\n", "[member.late]\nmax-age = \"1s\"\n");
    place.write("fleet.toml", &text);
    let answer = place.json(4, &["fleet", "status"]);
    assert_eq!((standing(&answer, 0), standing(&answer, 1), standing(&answer, 2)), ("good", "late", "late"));
    assert!(answer["result"]["repositories"][2]["stacks"][0]["late"]["more"].is_null());
    let shown = place.ends(4, &["fleet", "status"]);
    assert!(shown.out.contains("more was never captured whole"), "{shown:#?}");

    // A component that is gone on purpose is said to be.
    place.write("fleet.toml", &text.replace("[member.partial]\n", "[member.partial]\nignore = [\"more\"]\n"));
    let answer = place.json(4, &["fleet", "status"]);
    assert_eq!(standing(&answer, 2), "good");

    // One that cannot be looked at is worse than one that is late, and hides no other.
    std::fs::rename(place.path().join("good"), place.path().join("away")).unwrap();
    let answer = place.json(10, &["fleet", "status"]);
    assert_eq!(answer["result"]["repositories"][0]["stacks"].as_array().unwrap().len(), 0);
    assert_eq!(standing(&answer, 1), "late");
    assert!(answer["error"]["message"].as_str().unwrap().contains("repository `good`"), "{answer:#}");
}

#[test]
fn several_hosts_share_one_repository_in_one_bucket() {
    let server = S3::start(S3Options::default());
    let place = Place::new();
    let url = format!("s3://{}/shared", server.bucket());
    let access = format!(
        "endpoint = \"{}\"\nregion = \"{}\"\naccess-key-id = \"{}\"\nsecret-access-key = \"env:SECRET\"\npath-style = true",
        server.endpoint(),
        server.region(),
        server.access_key()
    );
    let mut hosts = Vec::new();
    for host in ["one", "two"] {
        let mut own = Place::new();
        own.set("SECRET", &server.secret_key());
        own.write("key", "the password of both\n");
        own.write("data/a", &format!("of {host}"));
        own.write(
            "rekindle.toml",
            &format!(
                "[stack]\nname = \"shop\"\nhost = \"{host}\"\n[repository]\nurl = \"{url}\"\npassword = \"file:{}\"\n{access}\n\
                 [component.files]\nkind = \"files\"\npaths = [\"{}\"]\n",
                own.path().join("key").display(),
                own.path().join("data").display()
            ),
        );
        hosts.push(own);
    }
    hosts[0].ends(0, &["init"]);
    // Both write at the same time; a lock that is held is waited for or told (11), never ignored.
    let children: Vec<_> = hosts.iter().map(|host| host.command(&["backup"]).spawn().unwrap()).collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    hosts[0].ends(0, &["verify", "--read-data"]);
    for (host, other) in [(0, "two"), (1, "one")] {
        let list = hosts[host].json(0, &["list", "--host", other]);
        let point = list["result"]["points"][0]["id"].as_str().unwrap().to_owned();
        hosts[host].ends(0, &["restore", &point, "files", "--to", "back"]);
    }
    let mut watcher = place;
    watcher.set("SECRET", &server.secret_key());
    watcher.write("key", "the password of both\n");
    watcher.write(
        "fleet.toml",
        &format!(
            "[member.all]\n[member.all.repository]\nurl = \"{url}\"\npassword = \"file:{}\"\n{access}\n",
            watcher.path().join("key").display()
        ),
    );
    let answer = watcher.json(0, &["fleet", "status"]);
    let stacks = answer["result"]["repositories"][0]["stacks"].as_array().unwrap();
    let seen: Vec<&str> = stacks.iter().map(|one| one["host"].as_str().unwrap()).collect();
    assert_eq!(seen, ["one", "two"]);
}

#[test]
fn a_fleet_of_nothing_is_a_wrong_command_line_and_never_good() {
    let place = Place::new();
    for text in ["[member]\n", "max-age = \"1h\"\n# every one is commented out\n[member]\n# [member.shop]\n"] {
        place.write("fleet.toml", text);
        let ended = place.ends(2, &["fleet", "status"]);
        ended.says("RK-CL-001", &["fleet.toml", "it names no repository", "[member.NAME]"]);
        let answer = place.json(2, &["fleet", "status"]);
        assert_eq!(answer["error"]["code"], "RK-CL-001", "{answer}");
    }
    // Not even the table: the file is no fleet.
    place.write("fleet.toml", "");
    place.ends(5, &["fleet", "status"]).says("RK-CF-004", &["`member` is missing"]);
    place.ends(5, &["fleet", "status", "--file", "nowhere.toml"]);
}

#[test]
fn fleet_status_shows_copies_and_how_far_they_are_behind() {
    let place = Place::new();
    let mut shop = member(&place, "shop");
    shop.place.write("copy-key", "canary-password-of-the-copy");
    let url = format!("file://{}", place.path().join("away").display());
    shop.set(&format!("[copy.offsite]\nurl = \"{url}\"\npassword = \"file:copy-key\"\n"));
    shop.place.ends(0, &["backup"]);
    shop.place.ends(0, &["copy", "--init"]);
    names(&place, &[("shop", &shop)], "");
    let usual = place.read("fleet.toml");
    let copy = |lag: &str| {
        let key = shop.path("copy-key");
        let table =
            format!("[member.shop.copy.offsite]\nurl = \"{url}\"\npassword = \"file:{}\"\n{lag}", key.display());
        place.write("fleet.toml", &format!("{usual}\n{table}"));
    };
    copy("");
    let answer = place.json(0, &["fleet", "status"]);
    let told = &answer["result"]["repositories"][0]["copies"][0];
    assert_eq!((told["copy"].as_str(), told["points"].as_u64()), (Some("offsite"), Some(1)), "{answer}");
    assert_eq!((told["lag_seconds"].as_u64(), told["late"].as_bool()), (Some(0), Some(false)), "{answer}");
    assert!(place.ends(0, &["fleet", "status"]).out.contains("holds everything"));

    // Behind, and not for too long; then for too long.
    shop.place.ends(0, &["backup"]);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let answer = place.json(0, &["fleet", "status"]);
    let told = &answer["result"]["repositories"][0]["copies"][0];
    assert_eq!((told["points_missing"].as_u64(), told["late"].as_bool()), (Some(1), Some(false)), "{answer}");
    copy("max-lag = \"1s\"\n");
    let shown = place.ends(4, &["fleet", "status"]);
    shown.says("RK-EN-009", &["the copy `offsite` of `shop`", "behind"]);
    assert!(shown.out.contains("late: ") && shown.out.contains("lacks 1 points"), "{shown:#?}");
    assert_eq!(standing(&place.json(4, &["fleet", "status"]), 0), "good", "the stack itself is not late");

    // One that is gone is never good, and hides nothing.
    std::fs::rename(place.path().join("away"), place.path().join("lost")).unwrap();
    let answer = place.json(10, &["fleet", "status"]);
    let told = &answer["result"]["repositories"][0]["copies"][0];
    assert_eq!((told["reachable"].as_bool(), standing(&answer, 0)), (Some(false), "good"), "{answer}");

    // The repository is gone: what its copy holds is all there may be left, and is said.
    std::fs::rename(place.path().join("lost"), place.path().join("away")).unwrap();
    let here = place.path().join("shop");
    std::fs::rename(&here, here.with_extension("lost")).unwrap();
    let answer = place.json(10, &["fleet", "status"]);
    let told = &answer["result"]["repositories"][0]["copies"][0];
    assert!(told["reachable"] == true && told["points"].as_u64() > Some(0), "{answer}");
    assert!(told["newest"].is_string() && told["points_missing"].is_null() && told["error"].is_string(), "{answer}");
    let shown = place.ends(10, &["fleet", "status"]);
    assert!(shown.out.contains("what it lacks is not known"), "{shown:#?}");
}
