//! The record of usage: real requests through the built proxy, the real file, and `codex-proxyctl usage` over it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use codex_proxy::{
    model::usage::Usage,
    proxy::ledger::store::{End, Place, Row, Store},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::{Connection, OpenFlags, types::Value as Sql};
use serde_json::{Value, json};

use crate::{
    ctl::Done,
    relay,
    support::{
        chat::Chat,
        events::DEADLINE,
        http,
        proxy::{Proxy, Setup},
        responses::{answer, frame, message},
        scratch,
        upstream::{Cut, Reply, Upstream},
    },
};

fn ask(model: &str) -> Value {
    json!({"model": model, "stream": true, "input": "a secret prompt"})
}

fn demo() -> Proxy {
    Proxy::start("", &[])
}

fn file_of(proxy: &Proxy) -> PathBuf {
    proxy.home().join("state/codex-proxy/usage.sqlite")
}

/// Stops the proxy in order.
fn stop(proxy: &mut Proxy) {
    proxy.sigterm();
    assert!(proxy.wait_exit().success(), "{}", proxy.log());
}

fn open(file: &Path) -> Connection {
    Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// All rows of a query, all their columns.
fn query(file: &Path, sql: &str) -> Vec<Vec<Sql>> {
    let connection = open(file);
    let mut select = connection.prepare(sql).unwrap();
    let columns = select.column_count();
    let rows = select.query_map([], |row| (0..columns).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

fn count(file: &Path) -> i64 {
    open(file).query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap_or(0)
}

fn metric(proxy: &Proxy, name: &str) -> u64 {
    let page = proxy.send("GET", "/metrics", None).unwrap().text();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("codex_proxy_{name} ")));
    line.unwrap_or_else(|| panic!("{name}: {page}")).parse().unwrap()
}

/// `codex-proxyctl` with the state directory of a proxy, in a time zone.
fn ctl(home: &Path, zone: &str, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_codex-proxyctl"));
    command.env_clear().env("HOME", home).env("XDG_STATE_HOME", home.join("state")).env("TZ", zone);
    Done::of(command.args(arguments).stdin(Stdio::null()).output().unwrap())
}

fn told(done: Done) -> String {
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    done.stdout
}

const COLUMNS: &str = "model, provider, upstream_model, protocol, input, cached, output, reasoning, estimated, attempts, \
                       outcome, failure, cost_micro, currency";

#[test]
fn what_an_answer_cost_that_was_thrown_away_is_counted() {
    let called = || Chat::new().call("c", "run", &json!({})).finish("tool_calls").usage(100, 20).done().reply();
    let failed = || {
        let error = json!({"error": {"message": "boom", "code": 500}});
        Chat::new().text("half").usage(7, 1).data(error).reply()
    };
    let summary = || Chat::new().text("SUMMARY").finish("stop").usage(50, 5).done().reply();
    let upstream = Upstream::sequence(vec![called(), failed(), summary()]);
    let prices = "[prices]\ncurrency = 'EUR'\n[prices.\"up/deepseek-v4-pro\"]\ninput = 3\noutput = 15\n";
    let setup = Setup { more: prices.to_owned(), ..Setup::default() };
    let mut proxy = setup.start(&upstream);
    let mut body = ask("work");
    body["input"] = json!([{"role": "user", "content": "go"}, {"type": "compaction_trigger"}]);
    assert_eq!(proxy.responses(&body).terminal()["response"]["usage"]["total_tokens"], 55);
    assert_eq!(metric(&proxy, "input_tokens_total"), 157);
    stop(&mut proxy);
    let row = query(&file_of(&proxy), "SELECT input, output, attempts, outcome, cost_micro FROM requests").remove(0);
    let numbers = [157, 26, 3].map(Sql::Integer);
    assert_eq!((&row[..3], &row[3]), (numbers.as_slice(), &Sql::Text("completed".to_owned())));
    assert_eq!(row[4], Sql::Integer(157 * 3 + 26 * 15));
}

#[test]
fn what_a_relayed_failure_cost_is_counted() {
    let usage = json!({"input_tokens": 40, "output_tokens": 2, "total_tokens": 42});
    let end = json!({"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "usage": usage,
        "error": {"code": "server_error", "message": "no"}}});
    let item = json!({"type": "response.output_item.done", "output_index": 0, "item": message("msg_1", "half")});
    let begun = [frame(&item), frame(&end)];
    let compaction = json!({"id": "resp_2", "object": "response.compaction", "output": [message("msg_2", "no")],
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}});
    let upstream = Upstream::sequence(vec![
        Reply::sse(&begun),
        Reply::json(200, &compaction),
        answer("resp_3", &[message("msg_3", "SUMMARY")]),
    ]);
    let mut proxy = Proxy::start(&relay::config("", &[("native", &upstream)]), &[("UP_KEY", "sk-test-upstream")]);
    assert_eq!(proxy.responses(&ask("work")).terminal()["type"], "response.failed");
    let body = json!({"model": "work", "input": "go"});
    assert_eq!(proxy.send("POST", "/v1/responses/compact", Some(&body)).unwrap().status, 200);
    stop(&mut proxy);
    let rows = query(&file_of(&proxy), "SELECT input, output FROM requests ORDER BY id");
    assert_eq!(rows, [[40, 2], [200, 40]].map(|row| row.map(Sql::Integer).to_vec()));
}

