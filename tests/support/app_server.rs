//! A client of `codex app-server` over its standard input and output: one JSON object a line.

use super::{codex::Codex, events};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A session with one thread; killed when dropped.
pub struct AppServer {
    child: Child,
    input: ChildStdin,
    received: Arc<Mutex<Vec<Value>>>,
    last_id: u64,
    /// The thread.
    pub thread_id: String,
}

impl AppServer {
    /// Starts it, introduces the client and starts a thread.
    pub fn start(codex: &Codex) -> Self {
        let mut child = codex
            .command()
            .arg("app-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (lines, sink) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&received));
        std::thread::spawn(move || {
            for value in lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                sink.lock().unwrap().push(value);
                events::notify();
            }
        });
        let input = child.stdin.take().unwrap();
        let mut server = Self { child, input, received, last_id: 0, thread_id: String::new() };
        server.call(
            "initialize",
            json!({"clientInfo": {"name": "it", "title": "Tests", "version": "0"},
                "capabilities": {"experimentalApi": true}}),
        );
        server.write(&json!({"method": "initialized"}));
        let started = server.call(
            "thread/start",
            json!({"cwd": codex.work(), "approvalPolicy": "never", "sandbox": "danger-full-access"}),
        );
        server.thread_id = started["thread"]["id"].as_str().unwrap().to_owned();
        server
    }

    fn write(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }

    /// Calls a method and waits for its result; an error stops the test.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        self.write(&json!({"id": id, "method": method, "params": params}));
        let answer = self.wait(|message| message["id"] == id && message.get("method").is_none());
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Waits for a message of the server, from the first one on.
    pub fn wait(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(events::DEADLINE, wanted)
            .unwrap_or_else(|| panic!("not among {:#?}", self.received.lock().unwrap()))
    }

    /// The same with a deadline of its own.
    pub fn wait_for(&self, deadline: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        events::wait(deadline, || self.received.lock().unwrap().iter().find(|message| wanted(message)).cloned())
    }

    /// Begins a turn with that text and gives its id.
    pub fn turn(&mut self, text: &str) -> String {
        let thread = self.thread_id.clone();
        let result = self.call("turn/start", json!({"threadId": thread, "input": [{"type": "text", "text": text}]}));
        result["turn"]["id"].as_str().unwrap().to_owned()
    }

    /// Adds to the turn that runs.
    pub fn steer(&mut self, turn: &str, text: &str) {
        let thread = self.thread_id.clone();
        let input = json!([{"type": "text", "text": text}]);
        self.call("turn/steer", json!({"threadId": thread, "expectedTurnId": turn, "input": input}));
    }

    /// Stops the turn that runs.
    pub fn interrupt(&mut self, turn: &str) {
        let thread = self.thread_id.clone();
        self.call("turn/interrupt", json!({"threadId": thread, "turnId": turn}));
    }

    /// Waits for the end of a turn and gives its status.
    pub fn turn_status(&self, turn: &str) -> String {
        let done =
            self.wait(|message| message["method"] == "turn/completed" && message["params"]["turn"]["id"] == turn);
        done["params"]["turn"]["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The texts of the agent's messages so far.
    pub fn messages(&self) -> Vec<String> {
        let all = self.received.lock().unwrap();
        let done = all.iter().filter(|message| message["method"] == "item/completed");
        let items = done.map(|message| &message["params"]["item"]).filter(|item| item["type"] == "agentMessage");
        items.filter_map(|item| item["text"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for AppServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
