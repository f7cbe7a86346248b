//! A request → the body of a Chat Completions request, in the target's dialect. PURE.
//!
//! The conversation of the Responses API is a list of items; that of this protocol is a list of messages in which one
//! assistant message holds an answer's text, thoughts and calls, and each call's result follows it. So items are gathered
//! into *turns*:
//!
//! ```text
//! Reasoning, Message(assistant), Call … (one run)  ─►  one assistant message
//! the Output of each of its calls, wherever it is  ─►  one tool message each, in the order of the calls
//! pictures in those outputs                        ─►  one user message behind them
//! ```
//! Whatever stood between calls and outputs comes after them. The same request gives the same bytes, and a request that
//! only grew gives a body whose messages begin with the old ones: provider caches depend on it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{
    dialect::{CallIds, Choice, Dialect, FormatSupport, MaxTokens, Thinking, ThoughtsBack, ThoughtsOn},
    thoughts::{Field, Stored, TAGS},
    wire,
};
use crate::{
    codec::{
        EncodeError, Encoded, Target, custom,
        names::{Names, fnv1a},
    },
    model::request::{
        CallableTool, Format, Item, Loss, LossAction, Part, Request, Role, Tool, ToolChoice, ToolKind, ToolRef,
    },
};

/// Stands for the result of a call that has none.
const NO_RESULT: &str = "No result: the call was interrupted.";
/// Stands for a result without text.
const EMPTY_RESULT: &str = "(no output)";
/// Stands for a picture that the model cannot see.
const NO_PICTURE: &str = "[a picture was left out: the model takes none]";
/// Stands in a result for its pictures, which follow.
const PICTURE_BELOW: &str = "[picture: see the next user message]";
/// Introduces the pictures of tool results.
const PICTURES: &str = "Pictures from the tool results above:";
/// What the assistant says where a host allows no user message after a tool's.
const BRIDGE: &str = "Understood.";
/// The schema of a function that declares none.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;
/// What Google accepts in place of the signature of a call its model did not make
/// (research of 2026-11-20: CLIProxyAPI `internal/signature/gemini_validation.go`).
const NO_SIGNATURE: &str = r#"{"google":{"thought_signature":"skip_thought_signature_validator"}}"#;

/// Puts `request` into the words of `target`. `losses` of the result names everything that could not pass as it was.
///
/// Sealed summaries must have been opened: they stand for a whole conversation and cannot be dropped.
pub fn encode_request(request: &Request<'_>, target: &Target) -> Result<Encoded<Names>, EncodeError> {
    let names = Names::of(request, target.dialect.tool_name_max);
    let mut losses = Losses::default();
    let mut switch = thinking_switch(request, target, &mut losses);
    let (tools, tool_choice) = tools(request, target, &names, &mut losses)?;
    let (response_format, instruction) = format(request, target, &mut losses);
    let messages =
        Conversation::new(request, target, &names, &mut losses).messages(request, instruction, &mut switch)?;
    let dialect = target.dialect;

    let max_tokens = request.max_output_tokens.map(|wish| match target.max_output_tokens {
        Some(limit) if wish > limit => {
            losses.approximate("max_output_tokens", "the model allows fewer");
            limit
        }
        Some(_) | None => wish,
    });
    let takes = |yes: bool, path: &str, value: Option<&str>, losses: &mut Losses| {
        if value.is_some() && !yes {
            losses.drop(path, "the host does not know it");
        }
        yes
    };
    let verbosity = request.verbosity.as_deref();
    let verbosity = takes(dialect.verbosity, "text.verbosity", verbosity, &mut losses).then_some(verbosity).flatten();
    let tier = request.service_tier.as_deref();
    let tier = takes(dialect.service_tier, "service_tier", tier, &mut losses).then_some(tier).flatten();
    if !dialect.sampling && (request.temperature.is_some() || request.top_p.is_some()) {
        losses.drop("temperature", "the host does not know it");
    }
    let has_tools = !tools.is_empty();
    if request.parallel_tool_calls == Some(false) && has_tools && !dialect.parallel_tool_calls {
        losses.drop("parallel_tool_calls", "the host does not know it");
    }

    let body = wire::ChatRequest {
        model: &target.model,
        messages,
        tools,
        tool_choice,
        parallel_tool_calls: request.parallel_tool_calls.filter(|_| has_tools && dialect.parallel_tool_calls),
        response_format,
        reasoning_effort: switch.effort.filter(|_| dialect.thinking != Thinking::Reasoning),
        verbosity,
        temperature: request.temperature.filter(|_| dialect.sampling),
        top_p: request.top_p.filter(|_| dialect.sampling),
        max_tokens: max_tokens.filter(|_| dialect.max_tokens == MaxTokens::MaxTokens),
        max_completion_tokens: max_tokens.filter(|_| dialect.max_tokens == MaxTokens::MaxCompletionTokens),
        service_tier: tier,
        prompt_cache_key: request.prompt_cache_key.as_deref().filter(|_| dialect.prompt_cache_key),
        thinking: switch.on.and_then(|on| thinking_type(dialect, on)),
        enable_thinking: switch.on.filter(|_| dialect.thinking == Thinking::Enable),
        chat_template_kwargs: (dialect.thinking == Thinking::TemplateKwargs && switch.on == Some(false))
            .then_some(wire::TemplateKwargs { enable_thinking: false, thinking: false }),
        reasoning: (dialect.thinking == Thinking::Reasoning && switch.on.is_some()).then_some(wire::ReasoningSwitch {
            effort: switch.effort,
            enabled: switch.effort.is_none().then_some(switch.on == Some(true)),
        }),
        reasoning_split: dialect.reasoning_split.then_some(true),
        tool_stream: (dialect.tool_stream && has_tools).then_some(true),
        stream: true,
        stream_options: dialect.stream_options.then_some(wire::StreamOptions { include_usage: true }),
    };
    let body = serde_json::to_vec(&body).map_err(cannot_write)?;
    Ok(Encoded { body, losses: losses.0, names })
}

