//! Field names of the Responses API, as clients send them.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses/create> (read 2026-11-21), and the items, tools
//! and parts that Codex CLI 0.169.0 was recorded sending (namespaces, `tool_search`, `additional_tools`, compaction).
//!
//! Every field is taken as raw JSON first: types are checked one by one in [`super::request`], so that an error can
//! name the field, what was found and what would be right. `null` counts as absent, as in the API itself.
//! Only `input`, which is nearly the whole of a body, can also be read along with it, as whoever names its type wishes.

use serde::Deserialize;
use serde_json::value::RawValue;

macro_rules! raw_fields {
    ($(#[$doc:meta])* $name:ident $(<$other:ident: $kind:ident>)? { $($field:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[allow(missing_docs, reason = "the names are the API's own")]
        pub struct $name<'a $(, $kind = &'a RawValue)?> {
            $(#[serde(borrow)] pub $field: Option<&'a RawValue>,)*
            $(pub $other: Option<$kind>,)?
        }
    };
}

raw_fields! {
    /// The body of `POST /v1/responses`.
    Body<input: I> {
        background, conversation, include, instructions, max_output_tokens, max_tool_calls, metadata, model,
        parallel_tool_calls, previous_response_id, prompt, prompt_cache_key, reasoning, safety_identifier,
        service_tier, store, stream, temperature, text, tool_choice, tools, top_logprobs, top_p, truncation, user,
    }
}

raw_fields! {
    /// Any item of `input`; `type` decides which fields count.
    Item {
        r#type, role, content, phase, summary, encrypted_content, call_id, name, namespace, arguments, input, output,
        tools, action,
    }
}

raw_fields! {
    /// Any part of a message or an output.
    Part { r#type, text, refusal, image_url, file_id, detail }
}

raw_fields! {
    /// Any entry of `tools`.
    Tool { r#type, name, description, parameters, strict, format, tools, function }
}

raw_fields! {
    /// `format` of a custom tool.
    Grammar { r#type, syntax, definition }
}

raw_fields! {
    /// `tool_choice` as an object.
    Choice { r#type, name, namespace, mode, tools }
}

raw_fields! {
    /// `reasoning`.
    Reasoning { effort, summary, generate_summary }
}

raw_fields! {
    /// `text`.
    TextOptions { format, verbosity }
}

raw_fields! {
    /// `text.format`.
    Format { r#type, name, description, schema, strict }
}
