//! OpenAI's Responses API: what `https://api.openai.com/v1/responses` refuses of a request that stores nothing.

use super::{Given, Refusal, Step, Told, Tool, is_name, list, refuse, repeated, stranger, text, with};
use crate::support::responses::{answer, message};
use crate::support::upstream::Reply;
use serde_json::{Value, json};

/// `ResponseCreateParams` of the openai package that `tests/setup.sh` pins; `client_metadata` is what the service's own client
/// sends.
const FIELDS: &str = "\
    background client_metadata context_management conversation include input instructions max_output_tokens \
    max_tool_calls metadata model parallel_tool_calls previous_response_id prompt prompt_cache_key \
    prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature text \
    tool_choice tools top_logprobs top_p truncation user";

/// What an item's id begins with.
const PREFIXES: &[(&str, &str)] = &[
    ("message", "msg"),
    ("reasoning", "rs"),
    ("function_call", "fc"),
    ("function_call_output", "fc"),
    ("custom_tool_call", "ctc"),
    ("custom_tool_call_output", "ctc"),
];

/// Ids and the like are no longer than this.
const ID_CHARS_MAX: usize = 64;

pub(super) fn check(body: &Value, given: &[Given]) -> Result<(), Refusal> {
    if let Some(key) = stranger(body, FIELDS) {
        return refuse(format!("Unknown parameter: '{key}'."));
    }
    let input = list(&body["input"]);
    for (i, item) in input.iter().enumerate() {
        check_item(i, item)?;
    }
    check_pairs(input)?;
    check_thoughts(input, given)?;
    for (t, tool) in list(&body["tools"]).iter().enumerate() {
        if !matches!(text(&tool["type"]), "function" | "custom" | "namespace" | "web_search" | "tool_search") {
            return refuse(format!("Invalid value: '{}'.", text(&tool["type"])));
        }
        if tool.get("name").is_some_and(|name| !is_name(text(name), 128)) {
            return refuse(format!("Invalid 'tools[{t}].name': string does not match pattern '^[a-zA-Z0-9_-]+$'."));
        }
    }
    Ok(())
}

fn check_item(i: usize, item: &Value) -> Result<(), Refusal> {
    let kind = text(&item["type"]);
    let Some((_, prefix)) = PREFIXES.iter().find(|(name, _)| *name == kind) else {
        return refuse(format!("Invalid value: '{kind}'. Supported values are: 'message', 'reasoning', …"));
    };
    if let Some(id) = item["id"].as_str() {
        if !id.starts_with(prefix) {
            return refuse(format!("Invalid 'input[{i}].id': '{id}'. Expected an ID that begins with '{prefix}'."));
        }
        if !is_name(id, ID_CHARS_MAX) {
            return refuse(format!(
                "Invalid 'input[{i}].id': string too long, or of other than letters, numbers, underscores, \
                                   or dashes."
            ));
        }
    }
    if item.get("call_id").is_some_and(|id| text(id).is_empty() || text(id).len() > ID_CHARS_MAX) {
        return refuse(format!(
            "Invalid 'input[{i}].call_id': string too long. Expected a string with maximum length 64."
        ));
    }
    if item.get("name").is_some_and(|name| !is_name(text(name), 128)) {
        return refuse(format!("Invalid 'input[{i}].name': string does not match pattern '^[a-zA-Z0-9_-]+$'."));
    }
    let wanted: &[&str] = match (kind, text(&item["role"])) {
        ("message", "assistant") => &["output_text", "refusal"],
        ("message", _) => &["input_text", "input_image", "input_file"],
        // Only the open models of other hosts show what they thought in full.
        ("reasoning", _) if !list(&item["content"]).is_empty() => {
            return refuse(format!(
                "Invalid 'input[{i}].content': array too long. Expected an array with maximum length 0, but got an array with \
                 length 1 instead."
            ));
        }
        (_, _) => return Ok(()),
    };
    let parts = list(&item["content"]);
    match parts.iter().map(|part| text(&part["type"])).find(|part| !wanted.contains(part)) {
        Some(part) => refuse(format!("Invalid value: '{part}'. Supported values are: '{}'.", wanted.join("', '"))),
        None => Ok(()),
    }
}

/// microsoft/vscode issue 320060 and anomalyco/opencode issue 16717.
fn check_pairs(input: &[Value]) -> Result<(), Refusal> {
    let mut waiting: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    for item in input {
        let id = text(&item["call_id"]);
        match text(&item["type"]) {
            "function_call" | "custom_tool_call" => {
                waiting.push(id);
                all.push(id);
            }
            kind @ ("function_call_output" | "custom_tool_call_output") => {
                let Some(at) = waiting.iter().position(|waits| *waits == id) else {
                    let what = if kind.starts_with("custom") { "custom tool call" } else { "function call" };
                    return refuse(format!("No tool call found for {what} output with call_id {id}."));
                };
                waiting.remove(at);
            }
            _ => {}
        }
    }
    if let Some(id) = waiting.first() {
        return refuse(format!("No tool output found for function call {id}."));
    }
    match repeated(all.into_iter()) {
        Some(id) => refuse(format!("Duplicate call_id {id}.")),
        None => Ok(()),
    }
}