/// Writing strings, numbers and raw JSON to memory does not fail; if it ever does, the caller is told rather than served
/// half a body.
fn cannot_write(error: serde_json::Error) -> EncodeError {
    EncodeError::Unsupported { path: "input".into(), why: format!("cannot be written as JSON: {error}") }
}

#[derive(Default)]
struct Losses(Vec<Loss>);

impl Losses {
    fn drop(&mut self, path: impl Into<String>, why: &'static str) {
        self.0.push(Loss { path: path.into(), action: LossAction::Drop, why });
    }
    fn approximate(&mut self, path: impl Into<String>, why: &'static str) {
        self.0.push(Loss { path: path.into(), action: LossAction::Approximate, why });
    }
}

// ---- thinking ----

/// What is said about thinking.
#[derive(Debug, Clone, Copy)]
struct Switch {
    /// `None`: nothing, the host decides.
    on: Option<bool>,
    effort: Option<&'static str>,
}

fn thinking_switch(request: &Request<'_>, target: &Target, losses: &mut Losses) -> Switch {
    let dialect = target.dialect;
    let Some(wanted) = target.effort.as_deref().or(request.effort.as_deref()) else {
        return Switch { on: None, effort: None };
    };
    let takes_effort = dialect.takes_effort(&target.model);
    if matches!(wanted, "none" | "off") {
        return off(dialect, takes_effort, losses);
    }
    let effort = if takes_effort { dialect.effort(wanted) } else { None };
    match effort {
        Some(step) if step != wanted => losses.approximate("reasoning.effort", "the nearest step the host knows"),
        Some(_) => {}
        None => losses.drop("reasoning.effort", "the host has no such steps for this model"),
    }
    Switch { on: Some(true), effort }
}

fn off(dialect: &Dialect, takes_effort: bool, losses: &mut Losses) -> Switch {
    let effort = match dialect.thinking {
        Thinking::Effort if takes_effort => {
            let none = dialect.effort("none");
            if none.is_none() {
                losses.approximate("reasoning.effort", "thinking cannot be switched off, the weakest step instead");
            }
            none.or(dialect.efforts.first().copied())
        }
        Thinking::Effort => {
            losses.drop("reasoning.effort", "the host cannot switch thinking off");
            None
        }
        Thinking::Type
        | Thinking::TypeKept
        | Thinking::TypeAdaptive
        | Thinking::Enable
        | Thinking::TemplateKwargs
        | Thinking::Reasoning => None,
    };
    Switch { on: Some(false), effort }
}

