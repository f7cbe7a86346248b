//! What is said of a request to each kind of model, rule by rule; whole requests are in `tests/golden/requests`.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::*;
use crate::{
    codec::{NativeTools, Protocol, chat::dialect::Dialect},
    model::{
        event::ItemKey,
        request::{LossAction, Opaque, Origin, Part, Role},
    },
};

fn target(model: &str) -> Target {
    Target {
        origin: Origin::new("p", model),
        model: model.into(),
        protocol: Protocol::Messages,
        dialect: Dialect::named("generic").unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
        native_tools: NativeTools::ALL,
    }
}

fn text(text: &str) -> Vec<Part<'_>> {
    vec![Part::Text(text.into())]
}

fn message(role: Role, said: &str) -> Item<'_> {
    Item::Message { role, phase: None, parts: text(said) }
}

fn tool_ref(name: &str) -> ToolRef<'_> {
    ToolRef { namespace: None, name: name.into(), kind: ToolKind::Function }
}

fn call<'a>(id: &'a str, input: &'a str) -> Item<'a> {
    Item::Call { call_id: id.into(), tool: tool_ref("run"), input: input.into() }
}

fn output<'a>(id: &'a str, said: &'a str) -> Item<'a> {
    Item::Output { call_id: id.into(), kind: ToolKind::Function, parts: text(said) }
}

/// Thoughts of `model` at the same provider.
fn thoughts(model: &str, value: Option<String>) -> Item<'static> {
    let opaque = value.map(|value| Opaque { origin: Origin::new("p", model), value });
    Item::Reasoning { summary: vec!["shown".into()], content: Vec::new(), opaque }
}

fn signed(thinking: &str) -> Option<String> {
    crate::codec::messages::thoughts::Stored::thinking(thinking, "c2ln").write()
}

fn run() -> Tool<'static> {
    Tool::Callable(CallableTool {
        tool: tool_ref("run"),
        description: None,
        parameters: None,
        grammar: None,
        strict: None,
    })
}

fn encoded(request: &Request<'_>, target: &Target) -> (Value, Vec<(String, LossAction)>) {
    let encoded = encode_request(request, target).unwrap();
    let body = serde_json::from_slice(&encoded.body).unwrap();
    (body, encoded.losses.into_iter().map(|loss| (loss.path, loss.action)).collect())
}

fn asked(model: &str, effort: &str) -> (Value, Vec<(String, LossAction)>) {
    let request = Request { effort: Some(effort.into()), input: vec![message(Role::User, "hi")], ..Request::default() };
    encoded(&request, &target(model))
}

#[test]
fn effort_becomes_what_the_model_understands() {
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    let budget = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    for (model, effort, thinking, said, losses) in [
        ("claude-opus-5-5", "high", adaptive.clone(), json!("high"), 0),
        ("claude-opus-5-5", "none", adaptive.clone(), json!("low"), 1),
        ("claude-opus-5-5", "ultra", adaptive.clone(), json!("max"), 1),
        ("claude-opus-6", "xhigh", adaptive.clone(), json!("xhigh"), 0),
        ("claude-sonnet-5-5", "minimal", json!({"type": "between_tools"}), Value::Null, 0),
        ("claude-opus-5", "off", json!({"type": "disabled"}), Value::Null, 0),
        ("claude-opus-4-8", "none", Value::Null, Value::Null, 0),
        ("claude-opus-4-6", "xhigh", adaptive.clone(), json!("high"), 1),
        ("claude-opus-4-5", "high", budget(16_384), json!("high"), 0),
        ("claude-haiku-4-5", "low", budget(4096), Value::Null, 1),
        ("claude-haiku-4-5", "none", json!({"type": "disabled"}), Value::Null, 0),
        ("claude-3-7-sonnet-20250219", "high", budget(16_384), Value::Null, 1),
        ("claude-3-5-haiku-latest", "high", Value::Null, Value::Null, 1),
        ("claude-3-opus-20240229", "none", Value::Null, Value::Null, 0),
        ("glm-5", "max", budget(24_000), Value::Null, 1),
        ("claude-opus-5-5", "turbo", adaptive.clone(), Value::Null, 1),
    ] {
        let (body, lost) = asked(model, effort);
        assert_eq!(body["thinking"], thinking, "{model} {effort}");
        assert_eq!(body["output_config"]["effort"], said, "{model} {effort}");
        assert_eq!(lost.len(), losses, "{model} {effort}: {lost:?}");
    }
    let silent = |model: &str| {
        let request = Request { input: vec![message(Role::User, "hi")], ..Request::default() };
        encoded(&request, &target(model)).0["thinking"].clone()
    };
    assert_eq!(silent("claude-opus-5-5"), adaptive);
    assert_eq!(silent("claude-opus-4-8"), Value::Null);
    assert_eq!(silent("claude-haiku-4-5"), Value::Null);
}