#[test]
fn every_exchange_is_one_row_however_it_ends() {
    let usage = json!({
        "choices": [],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020,
            "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100,
            "completion_tokens_details": {"reasoning_tokens": 5}},
    });
    let counted = Chat::new().text("hello").finish("stop").data(usage).done();
    let upstream = Upstream::sequence(vec![
        counted.reply(),
        Reply::error(500, "server_error", "x", "no"),
        counted.reply(),
        Chat::new().text("hello").finish("stop").done().reply(),
        Chat::new().text("hello").finish("length").usage(7, 1).done().reply(),
        Reply::error(400, "invalid_request_error", "x", "not like this"),
        Chat::new().text("hel").cut(2, Cut::Stall),
    ]);
    let prices = "[prices]\ncurrency = 'EUR'\n[prices.\"up/deepseek-v4-pro\"]\ninput = 3\ncached = 0.3\noutput = 15\n";
    let setup = Setup { more: prices.to_owned(), ..Setup::default() };
    let mut proxy = setup.start(&upstream);
    for _ in 0..4 {
        assert_eq!(proxy.responses(&ask("work")).status, 200);
    }
    assert_eq!(proxy.responses(&ask("work")).status, 400);
    assert_eq!(proxy.responses(&ask("nobody")).status, 404);
    assert_eq!(proxy.responses(&json!({"model": 7})).status, 400);
    assert_eq!(proxy.responses(&ask("demo")).status, 200);
    let bearer = format!("Bearer {}", proxy.token());
    let headers = [("authorization", bearer.as_str())];
    let leaving = http::open(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("work"))).unwrap();
    upstream.wait_requests(7, DEADLINE);
    drop(leaving);
    upstream.wait_closed(6, DEADLINE);
    // Not an exchange: nobody was let in.
    assert_eq!(http::send(proxy.address(), "POST", "/v1/responses", &[], Some(&ask("work"))).unwrap().status, 401);
    stop(&mut proxy);

    let file = file_of(&proxy);
    let text = |text: &str| Sql::Text(text.to_owned());
    let place = || vec![text("work"), text("up"), text("deepseek-v4-pro"), text("chat")];
    let numbers = |numbers: &[i64]| numbers.iter().map(|number| Sql::Integer(*number)).collect::<Vec<_>>();
    let nothing = |count: usize| vec![Sql::Null; count];
    let end = |outcome: &str, failure: Option<&str>| vec![text(outcome), failure.map_or(Sql::Null, text)];
    let euro = |micro: i64| vec![Sql::Integer(micro), text("EUR")];
    let rows = query(&file, &format!("SELECT {COLUMNS} FROM requests ORDER BY id"));
    let expected = [
        // 100 · 3 + 900 · 0.3 + 20 · 15
        [place(), numbers(&[1000, 900, 20, 5, 0, 1]), end("completed", None), euro(870)].concat(),
        [place(), numbers(&[1000, 900, 20, 5, 0, 2]), end("completed", None), euro(870)].concat(),
        rows[2].clone(),
        [place(), numbers(&[7, 0, 1, 0, 0, 1]), end("incomplete", None), euro(36)].concat(),
        [place(), nothing(5), numbers(&[1]), end("failed", Some("invalid_request")), nothing(2)].concat(),
        [vec![text("nobody")], nothing(8), numbers(&[0]), end("failed", Some("model_not_found")), nothing(2)].concat(),
        [nothing(9), numbers(&[0]), end("failed", Some("invalid_request")), nothing(2)].concat(),
        rows[7].clone(),
        [place(), nothing(5), numbers(&[1]), end("client_gone", None), nothing(2)].concat(),
    ];
    assert_eq!(rows, expected);
    // Nobody counted, so we guessed, and the price is for the guess.
    assert_eq!((&rows[2][8], &rows[2][10], &rows[2][13]), (&Sql::Integer(1), &text("completed"), &text("EUR")));
    let demo = [text("demo"), text("demo"), text("demo"), text("demo")];
    assert_eq!(
        (&rows[7][..4], &rows[7][8..]),
        (&demo[..], &[numbers(&[1, 0]), end("completed", None), nothing(2)].concat()[..])
    );

    let checks = "SELECT count(*), count(DISTINCT request_id), min(request_id LIKE 'req_%'), min(5, count(first_ms)),
        max(abs(at - unixepoch())) < 100, min(duration_ms >= coalesce(first_ms, 0)) FROM requests";
    assert_eq!(query(&file, checks), [numbers(&[9, 9, 1, 5, 1, 1])]);
    let bytes = fs::read(&file).unwrap();
    for secret in ["a secret prompt", "hello", "sk-test-upstream", proxy.token().as_str()] {
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is in the file");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_thousand_exchanges_leave_a_thousand_rows() {
    let mut proxy = demo();
    assert!(!file_of(&proxy).exists(), "no file before there is a row");
    hammer(&proxy, 4, 250);
    let seen = count(&file_of(&proxy));
    stop(&mut proxy);
    let file = file_of(&proxy);
    let (rows, ids): (i64, i64) = open(&file)
        .query_row("SELECT count(*), count(DISTINCT request_id) FROM requests", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((rows, ids), (1000, 1000), "{seen} before the stop");
    assert!(!proxy.log().contains("WARN"), "{}", proxy.log());
}

/// So many at once, so many each.
fn hammer(proxy: &Proxy, threads: usize, each: usize) {
    let bearer = format!("Bearer {}", proxy.token());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    let headers = [("authorization", bearer.as_str())];
                    // Of those that the test kills nobody expects an answer.
                    drop(http::send(proxy.address(), "POST", "/v1/responses", &headers, Some(&ask("demo"))));
                }
            });
        }
    });
}

