//! The preset table: what is known of a provider, so that a configuration needs only a name and a key. PURE.
//!
//! Any key of a provider's configuration overrides its preset. Base URLs were read in the providers' documentation or
//! in that of programs that use them, 2026-11; a row marked *unverified* rests on one second-hand source.
//!
//! A row whose protocol has no codec yet stands here all the same: `provider.rs` refuses it by that protocol, so it
//! comes to life with the codec.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::nearest::hint;
use crate::codec::listing::Listing;

/// Protocols that are designed but have no codec yet.
pub(super) const PROTOCOLS_NOT_BUILT: &[&str] = &["code-assist", "command-code", "codebuff"];

/// What is known of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Name used in the configuration.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// Where it listens; the protocol's own path (`/chat/completions`) follows.
    pub base_url: &'static str,
    /// What it is spoken to in, by the name in the configuration.
    pub protocol: &'static str,
    /// Its row of the dialect table, for where it is spoken to in `chat`.
    pub dialect: &'static str,
    /// The environment variable in which its key usually stands; empty for those without a key.
    pub key_variable: &'static str,
    /// Whether it answers nothing without a key.
    pub needs_key: bool,
    /// Whether its current models commonly take pictures; a model's own setting overrides it.
    pub images: bool,
    /// How it says which models it has.
    pub listing: Listing,
    /// Of the Responses API, where it is spoken to in that, it knows function tools only.
    pub functions_only: bool,
}

impl Preset {
    /// The preset of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The path a bare host of that dialect gets: that of the dialect's first row; none for `generic`.
    pub fn path_for_dialect(dialect: &str) -> &'static str {
        let row = PRESETS.iter().find(|preset| preset.dialect == dialect && dialect != "generic");
        row.map_or("", Self::path)
    }

    /// The path of the base URL, `/v1`; empty if it has none.
    pub fn path(&self) -> &'static str {
        let host = self.base_url.split_once("://").map_or(self.base_url, |(_, rest)| rest);
        host.find('/').map_or("", |at| &host[at..])
    }

    /// Whether its protocol has a codec.
    pub fn is_built(&self) -> bool {
        !PROTOCOLS_NOT_BUILT.contains(&self.protocol)
    }

    /// Another preset, whose protocol is built, for the same key.
    pub fn stand_in(&self) -> Option<&'static Self> {
        let same_key = |other: &&Self| !other.key_variable.is_empty() && other.key_variable == self.key_variable;
        PRESETS.iter().find(|other| same_key(other) && other.is_built())
    }

    /// Why there is no preset of that name, and what to write instead.
    pub fn unknown(name: &str) -> String {
        format!(
            "no such preset; {}",
            hint(name, PRESETS.iter().filter(|preset| preset.is_built()).map(|preset| preset.name))
        )
    }
}

/// One that speaks Chat Completions, with a key.
const fn hosted(
    name: &'static str,
    title: &'static str,
    base_url: &'static str,
    dialect: &'static str,
    key_variable: &'static str,
    images: bool,
) -> Preset {
    let (protocol, listing, functions_only) = ("chat", Listing::OpenAi, false);
    Preset { name, title, base_url, protocol, dialect, key_variable, needs_key: true, images, listing, functions_only }
}

/// One that speaks a protocol of its own; without a variable it wants a login instead of a key.
const fn native(
    name: &'static str,
    title: &'static str,
    base_url: &'static str,
    protocol: &'static str,
    key_variable: &'static str,
    listing: Listing,
) -> Preset {
    let (dialect, needs_key, functions_only) = ("generic", !key_variable.is_empty(), false);
    Preset { name, title, base_url, protocol, dialect, key_variable, needs_key, images: true, listing, functions_only }
}

const fn local(
    name: &'static str,
    title: &'static str,
    base_url: &'static str,
    dialect: &'static str,
    listing: Listing,
    functions_only: bool,
) -> Preset {
    // Whether a local model takes pictures depends on what the user loaded: off until the server or the model says so.
    let (protocol, key_variable, needs_key, images) = ("chat", "", false, false);
    Preset { name, title, base_url, protocol, dialect, key_variable, needs_key, images, listing, functions_only }
}

