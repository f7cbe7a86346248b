//! The dialect table: what each Chat Completions host wants to be said differently. PURE.
//!
//! Everything host-specific of this protocol is a field here; `request.rs` and `stream.rs` know no host by name. Each
//! row names its sources. A host without a row is spoken to as `generic`: only what every server understands.

use crate::codec::effort;

/// How one host speaks Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Name used in the configuration.
    pub name: &'static str,
    /// Host names that speak it: equal, or a domain above.
    pub hosts: &'static [&'static str],
    /// Where the row's facts come from, and when they were read.
    pub source: &'static str,
    /// How thinking is switched on and off.
    pub thinking: Thinking,
    /// Values of `reasoning_effort` (or of OpenRouter's `reasoning.effort`), weakest first; empty: never sent.
    pub efforts: &'static [&'static str],
    /// Parts of model names that take an effort at all; empty: every model of the host.
    pub effort_models: &'static [&'static str],
    /// What happens to thoughts of earlier answers.
    pub thoughts_back: ThoughtsBack,
    /// On which assistant messages thoughts go back.
    pub thoughts_on: ThoughtsOn,
    /// The host refuses an assistant message with calls that lacks its thoughts while thinking is on.
    pub thoughts_required: bool,
    /// The answer's text begins inside a thought whose opening tag stood in the prompt.
    pub thoughts_unopened: bool,
    /// `reasoning_details` may repeat the text so far in every chunk.
    pub details_cumulative: bool,
    /// Calls carry `extra_content` with a signature that must come back; a call from elsewhere gets a stand-in.
    pub signatures: bool,
    /// The role `developer` exists.
    pub developer_role: bool,
    /// System messages must open the conversation, as one.
    pub system_first: bool,
    /// A user message may follow a tool's result.
    pub user_after_tool: bool,
    /// An assistant message without text may say `"content":null`; otherwise it says `""`.
    pub null_content: bool,
    /// Key of the output limit.
    pub max_tokens: MaxTokens,
    /// `stream_options.include_usage` exists.
    pub stream_options: bool,
    /// Which tool choices exist.
    pub tool_choice: Choice,
    /// The word for "some tool must be called".
    pub required_word: &'static str,
    /// `parallel_tool_calls` exists.
    pub parallel_tool_calls: bool,
    /// `strict` exists on functions.
    pub strict: bool,
    /// How far the form of an answer can be asked for.
    pub format: FormatSupport,
    /// Longest tool name in bytes.
    pub tool_name_max: usize,
    /// Which ids calls may have.
    pub call_ids: CallIds,
    /// `verbosity` exists.
    pub verbosity: bool,
    /// `service_tier` exists.
    pub service_tier: bool,
    /// `prompt_cache_key` exists.
    pub prompt_cache_key: bool,
    /// `temperature` and `top_p` are taken.
    pub sampling: bool,
    /// Stream the arguments of calls (`tool_stream`), which this host otherwise sends whole and late.
    pub tool_stream: bool,
    /// Ask for thoughts apart from the text (`reasoning_split`).
    pub reasoning_split: bool,
}

/// How thinking is switched on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// Not at all, or only by an effort of `none` if the ladder has it.
    Effort,
    /// `thinking: {type: enabled | disabled}`.
    Type,
    /// The same, with `clear_thinking: false`, so that earlier thoughts are kept.
    TypeKept,
    /// `thinking: {type: adaptive | disabled}`.
    TypeAdaptive,
    /// `enable_thinking: bool`.
    Enable,
    /// `chat_template_kwargs`, sent only to switch off: some servers refuse the key for models without a template.
    TemplateKwargs,
    /// `reasoning: {effort}` or `{enabled: false}`.
    Reasoning,
}

/// In which field thoughts of earlier answers go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThoughtsBack {
    /// Nowhere.
    Never,
    /// `reasoning_content`.
    ReasoningContent,
    /// `reasoning`.
    Reasoning,
    /// `reasoning_details`, entry for entry; thoughts that came as tags go back as tags.
    Details,
    /// In the field in which they came.
    AsReceived,
}

/// Which assistant messages carry their thoughts back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThoughtsOn {
    /// Those with calls.
    Calls,
    /// All.
    All,
}

