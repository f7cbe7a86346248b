//! What a block of thoughts looks like inside an [`Opaque`](crate::model::request::Opaque) of this protocol. PURE.
//!
//! `stream.rs` writes it, `request.rs` reads it; nobody else does. `messages` is the version of the form and tells it
//! from other protocols' forms under the same provider.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::event::ItemKey;

/// The only version so far.
const VERSION: u32 = 1;

/// One block, as it came.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored<'a> {
    messages: u32,
    /// Text and signature of a `thinking` block; the text may be empty.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub signature: Cow<'a, str>,
    /// `data` of a `redacted_thinking` block.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub data: Option<Cow<'a, str>>,
    /// Which item of its answer it was, from 0. Absent in what older versions stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
}

impl<'a> Stored<'a> {
    /// Thoughts, signed.
    pub fn thinking(text: &'a str, signature: &'a str) -> Self {
        Self { messages: VERSION, thinking: Some(text.into()), signature: signature.into(), data: None, at: None }
    }

    /// Thoughts that the provider does not show.
    pub fn redacted(data: &'a str) -> Self {
        Self { messages: VERSION, thinking: None, signature: "".into(), data: Some(data.into()), at: None }
    }

    /// The same as an item of its answer.
    pub fn at(self, item: ItemKey) -> Self {
        Self { at: Some(item.0), ..self }
    }

    /// The text to be sealed; `None` cannot happen.
    pub fn write(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Reads what [`Stored::write`] gave; `None` for every other text.
    pub fn read(value: &'a str) -> Option<Self> {
        let stored: Self = serde_json::from_str(value).ok()?;
        (stored.messages == VERSION && stored.thinking.is_some() != stored.data.is_some()).then_some(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again_and_nothing_else_is() {
        let text = Stored::thinking("a \"thought\"\n", "c2ln").write().unwrap();
        let read = Stored::read(&text).unwrap();
        assert_eq!((read.thinking.as_deref(), &*read.signature), (Some("a \"thought\"\n"), "c2ln"));
        let text = Stored::redacted("ZGF0YQ").at(ItemKey(3)).write().unwrap();
        let read = Stored::read(&text).unwrap();
        assert_eq!((read.data.as_deref(), read.at), (Some("ZGF0YQ"), Some(3)));
        assert_eq!(Stored::read(r#"{"messages":1,"data":"x"}"#).unwrap().at, None);
        for other in [r#"{"field":"details"}"#, r#"{"messages":2,"data":"x"}"#, r#"{"messages":1}"#, "", "null"] {
            assert!(Stored::read(other).is_none(), "{other}");
        }
    }
}
