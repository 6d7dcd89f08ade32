//! The tree is tidy.

#[test]
fn the_tree_is_tidy() {
    let untidy: Vec<_> = xtask::tidy(&xtask::root()).into_iter().filter(|(_, found)| !found.is_empty()).collect();
    assert!(untidy.is_empty(), "{untidy:#?}");
}

#[test]
fn there_is_something_to_look_at() {
    assert!(xtask::sources(&xtask::root()).len() > 20);
}
