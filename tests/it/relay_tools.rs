//! Hosts that speak Responses and know function tools only: what they are told of the client's tools, and what the client
//! is told of their calls. Goldens, laws, real sockets, the real Codex.
//!
//! A case is a directory of `tests/golden/streams/relay-functions`: `upstream.sse`, `origin.md`, and `relayed.sse`, what the
//! client gets that has a custom tool `apply_patch`. `relay.functions-only.json` in some of `tests/golden/requests` is what
//! the host is sent. `UPDATE_GOLDEN=1` rewrites both.

use std::{fs, path::Path};

use codex_proxy::{
    codec::{
        CALLS_MAX, DecodeError, Encoded, NativeTools, Protocol, Target, custom,
        names::Names,
        relay::{Relay, encode_request},
        responses::stream::Ended,
        seal::Sealer,
    },
    model::{failure::FailureKind, request::LossAction},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::codec_relay::{events, relay_of, relayed_by};
use crate::support::{
    codex::Codex,
    golden::{self, Differences},
    http::Answer,
    proxy::Proxy,
    responses::{answer, exec, frame, message},
    streams,
    upstream::{Cut, Recorded, Reply, Upstream},
};

const NEITHER: NativeTools = NativeTools { custom: false, hosted: false };
const PATCH: &str = "*** Begin Patch\n*** Add File: b\n+two \"2\"\n*** End Patch\n";

fn target(native_tools: NativeTools) -> Target {
    Target { native_tools, ..streams::target("box", "qwen4", Protocol::Responses) }
}

fn encoded(body: &str, tools: NativeTools) -> Encoded<Names> {
    encode_request(body.as_bytes(), &target(tools), &Sealer::new(&[7; 32]), |_| None).unwrap()
}

/// What the host is sent, and what was lost on the way.
fn said(body: &str, tools: NativeTools) -> (String, String) {
    let encoded = encoded(body, tools);
    assert_eq!(encoded.body, self::encoded(body, tools).body, "the same request gives the same bytes");
    let losses = encoded.losses.iter().map(|loss| format!("{}: {:?}: {}\n", loss.path, loss.action, loss.why));
    (String::from_utf8(encoded.body).unwrap(), losses.collect())
}

/// What passes through a host that knows neither custom nor hosted tools, said once more in another way.
fn expected(mut body: Value) -> Value {
    fn tools(list: &mut Value) {
        let Some(list) = list.as_array_mut() else { return };
        list.retain(|tool| matches!(tool["type"].as_str(), Some("function" | "custom" | "tool_search" | "namespace")));
        for tool in list {
            if let Some(members) = tool.get_mut("tools") {
                tools(members);
            }
            if tool["type"] == "custom" {
                tool["type"] = json!("function");
                tool["parameters"] = serde_json::from_str(custom::PARAMETERS).unwrap();
                tool["strict"] = json!(false);
                let definition = tool["format"]["definition"].as_str().unwrap_or_default().to_owned();
                let described = tool["description"].as_str().unwrap_or_default().to_owned();
                tool.as_object_mut().unwrap().remove("format");
                let description = tool["description"].take();
                drop(description);
                tool["description"] = json!([described, definition]);
            }
        }
    }
    body["model"] = json!("qwen4");
    if let Some(list) = body.get_mut("tools") {
        tools(list);
    }
    if body["tool_choice"]["type"] == "custom" {
        body["tool_choice"]["type"] = json!("function");
    }
    if let Some(items) = body["input"].as_array_mut() {
        items.retain(|item| {
            let kind = item["type"].as_str().unwrap_or("message");
            !matches!(kind, "web_search_call" | "image_generation_call" | "an_item_of_the_future")
        });
        for item in items {
            match item["type"].as_str() {
                Some("custom_tool_call") => {
                    item["type"] = json!("function_call");
                    let input = item.as_object_mut().unwrap().remove("input").unwrap();
                    item["arguments"] = json!(json!({ "input": input }).to_string());
                }
                Some("custom_tool_call_output") => item["type"] = json!("function_call_output"),
                Some("additional_tools" | "tool_search_output") => tools(&mut item["tools"]),
                _ => {}
            }
            if let Some(id) = item["id"].as_str().and_then(|id| id.strip_prefix("ctc_")) {
                item["id"] = json!(format!("fc_{id}"));
            }
        }
    }
    body
}

/// Each description that was made of two, as these two: the wording between them is another matter.
fn alike(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            let (mut x, mut y) = (keys(a), keys(b));
            x.sort();
            y.sort();
            assert_eq!(x, y, "{at}");
            a.iter().for_each(|(key, value)| alike(value, &b[key], &format!("{at}.{key}")));
        }
        (Value::String(text), Value::Array(parts)) if at.ends_with(".description") => {
            for part in parts {
                assert!(text.contains(part.as_str().unwrap()), "{at}: {text}");
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).enumerate().for_each(|(i, (x, y))| alike(x, y, &format!("{at}[{i}]")));
        }
        (a, b) => assert_eq!(a, b, "{at}"),
    }
}

