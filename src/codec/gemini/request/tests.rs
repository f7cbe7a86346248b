//! What becomes of requests: one small rule each. The laws over random conversations are in `tests/it/codec_gemini.rs`.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    conversation::{BEGIN, GO_ON, NO_SIGNATURE, PICTURE_BELOW, PICTURE_HERE, PICTURES},
    *,
};
use crate::{
    codec::{
        NativeTools, Protocol,
        chat::dialect::Dialect,
        history::{NO_PICTURE, NO_RESULT},
    },
    model::request::{Item, Opaque, Origin, Part, Role},
};

const NEW: &str = "gemini-3.8-flash";
const OLD: &str = "gemini-2.5-flash";

fn target(model: &str) -> Target {
    Target {
        origin: Origin::new("google", model),
        model: model.into(),
        protocol: Protocol::Gemini,
        dialect: Dialect::named("generic").unwrap(),
        effort: None,
        accepts_images: true,
        max_output_tokens: None,
        native_tools: NativeTools::ALL,
    }
}

fn message(role: Role, text: &str) -> Item<'static> {
    Item::Message { role, phase: None, parts: vec![words(text)] }
}

fn words(text: &str) -> Part<'static> {
    Part::Text(text.to_owned().into())
}

fn image(url: &str) -> Part<'static> {
    Part::Image { url: url.to_owned().into(), detail: None }
}

fn tool(namespace: Option<&'static str>, name: &'static str, kind: ToolKind) -> ToolRef<'static> {
    ToolRef { namespace: namespace.map(Cow::Borrowed), name: Cow::Borrowed(name), kind }
}

fn call(id: &str, input: &str) -> Item<'static> {
    let tool = tool(None, "exec", ToolKind::Function);
    Item::Call { call_id: id.to_owned().into(), tool, input: input.to_owned().into() }
}

fn output(id: &str, parts: Vec<Part<'static>>) -> Item<'static> {
    Item::Output { call_id: id.to_owned().into(), kind: ToolKind::Function, parts }
}

fn signed(origin: &Origin, value: &Value) -> Item<'static> {
    let opaque = Opaque { origin: origin.clone(), value: value.to_string() };
    Item::Reasoning { summary: vec![], content: vec![], opaque: Some(opaque) }
}