fn thinking_type(dialect: &Dialect, on: bool) -> Option<wire::ThinkingSwitch> {
    let (kind_on, clear_thinking) = match dialect.thinking {
        Thinking::Type => ("enabled", None),
        Thinking::TypeKept => ("enabled", Some(false)),
        Thinking::TypeAdaptive => ("adaptive", None),
        Thinking::Effort | Thinking::Enable | Thinking::TemplateKwargs | Thinking::Reasoning => return None,
    };
    Some(wire::ThinkingSwitch {
        kind: if on { kind_on } else { "disabled" },
        clear_thinking: clear_thinking.filter(|_| on),
    })
}

// ---- tools and format ----

type Tools<'r> = (Vec<wire::ToolDeclaration<'r>>, Option<wire::ToolChoice<'r>>);

fn tools<'r>(
    request: &'r Request<'_>,
    target: &Target,
    names: &Names,
    losses: &mut Losses,
) -> Result<Tools<'r>, EncodeError> {
    let dialect = target.dialect;
    let mut only: Option<Vec<&ToolRef<'_>>> = None;
    let mut word = None;
    let mut named = None;
    let required = |losses: &mut Losses| {
        if dialect.tool_choice < Choice::Required {
            losses.drop("tool_choice", "the host cannot be made to call a tool");
        }
        (dialect.tool_choice >= Choice::Required).then_some(dialect.required_word)
    };
    match &request.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None if dialect.tool_choice >= Choice::None => word = Some("none"),
        ToolChoice::None => {
            if !request.tools.is_empty() {
                losses.approximate("tool_choice", "the host knows no `none`, so no tool is declared");
            }
            only = Some(Vec::new());
        }
        ToolChoice::Required => word = required(losses),
        ToolChoice::Named(tool) if dialect.tool_choice >= Choice::Named => named = Some(tool),
        ToolChoice::Named(tool) => {
            losses.approximate("tool_choice", "the host cannot be given one tool by name, so only it is declared");
            only = Some(vec![tool]);
            word = required(losses);
        }
        ToolChoice::Allowed { tools, required: must } => {
            only = Some(tools.iter().collect());
            word = if *must { required(losses) } else { None };
        }
    }
    let mut declarations: Vec<wire::ToolDeclaration<'r>> = Vec::new();
    for (i, tool) in request.tools.iter().enumerate() {
        match tool {
            Tool::Hosted { .. } => losses.drop(format!("tools[{i}]"), "the provider does not run this tool"),
            Tool::Callable(callable) => {
                let permitted = only.as_ref().is_none_or(|only| {
                    only.iter().any(|t| t.name == callable.tool.name && t.namespace == callable.tool.namespace)
                });
                let Some(name) = names.wire_name(&callable.tool).filter(|_| permitted) else { continue };
                // The first declaration of a name stands; a second one would be refused.
                if declarations.iter().any(|d| d.function.name == name) {
                    losses.drop(format!("tools[{i}]"), "declared twice");
                    continue;
                }
                declarations.push(declaration(callable, name, dialect, i, losses)?);
            }
        }
    }
    let choice = match (word, named) {
        (_, Some(tool)) => names.wire_name(tool).map(|name| wire::ToolChoice::Named {
            kind: "function",
            function: wire::FunctionName { name: name.to_owned() },
        }),
        (Some(word), None) => Some(wire::ToolChoice::Word(word)),
        (None, None) => None,
    };
    // A choice without tools is refused by most.
    let choice = choice.filter(|_| !declarations.is_empty());
    Ok((declarations, choice))
}

fn declaration<'r>(
    callable: &'r CallableTool<'_>,
    name: &str,
    dialect: &Dialect,
    i: usize,
    losses: &mut Losses,
) -> Result<wire::ToolDeclaration<'r>, EncodeError> {
    let (description, parameters) = match callable.tool.kind {
        ToolKind::Custom => {
            if callable.grammar.is_some() {
                losses.approximate(format!("tools[{i}].format"), "the grammar is described, not enforced");
            }
            (Some(Cow::Owned(custom::description(callable))), raw(custom::PARAMETERS)?)
        }
        ToolKind::Function | ToolKind::ToolSearch => {
            let declared = callable.parameters.filter(|p| p.get().starts_with('{'));
            let parameters = match declared {
                Some(parameters) => parameters,
                None => raw(NO_PARAMETERS)?,
            };
            (callable.description.as_deref().map(Cow::Borrowed), parameters)
        }
    };
    if callable.strict == Some(true) && !dialect.strict {
        losses.drop(format!("tools[{i}].strict"), "the host does not enforce schemas");
    }
    Ok(wire::ToolDeclaration {
        kind: "function",
        function: wire::FunctionDeclaration {
            name: name.to_owned(),
            description,
            parameters,
            strict: callable.strict.filter(|_| dialect.strict),
        },
    })
}