/// Key of the output limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

/// Which values `tool_choice` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// The key is refused, or knows only `auto`.
    Auto,
    /// `auto` and `none`.
    None,
    /// Those and "some tool".
    Required,
    /// Those and one tool by name.
    Named,
}

/// How far the form of an answer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FormatSupport {
    /// Only in words.
    Instruction,
    /// `response_format: {type: json_object}`, the schema in words.
    Object,
    /// `response_format: {type: json_schema}`.
    Schema,
}

/// Which ids calls may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallIds {
    /// Any text.
    Any,
    /// At most so many bytes.
    UpTo(usize),
    /// Exactly nine of `[A-Za-z0-9]`.
    Alnum9,
}

/// What every server understands; the rows below say where they differ.
const GENERIC: Dialect = Dialect {
    name: "generic",
    hosts: &[],
    source: "what all rows have in common",
    thinking: Thinking::Effort,
    efforts: &[],
    effort_models: &[],
    thoughts_back: ThoughtsBack::AsReceived,
    thoughts_on: ThoughtsOn::Calls,
    thoughts_required: false,
    thoughts_unopened: false,
    details_cumulative: false,
    signatures: false,
    developer_role: false,
    system_first: true,
    user_after_tool: true,
    null_content: false,
    max_tokens: MaxTokens::MaxTokens,
    stream_options: true,
    tool_choice: Choice::Required,
    required_word: "required",
    parallel_tool_calls: false,
    strict: false,
    format: FormatSupport::Object,
    tool_name_max: 64,
    call_ids: CallIds::Any,
    verbosity: false,
    service_tier: false,
    prompt_cache_key: false,
    sampling: true,
    tool_stream: false,
    reasoning_split: false,
};

