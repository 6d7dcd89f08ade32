use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rekindle_core::{ErrorCode, Result, codes};
use rekindle_store::faulty::{Action, Faulty, Op};
use rekindle_store::{Limits, Memory, PutMode, PutOutcome, Retrying, Store};

use crate::support::{bytes, key, short_limits};

fn store() -> (Arc<Faulty<Memory>>, Retrying<Arc<Faulty<Memory>>>) {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    (faulty.clone(), Retrying::new(faulty, short_limits()))
}

#[tokio::test]
async fn what_may_pass_is_repeated_until_it_passes() {
    let (faulty, store) = store();
    for op in [Op::Put, Op::Get, Op::GetRange, Op::Head, Op::List, Op::Delete] {
        faulty.script(op, "", Action::Reject(codes::STORE_UNREACHABLE));
        faulty.script(op, "", Action::Reject(codes::STORE_SERVER));
    }
    store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), "x");
    assert_eq!(store.get_range(&key("a"), 0..1).await.unwrap(), "x");
    assert!(store.head(&key("a")).await.unwrap().is_some());
    assert_eq!(store.list("").await.unwrap().len(), 1);
    store.delete(&key("a")).await.unwrap();
    assert_eq!(faulty.unused(), 0);
    assert_eq!(faulty.calls().len(), 18);
}

#[tokio::test]
async fn a_call_that_keeps_failing_is_given_up_and_says_so() {
    let (faulty, store) = store();
    faulty.script_times(9, Op::List, "", &Action::Reject(codes::STORE_TIMEOUT));
    let fault = store.list("data/").await.unwrap_err();
    assert!(fault.is(codes::STORE_TIMEOUT), "{fault:?}");
    assert!(fault.chain().contains("3 attempts"), "{fault:?}");
    assert_eq!(faulty.calls().len(), 3);
}

#[tokio::test]
async fn what_cannot_pass_is_not_repeated() {
    let never: [&'static ErrorCode; 5] =
        [codes::STORE_DENIED, codes::STORE_FULL, codes::STORE_IO, codes::STORE_NOT_FOUND, codes::STORE_ROOT];
    for code in never {
        let (faulty, store) = store();
        faulty.script(Op::Put, "", Action::Reject(code));
        let fault = store.put(&key("a"), bytes("x"), PutMode::Overwrite).await.unwrap_err();
        assert!(fault.is(code), "{fault:?}");
        assert_eq!(faulty.calls().len(), 1, "{}", code.id);
    }
}

#[tokio::test]
async fn no_new_attempt_starts_after_the_budget() {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    let limits = Limits { retry_budget: Duration::ZERO, ..short_limits() };
    let store = Retrying::new(faulty.clone(), limits);
    faulty.script(Op::Get, "", Action::Reject(codes::STORE_UNREACHABLE));
    assert!(store.get(&key("a")).await.unwrap_err().is(codes::STORE_UNREACHABLE));
    assert_eq!(faulty.calls().len(), 1);
}

/// The bytes were written, the answer was lost: the repeated put finds its own bytes.
#[tokio::test]
async fn a_lost_answer_of_a_conditional_put_is_a_success() {
    let (faulty, store) = store();
    faulty.script(Op::Put, "", Action::FailAfterWrite(codes::STORE_TIMEOUT));
    let outcome = store.put(&key("lease"), bytes("mine"), PutMode::IfAbsent).await.unwrap();
    assert_eq!(outcome, PutOutcome::Written);
    assert_eq!(faulty.calls().len(), 2);

    // Somebody else's bytes stay an error, lost answer or not.
    faulty.script(Op::Put, "", Action::Reject(codes::STORE_TIMEOUT));
    let fault = store.put(&key("lease"), bytes("theirs"), PutMode::IfAbsent).await.unwrap_err();
    assert!(fault.is(codes::STORE_EXISTS), "{fault:?}");
    assert_eq!(store.get(&key("lease")).await.unwrap(), "mine");
}

#[tokio::test]
async fn a_call_that_never_comes_back_ends_at_its_deadline() {
    let faulty = Arc::new(Faulty::new(Memory::new()));
    let limits = Limits { attempt: Duration::from_millis(50), ..short_limits() };
    let store = Retrying::new(faulty.clone(), limits);
    faulty.script_times(3, Op::Head, "", &Action::Hold);
    let fault = store.head(&key("a")).await.unwrap_err();
    assert!(fault.is(codes::STORE_TIMEOUT), "{fault:?}");
    assert_eq!(faulty.calls().len(), 3);
    // And one that comes back at the second attempt is a success.
    faulty.script(Op::Head, "", Action::Hold);
    assert_eq!(store.head(&key("a")).await.unwrap(), None);
}

/// Whatever error every call gives, no listing and no read ever turns it into "nothing there".
#[tokio::test]
async fn no_error_becomes_an_empty_answer() {
    let all: Vec<&'static ErrorCode> = codes::all().filter(|code| code.id.starts_with("RK-ST-")).collect();
    assert!(all.len() >= 15);
    for code in all {
        let (faulty, store) = store();
        for op in [Op::List, Op::Head, Op::Get] {
            faulty.script_times(3, op, "", &Action::Reject(code));
        }
        let listed: Result<usize> = store.list("").await.map(|found| found.len());
        assert!(listed.unwrap_err().is(code));
        assert!(store.head(&key("a")).await.unwrap_err().is(code));
        let read: Result<Bytes> = store.get(&key("a")).await;
        assert!(read.unwrap_err().is(code));
    }
}