fn raw(constant: &'static str) -> Result<&'static RawValue, EncodeError> {
    serde_json::from_str(constant).map_err(cannot_write)
}

/// The answer's form: for the host, and in words where the host does not know it.
fn format<'r>(
    request: &'r Request<'_>,
    target: &Target,
    losses: &mut Losses,
) -> (Option<wire::ResponseFormat<'r>>, Option<String>) {
    let support = target.dialect.format;
    let object = || wire::ResponseFormat { kind: "json_object", json_schema: None };
    match &request.format {
        Format::Text => (None, None),
        Format::JsonObject => {
            let words = "Answer with one JSON object and nothing else.".to_owned();
            if support == FormatSupport::Instruction {
                losses.approximate("text.format", "the form is asked for in words");
                (None, Some(words))
            } else {
                (Some(object()), Some(words))
            }
        }
        Format::JsonSchema { name, description, schema, strict } if support == FormatSupport::Schema => {
            let json_schema = wire::JsonSchema { name, description: description.as_deref(), schema, strict: *strict };
            (Some(wire::ResponseFormat { kind: "json_schema", json_schema: Some(json_schema) }), None)
        }
        Format::JsonSchema { name, description, schema, .. } => {
            losses.approximate("text.format", "the schema is asked for in words");
            let described = description.as_deref().map(|d| format!(" ({d})")).unwrap_or_default();
            let words = format!(
                "Give your final answer as one JSON value `{name}`{described}, without fences or other text, that satisfies \
                 this JSON Schema:\n{schema}"
            );
            ((support == FormatSupport::Object).then(object), Some(words))
        }
    }
}

// ---- conversation ----

struct Conversation<'r, 'a, 'l> {
    target: &'r Target,
    names: &'r Names,
    losses: &'l mut Losses,
    request: &'r Request<'a>,
    /// By item: its stored thoughts, if this target may read them.
    stored: BTreeMap<usize, Stored<'r>>,
    /// By call id: what must come back on the call.
    extras: BTreeMap<&'r str, &'r RawValue>,
    /// By item of a call: its id on the wire, and the item of its output.
    calls: BTreeMap<usize, (String, Option<usize>)>,
    /// Items of outputs that belong to a call.
    paired: BTreeSet<usize>,
    messages: Vec<wire::Message<'r>>,
    /// Text of the one system message that opens the conversation.
    front: Vec<Cow<'r, str>>,
    turn: Turn,
    /// The first item whose required thoughts could not be restored.
    thoughts_missing: Option<usize>,
}

/// Items of one run of the assistant.
#[derive(Default)]
struct Turn {
    reasoning: Vec<usize>,
    texts: Vec<usize>,
    calls: Vec<usize>,
}

impl<'r, 'a, 'l> Conversation<'r, 'a, 'l> {
    fn new(request: &'r Request<'a>, target: &'r Target, names: &'r Names, losses: &'l mut Losses) -> Self {
        let mut this = Self {
            target,
            names,
            losses,
            request,
            stored: BTreeMap::new(),
            extras: BTreeMap::new(),
            calls: BTreeMap::new(),
            paired: BTreeSet::new(),
            messages: Vec::new(),
            front: Vec::new(),
            turn: Turn::default(),
            thoughts_missing: None,
        };
        this.pair();
        this.open_thoughts();
        this
    }

    /// Gives every call an id of its own, in the host's shape, and finds its output: the outputs of an id belong to the
    /// calls of that id in order.
    fn pair(&mut self) {
        let mut waiting: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (i, item) in self.request.input.iter().enumerate() {
            match item {
                Item::Call { call_id, .. } => {
                    let mut id = wire_id(call_id, self.target.dialect.call_ids);
                    let mut nth = 2;
                    while !used.insert(id.clone()) {
                        id = wire_id(&format!("{call_id}_{nth}"), self.target.dialect.call_ids);
                        nth += 1;
                    }
                    if nth > 2 {
                        self.losses.approximate(path(i), "another call has the same id, so it is given its own");
                    }
                    self.calls.insert(i, (id, None));
                    waiting.entry(call_id).or_default().push_back(i);
                }
                Item::Output { call_id, .. } => {
                    let call = waiting.get_mut(&**call_id).and_then(VecDeque::pop_front);
                    if let Some((_, output)) = call.and_then(|call| self.calls.get_mut(&call)) {
                        *output = Some(i);
                        self.paired.insert(i);
                    }
                }
                Item::Message { .. }
                | Item::Reasoning { .. }
                | Item::Hosted { .. }
                | Item::Compaction { .. }
                | Item::CompactionTrigger => {}
            }
        }
    }

