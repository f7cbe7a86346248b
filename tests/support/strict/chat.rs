//! Chat Completions: what `https://openrouter.ai/api/v1` and `https://api.deepseek.com` refuse.

use super::{Given, Refusal, Step, Told, Vendor, is_name, list, refuse, repeated, stranger, text, with};
use crate::support::chat::Chat;
use crate::support::upstream::Reply;
use serde_json::{Value, json};

/// <https://openrouter.ai/docs/api-reference/overview>, read 2026-11-21.
const OPENROUTER: &str = "\
    model models messages tools tool_choice parallel_tool_calls stream stream_options max_tokens \
    max_completion_tokens temperature top_p top_k seed stop reasoning reasoning_effort response_format verbosity \
    usage provider user transforms plugins metadata";
/// <https://docs.rs/deepseek-sdk/latest/deepseek_sdk/chat/request/struct.ChatRequest.html>, read 2026-11-21.
const DEEPSEEK: &str = "\
    model messages thinking reasoning_effort max_tokens response_format stop stream stream_options temperature top_p \
    tools tool_choice logprobs top_logprobs user_id";
/// Keys of messages.
const MESSAGE: &str = "role content name tool_calls tool_call_id";

pub(super) fn check(vendor: Vendor, body: &Value, given: &[Given]) -> Result<(), Refusal> {
    let deepseek = vendor == Vendor::DeepSeek;
    if let Some(key) = stranger(body, if deepseek { DEEPSEEK } else { OPENROUTER }) {
        return refuse(format!("Unrecognized request argument supplied: {key}"));
    }
    let messages = list(&body["messages"]);
    if messages.is_empty() {
        return refuse("Invalid 'messages': empty array. Expected an array with minimum length 1.");
    }
    for (m, message) in messages.iter().enumerate() {
        check_message(vendor, m, message)?;
    }
    check_pairs(messages)?;
    let thinks = body["thinking"]["type"] != "disabled";
    for message in messages.iter().filter(|message| message["role"] == "assistant") {
        if deepseek {
            check_content_back(message, thinks, given)?;
        } else {
            check_details_back(message, given)?;
        }
    }
    check_tools(list(&body["tools"]))
}

fn check_message(vendor: Vendor, m: usize, message: &Value) -> Result<(), Refusal> {
    // earendil-works/pi issue 1048; rikkahub/rikkahub issue 1433.
    let unread = |what: String| {
        refuse(format!(
            "Failed to deserialize the JSON body into the target type: messages[{m}]{what} at line 1 column 1"
        ))
    };
    let deepseek = vendor == Vendor::DeepSeek;
    let role = text(&message["role"]);
    let known = ["system", "user", "assistant", "tool"].contains(&role) || (role == "developer" && !deepseek);
    if !known {
        return unread(format!(
            ".role: unknown variant `{role}`, expected one of `system`, `user`, `assistant`, `tool`"
        ));
    }
    let thoughts = if deepseek { "reasoning_content" } else { "reasoning reasoning_details" };
    let keys = format!("{MESSAGE} {}", if role == "assistant" { thoughts } else { "" });
    if let Some(key) = stranger(message, &keys) {
        return refuse(format!("Unrecognized key '{key}' in messages[{m}]"));
    }
    for part in list(&message["content"]) {
        match text(&part["type"]) {
            "text" => {}
            "image_url" if deepseek => return unread(": unknown variant `image_url`, expected `text`".to_owned()),
            "image_url" if role == "user" => {}
            kind => return unread(format!(": unknown variant `{kind}`, expected `text`")),
        }
    }
    let calls = list(&message["tool_calls"]);
    let blank = message["content"].as_str().is_none_or(str::is_empty) && list(&message["content"]).is_empty();
    if role == "assistant" && blank && calls.is_empty() {
        return refuse("Invalid assistant message: content or tool_calls must be set");
    }
    for call in calls {
        let function = &call["function"];
        if call["type"] != "function" || !is_name(text(&function["name"]), 64) {
            return refuse(format!("Invalid 'messages[{m}].tool_calls[0].function.name'"));
        }
        if !serde_json::from_str::<Value>(text(&function["arguments"])).is_ok_and(|arguments| arguments.is_object()) {
            return refuse(format!("Invalid 'messages[{m}].tool_calls[0].function.arguments': not a JSON object"));
        }
    }
    Ok(())
}

