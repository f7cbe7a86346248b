//! Compaction of a conversation, over real sockets, with the real Codex and with the official openai package: by a summary
//! of ours in any protocol, and by hosts that do it themselves.

use std::time::Duration;

use serde_json::{Value, json};

use super::relay;
use crate::support::{
    chat::{self, Chat},
    codex::Codex,
    events::DEADLINE,
    facility, gemini,
    http::Answer,
    messages::{self, Messages},
    proxy::{Proxy, Setup},
    responses::{self, message},
    root, scratch, skip,
    upstream::{Recorded, Reply, Step, Upstream},
};

/// Words of the instruction.
const ASKED: &str = "about to be replaced by a summary";
/// Words that stand before a summary.
const TOLD: &str = "What follows is a summary of the conversation so far";
const SUMMARY: &str = "SUMMARY: src/größe.rs is \"done\".\nNext: tests.";
const KEY: &str = "sk-test-upstream-key";

/// A protocol that is translated.
struct Kind {
    name: &'static str,
    config: fn(&str) -> String,
    say: fn(&str) -> Reply,
    /// Where the request says that no tool may be called.
    choice: fn(&Value) -> &Value,
    none: &'static str,
}

fn provider(protocol: &str, url: &str, model: &str) -> String {
    format!(
        "[providers.up]\nprotocol = \"{protocol}\"\nbase_url = \"{url}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [models.work]\nroutes = [\"up/{model}\"]\n"
    )
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "chat",
        config: |url| provider("chat", url, "gpt-4.1"),
        say: chat::say,
        choice: |body| &body["tool_choice"],
        none: "none",
    },
    Kind {
        name: "messages",
        config: |url| provider("messages", url, "claude-opus-5-5"),
        say: messages::say,
        choice: |body| &body["tool_choice"]["type"],
        none: "none",
    },
    Kind {
        name: "gemini",
        config: |url| provider("gemini", url.trim_end_matches("/v1"), "gemini-3.8-flash"),
        say: gemini::say,
        choice: |body| &body["toolConfig"]["functionCallingConfig"]["mode"],
        none: "NONE",
    },
];

fn start(config: &str) -> Proxy {
    Proxy::start(config, &[("UP_KEY", KEY)])
}

/// A conversation with a tool call in it.
fn talk() -> Vec<Value> {
    vec![
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]}),
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "FIRST-WISH"}]}),
        json!({"type": "function_call", "call_id": "call_1", "name": "run", "arguments": "{\"cmd\":\"ls\"}"}),
        json!({"type": "function_call_output", "call_id": "call_1", "output": "TOOL-OUTPUT"}),
    ]
}

fn ask(input: &[Value]) -> Value {
    let parameters = json!({"type": "object", "properties": {"cmd": {"type": "string"}}});
    json!({"model": "work", "stream": true, "store": false, "tools": [
        {"type": "function", "name": "run", "description": "Runs.", "strict": false, "parameters": parameters}],
        "input": input})
}

fn ask_to_compact(stream: bool) -> Value {
    let mut input = talk();
    input.push(json!({"type": "compaction_trigger"}));
    let mut body = ask(&input);
    body["stream"] = json!(stream);
    body
}

fn say(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

/// The one item of a stream, which must be a compaction of ours, and nothing of whose summary was shown.
fn compaction_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let end = answer.terminal();
    assert_eq!(end["type"], "response.completed", "{}", answer.text());
    let [item] = answer.items().try_into().unwrap_or_else(|items| panic!("one item: {items:?}"));
    let blob = item["encrypted_content"].as_str().unwrap();
    assert!(item["type"] == "compaction" && item["id"].as_str().unwrap().starts_with("cmp_"), "{item}");
    assert!(blob.starts_with("cxc1."), "{item}");
    assert_eq!(end["response"]["output"], json!([item]));
    assert!(!answer.text().contains("SUMMARY") && !answer.text().contains("Next: tests"), "{}", answer.text());
    item
}

fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn every_protocol_makes_a_compaction_and_goes_on_from_it() {
    for kind in &KINDS {
        let reply = kind.say;
        // `contents` is what Gemini calls it, so the whole body is looked at.
        let upstream = Upstream::start(move |request| {
            reply(if request.json.to_string().contains(ASKED) { SUMMARY } else { "went on" })
        });
        let proxy = start(&(kind.config)(&upstream.base_url()));
        let answer = proxy.responses(&ask_to_compact(true));
        let item = compaction_of(&answer);
        let types: Vec<String> =
            answer.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
        let expected = ["created", "in_progress", "output_item.added", "output_item.done", "completed"];
        assert_eq!(types, expected.map(|name| format!("response.{name}")), "{}", kind.name);
        let usage = &answer.terminal()["response"]["usage"];
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(100), &json!(20)), "{}", kind.name);

        let went_on = proxy.responses(&ask(&[item, say("SECOND-WISH")]));
        assert_eq!(went_on.items()[0]["content"][0]["text"], "went on", "{}", kind.name);
        let [compacted, after] = upstream.exactly(2).try_into().unwrap();
        assert_eq!((kind.choice)(&compacted.json), kind.none, "{}: {:#}", kind.name, compacted.json);
        let (compacted, after) = (compacted.json.to_string(), after.json.to_string());
        for words in ["FIRST-WISH", "TOOL-OUTPUT", "\"Runs.\"", ASKED] {
            assert!(compacted.contains(words), "{}: {words} in {compacted}", kind.name);
        }
        let summary = json!(SUMMARY).to_string();
        for words in [TOLD, "SECOND-WISH", summary.trim_matches('"')] {
            assert!(after.contains(words), "{}: {words} in {after}", kind.name);
        }
        assert!(!after.contains("FIRST-WISH") && !after.contains(ASKED), "{}: {after}", kind.name);
    }
}

#[test]
fn what_stood_before_the_instruction_is_what_the_provider_has_in_its_cache() {
    let upstream = Upstream::start(|_| chat::say(SUMMARY));
    let proxy = start(&(KINDS[0].config)(&upstream.base_url()));
    proxy.responses(&ask(&talk()));
    compaction_of(&proxy.responses(&ask_to_compact(true)));
    let [before, compacted] = upstream.exactly(2).try_into().unwrap();
    let (said, last) = compacted.messages().split_at(before.messages().len());
    assert_eq!((said, last.len()), (before.messages(), 1));
    assert_eq!(compacted.json["tools"], before.json["tools"]);
    assert!(last[0]["role"] == "user" && last[0]["content"].as_str().unwrap().contains(ASKED), "{last:?}");
}

#[test]
fn one_object_for_who_does_not_stream() {
    let upstream = Upstream::start(|_| chat::say(SUMMARY));
    let proxy = start(&(KINDS[0].config)(&upstream.base_url()));
    let object = proxy.responses(&ask_to_compact(false)).json();
    assert_eq!((&object["object"], &object["status"]), (&json!("response"), &json!("completed")));
    let [item] = object["output"].as_array().unwrap().as_slice() else { panic!("{object:#}") };
    assert_eq!(item["type"], "compaction");

    // At the path of its own: the user's messages stay, as OpenAI's documentation has it.
    for path in ["/v1/responses/compact", "/responses/compact"] {
        let body = json!({"model": "work", "input": talk(), "instructions": "Be brief.", "stream": true});
        let answer = proxy.send("POST", path, Some(&body)).unwrap();
        let object = answer.json();
        assert_eq!((answer.status, &object["object"]), (200, &json!("response.compaction")));
        let [user, item] = object["output"].as_array().unwrap().as_slice() else { panic!("{object:#}") };
        assert_eq!((user, &item["type"]), (&talk()[1], &json!("compaction")));
        assert_eq!(object["usage"]["total_tokens"], 120);
        assert!(object["id"].as_str().unwrap().starts_with("resp_") && object["created_at"].is_u64(), "{object:#}");
        let next = [user.clone(), item.clone(), say("on")];
        assert_eq!(proxy.responses(&ask(&next)).status, 200);
        let last = upstream.requests().pop().unwrap();
        assert!(last.mentions(TOLD) && last.mentions("FIRST-WISH") && !last.mentions("TOOL-OUTPUT"));
    }
    assert!(!proxy.log().contains("SUMMARY"));
}

