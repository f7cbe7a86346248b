//! Google's Gemini API: what `https://generativelanguage.googleapis.com/v1beta` refuses of a Gemini 3.

use super::{Given, Refusal, Step, Told, list, refuse, repeated, stranger, text, with};
use crate::support::gemini::Gemini;
use crate::support::upstream::Reply;
use serde_json::{Value, json};

/// What stands for the signature of a call that another model made
/// (<https://ai.google.dev/gemini-api/docs/thought-signatures>, read 2026-11-21).
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Fields by the kind of object, as the google-genai package has them that `tests/setup.sh` pins. The service reads its
/// requests as protocol buffers and refuses what it has no field for.
const REQUEST: &str =
    "contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent serviceTier store";
const PART: &str =
    "text thought thoughtSignature inlineData fileData functionCall functionResponse partMetadata mediaResolution";
const DATA: &str = "text inlineData fileData functionCall functionResponse";
const CONFIG: &str = "\
    stopSequences responseMimeType responseJsonSchema responseSchema responseModalities candidateCount \
    maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty thinkingConfig";
/// Of `parametersJsonSchema`: <https://ai.google.dev/gemini-api/docs/structured-output>, read 2026-11-21.
const KEYWORDS: &str = "\
    $id $defs $ref $anchor type format title description enum items prefixItems minItems maxItems minimum \
    maximum anyOf oneOf properties additionalProperties required propertyOrdering";

fn unknown<T>(name: &str, at: &str) -> Result<T, Refusal> {
    refuse(format!("Invalid JSON payload received. Unknown name \"{name}\" at '{at}': Cannot find field."))
}

pub(super) fn check(body: &Value, given: &[Given]) -> Result<(), Refusal> {
    if let Some(key) = stranger(body, REQUEST) {
        return unknown(key, "");
    }
    if let Some(key) = stranger(&body["generationConfig"], CONFIG) {
        return unknown(key, "generation_config");
    }
    let contents = list(&body["contents"]);
    if contents.is_empty() {
        return refuse("* GenerateContentRequest.contents: contents is not specified");
    }
    for (c, content) in contents.iter().enumerate() {
        check_content(c, content)?;
    }
    check_turns(contents)?;
    check_signatures(contents, given)?;
    check_functions(body)
}

fn check_content(c: usize, content: &Value) -> Result<(), Refusal> {
    if let Some(key) = stranger(content, "role parts") {
        return unknown(key, &format!("contents[{c}]"));
    }
    if !matches!(text(&content["role"]), "user" | "model") {
        return refuse("Please use a valid role: user, model.");
    }
    if list(&content["parts"]).is_empty() {
        return refuse(format!("* GenerateContentRequest.contents[{c}].parts: contents.parts must not be empty."));
    }
    for (p, part) in list(&content["parts"]).iter().enumerate() {
        let at = format!("contents[{c}].parts[{p}]");
        if let Some(key) = stranger(part, PART) {
            return unknown(key, &at);
        }
        if DATA.split_whitespace().filter(|key| part.get(key).is_some()).count() != 1 {
            return refuse(format!(
                "* GenerateContentRequest.{at}.data: required oneof field 'data' must have one \
                                   initialized field"
            ));
        }
        for (key, known) in [
            ("functionCall", "id name args"),
            ("functionResponse", "id name response parts willContinue scheduling"),
            ("inlineData", "mimeType data"),
        ] {
            if let Some(stranger) = part.get(key).and_then(|value| stranger(value, known)) {
                return unknown(stranger, &format!("{at}.{key}"));
            }
        }
        let (call, answer) = (&part["functionCall"], &part["functionResponse"]);
        if (call.is_object() && !call["args"].is_object()) || (answer.is_object() && !answer["response"].is_object()) {
            return refuse(format!("Invalid value at '{at}' (type.googleapis.com/google.protobuf.Struct)"));
        }
    }
    Ok(())
}

fn calls(content: &Value) -> Vec<&Value> {
    list(&content["parts"]).iter().filter(|part| part["functionCall"].is_object()).map(|p| &p["functionCall"]).collect()
}

fn answers(content: &Value) -> Vec<&Value> {
    let parts = list(&content["parts"]).iter().filter(|part| part["functionResponse"].is_object());
    parts.map(|part| &part["functionResponse"]).collect()
}

