//! Requests as the real client sends them (`tests/golden/requests/<case>/responses.json`, its own prompt and tool
//! descriptions replaced by placeholders) and others made by hand, in the words of hosts that differ most, with what was
//! lost on the way in `losses.txt` (Chat Completions), `messages.losses.txt` and `gemini.losses.txt`.

use std::fs;

use codex_proxy::{
    codec::{
        EncodeError, Encoded, Protocol, Target,
        chat::{self, dialect::Dialect},
        compaction, gemini, messages,
        names::Names,
        responses::request::{Decoded, decode_request},
        seal::Sealer,
    },
    model::request::{Loss, LossAction, Opaque, Origin, Request},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::codec_gemini::{check_contents, check_signatures};
use crate::support::{
    golden::{Differences, cases},
    streams,
};

/// Whose words a request is put into.
#[derive(Debug, Clone, Copy)]
struct Column {
    protocol: Protocol,
    /// Of the kept file, behind the protocol's name. For Chat Completions, the dialect.
    name: &'static str,
    model: &'static str,
    accepts_images: bool,
}

const COLUMNS: [Column; 8] = [
    Column { protocol: Protocol::Chat, name: "openai", model: "gpt-4.1", accepts_images: true },
    Column { protocol: Protocol::Chat, name: "deepseek", model: "deepseek-v4-pro", accepts_images: false },
    Column { protocol: Protocol::Chat, name: "mistral", model: "devstral-medium", accepts_images: true },
    Column { protocol: Protocol::Messages, name: "opus", model: "claude-opus-5-5", accepts_images: true },
    Column { protocol: Protocol::Messages, name: "haiku", model: "claude-haiku-4-5", accepts_images: false },
    Column { protocol: Protocol::Gemini, name: "gemini-3.8-flash", model: "gemini-3.8-flash", accepts_images: true },
    Column { protocol: Protocol::Gemini, name: "gemini-2.5-pro", model: "gemini-2.5-pro", accepts_images: true },
    Column { protocol: Protocol::Gemini, name: "gemini-4-argon", model: "gemini-4-argon", accepts_images: false },
];

impl Column {
    fn encode(&self, request: &Request<'_>) -> Result<Encoded<Names>, EncodeError> {
        let dialect = match self.protocol {
            Protocol::Chat => self.name,
            Protocol::Messages | Protocol::Gemini | Protocol::Responses => "generic",
        };
        let target = Target {
            dialect: Dialect::named(dialect).unwrap(),
            accepts_images: self.accepts_images,
            ..streams::target("up", self.model, self.protocol)
        };
        match self.protocol {
            Protocol::Chat => chat::encode_request(request, &target),
            Protocol::Messages => messages::encode_request(request, &target),
            Protocol::Gemini => gemini::encode_request(request, &target),
            Protocol::Responses => unreachable!("it is relayed"),
        }
    }

    /// What every host of the protocol demands of a conversation.
    fn check(&self, body: &Value) {
        match self.protocol {
            Protocol::Chat => check_pairing(body["messages"].as_array().unwrap()),
            Protocol::Messages => check_alternation(body["messages"].as_array().unwrap()),
            Protocol::Gemini => {
                check_contents(body);
                // Older models go on without.
                if self.name != "gemini-2.5-pro" {
                    check_signatures(body);
                }
            }
            Protocol::Responses => unreachable!("it is relayed"),
        }
    }
}

fn lines(losses: &[Loss]) -> String {
    losses.iter().map(|loss| format!("{}: {:?}: {}\n", loss.path, loss.action, loss.why)).collect()
}

#[test]
fn requests_are_said_as_kept_and_losses_are_listed() {
    let sealer = Sealer::new(&[7; 32]);
    let mut differences = Differences::default();
    let cases = cases("requests");
    assert!(cases.len() >= 19, "cases are missing");
    for case in cases {
        let body = fs::read(case.join("responses.json")).unwrap();
        let Decoded { mut request, losses, .. } =
            decode_request(&body, &sealer).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        if request.compact {
            compaction::ask(&mut request);
        }
        let mut chat = format!("read\n{}", lines(&losses));
        let (mut messages, mut gemini) = (String::new(), String::new());
        for column in COLUMNS {
            let encoded = column.encode(&request).unwrap();
            let again = column.encode(&request).unwrap();
            assert_eq!(encoded.body, again.body, "the same request gives the same bytes");
            let json: Value = serde_json::from_slice(&encoded.body).unwrap();
            column.check(&json);
            let pretty = serde_json::to_string_pretty(&json).unwrap() + "\n";
            let (protocol, all) = match column.protocol {
                Protocol::Chat => ("chat", &mut chat),
                Protocol::Messages => ("messages", &mut messages),
                Protocol::Gemini => ("gemini", &mut gemini),
                Protocol::Responses => unreachable!("it is relayed"),
            };
            differences.compare(&case.join(format!("{protocol}.{}.json", column.name)), &pretty);
            let gap = if all.is_empty() { "" } else { "\n" };
            all.push_str(&format!("{gap}{}\n{}", column.name, lines(&encoded.losses)));
        }
        differences.compare(&case.join("losses.txt"), &chat);
        differences.compare(&case.join("messages.losses.txt"), &messages);
        differences.compare(&case.join("gemini.losses.txt"), &gemini);
    }
    differences.none();
}

/// A conversation as JSON items, with the markers that stand in it in order. A marker is text found nowhere else.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    pub(crate) items: Vec<Value>,
    /// Path of the item or part, and the marker.
    markers: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Turn {
    User { image: bool },
    Developer,
    Assistant { phase: bool },
    Thoughts { sealed: bool },
    Calls { count: usize, custom: bool, answered: usize, interrupted: bool },
    Orphan,
    Search,
    Hosted,
}

pub(crate) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        any::<bool>().prop_map(|image| Turn::User { image }),
        Just(Turn::Developer),
        any::<bool>().prop_map(|phase| Turn::Assistant { phase }),
        any::<bool>().prop_map(|sealed| Turn::Thoughts { sealed }),
        (1..4_usize, any::<bool>(), 0..4_usize, any::<bool>())
            .prop_map(|(count, custom, answered, interrupted)| Turn::Calls { count, custom, answered, interrupted }),
        Just(Turn::Orphan),
        Just(Turn::Search),
        Just(Turn::Hosted),
    ];
    proptest::collection::vec(turn, 0..10)
}

