//! Reads a request body into the model.
//!
//! Checks types field by field and says what is wrong in the client's terms. Features that this program cannot honour
//! are either an error (the answer would be wrong without them) or a [`Loss`].
//!
//! ```text
//! body ─► at_once: body and items in one go ───────────all well───┬─► read: what it means
//!            └ else ─► step_by_step: body, then array, then item ─┘
//! ```

mod values;

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::value::RawValue;

use self::values::{
    Entries, Object, Path, Whole, array, boolean, each, fields, invalid, json_text, kind_of, missing, name,
    number_within, object, optional, positive, required, string, text, too_many, url, wrong,
};
use super::{
    echo::Echo,
    wire::{self, Body},
};
use crate::{
    codec::{
        compaction,
        seal::{OpenError, Sealer},
    },
    model::{
        request::{
            CallableTool, Format, Item, Loss, LossAction, Part, Request, Role, Text, Tool, ToolChoice, ToolKind,
            ToolRef,
        },
        text::LazyText,
    },
};

/// What a body says.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The request.
    pub request: Request<'a>,
    /// What every response object repeats of it.
    pub echo: Echo,
    /// What was asked for and will not be honoured.
    pub losses: Vec<Loss>,
}

/// A request that cannot be served as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// The offending field in the client's terms (`input[3].content`), if there is one.
    pub param: Option<String>,
    /// Names the field, what was found and what would be right.
    pub message: String,
    /// `error.code`; `None` for the general one.
    pub code: Option<&'static str>,
}

/// Tools of one request, wherever they stand. What is kept of one takes many times the bytes of the shortest.
const TOOLS_MAX: usize = 10_000;

type Result<T> = std::result::Result<T, InvalidRequest>;

/// Reads the body of `POST /v1/responses`.
pub fn decode_request<'a>(body: &'a [u8], sealer: &Sealer) -> Result<Decoded<'a>> {
    let text = std::str::from_utf8(body).map_err(|e| InvalidRequest {
        param: None,
        message: format!("The body is not valid UTF-8: byte {} does not fit.", e.valid_up_to()),
        code: None,
    })?;
    if text.trim_start().as_bytes().first().is_some_and(|b| *b != b'{') {
        return Err(InvalidRequest {
            param: None,
            message: "The body is not a JSON object of the Responses API: it does not begin with `{`.".to_owned(),
            code: None,
        });
    }
    match at_once(text, sealer) {
        Some(decoded) => Ok(decoded),
        None => step_by_step(text, sealer),
    }
}

/// `input` of a body.
enum Input<'a> {
    /// As it came.
    Raw(&'a RawValue),
    /// An array of objects, read along with the body.
    Items(Vec<Object<wire::Item<'a>>>),
}

/// Reads the body and its items in one go: most bodies are long, and nothing is wrong with them. `None`: there is, or
/// something must be kept that is not at hand in this way; what was found so far is forgotten.
fn at_once<'a>(text: &'a str, sealer: &Sealer) -> Option<Decoded<'a>> {
    let mut wire: Body<'a, Entries<Object<wire::Item<'a>>>> = serde_json::from_str(text).ok()?;
    let input = wire.input.take().map(|Entries(items)| Input::Items(items));
    read(text, &wire, input, sealer).ok()
}

/// Reads the body, then `input`, then its items, so that what is wrong can be told.
fn step_by_step<'a>(text: &'a str, sealer: &Sealer) -> Result<Decoded<'a>> {
    let wire: Body<'a> = serde_json::from_str(text).map_err(|e| InvalidRequest {
        param: None,
        message: format!("The body is not a JSON object of the Responses API: {e}."),
        code: None,
    })?;
    read(text, &wire, wire.input.map(Input::Raw), sealer)
}

