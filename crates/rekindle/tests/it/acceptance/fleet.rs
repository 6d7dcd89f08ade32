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
