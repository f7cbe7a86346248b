//! Writes an answer as Responses events, or as one response object.
//!
//! This encoder alone knows ids, indexes, sequence numbers, `.added`/`.done` pairs, repeated text and the final
//! object. Source: <https://platform.openai.com/docs/api-reference/responses-streaming> (read 2026-11-21) and what
//! Codex CLI 0.169.0 was seen to need: everything in `response.output_item.done`, one terminal event, complete usage.
//!
//! An item that was cut is never given as done when the answer failed, because the client keeps done items in its
//! history when it tries again; and a cut call is never given as done at all, because the client runs it.

use std::{collections::BTreeMap, mem};

use serde_json::value::RawValue;

use super::echo::Echo;
use crate::{
    codec::{
        seal::Sealer,
        write::{one_line, write_json, write_member, write_next},
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::Failure,
        request::{Opaque, ToolKind, ToolRef},
        usage::Usage,
    },
};

/// Who an answer is, given by the shell.
#[derive(Debug, Clone)]
pub struct Identity {
    /// 128 random bits in lower-case hexadecimal: the stem of every id in the answer.
    pub stem: String,
    /// Random bytes; with a counter they make the nonces of sealed data.
    pub nonce: [u8; 16],
    /// Seconds since 1970.
    pub created_at: u64,
    /// The model as the client named it.
    pub model: String,
}

/// Writes one answer.
#[derive(Debug)]
pub struct StreamEncoder {
    identity: Identity,
    echo: Echo,
    sealer: Sealer,
    feed: Feed,
    seals: u64,
    started: bool,
    ended: Option<Ended>,
    /// It ended for now.
    paused: bool,
    open: BTreeMap<ItemKey, Item>,
    /// Closed items that are not whole; what becomes of them depends on the end.
    cut: Vec<Item>,
    next_index: u32,
    /// Done items by index, as JSON.
    output: BTreeMap<u32, String>,
    /// Those of them that are stored in another form, with what the client did not want.
    stored: BTreeMap<u32, String>,
    usage: Option<Usage>,
}

/// The events of one answer.
#[derive(Debug)]
struct Feed {
    /// Whether any are written at all, or only the final object is wanted.
    streaming: bool,
    /// Number of the next one.
    sequence: u64,
}

