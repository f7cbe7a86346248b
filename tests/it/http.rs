//! The HTTP surface over real sockets: who is let in, what is refused and how it is said, bodies within bounds, the
//! held head, keep-alives, other places, reload and stop.

use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
};

use serde_json::{Value, json};

use crate::support::{
    chat::{Chat, say},
    events::{DEADLINE, Gate},
    http::{self, Answer, BodyEnd},
    proxy::{Proxy, Setup},
    scratch,
    upstream::{Cut, Reply, Step, Upstream},
};

fn ask(model: &str) -> Value {
    json!({"model": model, "stream": true, "input": "go"})
}

fn demo() -> Proxy {
    Proxy::start("", &[])
}

/// Sends bytes as they are and reads what comes.
fn raw(proxy: &Proxy, request: &[u8]) -> Answer {
    let mut connection = TcpStream::connect(proxy.address()).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    // The proxy may answer and close before all is written.
    drop(connection.write_all(request));
    http::read_answer(&mut BufReader::new(connection)).unwrap()
}

/// A request with our token and that body, sent as it is.
fn post(proxy: &Proxy, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n",
        proxy.address(),
        proxy.token(),
        body.len()
    );
    raw(proxy, &[head.as_bytes(), body].concat())
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn only_health_is_open_to_those_without_the_token() {
    let proxy = demo();
    let without = |path: &str| http::send(proxy.address(), "GET", path, &[], None).unwrap();
    let health = without("/health");
    assert_eq!((health.status, &health.json()["ok"], &health.json()["state"]), (200, &json!(true), &json!("ready")));
    for path in ["/v1/models", "/metrics", "/nothing", "/v1/responses"] {
        let answer = without(path);
        assert_eq!((answer.status, code(&answer).as_str()), (401, "invalid_token"), "{path}");
    }
    let token = proxy.token();
    let cut = &token[..token.len() - 1];
    for wrong in ["", "Bearer", "Bearer ", "Basic x", &format!("Bearer {cut}"), &format!("Bearer {token}x")] {
        let answer = http::send(proxy.address(), "GET", "/v1/models", &[("authorization", wrong)], None).unwrap();
        assert_eq!(answer.status, 401, "{wrong}");
    }
    let lower = format!("bearer {token}");
    let answer = http::send(proxy.address(), "GET", "/v1/models", &[("authorization", &lower)], None).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn web_pages_are_kept_out() {
    let proxy = demo();
    let token = proxy.token();
    let with = |headers: &str| {
        raw(&proxy, format!("GET /v1/models HTTP/1.1\r\nauthorization: Bearer {token}\r\n{headers}\r\n\r\n").as_bytes())
    };
    let own = proxy.address();
    assert_eq!(with(&format!("host: {own}\r\nconnection: close")).status, 200);
    for headers in [
        "host: rebound.example\r\nconnection: close".to_owned(),
        format!("host: {own}\r\norigin: https://example.org\r\nconnection: close"),
        format!("host: {own}\r\norigin: null\r\nconnection: close"),
    ] {
        let answer = with(&headers);
        assert_eq!((answer.status, code(&answer).as_str()), (403, "forbidden_origin"), "{headers}");
    }
}

#[test]
fn paths_are_typed() {
    let proxy = demo();
    let status = |method: &str, path: &str| {
        let answer = proxy.send(method, path, (method == "POST").then_some(&json!({}))).unwrap();
        (answer.status, code(&answer))
    };
    assert_eq!(status("GET", "/v1/responses"), (405, "method_not_allowed".to_owned()));
    assert_eq!(status("DELETE", "/health"), (405, "method_not_allowed".to_owned()));
    assert_eq!(status("GET", "/v1/responses/resp_1"), (404, "response_not_found".to_owned()));
    assert_eq!(status("GET", "/v1/responses/compact"), (405, "method_not_allowed".to_owned()));
    assert_eq!(status("POST", "/v1/responses/compact"), (400, "invalid_request".to_owned()));
    assert_eq!(status("POST", "/v1/images/generations"), (501, "not_implemented".to_owned()));
    assert_eq!(status("POST", "/v1/v1/alpha/search"), (501, "not_implemented".to_owned()));
    assert_eq!(status("GET", "/v1/imagesque"), (404, "path_not_found".to_owned()));
    assert_eq!(status("GET", "/v1/responses/compact/x"), (404, "response_not_found".to_owned()));
    for path in ["/responses", "/v1/responses", "/v1/v1/responses/"] {
        let answer = proxy.send("POST", path, Some(&ask("demo"))).unwrap();
        assert_eq!(answer.terminal()["type"], "response.completed", "{path}");
    }
}

#[test]
fn an_upgrade_is_refused_so_that_the_client_falls_back_at_once() {
    let proxy = demo();
    let answer = raw(
        &proxy,
        format!(
            "GET /v1/responses HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            proxy.address(),
            proxy.token()
        )
        .as_bytes(),
    );
    assert_eq!((answer.status, code(&answer).as_str()), (426, "upgrade_not_supported"));
}

#[test]
fn the_catalogue_has_a_tag_and_both_shapes() {
    let proxy = demo();
    let first = proxy.send("GET", "/v1/models?client_version=0.169.0", None).unwrap();
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("x-models-etag"), Some(tag.as_str()));
    assert_eq!(first.json()["data"][0]["id"], "demo");
    assert_eq!(first.json()["models"][0]["slug"], "demo");
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str()), ("if-none-match", tag.as_str())];
    let again = http::send(proxy.address(), "GET", "/v1/models", &headers, None).unwrap();
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[test]
fn what_happened_is_counted() {
    let upstream = Upstream::start(|_| say("counted"));
    let proxy = Setup::default().start(&upstream);
    proxy.responses(&ask("work"));
    proxy.responses(&ask("demo"));
    proxy.responses(&ask("nothing"));
    let page = proxy.send("GET", "/metrics", None).unwrap().text();
    for line in [
        "codex_proxy_requests_total{outcome=\"completed\"} 2",
        "codex_proxy_requests_total{outcome=\"model_not_found\"} 1",
        "codex_proxy_upstream_requests_total 1",
        "codex_proxy_active_streams 0",
        "codex_proxy_first_event_seconds_count 2",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    assert_eq!(proxy.send("GET", "/health", None).unwrap().json()["requests_total"], 3);
}

#[test]
fn bad_bodies_get_one_typed_answer_each() {
    let proxy = demo();
    let cases: &[(&[u8], &str, &str)] = &[
        (b"", "invalid_request", "EOF"),
        (b"{\"model\":", "invalid_request", "EOF"),
        (b"[1]", "invalid_request", "does not begin with `{`"),
        (b"{\"model\":\"demo\",\"input\":\"\xff\"}", "invalid_request", "UTF-8: byte 25"),
        (b"{\"model\":\"demo\",\"model\":\"demo\",\"input\":\"x\"}", "invalid_request", "duplicate field"),
        (b"{\"model\":\"demo\"}", "invalid_request", "`input`"),
        (
            b"{\"model\":\"demo\",\"input\":[{\"type\":\"function_call\",\"call_id\":\"c\",\"arguments\":\"\"}]}",
            "invalid_request",
            "`input[0].name`",
        ),
        (
            b"{\"model\":\"demo\",\"input\":\"x\",\"tools\":[{\"type\":\"function\"}]}",
            "invalid_request",
            "`tools[0].name`",
        ),
        (
            b"{\"model\":\"demo\",\"input\":\"x\",\"previous_response_id\":\"resp_1\"}",
            "previous_response_not_found",
            "resp_1",
        ),
        (
            b"{\"model\":\"demo\",\"input\":[{\"type\":\"compaction_trigger\"},{\"role\":\"user\",\"content\":\"x\"}]}",
            "invalid_request",
            "`input[0]` asks for a compaction and must be the last item",
        ),
        (b"{\"model\":\"demo\",\"input\":\"x\",\"background\":true}", "unsupported_parameter", "`background`"),
        (b"{\"model\":\"nope\",\"input\":\"x\"}", "model_not_found", "There are: demo"),
    ];
    for (body, wanted, words) in cases {
        let answer = post(&proxy, "", body);
        let text = String::from_utf8_lossy(body);
        assert_eq!(answer.status, if *wanted == "model_not_found" { 404 } else { 400 }, "{text}");
        assert_eq!(code(&answer), *wanted, "{text}");
        assert!(message(&answer).contains(words), "{text}: {}", message(&answer));
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(answer.json()["error"]["request_id"], id);
    }
    // Nesting deeper than any stack: refused or served, the proxy lives.
    let deep =
        [b"{\"model\":\"demo\",\"input\":".as_slice(), &b"[".repeat(500_000), &b"]".repeat(500_000), b"}"].concat();
    assert_eq!(post(&proxy, "", &deep).status, 400);
    let deep = [
        b"{\"model\":\"demo\",\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"a\":"
            .as_slice(),
        &b"[".repeat(500_000),
        &b"]".repeat(500_000),
        b"}}}}",
    ]
    .concat();
    assert_eq!(post(&proxy, "", &deep).status, 200);
    assert_eq!(proxy.send("GET", "/health", None).unwrap().status, 200);
}

#[test]
fn a_body_beyond_the_limit_is_refused_with_a_status_that_is_not_retried() {
    let proxy = demo();
    let body = [b"{\"model\":\"demo\",\"input\":\"".as_slice(), &vec![b'x'; 65 << 20], b"\"}"].concat();
    let answer = post(&proxy, "", &body);
    assert_eq!((answer.status, code(&answer).as_str()), (400, "request_too_large"));
    assert!(message(&answer).contains("67108864 bytes (`proxy.body_bytes_max`)"), "{}", message(&answer));
    // The same without a length, in chunks.
    let mut chunked = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        proxy.address(),
        proxy.token()
    )
    .into_bytes();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = raw(&proxy, &chunked);
    assert_eq!((answer.status, code(&answer).as_str()), (400, "request_too_large"));
    // 63 MiB pass.
    let body = [b"{\"model\":\"demo\",\"stream\":true,\"input\":\"".as_slice(), &vec![b'x'; 63 << 20], b"\"}"].concat();
    assert_eq!(post(&proxy, "", &body).terminal()["type"], "response.completed");
}

