//! A provider that speaks Anthropic's Messages, over real sockets and with the real Codex.

use crate::support::PIXEL_PNG;
use crate::support::messages::{Messages, blocks, error, results, say};
use crate::support::upstream::Reply;
use crate::support::vendor::Vendor;
use serde_json::{Value, json};

const CLAUDE: Vendor = Vendor { protocol: "messages", model: "claude-opus-5-5", key: "sk-ant-test-upstream", say };

#[test]
fn text_is_streamed_and_the_request_is_in_the_hosts_words_at_its_address() {
    let reply = Messages::new().text(&["Hel", "lo – \"wörld\"\n"]).complete().reply();
    let request = CLAUDE.streams_text(&reply);
    assert_eq!((&*request.method, &*request.path), ("POST", "/v1/messages"));
    assert_eq!((request.header("x-api-key"), request.header("authorization")), (Some(CLAUDE.key), None));
    assert_eq!(request.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(request.json["model"], "claude-opus-5-5");
    assert_eq!(request.json["stream"], true);
    assert_eq!(request.json["thinking"]["type"], "adaptive");
    let mark = json!({"type": "ephemeral"});
    assert_eq!(request.json["system"], json!([{"type": "text", "text": "Be \"kind\".\n", "cache_control": mark}]));
    let said = json!([{"type": "text", "text": "go\n– on", "cache_control": mark}]);
    assert_eq!(request.json["messages"], json!([{"role": "user", "content": said}]));
}

#[test]
fn one_object_for_who_asks_for_one() {
    CLAUDE.gives_one_object();
}

#[test]
fn statuses_follow_the_failure_table() {
    let rows = [
        (400, "invalid_request_error", "messages: roles must alternate", 400, "invalid_request"),
        (400, "invalid_request_error", "prompt is too long: 214343 tokens > 200000", 400, "context_length_exceeded"),
        (400, "invalid_request_error", "Your credit balance is too low.", 400, "upstream_budget"),
        (401, "authentication_error", "invalid x-api-key sk-ant-test-upstream", 400, "upstream_credentials"),
        (404, "not_found_error", "model: claude-opus-5-5", 404, "model_not_found"),
        (429, "rate_limit_error", "This request would exceed your rate limit.", 429, "rate_limit_exceeded"),
        (500, "api_error", "Internal server error", 502, "upstream_error"),
        (529, "overloaded_error", "Overloaded", 503, "upstream_overloaded"),
    ];
    CLAUDE.tells_statuses(&rows.map(|(status, kind, message, told, code)| (status, error(kind, message), told, code)));
}

#[test]
fn an_error_before_the_first_block_is_tried_again_and_one_behind_it_is_told() {
    let before = Messages::new().event(&error("overloaded_error", "Overloaded")).reply();
    let behind = [("overloaded_error", "server_error"), ("rate_limit_error", "rate_limit_exceeded")];
    let half = |kind| Messages::new().text(&["half"]).event(&error(kind, "SCRIPTED")).reply();
    CLAUDE.errors_within_an_answer(&before, &behind.map(|(kind, code)| (half(kind), code)));
}

#[test]
fn a_cut_answer_is_told_and_its_call_never_runs() {
    CLAUDE.never_gives_a_cut_call(|cut| Messages::new().text(&["half"]).exec("toolu_1", "echo no").cut(cut));
}

// ---- the real Codex ----

/// Without the marks for the cache, which move on.
fn unmarked(block: &Value) -> Value {
    let mut block = block.clone();
    if let Some(block) = block.as_object_mut() {
        block.remove("cache_control");
    }
    block
}

#[test]
fn codex_runs_a_command_and_a_patch_and_the_thoughts_between_go_back_where_they_were() {
    const PATCH: &str = "*** Begin Patch\n*** Add File: b\n+zwei \"ß\"\n*** End Patch\n";
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|request| match results(request) {
        0 => Messages::new()
            .thinking(&["First ", "\"I\" look.\n"], "c2lnLTE=")
            .text(&["Two ", "files."])
            .exec("toolu_a", "echo one > a")
            .thinking(&["Then the other."], "c2lnLTI=")
            .call("toolu_b", "apply_patch", &json!({"input": PATCH}))
            .complete()
            .reply(),
        _ => say("both"),
    }) else {
        return;
    };
    let run = codex.exec("make two files");
    run.succeeded_with("both");
    assert!(!run.items("reasoning").is_empty(), "the user sees that it thinks: {run:#?}");
    assert_eq!((codex.file("a").as_deref(), codex.file("b").as_deref()), (Some("one\n"), Some("zwei \"ß\"\n")));
    let requests = upstream.exactly(2);
    let tools = requests[0].json["tools"].as_array().unwrap();
    for name in ["exec_command", "apply_patch"] {
        assert!(tools.iter().any(|tool| tool["name"] == name), "{tools:#?}");
    }
    let [.., said, answered] = requests[1].messages() else { panic!("{:#}", requests[1].json) };
    let said: Vec<Value> = said["content"].as_array().unwrap().iter().map(unmarked).collect();
    assert_eq!(
        said,
        [
            json!({"type": "thinking", "thinking": "First \"I\" look.\n", "signature": "c2lnLTE="}),
            json!({"type": "text", "text": "Two files."}),
            json!({"type": "tool_use", "id": "toolu_a", "name": "exec_command", "input": {"cmd": "echo one > a"}}),
            json!({"type": "thinking", "thinking": "Then the other.", "signature": "c2lnLTI="}),
            json!({"type": "tool_use", "id": "toolu_b", "name": "apply_patch", "input": {"input": PATCH}}),
        ]
    );
    let ids: Vec<&str> =
        answered["content"].as_array().unwrap().iter().filter_map(|b| b["tool_use_id"].as_str()).collect();
    assert_eq!((&answered["role"], ids), (&json!("user"), vec!["toolu_a", "toolu_b"]));
    // What stood before is said in the same words, or nothing of it is found in the provider's cache.
    let before: Vec<Value> = blocks(&requests[0]).into_iter().map(unmarked).collect();
    let after: Vec<Value> = blocks(&requests[1]).into_iter().map(unmarked).collect();
    assert_eq!(after[..before.len()], before);
    assert_eq!(requests[0].json["tools"], requests[1].json["tools"]);
    assert_eq!(requests[0].json["system"], requests[1].json["system"]);
}