/// The table.
pub const DIALECTS: &[Dialect] = &[
    Dialect {
        name: "openai",
        hosts: &["api.openai.com", "openai.azure.com"],
        source: "https://platform.openai.com/docs/api-reference/chat/create (call ids: 40 characters, by its 400)",
        efforts: &["none", "minimal", "low", "medium", "high", "xhigh"],
        effort_models: &["o1", "o3", "o4", "gpt-5", "gpt-6"],
        thoughts_back: ThoughtsBack::Never,
        developer_role: true,
        system_first: false,
        null_content: true,
        max_tokens: MaxTokens::MaxCompletionTokens,
        tool_choice: Choice::Named,
        parallel_tool_calls: true,
        strict: true,
        format: FormatSupport::Schema,
        call_ids: CallIds::UpTo(40),
        verbosity: true,
        service_tier: true,
        prompt_cache_key: true,
        ..GENERIC
    },
    Dialect {
        name: "deepseek",
        hosts: &["api.deepseek.com"],
        source: "https://api-docs.deepseek.com/guides/thinking_mode, read 2026-11-21: thinking on by default; efforts low, \
                 high, max; thoughts of answers with calls must come back in all later requests, others are ignored",
        thinking: Thinking::Type,
        efforts: &["low", "high", "max"],
        thoughts_back: ThoughtsBack::ReasoningContent,
        thoughts_on: ThoughtsOn::All,
        thoughts_required: true,
        system_first: false,
        tool_choice: Choice::Named,
        ..GENERIC
    },
    Dialect {
        name: "moonshot",
        hosts: &["api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): thoughts are kept on messages with calls",
        thinking: Thinking::Type,
        thoughts_back: ThoughtsBack::ReasoningContent,
        thoughts_required: true,
        system_first: false,
        tool_choice: Choice::None,
        prompt_cache_key: true,
        ..GENERIC
    },
    Dialect {
        name: "zai",
        hosts: &["api.z.ai", "open.bigmodel.cn"],
        source: "https://java.agentscope.io/v2/en/integration/model/glm and \
                 https://docs.rs/crate/opencrabs/0.5.1/source/src/brain/provider/glm_reasoning.rs, read 2026-11-21: \
                 strict and stream_options removed, only max_tokens, only tool_choice auto, tool_stream or arguments \
                 come as one late chunk, clear_thinking false, efforts low/high/max from GLM-5.2",
        thinking: Thinking::TypeKept,
        efforts: &["low", "high", "max"],
        effort_models: &["glm-5.2", "glm-5.3", "glm-6"],
        thoughts_back: ThoughtsBack::ReasoningContent,
        thoughts_on: ThoughtsOn::All,
        system_first: false,
        stream_options: false,
        tool_choice: Choice::Auto,
        tool_stream: true,
        ..GENERIC
    },
    Dialect {
        name: "qwen",
        hosts: &["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): enable_thinking, reasoning_content",
        thinking: Thinking::Enable,
        thoughts_back: ThoughtsBack::Never,
        tool_choice: Choice::None,
        ..GENERIC
    },
    Dialect {
        name: "minimax",
        hosts: &["api.minimax.io", "api.minimaxi.com", "api.minimax.chat"],
        source: "https://platform.minimax.io/docs/api-reference/text-openai-api and \
                 https://java.agentscope.io/v2/en/integration/model/minimax, read 2026-11-21: reasoning_split, the whole \
                 assistant message comes back, max_completion_tokens, no tool_choice nor response_format",
        thinking: Thinking::TypeAdaptive,
        thoughts_back: ThoughtsBack::Details,
        thoughts_on: ThoughtsOn::All,
        details_cumulative: true,
        max_tokens: MaxTokens::MaxCompletionTokens,
        tool_choice: Choice::Auto,
        format: FormatSupport::Instruction,
        reasoning_split: true,
        ..GENERIC
    },
    Dialect {
        name: "mimo",
        hosts: &["api.xiaomimimo.com", "xiaomimimo.com"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): thinking.type, reasoning_content must come back",
        thinking: Thinking::Type,
        thoughts_back: ThoughtsBack::ReasoningContent,
        thoughts_required: true,
        max_tokens: MaxTokens::MaxCompletionTokens,
        tool_choice: Choice::Auto,
        ..GENERIC
    },
    Dialect {
        name: "stepfun",
        hosts: &["api.stepfun.com", "api.stepfun.ai"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): efforts low/high on 2603 and 3.7-flash, `reasoning`",
        efforts: &["low", "high"],
        effort_models: &["2603", "3.7-flash"],
        thoughts_back: ThoughtsBack::Never,
        ..GENERIC
    },
    Dialect {
        name: "openrouter",
        hosts: &["openrouter.ai"],
        source: "https://openrouter.ai/docs/use-cases/reasoning-tokens (read 2026-11-20): reasoning.effort without \
                 max; reasoning_details come back unmodified and in order",
        thinking: Thinking::Reasoning,
        efforts: &["minimal", "low", "medium", "high", "xhigh"],
        thoughts_back: ThoughtsBack::AsReceived,
        thoughts_on: ThoughtsOn::All,
        system_first: false,
        null_content: true,
        tool_choice: Choice::Named,
        parallel_tool_calls: true,
        strict: true,
        format: FormatSupport::Schema,
        verbosity: true,
        ..GENERIC
    },
    Dialect {
        name: "opencode",
        hosts: &["opencode.ai"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): reasoning_effort with a ladder per model",
        efforts: &["low", "medium", "high", "max"],
        thoughts_back: ThoughtsBack::AsReceived,
        thoughts_on: ThoughtsOn::All,
        ..GENERIC
    },
    Dialect {
        name: "vllm",
        hosts: &[],
        source: "https://docs.vllm.ai/en/v0.20.1/api/vllm/reasoning/qwen3_reasoning_parser/ and \
                 https://github.com/tidyverse/ellmer/issues/1004, read 2026-11-21: enable_thinking in \
                 chat_template_kwargs; newer versions know only `reasoning`",
        thinking: Thinking::TemplateKwargs,
        efforts: &["low", "medium", "high"],
        tool_choice: Choice::Named,
        parallel_tool_calls: true,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "generic-think",
        source: "https://docs.vllm.ai/en/v0.20.1/api/vllm/reasoning/qwen3_reasoning_parser/, read 2026-11-21: templates \
                 that put the opening tag into the prompt, on a server without a reasoning parser",
        thinking: Thinking::TemplateKwargs,
        thoughts_back: ThoughtsBack::Never,
        thoughts_unopened: true,
        ..GENERIC
    },
    Dialect {
        name: "llamacpp",
        hosts: &[],
        source: "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md by way of \
                 https://pypi.org/project/langchain-llama-cpp/, read 2026-11-21: reasoning_content, \
                 chat_template_kwargs; a named tool_choice is silently taken for auto",
        thinking: Thinking::TemplateKwargs,
        tool_choice: Choice::Required,
        parallel_tool_calls: true,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "ollama",
        hosts: &["ollama.com"],
        source: "https://github.com/ollama/ollama/pull/14821, read 2026-11-21: reasoning_effort high/medium/low/none on \
                 /v1; `think` is not a field there",
        efforts: &["none", "low", "medium", "high"],
        tool_choice: Choice::Auto,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "lmstudio",
        hosts: &[],
        source: "https://github.com/tidyverse/ellmer/issues/1004, read 2026-11-21: reasoning_content only",
        thoughts_back: ThoughtsBack::ReasoningContent,
        tool_choice: Choice::Required,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "groq",
        hosts: &["api.groq.com"],
        source: "https://console.groq.com/docs/reasoning, read 2026-11-21: with tools, thoughts are parsed by default and \
                 reasoning_format raw is a 400, so it is not sent; efforts low/medium/high on gpt-oss",
        efforts: &["low", "medium", "high"],
        effort_models: &["gpt-oss"],
        thoughts_back: ThoughtsBack::Reasoning,
        tool_choice: Choice::Named,
        max_tokens: MaxTokens::MaxCompletionTokens,
        parallel_tool_calls: true,
        format: FormatSupport::Instruction,
        ..GENERIC
    },
    Dialect {
        name: "cerebras",
        hosts: &["api.cerebras.ai"],
        source: "https://inference-docs.cerebras.ai/capabilities/reasoning and \
                 https://docs.rs/crate/harn-vm/0.8.78/source/src/llm/capability_sources/20-providers/80-cerebras.toml, \
                 read 2026-11-21: `reasoning`, efforts low/medium/high on gpt-oss (none is refused there)",
        efforts: &["low", "medium", "high"],
        effort_models: &["gpt-oss"],
        thoughts_back: ThoughtsBack::Reasoning,
        max_tokens: MaxTokens::MaxCompletionTokens,
        tool_choice: Choice::None,
        format: FormatSupport::Instruction,
        ..GENERIC
    },
    Dialect {
        name: "nvidia",
        hosts: &["integrate.api.nvidia.com"],
        source: "https://build.nvidia.com/nvidia/nemotron-3-ultra-550b-a55b, read 2026-11-21: \
                 chat_template_kwargs.enable_thinking, reasoning_content",
        thinking: Thinking::TemplateKwargs,
        tool_choice: Choice::Required,
        ..GENERIC
    },
    Dialect {
        name: "xai",
        hosts: &["api.x.ai"],
        source: "https://newreleases.io/project/github/vercel/ai/release/@ai-sdk%2Fxai@4.0.0-canary.61, read 2026-11-21: \
                 grok-4.3 takes none/low/medium/high, other models refuse the key",
        efforts: &["none", "low", "medium", "high"],
        effort_models: &["grok-4.3", "grok-latest"],
        thoughts_back: ThoughtsBack::Never,
        system_first: false,
        null_content: true,
        tool_choice: Choice::Named,
        parallel_tool_calls: true,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "mistral",
        hosts: &["api.mistral.ai"],
        source: "https://docs.mistral.ai/studio-api/conversations/reasoning, \
                 https://docs.rs/crate/mistral-openapi-client/latest/source/docs/ThinkChunk.md, \
                 https://github.com/zed-industries/zed/issues/37021, read 2026-11-21: reasoning_effort on small and \
                 medium 3.5; thinking parts in content; no user message after a tool's (code 3230); ids of nine (3280)",
        efforts: &["none", "high"],
        effort_models: &["mistral-small", "mistral-medium-3"],
        thoughts_back: ThoughtsBack::Never,
        user_after_tool: false,
        stream_options: false,
        tool_choice: Choice::Named,
        required_word: "any",
        parallel_tool_calls: true,
        format: FormatSupport::Schema,
        call_ids: CallIds::Alnum9,
        ..GENERIC
    },
    Dialect {
        name: "gemini-openai",
        hosts: &["generativelanguage.googleapis.com", "aiplatform.googleapis.com"],
        source: "https://ai.google.dev/gemini-api/docs/openai and https://github.com/noho/dayu-agent/issues/45, read \
                 2026-11-21: tool calls without index; extra_content.google (on Vertex: .vertex) .thought_signature must \
                 come back on the call",
        efforts: &["minimal", "low", "medium", "high"],
        thoughts_back: ThoughtsBack::Never,
        signatures: true,
        tool_choice: Choice::Named,
        format: FormatSupport::Schema,
        ..GENERIC
    },
    Dialect {
        name: "siliconflow",
        hosts: &["api.siliconflow.com", "api.siliconflow.cn", "api-inference.modelscope.cn"],
        source: "the provider table of CC Switch (github.com/farion1231/cc-switch, codex.rs, read 2026-11-20): enable_thinking, reasoning_content",
        thinking: Thinking::Enable,
        tool_choice: Choice::Auto,
        ..GENERIC
    },
    GENERIC,
];

impl Dialect {
    /// The dialect of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.name == name)
    }

    /// The dialect that a host is known to speak; `generic` for all others, local servers among them.
    pub fn for_host(host: &str) -> &'static Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let speaks = |known: &&str| {
            host.strip_suffix(*known).is_some_and(|above| above.is_empty() || above.ends_with('.'))
                // Regional endpoints: `us-central1-aiplatform.googleapis.com`.
                || (known.starts_with("aiplatform.") && host.ends_with(&format!("-{known}")))
        };
        DIALECTS.iter().find(|d| d.hosts.iter().any(&speaks)).unwrap_or(&GENERIC)
    }

    /// Whether `model` takes an effort.
    pub fn takes_effort(&self, model: &str) -> bool {
        let model = model.to_ascii_lowercase();
        !self.efforts.is_empty()
            && (self.effort_models.is_empty() || self.effort_models.iter().any(|part| model.contains(part)))
    }

    /// The ladder's step for an effort: the same word, or the nearest step, towards `high` if two are as near; `None` if
    /// the word is unknown or the ladder empty. `none` never becomes a step that thinks.
    pub fn effort(&self, wanted: &str) -> Option<&'static str> {
        effort::nearest(self.efforts, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_names_its_source() {
        for (i, row) in DIALECTS.iter().enumerate() {
            assert_eq!(DIALECTS.iter().position(|d| d.name == row.name), Some(i));
            assert!(!row.source.is_empty() && row.tool_name_max >= 16, "{}", row.name);
            assert!(row.efforts.iter().all(|e| effort::rank(e).is_some()), "{}", row.name);
        }
    }

    #[test]
    fn hosts_are_known_by_domain() {
        for (host, name) in [
            ("api.deepseek.com", "deepseek"),
            ("OpenRouter.ai", "openrouter"),
            ("my.openai.azure.com", "openai"),
            ("us-central1-aiplatform.googleapis.com", "gemini-openai"),
            ("notopenrouter.ai", "generic"),
            ("localhost", "generic"),
        ] {
            assert_eq!(Dialect::for_host(host).name, name, "{host}");
        }
    }

    #[test]
    fn efforts_are_clamped_to_the_ladder() {
        let step = |dialect: &str, wanted| Dialect::named(dialect).unwrap().effort(wanted);
        // DeepSeek's own mapping, as its page gives it.
        let mapping = [("minimal", "low"), ("low", "low"), ("medium", "high"), ("xhigh", "high"), ("ultra", "max")];
        for (wanted, sent) in mapping {
            assert_eq!(step("deepseek", wanted), Some(sent), "{wanted}");
        }
        assert_eq!(step("openrouter", "max"), Some("xhigh"));
        assert_eq!(step("mistral", "low"), Some("high"));
        assert_eq!(step("deepseek", "none"), None);
        assert_eq!(step("xai", "none"), Some("none"));
        assert_eq!(step("openai", "turbo"), None);
        assert!(Dialect::named("xai").unwrap().takes_effort("Grok-4.3-fast"));
        assert!(!Dialect::named("xai").unwrap().takes_effort("grok-4"));
    }
}
