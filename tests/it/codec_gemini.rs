//! The Gemini codec: goldens of streams and requests, and laws that hold for every one of them.
//!
//! A stream is a directory of `tests/golden/streams/gemini`: `upstream.sse` (or `upstream.json`, a whole body that came
//! instead), `events.txt` and `origin.md`, whose line `Model: …` says which model is asked. A request is a directory of
//! `tests/golden/requests`: `gemini.MODEL.json` and, for all models, `gemini.losses.txt`. `UPDATE_GOLDEN=1` rewrites them.
//! `tests/gemini_parse.py` reads both with the types of Google's own client.

use std::{fmt::Write as _, fs, path::PathBuf};

use codex_proxy::{
    codec::{
        DecodeError, Protocol, Target,
        chat::dialect::Dialect,
        compaction,
        gemini::{
            StreamDecoder,
            continuation::{GoOn, Joiner, continue_request},
            decode_whole, encode_request,
        },
        names::Names,
        responses::request::{Decoded, decode_request},
        seal::Sealer,
        sse::Framer,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKind},
        failure::{Failure, FailureKind},
        grammar,
        request::{
            CallableTool, Format, Item, Loss, LossAction, Opaque, Origin, Part, Request, Role, Tool, ToolKind, ToolRef,
        },
        usage::Usage,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::golden::{Differences, cases};

fn target(model: &str) -> Target {
    Target {
        origin: Origin::new("google", model),
        model: model.into(),
        protocol: Protocol::Gemini,
        dialect: Dialect::named("generic").unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
    }
}

// ---- streams ----

fn names(target: &Target) -> Names {
    let tool = |namespace: Option<&'static str>, name: &'static str, kind| {
        Tool::Callable(CallableTool {
            tool: ToolRef { namespace: namespace.map(Into::into), name: name.into(), kind },
            description: None,
            parameters: None,
            grammar: None,
            strict: None,
        })
    };
    let request = Request {
        tools: vec![
            tool(None, "exec_command", ToolKind::Function),
            tool(None, "apply_patch", ToolKind::Custom),
            tool(Some("mcp__echo"), "echo_it", ToolKind::Function),
            tool(None, "tool_search", ToolKind::ToolSearch),
        ],
        ..Request::default()
    };
    encode_request(&request, target).unwrap().names
}

struct Case {
    name: String,
    dir: PathBuf,
    model: String,
    body: Vec<u8>,
    whole: bool,
}

fn streams() -> Vec<Case> {
    let of = |dir: PathBuf| {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let origin = fs::read_to_string(dir.join("origin.md")).unwrap_or_else(|e| panic!("{name}: origin.md: {e}"));
        let model = origin.lines().find_map(|l| l.strip_prefix("Model: ")).unwrap_or_else(|| panic!("{name}"));
        let whole = dir.join("upstream.json").exists();
        let body = fs::read(dir.join(if whole { "upstream.json" } else { "upstream.sse" })).unwrap();
        Case { model: model.trim().to_owned(), name, dir, body, whole }
    };
    cases("streams/gemini").into_iter().map(of).collect()
}

/// Decodes a stream that comes in these pieces.
fn decode(target: &Target, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    let mut events = Vec::new();
    let (decoder, cut) = feed(target, pieces, &mut events);
    let skipped = decoder.skipped();
    decoder.finish(cut, &mut events);
    (events, skipped)
}

fn feed(target: &Target, pieces: &[&[u8]], events: &mut Vec<Event>) -> (StreamDecoder, Option<Failure>) {
    let mut decoder = StreamDecoder::new(target, names(target), "seed", 400);
    let mut framer = Framer::default();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            framer.feed(piece, |frame| decoder.feed(&frame, events))?;
        }
        std::mem::take(&mut framer).finish(|frame| decoder.feed(&frame, events))
    };
    let cut = run().err().map(|error| match error {
        DecodeError::Upstream(failure) => failure,
        DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
            Failure::new(FailureKind::Upstream, error.to_string())
        }
    });
    (decoder, cut)
}

fn decode_case(case: &Case) -> (Vec<Event>, u64) {
    let target = target(&case.model);
    if case.whole {
        (decode_whole(&target, names(&target), "seed", 400, &case.body), 0)
    } else {
        decode(&target, &[&case.body])
    }
}

