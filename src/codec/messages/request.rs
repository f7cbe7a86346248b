//! A request → the body of a Messages request. PURE.
//!
//! The conversation of the Responses API is a list of items; that of this protocol is a list of messages that alternate
//! between user and assistant, each a list of blocks. Items are gathered so:
//!
//! ```text
//! what opens the conversation as system or developer ─►  system
//! Reasoning, Message(assistant), Call … (one run)    ─►  one assistant message, its blocks in that order
//! the Output of each of its calls, wherever it is    ─►  tool_result blocks, the first of the next user message
//! everything else until the next run                 ─►  the rest of that user message
//! ```
//! The order within a run is kept because thoughts are bound to what stands before them. The same request gives the
//! same bytes, and a request that only grew gives a body that begins with the old one: the marks for the cache
//! (`cache.rs`) and the thoughts depend on it.

mod cache;
mod conversation;
mod schema;
mod strict;

use std::borrow::Cow;

use serde_json::value::RawValue;

use self::{conversation::Conversation, strict::Room};
use super::{
    keys,
    models::{Model, Off, Thinking},
    wire,
};
use crate::{
    codec::{EncodeError, Encoded, Target, custom, effort, form, history::Losses, names::Names},
    model::{
        request::{CallableTool, Format, Item, Request, Tool, ToolChoice, ToolKind, ToolRef},
        text::LazyText,
    },
};

/// Names of tools match `^[a-zA-Z0-9_-]{1,64}$`
/// (<https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use>, read 2026-11-21; some hosts take
/// 128).
const TOOL_NAME_MAX: usize = 64;

/// Puts `request` into the words of `target`. `losses` of the result names everything that could not pass as it was.
///
/// Sealed summaries must have been opened: they stand for a whole conversation and cannot be dropped.
pub fn encode_request(request: &Request<'_>, target: &Target) -> Result<Encoded<Names>, EncodeError> {
    let model = Model::of(&target.model);
    let mut names = Names::of(request, TOOL_NAME_MAX);
    keys::spell(request, &mut names);
    let mut losses = Losses::default();
    let max_tokens = max_tokens(request, target, model, &mut losses);
    let mut switch = thinking_switch(request, target, model, max_tokens, &mut losses);
    let mut room = Room::new();
    let (format, instruction) = format(request, model, &mut room, &mut losses);
    let (mut system, mut messages) =
        Conversation::new(request, target, model, &names, &mut losses).messages(instruction, &mut switch)?;
    let (mut tools, tool_choice) = tools(request, model, &names, switch.thinks, &mut room, &mut losses)?;
    cache::mark(&mut tools, &mut system, &mut messages);

    if request.verbosity.is_some() {
        losses.drop("text.verbosity", "the protocol has no such wish");
    }
    let service_tier = service_tier(request, &mut losses);
    let (temperature, top_p) = sampling(request, model, switch.thinks, &mut losses);
    let output_config =
        (switch.effort.is_some() || format.is_some()).then_some(wire::OutputConfig { effort: switch.effort, format });
    let body = wire::MessagesRequest {
        model: &target.model,
        max_tokens,
        tools,
        tool_choice,
        system,
        messages,
        thinking: switch.said,
        output_config,
        temperature,
        top_p,
        service_tier,
        stream: true,
    };
    let body = serde_json::to_vec(&body).map_err(cannot_write)?;
    Ok(Encoded { body, losses: losses.0, names })
}

/// Writing strings, numbers and raw JSON to memory does not fail; if it ever does, the caller is told rather than served
/// half a body.
fn cannot_write(error: serde_json::Error) -> EncodeError {
    EncodeError::Unsupported { path: "input".into(), why: format!("cannot be written as JSON: {error}") }
}

/// The protocol wants a number in every request: the client's, else the configured one, else the most the model gives.
fn max_tokens(request: &Request<'_>, target: &Target, model: &Model, losses: &mut Losses) -> u64 {
    let limit = target.max_output_tokens.unwrap_or(model.max_output_tokens).max(1);
    match request.max_output_tokens {
        Some(wish) if wish > limit => {
            losses.approximate("max_output_tokens", "the model allows fewer");
            limit
        }
        Some(0) | None => limit,
        Some(wish) => wish,
    }
}

