//! Responses that a later request continues by their id (`previous_response_id`), over real sockets: in every protocol,
//! after restarts, and what is left on disk.

use std::{fs, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::relay;
use crate::support::{
    chat::{self, Chat},
    events::{self, DEADLINE, Gate},
    gemini,
    http::{self, Answer},
    messages::{self, Messages},
    proxy::{Proxy, Setup},
    responses::{self, message},
    upstream::{Recorded, Reply, Step, Upstream},
};

const KEY: &str = "sk-test-upstream-key";
const ENV: &[(&str, &str)] = &[("UP_KEY", KEY)];

fn provider(protocol: &str, url: &str, model: &str) -> String {
    format!(
        "[providers.up]\nprotocol = \"{protocol}\"\nbase_url = \"{url}\"\nkey = {{ env = \"UP_KEY\" }}\n\
         [models.work]\nroutes = [\"up/{model}\"]\n"
    )
}

fn chat_proxy(upstream: &Upstream) -> Proxy {
    Proxy::start(&provider("chat", &upstream.base_url(), "gpt-4.1"), ENV)
}

fn ask(text: &str) -> Value {
    json!({"model": "work", "stream": true, "input": text})
}

fn ask_on(previous: &str, text: &str) -> Value {
    let mut body = ask(text);
    body["previous_response_id"] = json!(previous);
    body
}

/// The id of a whole answer.
fn id_of(answer: &Answer) -> String {
    let end = answer.terminal();
    assert_eq!(end["type"], "response.completed", "{}", answer.text());
    end["response"]["id"].as_str().unwrap().to_owned()
}

fn file_of(proxy: &Proxy) -> PathBuf {
    proxy.home().join("state/codex-proxy/responses.sqlite")
}

/// Waits until so many responses are in the file.
fn wait_stored(proxy: &Proxy, count: i64) {
    let stored = || {
        let connection = rusqlite::Connection::open(file_of(proxy)).ok()?;
        let found = connection.query_row("SELECT count(*) FROM responses", [], |row| row.get::<_, i64>(0)).ok()?;
        (found == count).then_some(())
    };
    assert!(file_of(proxy).exists() || events::wait(DEADLINE, || file_of(proxy).exists().then_some(())).is_some());
    assert!(events::wait(DEADLINE, stored).is_some(), "{count} responses on disk: {}", proxy.log());
}

/// Every byte below the state directory.
fn state_bytes(proxy: &Proxy) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(proxy.home().join("state/codex-proxy")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn assert_unknown(answer: &Answer, id: &str) {
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (400, &json!("previous_response_not_found")), "{error}");
    assert_eq!(error["param"], "previous_response_id");
    let words = error["message"].as_str().unwrap();
    assert!(words.contains(id) && words.contains("whole history"), "{words}");
}

#[test]
fn a_conversation_is_continued_in_every_protocol() {
    type Say = fn(&str) -> Reply;
    let kinds: [(&str, Say, &str); 3] = [
        ("chat", chat::say, "gpt-4.1"),
        ("messages", messages::say, "claude-opus-5-5"),
        ("gemini", gemini::say, "gemini-3.8-flash"),
    ];
    for (protocol, say, model) in kinds {
        let upstream = Upstream::start(move |request| say(&format!("ANSWER-{}", request.index)));
        let url = upstream.base_url();
        let url = if protocol == "gemini" { url.trim_end_matches("/v1") } else { &url };
        let proxy = Proxy::start(&provider(protocol, url, model), ENV);
        let mut first = ask("WISH-0");
        first["instructions"] = json!("OLD-INSTRUCTIONS");
        let one = id_of(&proxy.responses(&first));
        let mut second = ask_on(&one, "WISH-1");
        second["instructions"] = json!("NEW-INSTRUCTIONS");
        let answer = proxy.responses(&second);
        assert_eq!(answer.terminal()["response"]["previous_response_id"], json!(one), "{protocol}");
        let two = id_of(&answer);
        // As one object, too; and from the first again, another way.
        let mut third = ask_on(&two, "WISH-2");
        third["stream"] = json!(false);
        assert_eq!(proxy.responses(&third).json()["status"], "completed", "{protocol}");
        proxy.responses(&ask_on(&one, "WISH-3")).terminal();
        let asked: Vec<String> = upstream.exactly(4).iter().map(|request| request.json.to_string()).collect();
        let has = |n: usize, words: &str| asked[n].contains(words);
        assert!(has(1, "WISH-0") && has(1, "ANSWER-0") && has(1, "WISH-1"), "{protocol}: {}", asked[1]);
        assert!(has(1, "NEW-INSTRUCTIONS") && !has(1, "OLD-INSTRUCTIONS"), "{protocol}: {}", asked[1]);
        let order = ["WISH-0", "ANSWER-0", "WISH-1", "ANSWER-1", "WISH-2"].map(|words| asked[2].find(words));
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{protocol}: {order:?} {}", asked[2]);
        assert!(!has(2, "INSTRUCTIONS"), "{protocol}: {}", asked[2]);
        assert!(has(3, "ANSWER-0") && has(3, "WISH-3") && !has(3, "WISH-1"), "{protocol}: {}", asked[3]);
    }
}

#[test]
fn what_is_wrong_is_named_as_the_client_counts() {
    let upstream = Upstream::start(|_| chat::say("hello"));
    let proxy = chat_proxy(&upstream);
    let id = id_of(&proxy.responses(&ask("hello")));
    let mut body = ask_on(&id, "");
    body["input"] = json!([{"role": "user", "content": "a"}, {"role": "nobody", "content": "b"}]);
    let answer = proxy.responses(&body);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("input[1].role")), "{}", answer.text());
    upstream.exactly(1);
}

