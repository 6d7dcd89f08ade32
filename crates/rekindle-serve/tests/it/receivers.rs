//! Every kind of receiver, against servers of our own: up, down, slow, failing, redirecting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rekindle_core::Secret;
use rekindle_serve::notice::{Event, EventKind};
use rekindle_serve::notify::{Channel, Failure, Lookup, Mail, MailTls, Receiver, Web};
use rekindle_testkit::{Reply, SmtpReceiver, SmtpTls, WebReceiver};
use serde_json::Value;

fn known(text: impl Into<String>) -> Lookup {
    let text = text.into();
    Arc::new(move || Ok(Secret::new(text.clone())))
}

fn event(kind: EventKind) -> Event {
    Event {
        kind,
        stack: "shop".to_owned(),
        host: "web-1".to_owned(),
        subject: "backup database".to_owned(),
        title: "backup of database of `shop` failed".to_owned(),
        text: "the server is gone".to_owned(),
        at: "2026-06-01T02:30:00Z".parse().unwrap(),
        key: "run backup database".to_owned(),
        run: Some("20260601T023000Z-00000001".to_owned()),
        point: None,
        code: Some("RK-PG-001".to_owned()),
    }
}

fn receiver(channel: Channel) -> Receiver {
    Receiver {
        name: "ops".to_owned(),
        channel,
        events: EventKind::CHOICES.into_iter().collect(),
        tasks: Vec::new(),
        web: Web { timeout: Duration::from_secs(20), allow_private: true, ca_file: None },
    }
}

fn send(receiver: &Receiver, kind: EventKind) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(receiver.send(&event(kind))))
}

/// Sends one message to a fresh server and gives what it read.
fn sent(channel: impl FnOnce(Lookup) -> Channel, path: &str, kind: EventKind) -> rekindle_testkit::receiver::Request {
    let server = WebReceiver::start();
    assert_eq!(send(&receiver(channel(known(server.url(path)))), kind), Ok(()));
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "POST");
    requests[0].clone()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn slack_is_told() {
    let request = sent(|url| Channel::Slack { url }, "/services/T/B/x", EventKind::Failed);
    assert_eq!(request.target, "/services/T/B/x");
    let text = json(&request.body)["text"].as_str().unwrap().to_owned();
    assert!(text.contains("backup of database") && text.contains("the server is gone"), "{text}");
}

#[test]
fn discord_and_teams_are_told() {
    let body = json(&sent(|url| Channel::Discord { url }, "/d", EventKind::Failed).body);
    assert!(body["content"].as_str().unwrap().contains("the server is gone"));
    let body = json(&sent(|url| Channel::Teams { url }, "/t", EventKind::Failed).body);
    assert_eq!(body["attachments"][0]["content"]["type"], "AdaptiveCard");
    assert_eq!(body["attachments"][0]["content"]["body"][1]["text"], "the server is gone");
}

#[test]
fn a_webhook_gets_its_template_with_a_signature() {
    let template = Some(r#"{"message": "{title}", "code": "{code}"}"#.to_owned());
    let channel = |url| Channel::Webhook { url, template, secret: Some(known("canary-hook")) };
    let request = sent(channel, "/hook", EventKind::Failed);
    let body = json(&request.body);
    assert_eq!((&body["message"], &body["code"]), (&"backup of database of `shop` failed".into(), &"RK-PG-001".into()));
    // The same signature as openssl makes: `printf '1780281000.BODY' | openssl dgst -sha256 -hmac canary-hook`.
    let signed = format!("{}.{}", request.header("x-rekindle-timestamp").unwrap(), request.body);
    let mut child = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", "canary-hook"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), signed.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let expected = output.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(request.header("x-rekindle-signature").unwrap(), format!("sha256={expected}"));
    let plain = sent(|url| Channel::Webhook { url, template: None, secret: None }, "/hook", EventKind::Overdue);
    assert_eq!(json(&plain.body)["kind"], "overdue");
}

#[test]
fn ntfy_and_pagerduty_are_told() {
    let request = sent(|url| Channel::Ntfy { url, token: Some(known("tk_x")) }, "/backups", EventKind::Failed);
    assert_eq!(request.header("authorization"), Some("Bearer tk_x"));
    assert_eq!((request.header("priority"), request.body.as_str()), (Some("high"), "the server is gone"));
    let server = WebReceiver::start();
    let channel = Channel::PagerDuty { url: server.url("/v2/enqueue"), routing_key: known("rk") };
    assert_eq!(send(&receiver(channel), EventKind::Failed), Ok(()));
    let body = json(&server.requests()[0].body);
    assert_eq!((&body["routing_key"], &body["payload"]["severity"]), (&"rk".into(), &"critical".into()));
}

#[test]
fn a_check_is_pinged_at_start_success_and_failure_with_one_id() {
    let server = WebReceiver::start();
    let ping = receiver(Channel::Ping { url: known(server.url("/ping/abc")) });
    for kind in [EventKind::Start, EventKind::Success, EventKind::Failed, EventKind::Partial] {
        assert!(ping.wants(&event(kind)), "{kind:?}");
        assert_eq!(send(&ping, kind), Ok(()));
    }
    assert!(!ping.wants(&event(EventKind::Overdue)), "its own switch tells that");
    let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    let (paths, ids): (Vec<&str>, Vec<&str>) = targets.iter().map(|target| target.split_once("?rid=").unwrap()).unzip();
    assert_eq!(paths, ["/ping/abc/start", "/ping/abc", "/ping/abc/fail", "/ping/abc/fail"]);
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 36), "{ids:?}");
}

