//! Events of an answer → events of the model. PURE.
//!
//! ```text
//! message_start ─► start, counts
//! content_block_start / _delta / _stop ─► one item per block
//! message_delta ─► counts, why it ended          error ─► Err(Upstream)
//! message_stop, end of input ─► finish(): closes everything, usage, the one End
//! ```
//! A call is closed when the answer has ended and not before, so that nobody runs the calls of an answer that fails. The
//! blocks behind a call wait for it: the client keeps items in the order in which they are closed, and thoughts go back
//! in that order.

use serde_json::value::RawValue;

use super::{error::failure_in_stream, keys, models::Model, thoughts::Stored, wire};
use crate::{
    codec::{
        DecodeError, Target,
        answer::{Answer, Finish, Whole, cut_off, each_frame, failure_of, malformed, room_for_a_call, unknown_tool},
        custom::{INPUT_BYTES_MAX, Unwrapper},
        error::clean,
        json::{Progress, number_of, text_of, why},
        names::Names,
        sse::Frame,
    },
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        failure::{Failure, FailureKind},
        request::{Opaque, ToolKind},
        usage::Usage,
    },
};

/// Reads one answer.
#[derive(Debug)]
pub struct StreamDecoder {
    target: Target,
    model: &'static Model,
    names: Names,
    answer: Answer,
    /// `message_stop` has come.
    stopped: bool,
    /// The answer is to go on.
    paused: bool,
    /// In these words.
    refused: Option<String>,
    /// Blocks whose items are not closed, in the order they came.
    blocks: Vec<Block>,
    /// Ids of all calls so far.
    call_ids: Vec<String>,
    counts: Option<wire::Usage>,
}

#[derive(Debug)]
struct Block {
    /// The host's number for it.
    index: u64,
    /// Absent while nothing of it can be shown.
    item: Option<ItemKey>,
    content: Content,
    /// The host said that it ends here.
    stopped: bool,
}

#[derive(Debug)]
enum Content {
    Text,
    Thinking {
        text: String,
        signature: String,
    },
    Redacted {
        data: String,
    },
    Call {
        /// Of a free-text tool.
        unwrapper: Option<Unwrapper>,
        arguments: Progress,
        /// What stood in the block's start: its arguments, if none come in pieces.
        input: Option<Box<RawValue>>,
        /// Its arguments are called otherwise by the client: they are told when they are whole.
        held: Option<Held>,
    },
    /// Work of the provider's own tools, and what is newer than this program.
    Unknown,
}

impl Content {
    /// Whether it is a call whose arguments have begun and not come to their end.
    fn is_cut_call(&self) -> bool {
        match self {
            Self::Call { unwrapper: Some(unwrapper), .. } => unwrapper.is_cut(),
            Self::Call { arguments, .. } => arguments.begun && !arguments.complete,
            Self::Text | Self::Thinking { .. } | Self::Redacted { .. } | Self::Unknown => false,
        }
    }
}

#[derive(Debug)]
struct Held {
    arguments: String,
    /// As [`Names::arguments`].
    spelled: Vec<(String, String)>,
}

impl StreamDecoder {
    /// A decoder for one answer.
    ///
    /// `names`: from encoding the request. `seed`: short and unique to the answer; ids are made from it for calls that
    /// have none. `input_bytes`: size of the request's body, for an estimate of usage if the host counts nothing.
    pub fn new(target: &Target, names: Names, seed: &str, input_bytes: u64) -> Self {
        Self {
            model: Model::of(&target.model),
            target: target.clone(),
            names,
            answer: Answer::new(seed, input_bytes),
            stopped: false,
            paused: false,
            refused: None,
            blocks: Vec::new(),
            call_ids: Vec::new(),
            counts: None,
        }
    }

