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

mod conversation;

use serde_json::value::RawValue;

use self::conversation::Conversation;
use super::{
    dialect::{Choice, Dialect, FormatSupport, MaxTokens, Thinking},
    wire,
};
use crate::{
    codec::{EncodeError, Encoded, Target, custom, form, history::Losses, names::Names},
    model::{
        request::{CallableTool, Format, Request, Tool, ToolChoice, ToolKind, ToolRef},
        text::LazyText,
    },
};

/// The schema of a function that declares none.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;
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
    // Seldom longer than what was asked, whose items are more talkative.
    let mut bytes = Vec::with_capacity(request.bytes + request.bytes / 16 + 1024);
    serde_json::to_writer(&mut bytes, &body).map_err(cannot_write)?;
    drop(body);
    Ok(Encoded { body: bytes, losses: losses.0, names })
}

/// Writing strings, numbers and raw JSON to memory does not fail; if it ever does, the caller is told rather than served
/// half a body.
fn cannot_write(error: serde_json::Error) -> EncodeError {
    EncodeError::Unsupported { path: "input".into(), why: format!("cannot be written as JSON: {error}") }
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
    names: &'r Names,
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
        (_, Some(tool)) => names
            .wire_name(tool)
            .map(|name| wire::ToolChoice::Named { kind: "function", function: wire::FunctionName { name } }),
        (Some(word), None) => Some(wire::ToolChoice::Word(word)),
        (None, None) => None,
    };
    // A choice without tools is refused by most.
    let choice = choice.filter(|_| !declarations.is_empty());
    Ok((declarations, choice))
}

fn declaration<'r>(
    callable: &'r CallableTool<'_>,
    name: &'r str,
    dialect: &Dialect,
    i: usize,
    losses: &mut Losses,
) -> Result<wire::ToolDeclaration<'r>, EncodeError> {
    let (description, parameters) = match callable.tool.kind {
        ToolKind::Custom => {
            if callable.grammar.is_some() {
                losses.approximate(format!("tools[{i}].format"), "the grammar is described, not enforced");
            }
            (Some(custom::description(callable)), raw(custom::PARAMETERS)?)
        }
        ToolKind::Function | ToolKind::ToolSearch => {
            let declared = callable.parameters.filter(|p| p.get().starts_with('{'));
            let parameters = match declared {
                Some(parameters) => parameters,
                None => raw(NO_PARAMETERS)?,
            };
            (callable.description.as_ref().map(LazyText::as_borrowed), parameters)
        }
    };
    if callable.strict == Some(true) && !dialect.strict {
        losses.drop(format!("tools[{i}].strict"), "the host does not enforce schemas");
    }
    Ok(wire::ToolDeclaration {
        kind: "function",
        function: wire::FunctionDeclaration {
            name,
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
    match (&request.format, support) {
        (Format::Text, _) => (None, None),
        (Format::JsonSchema { name, description, schema, strict }, FormatSupport::Schema) => {
            let json_schema = wire::JsonSchema { name, description: description.as_deref(), schema, strict: *strict };
            (Some(wire::ResponseFormat { kind: "json_schema", json_schema: Some(json_schema) }), None)
        }
        // Hosts refuse this setting where nothing speaks of JSON.
        (asked @ Format::JsonObject, FormatSupport::Object | FormatSupport::Schema) => {
            (Some(object()), form::words(asked))
        }
        (asked @ Format::JsonSchema { .. }, FormatSupport::Object) => (Some(object()), form::words_only(asked, losses)),
        (asked, FormatSupport::Instruction) => (None, form::words_only(asked, losses)),
    }
}

#[cfg(test)]
mod tests;
