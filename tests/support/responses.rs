//! A small scripted provider that speaks Responses itself: it proves the half of the harness that drives Codex without
//! the proxy between.

use super::upstream::{Recorded, Reply, Upstream};
use serde_json::{Value, json};

/// A catalogue with one entry, in both shapes that clients read.
pub fn catalogue(slug: &str) -> Value {
    json!({"object": "list", "data": [{"id": slug, "object": "model", "created": 0, "owned_by": "tests"}], "models": [{
        "slug": slug, "display_name": slug, "description": "scripted", "default_reasoning_level": "medium",
        "supported_reasoning_levels": [{"effort": "medium", "description": "m"}], "shell_type": "unified_exec",
        "visibility": "list", "supported_in_api": true, "priority": 1, "base_instructions": "You are a coding agent.",
        "support_verbosity": false, "apply_patch_tool_type": "freeform", "multi_agent_version": "v1",
        "truncation_policy": {"mode": "tokens", "limit": 10000}, "context_window": 200_000,
        "experimental_supported_tools": [],
    }]})
}

/// A stream with these items and a complete end.
pub fn answer(id: &str, items: &[Value]) -> Reply {
    answer_with(id, items, &json!({}))
}

/// The same of a host that keeps it.
pub fn stored_answer(id: &str, items: &[Value]) -> Reply {
    answer_with(id, items, &json!({"store": true}))
}

/// The same; the last object has these members, too.
pub fn answer_with(id: &str, items: &[Value], more: &Value) -> Reply {
    let mut frames = vec![frame(&json!({"type": "response.created", "response": {"id": id}}))];
    for (index, item) in items.iter().enumerate() {
        frames.push(frame(&json!({"type": "response.output_item.done", "output_index": index, "item": item})));
    }
    let usage = json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 120});
    let mut response = json!({"id": id, "usage": usage});
    for (key, value) in more.as_object().into_iter().flatten() {
        response[key] = value.clone();
    }
    frames.push(frame(&json!({"type": "response.completed", "response": response})));
    Reply::sse(&frames)
}

/// One event.
pub fn frame(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

/// An assistant message.
pub fn message(id: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}]})
}

/// A call of `exec_command`.
pub fn exec(id: &str, command: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "exec_command",
        "status": "completed", "arguments": json!({"cmd": command}).to_string()})
}

/// Starts a provider that serves the catalogue and asks `script` for each POST.
pub fn start(slug: &'static str, mut script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Upstream {
    Upstream::start(
        move |request| {
            if request.method == "GET" { Reply::json(200, &catalogue(slug)) } else { script(request) }
        },
    )
}
