//! Answers of hosts that speak Responses, as they are relayed: goldens, and laws that hold for every one of them; and the
//! requests they are given.
//!
//! A case is a directory of `tests/golden/streams/responses`: `upstream.sse`, `origin.md`, and `relayed.sse`, what the
//! client gets. `UPDATE_GOLDEN=1` rewrites the last.

use std::{collections::BTreeMap, fs, path::PathBuf};

use codex_proxy::{
    codec::{
        DecodeError, EncodeError, Encoded, Protocol, Target, compaction,
        names::Names,
        relay::{BlobId, Relay, cannot_compact, encode_request, encode_summary_request, refuses_blobs},
        responses::{
            request::decode_request,
            stream::{Ended, Identity},
        },
        seal::Sealer,
    },
    model::{
        failure::{Failure, FailureKind},
        request::{Opaque, Origin},
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{
    golden::{self, Differences},
    streams,
};

struct Case {
    name: String,
    dir: PathBuf,
    body: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let case = |dir: PathBuf| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        assert!(dir.join("origin.md").exists(), "{name}: origin.md");
        Case { name, body: fs::read(dir.join("upstream.sse")).unwrap(), dir }
    };
    golden::cases("streams/responses").into_iter().map(case).collect()
}

fn relay(streaming: bool) -> Relay {
    relay_of(Names::default(), streaming)
}

/// For the host that was sent these names.
pub(crate) fn relay_of(names: Names, streaming: bool) -> Relay {
    let identity =
        Identity { stem: "0123".to_owned(), nonce: [9; 16], created_at: 1_795_000_001, model: "work".to_owned() };
    Relay::new(&identity, names, streaming)
}

fn failure_of(error: DecodeError) -> Failure {
    match error {
        DecodeError::Upstream(failure) => failure,
        DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
            Failure::new(FailureKind::Upstream, error.to_string())
        }
    }
}

fn relayed(pieces: &[&[u8]]) -> (String, Relay) {
    relayed_by(relay(true), pieces)
}

/// Relays a stream that comes in these pieces and then ends in order, as `proxy/source.rs` does.
pub(crate) fn relayed_by(mut relay: Relay, pieces: &[&[u8]]) -> (String, Relay) {
    let mut out = Vec::new();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            relay.feed(piece, &mut out)?;
        }
        relay.end_of_input(&mut out)
    };
    let failure = match run() {
        Ok(()) => relay.cut_off(),
        Err(error) => failure_of(error),
    };
    relay.fail(failure, &mut out);
    (String::from_utf8(out).unwrap(), relay)
}

/// The data of each frame, comments left out; what is no JSON as a string.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let stream = stream.replace("\r\n", "\n");
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

fn is_terminal(event: &Value) -> bool {
    matches!(event["type"].as_str(), Some("response.completed" | "response.incomplete" | "response.failed"))
}

/// Exactly one end, last, and numbered on. Gives it.
fn the_end(stream: &str, at: &str) -> Value {
    let events = events(stream);
    assert_eq!(events.iter().filter(|event| is_terminal(event)).count(), 1, "{at}: one end: {stream}");
    let end = events.last().unwrap();
    assert!(is_terminal(end), "{at}: the end is last: {stream}");
    let last = events[..events.len() - 1].iter().rev().find_map(|event| event["sequence_number"].as_u64());
    if let Some(number) = end["sequence_number"].as_u64() {
        assert_eq!(number, last.map_or(0, |last| last + 1), "{at}: numbered on: {stream}");
    }
    end.clone()
}

/// Where the frame begins that ends the answer; the length of the input if there is none.
fn end_of(body: &str) -> usize {
    let marks = ["completed", "incomplete", "failed"].map(|word| format!("\"type\":\"response.{word}\",\"se"));
    let marks = marks.into_iter().chain([
        "\"type\":\"response.completed\",\"response\"".to_owned(),
        "\"type\": \"response.completed\"}".to_owned(),
        "data: {\"type\":\"error\"".to_owned(),
        "data: {\"error\"".to_owned(),
    ]);
    let Some(at) = marks.filter_map(|mark| body.find(&mark)).min() else { return body.len() };
    let line_end = if body.contains("\r\n") { "\r\n\r\n" } else { "\n\n" };
    body[..at].rfind(line_end).map_or(0, |at| at + line_end.len())
}

