//! Chunks of an answer → events. PURE.
//!
//! ```text
//! frame ─► error object? ── yes ─► Err(Upstream)
//!            │ no
//!            ├─ thoughts (three fields, tags) ─► reasoning item, closed when something else begins
//!            ├─ text, refusal ─────────────────► message item, closed when thoughts or a call begin
//!            ├─ calls ─────────────────────────► call items, all open until the end: their pieces may interleave
//!            └─ usage, finish_reason ──────────► kept for the end
//! [DONE], end of input ─► finish(): closes everything, usage, the one End
//! ```
//! Hosts deviate from the protocol in many small ways; each that is tolerated has a case in
//! `tests/golden/streams/chat`.

mod calls;

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;

use self::calls::Call;
use super::{
    dialect::ThoughtsBack,
    thoughts::{Field, Piece, Splitter, Store},
    wire,
};
use crate::{
    codec::{
        DecodeError, Target,
        answer::{Answer, Finish, Whole, cut_off, each_frame, failure_of},
        error::failure_in_stream,
        json::{borrowed, number_of, text_of, why},
        names::Names,
        sse::Frame,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::{Failure, FailureKind},
        request::Opaque,
        usage::Usage,
    },
};

/// Reads one answer.
#[derive(Debug)]
pub struct StreamDecoder {
    target: Target,
    names: Names,
    answer: Answer,
    /// The host may have meant that it ended: counts only if the input ends in order.
    presumed: bool,
    splitter: Splitter,
    thoughts: Option<Thoughts>,
    /// Some thoughts have been shown.
    thought: bool,
    /// Thoughts in the order they came, in case the text never left them.
    unopened: String,
    message: Option<ItemKey>,
    calls: Vec<Call>,
    usage: Option<Usage>,
}

/// An open reasoning item.
#[derive(Debug)]
struct Thoughts {
    item: ItemKey,
    field: Field,
    tag: usize,
    text: String,
    details: Vec<serde_json::Map<String, serde_json::Value>>,
    extras: BTreeMap<String, Box<RawValue>>,
}

impl StreamDecoder {
    /// A decoder for one answer.
    ///
    /// `names`: from encoding the request. `seed`: short and unique to the answer; ids are made from it for calls that
    /// have none. `input_bytes`: size of the request's body, for an estimate of usage if the host counts nothing.
    pub fn new(target: &Target, names: Names, seed: &str, input_bytes: u64) -> Self {
        Self {
            splitter: Splitter::new(target.dialect.thoughts_unopened),
            target: target.clone(),
            names,
            answer: Answer::new(seed, input_bytes),
            presumed: false,
            thoughts: None,
            thought: false,
            unopened: String::new(),
            message: None,
            calls: Vec::new(),
            usage: None,
        }
    }

    /// Takes the next frame and appends what it says to `out`. After an error, call [`Self::finish`].
    pub fn feed(&mut self, frame: &Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(data) = self.answer.data(frame, failure_in_stream)? else { return Ok(()) };
        if !data.starts_with('{') {
            return self.odd_frame(frame.event, data);
        }
        let chunk: wire::Chunk<'_> = serde_json::from_str(data)
            .map_err(|e| DecodeError::Malformed { what: format!("a chunk is not what it should be ({})", why(&e)) })?;
        if let Some(failure) = error_in(&chunk, data) {
            return Err(DecodeError::Upstream(failure));
        }
        if frame.event == Some("error") {
            return Err(DecodeError::Upstream(failure_in_stream(data)));
        }
        self.chunk(&chunk, out)
    }

