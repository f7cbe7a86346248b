//! A provider that speaks Responses itself, over real sockets and with the real Codex: what it says reaches the client as
//! it said it, and what goes wrong is told as with any other provider.

use crate::support::codex::Codex;
use crate::support::events::DEADLINE;
use crate::support::http::{self, Answer};
use crate::support::proxy::Proxy;
use crate::support::responses::{answer, exec, message};
use crate::support::root;
use crate::support::upstream::{Cut, Recorded, Reply, Step, Upstream};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::time::Duration;

const KEY: &str = "sk-test-native-upstream";
const SHORT: &str = "retry_deadline_s = 3\nhead_hold_s = 1\nkeepalive_s = 1\nupstream_head_s = 2\nupstream_idle_s = 2";

/// A model `work` at these providers, in that order, all speaking Responses; `proxy`: lines for `[proxy]`.
pub(crate) fn config(proxy: &str, providers: &[(&str, &Upstream)]) -> String {
    let mut text = format!("[proxy]\n{proxy}\n");
    for (name, upstream) in providers {
        let url = upstream.base_url();
        text += &format!(
            "[providers.{name}]\nprotocol = \"responses\"\nbase_url = \"{url}\"\nkey = {{ env = \"UP_KEY\" }}\n\
             [models.{name}]\nroutes = [\"{name}/gpt-5.4\"]\n"
        );
    }
    let routes: Vec<String> = providers.iter().map(|(name, _)| format!("\"{name}/gpt-5.4\"")).collect();
    text + &format!("[models.work]\nroutes = [{}]\n", routes.join(", "))
}

fn start(proxy: &str, providers: &[(&str, &Upstream)]) -> Proxy {
    Proxy::start(&config(proxy, providers), &[("UP_KEY", KEY)])
}

/// The frames of a case of `tests/golden/streams/responses`.
pub(crate) fn golden(name: &str) -> Vec<String> {
    let path = root().join("tests/golden/streams/responses").join(name).join("upstream.sse");
    let text = fs::read_to_string(path).unwrap();
    text.split_inclusive("\n\n").map(str::to_owned).collect()
}

fn ask(model: &str) -> Value {
    json!({"model": model, "stream": true, "store": false, "include": ["reasoning.encrypted_content"],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}],
        "not_known_here": {"a": [1, null]}})
}

/// The same, with that reasoning item in the history.
fn ask_with(model: &str, blob: &str) -> Value {
    let mut body = ask(model);
    let item = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": blob});
    body["input"].as_array_mut().unwrap().insert(0, item);
    body
}

fn blobs(request: &Recorded) -> Vec<&str> {
    let items = request.json["input"].as_array().unwrap();
    items.iter().filter_map(|item| item["encrypted_content"].as_str()).collect()
}