fn written(events: &[Event], skipped: u64) -> String {
    let mut out = String::new();
    for event in events {
        let line = match event {
            Event::Start { model } => format!("start {model:?}"),
            Event::ItemOpen { item, kind: ItemKind::Message { .. } } => format!("open {} message", item.0),
            Event::ItemOpen { item, kind: ItemKind::Reasoning } => format!("open {} reasoning", item.0),
            Event::ItemOpen { item, kind: ItemKind::Compaction } => format!("open {} compaction", item.0),
            Event::ItemOpen { item, kind: ItemKind::Call { call_id, tool } } => {
                let space = tool.namespace.as_deref().map(|n| format!("{n}/")).unwrap_or_default();
                format!("open {} call {call_id} {space}{} ({:?})", item.0, tool.name, tool.kind)
            }
            Event::Text { item, delta } => format!("text {} {delta:?}", item.0),
            Event::Refusal { item, delta } => format!("refusal {} {delta:?}", item.0),
            Event::Reasoning { item, delta } => format!("think {} {delta:?}", item.0),
            Event::CallArguments { item, delta } => format!("args {} {delta:?}", item.0),
            Event::Opaque { item, value } => format!("opaque {} {}", item.0, value.value),
            Event::ItemClose { item, whole } => format!("close {} {}", item.0, if *whole { "whole" } else { "cut" }),
            Event::Usage(u) => format!(
                "usage input {} (cached {}, written {}) output {} (thoughts {}){}",
                u.input,
                u.cached,
                u.cache_write,
                u.output,
                u.reasoning,
                if u.estimated { " estimated" } else { "" }
            ),
            Event::End(End::Failed(f)) => {
                let wait = f.retry_after.map(|w| format!(", wait {}ms", w.as_millis())).unwrap_or_default();
                format!("end failed {:?}{wait}: {}", f.kind, f.message)
            }
            Event::End(end) => format!("end {end:?}"),
        };
        writeln!(out, "{line}").unwrap();
    }
    if skipped > 0 {
        writeln!(out, "skipped {skipped}").unwrap();
    }
    out
}

#[test]
fn streams_are_read_as_kept() {
    let mut differences = Differences::default();
    let cases = streams();
    assert!(cases.len() >= 60, "cases are missing");
    for case in cases {
        let (events, skipped) = decode_case(&case);
        grammar::check(&events).unwrap_or_else(|violation| panic!("{}: {violation}", case.name));
        differences.compare(&case.dir.join("events.txt"), &written(&events, skipped));
    }
    differences.none();
}

#[test]
fn any_truncation_is_lawful_and_never_complete_before_the_service_said_so() {
    for case in streams().into_iter().filter(|case| !case.whole) {
        let target = target(&case.model);
        for end in 0..case.body.len() {
            let kept = &case.body[..end];
            let (events, _) = decode(&target, &[kept]);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
            let announced = String::from_utf8_lossy(kept).contains("\"STOP\"");
            let complete = matches!(events.last(), Some(Event::End(End::Complete)));
            assert!(announced || !complete, "{} at {end} of {}: complete", case.name, case.body.len());
        }
    }
}

#[test]
fn whole_bodies_cut_anywhere_are_lawful_and_never_complete() {
    for case in streams().into_iter().filter(|case| case.whole) {
        let target = target(&case.model);
        for end in 0..case.body.trim_ascii_end().len() {
            let kept = &case.body[..end];
            let events = decode_whole(&target, names(&target), "seed", 400, kept);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
            let is_stream = kept.starts_with(b"data:");
            let complete = matches!(events.last(), Some(Event::End(End::Complete)));
            assert!(is_stream || !complete, "{} at {end}: complete", case.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        for case in streams().into_iter().filter(|case| !case.whole) {
            let target = target(&case.model);
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(case.body.len() + 1)).collect();
            at.extend([0, case.body.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &case.body[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&target, &pieces), decode(&target, &[&case.body]), "{}", case.name);
        }
    }

    #[test]
    fn nonsense_never_breaks_the_grammar(frames in proptest::collection::vec(fragment(), 0..12)) {
        let body: String = frames.iter().map(|f| format!("data: {f}\n\n")).collect();
        let (events, _) = decode(&target("gemini-3.8-flash"), &[body.as_bytes()]);
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), body);
        let target = target("gemini-3.8-flash");
        let array = format!("[{}]", frames.join(","));
        let events = decode_whole(&target, names(&target), "seed", 400, array.as_bytes());
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), array);
    }

    #[test]
    fn changed_bytes_never_break_the_grammar(
        case in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let cases: Vec<Case> = streams().into_iter().filter(|case| !case.body.is_empty()).collect();
        let case = &cases[case.index(cases.len())];
        let mut body = case.body.clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let target = target(&case.model);
        for events in [decode(&target, &[&body]).0, decode_whole(&target, names(&target), "seed", 400, &body)] {
            prop_assert!(grammar::check(&events).is_ok(), "{}: {:?}", case.name, grammar::check(&events));
        }
    }
}