    /// Takes a body that came whole although a stream was asked for: a `chat.completion` object, the same in an envelope,
    /// an error object, a web page, or a stream under a wrong content type. Then call [`Self::finish`].
    pub fn feed_whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
        whole(self, body, out)
    }

    /// True once the host has said how the answer ended; only its usage may follow.
    pub fn end_announced(&self) -> bool {
        self.answer.finish.is_some()
    }

    /// True once `[DONE]` was seen; nothing of worth follows.
    pub fn done(&self) -> bool {
        self.answer.done
    }

    /// How many frames, choices and finish reasons were not understood and skipped.
    pub fn skipped(&self) -> u64 {
        self.answer.skipped
    }

    /// The end of input. `cut`: why it ended early, if it did. Appends the missing closes, usage, and the one `End`.
    ///
    /// An answer whose end the host announced is complete whatever happened to the connection afterwards; one whose end
    /// it did not announce never is.
    pub fn finish(mut self, cut: Option<Failure>, out: &mut Vec<Event>) {
        let flushed = self.flush_text(out);
        let end = match (self.answer.finish.take(), cut) {
            (Some(finish), _) => finish.end(),
            (None, Some(failure)) if !self.answer.done => End::Failed(failure),
            // What breaks behind the end mark is no part of the answer.
            (None, _) => self.unannounced(),
        };
        let end = match (flushed, end) {
            (Err(error), _) => End::Failed(failure_of(error)),
            (Ok(()), End::Complete | End::Incomplete(_)) if self.calls.iter().any(|c| c.name.trim().is_empty()) => {
                End::Failed(Failure::new(FailureKind::Upstream, "The provider sent a tool call without a name."))
            }
            (Ok(()), End::Complete) if self.calls.iter().any(Call::would_run_cut) => {
                End::Failed(Failure::new(FailureKind::Upstream, "The provider cut off a tool call."))
            }
            (Ok(()), end) => end,
        };
        let complete = end == End::Complete;
        let failed = matches!(end, End::Failed(_));
        if !failed {
            self.answer.start("", out);
        }
        if self.answer.started() && !failed {
            self.unspoken_thoughts(out);
            // Calls that have a name but never had arguments.
            for i in 0..self.calls.len() {
                self.open_call(i, out);
            }
        }
        self.close_thoughts(complete, out);
        self.close_message(complete, out);
        self.close_calls(complete, failed, out);
        self.answer.end(end, self.usage, out);
    }

    /// The input ended properly, but no finish reason came.
    fn unannounced(&self) -> End {
        let half_a_call = self.calls.iter().any(|call| call.arguments.so_far.begun && !call.arguments.so_far.complete);
        if (self.answer.done || self.presumed) && !half_a_call && (self.said_something() || self.usage.is_some()) {
            return End::Complete;
        }
        End::Failed(cut_off(self.said_something()))
    }

    fn said_something(&self) -> bool {
        self.answer.has_items() || !self.calls.is_empty()
    }

    /// Frames that are no JSON object.
    fn odd_frame(&mut self, event: Option<&str>, data: &str) -> Result<(), DecodeError> {
        // An error as an array (Google) or as a string.
        if event == Some("error") || (data.starts_with('[') && data.contains("\"error\"")) {
            return Err(DecodeError::Upstream(failure_in_stream(data)));
        }
        self.answer.odd(data, "a chunk")
    }

    fn chunk(&mut self, chunk: &wire::Chunk<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        if chunk.model.is_none() && chunk.choices.is_none() && chunk.usage.is_none() && chunk.x_groq.is_none() {
            self.answer.skipped += 1;
            return Ok(());
        }
        self.answer.start(&chunk.model.and_then(text_of).unwrap_or_default(), out);
        let choices = chunk.choices.as_deref().unwrap_or_default();
        for choice in choices {
            // Only one is ever asked for.
            if choice.index.and_then(number_of).unwrap_or(0) != 0 {
                self.answer.skipped += 1;
                continue;
            }
            self.choice(choice, out)?;
        }
        for usage in [chunk.x_groq.as_ref().and_then(|x| x.usage), chunk.usage].into_iter().flatten() {
            self.count(usage);
        }
        Ok(())
    }

    fn choice(&mut self, choice: &wire::Choice<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let so_far =
            |this: &Self| (this.answer.text_bytes, this.answer.thought_bytes, this.answer.kept_bytes, this.calls.len());
        let before = so_far(self);
        // Some hosts repeat the whole message in the last chunk.
        let message = choice.message.as_ref().filter(|_| !self.said_something());
        if let Some(delta) = choice.delta.as_ref().or(message) {
            self.delta(delta, out)?;
        }
        self.answer.fits()?;
        if let Some(usage) = choice.usage {
            self.count(usage);
        }
        let silent = before == so_far(self);
        self.presumed &= silent;
        let Some(reason) = choice.finish_reason.and_then(text_of) else { return Ok(()) };
        if reason.is_empty() {
            // Some hosts send "" in every chunk, some only at the end: it may be one if nothing else is in the chunk.
            self.presumed |= silent && self.said_something();
            return Ok(());
        }
        // Gateways that turn no value into a word.
        if reason.eq_ignore_ascii_case("null") {
            return Ok(());
        }
        self.answer.finish = Some(self.reason(&reason));
        Ok(())
    }

    /// What a finish reason means, in all vendors' words.
    fn reason(&mut self, reason: &str) -> Finish {
        let failed = |kind, message| Finish::Failed(kind, message);
        match reason.to_ascii_lowercase().as_str() {
            "stop" | "tool_calls" | "function_call" | "eos" | "eos_token" | "end_turn" | "stop_sequence"
            | "tool_use" | "tool_call" | "function_calls" | "complete" | "completed" | "end" => Finish::Complete,
            "length" | "max_tokens" | "max_output_tokens" => Finish::Incomplete(IncompleteReason::MaxOutputTokens),
            "content_filter" | "safety" | "sensitive" | "recitation" | "prohibited_content" | "blocklist"
            | "refusal" => Finish::Incomplete(IncompleteReason::ContentFilter),
            // GLM and Mistral: the window is full.
            "model_context_window_exceeded" | "model_length" => failed(
                FailureKind::ContextLength,
                "The conversation and the answer together are too long for the model.",
            ),
            // DeepSeek.
            "insufficient_system_resource" => {
                failed(FailureKind::Overload, "The provider stopped the answer for want of capacity.")
            }
            word if ["error", "fail", "abort", "cancel", "timeout", "malformed"].iter().any(|w| word.contains(w)) => {
                failed(FailureKind::Upstream, "The provider stopped the answer because of an error of its own.")
            }
            // A word we do not know, from a host that says it has finished: believed, and counted.
            _ => {
                self.answer.skipped += 1;
                Finish::Complete
            }
        }
    }

    fn delta(&mut self, delta: &wire::Delta<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        self.thoughts_of(delta, out)?;
        if let Some(content) = delta.content {
            match content.get().as_bytes().first() {
                Some(b'"') => self.content(&text_of(content).unwrap_or_default(), out)?,
                Some(b'[') => {
                    let parts: Vec<wire::AnswerPart<'_>> = serde_json::from_str(content.get())
                        .map_err(|_| DecodeError::Malformed { what: "parts of content are not objects".into() })?;
                    for part in parts {
                        self.answer_part(&part, out)?;
                    }
                }
                Some(_) | None => self.answer.skipped += 1,
            }
        }
        if let Some(refusal) = delta.refusal.and_then(text_of) {
            self.refusal(&refusal, out);
        }
        for call in delta.tool_calls.iter().flatten() {
            let id = call.id.and_then(text_of).unwrap_or_default();
            self.call_delta(call.index.and_then(number_of), &id, call.function.as_ref(), call.extra_content, out)?;
        }
        if let Some(function) = &delta.function_call {
            self.call_delta(Some(0), "", Some(function), None, out)?;
        }
        Ok(())
    }

    fn answer_part(&mut self, part: &wire::AnswerPart<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        if let Some(thinking) = part.thinking {
            self.think(&nested_text(thinking), Field::ReasoningContent, out)?;
        }
        if let Some(refusal) = &part.refusal {
            self.refusal(refusal, out);
        }
        match &part.text {
            Some(text) => self.content(text, out),
            None => {
                self.answer.skipped += u64::from(part.thinking.is_none() && part.refusal.is_none());
                Ok(())
            }
        }
    }

    // ---- thoughts ----

    /// Thoughts come in one of three fields, or in several at once saying the same: the first that says something counts.
    fn thoughts_of(&mut self, delta: &wire::Delta<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let content = delta.reasoning_content.map(nested_text).unwrap_or_default();
        let reasoning = delta.reasoning.map(nested_text).unwrap_or_default();
        let shown = if !content.is_empty() {
            self.think(&content, Field::ReasoningContent, out)?;
            true
        } else if !reasoning.is_empty() {
            self.think(&reasoning, Field::Reasoning, out)?;
            true
        } else {
            false
        };
        let Some(details) = delta.reasoning_details else { return Ok(()) };
        let Ok(entries) = serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(details.get()) else {
            self.answer.skipped += 1;
            return Ok(());
        };
        for entry in entries {
            self.detail(entry, !shown, out)?;
        }
        Ok(())
    }

    /// One entry of `reasoning_details`. Pieces of one entry are joined, so that what goes back is what was meant.
    fn detail(
        &mut self,
        mut entry: serde_json::Map<String, serde_json::Value>,
        show: bool,
        out: &mut Vec<Event>,
    ) -> Result<(), DecodeError> {
        use serde_json::Value;
        let cumulative = self.target.dialect.details_cumulative;
        let thoughts = self.open_thoughts(Field::Details, out);
        thoughts.field = Field::Details;
        let same = |key: &str, last: &serde_json::Map<String, Value>| match (last.get(key), entry.get(key)) {
            (Some(a), Some(b)) => a == b || a.is_null() || b.is_null(),
            (Some(_), None) | (None, _) => true,
        };
        // Encrypted entries come whole; text and summaries come in pieces.
        let joins = thoughts.details.last().is_some_and(|last| {
            !entry.contains_key("data")
                && !last.contains_key("data")
                && ["type", "index", "id"].iter().all(|k| same(k, last))
        });
        let mut shown = String::new();
        let encrypted = entry.get("data").and_then(Value::as_str).map_or(0, str::len);
        if !joins {
            thoughts.details.push(serde_json::Map::new());
        }
        if let Some(last) = thoughts.details.last_mut() {
            for key in ["text", "summary"] {
                let Some(Value::String(piece)) = entry.remove(key) else { continue };
                let so_far = last.entry(key).or_insert_with(|| Value::String(String::new()));
                let Value::String(so_far) = so_far else { continue };
                // Three bytes: a shorter beginning may also be a repetition ("--", "\n\n").
                let piece = match piece.strip_prefix(so_far.as_str()) {
                    Some(new) if cumulative && so_far.len() >= 3 => new,
                    Some(_) | None => piece.as_str(),
                };
                so_far.push_str(piece);
                shown.push_str(piece);
            }
            for (key, value) in entry {
                if !value.is_null() || !last.contains_key(&key) {
                    last.insert(key, value);
                }
            }
        }
        if show && !shown.is_empty() {
            self.show_thought(shown, false, out)?;
        }
        self.answer.keep(encrypted)
    }

    fn think(&mut self, text: &str, field: Field, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        if text.is_empty() {
            return Ok(());
        }
        self.open_thoughts(field, out);
        self.show_thought(text.to_owned(), true, out)
    }

    fn show_thought(&mut self, delta: String, keep: bool, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        self.answer.thought(delta.len())?;
        if let Some(thoughts) = &mut self.thoughts {
            if keep {
                thoughts.text.push_str(&delta);
            }
            out.push(Event::Reasoning { item: thoughts.item, delta });
        }
        Ok(())
    }

    fn open_thoughts(&mut self, field: Field, out: &mut Vec<Event>) -> &mut Thoughts {
        if self.thoughts.is_none() {
            self.close_message(true, out);
        }
        let answer = &mut self.answer;
        self.thought = true;
        self.thoughts.get_or_insert_with(|| {
            let item = answer.open(ItemKind::Reasoning, out);
            Thoughts { item, field, tag: 0, text: String::new(), details: Vec::new(), extras: BTreeMap::new() }
        })
    }

    fn close_thoughts(&mut self, whole: bool, out: &mut Vec<Event>) {
        let Some(thoughts) = self.thoughts.take() else { return };
        if let Some(value) = self.stored(&thoughts) {
            let origin = self.target.origin.clone();
            out.push(Event::Opaque { item: thoughts.item, value: Opaque { origin, value } });
        }
        out.push(Event::ItemClose { item: thoughts.item, whole });
    }

    /// What of these thoughts the host will want back; `None` if nothing.
    fn stored(&self, thoughts: &Thoughts) -> Option<String> {
        let text = match (self.target.dialect.thoughts_back, thoughts.field) {
            (ThoughtsBack::Never, _) => None,
            (ThoughtsBack::AsReceived, Field::Tags) => None,
            (ThoughtsBack::Details | ThoughtsBack::AsReceived, _) if !thoughts.details.is_empty() => None,
            // The text was shown from the details only, but goes back as text.
            (ThoughtsBack::ReasoningContent | ThoughtsBack::Reasoning, Field::Details) if thoughts.text.is_empty() => {
                Some(thoughts.details.iter().filter_map(|d| d.get("text")?.as_str()).collect())
            }
            (_, _) => Some(thoughts.text.clone()),
        };
        let wants_details =
            matches!(self.target.dialect.thoughts_back, ThoughtsBack::Details | ThoughtsBack::AsReceived);
        let details = if wants_details { &thoughts.details[..] } else { &[] };
        // Empty thoughts are worth remembering only where a host insists on having them back.
        let text = text.filter(|text| !text.is_empty() || self.target.dialect.thoughts_required);
        if text.is_none() && details.is_empty() && thoughts.extras.is_empty() {
            return None;
        }
        let tag = Some(thoughts.tag).filter(|tag| *tag > 0);
        let store = Store { field: thoughts.field, tag, text: text.as_deref(), details, calls: &thoughts.extras };
        serde_json::to_string(&store).ok()
    }

    /// A host that insists on thoughts also insists after an answer that had none; that they were none is remembered.
    fn remember_no_thoughts(&mut self, out: &mut Vec<Event>) {
        if self.target.dialect.thoughts_required && !self.thought {
            self.open_thoughts(Field::ReasoningContent, out);
        }
    }

    /// Text that began inside a thought and never left it, in an answer that is nothing else, was no thought.
    fn unspoken_thoughts(&mut self, out: &mut Vec<Event>) {
        let only_thoughts = self.target.dialect.thoughts_unopened && self.splitter.is_inside();
        if only_thoughts && self.answer.text_bytes == 0 && self.calls.is_empty() && !self.unopened.is_empty() {
            self.close_thoughts(true, out);
            let text = std::mem::take(&mut self.unopened);
            self.answer.thought_bytes = 0;
            self.say(text, out);
        }
    }

    // ---- text ----

    fn content(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        if text.is_empty() {
            return Ok(());
        }
        if self.splitter.is_plain() {
            self.say(text.to_owned(), out);
            return Ok(());
        }
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(false));
        let result = splitter.feed(text, |piece| self.piece(piece, out));
        self.splitter = splitter;
        result
    }

    fn flush_text(&mut self, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        if !self.answer.started() {
            return Ok(());
        }
        let mut splitter = std::mem::replace(&mut self.splitter, Splitter::new(false));
        let result = splitter.finish(|piece| self.piece(piece, out));
        self.splitter = splitter;
        result
    }

    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        match piece {
            Piece::Thought(text, tag) => {
                if self.target.dialect.thoughts_unopened {
                    self.unopened.push_str(text);
                }
                self.open_thoughts(Field::Tags, out).tag = tag;
                self.think(text, Field::Tags, out)
            }
            Piece::Text(text) => {
                self.say(text.to_owned(), out);
                Ok(())
            }
        }
    }

    fn say(&mut self, delta: String, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        self.answer.text_bytes += delta.len() as u64;
        let item = self.open_message(out);
        out.push(Event::Text { item, delta });
    }

    fn refusal(&mut self, text: &str, out: &mut Vec<Event>) {
        if !text.is_empty() {
            self.answer.text_bytes += text.len() as u64;
            let item = self.open_message(out);
            out.push(Event::Refusal { item, delta: text.to_owned() });
        }
    }

    fn open_message(&mut self, out: &mut Vec<Event>) -> ItemKey {
        if let Some(item) = self.message {
            return item;
        }
        self.close_thoughts(true, out);
        let item = self.answer.open(ItemKind::Message { phase: None }, out);
        self.message = Some(item);
        item
    }

    fn close_message(&mut self, whole: bool, out: &mut Vec<Event>) {
        if let Some(item) = self.message.take() {
            out.push(Event::ItemClose { item, whole });
        }
    }

    // ---- the rest ----

    /// Token counts; hosts that send them in every chunk mean the last.
    fn count(&mut self, raw: &RawValue) {
        let Ok(counted) = serde_json::from_str::<wire::Usage>(raw.get()) else {
            self.answer.skipped += 1;
            return;
        };
        let first = |a: Option<u64>, b: Option<u64>| a.filter(|n| *n > 0).or(b).unwrap_or(0);
        let prompt = first(counted.prompt_tokens, counted.input_tokens);
        let completion = first(counted.completion_tokens, counted.output_tokens);
        if prompt == 0 && completion == 0 {
            return;
        }
        let prompt_details = counted.prompt_tokens_details.or(counted.input_tokens_details).unwrap_or_default();
        let cached = prompt_details.cached_tokens.or(counted.prompt_cache_hit_tokens).or(counted.cached_tokens);
        let written = prompt_details.cache_write_tokens.or(prompt_details.cache_creation_tokens);
        let details = counted.completion_tokens_details.or(counted.output_tokens_details);
        let thought = details.and_then(|d| d.reasoning_tokens).or(counted.reasoning_tokens);
        // xAI and Gemini leave thoughts out of the completion's count but not out of the total; Gemini does not count
        // them apart at all.
        let beyond = counted.total_tokens.unwrap_or(0).saturating_sub(prompt.saturating_add(completion));
        let unlisted = if thought.is_none_or(|t| t == 0 || t == beyond) { beyond } else { 0 };
        let output = completion.saturating_add(unlisted);
        self.usage = Some(Usage {
            input: prompt,
            cached: cached.unwrap_or(0).min(prompt),
            cache_write: written.unwrap_or(0).min(prompt),
            output,
            reasoning: thought.filter(|t| *t > 0).unwrap_or(unlisted).min(output),
            estimated: false,
        });
    }
}

