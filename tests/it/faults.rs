//! What goes wrong upstream, and what the real Codex and its user see of it. Writes `target/fault-table.md`.
//!
//! Each fault is played twice: for good, and once before an upstream that works again. Whatever the fault, the turn
//! ends once and in order, no command runs twice, nothing cut off is called complete, and the upstream is not hammered.

use crate::support::chat::{Chat, say};
use crate::support::codex::{Codex, Run};
use crate::support::events::{DEADLINE, Gate};
use crate::support::http::{self, Answer, BodyEnd};
use crate::support::proxy::{Proxy, Setup};
use crate::support::upstream::{Cut, Reply, Step, Upstream};
use crate::support::{root, unused_port};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Limits short enough for a test: everything else is as shipped.
const SHORT: &str = "retry_deadline_s = 3\nhead_hold_s = 1\nkeepalive_s = 1\nupstream_head_s = 2\nupstream_idle_s = 2\nconnect_timeout_s = 2";
/// `stream_max_retries` of Codex: two requests of a turn's step at most.
const CODEX_RETRIES: u32 = 1;

/// Where the fault sits.
enum Where {
    /// In what the upstream answers.
    Answer(fn() -> Reply),
    /// In how it is reached: another `base_url` for the upstream's.
    Address(fn(&Upstream) -> String),
}

/// How a turn ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// With the answer.
    Well,
    /// As a failed turn.
    Failed,
    /// Either is honest.
    Either,
}

struct Fault {
    name: String,
    r#where: Where,
    /// How the turn ends while the fault lasts.
    lasting: Ends,
    /// The most the upstream may be called in that turn.
    calls_max: usize,
    /// What the user is told then.
    told: &'static [&'static str],
    /// How the turn ends when the second call is answered well. `None`: not played.
    once: Option<Ends>,
    /// How often the user may be told of a reconnect in that turn.
    reconnects_max: usize,
}

impl Fault {
    /// A fault that is tried again, and passes unseen if it passes.
    fn passing(name: impl Into<String>, answer: fn() -> Reply) -> Self {
        Self {
            name: name.into(),
            r#where: Where::Answer(answer),
            lasting: Ends::Failed,
            calls_max: 10,
            told: &[],
            once: Some(Ends::Well),
            reconnects_max: 0,
        }
    }

    /// A fault after the first event: the client is told and asks again.
    fn late(name: impl Into<String>, answer: fn() -> Reply) -> Self {
        Self { calls_max: 2, reconnects_max: 1, ..Self::passing(name, answer) }
    }

    /// A refusal that stays one.
    fn refusal(name: impl Into<String>, told: &'static [&'static str], answer: fn() -> Reply) -> Self {
        Self { calls_max: 1, told, once: None, ..Self::passing(name, answer) }
    }

    fn tells(mut self, told: &'static [&'static str]) -> Self {
        self.told = told;
        self
    }
}

fn status<const STATUS: u16>() -> Reply {
    Reply::error(STATUS, "scripted", "scripted", "SCRIPTED-WORDS")
}

fn overload_object() -> Value {
    json!({"error": {"message": "Overloaded, SCRIPTED-WORDS", "type": "overloaded_error", "code": 529}})
}

fn overflow(message: &str, kind: &str, code: Value) -> Reply {
    Reply::json(400, &json!({"error": {"message": message, "type": kind, "param": "messages", "code": code}}))
}

/// What is wrong with the way.
fn ways() -> Vec<Fault> {
    let way = |name: &str, address| Fault {
        r#where: Where::Address(address),
        once: None,
        calls_max: 0,
        ..Fault::passing(name, Reply::silence)
    };
    vec![
        way("connection refused", |_| format!("http://127.0.0.1:{}/v1", unused_port())),
        way("name does not resolve", |_| "http://no-such-host.invalid/v1".to_owned()).tells(&["no-such-host.invalid"]),
        way("TLS to a port without TLS", |upstream| upstream.base_url().replace("http:", "https:")),
    ]
}

