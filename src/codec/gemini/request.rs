//! A request → the body of a `streamGenerateContent` request. PURE.
//!
//! The conversation of the Responses API is a list of items; that of this protocol a list of contents, by turns the
//! user's and the model's, each with parts. So items are gathered into *turns*:
//!
//! ```text
//! Reasoning, Message(assistant), Call … (one run)  ─►  one content of the model: signed thoughts, text, functionCall
//! the Output of each of its calls, wherever it is  ─►  functionResponse in the user's content behind, in that order
//! everything else                                  ─►  the same content of the user, or one of its own
//! ```
//! Whatever stood between calls and outputs comes after them. The same request gives the same bytes, and a request that
//! only grew gives contents whose parts begin with the old ones (contents of one role next to each other are one): the
//! provider's cache depends on it.

mod conversation;

use serde_json::value::RawValue;

use self::conversation::Conversation;
use super::{
    models::{Fit, Model},
    schema, wire,
};
use crate::{
    codec::{EncodeError, Encoded, Target, custom, form, history::Losses, names::Names},
    model::{
        request::{CallableTool, Format, Request, Tool, ToolChoice, ToolKind, ToolRef},
        text::LazyText,
    },
};

/// Names of functions are no longer than this. The service documents 128 now and 64 before, and a name may get one
/// character more: see [`function_name`].
const NAME_MAX: usize = 63;

/// Puts `request` into the protocol's words for `target`. `losses` of the result names everything that could not pass as
/// it was.
///
/// Sealed summaries must have been opened: they stand for a whole conversation and cannot be dropped.
pub fn encode_request(request: &Request<'_>, target: &Target) -> Result<Encoded<Names>, EncodeError> {
    let model = Model::of(&target.model);
    let names = Names::of(request, NAME_MAX);
    let mut losses = Losses::default();
    let (tools, tool_config) = tools(request, &names, &mut losses)?;
    let (generation_config, instruction) = generation(request, target, model, !tools.is_empty(), &mut losses);
    let (system, contents) =
        Conversation::new(request, target, model, &names, &mut losses).contents(request, instruction)?;

    if request.verbosity.is_some() {
        losses.drop("text.verbosity", "the protocol has no such setting");
    }
    if request.parallel_tool_calls == Some(false) && !tools.is_empty() {
        losses.drop("parallel_tool_calls", "the protocol has no such setting");
    }
    let service_tier = match request.service_tier.as_deref() {
        None | Some("auto" | "default") => None,
        Some("flex") => Some("flex"),
        Some("priority") => Some("priority"),
        Some(_) => {
            losses.drop("service_tier", "the provider has no such tier");
            None
        }
    };
    let body = wire::GenerateContentRequest {
        system_instruction: (!system.is_empty()).then_some(wire::SystemInstruction { parts: system }),
        tools,
        tool_config,
        generation_config,
        service_tier,
        contents,
    };
    let body = serde_json::to_vec(&body).map_err(cannot_write)?;
    Ok(Encoded { body, losses: losses.0, names })
}

/// Writing strings, numbers and raw JSON to memory does not fail; if it ever does, the caller is told rather than served
/// half a body.
fn cannot_write(error: serde_json::Error) -> EncodeError {
    EncodeError::Unsupported { path: "input".into(), why: format!("cannot be written as JSON: {error}") }
}

/// The service wants a letter or an underscore in front; `stream.rs` takes the underscore away again.
fn function_name(wire_name: &str) -> String {
    if wire_name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        wire_name.to_owned()
    } else {
        format!("_{wire_name}")
    }
}

// ---- tools ----

type Tools<'r> = (Vec<wire::Tool<'r>>, Option<wire::ToolConfig>);

fn tools<'r>(request: &'r Request<'_>, names: &Names, losses: &mut Losses) -> Result<Tools<'r>, EncodeError> {
    // Without an obligation to call, only the declarations can limit what may be called.
    let only: Option<&[ToolRef<'_>]> = match &request.tool_choice {
        ToolChoice::Allowed { tools, required: false } => Some(tools),
        ToolChoice::Auto
        | ToolChoice::None
        | ToolChoice::Required
        | ToolChoice::Named(_)
        | ToolChoice::Allowed { required: true, .. } => None,
    };
    let mut declarations: Vec<wire::FunctionDeclaration<'r>> = Vec::new();
    for (i, tool) in request.tools.iter().enumerate() {
        match tool {
            Tool::Hosted { .. } => losses.drop(format!("tools[{i}]"), "the provider does not run this tool"),
            Tool::Callable(callable) => {
                let permitted = only.is_none_or(|only| only.iter().any(|t| same(t, &callable.tool)));
                let Some(name) = names.wire_name(&callable.tool).filter(|_| permitted) else { continue };
                let name = function_name(name);
                // The first declaration of a name stands; a second one would be refused.
                if declarations.iter().any(|d| d.name == name) {
                    losses.drop(format!("tools[{i}]"), "declared twice");
                    continue;
                }
                declarations.push(declaration(callable, name, i, losses)?);
            }
        }
    }
    let config = |mode, allowed: Vec<String>| {
        Some(wire::ToolConfig {
            function_calling_config: wire::FunctionCallingConfig { mode, allowed_function_names: allowed },
        })
    };
    let declared = |tool: &ToolRef<'_>| {
        let name = function_name(names.wire_name(tool)?);
        declarations.iter().any(|d| d.name == name).then_some(name)
    };
    let choice = match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::Allowed { required: false, .. } => None,
        ToolChoice::None => config("NONE", Vec::new()),
        ToolChoice::Required => config("ANY", Vec::new()),
        ToolChoice::Named(tool) => declared(tool).and_then(|name| config("ANY", vec![name])),
        ToolChoice::Allowed { tools, required: true } => {
            let allowed: Vec<String> = tools.iter().filter_map(declared).collect();
            if allowed.is_empty() { None } else { config("ANY", allowed) }
        }
    };
    if choice.is_none()
        && matches!(request.tool_choice, ToolChoice::Named(_) | ToolChoice::Allowed { required: true, .. })
    {
        losses.drop("tool_choice", "it names no declared tool");
    }
    // A choice without tools is refused.
    let choice = choice.filter(|_| !declarations.is_empty());
    let tools =
        if declarations.is_empty() { Vec::new() } else { vec![wire::Tool { function_declarations: declarations }] };
    Ok((tools, choice))
}