#[test]
fn compressed_bodies_are_read_and_bombs_are_not() {
    let proxy = demo();
    let plain = ask("demo").to_string();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8], window_log: u32| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    for (encoding, body) in [("gzip", gzip(plain.as_bytes())), ("zstd", zstd(plain.as_bytes(), 20))] {
        let answer = post(&proxy, &format!("content-encoding: {encoding}\r\n"), &body);
        assert_eq!(answer.terminal()["type"], "response.completed", "{encoding}");
    }
    let bomb = vec![b' '; 80 << 20];
    for (encoding, body) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb, 20))] {
        let answer = post(&proxy, &format!("content-encoding: {encoding}\r\n"), &body);
        assert_eq!((answer.status, code(&answer).as_str()), (400, "request_too_large"), "{encoding}");
    }
    // A window of 64 MiB would make the decoder take as much, whatever the content.
    let wide = post(&proxy, "content-encoding: zstd\r\n", &zstd(&vec![b'x'; 40 << 20], 26));
    assert_eq!((wide.status, code(&wide).as_str()), (400, "invalid_encoding"));
    let torn = post(&proxy, "content-encoding: gzip\r\n", b"not gzip");
    assert_eq!((torn.status, code(&torn).as_str()), (400, "invalid_encoding"));
    let half = gzip(plain.as_bytes());
    assert_eq!(post(&proxy, "content-encoding: gzip\r\n", &half[..half.len() / 2]).status, 400);
    let other = post(&proxy, "content-encoding: br\r\n", b"x");
    assert_eq!((other.status, code(&other).as_str()), (400, "unsupported_encoding"));
    let twice = post(&proxy, "content-encoding: gzip, zstd\r\n", b"x");
    assert_eq!((twice.status, code(&twice).as_str()), (400, "unsupported_encoding"));
}

