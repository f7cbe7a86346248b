//! Streams of the Messages codec: goldens, and laws that hold for every one of them (`support/streams.rs`). The line
//! `Model: …` of a case's `origin.md` says who answers.

use codex_proxy::{
    codec::{
        Protocol, Target,
        messages::{StreamDecoder, decode_whole, encode_request},
        names::Names,
    },
    model::{
        event::Event,
        grammar,
        request::{CallableTool, Item, Request, Tool, ToolKind, ToolRef},
    },
};
use proptest::prelude::*;

use crate::support::streams::{self, Case, check_goldens, check_splits, check_truncation, check_whole_truncation};

fn target(model: &str) -> Target {
    streams::target("p", model, Protocol::Messages)
}

fn names(target: &Target) -> Names {
    encode_request(&streams::request(), target).unwrap().names
}

pub(crate) fn cases() -> Vec<Case> {
    streams::cases("messages")
}

fn decode_as(model: &str, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    let target = target(model);
    streams::decode(StreamDecoder::new(&target, names(&target), "seed", 400), pieces)
}

pub(crate) fn decode(case: &Case, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    decode_as(case.line("Model"), pieces)
}

fn decode_body(case: &Case, body: &[u8]) -> Vec<Event> {
    let target = target(case.line("Model"));
    decode_whole(&target, names(&target), "seed", 400, body)
}

pub(crate) fn decode_case(case: &Case) -> (Vec<Event>, u64) {
    if case.whole { (decode_body(case, &case.body), 0) } else { decode(case, &[&case.body]) }
}

/// Whether the service has said in this text that the answer ended.
pub(crate) fn announced(text: &str) -> bool {
    let is_said =
        |text: &str| text.trim_start_matches("\"stop_reason\"").trim_start_matches([':', ' ']).starts_with('"');
    text.contains("message_stop") || text.match_indices("\"stop_reason\"").any(|(at, _)| is_said(&text[at..]))
}

#[test]
fn goldens() {
    assert!(cases().len() >= 25, "cases are missing");
    check_goldens(&cases(), decode_case);
}

#[test]
fn any_truncation_is_lawful_and_never_complete_before_the_service_said_so() {
    check_truncation(&cases(), decode, announced);
}

#[test]
fn whole_bodies_cut_anywhere_are_lawful() {
    check_whole_truncation(&cases(), decode_body);
}