#[test]
fn the_demo_is_continued_as_well() {
    let proxy = Proxy::start("", &[]);
    let mut body = ask("hello");
    body["model"] = json!("demo");
    let id = id_of(&proxy.responses(&body));
    let mut next = ask_on(&id, "again");
    next["model"] = json!("demo");
    assert_ne!(id_of(&proxy.responses(&next)), id);
}

#[test]
fn calls_and_thoughts_are_continued() {
    let upstream = Upstream::start(|request| match request.index {
        0 => Chat::new().reasoning("THOUGHT").exec("call_1", "ls").complete().reply(),
        _ => chat::say("done"),
    });
    let proxy = Setup::default().start(&upstream);
    let parameters = json!({"type": "object", "properties": {"cmd": {"type": "string"}}});
    let mut body = ask("go");
    body["tools"] = json!([{"type": "function", "name": "exec_command", "parameters": parameters, "strict": false}]);
    let answer = proxy.responses(&body);
    let id = id_of(&answer);
    // The client did not ask for them, and did not get them.
    assert!(!answer.text().contains("encrypted_content"), "{}", answer.text());
    let mut next = ask_on(&id, "");
    next["tools"] = body["tools"].clone();
    next["input"] = json!([{"type": "function_call_output", "call_id": "call_1", "output": "RESULT"}]);
    assert_eq!(proxy.responses(&next).items()[0]["content"][0]["text"], "done");
    let second = &upstream.exactly(2)[1];
    let [_, called, result] = second.messages() else { panic!("{:#}", second.json) };
    assert_eq!((&called["tool_calls"][0]["id"], &called["reasoning_content"]), (&json!("call_1"), &json!("THOUGHT")));
    assert_eq!((&result["role"], &result["content"]), (&json!("tool"), &json!("RESULT")));
}

#[test]
fn a_restart_keeps_what_was_stored() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let upstream = Upstream::start(|request| chat::say(&format!("ANSWER-{}", request.index)));
        let proxy = chat_proxy(&upstream);
        let id = id_of(&proxy.responses(&ask("WISH-0")));
        if signal == Signal::SIGKILL {
            // Who is killed has no time to write.
            wait_stored(&proxy, 1);
        }
        let proxy = proxy.restarted(signal, ENV);
        proxy.responses(&ask_on(&id, "WISH-1")).terminal();
        let second = &upstream.exactly(2)[1];
        assert!(second.mentions("WISH-0") && second.mentions("ANSWER-0"), "{signal}: {:#}", second.json);
    }
}