impl Feed {
    /// Writes an event with the members that `write` appends.
    fn event(&mut self, out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.streaming {
            return;
        }
        begin_event(out, name, self.sequence);
        self.sequence += 1;
        write(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn part_done(&mut self, id: &str, index: u32, content_index: usize, part: &MessagePart, out: &mut Vec<u8>) {
        let place = Some(("content_index", content_index));
        let (name, key) =
            if part.refusal { ("response.refusal.done", "refusal") } else { ("response.output_text.done", "text") };
        self.event(out, name, |out| {
            write_place(out, id, index, place);
            write_next(out, key, part.text.as_str());
            if !part.refusal {
                out.extend_from_slice(b",\"logprobs\":[]");
            }
        });
        self.event(out, "response.content_part.done", |out| {
            write_place(out, id, index, place);
            out.extend_from_slice(b",\"part\":");
            write_part(out, part.refusal, &part.text);
        });
    }
}

/// How the written answer ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// `response.completed`.
    Completed,
    /// `response.incomplete`.
    Incomplete(IncompleteReason),
    /// `response.failed`.
    Failed(Failure),
}

#[derive(Debug)]
struct Item {
    index: u32,
    id: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Message { phase: Option<&'static str>, parts: Vec<MessagePart> },
    Reasoning { text: String, opaque: Option<Opaque> },
    Call { call_id: String, tool: ToolRef<'static>, input: String },
    Compaction { summary: String },
}

#[derive(Debug)]
struct MessagePart {
    refusal: bool,
    text: String,
}

impl StreamEncoder {
    /// An encoder for one answer. `streaming` false: nothing is written until [`StreamEncoder::into_response`].
    pub fn new(identity: Identity, echo: Echo, sealer: Sealer, streaming: bool) -> Self {
        Self {
            identity,
            echo,
            sealer,
            feed: Feed { streaming, sequence: 0 },
            seals: 0,
            started: false,
            ended: None,
            paused: false,
            open: BTreeMap::new(),
            cut: Vec::new(),
            next_index: 0,
            output: BTreeMap::new(),
            stored: BTreeMap::new(),
            usage: None,
        }
    }

    /// How the answer ended, once it did.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// The last usage that was reported.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The answer's id.
    pub fn id(&self) -> String {
        format!("resp_{}", self.identity.stem)
    }

    /// The items of the answer as they are to be stored, JSON: as the client got them, and thoughts in any case sealed.
    pub fn stored_output(&self) -> Vec<&str> {
        self.output.iter().map(|(index, item)| self.stored.get(index).unwrap_or(item).as_str()).collect()
    }

    /// Sequence number of the next event.
    pub fn sequence(&self) -> u64 {
        self.feed.sequence
    }

    /// Writes `response.created` and `response.in_progress`, once.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        self.response_event(out, "response.created", "in_progress", None);
        self.response_event(out, "response.in_progress", "in_progress", None);
    }

    /// Writes an event that changes nothing, to show that the answer is alive. It repeats `response.in_progress`: a
    /// comment would not reset the client's idle timer, and stricter parsers know no other harmless type.
    pub fn keepalive(&mut self, out: &mut Vec<u8>) {
        if self.started && self.ended.is_none() {
            self.response_event(out, "response.in_progress", "in_progress", None);
        }
    }

    /// Takes the next fact and appends what it means to `out`. Facts after the end are ignored.
    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        if self.ended.is_some() {
            return;
        }
        match event {
            Event::Start { .. } => self.start(out),
            Event::ItemOpen { item, kind } => self.open(item, kind, out),
            Event::Text { item, delta } => self.message_delta(item, &delta, false, out),
            Event::Refusal { item, delta } => self.message_delta(item, &delta, true, out),
            Event::Reasoning { item, delta } => self.reasoning_delta(item, &delta, out),
            Event::CallArguments { item, delta } => self.call_delta(item, &delta, out),
            Event::Opaque { item, value } => {
                if let Some(Item { kind: Kind::Reasoning { opaque, .. }, .. }) = self.open.get_mut(&item) {
                    *opaque = Some(value);
                }
            }
            Event::ItemClose { item, whole } => {
                if let Some(item) = self.open.remove(&item) {
                    if whole { self.close(item, "completed", out) } else { self.cut.push(item) }
                }
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::End(end) => self.end(end, out),
        }
    }

    /// The final response object. Call it after the end.
    pub fn into_response(self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.ended {
            Some(Ended::Completed) if self.echo.compacted.is_some() => {
                self.compacted_object(&mut out, self.echo.compacted.as_deref().unwrap_or_default());
            }
            Some(Ended::Completed) => self.response_object(&mut out, "completed", None),
            Some(Ended::Incomplete(reason)) => {
                self.response_object(&mut out, "incomplete", Some(Problem::Incomplete(*reason)));
            }
            Some(Ended::Failed(failure)) => self.response_object(&mut out, "failed", Some(Problem::Failed(failure))),
            None => self.response_object(&mut out, "in_progress", None),
        }
        out
    }

    fn open(&mut self, key: ItemKey, kind: ItemKind, out: &mut Vec<u8>) {
        self.start(out);
        let index = self.next_index;
        self.next_index += 1;
        let (prefix, kind) = match kind {
            ItemKind::Message { phase } => ("msg", Kind::Message { phase, parts: Vec::new() }),
            ItemKind::Reasoning => ("rs", Kind::Reasoning { text: String::new(), opaque: None }),
            ItemKind::Call { call_id, tool } => {
                let prefix = match tool.kind {
                    ToolKind::Function => "fc",
                    ToolKind::Custom => "ctc",
                    ToolKind::ToolSearch => "tsc",
                };
                (prefix, Kind::Call { call_id, tool, input: String::new() })
            }
            ItemKind::Compaction => ("cmp", Kind::Compaction { summary: String::new() }),
        };
        let item = Item { index, id: format!("{prefix}_{}_{index}", self.identity.stem), kind };
        // A compaction is told when it is whole: before that there is nothing of it that a client could keep.
        if self.feed.streaming && !matches!(item.kind, Kind::Compaction { .. }) {
            self.feed.event(out, "response.output_item.added", |out| {
                write_member(out, "output_index", &index);
                out.extend_from_slice(b",\"item\":");
                item.write_empty(out);
            });
        }
        self.open.insert(key, item);
    }

    fn message_delta(&mut self, key: ItemKey, delta: &str, refusal: bool, out: &mut Vec<u8>) {
        let Some(item) = self.open.get_mut(&key) else { return };
        if let Kind::Compaction { summary } = &mut item.kind {
            summary.push_str(delta);
        } else if let Kind::Message { parts, .. } = &mut item.kind {
            if parts.last().is_none_or(|part| part.refusal != refusal) {
                if let Some(part) = parts.last() {
                    self.feed.part_done(&item.id, item.index, parts.len() - 1, part, out);
                }
                parts.push(MessagePart { refusal, text: String::new() });
                let content_index = parts.len() - 1;
                self.feed.event(out, "response.content_part.added", |out| {
                    write_place(out, &item.id, item.index, Some(("content_index", content_index)));
                    out.extend_from_slice(b",\"part\":");
                    write_part(out, refusal, "");
                });
            }
            let content_index = parts.len() - 1;
            let name = if refusal { "response.refusal.delta" } else { "response.output_text.delta" };
            self.feed.event(out, name, |out| {
                write_place(out, &item.id, item.index, Some(("content_index", content_index)));
                out.extend_from_slice(b",\"delta\":");
                write_json(out, delta);
                if !refusal {
                    out.extend_from_slice(b",\"logprobs\":[]");
                }
            });
            if let Some(part) = parts.last_mut() {
                part.text.push_str(delta);
            }
        }
    }

    fn reasoning_delta(&mut self, key: ItemKey, delta: &str, out: &mut Vec<u8>) {
        const SUMMARY: Option<(&str, usize)> = Some(("summary_index", 0));
        let Some(item) = self.open.get_mut(&key) else { return };
        if let Kind::Reasoning { text, .. } = &mut item.kind {
            if text.is_empty() {
                self.feed.event(out, "response.reasoning_summary_part.added", |out| {
                    write_place(out, &item.id, item.index, SUMMARY);
                    out.extend_from_slice(b",\"part\":{\"type\":\"summary_text\",\"text\":\"\"}");
                });
            }
            self.feed.event(out, "response.reasoning_summary_text.delta", |out| {
                write_place(out, &item.id, item.index, SUMMARY);
                write_next(out, "delta", delta);
            });
            text.push_str(delta);
        }
    }

    fn call_delta(&mut self, key: ItemKey, delta: &str, out: &mut Vec<u8>) {
        let Some(item) = self.open.get_mut(&key) else { return };
        if let Kind::Call { tool, input, .. } = &mut item.kind {
            let name = match tool.kind {
                ToolKind::Function => Some("response.function_call_arguments.delta"),
                ToolKind::Custom => Some("response.custom_tool_call_input.delta"),
                // The API streams no arguments of a search.
                ToolKind::ToolSearch => None,
            };
            if let Some(name) = name {
                self.feed.event(out, name, |out| {
                    write_place(out, &item.id, item.index, None);
                    write_next(out, "delta", delta);
                });
            }
            input.push_str(delta);
        }
    }

    /// Writes the `.done` events of an item and keeps it for the final object.
    fn close(&mut self, mut item: Item, status: &'static str, out: &mut Vec<u8>) {
        let (id, index) = (item.id.clone(), item.index);
        let mut sealed = None;
        match &mut item.kind {
            Kind::Message { parts, .. } => {
                if let Some(part) = parts.last() {
                    self.feed.part_done(&id, index, parts.len() - 1, part, out);
                }
            }
            Kind::Reasoning { text, opaque } => {
                if !text.is_empty() {
                    let place = Some(("summary_index", 0));
                    self.feed.event(out, "response.reasoning_summary_text.done", |out| {
                        write_place(out, &id, index, place);
                        write_next(out, "text", text.as_str());
                    });
                    self.feed.event(out, "response.reasoning_summary_part.done", |out| {
                        write_place(out, &id, index, place);
                        out.extend_from_slice(b",\"part\":");
                        write_summary_part(out, text);
                    });
                }
                if self.echo.include_encrypted_reasoning || self.echo.store {
                    let nonce = self.nonce();
                    sealed = opaque.take().map(|opaque| self.sealer.seal(&opaque, nonce));
                }
            }
            Kind::Compaction { summary } => {
                let nonce = self.nonce();
                sealed = self.sealer.seal_summary(summary, nonce);
            }
            Kind::Call { tool, input, .. } => match tool.kind {
                ToolKind::Function => self.feed.event(out, "response.function_call_arguments.done", |out| {
                    write_place(out, &id, index, None);
                    write_next(out, "name", &*tool.name);
                    write_next(out, "arguments", input.as_str());
                }),
                ToolKind::Custom => self.feed.event(out, "response.custom_tool_call_input.done", |out| {
                    write_place(out, &id, index, None);
                    write_next(out, "input", input.as_str());
                }),
                ToolKind::ToolSearch => {}
            },
        }
        let mut json = Vec::new();
        item.write_whole(&mut json, status, sealed.as_deref());
        if matches!(item.kind, Kind::Reasoning { .. }) && sealed.is_some() && !self.echo.include_encrypted_reasoning {
            let stored = mem::take(&mut json);
            self.stored.insert(index, String::from_utf8(stored).unwrap_or_default());
            item.write_whole(&mut json, status, None);
        }
        let is_compaction = matches!(item.kind, Kind::Compaction { .. });
        let names = ["response.output_item.added", "response.output_item.done"];
        for name in names.into_iter().skip(usize::from(!is_compaction)) {
            self.feed.event(out, name, |out| {
                write_member(out, "output_index", &index);
                out.extend_from_slice(b",\"item\":");
                out.extend_from_slice(&json);
            });
        }
        // What was just written is JSON, and so UTF-8.
        self.output.insert(index, String::from_utf8(json).unwrap_or_default());
    }

    /// Never the same twice.
    fn nonce(&mut self) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce[..16].copy_from_slice(&self.identity.nonce);
        nonce[16..].copy_from_slice(&self.seals.to_be_bytes());
        self.seals += 1;
        nonce
    }

