//! How providers say which models they have, and what those can do.
//!
//! Read leniently: a field that is missing or of another type is not known, and only an answer that holds no list at
//! all is an error. Which fields exist was read, 2026-11, in the documentation of OpenAI, Anthropic
//! (platform.claude.com/docs/en/api), Gemini (ai.google.dev/api/models), OpenRouter (openrouter.ai/docs/models), Mistral,
//! Groq, Together and Fireworks, of Ollama (docs/api.md), LM Studio (lmstudio.ai/docs: REST API v0), llama.cpp
//! (tools/server/README.md) and vLLM, and in programs that read these answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::listed::{Facts, Listed};

/// Model names may not be longer; what is longer is no name.
const ID_BYTES_MAX: usize = 300;
/// More models than any provider has.
const MODELS_MAX: usize = 10_000;
/// Beyond this a number of tokens is a mistake.
const TOKENS_MAX: u64 = 1 << 40;

/// How a provider lists its models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// `GET /models`, `{"data":[{"id":…}]}`; many add to an entry what it can do.
    OpenAi,
    /// The same of vLLM, which adds `max_model_len`: what it is set to.
    Vllm,
    /// `GET /models` with `x-api-key` and `anthropic-version`, in pages.
    Anthropic,
    /// `GET /models` with `x-goog-api-key`, in pages.
    Gemini,
    /// `GET /api/tags`, and for each model `POST /api/show`.
    Ollama,
    /// `GET /api/v0/models`.
    LmStudio,
    /// `GET /models`, and `GET /props` for the one that is loaded.
    LlamaCpp,
    /// Not at all.
    None,
}

impl Listing {
    /// How it is done where it is spoken to in that protocol and, for `chat`, that dialect.
    pub fn of(protocol: &str, dialect: &str) -> Self {
        match (protocol, dialect) {
            ("messages", _) => Self::Anthropic,
            ("gemini", _) => Self::Gemini,
            ("chat", "ollama") => Self::Ollama,
            ("chat", "lmstudio") => Self::LmStudio,
            ("chat", "llamacpp") => Self::LlamaCpp,
            ("chat", "vllm") => Self::Vllm,
            ("chat" | "responses", _) => Self::OpenAi,
            (_, _) => Self::None,
        }
    }

    /// For people: what is asked.
    pub fn describe(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Vllm | Self::Anthropic | Self::Gemini => "/models",
            Self::Ollama => "/api/tags, /api/show",
            Self::LmStudio => "/api/v0/models",
            Self::LlamaCpp => "/models, /props",
            Self::None => "",
        }
    }

    /// Whether a model listed as `listed` is the one that a request calls `asked`. Ollama takes a name without a tag
    /// for `NAME:latest` (docs/api.md, "Model names"), and lists it with the tag.
    pub fn is_same(self, listed: &str, asked: &str) -> bool {
        listed == asked || (self == Self::Ollama && untagged(listed) == Some(asked))
    }

    /// The models, and those that have a second name under that too.
    pub fn with_second_names(self, mut models: Vec<Listed>) -> Vec<Listed> {
        if self == Self::Ollama {
            let second = |model: &Listed| Some(Listed { id: untagged(&model.id)?.to_owned(), ..model.clone() });
            models.extend(models.iter().filter_map(second).collect::<Vec<_>>());
        }
        models
    }

    /// Whether it is that of a server of the user's own, which says how it is set now.
    pub fn is_of_the_moment(self) -> bool {
        matches!(self, Self::Ollama | Self::LmStudio | Self::LlamaCpp | Self::Vllm)
    }
}

fn untagged(name: &str) -> Option<&str> {
    name.strip_suffix(":latest")
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the provider's order.
    pub models: Vec<Listed>,
    /// What asks for the next part.
    pub next: Option<String>,
}

/// An answer is not the list it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a list of models")]
pub struct NoList;

/// OpenAI's list, with what others add to it.
///
/// # Errors
/// [`NoList`].
pub fn openai(body: &[u8]) -> Result<Vec<Listed>, NoList> {
    let body = json(body)?;
    // Together sends the bare array.
    let entries = body.as_array().or_else(|| body.get("data")?.as_array()).ok_or(NoList)?;
    Ok(list(entries, |entry| {
        // OpenRouter: the provider it prefers may hold less than the model could.
        let top = entry.get("top_provider").unwrap_or(&Value::Null);
        // llama.cpp.
        let meta = entry.get("meta").unwrap_or(&Value::Null);
        // Mistral, and others after it; Anthropic's own list has objects there.
        let capabilities = entry.get("capabilities").unwrap_or(&Value::Null);
        let whole = tokens(entry, &["context_length", "context_window", "max_context_length", "max_model_len"]);
        let window = match (whole, tokens(top, &["context_length"])) {
            (Some(whole), Some(top)) => Some(whole.min(top)),
            (whole, top) => whole.or(top).or_else(|| tokens(meta, &["n_ctx"])),
        };
        let output = ["max_completion_tokens", "max_output_tokens", "max_output_length"];
        Facts {
            context_window: window,
            context_window_max: tokens(meta, &["n_ctx_train"]),
            output_tokens_max: tokens(entry, &output).or_else(|| tokens(top, &output)),
            tools: contains(entry.get("supported_parameters"), "tools")
                .or_else(|| flag(entry, &["supports_tools", "supports_function_calling"]))
                .or_else(|| flag(capabilities, &["function_calling", "tools"])),
            images: contains(entry.pointer("/architecture/input_modalities"), "image")
                .or_else(|| contains(entry.get("input_modalities"), "image"))
                .or_else(|| flag(entry, &["supports_image_in", "supports_image_input", "supports_vision"]))
                .or_else(|| flag(capabilities, &["vision"])),
        }
    }))
}

