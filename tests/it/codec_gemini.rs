//! The Gemini codec: goldens of streams, laws that hold for every one of them (`support/streams.rs`), and what is this
//! protocol's own. The line `Model: …` of a case's `origin.md` says which model is asked. `requests.rs` has the requests;
//! `tests/gemini_parse.py` reads both with the types of Google's own client.

use codex_proxy::{
    codec::{
        Protocol, Target,
        gemini::{
            StreamDecoder,
            continuation::{GoOn, Joiner, continue_request},
            decode_whole, encode_request,
        },
        names::Names,
        responses::request::decode_request,
        seal::Sealer,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::{Failure, FailureKind},
        grammar,
        request::{Format, Item, Part, Request, Role},
        usage::Usage,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::requests::{Turn, conversation, turns};
use crate::support::streams::{self, Case, check_goldens, check_splits, check_truncation, check_whole_truncation};

fn target(model: &str) -> Target {
    streams::target("google", model, Protocol::Gemini)
}

// ---- streams ----

fn names(target: &Target) -> Names {
    encode_request(&streams::request(), target).unwrap().names
}

fn decoder(target: &Target) -> StreamDecoder {
    StreamDecoder::new(target, names(target), "seed", 400)
}

fn decode(case: &Case, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    streams::decode(decoder(&target(case.line("Model"))), pieces)
}

fn decode_body(case: &Case, body: &[u8]) -> Vec<Event> {
    let target = target(case.line("Model"));
    decode_whole(&target, names(&target), "seed", 400, body)
}

fn decode_case(case: &Case) -> (Vec<Event>, u64) {
    if case.whole { (decode_body(case, &case.body), 0) } else { decode(case, &[&case.body]) }
}

#[test]
fn streams_are_read_as_kept() {
    let cases = streams::cases("gemini");
    assert!(cases.len() >= 60, "cases are missing");
    check_goldens(&cases, decode_case);
}

#[test]
fn any_truncation_is_lawful_and_never_complete_before_the_service_said_so() {
    check_truncation(&streams::cases("gemini"), decode, |text| text.contains("\"STOP\""));
}

#[test]
fn whole_bodies_cut_anywhere_are_lawful_and_never_complete() {
    check_whole_truncation(&streams::cases("gemini"), decode_body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        check_splits(&streams::cases("gemini"), &cuts, decode);
    }

    #[test]
    fn nonsense_never_breaks_the_grammar(frames in proptest::collection::vec(fragment(), 0..12)) {
        let body: String = frames.iter().map(|f| format!("data: {f}\n\n")).collect();
        let target = target("gemini-3.8-flash");
        let (events, _) = streams::decode(decoder(&target), &[body.as_bytes()]);
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), body);
        let array = format!("[{}]", frames.join(","));
        let events = decode_whole(&target, names(&target), "seed", 400, array.as_bytes());
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), array);
    }

    #[test]
    fn changed_bytes_never_break_the_grammar(
        case in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let cases: Vec<Case> = streams::cases("gemini").into_iter().filter(|case| !case.body.is_empty()).collect();
        let case = &cases[case.index(cases.len())];
        let mut body = case.body.clone();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        for events in [decode(case, &[&body]).0, decode_body(case, &body)] {
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

/// What the service demands of every conversation.
pub(crate) fn check_contents(body: &Value) {
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
pub(crate) fn check_signatures(body: &Value) {
    for content in body["contents"].as_array().unwrap() {
        let first = content["parts"].as_array().unwrap().iter().find(|part| part.get("functionCall").is_some());
        assert!(first.is_none_or(|part| part["thoughtSignature"].is_string()), "{content:#?}");
    }
}

proptest! {
    /// The parts of what was said before stand at the front of what is said later, but for what only a cut made necessary:
    /// a made up end, results that came later.
    #[test]
    fn a_conversation_that_grew_begins_with_the_old_one(turns in turns(), more in turns()) {
        let sealer = Sealer::new(&[7; 32]);
        let all: Vec<Turn> = turns.iter().chain([&Turn::User { image: false }]).chain(&more).cloned().collect();
        let talk = conversation(&all, &sealer);
        let old = conversation(&all[..=turns.len()], &sealer).items.len();
        let flat = |items: usize| -> Vec<Value> {
            let tools = json!([{"type": "function", "name": "run"}, {"type": "custom", "name": "patch"}]);
            let body = json!({"model": "m", "input": talk.items[..items], "tools": tools}).to_string().into_bytes();
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
    for case in streams::cases("gemini").into_iter().filter(|case| !case.whole) {
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
        for (model, ours) in [(case.line("Model"), true), ("gemini-3-flash-preview", false)] {
            let encoded =
                encode_request(&request, &Target { model: model.into(), ..target(case.line("Model")) }).unwrap();
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
        let mut decoder = decoder(&target);
        let cut = streams::feed(&mut decoder, &[body], &mut events);
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
    // It may follow at once, behind thoughts, which hold its signature then.
    let half = stream(json!([{"text": "I will look."}]), "MAX_TOKENS", None, 1);
    let call = json!([{"text": "Go on.", "thought": true},
        {"functionCall": {"name": "exec_command", "args": {}}, "thoughtSignature": "Qw=="}]);
    let (events, _) = go_on(&Request::default(), 5, &[half, stream(call, "STOP", None, 9)]);
    grammar::check(&events).unwrap();
    let signed = |e: &Event| matches!(e, Event::Opaque { value, .. } if value.value.contains("Qw=="));
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let said = place(&|e| matches!(e, Event::ItemClose { item: ItemKey(0), whole: true }));
    let called = place(&|e| matches!(e, Event::ItemOpen { kind: ItemKind::Call { .. }, .. }));
    assert!(said < place(&signed) && place(&signed) < called, "{events:?}");
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