// ---- thinking ----

/// What is said about thinking, and what comes of it.
#[derive(Debug, Clone, Copy)]
struct Switch {
    said: Option<wire::Thinking>,
    effort: Option<&'static str>,
    /// The model may think.
    thinks: bool,
    /// Earlier thoughts go back.
    thoughts_back: bool,
}

impl Switch {
    fn off(model: &Model) -> Self {
        let said = |kind| Some(wire::Thinking { kind, budget_tokens: None, display: None });
        let (said, thinks) = match model.thinking {
            Thinking::Budget | Thinking::Unasked(Off::Disabled) => (said("disabled"), false),
            // Nothing said means off, and some of these refuse to be told so.
            Thinking::Asked | Thinking::Never => (None, false),
            // Notes between calls are thoughts, too.
            Thinking::Unasked(Off::BetweenTools) => (said("between_tools"), true),
            Thinking::Unasked(Off::Never) => (Some(ADAPTIVE), true),
        };
        Self { said, effort: None, thinks, thoughts_back: thinks }
    }

    fn on(said: Option<wire::Thinking>, effort: Option<&'static str>) -> Self {
        Self { said, effort, thinks: true, thoughts_back: true }
    }
}

/// The text of thoughts is asked for: newer models leave it out otherwise, and with it what they say between calls.
const ADAPTIVE: wire::Thinking = wire::Thinking { kind: "adaptive", budget_tokens: None, display: Some("summarized") };

/// The least budget the API takes; it must also be less than `max_tokens`.
const BUDGET_MIN: u64 = 1024;

fn thinking_switch(
    request: &Request<'_>,
    target: &Target,
    model: &Model,
    max_tokens: u64,
    losses: &mut Losses,
) -> Switch {
    let Some(wanted) = target.effort.as_deref().or(request.effort.as_deref()) else {
        // The model's own habit.
        return match model.thinking {
            Thinking::Budget | Thinking::Asked => Switch { said: None, thoughts_back: true, ..Switch::off(model) },
            Thinking::Never => Switch::off(model),
            Thinking::Unasked(_) => Switch::on(Some(ADAPTIVE), None),
        };
    };
    if matches!(wanted, "none" | "off" | "minimal") {
        let mut off = Switch::off(model);
        if model.thinking == Thinking::Unasked(Off::Never) {
            off.effort = model.efforts.first().copied();
            losses.approximate("reasoning.effort", "thinking cannot be switched off, the weakest step instead");
        }
        return off;
    }
    let step = effort::nearest(model.efforts, wanted);
    match step {
        Some(step) if step != wanted => losses.approximate("reasoning.effort", "the nearest step the model knows"),
        Some(_) => {}
        None if effort::rank(wanted).is_none() => losses.drop("reasoning.effort", "no such step is known"),
        None if model.thinking == Thinking::Budget => {
            losses.approximate("reasoning.effort", "the model has no steps, so it gets a budget of tokens");
        }
        None => losses.drop("reasoning.effort", "the model has no such steps"),
    }
    match model.thinking {
        Thinking::Never => Switch::off(model),
        Thinking::Asked | Thinking::Unasked(_) => Switch::on(Some(ADAPTIVE), step),
        Thinking::Budget => match budget(wanted, max_tokens) {
            Some(tokens) => {
                Switch::on(Some(wire::Thinking { kind: "enabled", budget_tokens: Some(tokens), display: None }), step)
            }
            None => {
                losses.drop("reasoning.effort", "thinking is off: too few tokens are allowed for it");
                Switch { effort: step, ..Switch::off(model) }
            }
        },
    }
}