/// What is wrong with the status.
fn statuses() -> Vec<Fault> {
    const WORDS: &[&str] = &["SCRIPTED-WORDS"];
    let passing = |name: &str, answer| Fault::passing(name, answer);
    vec![
        Fault::refusal("400", WORDS, status::<400>),
        Fault::refusal("401", &[], status::<401>),
        Fault::refusal("402", &[], status::<402>),
        Fault::refusal("403", &[], status::<403>),
        Fault::refusal("404", &[], status::<404>),
        Fault { once: None, lasting: Ends::Failed, ..passing("408", status::<408>) },
        Fault { once: None, lasting: Ends::Failed, ..passing("409", status::<409>) },
        Fault { once: None, lasting: Ends::Failed, ..passing("413", status::<413>) },
        Fault { once: None, lasting: Ends::Failed, ..passing("422", status::<422>) },
        passing("429 without Retry-After", status::<429>),
        passing("429 with Retry-After in seconds", || {
            Reply::json_with(429, &[("retry-after", "1")], &json!({"error": {"message": "slow down"}}))
        }),
        passing("429 with Retry-After as a date", || {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1));
            Reply::json_with(429, &[("retry-after", &date)], &json!({"error": {"message": "slow down"}}))
        }),
        passing("500", status::<500>),
        passing("502", status::<502>),
        passing("503", status::<503>),
        passing("504", status::<504>),
        passing("529", status::<529>),
        passing("502 with a web page", || Reply::html(502)),
    ]
}

/// How hosts say that the conversation is too long.
fn overflows() -> Vec<Fault> {
    const ROOM: &[&str] = &["ran out of room"];
    vec![
        Fault::refusal("overflow as OpenAI says it", ROOM, || {
            overflow(
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 150000 \
                 tokens. Please reduce the length of the messages.",
                "invalid_request_error",
                json!("context_length_exceeded"),
            )
        }),
        Fault::refusal("overflow as DeepSeek says it", ROOM, || {
            overflow(
                "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (132000 in \
                 the messages, 8000 in the completion). Please reduce the length of the messages or completion.",
                "invalid_request_error",
                json!("invalid_request_error"),
            )
        }),
        Fault::refusal("overflow as Anthropic's hosts say it", ROOM, || {
            overflow("prompt is too long: 210000 tokens > 200000 maximum", "invalid_request_error", Value::Null)
        }),
        Fault::refusal("overflow as Gemini says it", ROOM, || {
            let words = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).";
            overflow(words, "INVALID_ARGUMENT", json!(400))
        }),
        Fault::refusal("overflow as llama.cpp says it", ROOM, || {
            overflow(
                "the request exceeds the available context size, try increasing it",
                "exceed_context_size_error",
                json!(400),
            )
        }),
    ]
}

