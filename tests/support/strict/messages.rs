//! Anthropic's Messages: what `https://api.anthropic.com/v1/messages` refuses.

use super::{Given, Refusal, Step, Told, Vendor, is_name, list, refuse, repeated, stranger, text, with};
use crate::support::messages::Messages;
use crate::support::upstream::Reply;
use serde_json::{Value, json};

/// `MessageCreateParams` of the anthropic package that `tests/setup.sh` pins, and what its last version took before.
const FIELDS: &str = "\
    model max_tokens messages system tools tool_choice thinking output_config temperature top_p top_k \
    stop_sequences stream metadata service_tier container inference_geo cache_control";

/// The same package: which keys a block has. Thoughts take no `cache_control` (lbjlaq/Antigravity-Manager issue 744).
const BLOCKS: &[(&str, &str)] = &[
    ("text", "type text cache_control citations"),
    ("image", "type source cache_control"),
    ("document", "type source cache_control title context citations"),
    ("thinking", "type thinking signature"),
    ("redacted_thinking", "type data"),
    ("tool_use", "type id name input cache_control caller"),
    ("tool_result", "type tool_use_id content is_error cache_control"),
];

pub(super) fn check(vendor: Vendor, body: &Value, given: &[Given]) -> Result<(), Refusal> {
    if let Some(key) = stranger(body, FIELDS) {
        return refuse(format!("{key}: Extra inputs are not permitted"));
    }
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return refuse("max_tokens: Field required");
    }
    let messages = list(&body["messages"]);
    let Some(first) = messages.first() else { return refuse("messages: at least one message is required") };
    if first["role"] != "user" {
        return refuse("messages: first message must use the \"user\" role");
    }
    // Claude 4.6 and later take no words put into their mouth
    // (https://platform.claude.com/docs/en/about-claude/models/migration-guide, read 2026-11-21).
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        return refuse(
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        );
    }
    for (m, message) in messages.iter().enumerate() {
        check_message(m, message)?;
    }
    check_pairs(messages)?;
    check_step(body, messages)?;
    check_thoughts(vendor, body, messages, given)?;
    // https://platform.claude.com/docs/en/build-with-claude/prompt-caching, and james-6-23/codex2api pull request 613.
    let marks = body.to_string().matches("\"cache_control\":{").count();
    if marks > 4 {
        return refuse(format!("A maximum of 4 blocks with cache_control may be provided. Found {marks}."));
    }
    check_tools(list(&body["tools"]))
}

fn check_message(m: usize, message: &Value) -> Result<(), Refusal> {
    let role = text(&message["role"]);
    if !matches!(role, "user" | "assistant") {
        return refuse(format!("messages.{m}.role: Input should be 'user' or 'assistant'"));
    }
    if let Some(key) = stranger(message, "role content") {
        return refuse(format!("messages.{m}.{key}: Extra inputs are not permitted"));
    }
    if message["content"].as_str().is_some_and(|words| !words.trim().is_empty()) {
        return Ok(());
    }
    let blocks = list(&message["content"]);
    if blocks.is_empty() {
        return refuse(format!("messages.{m}: all messages must have non-empty content"));
    }
    for (n, block) in blocks.iter().enumerate() {
        check_block(&format!("messages.{m}.content.{n}"), role, block)?;
    }
    // https://platform.claude.com/docs/en/build-with-claude/extended-thinking, read 2026-11-21.
    if role == "assistant" && blocks.last().is_some_and(is_thought) {
        return refuse(format!("messages.{m}: The final block in an assistant message cannot be `thinking`."));
    }
    // https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use, read 2026-11-21.
    let is_result = |block: &Value| block["type"] == "tool_result";
    if blocks.iter().skip_while(|block| is_result(block)).any(is_result) {
        return refuse(format!("messages.{m}: `tool_result` blocks must come first in the content of a message"));
    }
    Ok(())
}