/// What a body means, in whichever way it was taken apart.
fn read<'a, I>(body: &'a str, wire: &Body<'a, I>, input: Option<Input<'a>>, sealer: &Sealer) -> Result<Decoded<'a>> {
    let root = Path::Root;
    for (raw, key, instead) in [
        (wire.conversation, "conversation", "send the whole history in `input`"),
        (wire.prompt, "prompt", "send the prompt's text in `input`"),
    ] {
        if raw.is_some() {
            return Err(InvalidRequest {
                param: Some(key.to_owned()),
                message: format!("`{key}` refers to data stored at OpenAI, which is not available here; {instead}."),
                code: Some("unsupported_parameter"),
            });
        }
    }
    if optional(wire.background, &root.key("background"), boolean)? == Some(true) {
        return Err(InvalidRequest {
            param: Some("background".to_owned()),
            message: "`background` responses are not available here; leave it out or send false.".to_owned(),
            code: Some("unsupported_parameter"),
        });
    }
    let mut reader = Reader { sealer, tools: Tools::default(), trigger: None, losses: Vec::new() };
    let mut request = Request {
        model: required(wire.model, &root.key("model"), "a model's name", name)?,
        bytes: body.len(),
        instructions: optional(wire.instructions, &root.key("instructions"), text)?,
        parallel_tool_calls: optional(wire.parallel_tool_calls, &root.key("parallel_tool_calls"), boolean)?,
        temperature: optional(wire.temperature, &root.key("temperature"), |r, p| number_within(r, p, 0.0, 2.0))?,
        top_p: optional(wire.top_p, &root.key("top_p"), |r, p| number_within(r, p, 0.0, 1.0))?,
        max_output_tokens: optional(wire.max_output_tokens, &root.key("max_output_tokens"), positive)?,
        stream: optional(wire.stream, &root.key("stream"), boolean)?.unwrap_or(false),
        store: optional(wire.store, &root.key("store"), boolean)?.unwrap_or(true),
        previous_response_id: optional(wire.previous_response_id, &root.key("previous_response_id"), string)?,
        prompt_cache_key: optional(wire.prompt_cache_key, &root.key("prompt_cache_key"), string)?,
        service_tier: optional(wire.service_tier, &root.key("service_tier"), string)?,
        metadata: optional(wire.metadata, &root.key("metadata"), object)?,
        user: optional(wire.user, &root.key("user"), string)?,
        ..Request::default()
    };
    if let Some(raw) = wire.reasoning {
        let path = root.key("reasoning");
        let reasoning: wire::Reasoning<'a> = fields(raw, &path)?;
        request.effort = optional(reasoning.effort, &path.key("effort"), string)?;
        request.summary = optional(reasoning.summary.or(reasoning.generate_summary), &path.key("summary"), string)?;
    }
    if let Some(raw) = wire.text {
        let path = root.key("text");
        let options: wire::TextOptions<'a> = fields(raw, &path)?;
        request.verbosity = optional(options.verbosity, &path.key("verbosity"), string)?;
        request.format = optional(options.format, &path.key("format"), format)?.unwrap_or_default();
    }
    if let Some(raw) = wire.include {
        let path = root.key("include");
        for (index, entry) in array(raw, &path, "an array")?.into_iter().enumerate() {
            let wanted = string(entry, &path.index(index))?;
            if wanted == "reasoning.encrypted_content" {
                request.include_encrypted_reasoning = true;
            } else {
                reader.lose(&path.index(index), LossAction::Drop, "no provider behind this proxy gives this data");
            }
        }
    }
    if let Some(raw) = wire.tools {
        let path = root.key("tools");
        reader.declare_all(raw, &path)?;
    }
    request.input = reader.input(input, &root.key("input"))?;
    request.compact = reader.trigger.is_some();
    request.tool_choice =
        optional(wire.tool_choice, &root.key("tool_choice"), |raw, path| reader.choice(raw, path))?.unwrap_or_default();
    for (raw, key) in [(wire.max_tool_calls, "max_tool_calls"), (wire.top_logprobs, "top_logprobs")] {
        if raw.is_some() {
            reader.lose(&root.key(key), LossAction::Drop, "not available from other providers");
        }
    }
    if optional(wire.truncation, &root.key("truncation"), string)?.is_some_and(|t| t != "disabled") {
        reader.lose(&root.key("truncation"), LossAction::Drop, "a conversation that does not fit is refused, not cut");
    }
    let Reader { tools, losses, .. } = reader;
    request.tools = tools.list;
    let echo = Echo::new(&request, wire);
    Ok(Decoded { request, echo, losses })
}