#[test]
fn parallel_calls_come_back_as_one_message_and_two_results_in_order() {
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|request| match results(request) {
        0 => Messages::new().exec("toolu_a", "echo 1 > a").exec("toolu_b", "echo 2 > b").complete().reply(),
        _ => say("both"),
    }) else {
        return;
    };
    codex.exec("run two").succeeded_with("both");
    assert_eq!((codex.file("a").as_deref(), codex.file("b").as_deref()), (Some("1\n"), Some("2\n")));
    let second = &upstream.exactly(2)[1];
    let [.., calls, answered] = second.messages() else { panic!("{:#}", second.json) };
    for (message, kind, key) in [(calls, "tool_use", "id"), (answered, "tool_result", "tool_use_id")] {
        let blocks = message["content"].as_array().unwrap();
        assert!(blocks.iter().all(|block| block["type"] == kind), "{message:#}");
        let ids: Vec<&Value> = blocks.iter().map(|block| &block[key]).collect();
        assert_eq!(ids, ["toolu_a", "toolu_b"]);
    }
}

#[test]
fn a_picture_of_the_user_and_one_looked_at_arrive() {
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|request| match results(request) {
        0 => Messages::new().call("toolu_v", "view_image", &json!({"path": "seen.png"})).complete().reply(),
        _ => say("a red pixel"),
    }) else {
        return;
    };
    for name in ["given.png", "seen.png"] {
        std::fs::write(codex.work().join(name), PIXEL_PNG).unwrap();
    }
    codex.exec_with("what is it?", &["-i", "given.png"]).succeeded_with("a red pixel");
    let requests = upstream.exactly(2);
    let is_picture = |block: &&Value| {
        block["type"] == "image"
            && block["source"]["media_type"] == "image/png"
            && block["source"]["data"].as_str().is_some_and(|data| data.starts_with("iVBOR"))
    };
    assert_eq!(blocks(&requests[0]).into_iter().filter(|block| is_picture(block)).count(), 1);
    let all = blocks(&requests[1]);
    let result = all.iter().find(|block| block["type"] == "tool_result").unwrap();
    let inside = result["content"].as_array().unwrap_or_else(|| panic!("{result:#}"));
    assert_eq!(inside.iter().filter(is_picture).count(), 1, "{result:#}");
}

