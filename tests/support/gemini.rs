//! Streams of `streamGenerateContent`, built chunk by chunk as Google sends them.

use super::upstream::{Cut, Recorded, Reply};
use serde_json::{Value, json};

/// A stream in the making.
#[derive(Debug, Clone, Default)]
pub struct Gemini {
    frames: Vec<String>,
}

impl Gemini {
    /// One that has said nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Any JSON as a chunk.
    pub fn data(mut self, value: &Value) -> Self {
        self.frames.push(format!("data: {value}\r\n\r\n"));
        self
    }

    /// A chunk of one candidate with these parts.
    pub fn parts(self, parts: &Value, finish_reason: Option<&str>) -> Self {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        let mut usage = json!({"promptTokenCount": 100, "totalTokenCount": 100});
        if let Some(reason) = finish_reason {
            candidate["finishReason"] = json!(reason);
            usage = json!({"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 15,
                "thoughtsTokenCount": 5, "totalTokenCount": 120});
        }
        self.data(&json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash",
            "responseId": "r-1"}))
    }

    /// A piece of text.
    pub fn text(self, text: &str) -> Self {
        self.parts(&json!([{"text": text}]), None)
    }

    /// A piece of the thoughts.
    pub fn thought(self, text: &str) -> Self {
        self.parts(&json!([{"text": text, "thought": true}]), None)
    }

    /// A call, whole as always; the first of an answer is signed.
    pub fn call(self, id: &str, name: &str, args: &Value, signature: Option<&str>) -> Self {
        let mut part = json!({"functionCall": {"id": id, "name": name, "args": args}});
        if let Some(signature) = signature {
            part["thoughtSignature"] = json!(signature);
        }
        self.parts(&json!([part]), None)
    }

    /// The command-running call.
    pub fn exec(self, id: &str, command: &str, signature: Option<&str>) -> Self {
        self.call(id, "exec_command", &json!({"cmd": command}), signature)
    }

    /// The last chunk.
    pub fn finish(self, reason: &str) -> Self {
        self.parts(&json!([{"text": ""}]), Some(reason))
    }

    /// The usual end.
    pub fn complete(self) -> Self {
        self.finish("STOP")
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
    Gemini::new().text(text).complete().reply()
}

/// An error: the body, or a chunk.
pub fn error(code: u16, status: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message, "status": status}})
}

/// All parts of the conversation, in order.
pub fn parts(request: &Recorded) -> Vec<&Value> {
    let contents = request.json["contents"].as_array().into_iter().flatten();
    contents.flat_map(|content| content["parts"].as_array().into_iter().flatten()).collect()
}

/// How many results of functions the conversation holds: 0 on a first step.
pub fn results(request: &Recorded) -> usize {
    parts(request).iter().filter(|part| part["functionResponse"].is_object()).count()
}
