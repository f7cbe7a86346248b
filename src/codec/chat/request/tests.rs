//! What becomes of requests: one small rule each, and laws over random conversations.

use std::{borrow::Cow, collections::BTreeMap};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{conversation::PICTURE_BELOW, *};
use crate::{
    codec::{
        NativeTools, Protocol,
        chat::{StreamDecoder, dialect::DIALECTS},
        history::{EMPTY_RESULT, NO_RESULT},
        sse::Frame,
    },
    model::{
        event::{Event, ItemKind},
        request::{Item, LossAction, Opaque, Origin, Part, Role},
    },
};

fn target(dialect: &str) -> Target {
    Target {
        origin: Origin::new("p", "m-1"),
        model: "m-1".into(),
        protocol: Protocol::Chat,
        dialect: Dialect::named(dialect).unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
        native_tools: NativeTools::ALL,
    }
}

fn message(role: Role, text: &str) -> Item<'static> {
    Item::Message { role, phase: None, parts: vec![text_part(text)] }
}

fn text_part(text: &str) -> Part<'static> {
    Part::Text(text.to_owned().into())
}

fn tool(namespace: Option<&'static str>, name: &'static str, kind: ToolKind) -> ToolRef<'static> {
    ToolRef { namespace: namespace.map(Cow::Borrowed), name: Cow::Borrowed(name), kind }
}

fn call(id: &str, input: &str) -> Item<'static> {
    Item::Call {
        call_id: Cow::Owned(id.to_owned()),
        tool: tool(None, "exec", ToolKind::Function),
        input: input.to_owned().into(),
    }
}

fn output(id: &str, parts: Vec<Part<'static>>) -> Item<'static> {
    Item::Output { call_id: Cow::Owned(id.to_owned()), kind: ToolKind::Function, parts }
}

fn thoughts(target: &Target, value: Value) -> Item<'static> {
    let opaque = Opaque { origin: target.origin.clone(), value: value.to_string() };
    Item::Reasoning { summary: vec![], content: vec![], opaque: Some(opaque) }
}

fn image() -> Part<'static> {
    Part::Image { url: "data:image/png;base64,AA".into(), detail: Some("original".into()) }
}

fn encode(request: &Request<'_>, target: &Target) -> (Value, Vec<String>) {
    let encoded = encode_request(request, target).unwrap();
    let losses = encoded.losses.iter().map(|l| format!("{} {:?}", l.path, l.action)).collect();
    (serde_json::from_slice(&encoded.body).unwrap(), losses)
}

