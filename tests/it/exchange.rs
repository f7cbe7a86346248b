//! One exchange over real sockets: timing of the stream, retries, keys, and what the client is told.

use crate::support::chat::{Chat, say};
use crate::support::http::{self, Answer};
use crate::support::proxy::{Proxy, Setup};
use crate::support::upstream::{Cut, Reply, Step, Upstream};
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn ask() -> Value {
    json!({"model": "work", "stream": true, "input": "hello"})
}

/// Sends a body as it stands.
fn post(proxy: &Proxy, body: &str) -> Answer {
    let mut connection = TcpStream::connect(proxy.address()).unwrap();
    let (address, token, length) = (proxy.address(), proxy.token(), body.len());
    write!(
        connection,
        "POST /v1/responses HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: \
         {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    http::read_answer(&mut BufReader::new(connection)).unwrap()
}

#[test]
fn a_request_with_line_breaks_gives_events_of_one_line() {
    let upstream = Upstream::start(|_| say("hello"));
    let proxy = Setup::default().start(&upstream);
    let body = json!({
        "model": "work", "stream": true, "input": "hello", "metadata": {"a": "b"}, "tool_choice": "auto",
        "text": {"format": {"type": "text"}},
    });
    for breaks in ["\n", "\r\n", "\r"] {
        let pretty = serde_json::to_string_pretty(&body).unwrap().replace('\n', breaks);
        let answer = post(&proxy, &pretty);
        assert_eq!(answer.terminal()["response"]["metadata"], json!({"a": "b"}), "{breaks:?}");
    }
}

#[test]
fn an_upstream_that_only_says_it_lives_does_not_silence_the_stream() {
    let upstream = Upstream::start(|_| {
        let mut reply = Chat::new().text("half").open();
        for _ in 0..30 {
            reply = reply.frame(": still working\n\n").then(Step::Pause(Duration::from_millis(100)));
        }
        Chat::new().text(" whole").complete().frames().iter().fold(reply, Reply::frame).end()
    });
    let proxy = Setup { proxy: "keepalive_s = 1".to_owned(), ..Setup::default() }.start(&upstream);
    let answer = proxy.responses(&ask());
    answer.terminal();
    let alive = answer.events().iter().filter(|event| event["type"] == "response.in_progress").count();
    assert!(alive >= 3, "{alive} in three seconds: {}", answer.text());
}

#[test]
fn a_wait_of_nothing_is_no_leave_to_hammer() {
    for wait in ["0", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let upstream =
            Upstream::start(move |_| Reply::json_with(429, &[("retry-after", wait)], &json!({"error": "slow down"})));
        let proxy = Setup { proxy: "retry_deadline_s = 3".to_owned(), ..Setup::default() }.start(&upstream);
        let answer = proxy.responses(&ask());
        assert_eq!(answer.status, 429);
        assert!(upstream.count() <= 4, "{} requests within three seconds, retry-after {wait}", upstream.count());
    }
}

#[test]
fn an_account_whose_key_is_bad_does_not_end_the_wait_for_a_busy_one() {
    let upstream = Upstream::start(|request| match (request.header("authorization"), request.index) {
        (Some("Bearer busy"), 0) => {
            Reply::json_with(429, &[("retry-after", "1")], &json!({"error": {"message": "slow down"}}))
        }
        (Some("Bearer busy"), _) => say("hello"),
        _ => Reply::error(401, "invalid_request_error", "invalid_api_key", "no"),
    });
    let config = format!(
        "[providers.up]\nbase_url = \"{}\"\ndialect = \"deepseek\"\naccounts = [{{ name = \"a\", key = {{ env = \
         \"A\" }} }}, {{ name = \"b\", key = {{ env = \"B\" }} }}]\n[models.work]\nroutes = [\"up/m\"]\n",
        upstream.base_url(),
    );
    let proxy = Proxy::start(&config, &[("A", "busy"), ("B", "refused")]);
    let answer = proxy.responses(&ask());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The one that refused the key is not asked again.
    upstream.exactly(3);
}

#[test]
fn an_answer_that_has_announced_its_end_is_not_waited_for() {
    let upstream = Upstream::start(|_| Chat::new().text("hello").finish("stop").open().then(Step::Stall));
    let proxy = Setup::default().start(&upstream);
    let began = Instant::now();
    let answer = proxy.responses(&ask());
    assert_eq!(answer.terminal()["type"], "response.completed");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_key_without_a_familiar_shape_is_not_quoted_either() {
    let key = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
    let words = format!("the key {key} was not found");
    let in_stream = Chat::new().text("half").data(json!({"error": {"message": words.clone()}})).reply();
    let before = Reply::error(401, "invalid_request_error", "invalid_api_key", &words);
    let upstream = Upstream::sequence(vec![before, in_stream]);
    let proxy = Proxy::start(&Setup::default().toml(&upstream.base_url()), &[("UP_KEY", key)]);
    for refused in [true, false] {
        let answer = proxy.responses(&ask());
        assert!(answer.text().contains("was not found"), "{}", answer.text());
        // Where it is from may be told, and helps.
        assert_eq!(answer.text().contains("Its key is from environment variable UP_KEY"), refused, "{}", answer.text());
        assert!(!answer.text().contains(key), "{}", answer.text());
    }
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let upstream = Upstream::start(|_| say("hello"));
    let proxy = Setup::default().start(&upstream);
    let body = "x".repeat(8 << 20);
    for (path, token, status) in [("/v1/responses", "wrong", 401), ("/v1/nowhere", &*proxy.token(), 404)] {
        for _ in 0..5 {
            let mut connection = TcpStream::connect(proxy.address()).unwrap();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
                proxy.address(),
                body.len()
            );
            let sent = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body.as_bytes()));
            assert!(sent.is_ok(), "{status}: {sent:?}");
            let answer = http::read_answer(&mut BufReader::new(connection)).unwrap();
            assert_eq!(answer.status, status);
        }
    }
}