#[test]
fn every_answer_passes_as_it_came_but_for_its_end() {
    let mut differences = Differences::default();
    for case in cases() {
        let body = String::from_utf8(case.body.clone()).unwrap();
        let (out, relay) = relayed(&[&case.body]);
        let end = end_of(&body);
        assert!(out.starts_with(&body[..end]), "{}: the frames before the end: {out}", case.name);
        assert_eq!(out[end..].matches("data: ").count(), 1, "{}: then the end: {out}", case.name);
        the_end(&out, &case.name);
        assert!(relay.ended().is_some() && relay.begun());
        differences.compare(&case.dir.join("relayed.sse"), &out);
    }
    differences.none();
}

#[test]
fn what_the_client_can_take_is_not_touched_at_all() {
    for name in ["thoughts-text-call", "hosted-custom-unknown", "incomplete"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        assert_eq!(relayed(&[&case.body]).0.as_bytes(), case.body, "{name}");
    }
}

#[test]
fn any_split_gives_the_same_bytes() {
    for case in cases() {
        let whole = relayed(&[&case.body]).0;
        for at in 0..case.body.len() {
            assert_eq!(relayed(&[&case.body[..at], &case.body[at..]]).0, whole, "{}: {at}", case.name);
        }
        for size in [1, 2, 3, 7, 100] {
            let pieces: Vec<&[u8]> = case.body.chunks(size).collect();
            assert_eq!(relayed(&pieces).0, whole, "{}: pieces of {size}", case.name);
        }
    }
}

#[test]
fn every_kind_of_line_end_passes() {
    let text = String::from_utf8(cases().into_iter().find(|c| c.name == "thoughts-text-call").unwrap().body).unwrap();
    for ends in ["\n", "\r\n", "\r"] {
        let body = text.replace('\n', ends);
        for size in [1, 2, 5, body.len()] {
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let whole = if ends == "\r" { format!("{body}\n") } else { body.clone() };
            assert_eq!(relayed(&pieces).0, whole, "{ends:?} in pieces of {size}");
        }
    }
}

#[test]
fn an_answer_cut_at_any_byte_gets_the_one_end() {
    for case in cases() {
        let body = String::from_utf8_lossy(&case.body).into_owned();
        let end = end_of(&body);
        // The last byte of the data that ends the answer; what stands behind adds nothing.
        let told = end + body[end..].find("}\r").or(body[end..].find("}\n")).unwrap_or(body.len() - end);
        for at in 0..case.body.len() {
            let place = format!("{} cut at {at}", case.name);
            let (out, relay) = relayed(&[&case.body[..at]]);
            let last = the_end(&out, &place);
            if at < told {
                assert_eq!(last["type"], "response.failed", "{place}: {out}");
                assert_eq!(last["response"]["error"]["code"], "server_error", "{place}: {last}");
                // What passed are whole frames of the answer.
                let passed = &out[..out.rfind("event: response.failed").unwrap()];
                let passed = passed.strip_suffix("\n\n").unwrap_or(passed);
                assert!(body.starts_with(passed.trim_end_matches(['\r', '\n'])), "{place}: {out}");
                let ids = [json!("resp_0123"), json!("resp_67ca09c5efe0819096d0511c92b8c890096610f474011cc0")];
                let named = passed.contains("\"response\"");
                assert_eq!(last["response"]["id"], ids[usize::from(named)], "{place}");
            }
            assert!(relay.ended().is_some());
        }
    }
}

#[test]
fn nothing_follows_the_end() {
    for case in cases().into_iter().filter(|case| !matches!(&*case.name, "cut" | "least")) {
        let whole = relayed(&[&case.body]).0;
        let mut more = case.body.clone();
        more.extend_from_slice(b"data: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n");
        more.extend_from_slice(&case.body);
        assert_eq!(relayed(&[&more]).0, whole, "{}", case.name);
        assert_eq!(relayed(&[&case.body, &more]).0, whole, "{}", case.name);
    }
}