/// A frame that the service could send, in any order with others.
fn fragment() -> impl Strategy<Value = String> {
    let signature = prop_oneof![Just(None), Just(Some("U0lH"))];
    let part = prop_oneof![
        ("(a|é)?", signature.clone())
            .prop_map(|(text, signature)| json!({"text": text, "thoughtSignature": signature})),
        ("t?", signature.clone())
            .prop_map(|(text, sig)| json!({"text": text, "thought": true, "thoughtSignature": sig})),
        ("(exec_command|apply_patch|zzz|)", "(c1|c2)?", any::<bool>(), signature).prop_map(
            |(name, id, args, signature)| {
                let args = if args { json!({"input": "x"}) } else { Value::Null };
                json!({"functionCall": {"name": name, "id": id, "args": args}, "thoughtSignature": signature})
            }
        ),
        Just(json!({"inlineData": {"mimeType": "image/png", "data": ""}})),
        Just(json!({"thoughtSignature": "QQ=="})),
    ];
    prop_oneof![
        8 => proptest::collection::vec(part, 0..4)
            .prop_map(|parts| json!({"candidates": [{"content": {"parts": parts, "role": "model"}}]}).to_string()),
        2 => prop_oneof![Just("STOP"), Just("MAX_TOKENS"), Just("SAFETY"), Just("OTHER"), Just("")]
            .prop_map(|reason| json!({"candidates": [{"finishReason": reason}]}).to_string()),
        1 => Just(json!({"promptFeedback": {"blockReason": "SAFETY"}}).to_string()),
        1 => Just(json!({"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2}}).to_string()),
        1 => Just(json!({"error": {"message": "x", "code": 500}}).to_string()),
        1 => Just("null".to_owned()),
    ]
}

// ---- requests ----

/// Model and whether it takes pictures.
const TARGETS: [(&str, bool); 3] = [("gemini-3.8-flash", true), ("gemini-2.5-pro", true), ("gemini-4-argon", false)];

fn request_target(model: &str, accepts_images: bool) -> Target {
    Target { accepts_images, ..target(model) }
}

fn lines(losses: &[Loss]) -> String {
    losses.iter().map(|loss| format!("{}: {:?}: {}\n", loss.path, loss.action, loss.why)).collect()
}

#[test]
fn requests_are_said_as_kept_and_losses_are_listed() {
    let sealer = Sealer::new(&[7; 32]);
    let mut differences = Differences::default();
    for case in cases("requests") {
        let body = fs::read(case.join("responses.json")).unwrap();
        let Decoded { mut request, .. } =
            decode_request(&body, &sealer).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        if request.compact {
            compaction::ask(&mut request);
        }
        let mut all = String::new();
        for (model, images) in TARGETS {
            let target = request_target(model, images);
            let encoded = encode_request(&request, &target).unwrap();
            let again = encode_request(&request, &target).unwrap();
            assert_eq!(encoded.body, again.body, "the same request gives the same bytes");
            let json: Value = serde_json::from_slice(&encoded.body).unwrap();
            check_contents(&json);
            let pretty = serde_json::to_string_pretty(&json).unwrap() + "\n";
            differences.compare(&case.join(format!("gemini.{model}.json")), &pretty);
            writeln!(all, "{model}\n{}", lines(&encoded.losses)).unwrap();
        }
        differences.compare(&case.join("gemini.losses.txt"), &all);
    }
    differences.none();
}

/// What the service demands of every conversation.
fn check_contents(body: &Value) {
    let contents = body["contents"].as_array().unwrap();
    let strict = |what: bool, why: &str| assert!(what, "{why}: {contents:#?}");
    strict(!contents.is_empty() && contents[0]["role"] == "user", "the user begins");
    strict(contents.last().unwrap()["role"] == "user", "the user ends");
    strict(contents.windows(2).all(|w| w[0]["role"] != w[1]["role"]), "roles alternate");
    let of = |content: &Value, key: &str| -> Vec<Value> {
        let parts = content["parts"].as_array().unwrap();
        parts.iter().filter_map(|part| part.get(key).cloned()).collect()
    };
    let ids = |entries: &[Value]| -> Vec<(Value, Value)> {
        entries.iter().map(|entry| (entry["id"].clone(), entry["name"].clone())).collect()
    };
    let mut open = Vec::new();
    for content in contents {
        let parts = content["parts"].as_array().unwrap();
        strict(!parts.is_empty(), "no content is empty");
        let calls = of(content, "functionCall");
        let responses = of(content, "functionResponse");
        strict(ids(&responses) == open, "responses answer the calls of the content before, in order");
        strict(parts.iter().take(responses.len()).all(|p| p.get("functionResponse").is_some()), "responses come first");
        strict(responses.iter().all(|r| r["response"].is_object()), "a response is an object");
        strict(calls.iter().all(|c| c["args"].is_object()), "arguments are an object");
        let empty = |part: &&Value| part["text"] == "" && part.get("thoughtSignature").is_none();
        strict(!parts.iter().any(|part| empty(&part)), "no text is empty");
        strict(content["role"] == "model" || calls.is_empty(), "the model calls");
        open = ids(&calls);
    }
    let mut all: Vec<Value> = contents.iter().flat_map(|c| of(c, "functionCall")).map(|c| c["id"].clone()).collect();
    let count = all.len();
    all.sort_by_key(Value::to_string);
    all.dedup();
    strict(all.len() == count, "ids are unique");
}

/// Every step that calls functions bears a signature on its first call.
fn check_signatures(body: &Value) {
    for content in body["contents"].as_array().unwrap() {
        let first = content["parts"].as_array().unwrap().iter().find(|part| part.get("functionCall").is_some());
        assert!(first.is_none_or(|part| part["thoughtSignature"].is_string()), "{content:#?}");
    }
}

/// A conversation as JSON items, with the markers that stand in it. A marker is text found nowhere else.
#[derive(Debug, Default)]
struct Talk {
    items: Vec<Value>,
    /// Path of the item or part, and the marker.
    markers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
enum Turn {
    User { image: bool },
    Developer,
    Assistant,
    Thoughts,
    Calls { count: usize, custom: bool, answered: usize, interrupted: bool },
    Orphan,
    Hosted,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        any::<bool>().prop_map(|image| Turn::User { image }),
        Just(Turn::Developer),
        Just(Turn::Assistant),
        Just(Turn::Thoughts),
        (1..4_usize, any::<bool>(), 0..4_usize, any::<bool>())
            .prop_map(|(count, custom, answered, interrupted)| Turn::Calls { count, custom, answered, interrupted }),
        Just(Turn::Orphan),
        Just(Turn::Hosted),
    ];
    proptest::collection::vec(turn, 0..10)
}

impl Talk {
    fn mark(&mut self, within: &str) -> String {
        let marker = format!("<m{:03}>", self.markers.len());
        self.markers.push((format!("input[{}]{within}", self.items.len()), marker.clone()));
        marker
    }

    fn of(turns: &[Turn], sealer: &Sealer) -> Self {
        let mut talk = Self::default();
        let mut call = 0;
        for turn in turns {
            let item = match turn {
                Turn::User { image } => {
                    let mut parts = vec![json!({"type": "input_text", "text": talk.mark(".content[0]")})];
                    if *image {
                        let url = format!("https://example.invalid/{}.png", talk.mark(".content[1]"));
                        parts.push(json!({"type": "input_image", "image_url": url}));
                    }
                    json!({"role": "user", "content": parts})
                }
                Turn::Developer => json!({"type": "message", "role": "developer", "content": talk.mark("")}),
                Turn::Assistant => {
                    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": talk.mark("")}]})
                }
                Turn::Thoughts => {
                    let opaque = Opaque { origin: Origin::new("elsewhere", "other"), value: "x".to_owned() };
                    json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": talk.mark("")}],
                        "encrypted_content": sealer.seal(&opaque, [1; 24])})
                }
                Turn::Calls { count, custom, answered, interrupted } => {
                    let ids: Vec<String> = (0..*count).map(|n| format!("call_{}", call + n)).collect();
                    call += count;
                    for id in &ids {
                        let text = talk.mark("");
                        talk.items.push(if *custom {
                            json!({"type": "custom_tool_call", "call_id": id, "name": "patch", "input": text})
                        } else {
                            let arguments = json!({"cmd": text}).to_string();
                            json!({"type": "function_call", "call_id": id, "name": "run", "arguments": arguments})
                        });
                    }
                    if *interrupted {
                        let text = talk.mark("");
                        talk.items.push(json!({"role": "user", "content": text}));
                    }
                    for id in ids.iter().take(*answered) {
                        let text = talk.mark("");
                        let kind = if *custom { "custom_tool_call_output" } else { "function_call_output" };
                        talk.items.push(json!({"type": kind, "call_id": id, "output": text}));
                    }
                    continue;
                }
                Turn::Orphan => json!({"type": "function_call_output", "call_id": "nobodys", "output": talk.mark("")}),
                Turn::Hosted => {
                    json!({"type": "web_search_call", "action": {"type": "search", "query": talk.mark("")}})
                }
            };
            talk.items.push(item);
        }
        talk
    }

    fn body(&self, items: usize) -> Vec<u8> {
        let tools = json!([{"type": "function", "name": "run"}, {"type": "custom", "name": "patch"}]);
        json!({"model": "m", "input": self.items[..items], "tools": tools}).to_string().into_bytes()
    }
}

proptest! {
    #[test]
    fn what_was_said_arrives_once_or_is_listed_as_lost(turns in turns(), at in 0..TARGETS.len()) {
        let sealer = Sealer::new(&[7; 32]);
        let talk = Talk::of(&turns, &sealer);
        let body = talk.body(talk.items.len());
        let decoded = decode_request(&body, &sealer).unwrap();
        let (model, images) = TARGETS[at];
        let encoded = encode_request(&decoded.request, &request_target(model, images)).unwrap();
        let text = String::from_utf8(encoded.body).unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        let lost: Vec<&str> =
            encoded.losses.iter().chain(&decoded.losses).filter(|l| l.action == LossAction::Drop).map(|l| l.path.as_str()).collect();
        for (path, marker) in &talk.markers {
            let times = text.matches(marker.as_str()).count();
            let item = path.split('.').next().unwrap();
            let listed = lost.iter().any(|l| l == path || *l == item || l.starts_with(&format!("{item}.")));
            prop_assert!(times == 1 || (times == 0 && listed), "{marker} of {path} stands {times} times; lost: {lost:?}\n{text}");
        }
        check_contents(&said);
        if model != "gemini-2.5-pro" {
            check_signatures(&said);
        }
    }

    /// The parts of what was said before stand at the front of what is said later, but for what only a cut made necessary:
    /// a made up end, results that came later.
    #[test]
    fn a_conversation_that_grew_begins_with_the_old_one(turns in turns(), more in turns()) {
        let sealer = Sealer::new(&[7; 32]);
        let all: Vec<Turn> = turns.iter().chain([&Turn::User { image: false }]).chain(&more).cloned().collect();
        let talk = Talk::of(&all, &sealer);
        let old = Talk::of(&all[..=turns.len()], &sealer).items.len();
        let flat = |items: usize| -> Vec<Value> {
            let body = talk.body(items);
            let decoded = decode_request(&body, &sealer).unwrap();
            let encoded = encode_request(&decoded.request, &target("gemini-3.8-flash")).unwrap();
            let said: Value = serde_json::from_slice(&encoded.body).unwrap();
            let contents = said["contents"].as_array().unwrap().clone();
            contents
                .into_iter()
                .flat_map(|c| {
                    let role = c["role"].clone();
                    c["parts"].as_array().unwrap().clone().into_iter().map(move |part| json!([role, part]))
                })
                .collect()
        };
        let (old, new) = (flat(old), flat(talk.items.len()));
        prop_assert_eq!(&new[..old.len()], &old[..]);
    }

    #[test]
    fn any_request_is_encoded_or_refused(
        case in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..8),
    ) {
        let cases = cases("requests");
        let mut body = fs::read(cases[case.index(cases.len())].join("responses.json")).unwrap();
        for (at, byte, how) in changes {
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => drop(body.drain(at..(at + usize::from(byte)).min(body.len() - 1))),
                _ => body.insert(at, byte),
            }
        }
        let sealer = Sealer::new(&[7; 32]);
        if let Ok(decoded) = decode_request(&body, &sealer) {
            for (model, images) in TARGETS {
                if let Ok(encoded) = encode_request(&decoded.request, &request_target(model, images)) {
                    check_contents(&serde_json::from_slice(&encoded.body).unwrap());
                }
            }
        }
    }
}