#[test]
fn what_is_on_disk_is_sealed_and_the_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::start(|_| chat::say("SECRET-ANSWER"));
    let mut proxy = chat_proxy(&upstream);
    id_of(&proxy.responses(&ask("SECRET-WISH")));
    wait_stored(&proxy, 1);
    let look = |proxy: &Proxy| {
        for (path, bytes) in state_bytes(proxy) {
            let name = path.display();
            assert!(memchr::memmem::find(&bytes, b"SECRET").is_none(), "{name}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    };
    look(&proxy);
    proxy.sigterm();
    assert!(proxy.wait_exit().success());
    look(&proxy);
    assert!(!proxy.log().contains("SECRET"), "{}", proxy.log());
}

#[test]
fn who_wants_nothing_stored_leaves_nothing() {
    let upstream = Upstream::start(|_| chat::say("hello"));
    let mut proxy = chat_proxy(&upstream);
    let mut body = ask("hello");
    body["store"] = json!(false);
    let id = id_of(&proxy.responses(&body));
    assert_unknown(&proxy.responses(&ask_on(&id, "more")), &id);
    proxy.sigterm();
    assert!(proxy.wait_exit().success());
    assert!(!file_of(&proxy).exists());
    upstream.exactly(1);
}

#[test]
fn a_cut_answer_is_continued_and_a_failed_one_is_not() {
    let upstream = Upstream::start(|request| match request.index {
        0 => Chat::new().text("HALF").finish("length").usage(1, 2).done().reply(),
        1 => Chat::new().text("BROKEN").data(json!({"error": {"message": "boom"}})).reply(),
        _ => chat::say("on"),
    });
    let proxy = chat_proxy(&upstream);
    let cut = proxy.responses(&ask("a")).terminal();
    assert_eq!(cut["type"], "response.incomplete");
    let failed = proxy.responses(&ask("b")).terminal();
    assert_eq!(failed["type"], "response.failed");
    let id = |end: &Value| end["response"]["id"].as_str().unwrap().to_owned();
    assert_unknown(&proxy.responses(&ask_on(&id(&failed), "more")), &id(&failed));
    proxy.responses(&ask_on(&id(&cut), "more")).terminal();
    assert!(upstream.exactly(3)[2].mentions("HALF"));
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let upstream = Upstream::start(|_| chat::say("hello"));
    let proxy = chat_proxy(&upstream);
    let id = id_of(&proxy.responses(&ask("hello")));
    wait_stored(&proxy, 1);
    let home = proxy.home().to_owned();
    let file = home.join("state/codex-proxy/responses.sqlite");
    let proxy = proxy.restarted_after(Signal::SIGTERM, ENV, || fs::write(&file, [b'x'; 8192]).unwrap());
    assert!(proxy.wait_log("it is set aside and a new one begun", DEADLINE), "{}", proxy.log());
    assert_unknown(&proxy.responses(&ask_on(&id, "more")), &id);
    let id = id_of(&proxy.responses(&ask("hello")));
    wait_stored(&proxy, 1);
    proxy.responses(&ask_on(&id, "more")).terminal();
    assert!(home.join("state/codex-proxy/responses.sqlite.corrupt-1").exists());
}

#[test]
fn a_file_that_cannot_be_read_is_not_a_response_that_is_missing() {
    let upstream = Upstream::start(|_| chat::say("hello"));
    let proxy = chat_proxy(&upstream);
    let id = id_of(&proxy.responses(&ask("hello")));
    wait_stored(&proxy, 1);
    let file = file_of(&proxy);
    let aside = file.with_extension("aside");
    let proxy = proxy.restarted_after(Signal::SIGTERM, ENV, || {
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
    });
    let refused = proxy.responses(&ask_on(&id, "more"));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("proxy_busy")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let health = proxy.send("GET", "/health", None).unwrap().json();
    assert_eq!(health["state"], "degraded", "{health}");
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    assert_eq!(proxy.responses(&ask_on(&id, "more")).terminal()["type"], "response.completed");
}

#[test]
fn what_an_earlier_run_left_too_long_ago_is_deleted_at_start() {
    let upstream = Upstream::start(|_| chat::say("hello"));
    let proxy = chat_proxy(&upstream);
    let ids: Vec<String> = ["old", "new"].map(|text| id_of(&proxy.responses(&ask(text)))).to_vec();
    wait_stored(&proxy, 2);
    let file = file_of(&proxy);
    let proxy = proxy.restarted_after(Signal::SIGTERM, ENV, || {
        let connection = rusqlite::Connection::open(&file).unwrap();
        assert_eq!(connection.execute("UPDATE responses SET at = at - 601 WHERE id = ?1", [&ids[0]]), Ok(1));
    });
    wait_stored(&proxy, 1);
    assert_unknown(&proxy.responses(&ask_on(&ids[0], "more")), &ids[0]);
    proxy.responses(&ask_on(&ids[1], "more")).terminal();
}

#[test]
fn what_is_continued_counts_among_the_bodies_in_flight() {
    let gate = Gate::closed();
    let upstream = Upstream::start({
        let gate = gate.clone();
        move |request| match request.index {
            1 => Chat::new().text("slow").open().then(Step::Wait(gate.clone())).end(),
            _ => chat::say("hello"),
        }
    });
    let limits = "[proxy]\nbody_bytes_max = 1000000\nbodies_in_flight_bytes_max = 1000000\n";
    let config = format!("{limits}{}", provider("chat", &upstream.base_url(), "gpt-4.1"));
    let proxy = Proxy::start(&config, ENV);
    let id = id_of(&proxy.responses(&ask(&"x".repeat(600_000))));
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let first = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask_on(&id, "one"))).unwrap();
    upstream.wait_requests(2, DEADLINE);
    let refused = proxy.responses(&ask_on(&id, "two"));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("proxy_busy")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    drop(first);
    upstream.wait_closed(1, DEADLINE);
    // What was taken is given back.
    let id = id_of(&proxy.responses(&ask_on(&id, "two")));
    // What can never fit is not put off.
    let refused = proxy.responses(&ask_on(&id, &"y".repeat(300_000)));
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!("invalid_request")),
        "{}",
        refused.text()
    );
    assert!(refused.text().contains("bodies_in_flight_bytes_max"));
}

