//! One directory per wire protocol, plus framing. PURE.
//!
//! Every upstream protocol offers the same names: `encode_request`, `decode_error`, and a `StreamDecoder` with `feed`
//! and `finish`. The `responses` directory is the face towards the client and goes the other way: `decode_request`,
//! `StreamEncoder`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod chat;
pub mod custom;
pub mod demo;
pub mod names;
pub mod responses;
pub mod seal;
pub mod sse;

use crate::model::{
    failure::Failure,
    request::{Loss, Origin},
};
use chat::dialect::Dialect;

/// What a provider is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Chat Completions.
    Chat,
    /// The Responses API itself.
    Responses,
    /// Anthropic's Messages.
    Messages,
    /// Google's generateContent.
    Gemini,
}

impl Protocol {
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