/// google-gemini/gemini-cli issues 26486, 2347 and 16906; lobehub/lobehub issue 7298 (the words);
/// <https://ai.google.dev/gemini-api/docs/function-calling>, read 2026-11-21 (ids and names).
fn check_turns(contents: &[Value]) -> Result<(), Refusal> {
    if contents[0]["role"] != "user" {
        return refuse("Please ensure that the first turn is a user turn.");
    }
    if contents.windows(2).any(|pair| pair[0]["role"] == pair[1]["role"]) {
        return refuse("Please ensure that multiturn requests alternate between user and model.");
    }
    if contents.last().is_some_and(|last| last["role"] != "user") {
        return refuse("Please ensure that multiturn requests end with a user turn or a function response.");
    }
    for (c, content) in contents.iter().enumerate() {
        let (calls, next) = (calls(content), contents.get(c + 1).map(answers).unwrap_or_default());
        if !calls.is_empty() && content["role"] != "model" {
            return refuse(
                "Please ensure that function call turn comes immediately after a user turn or after a function \
                           response turn.",
            );
        }
        if content["role"] == "model" && calls.is_empty() && !next.is_empty() {
            return refuse("Please ensure that function response turn comes immediately after a function call turn.");
        }
        let id = |value: &Value| (text(&value["id"]).to_owned(), text(&value["name"]).to_owned());
        if !calls.is_empty() && !calls.iter().map(|call| id(call)).eq(next.iter().map(|answer| id(answer))) {
            return refuse(
                "Please ensure that the number of function response parts is equal to the number of function call \
                           parts of the function call turn.",
            );
        }
    }
    Ok(())
}

/// The first call of each step of the turn under way bears a signature, the one that came with it: sources at
/// [`NO_SIGNATURE`]; the words from lbjlaq/Antigravity-Manager issues 139 and 3202 and pull request 3337.
fn check_signatures(contents: &[Value], given: &[Given]) -> Result<(), Refusal> {
    for (c, content) in contents.iter().enumerate() {
        for part in list(&content["parts"]) {
            let Some(signature) = part["thoughtSignature"].as_str() else { continue };
            let fits = |given: &Given| {
                let step = &given.step;
                let call = step.calls.first().is_some_and(|first| part["functionCall"]["id"] == first.id);
                let said = step.calls.is_empty() && part["text"] == step.text;
                step.seal == signature && (call || said)
            };
            let stands_in = signature == NO_SIGNATURE && part["functionCall"].is_object();
            if content["role"] != "model" || !(stands_in || given.iter().any(fits)) {
                return refuse(format!("Thought signature is not valid. (contents[{c}])"));
            }
        }
    }
    let spoken = contents.iter().rposition(|content| content["role"] == "user" && answers(content).is_empty());
    for (c, content) in contents.iter().enumerate().skip(spoken.unwrap_or(0)) {
        let first = list(&content["parts"]).iter().find(|part| part["functionCall"].is_object());
        if let Some(first) = first
            && !first["thoughtSignature"].is_string()
        {
            return refuse(format!(
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to work \
                 correctly, and missing thought_signature may lead to degraded model performance. Additional data, function \
                 call `default_api:{}` , position {}.",
                text(&first["functionCall"]["name"]),
                c + 1
            ));
        }
    }
    Ok(())
}

fn check_functions(body: &Value) -> Result<(), Refusal> {
    let mut names = Vec::new();
    for (t, tool) in list(&body["tools"]).iter().enumerate() {
        if let Some(key) = stranger(tool, "functionDeclarations googleSearch codeExecution urlContext") {
            return unknown(key, &format!("tools[{t}]"));
        }
        for (f, function) in list(&tool["functionDeclarations"]).iter().enumerate() {
            let at = format!("tools[{t}].function_declarations[{f}]");
            const KEYS: &str = "name description parameters parametersJsonSchema response responseJsonSchema behavior";
            if let Some(key) = stranger(function, KEYS) {
                return unknown(key, &at);
            }
            let name = text(&function["name"]);
            let opens = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
            if !opens || name.len() > 64 || !name.chars().all(allowed) {
                return refuse(format!("* GenerateContentRequest.{at}.name: Invalid function name."));
            }
            check_schema(&function["parametersJsonSchema"], &format!("{at}.parameters_json_schema"))?;
            names.push(name);
        }
    }
    match repeated(names.into_iter()) {
        Some(name) => refuse(format!("Duplicate function declaration found: {name}")),
        None => Ok(()),
    }
}

