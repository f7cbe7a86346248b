//! Thoughts that a provider signed and does not take back, and pictures that it cannot take: the request is sent once more
//! without them, at the same place.

use crate::support::{
    chat,
    events::DEADLINE,
    gemini::{self, Gemini},
    messages::{self, Messages},
    proxy::Proxy,
    responses,
    upstream::{Recorded, Reply, Upstream},
};
use serde_json::{Value, json};

/// A model `work` at such a provider, with the log at `debug`.
fn start(protocol: &str, model: &str, upstream: &Upstream) -> Proxy {
    let config = format!(
        "[proxy]\nretry_deadline_s = 1\n[providers.up]\nprotocol = \"{protocol}\"\nbase_url = \"http://{}\"\naccounts = []\n\
         [models.work]\nroutes = [\"up/{model}\"]\n",
        upstream.address()
    );
    Proxy::start_logging(&config, &[], "debug")
}

fn ask(effort: &str) -> Value {
    json!({"model": "work", "stream": true, "store": false, "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": effort}, "tools": [{"type": "function", "name": "exec_command", "parameters": {"type": "object"}}],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}]})
}

/// The conversation after an answer whose one call was run.
fn goes_on(proxy: &Proxy, mut body: Value) -> Value {
    let items = proxy.responses(&body).items();
    let call = items.iter().find(|item| item["type"] == "function_call").unwrap()["call_id"].clone();
    assert!(items.iter().any(|item| item["encrypted_content"].is_string()), "{items:#?}");
    let input = body["input"].as_array_mut().unwrap();
    input.extend(items);
    input.push(json!({"type": "function_call_output", "call_id": call, "output": "done"}));
    body
}

fn has_thoughts(request: &Recorded) -> bool {
    messages::blocks(request)
        .iter()
        .any(|block| matches!(block["type"].as_str(), Some("thinking" | "redacted_thinking")))
}

const BOUND: &str =
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation.";

#[test]
fn claude_is_asked_again_without_thinking_blocks() {
    // One model decides itself whether it thinks; the other one must begin a step with its thoughts, or not think.
    for (model, thinking) in [("claude-opus-5-5", "adaptive"), ("claude-haiku-4-5", "disabled")] {
        let upstream = Upstream::start(|request| match (messages::results(request), has_thoughts(request)) {
            (0, _) => {
                let begun = Messages::new().thinking(&["I look."], "c2lnLTE=");
                begun.exec("toolu_a", "ls").complete().reply()
            }
            (_, true) => Reply::json(400, &messages::error("invalid_request_error", BOUND)),
            (_, false) => messages::say("done"),
        });
        let proxy = start("messages", model, &upstream);
        let body = goes_on(&proxy, ask("high"));
        assert_eq!(proxy.responses(&body).items()[0]["content"][0]["text"], "done");
        let requests = upstream.exactly(3);
        assert!(has_thoughts(&requests[1]) && !has_thoughts(&requests[2]));
        assert_eq!(requests[2].json["thinking"]["type"], thinking, "{model}");
        // Nothing else is missing: the call and its result are there.
        let kinds: Vec<&str> =
            messages::blocks(&requests[2]).iter().filter_map(|block| block["type"].as_str()).collect();
        assert_eq!(kinds, ["text", "tool_use", "tool_result"]);
        for words in ["asking again", "the provider refuses its signature"] {
            assert!(proxy.wait_log(words, DEADLINE), "{words}: {}", proxy.log());
        }
    }
}

