//! The table of protocols, and the frames in which the upstream speaks them. A new protocol joins by one entry.

use super::script::{Kind, Script};

/// A protocol that the upstream speaks.
#[derive(Debug)]
pub struct Protocol {
    /// For tables, and the `protocol` of the proxy's provider.
    pub name: &'static str,
    /// How the path of its requests ends.
    pub path: &'static str,
    /// Further lines for `[providers.up]` of the proxy, besides `base_url` (`…/v1`) and `protocol`.
    pub provider: &'static str,
    /// The frames of an answer.
    pub frames: fn(&Script) -> Frames,
}

/// The frames of an answer, as they stand between `data` and blank line, without the pieces.
#[derive(Debug)]
pub struct Frames {
    /// Before the pieces, in order.
    pub opening: Vec<String>,
    /// A piece: what stands before and after its text.
    pub piece: (String, String),
    /// After the pieces; [`WHOLE`] in it stands for all that came in their channel, [`PIECES`] for the pieces alone.
    pub closing: Vec<String>,
}

/// Stands for the whole text.
pub const WHOLE: &str = "\u{1}";

/// Stands for the pieces, without what precedes and follows them.
pub const PIECES: &str = "\u{2}";

/// What follows thoughts.
pub const AFTER_THOUGHTS: &str = "That is all.";

/// What the upstreams of the proxy speak.
pub const UPSTREAM: &[Protocol] = &[
    Protocol { name: "chat", path: "/chat/completions", provider: "dialect = \"generic\"", frames: chat },
    RESPONSES,
    Protocol { name: "messages", path: "/messages", provider: "", frames: messages },
    Protocol { name: "gemini", path: ":streamGenerateContent?alt=sse", provider: "", frames: gemini },
];

/// What the client speaks: for a target that translates nothing.
pub const RESPONSES: Protocol = Protocol { name: "responses", path: "/responses", provider: "", frames: responses };