fn blob_of(frames: &[String]) -> String {
    let done = frames.iter().find(|f| f.contains("output_item.done") && f.contains("encrypted_content")).unwrap();
    let data: Value = serde_json::from_str(done.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    data["item"]["encrypted_content"].as_str().unwrap().to_owned()
}

#[test]
fn the_answer_is_what_the_host_said_and_the_host_is_told_what_the_client_said() {
    for size in [7, 1000, 1_000_000] {
        let frames = golden("thoughts-text-call");
        let reply = Reply::sse(&frames).split(size);
        let upstream = Upstream::start(move |_| reply.clone());
        let proxy = start("", &[("native", &upstream)]);
        let got = proxy.responses(&ask("work"));
        assert_eq!((got.status, got.text()), (200, frames.concat()));
        assert_eq!(got.header("content-type"), Some("text/event-stream"));
        let request = &upstream.exactly(1)[0];
        assert_eq!((&*request.method, &*request.path), ("POST", "/v1/responses"));
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {KEY}")));
        let mut expected = ask("work");
        expected["model"] = json!("gpt-5.4");
        assert_eq!(request.json, expected);
        let metrics = proxy.send("GET", "/metrics", None).unwrap().text();
        assert!(metrics.contains("7150") || metrics.contains("7000"), "usage is counted: {metrics}");
    }
}

#[test]
fn one_object_for_who_asks_for_one() {
    let whole = json!({"id": "resp_9", "object": "response", "status": "completed", "model": "m", "output": [],
        "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 3}, "also": [1]});
    let reply = Reply::json(200, &whole);
    let upstream = Upstream::start(move |_| reply.clone());
    let proxy = start("", &[("native", &upstream)]);
    let mut body = ask("work");
    body["stream"] = json!(false);
    let got = proxy.responses(&body);
    assert_eq!((got.status, got.json()), (200, whole));
    assert_eq!(upstream.exactly(1)[0].json["stream"], json!(false));
}

#[test]
fn what_fails_before_the_first_item_is_tried_elsewhere() {
    let begun = golden("error-event");
    // The beginning, and then the error, with nothing between.
    let in_stream = Reply::sse(&[begun[0].clone(), begun[1].clone(), begun.last().unwrap().clone()]);
    let failed = golden("failed-overload");
    let overload = Reply::sse(&[failed[0].clone(), failed.last().unwrap().clone()]);
    for bad in [
        Reply::error(500, "server_error", "server_error", "no"),
        in_stream,
        overload,
        Reply::sse_cut(&begun[..2], Cut::Reset),
        Reply::sse_cut(&begun[..2], Cut::Close),
        Reply::sse::<&str>(&[]),
        Reply::html(502),
    ] {
        let broken = Upstream::start(move |_| bad.clone());
        let good = golden("hosted-custom-unknown");
        let whole = Upstream::start({
            let good = good.clone();
            move |_| Reply::sse(&good)
        });
        let proxy = start("", &[("broken", &broken), ("whole", &whole)]);
        let got = proxy.responses(&ask("work"));
        assert_eq!((got.status, got.text()), (200, good.concat()));
        broken.exactly(1);
    }
}

/// The frames that have passed are those of the host, and one end follows in its name.
fn check_cut(got: &Answer, frames: &[String], code: &str) {
    let text = got.text();
    let own = |frame: &&str| !frame.starts_with("event: response.in_progress") || frames.iter().any(|f| f == frame);
    let passed: String = text.split_inclusive("\n\n").filter(own).collect();
    assert!(passed.starts_with(&frames.concat()), "{text}");
    let end = got.terminal();
    assert_eq!((&end["type"], &end["response"]["error"]["code"]), (&json!("response.failed"), &json!(code)), "{end}");
    assert_eq!(end["sequence_number"], json!(frames.len()));
    assert_eq!(end["response"]["id"], "resp_67ca09c5efe0819096d0511c92b8c890096610f474011cc0");
}

#[test]
fn a_break_after_the_first_item_is_told_in_the_hosts_name() {
    let frames = golden("thoughts-text-call");
    for cut in [Cut::Reset, Cut::Close, Cut::Stall] {
        let begun = frames[..9].to_vec();
        let reply = Reply::sse_cut(&begun, cut);
        let upstream = Upstream::start(move |_| reply.clone());
        let proxy = start(SHORT, &[("native", &upstream)]);
        check_cut(&proxy.responses(&ask("work")), &begun, "server_error");
        upstream.exactly(1);
    }
    // In order, but in mid-frame.
    let begun = frames[..9].to_vec();
    let reply = Reply::sse_open(&begun).frame(&frames[9][..20]).end();
    let upstream = Upstream::start(move |_| reply.clone());
    let proxy = start(SHORT, &[("native", &upstream)]);
    check_cut(&proxy.responses(&ask("work")), &begun, "server_error");
}

#[test]
fn an_end_that_is_a_failure_is_put_into_words_the_client_acts_on() {
    for (name, code, words) in [
        ("failed", "server_error", "native/gpt-5.4: The provider failed"),
        ("failed-rate-limit", "rate_limit_exceeded", "try again in 7s"),
        ("failed-quota", "invalid_prompt", "exceeded your current quota"),
        ("failed-context", "context_length_exceeded", "context window"),
        ("failed-policy", "invalid_prompt", "cybersecurity risk"),
        ("error-event", "server_error", "invalid content"),
        ("error-object", "server_error", "Overloaded"),
        ("failed-without-error", "server_error", "The provider"),
    ] {
        let frames = golden(name);
        let end = frames.iter().rposition(|frame| frame.contains("output_item.done")).unwrap() + 1;
        let reply = Reply::sse(&frames);
        let upstream = Upstream::start(move |_| reply.clone());
        let proxy = start("", &[("native", &upstream)]);
        let got = proxy.responses(&ask("work"));
        check_cut(&got, &frames[..end], code);
        let told = got.terminal()["response"]["error"]["message"].to_string();
        assert!(told.contains(words), "{name}: {told}");
    }
}

#[test]
fn statuses_follow_the_failure_table() {
    for (reply, status, code) in [
        (Reply::error(401, "invalid_request_error", "invalid_api_key", "no"), 400, "upstream_credentials"),
        (
            Reply::error(400, "invalid_request_error", "context_length_exceeded", "too long"),
            400,
            "context_length_exceeded",
        ),
        (
            Reply::error(400, "invalid_request_error", "unknown_parameter", "Unknown parameter: 'x'."),
            400,
            "invalid_request",
        ),
        (
            Reply::error(404, "invalid_request_error", "model_not_found", "The model does not exist"),
            404,
            "model_not_found",
        ),
        (
            Reply::error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
            400,
            "upstream_budget",
        ),
        (
            Reply::json_with(429, &[("retry-after", "70")], &json!({"error": {"message": "slow"}})),
            429,
            "rate_limit_exceeded",
        ),
        (Reply::error(500, "server_error", "server_error", "no"), 502, "upstream_error"),
    ] {
        let upstream = Upstream::start(move |_| reply.clone());
        let proxy = start("retry_deadline_s = 1", &[("native", &upstream)]);
        let got = proxy.responses(&ask("work"));
        assert_eq!((got.status, &got.json()["error"]["code"]), (status, &json!(code)), "{}", got.text());
    }
}

#[test]
fn keepalives_stand_between_whole_frames() {
    let frames = golden("thoughts-text-call");
    let reply = {
        let (half, rest) = frames[9].split_at(30);
        let slow = |reply: Reply| reply.then(Step::Pause(Duration::from_millis(1500)));
        // Comments do not keep the client waiting for a sign.
        let mut reply = slow(Reply::sse_open(&frames[..9]).frame(half)).frame(rest);
        for _ in 0..15 {
            reply = reply.frame(": ping\n\n").then(Step::Pause(Duration::from_millis(100)));
        }
        frames[10..].iter().fold(reply, Reply::frame).end()
    };
    let upstream = Upstream::start(move |_| reply.clone());
    let proxy = start("keepalive_s = 1", &[("native", &upstream)]);
    let got = proxy.responses(&ask("work"));
    let text = got.text();
    let alive = |frame: &&str| frame.contains("response.in_progress") && !frames.iter().any(|f| f == frame);
    let (ours, theirs): (Vec<&str>, Vec<&str>) = text.split_inclusive("\n\n").partition(alive);
    let theirs: Vec<&str> = theirs.into_iter().filter(|frame| !frame.starts_with(':')).collect();
    assert_eq!(theirs, frames);
    assert!(ours.len() >= 2, "{text}");
    let numbers: Vec<Value> = got.events().iter().map(|event| event["sequence_number"].clone()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0].as_u64() <= pair[1].as_u64()), "{numbers:?}");
}

#[test]
fn a_head_that_cannot_wait_is_ours_and_the_answer_the_hosts() {
    let frames = golden("thoughts-text-call");
    let mut reply = Reply::sse(&frames);
    reply.steps.insert(0, Step::Pause(Duration::from_millis(1500)));
    let upstream = Upstream::start(move |_| reply.clone());
    let proxy = start("head_hold_s = 1\nkeepalive_s = 1", &[("native", &upstream)]);
    let got = proxy.responses(&ask("work"));
    assert!(got.text().ends_with(&frames.concat()), "{}", got.text());
    assert_eq!(got.events()[0]["type"], "response.created");
    assert_eq!(got.terminal()["type"], "response.completed");
}

#[test]
fn thoughts_return_to_their_maker_only() {
    let frames = golden("thoughts-text-call");
    let blob = blob_of(&frames);
    let make = |frames: Vec<String>| Upstream::start(move |_| Reply::sse(&frames));
    let (maker, other) = (make(frames.clone()), make(golden("incomplete")));
    let proxy = start("", &[("maker", &maker), ("other", &other)]);
    proxy.responses(&ask("maker")).terminal();
    for model in ["maker", "other"] {
        proxy.responses(&ask_with(model, &blob)).terminal();
        // Nobody has seen this one: it may be the host's.
        proxy.responses(&ask_with(model, "gAAAAfrom-before")).terminal();
    }
    let requests = maker.exactly(3);
    assert_eq!([blobs(&requests[1]), blobs(&requests[2])], [[blob.as_str()], ["gAAAAfrom-before"]]);
    let requests = other.exactly(2);
    assert_eq!(blobs(&requests[0]), [""; 0]);
    assert_eq!(requests[0].json["input"].as_array().unwrap().len(), 1, "{:#}", requests[0].json);
    assert_eq!(blobs(&requests[1]), ["gAAAAfrom-before"]);
    // On disk, without its content, before the proxy ends in any way.
    let kept = fs::read_to_string(proxy.home().join("state/codex-proxy/origins.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 1);
    assert!(kept.contains("\"maker\",\"gpt\"") && !kept.contains(&blob), "{kept}");
}

#[test]
fn a_conversation_that_began_elsewhere_goes_on_after_one_refusal() {
    let frames = golden("incomplete");
    let upstream = Upstream::start(move |request| {
        if blobs(request).is_empty() {
            return Reply::sse(&frames);
        }
        let words = "The encrypted content gAAA...DQ== could not be verified.";
        Reply::error(400, "invalid_request_error", "invalid_encrypted_content", words)
    });
    let proxy = start("", &[("native", &upstream)]);
    proxy.responses(&ask_with("work", "gAAAAforeign")).terminal();
    upstream.exactly(2);
    proxy.responses(&ask_with("work", "gAAAAforeign")).terminal();
    let requests = upstream.exactly(3);
    assert_eq!(blobs(&requests[0]), ["gAAAAforeign"]);
    assert!(blobs(&requests[1]).is_empty() && blobs(&requests[2]).is_empty());
}

#[test]
fn what_a_host_gave_stays_its_own_when_another_blob_is_refused() {
    let frames = golden("thoughts-text-call");
    let own = blob_of(&frames);
    let upstream = Upstream::start(move |request| match (request.index, blobs(request).contains(&"gAAAAforeign")) {
        (0, _) => Reply::sse(&frames),
        (_, true) => Reply::error(400, "invalid_request_error", "invalid_encrypted_content", "no"),
        (_, false) => answer("resp_1", &[message("msg_1", "went on")]),
    });
    let proxy = start("", &[("native", &upstream)]);
    proxy.responses(&ask("work")).terminal();
    let mut body = ask_with("work", "gAAAAforeign");
    let thought = json!({"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": own});
    body["input"].as_array_mut().unwrap().push(thought);
    for _ in 0..2 {
        assert_eq!(proxy.responses(&body).terminal()["type"], "response.completed");
    }
    let requests = upstream.exactly(4);
    let given: Vec<Vec<&str>> = requests[1..].iter().map(blobs).collect();
    assert_eq!(given, [vec!["gAAAAforeign", &own], vec![own.as_str()], vec![own.as_str()]]);
}

/// One provider with two accounts.
fn two_accounts(upstream: &Upstream) -> Proxy {
    let config = format!(
        "[providers.nat]\nprotocol = \"responses\"\nbase_url = \"{}\"\naccounts = [{{ name = \"a\", key = {{ env = \"KEY_A\" }} }}, \
         {{ name = \"b\", key = {{ env = \"KEY_B\" }} }}]\n[models.work]\nroutes = [\"nat/gpt-5.4\"]\n",
        upstream.base_url()
    );
    Proxy::start(&config, &[("KEY_A", "sk-test-of-a"), ("KEY_B", "sk-test-of-b")])
}

fn is_at_b(request: &Recorded) -> bool {
    request.header("authorization") == Some("Bearer sk-test-of-b")
}

#[test]
fn what_another_account_cannot_read_is_still_what_its_maker_can() {
    let frames = golden("thoughts-text-call");
    let own = blob_of(&frames);
    let upstream = Upstream::start(move |request| {
        if !is_at_b(request) && request.index == 1 {
            Reply::error(429, "rate_limit_error", "rate_limit_exceeded", "slow down")
        } else if is_at_b(request) && !blobs(request).is_empty() {
            Reply::error(400, "invalid_request_error", "invalid_encrypted_content", "no")
        } else if request.index == 0 {
            Reply::sse(&frames)
        } else {
            answer("resp_1", &[message("msg_1", "went on")])
        }
    });
    let proxy = two_accounts(&upstream);
    proxy.responses(&ask("work")).terminal();
    // A has no time, B answers without what A thought, and then A is given it again.
    for _ in 0..2 {
        assert_eq!(proxy.responses(&ask_with("work", &own)).terminal()["type"], "response.completed");
    }
    let requests = upstream.exactly(5);
    let given: Vec<(bool, Vec<&str>)> = requests[1..].iter().map(|r| (is_at_b(r), blobs(r))).collect();
    let own = own.as_str();
    assert_eq!(given, [(false, vec![own]), (true, vec![own]), (true, vec![]), (false, vec![own])]);
}

#[test]
fn a_compaction_that_another_account_refuses_is_not_the_end_of_the_thread() {
    let item = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAAof-a"});
    let made = json!({"id": "resp_c", "object": "response.compaction", "created_at": 1, "output": [item]});
    let upstream = Upstream::start(move |request| {
        if request.path.ends_with("/compact") {
            Reply::json(200, &made)
        } else if is_at_b(request) {
            Reply::error(
                400,
                "invalid_request_error",
                "invalid_encrypted_content",
                "The encrypted content is not ours.",
            )
        } else if request.index == 1 {
            Reply::error(429, "rate_limit_error", "rate_limit_exceeded", "slow down")
        } else {
            answer("resp_1", &[message("msg_1", "went on")])
        }
    });
    let proxy = two_accounts(&upstream);
    let compacted = proxy.send("POST", "/v1/responses/compact", Some(&ask("work"))).unwrap().json();
    assert_eq!(compacted["output"][0], item);
    let mut body = ask("work");
    body["input"].as_array_mut().unwrap().insert(0, item);
    for _ in 0..2 {
        assert_eq!(proxy.responses(&body).terminal()["type"], "response.completed");
    }
    // A, B, A once more; then A at once.
    let at_b: Vec<bool> = upstream.exactly(5).iter().map(is_at_b).collect();
    assert_eq!(at_b, [false, false, true, false, false]);
    let kept = fs::read_to_string(proxy.home().join("state/codex-proxy/origins.jsonl")).unwrap();
    assert!(!kept.contains("\"\""), "{kept}");
}

#[test]
fn a_compaction_goes_to_its_maker_whatever_stands_before_it() {
    let item = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAAof-two"});
    let made = item.clone();
    let one = Upstream::start(|_| answer("resp_1", &[message("msg_1", "from one")]));
    let two = Upstream::start(move |_| answer("resp_2", std::slice::from_ref(&made)));
    let proxy = start("", &[("one", &one), ("two", &two)]);
    let mut body = ask("two");
    body["input"].as_array_mut().unwrap().push(json!({"type": "compaction_trigger"}));
    assert_eq!(proxy.responses(&body).items(), std::slice::from_ref(&item));
    let mut body = ask("work");
    body["input"].as_array_mut().unwrap().insert(0, item);
    assert_eq!(proxy.responses(&body).terminal()["response"]["id"], "resp_2");
    one.exactly(0);
    // Without it nobody can.
    body["model"] = json!("one");
    let refused = proxy.responses(&body);
    assert!(refused.status == 400 && refused.text().contains("only its maker can read"), "{}", refused.text());
    one.exactly(0);
}

#[test]
fn a_switch_from_another_protocol_takes_the_conversation_along() {
    use crate::support::chat::Chat;
    let chat = Upstream::start(|_| Chat::new().reasoning("I think").exec("call_1", "true").complete().reply());
    let native = Upstream::start(|_| Reply::sse(&golden("incomplete")));
    let config = config("", &[("native", &native)])
        + &format!(
            "[providers.chat]\nbase_url = \"{}\"\ndialect = \"deepseek\"\nkey = {{ env = \"UP_KEY\" }}\n",
            chat.base_url()
        );
    let proxy = Proxy::start(&config, &[("UP_KEY", KEY)]);
    let mut body = ask("chat/deepseek-v4-pro");
    let items = proxy.responses(&body).items();
    assert!(items[0]["encrypted_content"].as_str().unwrap().starts_with("cxp1."), "{items:?}");
    body["model"] = json!("native");
    let history = body["input"].as_array_mut().unwrap();
    history.extend(items.clone());
    history.push(json!({"type": "function_call_output", "call_id": "call_1", "output": "done"}));
    proxy.responses(&body).terminal();
    let input = &native.exactly(1)[0].json["input"];
    let kinds: Vec<&str> = input.as_array().unwrap().iter().filter_map(|item| item["type"].as_str()).collect();
    assert_eq!(kinds, ["message", "function_call", "function_call_output"]);
    assert_eq!(input[1], items[1]);
}

#[test]
fn on_sigterm_a_relayed_answer_gets_its_end() {
    let frames = golden("thoughts-text-call");
    let upstream = Upstream::start(move |_| Reply::sse_cut(&frames[..6], Cut::Stall));
    let mut proxy = start("drain_s = 1", &[("native", &upstream)]);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let connection = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("work"))).unwrap();
    let mut reader = BufReader::new(connection);
    let mut until = |text: &str| loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended before {text}");
        if line.contains(text) {
            return line;
        }
    };
    until("response.reasoning_summary_text.delta");
    proxy.sigterm();
    let end = until("\"type\":\"response.failed\"");
    assert!(end.contains("resp_67ca09c5") && end.contains("\"sequence_number\":6"), "{end}");
    assert!(proxy.wait_exit().success(), "{}", proxy.log());
}

