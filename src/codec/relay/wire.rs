//! What is read of a relayed answer: field names of the Responses API, and token counts in whatever form hosts have.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses-streaming> (read 2026-11-21). Every field is taken as
//! raw JSON: hosts differ, and most of it passes unread.

use std::borrow::Cow;

use memchr::memchr;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use super::blob::strings;
use crate::{
    codec::{edits::Edits, write::one_line},
    model::usage::Usage,
};

/// For a member whose place matters: `null` is a value.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Any event, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) r#type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) sequence_number: Option<&'a RawValue>,
}

/// An item as it is kept; `None` for thoughts without a blob.
pub(super) fn worth_keeping(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow, default)]
        r#type: Option<&'a RawValue>,
        #[serde(borrow, default)]
        encrypted_content: Option<&'a RawValue>,
    }
    let head: Item<'_> = serde_json::from_str(item.get()).ok()?;
    let bare = head.encrypted_content.and_then(string).is_none_or(|blob| blob.is_empty());
    let thought = head.r#type.and_then(string).is_some_and(|kind| kind == "reasoning");
    (!(thought && bare)).then(|| one_line(item).into_owned())
}

/// A response object, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) created_at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) incomplete_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) output: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) store: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Details<'a> {
    #[serde(borrow, default)]
    pub(super) reason: Option<&'a RawValue>,
}

/// Token counts as a host gave them.
pub(super) struct Counts<'a> {
    pub(super) usage: Usage,
    /// The client's parser takes them as they stand, but for details that are missing.
    pub(super) complete: bool,
    input_details: Option<&'a RawValue>,
    output_details: Option<&'a RawValue>,
}

impl<'a> Counts<'a> {
    /// `None` if they say nothing.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        if !is_object(json) {
            return None;
        }
        let wire: Wire<'_> = serde_json::from_str(json).ok()?;
        let total = number(wire.total_tokens);
        let (input, output) = (number(wire.input_tokens), number(wire.output_tokens));
        // If details are there, the client wants the one number.
        let whole = |raw: Option<&RawValue>, of: fn(&DetailsWire<'_>) -> Option<u64>| {
            raw.is_none_or(|raw| {
                is_null(raw)
                    || (is_object(raw.get()) && serde_json::from_str(raw.get()).is_ok_and(|it| of(&it).is_some()))
            })
        };
        let complete = input.is_some()
            && output.is_some()
            && total.is_some()
            && whole(wire.input_tokens_details, |details| number(details.cached_tokens))
            && whole(wire.output_tokens_details, |details| number(details.reasoning_tokens));
        fn read(raw: Option<&RawValue>) -> DetailsWire<'_> {
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        }
        let (of_input, of_output) = (read(wire.input_tokens_details), read(wire.output_tokens_details));
        let output = output.or(number(wire.completion_tokens));
        let input = input.or(number(wire.prompt_tokens)).or_else(|| total?.checked_sub(output?))?;
        let output = output.or_else(|| total?.checked_sub(input)).unwrap_or(0);
        let usage = Usage {
            input,
            cached: number(of_input.cached_tokens).unwrap_or(0),
            cache_write: number(of_input.cache_write_tokens).unwrap_or(0),
            output,
            reasoning: number(of_output.reasoning_tokens).unwrap_or(0),
            estimated: false,
        };
        let (input_details, output_details) = (wire.input_tokens_details, wire.output_tokens_details);
        Some(Self { usage, complete, input_details, output_details })
    }

    /// Puts the details that are missing into the counts, `object`, which were [read](Self::read) from it.
    pub(super) fn add_details(&self, object: &str, edits: &mut Edits<'_>) {
        let mut missing = Vec::new();
        for (details, key, zeros) in [
            (self.input_details, "input_tokens_details", r#"{"cached_tokens":0,"cache_write_tokens":0}"#),
            (self.output_details, "output_tokens_details", r#"{"reasoning_tokens":0}"#),
        ] {
            match details {
                None => missing.push(format!("\"{key}\":{zeros}")),
                Some(null) if is_null(null) => edits.replace(null, zeros),
                Some(_) => {}
            }
        }
        if !missing.is_empty() {
            edits.insert(object, &missing.join(","));
        }
    }
}

/// Whether JSON is an object: derived readers take an array of the fields for one, too.
pub(super) fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}

pub(super) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// Bytes of the texts and calls in an item, without reading it.
pub(super) fn told_bytes(item: &[u8]) -> u64 {
    let keys = [&b"\"text\""[..], b"\"refusal\"", b"\"arguments\"", b"\"input\""];
    keys.into_iter().flat_map(|key| strings(item, key)).map(|text| text.len() as u64).sum()
}

/// Bytes of what an answer's items say, calls included, and of thoughts as far as they are shown.
pub(super) fn said_bytes(output: &RawValue) -> (u64, u64) {
    let length = |text: &Value| text.as_str().map_or(0, |text| text.len() as u64);
    let texts = |parts: &Value| -> u64 {
        let parts = parts.as_array().into_iter().flatten();
        parts.map(|part| length(&part["text"]) + length(&part["refusal"])).sum()
    };
    let items: Vec<Value> = serde_json::from_str(output.get()).unwrap_or_default();
    items.iter().fold((0, 0), |(said, thought), item| match item["type"].as_str() {
        Some("reasoning") => (said, thought + texts(&item["summary"]) + texts(&item["content"])),
        _ => (said + texts(&item["content"]) + length(&item["arguments"]) + length(&item["input"]), thought),
    })
}

/// A number that somebody wrote as a fraction or a string is none to the client.
pub(super) fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw.and_then(|raw| raw.get().parse().ok())
}

/// `usage`, also under the names that Chat Completions has.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    input_tokens_details: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    output_tokens_details: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct DetailsWire<'a> {
    #[serde(borrow, default)]
    cached_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_write_tokens: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_tokens: Option<&'a RawValue>,
}

/// The text of a JSON string; `None` for the rest.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw.get()).ok().map(Cow::Owned)
}
