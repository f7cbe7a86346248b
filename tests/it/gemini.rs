//! A provider that speaks Google's Gemini API, over real sockets and with the real Codex.

use crate::support::PIXEL_PNG;
use crate::support::gemini::{Gemini, error, parts, results, say};
use crate::support::upstream::{Cut, Recorded, Reply, Upstream};
use crate::support::vendor::{Vendor, ask};
use serde_json::{Value, json};

const GOOGLE: Vendor = Vendor { protocol: "gemini", model: "gemini-3.8-flash", key: "AIza-test-upstream-key", say };

#[test]
fn text_is_streamed_and_the_request_is_in_the_hosts_words_at_its_address() {
    let reply = Gemini::new().text("Hel").text("lo – \"wörld\"\n").complete().reply();
    let request = GOOGLE.streams_text(&reply);
    // The key stands in no address: those are logged on the way.
    assert_eq!(
        (&*request.method, &*request.path),
        ("POST", "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse")
    );
    assert_eq!((request.header("x-goog-api-key"), request.header("authorization")), (Some(GOOGLE.key), None));
    assert_eq!(request.json["systemInstruction"], json!({"parts": [{"text": "Be \"kind\".\n"}]}));
    assert_eq!(request.json["contents"], json!([{"role": "user", "parts": [{"text": "go\n– on"}]}]));
    assert_eq!(request.json.get("model"), None);
}

#[test]
fn one_object_for_who_asks_for_one() {
    GOOGLE.gives_one_object();
}

#[test]
fn statuses_follow_the_failure_table() {
    let rows = [
        (400, "INVALID_ARGUMENT", "Invalid value at 'contents'.", 400, "invalid_request"),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
            400,
            "context_length_exceeded",
        ),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", 400, "upstream_credentials"),
        (401, "UNAUTHENTICATED", "No credentials AIza-test-upstream-key", 400, "upstream_credentials"),
        (404, "NOT_FOUND", "models/gemini-3.8-flash is not found for API version v1beta", 404, "model_not_found"),
        (429, "RESOURCE_EXHAUSTED", "Please retry in 69.5s.", 429, "rate_limit_exceeded"),
        (500, "INTERNAL", "An internal error has occurred.", 502, "upstream_error"),
        (503, "UNAVAILABLE", "The model is overloaded.", 503, "upstream_overloaded"),
    ];
    GOOGLE.tells_statuses(
        &rows.map(|(status, word, message, told, code)| (status, error(status, word, message), told, code)),
    );
}