#[test]
fn a_client_that_leaves_is_known_to_the_host() {
    let frames = golden("thoughts-text-call");
    let upstream = Upstream::start(move |_| Reply::sse_cut(&frames[..6], Cut::Stall));
    let proxy = start("", &[("native", &upstream)]);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let connection = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("work"))).unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while !line.contains("summary_text.delta") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    drop(reader);
    upstream.wait_closed(0, Duration::from_secs(2));
}

// ---- the real Codex ----

fn results(request: &Recorded) -> usize {
    let items = request.json["input"].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().filter(|item| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"))).count()
}

fn session(script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Option<(Codex, Proxy, Upstream)> {
    crate::support::codex_bin()?;
    let upstream = Upstream::start(script);
    let proxy = start(SHORT, &[("native", &upstream)]);
    Some((Codex::new(proxy.endpoint())?, proxy, upstream))
}

#[test]
fn codex_runs_a_command_and_a_patch_through_the_relay() {
    let thoughts = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "gAAAAABnative"});
    let patch = "*** Begin Patch\n*** Add File: b\n+two\n*** End Patch\n";
    let patch = json!({"type": "custom_tool_call", "id": "ctc_1", "status": "completed", "call_id": "call_p",
        "name": "apply_patch", "input": patch});
    let Some((codex, _proxy, upstream)) = session(move |request| match results(request) {
        0 => answer("resp_a", &[thoughts.clone(), exec("call_1", "echo one > a")]),
        1 => answer("resp_b", std::slice::from_ref(&patch)),
        _ => answer("resp_c", &[message("msg_1", "both")]),
    }) else {
        return;
    };
    codex.exec("make two files").succeeded_with("both");
    assert_eq!((codex.file("a").as_deref(), codex.file("b").as_deref()), (Some("one\n"), Some("two\n")));
    let requests = upstream.exactly(3);
    // Custom tools and namespaces are the host's own matter.
    let tools = requests[0].json["tools"].as_array().unwrap();
    assert!(tools.iter().any(|tool| tool["type"] == "custom" && tool["name"] == "apply_patch"), "{tools:#?}");
    assert_eq!(requests[0].json["model"], "gpt-5.4");
    for request in &requests[1..] {
        assert_eq!(blobs(request), ["gAAAAABnative"]);
    }
}

