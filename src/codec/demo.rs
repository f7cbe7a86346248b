//! The built-in model `demo`: a script that plays one small editing session, without any network. PURE.
//!
//! ```text
//!  prompt ──► commentary + two commands at once ──► apply_patch (Add File) ──► summary
//!                              └── the file is there already ──► says so
//! ```
//! It answers by reading the conversation since the last thing the user said, so it keeps no state and the same
//! conversation gets the same answer. What it asks for is spelled out in [`crate::model::demo`] and nothing else.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::model::{
    demo::{ABSENT, COMMANDS, FILE_NAME, MODEL, PRESENT, patch},
    event::{End, Event, ItemKey, ItemKind},
    request::{CallableTool, Format, Item, Part, Request, Role, Tool, ToolChoice, ToolKind, ToolRef},
    usage::Usage,
};

/// Plays the next step of the script.
pub fn answer(request: &Request<'_>) -> Vec<Event> {
    let mut answer = Answer::new();
    let may_call = !matches!(request.tool_choice, ToolChoice::None);
    let shell = callable(request, "exec_command", ToolKind::Function).filter(|_| may_call);
    let patcher = callable(request, "apply_patch", ToolKind::Custom);
    let since = Since::last_prompt(&request.input);
    match (&request.format, shell) {
        (Format::JsonSchema { schema, .. }, _) => answer.say(&instance_of(schema.get()), None),
        (Format::JsonObject, _) => answer.say("{}", None),
        (Format::Text, None) => answer.say(
            "This is codex-proxy's built-in model `demo`, a script. It was given no `exec_command` tool to call, so there is \
             nothing it can show; what it says here stands for any text, such as the summary of a conversation.",
            None,
        ),
        (Format::Text, Some(shell)) => match (since.command_outputs(), since.patch_output()) {
            (None, _) => {
                answer.say("I am the demo model. First I look around with two commands at once.", Some("commentary"));
                for (n, command) in COMMANDS.iter().enumerate() {
                    let arguments = Value::Object(Map::from_iter([("cmd".to_owned(), Value::from(*command))]));
                    answer.call(request, n, shell, &arguments.to_string());
                }
            }
            (Some(outputs), None) => match (outputs.presence(), patcher) {
                (Presence::Present, _) => answer.say(
                    &format!("{FILE_NAME} is already here, so I leave it as it is. Delete it and ask again."),
                    Some("final_answer"),
                ),
                (Presence::Unknown, _) => answer.say(
                    &format!(
                        "My commands did not run as they should, so I change nothing. The second one gave: {}",
                        outputs.second_line()
                    ),
                    Some("final_answer"),
                ),
                (Presence::Absent, None) => answer.say(
                    "The commands ran. I was given no `apply_patch` tool, so I cannot add the file.",
                    Some("final_answer"),
                ),
                (Presence::Absent, Some(patcher)) => {
                    answer.say(&format!("Both ran. Now I add {FILE_NAME}."), Some("commentary"));
                    answer.call(request, COMMANDS.len(), patcher, &patch());
                }
            },
            (Some(_), Some(output)) if output.contains("Success") => answer.say(
                &format!(
                    "Done: two commands ran in parallel and {FILE_NAME} was added by a patch. Everything between us \
                     went through codex-proxy."
                ),
                Some("final_answer"),
            ),
            (Some(_), Some(output)) => answer.say(
                &format!("The patch was not applied. The tool said: {}", first_line(&output)),
                Some("final_answer"),
            ),
        },
    }
    answer.end(request)
}

/// The answer so far.
struct Answer {
    events: Vec<Event>,
    next: u32,
    output_bytes: u64,
}

impl Answer {
    fn new() -> Self {
        Self { events: vec![Event::Start { model: MODEL.to_owned() }], next: 0, output_bytes: 0 }
    }

    fn open(&mut self, kind: ItemKind) -> ItemKey {
        let item = ItemKey(self.next);
        self.next += 1;
        self.events.push(Event::ItemOpen { item, kind });
        item
    }

    fn say(&mut self, text: &str, phase: Option<&'static str>) {
        let item = self.open(ItemKind::Message { phase });
        self.output_bytes += text.len() as u64;
        for word in text.split_inclusive(' ') {
            self.events.push(Event::Text { item, delta: word.to_owned() });
        }
        self.events.push(Event::ItemClose { item, whole: true });
    }

    fn call(&mut self, request: &Request<'_>, n: usize, tool: &CallableTool<'_>, input: &str) {
        // Unique in the conversation, because the conversation grows with every call.
        let call_id = format!("call_demo_{}_{n}", request.input.len());
        let item = self.open(ItemKind::Call { call_id, tool: tool.tool.clone().into_owned() });
        self.output_bytes += input.len() as u64;
        for line in input.split_inclusive('\n') {
            self.events.push(Event::CallArguments { item, delta: line.to_owned() });
        }
        self.events.push(Event::ItemClose { item, whole: true });
    }