#[test]
fn a_body_that_stalls_gives_its_memory_back() {
    let config = "[proxy]\nbody_stall_s = 1\nbody_bytes_max = 1048576\nbodies_in_flight_bytes_max = 1048576\n";
    let proxy = Proxy::start(config, &[]);
    let head = |length: usize| {
        format!(
            "POST /v1/responses HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n",
            proxy.address(),
            proxy.token()
        )
    };
    // Takes all the memory there is for bodies and sends nothing.
    let mut stalled = TcpStream::connect(proxy.address()).unwrap();
    stalled.set_read_timeout(Some(DEADLINE)).unwrap();
    stalled.write_all(head(1_048_576).as_bytes()).unwrap();
    stalled.write_all(b"{").unwrap();
    // Is accepted, waits its turn, and is served once the other is given up.
    let body = ask("demo").to_string();
    let answer = raw(&proxy, (head(body.len()) + &body).as_bytes());
    assert_eq!(answer.terminal()["type"], "response.completed");
    let answer = http::read_answer(&mut BufReader::new(stalled)).unwrap();
    assert_eq!((answer.status, code(&answer).as_str()), (408, "request_timeout"));
}

#[test]
fn a_client_that_does_not_stream_gets_one_object_or_a_true_status() {
    let upstream = Upstream::sequence(vec![
        Chat::new().text("half").cut(1, Cut::Reset),
        Chat::new().reasoning("Hm.").text("whole").complete_with(11, 7).reply(),
    ]);
    let proxy = Setup::default().start(&upstream);
    let answer = proxy.responses(&json!({"model": "work", "input": "go"}));
    let response = answer.json();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(
        (&response["status"], &response["output"][1]["content"][0]["text"]),
        (&json!("completed"), &json!("whole"))
    );
    assert_eq!(response["usage"]["total_tokens"], 18);
    upstream.exactly(2);

    let broken = Upstream::start(|_| Reply::error(400, "invalid_request_error", "bad", "no such parameter"));
    let answer = Setup::default().start(&broken).responses(&json!({"model": "work", "input": "go"}));
    assert_eq!((answer.status, code(&answer).as_str()), (400, "invalid_request"));
    assert!(message(&answer).starts_with("up/deepseek-v4-pro: "), "{}", message(&answer));
}