#[test]
fn a_body_under_way_gets_an_answer_when_the_program_stops() {
    let upstream = Upstream::start(|_| say("hello"));
    let mut proxy = Setup { proxy: "drain_s = 1".to_owned(), ..Setup::default() }.start(&upstream);
    let mut connection = TcpStream::connect(proxy.address()).unwrap();
    let (address, token) = (proxy.address(), proxy.token());
    write!(
        connection,
        "POST /v1/responses HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nexpect: \
         100-continue\r\ncontent-length: 100\r\n\r\n"
    )
    .unwrap();
    // The program reads the body now.
    let mut interim = [0; 25];
    connection.read_exact(&mut interim).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    proxy.sigterm();
    let answer = http::read_answer(&mut BufReader::new(connection)).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(proxy.wait_exit().success());
}

#[test]
fn an_end_that_was_only_presumed_does_not_cover_a_cut() {
    let quiet = |text: &str| Chat::new().delta(json!({"content": text}), json!(""));
    let cut = quiet("half of the").delta(json!({"content": ""}), json!(""));
    for (frames, whole) in [
        (cut.clone().delta(json!({"content": " answer"}), json!("")), false),
        (cut.clone(), true),
        (cut.delta(json!({"content": " answer"}), json!("")).delta(json!({"content": ""}), json!("")), true),
    ] {
        // Nobody tries again within this test.
        let upstream = Upstream::start({
            let reply = if whole { frames.reply() } else { frames.cut(frames.frames().len(), Cut::Reset) };
            move |_| reply.clone()
        });
        let proxy = Setup::default().start(&upstream);
        let end = proxy.responses(&ask()).terminal();
        assert_eq!(end["type"], if whole { "response.completed" } else { "response.failed" });
    }
}

#[test]
fn only_a_web_socket_is_refused_as_an_upgrade() {
    let upstream = Upstream::start(|_| say("hello"));
    let proxy = Setup::default().start(&upstream);
    let bearer = format!("Bearer {}", proxy.token());
    for (offer, status) in [("h2c", 200), ("WebSocket", 426)] {
        let headers = [("authorization", bearer.as_str()), ("upgrade", offer)];
        let answer = http::send(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask())).unwrap();
        assert_eq!(answer.status, status);
    }
}