    fn end(mut self, request: &Request<'_>) -> Vec<Event> {
        self.events.push(Event::Usage(Usage::estimate(input_bytes(request), self.output_bytes, 0)));
        self.events.push(Event::End(End::Complete));
        self.events
    }
}

/// The conversation since the last thing the user said.
struct Since<'i, 'a>(&'i [Item<'a>]);

/// What the two commands gave.
struct Outputs(String);

/// What the second command told about the file.
enum Presence {
    Present,
    Absent,
    Unknown,
}

impl<'i, 'a> Since<'i, 'a> {
    fn last_prompt(input: &'i [Item<'a>]) -> Self {
        let at = input.iter().rposition(|item| matches!(item, Item::Message { role: Role::User, .. }));
        Self(&input[at.map_or(0, |at| at + 1)..])
    }

    fn output_of(&self, wanted: impl Fn(&ToolRef<'_>, &str) -> bool) -> Option<String> {
        let id = self.0.iter().find_map(|item| {
            let Item::Call { call_id, tool, input } = item else { return None };
            wanted(tool, &input.read()).then_some(call_id)
        })?;
        self.0.iter().find_map(|item| {
            let Item::Output { call_id, parts, .. } = item else { return None };
            (call_id == id).then(|| text_of(parts))
        })
    }

    /// `None` until both commands have an output.
    fn command_outputs(&self) -> Option<Outputs> {
        let ran = |command: &str| {
            self.output_of(|tool, input| {
                tool.kind == ToolKind::Function
                    && serde_json::from_str::<Value>(input).is_ok_and(|v| v["cmd"].as_str() == Some(command))
            })
        };
        ran(COMMANDS[0])?;
        ran(COMMANDS[1]).map(Outputs)
    }

    fn patch_output(&self) -> Option<String> {
        self.output_of(|tool, _| tool.kind == ToolKind::Custom && tool.name == "apply_patch")
    }
}

impl Outputs {
    /// Clients put their own lines around what a command printed.
    fn presence(&self) -> Presence {
        let printed = |word| self.0.lines().any(|line| line.trim() == word);
        match (printed(PRESENT), printed(ABSENT)) {
            (true, false) => Presence::Present,
            (false, true) => Presence::Absent,
            (true, true) | (false, false) => Presence::Unknown,
        }
    }

    fn second_line(&self) -> String {
        first_line(&self.0)
    }
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").chars().take(200).collect()
}