/// The items of an answer as the client sends them back.
fn history(events: &[Event]) -> Vec<Item<'static>> {
    let mut items: Vec<(u32, Item<'static>)> = Vec::new();
    for event in events {
        let item = |items: &mut Vec<(u32, Item<'static>)>, key: u32| items.iter().position(|(k, _)| *k == key).unwrap();
        match event {
            Event::ItemOpen { item, kind } => {
                let opened = match kind {
                    ItemKind::Message { .. } => Item::Message { role: Role::Assistant, phase: None, parts: Vec::new() },
                    ItemKind::Reasoning => Item::Reasoning { summary: Vec::new(), content: Vec::new(), opaque: None },
                    ItemKind::Call { call_id, tool } => {
                        Item::Call { call_id: call_id.clone().into(), tool: tool.clone(), input: String::new().into() }
                    }
                    ItemKind::Compaction => unreachable!("no provider makes one"),
                };
                items.push((item.0, opened));
            }
            Event::Text { item: key, delta } => {
                let at = item(&mut items, key.0);
                if let Item::Message { parts, .. } = &mut items[at].1 {
                    let so_far = match parts.pop() {
                        Some(Part::Text(text)) => text.into_read().into_owned(),
                        Some(_) | None => String::new(),
                    };
                    parts.push(Part::Text((so_far + delta).into()));
                }
            }
            Event::CallArguments { item: key, delta } => {
                let at = item(&mut items, key.0);
                if let Item::Call { input, .. } = &mut items[at].1 {
                    *input = (input.read().into_owned() + delta).into();
                }
            }
            Event::Opaque { item: key, value } => {
                let at = item(&mut items, key.0);
                if let Item::Reasoning { opaque, .. } = &mut items[at].1 {
                    *opaque = Some(value.clone());
                }
            }
            Event::Start { .. }
            | Event::Refusal { .. }
            | Event::Reasoning { .. }
            | Event::ItemClose { .. }
            | Event::Usage(_)
            | Event::End(_) => {}
        }
    }
    items.into_iter().map(|(_, item)| item).collect()
}

#[test]
fn signatures_return_on_the_parts_they_came_with() {
    for case in streams().into_iter().filter(|case| !case.whole) {
        let (events, _) = decode_case(&case);
        if events.last() != Some(&Event::End(End::Complete)) {
            continue;
        }
        // What came, pieces without a signature joined with the piece before.
        let mut came: Vec<Value> = Vec::new();
        for data in String::from_utf8(case.body.clone()).unwrap().lines().filter_map(|line| line.strip_prefix("data: "))
        {
            let Ok(chunk) = serde_json::from_str::<Value>(data) else { continue };
            for part in chunk["candidates"][0]["content"]["parts"].as_array().into_iter().flatten() {
                if part["thoughtSignature"].is_string() {
                    came.push(part.clone());
                }
            }
        }
        let mut input = vec![Item::Message { role: Role::User, phase: None, parts: vec![Part::Text("go".into())] }];
        input.extend(history(&events));
        let request = Request { input, ..Request::default() };
        for (model, ours) in [(case.model.as_str(), true), ("gemini-3-flash-preview", false)] {
            let encoded = encode_request(&request, &Target { model: model.into(), ..target(&case.model) }).unwrap();
            let said: Value = serde_json::from_slice(&encoded.body).unwrap();
            check_contents(&said);
            check_signatures(&said);
            let back: Vec<Value> = said["contents"][1]["parts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|part| part["thoughtSignature"].as_str().is_some_and(|s| !s.starts_with("skip_")))
                .cloned()
                .collect();
            if !ours {
                assert!(back.is_empty(), "{}: another model's signatures", case.name);
                continue;
            }
            let mut expected = came.clone();
            if case.name == "call-repeated" {
                expected.pop();
            }
            assert_eq!(back.len(), expected.len(), "{}: {said:#}", case.name);
            for (back, came) in back.iter().zip(&expected) {
                assert_eq!(back["thoughtSignature"], came["thoughtSignature"], "{}", case.name);
                assert_eq!(back["thought"], came["thought"], "{}", case.name);
                assert_eq!(back["text"].as_str().unwrap_or_default(), came["text"].as_str().unwrap_or_default());
                let args = |part: &Value| part["functionCall"].get("args").cloned().unwrap_or(json!({}));
                if case.name != "call-custom-other-key" && came.get("functionCall").is_some() {
                    assert_eq!(args(back), args(came), "{}", case.name);
                }
            }
        }
    }
}

// ---- going on ----

fn stream(parts: Value, finish: &str, token: Option<&str>, output: u64) -> Vec<u8> {
    let chunk = json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": finish, "continuationToken": token}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": output, "thoughtsTokenCount": 1},
    });
    format!("data: {chunk}\n\n").into_bytes()
}