    fn open_thoughts(&mut self) {
        let request = self.request;
        for (i, item) in request.input.iter().enumerate() {
            let Item::Reasoning { opaque: Some(opaque), .. } = item else { continue };
            if opaque.origin != self.target.origin {
                continue;
            }
            let Ok(stored) = serde_json::from_str::<Stored<'r>>(&opaque.value) else { continue };
            // Ids that hold escapes are not ours.
            for (id, extra) in &stored.calls {
                if let Cow::Borrowed(id) = id {
                    self.extras.insert(id, extra);
                }
            }
            self.stored.insert(i, stored);
        }
    }

    fn messages(
        mut self,
        request: &'r Request<'a>,
        instruction: Option<String>,
        switch: &mut Switch,
    ) -> Result<Vec<wire::Message<'r>>, EncodeError> {
        if let Some(text) = request.instructions.as_deref().filter(|t| !t.is_empty()) {
            self.front.push(Cow::Borrowed(text));
        }
        for (i, item) in request.input.iter().enumerate() {
            match item {
                Item::Message { role: Role::Assistant, .. } => {
                    if !self.turn.calls.is_empty() {
                        self.losses.approximate(path(i), "text that followed a call is put before it");
                    }
                    self.turn.texts.push(i);
                }
                Item::Reasoning { .. } => self.turn.reasoning.push(i),
                Item::Call { .. } => self.turn.calls.push(i),
                Item::Message { role: role @ (Role::System | Role::Developer), parts, .. } => {
                    self.close_turn()?;
                    self.system(i, *role, parts);
                }
                Item::Message { role: Role::User, parts, .. } => {
                    self.close_turn()?;
                    let content = self.user_content(i, "content", parts);
                    self.push_user(i, content);
                }
                Item::Output { parts, .. } => {
                    self.close_turn()?;
                    if !self.paired.contains(&i) {
                        self.losses.approximate(path(i), "it answers no call, so it is told as the user's words");
                        let content = self.orphan(i, parts);
                        self.push_user(i, content);
                    }
                }
                Item::Hosted { .. } => self.losses.drop(path(i), "the work of another provider's tool"),
                Item::Compaction { .. } | Item::CompactionTrigger => {
                    return Err(EncodeError::Unsupported {
                        path: path(i),
                        why: "compaction must be resolved before a request is put into this protocol".into(),
                    });
                }
            }
        }
        self.close_turn()?;
        self.front.extend(instruction.map(Cow::Owned));
        if !self.front.is_empty() {
            let text = match <[Cow<'r, str>; 1]>::try_from(std::mem::take(&mut self.front)) {
                Ok([only]) => only,
                Err(several) => Cow::Owned(several.join("\n\n")),
            };
            self.messages.insert(0, wire::Message::new("system", wire::Content::Text(text)));
        }
        if self.target.dialect.thoughts_required {
            self.forget_thoughts_unless_whole(switch);
        }
        Ok(self.messages)
    }

    /// A host that insists on thoughts refuses the request if some are missing, but only while thinking is on.
    fn forget_thoughts_unless_whole(&mut self, switch: &mut Switch) {
        if let Some(i) = self.thoughts_missing.filter(|_| switch.on != Some(false)) {
            self.losses
                .drop("reasoning.effort", "thinking is off: the host wants earlier thoughts that are not at hand");
            self.losses.drop(path(i), "the thoughts before this call are not at hand");
            *switch = Switch { on: Some(false), effort: None };
        }
        if switch.on == Some(false) {
            for message in &mut self.messages {
                message.reasoning_content = None;
                message.reasoning = None;
                message.reasoning_details.clear();
            }
        }
    }

    fn system(&mut self, i: usize, role: Role, parts: &'r [Part<'a>]) {
        let text = self.text_of(i, "content", parts, None);
        let dialect = self.target.dialect;
        if text.is_empty() {
            return;
        }
        if dialect.system_first {
            if !self.messages.is_empty() {
                self.losses.approximate(path(i), "the host takes system messages only at the front");
            }
            self.front.push(text);
            return;
        }
        let name = match role {
            Role::Developer if dialect.developer_role => "developer",
            Role::Developer | Role::System | Role::User | Role::Assistant => "system",
        };
        self.messages.push(wire::Message::new(name, wire::Content::Text(text)));
    }

    fn push_user(&mut self, i: usize, content: wire::Content<'r>) {
        let empty = match &content {
            wire::Content::Null => true,
            wire::Content::Text(text) => text.is_empty(),
            wire::Content::Parts(parts) => parts.is_empty(),
        };
        if empty {
            return;
        }
        if !self.target.dialect.user_after_tool && self.messages.last().is_some_and(|m| m.role == "tool") {
            self.losses.approximate(path(i), "the host wants the assistant to speak between a tool and the user");
            self.messages.push(wire::Message::new("assistant", wire::Content::Text(Cow::Borrowed(BRIDGE))));
        }
        self.messages.push(wire::Message::new("user", content));
    }

    fn orphan(&mut self, i: usize, parts: &'r [Part<'a>]) -> wire::Content<'r> {
        const LEAD: &str = "Result of an earlier tool call:";
        match self.user_content(i, "output", parts) {
            wire::Content::Text(text) => wire::Content::Text(Cow::Owned(format!("{LEAD}\n{text}"))),
            wire::Content::Parts(mut parts) => {
                parts.insert(0, wire::ContentPart::Text { text: Cow::Borrowed(LEAD) });
                wire::Content::Parts(parts)
            }
            wire::Content::Null => wire::Content::Null,
        }
    }

    /// Text alone as a string, which every host takes; with pictures, as parts.
    fn user_content(&mut self, i: usize, key: &str, parts: &'r [Part<'a>]) -> wire::Content<'r> {
        let pictures = parts.iter().any(|part| matches!(part, Part::Image { .. }));
        if !pictures || !self.target.accepts_images {
            return wire::Content::Text(self.text_of(i, key, parts, Some(NO_PICTURE)));
        }
        let mut content = Vec::with_capacity(parts.len());
        for (n, part) in parts.iter().enumerate() {
            match part {
                Part::Text(text) | Part::Refusal(text) => {
                    content.push(wire::ContentPart::Text { text: Cow::Borrowed(text) });
                }
                Part::Image { url, detail } => content.push(picture(url, detail.as_deref())),
                Part::Other { .. } => self.losses.drop(part_path(i, key, n), "this protocol has no such part"),
            }
        }
        wire::Content::Parts(content)
    }

    /// The text of all parts, a line break between them. `picture`: what stands for a picture; `None`: nothing may.
    fn text_of(&mut self, i: usize, key: &str, parts: &'r [Part<'a>], picture: Option<&'static str>) -> Cow<'r, str> {
        let mut text: Cow<'r, str> = Cow::Borrowed("");
        for (n, part) in parts.iter().enumerate() {
            let piece = match part {
                Part::Text(piece) | Part::Refusal(piece) => &**piece,
                Part::Image { .. } => {
                    if picture != Some(PICTURE_BELOW) {
                        self.losses.drop(part_path(i, key, n), "the model takes no pictures here");
                    }
                    match picture {
                        Some(words) => words,
                        None => continue,
                    }
                }
                Part::Other { .. } => {
                    self.losses.drop(part_path(i, key, n), "this protocol has no such part");
                    continue;
                }
            };
            if text.is_empty() {
                text = Cow::Borrowed(piece);
            } else {
                let text = text.to_mut();
                text.push('\n');
                text.push_str(piece);
            }
        }
        text
    }

    /// Writes the turn, if one is open: the assistant's message, the results of its calls, their pictures.
    fn close_turn(&mut self) -> Result<(), EncodeError> {
        let turn = std::mem::take(&mut self.turn);
        let request = self.request;
        let mut text: Cow<'r, str> = Cow::Borrowed("");
        for i in &turn.texts {
            let Some(Item::Message { parts, .. }) = request.input.get(*i) else { continue };
            let more = self.text_of(*i, "content", parts, None);
            if text.is_empty() {
                text = more;
            } else if !more.is_empty() {
                text = Cow::Owned(format!("{text}\n\n{more}"));
            }
        }
        if text.is_empty() && turn.calls.is_empty() {
            for i in turn.reasoning {
                self.losses.drop(path(i), "thoughts without an answer");
            }
            return Ok(());
        }
        let mut message = wire::Message::new("assistant", wire::Content::Null);
        self.restore_thoughts(&turn, &mut message, &mut text);
        message.content = match text {
            text if !text.is_empty() || !self.target.dialect.null_content => wire::Content::Text(text),
            _ => wire::Content::Null,
        };
        for i in &turn.calls {
            message.tool_calls.push(self.call(*i)?);
        }
        if self.target.dialect.signatures
            && message.tool_calls.iter().all(|call| call.extra_content.is_none())
            && let Some(first) = message.tool_calls.first_mut()
        {
            // Only the first call of a step needs one.
            first.extra_content = Some(raw(NO_SIGNATURE)?);
        }
        self.messages.push(message);
        self.results(&turn.calls);
        Ok(())
    }

    fn call(&mut self, i: usize) -> Result<wire::ToolCall<'r>, EncodeError> {
        let Some(Item::Call { call_id, tool, input }) = self.request.input.get(i) else {
            return Err(EncodeError::Unsupported { path: path(i), why: "is no call".into() });
        };
        let arguments = match tool.kind {
            ToolKind::Custom => Cow::Owned(custom::wrap(input).map_err(cannot_write)?),
            ToolKind::Function | ToolKind::ToolSearch if input.trim().is_empty() => Cow::Borrowed("{}"),
            ToolKind::Function | ToolKind::ToolSearch => {
                let is_object =
                    input.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(input).is_ok();
                if is_object {
                    Cow::Borrowed(&**input)
                } else {
                    // Servers that render history through a template parse arguments, and refuse the whole request.
                    self.losses.approximate(path(i), "its arguments are no JSON object, so they are put into one");
                    Cow::Owned(custom::wrap(input).map_err(cannot_write)?)
                }
            }
        };
        Ok(wire::ToolCall {
            id: self.calls.get(&i).map(|(id, _)| id.clone()).unwrap_or_default(),
            kind: "function",
            function: wire::FunctionCall {
                name: self.names.wire_name(tool).unwrap_or(&tool.name).to_owned(),
                arguments,
            },
            extra_content: self.extras.get(&**call_id).copied(),
        })
    }

    fn results(&mut self, calls: &[usize]) {
        let request = self.request;
        let mut pictures = Vec::new();
        let mut pictures_of = None;
        for i in calls {
            let Some((id, output)) = self.calls.get(i).cloned() else { continue };
            let output = output.and_then(|o| Some((o, request.input.get(o)?)));
            let text = match output {
                Some((o, Item::Output { parts, .. })) => {
                    let shown = self.target.accepts_images;
                    let text = self.text_of(o, "output", parts, Some(if shown { PICTURE_BELOW } else { NO_PICTURE }));
                    for (n, part) in parts.iter().enumerate() {
                        if let Part::Image { url, detail } = part
                            && shown
                        {
                            self.losses.approximate(part_path(o, "output", n), "shown in a message behind the results");
                            pictures.push(picture(url, detail.as_deref()));
                            pictures_of = Some(o);
                        }
                    }
                    if text.is_empty() { Cow::Borrowed(EMPTY_RESULT) } else { text }
                }
                Some(_) | None => {
                    self.losses.approximate(path(*i), "it has no result, so one is made up that says so");
                    Cow::Borrowed(NO_RESULT)
                }
            };
            let mut message = wire::Message::new("tool", wire::Content::Text(text));
            message.tool_call_id = Some(id);
            self.messages.push(message);
        }
        if let Some(o) = pictures_of {
            pictures.insert(0, wire::ContentPart::Text { text: Cow::Borrowed(PICTURES) });
            self.push_user(o, wire::Content::Parts(pictures));
        }
    }

    /// Puts the turn's thoughts where the host wants them.
    fn restore_thoughts(&mut self, turn: &Turn, message: &mut wire::Message<'r>, content: &mut Cow<'r, str>) {
        let dialect = self.target.dialect;
        let request = self.request;
        let wanted = dialect.thoughts_on == ThoughtsOn::All || !turn.calls.is_empty();
        let required = dialect.thoughts_required && !turn.calls.is_empty();
        let mut field = None;
        let mut text: Option<Cow<'r, str>> = None;
        let mut details: Vec<&'r RawValue> = Vec::new();
        for i in &turn.reasoning {
            let Some(Item::Reasoning { summary, content, opaque }) = request.input.get(*i) else { continue };
            let mut used = false;
            if let Some(stored) = self.stored.get(i).filter(|_| wanted && dialect.thoughts_back != ThoughtsBack::Never)
            {
                field = field.or(Some(stored.field));
                details.extend(&stored.details);
                if let Some(more) = &stored.text {
                    append(&mut text, more.clone());
                }
                used = stored.text.is_some() || !stored.details.is_empty();
                used |= !stored.calls.is_empty();
            } else if required {
                let shown = if content.is_empty() { summary } else { content };
                for piece in shown.iter().filter(|piece| !piece.is_empty()) {
                    append(&mut text, Cow::Borrowed(&**piece));
                    used = true;
                }
                if used {
                    self.losses.approximate(path(*i), "the thoughts as they were shown stand for those that were had");
                }
            }
            if used {
                continue;
            }
            let why = match opaque {
                Some(opaque) if opaque.origin != self.target.origin => "thoughts of another provider or model",
                Some(_) if !wanted => "the host ignores thoughts of finished answers",
                Some(_) | None => "the host takes no such thoughts back",
            };
            // Signatures go back on their calls, whatever becomes of the text.
            if !self.stored.get(i).is_some_and(|s| s.text.is_none() && s.details.is_empty() && !s.calls.is_empty()) {
                self.losses.drop(path(*i), why);
            }
        }
        if required && text.is_none() {
            self.thoughts_missing = self.thoughts_missing.or(turn.calls.first().copied());
        }
        let text = text.filter(|text| !text.is_empty() || required);
        let field = match dialect.thoughts_back {
            ThoughtsBack::Never => return,
            ThoughtsBack::ReasoningContent => Field::ReasoningContent,
            ThoughtsBack::Reasoning => Field::Reasoning,
            ThoughtsBack::Details if details.is_empty() => Field::Tags,
            ThoughtsBack::AsReceived if details.is_empty() => field.unwrap_or_default(),
            ThoughtsBack::Details | ThoughtsBack::AsReceived => Field::Details,
        };
        match field {
            Field::ReasoningContent => message.reasoning_content = text,
            Field::Reasoning => message.reasoning = text,
            Field::Details => message.reasoning_details = details,
            Field::Tags => {
                if let Some(text) = text {
                    let (opening, closing) = TAGS[0];
                    *content = Cow::Owned(format!("{opening}\n{text}\n{closing}\n\n{content}"));
                }
            }
        }
    }
}