fn same(a: &ToolRef<'_>, b: &ToolRef<'_>) -> bool {
    a.name == b.name && a.namespace == b.namespace
}

fn declaration<'r>(
    callable: &'r CallableTool<'_>,
    name: String,
    i: usize,
    losses: &mut Losses,
) -> Result<wire::FunctionDeclaration<'r>, EncodeError> {
    let (description, parameters) = match callable.tool.kind {
        ToolKind::Custom => {
            if callable.grammar.is_some() {
                losses.approximate(format!("tools[{i}].format"), "the grammar is described, not enforced");
            }
            let parameters = RawValue::from_string(custom::PARAMETERS.to_owned()).map_err(cannot_write)?;
            (Some(custom::description(callable)), Some(parameters))
        }
        ToolKind::Function | ToolKind::ToolSearch => {
            // A function without parameters declares none.
            let parameters = callable.parameters.and_then(|raw| schema::clean(raw, true));
            let path = || format!("tools[{i}].parameters");
            if let Some(cleaned) = &parameters {
                told(cleaned, path, losses);
            }
            (callable.description.as_ref().map(LazyText::as_borrowed), parameters.map(|cleaned| cleaned.schema))
        }
    };
    if callable.strict == Some(true) {
        losses.drop(format!("tools[{i}].strict"), "the provider does not enforce schemas");
    }
    Ok(wire::FunctionDeclaration { name, description, parameters_json_schema: parameters })
}

fn told(cleaned: &schema::Cleaned, path: impl Fn() -> String, losses: &mut Losses) {
    if cleaned.looser {
        losses.approximate(path(), "the provider knows only part of JSON Schema, so it is given looser rules");
    }
    if cleaned.cut {
        losses.approximate(path(), "the schema refers to itself or is too deep, so it is cut");
    }
}

// ---- generation ----

/// The settings, and what must be said in words because no setting says it.
fn generation(
    request: &Request<'_>,
    target: &Target,
    model: &Model,
    has_tools: bool,
    losses: &mut Losses,
) -> (Option<wire::GenerationConfig>, Option<String>) {
    let (thinking_config, fit) = model.thinking(target.effort.as_deref().or(request.effort.as_deref()));
    match fit {
        Fit::Exact => {}
        Fit::Nearest => losses.approximate("reasoning.effort", "the nearest step the model knows"),
        Fit::StillOn => {
            losses.approximate("reasoning.effort", "thinking cannot be switched off, the weakest step instead");
        }
        Fit::None => losses.drop("reasoning.effort", "the model has no such steps"),
    }
    if !model.sampling && (request.temperature.is_some() || request.top_p.is_some()) {
        losses.drop("temperature", "the model ignores it");
    }
    let max_output_tokens = request.max_output_tokens.map(|wish| match target.max_output_tokens {
        Some(limit) if wish > limit => {
            losses.approximate("max_output_tokens", "the model allows fewer");
            limit
        }
        Some(_) | None => wish,
    });
    let (mime_type, response_json_schema, instruction) = format(request, model, has_tools, losses);
    let config = wire::GenerationConfig {
        max_output_tokens,
        temperature: request.temperature.filter(|_| model.sampling),
        top_p: request.top_p.filter(|_| model.sampling),
        response_mime_type: mime_type,
        response_json_schema,
        thinking_config,
    };
    let empty = config.max_output_tokens.is_none()
        && config.temperature.is_none()
        && config.top_p.is_none()
        && config.response_mime_type.is_none()
        && config.thinking_config.is_none();
    ((!empty).then_some(config), instruction)
}

type Form = (Option<&'static str>, Option<Box<RawValue>>, Option<String>);

/// The answer's form: by settings, or in words where the model does not take them beside functions.
fn format(request: &Request<'_>, model: &Model, has_tools: bool, losses: &mut Losses) -> Form {
    const JSON: &str = "application/json";
    let settings = model.format_with_tools || !has_tools;
    match &request.format {
        Format::JsonObject if settings => (Some(JSON), None, None),
        Format::JsonSchema { schema, .. } if settings => {
            let cleaned = schema::clean(schema, false);
            if let Some(cleaned) = &cleaned {
                told(cleaned, || "text.format.schema".to_owned(), losses);
            }
            (Some(JSON), cleaned.map(|cleaned| cleaned.schema), None)
        }
        other @ (Format::Text | Format::JsonObject | Format::JsonSchema { .. }) => {
            (None, None, form::words_only(other, losses))
        }
    }
}

#[cfg(test)]
mod tests;