/// Reads a body that came whole although a stream was asked for: a `chat.completion` object, the same in an envelope, an
/// error object, a web page, or a stream under a wrong content type. Always gives a lawful answer with one end.
pub fn decode_whole(target: &Target, names: Names, seed: &str, input_bytes: u64, body: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    let mut decoder = StreamDecoder::new(target, names, seed, input_bytes);
    let cut = whole(&mut decoder, body, &mut out).err().map(failure_of);
    decoder.finish(cut, &mut out);
    out
}

fn whole(decoder: &mut StreamDecoder, body: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
    match Whole::of(body)? {
        Whole::Frames(text) => each_frame(text, |frame| decoder.feed(frame, out)),
        Whole::Text("") => Ok(()),
        Whole::Text(text) if text.starts_with('{') => object(decoder, text, 0, out),
        Whole::Text(text) => Err(DecodeError::Upstream(failure_in_stream(text))),
    }
}

fn object(decoder: &mut StreamDecoder, text: &str, depth: u8, out: &mut Vec<Event>) -> Result<(), DecodeError> {
    /// Gateways behind gateways.
    const ENVELOPES_MAX: u8 = 3;
    let chunk: wire::Chunk<'_> =
        serde_json::from_str(text).map_err(|_| DecodeError::Malformed { what: "the answer is not JSON".into() })?;
    if let Some(failure) = error_in(&chunk, text) {
        return Err(DecodeError::Upstream(failure));
    }
    if chunk.choices.is_none()
        && let Some(data) = chunk.data.filter(|data| data.get().starts_with('{') && depth < ENVELOPES_MAX)
    {
        return object(decoder, data.get(), depth + 1, out);
    }
    if chunk.choices.as_ref().is_none_or(Vec::is_empty) {
        return Err(DecodeError::Upstream(failure_in_stream(text)));
    }
    decoder.chunk(&chunk, out)?;
    // A whole body has not been cut, whether or not it says why it ended.
    decoder.answer.done = true;
    Ok(())
}

