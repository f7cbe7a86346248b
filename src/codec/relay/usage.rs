//! Token counts at the end of an answer, and whether the client can take them as they stand.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::usage::Usage;

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