/// What is wrong with the body.
fn bodies() -> Vec<Fault> {
    let passing = |name: &str, answer| Fault::passing(name, answer);
    vec![
        passing("silence before the head", Reply::silence),
        passing("silence after the head", || Reply::sse_cut::<&str>(&[], Cut::Stall)),
        Fault::late("silence in mid-stream", || Chat::new().text("half an ans").open().then(Step::Stall)),
        passing("reset before the head", || Reply { steps: vec![Step::Reset] }),
        passing("closed before the head", || Reply { steps: vec![Step::Close] }),
        passing("reset after the head", || Reply::sse_cut::<&str>(&[], Cut::Reset)),
        passing("closed after the head", || Reply::sse_cut::<&str>(&[], Cut::Close)),
        Fault::late("reset in mid-text", || Chat::new().text("half an ans").open().then(Step::Reset)),
        Fault::late("closed in mid-text", || Chat::new().text("half an ans").open().then(Step::Close)),
        Fault::late("ended in mid-text, in order", || Chat::new().text("half an ans").reply()),
        passing("an overload object in 200, first", || {
            Reply::sse(&[format!("data: {}\n\n", overload_object()), "data: [DONE]\n\n".to_owned()])
        }),
        Fault::late("an overload object in 200, in mid-text", || {
            Chat::new().text("half an ans").data(overload_object()).done().reply()
        }),
        passing("a malformed chunk, first", || {
            Reply::raw(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            )
        }),
        Fault::late("a malformed chunk in mid-text", || {
            Chat::new().text("half an ans").open().then(Step::Send(b"zz\r\ngarbage".to_vec())).then(Step::Close)
        }),
        Fault {
            lasting: Ends::Well,
            once: None,
            calls_max: 1,
            ..passing("no [DONE]", || Chat::new().text("recovered").finish("stop").usage(1, 1).reply())
        },
        Fault {
            lasting: Ends::Well,
            once: None,
            calls_max: 1,
            ..passing("no usage", || Chat::new().text("recovered").finish("stop").done().reply())
        },
        Fault::late("a body shorter than its content-length", || {
            Reply::sse_of_length(100_000, Chat::new().text("half an ans").frames())
        }),
        Fault::late("a content-length that cuts the body", || {
            let chat = Chat::new().text("half an ans").text("wer that goes on").complete();
            Reply::sse_of_length(chat.frames()[..2].iter().map(String::len).sum::<usize>() + 9, chat.frames())
        }),
        Fault {
            lasting: Ends::Either,
            ..passing("a compressed body", || Reply::sse_gzip(Chat::new().text("recovered").complete().frames()))
        },
        // A wrong base_url or a wall before the host: neither goes away by asking again.
        Fault::refusal("a web page with status 200", &["HTML page"], || Reply::html(200)),
        Fault {
            lasting: Ends::Either,
            ..passing("JSON instead of a stream", || {
                let message = json!({"role": "assistant", "content": "recovered"});
                let choices = json!([{"index": 0, "message": message, "finish_reason": "stop"}]);
                Reply::json(200, &json!({"id": "c", "object": "chat.completion", "model": "m", "choices": choices}))
            })
        },
        passing("a frame that is no JSON", || Reply::sse(&["data: {\"choices\": [\n\n", "data: [DONE]\n\n"])),
        passing("an empty body", || Reply::sse::<&str>(&[])),
    ]
}

/// What one turn was.
struct Turn {
    run: Run,
    /// How often the upstream was called.
    calls: usize,
    /// Whether the proxy left the upstream when nobody waited any more.
    idle: bool,
}

/// One turn before that upstream; `None` without Codex.
fn turn(fault: &Fault, lasts: bool) -> Option<Turn> {
    let make = match fault.r#where {
        Where::Answer(make) => make,
        Where::Address(_) => Reply::silence,
    };
    let upstream = Upstream::start(move |request| if lasts || request.index == 0 { make() } else { say("recovered") });
    let base_url = match fault.r#where {
        Where::Answer(_) => None,
        Where::Address(address) => Some(address(&upstream)),
    };
    let proxy = Setup { proxy: SHORT.to_owned(), base_url, ..Setup::default() }.start(&upstream);
    let mut codex = Codex::new(proxy.endpoint())?;
    codex.stream_max_retries = CODEX_RETRIES;
    codex.limit = DEADLINE;
    let run = codex.exec("say it");
    let idle = upstream.wait_idle(Duration::from_secs(5));
    Some(Turn { run, calls: upstream.count(), idle })
}

/// What is wrong with a turn, if anything.
fn complaints(fault: &Fault, ends: Ends, turn: &Turn) -> Vec<String> {
    let mut out = Vec::new();
    let run = &turn.run;
    if !turn.idle {
        out.push("the upstream was still waited for when nobody waited any more".to_owned());
    }
    let (well, failed) = (run.of("turn.completed").len(), run.of("turn.failed").len());
    if run.timed_out {
        out.push("Codex did not end".to_owned());
    } else if (well, failed, run.exit) != (1, 0, Some(0)) && (well, failed, run.exit) != (0, 1, Some(1)) {
        out.push(format!("{well} turns completed, {failed} failed, exit {:?}", run.exit));
    }
    if well == 1 && run.message() != Some("recovered") {
        out.push(format!("an answer that was none was called complete: {:?}", run.message()));
    }
    if (ends == Ends::Well && well != 1) || (ends == Ends::Failed && failed != 1) {
        out.push(format!("the turn was to end: {ends:?}"));
    }
    if failed == 1 {
        let told = run.failure().unwrap_or_default();
        out.extend(fault.told.iter().filter(|words| !told.contains(**words)).map(|words| format!("not told: {words}")));
    }
    out
}