#[test]
fn arguments_under_other_names_are_told_when_they_are_whole() {
    let schema = serde_json::value::RawValue::from_string(
        r#"{"type":"object","properties":{"$top":{},"a":{}},"required":["$top"]}"#.to_owned(),
    );
    let schema = schema.unwrap();
    let tool = ToolRef { namespace: None, name: "list".into(), kind: ToolKind::Function };
    let call = Item::Call { call_id: "c0".into(), tool: tool.clone(), input: r#"{"$top": 1}"#.into() };
    let parameters = Some(&*schema);
    let declared = CallableTool { tool, description: None, parameters, grammar: None, strict: None };
    let request = Request { tools: vec![Tool::Callable(declared)], input: vec![call], ..Request::default() };
    let target = target("claude-opus-5-5");
    let encoded = encode_request(&request, &target).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&encoded.body).unwrap();
    assert_eq!(body["tools"][0]["input_schema"]["required"], serde_json::json!(["top"]));
    assert_eq!(body["messages"][1]["content"][0]["input"], serde_json::json!({"top": 1}));
    assert_eq!(encoded.losses.iter().filter(|loss| loss.path == "tools[0].parameters").count(), 1);

    let answer = |pieces: &[&str], reason: &str| {
        let mut frames = vec![
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c1","name":"list","input":{}}}"#
                .to_owned(),
        ];
        for piece in pieces {
            let piece = serde_json::to_string(piece).unwrap();
            let delta = format!(r#"{{"type":"input_json_delta","partial_json":{piece}}}"#);
            frames.push(format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#));
        }
        frames.push(r#"{"type":"content_block_stop","index":0}"#.to_owned());
        frames.push(format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#));
        let body: String = frames.iter().map(|frame| format!("data: {frame}\n\n")).collect();
        let (events, _) =
            streams::decode(StreamDecoder::new(&target, encoded.names.clone(), "s", 4), &[body.as_bytes()]);
        grammar::check(&events).unwrap();
        let told = events.iter().filter_map(|event| match event {
            Event::CallArguments { delta, .. } => Some(delta.clone()),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(answer(&["{\"to", "p\": 2, \"a\": {\"top\": 3}}"], "tool_use"), [r#"{"$top":2,"a":{"top": 3}}"#]);
    assert_eq!(answer(&["[1,", "2]"], "tool_use"), ["[1,2]"]);
    assert_eq!(answer(&["{\"top\": 2"], "max_tokens"), Vec::<String>::new());
    assert_eq!(answer(&[], "tool_use"), ["{}"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        check_splits(&cases(), &cuts, decode);
    }
}

proptest! {
    #[test]
    fn nonsense_never_breaks_the_grammar(frames in proptest::collection::vec(fragment(), 0..16), borrower in any::<bool>()) {
        let body: String = frames.iter().map(|f| format!("data: {f}\n\n")).collect();
        let model = if borrower { "kimi-k3" } else { "claude-opus-5-5" };
        let (events, _) = decode_as(model, &[body.as_bytes()]);
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), body);
    }

    #[test]
    fn any_bytes_end_lawfully(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let cases = cases();
        let case = &cases[at.index(cases.len())];
        let mut body = case.body.clone();
        let from = at.index(body.len());
        let till = (from + bytes.len()).min(body.len());
        body.splice(from..till, bytes.iter().copied());
        for body in [&bytes, &body] {
            let (events, _) = decode(case, &[body]);
            prop_assert!(grammar::check(&events).is_ok());
            prop_assert!(grammar::check(&decode_body(case, body)).is_ok());
        }
    }
}

/// A frame that a host could send, in any order with others.
fn fragment() -> impl Strategy<Value = String> {
    let block = prop_oneof![
        Just(r#"{"type":"text","text":""}"#.to_owned()),
        Just(r#"{"type":"text","text":"a"}"#.to_owned()),
        Just(r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned()),
        Just(r#"{"type":"redacted_thinking","data":"ZGF0YQ"}"#.to_owned()),
        Just(r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#.to_owned()),
        ("(c1|c2)?", "(exec_command|apply_patch|zzz)", r#"(\{\}|\{"input":"x"\}|null|"x")"#).prop_map(
            |(id, name, input)| format!(r#"{{"type":"tool_use","id":"{id}","name":"{name}","input":{input}}}"#)
        ),
        Just(r#"{"type":"tool_use"}"#.to_owned()),
        Just("{}".to_owned()),
    ];
    let delta = prop_oneof![
        Just(r#"{"type":"text_delta","text":"b"}"#.to_owned()),
        Just(r#"{"type":"thinking_delta","thinking":"t"}"#.to_owned()),
        Just(r#"{"type":"signature_delta","signature":"s"}"#.to_owned()),
        Just(r#"{"type":"citations_delta","citation":{}}"#.to_owned()),
        r#"(\{|\}|\{"input":"|x|"\})?"#.prop_map(|json| {
            let json = serde_json::to_string(&json).unwrap();
            format!(r#"{{"type":"input_json_delta","partial_json":{json}}}"#)
        }),
    ];
    let index = prop_oneof![4 => (0..4u8).prop_map(|i| format!(r#""index":{i},"#)), 1 => Just(String::new())];
    prop_oneof![
        1 => Just(r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":3}}}"#.to_owned()),
        8 => (index.clone(), block)
            .prop_map(|(i, b)| format!(r#"{{"type":"content_block_start",{i}"content_block":{b}}}"#)),
        12 => (index.clone(), delta).prop_map(|(i, d)| format!(r#"{{"type":"content_block_delta",{i}"delta":{d}}}"#)),
        6 => index.prop_map(|i| format!(r#"{{{i}"type":"content_block_stop"}}"#)),
        1 => prop_oneof![Just("end_turn"), Just("max_tokens"), Just("refusal"), Just("error"), Just("")].prop_map(|reason| {
            format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}},"usage":{{"output_tokens":2}}}}"#)
        }),
        1 => Just(r#"{"type":"message_stop"}"#.to_owned()),
        1 => Just(r#"{"type":"ping"}"#.to_owned()),
        1 => Just(r#"{"type":"error","error":{"type":"api_error","message":"x"}}"#.to_owned()),
        1 => Just("[DONE]".to_owned()),
        1 => Just("nonsense".to_owned()),
    ]
}