/// Answers the first request with the first stream, the next with the next, as a shell would.
fn go_on(request: &Request<'_>, most: u32, streams: &[Vec<u8>]) -> (Vec<Event>, Vec<GoOn>) {
    let target = target("gemini-3.8-flash");
    let mut joiner = Joiner::new(request, most);
    let (mut out, mut asked) = (Vec::new(), Vec::new());
    for body in streams {
        let mut events = Vec::new();
        let (decoder, cut) = feed(&target, &[body], &mut events);
        for event in events.drain(..) {
            joiner.push(event, &mut out);
        }
        let stopped = decoder.stopped();
        decoder.finish(cut, &mut events);
        match joiner.end(events, stopped, &mut out) {
            Some(go_on) => asked.push(go_on),
            None => break,
        }
    }
    (out, asked)
}

fn text(events: &[Event]) -> String {
    events.iter().filter_map(|e| if let Event::Text { delta, .. } = e { Some(delta.as_str()) } else { None }).collect()
}

#[test]
fn an_answer_that_met_the_limit_is_gone_on_with() {
    let half = stream(json!([{"text": "t", "thought": true}, {"text": "Once upon"}]), "MAX_TOKENS", None, 5);
    let rest = stream(json!([{"text": "hm", "thought": true}, {"text": " a time."}]), "STOP", None, 7);
    let (events, asked) = go_on(&Request::default(), 5, &[half, rest]);
    grammar::check(&events).unwrap();
    assert_eq!(asked, [GoOn::Words("Once upon".into())]);
    assert_eq!(text(&events), "Once upon a time.");
    let messages =
        events.iter().filter(|e| matches!(e, Event::ItemOpen { kind: ItemKind::Message { .. }, .. })).count();
    assert_eq!(messages, 1, "one message: {events:#?}");
    let usage = Usage { input: 20, output: 14, reasoning: 2, ..Usage::default() };
    assert!(events.contains(&Event::Usage(usage)), "{events:#?}");
    assert_eq!(events.last(), Some(&Event::End(End::Complete)));
}