#[test]
fn mail_goes_over_tls_to_somebody_who_logs_in() {
    for (server_tls, tls) in
        [(SmtpTls::StartTls, MailTls::StartTls), (SmtpTls::Wrapped, MailTls::Wrapped), (SmtpTls::None, MailTls::None)]
    {
        let directory = tempfile::tempdir().unwrap();
        let server = SmtpReceiver::start(directory.path(), server_tls, Some(("ops", "canary-mail")));
        let mail = |password: &str, ca: bool| Mail {
            host: "localhost".to_owned(),
            port: server.port(),
            tls,
            login: Some(("ops".to_owned(), known(password))),
            from: "rekindle@example.com".to_owned(),
            to: vec!["ops@example.com".to_owned(), "boss@example.com".to_owned()],
            ca_file: ca.then(|| server.ca().to_owned()),
        };
        let of = |mail: Mail| receiver(Channel::Email(Box::new(mail)));
        assert_eq!(send(&of(mail("canary-mail", true)), EventKind::Failed), Ok(()), "{server_tls:?}");
        let mails = server.mails();
        assert_eq!(mails.len(), 1);
        for part in ["Subject: [rekindle shop]", "RCPT TO:<boss@example.com>", "the server is gone"] {
            assert!(mails[0].contains(part), "{part}: {}", mails[0]);
        }
        let failure = send(&of(mail("wrong", true)), EventKind::Failed).unwrap_err();
        assert!(!failure.again && !failure.why.contains("wrong\""), "{failure}");
        if tls != MailTls::None {
            assert!(send(&of(mail("canary-mail", false)), EventKind::Failed).is_err(), "an unknown authority");
        }
        assert_eq!(server.mails().len(), 1);
    }
}

#[test]
fn a_receiver_that_is_down_slow_or_failing_is_tried_again_and_a_refusal_is_not() {
    let server = WebReceiver::start();
    let mut slack = receiver(Channel::Slack { url: known(server.url("/canary-path")) });
    slack.web.timeout = Duration::from_secs(1);
    for (reply, again, said) in [
        (Reply::Status(500), true, "500"),
        (Reply::Status(429), true, "429"),
        (Reply::Status(404), false, "404"),
        (Reply::Late(Duration::from_secs(5)), true, "within 1 s"),
        (Reply::Nothing, true, ""),
    ] {
        server.set(reply.clone());
        let begun = Instant::now();
        let failure = send(&slack, EventKind::Failed).unwrap_err();
        assert_eq!(failure.again, again, "{reply:?}: {failure}");
        assert!(failure.why.contains(said) && !failure.why.contains("canary"), "{failure}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{reply:?}");
    }
    let gone = slack.clone();
    drop(server);
    std::thread::sleep(Duration::from_millis(50));
    let failure = send(&gone, EventKind::Failed).unwrap_err();
    assert!(failure.again && !failure.why.contains("canary"), "{failure}");
}

#[test]
fn a_redirect_to_a_private_address_is_not_followed() {
    let (server, inside) = (WebReceiver::start(), WebReceiver::start());
    server.set(Reply::Redirect(inside.url("/secrets")));
    let failure = send(&receiver(Channel::Slack { url: known(server.url("/")) }), EventKind::Failed).unwrap_err();
    assert!(!failure.again && failure.why.contains("302"), "{failure}");
    assert!(inside.requests().is_empty());
}

#[test]
fn private_addresses_are_refused_in_every_spelling_unless_allowed() {
    let server = WebReceiver::start();
    let port = server.port();
    for host in ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let mut hook =
            receiver(Channel::Webhook { url: known(format!("http://{host}:{port}/")), template: None, secret: None });
        hook.web.allow_private = false;
        let failure = send(&hook, EventKind::Failed).unwrap_err();
        assert!(!failure.again && failure.why.contains("private network"), "{host}: {failure}");
    }
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:a9fe:a9fe]", "0xa9fea9fe"] {
        let hook = receiver(Channel::Webhook { url: known(format!("http://{host}/")), template: None, secret: None });
        let failure = send(&hook, EventKind::Failed).unwrap_err();
        assert!(!failure.again && failure.why.contains("link-local"), "{host}: {failure}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn who_hears_of_some_tasks_also_hears_what_is_about_the_whole_repository() {
    let url = known("https://ops.example.org/hook".to_owned());
    let some = Receiver { tasks: vec!["drill".to_owned()], ..receiver(Channel::Slack { url }) };
    let about = |kind, subject: &str| some.wants(&Event { subject: subject.to_owned(), ..event(kind) });
    assert!(about(EventKind::Failed, "drill database") && !about(EventKind::Failed, "backup database"));
    for kind in [EventKind::Capacity, EventKind::Suspicious, EventKind::Kit] {
        assert!(about(kind, "repository"), "{kind:?}");
    }
}

#[test]
fn a_mail_server_that_is_down_or_says_nothing_is_tried_again_later() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (port, tls) in [(mute.local_addr().unwrap().port(), MailTls::None), (gone, MailTls::StartTls)] {
        let mail = Mail {
            host: "localhost".to_owned(),
            port,
            tls,
            login: None,
            from: "rekindle@example.com".to_owned(),
            to: vec!["ops@example.com".to_owned()],
            ca_file: None,
        };
        let web = Web { timeout: Duration::from_secs(1), allow_private: true, ca_file: None };
        let asked = std::time::Instant::now();
        let failure =
            send(&Receiver { web, ..receiver(Channel::Email(Box::new(mail))) }, EventKind::Failed).unwrap_err();
        assert!(failure.again, "{failure}");
        assert!(asked.elapsed() < Duration::from_secs(6), "it has a deadline: {failure}");
    }
}