/// Encrypted thoughts are those that were given (openai/codex issue 8145); without any they would have to be stored here
/// (can1357/oh-my-pi issue 41, vercel/ai issue 7543); behind them comes what they led to (vercel/ai issue 7099), and that
/// does not come without them (qbit-ai/qbit pull request 180).
fn check_thoughts(input: &[Value], given: &[Given]) -> Result<(), Refusal> {
    let ids: Vec<&str> = input.iter().map(|item| text(&item["id"])).collect();
    for (i, item) in input.iter().enumerate() {
        let id = text(&item["id"]);
        if item["type"] != "reasoning" {
            let step =
                given.iter().map(|given| &given.step).find(|step| items(step).iter().skip(1).any(|s| s["id"] == id));
            if let Some(step) = step.filter(|step| !ids[..i].contains(&&*thought_id(step))) {
                let (kind, thought) = (text(&item["type"]), thought_id(step));
                return refuse(format!(
                    "Item '{id}' of type '{kind}' was provided without its required 'reasoning' item: '{thought}'."
                ));
            }
            continue;
        }
        let Some(blob) = item["encrypted_content"].as_str() else {
            return Err(Refusal {
                status: 404,
                code: None,
                message: format!(
                    "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with \
                     `store` set to true, or remove this item from your input."
                ),
            });
        };
        let Some(step) = given.iter().map(|given| &given.step).find(|step| step.seal == blob && thought_id(step) == id)
        else {
            return Err(Refusal {
                status: 400,
                code: Some("invalid_encrypted_content"),
                message: format!("The encrypted content {}... could not be verified.", blob.get(..4).unwrap_or(blob)),
            });
        };
        if !items(step).get(1).is_some_and(|next| input.get(i + 1).is_some_and(|item| item["id"] == next["id"])) {
            return refuse(format!(
                "Item '{id}' of type 'reasoning' was provided without its required following item."
            ));
        }
    }
    Ok(())
}

fn thought_id(step: &Step) -> String {
    let stem: String = step.seal.bytes().map(|b| format!("{b:02x}")).collect();
    format!("rs_{}", &stem[stem.len().saturating_sub(48)..])
}

/// The items of a step, the thoughts first; those for tools lack the namespace.
fn items(step: &Step) -> Vec<Value> {
    let id = thought_id(step);
    let summary = json!([{"type": "summary_text", "text": step.thought}]);
    let mut all = vec![
        json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": step.seal}),
        message(&id.replacen("rs_", "msg_", 1), step.text),
    ];
    all.extend(step.calls.iter().map(|call| match call.tool {
        Tool::Patch(patch) => {
            json!({"type": "custom_tool_call", "id": format!("ctc_{}", call.id), "status": "completed",
            "call_id": call.id, "name": "apply_patch", "input": patch})
        }
        tool => json!({"type": "function_call", "id": format!("fc_{}", call.id), "status": "completed",
            "call_id": call.id, "name": tool.name(), "arguments": tool.arguments().to_string()}),
    }));
    all
}

pub(super) fn say(body: &Value, step: &Step) -> Reply {
    let mut all = items(step);
    for item in &mut all {
        let groups = list(&body["tools"]).iter().filter(|tool| tool["type"] == "namespace");
        let holds = |group: &&Value| list(&group["tools"]).iter().any(|tool| tool["name"] == item["name"]);
        if let Some(group) = groups.filter(|_| item["type"] == "function_call").find(holds) {
            item["namespace"] = group["name"].clone();
        }
    }
    answer(&thought_id(step).replacen("rs_", "resp_", 1), &all)
}

pub(super) fn told(body: &Value) -> Vec<Told> {
    let mut told = Vec::new();
    for item in list(&body["input"]) {
        let output = &item["output"];
        let parts = if output.is_array() { list(output) } else { list(&item["content"]) };
        let word = |words: &str| match text(&item["role"]) {
            "user" => Some(Told::User(words.to_owned())),
            "assistant" => Some(Told::Assistant(words.to_owned())),
            _ => None,
        };
        match text(&item["type"]) {
            "message" => told.extend(parts.iter().filter_map(|part| match part["text"].as_str() {
                Some(words) => word(words),
                None => Some(Told::Picture),
            })),
            "function_call" => {
                let arguments = serde_json::from_str(text(&item["arguments"])).unwrap_or_default();
                told.push(Told::call(text(&item["name"]), &arguments));
            }
            "custom_tool_call" => told.push(Told::call(text(&item["name"]), &item["input"])),
            "function_call_output" | "custom_tool_call_output" => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                told.push(Told::Result(output.as_str().map_or_else(|| texts.join("\n"), str::to_owned)));
                told.extend(parts.iter().filter(|part| part["type"] == "input_image").map(|_| Told::Picture));
            }
            _ => {}
        }
    }
    told
}

pub(super) fn spoilt(body: &Value) -> Vec<(&'static str, Value)> {
    let input = list(&body["input"]);
    let at = |kind: &str| input.iter().position(|item| item["type"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let without = |i: usize| with(body, |body| drop(body["input"].as_array_mut().unwrap().remove(i)));
    let thought = at("reasoning");
    vec![
        ("an unknown field", with(body, |body| body["max_tokens"] = json!(1))),
        (
            "what somebody else encrypted",
            with(body, |body| body["input"][thought]["encrypted_content"] = json!("gAAAAABelse")),
        ),
        (
            "thoughts that would have to be stored",
            with(body, |body| {
                body["input"][thought].as_object_mut().unwrap().remove("encrypted_content");
            }),
        ),
        ("thoughts left out", without(thought)),
        ("what followed thoughts left out", without(thought + 1)),
        ("a call left out", without(at("function_call"))),
        ("a result left out", without(at("function_call_output"))),
        ("a patch left out", without(at("custom_tool_call"))),
        ("an id of another kind", with(body, |body| body["input"][thought]["id"] = json!("msg_1"))),
    ]
}