    fn end(&mut self, end: End, out: &mut Vec<u8>) {
        self.start(out);
        let mut cut = mem::take(&mut self.cut);
        cut.extend(mem::take(&mut self.open).into_values());
        cut.sort_by_key(|item| item.index);
        let ended = match end {
            End::Complete => Ended::Completed,
            End::Paused => {
                self.paused = true;
                Ended::Completed
            }
            End::Incomplete(reason) => {
                for item in cut {
                    if !matches!(item.kind, Kind::Call { .. }) {
                        self.close(item, "incomplete", out);
                    }
                }
                Ended::Incomplete(reason)
            }
            End::Failed(failure) => Ended::Failed(failure),
        };
        match &ended {
            Ended::Completed => self.response_event(out, "response.completed", "completed", None),
            Ended::Incomplete(reason) => {
                self.response_event(out, "response.incomplete", "incomplete", Some(Problem::Incomplete(*reason)));
            }
            Ended::Failed(failure) => {
                self.response_event(out, "response.failed", "failed", Some(Problem::Failed(failure)));
            }
        }
        self.ended = Some(ended);
    }

    /// Writes an event whose payload is the response object.
    fn response_event(&mut self, out: &mut Vec<u8>, name: &str, status: &str, problem: Option<Problem<'_>>) {
        if !self.feed.streaming {
            return;
        }
        begin_event(out, name, self.feed.sequence);
        self.feed.sequence += 1;
        out.extend_from_slice(b"\"response\":");
        self.response_object(out, status, problem);
        out.extend_from_slice(b"}\n\n");
    }

