//! Nodes of a Garage are killed in the middle of things: nothing that was committed is lost, and nothing
//! unfinished looks finished.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rekindle_testkit::Garage;

use super::super::stack::{Stack, assert_same_trees, below, end, noise, wait_until};
use super::garage::{comes_back, go_through, names, settles, stack_on};

/// Everything is whole, seen through every node.
fn comes_back_everywhere(garage: &mut Garage, stack: &Stack, data: &Path) {
    garage.wait_healthy();
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        go_through(stack, &garage.door(from), &garage.door(to));
        comes_back(stack, data);
    }
}

/// Which node is killed, and whether it is the one that is talked to.
const VICTIMS: [usize; 2] = [2, 0];

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_loses_a_node_in_a_backup() {
    let mut garage = Garage::start();
    let (stack, data) = stack_on(&garage, 0);
    for (seed, victim) in (10..).zip(VICTIMS) {
        fs::write(data.join("large"), noise(seed, 96 << 20)).unwrap();
        let before = names(&garage, 1, "data").len();
        let child = stack.start(&["backup"]);
        wait_until("packs", || names(&garage, 1, "data").len() > before);
        garage.kill9(victim);
        if victim == 0 {
            std::thread::sleep(Duration::from_secs(3));
            garage.restart(victim);
        }
        let ended = end(child);
        assert_eq!(ended.code, 0, "node {victim}: {ended:#?}");
        // With a node less everything is there, too.
        comes_back(&stack, &data);
        garage.restart(victim);
        comes_back_everywhere(&mut garage, &stack, &data);
    }
    assert_eq!(stack.complete_points().len(), 3);
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_loses_a_node_in_a_prune() {
    let mut garage = Garage::start();
    let (stack, data) = stack_on(&garage, 0);
    for (seed, victim) in (20..).zip(VICTIMS) {
        // Half of what each pack holds is not needed any more, so that packs are written anew.
        for number in 0..12 {
            fs::write(data.join(format!("part-{number}")), noise(seed * 100 + number, 6 << 20)).unwrap();
        }
        stack.complete();
        for number in (0..12).step_by(2) {
            fs::write(data.join(format!("part-{number}")), noise(seed * 200 + number, 6 << 20)).unwrap();
        }
        stack.complete();
        let mut points = stack.complete_points();
        let newest = points.pop().unwrap();
        let forget: Vec<&str> = ["forget"].into_iter().chain(points.iter().map(String::as_str)).collect();
        stack.place.ends(0, &forget);
        let before = names(&garage, 1, "data");
        let prune = ["prune", "--keep-marked", "0", "--max-unused", "0", "--max-delete", "100"];
        let child = stack.start(&prune);
        wait_until("packs that are new or gone", || names(&garage, 1, "data") != before);
        garage.kill9(victim);
        if victim == 0 {
            std::thread::sleep(Duration::from_secs(3));
            garage.restart(victim);
        }
        let ended = end(child);
        assert!([0, 20].contains(&ended.code), "node {victim}: {ended:#?}");
        garage.restart(victim);
        garage.wait_healthy();
        assert_eq!(stack.complete_points(), [newest]);
        // Without this, the node that was away lists what was deleted for up to ten minutes.
        garage.compare_nodes();
        let settled: Vec<_> = [(0, 1), (1, 2), (2, 0)]
            .map(|(from, to)| {
                go_through(&stack, &garage.door(from), &garage.door(to));
                settles(&stack)
            })
            .into();
        println!("node {victim}: prune ended with {}, the nodes agreed after {settled:?}", ended.code);
        comes_back_everywhere(&mut garage, &stack, &data);
        stack.place.ends(0, &prune);
        comes_back(&stack, &data);
    }
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_loses_a_node_in_a_restore() {
    let mut garage = Garage::start();
    let (stack, data) = stack_on(&garage, 0);
    for number in 0..24 {
        fs::write(data.join(format!("part-{number}")), noise(300 + number, 4 << 20)).unwrap();
    }
    stack.complete();
    for victim in VICTIMS {
        let to = format!("to-{victim}");
        let child = stack.start(&["restore", "latest", "--to", &to]);
        let arrived = || bytes_below(&stack.path(&to));
        wait_until("bytes", || arrived() > 2 << 20);
        garage.kill9(victim);
        if victim == 0 {
            std::thread::sleep(Duration::from_secs(3));
            garage.restart(victim);
        }
        let ended = end(child);
        assert_eq!(ended.code, 0, "node {victim}: {ended:#?}");
        assert_same_trees(&data, &below(&stack.path(&to), &data));
        garage.restart(victim);
        garage.wait_healthy();
    }
    comes_back_everywhere(&mut garage, &stack, &data);
}

#[test]
#[ignore = "needs Garage: scripts/test-clusters"]
fn garage_loses_two_nodes_of_three() {
    let mut garage = Garage::start();
    let (stack, data) = stack_on(&garage, 0);
    fs::write(data.join("large"), noise(40, 96 << 20)).unwrap();
    let before = names(&garage, 1, "data").len();
    let child = stack.start(&["backup"]);
    wait_until("packs", || names(&garage, 1, "data").len() > before);
    garage.kill9(1);
    garage.kill9(2);
    let killed = Instant::now();
    let ended = end(child);
    assert_eq!(ended.code, 20, "{ended:#?}");
    assert!(ended.err.contains("error[RK-ST-0") && ended.err.contains("\nhint: "), "{ended:#?}");
    assert!(killed.elapsed() < Duration::from_mins(3), "{:?}", killed.elapsed());
    // Whatever is asked now is answered clearly, and never with an empty list.
    for arguments in [&["list"][..], &["restore", "latest", "--to", "x"]] {
        let ended = stack.place.ends(20, arguments);
        assert!(ended.out.is_empty() && ended.err.contains("\nhint: "), "{ended:#?}");
    }
    garage.restart(1);
    garage.restart(2);
    garage.wait_healthy();
    assert_eq!(stack.complete_points().len(), 1, "no point of the run that failed");
    assert_eq!(stack.points().len(), 1);
    stack.complete();
    comes_back_everywhere(&mut garage, &stack, &data);
    stack.place.ends(0, &["prune"]);
}

/// Bytes in the files below a directory, which may come and go.
fn bytes_below(top: &Path) -> u64 {
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => std::os::unix::fs::MetadataExt::blocks(&meta) * 512,
            Err(_) => 0,
        })
        .sum()
}
