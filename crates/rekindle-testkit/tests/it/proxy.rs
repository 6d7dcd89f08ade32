use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rekindle_testkit::proxy::{Direction, Fault, Proxy};

/// A server that gives back what it gets, for as many connections as come.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut &stream, &mut back);
                let _ = back.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

/// Sends `count` bytes, ends its side, and gives what came back until the end or the error.
fn talk(proxy: &Proxy, count: usize) -> (usize, std::io::Result<()>) {
    let mut stream = match TcpStream::connect(("127.0.0.1", proxy.port())) {
        Ok(stream) => stream,
        Err(err) => return (0, Err(err)),
    };
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let _ = sender.write_all(&vec![7; count]);
        let _ = sender.shutdown(std::net::Shutdown::Write);
    });
    let mut got = Vec::new();
    let result = stream.read_to_end(&mut got).map(|_| ());
    writer.join().unwrap();
    (got.len(), result)
}

fn kind(result: std::io::Result<()>) -> std::io::ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn passes_everything_without_a_fault() {
    let proxy = Proxy::start(echo());
    let (count, result) = talk(&proxy, 300_000);
    assert!(result.is_ok());
    assert_eq!((count, proxy.connections(), proxy.bytes()), (300_000, 1, 600_000));
}

#[test]
fn cuts_and_resets_after_exactly_so_many_bytes() {
    let proxy = Proxy::start(echo());
    proxy.set(Fault::CutAfter(Direction::ToClient, 1000));
    let (count, _) = talk(&proxy, 5000);
    assert_eq!(count, 1000);
    proxy.set(Fault::ResetAfter(Direction::ToClient, 0));
    let (count, result) = talk(&proxy, 10);
    assert_eq!((count, kind(result)), (0, std::io::ErrorKind::ConnectionReset));
    proxy.set(Fault::CutAfter(Direction::ToServer, 100));
    assert!(talk(&proxy, 5000).0 <= 100);
    proxy.set(Fault::None);
    assert_eq!(talk(&proxy, 5000).0, 5000);
}

#[test]
fn stalls_refuses_resets_and_delays() {
    let proxy = Proxy::start(echo());
    proxy.set(Fault::StallAfter(Direction::ToClient, 10));
    let (count, result) = talk(&proxy, 5000);
    assert_eq!((count, kind(result)), (10, std::io::ErrorKind::WouldBlock));
    proxy.set(Fault::Stall);
    assert_eq!(kind(talk(&proxy, 10).1), std::io::ErrorKind::WouldBlock);
    proxy.set(Fault::Refuse);
    assert_eq!(kind(talk(&proxy, 10).1), std::io::ErrorKind::ConnectionRefused);
    proxy.set(Fault::Reset);
    assert_eq!(kind(talk(&proxy, 10).1), std::io::ErrorKind::ConnectionReset);
    proxy.set(Fault::Delay(Duration::from_millis(20)));
    let begin = std::time::Instant::now();
    assert_eq!(talk(&proxy, 10).0, 10);
    assert!(begin.elapsed() >= Duration::from_millis(40));
}

#[test]
fn a_script_fails_once_and_then_works() {
    let proxy = Proxy::start(echo());
    proxy.script([Fault::CutAfter(Direction::ToClient, 5), Fault::None]);
    assert_eq!(talk(&proxy, 50).0, 5);
    assert_eq!(talk(&proxy, 50).0, 50);
    assert_eq!(talk(&proxy, 50).0, 50);
}

#[test]
fn open_connections_can_be_cut_and_end_with_the_proxy() {
    let proxy = Proxy::start(echo());
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    proxy.cut_all();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    let port = proxy.port();
    drop(proxy);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}