fn text_of(parts: &[Part<'_>]) -> String {
    let mut text = String::new();
    for part in parts {
        if let Part::Text(piece) = part {
            text.push_str(&piece.read());
            text.push('\n');
        }
    }
    text
}

fn callable<'r, 'a>(request: &'r Request<'a>, name: &str, kind: ToolKind) -> Option<&'r CallableTool<'a>> {
    request.tools.iter().find_map(|tool| match tool {
        Tool::Callable(callable) if callable.tool.name == name && callable.tool.kind == kind => Some(callable),
        Tool::Callable(_) | Tool::Hosted { .. } => None,
    })
}

/// Bytes of text in the conversation, for the usage estimate.
fn input_bytes(request: &Request<'_>) -> u64 {
    let parts_bytes = |parts: &[Part<'_>]| text_of(parts).len();
    let bytes: usize = request
        .input
        .iter()
        .map(|item| match item {
            Item::Message { parts, .. } | Item::Output { parts, .. } => parts_bytes(parts),
            Item::Call { input, .. } => input.read().len(),
            Item::Reasoning { summary, .. } => summary.iter().map(|s| s.read().len()).sum(),
            Item::Hosted { raw, .. } => raw.get().len(),
            Item::Compaction { .. } => 0,
        })
        .sum();
    bytes as u64
}

/// A small instance of a JSON Schema, so that a client that wants a form gets one. Knows the keywords clients use for
/// output forms; anything else becomes `null`.
fn instance_of(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).unwrap_or(Value::Null);
    instance(&schema, "answer", 0).to_string()
}

fn instance(schema: &Value, name: &str, depth: usize) -> Value {
    if depth > 16 {
        return Value::Null;
    }
    if let Some(fixed) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return fixed.clone();
    }
    if let Some(one) = schema["anyOf"].get(0).or_else(|| schema["oneOf"].get(0)) {
        return instance(one, name, depth + 1);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("object") => {
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            Value::Object(properties.iter().map(|(k, v)| (k.clone(), instance(v, k, depth + 1))).collect())
        }
        Some("array") => {
            let wanted = usize::try_from(schema["minItems"].as_u64().unwrap_or(0)).unwrap_or(0).min(16);
            Value::Array((0..wanted).map(|_| instance(&schema["items"], name, depth + 1)).collect())
        }
        Some("string") => {
            let text = if name == "title" { Cow::Borrowed("Try the codex-proxy demo") } else { Cow::Borrowed("demo") };
            let chars_max = schema["maxLength"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            Value::from(text.chars().take(chars_max).collect::<String>())
        }
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| Value::from(0)),
        Some("boolean") => Value::from(false),
        Some(_) | None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{responses::request::decode_request, seal::Sealer},
        model::grammar,
    };

    const TOOLS: &str = r#""tools":[{"type":"function","name":"exec_command"},{"type":"custom","name":"apply_patch"}]"#;

    /// What the demo says, one line a closed item.
    fn play(members: &str) -> Vec<String> {
        let body = format!(r#"{{"model":"demo",{members}}}"#);
        let decoded = decode_request(body.as_bytes(), &Sealer::new(&[0; 32])).unwrap();
        let events = answer(&decoded.request);
        grammar::check(&events).unwrap();
        assert_eq!(events, answer(&decoded.request), "the same conversation gets the same answer");
        let mut lines: Vec<String> = Vec::new();
        for event in events {
            if let Event::ItemOpen { kind, .. } = event {
                lines.push(match kind {
                    ItemKind::Message { .. } | ItemKind::Reasoning | ItemKind::Compaction => String::new(),
                    ItemKind::Call { call_id, tool } => format!("{call_id} {} ", tool.name),
                });
            } else if let Event::Text { delta, .. } | Event::CallArguments { delta, .. } = event {
                lines.last_mut().unwrap().push_str(&delta);
            }
        }
        lines
    }

    fn ran(second: &str) -> String {
        format!(
            r#"{{"role":"user","content":"hi"}},
            {{"type":"function_call","call_id":"a","name":"exec_command","arguments":{{"cmd":"{}"}}}},
            {{"type":"function_call","call_id":"b","name":"exec_command","arguments":{{"cmd":"{}"}}}},
            {{"type":"function_call_output","call_id":"a","output":"Linux"}},
            {{"type":"function_call_output","call_id":"b","output":"Output:\n{second}\n"}}"#,
            COMMANDS[0], COMMANDS[1]
        )
    }

    #[test]
    fn the_script_runs_from_prompt_to_summary() {
        let first = play(&format!(r#"{TOOLS},"input":"hi""#));
        assert_eq!(first.len(), 3, "{first:?}");
        assert!(first[1].starts_with("call_demo_1_0 exec_command {\"cmd\":\"uname"), "{first:?}");
        let second = play(&format!(r#"{TOOLS},"input":[{}]"#, ran("absent")));
        assert_eq!(second[1], format!("call_demo_5_2 apply_patch {}", patch()));
        let patched = r#"{"type":"custom_tool_call","call_id":"c","name":"apply_patch","input":"x"},
            {"type":"custom_tool_call_output","call_id":"c","output":"Success. Updated"}"#;
        let last = play(&format!(r#"{TOOLS},"input":[{},{patched}]"#, ran("absent")));
        assert!(last[0].starts_with("Done:"), "{last:?}");
        let again =
            play(&format!(r#"{TOOLS},"input":[{},{patched},{{"role":"user","content":"more"}}]"#, ran("absent")));
        assert_eq!(again.len(), 3, "a new prompt starts the script anew: {again:?}");
    }

    #[test]
    fn it_does_not_touch_a_file_that_is_there_or_may_be() {
        let there = play(&format!(r#"{TOOLS},"input":[{}]"#, ran("present")));
        assert!(there[0].contains("already here") && there.len() == 1, "{there:?}");
        let unknown = play(&format!(r#"{TOOLS},"input":[{}]"#, ran("Rejected(\\\"by user\\\")")));
        assert!(unknown[0].contains("change nothing") && unknown.len() == 1, "{unknown:?}");
    }

    #[test]
    fn requests_for_something_else_get_a_fitting_answer() {
        let title = r#""text":{"format":{"type":"json_schema","name":"f","schema":{"type":"object","properties":
            {"title":{"type":"string","maxLength":10},"n":{"type":"integer"},"l":{"type":"array"}}}}},"input":"x""#;
        assert_eq!(play(&format!("{TOOLS},{title}")), [r#"{"l":[],"n":0,"title":"Try the co"}"#]);
        assert!(play(r#""tools":[],"input":"summarise""#)[0].contains("no `exec_command` tool"));
    }
}