#[test]
fn what_is_no_whole_summary_is_never_a_compaction() {
    for (chat, status, wanted, words) in [
        (Chat::new().text("half").finish("length"), 400, "configuration_error", "met its limit"),
        (Chat::new().text("half").finish("content_filter"), 400, "invalid_request", "filter stopped"),
        (Chat::new().finish("stop"), 502, "upstream_error", "wrote nothing"),
        (Chat::new().reasoning("hm").finish("stop"), 502, "upstream_error", "wrote nothing"),
        (Chat::new().call("c", "run", &json!({})).finish("tool_calls"), 502, "upstream_error", "called tools"),
        (Chat::new().text("First").call("c", "run", &json!({})).finish("stop"), 502, "upstream_error", "called tools"),
    ] {
        let chat = chat.usage(100, 20).done();
        let reply = chat.reply();
        let upstream = Upstream::start(move |_| reply.clone());
        let config = format!("[proxy]\nretry_deadline_s = 1\n{}", (KINDS[0].config)(&upstream.base_url()));
        let proxy = start(&config);
        for (path, body) in [
            ("/v1/responses", ask_to_compact(true)),
            ("/v1/responses", ask_to_compact(false)),
            ("/v1/responses/compact", json!({"model": "work", "input": talk()})),
        ] {
            let answer = proxy.send("POST", path, Some(&body)).unwrap();
            assert_eq!((answer.status, &*code(&answer)), (status, wanted), "{}", answer.text());
            assert!(answer.text().contains(words) && answer.text().contains("up"), "{}", answer.text());
            assert!(!answer.text().contains("cxc1."), "{}", answer.text());
        }
    }
}

#[test]
fn a_limit_that_the_client_set_is_the_clients_matter() {
    let upstream = Upstream::start(|_| Chat::new().text("half").finish("length").usage(1, 2).done().reply());
    let proxy = start(&(KINDS[0].config)(&upstream.base_url()));
    let mut body = ask_to_compact(true);
    body["max_output_tokens"] = json!(16);
    let answer = proxy.responses(&body);
    assert_eq!((answer.status, &*code(&answer)), (400, "invalid_request"), "{}", answer.text());
    assert!(answer.text().contains("max_output_tokens"), "{}", answer.text());
    upstream.exactly(1);
}

#[test]
fn a_summary_that_fails_is_made_elsewhere() {
    let first = Upstream::start(|_| Chat::new().text("half").finish("length").usage(1, 2).done().reply());
    let second = Upstream::start(|_| messages::say(SUMMARY));
    let config = format!(
        "[providers.a]\nprotocol = \"chat\"\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [providers.b]\nprotocol = \"messages\"\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [models.work]\nroutes = [\"a/gpt-4.1\", \"b/claude-opus-5-5\"]\n",
        first.base_url(),
        second.base_url()
    );
    let proxy = start(&config);
    compaction_of(&proxy.responses(&ask_to_compact(true)));
    first.exactly(1);
    second.exactly(1);
    assert!(proxy.wait_log("codex_attempts=2", DEADLINE), "{}", proxy.log());
}

#[test]
fn while_the_summary_is_made_the_stream_shows_that_it_lives_and_nothing_else() {
    let script = |end: &'static str| {
        Upstream::start(move |_| {
            let mut reply = Chat::new().text("SUMMARY: ").open();
            for _ in 0..30 {
                reply = Chat::new().text("word ").frames().iter().fold(reply, Reply::frame);
                reply = reply.then(Step::Pause(Duration::from_millis(100)));
            }
            Chat::new().finish(end).usage(100, 20).done().frames().iter().fold(reply, Reply::frame).end()
        })
    };
    for (end, terminal) in [("stop", "response.completed"), ("length", "response.failed")] {
        let upstream = script(end);
        let config = format!("[proxy]\nhead_hold_s = 1\nkeepalive_s = 1\n{}", (KINDS[0].config)(&upstream.base_url()));
        let proxy = start(&config);
        let answer = proxy.responses(&ask_to_compact(true));
        let alive = answer.events().iter().filter(|event| event["type"] == "response.in_progress").count();
        assert!(alive >= 2, "{alive}: {}", answer.text());
        assert!(!answer.text().contains("word"), "{}", answer.text());
        let last = answer.terminal();
        assert_eq!(last["type"], terminal, "{}", answer.text());
        if terminal == "response.completed" {
            compaction_of(&answer);
        } else {
            assert_eq!(last["response"]["error"]["code"], "invalid_prompt");
            assert!(answer.items().is_empty(), "{}", answer.text());
        }
    }
}

