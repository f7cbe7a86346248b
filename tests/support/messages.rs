//! Messages streams, built event by event as Anthropic sends them.

use super::upstream::{Cut, Recorded, Reply};
use serde_json::{Value, json};

/// A stream in the making.
#[derive(Debug, Clone)]
pub struct Messages {
    frames: Vec<String>,
    blocks: usize,
    calls: usize,
}

impl Default for Messages {
    fn default() -> Self {
        Self::new()
    }
}

impl Messages {
    /// One that has begun.
    pub fn new() -> Self {
        let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60,
            "output_tokens": 1});
        let message = json!({"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-opus-5-5",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage});
        Self { frames: Vec::new(), blocks: 0, calls: 0 }
            .event(&json!({"type": "message_start", "message": message}))
            .event(&json!({"type": "ping"}))
    }

    /// Any event.
    pub fn event(mut self, event: &Value) -> Self {
        self.frames.push(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()));
        self
    }

    /// A block with these deltas.
    fn block(mut self, start: &Value, deltas: &[Value]) -> Self {
        let index = self.blocks;
        self.blocks += 1;
        self = self.event(&json!({"type": "content_block_start", "index": index, "content_block": start}));
        for delta in deltas {
            self = self.event(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        self.event(&json!({"type": "content_block_stop", "index": index}))
    }

    /// A block of text.
    pub fn text(self, pieces: &[&str]) -> Self {
        let deltas: Vec<Value> = pieces.iter().map(|text| json!({"type": "text_delta", "text": text})).collect();
        self.block(&json!({"type": "text", "text": ""}), &deltas)
    }

    /// A block of thoughts.
    pub fn thinking(self, pieces: &[&str], signature: &str) -> Self {
        let thought = |text: &&str| json!({"type": "thinking_delta", "thinking": text});
        let mut deltas: Vec<Value> = pieces.iter().map(thought).collect();
        deltas.push(json!({"type": "signature_delta", "signature": signature}));
        self.block(&json!({"type": "thinking", "thinking": "", "signature": ""}), &deltas)
    }

    /// A call, its arguments in pieces.
    pub fn call(mut self, id: &str, name: &str, input: &Value) -> Self {
        self.calls += 1;
        let text: Vec<char> = input.to_string().chars().collect();
        let piece =
            |part: &[char]| json!({"type": "input_json_delta", "partial_json": part.iter().collect::<String>()});
        let deltas: Vec<Value> = text.chunks(11).map(piece).collect();
        self.block(&json!({"type": "tool_use", "id": id, "name": name, "input": {}}), &deltas)
    }

    /// The command-running call.
    pub fn exec(self, id: &str, command: &str) -> Self {
        self.call(id, "exec_command", &json!({"cmd": command}))
    }

    /// `tool_use` if there was a call, else `end_turn`; and the end.
    pub fn complete(self) -> Self {
        let reason = if self.calls > 0 { "tool_use" } else { "end_turn" };
        self.event(&json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
            "usage": {"output_tokens": 20}}))
            .event(&json!({"type": "message_stop"}))
    }

    /// The frames.
    pub fn frames(&self) -> &[String] {
        &self.frames
    }

    /// All of it as a reply.
    pub fn reply(&self) -> Reply {
        Reply::sse(&self.frames)
    }

    /// All of it, then the cut.
    pub fn cut(&self, cut: Cut) -> Reply {
        Reply::sse_cut(&self.frames, cut)
    }
}

/// The usual last answer of a turn.
pub fn say(text: &str) -> Reply {
    Messages::new().text(&[text]).complete().reply()
}

/// An error event, or the body of an error.
pub fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_01"})
}

/// All blocks of the conversation, in order.
pub fn blocks(request: &Recorded) -> Vec<&Value> {
    request.messages().iter().flat_map(|message| message["content"].as_array().into_iter().flatten()).collect()
}

/// How many results of tools the conversation holds: 0 on a first step.
pub fn results(request: &Recorded) -> usize {
    blocks(request).iter().filter(|block| block["type"] == "tool_result").count()
}
