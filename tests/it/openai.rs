//! Other clients than Codex: answers of the proxy as the official openai package reads them (`tests/openai_parse.py`).

use super::relay::{config, golden};
use crate::support::chat::{Chat, say};
use crate::support::proxy::{Proxy, Setup};
use crate::support::upstream::{Cut, Reply, Step, Upstream};
use crate::support::{events::Gate, facility, root, scratch, skip};
use serde_json::{Value, json};
use std::process::Command;

fn ask() -> Value {
    let parameters = json!({"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]});
    json!({"model": "work", "stream": true, "store": false, "include": ["reasoning.encrypted_content"],
        "tools": [
            {"type": "function", "name": "exec_command", "strict": false, "parameters": parameters},
            {"type": "custom", "name": "apply_patch", "description": "Edits files."},
        ],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}]})
}

/// The package reads what the proxy makes of that reply.
fn reads(reply: Reply, proxy: &str) {
    let upstream = Upstream::start(move |_| reply.clone());
    reads_of(&Setup { proxy: proxy.to_owned(), ..Setup::default() }.toml(&upstream.base_url()));
}

/// The package reads what a proxy with that configuration gives.
fn reads_of(config: &str) {
    let Some(python) = facility("OPENAI_PYTHON") else { return skip("Python with the openai package (OPENAI_PYTHON)") };
    let answer = Proxy::start(config, &[("UP_KEY", "sk-test-upstream")]).responses(&ask());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let directory = scratch();
    let file = directory.path().join("responses.sse");
    std::fs::write(&file, &answer.body).unwrap();
    let output = Command::new(python).arg(root().join("tests/openai_parse.py")).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("3 passed, 0 failed"), "{said}\n{}", answer.text());
}

#[test]
fn a_text() {
    reads(say("Hello, größe."), "");
}

#[test]
fn thoughts_text_and_calls() {
    let patch = json!({"input": "*** Begin Patch\n*** Add File: a\n+a\n*** End Patch\n"});
    let chat = Chat::new().reasoning("Hm. ").reasoning("Yes.").text("I run ").text("two.");
    reads(chat.exec("call_1", "echo a").call("call_2", "apply_patch", &patch).complete().reply(), "");
}

#[test]
fn an_answer_that_met_the_limit() {
    reads(Chat::new().text("half an ans").finish("length").usage(10, 20).done().reply(), "");
}

#[test]
fn an_answer_that_was_cut() {
    let chat = Chat::new().reasoning("Hm.").text("half an ans");
    reads(chat.cut(chat.frames().len(), Cut::Reset), "");
}

#[test]
fn keepalives_between_the_events() {
    // Never opened: the upstream falls silent, twice as long as a keep-alive takes, and is given up.
    let reply = Chat::new().text("half an ans").open().then(Step::Wait(Gate::closed()));
    reads(reply, "head_hold_s = 1\nkeepalive_s = 1\nupstream_idle_s = 3");
}

#[test]
fn what_is_said_in_the_name_of_a_relayed_host() {
    // Silent twice as long as a keep-alive takes, then given up; once before its first item is whole, once not at all.
    let frames = golden("thoughts-text-call");
    let upstream = Upstream::start(move |_| Reply::sse_cut(&frames[..4], Cut::Stall));
    reads_of(&config("head_hold_s = 1\nkeepalive_s = 1\nupstream_idle_s = 3", &[("native", &upstream)]));
    let frames = golden("thoughts-text-call");
    let upstream = Upstream::start(move |_| Reply::sse(&frames));
    reads_of(&config("", &[("native", &upstream)]));
}
