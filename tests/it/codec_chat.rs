//! Streams of the Chat Completions codec: goldens, and laws that hold for every one of them.
//!
//! A case is a directory of `tests/golden/streams/chat`: `upstream.sse` (or `upstream.json`, a whole body that came
//! instead), `events.txt` and `origin.md`, whose line `Dialect: …` says whose words these are. `UPDATE_GOLDEN=1`
//! rewrites `events.txt`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use codex_proxy::{
    codec::{
        DecodeError, Protocol, Target,
        chat::{StreamDecoder, decode_whole, dialect::Dialect, encode_request},
        names::Names,
        sse::Framer,
    },
    model::{
        event::{End, Event, ItemKind},
        failure::{Failure, FailureKind},
        grammar,
        request::{CallableTool, Origin, Request, Tool, ToolKind, ToolRef},
    },
};
use proptest::prelude::*;

pub(crate) fn target(dialect: &str) -> Target {
    Target {
        origin: Origin::new("p", "model"),
        model: "model".into(),
        protocol: Protocol::Chat,
        dialect: Dialect::named(dialect).unwrap_or_else(|| panic!("no dialect {dialect}")),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
    }
}

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

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) dialect: String,
    pub(crate) body: Vec<u8>,
    pub(crate) whole: bool,
}

pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/streams/chat");
    let mut cases: Vec<Case> = fs::read_dir(root)
        .unwrap()
        .map(|entry| {
            let dir = entry.unwrap().path();
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            let origin = fs::read_to_string(dir.join("origin.md")).unwrap_or_else(|e| panic!("{name}: origin.md: {e}"));
            let dialect = origin.lines().find_map(|l| l.strip_prefix("Dialect: ")).unwrap_or_else(|| panic!("{name}"));
            let whole = dir.join("upstream.json").exists();
            let body = fs::read(dir.join(if whole { "upstream.json" } else { "upstream.sse" })).unwrap();
            Case { dialect: dialect.trim().to_owned(), name, dir, body, whole }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Decodes a stream that comes in these pieces, as `proxy/exchange.rs` does.
pub(crate) fn decode(target: &Target, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    let mut decoder = StreamDecoder::new(target, names(target), "seed", 400);
    let mut framer = Framer::default();
    let mut events = Vec::new();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            framer.feed(piece, |frame| decoder.feed(&frame, &mut events))?;
        }
        std::mem::take(&mut framer).finish(|frame| decoder.feed(&frame, &mut events))
    };
    let cut = run().err().map(|error| match error {
        DecodeError::Upstream(failure) => failure,
        DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
            Failure::new(FailureKind::Upstream, error.to_string())
        }
    });
    let skipped = decoder.skipped();
    decoder.finish(cut, &mut events);
    (events, skipped)
}

pub(crate) fn decode_case(case: &Case) -> (Vec<Event>, u64) {
    let target = target(&case.dialect);
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
fn goldens() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let (events, skipped) = decode_case(&case);
        grammar::check(&events).unwrap_or_else(|violation| panic!("{}: {violation}", case.name));
        let got = written(&events, skipped);
        let path = case.dir.join("events.txt");
        if update {
            fs::write(&path, &got).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != got {
            wrong.push(format!("{}:\n{got}", case.name));
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE_GOLDEN=1 and review the difference\n{}", wrong.join("\n"));
}

#[test]
fn any_truncation_is_lawful_and_never_complete_before_the_host_said_so() {
    for case in cases().into_iter().filter(|case| !case.whole) {
        let target = target(&case.dialect);
        for end in 0..case.body.len() {
            let kept = &case.body[..end];
            let (events, _) = decode(&target, &[kept]);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
            let text = String::from_utf8_lossy(kept);
            let announced =
                text.contains("[DONE]") || text.match_indices("\"finish_reason\"").any(|(at, _)| is_said(&text[at..]));
            let complete = matches!(events.last(), Some(Event::End(End::Complete)));
            assert!(announced || !complete, "{} at {end} of {}: complete", case.name, case.body.len());
        }
    }
}

/// Whether a `"finish_reason"` has a value other than null.
fn is_said(text: &str) -> bool {
    text.trim_start_matches("\"finish_reason\"").trim_start_matches([':', ' ']).starts_with('"')
}

#[test]
fn whole_bodies_cut_anywhere_are_lawful() {
    for case in cases().into_iter().filter(|case| case.whole) {
        let target = target(&case.dialect);
        for end in 0..case.body.len() {
            let events = decode_whole(&target, names(&target), "seed", 400, &case.body[..end]);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_events(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 1..24)) {
        for case in cases().into_iter().filter(|case| !case.whole) {
            let target = target(&case.dialect);
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(case.body.len() + 1)).collect();
            at.extend([0, case.body.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|w| &case.body[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&target, &pieces), decode(&target, &[&case.body]), "{}", case.name);
        }
    }

    #[test]
    fn nonsense_never_breaks_the_grammar(frames in proptest::collection::vec(fragment(), 0..12), dialect in 0..5usize) {
        let dialect = ["generic", "deepseek", "minimax", "gemini-openai", "generic-think"][dialect];
        let body: String = frames.iter().map(|f| format!("data: {f}\n\n")).collect();
        let (events, _) = decode(&target(dialect), &[body.as_bytes()]);
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