/// A page of Anthropic's list.
///
/// # Errors
/// [`NoList`].
pub fn anthropic(body: &[u8]) -> Result<Page, NoList> {
    let body = json(body)?;
    let entries = body.get("data").and_then(Value::as_array).ok_or(NoList)?;
    let models = list(entries, |entry| Facts {
        context_window: tokens(entry, &["max_input_tokens"]),
        output_tokens_max: tokens(entry, &["max_tokens"]),
        images: entry.pointer("/capabilities/image_input/supported").and_then(Value::as_bool),
        ..Facts::default()
    });
    let more = body.get("has_more").and_then(Value::as_bool) == Some(true);
    Ok(Page { models, next: text(&body, "last_id").filter(|_| more) })
}

/// A page of Gemini's list: those that generate text in answer to a conversation.
///
/// # Errors
/// [`NoList`].
pub fn gemini(body: &[u8]) -> Result<Page, NoList> {
    let body = json(body)?;
    // An empty page has no array.
    let entries = match body.get("models") {
        Some(models) => models.as_array().ok_or(NoList)?.as_slice(),
        None if body.get("error").is_none() && body.is_object() => &[],
        None => return Err(NoList),
    };
    let models = entries
        .iter()
        .take(MODELS_MAX)
        .filter(|entry| contains(entry.get("supportedGenerationMethods"), "generateContent") != Some(false))
        .filter_map(|entry| {
            let id = name(entry, "name")?;
            let facts = Facts {
                context_window: tokens(entry, &["inputTokenLimit"]),
                output_tokens_max: tokens(entry, &["outputTokenLimit"]),
                ..Facts::default()
            };
            let id = id.strip_prefix("models/").unwrap_or(&id).to_owned();
            Some(Listed { title: text(entry, "displayName").filter(|title| *title != id), id, facts })
        })
        .collect();
    Ok(Page { models, next: text(&body, "nextPageToken").filter(|token| !token.is_empty()) })
}

/// The names in Ollama's list.
///
/// # Errors
/// [`NoList`].
pub fn ollama_tags(body: &[u8]) -> Result<Vec<String>, NoList> {
    let body = json(body)?;
    let entries = body.get("models").and_then(Value::as_array).ok_or(NoList)?;
    Ok(entries
        .iter()
        .take(MODELS_MAX)
        .filter_map(|entry| name(entry, "model").or_else(|| name(entry, "name")))
        .collect())
}

/// What of Ollama's models is loaded, and with which window (`GET /api/ps`). An answer that cannot be read says nothing.
pub fn ollama_loaded(body: &[u8]) -> BTreeMap<String, u64> {
    let body = json(body).unwrap_or_default();
    let entries = body.get("models").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let loaded =
        |entry| Some((name(entry, "model").or_else(|| name(entry, "name"))?, tokens(entry, &["context_length"])?));
    entries.iter().take(MODELS_MAX).filter_map(loaded).collect()
}

/// What Ollama says of one model; `loaded` is the window it is loaded with.
///
/// The model's own length is only what it could hold: unless told otherwise Ollama serves a few thousand tokens, and cuts
/// what is longer without a word.
///
/// # Errors
/// [`NoList`].
pub fn ollama_show(body: &[u8], loaded: Option<u64>) -> Result<Facts, NoList> {
    let body = json(body)?;
    let info = body.get("model_info").and_then(Value::as_object);
    let capabilities = body.get("capabilities");
    if info.is_none() && capabilities.is_none() && body.get("details").is_none() {
        return Err(NoList);
    }
    let own = info.and_then(|info| {
        let lengths = info.iter().filter(|(key, _)| key.ends_with(".context_length"));
        lengths.filter_map(|(_, value)| value.as_u64()).find(|length| plausible(*length))
    });
    let set = body.get("parameters").and_then(Value::as_str).and_then(|parameters| {
        let value = parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx "))?;
        value.trim().parse().ok().filter(|length| plausible(*length))
    });
    Ok(Facts {
        context_window: loaded.or(set),
        context_window_max: own,
        output_tokens_max: None,
        tools: contains(capabilities, "tools"),
        images: contains(capabilities, "vision"),
    })
}

