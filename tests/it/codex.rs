//! The real Codex through the proxy, to a scripted Chat Completions upstream: what a user's session needs to work.

use crate::support::PIXEL_PNG;
use crate::support::app_server::AppServer;
use crate::support::chat::{Chat, say};
use crate::support::codex::Codex;
use crate::support::events::DEADLINE;
use crate::support::proxy::{Proxy, Setup};
use crate::support::tui::Tui;
use crate::support::upstream::{Recorded, Reply, Step, Upstream};
use serde_json::{Value, json};
use std::time::Duration;

/// The client is to be seen leaving within this.
const PROMPTLY: Duration = Duration::from_secs(2);

struct Session {
    // In the order in which they are to end: the client first.
    codex: Codex,
    proxy: Proxy,
    upstream: Upstream,
}

/// The usual three, or nothing, said aloud, without Codex.
fn session(setup: &Setup, script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Option<Session> {
    crate::support::codex_bin()?;
    let upstream = Upstream::start(script);
    let proxy = setup.start(&upstream);
    let codex = Codex::new(proxy.endpoint())?;
    Some(Session { codex, proxy, upstream })
}

fn with_images() -> Setup {
    Setup { dialect: "openai", upstream_model: "gpt-4.1", model: "images = true".to_owned(), ..Setup::default() }
}

fn last<'a>(request: &'a Recorded, role: &str) -> &'a Value {
    let found = request.messages().iter().rev().find(|message| message["role"] == role);
    found.unwrap_or_else(|| panic!("no message of {role}: {:#}", request.json))
}

/// The text of a message, whether a string or parts.
fn text(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// The pictures of a message.
fn pictures(message: &Value) -> Vec<&str> {
    let parts = message["content"].as_array().map_or(&[][..], Vec::as_slice);
    parts.iter().filter_map(|part| part["image_url"]["url"].as_str()).collect()
}

#[test]
fn a_patch_lands_on_disk() {
    let patch = "*** Begin Patch\n*** Add File: notes/größe.txt\n+one \"quoted\"\n+zwei – ✓\n*** End Patch\n";
    let Some(session) = session(&Setup::default(), move |request| match request.results() {
        0 => {
            assert!(request.tool_names().contains(&"apply_patch"), "{:?}", request.tool_names());
            let arguments = json!({"input": patch});
            Chat::new().text("Adding it.").call_in_pieces("call_p", "apply_patch", &arguments, 7).complete().reply()
        }
        _ => say("added"),
    }) else {
        return;
    };
    let run = session.codex.exec("add notes/größe.txt");
    run.succeeded_with("added");
    assert_eq!(session.codex.file("notes/größe.txt").as_deref(), Some("one \"quoted\"\nzwei – ✓\n"));
    let second = &session.upstream.exactly(2)[1];
    let result = last(second, "tool");
    assert_eq!(result["tool_call_id"], "call_p");
    assert!(text(result).contains("Success"), "{result}");
    let call = &last(second, "assistant")["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!((&call["name"], &arguments["input"]), (&json!("apply_patch"), &json!(patch)));
}

#[test]
fn parallel_calls_come_back_as_one_message_and_two_results_in_order() {
    let Some(session) = session(&Setup::default(), |request| match request.results() {
        0 => Chat::new().exec("call_a", "echo first > a").exec("call_b", "echo second > b").complete().reply(),
        _ => say("both"),
    }) else {
        return;
    };
    session.codex.exec("run two").succeeded_with("both");
    assert_eq!(session.codex.file("a").as_deref(), Some("first\n"));
    assert_eq!(session.codex.file("b").as_deref(), Some("second\n"));
    let second = &session.upstream.exactly(2)[1];
    let [.., calls, one, two] = second.messages() else { panic!("{:#}", second.json) };
    let ids: Vec<&str> = calls["tool_calls"].as_array().unwrap().iter().filter_map(|c| c["id"].as_str()).collect();
    assert_eq!(ids, ["call_a", "call_b"]);
    for (result, id) in [(one, "call_a"), (two, "call_b")] {
        assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &json!(id)));
    }
}