#[test]
fn the_head_is_held_for_a_true_status_and_then_kept_alive() {
    let gate = Gate::closed();
    let upstream = {
        let gate = gate.clone();
        Upstream::start(move |_| Reply { steps: vec![Step::Wait(gate.clone())] }.frame("").then(Step::Reset))
    };
    let setup =
        Setup { proxy: "head_hold_s = 1\nkeepalive_s = 1\nretry_deadline_s = 2".to_owned(), ..Setup::default() };
    let proxy = setup.start(&upstream);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let mut connection = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("work"))).unwrap();
    // The head and three `in_progress` (the lawful one and two keep-alives) come while the upstream says nothing.
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while text.matches("event: response.in_progress").count() < 3 {
        let n = connection.read(&mut buffer).unwrap();
        assert!(n > 0, "the stream ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    gate.open();
    connection.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("event: response.failed").count(), 1, "{text}");
}

#[test]
fn another_account_and_another_place_are_tried_before_anything_is_told() {
    let refused = Upstream::start(|request| {
        let key = request.header("authorization").unwrap_or_default().to_owned();
        Reply::error(if key.ends_with("sk-one") { 401 } else { 429 }, "error", "error", "not with this key")
    });
    let good = Upstream::start(|_| say("from the second place"));
    let config = format!(
        "[providers.first]\nbase_url = \"{}\"\ndialect = \"openai\"\n\
         accounts = [{{ name = \"one\", key = {{ env = \"ONE\" }} }}, {{ name = \"off\", key = {{ env = \"OFF\" }}, enabled = false }}, \
         {{ name = \"two\", key = {{ env = \"TWO\" }} }}]\n\
         [providers.second]\nbase_url = \"{}\"\ndialect = \"openai\"\naccounts = []\n\
         [models.work]\nroutes = [\"first/a\", {{ provider = \"second\", model = \"b\" }}]\n",
        refused.base_url(),
        good.base_url()
    );
    let proxy = Proxy::start(&config, &[("ONE", "sk-one"), ("TWO", "sk-two"), ("OFF", "sk-off")]);
    let answer = proxy.responses(&ask("work"));
    assert_eq!(answer.terminal()["type"], "response.completed");
    let keys: Vec<String> = refused.exactly(2).iter().map(|r| r.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(keys, ["Bearer sk-one", "Bearer sk-two"]);
    assert_eq!(good.exactly(1)[0].json["model"], "b");
    assert_eq!(good.requests()[0].header("authorization"), None);
    // A provider's own model by its full name goes to that provider alone.
    assert_eq!(proxy.responses(&ask("second/other/model")).terminal()["type"], "response.completed");
    assert_eq!(good.exactly(2)[1].json["model"], "other/model");
    for secret in ["sk-one", "sk-two"] {
        assert!(!proxy.log().contains(secret), "{}", proxy.log());
    }
}

#[test]
fn a_key_that_changed_on_disk_is_read_again_when_the_old_one_is_refused() {
    let directory = scratch();
    let file = directory.path().join("key");
    write_key(&file, "sk-old");
    let upstream = Upstream::start(|request| match request.header("authorization") {
        Some("Bearer sk-new") => say("with the new key"),
        _ => Reply::error(401, "authentication_error", "invalid_api_key", "no such key"),
    });
    let config = format!(
        "[providers.up]\nbase_url = \"{}\"\ndialect = \"openai\"\nkey = {{ file = \"{}\" }}\n[models.work]\nroutes = [\"up/m\"]\n",
        upstream.base_url(),
        file.display()
    );
    let proxy = Proxy::start(&config, &[]);
    let answer = proxy.responses(&ask("work"));
    assert_eq!((answer.status, code(&answer).as_str()), (400, "upstream_credentials"));
    upstream.exactly(1);
    write_key(&file, "sk-mid");
    write_key(&file, "sk-new");
    assert_eq!(proxy.responses(&ask("work")).terminal()["type"], "response.completed");
}

fn write_key(file: &Path, key: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(file, key).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_client_that_leaves_takes_the_upstream_with_it() {
    let upstream = Upstream::start(|_| Chat::new().text("one").open().then(Step::Stall));
    let proxy = Setup::default().start(&upstream);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let mut connection = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("work"))).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("response.output_text.delta") {
        let n = connection.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    connection.shutdown(Shutdown::Both).unwrap();
    upstream.wait_closed(0, DEADLINE);
    assert!(upstream.client_left(0));
    assert!(proxy.wait_log("the client went away", DEADLINE), "{}", proxy.log());
    assert_eq!(proxy.send("GET", "/health", None).unwrap().json()["active_streams"], 0);
}

#[test]
fn a_reload_changes_what_is_served_and_a_bad_one_changes_nothing() {
    let upstream = Upstream::start(|_| say("served"));
    let proxy = Setup::default().start(&upstream);
    let file = proxy.home().join("config.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("[models.work]", "[models.play]")).unwrap();
    proxy.sighup();
    assert!(proxy.wait_log("configuration reloaded", DEADLINE));
    assert_eq!(proxy.responses(&ask("play")).terminal()["type"], "response.completed");
    assert_eq!(proxy.responses(&ask("work")).status, 404);
    std::fs::write(&file, good.replace("dialect", "dialekt")).unwrap();
    proxy.sighup();
    assert!(proxy.wait_log("keeping the old settings", DEADLINE));
    assert!(proxy.log().contains("dialekt"), "the key is named: {}", proxy.log());
    assert_eq!(proxy.responses(&ask("play")).terminal()["type"], "response.completed");
}

#[test]
fn a_stop_lets_answers_finish_and_ends_the_rest_with_a_word() {
    let gate = Gate::closed();
    let upstream = {
        let gate = gate.clone();
        Upstream::start(move |request| {
            let chat = Chat::new().text("begun ").text("ended").complete();
            if request.mentions("finish") {
                let frames = chat.frames();
                let mut reply = Reply::sse_open(&frames[..1]).then(Step::Wait(gate.clone()));
                for frame in &frames[1..] {
                    reply = reply.frame(frame);
                }
                reply.end()
            } else {
                Chat::new().text("begun").open().then(Step::Stall)
            }
        })
    };
    let setup = Setup { proxy: "drain_s = 2".to_owned(), ..Setup::default() };
    let mut proxy = setup.start(&upstream);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let open = |input: &str| {
        let body = json!({"model": "work", "stream": true, "input": input});
        BufReader::new(http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&body)).unwrap())
    };
    let mut finishing = open("finish");
    let mut stalling = open("stall");
    upstream.wait_requests(2, DEADLINE);
    proxy.sigterm();
    assert!(proxy.wait_log("stopping", DEADLINE));
    gate.open();
    let finished = http::read_answer(&mut finishing).unwrap();
    assert_eq!((finished.end, &finished.terminal()["type"]), (BodyEnd::Whole, &json!("response.completed")));
    let ended = http::read_answer(&mut stalling).unwrap();
    let error = ended.terminal()["response"]["error"].clone();
    assert_eq!(error["code"], "server_error", "a code the client tries again: {error}");
    assert!(proxy.wait_exit().success());
}