#[test]
fn a_keepalive_between_any_two_frames_repeats_the_number() {
    let case = cases().into_iter().find(|case| case.name == "thoughts-text-call").unwrap();
    let mut relay = relay(true);
    let mut last = 0;
    for frame in String::from_utf8(case.body).unwrap().split_inclusive("\n\n") {
        let mut out = Vec::new();
        relay.feed(frame.as_bytes(), &mut out).unwrap();
        assert_eq!(out, frame.as_bytes());
        last = events(frame)[0]["sequence_number"].as_u64().unwrap();
        out.clear();
        relay.voice().keepalive(&mut out);
        let alive = &events(std::str::from_utf8(&out).unwrap())[0];
        assert_eq!((&alive["type"], &alive["sequence_number"]), (&json!("response.in_progress"), &json!(last)));
        assert_eq!(alive["response"]["id"], "resp_67ca09c5efe0819096d0511c92b8c890096610f474011cc0");
    }
    assert_eq!(relay.voice().next(), last + 1);
}

#[test]
fn the_answer_begins_with_its_first_item() {
    let case = cases().into_iter().find(|case| case.name == "thoughts-text-call").unwrap();
    let text = String::from_utf8(case.body).unwrap();
    let frames: Vec<&str> = text.split_inclusive("\n\n").collect();
    let mut relay = relay(true);
    let mut out = Vec::new();
    for frame in [": comment\n\n", "data: {\"type\":\"codex.rate_limits\"}\n\n", frames[0], frames[1]] {
        relay.feed(frame.as_bytes(), &mut out).unwrap();
        assert!(!relay.begun(), "{frame}");
    }
    relay.feed(frames[2].as_bytes(), &mut out).unwrap();
    assert!(relay.begun());
    // What is held back for another try does not grow without end.
    let mut relay = self::relay(true);
    let idle = format!("data: {{\"type\":\"keepalive\",\"x\":\"{}\"}}\n\n", "x".repeat(1 << 20));
    let begun: Vec<bool> =
        (0..5).map(|_| relay.feed(idle.as_bytes(), &mut out).map(|()| relay.begun()).unwrap()).collect();
    assert_eq!(begun, [false, false, false, true, true]);
}

#[test]
fn whole_bodies() {
    let body = json!({"id": "resp_9", "object": "response", "created_at": 7, "status": "completed", "model": "m",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}],
        "usage": {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 3}});
    let pretty = serde_json::to_string_pretty(&body).unwrap();
    // Asked for one object: it passes as it came.
    let mut one = relay(false);
    one.feed_whole(pretty.as_bytes(), &mut Vec::new()).unwrap();
    assert_eq!(one.ended(), Some(&Ended::Completed));
    assert_eq!(one.usage().map(|usage| usage.total()), Some(3));
    assert_eq!(one.take_whole(), pretty.as_bytes());
    // Asked for a stream: it becomes one.
    let mut stream = relay(true);
    let mut out = Vec::new();
    stream.feed_whole(pretty.as_bytes(), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(the_end(&out, "whole")["response"], body);
    let types: Vec<Value> = events(&out).iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["response.created", "response.output_item.done", "response.completed"]);
    // A stream for who asked for one object.
    let mut answered = relay(false);
    let mut out = Vec::new();
    let case = cases().into_iter().find(|case| case.name == "thoughts-text-call").unwrap();
    answered.feed(&case.body, &mut out).unwrap();
    assert!(out.is_empty());
    let whole: Value = serde_json::from_slice(&answered.take_whole()).unwrap();
    assert_eq!(whole["output"].as_array().unwrap().len(), 3);
    for (body, kind) in [
        ("<html><title>Sign in</title></html>", FailureKind::Operator),
        (r#"{"error":{"message":"boom","code":"rate_limit_exceeded"}}"#, FailureKind::RateLimit),
        (
            r#"{"id":"resp_1","object":"response","status":"failed","error":{"code":"server_error","message":"x"}}"#,
            FailureKind::Upstream,
        ),
        (r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[]}"#, FailureKind::Upstream),
        ("{\"id\":", FailureKind::Upstream),
    ] {
        let error = relay(true).feed_whole(body.as_bytes(), &mut Vec::new()).unwrap_err();
        assert_eq!(failure_of(error).kind, kind, "{body}");
    }
}