#[test]
fn mcp_tools_are_called_by_a_flat_name_and_their_pictures_arrive() {
    let Some(mut session) = session(&with_images(), |request| match request.results() {
        0 => {
            let (echo, pic) = (request.tool_ending("echo_it"), request.tool_ending("__pic"));
            for name in [&echo, &pic] {
                assert!(
                    name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)),
                    "{name}"
                );
            }
            Chat::new()
                .call("call_e", &echo, &json!({"text": "hey"}))
                .call("call_p", &pic, &json!({}))
                .complete()
                .reply()
        }
        _ => say("heard"),
    }) else {
        return;
    };
    session.codex = session.codex.with_mcp_echo();
    let run = session.codex.exec("use the tools");
    run.succeeded_with("heard");
    assert_eq!(run.items("mcp_tool_call").len(), 2, "{run:#?}");
    let second = &session.upstream.exactly(2)[1];
    let [.., one, two, moved] = second.messages() else { panic!("{:#}", second.json) };
    assert!(one["tool_call_id"] == "call_e" && text(one).contains("echo: hey"), "{one}");
    assert!(two["tool_call_id"] == "call_p" && text(two).contains("one pixel"), "{two}");
    assert!(!two.to_string().contains("iVBOR"), "no picture as text: {two}");
    assert_eq!(moved["role"], "user");
    assert!(pictures(moved).iter().any(|url| url.starts_with("data:image/png;base64,iVBOR")), "{moved}");
}

#[test]
fn a_picture_of_the_user_and_one_looked_at_arrive() {
    let Some(session) = session(&with_images(), |request| match request.results() {
        0 => Chat::new().call("call_v", "view_image", &json!({"path": "seen.png"})).complete().reply(),
        _ => say("a red pixel"),
    }) else {
        return;
    };
    for name in ["given.png", "seen.png"] {
        std::fs::write(session.codex.work().join(name), PIXEL_PNG).unwrap();
    }
    session.codex.exec_with("what is it?", &["-i", "given.png"]).succeeded_with("a red pixel");
    let requests = session.upstream.exactly(2);
    let prompt = last(&requests[0], "user");
    assert_eq!(pictures(prompt).len(), 1, "{prompt}");
    let [.., result, moved] = requests[1].messages() else { panic!("{:#}", requests[1].json) };
    assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &json!("call_v")));
    assert!(!result.to_string().contains("iVBOR"), "no picture as text: {result}");
    assert_eq!((&moved["role"], pictures(moved).len()), (&json!("user"), 1), "{moved}");
}

#[test]
fn a_text_only_model_gets_a_word_instead_of_a_picture() {
    let Some(session) = session(&Setup::default(), |_| say("I cannot see")) else { return };
    std::fs::write(session.codex.work().join("given.png"), PIXEL_PNG).unwrap();
    session.codex.exec_with("what is it?", &["-i", "given.png"]).succeeded_with("I cannot see");
    let request = &session.upstream.exactly(1)[0];
    let prompt = last(request, "user");
    assert!(!request.mentions("iVBOR") && pictures(prompt).is_empty(), "{prompt:#}");
    assert!(prompt.to_string().contains("do not support image input"), "{prompt:#}");
}

#[test]
fn an_output_schema_arrives_as_a_response_format() {
    let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"],
        "additionalProperties": false});
    let setup = Setup { dialect: "openai", upstream_model: "gpt-4.1", ..Setup::default() };
    let Some(session) = session(&setup, |_| say("{\"answer\":\"42\"}")) else { return };
    let file = session.codex.work().join("schema.json");
    std::fs::write(&file, schema.to_string()).unwrap();
    let run = session.codex.exec_with("answer", &["--output-schema", file.to_str().unwrap()]);
    run.succeeded_with("{\"answer\":\"42\"}");
    let format = &session.upstream.exactly(1)[0].json["response_format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["json_schema"]["schema"], schema);
}

#[test]
fn a_long_session_is_compacted_and_goes_on() {
    const SUMMARY: &str = "SUMMARY-OF-THE-WORK";
    let Some(mut session) = session(&Setup::default(), |request| {
        if request.mentions("CONTEXT CHECKPOINT COMPACTION") {
            return say(SUMMARY);
        }
        if request.mentions(SUMMARY) {
            return say("finished");
        }
        Chat::new().exec("call_1", "echo step").complete_with(90_000, 20).reply()
    }) else {
        return;
    };
    session.codex.keys += "model_auto_compact_token_limit = 60000\n";
    session.codex.exec("work long").succeeded_with("finished");
    let requests = session.upstream.exactly(3);
    assert!(requests[1].tool_names().is_empty(), "no tools for a summary: {:?}", requests[1].tool_names());
    assert_eq!(requests[1].results(), 1);
    assert_eq!(requests[2].results(), 0, "the call is gone from the history");
    assert!(!requests[2].tool_names().is_empty());
}