#[test]
fn an_address_that_others_could_reach_is_refused() {
    for (address, exit) in [("0.0.0.0:0", 2), ("192.0.2.1:0", 2), ("nonsense", 2)] {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_codex-proxy"))
            .args(["--listen", address])
            .env("HOME", scratch().path())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(exit), "{address}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_an_exit_with_all_its_errors() {
    let home = scratch();
    let file = home.path().join("config.toml");
    std::fs::write(&file, "[proxy]\nhead_hold = 3\n[models.work]\nroutes = [\"nowhere/m\"]\n").unwrap();
    for extra in [&["--check"][..], &[]] {
        let run = std::process::Command::new(env!("CARGO_BIN_EXE_codex-proxy"))
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .args(extra)
            .env("HOME", home.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(6), "{told}");
        assert!(told.contains("head_hold_s") && told.contains("nowhere"), "{told}");
    }
}

#[test]
fn a_price_for_nothing_that_is_configured_is_told() {
    let home = scratch();
    let file = home.path().join("config.toml");
    let price = "{ input = 1.0, output = 1.0 }";
    let text = format!(
        "[providers.local]\npreset = 'ollama'\n[models.work]\nroutes = [\"local/vendor/m-1\"]\n[prices]\n\
         \"lokal/*\" = {price}\n\"local/*\" = {price}\n\"vendor/*\" = {price}\n\"any\" = {price}\n"
    );
    std::fs::write(&file, text).unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_codex-proxy"))
        .args(["--check", "--config"])
        .arg(&file)
        .env("HOME", home.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(0), "{told}");
    assert_eq!(told.matches("a price is for no provider").count(), 1, "{told}");
    assert!(told.contains("lokal/*"), "{told}");
}

#[test]
fn secrets_that_cannot_be_kept_live_in_memory() {
    let home = scratch();
    // A file where the state directory should be.
    std::fs::create_dir_all(home.path().join("state")).unwrap();
    std::fs::write(home.path().join("state/codex-proxy"), "in the way").unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_codex-proxy"))
        .args(["--listen", "127.0.0.1:0"])
        .env("HOME", home.path())
        .env("XDG_STATE_HOME", home.path().join("state"))
        .env("XDG_CONFIG_HOME", home.path().join("config"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let health = http::send(&address, "GET", "/health", &[], None).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(health.status, 200);
}

#[test]
fn the_demonstration_runs_from_end_to_end() {
    let proxy = demo();
    let kept = proxy.home().join("kept");
    let port = proxy.address().rsplit(':').next().unwrap();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_codex-proxyctl"))
        .args(["demo", "--port", port, "--keep"])
        .arg(&kept)
        .env_clear()
        .envs(crate::support::quiet_env())
        .envs(crate::support::proxy::isolated(proxy.home()))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{told}{}", String::from_utf8_lossy(&run.stderr));
    let file = std::fs::read_to_string(kept.join("codex-proxy-demo.md")).unwrap();
    assert!(file.starts_with("# codex-proxy works here\n"), "{file}");
    assert!(told.contains("codex-proxyctl setup"), "it says what to do next: {told}");
}