#[test]
fn a_killed_proxy_leaves_whole_rows() {
    let mut proxy = Proxy::start_logging("", &[], "debug");
    let file = file_of(&proxy);
    thread::scope(|scope| {
        scope.spawn(|| hammer(&proxy, 3, 400));
        let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap());
        // Some batches are in, others on their way.
        let written = proxy.wait_log("usage recorded", DEADLINE);
        kill(pid, Signal::SIGKILL).unwrap();
        assert!(written);
    });
    assert!(!proxy.wait_exit().success());
    let rows = count(&file);
    assert!(rows > 0 && rows < 1200, "{rows}");
    let connection = open(&file);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let whole = "SELECT count(*) FROM requests WHERE length(request_id) = 36 AND outcome = 'completed' AND input > 0";
    assert_eq!(connection.query_row(whole, [], |row| row.get::<_, i64>(0)).unwrap(), rows);
    let ids: BTreeSet<String> = query(&file, "SELECT request_id FROM requests")
        .into_iter()
        .map(|row| match &row[0] {
            Sql::Text(id) => id.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(i64::try_from(ids.len()).unwrap(), rows);
    drop(connection);
    // The next run goes on where this one ended, and anybody can look meanwhile.
    assert!(told(ctl(proxy.home(), "UTC", &["usage"])).contains("day "));
    let mut store = Store::open(&file).unwrap();
    store.check().unwrap();
    store.append(&[row(1_795_240_000, None)]).unwrap();
    assert_eq!(count(&file), rows + 1);
}

#[test]
fn a_damaged_file_is_set_aside_and_begun_anew() {
    let mut proxy = demo();
    let file = file_of(&proxy);
    fs::write(&file, "this is no database, and long enough to be looked at ".repeat(100)).unwrap();
    let done = ctl(proxy.home(), "UTC", &["usage"]);
    assert_eq!((done.code, done.stderr.contains("it is damaged")), (Some(6), true), "{done:?}");
    assert_eq!(proxy.responses(&ask("demo")).status, 200);
    assert!(proxy.wait_log("it is set aside and a new one begun", DEADLINE), "{}", proxy.log());
    stop(&mut proxy);
    assert_eq!(count(&file), 1);
    assert!(fs::read_to_string(file.with_file_name("usage.sqlite.corrupt-1")).unwrap().starts_with("this is no"));
}

#[test]
fn requests_are_served_while_nothing_can_be_written() {
    let mut proxy = demo();
    let file = file_of(&proxy);
    fs::create_dir(&file).unwrap();
    let done = ctl(proxy.home(), "UTC", &["usage"]);
    assert_eq!((done.code, done.stderr.contains("is a directory")), (Some(6), true), "{done:?}");
    assert_eq!(proxy.responses(&ask("demo")).status, 200);
    assert!(proxy.wait_log("cannot record usage, serving without", DEADLINE), "{}", proxy.log());
    let health = || http::send(proxy.address(), "GET", "/health", &[], None).unwrap().json()["state"].clone();
    assert_eq!(health(), "degraded");
    assert_eq!(proxy.responses(&ask("demo")).status, 200);
    fs::remove_dir(&file).unwrap();
    assert!(proxy.wait_log("usage is recorded again", DEADLINE), "{}", proxy.log());
    assert_eq!(health(), "ready");
    assert_eq!((metric(&proxy, "usage_rows_total"), metric(&proxy, "usage_rows_dropped_total")), (2, 0));
    assert_eq!(proxy.log().matches("cannot record usage").count(), 1, "told once: {}", proxy.log());
    stop(&mut proxy);
    assert_eq!(count(&file), 2);
}

#[test]
fn who_wants_no_record_has_none() {
    let mut proxy = Proxy::start("[usage]\nenabled = false\n", &[]);
    assert_eq!(proxy.responses(&ask("demo")).status, 200);
    stop(&mut proxy);
    assert!(!file_of(&proxy).exists());
    let text = told(ctl(proxy.home(), "UTC", &["usage"]));
    assert!(text.starts_with("no usage is recorded yet") && text.contains("enabled = false"), "{text}");
}

/// A row of that moment; with a cost of so many millionths.
fn row(at_s: u64, cost: Option<u64>) -> Row {
    Row {
        at_s,
        request_id: format!("req_{at_s:032x}"),
        model: "work".to_owned(),
        place: Some(Place { provider: "up".to_owned(), model: "x/m".to_owned(), protocol: "chat" }),
        usage: Some(Usage { input: 1000, cached: 500, output: 10, ..Usage::default() }),
        first_after: Some(std::time::Duration::from_millis(1500)),
        duration: std::time::Duration::from_secs(2),
        attempts: 1,
        end: End::Completed,
        cost: cost.map(|micro| (micro, "USD".to_owned())),
    }
}

#[test]
fn usage_is_summed_up_by_day_model_provider_and_route() {
    let home = scratch();
    let home = home.path();
    assert!(told(ctl(home, "UTC", &["usage"])).starts_with("no usage is recorded yet"));
    let empty: Value = serde_json::from_str(&told(ctl(home, "UTC", &["usage", "--json"]))).unwrap();
    assert_eq!((&empty["groups"], &empty["total"]["requests"]), (&json!([]), &json!(0)));
    assert!(!home.join("state").exists(), "looking makes nothing");

    let mut store = Store::open(&home.join("state/codex-proxy/usage.sqlite")).unwrap();
    // 23:30 and 00:30 UTC around the beginning of 2026-11-21.
    let midnight = 1_795_219_200;
    let other = Row { model: "other".to_owned(), end: End::ClientGone, usage: None, ..row(midnight + 60, None) };
    store.append(&[row(midnight - 1800, Some(1_500_000)), row(midnight + 1800, None), other]).unwrap();
    // The writer is still there.
    let usage =
        |zone: &str, more: &[&str]| told(ctl(home, zone, &[&["usage", "--since", "2026-11-01"], more].concat()));
    let text = usage("UTC", &[]);
    assert!(text.starts_with("since 2026-11-01 00:00; tokens\nday "), "{text}");
    for line in [
        "2026-11-20         1 ",
        "2026-11-21         2 ",
        "total              3 ",
        "> 1.5000 USD\n",
        "No price: 1 of 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // Two hours to the east all of it is one day.
    let text = usage("XXX-2", &[]);
    assert!(
        text.contains("2026-11-21         3 ") && !text.contains("2026-11-20") && !text.contains("total"),
        "{text}"
    );
    let keys = |by: &str| -> Vec<(String, u64)> {
        let report: Value = serde_json::from_str(&usage("UTC", &["--by", by, "--json"])).unwrap();
        let groups = report["groups"].as_array().unwrap().iter();
        groups.map(|g| (g["key"].as_str().unwrap().to_owned(), g["requests"].as_u64().unwrap())).collect()
    };
    assert_eq!(keys("model"), [("work".to_owned(), 2), ("other".to_owned(), 1)]);
    assert_eq!(keys("provider"), [("up".to_owned(), 3)]);
    assert_eq!(keys("route"), [("up/x/m".to_owned(), 3)]);

    // Dates are local.
    let requests = |zone: &str, since: &str, until: &str| -> u64 {
        let done = ctl(home, zone, &["usage", "--json", "--since", since, "--until", until]);
        serde_json::from_str::<Value>(&told(done)).unwrap()["total"]["requests"].as_u64().unwrap()
    };
    assert_eq!(requests("UTC", "2026-11-21", "2026-11-22"), 2);
    assert_eq!(requests("XXX-2", "2026-11-21", "2026-11-22"), 3);
    assert_eq!(requests("UTC", "2026-11-20 23:30", "2026-11-21 00:01"), 1);
    let none = told(ctl(home, "UTC", &["usage", "--since", "2020-01-01", "--until", "2020-01-02"]));
    assert!(none.starts_with("no request is recorded from 2020-01-01 00:00 to 2020-01-02 00:00"), "{none}");
    for wrong in [["--since", "soon"], ["--until", "2020-01-01"], ["--by", "colour"]] {
        let done = ctl(home, "UTC", &[&["usage"], &wrong[..]].concat());
        assert_eq!(done.code, Some(2), "{done:?}");
    }
}
