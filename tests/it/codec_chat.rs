//! Streams of the Chat Completions codec: goldens, and laws that hold for every one of them (`support/streams.rs`). The
//! line `Dialect: …` of a case's `origin.md` says whose words these are.

use codex_proxy::{
    codec::{
        Protocol, Target,
        chat::{StreamDecoder, decode_whole, dialect::Dialect, encode_request},
        names::Names,
    },
    model::{event::Event, grammar},
};
use proptest::prelude::*;

use crate::support::streams::{self, Case, check_goldens, check_splits, check_truncation, check_whole_truncation};

fn target(dialect: &str) -> Target {
    let dialect = Dialect::named(dialect).unwrap_or_else(|| panic!("no dialect {dialect}"));
    Target { dialect, ..streams::target("p", "model", Protocol::Chat) }
}

fn names(target: &Target) -> Names {
    encode_request(&streams::request(), target).unwrap().names
}

pub(crate) fn cases() -> Vec<Case> {
    streams::cases("chat")
}

fn decode_as(target: &Target, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    streams::decode(StreamDecoder::new(target, names(target), "seed", 400), pieces)
}

pub(crate) fn decode(case: &Case, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    decode_as(&target(case.line("Dialect")), pieces)
}

fn decode_body(case: &Case, body: &[u8]) -> Vec<Event> {
    let target = target(case.line("Dialect"));
    decode_whole(&target, names(&target), "seed", 400, body)
}

pub(crate) fn decode_case(case: &Case) -> (Vec<Event>, u64) {
    if case.whole { (decode_body(case, &case.body), 0) } else { decode(case, &[&case.body]) }
}

/// Whether the host has said in this text that the answer ended.
pub(crate) fn announced(text: &str) -> bool {
    let is_said =
        |text: &str| text.trim_start_matches("\"finish_reason\"").trim_start_matches([':', ' ']).starts_with('"');
    text.contains("[DONE]") || text.match_indices("\"finish_reason\"").any(|(at, _)| is_said(&text[at..]))
}

#[test]
fn goldens() {
    check_goldens(&cases(), decode_case);
}

#[test]
fn any_truncation_is_lawful_and_never_complete_before_the_host_said_so() {
    check_truncation(&cases(), decode, announced);
}

#[test]
fn whole_bodies_cut_anywhere_are_lawful() {
    check_whole_truncation(&cases(), decode_body);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        check_splits(&cases(), &cuts, decode);
    }

    #[test]
    fn nonsense_never_breaks_the_grammar(frames in proptest::collection::vec(fragment(), 0..12), dialect in 0..5usize) {
        let dialect = ["generic", "deepseek", "minimax", "gemini-openai", "generic-think"][dialect];
        let body: String = frames.iter().map(|f| format!("data: {f}\n\n")).collect();
        let (events, _) = decode_as(&target(dialect), &[body.as_bytes()]);
        prop_assert!(grammar::check(&events).is_ok(), "{:?}\n{}", grammar::check(&events), body);
    }
}

/// A frame that a host could send, in any order with others.
fn fragment() -> impl Strategy<Value = String> {
    let delta = prop_oneof![
        Just(r#""content":"a""#.to_owned()),
        Just(r#""content":"<think>""#.to_owned()),
        Just(r#""content":"</think>b""#.to_owned()),
        Just(r#""content":[{"type":"thinking","thinking":[{"text":"t"}]},{"type":"text","text":"x"}]"#.to_owned()),
        Just(r#""reasoning_content":"r""#.to_owned()),
        Just(r#""reasoning_details":[{"type":"reasoning.text","text":"d","index":0}]"#.to_owned()),
        Just(r#""refusal":"no""#.to_owned()),
        (0..3u8, "(c1|c2)?", "(exec_command|apply_patch|zzz)?", r#"(\{|\}|\{"input":"|x|"\})?"#, any::<bool>())
            .prop_map(|(index, id, name, args, extra)| {
                let args = serde_json::to_string(&args).unwrap();
                let extra = if extra { r#","extra_content":{"google":{"thought_signature":"s"}}"# } else { "" };
                let index = if index == 2 { String::new() } else { format!(r#""index":{index},"#) };
                format!(
                    r#""tool_calls":[{{{index}"id":"{id}","function":{{"name":"{name}","arguments":{args}}}{extra}}}]"#
                )
            }),
    ];
    prop_oneof![
        8 => delta.prop_map(|delta| format!(r#"{{"choices":[{{"index":0,"delta":{{{delta}}}}}]}}"#)),
        1 => prop_oneof![Just("stop"), Just("length"), Just("error"), Just("")]
            .prop_map(|reason| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#)),
        1 => Just("[DONE]".to_owned()),
        1 => Just(r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#.to_owned()),
        1 => Just(r#"{"error":{"message":"x","code":500}}"#.to_owned()),
        1 => Just("nonsense".to_owned()),
    ]
}