pub(crate) fn conversation(turns: &[Turn], sealer: &Sealer) -> Conversation {
    let mut talk = Conversation { items: Vec::new(), markers: Vec::new() };
    let mut call = 0;
    for turn in turns {
        let mark = |talk: &mut Conversation, within: &str| {
            let marker = format!("<m{:03}>", talk.markers.len());
            talk.markers.push((format!("input[{}]{within}", talk.items.len()), marker.clone()));
            marker
        };
        match turn {
            Turn::User { image } => {
                let text = mark(&mut talk, ".content[0]");
                let mut parts = vec![json!({"type": "input_text", "text": text})];
                if *image {
                    let url = format!("https://example.invalid/{}.png", mark(&mut talk, ".content[1]"));
                    parts.push(json!({"type": "input_image", "image_url": url}));
                }
                talk.items.push(json!({"role": "user", "content": parts}));
            }
            Turn::Developer => {
                let text = mark(&mut talk, "");
                talk.items.push(json!({"type": "message", "role": "developer", "content": text}));
            }
            Turn::Assistant { phase } => {
                let text = mark(&mut talk, "");
                let phase = if *phase { json!("commentary") } else { Value::Null };
                let content = json!([{"type": "output_text", "text": text}]);
                talk.items.push(json!({"type": "message", "role": "assistant", "phase": phase, "content": content}));
            }
            Turn::Thoughts { sealed } => {
                let text = mark(&mut talk, "");
                let opaque = Opaque { origin: Origin::new("elsewhere", "other"), value: "x".to_owned() };
                let blob = if *sealed { json!(sealer.seal(&opaque, [1; 24])) } else { Value::Null };
                let summary = json!([{"type": "summary_text", "text": text}]);
                talk.items.push(json!({"type": "reasoning", "summary": summary, "encrypted_content": blob}));
            }
            Turn::Calls { count, custom, answered, interrupted } => {
                let ids: Vec<String> = (0..*count).map(|n| format!("call_{}", call + n)).collect();
                call += count;
                for id in &ids {
                    let text = mark(&mut talk, "");
                    talk.items.push(if *custom {
                        json!({"type": "custom_tool_call", "call_id": id, "name": "patch", "input": text})
                    } else {
                        json!({"type": "function_call", "call_id": id, "name": "run", "arguments": json!({"cmd": text}).to_string()})
                    });
                }
                if *interrupted {
                    let text = mark(&mut talk, "");
                    talk.items.push(json!({"role": "user", "content": text}));
                }
                for id in ids.iter().take(*answered) {
                    let text = mark(&mut talk, "");
                    let kind = if *custom { "custom_tool_call_output" } else { "function_call_output" };
                    talk.items.push(json!({"type": kind, "call_id": id, "output": text}));
                }
            }
            Turn::Orphan => {
                let text = mark(&mut talk, "");
                talk.items.push(json!({"type": "function_call_output", "call_id": "nobodys", "output": text}));
            }
            Turn::Search => {
                let text = mark(&mut talk, "");
                let id = format!("search_{call}");
                call += 1;
                talk.items.push(json!({"type": "tool_search_call", "call_id": id, "arguments": {"query": text}}));
                let found =
                    json!([{"type": "function", "name": format!("found_{call}"), "parameters": {"type": "object"}}]);
                talk.items.push(json!({"type": "tool_search_output", "call_id": id, "tools": found}));
            }
            Turn::Hosted => {
                let text = mark(&mut talk, "");
                talk.items.push(json!({"type": "web_search_call", "action": {"type": "search", "query": text}}));
            }
        }
    }
    talk
}

