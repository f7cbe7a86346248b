//! The harness itself, without the proxy: the real Codex against a scripted provider that speaks Responses.

use crate::support::app_server::AppServer;
use crate::support::codex::{Codex, Endpoint};
use crate::support::events::{DEADLINE, Gate};
use crate::support::tui::Tui;
use crate::support::upstream::{Recorded, Reply, Step, Upstream};
use crate::support::{responses, scratch};
use serde_json::json;

fn client(upstream: &Upstream, token: &tempfile::TempDir) -> Option<Codex> {
    let token_path = token.path().join("token");
    std::fs::write(&token_path, "tok-1\n").unwrap();
    Codex::new(Endpoint { base_url: upstream.base_url(), token_path })
}

fn is_title(request: &Recorded) -> bool {
    request.header("x-codex-turn-metadata").is_some_and(|text| text.contains("\"thread_source\":\"thread_title\""))
}

#[test]
fn a_command_runs_and_the_turn_ends() {
    let upstream = responses::start("work", |request| {
        if request.mentions("function_call_output") {
            responses::answer("resp_2", &[responses::message("msg_2", "done")])
        } else {
            responses::answer("resp_1", &[responses::exec("call_1", "printf hello > a.txt")])
        }
    });
    let token = scratch();
    let Some(codex) = client(&upstream, &token) else { return };
    let run = codex.exec("write a file");
    run.succeeded_with("done");
    assert_eq!(codex.file("a.txt").as_deref(), Some("hello"));
    let posts: Vec<Recorded> = upstream.requests().into_iter().filter(|r| r.method == "POST").collect();
    assert_eq!(posts.len(), 2);
    assert!(upstream.requests().iter().all(|r| r.header("authorization") == Some("Bearer tok-1")));
}

#[test]
fn an_interrupt_is_seen_as_a_closed_connection() {
    let upstream = responses::start("work", |request| {
        if request.mentions("go on please") {
            return responses::answer("resp_2", &[responses::message("msg_2", "after")]);
        }
        let created = responses::frame(&json!({"type": "response.created", "response": {"id": "resp_1"}}));
        Reply::sse_open(&[created]).then(Step::Stall)
    });
    let token = scratch();
    let Some(codex) = client(&upstream, &token) else { return };
    let mut server = AppServer::start(&codex);
    let turn = server.turn("first");
    let post = upstream.wait_request(DEADLINE, |r| r.method == "POST").unwrap();
    server.interrupt(&turn);
    upstream.wait_closed(post.index, DEADLINE);
    assert_eq!(server.turn_status(&turn), "interrupted");
    let turn = server.turn("go on please");
    assert_eq!(server.turn_status(&turn), "completed");
    assert_eq!(server.messages(), ["after"]);
}

#[test]
fn the_tui_asks_for_a_title() {
    let upstream = responses::start("work", |request| {
        let text = if is_title(request) { "{\"title\":\"Greeting\"}" } else { "good day" };
        responses::answer(&format!("resp_{}", request.index), &[responses::message("msg_1", text)])
    });
    let token = scratch();
    let Some(codex) = client(&upstream, &token) else { return };
    let Some(tui) = Tui::start(&codex) else { return };
    tui.wait_screen("work");
    tui.text("say good day");
    tui.wait_screen("say good day");
    tui.keys(&["Enter"]);
    assert!(upstream.wait_request(DEADLINE, is_title).is_some(), "no title was asked for:\n{}", tui.screen());
    tui.wait_screen("good day");
}

#[test]
fn a_gate_holds_an_answer_until_it_is_opened() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        Reply::sse_open(&["data: 1\n\n"]).then(Step::Wait(held.clone())).frame("data: 2\n\n").end()
    });
    let address = upstream.address().to_string();
    let client = std::thread::spawn(move || crate::support::http::send(&address, "GET", "/", &[], None).unwrap());
    upstream.wait_requests(1, DEADLINE);
    assert!(!client.is_finished());
    gate.open();
    assert_eq!(client.join().unwrap().text(), "data: 1\n\ndata: 2\n\n");
}

#[test]
fn a_reset_and_a_cut_reach_the_client_as_such() {
    for step in [Step::Reset, Step::Close] {
        let reply = Reply::sse_open(&["data: 1\n\n"]).then(step);
        let upstream = Upstream::sequence(vec![reply]);
        let answer = crate::support::http::send(&upstream.address().to_string(), "GET", "/", &[], None);
        // A reset may overtake the head.
        assert!(answer.is_err() || answer.is_ok_and(|a| a.end == crate::support::http::BodyEnd::Broken));
    }
}
