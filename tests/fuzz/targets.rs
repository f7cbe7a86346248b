//! One test for each decoder.

use std::time::SystemTime;

use codex_proxy::{
    codec::{
        self, Asked, DecodeError, NativeTools, Protocol, Reader, StreamDecoder, Target, Task,
        chat::dialect::Dialect,
        listing,
        names::Names,
        relay::Relay,
        responses::{
            request::decode_request,
            stream::{Ended, Identity, StreamEncoder},
        },
        seal::Sealer,
        sse::{Frame, Framer},
    },
    model::{
        event::{End, Event},
        failure::{Failure, FailureKind},
        grammar,
        request::{Origin, Request},
    },
};
use proptest::{prelude::*, test_runner::TestCaseError};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{fuzz, kept};

type Checked = Result<(), TestCaseError>;

const KEY: [u8; 32] = [7; 32];
/// Types of the events that end an answer.
const ENDS: [&str; 3] = ["response.completed", "response.incomplete", "response.failed"];
/// A request with every kind of tool that the kept answers call.
const ASKED: &str = r#"{"model":"work","stream":true,"input":"hi","include":["reasoning.encrypted_content"],"tools":[
    {"type":"function","name":"exec_command","parameters":{"type":"object","properties":{"cmd":{"type":"string"}}}},
    {"type":"custom","name":"apply_patch"},{"type":"tool_search","execution":"client","parameters":{"type":"object"}},
    {"type":"namespace","name":"mcp__echo","tools":[{"type":"function","name":"echo_it","parameters":{"type":"object"}}]}
]}"#;

fn target(protocol: Protocol) -> Target {
    let (model, dialect) = match protocol {
        Protocol::Chat => ("deepseek-v4-pro", "deepseek"),
        Protocol::Responses => ("gpt-5", "generic"),
        Protocol::Messages => ("claude-opus-5-5", "generic"),
        Protocol::Gemini => ("gemini-3-pro", "generic"),
    };
    Target {
        origin: Origin::new("up", model),
        model: model.to_owned(),
        protocol,
        dialect: Dialect::named(dialect).unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
        native_tools: NativeTools::ALL,
    }
}

fn identity() -> Identity {
    Identity { stem: "0123".to_owned(), nonce: [9; 16], created_at: 1_795_000_000, model: "work".to_owned() }
}

fn asked<'r, 'a>(request: &'r Request<'a>, body: &'r [u8], sealer: &'r Sealer) -> Asked<'r, 'a> {
    Asked { request, body, expanded: false, host: None, sealer, task: Task::Answer }
}

/// The names of the tools that were declared, as the protocol has them.
fn names(target: &Target) -> Names {
    let sealer = Sealer::new(&KEY);
    let decoded = decode_request(ASKED.as_bytes(), &sealer).unwrap();
    codec::encode_request(asked(&decoded.request, ASKED.as_bytes(), &sealer), target, |_| None).unwrap().names
}

fn decoder(protocol: Protocol) -> StreamDecoder {
    let target = target(protocol);
    let names = names(&target);
    match Reader::new(&target, names, &identity(), true, 400) {
        Reader::Translate(decoder) => *decoder,
        Reader::Relay(_) => panic!("{protocol:?} is translated"),
    }
}

fn failure_of(error: DecodeError) -> Failure {
    match error {
        DecodeError::Upstream(failure) => failure,
        error @ (DecodeError::Malformed { .. } | DecodeError::TooLarge { .. }) => {
            Failure::new(FailureKind::Upstream, error.to_string())
        }
    }
}

/// Decodes frames as `proxy/source.rs` does.
fn decode(protocol: Protocol, pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = decoder(protocol);
    let mut framer = Framer::default();
    let mut events = Vec::new();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            framer.feed(piece, |frame| decoder.feed(&frame, &mut events))?;
            if decoder.done() {
                return Ok(());
            }
        }
        std::mem::take(&mut framer).finish(|frame| decoder.feed(&frame, &mut events))
    };
    let cut = run().err().map(failure_of);
    decoder.finish(cut, &mut events);
    events
}

fn decode_whole(protocol: Protocol, body: &[u8]) -> Vec<Event> {
    let mut decoder = decoder(protocol);
    let mut events = Vec::new();
    let cut = decoder.feed_whole(body, &mut events).err().map(failure_of);
    decoder.finish(cut, &mut events);
    events
}

