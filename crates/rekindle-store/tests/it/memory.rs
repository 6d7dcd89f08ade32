use rekindle_core::codes;
use rekindle_store::faulty::{Action, Faulty, Op};
use rekindle_store::{Memory, PutMode, Store, StoreOptions, Support, contract, open, probe};

use crate::support::{bytes, key};

#[tokio::test]
async fn keeps_the_contract() {
    contract::run(&Memory::new()).await;
    let mut options = StoreOptions::new("memory:").unwrap();
    options.limits = crate::support::short_limits();
    contract::run(&*open(&options).unwrap()).await;
}

/// The wrapper itself must not change anything it was not told to.
#[tokio::test]
async fn the_fault_wrapper_without_faults_keeps_the_contract() {
    contract::run(&Faulty::new(Memory::new())).await;
}

#[tokio::test]
async fn scripted_faults_hit_their_call_once_and_in_order() {
    let store = Faulty::new(Memory::new());
    store.script(Op::Put, "a/", Action::NoSpace);
    store.script(Op::Put, "", Action::FlipBit(0));
    store.script(Op::Get, "", Action::Truncate(2));
    let put = |name: &'static str| {
        let store = &store;
        async move { store.put(&key(name), bytes("bytes"), PutMode::Overwrite).await }
    };
    put("b/1").await.unwrap();
    assert!(put("a/1").await.unwrap_err().is(codes::STORE_FULL));
    put("a/1").await.unwrap();
    assert_eq!(store.inner().get(&key("b/1")).await.unwrap(), "cytes", "the first bit is flipped");
    assert_eq!(store.get(&key("a/1")).await.unwrap(), "by");
    assert_eq!(store.get(&key("a/1")).await.unwrap(), "bytes");
    assert_eq!(store.unused(), 0);
    let ops: Vec<Op> = store.calls().iter().map(|call| call.op).collect();
    assert_eq!(ops, [Op::Put, Op::Put, Op::Put, Op::Get, Op::Get]);
}

#[tokio::test]
async fn a_held_call_waits_for_its_release() {
    let store = std::sync::Arc::new(Faulty::new(Memory::new()));
    store.script(Op::Put, "", Action::Hold);
    let writer = tokio::spawn({
        let store = store.clone();
        async move { store.put(&key("a"), bytes("x"), PutMode::Overwrite).await }
    });
    store.wait_held(1).await;
    assert_eq!(store.inner().head(&key("a")).await.unwrap(), None);
    store.release();
    writer.await.unwrap().unwrap();
    assert!(store.inner().head(&key("a")).await.unwrap().is_some());
}

/// A server that takes the condition and ignores it, and one whose listing lags.
#[tokio::test]
async fn the_probe_finds_broken_promises_and_cleans_up() {
    #[derive(Debug)]
    struct Ignoring(Memory);
    #[async_trait::async_trait]
    impl Store for Ignoring {
        async fn put(
            &self,
            key: &rekindle_store::Key,
            data: bytes::Bytes,
            _: PutMode,
        ) -> rekindle_core::Result<rekindle_store::PutOutcome> {
            self.0.put(key, data, PutMode::Overwrite).await
        }
        async fn get(&self, key: &rekindle_store::Key) -> rekindle_core::Result<bytes::Bytes> {
            self.0.get(key).await
        }
        async fn get_range(
            &self,
            key: &rekindle_store::Key,
            range: std::ops::Range<u64>,
        ) -> rekindle_core::Result<bytes::Bytes> {
            self.0.get_range(key, range).await
        }
        async fn head(&self, key: &rekindle_store::Key) -> rekindle_core::Result<Option<rekindle_store::ObjectMeta>> {
            self.0.head(key).await
        }
        async fn list(&self, _: &str) -> rekindle_core::Result<Vec<rekindle_store::ObjectMeta>> {
            Ok(Vec::new())
        }
        async fn delete(&self, key: &rekindle_store::Key) -> rekindle_core::Result<()> {
            self.0.delete(key).await
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }
    let store = rekindle_store::Retrying::new(Ignoring(Memory::new()), crate::support::short_limits());
    let found = probe(&store).await.unwrap();
    assert_eq!((found.put_if_absent, found.list_after_write), (Support::Broken, Support::Broken));
    assert_eq!((found.read_after_write, found.range, found.delete), (Support::Kept, Support::Kept, Support::Kept));
    assert!(!found.is_usable());
    assert_eq!(store.capabilities(), found);

    // From then on the condition is checked by reading first.
    store.put(&key("once"), bytes("first"), PutMode::IfAbsent).await.unwrap();
    let fault = store.put(&key("once"), bytes("other"), PutMode::IfAbsent).await.unwrap_err();
    assert!(fault.is(codes::STORE_EXISTS), "{fault:?}");
    assert_eq!(store.get(&key("once")).await.unwrap(), "first");
}

#[test]
fn plain_threads_can_use_a_store() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = open(&StoreOptions::new("memory:").unwrap()).unwrap();
    let store = rekindle_store::blocking::BlockingStore::new(store, runtime.handle().clone());
    std::thread::scope(|scope| {
        for number in 0..4 {
            let store = store.clone();
            scope.spawn(move || store.put(&key(&format!("n/{number}")), bytes("x"), PutMode::IfAbsent).unwrap());
        }
    });
    assert_eq!(store.list("n/").unwrap().len(), 4);
    assert_eq!(store.get(&key("n/3")).unwrap(), "x");
    store.delete(&key("n/3")).unwrap();
    assert_eq!(store.head(&key("n/3")).unwrap(), None);
}