fn of(input: Vec<Item<'static>>) -> Request<'static> {
    Request { input, ..Request::default() }
}

fn callable(tool: ToolRef<'static>) -> Tool<'static> {
    Tool::Callable(CallableTool { tool, description: None, parameters: None, grammar: None, strict: None })
}

fn encode(request: &Request<'_>, target: &Target) -> (Value, Vec<String>) {
    let encoded = encode_request(request, target).unwrap();
    let losses = encoded.losses.iter().map(|l| format!("{} {:?}", l.path, l.action)).collect();
    (serde_json::from_slice(&encoded.body).unwrap(), losses)
}

fn contents(input: Vec<Item<'static>>, model: &str) -> (Value, Vec<String>) {
    let (mut body, losses) = encode(&of(input), &target(model));
    (body["contents"].take(), losses)
}

fn called(id: &str, args: Value, signature: Option<&str>) -> Value {
    let mut part = json!({"functionCall": {"id": id, "name": "exec", "args": args}});
    if let Some(signature) = signature {
        part["thoughtSignature"] = json!(signature);
    }
    part
}

fn answered(id: &str, response: Value) -> Value {
    json!({"functionResponse": {"id": id, "name": "exec", "response": response}})
}

#[test]
fn parallel_calls_become_one_content_and_their_outputs_follow_in_order() {
    let (contents, losses) = contents(
        vec![
            message(Role::User, "go"),
            message(Role::Assistant, "I look."),
            call("c1", r#"{"b":1,"a":2}"#),
            call("c2", ""),
            message(Role::User, "steer"),
            output("c2", vec![words("two")]),
            output("c1", vec![words("one"), words("more")]),
        ],
        NEW,
    );
    assert_eq!(
        contents,
        json!([
            {"role": "user", "parts": [{"text": "go"}]},
            {"role": "model", "parts": [
                {"text": "I look."}, called("c1", json!({"b": 1, "a": 2}), Some(NO_SIGNATURE)), called("c2", json!({}), None)]},
            {"role": "user", "parts": [
                answered("c1", json!({"output": "one\nmore"})), answered("c2", json!({"output": "two"})), {"text": "steer"}]},
        ])
    );
    assert_eq!(losses, Vec::<String>::new());
}

#[test]
fn what_does_not_pair_is_mended() {
    let (contents, losses) = contents(
        vec![
            call("c1", "{}"),
            call("c1", "{}"),
            output("c1", vec![words("first")]),
            output("c1", vec![words("second")]),
            output("zzz", vec![words("lost")]),
            call("c3", "not json"),
        ],
        OLD,
    );
    assert_eq!(
        contents,
        json!([
            {"role": "user", "parts": [{"text": BEGIN}]},
            {"role": "model", "parts": [called("c1", json!({}), None), called("c1_2", json!({}), None)]},
            {"role": "user", "parts": [answered("c1", json!({"output": "first"})), answered("c1_2", json!({"output": "second"})),
                {"text": "Result of an earlier tool call:"}, {"text": "lost"}]},
            {"role": "model", "parts": [called("c3", json!({"input": "not json"}), None)]},
            {"role": "user", "parts": [answered("c3", json!({"error": NO_RESULT}))]},
        ])
    );
    let expected = [
        "input[1] Approximate",
        "input Approximate",
        "input[4] Approximate",
        "input[5] Approximate",
        "input[5] Approximate",
    ];
    assert_eq!(losses, expected);
}

#[test]
fn the_user_begins_and_ends() {
    let (begun, _) = contents(vec![message(Role::Assistant, "hi")], NEW);
    assert_eq!(
        begun,
        json!([
            {"role": "user", "parts": [{"text": BEGIN}]},
            {"role": "model", "parts": [{"text": "hi"}]},
            {"role": "user", "parts": [{"text": GO_ON}]},
        ])
    );
    let (empty, _) = contents(vec![message(Role::Developer, "d"), message(Role::User, "")], NEW);
    assert_eq!(empty, json!([{"role": "user", "parts": [{"text": BEGIN}]}]));
}

#[test]
fn instructions_stand_in_front_or_where_they_were_said() {
    let request = Request {
        instructions: Some("base".into()),
        ..of(vec![message(Role::Developer, "first"), message(Role::User, "u"), message(Role::System, "later")])
    };
    let (body, losses) = encode(&request, &target(NEW));
    assert_eq!(body["systemInstruction"], json!({"parts": [{"text": "base"}, {"text": "first"}]}));
    let lead = "[instructions of the program you work in, not of the user]";
    assert_eq!(
        body["contents"],
        json!([{"role": "user", "parts": [{"text": "u"}, {"text": lead}, {"text": "later"}]}])
    );
    assert_eq!(losses, ["input[2] Approximate"]);
}

#[test]
fn signatures_go_back_to_the_model_that_made_them_only() {
    let value = json!({"v": 1, "model": NEW, "calls": {"c1": "SIG"}});
    let history = |origin: &Origin, value: &Value| {
        vec![message(Role::User, "go"), signed(origin, value), call("c1", "{}"), output("c1", vec![words("x")])]
    };
    let own = target(NEW).origin;
    let signature = |origin: &Origin, value: &Value, model: &str| {
        let (contents, losses) = contents(history(origin, value), model);
        (contents[1]["parts"][0]["thoughtSignature"].clone(), losses)
    };
    assert_eq!(signature(&own, &value, NEW), (json!("SIG"), vec![]));
    let lost = vec!["input[1] Drop".to_owned()];
    // Another model, another provider, a version of later, something else.
    assert_eq!(signature(&own, &value, "gemini-4-argon"), (json!(NO_SIGNATURE), lost.clone()));
    assert_eq!(signature(&own, &value, OLD), (Value::Null, lost.clone()));
    assert_eq!(signature(&Origin::new("other", NEW), &value, NEW), (json!(NO_SIGNATURE), lost.clone()));
    let later = json!({"v": 2, "model": NEW, "calls": {"c1": "SIG"}});
    assert_eq!(signature(&own, &later, NEW), (json!(NO_SIGNATURE), lost.clone()));
    assert_eq!(signature(&own, &json!("nonsense"), NEW), (json!(NO_SIGNATURE), lost));
}

#[test]
fn a_text_that_was_changed_loses_its_signature() {
    let hash = super::super::thoughts::mix(super::super::thoughts::START, "one two");
    let value = json!({"v": 1, "model": NEW, "texts": [{"start": 4, "end": 7, "hash": hash, "sig": "S"}]});
    let said = |text: &str| {
        let own = target(NEW).origin;
        let input = vec![message(Role::User, "go"), message(Role::Assistant, text), signed(&own, &value)];
        contents(input, NEW).0[1]["parts"].clone()
    };
    assert_eq!(
        said("one two three"),
        json!([{"text": "one "}, {"text": "two", "thoughtSignature": "S"}, {"text": " three"}])
    );
    assert_eq!(said("one Two three"), json!([{"text": "one Two three"}]));
    assert_eq!(said("é"), json!([{"text": "é"}]));
}

#[test]
fn pictures_go_where_the_model_takes_them() {
    let png = "data:image/png;base64,AAAA";
    let input = || {
        vec![
            Item::Message {
                role: Role::User,
                phase: None,
                parts: vec![
                    words("see"),
                    image(png),
                    image("https://example.invalid/a.JPG?x=1"),
                    image("https://example.invalid/a"),
                    image("data:image/svg+xml;base64,AAAA"),
                    image("http://example.invalid/a.png"),
                    image("data:image/png;base64,/9j/4AAQ"),
                ],
            },
            call("c1", "{}"),
            output("c1", vec![words("shot"), image(png)]),
        ]
    };
    let inline = json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}});
    let (new, losses) = contents(input(), NEW);
    let url = json!({"fileData": {"mimeType": "image/jpeg", "fileUri": "https://example.invalid/a.JPG?x=1"}});
    let none = json!({"text": NO_PICTURE});
    let jpeg = json!({"inlineData": {"mimeType": "image/jpeg", "data": "/9j/4AAQ"}});
    assert_eq!(new[0]["parts"], json!([{"text": "see"}, inline, url, none, none, none, jpeg]));
    let mut response = answered("c1", json!({"output": format!("shot\n{PICTURE_HERE}")}));
    response["functionResponse"]["parts"] = json!([inline]);
    assert_eq!(new[2]["parts"], json!([response]));
    let dropped = ["input[0].content[3] Drop", "input[0].content[4] Drop", "input[0].content[5] Drop"];
    assert_eq!(losses, dropped);

    let (old, losses) = contents(input(), OLD);
    let response = answered("c1", json!({"output": format!("shot\n{PICTURE_BELOW}")}));
    assert_eq!(old[2]["parts"], json!([response, {"text": PICTURES}, inline]));
    assert_eq!(losses[3], "input[2].output[1] Approximate");

    let blind = Target { accepts_images: false, ..target(NEW) };
    let (body, losses) = encode(&of(input()), &blind);
    assert!(!body.to_string().contains("inlineData") && losses.len() == 7, "{losses:?}");
}