/// <https://platform.openai.com/docs/guides/function-calling>, read 2026-11-21; openai/codex issue 8479.
fn check_pairs(messages: &[Value]) -> Result<(), Refusal> {
    let mut waiting: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    let unanswered = |waiting: &[&str]| {
        refuse(format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The \
             following tool_call_ids did not have response messages: {}",
            waiting.join(", ")
        ))
    };
    for message in messages {
        if message["role"] == "tool" {
            let id = text(&message["tool_call_id"]);
            let Some(at) = waiting.iter().position(|waits| *waits == id) else {
                return refuse("Messages with role 'tool' must be a response to a preceding message with 'tool_calls'");
            };
            waiting.remove(at);
            continue;
        }
        if !waiting.is_empty() {
            return unanswered(&waiting);
        }
        waiting = list(&message["tool_calls"]).iter().map(|call| text(&call["id"])).collect();
        all.extend(waiting.iter().copied());
    }
    if !waiting.is_empty() {
        return unanswered(&waiting);
    }
    match repeated(all.into_iter()) {
        Some(id) => refuse(format!("Duplicate value for 'tool_call_id' of {id}")),
        None => Ok(()),
    }
}

fn of_step<'g>(message: &Value, given: &'g [Given]) -> Option<&'g Step> {
    let calls = list(&message["tool_calls"]);
    let of = |step: &Step| match step.calls.first() {
        Some(first) => calls.first().is_some_and(|call| call["id"] == first.id),
        None => calls.is_empty() && message["content"] == step.text,
    };
    given.iter().map(|given| &given.step).find(|step| of(step))
}

/// While it thinks, an answer with calls must bring its thoughts back
/// (<https://api-docs.deepseek.com/guides/thinking_mode>, read 2026-11-21; anomalyco/opencode issue 24722). It cannot tell
/// what somebody else thought, but does find out about its own.
fn check_content_back(message: &Value, thinks: bool, given: &[Given]) -> Result<(), Refusal> {
    let words = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    if !thinks || list(&message["tool_calls"]).is_empty() {
        return Ok(());
    }
    let back = text(&message["reasoning_content"]);
    let other = of_step(message, given).is_some_and(|step| step.thought != back);
    if back.is_empty() || other { refuse(words) } else { Ok(()) }
}

/// What comes back is what was given, in order and unchanged
/// (<https://openrouter.ai/docs/use-cases/reasoning-tokens>, read 2026-11-20). What somebody else encrypted is refused by the
/// service behind it.
fn check_details_back(message: &Value, given: &[Given]) -> Result<(), Refusal> {
    if message["reasoning_details"].is_null() {
        return Ok(());
    }
    match of_step(message, given) {
        Some(step) if message["reasoning_details"] == details(step) => Ok(()),
        Some(_) | None => refuse(
            "Provider returned error: reasoning_details must match the outputs generated by the model during the original \
             request",
        ),
    }
}

fn check_tools(tools: &[Value]) -> Result<(), Refusal> {
    for (t, tool) in tools.iter().enumerate() {
        if tool["type"] != "function" {
            return refuse(format!("tools[{t}].type: 'type' of tool must be 'function'"));
        }
        if let Some(key) = stranger(&tool["function"], "name description parameters strict") {
            return refuse(format!("tools[{t}].function.{key}: Unrecognized key"));
        }
        if !is_name(text(&tool["function"]["name"]), 64) {
            return refuse(format!(
                "Invalid 'tools[{t}].function.name': string does not match pattern. Expected a string that matches the \
                 pattern '^[a-zA-Z0-9_-]{{1,64}}$'."
            ));
        }
        if tool["function"]["parameters"]["type"] != "object" {
            return refuse(format!("Invalid schema for function {t}: schema must be of type \"object\""));
        }
    }
    match repeated(tools.iter().map(|tool| text(&tool["function"]["name"]))) {
        Some(name) => refuse(format!("tools: Tool names must be unique: {name}")),
        None => Ok(()),
    }
}