/// Carries what reading one body needs and gathers.
struct Reader<'s, 'a> {
    sealer: &'s Sealer,
    tools: Tools<'a>,
    /// Where in `input` a compaction is asked for.
    trigger: Option<String>,
    losses: Vec<Loss>,
}

/// Declared tools in order, each once.
#[derive(Default)]
struct Tools<'a> {
    list: Vec<Tool<'a>>,
    /// Entries that were read, also the same ones again.
    entries: usize,
    known: BTreeSet<ToolRef<'a>>,
}

impl<'a> Reader<'_, 'a> {
    fn lose(&mut self, path: &Path<'_>, action: LossAction, why: &'static str) {
        self.losses.push(Loss { path: path.to_string(), action, why });
    }

    fn input(&mut self, input: Option<Input<'a>>, path: &Path<'_>) -> Result<Vec<Item<'a>>> {
        const FORMS: &str = "a string or an array of items";
        let mut items = Vec::new();
        match input.ok_or_else(|| missing(path, FORMS))? {
            Input::Raw(raw) if kind_of(raw) == "a string" => {
                let parts = vec![Part::Text(text(raw, path)?)];
                items.push(Item::Message { role: Role::User, phase: None, parts });
            }
            Input::Raw(raw) => each(raw, path, FORMS, |item, whole, path| self.item(item, whole, path, &mut items))?,
            Input::Items(entries) => {
                items.reserve(entries.len());
                for (index, Object(item)) in entries.into_iter().enumerate() {
                    let path = path.index(index);
                    let mut whole = || Err(invalid(&path, "its fields only".to_owned(), "the whole item"));
                    self.item(item, &mut whole, &path, &mut items)?;
                }
            }
        }
        Ok(items)
    }

    fn item(
        &mut self,
        item: wire::Item<'a>,
        whole: Whole<'_, 'a>,
        path: &Path<'_>,
        items: &mut Vec<Item<'a>>,
    ) -> Result<()> {
        if let Some(trigger) = &self.trigger {
            let message = format!("`{trigger}` asks for a compaction and must be the last item of `input`.");
            return Err(InvalidRequest { param: Some(trigger.clone()), message, code: None });
        }
        let kind = match item.r#type {
            Some(kind) => string(kind, &path.key("type"))?,
            None if item.role.is_some() => Cow::Borrowed("message"),
            None => return Err(missing(&path.key("type"), "an item's type, such as \"message\"")),
        };
        let call_id = |what| required(item.call_id, &path.key("call_id"), what, name);
        let tool = |kind| -> Result<ToolRef<'a>> {
            Ok(ToolRef {
                namespace: optional(item.namespace, &path.key("namespace"), string)?.filter(|n| !n.is_empty()),
                name: required(item.name, &path.key("name"), "the called tool's name", name)?,
                kind,
            })
        };
        match &*kind {
            "message" => items.push(Item::Message {
                role: required(item.role, &path.key("role"), ROLES, role)?,
                phase: optional(item.phase, &path.key("phase"), string)?,
                parts: required(item.content, &path.key("content"), "a string or an array of parts", parts)?,
            }),
            "reasoning" => {
                let opaque = match optional(item.encrypted_content, &path.key("encrypted_content"), string)? {
                    None => None,
                    Some(text) => match self.sealer.open(&text) {
                        Ok(opaque) => Some(opaque),
                        Err(error) => {
                            self.lose(
                                &path.key("encrypted_content"),
                                LossAction::Drop,
                                match error {
                                    OpenError::Foreign => "made by somebody else; only its maker can read it",
                                    OpenError::Damaged => "damaged, or sealed under a key that is gone",
                                },
                            );
                            None
                        }
                    },
                };
                items.push(Item::Reasoning {
                    summary: optional(item.summary, &path.key("summary"), texts)?.unwrap_or_default(),
                    content: optional(item.content, &path.key("content"), texts)?.unwrap_or_default(),
                    opaque,
                });
            }
            "function_call" => items.push(Item::Call {
                call_id: call_id("the call's id")?,
                tool: tool(ToolKind::Function)?,
                input: required(item.arguments, &path.key("arguments"), "JSON text", json_text)?,
            }),
            "custom_tool_call" => items.push(Item::Call {
                call_id: call_id("the call's id")?,
                tool: tool(ToolKind::Custom)?,
                input: required(item.input, &path.key("input"), "a string", text)?,
            }),
            "tool_search_call" => items.push(Item::Call {
                call_id: call_id("the call's id")?,
                tool: tool_search(),
                input: required(item.arguments, &path.key("arguments"), "an object", json_text)?,
            }),
            "local_shell_call" => items.push(Item::Call {
                call_id: call_id("the call's id")?,
                tool: ToolRef { namespace: None, name: "local_shell".into(), kind: ToolKind::Function },
                input: required(item.action, &path.key("action"), "an object", json_text)?,
            }),
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                items.push(Item::Output {
                    call_id: call_id("the id of the call it answers")?,
                    kind: if kind == "custom_tool_call_output" { ToolKind::Custom } else { ToolKind::Function },
                    parts: required(item.output, &path.key("output"), "a string or an array of parts", parts)?,
                });
            }
            "tool_search_output" => {
                let call_id = call_id("the id of the search it answers")?;
                let found = item.tools.ok_or_else(|| missing(&path.key("tools"), "an array of tools"))?;
                self.declare_all(found, &path.key("tools"))?;
                let parts = vec![Part::Text(found.get().into())];
                items.push(Item::Output { call_id, kind: ToolKind::ToolSearch, parts });
            }
            "additional_tools" => {
                let tools = item.tools.ok_or_else(|| missing(&path.key("tools"), "an array of tools"))?;
                self.declare_all(tools, &path.key("tools"))?;
            }
            "compaction" | "compaction_summary" => {
                let path = path.key("encrypted_content");
                let sealed = required(item.encrypted_content, &path, "a string", string)?;
                items.push(match self.sealer.open_summary(&sealed) {
                    Ok(summary) => compaction::tell(&summary),
                    Err(OpenError::Foreign) => Item::Compaction { path: path.to_string() },
                    Err(OpenError::Damaged) => {
                        return Err(InvalidRequest {
                            param: Some(path.to_string()),
                            message: format!("`{path}` {}.", compaction::NOT_OPENED),
                            code: Some("invalid_encrypted_content"),
                        });
                    }
                });
            }
            "compaction_trigger" => self.trigger = Some(path.to_string()),
            "item_reference" => {
                return Err(InvalidRequest {
                    param: Some(path.to_string()),
                    message: format!("`{path}` refers to an item stored at OpenAI; send the item itself."),
                    code: Some("unsupported_parameter"),
                });
            }
            _ => items.push(Item::Hosted { kind, raw: whole()? }),
        }
        Ok(())
    }

    fn declare_all(&mut self, raw: &'a RawValue, path: &Path<'_>) -> Result<()> {
        each(raw, path, "an array", |tool, whole, path| self.declare(tool, whole, path, None))
    }

    fn declare(
        &mut self,
        wire: wire::Tool<'a>,
        whole: Whole<'_, 'a>,
        path: &Path<'_>,
        namespace: Option<&Text<'a>>,
    ) -> Result<()> {
        self.tools.entries += 1;
        if self.tools.entries > TOOLS_MAX {
            return Err(too_many(&Path::Root.key("tools"), TOOLS_MAX, "tools"));
        }
        let kind = required(wire.r#type, &path.key("type"), "a tool's type, such as \"function\"", string)?;
        let tool_kind = match &*kind {
            "function" => ToolKind::Function,
            "custom" => ToolKind::Custom,
            "tool_search" => ToolKind::ToolSearch,
            "namespace" => {
                let group = required(wire.name, &path.key("name"), "the namespace's name", name)?;
                if namespace.is_some() {
                    return Err(wrong(whole()?, path, "a tool; namespaces do not nest"));
                }
                let members = wire.tools.ok_or_else(|| missing(&path.key("tools"), "an array of tools"))?;
                return each(members, &path.key("tools"), "an array", |tool, whole, path| {
                    self.declare(tool, whole, path, Some(&group))
                });
            }
            _ => {
                self.tools.list.push(Tool::Hosted { kind, raw: whole()? });
                return Ok(());
            }
        };
        let tool = if tool_kind == ToolKind::ToolSearch {
            tool_search()
        } else {
            let what = if wire.function.is_some() {
                "the tool's name at the top level of the entry (not inside `function`)"
            } else {
                "the tool's name"
            };
            ToolRef {
                namespace: namespace.cloned(),
                name: required(wire.name, &path.key("name"), what, name)?,
                kind: tool_kind,
            }
        };
        let callable = CallableTool {
            tool: tool.clone(),
            description: optional(wire.description, &path.key("description"), text)?,
            parameters: optional(wire.parameters, &path.key("parameters"), object)?,
            grammar: optional(wire.format, &path.key("format"), grammar)?.flatten(),
            strict: optional(wire.strict, &path.key("strict"), boolean)?,
        };
        if self.tools.known.insert(tool) {
            self.tools.list.push(Tool::Callable(callable));
        } else if namespace.is_none() {
            // A tool found by search twice is declared twice and is the same tool; only a second top-level
            // declaration can be one that the client expects to count.
            self.lose(path, LossAction::Drop, "declared before; the first declaration stands");
        }
        Ok(())
    }

    fn choice(&mut self, raw: &'a RawValue, path: &Path<'_>) -> Result<ToolChoice<'a>> {
        const FORMS: &str = "\"auto\", \"none\", \"required\" or an object naming a tool";
        if kind_of(raw) == "a string" {
            return match &*string(raw, path)? {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::None),
                "required" => Ok(ToolChoice::Required),
                other => Err(invalid(path, format!("{other:?}"), FORMS)),
            };
        }
        let choice: wire::Choice<'a> = fields(raw, path).map_err(|_| wrong(raw, path, FORMS))?;
        let kind = required(choice.r#type, &path.key("type"), "a kind of choice, such as \"function\"", string)?;
        if kind == "allowed_tools" {
            let mode = optional(choice.mode, &path.key("mode"), string)?;
            let listed = choice.tools.ok_or_else(|| missing(&path.key("tools"), "an array of tools"))?;
            let path = path.key("tools");
            let mut tools = Vec::new();
            for (index, entry) in array(listed, &path, "an array")?.into_iter().enumerate() {
                let path = path.index(index);
                let entry: wire::Choice<'a> = fields(entry, &path)?;
                match self.chosen(&entry, &path)? {
                    Some(tool) => tools.push(tool),
                    None => self.lose(&path, LossAction::Drop, "a hosted tool"),
                }
            }
            return Ok(ToolChoice::Allowed { tools, required: mode.is_some_and(|m| m == "required") });
        }
        Ok(match self.chosen(&choice, path)? {
            Some(tool) => ToolChoice::Named(tool),
            None => {
                self.lose(path, LossAction::Approximate, "a hosted tool cannot be forced; the model decides");
                ToolChoice::Auto
            }
        })
    }

    /// The declared tool that a choice names; `None` for a hosted one.
    fn chosen(&self, choice: &wire::Choice<'a>, path: &Path<'_>) -> Result<Option<ToolRef<'a>>> {
        let kind = required(choice.r#type, &path.key("type"), "a tool's type", string)?;
        if kind == "tool_search" {
            return Ok(Some(tool_search()));
        }
        if !matches!(&*kind, "function" | "custom") {
            return Ok(None);
        }
        let wanted = required(choice.name, &path.key("name"), "a declared tool's name", name)?;
        let group = optional(choice.namespace, &path.key("namespace"), string)?;
        self.tools
            .known
            .iter()
            .find(|t| t.name == wanted && (group.is_none() || t.namespace == group))
            .cloned()
            .map(Some)
            .ok_or_else(|| invalid(&path.key("name"), format!("{wanted:?}"), "the name of a declared tool"))
    }
}