    /// Takes the next frame and appends what it says to `out`. After an error, call [`Self::finish`].
    pub fn feed(&mut self, frame: &Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let Some(data) = self.answer.data(frame, failure_in_stream)? else { return Ok(()) };
        if !data.starts_with('{') {
            return self.odd_frame(frame.event, data);
        }
        let event: wire::Event<'_> = serde_json::from_str(data)
            .map_err(|e| DecodeError::Malformed { what: format!("an event is not what it should be ({})", why(&e)) })?;
        if frame.event == Some("error") || is_error(&event) {
            return Err(DecodeError::Upstream(failure_in_stream(data)));
        }
        let kind = event.kind.and_then(text_of);
        match kind.as_deref().or(frame.event).unwrap_or_default() {
            "message_start" => self.message_start(event.message, out)?,
            "content_block_start" => {
                let (index, block) = (self.index(&event), event.content_block.as_ref());
                let block = block.ok_or_else(|| malformed("the start of a block has no block"))?;
                self.open(index, block, out)?;
            }
            "content_block_delta" => {
                let (index, delta) = (self.index(&event), event.delta.as_ref());
                let delta = delta.ok_or_else(|| malformed("a piece of a block is missing"))?;
                self.delta(index, delta, out)?;
            }
            "content_block_stop" => {
                let index = self.index(&event);
                self.stop(index);
            }
            "message_delta" => {
                self.answer.start("", out);
                if let Some(usage) = event.usage {
                    self.count(usage);
                }
                if let Some(delta) = &event.delta {
                    self.ended(delta.stop_reason, delta.stop_details);
                }
            }
            "message_stop" => (self.answer.done, self.stopped) = (true, true),
            "ping" => {}
            "message" => self.message(&event, out)?,
            _ => self.answer.skipped += 1,
        }
        self.answer.fits()
    }

