//! A conversation, its tools and how to sample: the nouns of the Responses API without its bookkeeping.
//!
//! What is long stays as it stands in the request body, escapes and all ([`LazyText`]), tool schemas stay raw JSON, and
//! short words borrow from the body wherever JSON needed no unescaping: a request is not copied into a tree only to be
//! written out again.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::text::LazyText;

/// A word or two, borrowed from the request body if possible. What is long is a [`LazyText`].
pub type Text<'a> = Cow<'a, str>;

/// One request for an answer.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// The model as the client named it.
    pub model: Text<'a>,
    /// Length of the body it was read from, which is about what it takes in any other protocol.
    pub bytes: usize,
    /// Text that stands before the whole conversation, if the client sent it apart from `input`.
    pub instructions: Option<LazyText<'a>>,
    /// The conversation, oldest first.
    pub input: Vec<Item<'a>>,
    /// Every tool the model may call: namespaces flattened into their members, tools found in the history
    /// (`additional_tools`, `tool_search_output`) appended, first declaration wins.
    pub tools: Vec<Tool<'a>>,
    /// Which of them it may or must call.
    pub tool_choice: ToolChoice<'a>,
    /// Whether several calls may come in one answer.
    pub parallel_tool_calls: Option<bool>,
    /// Reasoning effort as the client named it: `low`, `medium`, `xhigh` …; an open set.
    pub effort: Option<Text<'a>>,
    /// How thoughts are to be summarised: `auto`, `concise`, `detailed`.
    pub summary: Option<Text<'a>>,
    /// `low`, `medium`, `high`.
    pub verbosity: Option<Text<'a>>,
    /// What form the answer's text must have.
    pub format: Format<'a>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1.
    pub top_p: Option<f64>,
    /// Upper bound of generated tokens.
    pub max_output_tokens: Option<u64>,
    /// Server-sent events, or one JSON object.
    pub stream: bool,
    /// What is wanted is no answer but a compaction of the conversation (`compaction_trigger`).
    pub compact: bool,
    /// Whether the client allows the exchange to be kept for `previous_response_id`.
    pub store: bool,
    /// The stored response this one continues.
    pub previous_response_id: Option<Text<'a>>,
    /// The client asked for `reasoning.encrypted_content`.
    pub include_encrypted_reasoning: bool,
    /// Stable per thread; useful for affinity of provider caches.
    pub prompt_cache_key: Option<Text<'a>>,
    /// `auto`, `default`, `flex` …
    pub service_tier: Option<Text<'a>>,
    /// Sixteen key-value pairs the client wants back.
    pub metadata: Option<&'a RawValue>,
    /// The client's id of its end user.
    pub user: Option<Text<'a>>,
}

impl Request<'_> {
    /// Whether the conversation holds data of a provider that may go back to it.
    pub fn has_opaque(&self) -> bool {
        self.input.iter().any(|item| matches!(item, Item::Reasoning { opaque: Some(_), .. }))
    }

    /// The same without it: thoughts as they were shown stay.
    pub fn without_opaque(&self) -> Self {
        let mut without = self.clone();
        for item in &mut without.input {
            if let Item::Reasoning { opaque, .. } = item {
                *opaque = None;
            }
        }
        without
    }
}

impl<'a> Request<'a> {
    /// Whether the conversation holds pictures.
    pub fn has_pictures(&self) -> bool {
        self.input.iter().flat_map(Item::parts).any(|part| matches!(part, Part::Image { .. }))
    }

    /// The same with words in the place of pictures, made from what their URL is.
    pub fn without_pictures(&self, words: impl Fn(&LazyText<'_>) -> String) -> Self {
        let mut without = self.clone();
        for item in &mut without.input {
            let (Item::Message { parts, .. } | Item::Output { parts, .. }) = item else { continue };
            for part in parts {
                if let Part::Image { url, .. } = part {
                    *part = Part::Text(words(url).into());
                }
            }
        }
        without
    }
}

impl<'a> Item<'a> {
    /// What a message or an output is made of.
    pub fn parts(&self) -> &[Part<'a>] {
        match self {
            Self::Message { parts, .. } | Self::Output { parts, .. } => parts,
            Self::Reasoning { .. } | Self::Call { .. } | Self::Hosted { .. } | Self::Compaction { .. } => &[],
        }
    }
}

/// One entry of the conversation.
#[derive(Debug, Clone)]
pub enum Item<'a> {
    /// Something said.
    Message {
        /// By whom.
        role: Role,
        /// `commentary` or `final_answer`, if the model marked it.
        phase: Option<Text<'a>>,
        /// In order.
        parts: Vec<Part<'a>>,
    },
    /// Thoughts of an earlier answer.
    Reasoning {
        /// What was shown to the user.
        summary: Vec<LazyText<'a>>,
        /// Raw thoughts in clear, if the client holds any.
        content: Vec<LazyText<'a>>,
        /// What a codec stored in `encrypted_content`, opened; absent if there was none or it was foreign.
        opaque: Option<Opaque>,
    },
    /// A tool call the model made.
    Call {
        /// Joins call and output; unique within a well-formed conversation.
        call_id: Text<'a>,
        /// What was called.
        tool: ToolRef<'a>,
        /// JSON text for a function or a tool search, free text for a custom tool.
        input: LazyText<'a>,
    },
    /// What a tool call gave.
    Output {
        /// The call it belongs to.
        call_id: Text<'a>,
        /// What kind of call it answers.
        kind: ToolKind,
        /// In order; a plain string is one text part.
        parts: Vec<Part<'a>>,
    },
    /// A call a hosted tool of some provider made and answered itself (`web_search_call` …).
    Hosted {
        /// The wire's `type`.
        kind: Text<'a>,
        /// The item as it came.
        raw: &'a RawValue,
    },
    /// A summary that stands for everything before it, and that only the host which made it can read. What was sealed
    /// here is opened when the request is read, and is a message.
    Compaction {
        /// Where its `encrypted_content` stands, in the client's terms: `input[3].encrypted_content`.
        path: String,
    },
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The platform; strongest.
    System,
    /// The program around the model.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// A piece of a message or of a tool's output.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// Plain text.
    Text(LazyText<'a>),
    /// The model declined, in these words.
    Refusal(LazyText<'a>),
    /// A picture.
    Image {
        /// `https:` or `data:` URL.
        url: LazyText<'a>,
        /// `auto`, `low`, `high`, `original`.
        detail: Option<Text<'a>>,
    },
    /// A file, an audio clip, or a part type newer than this program.
    Other {
        /// The wire's `type`.
        kind: Text<'a>,
        /// The part as it came.
        raw: &'a RawValue,
    },
}

/// Provider data that only its origin can read: signatures, raw thoughts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    /// Where it came from; it is returned nowhere else.
    pub origin: Origin,
    /// In a form that the originating codec chose.
    pub value: String,
}

/// Who can read an [`Opaque`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Provider's name in the configuration.
    pub provider: String,
    /// Model family, see [`Origin::family_of`].
    pub family: String,
}