#[test]
fn the_demo_compacts_as_well() {
    let proxy = start("");
    let mut body = ask_to_compact(true);
    body["model"] = json!("demo");
    body["tools"][0]["name"] = json!("exec_command");
    let answer = proxy.responses(&body);
    let [item] = answer.items().try_into().unwrap();
    assert_eq!(item["type"], "compaction", "{item}");
    let mut next = ask(&[item, say("on")]);
    next["model"] = json!("demo");
    assert_eq!(proxy.responses(&next).terminal()["type"], "response.completed");
}

#[test]
fn a_summary_that_cannot_be_read_is_refused_in_words() {
    let upstream = Upstream::start(|_| chat::say(SUMMARY));
    let proxy = start(&(KINDS[0].config)(&upstream.base_url()));
    let mut item = compaction_of(&proxy.responses(&ask_to_compact(true)));
    let ours = item["encrypted_content"].as_str().unwrap().to_owned();
    let damaged = format!("{}A", &ours[..ours.len() - 2]);
    for (blob, words) in [(damaged.as_str(), "opaque.key"), ("gAAAAAB-of-another", "only its maker can read")] {
        for kind in ["compaction", "compaction_summary"] {
            (item["encrypted_content"], item["type"]) = (json!(blob), json!(kind));
            let answer = proxy.responses(&ask(&[say("a"), item.clone(), say("b")]));
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["param"]), (400, &json!("input[1].encrypted_content")), "{error}");
            assert_eq!(error["code"], "invalid_encrypted_content");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(words) && message.contains("start a new thread"), "{message}");
        }
    }
    upstream.exactly(1);
}

// ---- hosts that speak Responses ----

fn host_item() -> Value {
    json!({"type": "compaction", "id": "cmp_h", "encrypted_content": "gAAAAAB-of-the-host"})
}

fn native(upstreams: &[(&str, &Upstream)]) -> Proxy {
    start(&relay::config("", upstreams))
}

fn triggers(request: &Recorded) -> bool {
    request.json["input"]
        .as_array()
        .is_some_and(|items| items.last().is_some_and(|i| i["type"] == "compaction_trigger"))
}

#[test]
fn a_host_that_compacts_is_left_to_it() {
    let upstream = Upstream::start(|request| {
        if triggers(request) {
            responses::answer("resp_h", &[host_item()])
        } else {
            responses::answer("resp_i", &[message("msg_1", "went on")])
        }
    });
    let proxy = native(&[("native", &upstream)]);
    let answer = proxy.responses(&ask_to_compact(true));
    assert_eq!(answer.items(), [host_item()]);
    assert_eq!(answer.terminal()["response"]["id"], "resp_h");
    let went_on = proxy.responses(&ask(&[host_item(), say("SECOND")]));
    assert_eq!(went_on.items()[0]["id"], "msg_1");
    let [compacted, after] = upstream.exactly(2).try_into().unwrap();
    let mut expected = ask_to_compact(true);
    expected["model"] = json!("gpt-5.4");
    assert_eq!((&*compacted.path, compacted.json), ("/v1/responses", expected));
    assert_eq!(after.json["input"], json!([host_item(), say("SECOND")]));
}