fn check_schema(schema: &Value, at: &str) -> Result<(), Refusal> {
    if let Some(key) = stranger(schema, KEYWORDS) {
        return unknown(key, at);
    }
    if !schema.is_object() {
        return Ok(());
    }
    let properties = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    let listed = ["anyOf", "oneOf", "prefixItems"].into_iter().flat_map(|key| list(&schema[key]));
    let single = ["items", "additionalProperties"].into_iter().map(|key| &schema[key]);
    properties.chain(listed).chain(single).try_for_each(|inner| check_schema(inner, at))
}

pub(super) fn say(body: &Value, step: &Step) -> Reply {
    let declared = list(&body["tools"]).iter().flat_map(|tool| list(&tool["functionDeclarations"]));
    let names: Vec<String> = declared.map(|function| text(&function["name"]).to_owned()).collect();
    let begun = Gemini::new().thought(&step.thought);
    if step.calls.is_empty() {
        return begun.parts(&json!([{"text": step.text, "thoughtSignature": step.seal}]), None).complete().reply();
    }
    let call = |stream: Gemini, (n, call): (usize, &super::Call)| {
        let signature = (n == 0).then_some(&*step.seal);
        stream.call(&call.id, &call.tool.declared(&names), &call.tool.arguments(), signature)
    };
    step.calls.iter().enumerate().fold(begun.text(step.text), call).complete().reply()
}

pub(super) fn told(body: &Value) -> Vec<Told> {
    let mut told = Vec::new();
    for content in list(&body["contents"]) {
        for part in list(&content["parts"]).iter().filter(|part| part["thought"] != true) {
            let (call, answer) = (&part["functionCall"], &part["functionResponse"]);
            match part["text"].as_str() {
                Some("") => {}
                Some(words) if content["role"] == "user" => told.push(Told::User(words.to_owned())),
                Some(words) => told.push(Told::Assistant(words.to_owned())),
                None if call.is_object() => told.push(Told::call(text(&call["name"]), &call["args"])),
                None if answer.is_object() => {
                    let response = &answer["response"];
                    let words = response["output"].as_str().or(response["error"].as_str()).unwrap_or_default();
                    told.push(Told::Result(words.to_owned()));
                    told.extend(list(&answer["parts"]).iter().map(|_| Told::Picture));
                }
                None => told.push(Told::Picture),
            }
        }
    }
    told
}

pub(super) fn spoilt(body: &Value) -> Vec<(&'static str, Value)> {
    let contents = list(&body["contents"]);
    let at = |key: &str| {
        let holds = |content: &Value| list(&content["parts"]).iter().any(|part| part[key].is_object());
        let c = contents.iter().rposition(holds).unwrap_or_else(|| panic!("no {key}"));
        (c, list(&contents[c]["parts"]).iter().position(|part| part[key].is_object()).unwrap())
    };
    let (call, answer) = (at("functionCall"), at("functionResponse"));
    vec![
        ("an unknown field", with(body, |body| body["max_tokens"] = json!(1))),
        (
            "a result that is missing",
            with(body, |body| body["contents"][answer.0]["parts"][answer.1] = json!({"text": "no result"})),
        ),
        (
            "a result of another name",
            with(body, |body| body["contents"][answer.0]["parts"][answer.1]["functionResponse"]["name"] = json!("x")),
        ),
        (
            "no signature in the turn under way",
            with(body, |body| {
                body["contents"][call.0]["parts"][call.1].as_object_mut().unwrap().remove("thoughtSignature");
            }),
        ),
        (
            "a signature of somebody else",
            with(body, |body| body["contents"][call.0]["parts"][call.1]["thoughtSignature"] = json!("c29tZWJvZHk=")),
        ),
        (
            "the same one twice in a row",
            with(body, |body| {
                let first = body["contents"][0].clone();
                body["contents"].as_array_mut().unwrap().insert(0, first);
            }),
        ),
        ("the model at last", with(body, |body| drop(body["contents"].as_array_mut().unwrap().pop()))),
        (
            "a keyword that is not known",
            with(body, |body| {
                body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]["patternProperties"] = json!({});
            }),
        ),
    ]
}
