//! The wire's own types. They mirror Google's reference of
//! [`models.streamGenerateContent`](https://ai.google.dev/api/generate-content) and
//! [`Content`](https://ai.google.dev/api/caching#Content) (read 2026-11-21) as the field descriptions of Google's own
//! client (`google-genai` 3.4.0 on PyPI, `google/genai/types.py`) complete it; [long
//! decode](https://ai.google.dev/gemini-api/docs/generate-content/long-decode), [thought
//! signatures](https://ai.google.dev/gemini-api/docs/thought-signatures) and [function
//! calling](https://ai.google.dev/gemini-api/docs/function-calling) have pages of their own (read 2026-11-21).
//!
//! **Never run against the live service.** What stands here was checked against those pages, public reports and the
//! types of Google's client (`tests/gemini_parse.py`), not against answers of the service itself.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::text::LazyText;

// ---- requests ----

/// The body. `contents` stands last, so that a request that only grew has a body that begins with the old one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerateContentRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_instruction: Option<SystemInstruction<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_config: Option<ToolConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_config: Option<GenerationConfig>,
    /// `flex` or `priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<&'static str>,
    pub contents: Vec<Content<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct SystemInstruction<'a> {
    pub parts: Vec<Part<'a>>,
}

/// A turn.
#[derive(Debug, Serialize)]
pub(super) struct Content<'a> {
    pub role: &'static str,
    pub parts: Vec<Part<'a>>,
}

/// One of text, picture, call or response.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<LazyText<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub thought: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_data: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_data: Option<FileData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_response: Option<FunctionResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thought_signature: Option<Cow<'a, str>>,
}

impl<'a> Part<'a> {
    /// A part of nothing but text.
    pub fn of_text(text: impl Into<LazyText<'a>>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }
}

/// Base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob<'a> {
    pub mime_type: Cow<'a, str>,
    pub data: Cow<'a, str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileData<'a> {
    pub mime_type: &'static str,
    pub file_uri: LazyText<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct FunctionCall<'a> {
    pub id: String,
    pub name: String,
    /// A JSON object.
    pub args: Cow<'a, RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct FunctionResponse<'a> {
    pub id: String,
    pub name: String,
    pub response: Outcome<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part<'a>>,
}

/// The two keys the service gives a meaning to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome<'a> {
    Output(LazyText<'a>),
    Error(&'static str),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tool<'a> {
    pub function_declarations: Vec<FunctionDeclaration<'a>>,
}

/// `parametersJsonSchema` takes JSON Schema; its older sibling `parameters` a subset of OpenAPI's and refuses the whole
/// request for one key it does not know.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionDeclaration<'a> {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<LazyText<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_json_schema: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig {
    pub function_calling_config: FunctionCallingConfig,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionCallingConfig {
    /// `AUTO`, `ANY`, `NONE`.
    pub mode: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_function_names: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GenerationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_json_schema: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_config: Option<ThinkingConfig>,
}

/// Budget and level exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThinkingConfig {
    pub include_thoughts: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<&'static str>,
}

// ---- answers ----
//
// Values are raw: one that is not what it should be costs itself, not the answer.

/// A `GenerateContentResponse`, one of many in a stream, or an error object in its place.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow, default)]
    pub prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow, default)]
    pub usage_metadata: Option<UsageMetadata<'a>>,
    /// In every chunk, and read once.
    #[serde(borrow, default)]
    pub model_version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(borrow, default)]
    pub index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub content: Option<AnswerContent<'a>>,
    #[serde(borrow, default)]
    pub finish_reason: Option<&'a RawValue>,
    /// With `CONTINUATION`: what the same request is sent with to go on.
    #[serde(borrow, default)]
    pub continuation_token: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AnswerContent<'a> {
    #[serde(borrow, default)]
    pub parts: Option<Vec<AnswerPart<'a>>>,
}

/// A part of an answer; what else may stand in it (`inlineData`, `executableCode` …) is not asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AnswerPart<'a> {
    #[serde(borrow, default)]
    pub text: Option<&'a RawValue>,
    #[serde(default)]
    pub thought: Option<bool>,
    #[serde(borrow, default)]
    pub thought_signature: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub function_call: Option<AnswerCall<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AnswerCall<'a> {
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub name: Option<&'a RawValue>,
    /// A whole object, or nothing for a function without parameters.
    #[serde(borrow, default)]
    pub args: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    pub block_reason: Option<&'a RawValue>,
}

/// Counts so far, whatever their type; the last in a stream are the answer's.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UsageMetadata<'a> {
    /// With what was read from a cache.
    #[serde(borrow)]
    pub prompt_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    pub cached_content_token_count: Option<&'a RawValue>,
    /// Without thoughts.
    #[serde(borrow)]
    pub candidates_token_count: Option<&'a RawValue>,
    #[serde(borrow)]
    pub thoughts_token_count: Option<&'a RawValue>,
    /// Results of tools that the service runs itself: input, beside the prompt.
    #[serde(borrow)]
    pub tool_use_prompt_token_count: Option<&'a RawValue>,
    /// The sum of the four others.
    #[serde(borrow)]
    pub total_token_count: Option<&'a RawValue>,
}

/// `google.rpc.Status` (<https://cloud.google.com/apis/design/errors#error_model>, read 2026-11-21), as it stands in
/// `error`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub code: Option<u16>,
    pub message: String,
    pub status: String,
    pub details: Vec<serde_json::Value>,
}