#[test]
fn an_error_before_the_first_part_is_tried_again_and_one_behind_it_is_told() {
    let before = Gemini::new().data(&error(503, "UNAVAILABLE", "Overloaded")).reply();
    let behind = [(503, "UNAVAILABLE", "server_error"), (429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded")];
    let half = |status, word| Gemini::new().text("half").data(&error(status, word, "SCRIPTED")).reply();
    GOOGLE.errors_within_an_answer(&before, &behind.map(|(status, word, code)| (half(status, word), code)));
}

#[test]
fn a_cut_answer_is_told_and_its_call_never_runs() {
    GOOGLE.never_gives_a_cut_call(|cut| Gemini::new().text("half").exec("fc_1", "echo no", Some("U0lH")).cut(cut));
}

// ---- going on ----

/// What has come of an answer: its status, its text, what was counted, and how many messages it has.
fn outcome(response: &Value) -> (&str, String, Value, usize) {
    let output = response["output"].as_array().unwrap();
    let text = output.iter().filter_map(|item| item["content"][0]["text"].as_str()).collect();
    let counted = json!([response["usage"]["input_tokens"], response["usage"]["output_tokens"]]);
    (response["status"].as_str().unwrap(), text, counted, output.len())
}

#[test]
fn an_answer_that_met_a_limit_is_gone_on_with_as_one_answer() {
    for streaming in [true, false] {
        let upstream = Upstream::start(|request| match request.index {
            0 => Gemini::new().text("Hel").finish("MAX_TOKENS").reply(),
            1 => Gemini::new().thought("Where was I?").text("lo, ").finish("MAX_TOKENS").reply(),
            _ => say("world"),
        });
        let proxy = GOOGLE.start("", "", &upstream);
        let mut body = ask();
        body["stream"] = json!(streaming);
        let got = proxy.responses(&body);
        let response = if streaming { got.terminal()["response"].clone() } else { got.json() };
        assert_eq!(outcome(&response), ("completed", "Hello, world".to_owned(), json!([300, 60]), 1), "{response:#}");
        let requests = upstream.exactly(3);
        let said = |n: usize| json!({"role": "model", "parts": [{"text": (["", "Hel", "Hello, "][n])}]});
        for (n, request) in requests.iter().enumerate() {
            assert_eq!((&request.path, request.header("x-goog-api-key")), (&requests[0].path, Some(GOOGLE.key)));
            let contents = request.json["contents"].as_array().unwrap();
            assert_eq!(contents[0], requests[0].json["contents"][0]);
            assert!(n == 0 || (contents[1] == said(n) && contents[2]["role"] == "user"), "{contents:#?}");
        }
    }
}

#[test]
fn where_going_on_is_not_wanted_or_fails_the_client_gets_what_there_is() {
    let limited = |_: &Recorded| Gemini::new().text("Hel").finish("MAX_TOKENS").reply();
    type Script = Box<dyn FnMut(&Recorded) -> Reply + Send>;
    let then = |reply: fn() -> Reply| -> Script {
        Box::new(move |request| if request.index == 0 { limited(request) } else { reply() })
    };
    let cases: [(&str, &str, Value, Script, &str, usize); 6] = [
        ("switched off", "continue_max = 0", Value::Null, Box::new(limited), "Hel", 1),
        ("limited by the client", "", json!(100), Box::new(limited), "Hel", 1),
        ("again and again", "continue_max = 2", Value::Null, Box::new(limited), "HelHelHel", 3),
        ("refused", "", Value::Null, then(|| Reply::json(429, &error(429, "RESOURCE_EXHAUSTED", "no"))), "Hel", 2),
        ("cut", "", Value::Null, then(|| Gemini::new().text("lo").cut(Cut::Reset)), "Hello", 2),
        ("no answer", "", Value::Null, then(|| Reply::raw(b"")), "Hel", 2),
    ];
    for (name, provider, limit, script, text, requests) in cases {
        let upstream = Upstream::start(script);
        let proxy = GOOGLE.start("", provider, &upstream);
        let mut body = ask();
        body["max_output_tokens"] = limit;
        let got = proxy.responses(&body);
        let end = got.terminal();
        let (status, said, _, messages) = outcome(&end["response"]);
        assert_eq!((status, &*said, messages), ("incomplete", text, 1), "{name}: {end:#}");
        assert_eq!(end["response"]["incomplete_details"]["reason"], "max_output_tokens", "{name}");
        upstream.exactly(requests);
    }
}

// ---- the real Codex ----

/// Contents of that role, the last one.
fn last<'a>(request: &'a Recorded, role: &str) -> &'a [Value] {
    let contents = request.json["contents"].as_array().unwrap();
    let found = contents.iter().rev().find(|content| content["role"] == role);
    found.and_then(|content| content["parts"].as_array()).unwrap_or_else(|| panic!("{:#}", request.json))
}