/// Tokens to think with; `None` if there is no room. A quarter is left for the answer; more than 32000 are seldom used
/// (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>, read 2026-11-21).
fn budget(wanted: &str, max_tokens: u64) -> Option<u64> {
    let wish = match wanted {
        "low" => 4096,
        "high" => 16_384,
        "xhigh" | "max" | "ultra" => 32_000,
        // `medium`, and words unknown.
        _ => 8192,
    };
    (max_tokens > BUDGET_MIN).then(|| wish.min(max_tokens / 4 * 3).clamp(BUDGET_MIN, max_tokens - 1))
}

fn sampling(request: &Request<'_>, model: &Model, thinks: bool, losses: &mut Losses) -> (Option<f64>, Option<f64>) {
    let (mut temperature, mut top_p) = (request.temperature, request.top_p);
    let refusal = match (model.sampling, thinks) {
        (false, _) => Some("the model does not take it"),
        (true, true) => Some("it does not go with thinking"),
        (true, false) => None,
    };
    if let Some(why) = refusal {
        for (path, value) in [("temperature", &mut temperature), ("top_p", &mut top_p)] {
            if value.take().is_some() {
                losses.drop(path, why);
            }
        }
    }
    if temperature.is_some() && top_p.take().is_some() {
        losses.drop("top_p", "the protocol takes it or the temperature, not both");
    }
    if let Some(degrees) = temperature.as_mut().filter(|degrees| **degrees > 1.0) {
        *degrees = 1.0;
        losses.approximate("temperature", "the protocol goes up to 1");
    }
    (temperature, top_p)
}

fn service_tier(request: &Request<'_>, losses: &mut Losses) -> Option<&'static str> {
    match request.service_tier.as_deref()? {
        "auto" => Some("auto"),
        "default" => Some("standard_only"),
        "priority" => {
            losses.approximate("service_tier", "it is used if the account has it");
            Some("auto")
        }
        _ => {
            losses.drop("service_tier", "the protocol knows no such tier");
            None
        }
    }
}

// ---- tools and format ----

type Tools<'r> = (Vec<wire::Tool<'r>>, Option<wire::ToolChoice<'r>>);

fn tools<'r>(
    request: &'r Request<'_>,
    model: &Model,
    names: &'r Names,
    thinks: bool,
    room: &mut Room,
    losses: &mut Losses,
) -> Result<Tools<'r>, EncodeError> {
    let mut only: Option<Vec<&ToolRef<'_>>> = None;
    let forced = |losses: &mut Losses| {
        let why = match (model.forced_tools, thinks) {
            (true, false) => return true,
            (true, true) => "a model that thinks cannot be made to call a tool",
            (false, _) => "the model cannot be made to call a tool",
        };
        losses.approximate("tool_choice", why);
        false
    };
    let (mut kind, mut named) = ("auto", None);
    match &request.tool_choice {
        ToolChoice::Auto => {}
        ToolChoice::None => kind = "none",
        ToolChoice::Required if forced(losses) => kind = "any",
        ToolChoice::Required => {}
        ToolChoice::Named(tool) if forced(losses) => (kind, named) = ("tool", names.wire_name(tool)),
        // The one it may call is then the only one.
        ToolChoice::Named(tool) => only = Some(vec![tool]),
        ToolChoice::Allowed { tools, required } => {
            only = Some(tools.iter().collect());
            if *required && forced(losses) {
                kind = "any";
            }
        }
    }
    let mut declared: Vec<wire::Tool<'r>> = Vec::new();
    for (i, tool) in request.tools.iter().enumerate() {
        match tool {
            Tool::Hosted { .. } => losses.drop(format!("tools[{i}]"), "the provider does not run this tool"),
            Tool::Callable(callable) => {
                let permitted = only.as_ref().is_none_or(|only| {
                    only.iter().any(|t| t.name == callable.tool.name && t.namespace == callable.tool.namespace)
                });
                let Some(name) = names.wire_name(&callable.tool).filter(|_| permitted) else { continue };
                // The first declaration of a name stands; a second one would be refused.
                if declared.iter().any(|d| d.name == name) {
                    losses.drop(format!("tools[{i}]"), "declared twice");
                    continue;
                }
                declared.push(declaration(callable, name, names.arguments(&callable.tool), model, room, i, losses)?);
            }
        }
    }
    if declared.is_empty() {
        // A history with calls wants the tools it calls, even if none may be called (a summary is asked for so).
        declared = called(request, names)?;
        kind = "none";
    }
    if declared.is_empty() || (kind == "tool" && named.is_none()) {
        return Ok((declared, None));
    }
    let disable_parallel_tool_use = (kind != "none" && request.parallel_tool_calls == Some(false)).then_some(true);
    let said = kind != "auto" || disable_parallel_tool_use.is_some();
    Ok((declared, said.then_some(wire::ToolChoice { kind, name: named, disable_parallel_tool_use })))
}