fn tool_search() -> ToolRef<'static> {
    ToolRef { namespace: None, name: Cow::Borrowed("tool_search"), kind: ToolKind::ToolSearch }
}

fn format<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Format<'a>> {
    let wire: wire::Format<'a> = fields(raw, path)?;
    match &*required(wire.r#type, &path.key("type"), FORMATS, string)? {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => Ok(Format::JsonSchema {
            name: optional(wire.name, &path.key("name"), string)?.unwrap_or(Cow::Borrowed("answer")),
            description: optional(wire.description, &path.key("description"), string)?,
            schema: required(wire.schema, &path.key("schema"), "a JSON Schema object", object)?,
            strict: optional(wire.strict, &path.key("strict"), boolean)?,
        }),
        other => Err(invalid(&path.key("type"), format!("{other:?}"), FORMATS)),
    }
}

fn grammar<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Option<(Text<'a>, LazyText<'a>)>> {
    let wire: wire::Grammar<'a> = fields(raw, path)?;
    let definition = optional(wire.definition, &path.key("definition"), text)?;
    let syntax = optional(wire.syntax, &path.key("syntax"), string)?;
    Ok(definition.map(|definition| (syntax.unwrap_or(Cow::Borrowed("lark")), definition)))
}

const ROLES: &str = "\"user\", \"assistant\", \"developer\" or \"system\"";
const FORMATS: &str = "\"text\", \"json_object\" or \"json_schema\"";

