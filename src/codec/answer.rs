//! What the decoders of answers do alike: one beginning and one end, items numbered, calls given ids, sizes held to their
//! limits, bodies that came whole. PURE.
//!
//! For `stream.rs` of the upstream protocols; each decoder has one [`Answer`].

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{
    ANSWER_BYTES_MAX, CALLS_MAX, DecodeError, THOUGHTS_BYTES_MAX,
    error::is_html,
    sse::{Frame, Framer},
};
use crate::model::{
    event::{End, Event, IncompleteReason, ItemKey, ItemKind},
    failure::{Failure, FailureKind},
    request::{ToolKind, ToolRef},
    usage::Usage,
};

/// How the host said the answer ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finish {
    Complete,
    Incomplete(IncompleteReason),
    Failed(FailureKind, &'static str),
}

impl Finish {
    /// The same, for the client.
    pub(super) fn end(self) -> End {
        match self {
            Self::Complete => End::Complete,
            Self::Incomplete(reason) => End::Incomplete(reason),
            Self::Failed(kind, message) => End::Failed(Failure::new(kind, message)),
        }
    }
}

/// What is known of one answer, whatever it says.
#[derive(Debug)]
pub(super) struct Answer {
    seed: String,
    input_bytes: u64,
    started: bool,
    /// Nothing of worth follows.
    pub(super) done: bool,
    /// The host said how the answer ended.
    pub(super) finish: Option<Finish>,
    items: u32,
    /// Of text and of calls.
    pub(super) text_bytes: u64,
    pub(super) thought_bytes: u64,
    /// Kept unseen until they go back.
    pub(super) kept_bytes: u64,
    /// What was not understood.
    pub(super) skipped: u64,
}

impl Answer {
    /// `seed`: short and unique to the answer. `input_bytes`: size of the request's body.
    pub(super) fn new(seed: &str, input_bytes: u64) -> Self {
        Self {
            seed: seed.to_owned(),
            input_bytes,
            started: false,
            done: false,
            finish: None,
            items: 0,
            text_bytes: 0,
            thought_bytes: 0,
            kept_bytes: 0,
            skipped: 0,
        }
    }

    /// What a frame says; `None`: nothing. A web page is an error, by its words.
    pub(super) fn data<'f>(
        &mut self,
        frame: &Frame<'f>,
        page: impl FnOnce(&str) -> Failure,
    ) -> Result<Option<&'f str>, DecodeError> {
        let data = frame.data.trim();
        if self.done || data.is_empty() {
            self.skipped += u64::from(self.done);
            return Ok(None);
        }
        // Where it is not of the protocol, gateways add it; it says nothing of how the answer ended.
        if data == "[DONE]" {
            self.done = true;
            return Ok(None);
        }
        if is_html(data) {
            return Err(DecodeError::Upstream(page(data)));
        }
        Ok(Some(data))
    }

    /// Data that is no JSON object: passed over, if it is JSON. `what` it should be.
    pub(super) fn odd(&mut self, data: &str, what: &str) -> Result<(), DecodeError> {
        match serde_json::from_str::<IgnoredAny>(data) {
            Ok(_) => {
                self.skipped += 1;
                Ok(())
            }
            Err(_) => Err(malformed(&format!("{what} is not JSON"))),
        }
    }

    /// It has begun.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// It has items.
    pub(super) fn has_items(&self) -> bool {
        self.items > 0
    }

    /// Begins it, if it has not begun.
    pub(super) fn start(&mut self, model: &str, out: &mut Vec<Event>) {
        if !self.started {
            self.started = true;
            out.push(Event::Start { model: model.to_owned() });
        }
    }

    /// Opens the next item.
    pub(super) fn open(&mut self, kind: ItemKind, out: &mut Vec<Event>) -> ItemKey {
        let item = ItemKey(self.items);
        self.items += 1;
        out.push(Event::ItemOpen { item, kind });
        item
    }

    /// Counts thoughts that are shown.
    pub(super) fn thought(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.thought_bytes += bytes as u64;
        within(self.thought_bytes, "the thoughts of an answer", THOUGHTS_BYTES_MAX)
    }

    /// Counts bytes that are kept unseen until they go back.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.kept_bytes += bytes as u64;
        within(self.kept_bytes, "the thoughts of an answer", THOUGHTS_BYTES_MAX)
    }

    /// Whether text, calls and thoughts have kept to their limits.
    pub(super) fn fits(&self) -> Result<(), DecodeError> {
        within(self.text_bytes, "an answer", ANSWER_BYTES_MAX)?;
        within(self.thought_bytes, "the thoughts of an answer", THOUGHTS_BYTES_MAX)
    }

    /// The id the host gave a call, or one made from the seed; never one that another call has.
    pub(super) fn call_id(&self, given: &str, nth: usize, taken: impl Fn(&str) -> bool) -> String {
        let base = if given.is_empty() { format!("call_{}_{nth}", self.seed) } else { given.to_owned() };
        let mut id = base.clone();
        let mut again = 2;
        while taken(&id) {
            id = format!("{base}_{again}");
            again += 1;
        }
        id
    }

    /// The last words: usage, estimated if the host counted nothing, and the one end.
    pub(super) fn end(&self, end: End, usage: Option<Usage>, out: &mut Vec<Event>) {
        if self.started {
            let failed = matches!(end, End::Failed(_));
            let estimate = || (!failed).then(|| Usage::estimate(self.input_bytes, self.text_bytes, self.thought_bytes));
            out.extend(usage.or_else(estimate).map(Event::Usage));
        }
        out.push(Event::End(end));
    }
}

