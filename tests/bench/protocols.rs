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
    /// After the pieces; [`WHOLE`] in it stands for all that came in their channel.
    pub closing: Vec<String>,
}

/// Stands for the whole text.
pub const WHOLE: &str = "\u{1}";

/// What follows thoughts.
pub const AFTER_THOUGHTS: &str = "That is all.";

/// What the upstreams of the proxy speak.
pub const UPSTREAM: &[Protocol] =
    &[Protocol { name: "chat", path: "/chat/completions", provider: "dialect = \"generic\"", frames: chat }, RESPONSES];

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