/// A line of the table, and what is wrong with it.
type Row = (String, Vec<String>);

fn row(fault: &Fault) -> Option<Row> {
    let mut wrong = Vec::new();
    let lasting = turn(fault, true)?;
    wrong.extend(complaints(fault, fault.lasting, &lasting).into_iter().map(|c| format!("lasting: {c}")));
    if lasting.calls > fault.calls_max {
        wrong.push(format!("lasting: {} calls of the upstream, {} at most", lasting.calls, fault.calls_max));
    }
    let mut line = format!("| {} | {} |", fault.name, cells(&lasting));
    match fault.once {
        None => line.push_str(" – | – | – |"),
        Some(ends) => {
            let once = turn(fault, false)?;
            wrong.extend(complaints(fault, ends, &once).into_iter().map(|c| format!("once: {c}")));
            let reconnects = once.run.reconnects();
            if reconnects > fault.reconnects_max {
                wrong.push(format!("once: the user was told of {reconnects} reconnects"));
            }
            write!(line, " {} | {} | {reconnects} |", outcome(&once.run), once.calls).unwrap();
        }
    }
    let wrong = wrong.into_iter().map(|words| format!("{}: {words}", fault.name)).collect();
    Some((line, wrong))
}

fn outcome(run: &Run) -> &'static str {
    match (run.timed_out, run.exit) {
        (true, _) => "waiting",
        (false, Some(0)) => "completed",
        (false, _) => "failed",
    }
}

fn cells(turn: &Turn) -> String {
    let Turn { run, calls, .. } = turn;
    let told = run.failure().or(run.message()).unwrap_or_default().replace('\n', " ").replace('|', "/");
    let told: String = if told.chars().count() > 160 { told.chars().take(159).chain(['…']).collect() } else { told };
    let wall = run.wall.as_secs_f64();
    format!("{} | {calls} | {} | {wall:.1} | {told}", outcome(run), run.reconnects())
}

#[test]
fn the_fault_table() {
    if crate::support::codex_bin().is_none() {
        return;
    }
    let faults: Vec<Fault> = [ways(), statuses(), overflows(), bodies()].into_iter().flatten().collect();
    let next = AtomicUsize::new(0);
    let rows: Mutex<BTreeMap<usize, Row>> = Mutex::default();
    // Most of each turn is waiting for a limit, so more of them than cores.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(fault) = faults.get(at) else { return };
                    let done = row(fault).expect("Codex is there");
                    rows.lock().unwrap().insert(at, done);
                }
            });
        }
    });
    let mut table = format!(
        "# What the user of Codex sees when an upstream fails\n\n\
         Written by `tests/it/faults.rs`: Codex's `codex exec` with `stream_max_retries = {CODEX_RETRIES}`, the proxy with\n\
         `{}`. *Lasting*: the upstream always fails so; *once*: its second answer is good.\n\n\
         | fault | lasting: turn | upstream calls | reconnects shown | seconds | told | once: turn | upstream calls | \
         reconnects shown |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        SHORT.replace('\n', ", ")
    );
    let mut wrong = Vec::new();
    for (line, complaints) in rows.into_inner().unwrap().into_values() {
        table.push_str(&line);
        table.push('\n');
        wrong.extend(complaints);
    }
    std::fs::create_dir_all(root().join("target")).unwrap();
    std::fs::write(root().join("target/fault-table.md"), &table).unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}\n{table}");
}

/// Thoughts, text and two calls: an answer with everything in it.
fn golden() -> Chat {
    Chat::new()
        .reasoning("I think ")
        .reasoning("about it.")
        .text("I run ")
        .text("two.")
        .exec("call_1", "echo one >> log")
        .exec("call_2", "echo two >> log")
        .complete()
}