#[test]
fn tools_are_named_as_the_service_wants() {
    let names = ["exec", "1st", "with space"].map(|name| callable(tool(None, name, ToolKind::Function)));
    let request = Request { tools: names.to_vec(), ..of(vec![message(Role::User, "go")]) };
    let (body, _) = encode(&request, &target(NEW));
    let declared: Vec<&str> = body["tools"][0]["functionDeclarations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|declaration| declaration["name"].as_str().unwrap())
        .collect();
    assert_eq!(&declared[..2], ["exec", "_1st"]);
    for name in declared {
        assert!(name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')), "{name}");
    }
}

#[test]
fn choices_become_modes() {
    let exec = tool(None, "exec", ToolKind::Function);
    let patch = tool(None, "patch", ToolKind::Custom);
    let of = |choice: ToolChoice<'static>, tools: &[ToolRef<'static>]| {
        let tools = tools.iter().cloned().map(callable).collect();
        let request = Request { tools, tool_choice: choice, ..of(vec![message(Role::User, "go")]) };
        let (body, losses) = encode(&request, &target(NEW));
        let count = body["tools"][0]["functionDeclarations"].as_array().map_or(0, Vec::len);
        (body["toolConfig"]["functionCallingConfig"].clone(), count, losses)
    };
    let both = [exec.clone(), patch.clone()];
    let allowed = |required| ToolChoice::Allowed { tools: vec![patch.clone()], required };
    assert_eq!(of(ToolChoice::Auto, &both), (Value::Null, 2, vec![]));
    assert_eq!(of(ToolChoice::None, &both), (json!({"mode": "NONE"}), 2, vec![]));
    assert_eq!(of(ToolChoice::Required, &both), (json!({"mode": "ANY"}), 2, vec![]));
    let only = json!({"mode": "ANY", "allowedFunctionNames": ["patch"]});
    assert_eq!(of(ToolChoice::Named(patch.clone()), &both), (only.clone(), 2, vec![]));
    assert_eq!(of(allowed(true), &both), (only, 2, vec![]));
    assert_eq!(of(allowed(false), &both), (Value::Null, 1, vec![]));
    assert_eq!(of(ToolChoice::Named(patch.clone()), &[exec]), (Value::Null, 1, vec!["tool_choice Drop".to_owned()]));
    assert_eq!(of(ToolChoice::Required, &[]), (Value::Null, 0, vec![]));
}

#[test]
fn the_form_is_set_or_asked_for() {
    let schema = r#"{"type":"object","properties":{"a":{"type":"string","minLength":1}},"additionalProperties":false}"#;
    let raw: Box<RawValue> = serde_json::from_str(schema).unwrap();
    let format = Format::JsonSchema { name: "n".into(), description: None, schema: &raw, strict: Some(true) };
    let plain = Request { format, input: vec![message(Role::User, "go")], ..Request::default() };
    let with_tools = Request { tools: vec![callable(tool(None, "exec", ToolKind::Function))], ..plain.clone() };
    for (model, request, set) in
        [(NEW, &plain, true), (NEW, &with_tools, true), (OLD, &plain, true), (OLD, &with_tools, false)]
    {
        let (body, losses) = encode(request, &target(model));
        let config = &body["generationConfig"];
        assert_eq!(config["responseMimeType"] == "application/json", set, "{model}");
        assert_eq!(config["responseJsonSchema"]["properties"]["a"] == json!({"type": "string"}), set, "{model}");
        assert_eq!(body["systemInstruction"].to_string().contains("minLength"), !set, "{model}");
        assert_eq!(losses, [if set { "text.format.schema Approximate" } else { "text.format Approximate" }]);
    }
}

#[test]
fn settings_the_model_lacks_are_told() {
    let request = Request {
        temperature: Some(0.5),
        top_p: Some(0.9),
        max_output_tokens: Some(9000),
        effort: Some("xhigh".into()),
        verbosity: Some("low".into()),
        service_tier: Some("flex".into()),
        parallel_tool_calls: Some(false),
        tools: vec![callable(tool(None, "exec", ToolKind::Function)), callable(tool(None, "exec", ToolKind::Function))],
        ..of(vec![message(Role::User, "go")])
    };
    let limited = Target { max_output_tokens: Some(8192), ..target("gemini-4-argon") };
    let (body, losses) = encode(&request, &limited);
    let thinking = json!({"includeThoughts": true, "thinkingLevel": "HIGH"});
    assert_eq!(body["generationConfig"], json!({"maxOutputTokens": 8192, "thinkingConfig": thinking}));
    assert_eq!(body["serviceTier"], "flex");
    assert_eq!(
        losses,
        [
            "tools[1] Drop",
            "reasoning.effort Approximate",
            "temperature Drop",
            "max_output_tokens Approximate",
            "text.verbosity Drop",
            "parallel_tool_calls Drop"
        ]
    );
    let (body, _) = encode(&request, &target("gemini-2.0-flash"));
    assert_eq!(body["generationConfig"], json!({"maxOutputTokens": 9000, "temperature": 0.5, "topP": 0.9}));
    let fixed = Target { effort: Some("low".into()), ..target(NEW) };
    assert_eq!(encode(&request, &fixed).0["generationConfig"]["thinkingConfig"]["thinkingLevel"], "LOW");
}

#[test]
fn compaction_is_no_matter_of_this_protocol() {
    let item = Item::Compaction { path: "input[1].encrypted_content".to_owned() };
    let error = encode_request(&of(vec![message(Role::User, "go"), item]), &target(NEW)).unwrap_err();
    assert!(matches!(error, EncodeError::Unsupported { path, .. } if path == "input[1].encrypted_content"));
}