#[test]
fn going_on_ends_where_it_must() {
    let half = || stream(json!([{"text": "a"}]), "MAX_TOKENS", None, 1);
    let limit = Some(&Event::End(End::Incomplete(IncompleteReason::MaxOutputTokens))).cloned();
    let count = |request: &Request<'_>, most, streams: &[Vec<u8>]| {
        let (events, asked) = go_on(request, most, streams);
        grammar::check(&events).unwrap();
        (asked.len(), events.last().cloned(), text(&events))
    };
    let plain = Request::default();
    let seven: Vec<Vec<u8>> = (0..7).map(|_| half()).collect();
    assert_eq!(count(&plain, 5, &seven), (5, limit.clone(), "aaaaaa".into()));
    assert_eq!(count(&plain, 99, &seven), (5, limit.clone(), "aaaaaa".into()));
    assert_eq!(count(&plain, 0, &seven), (0, limit.clone(), "a".into()));
    // The client's own limit, and a form that going on would break.
    let limited = Request { max_output_tokens: Some(5), ..Request::default() };
    assert_eq!(count(&limited, 5, &seven).0, 0);
    let formed = Request { format: Format::JsonObject, ..Request::default() };
    assert_eq!(count(&formed, 5, &seven).0, 0);
    // A call, thoughts only, a filter.
    let call = json!([{"text": "a"}, {"functionCall": {"name": "exec_command", "args": {}}}]);
    assert_eq!(count(&plain, 5, &[stream(call, "MAX_TOKENS", None, 1), half()]).0, 0);
    let thought = json!([{"text": "a", "thought": true}]);
    assert_eq!(count(&plain, 5, &[stream(thought, "MAX_TOKENS", None, 1), half()]).0, 0);
    assert_eq!(count(&plain, 5, &[stream(json!([{"text": "a"}]), "SAFETY", None, 1), half()]).0, 0);
    // What follows fails: what came before stands.
    let broken = b"data: {\"error\":{\"code\":503,\"message\":\"overloaded\",\"status\":\"UNAVAILABLE\"}}\n\n".to_vec();
    assert_eq!(count(&plain, 5, &[half(), broken]), (1, limit, "a".into()));
    assert!(matches!(count(&plain, 5, &[b"data: 1\n\n".to_vec()]).1, Some(Event::End(End::Failed(_)))));
}