fn ask() -> Value {
    let parameters = json!({"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]});
    let tool = json!({"type": "function", "name": "exec_command", "strict": false, "parameters": parameters});
    let content = json!([{"type": "input_text", "text": "run two"}]);
    json!({"model": "work", "stream": true, "store": false, "tools": [tool], "tool_choice": "auto",
        "parallel_tool_calls": true, "include": ["reasoning.encrypted_content"],
        "input": [{"type": "message", "role": "user", "content": content}]})
}

fn call_ids(answer: &Answer) -> Vec<String> {
    let items = answer.items();
    let calls = items.iter().filter(|item| item["type"] == "function_call");
    calls.map(|item| item["call_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What a client may act on: at most one terminal event, no call twice, every call whole.
fn check_law(answer: &Answer, at: &str) {
    let calls = call_ids(answer);
    let mut unique = calls.clone();
    unique.dedup();
    assert_eq!(calls, unique, "{at}: a call twice: {}", answer.text());
    for item in answer.items().iter().filter(|item| item["type"] == "function_call") {
        let arguments = item["arguments"].as_str().unwrap_or_default();
        let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{at}: {e}: {item}"));
        assert!(arguments["cmd"].as_str().is_some_and(|cmd| cmd.ends_with(">> log")), "{at}: {item}");
    }
}

#[test]
fn the_golden_answer_is_complete() {
    let upstream = Upstream::start(|_| golden().reply());
    let proxy = Setup::default().start(&upstream);
    let answer = proxy.responses(&ask());
    assert_eq!((answer.status, answer.terminal()["type"].as_str()), (200, Some("response.completed")));
    check_law(&answer, "whole");
    assert_eq!(call_ids(&answer), ["call_1", "call_2"]);
    assert_eq!(answer.terminal()["response"]["usage"]["total_tokens"], 120);
}

/// A cut at every event: for good, and once.
fn cut_everywhere(cut: Cut) {
    let golden = golden();
    // What says that the answer is over; what comes behind may be missing.
    let over = golden.frames().iter().position(|frame| frame.contains("\"finish_reason\":\"tool_calls\"")).unwrap();
    for n in 0..golden.frames().len() {
        for lasts in [true, false] {
            let at = format!("{cut:?} after {n} of {} frames, lasting: {lasts}", golden.frames().len());
            let (broken, whole) = (golden.cut(n, cut), golden.reply());
            let upstream = Upstream::start(
                move |request| {
                    if lasts || request.index == 0 { broken.clone() } else { whole.clone() }
                },
            );
            let proxy = Setup { proxy: "retry_deadline_s = 1\nhead_hold_s = 1".to_owned(), ..Setup::default() };
            let proxy = proxy.start(&upstream);
            let answer = proxy.responses(&ask());
            assert!(upstream.count() <= 6, "{at}: {} calls of the upstream", upstream.count());
            if answer.status != 200 {
                assert!(lasts, "{at}: {} {}", answer.status, answer.text());
                assert!((500..600).contains(&answer.status), "{at}: {} {}", answer.status, answer.text());
                assert!(answer.json()["error"]["message"].is_string(), "{at}: {}", answer.text());
                continue;
            }
            let end = answer.terminal();
            check_law(&answer, &at);
            match end["type"].as_str() {
                Some("response.completed") => {
                    assert!(n > over || (!lasts && upstream.count() > 1), "{at}: called complete: {}", answer.text());
                    assert_eq!(call_ids(&answer), ["call_1", "call_2"], "{at}");
                }
                _ => {
                    assert!(n <= over + 1, "{at}: all was there: {}", answer.text());
                    assert_eq!(end["response"]["error"]["code"], "server_error", "{at}: {end}");
                    assert_eq!(upstream.count(), 1, "{at}: an answer that had begun was asked for again");
                }
            }
        }
    }
}

#[test]
fn a_reset_at_any_event_is_told_once_and_in_order() {
    cut_everywhere(Cut::Reset);
}

#[test]
fn a_clean_cut_at_any_event_is_told_once_and_in_order() {
    cut_everywhere(Cut::Close);
}

#[test]
fn any_split_of_the_bytes_gives_the_same_answer() {
    let mut seen: Option<Vec<Value>> = None;
    for size in [1, 2, 7, 64, 100_000] {
        let upstream = Upstream::start(move |_| golden().reply().split(size));
        let answer = Setup::default().start(&upstream).responses(&ask());
        let mut items = answer.items();
        // Ids and sealed thoughts differ from answer to answer.
        for item in &mut items {
            item["id"].take();
            item["encrypted_content"].take();
        }
        assert_eq!(answer.terminal()["type"], "response.completed");
        assert_eq!(seen.get_or_insert_with(|| items.clone()), &items, "writes of {size} bytes");
    }
}

#[test]
fn commands_run_at_most_once_wherever_the_answer_breaks_off() {
    if crate::support::codex_bin().is_none() {
        return;
    }
    let golden = golden();
    let calls_begin = golden.frames().iter().position(|frame| frame.contains("call_1")).unwrap();
    let second_begins = golden.frames().iter().position(|frame| frame.contains("call_2")).unwrap();
    for n in [calls_begin + 1, second_begins, second_begins + 1, golden.frames().len() - 4, golden.frames().len() - 2] {
        let (broken, whole) = (golden.cut(n, Cut::Reset), golden.reply());
        let upstream = Upstream::start(move |request| match (request.index, request.results()) {
            (0, _) => broken.clone(),
            (_, 0) => whole.clone(),
            _ => say("over"),
        });
        let proxy = Setup { proxy: SHORT.to_owned(), ..Setup::default() }.start(&upstream);
        let codex = Codex::new(proxy.endpoint()).unwrap();
        let run = codex.exec("run two");
        assert_eq!((run.exit, run.message()), (Some(0), Some("over")), "cut after {n}: {run:#?}");
        let log = codex.file("log").unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count, "cut after {n}: a command ran twice: {log}");
        assert!(upstream.count() <= 3, "cut after {n}: {} calls", upstream.count());
    }
}

/// The events of a stream, as they come.
struct Live(BufReader<std::net::TcpStream>);

impl Live {
    fn open(proxy: &Proxy) -> Self {
        let bearer = format!("Bearer {}", proxy.token());
        let headers = [("authorization", bearer.as_str())];
        Self(BufReader::new(http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask())).unwrap()))
    }

    /// Reads until a line with that text.
    fn until(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended before {text}");
            if line.contains(text) {
                return;
            }
        }
    }
}

#[test]
fn a_silent_upstream_is_covered_by_keepalives_between_whole_events() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        let mut reply = golden().reply();
        reply.steps.insert(0, Step::Wait(held.clone()));
        reply
    });
    let proxy = Setup { proxy: "head_hold_s = 1\nkeepalive_s = 1".to_owned(), ..Setup::default() }.start(&upstream);
    let mut live = Live::open(&proxy);
    live.until("200 OK");
    // The first belongs to the beginning of every answer.
    for _ in 0..3 {
        live.until("\"type\":\"response.in_progress\"");
    }
    gate.open();
    live.until("\"type\":\"response.completed\"");
}

