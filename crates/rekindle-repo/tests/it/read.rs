//! Points of ours: read, restored, missed when they are gone; trees that want to leave the target.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use rekindle_core::entry::{EntryKind, Meta, ReadFault};
use rekindle_core::port::{Clock, Materialize, Repository, Reuse};
use rekindle_core::{Cancel, Fault, PointId, codes};
use rekindle_repo::admin::{self, Actor, PruneOptions};
use rekindle_repo::format::index::IndexFile;
use rekindle_repo::format::node::{Node, NodeContent};
use rekindle_repo::format::pack::{self, BlobKind, PackedBlob};
use rekindle_repo::format::snapshot::Snapshot;
use rekindle_repo::format::{Id, names, tree, unpacked};
use rekindle_repo::points::{NamedSnapshot, open_foreign, resolve, view};
use rekindle_repo::verify::{Subset, VerifyOptions, verify};
use rekindle_store::{Key, PutMode};

use crate::support::{Now, Place};
use crate::write_support::{Act, file, id, made, noise, path, save, stream};

fn actor() -> Actor {
    Actor { host: "here".to_owned(), run: None, clock: Arc::new(Now) }
}

#[test]
fn a_point_of_ours_comes_back_and_its_disappearance_is_an_alarm() {
    let place = Place::new();
    let repo = place.init();
    let one = noise(3 << 20, 1);
    let (first, _) = save(&repo, vec![file("one", made(one.clone(), Act::Good))], Reuse::Nothing).unwrap();
    let (second, _) = save(&repo, vec![file("two", made(noise(9_000, 2), Act::Good))], Reuse::Nothing).unwrap();
    let points = view(&repo).unwrap();
    assert_eq!(resolve(&points, "latest").unwrap().id(), second.id());
    assert_eq!(resolve(&points, &first.id().as_str()[..8]).unwrap().id(), first.id());
    assert!(resolve(&points, "ffff0000ffff").unwrap_err().is(codes::REPO_NO_POINT));

    let part = repo.open(first.id(), &id("files")).unwrap();
    let into = place.fresh("into");
    let result = part.materialize(&Materialize::all(&into), &place.context()).unwrap();
    assert_eq!(result.lost, []);
    assert_eq!(fs::read(into.join("one")).unwrap(), one);
    let options = VerifyOptions { read_data: Some(Subset::All) };
    let report = verify(&repo, &options, &Cancel::new()).unwrap();
    assert!(report.is_good() && report.unrecorded.is_empty(), "{report:?}");

    repo.store().delete(&Key::new(&format!("snapshots/{}", second.id())).unwrap()).unwrap();
    let report = verify(&repo, &options, &Cancel::new()).unwrap();
    assert!(report.damage.iter().any(|d| d.object.contains(second.id().as_str()) && d.code == "RK-RP-015"));
    let refused = admin::prune(&repo, &PruneOptions::default(), &actor(), &Cancel::new()).unwrap_err();
    assert!(refused.is(codes::REPO_PRUNE_REFUSED), "{refused:?}");
}

/// Puts a tree into the repository that no honest writer makes.
fn hostile(repo: &rekindle_repo::Repo, nodes: &[Node]) -> Id {
    let mut json = String::from("{\"nodes\":[");
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        node.push_json(&mut json);
    }
    json.push_str("]}\n");
    put_blob(repo, BlobKind::Tree, json.as_bytes())
}

fn put_blob(repo: &rekindle_repo::Repo, kind: BlobKind, content: &[u8]) -> Id {
    let mut bytes = Vec::new();
    repo.key().seal_into(content, &mut bytes).unwrap();
    let length = u32::try_from(bytes.len()).unwrap();
    let blob = PackedBlob { kind, id: Id::of(content), offset: 0, length, uncompressed: None };
    pack::finish(repo.key(), &[blob], &mut bytes).unwrap();
    let pack_id = Id::of(&bytes);
    let put = |path: String, bytes: Vec<u8>| {
        repo.store().put(&Key::new(&path).unwrap(), Bytes::from(bytes), PutMode::IfAbsent).unwrap();
    };
    put(names::pack(&pack_id), bytes);
    let json = format!(
        r#"{{"packs":[{{"id":"{pack_id}","blobs":[{{"id":"{}","type":"{}","offset":0,"length":{length}}}]}}]}}"#,
        blob.id,
        kind.as_str()
    );
    let index = IndexFile::decode(json.as_bytes()).unwrap();
    let (name, sealed) = unpacked::encode(repo.key(), &index.encode().unwrap(), true).unwrap();
    put(names::file(names::INDEX, &name), sealed);
    blob.id
}