/// Refuses another call of an answer that has so many.
pub(super) fn room_for_a_call(calls: usize) -> Result<(), DecodeError> {
    within(calls as u64 + 1, "the number of calls in an answer", CALLS_MAX)
}

fn within(bytes: u64, what: &'static str, bytes_max: usize) -> Result<(), DecodeError> {
    if bytes > bytes_max as u64 { Err(DecodeError::TooLarge { what, bytes_max }) } else { Ok(()) }
}

/// A tool that was not declared: the client answers an unknown name itself, and the model learns from it.
pub(super) fn unknown_tool(name: &str) -> ToolRef<'static> {
    ToolRef { namespace: None, name: Cow::Owned(name.trim().to_owned()), kind: ToolKind::Function }
}

/// A body that came whole although a stream was asked for.
pub(super) enum Whole<'b> {
    /// It is a stream, under a wrong content type.
    Frames(&'b str),
    /// It is something else, perhaps empty.
    Text(&'b str),
}

impl<'b> Whole<'b> {
    /// Of this body.
    pub(super) fn of(body: &'b [u8]) -> Result<Self, DecodeError> {
        within(body.len() as u64, "an answer", ANSWER_BYTES_MAX)?;
        let text = std::str::from_utf8(body).map_err(|_| malformed("the answer is not UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        let frames = ["data:", "event:", ":", "id:", "retry:"].iter().any(|field| text.starts_with(field));
        Ok(if frames { Self::Frames(text) } else { Self::Text(text) })
    }
}

/// Hands every frame of a text to `on_frame`.
pub(super) fn each_frame(
    text: &str,
    mut on_frame: impl FnMut(&Frame<'_>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut framer = Framer::default();
    framer.feed(text.as_bytes(), |frame| on_frame(&frame))?;
    framer.finish(|frame| on_frame(&frame))
}

/// The failure of an answer that cannot be read on.
pub(super) fn failure_of(error: DecodeError) -> Failure {
    match error {
        DecodeError::Upstream(failure) => failure,
        DecodeError::Malformed { .. } | DecodeError::TooLarge { .. } => {
            Failure::new(FailureKind::Upstream, format!("The provider's answer cannot be read: {error}."))
        }
    }
}

/// The failure of an answer that ended without saying how.
pub(super) fn cut_off(said_something: bool) -> Failure {
    let message = if said_something { "The provider's answer was cut off." } else { "The provider sent no answer." };
    Failure::new(FailureKind::Upstream, message)
}

/// A frame that is not what the protocol says.
pub(super) fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed { what: what.to_owned() }
}