/// What the client gets of them is lawful, and complete only if they are.
fn check_written(events: &[Event]) -> Checked {
    if let Err(violation) = grammar::check(events) {
        return Err(TestCaseError::fail(violation.to_string()));
    }
    let end = events.iter().rev().find_map(|event| if let Event::End(end) = event { Some(end) } else { None });
    for streaming in [true, false] {
        let sealer = Sealer::new(&KEY);
        let echo = decode_request(ASKED.as_bytes(), &sealer).unwrap().echo;
        let mut encoder = StreamEncoder::new(identity(), echo, sealer, streaming);
        let mut out = Vec::new();
        for event in events {
            encoder.push(event.clone(), &mut out);
        }
        let completed = matches!(encoder.ended(), Some(Ended::Completed));
        prop_assert_eq!(completed, matches!(end, Some(End::Complete | End::Paused)), "told as complete");
        if streaming {
            check_stream(&out, true)?;
        } else {
            let whole: Value = serde_json::from_slice(&encoder.into_response()).unwrap();
            prop_assert!(whole.is_object());
        }
    }
    Ok(())
}

/// Frames of JSON, numbered if they are `ours`, with one end, which is last.
fn check_stream(stream: &[u8], ours: bool) -> Checked {
    let mut data = Vec::new();
    let mut framer = Framer::default();
    let mut keep = |frame: Frame<'_>| -> Result<(), DecodeError> {
        data.push(frame.data.to_owned());
        Ok(())
    };
    // What is no text passes as it came.
    framer.feed(String::from_utf8_lossy(stream).as_bytes(), &mut keep).and_then(|()| framer.finish(keep)).unwrap();
    // Not as a tree: what is nested too deep for one passes all the same.
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
        #[serde(default)]
        sequence_number: Option<u64>,
    }
    let mut ends = 0;
    let mut last = String::new();
    for (n, data) in data.iter().enumerate() {
        let Ok(event) = serde_json::from_str::<Event<'_>>(data) else {
            prop_assert!(!ours, "not JSON: {data}");
            continue;
        };
        prop_assert!(!ours || event.sequence_number == Some(n as u64), "numbered without a gap: {data}");
        last = event.r#type.and_then(|name| serde_json::from_str(name.get()).ok()).unwrap_or_default();
        ends += usize::from(ENDS.contains(&last.as_str()));
    }
    prop_assert_eq!(ends, 1, "ends: {}", stream.escape_ascii());
    prop_assert!(ENDS.contains(&last.as_str()), "last is {last}");
    Ok(())
}

fn streams(protocol: &str) -> Vec<Vec<u8>> {
    kept(&format!("streams/{protocol}"), |name| name == "upstream.sse")
}

fn bodies(protocol: &str) -> Vec<Vec<u8>> {
    let mut inputs = kept(&format!("streams/{protocol}"), |name| name == "upstream.json");
    // Streams under a wrong content type come so too.
    inputs.extend(streams(protocol).into_iter().take(8));
    inputs
}

fn fuzz_stream(protocol: Protocol) {
    fuzz(protocol.name(), streams(protocol.name()), |pieces| {
        let whole = pieces.concat();
        let once = decode(protocol, &[&whole]);
        prop_assert_eq!(&decode(protocol, pieces), &once, "how it is split makes a difference");
        check_written(&once)
    });
}

fn fuzz_whole(protocol: Protocol) {
    let name = format!("{}-whole", protocol.name());
    fuzz(&name, bodies(protocol.name()), |pieces| check_written(&decode_whole(protocol, &pieces.concat())));
}

#[test]
fn chat() {
    fuzz_stream(Protocol::Chat);
}

#[test]
fn messages() {
    fuzz_stream(Protocol::Messages);
}

#[test]
fn gemini() {
    fuzz_stream(Protocol::Gemini);
}

#[test]
fn chat_whole() {
    fuzz_whole(Protocol::Chat);
}

#[test]
fn messages_whole() {
    fuzz_whole(Protocol::Messages);
}

#[test]
fn gemini_whole() {
    fuzz_whole(Protocol::Gemini);
}

fn relay(streaming: bool) -> Relay {
    let target = target(Protocol::Responses);
    match Reader::new(&target, names(&target), &identity(), streaming, 400) {
        Reader::Relay(relay) => *relay,
        Reader::Translate(_) => panic!("Responses are relayed"),
    }
}

