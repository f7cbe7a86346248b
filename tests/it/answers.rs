//! What the client gets: every upstream golden as Responses events (`responses.sse` beside it), and the laws of the
//! face towards the client, which hold for any lawful answer.

use codex_proxy::{
    codec::{
        responses::{
            request::decode_request,
            stream::{Ended, Identity, StreamEncoder},
        },
        seal::Sealer,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::{Failure, FailureKind},
        grammar,
        request::{Opaque, Origin, ToolKind, ToolRef},
        usage::Usage,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{codec_chat, codec_messages};
use crate::support::{golden::Differences, streams::Case};

fn encoder(streaming: bool) -> StreamEncoder {
    let sealer = Sealer::new(&[7; 32]);
    let body = json!({"model": "work", "input": "hi", "stream": streaming, "include": ["reasoning.encrypted_content"]});
    let body = body.to_string();
    let echo = decode_request(body.as_bytes(), &sealer).unwrap().echo;
    let identity =
        Identity { stem: "0123".to_owned(), nonce: [9; 16], created_at: 1_795_000_000, model: "work".to_owned() };
    StreamEncoder::new(identity, echo, sealer, streaming)
}

fn written(events: &[Event]) -> String {
    let mut encoder = encoder(true);
    let mut out = Vec::new();
    for event in events {
        encoder.push(event.clone(), &mut out);
    }
    String::from_utf8(out).unwrap()
}

fn whole(events: &[Event]) -> (Value, Option<Ended>) {
    let mut encoder = encoder(false);
    let mut out = Vec::new();
    for event in events {
        encoder.push(event.clone(), &mut out);
    }
    assert!(out.is_empty(), "nothing is written before the end");
    let ended = encoder.ended().cloned();
    (serde_json::from_slice(&encoder.into_response()).unwrap(), ended)
}

/// Every rule that a stream of ours obeys. Gives the terminal event.
fn check(stream: &str) -> Value {
    let frames: Vec<Value> = stream
        .split_terminator("\n\n")
        .enumerate()
        .map(|(n, frame)| {
            let (event, data) = frame.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(event.strip_prefix("event: "), data["type"].as_str());
            assert_eq!(data["sequence_number"], json!(n), "numbered without a gap");
            data
        })
        .collect();
    assert_eq!(frames[0]["type"], "response.created");
    assert_eq!(frames[1]["type"], "response.in_progress");
    let terminal = |f: &Value| {
        matches!(f["type"].as_str(), Some("response.completed" | "response.incomplete" | "response.failed"))
    };
    assert_eq!(frames.iter().filter(|f| terminal(f)).count(), 1, "exactly one end: {stream}");
    let last = frames.last().unwrap();
    assert!(terminal(last), "the end is last: {stream}");

    let mut done = Vec::new();
    for (at, added) in frames.iter().enumerate().filter(|(_, f)| f["type"] == "response.output_item.added") {
        let (index, id) = (&added["output_index"], added["item"]["id"].as_str().unwrap());
        let of = |kind: &str, key: &str| {
            let of_item = |f: &&Value| f["type"] == kind && f["item_id"] == id;
            frames.iter().filter(of_item).map(|f| f[key].as_str().unwrap().to_owned()).collect::<Vec<String>>()
        };
        assert!(frames[..at].iter().all(|f| f["output_index"] != *index && f["item_id"] != id), "added first, once");
        let text = of("response.output_text.delta", "delta").concat() + &of("response.refusal.delta", "delta").concat();
        let thoughts = of("response.reasoning_summary_text.delta", "delta").concat();
        let arguments = of("response.function_call_arguments.delta", "delta").concat();
        let input = of("response.custom_tool_call_input.delta", "delta").concat();
        let ends: Vec<&Value> = frames
            .iter()
            .filter(|f| f["type"] == "response.output_item.done" && f["output_index"] == *index)
            .map(|f| &f["item"])
            .collect();
        assert!(ends.len() <= 1, "done once");
        let Some(item) = ends.first() else { continue };
        assert_eq!((&item["id"], &item["type"]), (&added["item"]["id"], &added["item"]["type"]));
        match item["type"].as_str().unwrap() {
            "message" => {
                let parts = item["content"].as_array().unwrap();
                let all = |key: &str| parts.iter().filter_map(|p| p[key].as_str()).collect::<String>();
                assert_eq!(all("text") + &all("refusal"), text, "deltas joined are the text");
                let told = of("response.output_text.done", "text").len() + of("response.refusal.done", "refusal").len();
                assert_eq!(told, parts.len(), "each part is finished");
            }
            "reasoning" => {
                let summary = item["summary"].as_array().unwrap();
                let joined: String = summary.iter().map(|p| p["text"].as_str().unwrap()).collect();
                assert_eq!(joined, thoughts);
            }
            "function_call" => {
                assert_eq!(item["arguments"], json!(arguments));
                assert_eq!(of("response.function_call_arguments.done", "arguments"), [arguments]);
            }
            "custom_tool_call" => {
                assert_eq!(item["input"], json!(input));
                assert_eq!(of("response.custom_tool_call_input.done", "input"), [input]);
            }
            "tool_search_call" => assert!(item["arguments"].is_object()),
            other => panic!("an item of type {other}"),
        }
        if last["type"] == "response.completed" {
            assert_eq!(item["status"].as_str().unwrap_or("completed"), "completed");
        }
        done.push((index.as_u64().unwrap(), (*item).clone()));
    }
    if last["type"] == "response.completed" {
        let added = frames.iter().filter(|f| f["type"] == "response.output_item.added").count();
        assert_eq!(added, done.len(), "a complete answer has only finished items: {stream}");
    }
    done.sort_by_key(|(index, _)| *index);
    let done: Vec<Value> = done.into_iter().map(|(_, item)| item).collect();
    assert_eq!(last["response"]["output"], json!(done), "the final object holds what was done");
    let usage = &last["response"]["usage"];
    if last["type"] != "response.failed" || !usage.is_null() {
        for key in ["input_tokens", "output_tokens", "total_tokens"] {
            assert!(usage[key].is_u64(), "{key}: {usage}");
        }
        assert!(usage["input_tokens_details"]["cached_tokens"].is_u64());
        assert!(usage["output_tokens_details"]["reasoning_tokens"].is_u64());
    }
    last.clone()
}

/// The cases of every protocol.
fn cases() -> impl Iterator<Item = (Case, Protocol)> {
    let chat = codec_chat::cases().into_iter().map(|case| (case, Protocol::Chat));
    chat.chain(codec_messages::cases().into_iter().map(|case| (case, Protocol::Messages)))
}

#[derive(Clone, Copy)]
enum Protocol {
    Chat,
    Messages,
}

#[test]
fn every_upstream_golden_reaches_the_client_as_kept() {
    let mut differences = Differences::default();
    for (case, protocol) in cases() {
        let (events, _) = match protocol {
            Protocol::Chat => codec_chat::decode_case(&case),
            Protocol::Messages => codec_messages::decode_case(&case),
        };
        let stream = written(&events);
        check(&stream);
        differences.compare(&case.dir.join("responses.sse"), &stream);
    }
    differences.none();
}

#[test]
fn an_answer_cut_at_any_byte_ends_once_and_is_never_called_complete_too_early() {
    for (case, protocol) in cases().filter(|(case, _)| !case.whole) {
        for end in 0..case.body.len() {
            let kept = &case.body[..end];
            let text = String::from_utf8_lossy(kept);
            let ((events, _), announced) = match protocol {
                Protocol::Chat => (codec_chat::decode(&case, &[kept]), codec_chat::announced(&text)),
                Protocol::Messages => (codec_messages::decode(&case, &[kept]), codec_messages::announced(&text)),
            };
            let terminal = check(&written(&events));
            assert!(terminal["type"] != "response.completed" || announced, "{}: {end}", case.name);
        }
    }
}

/// Any lawful answer: items that interleave, any text, any end.
fn answers() -> impl Strategy<Value = Vec<Event>> {
    let tool = prop_oneof![
        Just(ToolRef { namespace: None, name: "f".into(), kind: ToolKind::Function }),
        Just(ToolRef { namespace: Some("ns".into()), name: "g".into(), kind: ToolKind::Function }),
        Just(ToolRef { namespace: None, name: "c".into(), kind: ToolKind::Custom }),
        Just(ToolRef { namespace: None, name: "tool_search".into(), kind: ToolKind::ToolSearch }),
    ];
    let kind = prop_oneof![
        Just(ItemKind::Message { phase: None }),
        Just(ItemKind::Message { phase: Some("commentary") }),
        Just(ItemKind::Reasoning),
        tool.prop_map(|tool| ItemKind::Call { call_id: "call".to_owned(), tool }),
    ];
    let item = (kind, proptest::collection::vec((".{1,12}", any::<bool>()), 0..5), any::<bool>(), any::<bool>());
    let end = prop_oneof![
        Just(End::Complete),
        Just(End::Paused),
        Just(End::Incomplete(IncompleteReason::MaxOutputTokens)),
        Just(End::Incomplete(IncompleteReason::ContentFilter)),
        (0..FailureKind::ALL.len()).prop_map(|k| End::Failed(Failure::new(FailureKind::ALL[k], "it broke"))),
    ];
    (proptest::collection::vec(item, 0..5), end, any::<u64>()).prop_map(|(items, end, order)| {
        let complete = matches!(end, End::Complete | End::Paused);
        let mut queues: Vec<Vec<Event>> = items
            .into_iter()
            .enumerate()
            .map(|(n, (kind, deltas, opaque, whole))| {
                let item = ItemKey(u32::try_from(n).unwrap());
                let mut queue = vec![Event::ItemOpen { item, kind: kind.clone() }];
                for (delta, refusal) in deltas {
                    queue.push(match kind {
                        ItemKind::Message { .. } if refusal => Event::Refusal { item, delta },
                        ItemKind::Message { .. } | ItemKind::Compaction => Event::Text { item, delta },
                        ItemKind::Reasoning => Event::Reasoning { item, delta },
                        ItemKind::Call { .. } => Event::CallArguments { item, delta },
                    });
                }
                if opaque && kind == ItemKind::Reasoning {
                    let value = Opaque { origin: Origin::new("p", "m"), value: "secret".to_owned() };
                    queue.push(Event::Opaque { item, value });
                }
                queue.push(Event::ItemClose { item, whole: whole || complete });
                queue.reverse();
                queue
            })
            .collect();
        let mut events = vec![Event::Start { model: "m".to_owned() }];
        let mut random = order;
        while let Some(at) = {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let open: Vec<usize> = (0..queues.len()).filter(|n| !queues[*n].is_empty()).collect();
            (!open.is_empty()).then(|| open[usize::try_from(random >> 33).unwrap() % open.len()])
        } {
            events.extend(queues[at].pop());
        }
        events.push(Event::Usage(Usage { input: 3, output: 2, ..Usage::default() }));
        events.push(Event::End(end));
        events
    })
}

proptest! {
    #[test]
    fn any_lawful_answer_becomes_a_lawful_stream(events in answers()) {
        grammar::check(&events).unwrap();
        let terminal = check(&written(&events));
        let (whole, ended) = whole(&events);
        let mut response = terminal["response"].clone();
        // The nonces differ by nothing and neither do the ids: the object is the same, streamed or not.
        prop_assert_eq!(&whole, &response.take());
        let status = whole["status"].as_str().unwrap();
        let expected = match ended.unwrap() {
            Ended::Completed => "completed",
            Ended::Incomplete(_) => "incomplete",
            Ended::Failed(_) => "failed",
        };
        prop_assert_eq!(status, expected);
        let paused = events.last() == Some(&Event::End(End::Paused));
        prop_assert_eq!(whole.get("end_turn"), paused.then_some(&json!(false)));
    }

    #[test]
    fn a_keepalive_anywhere_changes_nothing_but_the_numbers(events in answers(), at in any::<prop::sample::Index>()) {
        let mut encoder = encoder(true);
        let mut out = Vec::new();
        let at = at.index(events.len());
        for (n, event) in events.iter().enumerate() {
            if n == at {
                encoder.keepalive(&mut out);
            }
            encoder.push(event.clone(), &mut out);
        }
        let with = String::from_utf8(out).unwrap();
        check(&with);
        let without = written(&events);
        // One before the first event, or after the last, is none at all.
        let more = with.matches("event: response.in_progress").count() - without.matches("event: response.in_progress").count();
        prop_assert_eq!(more, usize::from(at > 0));
    }

    #[test]
    fn what_was_sealed_opens_when_it_comes_back(text in ".{1,40}") {
        let item = ItemKey(0);
        let opaque = Opaque { origin: Origin::new("deepseek", "deepseek-v4-pro"), value: text };
        let events = [
            Event::Start { model: String::new() },
            Event::ItemOpen { item, kind: ItemKind::Reasoning },
            Event::Opaque { item, value: opaque.clone() },
            Event::ItemClose { item, whole: true },
            Event::End(End::Complete),
        ];
        let (whole, _) = whole(&events);
        let sealed = whole["output"][0]["encrypted_content"].as_str().unwrap();
        prop_assert_eq!(Sealer::new(&[7; 32]).open(sealed), Ok(opaque));
    }
}