/// The failure in a chunk, if it is an error object.
fn error_in(chunk: &wire::Chunk<'_>, text: &str) -> Option<Failure> {
    let is = |raw: Option<&RawValue>, word: &str| raw.and_then(text_of).is_some_and(|t| t == word);
    let nested = chunk.choices.iter().flatten().find_map(|choice| choice.error);
    let groq = chunk.x_groq.as_ref().and_then(|x| x.error);
    if let Some(error) = chunk.error.or(nested).or(groq).filter(|error| !matches!(error.get(), "false" | "\"\"" | "{}"))
    {
        return Some(failure_in_stream(error.get()));
    }
    let refused = chunk.success.is_some_and(|s| s.get() == "false");
    let plain =
        chunk.choices.is_none() && (chunk.detail.is_some() || (chunk.message.is_some() && chunk.data.is_none()));
    (is(chunk.object, "error") || is(chunk.kind, "error") || refused || plain).then(|| failure_in_stream(text))
}

/// The text in a string, or in an object or array that holds text somewhere (`{"text":…}`, `[{"type":"text",…}]`).
fn nested_text(raw: &RawValue) -> Cow<'_, str> {
    fn collect(value: &serde_json::Value, depth: u8, text: &mut String) {
        use serde_json::Value;
        match value {
            Value::String(piece) => text.push_str(piece),
            Value::Array(items) if depth < 4 => items.iter().for_each(|item| collect(item, depth + 1, text)),
            Value::Object(object) if depth < 4 => {
                if let Some(value) = ["text", "content", "summary", "thinking"].iter().find_map(|key| object.get(*key))
                {
                    collect(value, depth + 1, text);
                }
            }
            Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    match raw.get().as_bytes().first() {
        Some(b'"') => borrowed(raw.get()).unwrap_or_default(),
        Some(b'{' | b'[') => {
            let mut text = String::new();
            if let Ok(value) = serde_json::from_str(raw.get()) {
                collect(&value, 0, &mut text);
            }
            Cow::Owned(text)
        }
        Some(_) | None => Cow::Borrowed(""),
    }
}