#[test]
fn usage_is_complete_and_nothing_else_of_the_end_changes() {
    let frame = |usage: &str| {
        let said = r#"{"type":"message","content":[{"type":"output_text","text":"12345678"}]}"#;
        let thought = r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"1234"}]}"#;
        let call = r#"{"type":"function_call","arguments":"{\"a\":1}"}"#;
        format!(
            "event: response.completed\ndata: {{\"type\":\"response.completed\", \"response\":{{{usage} \"id\":\"resp_1\",\"output\":[{said}, {thought}, {call}],\"x\":[ 1]}}}}\n\n"
        )
    };
    let inputs = r#""input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0}"#;
    let outputs = r#""output_tokens_details":{"reasoning_tokens":0}"#;
    // 15 bytes said, 4 thought, 40 asked.
    let guess = format!(
        r#"{{"input_tokens":10,{inputs},"output_tokens":5,"output_tokens_details":{{"reasoning_tokens":1}},"total_tokens":15,"estimated":true}}"#
    );
    let some = r#""input_tokens":7,"output_tokens":2, "total_tokens":9"#;
    for (usage, expected) in [
        (String::new(), format!(r#""usage":{guess},"#)),
        (r#""usage": null,"#.to_owned(), format!(r#""usage": {guess},"#)),
        (r#""usage":{},"#.to_owned(), format!(r#""usage":{guess},"#)),
        (format!(r#""usage":{{{some}}},"#), format!(r#""usage":{{{inputs},{outputs},{some}}},"#)),
        (
            format!(r#""usage":{{{some},"output_tokens_details":null,"input_tokens_details":{{"cached_tokens":3}}}},"#),
            format!(
                r#""usage":{{{some},"output_tokens_details":{{"reasoning_tokens":0}},"input_tokens_details":{{"cached_tokens":3}}}},"#
            ),
        ),
    ] {
        let mut relay = relay(true);
        relay.set_input_bytes(40);
        let (out, relay) = relayed_by(relay, &[frame(&usage).as_bytes()]);
        assert_eq!(out, frame(&expected));
        let counted = relay.usage().unwrap();
        let expected = if counted.estimated { (10, 5, 1) } else { (7, 2, 0) };
        assert_eq!((counted.input, counted.output, counted.reasoning), expected, "{usage}");
    }
    // Nothing at all is there, and what was said was told before.
    let item = r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":"12345678"}]}}"#;
    let least = format!("data: {item}\n\ndata: {{\"type\":\"response.completed\",\"response\":{{}}}}\n\n");
    let (out, relay) = relayed(&[least.as_bytes()]);
    let end = the_end(&out, "least");
    assert!(end["response"]["id"] == "resp_0123" && end["response"]["usage"]["output_tokens"] == 2, "{end}");
    assert!(relay.usage().unwrap().estimated);
}

#[test]
fn what_is_opaque_is_named_as_it_passes() {
    let case = cases().into_iter().find(|case| case.name == "thoughts-text-call").unwrap();
    let (_, mut relay) = relayed(&[&case.body]);
    let events = events(std::str::from_utf8(&case.body).unwrap());
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    let blob = done.filter_map(|event| event["item"]["encrypted_content"].as_str()).next().unwrap();
    assert_eq!(relay.take_blobs(), [BlobId::of(blob.as_bytes())]);
    assert_eq!(relay.take_blobs(), []);
}

#[test]
fn what_is_opaque_in_the_end_alone_is_named_as_well() {
    let item = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"});
    let end = json!({"type": "response.completed", "response": {"id": "resp_1", "output": [item]}});
    let (_, mut relay) = relayed(&[format!("data: {end}\n\n").as_bytes()]);
    assert_eq!(relay.take_blobs(), [BlobId::of(b"gAAA")]);
}

proptest! {
    #[test]
    fn any_bytes_give_one_end(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let mut relay = relay(true);
        let mut out = Vec::new();
        for piece in pieces {
            if relay.feed(piece, &mut out).is_err() { break }
        }
        drop(relay.end_of_input(&mut out));
        let failure = relay.cut_off();
        relay.fail(failure, &mut out);
        prop_assert!(relay.ended().is_some());
        let told = String::from_utf8_lossy(&out).contains(r#""error":{"#);
        prop_assert!(told);
    }

    #[test]
    fn pieces_of_frames_in_any_order_give_one_end(
        parts in prop::collection::vec(prop::sample::select(vec![
            "data: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"r\"}}", "\n", "\n\n",
            "\r\n", "\r", ": c", "event: response.completed", "event: x", "data: [DONE]", "data:", "data: {\"type\":",
            "data: {\"type\":\"response.output_item.added\",\"sequence_number\":5}", "\u{feff}", "é",
            "data: \"response.completed\",\"response\":{\"id\":\"x\"}}", "retry: 1", "data: {\"response\":{}}",
        ]), 0..30),
        size in 1_usize..50,
    ) {
        let body = parts.concat();
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
        let (out, relay) = relayed(&pieces);
        prop_assert_eq!(&out, &relayed(&[body.as_bytes()]).0);
        let last = out.replace("\r\n", "\n");
        let last = last.rsplit("\n\n").find(|frame| !frame.trim().is_empty()).unwrap().to_owned();
        prop_assert!(last.contains("response.completed") || last.contains("response.failed"), "{}", out);
        prop_assert!(relay.ended().is_some());
    }
}

// ---- requests ----

fn target() -> Target {
    streams::target("native", "gpt-5.4", Protocol::Responses)
}

fn nobody(_: BlobId) -> Option<Origin> {
    None
}

fn encode(body: &str, target: &Target) -> Encoded<Names> {
    encode_request(body.as_bytes(), target, &Sealer::new(&[7; 32]), nobody).unwrap()
}

fn text(encoded: &Encoded<Names>) -> String {
    String::from_utf8(encoded.body.clone()).unwrap()
}

#[test]
fn real_requests_pass_but_for_the_model() {
    let sealer = Sealer::new(&[7; 32]);
    for case in golden::cases("requests") {
        let body = fs::read_to_string(case.join("responses.json")).unwrap();
        let decoded = decode_request(body.as_bytes(), &sealer);
        let Ok(decoded) = decoded else { continue };
        let encoded = encode(&body, &target());
        let model = serde_json::to_string(&decoded.request.model).unwrap();
        let at = body.find("\"model\"").unwrap() + 7;
        let at = at + body[at..].find(&model).unwrap();
        let sealed = body.contains("cxp1.") || body.contains("cxc1.");
        if !sealed {
            let expected = format!("{}\"gpt-5.4\"{}", &body[..at], &body[at + model.len()..]);
            assert_eq!(text(&encoded), expected, "{}", case.display());
            assert!(encoded.losses.is_empty(), "{}: {:?}", case.display(), encoded.losses);
        }
        // Again, the same bytes.
        assert_eq!(text(&encode(&body, &target())), text(&encoded));
    }
}

#[test]
fn what_the_configuration_demands_is_set() {
    let with = |effort: &str| Target { effort: Some(effort.to_owned()), max_output_tokens: Some(100), ..target() };
    for (body, expected) in [
        (r#"{"model":"a","input":"x"}"#, r#"{"reasoning":{"effort":"high"},"model":"gpt-5.4","input":"x"}"#),
        (r#"{ "model":"a","reasoning":null}"#, r#"{ "model":"gpt-5.4","reasoning":{"effort":"high"}}"#),
        (r#"{"model":"a","reasoning":{}}"#, r#"{"model":"gpt-5.4","reasoning":{"effort":"high"}}"#),
        (
            r#"{"model":"a","reasoning":{ "summary":"auto"}}"#,
            r#"{"model":"gpt-5.4","reasoning":{"effort":"high", "summary":"auto"}}"#,
        ),
        (
            r#"{"reasoning":{"effort" : "low" },"model":"a","max_output_tokens": 500}"#,
            r#"{"reasoning":{"effort" : "high" },"model":"gpt-5.4","max_output_tokens": 100}"#,
        ),
        (
            r#"{"reasoning":{"effort":null},"model":"a","max_output_tokens":50}"#,
            r#"{"reasoning":{"effort":"high"},"model":"gpt-5.4","max_output_tokens":50}"#,
        ),
    ] {
        assert_eq!(text(&encode(body, &with("high"))), expected);
    }
    assert!(text(&encode(r#"{"model":"a"}"#, &with("off"))).contains(r#""effort":"none""#));
}

/// An item of a conversation, and whether the host may have it.
#[derive(Debug, Clone)]
struct Piece {
    json: String,
    passes: bool,
}

fn pieces() -> impl Strategy<Value = (Vec<Piece>, BTreeMap<BlobId, Origin>)> {
    let sealer = Sealer::new(&[7; 32]);
    let opaque = Opaque { origin: Origin::new("deepseek", "deepseek-v4"), value: "x".to_owned() };
    let sealed = sealer.seal(&opaque, [3; 24]);
    let kinds = prop::sample::select(vec!["text", "call", "ours", "ours-bare", "theirs", "other", "unknown", "bare"]);
    prop::collection::vec((kinds, "[ \n\t]{0,3}", any::<u16>()), 0..12).prop_map(move |kinds| {
        let mut known = BTreeMap::new();
        let pieces = kinds.into_iter().map(|(kind, space, n)| {
            let blob = format!("gAAA{n}/{kind}==");
            let mut thoughts = |blob: &str, origin: Option<Origin>| {
                known.extend(origin.map(|origin| (BlobId::of(blob.as_bytes()), origin)));
                format!("{{{space}\"type\":\"reasoning\",\"id\":\"rs_{n}\",\"summary\":[],\"encrypted_content\":\"{blob}\"{space}}}")
            };
            let json = match kind {
                "text" => format!("{{\"role\":\"user\",{space}\"content\":\"say \\\"reasoning\\\" {n} é\"}}"),
                "call" => format!("{{\"type\":\"function_call\",\"call_id\":\"c{n}\",\"name\":\"f\",\"arguments\":\"{{}}\",\"later\":[1,2]}}"),
                "ours" => thoughts(&sealed, None),
                "theirs" => thoughts(&blob, Some(target().origin)),
                "other" => thoughts(&blob, Some(Origin::new("azure", "gpt-5.4"))),
                "unknown" => thoughts(&blob, None),
                "ours-bare" => "{\"type\":\"reasoning\",\"id\":\"rs_0123456789abcdef0123456789abcdef_4\",\"summary\":[]}".to_owned(),
                _ => format!("{{\"type\":\"reasoning\",\"id\":\"rs_{n}\",\"summary\":[],\"encrypted_content\":null}}"),
            };
            Piece { json, passes: !matches!(kind, "ours" | "other" | "ours-bare") }
        });
        let pieces = pieces.collect();
        (pieces, known)
    })
}

proptest! {
    #[test]
    fn only_what_the_host_cannot_read_goes((pieces, known) in pieces(), comma in "[ \n]{0,2},[ \n]{0,2}", model in "[a-z\"é\\\\]{1,9}") {
        let join = |pieces: Vec<&str>| pieces.join(&comma);
        let all = join(pieces.iter().map(|p| p.json.as_str()).collect());
        let kept: Vec<&str> = pieces.iter().filter(|p| p.passes).map(|p| p.json.as_str()).collect();
        let (model, spaced) = (serde_json::to_string(&model).unwrap(), " \"new\" : {\"a\":[1]} ");
        let body = |input: &str, model: &str| format!("{{{spaced},\"input\":[ {input} ],\"stream\":true,\"model\": {model},\"store\":false }}\n");
        let text_of = body(&all, &model);
        let sealer = Sealer::new(&[7; 32]);
        let encoded = encode_request(text_of.as_bytes(), &target(), &sealer, |id| known.get(&id).cloned()).unwrap();
        let lost = pieces.len() - kept.len();
        prop_assert_eq!(encoded.losses.len(), lost);
        prop_assert_eq!(text(&encoded), body(&join(kept), "\"gpt-5.4\""));
    }
}

#[test]
fn a_summary_that_only_its_maker_can_read_is_an_error() {
    let sealer = Sealer::new(&[7; 32]);
    let opaque = Opaque { origin: Origin::new("deepseek", "deepseek-v4"), value: "x".to_owned() };
    let body = |blob: &str| {
        json!({"model": "a", "input": [{"type": "compaction", "encrypted_content": blob}, {"role": "user", "content": "x"}]})
            .to_string()
    };
    // Thoughts are no summary, and what another key sealed cannot be opened.
    let elsewhere = Sealer::new(&[8; 32]).seal_summary("x", [3; 24]).unwrap();
    for blob in [sealer.seal(&opaque, [3; 24]), elsewhere] {
        let error = encode_request(body(&blob).as_bytes(), &target(), &sealer, nobody).unwrap_err();
        let EncodeError::Unsupported { path, why } = error;
        assert!(path == "input[0].encrypted_content" && why.contains("start a new thread"), "{path}: {why}");
    }
    let other = |_: BlobId| Some(Origin::new("azure", "gpt-5.4"));
    assert!(encode_request(body("gAAA").as_bytes(), &target(), &sealer, other).is_err());
    assert!(encode_request(body("gAAA").as_bytes(), &target(), &sealer, nobody).is_ok());
    assert!(encode_request(body("gAAA").as_bytes(), &target(), &sealer, |_| Some(target().origin)).is_ok());
}

#[test]
fn a_summary_of_ours_is_told_as_a_message_and_nothing_else_changes() {
    let sealer = Sealer::new(&[7; 32]);
    let blob = sealer.seal_summary("the \"task\"\n", [3; 24]).unwrap();
    let item =
        |item: &str| format!("{{ \"model\":\"gpt-5.4\", \"input\" : [ {item} ,{{\"role\":\"user\"}}],\"x\":[1 ]}}");
    let ours = item(&json!({"type": "compaction", "id": "cmp_1", "encrypted_content": blob}).to_string());
    let told = text(&encode(&ours, &target()));
    let content = json!([{"type": "input_text", "text": compaction::words("the \"task\"\n")}]);
    let read: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(read["input"][0], json!({"type": "message", "role": "user", "content": content}));
    let (before, after) = told.split_once("{\"type\":\"message\"").unwrap();
    assert_eq!(before, "{ \"model\":\"gpt-5.4\", \"input\" : [ ");
    assert!(after.ends_with("}]} ,{\"role\":\"user\"}],\"x\":[1 ]}"), "{told}");
}

#[test]
fn a_host_that_cannot_compact_is_asked_for_a_summary() {
    let sealer = Sealer::new(&[7; 32]);
    let ask = |body: &str| -> Value {
        let encoded = encode_summary_request(body.as_bytes(), &target(), &sealer, nobody).unwrap();
        serde_json::from_slice(&encoded.body).unwrap()
    };
    let instruction = json!({"type": "message", "role": "user",
        "content": [{"type": "input_text", "text": compaction::INSTRUCTION}]});
    let said = json!({"role": "user", "content": "go"});
    let thought = json!({"type": "reasoning", "summary": [], "encrypted_content": sealer.seal(
        &Opaque { origin: Origin::new("elsewhere", "m"), value: "x".to_owned() }, [3; 24])});
    for (input, expected) in [
        (json!([said, {"type": "compaction_trigger"}]), json!([said, instruction])),
        (json!([said, thought, {"type": "compaction_trigger"}]), json!([said, instruction])),
        (json!([said]), json!([said, instruction])),
        (json!([said, thought]), json!([said, instruction])),
        (json!([thought]), json!([instruction])),
        (json!([]), json!([instruction])),
        (json!("go"), json!([said, instruction])),
    ] {
        let asked =
            ask(&json!({"model": "a", "input": input, "tools": [{"type": "function", "name": "f"}]}).to_string());
        assert_eq!(
            asked,
            json!({"model": "gpt-5.4", "input": expected, "tools": [{"type": "function", "name": "f"}],
            "stream": true, "tool_choice": "none"})
        );
    }
    let asked = ask(&json!({"model": "a", "input": [said], "stream": false, "tool_choice": "auto",
        "text": {"format": {"type": "json_object"}}, "store": false})
    .to_string());
    assert_eq!(
        asked,
        json!({"model": "gpt-5.4", "input": [said, instruction], "stream": true, "tool_choice": "none",
        "text": null, "store": false})
    );
}

#[test]
fn a_host_that_cannot_compact_is_told_from_one_that_refuses() {
    let trigger = br#"{"error":{"message":"Invalid value: 'compaction_trigger'. Supported values are: 'message' ...","param":"input[5]"}}"#;
    let kind = br#"{"detail":"Unknown item type","loc":"input[5].type"}"#;
    for (status, body, object, expected) in [
        (400, trigger.as_slice(), false, true),
        (422, kind.as_slice(), false, true),
        (501, b"", false, true),
        (404, b"", true, true),
        (405, b"", true, true),
        // The path is the usual one: it is the model that is missing.
        (404, b"", false, false),
        (400, b"{\"error\":{\"message\":\"Your input is too long.\"}}", false, false),
        (500, trigger, false, false),
        (429, b"", true, false),
    ] {
        assert_eq!(cannot_compact(status, body, object), expected, "{status} {}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_refusal_of_blobs_is_told_from_others() {
    let openai = br#"{"error":{"message":"The encrypted content gAAA...DQ== could not be verified.","type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}"#;
    assert!(refuses_blobs(400, openai));
    assert!(refuses_blobs(400, b"Encrypted content could not be decrypted or parsed."));
    assert!(!refuses_blobs(500, openai));
    assert!(!refuses_blobs(400, b"{\"error\":{\"message\":\"Unknown parameter: encrypted_content\"}}"));
}