#[test]
fn a_compacted_conversation_is_continued_from_its_summary() {
    let upstream = Upstream::start(|request| match request.index {
        1 => chat::say("THE-SUMMARY"),
        _ => chat::say("hello"),
    });
    let proxy = chat_proxy(&upstream);
    let one = id_of(&proxy.responses(&ask("LONG-STORY")));
    let mut compact = ask_on(&one, "");
    compact["input"] = json!([{"type": "compaction_trigger"}]);
    let two = id_of(&proxy.responses(&compact));
    proxy.responses(&ask_on(&two, "on")).terminal();
    let [_, compacted, after] = upstream.exactly(3).try_into().unwrap();
    assert!(compacted.mentions("LONG-STORY") && after.mentions("THE-SUMMARY") && !after.mentions("LONG-STORY"));
    // At the path of its own a stored response can be named alone.
    let body = json!({"model": "work", "previous_response_id": one});
    let object = proxy.send("POST", "/v1/responses/compact", Some(&body)).unwrap().json();
    assert_eq!(object["object"], "response.compaction", "{object:#}");
    assert_eq!((&object["output"][0]["role"], &object["output"][1]["type"]), (&json!("user"), &json!("compaction")));
}

// ---- hosts that speak Responses ----

fn host_answer(request: &Recorded) -> Reply {
    let n = request.index;
    let thought = json!({"type": "reasoning", "id": format!("rs_{n}"), "summary": []});
    responses::stored_answer(&format!("resp_h{n}"), &[thought, message(&format!("msg_{n}"), &format!("ANSWER-{n}"))])
}

#[test]
fn a_host_that_has_the_response_is_named_it() {
    let upstream = Upstream::start(host_answer);
    let proxy = Proxy::start(&relay::config("", &[("native", &upstream)]), ENV);
    assert_eq!(id_of(&proxy.responses(&ask("WISH-0"))), "resp_h0");
    assert_eq!(id_of(&proxy.responses(&ask_on("resp_h0", "WISH-1"))), "resp_h1");
    // One that was not stored here may be known there.
    assert_eq!(id_of(&proxy.responses(&ask_on("resp_of_old", "WISH-2"))), "resp_h2");
    let mut expected = ask_on("resp_h0", "WISH-1");
    expected["model"] = json!("gpt-5.4");
    let requests = upstream.exactly(3);
    assert_eq!(requests[1].json, expected);
    assert_eq!(
        (&requests[2].json["previous_response_id"], &requests[2].json["input"]),
        (&json!("resp_of_old"), &json!("WISH-2"))
    );
}

#[test]
fn a_host_that_does_not_say_that_it_keeps_responses_is_told_what_was_said() {
    for more in [json!({}), json!({"store": false}), json!({"store": null})] {
        let upstream = Upstream::start(move |request| {
            let n = request.index;
            responses::answer_with(&format!("resp_h{n}"), &[message("msg_1", &format!("ANSWER-{n}"))], &more)
        });
        let proxy = Proxy::start(&relay::config("", &[("native", &upstream)]), ENV);
        id_of(&proxy.responses(&ask("WISH-0")));
        id_of(&proxy.responses(&ask_on("resp_h0", "WISH-1")));
        id_of(&proxy.responses(&ask_on("resp_h1", "WISH-2")));
        let requests = upstream.exactly(3);
        assert!(requests[2].json["previous_response_id"].is_null(), "{:#}", requests[2].json);
        for words in ["WISH-0", "ANSWER-0", "WISH-1", "ANSWER-1", "WISH-2"] {
            assert!(requests[2].mentions(words), "{words}: {:#}", requests[2].json);
        }
    }
}