#[test]
fn a_client_that_leaves_is_known_to_the_upstream() {
    let upstream = Upstream::start(|_| Chat::new().text("half").open().then(Step::Stall));
    let proxy = Setup::default().start(&upstream);
    let mut live = Live::open(&proxy);
    live.until("response.output_text.delta");
    drop(live);
    upstream.wait_closed(0, Duration::from_secs(2));
}

#[test]
fn on_sigterm_a_running_answer_gets_its_end() {
    let upstream = Upstream::start(|_| Chat::new().text("half").open().then(Step::Stall));
    let mut proxy = Setup { proxy: "drain_s = 1".to_owned(), ..Setup::default() }.start(&upstream);
    let mut live = Live::open(&proxy);
    live.until("response.output_text.delta");
    proxy.sigterm();
    live.until("\"type\":\"response.failed\"");
    assert!(http::closed_within(live.0.get_ref(), DEADLINE));
    assert!(proxy.wait_exit().success(), "{}", proxy.log());
}

#[test]
fn an_answer_that_is_whole_ends_its_connection_in_order() {
    let upstream = Upstream::start(|_| say("hello"));
    let proxy = Setup::default().start(&upstream);
    let answer = proxy.responses(&ask());
    assert_eq!((answer.status, answer.end), (200, BodyEnd::Whole));
    let types: Vec<Value> = answer.events().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types.first(), Some(&json!("response.created")));
    let numbers: Vec<u64> = answer.events().iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}
