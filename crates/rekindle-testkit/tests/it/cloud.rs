use std::io::{Read, Write};
use std::net::TcpStream;

use rekindle_testkit::{Azurite, FakeGcs};

fn get(port: u16, target: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn gcs_starts_with_its_bucket_and_keeps_it() {
    let mut gcs = FakeGcs::start();
    let target = format!("/storage/v1/b/{}", gcs.bucket());
    assert!(get(gcs.port(), &target).starts_with("HTTP/1.1 200"));
    gcs.restart();
    assert!(get(gcs.port(), &target).starts_with("HTTP/1.1 200"));
    assert!(get(gcs.port(), "/storage/v1/b/absent").starts_with("HTTP/1.1 404"));
}

#[test]
fn azurite_starts_with_its_container_and_checks_the_signature() {
    let mut azurite = Azurite::start();
    azurite.restart();
    let target = format!("/{}/{}?restype=container", azurite.account(), azurite.container());
    assert!(get(azurite.port(), &target).starts_with("HTTP/1.1 4"));
}
