//! A standby as the source of base backups.

use std::time::Duration;

use rekindle_testkit::{Fault, Postgres, Proxy};

use super::promote::{follows, promote, standby};
use super::{Room, mark, marker_table, markers, options, serve};
use crate::acceptance::stack::{end, wait_until};
use crate::acceptance::wal_support::Log;

#[test]
fn a_standby_is_a_source_unless_it_is_promoted_meanwhile() {
    let primary = Postgres::start(options(15, &[]));
    let room = Room::new();
    marker_table(&primary);
    mark(&primary, 200_000);
    let source = standby(&primary, &room.path("standby"), &[]);
    follows(&source, &primary);
    let log = Log::with(&source, "none");
    log.backup();
    let shown = log.place.json(0, &["show", "latest"]);
    assert_eq!(shown["result"]["manifest"]["components"][0]["details"]["standby"], true, "{shown:#}");
    let data = room.path("copy");
    let to = data.display().to_string();
    log.place.json(0, &["restore", "latest", "database", "--to", &to]);
    let copy = serve(15, &data);
    assert_eq!(markers(&copy), markers(&primary));
    drop(copy);

    let proxy = Proxy::start(source.port());
    log.configure("database", proxy.port());
    let backup = log.place.command(&["backup"]);
    proxy.set(Fault::Delay(Duration::from_millis(2)));
    let mut backup = backup;
    let child = backup.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_until("the backup is on its way", || proxy.bytes() > 4 << 20);
    promote(&source);
    proxy.set(Fault::None);
    let ended = end(child);
    assert!(ended.code != 0 && ended.err.contains("promoted"), "{ended:#?}");
    assert_eq!(log.place.json(0, &["list"])["result"]["points"].as_array().unwrap().len(), 1);
    // As a primary it is a source again.
    log.backup();
}
