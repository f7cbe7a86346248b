//! Chat Completions streams, built frame by frame as the hosts send them.

use super::upstream::{Cut, Reply};
use serde_json::{Value, json};

/// A stream in the making.
#[derive(Debug, Clone)]
pub struct Chat {
    frames: Vec<String>,
    calls: usize,
}

impl Default for Chat {
    fn default() -> Self {
        Self::new()
    }
}

impl Chat {
    /// One that has said its role.
    pub fn new() -> Self {
        Self { frames: Vec::new(), calls: 0 }.delta(json!({"role": "assistant", "content": ""}), Value::Null)
    }

    /// A chunk with one choice.
    pub fn delta(self, delta: Value, finish_reason: Value) -> Self {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000, "model": "scripted",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        });
        self.data(chunk)
    }

    /// Any JSON as a frame.
    pub fn data(mut self, value: Value) -> Self {
        self.frames.push(format!("data: {value}\n\n"));
        self
    }

    /// Any text as a frame.
    pub fn line(mut self, text: &str) -> Self {
        self.frames.push(format!("{text}\n\n"));
        self
    }

    /// A piece of the answer.
    pub fn text(self, text: &str) -> Self {
        self.delta(json!({"content": text}), Value::Null)
    }

    /// A piece of the thoughts, as DeepSeek and most others name it.
    pub fn reasoning(self, text: &str) -> Self {
        self.delta(json!({"reasoning_content": text}), Value::Null)
    }

    /// A call, its arguments in pieces of `size` characters.
    pub fn call_in_pieces(mut self, id: &str, name: &str, arguments: &Value, size: usize) -> Self {
        let index = self.calls;
        self.calls += 1;
        let function = json!({"name": name, "arguments": ""});
        self = self.delta(
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}),
            Value::Null,
        );
        let text: Vec<char> = arguments.to_string().chars().collect();
        for piece in text.chunks(size.max(1)) {
            let piece = json!({"index": index, "function": {"arguments": piece.iter().collect::<String>()}});
            self = self.delta(json!({"tool_calls": [piece]}), Value::Null);
        }
        self
    }

    /// A call.
    pub fn call(self, id: &str, name: &str, arguments: &Value) -> Self {
        self.call_in_pieces(id, name, arguments, 24)
    }

    /// The command-running call.
    pub fn exec(self, id: &str, command: &str) -> Self {
        self.call(id, "exec_command", &json!({"cmd": command}))
    }

    /// The chunk with the finish reason.
    pub fn finish(self, reason: &str) -> Self {
        self.delta(json!({}), json!(reason))
    }

    /// The chunk with the usage, as `stream_options.include_usage` brings it.
    pub fn usage(self, input: u64, output: u64) -> Self {
        self.data(json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000, "model": "scripted",
            "choices": [],
            "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output},
        }))
    }

    /// `[DONE]`
    pub fn done(self) -> Self {
        self.line("data: [DONE]")
    }

    /// Finish (`tool_calls` if there was a call, else `stop`), usage and `[DONE]`.
    pub fn complete(self) -> Self {
        self.complete_with(100, 20)
    }

    /// The same with that usage.
    pub fn complete_with(self, input: u64, output: u64) -> Self {
        let reason = if self.calls > 0 { "tool_calls" } else { "stop" };
        self.finish(reason).usage(input, output).done()
    }

    /// The frames.
    pub fn frames(&self) -> &[String] {
        &self.frames
    }

    /// All of it as a reply.
    pub fn reply(&self) -> Reply {
        Reply::sse(&self.frames)
    }

    /// The first `n` frames, then the cut.
    pub fn cut(&self, n: usize, cut: Cut) -> Reply {
        Reply::sse_cut(&self.frames[..n], cut)
    }

    /// The frames, and the stream still open.
    pub fn open(&self) -> Reply {
        Reply::sse_open(&self.frames)
    }
}

/// The usual last answer of a turn.
pub fn say(text: &str) -> Reply {
    Chat::new().text(text).complete().reply()
}
