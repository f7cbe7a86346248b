//! Streams of upstream protocols: the cases of `tests/golden/streams/PROTOCOL`, and the laws that hold for every one.
//!
//! A case is a directory: `upstream.sse` (or `upstream.json`, a whole body that came instead), `events.txt`,
//! `responses.sse` and `origin.md`, which says where it comes from and in lines of its own (`Dialect: …`, `Model: …`)
//! whose words these are. `UPDATE_GOLDEN=1` rewrites `events.txt` and `responses.sse`.

use std::{fmt::Write as _, fs, path::PathBuf};

use codex_proxy::{
    codec::{
        DecodeError, NativeTools, Protocol, Target,
        chat::{self, dialect::Dialect},
        gemini, messages,
        sse::{Frame, Framer},
    },
    model::{
        event::{End, Event, ItemKind},
        failure::{Failure, FailureKind},
        grammar,
        request::{CallableTool, Origin, Request, Tool, ToolKind, ToolRef},
    },
};

use super::golden::{self, Differences};

/// A place that speaks this protocol, as most are configured.
pub fn target(provider: &str, model: &str, protocol: Protocol) -> Target {
    Target {
        origin: Origin::new(provider, model),
        model: model.to_owned(),
        protocol,
        dialect: Dialect::named("generic").unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
        native_tools: NativeTools::ALL,
    }
}

pub struct Case {
    pub name: String,
    pub dir: PathBuf,
    origin: String,
    pub body: Vec<u8>,
    pub whole: bool,
}

impl Case {
    /// The value of the line `KEY: value` in `origin.md`.
    pub fn line(&self, key: &str) -> &str {
        let value = self.origin.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("{}: origin.md has no line `{key}: …`", self.name)).trim()
    }
}

pub fn cases(protocol: &str) -> Vec<Case> {
    golden::cases(&format!("streams/{protocol}"))
        .into_iter()
        .map(|dir| {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            let origin = fs::read_to_string(dir.join("origin.md")).unwrap_or_else(|e| panic!("{name}: origin.md: {e}"));
            let whole = dir.join("upstream.json").exists();
            let body = fs::read(dir.join(if whole { "upstream.json" } else { "upstream.sse" })).unwrap();
            Case { name, dir, origin, body, whole }
        })
        .collect()
}

/// A request that declares the tools which the cases call.
pub fn request() -> Request<'static> {
    let tool = |namespace: Option<&'static str>, name: &'static str, kind| {
        Tool::Callable(CallableTool {
            tool: ToolRef { namespace: namespace.map(Into::into), name: name.into(), kind },
            description: None,
            parameters: None,
            grammar: None,
            strict: None,
        })
    };
    Request {
        tools: vec![
            tool(None, "exec_command", ToolKind::Function),
            tool(None, "apply_patch", ToolKind::Custom),
            tool(Some("mcp__echo"), "echo_it", ToolKind::Function),
            tool(None, "tool_search", ToolKind::ToolSearch),
        ],
        ..Request::default()
    }
}

/// What every protocol's decoder offers.
pub trait Decoder {
    fn feed(&mut self, frame: &Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError>;
    fn skipped(&self) -> u64;
    fn finish(self, cut: Option<Failure>, out: &mut Vec<Event>);
}

macro_rules! decoder {
    ($decoder:ty) => {
        impl Decoder for $decoder {
            fn feed(&mut self, frame: &Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
                self.feed(frame, out)
            }
            fn skipped(&self) -> u64 {
                self.skipped()
            }
            fn finish(self, cut: Option<Failure>, out: &mut Vec<Event>) {
                self.finish(cut, out);
            }
        }
    };
}
decoder!(chat::StreamDecoder);
decoder!(messages::StreamDecoder);
decoder!(gemini::StreamDecoder);

/// Decodes a stream that comes in these pieces, as `proxy/exchange.rs` does, and says how much was skipped.
pub fn decode(mut decoder: impl Decoder, pieces: &[&[u8]]) -> (Vec<Event>, u64) {
    let mut events = Vec::new();
    let cut = feed(&mut decoder, pieces, &mut events);
    let skipped = decoder.skipped();
    decoder.finish(cut, &mut events);
    (events, skipped)
}

/// Feeds a stream that comes in these pieces, and says why it broke off, if it did.
pub fn feed(decoder: &mut impl Decoder, pieces: &[&[u8]], events: &mut Vec<Event>) -> Option<Failure> {
    let mut framer = Framer::default();
    let mut run = || -> Result<(), DecodeError> {
        for piece in pieces {
            framer.feed(piece, |frame| decoder.feed(&frame, events))?;
        }
        std::mem::take(&mut framer).finish(|frame| decoder.feed(&frame, events))
    };
    run().err().map(|error| match error {
        DecodeError::Upstream(failure) => failure,
        DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
            Failure::new(FailureKind::Upstream, error.to_string())
        }
    })
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

/// Every case gives the events that are kept, and they are lawful.
pub fn check_goldens(cases: &[Case], decode: impl Fn(&Case) -> (Vec<Event>, u64)) {
    let mut differences = Differences::default();
    for case in cases {
        let (events, skipped) = decode(case);
        grammar::check(&events).unwrap_or_else(|violation| panic!("{}: {violation}", case.name));
        differences.compare(&case.dir.join("events.txt"), &written(&events, skipped));
    }
    differences.none();
}

/// A stream that is cut at any byte gives a lawful answer, which is complete only if its end was `announced` in what had
/// come.
pub fn check_truncation(
    cases: &[Case],
    decode: impl Fn(&Case, &[&[u8]]) -> (Vec<Event>, u64),
    announced: impl Fn(&str) -> bool,
) {
    for case in cases.iter().filter(|case| !case.whole) {
        for end in 0..case.body.len() {
            let kept = &case.body[..end];
            let (events, _) = decode(case, &[kept]);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
            let complete = matches!(events.last(), Some(Event::End(End::Complete | End::Paused)));
            let announced = announced(&String::from_utf8_lossy(kept));
            assert!(announced || !complete, "{} at {end} of {}: complete", case.name, case.body.len());
        }
    }
}

/// A whole body that is cut at any byte gives a lawful answer, which is not complete unless it was a stream after all.
pub fn check_whole_truncation(cases: &[Case], decode: impl Fn(&Case, &[u8]) -> Vec<Event>) {
    for case in cases.iter().filter(|case| case.whole) {
        for end in 0..case.body.trim_ascii_end().len() {
            let kept = &case.body[..end];
            let events = decode(case, kept);
            grammar::check(&events).unwrap_or_else(|violation| panic!("{} at {end}: {violation}", case.name));
            let complete = matches!(events.last(), Some(Event::End(End::Complete | End::Paused)));
            let is_stream = ["data:", "event:"].iter().any(|field| kept.starts_with(field.as_bytes()));
            assert!(is_stream || !complete, "{} at {end}: complete", case.name);
        }
    }
}

/// However the bytes are split, the events are the same.
pub fn check_splits(
    cases: &[Case],
    cuts: &[proptest::sample::Index],
    decode: impl Fn(&Case, &[&[u8]]) -> (Vec<Event>, u64),
) {
    for case in cases.iter().filter(|case| !case.whole) {
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(case.body.len() + 1)).collect();
        at.extend([0, case.body.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &case.body[w[0]..w[1]]).collect();
        assert_eq!(decode(case, &pieces), decode(case, &[&case.body]), "{}", case.name);
    }
}