    /// `{"id":"resp_…","object":OBJECT,"created_at":…`
    fn begin_object(&self, out: &mut Vec<u8>, object: &str) {
        out.extend_from_slice(b"{\"id\":\"resp_");
        out.extend_from_slice(self.identity.stem.as_bytes());
        out.push(b'"');
        write_next(out, "object", object);
        write_next(out, "created_at", &self.identity.created_at);
    }

    fn response_object(&self, out: &mut Vec<u8>, status: &str, problem: Option<Problem<'_>>) {
        self.begin_object(out, "response");
        write_next(out, "status", status);
        out.extend_from_slice(b",\"background\":false,\"error\":");
        match problem {
            Some(Problem::Failed(failure)) => {
                out.push(b'{');
                write_member(out, "code", failure.row().code_in_stream);
                write_next(out, "message", failure.message_in_stream().as_str());
                out.push(b'}');
            }
            Some(Problem::Incomplete(_)) | None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"incomplete_details\":");
        match problem {
            Some(Problem::Incomplete(reason)) => {
                out.push(b'{');
                write_member(out, "reason", reason.as_str());
                out.push(b'}');
            }
            Some(Problem::Failed(_)) | None => out.extend_from_slice(b"null"),
        }
        write_next(out, "model", self.identity.model.as_str());
        out.push(b',');
        out.extend_from_slice(&self.echo.members);
        out.extend_from_slice(b",\"tools\":");
        out.extend_from_slice(if self.echo.tools.is_empty() { b"[]" } else { self.echo.tools.as_bytes() });
        out.extend_from_slice(b",\"output\":[");
        // A stream's first objects are empty by the API's own custom; the last one holds everything.
        if status != "in_progress" {
            self.write_output(out);
        }
        out.extend_from_slice(b"],\"usage\":");
        match self.usage {
            Some(usage) if status != "in_progress" => write_usage(out, &usage),
            Some(_) | None => out.extend_from_slice(b"null"),
        }
        if self.paused {
            // Codex asks again, with what was said so far.
            write_next(out, "end_turn", &false);
        }
        out.push(b'}');
    }

