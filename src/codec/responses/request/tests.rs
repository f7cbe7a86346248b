//! What is wrong with a body, and what would be right; where tools are found; which blobs are lost.

use super::*;

fn decode(body: &str) -> Result<Decoded<'_>> {
    decode_request(body.as_bytes(), &Sealer::new(&[0; 32]))
}

#[test]
fn bad_bodies_are_told_what_would_be_right() {
    let cases = [
        ("", "The body is not a JSON object of the Responses API: EOF while parsing a value at line 1 column 0."),
        ("[]", "The body is not a JSON object of the Responses API: it does not begin with `{`."),
        (r#"{"input":"x"}"#, "Invalid `model`: expected a model's name, found nothing."),
        (r#"{"model":7,"input":"x"}"#, "Invalid `model`: expected a string, found a number (7)."),
        (r#"{"model":"m"}"#, "Invalid `input`: expected a string or an array of items, found nothing."),
        (r#"{"model":"m","input":{}}"#, "Invalid `input`: expected a string or an array of items, found an object."),
        (r#"{"model":"m","input":[1]}"#, "Invalid `input[0]`: expected an object, found a number (1)."),
        (
            r#"{"model":"m","input":[{"role":"boss","content":"x"}]}"#,
            "Invalid `input[0].role`: expected \"user\", \"assistant\", \"developer\" or \"system\", found \"boss\".",
        ),
        (
            r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":1}]}]}"#,
            "Invalid `input[0].content[0].text`: expected a string, found a number (1).",
        ),
        (
            r#"{"model":"m","input":[{"type":"function_call","name":"","call_id":"c","arguments":"{}"}]}"#,
            "Invalid `input[0].name`: expected a string that is not empty, found an empty string.",
        ),
        (
            r#"{"model":"m","input":[{"type":"function_call","name":"f","arguments":"{}"}]}"#,
            "Invalid `input[0].call_id`: expected the call's id, found nothing.",
        ),
        (
            r#"{"model":"m","input":[{"type":"function_call_output","call_id":"c"}]}"#,
            "Invalid `input[0].output`: expected a string or an array of parts, found nothing.",
        ),
        (
            r#"{"model":"m","input":"x","tools":[{"type":"function","parameters":{}}]}"#,
            "Invalid `tools[0].name`: expected the tool's name, found nothing.",
        ),
        (
            r#"{"model":"m","input":"x","tools":[{"type":"function","function":{"name":"f"}}]}"#,
            "Invalid `tools[0].name`: expected the tool's name at the top level of the entry (not inside `function`), found nothing.",
        ),
        (
            r#"{"model":"m","input":"x","tools":[{"type":"namespace","name":"n","tools":[{"type":"function"}]}]}"#,
            "Invalid `tools[0].tools[0].name`: expected the tool's name, found nothing.",
        ),
        (
            r#"{"model":"m","input":"x","tool_choice":"always"}"#,
            "Invalid `tool_choice`: expected \"auto\", \"none\", \"required\" or an object naming a tool, found \"always\".",
        ),
        (
            r#"{"model":"m","input":"x","tool_choice":{"type":"function","name":"f"}}"#,
            "Invalid `tool_choice.name`: expected the name of a declared tool, found \"f\".",
        ),
        (
            r#"{"model":"m","input":"x","temperature":3}"#,
            "Invalid `temperature`: expected a number from 0 to 2, found a number (3).",
        ),
        (
            r#"{"model":"m","input":"x","max_output_tokens":0}"#,
            "Invalid `max_output_tokens`: expected a whole number of at least 1, found a number (0).",
        ),
        (r#"{"model":"m","input":"x","stream":"yes"}"#, "Invalid `stream`: expected true or false, found a string."),
        (
            r#"{"model":"m","input":"x","background":true}"#,
            "`background` responses are not available here; leave it out or send false.",
        ),
        (
            r#"{"model":"m","input":"\ud800"}"#,
            "`input` is not a valid JSON string: unexpected end of hex escape at line 1 column 8.",
        ),
    ];
    for (body, message) in cases {
        match decode(body) {
            Err(error) => assert_eq!(error.message, message, "{body}"),
            Ok(decoded) => panic!("{body} was read as {decoded:?}"),
        }
    }
    let error = decode_request(b"{\"model\":\"\xff\"}", &Sealer::new(&[0; 32])).unwrap_err();
    assert_eq!(error.message, "The body is not valid UTF-8: byte 10 does not fit.");
}

#[test]
fn tools_are_found_wherever_they_are_declared() {
    let decoded = decode(
        r#"{"model":"m","tools":[{"type":"namespace","name":"mcp__a","tools":[{"type":"function","name":"x"}]},
            {"type":"custom","name":"p","format":{"type":"grammar","syntax":"lark","definition":"start: \"x\""}},
            {"type":"web_search"}],
            "input":[{"type":"additional_tools","role":"developer","tools":[{"type":"custom","name":"exec"}]},
            {"type":"tool_search_call","call_id":"t","arguments":{"query":"q"}},
            {"type":"tool_search_output","call_id":"t","tools":[{"type":"namespace","name":"mcp__a","tools":
            [{"type":"function","name":"x"},{"type":"function","name":"y"}]}]}]}"#,
    )
    .unwrap();
    let names: Vec<String> = decoded
        .request
        .tools
        .iter()
        .map(|t| match t {
            Tool::Callable(c) => format!("{}/{}", c.tool.namespace.as_deref().unwrap_or(""), c.tool.name),
            Tool::Hosted { kind, .. } => format!("hosted {kind}"),
        })
        .collect();
    assert_eq!(names, ["mcp__a/x", "/p", "hosted web_search", "/exec", "mcp__a/y"]);
    assert_eq!(decoded.losses, []);
}

#[test]
fn foreign_and_damaged_blobs_are_recorded_losses() {
    let decoded = decode(
        r#"{"model":"m","input":[{"type":"reasoning","summary":[],"encrypted_content":"gAAAA"},
            {"type":"reasoning","summary":[],"encrypted_content":"cxp1.AAAA"},
            {"type":"reasoning","summary":[],"encrypted_content":null}]}"#,
    )
    .unwrap();
    let paths: Vec<&str> = decoded.losses.iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths, ["input[0].encrypted_content", "input[1].encrypted_content"]);
}

#[test]
fn what_takes_many_times_its_bytes_is_bounded() {
    let times = |entry: &str, n: usize| vec![entry; n].join(",");
    let items = |n| format!(r#"{{"model":"m","input":[{}]}}"#, times(r#"{"role":"user","content":""}"#, n));
    assert_eq!(decode(&items(100_000)).unwrap().request.input.len(), 100_000);
    let refused = decode(&items(100_001)).unwrap_err();
    assert_eq!(refused.message, "`input` holds more than 100000 entries, which is the most that this proxy takes.");
    assert_eq!(refused.param.as_deref(), Some("input"));
    // Also over several places: those of an item count on.
    let tools = |n| times(r#"{"type":"x"}"#, n);
    let found = |n| {
        let item = format!(r#"{{"type":"additional_tools","tools":[{}]}}"#, tools(5_000));
        format!(r#"{{"model":"m","tools":[{}],"input":[{item}]}}"#, tools(n))
    };
    assert_eq!(decode(&found(5_000)).unwrap().request.tools.len(), 10_000);
    assert!(decode(&found(5_001)).unwrap_err().message.contains("more than 10000 tools"));
}