#[test]
fn a_call_may_follow_and_keeps_its_signature() {
    let half = stream(json!([{"text": "I will"}]), "MAX_TOKENS", None, 1);
    let call = json!([{"text": " look.", "thoughtSignature": "VA=="},
        {"functionCall": {"name": "exec_command", "args": {}}, "thoughtSignature": "Qw=="}]);
    let (events, _) = go_on(&Request::default(), 5, &[half, stream(call, "STOP", None, 9)]);
    grammar::check(&events).unwrap();
    let opaque: Vec<&str> = events
        .iter()
        .filter_map(|e| if let Event::Opaque { value, .. } = e { Some(value.value.as_str()) } else { None })
        .collect();
    assert!(opaque.len() == 1 && opaque[0].contains("Qw==") && !opaque[0].contains("VA=="), "{opaque:?}");
    assert_eq!(text(&events), "I will look.");
}

#[test]
fn a_token_goes_on_even_from_thoughts_and_beyond_the_clients_limit() {
    let limited = Request { max_output_tokens: Some(200_000), ..Request::default() };
    let thought = stream(json!([{"text": "t", "thought": true}]), "CONTINUATION", Some("VDE="), 65_000);
    let half = stream(json!([{"text": "a"}]), "CONTINUATION", Some("VDI="), 65_000);
    let (events, asked) = go_on(&limited, 5, &[thought, half, stream(json!([{"text": "b"}]), "STOP", None, 3)]);
    grammar::check(&events).unwrap();
    assert_eq!(asked, [token("VDE=", None), token("VDI=", None)]);
    assert_eq!((text(&events).as_str(), events.last()), ("ab", Some(&Event::End(End::Complete))));
    // A spent limit is raised if it is not the client's.
    let spent = || stream(json!([{"text": "a"}]), "MAX_TOKENS", Some("VDM="), 65_000);
    let (_, asked) = go_on(&Request::default(), 5, &[spent(), spent()]);
    assert_eq!(asked, [token("VDM=", Some(131_072)), token("VDM=", Some(196_608))]);
    assert_eq!(go_on(&limited, 5, &[spent()]).1, []);
}