    /// The done items.
    fn write_output(&self, out: &mut Vec<u8>) {
        for (at, item) in self.output.values().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item.as_bytes());
        }
    }

    /// What answers `POST /v1/responses/compact`. Source: `CompactedResponse`,
    /// <https://platform.openai.com/docs/api-reference/responses/compact> (read 2026-11-21).
    fn compacted_object(&self, out: &mut Vec<u8>, users: &[u8]) {
        self.begin_object(out, "response.compaction");
        out.extend_from_slice(b",\"output\":[");
        out.extend_from_slice(users);
        if !users.is_empty() && !self.output.is_empty() {
            out.push(b',');
        }
        self.write_output(out);
        out.extend_from_slice(b"],\"usage\":");
        match &self.usage {
            Some(usage) => write_usage(out, usage),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
    }
}

/// `response.failed` as a last word when the encoder itself is lost: the answer's identity and place are all it knows.
pub fn encode_failed(identity: &Identity, sequence: u64, failure: &Failure) -> Vec<u8> {
    let mut encoder = StreamEncoder::new(identity.clone(), Echo::default(), Sealer::new(&[0; 32]), true);
    encoder.echo.members = b"\"metadata\":{}".to_vec();
    encoder.feed.sequence = sequence;
    let mut out = Vec::new();
    encoder.response_event(&mut out, "response.failed", "failed", Some(Problem::Failed(failure)));
    out
}

#[derive(Clone, Copy)]
enum Problem<'a> {
    Incomplete(IncompleteReason),
    Failed(&'a Failure),
}

impl Item {
    /// As it stands in `response.output_item.added`.
    fn write_empty(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        write_member(out, "id", self.id.as_str());
        match &self.kind {
            Kind::Message { phase, .. } => {
                out.extend_from_slice(b",\"type\":\"message\",\"status\":\"in_progress\",\"role\":\"assistant\"");
                if let Some(phase) = phase {
                    write_next(out, "phase", phase);
                }
                out.extend_from_slice(b",\"content\":[]");
            }
            Kind::Reasoning { .. } => out.extend_from_slice(b",\"type\":\"reasoning\",\"summary\":[]"),
            Kind::Call { call_id, tool, .. } => write_call(out, call_id, tool, "", "in_progress"),
            Kind::Compaction { .. } => out.extend_from_slice(b",\"type\":\"compaction\""),
        }
        out.push(b'}');
    }

    /// As it stands in `response.output_item.done` and in the final object.
    fn write_whole(&self, out: &mut Vec<u8>, status: &str, sealed: Option<&str>) {
        out.push(b'{');
        write_member(out, "id", self.id.as_str());
        match &self.kind {
            Kind::Message { phase, parts } => {
                out.extend_from_slice(b",\"type\":\"message\"");
                write_next(out, "status", status);
                out.extend_from_slice(b",\"role\":\"assistant\"");
                if let Some(phase) = phase {
                    write_next(out, "phase", phase);
                }
                out.extend_from_slice(b",\"content\":[");
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_part(out, part.refusal, &part.text);
                }
                out.push(b']');
            }
            Kind::Reasoning { text, .. } => {
                out.extend_from_slice(b",\"type\":\"reasoning\",\"summary\":[");
                if !text.is_empty() {
                    write_summary_part(out, text);
                }
                out.push(b']');
                if let Some(sealed) = sealed {
                    write_next(out, "encrypted_content", sealed);
                }
            }
            Kind::Call { call_id, tool, input } => write_call(out, call_id, tool, input, status),
            Kind::Compaction { .. } => {
                out.extend_from_slice(b",\"type\":\"compaction\"");
                write_next(out, "encrypted_content", sealed.unwrap_or_default());
            }
        }
        out.push(b'}');
    }
}