/// LM Studio's list, without what cannot converse.
///
/// # Errors
/// [`NoList`].
pub fn lm_studio(body: &[u8]) -> Result<Vec<Listed>, NoList> {
    let body = json(body)?;
    let entries = body.get("data").and_then(Value::as_array).ok_or(NoList)?;
    let speaks = |entry: &&Value| entry.get("type").and_then(Value::as_str) != Some("embeddings");
    let entries: Vec<&Value> = entries.iter().filter(speaks).collect();
    Ok(list(entries, |entry| Facts {
        context_window: tokens(entry, &["loaded_context_length"]),
        context_window_max: tokens(entry, &["max_context_length"]),
        output_tokens_max: None,
        tools: contains(entry.get("capabilities"), "tool_use"),
        images: entry.get("type").and_then(Value::as_str).map(|kind| kind == "vlm"),
    }))
}

/// What llama.cpp's server says of the model it has loaded.
///
/// # Errors
/// [`NoList`].
pub fn llama_props(body: &[u8]) -> Result<Facts, NoList> {
    let body = json(body)?;
    let settings = body.get("default_generation_settings").filter(|settings| settings.is_object()).ok_or(NoList)?;
    let caps = body.get("chat_template_caps").unwrap_or(&Value::Null);
    Ok(Facts {
        context_window: tokens(settings, &["n_ctx"]),
        tools: flag(caps, &["supports_tools", "supports_tool_calls"]),
        images: body.pointer("/modalities/vision").and_then(Value::as_bool),
        ..Facts::default()
    })
}

fn json(body: &[u8]) -> Result<Value, NoList> {
    serde_json::from_slice(body).map_err(|_| NoList)
}

fn list<'a>(entries: impl IntoIterator<Item = &'a Value>, facts: impl Fn(&Value) -> Facts) -> Vec<Listed> {
    let entries = entries.into_iter().take(MODELS_MAX);
    let listed = entries.filter_map(|entry| {
        let id = name(entry, "id")?;
        let title = text(entry, "display_name").or_else(|| text(entry, "name")).filter(|title| *title != id);
        Some(Listed { title, facts: facts(entry), id })
    });
    listed.collect()
}

/// A text that may be shown on one line.
fn text(value: &Value, key: &str) -> Option<String> {
    let text = value.get(key)?.as_str()?.trim();
    (!text.is_empty() && text.len() <= ID_BYTES_MAX && !text.contains(char::is_control)).then(|| text.to_owned())
}

fn name(value: &Value, key: &str) -> Option<String> {
    text(value, key).filter(|name| !name.contains(char::is_whitespace))
}

fn plausible(tokens: u64) -> bool {
    (1..TOKENS_MAX).contains(&tokens)
}

fn tokens(value: &Value, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| value.get(key)?.as_u64().filter(|number| plausible(*number)))
}

fn flag(value: &Value, keys: &[&str]) -> Option<bool> {
    keys.iter().find_map(|key| value.get(key)?.as_bool())
}

/// Whether an array of words has that one; unknown if there is none.
fn contains(value: Option<&Value>, word: &str) -> Option<bool> {
    value?.as_array().map(|words| words.iter().any(|found| found.as_str() == Some(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_is_said_to_be_none() {
        for body in [&b""[..], b"<html>", b"{}", b"[1", br#"{"error":{"message":"no"}}"#, br#"{"data":{}}"#, b"7"] {
            assert_eq!(openai(body), Err(NoList));
            assert_eq!(anthropic(body), Err(NoList));
            assert_eq!(lm_studio(body), Err(NoList));
            assert_eq!(ollama_tags(body), Err(NoList));
            assert_eq!(ollama_show(body, None), Err(NoList));
            assert_eq!(llama_props(body), Err(NoList));
            assert!(ollama_loaded(body).is_empty());
        }
        assert_eq!(gemini(b"{}").unwrap(), Page { models: vec![], next: None });
        assert_eq!(gemini(br#"{"error":{}}"#), Err(NoList));
        assert_eq!(gemini(b"[]"), Err(NoList));
    }

    #[test]
    fn odd_entries_are_left_out_and_odd_fields_are_unknown() {
        let body = br#"{"data":[7,{"id":""},{"id":"a b"},{"id":"x\u0007"},{"object":"model"},
            {"id":"ok","context_length":"many","max_model_len":-1,"supports_tools":"yes","capabilities":["vision"]},
            {"id":"zero","context_length":0,"top_provider":null}]}"#;
        let listed = openai(body).unwrap();
        assert_eq!(listed.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["ok", "zero"]);
        assert!(listed.iter().all(|model| model.facts == Facts::default()));
    }

    #[test]
    fn ollamas_window_is_what_it_is_set_to() {
        let body = |parameters: &str| {
            format!(r#"{{"parameters":"{parameters}","model_info":{{"llama.context_length":131072}}}}"#).into_bytes()
        };
        let window = |body: &[u8], loaded| ollama_show(body, loaded).unwrap();
        assert_eq!(window(&body("stop \\\"x\\\"\\nnum_ctx      65536"), None).context_window, Some(65_536));
        assert_eq!(window(&body("num_ctx 65536"), Some(4096)).context_window, Some(4096));
        let unset = window(&body("temperature 1"), None);
        assert_eq!((unset.context_window, unset.context_window_max), (None, Some(131_072)));
    }
}