#[test]
fn gemini_is_asked_again_with_the_documented_placeholder() {
    const PLACEHOLDER: &str = "skip_thought_signature_validator";
    for words in ["Corrupted thought signature.", "Unable to submit request because Thought signature is not valid.."] {
        let signature = |request: &Recorded| {
            let parts = gemini::parts(request);
            parts.iter().find_map(|part| part["thoughtSignature"].as_str()).map(str::to_owned)
        };
        let upstream =
            Upstream::start(move |request| match (gemini::results(request), signature(request).as_deref()) {
                (0, _) => Gemini::new().thought("I look.").exec("fc_a", "ls", Some("U0lHLTE=")).complete().reply(),
                (_, Some(PLACEHOLDER)) => gemini::say("done"),
                (_, _) => Reply::json(400, &gemini::error(400, "INVALID_ARGUMENT", words)),
            });
        let proxy = start("gemini", "gemini-3.8-flash", &upstream);
        let body = goes_on(&proxy, ask("high"));
        assert_eq!(proxy.responses(&body).items()[0]["content"][0]["text"], "done");
        let requests = upstream.exactly(3);
        assert_eq!(signature(&requests[1]).as_deref(), Some("U0lHLTE="));
        assert!(proxy.wait_log("asking again", DEADLINE), "{}", proxy.log());
    }
}

#[test]
fn it_is_asked_again_once_and_only_if_there_is_something_to_leave_out() {
    let upstream = Upstream::start(|request| match messages::results(request) {
        0 if request.index == 0 => {
            Messages::new().thinking(&["I look."], "c2ln").exec("toolu_a", "ls").complete().reply()
        }
        _ => Reply::json(400, &messages::error("invalid_request_error", BOUND)),
    });
    let proxy = start("messages", "claude-opus-5-5", &upstream);
    let body = goes_on(&proxy, ask("high"));
    let got = proxy.responses(&body);
    assert_eq!((got.status, &got.json()["error"]["code"]), (400, &json!("invalid_request")), "{}", got.text());
    upstream.exactly(3);
    // Without thoughts in the history.
    let got = proxy.responses(&ask("high"));
    assert_eq!(got.status, 400);
    upstream.exactly(4);
}

/// A conversation with a picture, for a host with these lines in its configuration that refuses it in these words.
fn is_asked_again_without_pictures(protocol: &str, refusal: Value, done: fn() -> Reply) {
    const DATA: &str = "iVBORw0KGgoAAAAN";
    let upstream = Upstream::start(move |request| match request.json.to_string().contains(DATA) {
        true => Reply::json(400, &refusal),
        false => done(),
    });
    let config = format!(
        "[proxy]\nretry_deadline_s = 1\n[providers.up]\nprotocol = \"{protocol}\"\nimages = true\naccounts = []\n\
         base_url = \"http://{}\"\n[models.work]\nroutes = [\"up/m\"]\n",
        upstream.address()
    );
    let proxy = Proxy::start_logging(&config, &[], "debug");
    let image = format!("data:image/png;base64,{DATA}");
    let body = json!({"model": "work", "stream": true, "store": false, "input": [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": image}]},
        {"type": "message", "role": "user", "content": "go on"}]});
    let got = proxy.responses(&body);
    assert_eq!(got.items()[0]["content"][0]["text"], "done", "{protocol}: {}", got.text());
    let requests = upstream.exactly(2);
    let again = requests[1].json.to_string();
    assert!(again.contains("[a picture stood here (image/png") && again.contains("see"), "{protocol}: {again}");
    for words in ["asking again", "the provider refuses the pictures"] {
        assert!(proxy.wait_log(words, DEADLINE), "{protocol}, {words}: {}", proxy.log());
    }
}

#[test]
fn one_bad_picture_does_not_cost_the_conversation() {
    is_asked_again_without_pictures(
        "messages",
        messages::error("invalid_request_error", "Could not process image"),
        || messages::say("done"),
    );
    let words = "Unable to process input image. Please retry or report in https://example.invalid";
    is_asked_again_without_pictures("gemini", gemini::error(400, "INVALID_ARGUMENT", words), || gemini::say("done"));
    let words = "You uploaded an unsupported image. Please make sure your image has of one the following formats.";
    let openai = json!({"error": {"message": words, "type": "invalid_request_error", "code": "invalid_image_format"}});
    is_asked_again_without_pictures("chat", openai.clone(), || chat::say("done"));
    is_asked_again_without_pictures("responses", openai, || {
        responses::answer("resp_1", &[responses::message("msg_1", "done")])
    });
}
