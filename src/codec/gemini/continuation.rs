//! Going on with an answer that a limit of tokens stopped. PURE.
//!
//! The shell asks; nothing here sends. For an answer that so far is text only, and whose length the client did not limit,
//! [`Joiner`] keeps the message open where the stream stops and says how to [`GoOn`]; [`continue_request`] makes the next
//! body; the next stream's events go through the same `Joiner`, so that the client sees one answer with one end and the
//! sum of what all its requests cost.
//!
//! ```text
//!            ┌───────────────────────────────────────────────────────────────┐
//!            ▼                                                               │ body
//! body ─► send ─► StreamDecoder ─► Joiner::push … ─► Joiner::end ─► Some(GoOn) ─► continue_request
//!                                       │                    └────► None: the end has been passed on
//!                                       └─► events of one answer
//! ```
//! There are two ways on. A model with *long decode* gives a token with which the same request goes on exactly where it
//! stopped (<https://ai.google.dev/gemini-api/docs/generate-content/long-decode>, read 2026-11-21). Where that was the
//! limit of one request, it is done even if the client limits the answer, since the service counts over all of them; where
//! it was the answer's own, it must be raised, which is done only if the client set none
//! (<https://openrouter.ai/docs/cookbook/evaluate-and-optimize/model-migrations/gemini-4>, read 2026-11-21). Any other
//! model is shown what it said and asked to go on, in words: usually exact, never guaranteed, so not done where the answer
//! must be JSON.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{stream::Stopped, thoughts::Stored};
use crate::{
    codec::json::Fields,
    model::{
        event::{End, Event, IncompleteReason, ItemKey, ItemKind},
        request::{Format, Opaque, Request},
        usage::Usage,
    },
};

/// An answer is gone on with at most this often.
pub const CONTINUATIONS_MAX: u32 = 5;

/// A text larger than this is not gone on with: it would be sent again each time. In bytes.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// What one request of a model with long decode gives at most, in tokens; also the answer's limit where none is set.
const REQUEST_TOKENS: u64 = 65_536;

/// What the model is asked.
const WORDS: &str = "Your answer was cut off by a limit on its length. Go on exactly where it stopped, in the middle of a \
                     word if need be. Repeat nothing and do not comment on the interruption.";

/// How to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoOn {
    /// The same request with the service's token, and a new limit of tokens for the whole answer if the old one is spent.
    Token {
        /// As it came.
        token: String,
        /// Of the whole answer.
        max_output_tokens: Option<u64>,
    },
    /// The same conversation, this text as the model's, and the request to go on.
    Words(String),
}

/// The next request's body; `None` if `body` is none of ours.
///
/// `body`: of the *first* request, as `encode_request` gave it. Going on in words, the new body begins with the old one's
/// contents, for the provider's cache.
pub fn continue_request(body: &[u8], go_on: &GoOn) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Turn<'a> {
        role: &'static str,
        parts: [Text<'a>; 1],
    }
    #[derive(Serialize)]
    struct Text<'a> {
        text: &'a str,
    }
    let fields = Fields::of(serde_json::from_slice(body).ok()?)?;
    // It stands last in our bodies.
    fields.0.last().filter(|(key, value)| key == "contents" && value.get().starts_with('['))?;
    let mut next = Vec::with_capacity(body.len() + 1024);
    match go_on {
        GoOn::Token { token, max_output_tokens } => {
            next.push(b'{');
            for (key, value) in &fields.0 {
                serde_json::to_writer(&mut next, key).ok()?;
                next.push(b':');
                match max_output_tokens {
                    Some(limit) if key == "generationConfig" => raise(value, *limit, &mut next)?,
                    Some(_) | None => next.extend_from_slice(value.get().as_bytes()),
                }
                next.push(b',');
            }
            next.extend_from_slice(b"\"continuationToken\":");
            serde_json::to_writer(&mut next, token).ok()?;
            next.push(b'}');
        }
        GoOn::Words(text) => {
            next.extend_from_slice(body.strip_suffix(b"]}")?);
            for turn in
                [Turn { role: "model", parts: [Text { text }] }, Turn { role: "user", parts: [Text { text: WORDS }] }]
            {
                next.push(b',');
                serde_json::to_writer(&mut next, &turn).ok()?;
            }
            next.extend_from_slice(b"]}");
        }
    }
    Some(next)
}