#[test]
fn another_host_is_told_what_was_said() {
    let first = Upstream::start(host_answer);
    let second = Upstream::start(|_| responses::answer("resp_of_two", &[message("msg_9", "ANSWER-9")]));
    let chat = Upstream::start(|_| chat::say("from elsewhere"));
    let config = format!(
        "{}[providers.c]\nprotocol = \"chat\"\nbase_url = \"{}\"\nkey = {{ env = \"UP_KEY\" }}\n[models.c]\nroutes = [\"c/gpt-4.1\"]\n",
        relay::config("", &[("one", &first), ("two", &second)]),
        chat.base_url()
    );
    let proxy = Proxy::start(&config, ENV);
    let on = |model: &str, previous: &str, text: &str| {
        let mut body = ask_on(previous, text);
        body["model"] = json!(model);
        proxy.responses(&body)
    };
    let mut body = ask("WISH-0");
    body["model"] = json!("one");
    assert_eq!(id_of(&proxy.responses(&body)), "resp_h0");
    id_of(&on("two", "resp_h0", "WISH-1"));
    let told = &second.exactly(1)[0].json;
    assert_eq!(told["previous_response_id"], Value::Null);
    let wish = |text: &str| json!({"type": "message", "role": "user", "content": text});
    // Without the thought, which only its host could look up.
    assert_eq!(told["input"], json!([wish("WISH-0"), message("msg_0", "ANSWER-0"), wish("WISH-1")]));
    let ours = id_of(&on("c", "resp_h0", "WISH-2"));
    assert!(chat.exactly(1)[0].mentions("ANSWER-0"));
    // And back: what was answered here, no host has.
    id_of(&on("one", &ours, "WISH-3"));
    let told = &first.exactly(2)[1].json;
    assert!(told["input"].as_array().unwrap().len() == 5 && told["previous_response_id"].is_null(), "{told:#}");
    assert_unknown(&on("c", "resp_of_old", "WISH-4"), "resp_of_old");
}

#[test]
fn a_host_that_has_forgotten_is_told_what_was_said() {
    type Refuse = fn(&str) -> Reply;
    let openai: Refuse = |id| {
        let words = format!("Previous response with id '{id}' not found.");
        Reply::error(400, "invalid_request_error", "previous_response_not_found", &words)
    };
    let vllm: Refuse = |id| {
        let words = format!("Response with id '{id}' not found.");
        Reply::json(
            404,
            &json!({"error": {"message": words, "type": "invalid_request_error", "param": "response_id", "code": 404}}),
        )
    };
    for refuse in [openai, vllm] {
        let upstream = Upstream::start(move |request| match request.json["previous_response_id"].as_str() {
            Some(id) => refuse(id),
            None => host_answer(request),
        });
        let proxy = Proxy::start(&relay::config("", &[("native", &upstream)]), ENV);
        id_of(&proxy.responses(&ask("WISH-0")));
        id_of(&proxy.responses(&ask_on("resp_h0", "WISH-1")));
        let told = &upstream.exactly(3)[2].json;
        assert!(told["input"].as_array().unwrap().len() == 3 && told["previous_response_id"].is_null(), "{told:#}");
        // What is known nowhere is the host's to say.
        let answer = proxy.responses(&ask_on("resp_of_old", "WISH-2"));
        let text = answer.text();
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("invalid_request")), "{text}");
        assert!(text.contains("resp_of_old") && text.contains("not found") && !text.contains("base_url"), "{text}");
    }
}

#[test]
fn anthropics_thoughts_are_continued() {
    let upstream = Upstream::start(|request| match request.index {
        0 => Messages::new().thinking(&["THOUGHT"], "SIGNATURE").text(&["ANSWER"]).complete().reply(),
        _ => messages::say("on"),
    });
    let proxy = Proxy::start(&provider("messages", &upstream.base_url(), "claude-opus-5-5"), ENV);
    let id = id_of(&proxy.responses(&ask("go")));
    proxy.responses(&ask_on(&id, "on")).terminal();
    let second = upstream.exactly(2)[1].json.to_string();
    assert!(second.contains("THOUGHT") && second.contains("SIGNATURE"), "{second}");
}