/// DeepSeek's rule: while it thinks, an assistant message with calls must bring its thoughts back, unchanged.
fn deepseek_refuses(request: &Recorded, thoughts: &[(&str, &str)]) -> Option<Reply> {
    let wrong = request.messages().iter().any(|message| {
        message["tool_calls"].as_array().into_iter().flatten().any(|call| {
            let given = thoughts.iter().find(|(id, _)| call["id"] == *id).map(|(_, thought)| *thought);
            message["reasoning_content"].as_str() != given
        })
    });
    let words = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    wrong.then(|| Reply::error(400, "invalid_request_error", "invalid_request_error", words))
}

#[test]
fn thoughts_go_back_to_the_model_that_had_them() {
    const THOUGHTS: &[(&str, &str)] = &[("call_1", "First I look.\n\n – größe"), ("call_2", "Then I look again.")];
    let Some(session) = session(&Setup::default(), |request| {
        if let Some(refusal) = deepseek_refuses(request, THOUGHTS) {
            return refusal;
        }
        match request.results() {
            0 => Chat::new().reasoning("First I look.").reasoning("\n\n – größe").exec("call_1", "echo a"),
            1 => Chat::new().reasoning(THOUGHTS[1].1).text("Once more.").exec("call_2", "echo b"),
            _ => Chat::new().reasoning("Enough.").text("looked twice"),
        }
        .complete()
        .reply()
    }) else {
        return;
    };
    let run = session.codex.exec("look twice");
    run.succeeded_with("looked twice");
    assert!(!run.items("reasoning").is_empty(), "the user sees that it thinks: {run:#?}");
    session.upstream.exactly(3);
}

#[test]
fn a_session_that_is_resumed_still_has_the_thoughts() {
    const THOUGHTS: &[(&str, &str)] = &[("call_1", "Remember this.")];
    let Some(session) = session(&Setup::default(), |request| {
        if let Some(refusal) = deepseek_refuses(request, THOUGHTS) {
            return refusal;
        }
        match request.results() {
            0 => Chat::new().reasoning("Remember this.").exec("call_1", "echo a").complete().reply(),
            _ if request.mentions("AND-NOW") => say("second turn"),
            _ => say("first turn"),
        }
    }) else {
        return;
    };
    session.codex.exec("begin").succeeded_with("first turn");
    let run = session.codex.exec_with("AND-NOW", &["resume", "--last"]);
    run.succeeded_with("second turn");
    session.upstream.exactly(3);
}

fn app_server(script: impl FnMut(&Recorded) -> Reply + Send + 'static) -> Option<(AppServer, Session)> {
    let session = session(&Setup::default(), script)?;
    Some((AppServer::start(&session.codex), session))
}

fn is_first_delta(message: &Value) -> bool {
    message["method"] == "item/agentMessage/delta"
}

#[test]
fn steering_gives_up_the_answer_under_way() {
    let Some((mut server, session)) = app_server(|request| {
        if request.mentions("RATHER-THIS") {
            say("steered")
        } else {
            Chat::new().text("going the wrong way").open().then(Step::Stall)
        }
    }) else {
        return;
    };
    let turn = server.turn("go");
    server.wait(is_first_delta);
    server.steer(&turn, "RATHER-THIS");
    session.upstream.wait_closed(0, PROMPTLY);
    assert_eq!(server.turn_status(&turn), "completed");
    assert_eq!(server.messages().last().map(String::as_str), Some("steered"));
    session.upstream.exactly(2);
}

#[test]
fn an_interrupt_reaches_the_upstream_and_the_thread_goes_on() {
    let Some((mut server, session)) = app_server(|request| {
        if request.mentions("FOLLOW-UP") {
            say("here again")
        } else {
            Chat::new().text("a long answer").open().then(Step::Stall)
        }
    }) else {
        return;
    };
    let turn = server.turn("talk");
    server.wait(is_first_delta);
    server.interrupt(&turn);
    session.upstream.wait_closed(0, PROMPTLY);
    assert_eq!(server.turn_status(&turn), "interrupted");
    let turn = server.turn("FOLLOW-UP");
    assert_eq!(server.turn_status(&turn), "completed");
    assert_eq!(server.messages().last().map(String::as_str), Some("here again"));
    session.upstream.exactly(2);
}

#[test]
fn an_interrupt_before_the_first_byte_reaches_the_upstream_too() {
    let Some((mut server, session)) = app_server(|_| Reply::silence()) else { return };
    let turn = server.turn("talk");
    session.upstream.wait_requests(1, DEADLINE);
    server.interrupt(&turn);
    session.upstream.wait_closed(0, PROMPTLY);
    assert_eq!(server.turn_status(&turn), "interrupted");
    session.upstream.exactly(1);
}