/// The table. The first row of a dialect gives its usual path.
#[rustfmt::skip]
pub const PRESETS: &[Preset] = &[
    // name, title, base URL, dialect, key variable, pictures
    hosted("openai-chat", "OpenAI (Chat Completions)", "https://api.openai.com/v1", "openai", "OPENAI_API_KEY", true),
    // api-docs.deepseek.com: `/v1` is accepted too and means nothing.
    hosted("deepseek", "DeepSeek", "https://api.deepseek.com", "deepseek", "DEEPSEEK_API_KEY", false),
    // platform.kimi.ai; accounts and keys of the two regions are apart.
    hosted("moonshot", "Moonshot AI (Kimi)", "https://api.moonshot.ai/v1", "moonshot", "MOONSHOT_API_KEY", true),
    hosted("moonshot-cn", "Moonshot AI (Kimi), China", "https://api.moonshot.cn/v1", "moonshot", "MOONSHOT_API_KEY", true),
    // docs.z.ai/devpack: the coding plan has an address of its own and is meant for the tools its terms list.
    hosted("zai", "Z.ai (GLM)", "https://api.z.ai/api/paas/v4", "zai", "ZAI_API_KEY", false),
    hosted("zai-coding", "Z.ai GLM Coding Plan", "https://api.z.ai/api/coding/paas/v4", "zai", "ZAI_API_KEY", false),
    // docs.bigmodel.cn; unverified.
    hosted("zhipu", "Zhipu (GLM), China", "https://open.bigmodel.cn/api/paas/v4", "zai", "ZHIPU_API_KEY", false),
    // help.aliyun.com/model-studio/base-url; newer accounts have an address per workspace: set base_url.
    hosted("qwen", "Alibaba Model Studio (Qwen), Singapore", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen", "DASHSCOPE_API_KEY", false),
    hosted("qwen-cn", "Alibaba Model Studio (Qwen), China", "https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen", "DASHSCOPE_API_KEY", false),
    hosted("qwen-us", "Alibaba Model Studio (Qwen), US", "https://dashscope-us.aliyuncs.com/compatible-mode/v1", "qwen", "DASHSCOPE_API_KEY", false),
    // api-inference.modelscope.cn; unverified.
    hosted("modelscope", "ModelScope", "https://api-inference.modelscope.cn/v1", "qwen", "MODELSCOPE_API_KEY", false),
    // docs.siliconflow.com; unverified.
    hosted("siliconflow", "SiliconFlow", "https://api.siliconflow.com/v1", "siliconflow", "SILICONFLOW_API_KEY", false),
    hosted("siliconflow-cn", "SiliconFlow, China", "https://api.siliconflow.cn/v1", "siliconflow", "SILICONFLOW_API_KEY", false),
    // platform.minimax.io and platform.minimaxi.com, "OpenAI API".
    hosted("minimax", "MiniMax", "https://api.minimax.io/v1", "minimax", "MINIMAX_API_KEY", false),
    hosted("minimax-cn", "MiniMax, China", "https://api.minimaxi.com/v1", "minimax", "MINIMAX_API_KEY", false),
    // platform.xiaomimimo.com, "First API Call"; plan keys (`tp-…`) belong to the plan's address.
    hosted("mimo", "Xiaomi MiMo", "https://api.xiaomimimo.com/v1", "mimo", "MIMO_API_KEY", false),
    hosted("mimo-plan", "Xiaomi MiMo Token Plan, Singapore", "https://token-plan-sgp.xiaomimimo.com/v1", "mimo", "MIMO_API_KEY", false),
    hosted("mimo-plan-cn", "Xiaomi MiMo Token Plan, China", "https://token-plan-cn.xiaomimimo.com/v1", "mimo", "MIMO_API_KEY", false),
    // platform.stepfun.ai and .com; keys of the two regions are apart.
    hosted("stepfun", "StepFun", "https://api.stepfun.ai/v1", "stepfun", "STEPFUN_API_KEY", false),
    hosted("stepfun-cn", "StepFun, China", "https://api.stepfun.com/v1", "stepfun", "STEPFUN_API_KEY", false),
    hosted("stepfun-plan", "StepFun Step Plan", "https://api.stepfun.ai/step_plan/v1", "stepfun", "STEPFUN_API_KEY", false),
    hosted("openrouter", "OpenRouter", "https://openrouter.ai/api/v1", "openrouter", "OPENROUTER_API_KEY", true),
    // opencode.ai/docs/zen: of its models, those it serves under /chat/completions.
    hosted("opencode", "OpenCode Zen", "https://opencode.ai/zen/v1", "opencode", "OPENCODE_API_KEY", false),
    hosted("opencode-go", "OpenCode Go", "https://opencode.ai/zen/go/v1", "opencode", "OPENCODE_API_KEY", false),
    hosted("nvidia", "NVIDIA NIM", "https://integrate.api.nvidia.com/v1", "nvidia", "NVIDIA_API_KEY", false),
    hosted("groq", "Groq", "https://api.groq.com/openai/v1", "groq", "GROQ_API_KEY", false),
    hosted("cerebras", "Cerebras", "https://api.cerebras.ai/v1", "cerebras", "CEREBRAS_API_KEY", false),
    hosted("xai", "xAI (Grok)", "https://api.x.ai/v1", "xai", "XAI_API_KEY", true),
    hosted("mistral", "Mistral", "https://api.mistral.ai/v1", "mistral", "MISTRAL_API_KEY", true),
    hosted("together", "Together AI", "https://api.together.xyz/v1", "generic", "TOGETHER_API_KEY", false),
    hosted("fireworks", "Fireworks AI", "https://api.fireworks.ai/inference/v1", "generic", "FIREWORKS_API_KEY", false),
    hosted("huggingface", "Hugging Face Inference Providers", "https://router.huggingface.co/v1", "generic", "HF_TOKEN", false),
    // Unverified.
    hosted("nous", "Nous Research", "https://inference-api.nousresearch.com/v1", "generic", "NOUS_API_KEY", false),
    hosted("perplexity", "Perplexity", "https://api.perplexity.ai", "generic", "PERPLEXITY_API_KEY", false),
    // docs.cohere.com, "Compatibility API".
    hosted("cohere", "Cohere", "https://api.cohere.ai/compatibility/v1", "generic", "COHERE_API_KEY", false),
    // ai.google.dev/gemini-api/docs/openai.
    hosted("gemini-openai", "Google Gemini (OpenAI-compatible)", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-openai", "GEMINI_API_KEY", true),
    // Modelled on OpenRouter, says its documentation.
    hosted("kilo", "Kilo Gateway", "https://api.kilo.ai/api/gateway", "openrouter", "KILO_API_KEY", true),
    // Its documented Provider API; Claude models are refused on this path, and so is the plan "Go".
    hosted("commandcode", "Command Code Provider API", "https://api.commandcode.ai/provider/v1", "generic", "COMMANDCODE_API_KEY", false),
    // Unverified.
    hosted("crof", "CrofAI", "https://crof.ai/v1", "generic", "CROF_API_KEY", false),
    hosted("ocenza", "Ocenza", "https://global.ocenza.com/v1", "generic", "OCENZA_API_KEY", false),
    hosted("openadapter", "OpenAdapter", "https://api.openadapter.in/v1", "generic", "OPENADAPTER_API_KEY", false),
    // By their own protocols.
    native("openai", "OpenAI", "https://api.openai.com/v1", "responses", "OPENAI_API_KEY", Listing::OpenAi),
    // platform.claude.com/docs/en/api.
    native("anthropic", "Anthropic (Claude)", "https://api.anthropic.com/v1", "messages", "ANTHROPIC_API_KEY", Listing::Anthropic),
    // ai.google.dev/api.
    native("gemini", "Google Gemini", "https://generativelanguage.googleapis.com/v1beta", "gemini", "GEMINI_API_KEY", Listing::Gemini),
    // opencode.ai/docs/zen: of its models, those it serves under /messages.
    native("opencode-messages", "OpenCode Zen (Claude)", "https://opencode.ai/zen/v1", "messages", "OPENCODE_API_KEY", Listing::OpenAi),
    native("opencode-go-messages", "OpenCode Go (Messages)", "https://opencode.ai/zen/go/v1", "messages", "OPENCODE_API_KEY", Listing::OpenAi),
    // The interface of its own program.
    native("commandcode-cli", "Command Code", "https://api.commandcode.ai", "command-code", "COMMANDCODE_API_KEY", Listing::None),
    // With a login instead of a key.
    native("code-assist", "Google Code Assist", "https://cloudcode-pa.googleapis.com", "code-assist", "", Listing::None),
    native("gemini-oauth", "Google Gemini with a login (Code Assist)", "https://cloudcode-pa.googleapis.com", "code-assist", "", Listing::None),
    native("antigravity", "Google Antigravity", "https://cloudcode-pa.googleapis.com", "code-assist", "", Listing::None),
    native("codebuff", "Codebuff", "https://www.codebuff.com", "codebuff", "", Listing::None),
    native("freebuff", "Freebuff", "https://freebuff.com", "codebuff", "", Listing::None),
    // On this machine, each at its usual port. The last column: Ollama refuses custom tools (ollama/ollama issue 17673);
    // LM Studio ignores "unsupported tool type(s): custom, web_search" (openai/codex issue 22294); llama.cpp skips all
    // but functions (ggml-org/llama.cpp pull request 23041). All read 2026-11-21.
    local("ollama", "Ollama", "http://127.0.0.1:11434/v1", "ollama", Listing::Ollama, true),
    local("lmstudio", "LM Studio", "http://127.0.0.1:1234/v1", "lmstudio", Listing::LmStudio, true),
    local("vllm", "vLLM", "http://127.0.0.1:8000/v1", "vllm", Listing::Vllm, false),
    local("llamacpp", "llama.cpp server", "http://127.0.0.1:8080/v1", "llamacpp", Listing::LlamaCpp, true),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        codec::chat::dialect::Dialect,
        config::{base_url, settings::Protocol},
    };

    #[test]
    fn every_row_is_usable() {
        let mut names = BTreeSet::new();
        for preset in PRESETS {
            let Preset { name, base_url, needs_key, .. } = *preset;
            assert!(names.insert(name), "{name} stands twice");
            assert!(Dialect::named(preset.dialect).is_some(), "{name}: no dialect {}", preset.dialect);
            assert_eq!(needs_key, !preset.key_variable.is_empty(), "{name}");
            let url = base_url::normalise(base_url, "").unwrap();
            assert_eq!(url.as_str().trim_end_matches('/'), base_url, "{name} is not written in its normal form");
            let is_here = base_url::is_local(&url);
            assert_eq!(is_here, url.scheme() == "http", "{name}");
            let by_login = !needs_key && !is_here;
            assert!(!by_login || !preset.is_built(), "{name}: nothing here can log in");
            let known = Protocol::named(preset.protocol).is_some() || PROTOCOLS_NOT_BUILT.contains(&preset.protocol);
            assert!(known, "{name}: no protocol {}", preset.protocol);
        }
    }

    #[test]
    fn the_same_key_may_work_by_another_protocol() {
        let stand_in = |name| Preset::named(name).unwrap().stand_in().map(|preset| preset.name);
        assert_eq!(stand_in("commandcode-cli"), Some("commandcode"));
        assert_eq!(stand_in("codebuff"), None);
    }

    #[test]
    fn bare_hosts_get_the_path_of_their_dialect() {
        assert_eq!(Preset::path_for_dialect("vllm"), "/v1");
        assert_eq!(Preset::path_for_dialect("deepseek"), "");
        assert_eq!(Preset::path_for_dialect("zai"), "/api/paas/v4");
        assert_eq!(Preset::path_for_dialect("generic"), "");
    }
}