#[test]
fn a_budget_leaves_room_for_the_answer() {
    let of = |max: u64| {
        let input = vec![message(Role::User, "hi")];
        let request = Request { effort: Some("max".into()), max_output_tokens: Some(max), input, ..Request::default() };
        encoded(&request, &target("claude-haiku-4-5")).0
    };
    for max in [1025, 1400, 2000, 8192, 64_000] {
        let body = of(max);
        let budget = body["thinking"]["budget_tokens"].as_u64().unwrap();
        assert!((1024..max).contains(&budget) && body["max_tokens"] == max, "{body}");
    }
    assert_eq!(of(1024)["thinking"], json!({"type": "disabled"}));
    let body = of(200_000);
    assert_eq!(body["max_tokens"], 64_000);
}

#[test]
fn tokens_are_the_clients_wish_within_the_limit() {
    let of = |wish: Option<u64>, limit: Option<u64>| {
        let input = vec![message(Role::User, "hi")];
        let request = Request { max_output_tokens: wish, input, ..Request::default() };
        encoded(&request, &Target { max_output_tokens: limit, ..target("claude-opus-5-5") }).0["max_tokens"].as_u64()
    };
    assert_eq!(of(None, None), Some(128_000));
    assert_eq!(of(None, Some(8000)), Some(8000));
    assert_eq!(of(Some(500), Some(8000)), Some(500));
    assert_eq!(of(Some(9000), Some(8000)), Some(8000));
}

/// A step under way: the user, thoughts, a call, its result.
fn step(head: Option<Item<'static>>) -> Vec<Item<'static>> {
    let mut input = vec![message(Role::User, "hi")];
    input.extend(head);
    input.extend([call("toolu_1", r#"{"cmd": "ls"}"#), output("toolu_1", "a.txt")]);
    input
}

#[test]
fn thoughts_go_back_as_they_came_at_the_head_of_their_message() {
    let redacted = crate::codec::messages::thoughts::Stored::redacted("ZGF0YQ").write();
    let mut input = step(Some(thoughts("claude-opus-5-5", signed("Hm."))));
    input.insert(2, thoughts("claude-opus-5-5", redacted));
    let request = Request { input, tools: vec![run()], ..Request::default() };
    let (body, losses) = encoded(&request, &target("claude-opus-5-5"));
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "ZGF0YQ"},
            {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {"cmd": "ls"}},
        ])
    );
    assert_eq!(losses, []);
}

#[test]
fn thoughts_of_others_are_left_out() {
    for item in [thoughts("gpt-5", signed("Hm.")), thoughts("claude-x", Some("{}".into())), thoughts("claude-x", None)]
    {
        let request = Request { input: step(Some(item)), tools: vec![run()], ..Request::default() };
        let (body, losses) = encoded(&request, &target("claude-opus-5-5"));
        assert_eq!(body["messages"][1]["content"][0]["type"], "tool_use");
        assert_eq!(losses, [("input[1]".to_owned(), LossAction::Drop)]);
    }
}

#[test]
fn a_budget_is_not_given_to_a_step_that_began_without_thoughts() {
    let of = |head: Option<Item<'static>>, more: Vec<Item<'static>>| {
        let mut input = step(head);
        input.extend(more);
        let request = Request { input, tools: vec![run()], effort: Some("medium".into()), ..Request::default() };
        let (body, losses) = encoded(&request, &target("claude-haiku-4-5"));
        (body["thinking"]["type"].as_str().unwrap().to_owned(), losses)
    };
    let ours = || Some(thoughts("claude-haiku-4-5", signed("Hm.")));
    assert_eq!(of(ours(), Vec::new()).0, "enabled");
    let (kind, losses) = of(None, Vec::new());
    assert_eq!(kind, "disabled");
    assert!(losses.contains(&("reasoning.effort".to_owned(), LossAction::Drop)), "{losses:?}");
    // The step goes on without thoughts, or over words said meanwhile; a new one may think.
    let again = || vec![call("toolu_2", "{}"), output("toolu_2", "b.txt")];
    assert_eq!(of(ours(), again()).0, "enabled");
    assert_eq!(of(None, again()).0, "disabled");
    assert_eq!(of(None, vec![message(Role::User, "and?")]).0, "disabled");
    assert_eq!(of(None, vec![message(Role::Assistant, "Done."), message(Role::User, "and?")]).0, "enabled");
    // Thoughts of a later part of the step go, too.
    let mut later = vec![thoughts("claude-haiku-4-5", signed("Later."))];
    later.extend(again());
    let (kind, losses) = of(None, later);
    assert_eq!(kind, "disabled");
    assert!(losses.contains(&("input[3]".to_owned(), LossAction::Drop)), "{losses:?}");
}

