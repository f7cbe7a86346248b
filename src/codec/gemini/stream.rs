//! Chunks of an answer → events. PURE.
//!
//! ```text
//! frame ─► error object, web page? ── yes ─► Err(Upstream)
//!            │ no
//!            ├─ thought ──────► reasoning item, closed when something else begins
//!            ├─ text ─────────► message item, closed when thoughts or a call begin
//!            ├─ functionCall ─► call item, whole at once, but open until the end: only an answer that ends well gives it
//!            │                  to the client; what comes behind it stays open with it, so that items close in order
//!            ├─ signatures ───► kept; a reasoning item before the call, or behind the text, carries them
//!            └─ usage, finishReason ─► kept for the end
//! end of input ─► finish(): closes everything, usage, the one End
//! ```
//! There is no end mark: a stream ends by ending, and only a `finishReason` before that makes it whole. Each shape that is
//! tolerated has a case in `tests/golden/streams/gemini`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    error::failure_in_stream,
    thoughts::{Mark, START, Stored, VERSION, mix},
    wire,
};
use crate::{
    codec::{
        DecodeError, Target,
        answer::{Answer, Finish, Whole, cut_off, each_frame, failure_of, room_for_a_call, unknown_tool},
        custom,
        json::{number_of, text_of, why},
        names::Names,
        sse::Frame,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::{Failure, FailureKind},
        request::{Opaque, ToolKind, ToolRef},
        usage::Usage,
    },
};

/// Longer names of tools are none.
const NAME_BYTES_MAX: usize = 1024;

/// Reads one answer.
#[derive(Debug)]
pub struct StreamDecoder {
    target: Target,
    names: Names,
    answer: Answer,
    /// What the same request is sent with to go on.
    token: Option<String>,
    /// It was the limit of one request that was met, not that of the answer.
    continues: bool,
    thoughts: Option<Thoughts>,
    message: Option<Message>,
    calls: Vec<Call>,
    /// Items from the first call on, in order, and whether they are whole: they are closed at the end.
    open: Vec<(ItemKey, bool)>,
    usage: Option<Usage>,
}

/// An open reasoning item.
#[derive(Debug)]
struct Thoughts {
    item: ItemKey,
    stored: Stored<'static>,
}

/// An open message.
#[derive(Debug)]
struct Message {
    item: ItemKey,
    bytes: usize,
    /// [`mix`] of its text.
    hash: u64,
    /// Its signed pieces.
    marks: Vec<Mark<'static>>,
}

/// A call, open until the end.
#[derive(Debug)]
struct Call {
    id: String,
    /// As the service gave them, to know a repetition.
    given: String,
}

/// What stopped an answer that can be gone on with: see [`super::continuation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The limit of generated tokens.
    Limit,
    /// The same, of an answer that a larger limit and this token go on with exactly there.
    Spent(String),
    /// The limit of one request: the same request goes on exactly there, with this token.
    Token(String),
}

impl StreamDecoder {
    /// A decoder for one answer.
    ///
    /// `names`: from encoding the request. `seed`: short and unique to the answer; ids are made from it for calls that
    /// have none. `input_bytes`: size of the request's body, for an estimate of usage if the service counts nothing.
    pub fn new(target: &Target, names: Names, seed: &str, input_bytes: u64) -> Self {
        Self {
            target: target.clone(),
            names,
            answer: Answer::new(seed, input_bytes),
            token: None,
            continues: false,
            thoughts: None,
            message: None,
            calls: Vec::new(),
            open: Vec::new(),
            usage: None,
        }
    }

    /// Takes the next frame and appends what it says to `out`. After an error, call [`Self::finish`].
    pub fn feed(&mut self, frame: &Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(data) = self.answer.data(frame, failure_in_stream)? else { return Ok(()) };
        if frame.event == Some("error") {
            return Err(DecodeError::Upstream(failure_in_stream(data)));
        }
        match data.as_bytes().first() {
            Some(b'{') => self.object(data, out),
            Some(b'[') => self.array(data, out),
            Some(_) | None => self.answer.odd(data, "a chunk"),
        }
    }