    /// Takes a body that came whole although a stream was asked for: a `message` object, an error object, a web page, or
    /// a stream under a wrong content type. Then call [`Self::finish`].
    pub fn feed_whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let text = match Whole::of(body)? {
            Whole::Frames(text) => return each_frame(text, |frame| self.feed(frame, out)),
            Whole::Text("") => return Ok(()),
            Whole::Text(text) => text,
        };
        if !text.starts_with('{') {
            return Err(DecodeError::Upstream(failure_in_stream(text)));
        }
        let answer: wire::Event<'_> = serde_json::from_str(text).map_err(|_| malformed("the answer is not JSON"))?;
        if is_error(&answer) || answer.content.is_none() {
            return Err(DecodeError::Upstream(failure_in_stream(text)));
        }
        self.message(&answer, out)
    }

    /// True once the host has said how the answer ended; only its end may follow.
    pub fn end_announced(&self) -> bool {
        self.answer.finish.is_some()
    }

    /// True once `message_stop` was seen; nothing of worth follows.
    pub fn done(&self) -> bool {
        self.answer.done
    }

    /// How many frames, blocks, pieces and stop reasons were not understood and skipped.
    pub fn skipped(&self) -> u64 {
        self.answer.skipped
    }

    /// The end of input. `cut`: why it ended early, if it did. Appends the missing closes, usage, and the one `End`.
    ///
    /// An answer whose end the host announced is complete whatever happened to the connection afterwards; one whose end
    /// it did not announce never is.
    pub fn finish(mut self, cut: Option<Failure>, out: &mut Vec<Event>) {
        let mut end = match (self.answer.finish.take(), cut) {
            (Some(finish), _) => match self.refused.take() {
                Some(words) => End::Failed(Failure::new(FailureKind::Caller, words)),
                None => finish.end(),
            },
            (None, Some(failure)) if !self.answer.done => End::Failed(failure),
            // What breaks behind the end mark is no part of the answer.
            (None, _) => self.unannounced(),
        };
        // The client would run what there is of it.
        if end == End::Complete && self.blocks.iter().any(|block| block.content.is_cut_call()) {
            let message = "The provider's answer ended in the middle of a tool call.";
            end = End::Failed(Failure::new(FailureKind::Upstream, message));
        }
        // Without a word of it, the same would be asked again and again.
        if end == End::Complete && self.paused && self.answer.text_bytes > 0 {
            end = End::Paused;
        }
        let complete = matches!(end, End::Complete | End::Paused);
        let failed = matches!(end, End::Failed(_));
        if !failed {
            self.answer.start("", out);
        }
        let mut blocks = std::mem::take(&mut self.blocks).into_iter().peekable();
        while let Some(block) = blocks.next() {
            let whole = match &block.content {
                Content::Call { arguments, input, .. } => {
                    let come = arguments.complete || (!arguments.begun && input.is_some());
                    complete || (!failed && block.stopped && come)
                }
                Content::Text | Content::Thinking { .. } | Content::Redacted { .. } | Content::Unknown => {
                    // The last one was stopped with the answer, not by its own end.
                    complete || (block.stopped && blocks.peek().is_some())
                }
            };
            self.close(block, whole, out);
        }
        self.answer.end(end, self.usage(), out);
    }

    /// The input ended properly, but no stop reason came.
    fn unannounced(&self) -> End {
        let half = self.blocks.iter().any(|block| !block.stopped);
        if self.stopped && !half && self.answer.has_items() {
            return End::Complete;
        }
        End::Failed(cut_off(self.answer.has_items()))
    }

    /// Frames that are no JSON object.
    fn odd_frame(&mut self, event: Option<&str>, data: &str) -> Result<(), DecodeError> {
        if event == Some("error") {
            return Err(DecodeError::Upstream(failure_in_stream(data)));
        }
        self.answer.odd(data, "an event")
    }

    fn message_start(&mut self, message: Option<&RawValue>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let message: wire::MessageStart<'_> = match message {
            Some(message) => serde_json::from_str(message.get())
                .map_err(|e| DecodeError::Malformed { what: format!("the start of the answer ({})", why(&e)) })?,
            None => wire::MessageStart::default(),
        };
        self.answer.start(&message.model.and_then(text_of).unwrap_or_default(), out);
        if let Some(usage) = message.usage {
            self.count(usage);
        }
        Ok(())
    }

    /// A whole answer.
    fn message(&mut self, answer: &wire::Event<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        self.answer.start(&answer.model.and_then(text_of).unwrap_or_default(), out);
        for (index, block) in (0..).zip(answer.content.iter().flatten()) {
            self.open(index, block, out)?;
            self.stop(index);
        }
        if let Some(usage) = answer.usage {
            self.count(usage);
        }
        self.ended(answer.stop_reason, answer.stop_details);
        // It has not been cut, whether or not it says why it ended.
        (self.answer.done, self.stopped) = (true, true);
        Ok(())
    }

    /// What a stop reason means
    /// (<https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons>, read 2026-11-21).
    fn ended(&mut self, reason: Option<&RawValue>, details: Option<&RawValue>) {
        let Some(reason) = reason.and_then(text_of).filter(|reason| !reason.is_empty()) else { return };
        let failed = |kind, message| Finish::Failed(kind, message);
        (self.paused, self.refused) = (false, None);
        self.answer.finish = Some(match &*reason {
            "end_turn" | "stop_sequence" | "tool_use" => Finish::Complete,
            "max_tokens" => Finish::Incomplete(IncompleteReason::MaxOutputTokens),
            // Sent again, the same is refused again, and this is the one end that shows the client our words.
            "refusal" => {
                self.refused = Some(refused(details));
                failed(FailureKind::Caller, "The model refuses to answer.")
            }
            "model_context_window_exceeded" => failed(
                FailureKind::ContextLength,
                "The conversation and the answer together are too long for the model.",
            ),
            // The answer goes on when the conversation comes again with what it said so far.
            "pause_turn" => {
                self.paused = true;
                Finish::Complete
            }
            word if ["error", "fail", "abort", "cancel", "timeout", "malformed"].iter().any(|w| word.contains(w)) => {
                failed(FailureKind::Upstream, "The provider stopped the answer because of an error of its own.")
            }
            // A word we do not know, from a host that says it has finished: believed, and counted.
            _ => {
                self.answer.skipped += 1;
                Finish::Complete
            }
        });
    }

    // ---- blocks ----

    /// Which block an event means; without a number, the last.
    fn index(&self, event: &wire::Event<'_>) -> u64 {
        let last = || self.blocks.last().map_or(0, |block| block.index);
        event.index.and_then(number_of).unwrap_or_else(last)
    }

    fn open(&mut self, index: u64, block: &wire::ContentBlock<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        self.answer.start("", out);
        // A number used again: what it meant before is over.
        self.stop(index);
        self.close_followed(out);
        room_for_a_call(self.blocks.len())?;
        let kind = block.kind.and_then(text_of).unwrap_or_default();
        let of = |raw: Option<&RawValue>| raw.and_then(text_of).unwrap_or_default().into_owned();
        let (item, content) = match &*kind {
            "text" => (None, Content::Text),
            "thinking" => (
                Some(self.answer.open(ItemKind::Reasoning, out)),
                Content::Thinking { text: String::new(), signature: String::new() },
            ),
            "redacted_thinking" => {
                let data = of(block.data);
                self.answer.thought_bytes += data.len() as u64;
                (Some(self.answer.open(ItemKind::Reasoning, out)), Content::Redacted { data })
            }
            "tool_use" => self.open_call(block, out)?,
            _ => {
                self.answer.skipped += 1;
                (None, Content::Unknown)
            }
        };
        self.blocks.push(Block { index, item, content, stopped: false });
        match &*kind {
            "text" => self.text(index, &of(block.text), out),
            "thinking" => {
                self.think(index, &of(block.thinking), out);
                self.sign(index, &of(block.signature));
            }
            _ => {}
        }
        Ok(())
    }

    fn open_call(
        &mut self,
        block: &wire::ContentBlock<'_>,
        out: &mut Vec<Event>,
    ) -> Result<(Option<ItemKey>, Content), DecodeError> {
        let name = block.name.and_then(text_of).unwrap_or_default();
        if name.trim().is_empty() {
            return Err(malformed("a tool call has no name"));
        }
        let tool = self.names.resolve(&name).unwrap_or_else(|| unknown_tool(&name));
        let call_id = self.call_id(&block.id.and_then(text_of).unwrap_or_default());
        let unwrapper = (tool.kind == ToolKind::Custom).then(Unwrapper::default);
        let held = match self.names.arguments(&tool) {
            [] => None,
            spelled => Some(Held { arguments: String::new(), spelled: spelled.to_vec() }),
        };
        let item = self.answer.open(ItemKind::Call { call_id, tool }, out);
        let input = block.input.filter(|input| !matches!(input.get(), "{}" | "null" | "\"\"")).map(RawValue::to_owned);
        let bytes = input.as_ref().map_or(0, |input| input.get().len());
        if bytes > INPUT_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "a tool's input", bytes_max: INPUT_BYTES_MAX });
        }
        self.answer.text_bytes += bytes as u64;
        Ok((Some(item), Content::Call { unwrapper, arguments: Progress::default(), input, held }))
    }

    /// The id the host gave, or one made from the seed; never one that an earlier call has.
    fn call_id(&mut self, given: &str) -> String {
        let id = self.answer.call_id(given, self.call_ids.len(), |id| self.call_ids.iter().any(|other| other == id));
        self.call_ids.push(id.clone());
        id
    }

    fn delta(&mut self, index: u64, delta: &wire::Delta<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        let kind = delta.kind.and_then(text_of).unwrap_or_default();
        let of = |raw: Option<&RawValue>| raw.and_then(text_of).unwrap_or_default().into_owned();
        if block_of(&mut self.blocks, index).is_none() {
            // Some hosts forget to say that a block begins.
            let kind: &RawValue = match &*kind {
                "text_delta" => json(r#""text""#)?,
                "thinking_delta" | "signature_delta" => json(r#""thinking""#)?,
                "input_json_delta" => return Err(malformed("a tool call has arguments but no name")),
                _ => {
                    self.answer.skipped += 1;
                    return Ok(());
                }
            };
            let block = wire::ContentBlock {
                kind: Some(kind),
                text: None,
                thinking: None,
                signature: None,
                data: None,
                id: None,
                name: None,
                input: None,
            };
            self.open(index, &block, out)?;
        }
        match &*kind {
            "text_delta" => self.text(index, &of(delta.text), out),
            "thinking_delta" => self.think(index, &of(delta.thinking), out),
            "signature_delta" => self.sign(index, &of(delta.signature)),
            "input_json_delta" => self.arguments(index, &of(delta.partial_json), out)?,
            _ => self.answer.skipped += 1,
        }
        Ok(())
    }

    fn text(&mut self, index: u64, delta: &str, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        let item = match block_of(&mut self.blocks, index) {
            Some(Block { content: Content::Text, item, .. }) => *item,
            Some(_) | None => {
                self.answer.skipped += 1;
                return;
            }
        };
        let item = item.unwrap_or_else(|| {
            let item = self.answer.open(ItemKind::Message { phase: None }, out);
            if let Some(block) = block_of(&mut self.blocks, index) {
                block.item = Some(item);
            }
            item
        });
        self.answer.text_bytes += delta.len() as u64;
        out.push(Event::Text { item, delta: delta.to_owned() });
    }

    fn think(&mut self, index: u64, delta: &str, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        match block_of(&mut self.blocks, index) {
            Some(Block { content: Content::Thinking { text, .. }, item: Some(item), .. }) => {
                text.push_str(delta);
                self.answer.thought_bytes += delta.len() as u64;
                out.push(Event::Reasoning { item: *item, delta: delta.to_owned() });
            }
            Some(_) | None => self.answer.skipped += 1,
        }
    }

    /// Signatures come whole; should one come in pieces, they are one.
    fn sign(&mut self, index: u64, piece: &str) {
        match block_of(&mut self.blocks, index) {
            Some(Block { content: Content::Thinking { signature, .. }, .. }) => {
                signature.push_str(piece);
                self.answer.thought_bytes += piece.len() as u64;
            }
            Some(_) | None => self.answer.skipped += u64::from(!piece.is_empty()),
        }
    }

    fn arguments(&mut self, index: u64, piece: &str, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        match block_of(&mut self.blocks, index) {
            Some(Block { content: Content::Call { unwrapper, arguments, held, .. }, item: Some(item), .. }) => {
                arguments.feed(piece);
                self.answer.text_bytes += piece.len() as u64;
                let mut delta = String::new();
                match (unwrapper, held) {
                    (Some(unwrapper), _) => unwrapper.feed(piece, &mut delta)?,
                    (None, Some(held)) if held.arguments.len() + piece.len() > INPUT_BYTES_MAX => {
                        return Err(DecodeError::TooLarge { what: "a tool's input", bytes_max: INPUT_BYTES_MAX });
                    }
                    (None, Some(held)) => held.arguments.push_str(piece),
                    (None, None) => delta.push_str(piece),
                }
                if !delta.is_empty() {
                    out.push(Event::CallArguments { item: *item, delta });
                }
            }
            // Of a tool that the provider runs.
            Some(Block { content: Content::Unknown, .. }) => {}
            Some(_) | None => self.answer.skipped += 1,
        }
        Ok(())
    }

    /// The block says nothing more. Whether it said all it wanted shows in what follows: a limit stops it, too.
    fn stop(&mut self, index: u64) {
        if let Some(block) = block_of(&mut self.blocks, index) {
            block.stopped = true;
        }
    }

    /// Closes what something else follows: everything before the first call, or the first block that goes on.
    fn close_followed(&mut self, out: &mut Vec<Event>) {
        let followed = |block: &Block| block.stopped && !matches!(block.content, Content::Call { .. });
        while self.blocks.first().is_some_and(followed) {
            let block = self.blocks.remove(0);
            self.close(block, true, out);
        }
    }

    fn close(&mut self, block: Block, whole: bool, out: &mut Vec<Event>) {
        let Some(item) = block.item else { return };
        match block.content {
            Content::Text | Content::Unknown => {}
            Content::Thinking { text, signature } => {
                // Without its signature it would be refused.
                if !signature.is_empty() || (self.model.unsigned_thoughts && whole && !text.is_empty()) {
                    self.keep(item, Stored::thinking(&text, &signature), out);
                }
            }
            Content::Redacted { data } if data.is_empty() => {}
            Content::Redacted { data } => self.keep(item, Stored::redacted(&data), out),
            Content::Call { unwrapper, arguments, input, held } => {
                let mut rest = String::new();
                let missing = (whole && !arguments.begun).then(|| input.as_deref().map_or("{}", RawValue::get));
                match (unwrapper, held) {
                    (Some(mut unwrapper), _) => {
                        // It was held to a size when it came, so it fits.
                        let fits = missing.is_none_or(|input| unwrapper.feed(input, &mut rest).is_ok());
                        if fits {
                            unwrapper.finish(&mut rest);
                        }
                    }
                    (None, Some(held)) if whole => {
                        let said = missing.unwrap_or(&held.arguments);
                        let told = keys::to_client(said, &held.spelled);
                        rest.push_str(told.as_deref().map_or(said, RawValue::get));
                    }
                    (None, Some(_)) => {}
                    (None, None) => rest.push_str(missing.unwrap_or_default()),
                }
                if !rest.is_empty() {
                    out.push(Event::CallArguments { item, delta: rest });
                }
            }
        }
        out.push(Event::ItemClose { item, whole });
    }

    fn keep(&self, item: ItemKey, thoughts: Stored<'_>, out: &mut Vec<Event>) {
        if let Some(value) = thoughts.at(item).write() {
            out.push(Event::Opaque { item, value: Opaque { origin: self.target.origin.clone(), value } });
        }
    }

    // ---- the rest ----

    /// Counts are cumulative; what is absent stays as it was.
    fn count(&mut self, raw: &RawValue) {
        let Ok(counted) = serde_json::from_str::<wire::Usage>(raw.get()) else {
            self.answer.skipped += 1;
            return;
        };
        let so_far = self.counts.get_or_insert_default();
        let take = |new: Option<u64>, old: &mut Option<u64>| *old = new.or(*old);
        take(counted.input_tokens, &mut so_far.input_tokens);
        take(counted.cache_read_input_tokens, &mut so_far.cache_read_input_tokens);
        take(counted.cache_creation_input_tokens, &mut so_far.cache_creation_input_tokens);
        take(counted.output_tokens, &mut so_far.output_tokens);
        if counted.output_tokens_details.is_some() {
            so_far.output_tokens_details = counted.output_tokens_details;
        }
    }

    fn usage(&self) -> Option<Usage> {
        let counts = self.counts.as_ref()?;
        let of = |count: Option<u64>| count.unwrap_or(0);
        let (cached, cache_write) = (of(counts.cache_read_input_tokens), of(counts.cache_creation_input_tokens));
        let output = of(counts.output_tokens);
        let usage = Usage {
            // The wire counts apart what the cache gave or took.
            input: of(counts.input_tokens).saturating_add(cached).saturating_add(cache_write),
            cached,
            cache_write,
            output,
            reasoning: of(counts.output_tokens_details.as_ref().and_then(|d| d.thinking_tokens)).min(output),
            estimated: false,
        };
        (usage.total() > 0).then_some(usage)
    }
}

/// Reads a body that came whole although a stream was asked for, see [`StreamDecoder::feed_whole`]. Always gives a lawful
/// answer with one end.
pub fn decode_whole(target: &Target, names: Names, seed: &str, input_bytes: u64, body: &[u8]) -> Vec<Event> {
    let mut out = Vec::new();
    let mut decoder = StreamDecoder::new(target, names, seed, input_bytes);
    let cut = decoder.feed_whole(body, &mut out).err().map(failure_of);
    decoder.finish(cut, &mut out);
    out
}

/// What the user is told of an answer that the model, or a guard beside it, refused.
fn refused(details: Option<&RawValue>) -> String {
    let details: wire::StopDetails<'_> =
        details.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let said = |raw: Option<&RawValue>| raw.and_then(text_of).map(|text| clean(&text)).filter(|text| !text.is_empty());
    let mut words = "The model refuses to answer".to_owned();
    if let Some(category) = said(details.category) {
        words.push_str(&format!(" ({category})"));
    }
    words.push('.');
    if let Some(explanation) = said(details.explanation) {
        words.push_str(&format!(" {explanation}"));
    }
    words.push_str(" Ask for something else, or in a new thread: what it refused stands in this one.");
    words
}

/// The block that bears the number now.
fn block_of(blocks: &mut [Block], index: u64) -> Option<&mut Block> {
    blocks.iter_mut().rev().find(|block| block.index == index)
}

/// Whether it is an error object, of this protocol or of a gateway's own making.
fn is_error(event: &wire::Event<'_>) -> bool {
    let kind = event.kind.and_then(text_of);
    kind.as_deref() == Some("error") || event.error.is_some_and(|error| !matches!(error.get(), "false" | "\"\"" | "{}"))
}

fn json(constant: &'static str) -> Result<&'static RawValue, DecodeError> {
    serde_json::from_str(constant).map_err(|_| malformed("a constant"))
}