fn chat(script: &Script) -> Frames {
    const HEAD: &str =
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795000000,"model":"scripted","#;
    let chunk = |delta: &str, finish: &str| {
        format!(r#"{HEAD}"choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}"#) + "\n\n"
    };
    let mut opening = vec![chunk(r#"{"role":"assistant","content":""}"#, "null")];
    let mut closing = Vec::new();
    let piece = match script.kind {
        Kind::Text => r#"{"content":"|"}"#,
        Kind::Thoughts => {
            closing.push(chunk(&format!(r#"{{"content":"{AFTER_THOUGHTS}"}}"#), "null"));
            r#"{"reasoning_content":"|"}"#
        }
        Kind::Call => {
            let function = r#"{"name":"exec_command","arguments":""}"#;
            let call =
                format!(r#"{{"tool_calls":[{{"index":0,"id":"call_1","type":"function","function":{function}}}]}}"#);
            opening.push(chunk(&call, "null"));
            let piece = r#"{"tool_calls":[{"index":0,"function":{"arguments":"|"}}]}"#;
            opening.push(chunk(&piece.replace('|', script.before()), "null"));
            closing.push(chunk(&piece.replace('|', script.after()), "null"));
            piece
        }
    };
    let (before, after) = piece.split_once('|').unwrap();
    let whole = chunk(&format!("{before}{WHOLE}{after}"), "null");
    let (before, after) = whole.split_once(WHOLE).unwrap();
    let piece = (before.to_owned(), after.to_owned());
    closing.push(chunk("{}", if script.kind == Kind::Call { r#""tool_calls""# } else { r#""stop""# }));
    let usage = r#""usage":{"prompt_tokens":7000,"completion_tokens":100,"total_tokens":7100}"#;
    closing.push(format!("{HEAD}\"choices\":[],{usage}}}\n\n"));
    closing.push("data: [DONE]\n\n".to_owned());
    Frames { opening, piece, closing }
}

/// As Anthropic writes it.
fn messages(script: &Script) -> Frames {
    let frame = |name: &str, members: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\",{members}}}\n\n");
    let start = |index: u8, block: &str| {
        frame("content_block_start", &format!(r#""index":{index},"content_block":{{{block}}}"#))
    };
    let delta = |index: u8, kind: &str, key: &str, text: &str| {
        let delta = format!(r#"{{"type":"{kind}_delta","{key}":"{text}"}}"#);
        frame("content_block_delta", &format!(r#""index":{index},"delta":{delta}"#))
    };
    let stop = |index: u8| frame("content_block_stop", &format!(r#""index":{index}"#));
    let (block, kind, key) = match script.kind {
        Kind::Text => (r#""type":"text","text":"""#, "text", "text"),
        Kind::Thoughts => (r#""type":"thinking","thinking":"","signature":"""#, "thinking", "thinking"),
        Kind::Call => {
            (r#""type":"tool_use","id":"toolu_1","name":"exec_command","input":{}"#, "input_json", "partial_json")
        }
    };
    let message = r#""message":{"id":"msg_1","type":"message","role":"assistant","model":"scripted","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":7000,"output_tokens":1}}"#;
    let mut opening = vec![frame("message_start", message), start(0, block)];
    let mut closing = Vec::new();
    if script.kind == Kind::Call {
        opening.push(delta(0, kind, key, script.before()));
        closing.push(delta(0, kind, key, script.after()));
    }
    if script.kind == Kind::Thoughts {
        closing.push(delta(0, "signature", "signature", "c2lnbmF0dXJl"));
        closing.extend([
            stop(0),
            start(1, r#""type":"text","text":"""#),
            delta(1, "text", "text", AFTER_THOUGHTS),
            stop(1),
        ]);
    } else {
        closing.push(stop(0));
    }
    let reason = if script.kind == Kind::Call { "tool_use" } else { "end_turn" };
    closing.push(frame(
        "message_delta",
        &format!(r#""delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":100}}"#),
    ));
    closing.push("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned());
    let whole = delta(0, kind, key, WHOLE);
    let (before, after) = whole.split_once(WHOLE).unwrap();
    Frames { opening, piece: (before.to_owned(), after.to_owned()), closing }
}

/// As Google writes it. A call comes whole, so its pieces say nothing: what is measured is what they cost all the same.
fn gemini(script: &Script) -> Frames {
    let chunk = |candidate: &str, generated: u8, id: &str| {
        let usage = format!(r#"{{"promptTokenCount":7000,"candidatesTokenCount":{generated},"totalTokenCount":7100}}"#);
        let candidates =
            if candidate.is_empty() { String::new() } else { format!("\"candidates\":[{{{candidate}}}],") };
        format!(r#"data: {{{candidates}"usageMetadata":{usage},"modelVersion":"scripted","responseId":"{id}"}}"#)
            + "\r\n\r\n"
    };
    let part = |part: &str| chunk(&format!(r#""content":{{"parts":[{{{part}}}],"role":"model"}},"index":0"#), 1, "r-1");
    let whole = match script.kind {
        Kind::Text => part(&format!(r#""text":"{WHOLE}""#)),
        Kind::Thoughts => part(&format!(r#""text":"{WHOLE}","thought":true"#)),
        Kind::Call => chunk("", 1, WHOLE),
    };
    let mut closing = Vec::new();
    match script.kind {
        Kind::Text => {}
        Kind::Thoughts => closing.push(part(&format!(r#""text":"{AFTER_THOUGHTS}""#))),
        Kind::Call => {
            let call = format!(r#"{{"id":"fc_1","name":"exec_command","args":{{"cmd":"{PIECES}"}}}}"#);
            closing.push(part(&format!(r#""functionCall":{call},"thoughtSignature":"c2lnbmF0dXJl""#)));
        }
    }
    let end = r#""content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0"#;
    closing.push(chunk(end, 100, "r-1"));
    let (before, after) = whole.split_once(WHOLE).unwrap();
    Frames { opening: Vec::new(), piece: (before.to_owned(), after.to_owned()), closing }
}

/// As the API itself and the proxy write it.
fn responses(script: &Script) -> Frames {
    let frame = |name: &str, members: &str| {
        format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":7,{members}}}\n\n")
    };
    let item = |id: &str, kind: &str, more: &str, status: &str| {
        format!(r#"{{"id":"{id}","type":"{kind}","status":"{status}",{more}}}"#)
    };
    let message = |text: &str| format!(r#"{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}"#);
    let (id, place) = ("item_1", r#""item_id":"item_1","output_index":0"#);
    let (kind, empty, full, delta, index, done) = match script.kind {
        Kind::Text => (
            "message",
            r#""role":"assistant","content":[]"#.to_owned(),
            format!(r#""role":"assistant","content":[{}]"#, message(WHOLE)),
            "response.output_text.delta",
            r#","content_index":0"#,
            ("response.output_text.done", "text"),
        ),
        Kind::Thoughts => (
            "reasoning",
            r#""summary":[]"#.to_owned(),
            format!(r#""summary":[{{"type":"summary_text","text":"{WHOLE}"}}]"#),
            "response.reasoning_summary_text.delta",
            r#","summary_index":0"#,
            ("response.reasoning_summary_text.done", "text"),
        ),
        Kind::Call => (
            "function_call",
            r#""call_id":"call_1","name":"exec_command","arguments":"""#.to_owned(),
            format!(r#""call_id":"call_1","name":"exec_command","arguments":"{WHOLE}""#),
            "response.function_call_arguments.delta",
            "",
            ("response.function_call_arguments.done", "arguments"),
        ),
    };
    let response = |status: &str, output: &str, usage: &str| {
        format!(
            r#""response":{{"id":"resp_1","object":"response","created_at":1795000000,"status":"{status}","error":null,"model":"scripted","output":[{output}],"usage":{usage}}}"#
        )
    };
    let mut opening = vec![
        frame("response.created", &response("in_progress", "", "null")),
        frame("response.in_progress", &response("in_progress", "", "null")),
        frame(
            "response.output_item.added",
            &format!(r#""output_index":0,"item":{}"#, item(id, kind, &empty, "in_progress")),
        ),
    ];
    let whole = frame(delta, &format!(r#"{place}{index},"delta":"{WHOLE}""#));
    let (before, after) = whole.split_once(WHOLE).unwrap();
    if script.kind == Kind::Call {
        opening.push(format!("{before}{}{after}", script.before()));
    }
    let piece = (before.to_owned(), after.to_owned());
    let mut closing = Vec::new();
    if script.kind == Kind::Call {
        closing.push(format!("{before}{}{after}", script.after()));
    }
    let full = item(id, kind, &full, "completed");
    closing.push(frame(done.0, &format!(r#"{place}{index},"{}":"{WHOLE}""#, done.1)));
    closing.push(frame("response.output_item.done", &format!(r#""output_index":0,"item":{full}"#)));
    let mut output = full;
    if script.kind == Kind::Thoughts {
        let text = message(AFTER_THOUGHTS);
        let last = item("item_2", "message", &format!(r#""role":"assistant","content":[{text}]"#), "completed");
        closing.push(frame(
            "response.output_text.delta",
            &format!(r#""item_id":"item_2","output_index":1,"content_index":0,"delta":"{AFTER_THOUGHTS}""#),
        ));
        closing.push(frame("response.output_item.done", &format!(r#""output_index":1,"item":{last}"#)));
        output.push(',');
        output.push_str(&last);
    }
    let usage = r#"{"input_tokens":7000,"input_tokens_details":{"cached_tokens":0},"output_tokens":100,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":7100}"#;
    closing.push(frame("response.completed", &response("completed", &output, usage)));
    Frames { opening, piece, closing }
}