impl Origin {
    /// Builds the origin of what `model` at `provider` says.
    pub fn new(provider: &str, model: &str) -> Self {
        Self { provider: provider.to_owned(), family: Self::family_of(model).to_owned() }
    }

    /// That of what no place is known to read.
    pub fn nobody() -> Self {
        Self { provider: String::new(), family: String::new() }
    }

    /// Whether it is [`Origin::nobody`].
    pub fn is_nobody(&self) -> bool {
        self.provider.is_empty()
    }

    /// The model's family: the letters that open the last path segment of its id.
    ///
    /// `deepseek/deepseek-v4-pro` → `deepseek`, `moonshotai/Kimi-K3` → `Kimi`, `o4-mini` → `o`.
    pub fn family_of(model: &str) -> &str {
        let last = model.rsplit('/').next().unwrap_or(model);
        let end = last.find(|c: char| !c.is_alphabetic()).unwrap_or(last.len());
        if end == 0 { last } else { &last[..end] }
    }
}

/// A tool's identity as the client knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolRef<'a> {
    /// The group it lives in (`mcp__echo`); `None` for top-level tools.
    pub namespace: Option<Text<'a>>,
    /// Its name within the group.
    pub name: Text<'a>,
    /// What the client expects a call to look like.
    pub kind: ToolKind,
}

impl ToolRef<'_> {
    /// The same, owning its text.
    pub fn into_owned(self) -> ToolRef<'static> {
        ToolRef {
            namespace: self.namespace.map(|n| Cow::Owned(n.into_owned())),
            name: Cow::Owned(self.name.into_owned()),
            kind: self.kind,
        }
    }
}

/// What a call of a tool looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToolKind {
    /// JSON arguments: `function_call`.
    Function,
    /// Free text: `custom_tool_call`.
    Custom,
    /// The client's search over deferred tools: `tool_search_call`.
    ToolSearch,
}

/// A tool declaration.
#[derive(Debug, Clone)]
pub enum Tool<'a> {
    /// One the client runs.
    Callable(CallableTool<'a>),
    /// One that some provider runs (`web_search`, `image_generation` …).
    Hosted {
        /// The wire's `type`.
        kind: Text<'a>,
        /// The declaration as it came.
        raw: &'a RawValue,
    },
}

/// A tool that the client runs.
#[derive(Debug, Clone)]
pub struct CallableTool<'a> {
    /// Its identity.
    pub tool: ToolRef<'a>,
    /// For the model.
    pub description: Option<LazyText<'a>>,
    /// JSON Schema of the arguments; absent for custom tools.
    pub parameters: Option<&'a RawValue>,
    /// Grammar of a custom tool's input: `(syntax, definition)`, e.g. `("lark", "start: …")`.
    pub grammar: Option<(Text<'a>, LazyText<'a>)>,
    /// Whether arguments must match the schema exactly.
    pub strict: Option<bool>,
}

/// Which tools the model may or must call.
#[derive(Debug, Clone, Default)]
pub enum ToolChoice<'a> {
    /// The model decides.
    #[default]
    Auto,
    /// None may be called.
    None,
    /// At least one must be called.
    Required,
    /// This one must be called.
    Named(ToolRef<'a>),
    /// Only these may be called; `required` says whether one must be.
    Allowed {
        /// The permitted ones.
        tools: Vec<ToolRef<'a>>,
        /// Whether one of them must be called.
        required: bool,
    },
}

/// What form the answer's text must have.
#[derive(Debug, Clone, Default)]
pub enum Format<'a> {
    /// Any.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that satisfies a schema.
    JsonSchema {
        /// Name of the format.
        name: Text<'a>,
        /// What it is for.
        description: Option<Text<'a>>,
        /// JSON Schema.
        schema: &'a RawValue,
        /// Whether the schema binds exactly.
        strict: Option<bool>,
    },
}

/// Something asked for that the answer will not honour in full. No request is sent with a silent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where in the request, in the client's terms: `input[3].content[1]`, `tools[4]`, `reasoning.effort`.
    pub path: String,
    /// What became of it.
    pub action: LossAction,
    /// Why, in a constant sentence.
    pub why: &'static str,
}

/// What became of something that could not pass as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossAction {
    /// Left out.
    Drop,
    /// Said in another way.
    Approximate,
}