fn check_block(at: &str, role: &str, block: &Value) -> Result<(), Refusal> {
    let kind = text(&block["type"]);
    let Some((_, keys)) = BLOCKS.iter().find(|(name, _)| *name == kind) else {
        return refuse(format!("{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags"));
    };
    if let Some(key) = stranger(block, keys) {
        return refuse(format!("{at}.{kind}.{key}: Extra inputs are not permitted"));
    }
    match kind {
        "text" if text(&block["text"]).is_empty() => refuse(format!("{at}: text content blocks must be non-empty")),
        "text" if text(&block["text"]).trim().is_empty() => {
            refuse(format!("{at}: text content blocks must contain non-whitespace text"))
        }
        "tool_use" if role != "assistant" => {
            refuse(format!("{at}: `tool_use` blocks can only be in `assistant` messages"))
        }
        "tool_result" if role != "user" => refuse(format!("{at}: `tool_result` blocks can only be in `user` messages")),
        "tool_use" if !is_name(text(&block["id"]), 1000) => {
            refuse(format!("{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"))
        }
        "tool_use" if !is_name(text(&block["name"]), 128) => {
            refuse(format!("{at}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"))
        }
        "tool_use" if !block["input"].is_object() => {
            refuse(format!("{at}.tool_use.input: Input should be a valid dictionary"))
        }
        "tool_result" => {
            for (n, inner) in list(&block["content"]).iter().enumerate() {
                if !matches!(text(&inner["type"]), "text" | "image" | "document") {
                    return refuse(format!("{at}.content.{n}: Input tag does not match any of the expected tags"));
                }
                check_block(&format!("{at}.content.{n}"), role, inner)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// anthropics/claude-code issues 8210 and 18947 have the words; the rule is in
/// <https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use>, read 2026-11-21.
fn check_pairs(messages: &[Value]) -> Result<(), Refusal> {
    let ids = |message: &Value, kind: &str, key: &str| -> Vec<String> {
        let blocks = list(&message["content"]).iter().filter(|block| block["type"] == kind);
        blocks.map(|block| text(&block[key]).to_owned()).collect()
    };
    let mut all = Vec::new();
    for (m, message) in messages.iter().enumerate() {
        let calls = ids(message, "tool_use", "id");
        let next = messages.get(m + 1).map(|next| ids(next, "tool_result", "tool_use_id")).unwrap_or_default();
        if let Some(lost) = calls.iter().find(|id| !next.contains(id)) {
            return refuse(format!(
                "messages.{m}: `tool_use` ids were found without `tool_result` blocks immediately after: {lost}. Each \
                 `tool_use` block must have a corresponding `tool_result` block in the next message."
            ));
        }
        let before = m.checked_sub(1).map(|b| ids(&messages[b], "tool_use", "id")).unwrap_or_default();
        if let Some(orphan) = ids(message, "tool_result", "tool_use_id").iter().find(|id| !before.contains(id)) {
            return refuse(format!(
                "messages.{m}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {orphan}. Each \
                 `tool_result` block must have a corresponding `tool_use` block in the previous message."
            ));
        }
        all.extend(calls);
    }
    match repeated(all.iter().map(String::as_str)) {
        Some(_) => refuse("messages: `tool_use` ids must be unique"),
        None => Ok(()),
    }
}

/// Thoughts are those that were given, unchanged; for the newest models what stood before them, tools and system included, is
/// what stood there then (the pages that `src/codec/messages/models.rs` names, read 2026-11-21). Within the step under way none
/// may be missing
/// (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>, read 2026-11-21).
fn check_thoughts(vendor: Vendor, body: &Value, messages: &[Value], given: &[Given]) -> Result<(), Refusal> {
    for (m, message) in messages.iter().enumerate() {
        for (n, block) in list(&message["content"]).iter().enumerate().filter(|(_, block)| is_thought(block)) {
            let at = format!("messages.{m}.content.{n}");
            let found = given.iter().find(|given| block["signature"] == given.step.seal);
            let Some(found) = found else {
                return refuse(format!("{at}: Invalid `signature` in `thinking` block"));
            };
            if block["thinking"] != found.step.thought {
                return refuse(format!(
                    "{at}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. \
                     These blocks must remain as they were in the original response."
                ));
            }
            let same = |key: &str| unmarked(&body[key]) == unmarked(&found.before[key]);
            let before = list(&found.before["messages"]);
            let stood = messages[..m].iter().map(unmarked).eq(before.iter().map(unmarked));
            if vendor != Vendor::Haiku && !(same("tools") && same("system") && stood) {
                return refuse(format!("{at}: Invalid `signature` in `thinking` block"));
            }
        }
    }
    let [.., said, _] = messages else { return Ok(()) };
    let blocks = list(&said["content"]);
    for given in given {
        let called = |block: &Value| given.step.calls.iter().any(|call| block["id"] == call.id);
        if blocks.iter().any(called) && !blocks.iter().any(|block| block["signature"] == given.step.seal) {
            return refuse(
                "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks \
                 must remain as they were in the original response.",
            );
        }
    }
    Ok(())
}

/// With tokens to think with, the step under way begins with thoughts
/// (<https://platform.claude.com/docs/en/build-with-claude/extended-thinking>, read 2026-11-21; the words from
/// lbjlaq/Antigravity-Manager issue 139).
fn check_step(body: &Value, messages: &[Value]) -> Result<(), Refusal> {
    let spoken = |message: &Value| {
        message["role"] == "user" && !list(&message["content"]).iter().any(|block| block["type"] == "tool_result")
    };
    let begun = messages.iter().rposition(spoken).map_or(0, |at| at + 1);
    let first = messages.get(begun).map(|message| &message["content"][0]);
    match first.filter(|first| body["thinking"]["type"] == "enabled" && !is_thought(first)) {
        Some(first) => refuse(format!(
            "messages.{begun}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{}`. When `thinking` is \
             enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` \
             and `tool_result` blocks).",
            text(&first["type"])
        )),
        None => Ok(()),
    }
}

fn check_tools(tools: &[Value]) -> Result<(), Refusal> {
    const KEYS: &str = "\
        type name description input_schema cache_control strict eager_input_streaming input_examples \
        defer_loading allowed_callers";
    for (n, tool) in tools.iter().enumerate() {
        if let Some(key) = stranger(tool, KEYS) {
            return refuse(format!("tools.{n}.custom.{key}: Extra inputs are not permitted"));
        }
        if !is_name(text(&tool["name"]), 128) {
            return refuse(format!("tools.{n}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"));
        }
        if tool["input_schema"]["type"] != "object" {
            return refuse(format!("tools.{n}.custom.input_schema.type: Field required"));
        }
        // beautyfree/appstore-connect-mcp issue 2, read 2026-11-21.
        let mut names = tool["input_schema"]["properties"].as_object().into_iter().flat_map(|all| all.keys());
        if names.any(|name| !is_name(&name.replace('.', "-"), 64)) {
            return refuse(format!(
                "tools.{n}.custom.input_schema.properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{{1,64}}$'"
            ));
        }
    }
    match repeated(tools.iter().map(|tool| text(&tool["name"]))) {
        Some(_) => refuse("tools: Tool names must be unique."),
        None => Ok(()),
    }
}

fn is_thought(block: &Value) -> bool {
    matches!(text(&block["type"]), "thinking" | "redacted_thinking")
}

/// Without the marks for the cache, which move on.
fn unmarked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| *key != "cache_control");
            Value::Object(kept.map(|(key, value)| (key.clone(), unmarked(value))).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(unmarked).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

pub(super) fn say(body: &Value, step: &Step) -> Reply {
    let names: Vec<String> = list(&body["tools"]).iter().map(|tool| text(&tool["name"]).to_owned()).collect();
    let begun = Messages::new().thinking(&[&step.thought], &step.seal).text(&[step.text]);
    let call = |stream: Messages, call: &super::Call| {
        stream.call(&call.id, &call.tool.declared(&names), &call.tool.arguments())
    };
    step.calls.iter().fold(begun, call).complete().reply()
}

pub(super) fn told(body: &Value) -> Vec<Told> {
    let mut told = Vec::new();
    for message in list(&body["messages"]) {
        for block in list(&message["content"]) {
            match (text(&block["type"]), text(&message["role"])) {
                ("text", "user") => told.push(Told::User(text(&block["text"]).to_owned())),
                ("text", _) => told.push(Told::Assistant(text(&block["text"]).to_owned())),
                ("image", _) => told.push(Told::Picture),
                ("tool_use", _) => told.push(Told::call(text(&block["name"]), &block["input"])),
                ("tool_result", _) => {
                    let inner = list(&block["content"]);
                    let texts: Vec<&str> = inner.iter().filter_map(|block| block["text"].as_str()).collect();
                    let whole = block["content"].as_str().map_or_else(|| texts.join("\n"), str::to_owned);
                    told.push(Told::Result(whole));
                    told.extend(inner.iter().filter(|block| block["type"] == "image").map(|_| Told::Picture));
                }
                _ => {}
            }
        }
    }
    told
}

pub(super) fn spoilt(vendor: Vendor, body: &Value) -> Vec<(&'static str, Value)> {
    let messages = list(&body["messages"]);
    let at = |kind: &str| {
        let holds = |message: &Value| list(&message["content"]).iter().any(|block| block["type"] == kind);
        let m = messages.iter().position(holds).unwrap_or_else(|| panic!("no {kind}"));
        let n = list(&messages[m]["content"]).iter().position(|block| block["type"] == kind).unwrap();
        (m, n)
    };
    let (thought, result) = (at("thinking"), at("tool_result"));
    let block = |body: &mut Value, (m, n): (usize, usize), key: &str, value: Value| {
        body["messages"][m]["content"][n][key] = value;
    };
    let last = messages.len() - 1;
    let mut all = vec![
        ("an unknown field", with(body, |body| body["frequency_penalty"] = json!(1))),
        ("a signature of somebody else", with(body, |body| block(body, thought, "signature", json!("c29tZWJvZHk=")))),
        ("thoughts that were changed", with(body, |body| block(body, thought, "thinking", json!("Something else.")))),
        ("a result of no call", with(body, |body| block(body, result, "tool_use_id", json!("toolu_none")))),
        (
            "a result that is missing",
            with(body, |body| drop(body["messages"][result.0]["content"].as_array_mut().unwrap().remove(result.1))),
        ),
        ("no user at first", with(body, |body| drop(body["messages"].as_array_mut().unwrap().remove(0)))),
        ("the assistant at last", with(body, |body| body["messages"][last]["role"] = json!("assistant"))),
        ("a blank text", with(body, |body| body["messages"][0]["content"] = json!([{"type": "text", "text": " "}]))),
        (
            "thoughts of the step under way left out",
            with(body, |body| {
                let said = body["messages"][last - 1]["content"].as_array_mut().unwrap();
                said.retain(|block| !is_thought(block));
            }),
        ),
        (
            "an argument with a name that is not taken",
            with(body, |body| body["tools"][0]["input_schema"]["properties"]["filter[id]"] = json!({})),
        ),
        ("a name twice", with(body, |body| body["tools"][1]["name"] = body["tools"][0]["name"].clone())),
    ];
    if vendor != Vendor::Haiku {
        all.push(("other words before thoughts", with(body, |body| body["system"][0]["text"] = json!("Be unkind."))));
    }
    all
}