#[test]
fn the_tui_gets_its_title_beside_the_answer() {
    fn wants_title(request: &Recorded) -> bool {
        // As a schema where the host takes one, else as words in the prompt.
        request.json["response_format"].to_string().contains("\"title\"")
            || request.mentions("Generate a concise, single-line task")
    }
    let Some(session) = session(&Setup::default(), |request| {
        if wants_title(request) { say("{\"title\":\"Greeting\"}") } else { say("GOOD-DAY-TO-YOU") }
    }) else {
        return;
    };
    let Some(tui) = Tui::start(&session.codex) else { return };
    tui.wait_screen("work");
    tui.text("please greet me");
    tui.wait_screen("please greet me");
    tui.keys(&["Enter"]);
    assert!(session.upstream.wait_request(DEADLINE, wants_title).is_some(), "{}", tui.screen());
    tui.wait_screen("GOOD-DAY-TO-YOU");
    assert!(session.proxy.log().lines().all(|line| !line.contains("ERROR")), "{}", session.proxy.log());
}

#[test]
fn a_sub_agent_works_and_reports() {
    fn is_child(request: &Recorded) -> bool {
        request.messages().iter().any(|message| message["role"] == "user" && text(message).contains("CHILD-TASK"))
            && !request.mentions("PARENT-TASK")
    }
    let Some(session) = session(&Setup::default(), |request| {
        if is_child(request) {
            return say("CHILD-DONE");
        }
        match request.results() {
            0 => {
                let spawn = request.tool_ending("spawn_agent");
                Chat::new().call("call_s", &spawn, &json!({"message": "CHILD-TASK: say hello"})).complete().reply()
            }
            1 => {
                let output = text(last(request, "tool"));
                let output: Value = serde_json::from_str(&output).unwrap_or_else(|e| panic!("{e}: {output}"));
                let wait = request.tool_ending("wait_agent");
                Chat::new().call("call_w", &wait, &json!({"targets": [output["agent_id"]]})).complete().reply()
            }
            _ => {
                let output = text(last(request, "tool"));
                assert!(output.contains("CHILD-DONE"), "{output}");
                say("PARENT-DONE")
            }
        }
    }) else {
        return;
    };
    session.codex.exec("PARENT-TASK: delegate").succeeded_with("PARENT-DONE");
    assert_eq!(session.upstream.requests().iter().filter(|request| is_child(request)).count(), 1);
    session.upstream.exactly(4);
}

#[test]
fn an_unknown_model_ends_the_turn_and_names_those_that_exist() {
    let Some(mut session) = session(&Setup::default(), |_| say("never")) else { return };
    session.codex.model = "no-such-model".to_owned();
    let run = session.codex.exec("hello");
    let told = run.failed();
    assert!(told.contains("no-such-model") && told.contains("work"), "{told}");
    assert_eq!(run.reconnects(), 0, "{run:#?}");
    session.upstream.exactly(0);
}

#[test]
fn the_demo_model_edits_a_file_without_any_upstream() {
    let Some(mut session) = session(&Setup::default(), |_| say("never")) else { return };
    session.codex.model = "demo".to_owned();
    let run = session.codex.exec("show me");
    assert_eq!((run.exit, run.of("turn.completed").len()), (Some(0), 1), "{run:#?}");
    assert!(run.items("error").is_empty(), "{run:#?}");
    assert!(run.items("command_execution").len() >= 2 && run.items("file_change").len() == 1, "{run:#?}");
    let file = session.codex.file("codex-proxy-demo.md").expect("the demo writes its file");
    assert!(file.starts_with("# codex-proxy works"), "{file}");
    session.upstream.exactly(0);
}

#[test]
fn usage_reaches_the_user() {
    let Some(session) = session(&Setup::default(), |_| Chat::new().text("counted").complete_with(1234, 56).reply())
    else {
        return;
    };
    let run = session.codex.exec("count");
    run.succeeded_with("counted");
    let usage = &run.of("turn.completed")[0]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(1234), &json!(56)), "{usage}");
}

#[test]
fn a_command_runs_once_though_its_answer_breaks_off_later() {
    let Some(session) = session(&Setup::default(), |request| match (request.index, request.results()) {
        (0, _) => {
            // The call is whole, a second one is not.
            let whole = Chat::new().exec("call_1", "echo ran >> log");
            let begun = whole.clone().exec("call_2", "echo never >> log");
            begun.cut(whole.frames().len() + 2, crate::support::upstream::Cut::Reset)
        }
        _ => say("over"),
    }) else {
        return;
    };
    let run = session.codex.exec("run it");
    assert_eq!(run.exit, Some(0), "{run:#?}");
    assert_eq!(run.message(), Some("over"));
    let log = session.codex.file("log").unwrap_or_default();
    assert!(matches!(log.as_str(), "" | "ran\n"), "{log}");
}