    /// Takes a body that came whole although a stream was asked for: one `GenerateContentResponse`, an array of them (what
    /// the service streams without `alt=sse`), an error, a web page, or a stream under a wrong content type. Then call
    /// [`Self::finish`].
    pub fn feed_whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let text = match Whole::of(body)? {
            Whole::Frames(text) => return each_frame(text, |frame| self.feed(frame, out)),
            Whole::Text(text) => text,
        };
        match text.as_bytes().first() {
            None => Ok(()),
            Some(b'{') => self.object(text, out),
            Some(b'[') => self.array(text, out),
            Some(_) => Err(DecodeError::Upstream(failure_in_stream(text))),
        }
    }

    /// True once the service has said how the answer ended; only its usage may follow.
    pub fn end_announced(&self) -> bool {
        self.answer.finish.is_some()
    }

    /// True once nothing of worth follows. The service has no mark for that, only gateways do.
    pub fn done(&self) -> bool {
        self.answer.done
    }

    /// How many frames, candidates, parts and finish reasons were not understood and skipped.
    pub fn skipped(&self) -> u64 {
        self.answer.skipped
    }

    /// Whether the answer ended at a limit of tokens, so that it can be gone on with.
    pub fn stopped(&self) -> Option<Stopped> {
        match (&self.answer.finish, &self.token) {
            (Some(Finish::Incomplete(IncompleteReason::MaxOutputTokens)), None) => Some(Stopped::Limit),
            (Some(Finish::Incomplete(IncompleteReason::MaxOutputTokens)), Some(token)) if self.continues => {
                Some(Stopped::Token(token.clone()))
            }
            (Some(Finish::Incomplete(IncompleteReason::MaxOutputTokens)), Some(token)) => {
                Some(Stopped::Spent(token.clone()))
            }
            (Some(Finish::Complete | Finish::Incomplete(_) | Finish::Failed(..)) | None, _) => None,
        }
    }

    /// The end of input. `cut`: why it ended early, if it did. Appends the missing closes, usage, and the one `End`.
    ///
    /// An answer whose end the service announced is complete whatever happened to the connection afterwards; one whose end
    /// it did not announce never is. One that says nothing, neither text nor a call, is none: the service sends `STOP`
    /// without parts now and then, and the same request succeeds the next time
    /// (<https://github.com/google-gemini/deprecated-generative-ai-python/issues/744>,
    /// <https://github.com/AstrBotDevs/AstrBot/pull/6735>, read 2026-11-21). Told as complete it would end the client's
    /// turn without a word; told as a failure of the provider it is tried again.
    pub fn finish(mut self, cut: Option<Failure>, out: &mut Vec<Event>) {
        let spoke = self.answer.text_bytes > 0 || !self.calls.is_empty();
        let end = match (self.answer.finish.take(), cut) {
            (Some(Finish::Complete), _) if !spoke => End::Failed(Failure::new(
                FailureKind::Upstream,
                "The provider ended its answer without saying anything.",
            )),
            (Some(finish), _) => finish.end(),
            (None, Some(failure)) if !self.answer.done => End::Failed(failure),
            // What breaks behind the end mark is no part of the answer.
            (None, _) => End::Failed(cut_off(self.answer.has_items())),
        };
        let complete = end == End::Complete;
        let failed = matches!(end, End::Failed(_));
        if !failed {
            self.answer.start("", out);
        }
        self.close_thoughts(complete, out);
        self.close_message(complete, out);
        self.close_thoughts(complete, out);
        for (item, whole) in std::mem::take(&mut self.open) {
            out.push(Event::ItemClose { item, whole: whole && !failed });
        }
        self.answer.end(end, self.usage, out);
    }

    // ---- frames ----

    fn array(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let chunks: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|_| DecodeError::Malformed { what: "an array is not JSON".into() })?;
        for chunk in chunks {
            self.object(chunk.get(), out)?;
        }
        Ok(())
    }

    fn object(&mut self, text: &str, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let chunk: wire::Chunk<'_> = serde_json::from_str(text).map_err(|error| DecodeError::Malformed {
            what: format!("a chunk is not what it should be ({})", why(&error)),
        })?;
        if chunk.error.is_some() {
            return Err(DecodeError::Upstream(failure_in_stream(text)));
        }
        if chunk.candidates.is_none() && chunk.usage_metadata.is_none() && chunk.prompt_feedback.is_none() {
            self.answer.skipped += 1;
            return Ok(());
        }
        if !self.answer.started() {
            self.answer.start(&chunk.model_version.and_then(text_of).unwrap_or_default(), out);
        }
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason).and_then(text_of) {
            // Sent again, the same prompt is blocked again, and this is the one end that shows the client our words.
            self.answer.finish = Some(Finish::Failed(FailureKind::Caller, blocked(&reason)));
        }
        for candidate in chunk.candidates.unwrap_or_default() {
            // Only one is ever asked for.
            if candidate.index.and_then(number_of).unwrap_or(0) != 0 {
                self.answer.skipped += 1;
                continue;
            }
            self.candidate(candidate, out)?;
        }
        if let Some(counted) = &chunk.usage_metadata {
            self.count(counted);
        }
        Ok(())
    }

    fn candidate(&mut self, candidate: wire::Candidate<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        for part in candidate.content.and_then(|content| content.parts).unwrap_or_default() {
            self.part(part, out)?;
        }
        self.answer.fits()?;
        if let Some(token) = candidate.continuation_token.and_then(text_of).filter(|token| !token.is_empty()) {
            self.answer.keep(token.len())?;
            self.token = Some(token.into_owned());
        }
        if let Some(reason) = candidate.finish_reason.and_then(text_of)
            && let Some(finish) = self.reason(&reason)
        {
            self.continues = reason == "CONTINUATION";
            self.answer.finish = Some(finish);
        }
        Ok(())
    }

    /// What a finish reason means; `None` if it says nothing.
    fn reason(&mut self, reason: &str) -> Option<Finish> {
        let upstream = |message| Some(Finish::Failed(FailureKind::Upstream, message));
        let caller = |message| Some(Finish::Failed(FailureKind::Caller, message));
        match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => None,
            "STOP" => Some(Finish::Complete),
            "MAX_TOKENS" | "CONTINUATION" => Some(Finish::Incomplete(IncompleteReason::MaxOutputTokens)),
            // Judged by chance: the next try may pass, and the client makes it.
            "SAFETY" | "RECITATION" | "LANGUAGE" | "IMAGE_SAFETY" | "IMAGE_RECITATION" | "ESCALATION" => {
                Some(Finish::Incomplete(IncompleteReason::ContentFilter))
            }
            // Found in what is said, which is the same the next time; and this is the one end that shows the client our
            // words.
            "BLOCKLIST" => caller("The provider stopped the answer: it holds a term of its block list."),
            "PROHIBITED_CONTENT" | "IMAGE_PROHIBITED_CONTENT" => {
                caller("The provider stopped the answer: it finds prohibited content in it.")
            }
            "SPII" => caller("The provider stopped the answer: it finds personal data in it."),
            "MODEL_ARMOR" => {
                caller("The provider stopped the answer: a filter of the project blocks it (Model Armor).")
            }
            // Slips of the model: the next try usually goes well.
            "MALFORMED_FUNCTION_CALL" => upstream("The model made a tool call that the provider cannot read."),
            "UNEXPECTED_TOOL_CALL" => upstream("The model called a tool that was not offered to it."),
            "TOO_MANY_TOOL_CALLS" => upstream("The model made too many tool calls in one answer."),
            "MALFORMED_RESPONSE" => upstream("The model gave an answer that the provider cannot read."),
            "OTHER" | "IMAGE_OTHER" | "NO_IMAGE" => upstream("The provider stopped the answer and does not say why."),
            // A defect of ours or a signature that was lost: sent again it is the same.
            "MISSING_THOUGHT_SIGNATURE" => Some(Finish::Failed(
                FailureKind::Caller,
                "The provider misses a signature of its own in the conversation. Begin a new one, or go back to the model \
                 that this one was begun with.",
            )),
            "PUP_LIMITED_DISABLED" => Some(Finish::Failed(
                FailureKind::Credentials,
                "The provider has limited or closed the account, for use that it does not allow.",
            )),
            // Every reason that was added so far says that something went wrong, so a new one is not taken for a good
            // end.
            _ => {
                self.answer.skipped += 1;
                upstream("The provider stopped the answer for a reason that is not known here.")
            }
        }
    }

    fn part(&mut self, part: wire::AnswerPart<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let signature = part.thought_signature.and_then(text_of).filter(|signature| !signature.is_empty());
        if let Some(signature) = &signature {
            self.answer.keep(signature.len())?;
        }
        if let Some(call) = part.function_call {
            return self.call(&call, signature, out);
        }
        match (part.text.and_then(text_of), part.thought == Some(true)) {
            (Some(text), true) => self.think(text, signature, out),
            (Some(text), false) => {
                self.say(text, signature, out);
                Ok(())
            }
            (None, _) => {
                // Pictures, code the provider ran and the like, which nobody asked for. A bare signature is kept.
                match signature {
                    Some(signature) => self.sign_text(0, signature, out),
                    None => self.answer.skipped += 1,
                }
                Ok(())
            }
        }
    }

    // ---- thoughts and signatures ----

    fn think(
        &mut self,
        text: Cow<'_, str>,
        signature: Option<Cow<'_, str>>,
        out: &mut Vec<Event>,
    ) -> Result<(), DecodeError> {
        if text.is_empty() && signature.is_none() {
            return Ok(());
        }
        self.answer.thought(text.len())?;
        self.close_message(true, out);
        let thoughts = self.open_thoughts(out);
        if let Some(signature) = signature {
            let signed = (Cow::Owned(text.to_string()), Cow::Owned(signature.into_owned()));
            thoughts.stored.thoughts.push(signed);
        }
        if !text.is_empty() {
            let item = thoughts.item;
            out.push(Event::Reasoning { item, delta: text.into_owned() });
        }
        Ok(())
    }

    fn open_thoughts(&mut self, out: &mut Vec<Event>) -> &mut Thoughts {
        let answer = &mut self.answer;
        let model = &self.target.model;
        self.thoughts.get_or_insert_with(|| {
            let item = answer.open(ItemKind::Reasoning, out);
            let stored = Stored { v: VERSION, model: Cow::Owned(model.clone()), ..Stored::default() };
            Thoughts { item, stored }
        })
    }

    fn close_thoughts(&mut self, whole: bool, out: &mut Vec<Event>) {
        let Some(thoughts) = self.thoughts.take() else { return };
        if !thoughts.stored.is_empty()
            && let Ok(value) = serde_json::to_string(&thoughts.stored)
        {
            let origin = self.target.origin.clone();
            out.push(Event::Opaque { item: thoughts.item, value: Opaque { origin, value } });
        }
        self.close(thoughts.item, whole, out);
    }

    /// Closes an item; behind a call, not before it.
    fn close(&mut self, item: ItemKey, whole: bool, out: &mut Vec<Event>) {
        if self.calls.is_empty() {
            out.push(Event::ItemClose { item, whole });
        } else {
            self.open.push((item, whole));
        }
    }

    /// Keeps the signature of the last `bytes` of the open message's text, or one that belongs to no text.
    fn sign_text(&mut self, bytes: usize, signature: Cow<'_, str>, out: &mut Vec<Event>) {
        let sig = Cow::Owned(signature.into_owned());
        match &mut self.message {
            Some(message) => {
                let (start, end) = (message.bytes - bytes, message.bytes);
                message.marks.push(Mark { start, end, hash: message.hash, sig });
            }
            None => self.open_thoughts(out).stored.bare.push(sig),
        }
    }

    // ---- text ----

    fn say(&mut self, text: Cow<'_, str>, signature: Option<Cow<'_, str>>, out: &mut Vec<Event>) {
        let bytes = text.len();
        if bytes > 0 {
            self.answer.text_bytes += bytes as u64;
            let message = self.open_message(out);
            message.bytes += bytes;
            message.hash = mix(message.hash, &text);
            let item = message.item;
            out.push(Event::Text { item, delta: text.into_owned() });
        }
        if let Some(signature) = signature {
            self.sign_text(bytes, signature, out);
        }
    }

    fn open_message(&mut self, out: &mut Vec<Event>) -> &mut Message {
        if self.message.is_none() {
            self.close_thoughts(true, out);
        }
        let answer = &mut self.answer;
        self.message.get_or_insert_with(|| {
            let item = answer.open(ItemKind::Message { phase: None }, out);
            Message { item, bytes: 0, hash: START, marks: Vec::new() }
        })
    }

    /// Signatures of its text follow a whole message in a reasoning item, which stays open for what comes next.
    fn close_message(&mut self, whole: bool, out: &mut Vec<Event>) {
        let Some(message) = self.message.take() else { return };
        self.close(message.item, whole, out);
        if whole && !message.marks.is_empty() {
            self.open_thoughts(out).stored.texts.extend(message.marks);
        }
    }

    // ---- calls ----

    fn call(
        &mut self,
        call: &wire::AnswerCall<'_>,
        signature: Option<Cow<'_, str>>,
        out: &mut Vec<Event>,
    ) -> Result<(), DecodeError> {
        let name = call.name.and_then(text_of).unwrap_or_default();
        let name = name.trim();
        if name.is_empty() {
            return Err(DecodeError::Malformed { what: "a tool call without a name".into() });
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "the name of a tool", bytes_max: NAME_BYTES_MAX });
        }
        let arguments = match call.args.map(|args| args.get()) {
            Some(object) if object.starts_with('{') => object,
            Some("null") | None => "{}",
            Some(_) => {
                return Err(DecodeError::Malformed { what: "a tool call's arguments are no object".into() });
            }
        };
        let given_id = call.id.and_then(text_of).unwrap_or_default();
        let given_id = given_id.as_ref();
        let given = format!("{given_id}\0{name}\0{arguments}");
        // Gateways that say a call again when its stream ends.
        if !given_id.is_empty() && self.calls.iter().any(|call| call.given == given) {
            self.answer.skipped += 1;
            return Ok(());
        }
        room_for_a_call(self.calls.len())?;
        self.answer.text_bytes += arguments.len() as u64;
        let tool = self.tool(name);
        let id = self.answer.call_id(given_id, self.calls.len(), |id| self.calls.iter().any(|call| call.id == id));
        self.close_message(true, out);
        if let Some(signature) = signature {
            let calls = &mut self.open_thoughts(out).stored.calls;
            calls.insert(Cow::Owned(id.clone()), Cow::Owned(signature.into_owned()));
        }
        self.close_thoughts(true, out);
        let input = match tool.kind {
            ToolKind::Custom => custom::unwrap(arguments)?.0,
            ToolKind::Function | ToolKind::ToolSearch => arguments.to_owned(),
        };
        let item = self.answer.open(ItemKind::Call { call_id: id.clone(), tool }, out);
        if !input.is_empty() {
            out.push(Event::CallArguments { item, delta: input });
        }
        self.calls.push(Call { id, given });
        self.open.push((item, true));
        Ok(())
    }

    /// The tool a name means. Models now and then put the namespace before it that they see their functions in; and
    /// `request.rs` puts an underscore before a name that must not begin as it does.
    fn tool(&self, name: &str) -> ToolRef<'static> {
        let bare = ["default_api:", "default_api."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let found = self.names.resolve(bare).or_else(|| self.names.resolve(bare.strip_prefix('_')?));
        found.unwrap_or_else(|| unknown_tool(bare))
    }

    // ---- the rest ----

    /// Token counts; each chunk counts all so far, so the last stands.
    fn count(&mut self, counted: &wire::UsageMetadata<'_>) {
        let of = |count: Option<&RawValue>| count.and_then(number_of).unwrap_or(0);
        let input = of(counted.prompt_token_count).saturating_add(of(counted.tool_use_prompt_token_count));
        let thoughts = of(counted.thoughts_token_count);
        // Some answers leave out what they could have said with 0, some leave out candidates that did cost.
        let candidates = counted
            .candidates_token_count
            .and_then(number_of)
            .unwrap_or_else(|| of(counted.total_token_count).saturating_sub(input.saturating_add(thoughts)));
        let output = candidates.saturating_add(thoughts);
        if input == 0 && output == 0 {
            return;
        }
        self.usage = Some(Usage {
            input,
            cached: of(counted.cached_content_token_count).min(input),
            cache_write: 0,
            output,
            reasoning: thoughts,
            estimated: false,
        });
    }
}

/// Reads a body that came whole although a stream was asked for; see [`StreamDecoder::feed_whole`]. Always gives a lawful
/// answer with one end.
pub fn decode_whole(target: &Target, names: Names, seed: &str, input_bytes: u64, body: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    let mut decoder = StreamDecoder::new(target, names, seed, input_bytes);
    let cut = decoder.feed_whole(body, &mut out).err().map(failure_of);
    decoder.finish(cut, &mut out);
    out
}

/// Why a prompt was blocked, for the person at the client.
fn blocked(reason: &str) -> &'static str {
    match reason {
        "SAFETY" => "The provider blocks this prompt: it finds it unsafe.",
        "BLOCKLIST" => "The provider blocks this prompt: it holds a term of its block list.",
        "PROHIBITED_CONTENT" => "The provider blocks this prompt: it holds prohibited content.",
        "IMAGE_SAFETY" => "The provider blocks this prompt: it finds a picture in it unsafe.",
        _ => "The provider blocks this prompt and does not say why.",
    }
}