#[test]
fn thoughts_stay_behind_when_the_tools_do() {
    let request =
        |tools| Request { input: step(Some(thoughts("claude-x", signed("Hm.")))), tools, ..Request::default() };
    let (body, losses) = encoded(&request(Vec::new()), &target("claude-fable-5-2"));
    assert_eq!(losses, [("input[1]".to_owned(), LossAction::Drop)]);
    assert_eq!(body["tools"][0]["name"], "run");
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
    let (body, losses) = encoded(&request(Vec::new()), &target("claude-opus-5"));
    assert_eq!((losses.len(), &body["messages"][1]["content"][0]["type"]), (0, &json!("thinking")));
}

/// Thoughts that were item `at` of their answer.
fn thought_at(thinking: &str, at: u32) -> Item<'static> {
    let stored = crate::codec::messages::thoughts::Stored::thinking(thinking, "c2ln").at(ItemKey(at));
    thoughts("claude-opus-5-5", stored.write())
}

/// Messages by role, thoughts and texts by their words, all else by its type.
fn said(input: &[Item<'_>]) -> Vec<String> {
    let request = Request { input: input.to_vec(), tools: vec![run()], ..Request::default() };
    let (body, _) = encoded(&request, &target("claude-opus-5-5"));
    let words = |block: &Value| {
        let text = block["thinking"].as_str().or(block["text"].as_str()).or(block["type"].as_str());
        text.unwrap().to_owned()
    };
    let messages = body["messages"].as_array().unwrap().iter().map(|message| {
        let blocks: Vec<String> = message["content"].as_array().unwrap().iter().map(words).collect();
        format!("{}: {}", message["role"].as_str().unwrap(), blocks.join(", "))
    });
    messages.collect()
}

#[test]
fn what_stood_before_thoughts_stands_there_again_after_an_answer_that_broke_off() {
    let words = |text: &'static str| message(Role::Assistant, text);
    let broke = vec![
        (vec![thought_at("one", 0)], vec!["user: hi"]),
        (vec![thought_at("one", 0), thought_at("two", 1)], vec!["user: hi"]),
        (vec![words("half")], vec!["user: hi", "assistant: half", "user: Go on."]),
        (
            vec![thought_at("one", 0), words("whole"), thought_at("two", 2)],
            vec!["user: hi", "assistant: one, whole", "user: Go on."],
        ),
        (
            vec![thought_at("one", 0), call("c", "{}"), output("c", "x"), words("half")],
            vec!["user: hi", "assistant: one, tool_use", "user: tool_result", "assistant: half", "user: Go on."],
        ),
        (
            vec![thought_at("one", 0), call("c", "{}")],
            vec!["user: hi", "assistant: one, tool_use", "user: tool_result"],
        ),
    ];
    for (items, asked) in broke {
        let mut input = vec![message(Role::User, "hi")];
        input.extend(items);
        assert_eq!(said(&input), asked);
        // The next answer, which begins with thoughts or with words before them.
        for answer in
            [vec![thought_at("three", 0), words("done")], vec![words("So."), thought_at("three", 1), words("done")]]
        {
            let mut later = input.clone();
            later.extend(answer);
            later.push(message(Role::User, "and?"));
            let later = said(&later);
            assert_eq!(later[..asked.len()], asked, "{later:?}");
            assert!(later[asked.len()].starts_with("assistant: ") && later[asked.len()].ends_with("three, done"));
        }
    }
    // One answer is one message.
    let mut input = vec![message(Role::User, "hi"), thought_at("one", 0), words("a"), thought_at("two", 2)];
    input.extend([call("c", "{}"), thought_at("three", 4), call("d", "{}"), output("c", "x"), output("d", "y")]);
    assert_eq!(said(&input)[1], "assistant: one, a, two, tool_use, three, tool_use");
    // Where items are missing, or nobody noted their places, nothing is taken for a beginning.
    let mut old = vec![message(Role::User, "hi"), thoughts("claude-opus-5-5", signed("one")), words("a")];
    old.extend([thoughts("claude-opus-5-5", signed("two")), words("b"), thought_at("three", 2), words("c")]);
    assert_eq!(said(&old)[1], "assistant: one, a, two, b, three, c");
}

#[test]
fn tools_are_chosen_as_far_as_the_model_lets_itself_be_made() {
    let of = |model: &str, effort: Option<&'static str>, choice: ToolChoice<'static>, parallel: Option<bool>| {
        let request = Request {
            input: vec![message(Role::User, "hi")],
            tools: vec![run()],
            effort: effort.map(Cow::Borrowed),
            tool_choice: choice,
            parallel_tool_calls: parallel,
            ..Request::default()
        };
        let (body, losses) = encoded(&request, &target(model));
        (body["tool_choice"].clone(), losses.len())
    };
    let named = || ToolChoice::Named(tool_ref("run"));
    let allowed = |required| ToolChoice::Allowed { tools: vec![tool_ref("run")], required };
    let auto = json!({"type": "auto"});
    assert_eq!(of("claude-opus-4-8", None, ToolChoice::Auto, None), (Value::Null, 0));
    assert_eq!(of("claude-opus-4-8", None, ToolChoice::None, Some(false)), (json!({"type": "none"}), 0));
    assert_eq!(of("claude-opus-4-8", None, ToolChoice::Required, None), (json!({"type": "any"}), 0));
    assert_eq!(of("claude-opus-4-8", None, named(), None), (json!({"type": "tool", "name": "run"}), 0));
    assert_eq!(of("claude-opus-4-8", None, allowed(true), None), (json!({"type": "any"}), 0));
    let one = json!({"type": "auto", "disable_parallel_tool_use": true});
    assert_eq!(of("claude-opus-5-5", None, ToolChoice::Auto, Some(false)), (one, 0));
    for (model, effort) in
        [("claude-opus-4-8", Some("high")), ("claude-haiku-4-5", Some("low")), ("claude-opus-5-5", None)]
    {
        for choice in [ToolChoice::Required, named(), allowed(true)] {
            let (said, losses) = of(model, effort, choice, None);
            assert!(said.is_null() || said == auto, "{model}: {said}");
            assert!(losses >= 1, "{model}");
        }
    }
}

#[test]
fn roles_alternate_and_results_come_first() {
    let input = vec![
        message(Role::Assistant, "I begin."),
        call("a b", "{}"),
        call("a b", "not json"),
        message(Role::Developer, "said meanwhile"),
        message(Role::User, "and more"),
        output("a b", "one"),
        message(Role::Assistant, "  \n"),
        message(Role::Assistant, "I end."),
    ];
    let request = Request { input, tools: vec![run()], ..Request::default() };
    let (body, losses) = encoded(&request, &target("claude-opus-5-5"));
    let messages = body["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
    let kinds = |at: usize| -> Vec<&str> {
        messages[at]["content"].as_array().unwrap().iter().map(|b| b["type"].as_str().unwrap()).collect()
    };
    assert_eq!(kinds(1), ["text", "tool_use", "tool_use"]);
    assert_eq!(kinds(2), ["tool_result", "tool_result", "text", "text"]);
    let (calls, results) = (&messages[1]["content"], &messages[2]["content"]);
    for (call, result) in [(1, 0), (2, 1)] {
        let id = calls[call]["id"].as_str().unwrap();
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{id}");
        assert_eq!(results[result]["tool_use_id"], id);
    }
    assert_ne!(calls[1]["id"], calls[2]["id"]);
    assert_eq!(calls[2]["input"], json!({"input": "not json"}));
    assert_eq!((&results[0]["content"], &results[0]["is_error"]), (&json!("one"), &Value::Null));
    assert_eq!(
        (&results[1]["content"], &results[1]["is_error"]),
        (&json!("No result: the call was interrupted."), &json!(true))
    );
    assert_eq!(messages[4]["content"][0]["text"], conversation::GO_ON);
    assert_eq!(losses.iter().filter(|(_, action)| *action == LossAction::Drop).count(), 0, "{losses:?}");
}

#[test]
fn the_previous_requests_last_mark_is_marked_again() {
    let mut input = vec![message(Role::Developer, "rules"), message(Role::User, "hi")];
    let mark = |block: &Value| block["cache_control"] == json!({"type": "ephemeral"});
    let mut before: Option<(usize, usize)> = None;
    for round in 0..4 {
        let request = Request { input: input.clone(), tools: vec![run()], ..Request::default() };
        let (body, _) = encoded(&request, &target("claude-opus-5-5"));
        let messages = body["messages"].as_array().unwrap();
        let marks: Vec<(usize, usize)> = messages
            .iter()
            .enumerate()
            .flat_map(|(m, message)| {
                let blocks = message["content"].as_array().unwrap();
                blocks.iter().enumerate().filter(|(_, block)| mark(block)).map(move |(b, _)| (m, b)).collect::<Vec<_>>()
            })
            .collect();
        assert!(mark(&body["tools"][0]) && mark(&body["system"][0]));
        assert_eq!(marks.len(), if round == 0 { 1 } else { 2 }, "{body:#}");
        assert_eq!(marks.last().map(|(m, _)| *m), Some(messages.len() - 1));
        assert!(before.is_none_or(|before| marks.contains(&before)), "{marks:?} without {before:?}");
        before = marks.last().copied();
        input.extend([call("c", "{}"), call("d", "{}"), output("c", "1"), output("d", "2")]);
    }
}

#[test]
fn pictures_are_sources() {
    let url = |url: &'static str| Part::Image { url: url.into(), detail: None };
    let parts = vec![
        url("data:image/jpg;base64,/9j/4AAQ"),
        url("data:image/png;charset=x;base64,iVBORw0KGgo="),
        url("https://example.invalid/a.png"),
        // What it is counts, not what it is said to be.
        url("data:image/png;base64,/9j/4AAQ"),
        url("data:application/octet-stream;base64,R0lGODdh"),
        url("data:image/png;base64,SUkqAAgA"),
        url("data:image/png,iVBORw0KGgo"),
        url("data:image/png;base64,"),
        url("file:///etc/passwd"),
    ];
    let input = vec![Item::Message { role: Role::User, phase: None, parts }];
    let (body, losses) = encoded(&Request { input, ..Request::default() }, &target("claude-opus-5-5"));
    let content = &body["messages"][0]["content"];
    assert_eq!(content[0]["source"], json!({"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"}));
    assert_eq!(content[1]["source"], json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}));
    assert_eq!(content[2]["source"], json!({"type": "url", "url": "https://example.invalid/a.png"}));
    assert_eq!(content[3]["source"], json!({"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQ"}));
    assert_eq!(content[4]["source"], json!({"type": "base64", "media_type": "image/gif", "data": "R0lGODdh"}));
    assert!((5..9).all(|at| content[at]["type"] == "text"), "{content}");
    assert_eq!(losses.len(), 4);
}