#[test]
fn a_host_that_compacts_is_asked_at_its_own_path() {
    let object = json!({"id": "resp_c", "object": "response.compaction", "created_at": 1, "also": 1,
        "output": [say("x"), host_item()], "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 7}});
    let reply = object.clone();
    let upstream = Upstream::start(move |_| Reply::json(200, &reply));
    let proxy = native(&[("native", &upstream)]);
    let body = json!({"model": "work", "input": talk()});
    let answer = proxy.send("POST", "/v1/responses/compact", Some(&body)).unwrap();
    assert_eq!((answer.status, answer.json()), (200, object));
    let request = &upstream.exactly(1)[0];
    assert_eq!(
        (&*request.path, &request.json),
        ("/v1/responses/compact", &json!({"model": "gpt-5.4", "input": talk()}))
    );
}

#[test]
fn a_host_that_does_not_compact_is_asked_for_a_summary() {
    let refusals: [fn() -> Reply; 4] = [
        || Reply::error(400, "invalid_request_error", "invalid_value", "Invalid value: 'compaction_trigger'."),
        || Reply::error(501, "server_error", "not_implemented", "no"),
        // It takes the trigger for nothing and answers.
        || responses::answer("resp_x", &[message("msg_x", "What can I do for you?")]),
        || responses::answer("resp_x", &[]),
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        let upstream = Upstream::start(move |request| {
            if request.mentions(ASKED) {
                let thought = json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAA"});
                responses::answer("resp_s", &[thought, message("msg_s", SUMMARY)])
            } else if triggers(request) {
                refusal()
            } else {
                responses::answer("resp_i", &[message("msg_1", "went on")])
            }
        });
        let proxy = native(&[("native", &upstream)]);
        let item = compaction_of(&proxy.responses(&ask_to_compact(true)));
        proxy.responses(&ask(&[item, say("SECOND")])).terminal();
        let [_, asked, after] = upstream.exactly(3).try_into().unwrap();
        let input = asked.json["input"].as_array().unwrap();
        assert_eq!((&*asked.path, &input[..4]), ("/v1/responses", talk().as_slice()), "{n}");
        assert_eq!((input.len(), &asked.json["tool_choice"], &asked.json["stream"]), (5, &json!("none"), &json!(true)));
        let told = after.json["input"][0]["content"][0]["text"].as_str().unwrap();
        assert!(told.starts_with(TOLD) && told.ends_with(SUMMARY), "{told}");
        assert_eq!(after.json["input"][0]["role"], "user");
    }
}

#[test]
fn a_host_without_the_path_is_asked_for_a_summary() {
    for status in [404, 405, 501] {
        let upstream = Upstream::start(move |request| {
            if request.path.ends_with("/compact") {
                Reply::error(status, "invalid_request_error", "not_found", "Not Found")
            } else {
                responses::answer("resp_s", &[message("msg_s", SUMMARY)])
            }
        });
        let proxy = native(&[("native", &upstream)]);
        let body = json!({"model": "work", "input": talk()});
        let answer = proxy.send("POST", "/v1/responses/compact", Some(&body)).unwrap();
        let object = answer.json();
        assert_eq!((answer.status, &object["object"]), (200, &json!("response.compaction")), "{object:#}");
        assert_eq!(object["output"][0], talk()[1]);
        assert!(object["output"][1]["encrypted_content"].as_str().unwrap().starts_with("cxc1."), "{object:#}");
        assert_eq!(object["usage"]["total_tokens"], 120);
        upstream.exactly(2);
    }
}

#[test]
fn a_host_that_refuses_for_another_reason_is_told_as_ever() {
    for (status, wanted) in [(400, "invalid_request"), (401, "upstream_credentials")] {
        let upstream =
            Upstream::start(move |_| Reply::error(status, "invalid_request_error", "x", "Something is wrong."));
        let proxy = native(&[("native", &upstream)]);
        let answer = proxy.responses(&ask_to_compact(true));
        assert_eq!((answer.status, &*code(&answer)), (400, wanted), "{}", answer.text());
        upstream.exactly(1);
    }
    // A summary of a relayed host is judged as any other.
    let upstream = Upstream::start(|request| {
        if triggers(request) {
            Reply::error(400, "invalid_request_error", "x", "compaction_trigger")
        } else {
            let call = json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "run", "arguments": "{}"});
            responses::answer("resp_s", &[call])
        }
    });
    let proxy = start(&relay::config("retry_deadline_s = 1", &[("native", &upstream)]));
    let answer = proxy.responses(&ask_to_compact(true));
    assert_eq!((answer.status, &*code(&answer)), (502, "upstream_error"), "{}", answer.text());
    assert!(answer.text().contains("called tools"), "{}", answer.text());
}

#[test]
fn a_hosts_own_summary_goes_to_hosts_only_that_may_read_it() {
    let native = Upstream::start(|_| Reply::error(503, "server_error", "overloaded", "busy"));
    let other = Upstream::start(|_| chat::say("I know nothing of it"));
    let config = format!(
        "[proxy]\nretry_deadline_s = 1\n[providers.n]\nprotocol = \"responses\"\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [providers.c]\nprotocol = \"chat\"\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [models.work]\nroutes = [\"c/gpt-4.1\", \"n/gpt-5.4\"]\n",
        native.base_url(),
        other.base_url()
    );
    let proxy = start(&config);
    let answer = proxy.responses(&ask(&[host_item(), say("on")]));
    assert_eq!((answer.status, &*code(&answer)), (503, "upstream_overloaded"), "{}", answer.text());
    other.exactly(0);
    assert!(native.count() >= 1);
}

