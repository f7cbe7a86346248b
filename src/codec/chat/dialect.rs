//! The dialect table: what each Chat Completions host wants to be said differently. PURE.

/// How one host speaks Chat Completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Name used in the configuration.
    pub name: &'static str,
}

/// The table.
pub const DIALECTS: &[Dialect] = &[
    Dialect { name: "openai" },
    Dialect { name: "deepseek" },
    Dialect { name: "moonshot" },
    Dialect { name: "zai" },
    Dialect { name: "qwen" },
    Dialect { name: "minimax" },
    Dialect { name: "mimo" },
    Dialect { name: "stepfun" },
    Dialect { name: "openrouter" },
    Dialect { name: "opencode" },
    Dialect { name: "vllm" },
    Dialect { name: "llamacpp" },
    Dialect { name: "ollama" },
    Dialect { name: "lmstudio" },
    Dialect { name: "groq" },
    Dialect { name: "cerebras" },
    Dialect { name: "nvidia" },
    Dialect { name: "xai" },
    Dialect { name: "mistral" },
    Dialect { name: "gemini-openai" },
    Dialect { name: "siliconflow" },
    Dialect { name: "generic" },
];

impl Dialect {
    /// The dialect of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        DIALECTS.iter().find(|d| d.name == name)
    }
}
