//! What an answer's signatures look like inside an [`Opaque`](crate::model::request::Opaque) of this protocol. PURE.
//!
//! `stream.rs` writes this form, `request/conversation.rs` reads it; nobody else does. A signature belongs to the very
//! part it came with: a call is named by its id, a piece of text by where it stands in its message, and the message by
//! its text up to there.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// The version of the form that is written, and the only one read.
pub(super) const VERSION: u8 = 1;

/// The stored form.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    /// [`VERSION`].
    pub v: u8,
    /// The model that signed: another one of the same family refuses what it did not sign itself.
    #[serde(borrow, default)]
    pub model: Cow<'a, str>,
    /// Signed thoughts, with their text, in order.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub thoughts: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Signed pieces of a message's text.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<Mark<'a>>,
    /// Signatures that came without a text or a call of their own.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub bare: Vec<Cow<'a, str>>,
    /// Signatures by call id.
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// A signed piece of a message's text; empty if it only ends the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark<'a> {
    /// Where the piece begins, in bytes of the message's text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// [`mix`] of the text up to there.
    pub hash: u64,
    /// The signature.
    #[serde(borrow)]
    pub sig: Cow<'a, str>,
}

impl Stored<'_> {
    /// True if nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.thoughts.is_empty() && self.texts.is_empty() && self.bare.is_empty() && self.calls.is_empty()
    }
}

impl Mark<'_> {
    /// Whether the piece is one of this message.
    pub fn is_of(&self, message: &str) -> bool {
        self.start <= self.end
            && message.is_char_boundary(self.start)
            && message.get(..self.end).is_some_and(|text| mix(START, text) == self.hash)
    }
}

/// Where hashing begins.
pub(super) const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Goes on hashing, wherever the text was split: the step of FNV-1a.
pub(super) fn mix(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