// ---- real clients ----

#[test]
fn codex_has_a_long_session_compacted_by_its_provider_and_goes_on() {
    let upstream = Upstream::start(|request| {
        if request.mentions(ASKED) {
            return chat::say(SUMMARY);
        }
        if request.mentions(TOLD) {
            return match request.results() {
                0 => Chat::new().exec("call_2", "echo went on > on").complete().reply(),
                _ => chat::say("finished"),
            };
        }
        Chat::new().exec("call_1", "echo step").complete_with(90_000, 20).reply()
    });
    let proxy = Setup::default().start(&upstream);
    let Some(mut codex) = Codex::new(proxy.endpoint()) else { return };
    codex.provider_name = "OpenAI".to_owned();
    codex.keys += "model_auto_compact_token_limit = 60000\n";
    codex.exec("work long").succeeded_with("finished");
    assert_eq!(codex.file("on").as_deref(), Some("went on\n"));
    let requests = upstream.exactly(4);
    let [_, compacted, after, _] = requests.as_slice() else { panic!() };
    assert!(compacted.mentions("work long") && !compacted.tool_names().is_empty(), "{:#}", compacted.json);
    assert_eq!((compacted.results(), after.results()), (1, 0), "the call is gone from the history");
    assert!(after.mentions("SUMMARY: src/größe.rs") && !after.tool_names().is_empty(), "{:#}", after.json);
}

#[test]
fn codex_is_told_when_its_conversation_cannot_be_compacted() {
    let upstream = Upstream::start(|request| {
        if request.mentions(ASKED) {
            return Chat::new().text("half").finish("length").usage(90_000, 20).done().reply();
        }
        Chat::new().exec("call_1", "echo step").complete_with(90_000, 20).reply()
    });
    let proxy = Setup::default().start(&upstream);
    let Some(mut codex) = Codex::new(proxy.endpoint()) else { return };
    codex.provider_name = "OpenAI".to_owned();
    codex.keys += "model_auto_compact_token_limit = 60000\n";
    let run = codex.exec("work long");
    assert!(run.failed().contains("met its limit of generated tokens"), "{run:#?}");
    upstream.exactly(2);
}

#[test]
fn the_openai_package_reads_a_compaction() {
    let Some(python) = facility("OPENAI_PYTHON") else { return skip("Python with the openai package (OPENAI_PYTHON)") };
    let upstream = Upstream::start(|_| messages::say(SUMMARY));
    let config = format!("[proxy]\nkeepalive_s = 1\n{}", (KINDS[1].config)(&upstream.base_url()));
    let proxy = start(&config);
    let directory = scratch();
    let (stream, object) = (directory.path().join("compaction.sse"), directory.path().join("compaction.json"));
    std::fs::write(&stream, proxy.responses(&ask_to_compact(true)).body).unwrap();
    let body = json!({"model": "work", "input": talk()});
    std::fs::write(&object, proxy.send("POST", "/v1/responses/compact", Some(&body)).unwrap().body).unwrap();
    let script = root().join("tests/openai_parse.py");
    let output = std::process::Command::new(python).arg(script).args([&stream, &object]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("4 passed, 0 failed"), "{said}\n{error}");
}

#[test]
fn a_thought_before_the_summary_is_dropped() {
    let upstream = Upstream::start(|request| {
        if request.json.to_string().contains(ASKED) {
            Messages::new().thinking(&["SECRET"], "sig").text(&[SUMMARY]).complete().reply()
        } else {
            messages::say("went on")
        }
    });
    let proxy = start(&(KINDS[1].config)(&upstream.base_url()));
    let answer = proxy.responses(&ask_to_compact(true));
    let item = compaction_of(&answer);
    assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    proxy.responses(&ask(&[item, say("on")])).terminal();
    assert!(!upstream.exactly(2)[1].json.to_string().contains("SECRET"));
}