fn declaration<'r>(
    callable: &'r CallableTool<'_>,
    name: &str,
    spelled: &[(String, String)],
    model: &Model,
    room: &mut Room,
    i: usize,
    losses: &mut Losses,
) -> Result<wire::Tool<'r>, EncodeError> {
    let (description, input_schema) = match callable.tool.kind {
        ToolKind::Custom => {
            if callable.grammar.is_some() {
                losses.approximate(format!("tools[{i}].format"), "the grammar is described, not enforced");
            }
            (Some(custom::description(callable)), Cow::Borrowed(raw(custom::PARAMETERS)?))
        }
        ToolKind::Function | ToolKind::ToolSearch => {
            let (schema, whole) = schema::object(callable.parameters).map_err(cannot_write)?;
            if !whole {
                losses.approximate(format!("tools[{i}].parameters"), "the protocol wants an object without choices");
            }
            let schema = if spelled.is_empty() {
                schema
            } else {
                losses.approximate(format!("tools[{i}].parameters"), "some arguments have names that are not taken");
                Cow::Owned(keys::schema(&schema, spelled).map_err(cannot_write)?)
            };
            (callable.description.as_ref().map(LazyText::as_borrowed), schema)
        }
    };
    let mut strict = callable.strict.filter(|strict| *strict);
    let refusal = match strict {
        Some(_) if !model.schemas => Some("the model does not enforce schemas"),
        Some(_) if !room.holds_tool(&input_schema) => {
            Some("the service does not enforce this schema beside the others")
        }
        Some(_) | None => None,
    };
    if let Some(why) = refusal {
        losses.drop(format!("tools[{i}].strict"), why);
        strict = None;
    }
    Ok(wire::Tool {
        name: name.to_owned(),
        description: description.filter(|text| !text.is_empty()),
        input_schema,
        strict,
        cache_control: None,
    })
}

/// Bare declarations of the tools that the history calls.
fn called<'r>(request: &Request<'_>, names: &Names) -> Result<Vec<wire::Tool<'r>>, EncodeError> {
    let mut declared: Vec<wire::Tool<'r>> = Vec::new();
    for item in &request.input {
        let Item::Call { tool, .. } = item else { continue };
        let Some(name) = names.wire_name(tool).filter(|name| declared.iter().all(|d| d.name != *name)) else {
            continue;
        };
        declared.push(wire::Tool {
            name: name.to_owned(),
            description: None,
            input_schema: Cow::Borrowed(raw(schema::ANY_OBJECT)?),
            strict: None,
            cache_control: None,
        });
    }
    Ok(declared)
}

fn raw(constant: &'static str) -> Result<&'static RawValue, EncodeError> {
    serde_json::from_str(constant).map_err(cannot_write)
}

/// The answer's form: for the model, or in words where it does not know it.
fn format<'r>(
    request: &'r Request<'_>,
    model: &Model,
    room: &mut Room,
    losses: &mut Losses,
) -> (Option<wire::OutputFormat<'r>>, Option<String>) {
    match &request.format {
        // What OpenAI calls strict (every object closed) is what this API demands of every schema, and more.
        Format::JsonSchema { schema, strict: Some(true), .. } if model.schemas && room.holds(schema) => {
            (Some(wire::OutputFormat { kind: "json_schema", schema }), None)
        }
        other @ (Format::Text | Format::JsonObject | Format::JsonSchema { .. }) => {
            (None, form::words_only(other, losses))
        }
    }
}

#[cfg(test)]
mod tests;