#[test]
fn codex_runs_a_command_and_a_patch_and_the_signature_goes_back() {
    const PATCH: &str = "*** Begin Patch\n*** Add File: b\n+zwei \"ß\"\n*** End Patch\n";
    let Some((codex, _proxy, upstream)) = GOOGLE.session(|request| match results(request) {
        0 => Gemini::new()
            .thought("**Looking**\n\n")
            .thought("I look.")
            .text("Two files.")
            .exec("fc_a", "echo one > a", Some("U0lHLTE="))
            .call("fc_b", "apply_patch", &json!({"input": PATCH}), None)
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
    let tools = requests[0].json["tools"][0]["functionDeclarations"].as_array().unwrap();
    for name in ["exec_command", "apply_patch"] {
        assert!(tools.iter().any(|tool| tool["name"] == name), "{tools:#?}");
    }
    let exec = json!({"id": "fc_a", "name": "exec_command", "args": {"cmd": "echo one > a"}});
    let patch = json!({"id": "fc_b", "name": "apply_patch", "args": {"input": PATCH}});
    assert_eq!(
        last(&requests[1], "model"),
        [
            json!({"text": "Two files."}),
            json!({"functionCall": exec, "thoughtSignature": "U0lHLTE="}),
            json!({"functionCall": patch}),
        ]
    );
    let answered: Vec<(&Value, &Value)> = last(&requests[1], "user")
        .iter()
        .map(|part| (&part["functionResponse"]["id"], &part["functionResponse"]["name"]))
        .collect();
    assert_eq!(answered, [(&json!("fc_a"), &json!("exec_command")), (&json!("fc_b"), &json!("apply_patch"))]);
    // What stood before is said in the same words, or nothing of it is found in the provider's cache.
    let (before, after) = (parts(&requests[0]), parts(&requests[1]));
    assert_eq!(after[..before.len()], before);
    assert_eq!(requests[0].json["tools"], requests[1].json["tools"]);
    assert_eq!(requests[0].json["systemInstruction"], requests[1].json["systemInstruction"]);
}

#[test]
fn parallel_calls_come_back_as_one_content_and_two_results_in_order() {
    let Some((codex, _proxy, upstream)) = GOOGLE.session(|request| match results(request) {
        0 => {
            let begun = Gemini::new().exec("fc_a", "echo 1 > a", Some("U0lH"));
            begun.exec("fc_b", "echo 2 > b", None).complete().reply()
        }
        _ => say("both"),
    }) else {
        return;
    };
    codex.exec("run two").succeeded_with("both");
    assert_eq!((codex.file("a").as_deref(), codex.file("b").as_deref()), (Some("1\n"), Some("2\n")));
    let second = &upstream.exactly(2)[1];
    for (role, key) in [("model", "functionCall"), ("user", "functionResponse")] {
        let ids: Vec<&Value> = last(second, role).iter().map(|part| &part[key]["id"]).collect();
        assert_eq!(ids, ["fc_a", "fc_b"], "{:#}", second.json["contents"]);
    }
}

#[test]
fn a_picture_of_the_user_and_one_looked_at_arrive() {
    let Some((codex, _proxy, upstream)) = GOOGLE.session(|request| match results(request) {
        0 => Gemini::new().call("fc_v", "view_image", &json!({"path": "seen.png"}), Some("U0lH")).complete().reply(),
        _ => say("a red pixel"),
    }) else {
        return;
    };
    for name in ["given.png", "seen.png"] {
        std::fs::write(codex.work().join(name), PIXEL_PNG).unwrap();
    }
    codex.exec_with("what is it?", &["-i", "given.png"]).succeeded_with("a red pixel");
    let requests = upstream.exactly(2);
    let is_picture = |part: &&Value| {
        part["inlineData"]["mimeType"] == "image/png"
            && part["inlineData"]["data"].as_str().is_some_and(|data| data.starts_with("iVBOR"))
    };
    assert_eq!(parts(&requests[0]).into_iter().filter(|part| is_picture(part)).count(), 1);
    let result = &last(&requests[1], "user")[0]["functionResponse"];
    let inside = result["parts"].as_array().unwrap_or_else(|| panic!("{result:#}"));
    assert_eq!(inside.iter().filter(is_picture).count(), 1, "{result:#}");
}

#[test]
fn codex_is_told_what_the_host_refuses() {
    let Some((codex, _proxy, upstream)) = GOOGLE.session(|_| {
        Reply::json(400, &error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."))
    }) else {
        return;
    };
    let run = codex.exec("say it");
    assert!(run.failed().contains("API key not valid"), "{run:#?}");
    upstream.exactly(1);
}
