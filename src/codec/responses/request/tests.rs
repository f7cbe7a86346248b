//! What is wrong with a body, and what would be right; where tools are found; which blobs are lost.

use proptest::{
    prelude::*,
    sample::{Index, select},
};

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

#[test]
fn what_clients_send_is_read_at_once() {
    let body = r#"{"model":"m","tools":[{"type":"function","name":"f"},{"type":"web_search"},
        {"type":"namespace","name":"n","tools":[{"type":"custom","name":"c"}]}],
        "input":[{"role":"user","content":"a\nb"},{"role":"user","content":[{"type":"input_text","text":"\u00e9"},
        {"type":"input_file","file_data":"x"}]},{"type":"reasoning","summary":[{"type":"summary_text","text":"s"}]},
        {"type":"function_call","call_id":"1","name":"f","arguments":"{\"a\":1}"},
        {"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"x"}]}]}"#;
    let decoded = at_once(body, &Sealer::new(&[0; 32])).unwrap();
    assert_eq!(decoded.request.input.len(), 5);
    let kept = format!("{:?}", decoded.request);
    assert!(kept.contains(r#"RawValue({"type":"web_search"})"#), "{kept}");
    assert!(kept.contains(r#"RawValue({"type":"input_file","file_data":"x"})"#), "{kept}");
}

#[test]
fn a_compaction_is_opened_or_kept_or_refused() {
    let sealer = Sealer::new(&[0; 32]);
    let body = |kind: &str, blob: &str| {
        format!(
            r#"{{"model":"m","input":[{{"type":"additional_tools","tools":[]}},{{"type":"{kind}","encrypted_content":"{blob}"}}]}}"#
        )
    };
    let ours = sealer.seal_summary("what was done", [1; 24]).unwrap();
    for kind in ["compaction", "compaction_summary"] {
        let text = body(kind, &ours);
        let input = decode(&text).unwrap().request.input;
        let [Item::Message { role: Role::User, parts, .. }] = input.as_slice() else { panic!("{input:?}") };
        let [Part::Text(text)] = parts.as_slice() else { panic!("{parts:?}") };
        assert_eq!(text.read(), compaction::words("what was done"));
        // Its place is counted as the client counts.
        let text = body(kind, "gAAAAAB");
        let input = decode(&text).unwrap().request.input;
        assert!(matches!(input.as_slice(), [Item::Compaction { path }] if path == "input[1].encrypted_content"));
        let error = decode(&body(kind, &ours[..ours.len() - 4])).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input[1].encrypted_content"));
        assert_eq!(error.code, Some("invalid_encrypted_content"));
    }
}

#[test]
fn a_compaction_is_asked_for_at_the_end_only() {
    let asked =
        decode(r#"{"model":"m","input":[{"role":"user","content":"a"},{"type":"compaction_trigger"}]}"#).unwrap();
    assert!(asked.request.compact && asked.request.input.len() == 1);
    assert!(!decode(r#"{"model":"m","input":"a"}"#).unwrap().request.compact);
    let error =
        decode(r#"{"model":"m","input":[{"type":"compaction_trigger"},{"type":"compaction_trigger"}]}"#).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("input[0]"));
}

/// Items of every kind, and some that are wrong.
const ITEMS: [&str; 22] = [
    r#"{"role":"user","content":"a\n\"b\" \u00e9 \ud83e\udd80"}"#,
    r#"{"type":"message","role":"assistant","phase":null,"content":[{"type":"output_text","text":"x\/"},{"type":"refusal","refusal":"no"}]}"#,
    r#"{"role":"user","content":[{"type":"input_image","image_url":"data:a"},{"type":"input_image","file_id":"f"}]}"#,
    r#"{"role":"user","content":[{"type":"input_audio","x":[{}]},{"type":"input_text","text":"y"},{"type":"new"}]}"#,
    r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"s\t"}],"content":null,"encrypted_content":"gA"}"#,
    r#"{"type":"function_call","call_id":"1","namespace":"","name":"f","arguments":"{\"a\":[1]}"}"#,
    r#"{"type":"function_call","call_id":"1","name":"f","arguments":{"a":1}}"#,
    r#"{"type":"custom_tool_call","call_id":"2","name":"c","input":"*** Begin\n"}"#,
    r#"{"type":"tool_search_call","call_id":"3","arguments":{"query":"q"}}"#,
    r#"{"type":"local_shell_call","call_id":"4","action":{"type":"exec"}}"#,
    r#"{"type":"function_call_output","call_id":"1","output":"Exit code: 0\n"}"#,
    r#"{"type":"tool_search_output","call_id":"3","tools":[{"type":"function","name":"g"},{"type":"x"},{"type":"namespace","name":"n","tools":[{"type":"custom","name":"d","format":{"definition":"a\n"}}]}]}"#,
    r#"{"type":"additional_tools","tools":[{"type":"function","name":"f","description":"\\","parameters":{}}]}"#,
    r#"{"type":"compaction","encrypted_content":"s"}"#,
    r#"{"type":"compaction_trigger"}"#,
    r#"{"type":"web_search_call","action":{"type":"search"}}"#,
    r#"{"type":"item_reference","id":"i"}"#,
    r#"["message","user","x"]"#,
    r#"{"role":"user","content":["input_text","x"]}"#,
    r#"{"role":"user","content":[{"type":"input_text","text":"\ud83e"}]}"#,
    r#"{"role":"user","role":"user","content":"x"}"#,
    "null",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn read_at_once_is_read_step_by_step(
        items in proptest::collection::vec(select(&ITEMS[..]), 0..4),
        rest in select(vec!["", r#","tools":[{"type":"web_search"},{"type":"function","name":"f"}]"#,
            r#","tools":[["function","f"]],"stream":true"#, r#","text":{"verbosity":"low"},"instructions":"i\n""#]),
        damage in proptest::collection::vec((any::<Index>(), any::<bool>(), select(
            vec!["", "\"", "\\", "{", "}", "[", "]", ",", ":", "null", "1", "\n", "\u{1}", "\\u", "\"role\":", "é"])), 0..3),
    ) {
        let mut body = format!(r#"{{"model":"m","input":[{}]{rest}}}"#, items.join(","));
        for (at, instead, piece) in damage {
            let at = at.get(&body.char_indices().map(|(at, _)| at).collect::<Vec<_>>()).to_owned();
            let until = if instead { at + body[at..].chars().next().map_or(0, char::len_utf8) } else { at };
            body.replace_range(at..until, piece);
        }
        let sealer = Sealer::new(&[0; 32]);
        let careful = step_by_step(&body, &sealer);
        if let Some(fast) = at_once(&body, &sealer) {
            prop_assert_eq!(format!("{:?}", careful.as_ref().unwrap()), format!("{fast:?}"));
        } else if careful.is_ok() {
            // Only an item that is kept as it came takes both ways, or no array.
            prop_assert!(format!("{careful:?}").contains("Hosted") || !body.contains("\"input\":["), "{body}");
        }
        if body.starts_with('{') {
            prop_assert_eq!(format!("{:?}", decode(&body)), format!("{careful:?}"));
        }
    }
}