#[test]
fn hostile_trees_write_nothing_outside_of_the_target() {
    let place = Place::new();
    let repo = place.init();
    let outside = place.fresh("outside");
    let content = put_blob(&repo, BlobKind::Data, b"owned");
    let node = |name: &str, kind: EntryKind, content: NodeContent| {
        let mut meta = Meta::synthetic(kind, Now.now());
        meta.size = if matches!(content, NodeContent::Blobs(_)) { 5 } else { 0 };
        Node { name: name.into(), meta, content }
    };
    let evil = |name: &str| node(name, EntryKind::File, NodeContent::Blobs(vec![content]));
    let inner = hostile(&repo, &[evil("inside")]);
    let target = outside.to_str().unwrap().as_bytes().to_vec();
    let tree = hostile(
        &repo,
        &[
            evil(".."),
            evil("../escaped"),
            evil("/tmp/escaped-absolute"),
            evil("good"),
            node("link", EntryKind::Symlink { target }, NodeContent::Nothing),
            node("link", EntryKind::Directory, NodeContent::Subtree(inner)),
            evil("link/through"),
            evil("z"),
        ],
    );
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{tree}","paths":["/x"]}}"#);
    let snapshot = NamedSnapshot { id: tree, snapshot: Snapshot::decode(json.as_bytes()).unwrap() };
    let part = open_foreign(&repo.reader().unwrap(), &snapshot, None).unwrap();
    let into = place.fresh("box/into");
    let result = part.materialize(&Materialize::all(&into), &place.context()).unwrap();
    assert_eq!(fs::read(into.join("good")).unwrap(), b"owned");
    assert_eq!(fs::read(into.join("z")).unwrap(), b"owned");
    assert_eq!(result.lost.len(), 5, "{:?}", result.lost);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing went through the link");
    assert_eq!(fs::read_dir(place.path("box")).unwrap().count(), 1, "nothing went above the target");
    assert!(part.list(None).unwrap().any(|entry| entry.is_err()), "a listing says so too");
}

/// Every object is whole and every size is right; only the order of two blobs is not.
#[test]
fn a_stream_whose_blobs_are_in_another_order_is_not_given_back_as_whole() {
    let place = Place::new();
    let repo = place.init();
    let dump = noise(12 << 20, 3);
    let (good, part) = save(&repo, vec![stream("dump", dump.clone(), Act::Good)], Reuse::Nothing).unwrap();
    let read = |point: &PointId| -> (Vec<u8>, Option<Fault>) {
        let mut content = repo.open(point, &id("files")).unwrap().open(&path("dump")).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 100_000]);
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return (bytes, None),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(ReadFault::Abort(fault)) => return (bytes, Some(fault)),
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let (bytes, fault) = read(good.id());
    assert!(bytes == dump && fault.is_none(), "{fault:?}");

    let tree = foreign_tree(&repo, &part.tree.parse().unwrap());
    let mut node = tree.into_iter().next().unwrap();
    let NodeContent::Blobs(blobs) = &mut node.content else { panic!("a file") };
    assert!(blobs.len() > 2);
    blobs.swap(0, 1);
    let swapped = hostile(&repo, &[node]);
    let mut manifest = good.manifest().clone();
    manifest.components[0].tree = swapped.hex();
    let manifest = manifest.encode().unwrap();
    let directory = |name: &str, tree: Id| Node {
        name: name.into(),
        meta: Meta::synthetic(EntryKind::Directory, Now.now()),
        content: NodeContent::Subtree(tree),
    };
    let mut meta = Meta::synthetic(EntryKind::File, Now.now());
    meta.size = manifest.len() as u64;
    let blob = put_blob(&repo, BlobKind::Data, &manifest);
    let inner = hostile(&repo, &[Node { name: "manifest.json".into(), meta, content: NodeContent::Blobs(vec![blob]) }]);
    let top = hostile(&repo, &[directory("files", swapped), directory("rekindle", inner)]);
    let json = format!(r#"{{"time":"2026-01-01T00:00:00Z","tree":"{top}","paths":["/x"],"tags":["rekindle"]}}"#);
    let (name, sealed) = unpacked::encode(repo.key(), json.as_bytes(), true).unwrap();
    let key = Key::new(&names::file(names::SNAPSHOTS, &name)).unwrap();
    repo.store().put(&key, Bytes::from(sealed), PutMode::IfAbsent).unwrap();

    let (bytes, fault) = read(&name.hex().parse().unwrap());
    assert_eq!(bytes.len(), dump.len());
    let fault = fault.expect("the end is refused");
    assert!(fault.is(codes::REPO_DAMAGED) && fault.chain().contains("SHA-256"), "{fault:?}");
    assert!(fault.what().contains("dump") && fault.hint_text().is_some(), "{fault:?}");
}

/// The nodes of a stored tree.
fn foreign_tree(repo: &rekindle_repo::Repo, wanted: &Id) -> Vec<Node> {
    for meta in repo.store().list("data/").unwrap() {
        let bytes = repo.store().get(&meta.key).unwrap();
        for blob in pack::decode_pack(repo.key(), &bytes).unwrap() {
            if blob.id == *wanted {
                let (start, length) = (blob.offset as usize, blob.length as usize);
                let plain = repo.key().open(&bytes[start..start + length]).unwrap();
                let json = match blob.uncompressed {
                    Some(size) => unpacked::decompress(&plain, u64::from(size)).unwrap(),
                    None => plain,
                };
                return tree::decode(&json).unwrap();
            }
        }
    }
    panic!("no such tree");
}