/// What OpenRouter makes of thoughts that the service behind it shows shortened and encrypts.
fn details(step: &Step) -> Value {
    json!([
        {"type": "reasoning.summary", "summary": step.thought, "id": null, "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": step.seal, "id": "rs_1", "format": "openai-responses-v1", "index": 1},
    ])
}

pub(super) fn say(vendor: Vendor, body: &Value, step: &Step) -> Reply {
    let names: Vec<String> =
        list(&body["tools"]).iter().map(|tool| text(&tool["function"]["name"]).to_owned()).collect();
    let begun = match vendor {
        Vendor::DeepSeek => Chat::new().reasoning(&step.thought),
        Vendor::OpenRouter | Vendor::OpenAi | Vendor::Anthropic | Vendor::Haiku | Vendor::Google => {
            Chat::new().delta(json!({"reasoning": step.thought, "reasoning_details": details(step)}), Value::Null)
        }
    };
    let call =
        |stream: Chat, call: &super::Call| stream.call(&call.id, &call.tool.declared(&names), &call.tool.arguments());
    step.calls.iter().fold(begun.text(step.text), call).complete().reply()
}

pub(super) fn told(body: &Value) -> Vec<Told> {
    let mut told = Vec::new();
    for message in list(&body["messages"]) {
        let role = text(&message["role"]);
        let word = |words: &str| match role {
            "user" => Told::User(words.to_owned()),
            "assistant" => Told::Assistant(words.to_owned()),
            _ => Told::Result(words.to_owned()),
        };
        if role == "system" || role == "developer" {
            continue;
        }
        if let Some(words) = message["content"].as_str().filter(|words| !words.is_empty() || role == "tool") {
            told.push(word(words));
        }
        for part in list(&message["content"]) {
            told.push(part["text"].as_str().map_or(Told::Picture, word));
        }
        for call in list(&message["tool_calls"]) {
            let function = &call["function"];
            let arguments = serde_json::from_str(text(&function["arguments"])).unwrap_or_default();
            told.push(Told::call(text(&function["name"]), &arguments));
        }
    }
    told
}

pub(super) fn spoilt(vendor: Vendor, body: &Value) -> Vec<(&'static str, Value)> {
    let messages = list(&body["messages"]);
    let with_calls = |message: &Value| !list(&message["tool_calls"]).is_empty();
    let said = messages.iter().rposition(with_calls).expect("a call");
    let mut all = vec![
        ("an unknown field", with(body, |body| body["client_metadata"] = json!({}))),
        ("an unknown role", with(body, |body| body["messages"][0]["role"] = json!("critic"))),
        (
            "a result that is missing",
            with(body, |body| drop(body["messages"].as_array_mut().unwrap().remove(said + 1))),
        ),
        ("a result of no call", with(body, |body| body["messages"][said + 1]["tool_call_id"] = json!("call_none"))),
        (
            "a message between call and result",
            with(body, |body| {
                let between = json!({"role": "user", "content": "Meanwhile."});
                body["messages"].as_array_mut().unwrap().insert(said + 1, between);
            }),
        ),
        ("a tool that is no function", with(body, |body| body["tools"][0]["type"] = json!("web_search"))),
    ];
    if vendor == Vendor::DeepSeek {
        let picture = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}]);
        all.extend([
            (
                "thoughts left out",
                with(body, |body| {
                    body["messages"][said].as_object_mut().unwrap().remove("reasoning_content");
                }),
            ),
            ("other thoughts", with(body, |body| body["messages"][said]["reasoning_content"] = json!("Hm."))),
            ("a developer", with(body, |body| body["messages"][0]["role"] = json!("developer"))),
            (
                "a picture",
                with(body, |body| {
                    body["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": picture}));
                }),
            ),
        ]);
    } else {
        all.push((
            "thoughts in another order",
            with(body, |body| body["messages"][said]["reasoning_details"].as_array_mut().unwrap().reverse()),
        ));
        all.push((
            "thoughts of another kind",
            with(body, |body| body["messages"][said]["reasoning_content"] = json!("x")),
        ));
    }
    all
}