#[test]
fn sampling_is_said_only_where_it_is_taken() {
    let of = |model: &str, effort: Option<&'static str>| {
        let request = Request {
            input: vec![message(Role::User, "hi")],
            temperature: Some(1.5),
            top_p: Some(0.9),
            effort: effort.map(Cow::Borrowed),
            ..Request::default()
        };
        let (body, losses) = encoded(&request, &target(model));
        (body["temperature"].as_f64(), body["top_p"].as_f64(), losses.len())
    };
    assert_eq!(of("claude-haiku-4-5", None), (Some(1.0), None, 2));
    assert_eq!(of("claude-opus-4-6", Some("high")), (None, None, 2));
    assert_eq!(of("claude-opus-5-5", None), (None, None, 2));
}

#[test]
fn only_schemas_that_are_enforced_are_sent_as_such() {
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let closed = raw(r#"{"type":"object","properties":{},"additionalProperties":false}"#);
    let score = raw(
        r#"{"type":"object","properties":{"score":{"type":"integer","minimum":0,"maximum":10}},"required":["score"],"additionalProperties":false}"#,
    );
    let of = |schema: &RawValue| {
        let mut tools = vec![run()];
        if let Some(Tool::Callable(tool)) = tools.first_mut() {
            (tool.parameters, tool.strict) = (Some(schema), Some(true));
        }
        let format = Format::JsonSchema { name: "n".into(), description: None, schema, strict: Some(true) };
        let request = Request { input: vec![message(Role::User, "hi")], tools, format, ..Request::default() };
        let (body, losses) = encoded(&request, &target("claude-opus-5-5"));
        let asked = body["system"].to_string().contains("JSON Schema");
        (body["output_config"]["format"]["type"].clone(), body["tools"][0]["strict"].clone(), asked, losses.len())
    };
    assert_eq!(of(&closed), (json!("json_schema"), json!(true), false, 0));
    assert_eq!(of(&score), (Value::Null, Value::Null, true, 2));
}

#[test]
fn what_must_not_be_dropped_is_refused() {
    let input = vec![Item::Compaction { path: "input[0].encrypted_content".to_owned() }];
    let request = Request { input, ..Request::default() };
    assert!(matches!(encode_request(&request, &target("claude-opus-5-5")), Err(EncodeError::Unsupported { .. })));
}