fn role(raw: &RawValue, path: &Path<'_>) -> Result<Role> {
    match &*string(raw, path)? {
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "developer" => Ok(Role::Developer),
        "system" => Ok(Role::System),
        other => Err(invalid(path, format!("{other:?}"), ROLES)),
    }
}

/// A string, or an array of parts.
fn parts<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Vec<Part<'a>>> {
    if kind_of(raw) == "a string" {
        return Ok(vec![Part::Text(text(raw, path)?)]);
    }
    let mut parts = Vec::new();
    each(raw, path, "a string or an array of parts", |wire, whole, path| {
        parts.push(part(wire, whole, path)?);
        Ok(())
    })?;
    Ok(parts)
}

fn part<'a>(wire: wire::Part<'a>, whole: Whole<'_, 'a>, path: &Path<'_>) -> Result<Part<'a>> {
    let kind = required(wire.r#type, &path.key("type"), "a part's type, such as \"input_text\"", string)?;
    match &*kind {
        "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
            Ok(Part::Text(required(wire.text, &path.key("text"), "a string", text)?))
        }
        "refusal" => Ok(Part::Refusal(required(wire.refusal, &path.key("refusal"), "a string", text)?)),
        "input_image" if wire.image_url.is_some() || wire.file_id.is_none() => Ok(Part::Image {
            url: required(wire.image_url, &path.key("image_url"), "an https: or data: URL", url)?,
            detail: optional(wire.detail, &path.key("detail"), string)?,
        }),
        _ => Ok(Part::Other { kind, raw: whole()? }),
    }
}

/// The texts of an array of parts.
fn texts<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Vec<LazyText<'a>>> {
    let mut texts = Vec::new();
    each(raw, path, "an array", |wire: wire::Part<'a>, _, path| {
        texts.push(required(wire.text, &path.key("text"), "a string", text)?);
        Ok(())
    })?;
    Ok(texts)
}

#[cfg(test)]
mod tests;
