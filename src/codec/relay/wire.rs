//! What is read of a relayed answer: field names of the Responses API, and token counts in whatever form hosts have.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses-streaming> (read 2026-11-21). Every field is taken as
//! raw JSON: hosts differ, and most of it passes unread.

use std::borrow::Cow;

use memchr::memchr;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::{codec::write::one_line, model::usage::Usage};

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
    #[serde(borrow, default)]
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
pub(super) struct Counts {
    pub(super) usage: Usage,
    /// The client's parser takes them as they stand.
    pub(super) complete: bool,
}

impl Counts {
    /// `None` if they say nothing.
    pub(super) fn read(json: &str) -> Option<Self> {
        let wire: Wire<'_> = serde_json::from_str(json).ok()?;
        let total = number(wire.total_tokens);
        let (input, output) = (number(wire.input_tokens), number(wire.output_tokens));
        // Details may be missing; if they are there, the client wants the one number.
        let whole = |raw: Option<&RawValue>, of: fn(&DetailsWire<'_>) -> Option<u64>| {
            raw.is_none_or(|raw| serde_json::from_str(raw.get()).is_ok_and(|details| of(&details).is_some()))
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
        Some(Self { usage, complete })
    }
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
    #[serde(borrow, default)]
    input_tokens_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
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
