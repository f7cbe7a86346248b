//! What every response object repeats of its request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::wire::Body;
use crate::{
    codec::write::{one_line, write_member, write_next},
    model::{request::Request, text::LazyText},
};

/// The parts of a request that every response object repeats, as JSON members.
#[derive(Debug, Clone, Default)]
pub struct Echo {
    /// `"instructions":…,…,"user":…`: everything but `tools`. Instructions and tools are repeated only in response
    /// objects outside streams: inside one, where each of three objects and every keep-alive would hold them, they are
    /// most of the bytes before the first text, and no client reads them there.
    pub(super) members: Vec<u8>,
    /// `tools` as they came, or none.
    pub(super) tools: String,
    pub(super) include_encrypted_reasoning: bool,
    /// The answer may be continued by its id: its thoughts are sealed even if the client does not want them.
    pub(super) store: bool,
    /// What is wanted is a `response.compaction`: the messages that stand before its compaction item, as elements of a
    /// JSON array.
    pub(super) compacted: Option<Vec<u8>>,
}

impl Echo {
    /// Takes what is to be repeated.
    pub fn new<I>(request: &Request<'_>, wire: &Body<'_, I>) -> Self {
        /// The rest is small.
        const REST_BYTES: usize = 1024;
        let instructions = request.instructions.as_ref().filter(|_| !request.stream);
        let instructions_bytes = instructions.map_or(0, LazyText::bytes_max);
        let metadata_bytes = request.metadata.map_or(0, |raw| raw.get().len());
        let text_bytes = wire.text.map_or(0, |raw| raw.get().len());
        let mut out = Vec::with_capacity(instructions_bytes + metadata_bytes + text_bytes + REST_BYTES);
        let raw = |out: &mut Vec<u8>, key: &str, value: Option<&RawValue>, absent: &str| {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value.map_or(Cow::Borrowed(absent), one_line).as_bytes());
        };
        write_member(&mut out, "instructions", &instructions);
        write_next(&mut out, "max_output_tokens", &request.max_output_tokens);
        raw(&mut out, "max_tool_calls", wire.max_tool_calls, "null");
        write_next(&mut out, "parallel_tool_calls", &request.parallel_tool_calls.unwrap_or(true));
        write_next(&mut out, "previous_response_id", &request.previous_response_id);
        write_next(&mut out, "prompt_cache_key", &request.prompt_cache_key);
        out.extend_from_slice(b",\"reasoning\":{");
        write_member(&mut out, "effort", &request.effort);
        write_next(&mut out, "summary", &request.summary);
        out.push(b'}');
        raw(&mut out, "safety_identifier", wire.safety_identifier, "null");
        write_next(&mut out, "service_tier", request.service_tier.as_deref().unwrap_or("default"));
        write_next(&mut out, "store", &request.store);
        write_next(&mut out, "temperature", &request.temperature.unwrap_or(1.0));
        raw(&mut out, "text", wire.text, r#"{"format":{"type":"text"}}"#);
        raw(&mut out, "tool_choice", wire.tool_choice, r#""auto""#);
        raw(&mut out, "top_logprobs", wire.top_logprobs, "0");
        write_next(&mut out, "top_p", &request.top_p.unwrap_or(1.0));
        raw(&mut out, "truncation", wire.truncation, r#""disabled""#);
        write_next(&mut out, "user", &request.user);
        raw(&mut out, "metadata", request.metadata, "{}");
        Self {
            members: out,
            tools: match wire.tools {
                Some(tools) if !request.stream => one_line(tools).into_owned(),
                Some(_) | None => "[]".to_owned(),
            },
            include_encrypted_reasoning: request.include_encrypted_reasoning,
            store: request.store,
            compacted: None,
        }
    }

    /// For an answer to `POST /v1/responses/compact`: its object is a `response.compaction`, which repeats nothing but the
    /// `users`' messages, see [`compaction::users`](crate::codec::compaction::users).
    pub fn compacted(users: Vec<u8>) -> Self {
        Self { compacted: Some(users), ..Self::default() }
    }
}