#[test]
fn a_host_of_functions_is_told_of_functions_and_everything_else_passes() {
    let mut differences = Differences::default();
    for case in golden::cases("requests") {
        let body = fs::read_to_string(case.join("responses.json")).unwrap();
        let (found, losses) = said(&body, NEITHER);
        let json: Value = serde_json::from_str(&found).unwrap();
        alike(&json, &expected(serde_json::from_str(&body).unwrap()), &case.display().to_string());
        let kept = ["apply-patch", "hand-made-quirks", "lite-exec-result"];
        if kept.iter().any(|name| case.ends_with(Path::new(name))) {
            differences.compare(
                &case.join("relay.functions-only.json"),
                &(serde_json::to_string_pretty(&json).unwrap() + "\n"),
            );
            differences.compare(&case.join("relay.functions-only.losses.txt"), &losses);
        }
    }
    differences.none();
}

#[test]
fn only_what_the_host_lacks_is_touched() {
    let custom = r#"{ "type":"custom", "name":"apply_patch","x" : 1 }"#;
    let hosted = r#"{"type":"web_search" }"#;
    let rest = r#"{"type":"function","name":"f", "parameters":{} }"#;
    let work = r#"{"type":"web_search_call","id":"ws_1","status":"completed"}"#;
    let call = r#"{"type":"custom_tool_call","id":"ctc_1","call_id":"c", "name":"apply_patch","input":"a\n\"é" }"#;
    let output = r#"{"type":"custom_tool_call_output","call_id":"c","output":"done"}"#;
    let said_of = |tools: &[&str], items: &[&str], host| {
        let body = |tools: &[&str], items: &[&str], model: &str| {
            format!(
                "{{ \"model\":\"{model}\",\"tools\":[ {} ], \"input\" : [{}] }}",
                tools.join(" ,"),
                items.join(", ")
            )
        };
        (said(&body(tools, items, "m"), host).0, body(&[rest], &[], "qwen4"), body)
    };
    // Hosted tools only.
    let host = NativeTools { hosted: false, ..NativeTools::ALL };
    let (found, _, body) = said_of(&[hosted, rest, custom, hosted], &[work, call, work, output, work], host);
    assert_eq!(found, body(&[rest, custom], &[call, output], "qwen4"));
    // Custom tools only.
    let host = NativeTools { custom: false, ..NativeTools::ALL };
    let (found, _, body) = said_of(&[hosted, rest], &[work, call, output], host);
    let call = r#"{"type":"function_call","id":"fc_1","call_id":"c","name":"apply_patch","arguments":"{\"input\":\"a\\n\\\"é\"}"}"#;
    let output = r#"{"type":"function_call_output","call_id":"c","output":"done"}"#;
    assert_eq!(found, body(&[hosted, rest], &[work, call, output], "qwen4"));
    let (found, _, _) = said_of(&[custom], &[], host);
    assert!(found.contains(r#"{"type":"function","name":"apply_patch","x":1,"description":"#), "{found}");
    // Everything may go.
    let host = NativeTools { hosted: false, ..NativeTools::ALL };
    assert_eq!(said_of(&[hosted], &[work], host).0, "{ \"model\":\"qwen4\",\"tools\":[  ], \"input\" : [] }");
}

#[test]
fn choices_are_told_in_the_hosts_words() {
    let choice = |choice: &str| {
        let tools = r#"[{"type":"custom","name":"p"},{"type":"function","name":"f"},{"type":"web_search"}]"#;
        let body = format!(r#"{{"model":"m","input":"x","tools":{tools},"tool_choice":{choice}}}"#);
        let encoded = encoded(&body, NEITHER);
        let json: Value = serde_json::from_slice(&encoded.body).unwrap();
        let approximated = encoded.losses.iter().filter(|loss| loss.path.starts_with("tool_choice")).count();
        (json["tool_choice"].clone(), approximated, encoded.losses.len())
    };
    assert_eq!(choice(r#""required""#), (json!("required"), 0, 1));
    assert_eq!(choice(r#"{"type":"custom","name":"p"}"#), (json!({"type": "function", "name": "p"}), 0, 1));
    assert_eq!(choice(r#"{"type":"function","name":"f"}"#), (json!({"type": "function", "name": "f"}), 0, 1));
    assert_eq!(choice(r#"{"type":"web_search"}"#), (json!("auto"), 1, 2));
    let allowed =
        r#"{"type":"allowed_tools","mode":"auto","tools":[{"type":"web_search"},{"type":"custom","name":"p"}]}"#;
    let kept = json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "p"}]});
    assert_eq!(choice(allowed), (kept, 1, 2));
}

#[test]
fn a_custom_tool_cannot_take_a_functions_name() {
    let body = r#"{"model":"m","input":"x","tools":[{"type":"custom","name":"p"},{"type":"function","name":"p"}]}"#;
    let encoded = encoded(body, NEITHER);
    let json: Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(json["tools"], json!([{"type": "function", "name": "p"}]));
    assert_eq!((encoded.losses.len(), encoded.losses[0].action), (1, LossAction::Drop));
    assert!(encoded.names.is_empty(), "the function's calls stay those of a function");
}

// ---- answers ----

fn relay(streaming: bool) -> Relay {
    let body = r#"{"model":"m","input":"x","tools":[{"type":"custom","name":"apply_patch"},
        {"type":"namespace","name":"code","tools":[{"type":"custom","name":"run"}]},{"type":"function","name":"exec_command"}]}"#;
    let names = encoded(body, NEITHER).names;
    relay_of(names, streaming)
}

fn relayed(pieces: &[&[u8]]) -> (String, Relay) {
    relayed_by(relay(true), pieces)
}

/// A call's events, from number 1 on.
fn call(namespace: Option<&str>, name: &str, pieces: &[&str], status: &str) -> Vec<Value> {
    let mut item = json!({"id": "fc_9", "type": "function_call", "status": "in_progress", "arguments": "",
        "call_id": "call_9", "name": name});
    if let Some(namespace) = namespace {
        item["namespace"] = json!(namespace);
    }
    let arguments = pieces.concat();
    let mut events = vec![json!({"type": "response.output_item.added", "output_index": 0, "item": item})];
    events.extend(pieces.iter().map(|piece| {
        json!({"type": "response.function_call_arguments.delta", "item_id": "fc_9", "output_index": 0, "delta": piece})
    }));
    events.push(json!({"type": "response.function_call_arguments.done", "item_id": "fc_9", "output_index": 0,
        "arguments": arguments}));
    item["status"] = json!(status);
    item["arguments"] = json!(arguments);
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    events
}

fn stream(mut events: Vec<Value>, end: &str) -> String {
    let output: Vec<Value> =
        events.iter().filter(|e| e["type"] == "response.output_item.done").map(|e| e["item"].clone()).collect();
    events.insert(0, json!({"type": "response.created", "response": {"id": "resp_1"}}));
    events.push(json!({"type": format!("response.{end}"), "response": {"id": "resp_1", "output": output,
        "incomplete_details": {"reason": "max_output_tokens"},
        "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}}}));
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events.iter().map(frame).collect()
}

/// The client's view: deltas joined, the input of `.done`, the item, the item of the final object.
fn input_of(out: &str) -> (String, String, Value, Value) {
    let events = events(out);
    let of = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let delta = of("response.custom_tool_call_input.delta").map(|event| event["delta"].as_str().unwrap());
    let done = of("response.custom_tool_call_input.done").map(|event| event["input"].as_str().unwrap());
    let item = of("response.output_item.done").next().map_or(Value::Null, |event| event["item"].clone());
    let last = events.last().unwrap()["response"]["output"][0].clone();
    (delta.collect(), done.collect(), item, last)
}

#[test]
fn calls_of_custom_tools_come_back_as_kept() {
    let mut differences = Differences::default();
    for case in golden::cases("streams/relay-functions") {
        assert!(case.join("origin.md").exists());
        let body = fs::read(case.join("upstream.sse")).unwrap();
        let out = relayed(&[&body]).0;
        for size in [1, 7, 100] {
            assert_eq!(relayed(&body.chunks(size).collect::<Vec<_>>()).0, out, "in pieces of {size}");
        }
        differences.compare(&case.join("relayed.sse"), &out);
    }
    differences.none();
}

#[test]
fn what_is_kept_of_an_answer_is_what_the_client_has() {
    let arguments = json!({ "input": PATCH }).to_string();
    let body = stream(call(None, "apply_patch", &[&arguments], "completed"), "completed");
    let whole = events(&body).pop().unwrap()["response"].to_string();
    let mut streamed = relay(true);
    streamed.keep_items();
    streamed.feed(body.as_bytes(), &mut Vec::new()).unwrap();
    let mut at_once = relay(false);
    at_once.keep_items();
    at_once.feed_whole(whole.as_bytes(), &mut Vec::new()).unwrap();
    for mut relay in [streamed, at_once] {
        let items = relay.take_items().unwrap();
        assert_eq!(items.len(), 1, "{items:?}");
        let item: Value = serde_json::from_str(&items[0]).unwrap();
        assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!(PATCH)));
    }
}

#[test]
fn what_is_no_custom_call_passes_to_the_byte() {
    for (namespace, name) in [(None, "exec_command"), (None, "run"), (Some("code"), "apply_patch"), (None, "other")] {
        let body = stream(call(namespace, name, &["{\"input\":", "\"x\"}"], "completed"), "completed");
        assert_eq!(relayed(&[body.as_bytes()]).0, body, "{namespace:?} {name}");
    }
    let body = stream(call(Some("code"), "run", &["{\"input\":", "\"x\"}"], "completed"), "completed");
    let (_, _, item, _) = input_of(&relayed(&[body.as_bytes()]).0);
    assert_eq!((&item["namespace"], &item["input"]), (&json!("code"), &json!("x")));
}

#[test]
fn what_came_before_a_call_too_many_passes() {
    let added = |n: usize| {
        let item = json!({"type": "function_call", "id": format!("fc_{n}"), "call_id": format!("c{n}"), "name": "apply_patch",
            "arguments": ""});
        frame(&json!({"type": "response.output_item.added", "output_index": n, "item": item}))
    };
    let text = frame(&json!({"type": "response.output_text.delta", "delta": "LAST-WORDS"}));
    let body: String = (0..CALLS_MAX).map(added).chain([text, added(CALLS_MAX)]).collect();
    let (out, relay) = relayed(&[body.as_bytes()]);
    assert!(out.contains("LAST-WORDS") && !out.contains("fc_512"), "{}", &out[out.len() - 2000..]);
    assert!(matches!(relay.ended(), Some(Ended::Failed(_))), "{:?}", relay.ended());
}

#[test]
fn a_call_that_is_not_whole_is_never_given() {
    let half = ["{\"input\":", "\"*** Begin Patch"];
    for (status, end) in [("completed", "completed"), ("incomplete", "incomplete"), ("incomplete", "completed")] {
        let body = stream(call(None, "apply_patch", &half, status), end);
        let (out, relay) = relayed(&[body.as_bytes()]);
        let (_, done, item, last) = input_of(&out);
        assert_eq!((done.as_str(), &item, &last), ("", &Value::Null, &Value::Null), "{status} {end}: {out}");
        match relay.ended() {
            Some(Ended::Failed(failure)) => assert_eq!((failure.kind, end), (FailureKind::Upstream, "completed")),
            ended => assert!(matches!(ended, Some(Ended::Incomplete(_))) && end == "incomplete", "{ended:?}"),
        }
    }
    // Whole JSON, but the host says that it is not all.
    let body = stream(call(None, "apply_patch", &["{\"input\":\"x\"}"], "incomplete"), "incomplete");
    assert_eq!(input_of(&relayed(&[body.as_bytes()]).0).2, Value::Null);
    // As one object.
    let item = call(None, "apply_patch", &half, "completed").pop().unwrap()["item"].clone();
    let whole = json!({"id": "resp_1", "object": "response", "status": "completed", "output": [item]}).to_string();
    for streaming in [true, false] {
        let error = relay(streaming).feed_whole(whole.as_bytes(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, DecodeError::Upstream(failure) if failure.kind == FailureKind::Upstream));
    }
}

#[test]
fn a_stream_cut_anywhere_gives_no_call_that_was_not_told_whole() {
    let body = stream(
        call(None, "apply_patch", &["{\"inp", "ut\":\"*** Begin", " Patch\\n\"", "}"], "completed"),
        "completed",
    );
    let told = body.find("event: response.output_item.done").unwrap();
    let told = told + body[told..].find("\n\n").unwrap();
    for at in 0..body.len() {
        let (out, relay) = relayed(&[&body.as_bytes()[..at]]);
        let given = !input_of(&out).2.is_null();
        assert!(!given || at >= told, "cut at {at}: {out}");
        assert_eq!(
            out.matches("\"type\":\"response.failed\"").count()
                + out.matches("\"type\":\"response.completed\"").count(),
            1
        );
        assert!(relay.ended().is_some());
    }
}

#[test]
fn whole_bodies_are_turned_too() {
    let item = call(None, "apply_patch", &["{\"input\":\"x\"}"], "completed").pop().unwrap()["item"].clone();
    let whole =
        json!({"id": "resp_1", "object": "response", "status": "completed", "output": [item, {"type": "message"}]});
    let mut one = relay(false);
    one.feed_whole(whole.to_string().as_bytes(), &mut Vec::new()).unwrap();
    let one: Value = serde_json::from_slice(&one.take_whole()).unwrap();
    let expected = json!({"id": "ctc_9", "type": "custom_tool_call", "status": "completed", "call_id": "call_9",
        "name": "apply_patch", "input": "x"});
    assert_eq!(one["output"], json!([expected, {"type": "message"}]));
    let mut out = Vec::new();
    relay(true).feed_whole(whole.to_string().as_bytes(), &mut out).unwrap();
    let (_, _, item, last) = input_of(std::str::from_utf8(&out).unwrap());
    assert_eq!((&item, &last), (&expected, &expected));
}

proptest! {
    #[test]
    fn any_input_comes_back_whatever_its_pieces(
        text in "\\PC*|[a\"\\\\\n🦀{}]{0,40}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        shape in prop::sample::select(vec!["input", "patch", "bare"]),
    ) {
        let arguments = if shape == "bare" { format!("* {text}") } else { json!({ shape: text }).to_string() };
        let text = if shape == "bare" { arguments.clone() } else { text };
        let mut at: Vec<usize> = cuts.iter().map(|cut| arguments.floor_char_boundary(cut.index(arguments.len() + 1))).collect();
        at.extend([0, arguments.len()]);
        at.sort_unstable();
        let pieces: Vec<&str> = at.windows(2).map(|pair| &arguments[pair[0]..pair[1]]).collect();
        let body = stream(call(None, "apply_patch", &pieces, "completed"), "completed");
        let (out, _) = relayed(&[body.as_bytes()]);
        let (deltas, done, item, last) = input_of(&out);
        prop_assert_eq!(&item["input"], &json!(text));
        prop_assert_eq!((deltas, done), (text.clone(), text));
        prop_assert_eq!(&item, &last);
        let numbers: Vec<u64> = events(&out).iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        prop_assert!(numbers.windows(2).all(|pair| pair[0] <= pair[1]), "{:?}", numbers);
    }
}

// ---- over real sockets, and the real Codex ----

fn config(upstream: &Upstream) -> String {
    let url = upstream.base_url();
    format!(
        "[providers.box]\nprotocol = \"responses\"\nbase_url = \"{url}\"\naccounts = []\ncustom_tools = false\n\
         hosted_tools = false\n[models.work]\nroutes = [\"box/qwen4\"]\n"
    )
}

fn start(upstream: &Upstream) -> Proxy {
    Proxy::start(&config(upstream), &[])
}

fn ask(streaming: bool) -> Value {
    json!({"model": "work", "stream": streaming, "store": false, "input": "go", "tools": [
        {"type": "custom", "name": "apply_patch", "description": "Patches."},
        {"type": "web_search"},
    ]})
}

#[test]
fn a_patch_passes_as_a_function_call_and_comes_back_as_a_patch() {
    let arguments = json!({ "input": PATCH }).to_string();
    let pieces: Vec<&str> = arguments.split_inclusive('n').collect();
    let body = stream(call(None, "apply_patch", &pieces, "completed"), "completed");
    let whole = events(&body).pop().unwrap()["response"].clone();
    let upstream = Upstream::start(move |request| {
        if request.json["stream"] == true {
            let frames: Vec<&str> = body.split_inclusive("\n\n").collect();
            return Reply::sse(&frames).split(11);
        }
        let mut whole = whole.clone();
        whole["object"] = json!("response");
        Reply::json(200, &whole)
    });
    let proxy = start(&upstream);
    let (deltas, done, item, _) = input_of(&proxy.responses(&ask(true)).text());
    assert_eq!((deltas.as_str(), done.as_str(), &item["input"]), (PATCH, PATCH, &json!(PATCH)));
    let one = proxy.responses(&ask(false)).json();
    assert_eq!((&one["output"][0]["type"], &one["output"][0]["input"]), (&json!("custom_tool_call"), &json!(PATCH)));
    for request in upstream.exactly(2) {
        let tools = request.json["tools"].as_array().unwrap();
        assert_eq!((tools.len(), &tools[0]["type"]), (1, &json!("function")), "{tools:#?}");
    }
}

#[test]
fn a_patch_that_breaks_off_is_not_given() {
    let body = stream(call(None, "apply_patch", &["{\"input\":\"*** Begin", " Patch\\n\"}"], "completed"), "completed");
    let frames: Vec<String> = body.split_inclusive("\n\n").map(str::to_owned).collect();
    for cut in [Cut::Reset, Cut::Close] {
        let reply = Reply::sse_cut(&frames[..4], cut);
        let upstream = Upstream::start(move |_| reply.clone());
        let proxy = start(&upstream);
        let got: Answer = proxy.responses(&ask(true));
        assert_eq!(got.terminal()["type"], "response.failed");
        assert!(input_of(&got.text()).2.is_null(), "{}", got.text());
    }
}

fn results(request: &Recorded) -> usize {
    let items = request.json["input"].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().filter(|item| item["type"] == "function_call_output").count()
}

#[test]
fn codex_patches_a_file_through_a_host_of_functions() {
    if crate::support::codex_bin().is_none() {
        return;
    }
    let patch = json!({"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_p",
        "name": "apply_patch", "arguments": json!({ "input": PATCH }).to_string()});
    let upstream = Upstream::start(move |request| match results(request) {
        0 => answer("resp_a", &[exec("call_1", "echo one > a")]),
        1 => answer("resp_b", std::slice::from_ref(&patch)),
        _ => answer("resp_c", &[message("msg_1", "both")]),
    });
    let proxy = start(&upstream);
    let Some(codex) = Codex::new(proxy.endpoint()) else { return };
    codex.exec("make two files").succeeded_with("both");
    assert_eq!((codex.file("a").as_deref(), codex.file("b").as_deref()), (Some("one\n"), Some("two \"2\"\n")));
    let requests = upstream.exactly(3);
    let text = serde_json::to_string(&requests[0].json["tools"]).unwrap();
    assert!(
        text.contains("\"apply_patch\"") && !text.contains("\"custom\"") && !text.contains("\"web_search\""),
        "{text}"
    );
    let items = requests[2].json["input"].as_array().unwrap();
    let told = items.iter().find(|item| item["call_id"] == "call_p" && item["type"] == "function_call").unwrap();
    let arguments: Value = serde_json::from_str(told["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["input"], PATCH);
}
