//! A copy over a storage that loses what it was given: no point without all of its blobs.

use std::sync::Arc;

use rekindle_core::port::{Clock, Reuse};
use rekindle_core::{Secret, codes};
use rekindle_repo::admin::{self, KeyLabel};
use rekindle_repo::copy::copy;
use rekindle_repo::{Repo, RepoOptions, points};
use rekindle_store::faulty::{Action, Faulty, Op};
use rekindle_store::{Memory, Store};

use crate::write_support::{Act, Bench, Now, context, file, made, noise, save};

/// A repository with one point, and an empty copy on a storage with faults that nobody reads back.
fn with_copy(bench: &Bench) -> (Repo, Repo, Arc<Faulty<Memory>>) {
    let source = bench.open();
    save(&source, vec![file("a", made(noise(300_000, 1), Act::Good))], Reuse::Nothing).unwrap();
    let storage = Arc::new(Faulty::new(Memory::new()));
    let label = KeyLabel { host: "there".to_owned(), user: "me".to_owned(), created: Now.now() };
    let store: Arc<dyn Store> = Arc::clone(&storage) as _;
    let password = Secret::new("another password for tests".to_owned());
    let handle = bench.runtime.handle().clone();
    let far = admin::init_copy(&source, store, handle, &password, &label, RepoOptions::default()).unwrap();
    (source, far, storage)
}

#[test]
fn no_point_is_in_a_copy_that_lacks_a_blob_of_it() {
    for lost in ["data/", "index/"] {
        let bench = Bench::memory();
        let (source, far, storage) = with_copy(&bench);
        storage.script(Op::Put, lost, Action::Truncate(0));
        let fault = copy(&source, &far, "copy", "here", &context()).expect_err(lost);
        assert!(fault.is(codes::COPY_FAR) || fault.is(codes::REPO_DAMAGED), "{lost}: {fault:?}");
        assert!(points::view(&far).unwrap().points.is_empty(), "{lost}: a point without its blobs");

        // What is not there is brought again, and what is there is not.
        let report = copy(&source, &far, "copy", "here", &context()).unwrap();
        assert_eq!((report.copied.len(), report.failed.len()), (1, 0), "{lost}");
        let again = copy(&source, &far, "copy", "here", &context()).unwrap();
        assert_eq!((again.copied.len(), again.there, again.bytes), (0, 1, 0), "{lost}");
    }
}