fn write_call(out: &mut Vec<u8>, call_id: &str, tool: &ToolRef<'_>, input: &str, status: &str) {
    let kind = match tool.kind {
        ToolKind::Function => "function_call",
        ToolKind::Custom => "custom_tool_call",
        ToolKind::ToolSearch => "tool_search_call",
    };
    write_next(out, "type", kind);
    write_next(out, "status", status);
    write_next(out, "call_id", call_id);
    match tool.kind {
        ToolKind::Function | ToolKind::Custom => {
            write_next(out, "name", &*tool.name);
            if let Some(namespace) = tool.namespace.as_deref() {
                write_next(out, "namespace", namespace);
            }
            write_next(out, if tool.kind == ToolKind::Function { "arguments" } else { "input" }, input);
        }
        ToolKind::ToolSearch => {
            out.extend_from_slice(b",\"execution\":\"client\",\"arguments\":");
            // The client takes an object here; text that is none becomes the query, so that it is searched for.
            let raw = serde_json::from_str::<&RawValue>(input).ok();
            let raw = raw.filter(|raw| raw.get().starts_with('{') && is_readable(raw));
            match raw {
                Some(raw) => out.extend_from_slice(one_line(raw).as_bytes()),
                None if input.is_empty() => out.extend_from_slice(b"{}"),
                None => {
                    out.push(b'{');
                    write_member(out, "query", input);
                    out.push(b'}');
                }
            }
        }
    }
}

/// Whether the client can read a value that stands in an event as it came. It reads with serde_json too, and that gives up
/// at numbers that are out of range, halves of surrogate pairs, and 128 levels; the brackets stand for the event around it.
fn is_readable(raw: &RawValue) -> bool {
    serde_json::from_str::<serde_json::Value>(&format!("[[[[[[{raw}]]]]]]")).is_ok()
}

fn write_part(out: &mut Vec<u8>, refusal: bool, text: &str) {
    if refusal {
        out.extend_from_slice(b"{\"type\":\"refusal\",\"refusal\":");
        write_json(out, text);
    } else {
        out.extend_from_slice(b"{\"type\":\"output_text\",\"text\":");
        write_json(out, text);
        out.extend_from_slice(b",\"annotations\":[],\"logprobs\":[]");
    }
    out.push(b'}');
}

fn write_summary_part(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"{\"type\":\"summary_text\",\"text\":");
    write_json(out, text);
    out.push(b'}');
}

pub(in crate::codec) fn write_usage(out: &mut Vec<u8>, usage: &Usage) {
    out.push(b'{');
    write_member(out, "input_tokens", &usage.input);
    out.extend_from_slice(b",\"input_tokens_details\":{");
    write_member(out, "cached_tokens", &usage.cached);
    // Always: the official openai package requires it.
    write_next(out, "cache_write_tokens", &usage.cache_write);
    out.push(b'}');
    write_next(out, "output_tokens", &usage.output);
    out.extend_from_slice(b",\"output_tokens_details\":{");
    write_member(out, "reasoning_tokens", &usage.reasoning);
    out.push(b'}');
    write_next(out, "total_tokens", &usage.total());
    if usage.estimated {
        // Not of the API: parsers ignore it, people see that nobody counted.
        out.extend_from_slice(b",\"estimated\":true");
    }
    out.push(b'}');
}

fn write_place(out: &mut Vec<u8>, id: &str, index: u32, within: Option<(&str, usize)>) {
    write_member(out, "item_id", id);
    write_next(out, "output_index", &index);
    if let Some((key, value)) = within {
        write_next(out, key, &value);
    }
}

/// `event: NAME`, and the data line up to where the members go on.
pub(in crate::codec) fn begin_event(out: &mut Vec<u8>, name: &str, sequence: u64) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: {\"type\":\"");
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
    write_next(out, "sequence_number", &sequence);
    out.push(b',');
}