/// Writes the settings with another limit of tokens.
fn raise(settings: &RawValue, limit: u64, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(format!("{{\"maxOutputTokens\":{limit}").as_bytes());
    for (key, value) in Fields::of(settings)?.0.iter().filter(|(key, _)| key != "maxOutputTokens") {
        out.push(b',');
        serde_json::to_writer(&mut *out, key).ok()?;
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    Some(())
}

/// Joins the streams of one answer.
///
/// Per stream: [`Joiner::push`] for what the decoder's `feed` gave, then [`Joiner::end`] for what its `finish` gave.
#[derive(Debug)]
pub struct Joiner {
    left: u32,
    /// The client limits the answer.
    limited: bool,
    /// Going on in words is allowed.
    words: bool,
    /// Streams so far that were gone on with.
    rounds: u64,
    started: bool,
    /// Items of earlier streams.
    before: u32,
    /// Items of all streams so far.
    items: u32,
    /// A message that an earlier stream left open.
    carried: Option<ItemKey>,
    /// This stream's thoughts while a message is carried. Those before more of its text are about how to go on and have no
    /// place in it; those before a call hold its signature.
    hidden: Vec<ItemKey>,
    /// What they say.
    held: Vec<Event>,
    /// This stream's item that is passed on as the carried message.
    merged: Option<ItemKey>,
    /// This stream's message that is open, under its key in the joined answer.
    open: Option<ItemKey>,
    /// All text so far, unless it is too large.
    text: Option<String>,
    called: bool,
    usage: Option<Usage>,
    continued: bool,
}

impl Joiner {
    /// For the answer to `request`. `continuations_max`: 0 switches it off; no more than [`CONTINUATIONS_MAX`].
    pub fn new(request: &Request<'_>, continuations_max: u32) -> Self {
        Self {
            left: continuations_max.min(CONTINUATIONS_MAX),
            limited: request.max_output_tokens.is_some(),
            words: request.max_output_tokens.is_none() && matches!(request.format, Format::Text),
            rounds: 0,
            started: false,
            before: 0,
            items: 0,
            carried: None,
            hidden: Vec::new(),
            held: Vec::new(),
            merged: None,
            open: None,
            text: Some(String::new()),
            called: false,
            usage: None,
            continued: false,
        }
    }

    /// Takes the next event of the current stream and appends what the client gets.
    pub fn push(&mut self, event: Event, out: &mut Vec<Event>) {
        if let Some(item) = item_of(&event)
            && self.hidden.contains(&item)
        {
            self.held.push(event);
            return;
        }
        let event = match event {
            Event::Start { .. } if self.started => return,
            Event::Start { model } => {
                self.started = true;
                Event::Start { model }
            }
            Event::ItemOpen { item, kind } => match self.opened(item, &kind, out) {
                Some(item) => Event::ItemOpen { item, kind },
                None if self.hidden.contains(&item) => {
                    self.held.push(Event::ItemOpen { item, kind });
                    return;
                }
                None => return,
            },
            Event::Text { item, delta } => {
                let item = self.key(item);
                match &mut self.text {
                    Some(text) if text.len() + delta.len() <= TEXT_BYTES_MAX => text.push_str(&delta),
                    Some(_) | None => self.text = None,
                }
                Event::Text { item, delta }
            }
            Event::Refusal { item, delta } => Event::Refusal { item: self.key(item), delta },
            Event::Reasoning { item, delta } => Event::Reasoning { item: self.key(item), delta },
            Event::CallArguments { item, delta } => Event::CallArguments { item: self.key(item), delta },
            Event::Opaque { item, value } => {
                let value = if self.continued { without_texts(value) } else { Some(value) };
                let Some(value) = value else { return };
                Event::Opaque { item: self.key(item), value }
            }
            Event::ItemClose { item, whole } => {
                let merged = self.merged == Some(item);
                let item = self.key(item);
                if merged {
                    (self.merged, self.carried) = (None, None);
                }
                if self.open == Some(item) {
                    self.open = None;
                }
                Event::ItemClose { item, whole }
            }
            Event::Usage(usage) => {
                self.usage = Some(match self.usage {
                    Some(so_far) => so_far.plus(usage),
                    None => usage,
                });
                return;
            }
            // Ends are decided in `end`; one that comes otherwise is no lawful stream.
            Event::End(_) => return,
        };
        out.push(event);
    }

    /// Takes what `finish` gave. `stopped`: from the decoder, before it finished. `None`: the answer is over, its end has
    /// been appended. Otherwise: send the body of [`continue_request`] and go on with the next stream.
    pub fn end(&mut self, tail: Vec<Event>, stopped: Option<Stopped>, out: &mut Vec<Event>) -> Option<GoOn> {
        let go_on = self.go_on(&tail, stopped);
        let mut end = None;
        for event in tail {
            if let Event::End(last) = event {
                end = Some(last);
            } else if let Event::ItemClose { item, .. } = event
                && go_on.is_some()
                && self.open.is_some()
                && Some(self.key(item)) == self.open
            {
                self.carried = self.open.take();
                self.merged = None;
            } else {
                self.push(event, out);
            }
        }
        if go_on.is_some() {
            self.left -= 1;
            self.rounds += 1;
            self.continued = true;
            self.before = self.items;
            self.hide_no_more();
            self.merged = None;
            return go_on;
        }
        if let Some(item) = self.carried.take() {
            out.push(Event::ItemClose { item, whole: false });
        }
        let end = match end {
            // What came before is as good as it was: an answer that met a limit.
            Some(End::Failed(_)) | None if self.continued => End::Incomplete(IncompleteReason::MaxOutputTokens),
            Some(end) => end,
            None => End::Incomplete(IncompleteReason::MaxOutputTokens),
        };
        out.extend(self.usage.take().map(Event::Usage));
        out.push(Event::End(end));
        None
    }

    fn go_on(&self, tail: &[Event], stopped: Option<Stopped>) -> Option<GoOn> {
        let incomplete = matches!(tail.last(), Some(Event::End(End::Incomplete(IncompleteReason::MaxOutputTokens))));
        if self.left == 0 || self.called || !incomplete {
            return None;
        }
        match (stopped?, &self.text) {
            (Stopped::Token(token), _) => Some(GoOn::Token { token, max_output_tokens: None }),
            (Stopped::Spent(token), _) if !self.limited => {
                // One request's worth more than what is spent.
                Some(GoOn::Token { token, max_output_tokens: Some(REQUEST_TOKENS * (self.rounds + 2)) })
            }
            (Stopped::Spent(_), _) => None,
            (Stopped::Limit, Some(text)) if self.words && !text.is_empty() => Some(GoOn::Words(text.clone())),
            (Stopped::Limit, Some(_) | None) => None,
        }
    }

    /// The key under which an item of this stream is passed on.
    fn key(&self, item: ItemKey) -> ItemKey {
        match self.carried {
            Some(carried) if self.merged == Some(item) => carried,
            Some(_) | None => ItemKey(self.before + item.0),
        }
    }

    /// What is hidden stays so, or has been told.
    fn hide_no_more(&mut self) {
        self.hidden.clear();
        self.held.clear();
    }

    /// Decides what becomes of an item of this stream. `Some`: it is opened under this key.
    fn opened(&mut self, item: ItemKey, kind: &ItemKind, out: &mut Vec<Event>) -> Option<ItemKey> {
        let key = ItemKey(self.before + item.0);
        self.items = self.items.max(key.0 + 1);
        match (kind, self.carried) {
            (ItemKind::Message { .. }, Some(carried)) => {
                self.held.clear();
                self.merged = Some(item);
                self.open = Some(carried);
                return None;
            }
            (ItemKind::Reasoning, Some(_)) => {
                self.hidden.push(item);
                return None;
            }
            (ItemKind::Call { .. }, Some(carried)) => {
                self.carried = None;
                out.push(Event::ItemClose { item: carried, whole: true });
                self.called = true;
                let held = std::mem::take(&mut self.held);
                self.hide_no_more();
                for event in held {
                    self.push(event, out);
                }
            }
            (ItemKind::Call { .. }, None) => self.called = true,
            (ItemKind::Message { .. }, None) => self.open = Some(key),
            // The last is made of a whole answer, behind this.
            (ItemKind::Reasoning, None) | (ItemKind::Compaction, _) => {}
        }
        Some(key)
    }
}

/// The item that an event is about.
fn item_of(event: &Event) -> Option<ItemKey> {
    match event {
        Event::ItemOpen { item, .. }
        | Event::Text { item, .. }
        | Event::Refusal { item, .. }
        | Event::Reasoning { item, .. }
        | Event::CallArguments { item, .. }
        | Event::Opaque { item, .. }
        | Event::ItemClose { item, .. } => Some(*item),
        Event::Start { .. } | Event::Usage(_) | Event::End(_) => None,
    }
}

/// Signatures of text name it by what stands before it in its stream, which is not what the client has.
fn without_texts(opaque: Opaque) -> Option<Opaque> {
    let mut stored: Stored<'_> = serde_json::from_str(&opaque.value).ok()?;
    stored.texts.clear();
    let value = serde_json::to_string(&stored).ok().filter(|_| !stored.is_empty())?;
    Some(Opaque { origin: opaque.origin, value })
}