fn token(token: &str, max_output_tokens: Option<u64>) -> GoOn {
    GoOn::Token { token: token.to_owned(), max_output_tokens }
}

#[test]
fn the_next_body_begins_with_the_first() {
    let input = vec![Item::Message { role: Role::User, phase: None, parts: vec![Part::Text("go".into())] }];
    let request = Request { input, ..Request::default() };
    let body = encode_request(&request, &target("gemini-3.8-flash")).unwrap().body;
    let next = continue_request(&body, &GoOn::Words("a \"b\"\n".into())).unwrap();
    assert!(next.starts_with(&body[..body.len() - 2]));
    let said: Value = serde_json::from_slice(&next).unwrap();
    check_contents(&said);
    assert_eq!(said["contents"][1], json!({"role": "model", "parts": [{"text": "a \"b\"\n"}]}));
    let first: Value = serde_json::from_slice(&body).unwrap();
    for (limit, expected) in [(None, Value::Null), (Some(9), json!(9))] {
        let next = continue_request(&body, &token("VA==", limit)).unwrap();
        let mut next: Value = serde_json::from_slice(&next).unwrap();
        assert_eq!(next["generationConfig"]["maxOutputTokens"], expected);
        next["generationConfig"].as_object_mut().unwrap().remove("maxOutputTokens");
        assert_eq!(next.as_object_mut().unwrap().remove("continuationToken"), Some(json!("VA==")));
        assert_eq!(next, first);
    }
    for body in [&b"{\"x\":[{}]}extra"[..], b"{}", b"[]", b"", b"{\"contents\":1}", b"{\"contents\":[],\"x\":[]}"] {
        assert_eq!(continue_request(body, &GoOn::Words("a".into())), None);
        assert_eq!(continue_request(body, &token("a", Some(1))), None);
    }
}

proptest! {
    #[test]
    fn joined_streams_are_lawful(
        streams in proptest::collection::vec((proptest::collection::vec(fragment(), 0..4), 0..4_usize), 1..7),
        most in 0..7_u32,
    ) {
        let streams: Vec<Vec<u8>> = streams
            .into_iter()
            .map(|(frames, finish)| {
                let finish = [r#"{"candidates":[{"finishReason":"MAX_TOKENS"}]}"#,
                    r#"{"candidates":[{"finishReason":"CONTINUATION","continuationToken":"VA=="}]}"#,
                    r#"{"candidates":[{"finishReason":"STOP"}]}"#, "1"][finish];
                frames.iter().map(String::as_str).chain([finish]).map(|f| format!("data: {f}\n\n")).collect::<String>().into_bytes()
            })
            .collect();
        let (mut events, asked) = go_on(&Request::default(), most, &streams);
        prop_assert!(asked.len() <= 5 && asked.len() <= most as usize);
        // The shell ran out of streams: the answer has no end yet.
        if asked.len() == streams.len() {
            events.push(Event::End(End::Failed(Failure::new(FailureKind::Connection, "x"))));
            let violation = grammar::check(&events).err().map(|v| v.what);
            prop_assert!(matches!(violation, None | Some("an end with open items")), "{violation:?}");
        } else {
            prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{events:#?}", grammar::check(&events));
        }
    }
}