#[test]
fn codex_goes_on_after_a_break_and_runs_nothing_twice() {
    let Some((codex, _proxy, upstream)) = session(|request| match (request.index, results(request)) {
        (0, _) => {
            let mut reply = answer("resp_a", &[exec("call_1", "echo ran >> log")]);
            // Without its end.
            reply.steps.truncate(3);
            reply.then(Step::Reset)
        }
        _ => answer("resp_b", &[message("msg_1", "over")]),
    }) else {
        return;
    };
    let run = codex.exec("run it");
    assert_eq!((run.exit, run.message()), (Some(0), Some("over")), "{run:#?}");
    assert_eq!(codex.file("log").as_deref(), Some("ran\n"));
    assert!(upstream.wait_idle(DEADLINE));
}

#[test]
fn codex_is_told_what_the_host_refuses() {
    for (code, words) in [("context_length_exceeded", "ran out of room"), ("invalid_prompt", "SCRIPTED")] {
        let failed = json!({"type": "response.failed", "sequence_number": 1,
            "response": {"id": "resp_a", "status": "failed", "error": {"code": code, "message": "SCRIPTED words"}}});
        let Some((codex, _proxy, upstream)) = session(move |_| {
            let item = json!({"type": "response.output_item.done", "item": message("msg_1", "half")});
            Reply::sse(&[format!("data: {item}\n\n"), format!("data: {failed}\n\n")])
        }) else {
            return;
        };
        let run = codex.exec("say it");
        let told = run.failed();
        assert!(told.contains(words), "{told}");
        upstream.exactly(1);
    }
}
