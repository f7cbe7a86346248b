//! Requests in the shape Codex sends them, of any size, the same bytes at each run: larger ones have a longer history.

use serde_json::{Value, json};

/// Stands once in each output of a tool, so that the upstream can count how much of the history came.
pub const TAG: &str = "[tag ";

/// The usual request: what Codex sends some steps into a task.
pub const USUAL_BYTES: usize = 30_000;

/// Bytes of the outputs of tools, in turn: short ones, a listing, a file.
const OUTPUTS: [usize; 4] = [200, 700, 4000, 1200];

/// A body, and how many tags are in it.
#[derive(Debug)]
pub struct Body {
    /// JSON.
    pub bytes: Vec<u8>,
    /// Outputs of tools.
    pub tags: usize,
}

/// Makes a body of about that size. The least is some 10 KB.
pub fn body(model: &str, bytes: usize) -> Body {
    let mut words = Words(1);
    let mut request = json!({
        "model": model,
        "instructions": words.text(3000),
        "input": [],
        "tools": (0..12).map(|number| tool(&mut words, number)).collect::<Vec<_>>(),
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": false,
        "stream": true,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a1fac1-0000-7000-8000-000000000001",
        "client_metadata": {"session_id": "01a1fac1-0000-7000-8000-000000000001", "x-codex-window-id": "0"},
    });
    let mut input = vec![
        message("developer", "msg_1", &words.text(700)),
        message(
            "user",
            "msg_2",
            "<environment_context>\n  <cwd>/project</cwd>\n  <shell>bash</shell>\n</environment_context>",
        ),
        message("user", "msg_3", &words.text(120)),
    ];
    let fixed = request.to_string().len() + Value::from(input.clone()).to_string().len();
    let (mut size, mut tags) = (fixed, 0);
    while size < bytes {
        for item in step(&mut words, tags, bytes - size) {
            size += item.to_string().len() + 1;
            input.push(item);
        }
        tags += 1;
    }
    request["input"] = Value::from(input);
    Body { bytes: request.to_string().into_bytes(), tags }
}

fn message(role: &str, id: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": role, "content": [{"type": "input_text", "text": text}]})
}

/// A thought, a call and its output, of about `room` bytes if that is less than usual.
fn step(words: &mut Words, number: usize, room: usize) -> [Value; 3] {
    let call_id = format!("call_{number:06}");
    let command = format!("rg -n \"{}\" src | head -{}", words.text(20), number % 90 + 10);
    let arguments = json!({"cmd": command, "workdir": "/project", "yield_time_ms": 1000}).to_string();
    let output = words.text(OUTPUTS[number % OUTPUTS.len()].min(room.saturating_sub(700)).max(20));
    let output = format!(
        "Chunk ID: {number:06x}\nWall time: 0.0100 seconds\nProcess exited with code 0\nOutput:\n{output}\n{TAG}{number:06}]\n"
    );
    [
        json!({"type": "reasoning", "id": format!("rs_{number}"), "encrypted_content": null,
            "summary": [{"type": "summary_text", "text": words.text(90)}]}),
        json!({"type": "function_call", "id": format!("fc_{number}"), "status": "completed", "name": "exec_command",
            "arguments": arguments, "call_id": call_id}),
        json!({"type": "function_call_output", "id": format!("fco_{number}"), "call_id": call_id, "output": output}),
    ]
}

fn tool(words: &mut Words, number: usize) -> Value {
    let name = if number == 0 { "exec_command".to_owned() } else { format!("tool_{number}") };
    let mut text = |bytes| words.text(bytes);
    json!({
        "type": "function", "name": name, "description": text(110), "strict": false,
        "parameters": {
            "type": "object",
            "properties": {
                "cmd": {"type": "string", "description": text(40)},
                "workdir": {"type": "string", "description": text(50)},
                "yield_time_ms": {"type": "number", "description": text(60)},
            },
            "required": ["cmd"],
            "additionalProperties": false,
        },
    })
}

/// Words without a meaning, always in the same order.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Text with what source code and prose have: line breaks, quotes, a letter beyond ASCII.
    fn text(&mut self, bytes: usize) -> String {
        const ENDS: [&str; 16] =
            [" ", " ", " ", " ", ", ", " ", " ", ".\n", " ", " = \"x\";\n", " ", "() ", " ", " ", ": ", " é "];
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            let mut word = self.next();
            for _ in 0..2 + word % 8 {
                word /= 26;
                text.push(char::from(b'a' + u8::try_from(word % 26).unwrap()));
            }
            text.push_str(ENDS[usize::try_from(self.next() % 16).unwrap()]);
        }
        text
    }
}