fn append<'r>(text: &mut Option<Cow<'r, str>>, more: Cow<'r, str>) {
    match text {
        Some(text) if !text.is_empty() => text.to_mut().push_str(&more),
        Some(_) | None => *text = Some(more),
    }
}

fn picture<'r>(url: &'r str, detail: Option<&'r str>) -> wire::ContentPart<'r> {
    // This protocol knows three; `original` is the newest of the other API.
    let detail = detail.map(|d| if matches!(d, "auto" | "low" | "high") { d } else { "high" });
    wire::ContentPart::ImageUrl { image_url: wire::ImageUrl { url, detail } }
}

fn path(item: usize) -> String {
    format!("input[{item}]")
}

fn part_path(item: usize, key: &str, part: usize) -> String {
    format!("input[{item}].{key}[{part}]")
}

/// A call's id in the host's shape, made from the client's id alone, so that it is the same in every request.
fn wire_id(id: &str, shape: CallIds) -> String {
    let fits = match shape {
        CallIds::Any => true,
        CallIds::UpTo(bytes_max) => id.len() <= bytes_max,
        CallIds::Alnum9 => id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()),
    };
    if fits {
        return id.to_owned();
    }
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut hash = fnv1a(id.as_bytes(), 0);
    let mut short = String::new();
    for _ in 0..9 {
        short.push(char::from(ALPHABET[(hash % 62) as usize]));
        hash /= 62;
    }
    match shape {
        CallIds::Any | CallIds::Alnum9 => short,
        CallIds::UpTo(_) => format!("call_{short}"),
    }
}

#[cfg(test)]
mod tests;