#[test]
fn an_argument_whose_name_is_not_taken_is_called_otherwise_on_the_wire_only() {
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|request| match results(request) {
        0 => {
            let tools = request.json["tools"].as_array().unwrap();
            let echo = tools.iter().find(|tool| tool["name"].as_str().unwrap().ends_with("echo_it")).unwrap();
            let name = echo["name"].as_str().unwrap();
            Messages::new().call("toolu_e", name, &json!({"text": "hey", "in_voice": "bass"})).complete().reply()
        }
        _ => say("heard"),
    }) else {
        return;
    };
    codex.with_mcp_echo().exec("say it").succeeded_with("heard");
    let requests = upstream.exactly(2);
    let tools = requests[0].json["tools"].as_array().unwrap();
    let echo = tools.iter().find(|tool| tool["name"].as_str().unwrap().ends_with("echo_it")).unwrap();
    let names: Vec<&String> = echo["input_schema"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["in_voice", "text"]);
    let all = blocks(&requests[1]);
    let call = all.iter().find(|block| block["type"] == "tool_use").unwrap();
    assert_eq!(call["input"], json!({"text": "hey", "in_voice": "bass"}));
    let result = all.iter().find(|block| block["type"] == "tool_result").unwrap();
    assert!(result["content"].to_string().contains("echo: hey in bass"), "{result:#}");
}

#[test]
fn what_stood_before_thoughts_stands_there_after_an_answer_that_broke_off() {
    let broken = |begun: Messages| begun.event(&error("overloaded_error", "Overloaded")).reply();
    let thought = || Messages::new().thinking(&["I look."], "c2lnLTE=");
    for (reply, asked) in [
        (broken(thought().text(&["half"])), 1),
        (broken(thought().text(&["Whole."]).thinking(&["And"], "c2lnLTI=")), 3),
    ] {
        let Some((codex, _proxy, upstream)) = CLAUDE.session(move |request| match request.index {
            0 => reply.clone(),
            1 => Messages::new().thinking(&["On."], "c2lnLTM=").exec("toolu_a", "echo a").complete().reply(),
            _ => say("done"),
        }) else {
            return;
        };
        let run = codex.exec("look");
        assert_eq!((run.message(), run.reconnects()), (Some("done"), 1), "{run:#?}");
        let requests = upstream.exactly(3);
        let messages = |at: usize| -> Vec<Value> {
            let words = |message: &Value| {
                let blocks: Vec<Value> = message["content"].as_array().unwrap().iter().map(unmarked).collect();
                json!({"role": message["role"], "content": blocks})
            };
            requests[at].messages().iter().map(words).collect()
        };
        let (again, later) = (messages(1), messages(2));
        assert_eq!((again.len(), &later[..asked]), (asked, &again[..]));
        assert_eq!(later[asked]["content"][0]["thinking"], "On.");
        assert_eq!(later.len(), asked + 2);
    }
}

#[test]
fn codex_goes_on_after_a_pause() {
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|request| match request.messages().len() {
        1 => Messages::new()
            .thinking(&["Let me look."], "c2lnLTE=")
            .text(&["I look."])
            .event(&json!({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 9}}))
            .event(&json!({"type": "message_stop"}))
            .reply(),
        3 => Messages::new().thinking(&["On."], "c2lnLTI=").text(&["I have looked."]).complete().reply(),
        _ => say("again"),
    }) else {
        return;
    };
    codex.exec("look").succeeded_with("I have looked.");
    let requests = upstream.exactly(2);
    let words =
        |message: &Value| -> Vec<Value> { message["content"].as_array().unwrap().iter().map(unmarked).collect() };
    let [.., said, asked] = requests[1].messages() else { panic!("{:#}", requests[1].json) };
    assert_eq!(
        words(said),
        [
            json!({"type": "thinking", "thinking": "Let me look.", "signature": "c2lnLTE="}),
            json!({"type": "text", "text": "I look."}),
        ]
    );
    assert_eq!((&asked["role"], words(asked)), (&json!("user"), vec![json!({"type": "text", "text": "Go on."})]));
}

#[test]
fn codex_shows_that_the_model_refuses_and_does_not_ask_again() {
    let details = json!({"type": "refusal", "category": "cyber", "explanation": "It could do harm."});
    let delta = json!({"stop_reason": "refusal", "stop_details": details});
    let refusal = move |begun: Messages| {
        let end = json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}});
        begun.event(&end).event(&json!({"type": "message_stop"})).reply()
    };
    for begun in [Messages::new(), Messages::new().text(&["To build"])] {
        let reply = refusal(begun);
        let Some((codex, _proxy, upstream)) = CLAUDE.session(move |_| reply.clone()) else { return };
        let run = codex.exec("build it");
        assert!(run.failed().contains("refuses to answer (cyber). It could do harm."), "{run:#?}");
        upstream.exactly(1);
    }
}

#[test]
fn codex_is_told_what_the_host_refuses() {
    let Some((codex, _proxy, upstream)) = CLAUDE.session(|_| {
        Reply::json(400, &error("invalid_request_error", "prompt is too long: 214343 tokens > 200000 maximum"))
    }) else {
        return;
    };
    let run = codex.exec("say it");
    assert!(run.failed().contains("ran out of room") || run.failed().contains("too long"), "{run:#?}");
    upstream.exactly(1);
}