fn of(input: Vec<Item<'static>>) -> Request<'static> {
    Request { input, ..Request::default() }
}

fn roles(body: &Value) -> Vec<&str> {
    body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect()
}

#[test]
fn parallel_calls_become_one_message_and_their_outputs_follow_in_order() {
    let request = of(vec![
        message(Role::User, "go"),
        message(Role::Assistant, "I look."),
        call("c1", r#"{"a":1}"#),
        call("c2", ""),
        message(Role::User, "steer"),
        output("c2", vec![text_part("two")]),
        output("c1", vec![text_part("one")]),
    ]);
    let (body, losses) = encode(&request, &target("openai"));
    assert_eq!(
        body["messages"],
        json!([
            {"role":"user","content":"go"},
            {"role":"assistant","content":"I look.","tool_calls":[
                {"id":"c1","type":"function","function":{"name":"exec","arguments":"{\"a\":1}"}},
                {"id":"c2","type":"function","function":{"name":"exec","arguments":"{}"}}]},
            {"role":"tool","content":"one","tool_call_id":"c1"},
            {"role":"tool","content":"two","tool_call_id":"c2"},
            {"role":"user","content":"steer"},
        ])
    );
    assert_eq!(losses, Vec::<String>::new());
}

#[test]
fn what_does_not_pair_is_mended() {
    let request = of(vec![
        call("c1", "{}"),
        call("c1", "{}"),
        output("c1", vec![text_part("first")]),
        output("c1", vec![text_part("second")]),
        output("zzz", vec![text_part("lost")]),
        call("c3", "not json"),
    ]);
    let (body, losses) = encode(&request, &target("generic"));
    let messages = &body["messages"];
    assert_eq!(roles(&body), ["assistant", "tool", "tool", "user", "assistant", "tool"]);
    assert_eq!(messages[0]["tool_calls"][1]["id"], "c1_2");
    assert_eq!((&messages[1]["content"], &messages[1]["tool_call_id"]), (&json!("first"), &json!("c1")));
    assert_eq!((&messages[2]["content"], &messages[2]["tool_call_id"]), (&json!("second"), &json!("c1_2")));
    assert!(messages[3]["content"].as_str().unwrap().ends_with("lost"));
    assert_eq!(messages[4]["tool_calls"][0]["function"]["arguments"], r#"{"input":"not json"}"#);
    assert_eq!(messages[5]["content"], NO_RESULT);
    assert_eq!(
        losses,
        ["input[1] Approximate", "input[4] Approximate", "input[5] Approximate", "input[5] Approximate"]
    );
}

#[test]
fn pictures_of_results_follow_all_results() {
    let request = of(vec![
        call("c1", "{}"),
        call("c2", "{}"),
        output("c1", vec![text_part("seen"), image()]),
        output("c2", vec![]),
    ]);
    let (body, losses) = encode(&request, &target("openai"));
    assert_eq!(roles(&body), ["assistant", "tool", "tool", "user"]);
    assert_eq!(body["messages"][1]["content"], format!("seen\n{PICTURE_BELOW}"));
    assert_eq!(body["messages"][2]["content"], EMPTY_RESULT);
    assert_eq!(
        body["messages"][3]["content"][1],
        json!({"type":"image_url","image_url":{"url":"data:image/png;base64,AA","detail":"high"}})
    );
    assert_eq!(losses, ["input[2].output[1] Approximate"]);
    let mislabelled = Part::Image { url: "data:image/png;base64,/9j/4AAQ".into(), detail: None };
    let (body, _) =
        encode(&of(vec![Item::Message { role: Role::User, phase: None, parts: vec![mislabelled] }]), &target("openai"));
    assert_eq!(body["messages"][0]["content"][0]["image_url"]["url"], "data:image/jpeg;base64,/9j/4AAQ");

    let blind = Target { accepts_images: false, ..target("openai") };
    let (body, losses) = encode(&request, &blind);
    assert_eq!(roles(&body), ["assistant", "tool", "tool"]);
    assert!(!body.to_string().contains("base64"));
    assert_eq!(losses, ["input[2].output[1] Drop"]);
}

#[test]
fn mistral_wants_nine_characters_and_somebody_between_tool_and_user() {
    let request = of(vec![
        call("call_123", "{}"),
        output("call_123", vec![text_part("x")]),
        message(Role::User, "go on"),
        call("abcdefgh1", "{}"),
    ]);
    let (body, _) = encode(&request, &target("mistral"));
    assert_eq!(roles(&body), ["assistant", "tool", "assistant", "user", "assistant", "tool"]);
    let id = body["messages"][0]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert_eq!(body["messages"][1]["tool_call_id"], id);
    assert_eq!(body["messages"][4]["tool_calls"][0]["id"], "abcdefgh1");
    assert_eq!(body["stream_options"], Value::Null);
    assert_eq!(body["messages"][0]["content"], "");
}

#[test]
fn system_messages_go_where_the_host_takes_them() {
    let request = Request {
        instructions: Some("base".into()),
        ..of(vec![message(Role::Developer, "dev"), message(Role::User, "hi"), message(Role::Developer, "late")])
    };
    let (body, losses) = encode(&request, &target("openai"));
    assert_eq!(roles(&body), ["system", "developer", "user", "developer"]);
    assert_eq!(losses, Vec::<String>::new());
    let (body, _) = encode(&request, &target("deepseek"));
    assert_eq!(roles(&body), ["system", "system", "user", "system"]);
    let (body, losses) = encode(&request, &target("qwen"));
    // A late one stays where it was said, so that the first bytes, and the host's cache of them, stay the same.
    assert_eq!(body["messages"][0], json!({"role":"system","content":"base\n\ndev"}));
    assert_eq!((roles(&body), losses), (vec!["system", "user", "user"], vec!["input[2] Approximate".to_owned()]));
}

#[test]
fn tools_are_declared_in_the_hosts_words() {
    let schema: Box<RawValue> = serde_json::from_str(r#"{ "type":"object", "b":1, "a":2 }"#).unwrap();
    let hosted: Box<RawValue> = serde_json::from_str(r#"{"type":"web_search"}"#).unwrap();
    let callable = |tool, parameters, grammar| {
        Tool::Callable(CallableTool { tool, description: Some("does".into()), parameters, grammar, strict: Some(true) })
    };
    let request = Request {
        tools: vec![
            callable(tool(Some("mcp__echo"), "echo_it", ToolKind::Function), Some(&*schema), None),
            Tool::Hosted { kind: "web_search".into(), raw: &hosted },
            callable(tool(None, "apply_patch", ToolKind::Custom), None, Some(("lark".into(), "start: x".into()))),
            callable(tool(None, "bare", ToolKind::Function), None, None),
        ],
        parallel_tool_calls: Some(true),
        tool_choice: ToolChoice::Named(tool(None, "apply_patch", ToolKind::Custom)),
        ..of(vec![message(Role::User, "hi")])
    };
    let encoded = encode_request(&request, &target("openai")).unwrap();
    // A schema passes byte for byte.
    assert!(
        String::from_utf8(encoded.body.clone()).unwrap().contains(r#""parameters":{ "type":"object", "b":1, "a":2 }"#)
    );
    let (body, losses) = encode(&request, &target("openai"));
    assert_eq!(body["tools"][0]["function"]["name"], "mcp__echo__echo_it");
    assert_eq!(body["tools"][0]["function"]["strict"], true);
    let patch = &body["tools"][1]["function"];
    assert!(patch["description"].as_str().unwrap().contains("start: x"));
    assert_eq!(patch["parameters"]["required"], json!(["input"]));
    assert_eq!(body["tools"][2]["function"]["parameters"], json!({"type":"object","properties":{}}));
    assert_eq!(body["tool_choice"], json!({"type":"function","function":{"name":"apply_patch"}}));
    assert_eq!(body["parallel_tool_calls"], true);
    assert_eq!(losses, ["tools[1] Drop", "tools[2].format Approximate"]);

    let (body, losses) = encode(&request, &target("zai"));
    assert_eq!(body["tools"].as_array().unwrap().len(), 1);
    assert_eq!((&body["tool_choice"], &body["parallel_tool_calls"]), (&Value::Null, &Value::Null));
    assert_eq!((&body["tool_stream"], &body["tools"][0]["function"]["strict"]), (&json!(true), &Value::Null));
    assert!(losses.contains(&"tool_choice Approximate".to_owned()) && losses.contains(&"tool_choice Drop".to_owned()));

    let none = Request { tool_choice: ToolChoice::None, ..request };
    assert_eq!(encode(&none, &target("cerebras")).0["tool_choice"], "none");
    let (body, _) = encode(&none, &target("minimax"));
    assert_eq!((&body["tools"], &body["tool_choice"]), (&Value::Null, &Value::Null));
}

#[test]
fn effort_takes_the_hosts_shape() {
    let with = |dialect: &str, model: &str, effort: &'static str| {
        let request = Request { effort: Some(effort.into()), ..of(vec![message(Role::User, "hi")]) };
        let target = Target { model: model.into(), ..target(dialect) };
        let (mut body, losses) = encode(&request, &target);
        let mut said = serde_json::Map::new();
        let keys =
            ["thinking", "reasoning_effort", "reasoning", "enable_thinking", "chat_template_kwargs", "reasoning_split"];
        for key in keys {
            let value = body[key].take();
            if !value.is_null() {
                said.insert(key.into(), value);
            }
        }
        (Value::Object(said), losses.len())
    };
    for (dialect, model, effort, said, losses) in [
        ("openai", "gpt-5.1", "xhigh", json!({"reasoning_effort":"xhigh"}), 0),
        ("openai", "gpt-4.1", "high", json!({}), 1),
        ("deepseek", "deepseek-chat", "xhigh", json!({"thinking":{"type":"enabled"},"reasoning_effort":"high"}), 1),
        ("deepseek", "deepseek-chat", "none", json!({"thinking":{"type":"disabled"}}), 0),
        (
            "zai",
            "glm-5.2",
            "low",
            json!({"thinking":{"type":"enabled","clear_thinking":false},"reasoning_effort":"low"}),
            0,
        ),
        ("zai", "glm-4.7", "off", json!({"thinking":{"type":"disabled"}}), 0),
        ("qwen", "qwen3", "none", json!({"enable_thinking":false}), 0),
        ("minimax", "M3", "high", json!({"thinking":{"type":"adaptive"},"reasoning_split":true}), 1),
        ("openrouter", "x/y", "max", json!({"reasoning":{"effort":"xhigh"}}), 1),
        ("openrouter", "x/y", "none", json!({"reasoning":{"enabled":false}}), 0),
        ("vllm", "x", "none", json!({"chat_template_kwargs":{"enable_thinking":false,"thinking":false}}), 0),
        ("vllm", "x", "minimal", json!({"reasoning_effort":"low"}), 1),
        ("ollama", "x", "none", json!({"reasoning_effort":"none"}), 0),
        ("groq", "openai/gpt-oss-20b", "none", json!({"reasoning_effort":"low"}), 1),
        ("xai", "grok-4", "high", json!({}), 1),
        ("generic", "x", "high", json!({}), 1),
    ] {
        assert_eq!(with(dialect, model, effort), (said, losses), "{dialect} {model} {effort}");
    }
}

#[test]
fn limits_sampling_and_form_follow_the_table() {
    let schema: Box<RawValue> = serde_json::from_str(r#"{"type":"object"}"#).unwrap();
    let format = Format::JsonSchema { name: "out".into(), description: None, schema: &schema, strict: Some(true) };
    let request = Request {
        max_output_tokens: Some(9000),
        temperature: Some(0.5),
        verbosity: Some("low".into()),
        prompt_cache_key: Some("k".into()),
        format,
        ..of(vec![message(Role::User, "hi")])
    };
    let limited = Target { max_output_tokens: Some(4096), ..target("openai") };
    let (body, losses) = encode(&request, &limited);
    assert_eq!((&body["max_completion_tokens"], &body["max_tokens"]), (&json!(4096), &Value::Null));
    assert_eq!(
        (&body["temperature"], &body["verbosity"], &body["prompt_cache_key"]),
        (&json!(0.5), &json!("low"), &json!("k"))
    );
    assert_eq!(body["response_format"]["json_schema"]["schema"], json!({"type":"object"}));
    assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &json!({"include_usage":true})));
    assert_eq!(losses, ["max_output_tokens Approximate"]);

    let (body, losses) = encode(&request, &target("deepseek"));
    assert_eq!((&body["max_tokens"], &body["response_format"]), (&json!(9000), &json!({"type":"json_object"})));
    assert!(body["messages"][0]["content"].as_str().unwrap().contains(r#"{"type":"object"}"#));
    assert_eq!((&body["verbosity"], &body["prompt_cache_key"]), (&Value::Null, &Value::Null));
    assert_eq!(losses, ["text.format Approximate", "text.verbosity Drop"]);

    let (body, _) = encode(&request, &target("minimax"));
    assert_eq!(body["response_format"], Value::Null);
}

#[test]
fn required_thoughts_are_restored_replaced_or_thinking_is_switched_off() {
    let deepseek = target("deepseek");
    let effort = |input| Request { effort: Some("high".into()), ..of(input) };
    let turn = |reasoning| vec![reasoning, call("c1", "{}"), output("c1", vec![text_part("x")])];

    let own = effort(turn(thoughts(&deepseek, json!({"field":"reasoning_content","text":"We look."}))));
    let (body, losses) = encode(&own, &deepseek);
    assert_eq!(body["messages"][0]["reasoning_content"], "We look.");
    assert_eq!((&body["thinking"], losses.len()), (&json!({"type":"enabled"}), 0));

    let none = effort(turn(thoughts(&deepseek, json!({"field":"reasoning_content","text":""}))));
    assert_eq!(encode(&none, &deepseek).0["messages"][0]["reasoning_content"], "");

    let foreign = Opaque { origin: Origin::new("other", "m-1"), value: "{}".into() };
    let shown = Item::Reasoning { summary: vec!["Shown.".into()], content: vec![], opaque: Some(foreign) };
    let (body, losses) = encode(&effort(turn(shown)), &deepseek);
    assert_eq!(body["messages"][0]["reasoning_content"], "Shown.");
    assert_eq!(losses, ["input[0] Approximate"]);

    let mut lost = turn(thoughts(&deepseek, json!({"field":"reasoning_content","text":"We look."})));
    lost.extend([call("c2", "{}"), output("c2", vec![])]);
    let (body, losses) = encode(&effort(lost), &deepseek);
    assert_eq!((&body["thinking"], &body["reasoning_effort"]), (&json!({"type":"disabled"}), &Value::Null));
    assert!(!body.to_string().contains("We look."));
    assert_eq!(losses, ["reasoning.effort Drop", "input[3] Drop", "input[0] Drop"]);
}

#[test]
fn foreign_thoughts_never_leave() {
    for dialect in DIALECTS {
        let foreign = Opaque {
            origin: Origin::new("other", "m-1"),
            value: json!({"field":"reasoning_content","text":"SECRET"}).to_string(),
        };
        let item = Item::Reasoning { summary: vec![], content: vec![], opaque: Some(foreign) };
        let request = of(vec![item, message(Role::Assistant, "a"), call("c", "{}"), message(Role::User, "b")]);
        let encoded = encode_request(&request, &target(dialect.name)).unwrap();
        assert!(!String::from_utf8(encoded.body).unwrap().contains("SECRET"), "{}", dialect.name);
        assert!(encoded.losses.iter().any(|l| l.path == "input[0]"), "{}", dialect.name);
    }
}

#[test]
fn compaction_is_refused_rather_than_lost() {
    let request =
        of(vec![Item::Compaction { path: "input[0].encrypted_content".to_owned() }, message(Role::User, "hi")]);
    let error = encode_request(&request, &target("generic")).unwrap_err();
    assert!(matches!(error, EncodeError::Unsupported { path, .. } if path == "input[0].encrypted_content"));
}

/// What a client makes of an answer's events: the items it sends back.
fn history(events: &[Event]) -> Vec<Item<'static>> {
    let mut items: BTreeMap<_, Item<'static>> = BTreeMap::new();
    for event in events {
        match event {
            Event::ItemOpen { item, kind } => {
                let fresh = match kind {
                    ItemKind::Message { .. } => message(Role::Assistant, ""),
                    ItemKind::Reasoning => Item::Reasoning { summary: vec![], content: vec![], opaque: None },
                    ItemKind::Call { call_id, tool } => {
                        Item::Call { call_id: Cow::Owned(call_id.clone()), tool: tool.clone(), input: "".into() }
                    }
                    ItemKind::Compaction => unreachable!("no provider makes one"),
                };
                items.insert(*item, fresh);
            }
            Event::Text { item, delta } => {
                if let Some(Item::Message { parts, .. }) = items.get_mut(item)
                    && let Some(Part::Text(text)) = parts.first_mut()
                {
                    *text = (text.read().into_owned() + delta).into();
                }
            }
            Event::CallArguments { item, delta } => {
                if let Some(Item::Call { input, .. }) = items.get_mut(item) {
                    *input = (input.read().into_owned() + delta).into();
                }
            }
            Event::Opaque { item, value } => {
                if let Some(Item::Reasoning { opaque, .. }) = items.get_mut(item) {
                    *opaque = Some(value.clone());
                }
            }
            Event::Start { .. }
            | Event::Refusal { .. }
            | Event::Reasoning { .. }
            | Event::ItemClose { .. }
            | Event::Usage(_)
            | Event::End(_) => {}
        }
    }
    items.into_values().collect()
}

#[test]
fn what_an_answer_needs_back_comes_back_as_it_came() {
    let signature = json!({"google":{"thought_signature":"SIG"}});
    let entry = json!({"type":"reasoning.text","text":"We look.","signature":"S","index":0,"format":"f"});
    let call = json!({"id":"a","type":"function","function":{"name":"exec","arguments":"{\"x\":1}"}});
    let signed = json!({"id":"a","type":"function","function":{"name":"exec","arguments":"{\"x\":1}"},"extra_content":signature});
    for (dialect, delta, back) in [
        (
            "deepseek",
            json!({"reasoning_content":"We look.","content":"Now","tool_calls":[call]}),
            json!({"reasoning_content":"We look.","content":"Now"}),
        ),
        ("groq", json!({"reasoning":"We look.","tool_calls":[call]}), json!({"reasoning":"We look.","content":""})),
        ("generic", json!({"reasoning":"We look.","tool_calls":[call]}), json!({"reasoning":"We look.","content":""})),
        (
            "openrouter",
            json!({"reasoning":"We look.","reasoning_details":[entry],"tool_calls":[call]}),
            json!({"reasoning_details":[entry],"content":null}),
        ),
        (
            "minimax",
            json!({"reasoning_details":[entry],"tool_calls":[call]}),
            json!({"reasoning_details":[entry],"content":""}),
        ),
        (
            "minimax",
            json!({"content":"<mm:think>We look.</mm:think>Now","tool_calls":[call]}),
            json!({"content":"<mm:think>\nWe look.\n</mm:think>\n\nNow"}),
        ),
        ("gemini-openai", json!({"tool_calls":[signed]}), json!({"content":"","tool_calls":[signed]})),
    ] {
        let target = target(dialect);
        let names = Names::default();
        let mut decoder = StreamDecoder::new(&target, names, "s", 0);
        let mut events = Vec::new();
        let chunk =
            json!({"model":"m-1","choices":[{"index":0,"delta":delta,"finish_reason":"tool_calls"}]}).to_string();
        decoder.feed(&Frame { event: None, data: &chunk }, &mut events).unwrap();
        decoder.finish(None, &mut events);
        let mut input = history(&events);
        input.push(output("a", vec![text_part("done")]));
        let (body, losses) = encode(&of(input), &target);
        for (key, value) in back.as_object().unwrap() {
            assert_eq!(&body["messages"][0][key], value, "{dialect} {key}: {body}");
        }
        assert_eq!(losses, Vec::<String>::new(), "{dialect}");
    }
}

#[test]
fn calls_without_a_signature_get_a_stand_in_on_the_first() {
    let request = of(vec![call("a", "{}"), call("b", "{}"), output("a", vec![]), output("b", vec![])]);
    let (body, _) = encode(&request, &target("gemini-openai"));
    let calls = &body["messages"][0]["tool_calls"];
    assert!(calls[0]["extra_content"]["google"]["thought_signature"].is_string());
    assert_eq!(calls[1]["extra_content"], Value::Null);
}

#[test]
fn a_longer_conversation_begins_with_the_bytes_of_the_shorter() {
    let items = |n: usize| {
        let all = [
            message(Role::Developer, "dev"),
            message(Role::User, "hi"),
            call("c1", "{}"),
            output("c1", vec![text_part("x")]),
            message(Role::Assistant, "done"),
            message(Role::User, "more"),
        ];
        of(all.into_iter().take(n).collect())
    };
    for dialect in DIALECTS {
        let body = |n| String::from_utf8(encode_request(&items(n), &target(dialect.name)).unwrap().body).unwrap();
        let short = body(5);
        let (start, _) = short.split_once("}],\"").unwrap();
        assert!(body(6).starts_with(start), "{}", dialect.name);
        assert_eq!(body(6), body(6));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every text of a request is in the body once, in order, or a loss names it.
    #[test]
    fn nothing_is_lost_silently(
        kinds in proptest::collection::vec((0..9u8, 0..4u8), 0..14), which in 0..DIALECTS.len(), images in any::<bool>(),
        effort in prop_oneof![Just(None), Just(Some("high")), Just(Some("none"))],
    ) {
        let target = Target { accepts_images: images, ..target(DIALECTS[which].name) };
        let hosted: Box<RawValue> = serde_json::from_str("{}").unwrap();
        let mut input = Vec::new();
        let mut ordered = Vec::new();
        for (i, (kind, id)) in kinds.iter().enumerate() {
            let marker = format!("<M{i}>");
            let id = format!("c{id}");
            ordered.push(matches!(kind, 0..=5));
            input.push(match kind {
                0 => message(Role::User, &marker),
                1 => message(Role::Assistant, &marker),
                2 => message(Role::Developer, &marker),
                3 => call(&id, &format!("{{\"a\":\"{marker}\"}}")),
                4 => call(&id, &marker),
                5 => Item::Call { call_id: id.into(), tool: tool(None, "patch", ToolKind::Custom), input: marker.into() },
                6 => output(&id, vec![text_part(&marker)]),
                7 => thoughts(&target, json!({"field":"reasoning_content","text":marker})),
                _ => Item::Reasoning { summary: vec![marker.into()], content: vec![], opaque: None },
            });
        }
        if images {
            input.push(Item::Hosted { kind: "web_search_call".into(), raw: &hosted });
        }
        let request = Request { input, effort: effort.map(Into::into), ..Request::default() };
        let encoded = encode_request(&request, &target).unwrap();
        let again = encode_request(&request, &target).unwrap();
        prop_assert_eq!(&encoded.body, &again.body);
        let body = String::from_utf8(encoded.body).unwrap();
        let mut last = 0;
        for (i, ordered) in ordered.into_iter().enumerate() {
            let marker = format!("<M{i}>");
            let found: Vec<usize> = body.match_indices(&marker).map(|(at, _)| at).collect();
            let loss = |action| encoded.losses.iter().any(|l| l.action == action && l.path == format!("input[{i}]"));
            prop_assert!(found.len() == 1 || (found.is_empty() && loss(LossAction::Drop)), "{marker} {found:?} {body}");
            if ordered && !loss(LossAction::Approximate) && let [at] = found[..] {
                prop_assert!(at > last, "{marker} out of order: {body}");
                last = at;
            }
        }
    }
}