/// Relays as `proxy/source.rs` does.
fn relayed(pieces: &[&[u8]]) -> Vec<u8> {
    let mut relay = relay(true);
    let mut out = Vec::new();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            relay.feed(piece, &mut out)?;
            if relay.ended().is_some() {
                return Ok(());
            }
        }
        relay.end_of_input(&mut out)
    };
    let failure = run().err().map_or_else(|| relay.cut_off(), failure_of);
    if relay.ended().is_none() {
        relay.fail(failure, &mut out);
    }
    out
}

#[test]
fn responses() {
    fuzz("responses", streams("responses"), |pieces| {
        let out = relayed(&[&pieces.concat()]);
        let split = relayed(pieces);
        prop_assert_eq!(
            String::from_utf8_lossy(&split),
            String::from_utf8_lossy(&out),
            "how it is split makes a difference"
        );
        check_stream(&out, false)
    });
}

#[test]
fn responses_whole() {
    fuzz("responses-whole", streams("responses"), |pieces| {
        let mut relay = relay(false);
        let mut out = Vec::new();
        let failure = relay.feed_whole(&pieces.concat(), &mut out).err().map_or_else(|| relay.cut_off(), failure_of);
        if relay.ended().is_none() {
            relay.fail(failure, &mut out);
        }
        prop_assert!(relay.ended().is_some());
        Ok(())
    });
}

#[test]
fn requests() {
    let sealer = Sealer::new(&KEY);
    fuzz("requests", kept("requests", |name| name == "responses.json"), |pieces| {
        let body = pieces.concat();
        let decoded = match decode_request(&body, &sealer) {
            Ok(decoded) => decoded,
            Err(invalid) => {
                prop_assert!(!invalid.message.is_empty());
                return Ok(());
            }
        };
        let asked = asked(&decoded.request, &body, &sealer);
        let mut tried: Vec<(Protocol, Task)> =
            Protocol::BUILT.iter().map(|protocol| (*protocol, Task::Answer)).collect();
        tried.push((Protocol::Responses, Task::Summary));
        for (protocol, task) in tried {
            let target = target(protocol);
            let asked = Asked { task, ..asked };
            let encode = || codec::encode_request(asked, &target, |_| None);
            let (Ok(encoded), Ok(again)) = (encode(), encode()) else { continue };
            prop_assert_eq!(&encoded.body, &again.body, "the same request, other bytes");
            let json: Result<&RawValue, _> = serde_json::from_slice(&encoded.body);
            prop_assert!(json.is_ok(), "{}: not JSON: {}", protocol.name(), encoded.body.escape_ascii());
        }
        Ok(())
    });
}

#[test]
fn errors() {
    let mut inputs = kept("streams/chat", |name| name == "upstream.json");
    inputs.extend([
        br#"{"error":{"message":"Rate limit reached. Please try again in 1.5s.","type":"rate_limit_error","code":"rate_limit_exceeded"}}"#.to_vec(),
        br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}"#.to_vec(),
        br#"[{"error":{"code":429,"message":"Quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]}}]"#.to_vec(),
        b"<html><title>502 Bad Gateway</title></html>".to_vec(),
    ]);
    fuzz("errors", inputs, |pieces| {
        let body = pieces.concat();
        for protocol in Protocol::BUILT {
            for status in [400, 401, 404, 413, 429, 500, 503, 529] {
                let failure = codec::decode_error(*protocol, status, Some("7"), &body, SystemTime::UNIX_EPOCH);
                prop_assert!(!failure.message.is_empty());
            }
        }
        Ok(())
    });
}

#[test]
fn listings() {
    fuzz("listings", kept("listings", |name| name.ends_with(".json")), |pieces| {
        let body = pieces.concat();
        // Whatever comes, it is a list or none.
        let counts = [
            listing::openai(&body).map(|models| models.len()).ok(),
            listing::anthropic(&body).map(|page| page.models.len()).ok(),
            listing::gemini(&body).map(|page| page.models.len()).ok(),
            listing::ollama_tags(&body).map(|models| models.len()).ok(),
            listing::lm_studio(&body).map(|models| models.len()).ok(),
            listing::ollama_show(&body, Some(4096)).map(|_| 1).ok(),
            listing::llama_props(&body).map(|_| 1).ok(),
            Some(listing::ollama_loaded(&body).len()),
        ];
        prop_assert!(counts.iter().flatten().all(|count| *count <= body.len()));
        Ok(())
    });
}
