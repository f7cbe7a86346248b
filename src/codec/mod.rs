//! One directory per wire protocol, plus framing. PURE.
//!
//! Every upstream protocol offers the same names: `encode_request`, a `StreamDecoder` with `feed` and `finish`, and
//! `decode_error` if [`error`] does not know its errors; the functions of these names here choose by the target's
//! [`Protocol`]. The `responses` directory is the face towards the client and goes the other way: `decode_request`,
//! `StreamEncoder`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![deny(clippy::wildcard_enum_match_arm)]

mod answer;
pub mod chat;
pub mod compaction;
pub mod custom;
pub mod demo;
mod edits;
pub mod effort;
pub mod error;
mod form;
pub mod gemini;
pub mod history;
pub mod json;
pub mod listing;
pub mod messages;
pub mod names;
pub mod picture;
pub mod refusal;
pub mod relay;
pub mod responses;
pub mod seal;
pub mod sse;
pub mod stored;
mod write;

use std::{borrow::Cow, time::SystemTime};

use crate::model::{
    event::Event,
    failure::Failure,
    request::{Loss, Origin, Request},
};
use chat::dialect::Dialect;
use compaction::Form;
use names::Names;
use relay::{BlobId, Relay};
use responses::stream::Identity;
use seal::Sealer;
use stored::Host;

/// What a provider is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Chat Completions.
    Chat,
    /// The Responses API itself: relayed, not translated.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's generateContent.
    Gemini,
}

impl Protocol {
    /// All of them.
    pub const BUILT: &[Self] = &[Self::Chat, Self::Responses, Self::Messages, Self::Gemini];

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::BUILT.iter().copied().find(|protocol| protocol.name() == name)
    }

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
        }
    }
}

/// Thoughts of one answer are kept, to be returned, up to this size in bytes.
pub const THOUGHTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An answer's text and calls are passed on up to this size in bytes, some sixteen million tokens. It is also the limit
/// of a body that comes whole.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// More calls than this in one answer are a runaway.
pub const CALLS_MAX: usize = 512;

/// Which of the client's tools a host knows that speaks the client's protocol: functions always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeTools {
    /// Custom (free text) tools; else they are told as functions.
    pub custom: bool,
    /// Tools that a provider runs; else they are left out.
    pub hosted: bool,
}

impl NativeTools {
    /// All that there are.
    pub const ALL: Self = Self { custom: true, hosted: true };
}

/// Where a request goes and how that place wants to be spoken to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Provider (configuration name) and model family: who may read opaque data back.
    pub origin: Origin,
    /// The model's id at the provider.
    pub model: String,
    /// What the host speaks.
    pub protocol: Protocol,
    /// Its dialect of Chat Completions; the neutral one for other protocols.
    pub dialect: &'static Dialect,
    /// Reasoning effort set for the model or route; overrides what the client asks for. `off` switches thinking off.
    pub effort: Option<String>,
    /// Whether the model takes pictures.
    pub accepts_images: bool,
    /// Upper bound of generated tokens the model allows; a larger wish of the client is lowered to it.
    pub max_output_tokens: Option<u64>,
    /// What it knows of the client's tools, for the protocol [`Protocol::Responses`]; the others know functions only.
    pub native_tools: NativeTools,
}

/// A request in a provider's words.
#[derive(Debug)]
pub struct Encoded<N> {
    /// The HTTP body, JSON.
    pub body: Vec<u8>,
    /// What could not pass as it was.
    pub losses: Vec<Loss>,
    /// Turns tool names of the wire back into the client's tools.
    pub names: N,
}

/// Why a request cannot be put into a provider's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The protocol has no way to say something that must not be dropped.
    #[error("{path}: {why}")]
    Unsupported {
        /// Where in the request, in the client's terms.
        path: String,
        /// What is not possible and what would be.
        why: String,
    },
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A frame is not what the protocol says.
    #[error("malformed frame: {what}")]
    Malformed {
        /// What was wrong with it, without its content.
        what: String,
    },
    /// A limit in bytes was passed.
    #[error("{what} larger than {bytes_max} bytes")]
    TooLarge {
        /// What grew.
        what: &'static str,
        /// The named limit.
        bytes_max: usize,
    },
    /// The provider reports an error inside the stream.
    #[error("the provider reports an error: {}", .0.message)]
    Upstream(Failure),
}

/// A request, as it was understood and as it came.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r, 'a> {
    /// As it was understood; if a compaction is wanted, after [`compaction::ask`].
    pub request: &'r Request<'a>,
    /// As it came: what a host is given that speaks the client's protocol.
    pub body: &'r [u8],
    /// It did not come so: what a stored response held stands in it, and the response's name is not to be passed on.
    pub expanded: bool,
    /// The host that knows that response, too, and the body as it came: what that one is given.
    pub host: Option<(&'r Host, &'r [u8])>,
    /// Opens in it what was sealed here.
    pub sealer: &'r Sealer,
    /// What is wanted of the host.
    pub task: Task,
}

/// What is wanted of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// An answer.
    Answer,
    /// A compaction of the host's own making: only of one that speaks the client's protocol.
    Compaction(Form),
    /// The text of a summary, to be made a compaction of here: see [`compaction::condense`].
    Summary,
}