/// The messages of a chat body must satisfy what every host demands of them.
fn check_pairing(messages: &[Value]) {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap();
            let at = open
                .iter()
                .position(|o| *o == id)
                .unwrap_or_else(|| panic!("{id} answers no open call: {messages:#?}"));
            open.remove(at);
            continue;
        }
        assert!(open.is_empty(), "calls without results before the next message: {messages:#?}");
        open = message["tool_calls"].as_array().into_iter().flatten().map(|c| c["id"].as_str().unwrap()).collect();
    }
    assert!(open.is_empty(), "calls without results at the end: {messages:#?}");
}

/// The messages of a Messages body: user and assistant by turns, first and last the user; each call answered in the next
/// message, before anything else in it; no blank text; at most four marks for the cache in the whole body.
fn check_alternation(messages: &[Value]) {
    assert!(messages.iter().enumerate().all(|(n, m)| m["role"] == ["user", "assistant"][n % 2]), "{messages:#?}");
    assert_eq!(messages.len() % 2, 1, "{messages:#?}");
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        let blocks = message["content"].as_array().unwrap();
        assert!(!blocks.is_empty(), "{messages:#?}");
        let answered: Vec<&str> = blocks
            .iter()
            .map_while(|b| (b["type"] == "tool_result").then(|| b["tool_use_id"].as_str().unwrap()))
            .collect();
        assert_eq!(answered, open, "{messages:#?}");
        assert!(blocks[answered.len()..].iter().all(|b| b["type"] != "tool_result"), "{messages:#?}");
        assert!(blocks.iter().all(|b| b["type"] != "text" || !b["text"].as_str().unwrap().trim().is_empty()));
        assert_ne!(blocks.last().unwrap()["type"], "thinking", "{messages:#?}");
        open = blocks.iter().filter(|b| b["type"] == "tool_use").map(|b| b["id"].as_str().unwrap()).collect();
    }
    assert!(open.is_empty(), "calls without results at the end: {messages:#?}");
    let marks = serde_json::to_string(messages).unwrap().matches("\"cache_control\"").count();
    assert!(marks <= 2, "{marks} marks");
}

proptest! {
    #[test]
    fn what_was_said_arrives_once_or_is_listed_as_lost(turns in turns(), at in 0..COLUMNS.len()) {
        let sealer = Sealer::new(&[7; 32]);
        let talk = conversation(&turns, &sealer);
        let tools = json!([{"type": "function", "name": "run"}, {"type": "custom", "name": "patch"}, {"type": "tool_search"}]);
        let body = json!({"model": "m", "input": talk.items, "tools": tools}).to_string();
        let decoded = decode_request(body.as_bytes(), &sealer).unwrap();
        let column = COLUMNS[at];
        let encoded = column.encode(&decoded.request).unwrap();
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
        column.check(&said);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
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
            for column in COLUMNS {
                if let Ok(encoded) = column.encode(&decoded.request) {
                    column.check(&serde_json::from_slice(&encoded.body).unwrap());
                }
            }
        }
    }
}