/// Puts a request into the words of the target's protocol.
///
/// `known` (who gave a blob) is for hosts that speak the client's protocol; the others are given only what was sealed
/// here, which says itself whose it is.
pub fn encode_request(
    asked: Asked<'_, '_>,
    target: &Target,
    known: impl Fn(BlobId) -> Option<Origin>,
) -> Result<Encoded<Names>, EncodeError> {
    match target.protocol {
        Protocol::Chat => chat::encode_request(asked.request, target),
        Protocol::Responses => {
            let body = if asked.expanded { stored::without_name(asked.body) } else { Cow::Borrowed(asked.body) };
            match asked.task {
                Task::Answer | Task::Compaction(_) => relay::encode_request(&body, target, asked.sealer, known),
                Task::Summary => relay::encode_summary_request(&body, target, asked.sealer, known),
            }
        }
        Protocol::Messages => messages::encode_request(asked.request, target),
        Protocol::Gemini => gemini::encode_request(asked.request, target),
    }
}

/// The failure behind an HTTP answer that is not a success; see [`error::decode_error`] for the parameters.
pub fn decode_error(
    protocol: Protocol,
    status: u16,
    retry_after: Option<&str>,
    body: &[u8],
    now: SystemTime,
) -> Failure {
    match protocol {
        // One table for the errors of all vendors, whose shapes these are.
        Protocol::Chat | Protocol::Responses => error::decode_error(status, retry_after, body, now),
        Protocol::Messages => messages::decode_error(status, retry_after, body, now),
        Protocol::Gemini => gemini::decode_error(status, retry_after, body, now),
    }
}

/// What reads an answer.
#[derive(Debug)]
pub enum Reader {
    /// Frames become events, which the client's encoder writes.
    Translate(Box<StreamDecoder>),
    /// Bytes pass.
    Relay(Box<Relay>),
}

impl Reader {
    /// For one answer of the target. `identity`: ours; its stem is the seed of ids that a host forgot.
    pub fn new(target: &Target, names: Names, identity: &Identity, streaming: bool, input_bytes: u64) -> Self {
        let seed = &identity.stem;
        let decoder = match target.protocol {
            Protocol::Responses => {
                let mut relay = Relay::new(identity, names, streaming);
                relay.set_input_bytes(input_bytes);
                return Self::Relay(Box::new(relay));
            }
            Protocol::Chat => StreamDecoder::Chat(chat::StreamDecoder::new(target, names, seed, input_bytes)),
            Protocol::Messages => {
                StreamDecoder::Messages(messages::StreamDecoder::new(target, names, seed, input_bytes))
            }
            Protocol::Gemini => StreamDecoder::Gemini(gemini::StreamDecoder::new(target, names, seed, input_bytes)),
        };
        Self::Translate(Box::new(decoder))
    }
}

/// Reads one answer in the protocol it is in, frame by frame.
#[derive(Debug)]
pub enum StreamDecoder {
    /// Chat Completions.
    Chat(chat::StreamDecoder),
    /// Anthropic's Messages.
    Messages(messages::StreamDecoder),
    /// Google's generateContent.
    Gemini(gemini::StreamDecoder),
}

impl StreamDecoder {
    /// Takes the next frame and appends what it says to `out`. After an error, call [`Self::finish`].
    pub fn feed(&mut self, frame: &sse::Frame<'_>, out: &mut Vec<Event>) -> Result<(), DecodeError> {
        match self {
            Self::Chat(decoder) => decoder.feed(frame, out),
            Self::Messages(decoder) => decoder.feed(frame, out),
            Self::Gemini(decoder) => decoder.feed(frame, out),
        }
    }

    /// Takes a body that came whole although a stream was asked for. Then call [`Self::finish`].
    pub fn feed_whole(&mut self, body: &[u8], out: &mut Vec<Event>) -> Result<(), DecodeError> {
        match self {
            Self::Chat(decoder) => decoder.feed_whole(body, out),
            Self::Messages(decoder) => decoder.feed_whole(body, out),
            Self::Gemini(decoder) => decoder.feed_whole(body, out),
        }
    }

    /// True once the host has said how the answer ended; only its usage may follow.
    pub fn end_announced(&self) -> bool {
        match self {
            Self::Chat(decoder) => decoder.end_announced(),
            Self::Messages(decoder) => decoder.end_announced(),
            Self::Gemini(decoder) => decoder.end_announced(),
        }
    }

    /// True once nothing of worth follows.
    pub fn done(&self) -> bool {
        match self {
            Self::Chat(decoder) => decoder.done(),
            Self::Messages(decoder) => decoder.done(),
            Self::Gemini(decoder) => decoder.done(),
        }
    }

    /// Whether the answer ended at a limit of tokens, so that it can be gone on with: see [`gemini::continuation`].
    pub fn stopped(&self) -> Option<gemini::Stopped> {
        match self {
            Self::Chat(_) | Self::Messages(_) => None,
            Self::Gemini(decoder) => decoder.stopped(),
        }
    }

    /// How many frames and the like were not understood and skipped.
    pub fn skipped(&self) -> u64 {
        match self {
            Self::Chat(decoder) => decoder.skipped(),
            Self::Messages(decoder) => decoder.skipped(),
            Self::Gemini(decoder) => decoder.skipped(),
        }
    }

    /// The end of input. `cut`: why it ended early, if it did. Appends the missing closes, usage, and the one `End`.
    pub fn finish(self, cut: Option<Failure>, out: &mut Vec<Event>) {
        match self {
            Self::Chat(decoder) => decoder.finish(cut, out),
            Self::Messages(decoder) => decoder.finish(cut, out),
            Self::Gemini(decoder) => decoder.finish(cut, out),
        }
    }
}
